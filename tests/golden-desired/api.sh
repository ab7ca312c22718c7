#!/usr/bin/env bash
# Applies the children of every case to the API server of KUBECONFIG and compares what it answers: nothing may drift, and
# a second apply may change nothing. Needs a cluster of its own (tests/cluster/api.sh up), not one that is used.
set -euo pipefail
cd "$(dirname "$0")/../.."
: "${KUBECONFIG:?eval "$(tests/cluster/api.sh env)" first}"
DIR=$(mktemp -d)
export DIR
trap 'rm -rf "$DIR"' EXIT

cargo test --quiet --test desired -- --ignored --exact render

kubectl apply --server-side -f - <<'YAML'
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata:
  name: a-default-class
  annotations: {storageclass.kubernetes.io/is-default-class: "true"}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
YAML

put() { kubectl apply --server-side --field-manager=agent-tracing-operator --force-conflicts -o json -f "$1"; }
for case in "$DIR"/*; do
  namespace=$(basename "$case")
  kubectl create namespace "$namespace" --dry-run=client -o yaml | kubectl apply --server-side -f - >"$DIR.log"
  # OpenShift's SCC sets what the case leaves out.
  [[ $namespace == *openshift ]] || kubectl label --overwrite namespace "$namespace" \
    pod-security.kubernetes.io/enforce=restricted pod-security.kubernetes.io/warn=restricted >"$DIR.log"
  for child in "$case"/*.json; do
    put "$child" >"$child.first" 2>"$child.warnings"
    [[ ! -s $child.warnings ]] || { cat "$child.warnings"; exit 1; }
    put "$child" >"$child.live"
  done
done
rm -f "$DIR.log"
sleep 3 # the controllers write status
for child in "$DIR"/*/*.json; do
  version() { sed -n 's/.*"generation": *\([0-9]*\).*/\1/p' "$1" | head -n 1; }
  [[ $(version "$child.first") == "$(version "$child.live")" ]] || { echo "generation moved: $child"; exit 1; }
  kubectl get -f "$child" -o json >"$child.live"
done
cargo test --quiet --test desired -- --ignored --exact compare
echo "no drift in $(find "$DIR" -name '*.live' | wc -l) objects"
