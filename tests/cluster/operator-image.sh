#!/usr/bin/env bash
# The operator's image, from the real Dockerfile, as an archive.
#
# usage: operator-image.sh         builds target/agent-tracing-operator.tar and says how it gets into a cluster
#        operator-image.sh path    prints the archive's path
#        operator-image.sh tag     prints the image's name in manifests
#        operator-image.sh previous    the same of the commit before, and what that installs, in target/previous; nothing
#                                      where the checkout does not have it
set -euo pipefail
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"

ROOT=$(cd "$HERE/../.." && pwd)
TARGET=$(uname -m)-unknown-linux-musl
BINARY=target/$TARGET/release/agent-tracing-operator
ARCHIVE=$ROOT/target/agent-tracing-operator.tar
TAG=ghcr.io/agenttracing/agent-tracing-operator:v$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' "$ROOT/Cargo.toml")

main() {
  case ${1-} in
    '') ;;
    path) echo "$ARCHIVE"; return ;;
    tag) echo "$TAG"; return ;;
    previous) cd "$ROOT"; previous; return ;;
    -h | --help) usage "$0"; return ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
  cd "$ROOT"
  step 'static binary of the operator' build . target
  if [[ ! -s $ARCHIVE || $BINARY -nt $ARCHIVE || Dockerfile -nt $ARCHIVE ]]; then
    step 'image of the operator' archive
  fi
  printf '  %s\n  as an archive: %s\n' "$TAG" "target/${ARCHIVE##*/}"
}

# build SOURCE TARGET-FOLDER [RUSTC-OPTION…]. Packed relocations: they are 1 MiB otherwise, all of it in memory.
build() {
  env "CC_${TARGET//-/_}=musl-gcc" cargo rustc --locked --release --target "$TARGET" --bin agent-tracing-operator \
    --manifest-path "$1/Cargo.toml" --target-dir "$2" -- -C link-arg=-Wl,-z,pack-relative-relocs "${@:3}"
}

archive() { pack . "$BINARY" "$TAG" "$ARCHIVE"; }

# pack FOLDER BINARY TAG ARCHIVE: the binary's path is one below the folder.
pack() {
  buildah bud --isolation chroot --build-arg "BINARY=$2" --tag "$3" --file "$1/Dockerfile" "$1"
  rm -f "$4.part"
  buildah push "$3" "docker-archive:$4.part:$3"
  mv "$4.part" "$4"
}

# share_dependencies FOLDER: a target folder with all that is built here but for the operator itself. Not the same folder: cargo
# takes two checkouts of a package for one, and the older for built.
share_dependencies() {
  local part
  for part in release "$TARGET/release"; do
    mkdir -p "$1/$part"
    cp -a "target/$part/deps" "target/$part/build" "target/$part/.fingerprint" "$1/$part/"
    rm -rf "$1/$part"/.fingerprint/agent-tracing-operator-*
  done
}

previous() {
  local commit kept source=target/previous/source built=target/previous/build
  rm -rf target/previous
  commit=$(git rev-parse --verify --quiet 'HEAD^{commit}^') || return 0
  kept=$CACHE/previous/$commit
  if [[ ! -s $kept/install.yaml ]]; then
    mkdir -p "$source" "$kept"
    git archive "$commit" | tar -x -C "$source"
    share_dependencies "$built"
    # Nobody measures this one, and it is linked in a quarter of the time.
    step 'static binary of the commit before' build "$source" "$built" -C lto=thin -C codegen-units=16
    mkdir -p "$source/${BINARY%/*}"
    cp "$built/${BINARY#*/}" "$source/$BINARY"
    step 'image of the commit before' pack "$source" "$BINARY" "${TAG%:*}:previous" "$kept/operator.tar"
    "$BIN/kubectl" kustomize "$source/config/default" \
      | sed "s|${TAG%:*}:v[0-9.]*|${TAG%:*}:previous|" >"$kept/install.yaml.part"
    mv "$kept/install.yaml.part" "$kept/install.yaml"
    rm -rf "$source" "$built"
    # Of others than this one nobody asks again.
    find "$CACHE/previous" -mindepth 1 -maxdepth 1 ! -name "$commit" -exec rm -rf {} +
  fi
  mkdir -p target/previous
  cp "$kept/operator.tar" "$kept/install.yaml" target/previous/
}

main "$@"
