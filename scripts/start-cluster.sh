#!/usr/bin/env bash
# Starts a cluster: the coordinators of conf/coordinators and the workers of conf/workers, here or over ssh. Waits until all
# workers are registered, and prints the address of the REST API. What runs already is left alone. If something does not
# start, what it said last is shown, and what was started is stopped again.
#
# usage: scripts/start-cluster.sh [-D key=value]...
#
# conf/coordinators: one HOST[:REST-PORT[:CONTROL-PORT]] a line; one, three or five of them (default ports 8081 and 6123).
# conf/workers: one HOST a line; a host that stands there twice gets two workers.
# Pairs of -D go to every process, over conf/flott.yaml. FLOTT_CONFIG_DIR, FLOTT_LOG_DIR, FLOTT_BIN: see scripts/lib/cluster.sh.
# shellcheck source=lib/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/cluster.sh"

properties=()
while [ $# -gt 0 ]; do
  case "$1" in
    -h | --help) usage; exit 0 ;;
    -D) [ $# -ge 2 ] || wrong "-D wants key=value"; properties+=(-D "$2"); shift 2 ;;
    -D*) properties+=(-D "${1#-D}"); shift ;;
    *) wrong "'$1' is not known" ;;
  esac
done
find_flott
mapfile -t coordinators < <(host_lines "$FLOTT_CONFIG_DIR/coordinators")
mapfile -t workers < <(host_lines "$FLOTT_CONFIG_DIR/workers")
case ${#coordinators[@]} in
  1 | 3 | 5) ;;
  *) fail "$FLOTT_CONFIG_DIR/coordinators has ${#coordinators[@]} lines; a group has one, three or five coordinators" ;;
esac

# host, REST port and control port of a line of conf/coordinators.
split_line() { IFS=: read -r host rest_port control_port <<<"$1"; }

# Where coordinators are, for all processes. With one line, what the configuration says counts.
group=()
if [ ${#coordinators[@]} -gt 1 ]; then
  members=
  for line in "${coordinators[@]}"; do
    split_line "$line"
    members+=${members:+, }$host:${control_port:-6123}
  done
  group=(-D "coordinator.members=[$members]")
else
  split_line "${coordinators[0]}"
  is_here "$host" || group=(-D "coordinator.host=$host")
fi

# run_on HOST SCRIPT ARGUMENT...
run_on() {
  if is_here "$1"; then "$FLOTT_ROOT/scripts/$2" "${@:3}"; else on "$@"; fi
}

# Where coordinators keep their logs, if it is said.
data_dir=$({ sed -n 's/^coordinator\.data-dir:[[:space:]]*//p' "$FLOTT_CONFIG_DIR/flott.yaml" 2>/dev/null || true; } | tail -n 1)
for pair in "${properties[@]}"; do
  case "$pair" in coordinator.data-dir=*) data_dir=${pair#*=} ;; esac
done

addresses=
outputs=$(mktemp -d)
launched=()
coordinators_starting=()
status_check=

# What a start that failed has started is ended again; what ran before it is left alone.
finish() {
  local code=$? index ended=()
  trap - EXIT
  if [ "$code" -ne 0 ]; then
    [ -z "$status_check" ] || kill "$status_check" 2>/dev/null || true
    for index in "${!coordinators_starting[@]}"; do
      wait "${coordinators_starting[$index]}" || true
      note_launched "${coordinator_places[$index]}" "$outputs/$index"
    done
    for index in "${launched[@]}"; do
      # shellcheck disable=SC2086 # Host, script and instance are words.
      set -- $index
      run_on "$1" "$2" stop "$3" >"$outputs/stop" 2>&1 &
      ended+=($!)
    done
    for index in "${ended[@]}"; do wait "$index" || true; done
    [ ${#ended[@]} -eq 0 ] || printf 'flott: what this start had started is stopped again\n' >&2
  fi
  rm -rf "$outputs"
  exit "$code"
}
trap finish EXIT

# note_launched "HOST SCRIPT INSTANCE" FILE: remembers what was started, as its script has said in the file.
note_launched() {
  if grep -q 'started (process' "$2"; then launched+=("$1"); fi
}

declare -A instance_of=()
coordinator_places=()
for index in "${!coordinators[@]}"; do
  split_line "${coordinators[$index]}"
  instance_of[$host]=$((${instance_of[$host]:-0} + 1))
  own=()
  after=()
  if [ ${#coordinators[@]} -gt 1 ]; then own+=(-D "coordinator.host=$host" -D "coordinator.port=${control_port:-6123}"); fi
  # Members on one host need a directory each.
  if [ ${#coordinators[@]} -gt 1 ] && [ -n "$data_dir" ]; then after=(-D "coordinator.data-dir=$data_dir/${instance_of[$host]}"); fi
  [ -z "${rest_port:-}" ] || own+=(-D "rest.port=$rest_port" -D "rest.bind-port=$rest_port")
  coordinator_places[index]="$host coordinator.sh ${instance_of[$host]}"
  run_on "$host" coordinator.sh start "${instance_of[$host]}" "${group[@]}" "${own[@]}" "${properties[@]}" "${after[@]}" >"$outputs/$index" 2>&1 &
  coordinators_starting[index]=$!
done
# At the same time: workers look for their coordinators by themselves.
instance_of=()
worker_places=()
for host in "${workers[@]}"; do
  instance_of[$host]=$((${instance_of[$host]:-0} + 1))
  place="$host worker.sh ${instance_of[$host]}"
  run_on "$host" worker.sh start "${instance_of[$host]}" "${group[@]}" "${properties[@]}" >"$outputs/worker"
  note_launched "$place" "$outputs/worker"
  cat "$outputs/worker"
  worker_places+=("$place")
done

# check_workers WHERE: fails if a worker has ended; of `here`, or of `all` hosts.
check_workers() {
  local place host script instance
  for place in "${worker_places[@]}"; do
    read -r host script instance <<<"$place"
    if is_here "$host"; then
      living worker "$instance" >/dev/null || check_alive worker "$instance"
    elif [ "$1" = all ]; then
      on "$host" "$script" check "$instance"
    fi
  done
}

# In the order in which they end, so that the first that fails is noticed.
while [ ${#coordinators_starting[@]} -gt 0 ]; do
  for index in "${!coordinators_starting[@]}"; do
    ! exists "${coordinators_starting[$index]}" || continue
    process=${coordinators_starting[$index]}
    unset "coordinators_starting[$index]"
    code=0
    wait "$process" || code=$?
    note_launched "${coordinator_places[$index]}" "$outputs/$index"
    [ "$code" -eq 0 ] || { cat "$outputs/$index" >&2; fail "a coordinator did not start"; }
  done
  check_workers here
  sleep 0.01
done
for index in "${!coordinators[@]}"; do
  split_line "${coordinators[$index]}"
  said=$(sed -n 's/^REST API: http:\/\///p' "$outputs/$index" | tail -n 1)
  is_here "$host" || said=$host:${said##*:}
  addresses+=${addresses:+,}$said
  cat "$outputs/$index"
done
"$FLOTT_BIN" cluster status -m "$addresses" --wait "${#workers[@]}" --timeout "$START_SECONDS s" "${properties[@]}" \
  >/dev/null 2>"$outputs/status" &
status_check=$!
while exists "$status_check"; do
  check_workers here
  sleep 0.01
done
if ! wait "$status_check"; then
  cat "$outputs/status" >&2
  check_workers all
  fail "the workers did not register; their logs are in $FLOTT_LOG_DIR"
fi
status_check=
say "the cluster is ready: ${#workers[@]} workers, REST API at http://${addresses%%,*}"
say "try: export FLOTT_COORDINATOR=$addresses; flott cluster status"
