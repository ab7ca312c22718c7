#!/usr/bin/env bash
# The operator's image for arm64, cross-built on any machine, as an archive.
#
# usage: arm64-image.sh         builds target/agent-tracing-operator-arm64.tar
#        arm64-image.sh path    prints the archive's path
#
# The C compiler for that architecture, with its own C library, is zig's, from PyPI. Nothing of it can run here: what is
# checked is what `file` says of the program.
set -euo pipefail
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"

ZIG=0.17.1
TARGET=aarch64-unknown-linux-musl
ROOT=$(cd "$HERE/../.." && pwd)
BINARY=target/$TARGET/release/agent-tracing-operator
ARCHIVE=$ROOT/target/agent-tracing-operator-arm64.tar
TOOLS=$CACHE/zig/$ZIG

main() {
  case ${1-} in
    '') ;;
    path) echo "$ARCHIVE"; return ;;
    -h | --help) usage "$0"; return ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
  cd "$ROOT"
  "$HERE/prereq.sh"
  [[ -x $TOOLS/cc ]] || step "zig $ZIG" compiler
  rustup target list --installed | grep -qx "$TARGET" || step "rustup target add $TARGET" rustup target add "$TARGET"
  step 'static binary of the operator for arm64' build
  step 'image of the operator for arm64' pack
  printf '  %s\n  as an archive: %s\n' "$("$HERE/operator-image.sh" tag)" "target/${ARCHIVE##*/}"
}

compiler() {
  rm -rf "$TOOLS"
  python3 -m venv "$TOOLS"
  "$TOOLS/bin/pip" install --quiet --no-cache-dir "ziglang==$ZIG"
  # zig has other names for targets than the crate cc, which passes its own.
  cat >"$TOOLS/cc.part" <<EOF
#!/usr/bin/env bash
arguments=()
for argument; do [[ \$argument == --target=* ]] || arguments+=("\$argument"); done
exec "$TOOLS/bin/python" -m ziglang cc -target aarch64-linux-musl "\${arguments[@]}"
EOF
  printf '#!/usr/bin/env bash\nexec "%s" -m ziglang ar "$@"\n' "$TOOLS/bin/python" >"$TOOLS/ar"
  chmod +x "$TOOLS/ar" "$TOOLS/cc.part"
  mv "$TOOLS/cc.part" "$TOOLS/cc"
}

# zig brings the C library and its start files, so rustc must not add its own.
build() {
  CC_aarch64_unknown_linux_musl=$TOOLS/cc AR_aarch64_unknown_linux_musl=$TOOLS/ar \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=$TOOLS/cc \
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_RUSTFLAGS=-Clink-self-contained=no \
    cargo build --locked --release --target "$TARGET" --bin agent-tracing-operator
  file --brief "$BINARY" | grep 'ARM aarch64.*statically linked'
}

pack() {
  local tag
  tag=$("$HERE/operator-image.sh" tag)-arm64
  buildah bud --isolation chroot --platform linux/arm64 --build-arg "BINARY=$BINARY" --tag "$tag" --file Dockerfile .
  rm -f "$ARCHIVE"
  buildah push "$tag" "docker-archive:$ARCHIVE:${tag%-arm64}"
}

main "$@"
