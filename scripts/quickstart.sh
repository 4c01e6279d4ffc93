#!/usr/bin/env bash
# Sets up what is missing, builds, and runs two jobs in an embedded cluster: the words of real text, counted, and a
# windowed job on a stream of auction bids.
#
# usage: scripts/quickstart.sh [PATH]     a file or folder of text; without one, this project's own documents
case "${1:-}" in
  -h | --help) sed -n '2,/^case/{/^#/s/^# \{0,1\}//p}' "$0"; exit 0 ;;
esac

# shellcheck source=lib/setup.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/setup.sh"

[ $# -le 1 ] || { echo "usage: scripts/quickstart.sh [PATH]" >&2; exit 2; }
input=${1:-$FLOTT_ROOT/docs}
[ -e "$input" ] || { echo "flott: there is no file or folder $input" >&2; exit 2; }
# Relative to where the caller stands, not to the project.
input=$(cd "$(dirname "$input")" && pwd)/$(basename "$input")

say "1 of 3: building (some minutes the first time, kept in $CARGO_TARGET_DIR)"
cd "$FLOTT_ROOT"
with_progress release cargo build --release --locked --bin flott --example word_count --example nexmark_windows

release=$CARGO_TARGET_DIR/release
run() { printf '$ %s\n' "$*" >&2; "$@"; }

say "2 of 3: the most frequent words in $input"
run "$release/flott" run "$release/examples/word_count" --input "$input" --top 20

say "3 of 3: the auctions with the most bids, by windows of event time"
run "$release/flott" run "$release/examples/nexmark_windows"

say "done; README.md says what to do next. The flott command is there after: export PATH=$release:\$PATH"
