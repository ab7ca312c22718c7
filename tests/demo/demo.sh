#!/usr/bin/env bash
# The main job, from nothing: a cluster, agents, the operator, MLflow, a trace that arrived.
#
# usage: demo.sh up      in a cluster made on this machine, or in the one of DEMO_KUBECONFIG
#        demo.sh down    removes what `up` made
# shellcheck disable=SC2016 # back-ticks in messages name commands, they run none
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
# shellcheck source=tests/demo/common.sh
source tests/demo/common.sh

CLUSTER=tests/cluster
MANIFESTS=tests/demo/manifests
NAMESPACE=bank-agents
PORT=5500
FORWARD=15500

main() {
  SECONDS=0
  case ${1-} in
    up) up ;;
    down) down ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
}

up() {
  title 'Tools, images and a cluster'
  prepare
  title 'Agents, as people have them: applied first, they know nothing of the operator'
  step 'namespace with Pod Security "restricted", a stand-in for the language model' start_model
  step "three LangGraph agents: teller, advisor, backoffice" k apply -f "$MANIFESTS/agents.yaml"
  title 'The operator'
  step 'kubectl apply -k config/default' k apply -k config/default
  step 'two replicas ready' k rollout status deployment/agent-tracing-operator -n agent-tracing-system --timeout=120s
  title 'Two things a person does'
  step "kubectl label namespace $NAMESPACE agenttracing.dev/injection=enabled" \
    k label --overwrite namespace "$NAMESPACE" agenttracing.dev/injection=enabled
  forget_other_mode Standalone "$NAMESPACE"
  step "kubectl apply -f $MANIFESTS/tracing.yaml" k apply -f "$MANIFESTS/tracing.yaml"
  title 'What the operator makes of it'
  step 'MLflow answers' until_condition MLflowReady "$NAMESPACE"
  step 'every agent that wants to is wired' until_condition WorkloadsReady "$NAMESPACE"
  step 'a trace with its spans arrived' until_condition TracesFlowing "$NAMESPACE"
  step 'both wired agents have sent traces' both_traced
  show
  printf '\nThe demo took %d min %d s. `make demo-down` removes it.\n' $((SECONDS / 60)) $((SECONDS % 60))
}

# Somebody's cluster must already have the images.
prepare() {
  if [[ -n ${DEMO_KUBECONFIG-} ]]; then
    export KUBECONFIG=$DEMO_KUBECONFIG
    [[ -s $KUBECONFIG ]] || die "KUBECONFIG=$KUBECONFIG is not a file; give the path of a kubeconfig"
    KUBECTL=$(command -v kubectl) || { "$CLUSTER/binaries.sh" api; KUBECTL=$BIN/kubectl; }
    step 'the cluster answers' k version
    printf '  It must have these images; `make image` and `tests/cluster/images.sh` write them as archives:\n'
    printf '    %s\n' "$("$CLUSTER/operator-image.sh" tag)" "$("$CLUSTER/images.sh" tag mlflow)" \
      "$("$CLUSTER/images.sh" tag langgraph)" "$("$CLUSTER/images.sh" tag llm)"
    return
  fi
  our_cluster mlflow langgraph llm
}

start_model() {
  k apply -f "$MANIFESTS/namespace.yaml"
  k apply -f "$MANIFESTS/llm.yaml"
}

both_traced() {
  local end=$((SECONDS + 120)) times
  until times=$(k get agenttracing tracing -n "$NAMESPACE" -o 'jsonpath={.status.workloads[*].lastTraceTime}') \
    && [[ $(wc -w <<<"$times") -ge 2 ]]; do
    ((SECONDS < end)) || { k get agenttracing tracing -n "$NAMESPACE" -o yaml; return 1; }
    sleep 1
  done
}

show() {
  local url=http://127.0.0.1:$PORT forward=
  title 'The wiring of the three Deployments'
  k get deployments -n "$NAMESPACE" -l app.kubernetes.io/managed-by!=agent-tracing-operator -o json | python3 tests/demo/wiring.py
  title "kubectl get agenttracing -n $NAMESPACE"
  k get agenttracing -n "$NAMESPACE"
  title 'One trace of teller, as MLflow has it'
  if [[ -z ${DEMO_KUBECONFIG-} ]]; then
    "$CLUSTER/node.sh" relay "$PORT" tracing-mlflow "$NAMESPACE" 5500 >/dev/null
  else
    # A port of its own: MLflow's own may be in use here, and then another server would answer.
    url=http://127.0.0.1:$FORWARD
    "$KUBECTL" port-forward -n "$NAMESPACE" service/tracing-mlflow "$FORWARD:5500" >/dev/null 2>&1 &
    forward=$!
    # shellcheck disable=SC2064 # this very process
    trap "kill $forward" EXIT
    wait_for 20 curl -fsS "$url/health"
  fi
  python3 tests/demo/trace_tree.py "$url" teller --wait 30
  [[ -z $forward ]] || { kill "$forward"; trap - EXIT; }
  title 'What to type next'
  printf '  %s\n' "export KUBECONFIG=$KUBECONFIG"
  [[ $KUBECTL != "$BIN/kubectl" ]] || printf '  %s\n' "alias kubectl=$KUBECTL"
  printf '  %s\n' "kubectl describe agenttracing tracing -n $NAMESPACE" \
    "kubectl get deployment teller -n $NAMESPACE -o yaml" \
    "kubectl set env deployment/teller -n $NAMESPACE MLFLOW_TRACKING_URI-    # and see it come back"
  if [[ -z $forward ]]; then
    printf '  MLflow is at %s\n' "$url"
  else
    printf '  %s\n' "kubectl port-forward -n $NAMESPACE service/tracing-mlflow $PORT:5500    # MLflow at http://127.0.0.1:$PORT"
  fi
}

down() {
  if [[ -z ${DEMO_KUBECONFIG-} ]]; then
    "$CLUSTER/node.sh" down
    return
  fi
  export KUBECONFIG=$DEMO_KUBECONFIG
  KUBECTL=$(command -v kubectl) || KUBECTL=$BIN/kubectl
  step 'agents and MLflow' k delete --ignore-not-found -f "$MANIFESTS/llm.yaml" -f "$MANIFESTS/namespace.yaml"
  step 'operator' k delete --ignore-not-found -k config/default
}

main "$@"
