#!/usr/bin/env bash
# The whole cluster on this machine, in a network namespace of its own: one real node, real pods.
#
# usage: node.sh up                    twice is a no-op; what a killed run left is replaced
#        node.sh down [--purge]        ends it and removes its state; --purge: its images too
#        node.sh status                what runs; exit code 0: all of it
#        node.sh exec CMD…             runs CMD inside, with KUBECONFIG, AUDIT_LOG, PATH and the
#                                      cluster's DNS
#        node.sh load ARCHIVE…         makes the images of docker archives known to the node
#        node.sh relay PORT SVC NS SVCPORT
#                                      makes a Service reachable at 127.0.0.1:PORT of the machine
#        node.sh unrelay PORT
#        node.sh host-kubeconfig [PORT]
#                                      relays the API server too (default port 16443) and prints
#                                      the path of a kubeconfig for use outside the namespace
#        node.sh ctr ARG…              containerd's own client, e.g. `ctr images ls`
#        node.sh netns                 the name of the network namespace
#
# IP_FAMILY=ipv6 makes one without any IPv4 address beyond loopback; a state is of one family.
#
# Files in $AGENT_TRACING_STATE/node: kubeconfig, audit.log, log/*.log. Needs root.
set -euo pipefail
here=$(dirname "$0")
# shellcheck source=lib.sh
source "$here/lib.sh"
# shellcheck source=pki.sh
source "$here/pki.sh"
# shellcheck source=control-plane.sh
source "$here/control-plane.sh"
# shellcheck source=node-parts.sh
source "$here/node-parts.sh"

case ${IP_FAMILY:-ipv4} in
  ipv4) ;;
  ipv6)
    SERVICE_CIDR=fd00:96::/112
    SERVICE_API=fd00:96::1
    POD_CIDR=fd00:244::/64
    POD_GATEWAY=fd00:244::1
    NODE_CIDR=fd00:89::/64
    NODE_IP=fd00:89::2
    ;;
  *) die "IP_FAMILY is ${IP_FAMILY@Q}: ipv4 or ipv6" ;;
esac

# Two states are two clusters: neither may touch the other's.
ID=$(printf '%s' "$STATE" | sha256sum | cut -c1-6)
NS=agent-tracing-$ID
DIR=$STATE/node
RUN=$DIR/run
# Images outlive `down`: importing them again takes longer than everything else.
DATA=$CACHE/containerd/$ID
PARTS=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy coredns recycler)

main() {
  local command=${1-}
  shift || true
  case $command in
    up) root && lock node && up ;;
    down) root && lock node && down "$@" ;;
    status) root && status ;;
    exec) root && inside "$@" ;;
    load) root && lock node && load "$@" ;;
    relay) root && lock relay && relay "$@" ;;
    unrelay) root && lock relay && stop "$DIR/relay/$1".{inside,outside,outside-ipv6}.pid ;;
    host-kubeconfig) root && lock relay && host_kubeconfig "$@" ;;
    ctr) root && needs_cluster && ctr "$@" ;;
    recycler) root && recycler ;;
    netns) printf '%s\n' "$NS" ;;
    -h | --help) usage "$0" ;;
    *)
      usage "$0" >&2
      exit 2
      ;;
  esac
}

root() { ((EUID == 0)) || die 'node.sh: namespaces, mounts and cgroups need root'; }

needs_cluster() { holder >/dev/null || die 'node.sh: the cluster is not up; run: tests/cluster/node.sh up'; }

# --- life -------------------------------------------------------------------------------------

up() {
  if is_up; then
    printf '  up already: %s\n' "$DIR/kubeconfig"
    return
  fi
  "$HERE/binaries.sh" api node
  step 'remove what an earlier run left' remove
  step 'network namespace, cgroup, certificates' create
  step 'etcd, kube-apiserver, containerd' start_control_plane
  step 'kubelet, kube-proxy, CoreDNS' start_node
  step 'node ready, services and DNS answer' all_ready
}

create() {
  start_network
  create_cgroups
  start_holder
  create_certificates
}

all_ready() {
  wait_for 60 node_ready
  wait_for 30 service_answers
  wait_for 30 dns_answers
  # A pod needs it, and it is the last thing the controllers do.
  wait_for 30 kubectl get serviceaccount default
  start "$RUN/recycler.pid" "$DIR/log/recycler.log" env "AGENT_TRACING_CACHE=$CACHE" "AGENT_TRACING_STATE=$STATE" \
    "$HERE/node.sh" recycler
  touch "$DIR/ready"
}

is_up() {
  local name
  [[ -e $DIR/ready ]] && holder >/dev/null || return 1
  for name in "${PARTS[@]}"; do alive "$RUN/$name.pid" || return 1; done
  reach_api
}

status() {
  local name good=0
  for name in holder "${PARTS[@]}"; do
    if alive "$RUN/$name.pid"; then
      printf '  %-26s pid %s\n' "$name" "$(cut -d' ' -f1 "$RUN/$name.pid")"
    else
      printf '  %-26s not running\n' "$name"
      good=1
    fi
  done
  return "$good"
}

down() {
  step 'end the cluster' remove
  if [[ ${1-} == --purge ]]; then step 'remove its images' rm -rf --one-file-system "$DATA"; fi
}

# remove: also after a run that was killed at any point, so nothing here relies on anything there.
remove() {
  local pid dir
  local -a relays=()
  mapfile -t relays < <(compgen -G "$DIR/relay/*.pid")
  PATIENCE=1 stop "$RUN/recycler.pid" "${relays[@]}"
  # Nothing in there has anything to save, and killing the holder takes everything with it.
  if pid=$(holder); then kill -KILL "$pid"; fi
  # A holder without a record, by what nobody else has: our network, another pid namespace.
  if [[ -e /run/netns/$NS ]]; then
    for pid in $(ip netns pids "$NS"); do
      [[ $(readlink "/proc/$pid/ns/pid") == "$(readlink /proc/self/ns/pid)" ]] || kill -KILL "$pid" 2>/dev/null || true
    done
    wait_for 20 cluster_gone
    ip netns delete "$NS"
  fi
  wait_for 20 remove_cgroups
  # `ip netns` mounts this folder upon itself; nobody needs it once the last name is gone.
  if [[ -d /run/netns && -z $(ls -A /run/netns) ]]; then
    ! mountpoint -q /run/netns || umount /run/netns
    rmdir /run/netns
  fi
  # Another of our clusters may have mounted upon them, and removing them would unmount it.
  if ! compgen -G '/run/netns/agent-tracing-*' >/dev/null; then
    for dir in kubelet cni; do
      [[ -e $CACHE/made-$dir ]] || continue
      [[ ! -d /var/lib/$dir ]] || rmdir --ignore-fail-on-non-empty "/var/lib/$dir"
      rm "$CACHE/made-$dir"
    done
  fi
  rm -rf --one-file-system "$DIR"
}

cluster_gone() {
  local pid
  ! holder >/dev/null || return 1
  for pid in $(ip netns pids "$NS"); do
    [[ $(readlink "/proc/$pid/ns/pid") == "$(readlink /proc/self/ns/pid)" ]] || return 1
  done
}

# --- use --------------------------------------------------------------------------------------

# inside CMD…: a mount namespace of its own for the command, in which names of services resolve.
inside() {
  (($#)) || die 'node.sh: exec needs a command'
  needs_cluster
  # shellcheck disable=SC2016
  exec nsenter --net="/run/netns/$NS" unshare --mount env \
    -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u all_proxy -u ALL_PROXY \
    KUBECONFIG="$DIR/kubeconfig" KUBECACHEDIR="$DIR/kube-cache" AUDIT_LOG="$DIR/audit.log" PATH="$BIN:$PATH" \
    bash -c 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"' exec "$DIR/resolv.conf" "$@"
}

load() {
  local archive
  needs_cluster
  for archive; do
    [[ -f $archive ]] || die "node.sh: no such archive: $archive"
    step "load ${archive##*/}" load_archive "$archive"
  done
}

# relay PORT SERVICE NAMESPACE SERVICE-PORT: a unix socket is the one thing both sides can reach.
relay() {
  (($# == 4)) || die 'usage: node.sh relay PORT SVC NS SVCPORT'
  needs_cluster
  local port=$1 dir=$DIR/relay target
  target=$(host "$(kubectl get service --namespace "$3" "$2" -o 'jsonpath={.spec.clusterIP}')"):$4
  mkdir -p "$dir"
  if alive "$dir/$port.inside.pid" && listening "$port" && [[ $(<"$dir/$port.target") == "$target" ]]; then
    return
  fi
  PATIENCE=1 stop "$dir/$port".{inside,outside,outside-ipv6}.pid
  rm -f "$dir/$port.sock"
  # A socket's path may have 107 characters, so it is named from within its folder.
  start "$dir/$port.inside.pid" "$DIR/log/relay-$port.log" env -C "$dir" nsenter --net="/run/netns/$NS" \
    socat "UNIX-LISTEN:$port.sock,fork,mode=600" "TCP:$target"
  start "$dir/$port.outside.pid" "$DIR/log/relay-$port.log" env -C "$dir" \
    socat "TCP4-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork" "UNIX-CONNECT:$port.sock"
  # A browser may take localhost for ::1.
  if has_ipv6_loopback; then
    start "$dir/$port.outside-ipv6.pid" "$DIR/log/relay-$port.log" env -C "$dir" \
      socat "TCP6-LISTEN:$port,bind=[::1],ipv6only,reuseaddr,fork" "UNIX-CONNECT:$port.sock"
  fi
  printf '%s\n' "$target" >"$dir/$port.target"
  wait_for 5 listening "$port" || die "$(tail -n 5 "$DIR/log/relay-$port.log")"
}

listening() {
  alive "$DIR/relay/$1.outside.pid" && [[ -S $DIR/relay/$1.sock ]] \
    && [[ -n $(ss --no-header --numeric --tcp --listening "src = 127.0.0.1:$1") ]] \
    && { ! has_ipv6_loopback || [[ -n $(ss --no-header --numeric --tcp --listening "src = [::1]:$1") ]]; }
}

has_ipv6_loopback() {
  [[ -n $(ip -6 address show to ::1 2>/dev/null) ]]
}

host_kubeconfig() {
  local port=${1:-16443}
  relay "$port" kubernetes default 443
  pki_kubeconfig "$DIR/pki" admin "https://127.0.0.1:$port" "$DIR/host.kubeconfig"
  printf '%s\n' "$DIR/host.kubeconfig"
}

# recycler: what the provisioner of a real cluster does once a claim is deleted; `up` starts it.
# It watches with curl, which is a tenth of kubectl's size. A new watch tells of every volume first.
recycler() {
  local line
  while sleep 1; do
    nsenter --net="/run/netns/$NS" curl --silent --no-buffer --globoff --noproxy '*' --cacert "$DIR/pki/ca.crt" \
      --cert "$DIR/pki/admin.crt" --key "$DIR/pki/admin.key" \
      "https://$(host "$NODE_IP"):6443/api/v1/persistentvolumes?watch=true" \
      | while read -r line; do
        [[ $line != *'"phase":"Released"'* ]] || recycle "$(jq -r .object.metadata.name <<<"$line")"
      done || true
  done
}

# recycle VOLUME: empties it. What it was asked for is compared first: of a volume that was claimed
# again in the meantime nothing may be deleted.
recycle() {
  local dir=$DIR/volumes/$1
  [[ $(kubectl get persistentvolume "$1" -o 'jsonpath={.status.phase}') == Released ]] || return 0
  find "$dir" -mindepth 1 -delete
  chown 0:0 "$dir"
  chmod 755 "$dir"
  kubectl patch persistentvolume "$1" --type=json --patch='[{"op": "remove", "path": "/spec/claimRef"}]'
}

main "$@"
