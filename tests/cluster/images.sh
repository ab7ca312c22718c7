#!/usr/bin/env bash
# The container images of tests and demo, as archives and without a registry.
#
#   images.sh [NAME…]       build what is missing; without a name, what `make test` uses
#   images.sh path NAME     print where the archive of NAME is, or will be
#   images.sh tag NAME      print the image's name in manifests
#   images.sh list [soak]   print every NAME that `make test` uses, or those only `make soak` does
#   images.sh lock [SET…]   resolve requirements.in of a Python set anew and write requirements.txt
#   images.sh prune         remove archives and layers of other versions than these
#
# An archive is what `docker save` writes; it goes into this cluster with node.sh, elsewhere with
# `kind load image-archive`, `minikube image load` or `docker load -i`. Its file name holds a hash of
# everything that went into it. Debian packages come from the machine's own mirror, Python packages
# from pip's own index; both are Debian 13 and Python 3.13, whatever the machine has.
set -euo pipefail

# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

NAMES=(base mlflow langgraph llm idle mlflow-cr-a mlflow-cr-b langgraph-plugin adk go)
SOAK=(crewai autogen llamaindex) # only `make soak` uses these: built when named, 5 GB of cache more
PYTHON=3.13
PACKAGES=usr/local/lib/python$PYTHON/dist-packages # where Debian's Python looks by itself
AGENTS=$HERE/../demo/agents
IMAGES=$CACHE/images
LAYERS=$CACHE/images/layers
MACHINE=$(uname -m)

tag() {
  case $1 in
    base) echo demo/base:1 ;;
    mlflow) echo ghcr.io/mlflow/mlflow:v3.10.1 ;;
    mlflow-cr-a) echo demo/mlflow-cr:a ;;
    mlflow-cr-b) echo demo/mlflow-cr:b ;;
    langgraph | langgraph-plugin | adk | crewai | autogen | llamaindex | go) echo "demo/$1-agent:1" ;;
    llm) echo demo/openai-stand-in:1 ;;
    idle) echo demo/idle:1 ;;
    *) die "no image is called '$1'; there are: ${NAMES[*]} ${SOAK[*]}" ;;
  esac
}

# layers_of NAME: bottom first. The agents stand on MLflow's packages, so these are stored once.
layers_of() {
  case $1 in
    base) echo base ;;
    mlflow) echo base mlflow ;;
    mlflow-cr-*) echo base "$(below_of "$1")" "$1" ;;
    langgraph | langgraph-plugin | adk | crewai | autogen | llamaindex)
      # shellcheck disable=SC2046 # below it there may be nothing
      echo base $(below_of "$1") "$1" "agent-$1"
      ;;
    llm) echo base llm ;;
    idle | go) echo "$1" ;;
  esac
}

# below_of SET: the set of Python packages it stands on, if any.
below_of() {
  case $1 in
    mlflow-cr-a | langgraph | llamaindex) echo mlflow ;;
    mlflow-cr-b | langgraph-plugin) echo mlflow-3.14 ;;
  esac
}

# is_set LAYER: whether it is a set of Python packages.
is_set() { [[ -e $HERE/images/$1/requirements.in ]]; }

# config_of NAME: what the image says about how to run it. MLflow's names no user, like the official one.
config_of() {
  local path='"PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"'
  case $1 in
    base | mlflow | mlflow-cr-*) echo "{\"Env\": [$path], \"Cmd\": [\"python3\"]}" ;;
    langgraph | langgraph-plugin | adk | crewai | autogen | llamaindex)
      echo "{\"Env\": [$path, \"PYTHONUNBUFFERED=1\"], \"User\": \"1001\", \"WorkingDir\": \"/app\",
             \"Cmd\": [\"python\", \"/app/agent.py\"]}"
      ;;
    llm)
      echo "{\"Env\": [$path, \"PYTHONUNBUFFERED=1\"], \"User\": \"1001\", \"WorkingDir\": \"/app\",
             \"Cmd\": [\"python\", \"/app/server.py\"], \"ExposedPorts\": {\"8080/tcp\": {}}}"
      ;;
    idle | go) echo "{\"User\": \"65532\", \"Entrypoint\": [\"/$1\"]}" ;;
  esac
}

# --- keys: an archive's name is a hash of its layers and its config, a layer's of its inputs and its recipe

inputs_of() {
  local below
  if is_set "$1"; then
    below=$(below_of "$1")
    echo ${below:+"$HERE/images/$below/requirements.txt"} "$HERE/images/$1/requirements.txt"
    return
  fi
  case $1 in
    base) ;;
    agent-*) echo "$AGENTS/${1#agent-}/agent.py" ;;
    llm) echo "$HERE/images/llm/server.py" ;;
    idle) echo "$HERE/images/idle/main.go" "$HERE/images/idle/go.mod" ;;
    go) echo "$AGENTS/go/main.go" "$AGENTS/go/go.mod" "$AGENTS/go/go.sum" ;;
  esac
}

recipe_of() {
  case $1 in
    base) echo make_base ;;
    agent-* | llm) echo make_file ;;
    idle | go) echo make_go ;;
    *) echo make_python fetch_python compile_python ;;
  esac
}

declare -A KEYS=()
layer_key() {
  local layer=$1
  if [[ -z ${KEYS[$layer]:-} ]]; then
    # shellcheck disable=SC2046 # a list of words each
    KEYS[$layer]=$({
      printf '%s\n' "$layer" "$MACHINE" "$PYTHON"
      declare -f pack $(recipe_of "$layer")
      for file in $(inputs_of "$layer"); do cat "$file"; done
    } | sha256sum | cut -c1-12)
  fi
}

layer() {
  layer_key "$1"
  echo "$LAYERS/$1-${KEYS[$1]}.tar"
}

archive() {
  local name=$1 part
  tag "$name" >/dev/null
  printf '%s/%s-%s.tar\n' "$IMAGES" "$name" "$({
    tag "$name"
    config_of "$name"
    for part in $(layers_of "$name"); do layer "$part"; done | sed 's|.*/||'
    cat "$HERE/images/archive.py"
  } | sha256sum | cut -c1-12)"
}

# --- layers

# pack FOLDER LAYER: the folder's content as a tar, the same bytes every time.
pack() {
  local out
  out=$(layer "$2")
  tar -C "$1" --sort=name --mtime=@315532800 --numeric-owner --format=gnu \
    --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -cf "$out.new" .
  mv "$out.new" "$out"
}

# Debian mirror of this machine; nothing on other systems: debootstrap then knows one.
mirror() {
  # shellcheck source=/dev/null
  [[ $(source /etc/os-release && echo "$ID") == debian ]] || return 0
  cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
    awk '$1 == "URIs:" { uri = $2 }
         $1 == "deb" { uri = ""; for (i = 2; i <= NF; i++) if ($i ~ /^[a-z]+:\/\//) { uri = $i; break } }
         uri ~ /^https?:/ && uri ~ /\/debian\/?$/ { print uri; exit }'
}

make_base() {
  local root=$WORK/base from attempt
  from=$(mirror)
  for attempt in 1 2 3; do # mirrors have bad minutes
    rm -rf "$root"
    # shellcheck disable=SC2086 # no mirror, no word
    ! debootstrap --variant=minbase --include=python3,ca-certificates trixie "$root" $from || break
    ((attempt < 3)) || die "debootstrap failed three times"
    sleep $((attempt * 5))
  done
  rm -rf "$root"/var/{cache/apt,cache/ldconfig,lib/apt/lists,log}/* "$root"/usr/share/{doc,man,info,locale}/* \
    "$root"/etc/{hostname,resolv.conf,hosts,machine-id} "$root"/debootstrap
  ln -sf /usr/bin/python3 "$root/usr/local/bin/python3"
  ln -sf /usr/bin/python3 "$root/usr/local/bin/python"
  pack "$root" base
  rm -rf "$root"
}

# fetch_python SET [BELOW]: the packages of a set that are not in the set below it.
fetch_python() {
  local set=$1 below=${2:-} to=$WORK/$1/up wanted=$WORK/$1/wanted.txt
  rm -rf "${WORK:?}/$set"
  mkdir -p "$to/usr/local/bin" "$to/$PACKAGES"
  if [[ -n $below ]]; then
    comm -23 <(sort "$HERE/images/$set/requirements.txt") <(sort "$HERE/images/$below/requirements.txt") >"$wanted"
    if grep -oE '^[^=]+==' "$wanted" | grep -xFf - <(grep -oE '^[^=]+==' "$HERE/images/$below/requirements.txt"); then
      die "$set wants other versions of these than $below: run images.sh lock $set"
    fi
  else
    cp "$HERE/images/$set/requirements.txt" "$wanted"
  fi
  pip_for_image install --no-deps --no-compile --quiet --progress-bar off --target "$to/$PACKAGES" -r "$wanted"
  if [[ -d $to/$PACKAGES/bin ]]; then
    find "$to/$PACKAGES/bin" -type f -exec sed -i '1s|^#!.*python.*|#!/usr/bin/python3|' {} +
    mv "$to/$PACKAGES"/bin/* "$to/usr/local/bin/"
    rmdir "$to/$PACKAGES/bin"
  fi
  # A sixth of the bytes is test suites; numpy's stays, it imports it.
  (cd "$to/$PACKAGES" && for package in pandas pyarrow scipy sklearn matplotlib skops; do
    [[ ! -d $package ]] || find "$package" -type d -name tests -prune -exec rm -rf {} +
  done)
}

# compile_python SET: byte code, by the Python that will run it. A container with a read-only root cannot
# keep its own, and would compile everything again at each start.
compile_python() {
  local root=$WORK/$1/root
  mkdir -p "$root"
  tar -C "$root" -xf "$(layer base)"
  mv "$WORK/$1/up" "$root/up"
  mkdir -p "$root/dev/shm"
  # Some packages carry files that are no Python at all, hence its exit code says nothing.
  chroot "$root" /usr/bin/python3 -m compileall -qq -j 0 -s /up -p / --invalidation-mode unchecked-hash /up || true
  [[ -n $(find "$root/up" -name '*.pyc' -print -quit) ]] || die "nothing of $1 could be compiled"
}

make_python() {
  compile_python "$1"
  pack "$WORK/$1/root/up" "$1"
  rm -rf "${WORK:?}/$1"
}

make_file() {
  local file
  file=$(inputs_of "$1")
  rm -rf "${WORK:?}/$1"
  install -D -m 0644 "$file" "$WORK/$1/app/${file##*/}"
  chmod 0755 "$WORK/$1" "$WORK/$1/app"
  pack "$WORK/$1" "$1"
}

# make_go LAYER FOLDER: a static program, named like its layer.
make_go() {
  rm -rf "${WORK:?}/$1"
  install -d -m 0755 "$WORK/$1"
  (cd "$2" && CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off go build -trimpath -buildvcs=false -ldflags "-s -w -buildid=" -o "$WORK/$1/$1" .)
  pack "$WORK/$1" "$1"
}

assemble() {
  local name=$1 out files=() part
  out=$(archive "$name")
  for part in $(layers_of "$name"); do files+=("$(layer "$part")"); done
  python3 "$HERE/images/archive.py" "$out.new" "$(tag "$name")" "$(config_of "$name")" "${files[@]}"
  mv "$out.new" "$out"
}

# --- pip, for the image's Python and not for this machine's

pip_for_image() {
  local command=$1
  shift
  # Older pips compare what packages require with the Python they run in, not with the wanted one: not asked
  # here, checked where versions are chosen.
  python3 -m pip "$command" --ignore-requires-python --disable-pip-version-check --no-input --only-binary=:all: --python-version "$PYTHON" \
    --implementation cp --platform "manylinux_2_28_$MACHINE" --platform "manylinux2014_$MACHINE" "$@"
}

lock_set() {
  local set=$1 out=$HERE/images/$1/requirements.txt below
  below=$(below_of "$set")
  pip_for_image install --dry-run --ignore-installed --quiet --report "$WORK/$set.json" --target "$WORK/none" \
    -r "$HERE/images/$set/requirements.in" ${below:+-c "$HERE/images/$below/requirements.txt"}
  python3 - "$WORK/$set.json" "$PYTHON.0" >"$out.new" <<'PYTHON'
import json, re, sys
from pip._vendor.packaging.specifiers import SpecifierSet
for package in json.load(open(sys.argv[1]))["install"]:
    wants = package["metadata"].get("requires_python", "")
    if sys.argv[2] not in SpecifierSet(wants):
        sys.exit(f"{package['metadata']['name']} {package['metadata']['version']} wants Python {wants}")
for name, version in sorted(
    (re.sub(r"[-_.]+", "-", package["metadata"]["name"]).lower(), package["metadata"]["version"])
    for package in json.load(open(sys.argv[1]))["install"]
):
    print(f"{name}=={version}")
PYTHON
  mv "$out.new" "$out"
}

# --- what to do

missing_tools() {
  local missing=()
  [[ $1 != *' idle '* && $1 != *' go '* ]] || command -v go >/dev/null || missing+=("go")
  [[ $1 != *base* ]] || command -v debootstrap >/dev/null || missing+=("debootstrap (package debootstrap)")
  [[ $1 != *base* || -e /usr/share/keyrings/debian-archive-keyring.gpg ]] ||
    missing+=("Debian's keys (package debian-archive-keyring)")
  [[ $1 != *base* && $1 != *python* || $EUID == 0 ]] || missing+=("root (debootstrap and chroot need it)")
  [[ $1 != *python* ]] || python3 -m pip --version >/dev/null 2>&1 || missing+=("pip (package python3-pip)")
  command -v python3 >/dev/null || missing+=("python3 (package python3)")
  ((${#missing[@]} == 0)) || die "to build images these are missing: $(printf '\n  %s' "${missing[@]}")"
}

# absent NAME…: the layers that these images need and that are not there yet, each once.
absent() {
  local name part
  for name; do
    [[ -e $(archive "$name") ]] || for part in $(layers_of "$name"); do
      [[ -e $(layer "$part") ]] || echo "$part"
    done
  done | awk '!seen[$0]++'
}

# together "what" command… -- "what" command… : steps side by side; ends when all have ended.
# Each has its own log, and the moving line is left out: two would overwrite each other.
together() {
  local words=() pids=() rc=0 pid
  # shellcheck disable=SC2030,SC2031 # these are meant for the one step alone
  run() { (
    REWIND=''
    LOG=${LOG%.log}-$BASHPID.log
    step "$@"
  ) & }
  while (($#)); do
    if [[ $1 == -- ]]; then
      ((${#words[@]} == 0)) || { run "${words[@]}" && pids+=($!); }
      words=()
    else
      words+=("$1")
    fi
    shift
  done
  ((${#words[@]} == 0)) || { run "${words[@]}" && pids+=($!); }
  for pid in "${pids[@]}"; do wait "$pid" || rc=$?; done
  return "$rc"
}

build() {
  local name todo=() part need layers=() fetch=() plan=()
  for name; do [[ -e $(archive "$name") ]] || todo+=("$name"); done
  ((${#todo[@]})) || return 0

  mkdir -p "$LAYERS"
  exec 8>"$IMAGES/lock"
  flock 8 # someone else may just be building the same
  rm -rf "$IMAGES"/work.* # of a run that was killed
  WORK=$(mktemp -d "$IMAGES/work.XXXXXX")
  trap 'rm -rf "$WORK"' EXIT
  mapfile -t layers < <(absent "${todo[@]}")
  for part in "${layers[@]}"; do ! is_set "$part" || fetch+=("$part"); done
  # Byte code needs the base even where only a Python set is missing.
  if ((${#fetch[@]})) && [[ ! -e $(layer base) && " ${layers[*]} " != *' base '* ]]; then layers+=(base); fi
  need=" ${layers[*]} "
  missing_tools "$need$([[ ${#fetch[@]} == 0 ]] || echo python)"

  [[ $need != *' base '* ]] || plan+=(-- "Debian 13 with Python $PYTHON" make_base)
  ((${#fetch[@]} == 0)) || plan+=(-- "Python packages of: ${fetch[*]}" fetch_all "${fetch[@]}")
  [[ $need != *' idle '* ]] || plan+=(-- "a program that waits" make_go idle "$HERE/images/idle")
  [[ $need != *' go '* ]] || plan+=(-- "an agent in Go" make_go go "$AGENTS/go")
  for part in "${layers[@]}"; do
    case $part in
      llm | agent-*) plan+=(-- "files of $part" make_file "$part") ;;
    esac
  done
  ((${#plan[@]} == 0)) || together "${plan[@]}"
  for part in "${fetch[@]}"; do step "byte code and layer of $part" make_python "$part"; done
  for name in "${todo[@]}"; do
    [[ -e $(archive "$name") ]] || step "image $(tag "$name")" assemble "$name"
  done
}

fetch_all() {
  local set
  for set; do fetch_python "$set" "$(below_of "$set")"; done
}

prune() {
  local name part keep=() file
  for name in "${NAMES[@]}" "${SOAK[@]}"; do
    keep+=("$(archive "$name")")
    for part in $(layers_of "$name"); do keep+=("$(layer "$part")"); done
  done
  for file in "$IMAGES"/*.tar "$LAYERS"/*.tar; do
    [[ ! -e $file || " ${keep[*]} " == *" $file "* ]] || rm -v "$file"
  done
}

case ${1:-} in
  -h | --help) usage "$0" ;;
  path) archive "${2:?which image?}" ;;
  tag) tag "${2:?which image?}" ;;
  list)
    [[ ${2:-} != soak ]] || NAMES=("${SOAK[@]}")
    printf '%s\n' "${NAMES[@]}"
    ;;
  prune) prune ;;
  lock)
    shift
    WORK=$(mktemp -d)
    trap 'rm -rf "$WORK"' EXIT
    missing_tools python
    # Those that others stand on first: their versions are the others' constraints.
    (($#)) || set -- mlflow mlflow-3.14 mlflow-cr-a mlflow-cr-b langgraph langgraph-plugin adk crewai autogen llamaindex
    for set; do step "resolving $set" lock_set "$set"; done
    ;;
  *)
    [[ $# -gt 0 ]] || set -- "${NAMES[@]}"
    for name; do tag "$name" >/dev/null; done
    build "$@"
    ;;
esac
