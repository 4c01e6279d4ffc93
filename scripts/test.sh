#!/usr/bin/env bash
# Sets up what is missing, and runs every check and every test of the project.
#
# usage: scripts/test.sh                  all
#        scripts/test.sh NAME...          only the steps named: format, lint, test, doc
case "${1:-}" in
  -h | --help) sed -n '2,/^case/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
esac

# shellcheck source=lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"
cd "$FLOTT_ROOT"
# Tests compare error texts; the engine takes the backtraces of user code itself.
export RUST_BACKTRACE=0

# A step of clippy or rustfmt is left out on a machine without them, except where everything must be checked.
has() {
  cargo "$1" --version >/dev/null 2>&1 && return
  [ -z "${CI:-}" ] || fail "cargo $1 is missing; run: rustup component add clippy rustfmt"
  say "left out: cargo $1 is missing (rustup component add clippy rustfmt)"
  return 1
}

STEPS="format lint test doc"
step_format() { ! has fmt || cargo fmt --all --check; }
# Of the benchmarks too, so that they keep building; running them takes a quiet machine.
step_lint() { ! has clippy || with_progress debug cargo clippy --locked --workspace --all-targets --quiet -- --deny warnings; }
step_test() {
  install_schema_compiler
  # The examples are programs that tests run; `cargo test --tests` alone would not build them.
  with_progress debug cargo build --locked --workspace --exclude flott-benches --quiet --examples
  cargo test --locked --workspace --exclude flott-benches --quiet --lib --bins --tests
}
step_doc() { cargo test --locked --workspace --exclude flott-benches --quiet --doc; }

read -ra steps <<<"$STEPS"
[ $# -eq 0 ] || steps=("$@")
started=$SECONDS
for step in "${steps[@]}"; do
  case " $STEPS " in
    *" $step "*) ;;
    *) echo "flott: there is no step '$step'; steps are: $STEPS" >&2; exit 2 ;;
  esac
  say "$step"
  before=$SECONDS
  "step_$step" || fail "$step failed after $((SECONDS - before)) s"
  printf '   %s: ok, %s s\n' "$step" "$((SECONDS - before))" >&2
done
say "all ok: ${steps[*]} in $((SECONDS - started)) s"
