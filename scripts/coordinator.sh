#!/usr/bin/env bash
# Starts or stops one coordinator on this host.
#
# usage: scripts/coordinator.sh start [INSTANCE] [-D key=value]...             in the background; waits until it answers
#        scripts/coordinator.sh start-foreground [INSTANCE] [-D key=value]...  here, until Ctrl-C
#        scripts/coordinator.sh stop [INSTANCE]
#        scripts/coordinator.sh status [INSTANCE]
#
# INSTANCE is a number that tells coordinators of one host apart; default 1. Logs are in $FLOTT_LOG_DIR/coordinator-INSTANCE.
# shellcheck source=lib/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/cluster.sh"

action=${1:-}
[ $# -eq 0 ] || shift
instance=1
if [[ ${1:-} =~ ^[0-9]+$ ]]; then instance=$1; shift; fi
address_file=$FLOTT_PID_DIR/flott-coordinator-$instance.address

case "$action" in
  -h | --help) usage ;;
  start)
    find_flott
    living coordinator "$instance" >/dev/null || rm -f "$address_file"
    launch coordinator "$instance" --address-file "$address_file" "$@"
    deadline=$((SECONDS + START_SECONDS))
    until [ -s "$address_file" ]; do
      check_alive coordinator "$instance"
      [ "$SECONDS" -lt "$deadline" ] || fail "coordinator $instance does not answer after $START_SECONDS s"
      sleep 0.01
    done
    say "REST API: http://$(cat "$address_file")"
    ;;
  start-foreground)
    find_flott
    arguments=(coordinator)
    [ ! -e "$FLOTT_CONFIG_DIR/flott.yaml" ] || arguments+=(--config "$FLOTT_CONFIG_DIR/flott.yaml")
    exec "$FLOTT_BIN" "${arguments[@]}" "$@"
    ;;
  stop)
    end coordinator "$instance"
    rm -f "$address_file"
    ;;
  status)
    pid=$(living coordinator "$instance") || { say "coordinator $instance does not run"; exit 1; }
    say "coordinator $instance runs (process $pid), REST API: http://$(cat "$address_file" 2>/dev/null || echo '?')"
    ;;
  *) wrong "start, start-foreground, stop or status is wanted, not '$action'" ;;
esac
