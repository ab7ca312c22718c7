#!/usr/bin/env bash
# What docs/measurements.md says about speed and memory, measured here: prints a table of the static binary that the image holds.
# Needs a calm machine: on a busy one CPU times rise by a third.
set -euo pipefail
cd "$(dirname "$0")/.."

tests/cluster/operator-image.sh
OPERATOR_BINARY=$PWD/target/$(uname -m)-unknown-linux-musl/release/agent-tracing-operator
export OPERATOR_BINARY
printf '%s, %s, commit %s\n' "$(date -u +%F)" "$(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -1)" "$(git rev-parse --short HEAD)"
cargo bench --locked --quiet --bench admission
cargo bench --locked --quiet --bench https
cargo bench --locked --quiet --bench hostile

# Against an API server without a node; the program that asks is not what is measured.
trap 'tests/cluster/api.sh down' EXIT
tests/cluster/api.sh up
eval "$(tests/cluster/api.sh env)"
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
export HELM=$BIN/helm KUBECTL=$BIN/kubectl
cargo bench --locked --quiet --profile dev --bench scale -- 100 1000 10000
