#!/usr/bin/env bash
# Apache Flink's own command line, to show that it works against a Flott cluster.
#
#   scripts/lib/flink-client.sh fetch          fetches its jars into the cache, once
#   scripts/lib/flink-client.sh run ARGS...    runs `flink ARGS...`, such as: list -m localhost:8081
#
# Left out (exit code 77, with the reason) where Java 17, pip or the network is missing.
#
# FLOTT_CACHE   where the jars are kept; default ~/.cache/flott

set -euo pipefail

VERSION=2.3.0
SHA256=570bf8831d3c1336311e924e97119e52d8842e5485a4a7709ff9a92db709b006
CACHE=${FLOTT_CACHE:-${HOME:-/tmp}/.cache/flott}
CLIENT=$CACHE/flink-client-$VERSION

left_out() { printf 'left out: %s\n' "$*" >&2; exit 77; }

check_java() {
  command -v java >/dev/null || left_out "there is no Java; Flink $VERSION needs version 17"
  local version
  version=$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge 17 ] || left_out "Java $version is too old; Flink $VERSION needs version 17"
}

# The client is a part of the jars that PyFlink's package carries. Only what the command needs is kept, in one go, so
# that a fetch that was cut short leaves nothing behind.
fetch() {
  [ -e "$CLIENT/flink-dist-$VERSION.jar" ] && return
  local python work
  python=$(command -v python3) || left_out "there is no python3 to fetch Flink's client from PyPI"
  mkdir -p "$CACHE"
  work=$(mktemp -d "$CACHE/flink-client.XXXXXX")
  # shellcheck disable=SC2064  # the folder of this call
  trap "rm -rf '$work'" EXIT
  printf 'apache-flink-libraries==%s --hash=sha256:%s\n' "$VERSION" "$SHA256" >"$work/wanted"
  "$python" -m pip download -q --no-deps --no-binary apache-flink-libraries --require-hashes -r "$work/wanted" -d "$work" \
    >"$work/log" 2>&1 || left_out "Flink's client cannot be fetched from PyPI: $(tail -n 3 "$work/log")"
  mkdir "$work/jars"
  tar -xzf "$work/apache_flink_libraries-$VERSION.tar.gz" -C "$work/jars" --strip-components=3 \
    --wildcards "*/deps/lib/flink-dist-$VERSION.jar" '*/deps/lib/log4j-*.jar'
  mv -T "$work/jars" "$CLIENT" 2>/dev/null || [ -e "$CLIENT/flink-dist-$VERSION.jar" ]
}

run() {
  local folder
  folder=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$folder'" EXIT
  # Two tries, a second apart: enough for a server that is there.
  printf 'rest.retry.max-attempts: 2\nrest.retry.delay: 1 s\nclient.timeout: 30 s\n' >"$folder/config.yaml"
  FLINK_CONF_DIR=$folder java -XX:TieredStopAtLevel=1 -cp "$CLIENT/*" org.apache.flink.client.cli.CliFrontend "$@"
}

case ${1:-} in
  fetch) check_java; fetch ;;
  run) shift; check_java; fetch; run "$@" ;;
  *) sed -n '2,9p' "${BASH_SOURCE[0]}"; exit 2 ;;
esac
