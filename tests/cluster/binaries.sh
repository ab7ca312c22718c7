#!/usr/bin/env bash
# Builds the cluster's programs from their pinned Go modules, once.
#
# usage: binaries.sh [api | node | helm | promtool | cert-manager]…   what to build; all of it by default
#        binaries.sh path [NAME]                                      the folder of the programs, or the path of one
#
# api       etcd, kube-apiserver, kube-controller-manager, kubectl
# node      what a node needs besides
# helm      helm
# promtool  promtool
# cert-manager  its controllers in one program, and cert-manager.yaml with the definitions of its kinds
#
# They go to the cache, in a folder named after the hash of go/ and of this file: a new version
# never overwrites a program that runs. One go.mod per row, since their dependencies disagree; a row that
# did not change is taken over from the folder of before.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

# set, row (a folder of go/), program, package. One after the other: the compiler keeps every
# processor busy by itself.
PROGRAMS=(
  'api  etcd       etcd                    go.etcd.io/etcd/server/v3'
  'api  kubernetes kube-apiserver          k8s.io/kubernetes/cmd/kube-apiserver'
  'api  kubernetes kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager'
  'api  kubernetes kubectl                 k8s.io/kubernetes/cmd/kubectl'
  'node kubernetes kube-scheduler          k8s.io/kubernetes/cmd/kube-scheduler'
  'node kubernetes kubelet                 k8s.io/kubernetes/cmd/kubelet'
  'node kubernetes kube-proxy              k8s.io/kubernetes/cmd/kube-proxy'
  'node containerd containerd              github.com/containerd/containerd/v2/cmd/containerd'
  'node containerd containerd-shim-runc-v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2'
  'node containerd ctr                     github.com/containerd/containerd/v2/cmd/ctr'
  'node runc       runc                    github.com/opencontainers/runc'
  'node cni        bridge                  github.com/containernetworking/plugins/plugins/main/bridge'
  'node cni        loopback                github.com/containernetworking/plugins/plugins/main/loopback'
  'node cni        host-local              github.com/containernetworking/plugins/plugins/ipam/host-local'
  'node cni        portmap                 github.com/containernetworking/plugins/plugins/meta/portmap'
  'node pause      pause                   cluster/pause'
  'node coredns    coredns                 github.com/coredns/coredns'
  'helm helm       helm                    helm.sh/helm/v4/cmd/helm'
  'promtool promtool promtool              github.com/prometheus/prometheus/cmd/promtool'
  'cert-manager cert-manager cert-manager  cluster/cert-manager'
)

main() {
  local set
  case ${1-} in
    -h | --help) usage "$0" ;;
    path)
      printf '%s\n' "$BIN${2:+/$2}"
      ;;
    *)
      (($#)) || set -- api node helm promtool cert-manager
      for set; do
        [[ $set =~ ^(api|node|helm|promtool|cert-manager)$ ]] || die "binaries.sh: no such set: $set (see --help)"
      done
      for set; do build_set "$set"; done
      ;;
  esac
}

# build_set SET: one step for each row of which a program is missing.
build_set() {
  local set row program rows=' '
  while read -r set row program _; do
    [[ $set != "$1" || -x $BIN/$program || $rows == *" $row "* ]] || rows+="$row "
  done < <(printf '%s\n' "${PROGRAMS[@]}")
  for row in $rows; do step "build $row ($1)" build_row "$1" "$row"; done
}

# build_row SET ROW: its missing programs. Linked aside and moved into place: a build that was
# killed leaves no half a program behind. The lock makes a second builder wait.
build_row() {
  local set row program package tmp kept
  kept=$CACHE/bin/rows/$2-$({ cat "$HERE/go/$2"/*; declare -f go_build; } | sha256sum | cut -c1-12)
  mkdir -p "$BIN" "$kept"
  exec 8>"$BIN/.$2.lock"
  flock 8
  tmp=$(mktemp -d "$BIN/.build.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$tmp'" EXIT
  while read -r set row program package; do
    [[ $set == "$1" && $row == "$2" && ! -x $BIN/$program ]] || continue
    if [[ ! -x $kept/$program ]]; then
      go_build "$row" "$tmp/$program" "$package" </dev/null
      [[ $row != cert-manager ]] || definitions >"$kept/$row.yaml"
      mv "$tmp/$program" "$kept/$program"
    fi
    [[ ! -s $kept/$row.yaml ]] || ln -f "$kept/$row.yaml" "$BIN/$row.yaml"
    ln -f "$kept/$program" "$BIN/$program"
  done < <(printf '%s\n' "${PROGRAMS[@]}")
}

# The kinds of cert-manager that are no matter of ACME, from the module of its program.
definitions() {
  local module
  module=$(cd "$HERE/go/cert-manager" && go list -mod=readonly -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)
  cat "$module"/deploy/crds/cert-manager.io_*.yaml
}

go_build() {
  local row=$1 out=$2 package=$3 version cgo=0 tags='' flags='-s -w'
  version=$(cd "$HERE/go/$row" && go list -mod=readonly -f '{{with .Module}}{{.Version}}{{end}}' "$package")
  case $row in
    kubernetes)
      # Without these the API server calls itself v0.0.0 and clients judge it too old.
      local at=k8s.io/component-base/version minor=${version#v1.}
      flags+=" -X $at.gitVersion=$version -X $at.gitMajor=1 -X $at.gitMinor=${minor%%.*} -X $at.gitTreeState=clean"
      flags+=" -X k8s.io/client-go/pkg/version.gitVersion=$version"
      ;;
    containerd) flags+=" -X github.com/containerd/containerd/v2/version.Version=$version" ;;
    # Without what finds targets in the clouds, and their SDKs.
    promtool) tags=remove_all_sd ;;
    runc)
      cgo=1 tags='netgo osusergo seccomp'
      flags+=' -extldflags -static'
      ;;
  esac
  (cd "$HERE/go/$row" && CGO_ENABLED=$cgo GOFLAGS='' GOWORK=off \
    go build -mod=readonly -buildvcs=false -trimpath -tags "$tags" -ldflags "$flags" -o "$out" "$package")
}

main "$@"
