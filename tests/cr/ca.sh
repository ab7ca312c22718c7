#!/usr/bin/env bash
# What OpenShift's service CA does for MLflow: a private CA, a certificate of it for the server, and the CA itself as
# ConfigMap `openshift-service-ca.crt` (key `service-ca.crt`) where agents and operator run.
#
# usage: ca.sh make [NAMESPACE…]      the CA and certificate, unless they are there; the ConfigMap into these namespaces
#        ca.sh publish NAMESPACE…     the ConfigMap alone
#        ca.sh rotate [NAMESPACE…]    a new CA and server certificate; the ConfigMap into these namespaces and into
#                                     all that have it
#        ca.sh path                   prints the CA's file
#
# Needs KUBECONFIG. The server reads its certificate at start: restart it after `rotate` (world.sh rotate-ca does).
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/cluster/lib.sh
source tests/cluster/lib.sh
# shellcheck source=tests/cluster/pki.sh
source tests/cluster/pki.sh

SERVER=redhat-ods-applications
HOST=mlflow.$SERVER.svc
DIR=$STATE/cr-ca

main() {
  case ${1-} in
    make)
      shift
      [[ -s $DIR/ca.crt ]] || new_ca
      give_certificate
      publish "$@"
      ;;
    publish)
      shift
      publish "$@"
      ;;
    rotate)
      shift
      local -a have=()
      mapfile -t have < <(kubectl get configmaps -A --field-selector metadata.name=openshift-service-ca.crt \
        -o 'jsonpath={range .items[*]}{.metadata.namespace}{"\n"}{end}')
      rm -rf "$DIR"
      new_ca
      give_certificate
      publish "$@" "${have[@]}"
      ;;
    path) printf '%s\n' "$DIR/ca.crt" ;;
    -h | --help) usage "$0" ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
}

# Only these two names, as the service CA: neither an address nor the short names are covered.
new_ca() {
  pki_create "$DIR" "DNS:$HOST"
  pki_leaf "$DIR" mlflow "/CN=$HOST" "DNS:$HOST,DNS:$HOST.cluster.local"
  # Two CAs with one name and different keys would be told apart by nobody who reads a log.
  openssl x509 -in "$DIR/ca.crt" -noout -fingerprint -sha256
}

give_certificate() {
  kubectl create secret tls mlflow-tls -n "$SERVER" --cert="$DIR/mlflow.crt" --key="$DIR/mlflow.key" \
    --dry-run=client -o yaml | kubectl apply -f -
}

publish() {
  local namespace
  for namespace; do
    kubectl create configmap openshift-service-ca.crt -n "$namespace" --from-file="service-ca.crt=$DIR/ca.crt" \
      --dry-run=client -o yaml | kubectl apply -f -
  done
}

main "$@"
