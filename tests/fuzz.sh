#!/usr/bin/env bash
# Feeds arbitrary bytes to what reads foreign bytes: each target of fuzz/ for some seconds.
#
# usage: fuzz.sh [seconds]     default: 15
#
# What the fuzzer learns stays in target/fuzz/corpus for the next run. An input that breaks something is kept in
# target/fuzz/artifacts and named; run it again with `target/fuzz/<triple>/release/<target> <file>`.
set -euo pipefail
cd "$(dirname "$0")/.."

TARGETS=(ca_merge mlflow_answer review)
TRIPLE=$(rustc -vV | sed -n 's/^host: //p')
OUT=$PWD/target/fuzz

# What cargo-fuzz sets, without its nightly compiler: coverage counters and comparisons for libFuzzer are passes of LLVM. No
# address sanitizer, which would need one: the code is safe Rust. With --target, so that build scripts are not instrumented.
INSTRUMENTS=(--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks)

main() {
  local seconds=${1:-15} target
  [[ $seconds =~ ^[1-9][0-9]*$ ]] || { sed -n '4p' "$0" >&2; exit 2; }
  RUSTFLAGS=${INSTRUMENTS[*]} cargo build --locked --quiet --release --target "$TRIPLE" \
    --manifest-path fuzz/Cargo.toml --target-dir "$OUT"
  for target in "${TARGETS[@]}"; do
    run "$target" "$seconds"
  done
}

run() {
  local target=$1 corpus=$OUT/corpus/$1 log=$OUT/$1.log
  mkdir -p "$corpus" "$OUT/artifacts"
  # Seeds are read, and only the corpus is written. One input may take 5 s: more is a hang.
  "$OUT/$TRIPLE/release/$target" "$corpus" "fuzz/seeds/$target" -max_total_time="$2" -timeout=5 -rss_limit_mb=1024 \
    -max_len=16384 -artifact_prefix="$OUT/artifacts/$target-" -print_final_stats=1 >"$log" 2>&1 || {
    tail -40 "$log" >&2
    exit 1
  }
  printf '%s: %s; %s\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: */executions /p' "$log")" \
    "$(grep -o 'cov: [0-9]* ft: [0-9]* corp: [0-9]*' "$log" | tail -1)"
}

main "$@"
