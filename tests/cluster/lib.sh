# shellcheck shell=bash
# Shared by the scripts of this folder; sourced, never run.
#
# Paths     CACHE  what survives `down`: binaries and imported images, keyed by version
#           STATE  what a running cluster needs; `down` removes it
#           BIN    the folder of the pinned binaries
# Progress  step "what happens" command…
# Processes start, alive, stop: known by pid *and* start time, so that a recycled pid is never ended.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${AGENT_TRACING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/agent-tracing}
STATE=${AGENT_TRACING_STATE:-$CACHE/state}

# Everything a binary depends on is in these files, so their hash is the version.
BIN=$CACHE/bin/$(cd "$HERE" && cat go/*/* binaries.sh | sha256sum | cut -c1-12)
LOG=$STATE/log/steps.log

# Service addresses, the pods' network and the node's own: all of them exist only inside the
# cluster's network namespace, so they cannot collide with the machine's networks. They are private
# (RFC 1918) because pods of real clusters are, and MLflow's host check treats such addresses alike.
# shellcheck disable=SC2034 # read by the scripts that source this file
{
  SERVICE_CIDR=10.96.0.0/16
  SERVICE_API=10.96.0.1
  POD_CIDR=10.244.0.0/24
  POD_GATEWAY=10.244.0.1
  NODE_CIDR=10.89.0.0/24
  NODE_IP=10.89.0.2
}

# host ADDRESS: as it stands in a URL.
host() {
  case $1 in
    *:*) printf '[%s]' "$1" ;;
    *) printf '%s' "$1" ;;
  esac
}

die() {
  printf '%s\n' "$*" >&2
  exit 1
}

# usage SCRIPT: its header comment is its help.
usage() {
  sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

if [[ -t 1 ]]; then
  GREEN=$'\e[32m' RED=$'\e[31m' DIM=$'\e[2m' PLAIN=$'\e[0m' REWIND=$'\r\e[K'
else
  GREEN='' RED='' DIM='' PLAIN='' REWIND=''
fi

# step "what happens" command…: one line with the time it took; its output goes to $LOG.
#
# Never call it in a condition (`if step`, `step || …`): bash then ignores `set -e` in everything
# below, and a failed step would look like a good one. Variables set by the command are lost.
step() {
  local what=$1 began=${EPOCHREALTIME/[.,]/} rc mark
  shift
  mkdir -p "${LOG%/*}"
  mark=$(wc -c 2>/dev/null <"$LOG" || echo 0)
  [[ -z $REWIND ]] || printf '  %s…  %7s %s%s' "$DIM" '' "$what" "$PLAIN"
  set +e
  (
    set -e
    printf '=== %s\n' "$what"
    "$@"
  ) >>"$LOG" 2>&1
  rc=$?
  set -e
  local took=$((${EPOCHREALTIME/[.,]/} - began))
  took=$(printf '%d.%d s' $((took / 1000000)) $((took / 100000 % 10)))
  if ((rc == 0)); then
    printf '%s  %sok%s %7s  %s\n' "$REWIND" "$GREEN" "$PLAIN" "$took" "$what"
    return 0
  fi
  printf '%s  %sno%s %7s  %s\n' "$REWIND" "$RED" "$PLAIN" "$took" "$what"
  {
    # What a test says comes first, since the last lines of many only count them.
    tail -c "+$((mark + 1))" "$LOG" | grep -A 3 ' panicked at ' | grep -v '^--$' | cut -c 1-500 | head -n 40 || true
    tail -c "+$((mark + 1))" "$LOG" | tail -n 30
  } | sed 's/^/     | /' >&2
  printf '     the whole output: %s\n' "$LOG" >&2
  exit "$rc"
}

# wait_for SECONDS command…: polls until the command succeeds.
wait_for() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS >= end)); then
      printf 'gave up waiting for: %s\n' "$*" >&2
      "$@" || true
      return 1
    fi
    sleep 0.1
  done
}

# lock NAME: one `up` or `down` at a time; the second waits. Held until the script ends.
lock() {
  mkdir -p "$STATE"
  exec 9>"$STATE/$1.lock"
  flock 9
}

# born PID: when a process started, in clock ticks since boot; with the pid it names a process for good.
born() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  # The command's name may hold blanks and parentheses: count from the last one.
  # shellcheck disable=SC2086
  set -- ${stat##*) }
  [[ $1 != Z ]] || return 1
  printf '%s\n' "${20}"
}

# start PIDFILE LOGFILE command…: outlives this shell and its terminal. The child writes its pid
# file before it becomes the command, so there is no instant in which it runs unknown; it must not
# inherit the lock, and sees nothing of the caller's environment (a proxy there would be asked for
# cluster addresses).
start() {
  local pidfile=$1 logfile=$2
  shift 2
  mkdir -p "${pidfile%/*}" "${logfile%/*}"
  # shellcheck disable=SC2016
  env -i PATH="$BIN:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="${HOME:-/}" \
    setsid bash -c 'pidfile=$1; shift; stat=$(</proc/$$/stat); stat=(${stat##*) })
      echo "$$ ${stat[19]}" >"$pidfile"; exec "$@"' start "$pidfile" "$@" \
    </dev/null >>"$logfile" 2>&1 9>&- &
  disown
  wait_for 5 test -s "$pidfile"
}

# alive PIDFILE
alive() {
  local pid='' ticks=''
  [[ -s $1 ]] && read -r pid ticks <"$1" && [[ -n $ticks && $(born "$pid") == "$ticks" ]]
}

# stop PIDFILE…: asks all of them to end, waits, insists after $PATIENCE seconds. Each leads a process
# group (setsid), so what they forked ends too.
stop() {
  local file pid signal end
  for signal in TERM KILL; do
    for file; do
      if alive "$file" && read -r pid _ <"$file"; then kill -"$signal" -- "-$pid" 2>/dev/null || true; fi
    done
    end=$((SECONDS + ${PATIENCE:-10}))
    for file; do
      while alive "$file" && ((SECONDS < end)); do sleep 0.05; done
    done
  done
  rm -f "$@"
}
