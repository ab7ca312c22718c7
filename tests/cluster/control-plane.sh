# shellcheck shell=bash
# The flags of etcd, kube-apiserver and kube-controller-manager that both sizes share; sourced,
# after lib.sh. Each function fills the array ARGS.

# shellcheck disable=SC2034 # ARGS is read by the caller
ARGS=()

# etcd_args DIR HOST CLIENT-PORT PEER-PORT
etcd_args() {
  local peer=http://$2:$4
  ARGS=(
    etcd --name=default --data-dir="$1/etcd" --log-level=warn
    # The data is gone with the cluster: waiting for the disk buys nothing.
    --unsafe-no-fsync
    --listen-client-urls="http://$2:$3" --advertise-client-urls="http://$2:$3"
    --listen-peer-urls="$peer" --initial-advertise-peer-urls="$peer" --initial-cluster="default=$peer"
  )
}

# apiserver_args DIR ADDRESS PORT ETCD-PORT
apiserver_args() {
  ARGS=(
    kube-apiserver --etcd-servers="http://127.0.0.1:$4"
    --bind-address="$2" --advertise-address="$2" --secure-port="$3"
    --service-cluster-ip-range="$SERVICE_CIDR"
    --authorization-mode='Node,RBAC' --enable-admission-plugins='NodeRestriction,OwnerReferencesPermissionEnforcement'
    --allow-privileged=true --kubelet-preferred-address-types=InternalIP
    --client-ca-file="$1/pki/ca.crt"
    --tls-cert-file="$1/pki/apiserver.crt" --tls-private-key-file="$1/pki/apiserver.key"
    --service-account-issuer=https://kubernetes.default.svc.cluster.local
    --service-account-key-file="$1/pki/service-accounts.key"
    --service-account-signing-key-file="$1/pki/service-accounts.key"
    # Never cut: tests count what is in it.
    --audit-policy-file="$HERE/config/audit-policy.yaml" --audit-log-path="$1/audit.log" --audit-log-maxsize=4096
    # Ending it must not take a minute, and a restart is something tests do.
    --shutdown-delay-duration=0s
  )
}

# controller_manager_args DIR KUBECONFIG PORT
controller_manager_args() {
  ARGS=(
    kube-controller-manager --kubeconfig="$2" --bind-address=127.0.0.1 --secure-port="$3"
    --authentication-kubeconfig="$2" --authorization-kubeconfig="$2"
    # One of each runs, so nothing has to be elected; and a cluster at rest writes less.
    --leader-elect=false
    # As on OpenShift; the default of 20 a second is for small clusters.
    --kube-api-qps=150 --kube-api-burst=300
    --use-service-account-credentials=true
    --service-account-private-key-file="$1/pki/service-accounts.key"
    --root-ca-file="$1/pki/ca.crt"
    --cluster-signing-cert-file="$1/pki/ca.crt" --cluster-signing-key-file="$1/pki/ca.key"
  )
}

# api_ready URL DIR: asks as nobody, which the default roles allow for probes.
api_ready() {
  [[ $(curl --silent --globoff --noproxy '*' --max-time 2 --cacert "$2/pki/ca.crt" "$1/readyz") == ok ]]
}
