#!/usr/bin/env bash
# The small cluster: etcd, kube-apiserver and kube-controller-manager on loopback. Needs no root.
#
# usage: api.sh up                   twice is a no-op; what a killed run left is replaced
#        api.sh down                 ends what `up` started and removes its state
#        api.sh status               exit code 0: it is up
#        api.sh env                  prints `export` lines for KUBECONFIG, PATH and AUDIT_LOG
#        api.sh restart-apiserver    the same data, address and certificate
#
# It has no node: pods stay Pending. For schema, CEL, RBAC, admission and drift.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=lib.sh
source "$here/lib.sh"
# shellcheck source=pki.sh
source "$here/pki.sh"
# shellcheck source=control-plane.sh
source "$here/control-plane.sh"

DIR=$STATE/api
RUN=$DIR/run

main() {
  case ${1-} in
    up)
      lock api
      ! is_up || { printf '  up already: %s\n' "$DIR/kubeconfig"; return; }
      "$HERE/binaries.sh" api
      step 'remove what an earlier run left' remove
      step 'certificates and ports' prepare
      step 'etcd and kube-apiserver' start_apiserver
      step 'kube-controller-manager' start_controller_manager
      ;;
    down)
      lock api
      step 'end the API server' remove
      ;;
    restart-apiserver)
      lock api
      [[ -s $DIR/ports ]] || die 'api.sh: not up; run: api.sh up'
      step 'restart kube-apiserver' restart
      # It comes back by itself, but may take a minute to dare.
      step 'restart kube-controller-manager' restart_controller_manager
      ;;
    status) is_up ;;
    env)
      # A cache of its own: kubectl would trust what another cluster at the same address once said.
      # shellcheck disable=SC2016
      printf 'export KUBECONFIG=%q AUDIT_LOG=%q KUBECACHEDIR=%q\nexport PATH=%q:$PATH\n' \
        "$DIR/kubeconfig" "$DIR/audit.log" "$DIR/kube-cache" "$BIN"
      ;;
    -h | --help) usage "$0" ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
}

is_up() {
  local name
  for name in etcd kube-apiserver kube-controller-manager; do
    alive "$RUN/$name.pid" || return 1
  done
  ports && [[ -e $DIR/ready ]] && api_ready "https://127.0.0.1:$API" "$DIR"
}

remove() {
  # In this order: an API server that has lost its etcd first does not end in time.
  stop "$RUN/kube-controller-manager.pid"
  stop "$RUN/kube-apiserver.pid"
  stop "$RUN/etcd.pid"
  rm -rf "$DIR"
}

prepare() {
  mkdir -p "$DIR"
  pki_create "$DIR/pki" DNS:localhost DNS:kubernetes.default.svc IP:127.0.0.1 "IP:$SERVICE_API"
  pki_leaf "$DIR/pki" admin /O=system:masters/CN=admin
  pki_leaf "$DIR/pki" controller-manager /CN=system:kube-controller-manager
  free_ports 4 >"$DIR/ports"
  ports
  pki_kubeconfig "$DIR/pki" controller-manager "https://127.0.0.1:$API" "$DIR/pki/controller-manager.kubeconfig"
  pki_kubeconfig "$DIR/pki" admin "https://127.0.0.1:$API" "$DIR/kubeconfig"
}

ports() { read -r API ETCD PEER MANAGER <"$DIR/ports"; } 2>/dev/null

# free_ports COUNT: below the range from which the kernel hands out ports of its own accord, so
# that nobody's connection takes one before its owner listens on it.
free_ports() {
  local taken port count=$1
  taken=$(ss --no-header --numeric --tcp --all | awk '{sub(/.*:/, "", $4); print $4}')
  local -a found=()
  while ((${#found[@]} < count)); do
    port=$((20000 + RANDOM % 10000))
    [[ " ${taken//$'\n'/ } ${found[*]} " == *" $port "* ]] || found+=("$port")
  done
  printf '%s\n' "${found[*]}"
}

start_apiserver() {
  ports
  etcd_args "$DIR" 127.0.0.1 "$ETCD" "$PEER"
  start "$RUN/etcd.pid" "$DIR/log/etcd.log" "${ARGS[@]}"
  apiserver_args "$DIR" 127.0.0.1 "$API" "$ETCD"
  start "$RUN/kube-apiserver.pid" "$DIR/log/kube-apiserver.log" "${ARGS[@]}"
  wait_for 60 running_and_ready || { tail -n 20 "$DIR"/log/*.log; return 1; }
}

running_and_ready() { api_ready "https://127.0.0.1:$API" "$DIR"; }

start_controller_manager() {
  ports
  controller_manager_args "$DIR" "$DIR/pki/controller-manager.kubeconfig" "$MANAGER"
  start "$RUN/kube-controller-manager.pid" "$DIR/log/kube-controller-manager.log" "${ARGS[@]}"
  # Pods need this account, and it is the last sign that the controllers work.
  wait_for 60 "$BIN/kubectl" --kubeconfig "$DIR/kubeconfig" get serviceaccount default
  touch "$DIR/ready"
}

restart() {
  ports
  # It would wait for its clients' watches to end, and etcd already holds whatever was answered.
  PATIENCE=1 stop "$RUN/kube-apiserver.pid"
  apiserver_args "$DIR" 127.0.0.1 "$API" "$ETCD"
  start "$RUN/kube-apiserver.pid" "$DIR/log/kube-apiserver.log" "${ARGS[@]}"
  wait_for 180 running_and_ready || { tail -n 20 "$DIR/log/kube-apiserver.log"; return 1; }
}

restart_controller_manager() {
  stop "$RUN/kube-controller-manager.pid"
  start_controller_manager
}

main "$@"
