# Sourced by the scripts that start and stop a cluster: where its files are, and how a process is started and ended.
# shellcheck shell=bash
#
# FLOTT_BIN       the flott command; default: the one built by cargo, else the one in PATH
# FLOTT_CONFIG_DIR  folder of flott.yaml, coordinators and workers; default: conf of this project
# FLOTT_LOG_DIR   folder of log files; default: log of this project
# FLOTT_PID_DIR   folder of process ids; default: FLOTT_LOG_DIR
# FLOTT_SSH_OPTS  options of ssh for hosts other than this one

set -euo pipefail

FLOTT_ROOT=${FLOTT_ROOT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)}
FLOTT_CONFIG_DIR=${FLOTT_CONFIG_DIR:-$FLOTT_ROOT/conf}
FLOTT_LOG_DIR=${FLOTT_LOG_DIR:-$FLOTT_ROOT/log}
FLOTT_PID_DIR=${FLOTT_PID_DIR:-$FLOTT_LOG_DIR}

# How long a process may take to end when it is asked, before it is killed; seconds.
END_SECONDS=${FLOTT_END_SECONDS:-15}
# How long a coordinator may take until it answers; seconds.
START_SECONDS=${FLOTT_START_SECONDS:-30}

usage() { sed -n '2,/^[^#]/{/^# shellcheck/d;/^#/s/^# \{0,1\}//p}' "$0"; }
say() { printf '%s\n' "$*"; }
fail() { printf 'flott: %s\n' "$*" >&2; exit 1; }
wrong() { printf 'flott: %s; see %s --help\n' "$1" "$0" >&2; exit 2; }

# The flott command, in FLOTT_BIN.
find_flott() {
  local target=${CARGO_TARGET_DIR:-${FLOTT_CACHE:-${HOME:-/tmp}/.cache/flott}/target} candidate
  if [ -n "${FLOTT_BIN:-}" ]; then
    [ -x "$FLOTT_BIN" ] || fail "FLOTT_BIN is $FLOTT_BIN, which is no program"
    return
  fi
  # What was built inside this clone is meant, if there is any.
  for candidate in "$FLOTT_ROOT/target/release/flott" "$target/release/flott" "$(command -v flott || true)"; do
    if [ -n "$candidate" ] && [ -x "$candidate" ]; then FLOTT_BIN=$candidate; return; fi
  done
  fail "there is no flott command; build it with: cargo build --release --bin flott (scripts/quickstart.sh does), or set FLOTT_BIN"
}

# host_lines FILE: its lines without comments and blanks; localhost if there is no such file.
host_lines() {
  if [ -e "$1" ]; then sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$1"; else echo localhost; fi
}

is_here() {
  case "$1" in
    localhost | 127.* | ::1 | '[::1]') return 0 ;;
    *) [ "$1" = "$(hostname 2>/dev/null || true)" ] ;;
  esac
}

# exists PID: whether there is such a process that has not ended. One that nobody has waited for yet has.
exists() {
  kill -0 "$1" 2>/dev/null || return 1
  ! grep -q '^[^)]*) Z' "/proc/$1/stat" 2>/dev/null
}

# is_ours PID ROLE INSTANCE: whether a process is what `launch` has made of it. A number may have been given to some other
# program since, an editor in the checkout of this project as well.
is_ours() {
  local words
  [ -d /proc/self ] || return 0
  mapfile -d '' -t words 2>/dev/null <"/proc/$1/cmdline" || return 1
  [ "${words[1]:-}" = "$2" ] && [[ "${words[2]:-} ${words[3]:-}" = "-D env.log.dir="*"/$2-$3" ]]
}

# living ROLE INSTANCE: the number of the process in the pid file, if it is one of ours and lives.
living() {
  local pid pid_file=$FLOTT_PID_DIR/flott-$1-$2.pid
  [ -s "$pid_file" ] || return 1
  read -r pid <"$pid_file" || return 1
  [[ $pid =~ ^[0-9]+$ ]] && exists "$pid" && is_ours "$pid" "$1" "$2" || return 1
  echo "$pid"
}

# launch ROLE INSTANCE ARGUMENT...: starts `flott ROLE` in the background, unless it runs already.
launch() {
  local role=$1 instance=$2 pid_file logs pid
  shift 2
  pid_file=$FLOTT_PID_DIR/flott-$role-$instance.pid
  logs=$FLOTT_LOG_DIR/$role-$instance
  if pid=$(living "$role" "$instance"); then
    say "$role $instance runs already (process $pid)"
    return
  fi
  mkdir -p "$logs" "$FLOTT_PID_DIR"
  local arguments=("$role" -D "env.log.dir=$logs")
  [ ! -e "$FLOTT_CONFIG_DIR/flott.yaml" ] || arguments+=(--config "$FLOTT_CONFIG_DIR/flott.yaml")
  # A session of its own: it outlives the terminal, and Ctrl-C there is not meant for it.
  setsid "$FLOTT_BIN" "${arguments[@]}" "$@" </dev/null >"$logs/flott-$role.out" 2>&1 &
  pid=$!
  echo "$pid" >"$pid_file"
  # Until it has become the flott command it is not known as ours.
  until is_ours "$pid" "$role" "$instance" || ! exists "$pid"; do sleep 0.002; done
  say "$role $instance started (process $pid, logs in $logs)"
}

# Whether a process that was started still lives; else says what it said last, and forgets it.
check_alive() {
  local role=$1 instance=$2 logs=$FLOTT_LOG_DIR/$1-$2/flott-$1
  living "$role" "$instance" >/dev/null && return
  if [ -s "$logs.out" ]; then tail -n 10 "$logs.out"; else tail -n 10 "$logs.log"; fi >&2 2>/dev/null || true
  rm -f "$FLOTT_PID_DIR/flott-$role-$instance.pid"
  fail "$role $instance has ended; its log is $FLOTT_LOG_DIR/$role-$instance"
}

# end ROLE INSTANCE: asks a process to end, and kills it if it does not.
end() {
  local role=$1 instance=$2 pid_file pid deadline
  pid_file=$FLOTT_PID_DIR/flott-$role-$instance.pid
  if ! pid=$(living "$role" "$instance"); then
    say "$role $instance does not run"
    rm -f "$pid_file"
    return
  fi
  kill -TERM "$pid" 2>/dev/null || true
  deadline=$((SECONDS + END_SECONDS))
  while exists "$pid"; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      say "$role $instance (process $pid) does not end after $END_SECONDS s and is killed"
      kill -KILL "$pid" 2>/dev/null || true
      break
    fi
    sleep 0.02
  done
  rm -f "$pid_file"
  say "$role $instance ended (process $pid)"
}

# instances ROLE: those that have a pid file here.
instances() {
  local file name
  for file in "$FLOTT_PID_DIR/flott-$1"-*.pid; do
    [ -e "$file" ] || continue
    name=${file##*/flott-"$1"-}
    echo "${name%.pid}"
  done
}

# on HOST SCRIPT ARGUMENT...: runs a script of this project there.
on() {
  local host=$1 command
  shift
  # shellcheck disable=SC2206 # Options are words.
  local options=(-o BatchMode=yes -o ConnectTimeout=10 ${FLOTT_SSH_OPTS:-})
  command=$(printf '%q ' env "FLOTT_CONFIG_DIR=$FLOTT_CONFIG_DIR" "FLOTT_LOG_DIR=$FLOTT_LOG_DIR" "FLOTT_PID_DIR=$FLOTT_PID_DIR" \
    ${FLOTT_BIN:+"FLOTT_BIN=$FLOTT_BIN"} "$FLOTT_ROOT/scripts/$1" "${@:2}")
  ssh "${options[@]}" "$host" "$command" || fail "host $host: scripts/$1 failed (Flott has to be at $FLOTT_ROOT there too)"
}
