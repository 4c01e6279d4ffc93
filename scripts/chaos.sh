#!/usr/bin/env bash
# Kills executors and workers of a running job at random moments, and executors and the coordinator at chosen steps of a checkpoint, lets writes
# fail, rescales the job and takes savepoints in between; then checks that every record was counted and written exactly once. The last line
# reads: faults=N expected=E missing=M duplicate=D
#
# usage: scripts/chaos.sh [--faults N] [--seed S] [--workers W]      default: 200 faults, seed 1, 3 workers
# shellcheck source=lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
cd "$FLOTT_ROOT"

faults=200 seed=1 workers=3
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) sed -n '2,/^# shellcheck/{/^# shellcheck/d;s/^# \{0,1\}//p}' "$0"; exit 0 ;;
    --faults | --seed | --workers)
      [[ "${2:-}" =~ ^[0-9]+$ ]] || { echo "flott: $1 wants a number" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    *) echo "flott: '$1' is not known; see --help" >&2; exit 2 ;;
  esac
done
[ "$workers" -ge 1 ] || { echo "flott: --workers wants at least 1" >&2; exit 2; }

with_progress debug cargo build --locked --quiet --examples
log=$(mktemp)
status=0
FLOTT_CHAOS="$faults $seed $workers" RUST_BACKTRACE=0 \
  cargo test --locked --quiet --test chaos -- --nocapture 2>&1 | tee "$log" || status=$?
grep '^faults=' "$log" | tail -n 1 || true
rm -f "$log"
exit "$status"
