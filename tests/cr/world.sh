#!/usr/bin/env bash
# The world of CR mode without the MLflow operator: its CRD and role, a real MLflow server with Kubernetes
# authorization behind TLS, and a stand-in that writes the MLflow resource's status.
#
# usage: world.sh up a|b [NAMESPACE…]    all of it, ready; the CA's ConfigMap into these namespaces
#        world.sh upgrade [b|a]          the server of the other generation on the same data (default: b), with the
#                                        status that the MLflow operator shows meanwhile
#        world.sh rotate-ca              a new CA, server certificate and ConfigMaps; the server restarted with it
#        world.sh hide [SELECTOR]        only namespaces with these labels (key=value) are workspaces; none: all are
#        world.sh down                   removes everything that `up` made, data too
#
# The parts, for tests that want them in another order:
#        world.sh server a|b             the server alone, waited for (its certificate must be there: ca.sh make)
#                                        with WORKSPACES=off: one that has neither workspaces nor authorization
#        kubectl apply -f tests/cr/{crd,role,mlflow}.yaml, ca.sh, stand-in.sh
#
# Needs KUBECONFIG, and the images mlflow-cr-a and mlflow-cr-b in the cluster.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
PATH=$BIN:$PATH

CR=tests/cr
SERVER=redhat-ods-applications

main() {
  [[ ${1-} != -* ]] || { usage "$0"; return; }
  [[ -n ${KUBECONFIG-} ]] || die 'world.sh: KUBECONFIG is not set; nothing is done to a current context unasked'
  case ${1-} in
    up)
      generation "${2-}"
      up "$2" "${@:3}"
      ;;
    upgrade)
      generation "${2:-b}"
      upgrade "${2:-b}"
      ;;
    rotate-ca)
      step 'a new CA and server certificate' "$CR/ca.sh" rotate
      step 'MLflow again, with the new certificate' restart
      ;;
    hide)
      step "workspaces: namespaces with ${2:-any label}" hide "${2-}"
      step 'MLflow again' rolled_out
      ;;
    server)
      generation "${2-}"
      step "MLflow server $2" serve "$2"
      ;;
    down) step 'remove the MLflow of CR mode' down ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
}

generation() { [[ $1 == [ab] ]] || die "world.sh: the generation is a or b, not '$1'"; }

up() {
  local generation=$1
  shift
  step 'kind MLflow and its role' kind_and_role
  step 'certificates' certificates "$@"
  step 'the MLflow resource' resource "$generation"
  step "MLflow server $generation" serve "$generation"
  step 'its status says ready' become_ready "$generation"
}

kind_and_role() {
  kubectl apply -f "$CR/crd.yaml" -f "$CR/role.yaml"
  kubectl wait --for=condition=Established crd/mlflows.mlflow.opendatahub.io --timeout=30s
}

certificates() {
  kubectl create namespace "$SERVER" --dry-run=client -o yaml | kubectl apply -f -
  "$CR/ca.sh" make "$@"
}

resource() {
  # Established is said a little before the kind is served.
  wait_for 20 kubectl apply -f "$CR/mlflow.yaml"
  "$CR/stand-in.sh" "$1" starting
}

become_ready() {
  "$CR/stand-in.sh" "$1" deploying
  "$CR/stand-in.sh" "$1" ready
}

upgrade() {
  # As the MLflow operator does it: the address is the new one at once, the old pods end, then the database.
  "$CR/stand-in.sh" "$1" scaling-down >/dev/null
  step 'the old server ends' end_server
  "$CR/stand-in.sh" "$1" migrating >/dev/null
  step "MLflow server $1 on the same data" serve "$1"
  step 'its status says ready' become_ready "$1"
}

end_server() {
  kubectl scale deployment/mlflow -n "$SERVER" --replicas=0
  kubectl wait --for=delete pod -n "$SERVER" -l app=mlflow --timeout=60s
}

# serve GENERATION: with the workspaces that the MLflow resource selects, as that operator hands them on.
serve() {
  local selector off=()
  # A database with experiments in workspaces keeps such a server from starting: it gets one of its own.
  [[ ${WORKSPACES-} != off ]] || off=(-e 's/mlflow[.]db/single.db/' -e '/--app-name=\|--enable-workspaces\|--workspace-store-uri=/d')
  selector=$(kubectl get mlflow mlflow -o json 2>/dev/null \
    | jq -r '.spec.workspaceLabelSelector.matchLabels // {} | to_entries | map("\(.key)=\(.value)") | join(",")') || true
  sed "${off[@]}" -e "s|@GENERATION@|$1|g" -e "s|@SELECTOR@|$selector|g" "$CR/server.yaml" | kubectl apply -f -
  rolled_out
}

rolled_out() {
  kubectl rollout status deployment/mlflow -n "$SERVER" --timeout=180s || {
    kubectl get pods -n "$SERVER" -o wide
    kubectl logs -n "$SERVER" deployment/mlflow --all-containers --tail=30
    return 1
  }
}

restart() {
  kubectl rollout restart deployment/mlflow -n "$SERVER"
  rolled_out
}

hide() {
  local labels=null
  [[ -z $1 ]] || labels="{\"matchLabels\": {\"${1%%=*}\": \"${1#*=}\"}}"
  kubectl patch mlflow mlflow --type=merge -p "{\"spec\": {\"workspaceLabelSelector\": $labels}}"
  kubectl set env deployment/mlflow -n "$SERVER" "MLFLOW_K8S_WORKSPACE_LABEL_SELECTOR=$1"
}

down() {
  local namespace
  kubectl delete --ignore-not-found -f "$CR/crd.yaml" -f "$CR/role.yaml"
  kubectl delete --ignore-not-found clusterrole/mlflow clusterrolebinding/mlflow
  for namespace in $(kubectl get configmaps -A --field-selector metadata.name=openshift-service-ca.crt \
    -o 'jsonpath={.items[*].metadata.namespace}'); do
    kubectl delete configmap -n "$namespace" openshift-service-ca.crt
  done
  kubectl delete namespace "$SERVER" --ignore-not-found
  rm -rf "$STATE/cr-ca"
}

main "$@"
