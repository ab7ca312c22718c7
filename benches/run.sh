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
# What a minute at rest costs, with every workload traced: with a real MLflow, and for the largest size with a stand-in that
# counts its requests.
mlflow=$CACHE/mlflow-3.10.1
if [[ ! -x $mlflow/bin/mlflow ]]; then
  python3 -m venv "$mlflow"
  "$mlflow/bin/pip" install --quiet mlflow==3.10.1
fi
database=$(mktemp -d)
# A process group of its own: the server is a child of the command.
setsid "$mlflow/bin/mlflow" server --host 127.0.0.1 --port 5997 --workers 1 \
  --backend-store-uri "sqlite:///$database/mlflow.db" >"$database/log" 2>&1 &
server=$!
trap 'kill -- "-$server"; tests/cluster/api.sh down; rm -r "$database"' EXIT
export REST_SECONDS=${REST_SECONDS:-300}
MLFLOW_TRACKING_URI=http://127.0.0.1:5997 cargo bench --locked --quiet --profile dev --bench rest -- 1/1 100/1 1000/1
cargo bench --locked --quiet --profile dev --bench rest -- 10000/50
