#!/usr/bin/env bash
# Sees to it that this machine has the tools with which cluster, images and operator are built.
#
# usage: prereq.sh            installs what is missing where it can (Debian, root)
#        prereq.sh --check    only says what is missing, and how to get it
#
# Exit code 1: something is missing. Nothing is touched when nothing is.
set -euo pipefail
# shellcheck source=lib.sh
source "$(dirname "$0")/lib.sh"

GO_WANTED=1.26
# Two builds of the operator, the cluster's programs and all images, from nothing.
DISK_WANTED_GIB=25
RUST_TARGET=$(uname -m)-unknown-linux-musl

# "what to look for" package: a program, or the package itself where it brings none.
TOOLS=(
  nft=nftables conntrack=conntrack ip=iproute2 ss=iproute2 nsenter=util-linux mount=mount losetup=mount
  buildah=buildah debootstrap=debootstrap musl-gcc=musl-tools gcc=gcc "g++=g++" pkg-config=pkg-config
  /usr/include/seccomp.h=libseccomp-dev socat=socat jq=jq python3=python3 openssl=openssl
  dash=dash busybox=busybox curl=curl pip3=python3-pip /usr/share/keyrings/debian-archive-keyring.gpg=debian-archive-keyring git=git make=make file=file shellcheck=shellcheck
)

main() {
  local -a missing=()
  case ${1-} in
    -h | --help) usage "$0"; return ;;
    --check | '') ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]})) && [[ ${1-} != --check ]] && ((EUID == 0)) && command -v apt-get >/dev/null; then
    step "install ${missing[*]}" install "${missing[@]}"
    mapfile -t missing < <(missing_packages)
  fi
  if [[ ${1-} != --check ]] && command -v rustup >/dev/null && ! has_rust_target; then
    step "rustup target add $RUST_TARGET" retry rustup target add "$RUST_TARGET"
  fi
  report "${missing[@]}"
  warn_of_small_disk "$CACHE" "$PWD"
}

# What is there already needs no more space, so a short disk is a warning, not an end.
warn_of_small_disk() {
  local folder free
  for folder; do
    mkdir -p "$folder"
    free=$(($(stat --file-system --format='%a * %S' "$folder") / 1024 ** 3))
    ((free >= DISK_WANTED_GIB)) \
      || printf 'Only %d GiB are free under %s; a first run takes up to %d GiB.\n' "$free" "$folder" "$DISK_WANTED_GIB" >&2
  done
}

missing_packages() {
  local tool
  for tool in "${TOOLS[@]}"; do
    PATH=$PATH:/usr/sbin:/sbin command -v "${tool%%=*}" >/dev/null || [[ -f ${tool%%=*} ]] || printf '%s\n' "${tool#*=}"
  done | sort -u
}

install() {
  export DEBIAN_FRONTEND=noninteractive
  retry apt-get update -qq
  retry apt-get install --yes --no-install-recommends "$@"
}

# retry command…: mirrors have bad minutes.
retry() {
  local attempt
  for attempt in 1 2 3; do
    "$@" && return
    sleep $((attempt * 3))
  done
  return 1
}

has_rust_target() { [[ -d $(rustc --print sysroot)/lib/rustlib/$RUST_TARGET/lib ]]; }

# go_is_new_enough: sorts the wanted version and the present one.
go_is_new_enough() {
  local version
  version=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) \
    && [[ $(printf '%s\n' "$GO_WANTED" "${version#go}" | sort -V | head -n 1) == "$GO_WANTED" ]]
}

report() {
  local -a lines=()
  (($# == 0)) || lines+=("packages   $*" "           Debian, Ubuntu: sudo apt-get install $*")
  go_is_new_enough || lines+=("go         $GO_WANTED or newer, from go.dev/dl (Debian's is older)")
  if ! command -v cargo >/dev/null; then
    lines+=("rust       with rustup, from rustup.rs")
  elif ! has_rust_target; then
    lines+=("rust       its target for static programs: rustup target add $RUST_TARGET")
  fi
  ((${#lines[@]})) || return 0
  {
    printf 'Missing on this machine:\n'
    printf '  %s\n' "${lines[@]}"
  } >&2
  exit 1
}

main "$@"
