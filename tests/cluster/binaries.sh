#!/usr/bin/env bash
# Builds the cluster's programs from their pinned Go modules, once.
#
# usage: binaries.sh [api | node | helm]…   what to build; all of it by default
#        binaries.sh path [NAME]            the folder of the programs, or the path of one
#
# api   etcd, kube-apiserver, kube-controller-manager, kubectl
# node  what a node needs besides
# helm  helm
#
# They go to the cache, in a folder named after the hash of go/ and of this file: a new version
# never overwrites a program that runs. One go.mod per row, since their dependencies disagree.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

PACKAGES_api=(
  etcd=etcd:go.etcd.io/etcd/server/v3
  kubernetes=kube-apiserver:k8s.io/kubernetes/cmd/kube-apiserver
  kubernetes=kube-controller-manager:k8s.io/kubernetes/cmd/kube-controller-manager
  kubernetes=kubectl:k8s.io/kubernetes/cmd/kubectl
)
PACKAGES_node=(
  containerd=containerd:github.com/containerd/containerd/v2/cmd/containerd
  containerd=containerd-shim-runc-v2:github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2
  containerd=ctr:github.com/containerd/containerd/v2/cmd/ctr
  runc=runc:github.com/opencontainers/runc
  cni=bridge:github.com/containernetworking/plugins/plugins/main/bridge
  cni=loopback:github.com/containernetworking/plugins/plugins/main/loopback
  cni=host-local:github.com/containernetworking/plugins/plugins/ipam/host-local
  cni=portmap:github.com/containernetworking/plugins/plugins/meta/portmap
  pause=pause:cluster/pause
  kubernetes=kube-scheduler:k8s.io/kubernetes/cmd/kube-scheduler
  kubernetes=kubelet:k8s.io/kubernetes/cmd/kubelet
  kubernetes=kube-proxy:k8s.io/kubernetes/cmd/kube-proxy
  coredns=coredns:github.com/coredns/coredns
)
PACKAGES_helm=(helm=helm:helm.sh/helm/v4/cmd/helm)

main() {
  local set
  case ${1-} in
    -h | --help) usage "$0" ;;
    path)
      printf '%s\n' "$BIN${2:+/$2}"
      ;;
    *)
      (($#)) || set -- api node helm
      for set; do
        [[ $set == api || $set == node || $set == helm ]] || die "binaries.sh: no such set: $set (see --help)"
      done
      for set; do build_set "$set"; done
      ;;
  esac
}

build_set() {
  local set=$1 row entry
  local -n packages=PACKAGES_$1
  local -a rows=()
  for entry in "${packages[@]}"; do
    [[ -x $BIN/$(name_of "$entry") || " ${rows[*]} " == *" ${entry%%=*} "* ]] || rows+=("${entry%%=*}")
  done
  for row in "${rows[@]}"; do
    step "build $row ($set)" build_row "$row" "${packages[@]}"
  done
}

# build_row ROW ENTRY…: builds the missing programs of one row. Linked aside and moved into place:
# a build that was killed leaves no half a program behind. The lock makes a second builder wait.
build_row() {
  local row=$1 entry name tmp
  shift
  mkdir -p "$BIN"
  exec 8>"$BIN/.$row.lock"
  flock 8
  tmp=$(mktemp -d "$BIN/.build.XXXXXX")
  # shellcheck disable=SC2064
  trap "rm -rf '$tmp'" EXIT
  for entry; do
    name=$(name_of "$entry")
    [[ ${entry%%=*} == "$row" && ! -x $BIN/$name ]] || continue
    go_build "$row" "$tmp/$name" "${entry#*:}"
    mv "$tmp/$name" "$BIN/$name"
  done
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
    runc)
      cgo=1 tags='netgo osusergo seccomp'
      flags+=' -extldflags -static'
      ;;
  esac
  (cd "$HERE/go/$row" && CGO_ENABLED=$cgo GOFLAGS='' GOWORK=off \
    go build -mod=readonly -buildvcs=false -trimpath -tags "$tags" -ldflags "$flags" -o "$out" "$package")
}

name_of() {
  local name=${1#*=}
  printf '%s\n' "${name%%:*}"
}

main "$@"
