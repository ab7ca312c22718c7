#!/usr/bin/env bash
# All tests, in the order in which they tell soonest that something is wrong.
#
# usage: run.sh quick    lints, unit, property and golden tests: no cluster, no root
#        run.sh all      everything, to a verdict
#        run.sh soak     everything with the long counts
#        run.sh images   only the operator's image, and that of the commit before
#        run.sh api      only what needs the API server, once everything is built
#        run.sh node     only what needs real pods, once everything is built
#        run.sh ipv6     the life of an agent on a node without IPv4, once everything is built
#        run.sh down     ends the clusters that an aborted run left
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh

# A backtrace hides what the test said.
export RUST_BACKTRACE=0

CLUSTER=tests/cluster
BESIDE=$STATE/beside

main() {
  SECONDS=0
  case ${1-} in
    quick) quick ;;
    all) everything ;;
    soak)
      export SOAK=1 LAW_CASES=${LAW_CASES:-100000}
      everything
      ;;
    images) operator_images; return ;;
    api) api_server; return ;;
    node) node; return ;;
    ipv6) ipv6; return ;;
    down) down; return ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
  printf 'all tests passed in %d min %d s\n' $((SECONDS / 60)) $((SECONDS % 60))
}

everything() {
  "$CLUSTER/prereq.sh"
  step 'dependencies as an earlier run built them' "$CLUSTER/dependencies.sh" restore
  # Programs of the cluster, images and the static binary have nothing to do with each other.
  "$CLUSTER/binaries.sh"
  "$CLUSTER/images.sh"
  trap end_beside EXIT
  # Its linker uses one core for minutes.
  start_beside nice "$0" images
  quick
  join_beside
  [[ -z ${SOAK-} ]] || "$CLUSTER/arm64-image.sh"
  step 'cluster tests, compile' cargo test --locked --quiet --test install --test api_server --test node --no-run
  # Both clusters at once: each waits more than it computes.
  start_beside "$0" api
  node
  join_beside
  step 'dependencies are kept for the next run' "$CLUSTER/dependencies.sh" keep
  [[ -z ${SOAK-} ]] || ipv6
}

# start_beside COMMAND…: in the background, in a process group of its own. What it says comes with join_beside.
start_beside() {
  mkdir -p target
  AGENT_TRACING_STATE=$BESIDE setsid "$@" >target/beside.log 2>&1 &
  beside=$!
}

join_beside() {
  local rc=0
  wait "$beside" || rc=$?
  beside=''
  cat target/beside.log
  return "$rc"
}

end_beside() { [[ -z ${beside-} ]] || kill -- "-$beside" 2>/dev/null || true; }

operator_images() {
  "$CLUSTER/operator-image.sh"
  "$CLUSTER/operator-image.sh" previous
}

down() {
  end_beside
  "$CLUSTER/node.sh" down
  "$CLUSTER/api.sh" down
  [[ ! -d $BESIDE ]] || AGENT_TRACING_STATE=$BESIDE "$CLUSTER/api.sh" down
  [[ ! -d $STATE/ipv6 ]] || AGENT_TRACING_STATE=$STATE/ipv6 "$CLUSTER/node.sh" down
}

quick() {
  step 'format' cargo fmt --check
  step 'clippy' cargo clippy --locked --all-targets --quiet -- -D warnings
  # A workspace of its own, which nothing above compiles; its targets run beside the cluster with real pods.
  step 'fuzz targets compile' cargo check --locked --quiet --manifest-path fuzz/Cargo.toml --target-dir target
  step 'scripts (shellcheck)' shell_scripts
  # The laws at full length come beside the cluster with real pods.
  step 'unit, property, golden and fake-API tests' env "LAW_CASES=${LAW_CASES:-1000}" cargo test --locked --quiet
  step 'documentation builds' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet
}

shell_scripts() {
  git ls-files --cached --others --exclude-standard '*.sh' .ci/run | xargs shellcheck --external-sources --source-path SCRIPTDIR
}

# The API server alone, on loopback: schema, CEL, RBAC, admission, golden cases as server-side dry runs.
api_server() {
  trap down EXIT
  "$CLUSTER/api.sh" up
  step 'both ways to install render the same objects' with_api cargo test --locked --quiet --test install -- --ignored
  step 'API server: schema, CEL, RBAC, admission' with_api \
    cargo test --locked --quiet --test api_server -- --ignored --test-threads=1
  step 'API server: the standalone server as it is read back' with_api tests/golden-desired/api.sh
  # Here, since it only computes, and the cluster with real pods beside it mostly waits.
  step 'fuzzing: certificate authorities, answers of MLflow, admission reviews' nice tests/fuzz.sh "${SOAK:+300}"
  step "laws of injection, ${LAW_CASES:-10000} workloads for each" nice cargo test --locked --quiet --test laws
}

with_api() (
  eval "$("$CLUSTER/api.sh" env)"
  export OPERATOR_BINARY HELM=$BIN/helm KUBECTL=$BIN/kubectl PROMTOOL=$BIN/promtool CERT_MANAGER=$BIN/cert-manager
  OPERATOR_BINARY=$(operator_binary)
  "$@"
)

# The whole cluster with real pods.
node() {
  trap down EXIT
  "$CLUSTER/node.sh" up
  step 'images into the node' "$CLUSTER/node.sh" load "$("$CLUSTER/operator-image.sh" path)" \
    "$("$CLUSTER/images.sh" path mlflow)" "$("$CLUSTER/images.sh" path langgraph)" \
    "$("$CLUSTER/images.sh" path llm)" "$("$CLUSTER/images.sh" path idle)" \
    "$("$CLUSTER/images.sh" path mlflow-cr-a)" "$("$CLUSTER/images.sh" path mlflow-cr-b)" \
    "$("$CLUSTER/images.sh" path langgraph-plugin)" "$("$CLUSTER/images.sh" path adk)" \
    "$("$CLUSTER/images.sh" path go)"
  if [[ -s target/previous/operator.tar ]]; then
    step 'image of the commit before into the node' "$CLUSTER/node.sh" load target/previous/operator.tar
  fi
  local image
  if [[ -n ${SOAK-} ]]; then
    for image in crewai autogen llamaindex; do
      "$CLUSTER/images.sh" "$image"
      step "image $image into the node" "$CLUSTER/node.sh" load "$("$CLUSTER/images.sh" path "$image")"
    done
  fi
  step 'migration of the database, in the image that runs it' "$CLUSTER/node.sh" exec tests/migrate/run.sh
  # Compiled before: the namespace has no way to anywhere.
  step 'node tests: real pods, real MLflow' "$CLUSTER/node.sh" exec \
    cargo test --locked --offline --test node -- --ignored --test-threads=1
}

# An agent, its MLflow and the operator where no pod and no Service has an IPv4 address (case B34).
ipv6() (
  export IP_FAMILY=ipv6 AGENT_TRACING_STATE=$STATE/ipv6
  trap '"$CLUSTER/node.sh" down' EXIT
  "$CLUSTER/node.sh" up
  step 'images into the IPv6 node' "$CLUSTER/node.sh" load "$("$CLUSTER/operator-image.sh" path)" \
    "$("$CLUSTER/images.sh" path mlflow)" "$("$CLUSTER/images.sh" path langgraph)" "$("$CLUSTER/images.sh" path llm)" \
    "$("$CLUSTER/images.sh" path idle)"
  step 'node tests on IPv6' "$CLUSTER/node.sh" exec \
    cargo test --locked --offline --test node -- --ignored --test-threads=1 life:: check::
)

operator_binary() { echo "$PWD/target/$(uname -m)-unknown-linux-musl/release/agent-tracing-operator"; }

main "$@"
