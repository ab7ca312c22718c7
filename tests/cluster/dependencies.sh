#!/usr/bin/env bash
# What cargo built of other people's crates, kept outside the checkout: a clean checkout compiles only the operator.
#
# usage: dependencies.sh restore    into target/, where nothing is built yet
#        dependencies.sh keep       from target/, where this set is not kept yet
#
# A set is known by the lock files, the profiles and the compiler; the set of before goes when a new one is kept.
set -euo pipefail
# shellcheck source=tests/cluster/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$HERE/../.."

KEPT=$CACHE/dependencies
SET=$KEPT/$({ cat Cargo.lock Cargo.toml fuzz/Cargo.lock tests/fuzz.sh; rustc -vV; } | sha256sum | cut -c1-12)
# Profiles of cargo as folders below target/.
HOST=$(rustc -vV | sed -n 's/^host: //p')
PROFILES=(debug release "$(uname -m)-unknown-linux-musl/release" fuzz/release "fuzz/$HOST/release")

main() {
  case ${1-} in
    restore) restore ;;
    keep) keep ;;
    *) usage "$0" >&2; exit 2 ;;
  esac
}

restore() {
  if [[ -e target/debug || ! -d $SET ]]; then
    return 0
  fi
  mkdir -p target
  cp -a "$SET/." target/
}

keep() {
  [[ ! -d $SET ]] || return 0
  local profile part own
  rm -rf "$KEPT"
  mkdir -p "$SET.part"
  own=$(own_crates)
  for profile in "${PROFILES[@]}"; do
    for part in deps build .fingerprint; do
      [[ -d target/$profile/$part ]] || continue
      mkdir -p "$SET.part/$profile/$part"
      find "target/$profile/$part" -mindepth 1 -maxdepth 1 -regextype posix-extended \
        ! -regex ".*/(lib)?($own)-[0-9a-f]+(\..*)?" -exec cp -a -t "$SET.part/$profile/$part" {} +
    done
  done
  mv "$SET.part" "$SET"
}

# The package, its tests and its benches, as cargo names their files.
own_crates() {
  local names
  names=$(for manifest in Cargo.toml fuzz/Cargo.toml; do
    cargo metadata --locked --no-deps --format-version 1 --manifest-path "$manifest"
  done | grep -oE '"name":"[^"]*","(src_path|version)"' | cut -d'"' -f4)
  # Cargo writes `-` in the names of folders and `_` in those of libraries.
  { echo "$names"; tr - _ <<<"$names"; } | sort -u | paste -sd"|"
}

main "$@"
