#!/usr/bin/env bash
# Mode CR: two teams, one MLflow that they share without seeing each other, and a guest whom it refuses.
#
# usage: shared.sh up      in a cluster made on this machine; `demo.sh down` removes it
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
# shellcheck source=tests/demo/common.sh
source tests/demo/common.sh

CLUSTER=tests/cluster
MANIFESTS=tests/demo/manifests
TEAMS=(bank-agents shop-agents)
GUEST=guest-agents
MLFLOW=https://mlflow.redhat-ods-applications.svc.cluster.local:8443

main() {
  SECONDS=0
  [[ ${1-} == up ]] || { usage "$0" >&2; exit 2; }
  [[ -z ${DEMO_KUBECONFIG-} ]] || die 'MODE=cr brings its own MLflow and cluster; in yours, where an MLflow operator runs, apply config/samples/cr.yaml'
  title 'Tools, images and a cluster'
  our_cluster mlflow-cr-a langgraph llm
  title 'Agents of two teams, as people have them: applied first, they know nothing of the operator'
  step 'namespaces with Pod Security "restricted", a stand-in for the language model' start_model
  step 'a LangGraph agent each: teller in bank-agents, clerk in shop-agents' k apply -f "$MANIFESTS/shared-agents.yaml"
  title 'What OpenShift has in every namespace: the CA of its services'
  step 'ConfigMap openshift-service-ca.crt' service_ca
  title 'The operator'
  step 'kubectl apply -k config/default' k apply -k config/default
  step 'two replicas ready' k rollout status deployment/agent-tracing-operator -n agent-tracing-system --timeout=120s
  title 'What a person does in each namespace'
  step 'kubectl label namespace bank-agents shop-agents agenttracing.dev/injection=enabled' \
    k label --overwrite namespace "${TEAMS[@]}" agenttracing.dev/injection=enabled
  forget_other_mode CR "${TEAMS[0]}"
  step "kubectl apply -f $MANIFESTS/shared-tracings.yaml" k apply -f "$MANIFESTS/shared-tracings.yaml"
  title 'The shared MLflow comes last: a real one with its Kubernetes authorization, as OpenShift AI runs it'
  "$CLUSTER/node.sh" exec tests/cr/world.sh up a "${TEAMS[@]}" "$GUEST" agent-tracing-system
  title 'What the operator makes of it'
  local team
  for team in "${TEAMS[@]}"; do
    step "$team: MLflow answers" until_condition MLflowReady "$team"
    step "$team: its service account may write" until_condition RBACReady "$team"
    step "$team: its agent is wired" until_condition WorkloadsReady "$team"
    step "$team: a trace with its spans arrived" until_condition TracesFlowing "$team"
  done
  show
  # shellcheck disable=SC2016 # back-ticks in messages name commands, they run none
  printf '\nThe demo took %d min %d s. `make demo-down` removes it.\n' $((SECONDS / 60)) $((SECONDS % 60))
}

service_ca() {
  k apply -f config/manager/namespace.yaml
  k create namespace redhat-ods-applications --dry-run=client -o yaml | k apply -f -
  "$CLUSTER/node.sh" exec tests/cr/ca.sh make "${TEAMS[@]}" "$GUEST" agent-tracing-system
}

start_model() {
  k apply -f "$MANIFESTS/shared-namespaces.yaml"
  k apply -f "$MANIFESTS/llm.yaml"
}

# as NAMESPACE PATH JSON: asks MLflow with the token of that namespace's service account.
as() {
  local token
  token=$(k create token default -n "$1")
  "$CLUSTER/node.sh" exec curl -s --cacert "$("$CLUSTER/node.sh" exec tests/cr/ca.sh path)" -w '\n%{http_code}' \
    -H "Authorization: Bearer $token" -H "X-MLFLOW-WORKSPACE: $1" -H 'Content-Type: application/json' -d "$3" "$MLFLOW/$2"
}

experiments() {
  as "$1" api/2.0/mlflow/experiments/search '{"max_results": 100}' | sed '$d' \
    | jq -r '[.experiments[]?.name] | if . == [] then "none" else join(", ") end'
}

show() {
  local team
  title 'The wiring'
  for team in "${TEAMS[@]}"; do
    k get deployments -n "$team" -o json | python3 tests/demo/wiring.py
  done
  title 'kubectl get agenttracing -A'
  k get agenttracing -A
  title 'Experiments, as each namespace sees them with its own token'
  for team in "${TEAMS[@]}" "$GUEST"; do
    printf '  %-14s%s\n' "$team" "$(experiments "$team")"
  done
  title "$GUEST has no AgentTracing and so no RoleBinding: MLflow refuses it"
  as "$GUEST" api/2.0/mlflow/experiments/create '{"name": "uninvited"}' | sed 's/^/  /'
  printf '\n'
  title 'What to type next'
  printf '  %s\n' "export KUBECONFIG=$KUBECONFIG" "alias kubectl=$KUBECTL" \
    'kubectl describe agenttracing tracing -n bank-agents' \
    'kubectl get rolebinding agenttracing-mlflow -n bank-agents -o yaml' \
    'kubectl delete rolebinding agenttracing-mlflow -n bank-agents    # and see it come back' \
    'kubectl logs deployment/teller -n bank-agents -c merge-ca'
}

main "$@"
