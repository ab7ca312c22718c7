#!/usr/bin/env bash
# The operator's image, from the real Dockerfile, as an archive.
#
# usage: operator-image.sh         builds target/agent-tracing-operator.tar and says how it gets into a cluster
#        operator-image.sh path    prints the archive's path
#        operator-image.sh tag     prints the image's name in manifests
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
    -h | --help) usage "$0"; return ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
  cd "$ROOT"
  export "CC_${TARGET//-/_}=musl-gcc"
  step 'static binary of the operator' cargo build --locked --release --target "$TARGET" --bin agent-tracing-operator
  if [[ ! -s $ARCHIVE || $BINARY -nt $ARCHIVE || Dockerfile -nt $ARCHIVE ]]; then
    step 'image of the operator' archive
  fi
  printf '  %s\n  as an archive: %s\n' "$TAG" "target/${ARCHIVE##*/}"
}

archive() {
  buildah bud --isolation chroot --build-arg "BINARY=$BINARY" --tag "$TAG" --file Dockerfile .
  rm -f "$ARCHIVE.part"
  buildah push "$TAG" "docker-archive:$ARCHIVE.part:$TAG"
  mv "$ARCHIVE.part" "$ARCHIVE"
}

main "$@"
