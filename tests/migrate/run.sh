#!/usr/bin/env bash
# The migration's tests inside the image that runs it: a pod of MLflow's image, on the cluster of KUBECONFIG.
set -euo pipefail
cd "$(dirname "$0")/../.."

NAME=migrate-test

main() {
  remove
  kubectl create configmap "$NAME" --from-file=src/core/migrate.py --from-file=tests/migrate/test_migrate.py
  kubectl apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: $NAME}
spec:
  restartPolicy: Never
  containers:
  - name: python
    image: ghcr.io/mlflow/mlflow:v3.10.1
    imagePullPolicy: Never
    command: [python3, -m, unittest, discover, --verbose, -s, /checkout/tests/migrate]
    # By subPath: the tests find the script beside themselves, and a mounted folder is full of links.
    volumeMounts:
    - {name: files, subPath: migrate.py, mountPath: /checkout/src/core/migrate.py}
    - {name: files, subPath: test_migrate.py, mountPath: /checkout/tests/migrate/test_migrate.py}
  volumes:
  - name: files
    configMap: {name: $NAME}
EOF
  local phase='' waiting=''
  # An image that is not on the node will not come: there is no registry.
  until [[ $phase == Succeeded || $phase == Failed || $waiting == ErrImageNeverPull ]]; do
    ((SECONDS < 480)) || break
    sleep 2
    phase=$(kubectl get pod "$NAME" -o 'jsonpath={.status.phase}')
    waiting=$(kubectl get pod "$NAME" -o 'jsonpath={.status.containerStatuses[*].state.waiting.reason}')
  done
  [[ -z $waiting ]] || kubectl describe pod "$NAME" | sed -n '/^Conditions:/,$p'
  kubectl logs "$NAME"
  remove
  [[ $phase == Succeeded ]]
}

remove() {
  kubectl delete pod,configmap "$NAME" --ignore-not-found --now
}

main
