# Sourced by the scripts: finds the project, installs what the machine lacks, and says where cargo builds.
# shellcheck shell=bash
#
# FLOTT_CACHE       where build output is kept from run to run; default ~/.cache/flott
# CARGO_TARGET_DIR  if set, wins over FLOTT_CACHE

set -euo pipefail

FLOTT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
FLOTT_CACHE=${FLOTT_CACHE:-${HOME:-/tmp}/.cache/flott}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$FLOTT_CACHE/target}
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-auto}

# say TEXT...: what the script is doing, on the standard error.
say() { printf '\n== %s\n' "$*" >&2; }
fail() { printf '\nflott: %s\n' "$*" >&2; exit 1; }

# Runs a command as root, if that is possible without asking for a password.
as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo -n "$@"
  else return 1
  fi
}

# Some of the crates compile C and C++ (RocksDB): that takes compilers, their headers, a linker, and libclang for the bindings.
# The crates come over HTTPS.
install_packages() {
  local missing=()
  command -v cc >/dev/null || missing+=(gcc)
  command -v c++ >/dev/null || missing+=(g++)
  has_libclang || missing+=(libclang-dev)
  [ -e /usr/include/stdio.h ] || [ "$(uname -s)" != Linux ] || missing+=(libc6-dev)
  [ -e /etc/ssl/certs/ca-certificates.crt ] || [ ! -e /etc/debian_version ] || missing+=(ca-certificates)
  [ "${#missing[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install them with the package manager of this system"
  say "installing ${missing[*]}"
  as_root apt-get update -qq >&2 || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 \
    || fail "could not install ${missing[*]}; run: sudo apt-get install ${missing[*]}"
}

# Not libclang-cpp, which is another library.
has_libclang() {
  [ -z "${LIBCLANG_PATH:-}" ] || return 0
  ldconfig -p 2>/dev/null | grep -qE 'libclang(-[0-9.]+)?\.so' && return
  compgen -G '/usr/lib/llvm-*/lib/libclang[.-][s0-9]*' >/dev/null || compgen -G '/usr/lib/*/libclang[.-][s0-9]*' >/dev/null
}

# Cap'n Proto's compiler makes the generated code of the schemas anew, for one test; that is left out where there is none.
install_schema_compiler() {
  command -v capnp >/dev/null && return
  command -v apt-get >/dev/null || return 0
  say "installing capnproto"
  as_root apt-get update -qq >&2 || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends capnproto libcapnp-dev >&2 || true
}

# A compiler cache saves RocksDB's compile, which is the longest part of a build, when the build output is gone.
use_ccache() {
  command -v ccache >/dev/null || return 0
  export CC=${CC:-ccache cc} CXX=${CXX:-ccache c++}
}

# watch_rocksdb PROFILE: says from time to time how far the compile of RocksDB is, until it is killed.
watch_rocksdb() {
  local folder=$CARGO_TARGET_DIR/$1/build objects total=0 before=0
  while sleep 15; do
    objects=$(find "$folder" -path '*librocksdb-sys-*/out/*' -name '*.o' 2>/dev/null | wc -l)
    if [ "$total" -eq 0 ]; then
      total=$(find "${CARGO_HOME:-${HOME:-}/.cargo}"/registry/src/*/librocksdb-sys-*/rocksdb_lib_sources.txt 2>/dev/null | tail -n 1 \
        | xargs -r cat | wc -w)
    fi
    if [ "$objects" -gt "$before" ]; then
      printf '   RocksDB: %s of about %s files compiled\n' "$objects" "${total/#0/340}" >&2
      before=$objects
    fi
  done
}

# with_progress PROFILE COMMAND...: runs a build and says meanwhile how far RocksDB is.
with_progress() {
  local profile=$1 watcher status=0
  shift
  if compgen -G "$CARGO_TARGET_DIR/$profile/build/librocksdb-sys-*/out/librocksdb.a" >/dev/null; then "$@"; return; fi
  say "RocksDB, a C++ library, is compiled once: that takes some minutes"
  watch_rocksdb "$profile" &
  watcher=$!
  "$@" || status=$?
  kill "$watcher" 2>/dev/null || true
  wait "$watcher" 2>/dev/null || true
  return "$status"
}

# version_at_least WANTED FOUND
version_at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

# A toolchain is the user's choice, so it is asked for and not fetched.
check_rust() {
  if ! command -v cargo >/dev/null && [ -x "${HOME:-}/.cargo/bin/cargo" ]; then
    export PATH="$HOME/.cargo/bin:$PATH"
  fi
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$FLOTT_ROOT/Cargo.toml" | head -n 1)
  command -v cargo >/dev/null \
    || fail "Rust is missing; install version $wanted or later as https://rustup.rs says, then run this again"
  found=$(cd "$FLOTT_ROOT" && rustc --version | cut -d ' ' -f 2)
  version_at_least "$wanted" "$found" \
    || fail "Rust $wanted or later is needed, this is $found; run: rustup update stable"
}

install_packages
use_ccache
check_rust
mkdir -p "$CARGO_TARGET_DIR"
