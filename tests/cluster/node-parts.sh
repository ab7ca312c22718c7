# shellcheck shell=bash
# How each part of the node cluster is started; sourced by node.sh, after lib.sh, pki.sh and
# control-plane.sh. What runs is held together by the kernel:
#
#   $NS        a network namespace by name, which tests enter
#   the holder process 1 of a pid namespace and the owner of a mount namespace: whatever the
#              cluster starts is in both. When the holder ends, the kernel ends every process,
#              pods too, and drops every mount. There is nothing to search for.
#   $NS        a cgroup below which the kubelet puts all pods

NODE=node-1
PAUSE=localhost/pause:test
declare -A VOLUMES=([standard]=12 [expandable]=4)

# fill FILE [NAME=VALUE…]: the file of config/ with @NAME@ replaced.
fill() {
  local file=$1 name text
  shift
  text=$(<"$HERE/config/$file")
  for name in DIR DATA BIN NS NODE PAUSE NODE_IP POD_CIDR POD_GATEWAY; do
    text=${text//@$name@/${!name}}
  done
  for name; do text=${text//@${name%%=*}@/${name#*=}}; done
  printf '%s\n' "$text"
}

# --- namespaces and cgroup --------------------------------------------------------------------

start_network() {
  # An IPv6 address is otherwise of no use until others had a second to claim it.
  local -a at_once=()
  [[ $NODE_IP != *:* ]] || at_once=(nodad)
  ip netns add "$NS"
  # The node's address. Both ends stay inside: no packet leaves. (Not every kernel has `dummy`.)
  ip -n "$NS" link set lo up
  ip -n "$NS" link add node0 type veth peer name node1
  ip -n "$NS" address add "$NODE_IP/${NODE_CIDR#*/}" dev node0 "${at_once[@]}"
  ip -n "$NS" link set node0 up
  ip -n "$NS" link set node1 up
  # A service address needs a route before kube-proxy can rewrite it. Anything else must be refused at
  # once: an SDK that calls home would otherwise hang until its timeout.
  ip -n "$NS" route add "$SERVICE_CIDR" dev node0
  ip -n "$NS" route add unreachable default
  ip -n "$NS" -6 route add unreachable default metric 4096
  # With an address of its own: a bridge without one takes that of a port, another one when the port's pod ends, and until
  # pods have noticed, none of their answers arrive. On IPv6 that took half a minute, and the kubelet ended the operator.
  ip -n "$NS" link add cni0 address 0a:58:0a:f4:00:01 type bridge
  # The DNS server listens here before the first pod makes the bridge plugin bring it up.
  ip -n "$NS" address add "$POD_GATEWAY/${POD_CIDR#*/}" dev cni0 "${at_once[@]}"
  ip -n "$NS" link set cni0 up
  nsenter --net="/run/netns/$NS" bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
}

# cgroup_dirs: the cluster's cgroup, once per hierarchy of a v1 machine.
cgroup_dirs() {
  local dir
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    printf '%s\n' "/sys/fs/cgroup/$NS"
    return
  fi
  for dir in /sys/fs/cgroup/*/; do
    # Joint hierarchies have links to them (cpu -> cpu,cpuacct): each once.
    [[ -L ${dir%/} ]] || printf '%s\n' "$dir$NS"
  done
}

create_cgroups() {
  local dir file
  while read -r dir; do
    mkdir -p "$dir"
    if [[ -e $dir/cgroup.controllers ]]; then
      enable_controllers "$dir"
    elif [[ -e $dir/cpuset.cpus ]]; then
      # A new cpuset has no processor and no memory until it is told.
      for file in cpuset.cpus cpuset.mems; do cat "${dir%/*}/$file" >"$dir/$file"; done
    fi
  done < <(cgroup_dirs)
}

# enable_controllers DIR: cgroup v2 hands a controller down only where the parent says so.
enable_controllers() {
  local controller
  for controller in cpuset cpu io memory pids hugetlb; do
    echo "+$controller" >"${1%/*}/cgroup.subtree_control" || true
    echo "+$controller" >"$1/cgroup.subtree_control" || true
  done 2>/dev/null
}

remove_cgroups() {
  local dir
  while read -r dir; do
    [[ ! -d $dir ]] || find "$dir" -depth -type d -exec rmdir {} +
  done < <(cgroup_dirs)
}

# The first process in the new pid namespace. /run and /var/log are empty in here and two
# folders of /var/lib its own, since containerd, CNI and kubelet have fixed paths there. The kubelet would also set kernel parameters of the whole
# machine; it finds files that already say what it wants.
# shellcheck disable=SC2016 # expanded by the shell that runs it
HOLDER='set -eu
  mount --make-rslave /
  mount -t proc proc /proc
  mount -t tmpfs -o mode=755 tmpfs /run
  mount -t tmpfs -o mode=755 tmpfs /var/log
  mkdir /run/sysctl
  mount --bind "$DIR/kubelet" /var/lib/kubelet
  mount --bind "$DIR/cni-results" /var/lib/cni
  for want in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
    file=/run/sysctl/$(echo "${want%=*}" | tr / .)
    echo "${want#*=}" >"$file"
    mount --bind "$file" "/proc/sys/${want%=*}"
  done
  mount --make-rshared /
  touch "$DIR/run/holder.ready"
  exec "$BIN/pause"'

start_holder() {
  local pid dir
  mkdir -p "$RUN" "$DIR/log" "$DIR/kubelet" "$DIR/cni-results"
  for dir in kubelet cni; do
    # Only to be mounted upon. Noted first: `down` removes what it finds noted and empty.
    [[ -d /var/lib/$dir ]] || { touch "$CACHE/made-$dir" && mkdir "/var/lib/$dir"; }
  done
  # shellcheck disable=SC2016
  pid=$(env -i PATH="$PATH" DIR="$DIR" BIN="$BIN" HOLDER="$HOLDER" \
    nsenter --net="/run/netns/$NS" unshare --mount --pid bash -c \
    'setsid bash -c "$HOLDER" </dev/null >>"$DIR/log/holder.log" 2>&1 9>&- & echo $!')
  printf '%s %s\n' "$pid" "$(born "$pid")" >"$RUN/holder.pid"
  wait_for 5 test -e "$RUN/holder.ready" || { cat "$DIR/log/holder.log"; return 1; }
}

# holder: its pid, as long as it is the one that was started.
holder() {
  local pid
  alive "$RUN/holder.pid" && read -r pid _ <"$RUN/holder.pid" && printf '%s\n' "$pid"
}

# in_node command…: runs in the foreground with the cluster's network and mounts.
in_node() {
  nsenter --net="/run/netns/$NS" --mount="/proc/$(holder)/ns/mnt" env PATH="$BIN:$PATH" "$@"
}

# spawn NAME command…: a part of the cluster. The pid is the machine's, not the namespace's.
spawn() {
  local name=$1 pid at
  at=/proc/$(holder)/ns
  shift
  # shellcheck disable=SC2016
  pid=$(env -i PATH="$BIN:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/run \
    LOG="$DIR/log/$name.log" nsenter --net="/run/netns/$NS" --mount="$at/mnt" --pid="$at/pid" --no-fork \
    bash -c 'setsid "$@" </dev/null >>"$LOG" 2>&1 9>&- & echo $!' spawn "$@")
  printf '%s %s\n' "$pid" "$(born "$pid")" >"$RUN/$name.pid"
}

# --- control plane ----------------------------------------------------------------------------

create_certificates() {
  local name dir=$DIR/pki server
  server=https://$(host "$NODE_IP"):6443
  pki_create "$dir" DNS:localhost DNS:kubernetes DNS:kubernetes.default DNS:kubernetes.default.svc \
    DNS:kubernetes.default.svc.cluster.local IP:127.0.0.1 "IP:$SERVICE_API" "IP:$NODE_IP"
  pki_leaf "$dir" admin /O=system:masters/CN=admin
  pki_leaf "$dir" controller-manager /CN=system:kube-controller-manager
  pki_leaf "$dir" scheduler /CN=system:kube-scheduler
  pki_leaf "$dir" kube-proxy /CN=system:kube-proxy
  pki_leaf "$dir" coredns /CN=coredns
  pki_leaf "$dir" kubelet "/O=system:nodes/CN=system:node:$NODE"
  pki_leaf "$dir" kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  for name in controller-manager scheduler kube-proxy coredns kubelet; do
    pki_kubeconfig "$dir" "$name" "$server" "$dir/$name.kubeconfig"
  done
  pki_kubeconfig "$dir" admin "$server" "$DIR/kubeconfig"
  printf 'nameserver %s\nsearch svc.cluster.local cluster.local\noptions ndots:5\n' "$POD_GATEWAY" >"$DIR/resolv.conf"
  : >"$DIR/no-resolv.conf"
}

start_control_plane() {
  etcd_args "$DIR" 127.0.0.1 2379 2380
  spawn etcd "${ARGS[@]}"
  start_containerd
  apiserver_args "$DIR" "$NODE_IP" 6443 2379
  spawn kube-apiserver "${ARGS[@]}" --kubelet-client-certificate="$DIR/pki/kubelet-client.crt" \
    --kubelet-client-key="$DIR/pki/kubelet-client.key"
  wait_for 60 reach_api || { tail -n 20 "$DIR/log/etcd.log" "$DIR/log/kube-apiserver.log"; return 1; }
  controller_manager_args "$DIR" "$DIR/pki/controller-manager.kubeconfig" 10257
  spawn kube-controller-manager "${ARGS[@]}"
  spawn kube-scheduler kube-scheduler --kubeconfig="$DIR/pki/scheduler.kubeconfig" --leader-elect=false \
    --bind-address=127.0.0.1 --authentication-kubeconfig="$DIR/pki/scheduler.kubeconfig" \
    --authorization-kubeconfig="$DIR/pki/scheduler.kubeconfig"
  { cat "$HERE/config/cluster.yaml" && volumes; } >"$DIR/cluster.yaml"
  # The API server creates its own namespaces and priority classes just after it says ready.
  wait_for 20 kubectl apply --server-side -f "$DIR/cluster.yaml"
}

reach_api() { nsenter --net="/run/netns/$NS" bash -c "$(declare -f api_ready); api_ready https://$(host "$NODE_IP"):6443 '$DIR'"; }

kubectl() {
  nsenter --net="/run/netns/$NS" env -i KUBECONFIG="$DIR/kubeconfig" KUBECACHEDIR="$DIR/kube-cache" "$BIN/kubectl" "$@"
}

volumes() {
  local class i
  for class in "${!VOLUMES[@]}"; do
    for ((i = 1; i <= VOLUMES[$class]; i++)); do
      mkdir -p "$DIR/volumes/$class-$i"
      fill volume.yaml VOLUME="$class-$i" CLASS="$class"
    done
  done
}

# --- node -------------------------------------------------------------------------------------

start_containerd() {
  local leftovers
  mkdir -p "$DATA" "$DIR/cni"
  fill cni.conflist >"$DIR/cni/10-pods.conflist"
  fill containerd.toml >"$DIR/containerd.toml"
  spawn containerd containerd --config "$DIR/containerd.toml"
  wait_for 20 ctr version
  # The image store outlives the cluster, and with it the records of pods that no longer exist.
  leftovers=$(ctr containers ls -q; ctr sandboxes ls | sed -n '2,$s/ .*//p')
  if [[ -n $leftovers ]]; then
    # Forced: without it a sandbox whose process is gone stays, and the exit code is 0.
    ctr sandboxes ls | sed -n '2,$s/ .*//p' | in_node xargs -r ctr --namespace k8s.io sandboxes rm --force
    ctr containers ls -q | in_node xargs -r ctr --namespace k8s.io containers rm
    stop "$RUN/containerd.pid"
    spawn containerd containerd --config "$DIR/containerd.toml"
    wait_for 20 ctr version
  fi
  pause_archive "$DIR/pause.tar"
  load_archive "$DIR/pause.tar"
}

ctr() { in_node ctr --namespace k8s.io "$@"; }

# pause_archive FILE: an image of one file, written without any tool for images.
pause_archive() {
  local dir layer config tar=(tar --owner=0 --group=0 --numeric-owner --mtime=@0 --sort=name)
  dir=$(mktemp -d "$DIR/pause.XXXXXX")
  "${tar[@]}" -C "$BIN" -cf "$dir/layer.tar" pause
  layer=$(sha256sum "$dir/layer.tar" | cut -d' ' -f1)
  printf '{"architecture":"%s","os":"linux","config":{"Entrypoint":["/pause"],"User":"65535:65535"},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
    "$(go_arch)" "$layer" >"$dir/config"
  config=$(sha256sum "$dir/config" | cut -d' ' -f1).json
  mv "$dir/config" "$dir/$config"
  printf '[{"Config":"%s","RepoTags":["%s"],"Layers":["layer.tar"]}]' "$config" "$PAUSE" >"$dir/manifest.json"
  "${tar[@]}" -C "$dir" -cf "$1" manifest.json "$config" layer.tar
  rm -r "$dir"
}

go_arch() {
  case $(uname -m) in
    aarch64) echo arm64 ;;
    *) echo amd64 ;;
  esac
}

# load_archive FILE: imports a docker-archive, unless exactly that is what its names already mean.
load_archive() {
  local file hash name mark known missing=''
  file=$(realpath "$1")
  hash=$(tar -xOf "$file" manifest.json | sha256sum | cut -d' ' -f1)
  mkdir -p "$DATA/loaded"
  known=$(ctr images ls -q)
  while read -r name; do
    mark=$DATA/loaded/${name//\//_}
    [[ -e $mark && $(<"$mark") == "$hash" ]] && grep -qxF -- "$name" <<<"$known" || missing=yes
  done < <(tar -xOf "$file" manifest.json | jq -r '.[].RepoTags[]')
  [[ -n $missing ]] || return 0
  ctr images import "$file"
  while read -r name; do
    printf '%s\n' "$hash" >"$DATA/loaded/${name//\//_}"
  done < <(tar -xOf "$file" manifest.json | jq -r '.[].RepoTags[]')
}

start_node() {
  fill kubelet.yaml >"$DIR/kubelet.yaml"
  mkdir -p "$DIR/pod-logs"
  spawn kubelet kubelet --config="$DIR/kubelet.yaml" --kubeconfig="$DIR/pki/kubelet.kubeconfig" \
    --hostname-override="$NODE" --node-ip="$NODE_IP"
  # masquerade-all: an answer between two pods of one bridge would otherwise pass the node by and
  # never be translated back, unless the machine happens to have br_netfilter.
  spawn kube-proxy kube-proxy --kubeconfig="$DIR/pki/kube-proxy.kubeconfig" --proxy-mode=nftables \
    --hostname-override="$NODE" --cluster-cidr="$POD_CIDR" --masquerade-all --oom-score-adj=0 \
    --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0s --conntrack-tcp-timeout-close-wait=0s
  fill Corefile >"$DIR/Corefile"
  spawn coredns coredns -conf "$DIR/Corefile"
}

node_ready() {
  [[ $(kubectl get node "$NODE" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}') == True ]]
}

# dns_answers: asked over TCP with a fixed question, since no DNS client need be installed.
dns_answers() {
  nsenter --net="/run/netns/$NS" python3 - "$POD_GATEWAY" <<-'PY'
		import socket, struct, sys
		name = b"".join(bytes([len(l)]) + l for l in b"kubernetes.default.svc.cluster.local".split(b".")) + b"\0"
		family, record = (socket.AF_INET6, 28) if ":" in sys.argv[1] else (socket.AF_INET, 1)
		s = socket.socket(family, socket.SOCK_DGRAM)
		s.settimeout(1)
		s.sendto(struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", record, 1), (sys.argv[1], 53))
		sys.exit(0 if struct.unpack(">4H", s.recv(512)[:8])[3] else 1)
	PY
}

# service_answers: the API server by its service address, which is kube-proxy's work.
service_answers() {
  nsenter --net="/run/netns/$NS" bash -c "$(declare -f api_ready); api_ready https://$(host "$SERVICE_API") '$DIR'"
}
