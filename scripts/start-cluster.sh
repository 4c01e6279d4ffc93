#!/usr/bin/env bash
# Starts a cluster: the coordinators of conf/coordinators and the workers of conf/workers, here or over ssh. Waits until all
# workers are registered, and prints the address of the REST API. What runs already is left alone.
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

declare -A instance_of=()
addresses=
starting=()
outputs=$(mktemp -d)
trap 'rm -rf "$outputs"' EXIT
for index in "${!coordinators[@]}"; do
  split_line "${coordinators[$index]}"
  instance_of[$host]=$((${instance_of[$host]:-0} + 1))
  own=()
  after=()
  if [ ${#coordinators[@]} -gt 1 ]; then own+=(-D "coordinator.host=$host" -D "coordinator.port=${control_port:-6123}"); fi
  # Members on one host need a directory each.
  if [ ${#coordinators[@]} -gt 1 ] && [ -n "$data_dir" ]; then after=(-D "coordinator.data-dir=$data_dir/${instance_of[$host]}"); fi
  [ -z "${rest_port:-}" ] || own+=(-D "rest.port=$rest_port" -D "rest.bind-port=$rest_port")
  run_on "$host" coordinator.sh start "${instance_of[$host]}" "${group[@]}" "${own[@]}" "${properties[@]}" "${after[@]}" >"$outputs/$index" 2>&1 &
  starting+=($!)
done
# At the same time: workers look for their coordinators by themselves.
instance_of=()
for host in "${workers[@]}"; do
  instance_of[$host]=$((${instance_of[$host]:-0} + 1))
  run_on "$host" worker.sh start "${instance_of[$host]}" "${group[@]}" "${properties[@]}"
done
for index in "${!coordinators[@]}"; do
  if ! wait "${starting[$index]}"; then cat "$outputs/$index" >&2; fail "a coordinator did not start; scripts/stop-cluster.sh ends what did"; fi
  split_line "${coordinators[$index]}"
  said=$(sed -n 's/^REST API: http:\/\///p' "$outputs/$index" | tail -n 1)
  is_here "$host" || said=$host:${said##*:}
  addresses+=${addresses:+,}$said
  cat "$outputs/$index"
done
"$FLOTT_BIN" cluster status -m "$addresses" --wait "${#workers[@]}" --timeout "$START_SECONDS s" "${properties[@]}" >/dev/null \
  || fail "the workers did not register; their logs are in $FLOTT_LOG_DIR"
say "the cluster is ready: ${#workers[@]} workers, REST API at http://${addresses%%,*}"
say "try: export FLOTT_COORDINATOR=$addresses; flott cluster status"
