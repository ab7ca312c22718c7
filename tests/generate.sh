#!/usr/bin/env bash
# Writes what is derived from the code. `make test` fails when any of it is stale.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { cargo run --locked --quiet --bin agent-tracing-operator -- "$@"; }

run crds >crds/agenttracing.dev_agenttracings.yaml.new
mv crds/agenttracing.dev_agenttracings.yaml.new crds/agenttracing.dev_agenttracings.yaml
cp crds/agenttracing.dev_agenttracings.yaml charts/agent-tracing-operator/crds/agenttracing.dev_agenttracings.yaml

# The pages of docs/reference, between their marks; the alerts as an object of the Prometheus operator.
UPDATE_GOLDEN=1 cargo test --locked --quiet --test documents reference >/dev/null
UPDATE_GOLDEN=1 cargo test --locked --quiet --test metrics >/dev/null

UPDATE_GOLDEN=1 cargo test --locked --quiet --test desired >/dev/null
# The others compare with what this one writes.
UPDATE_GOLDEN=1 cargo test --locked --quiet --test golden every_case_prints >/dev/null
git status --short -- crds charts config docs tests
