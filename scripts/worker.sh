#!/usr/bin/env bash
# Starts or stops one worker on this host.
#
# usage: scripts/worker.sh start [INSTANCE] [-D key=value]...             in the background
#        scripts/worker.sh start-foreground [INSTANCE] [-D key=value]...  here, until Ctrl-C
#        scripts/worker.sh stop [INSTANCE]
#        scripts/worker.sh stop-all
#        scripts/worker.sh status [INSTANCE]
#        scripts/worker.sh check [INSTANCE]     fails, with what it said last, if it has ended after its start
#
# INSTANCE is a number that tells workers of one host apart; default 1. Logs, those of the jobs too, are in
# $FLOTT_LOG_DIR/worker-INSTANCE.
# shellcheck source=lib/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/cluster.sh"

action=${1:-}
[ $# -eq 0 ] || shift
instance=1
if [[ ${1:-} =~ ^[0-9]+$ ]]; then instance=$1; shift; fi

case "$action" in
  -h | --help) usage ;;
  start)
    find_flott
    launch worker "$instance" "$@"
    ;;
  start-foreground)
    find_flott
    arguments=(worker)
    [ ! -e "$FLOTT_CONFIG_DIR/flott.yaml" ] || arguments+=(--config "$FLOTT_CONFIG_DIR/flott.yaml")
    exec "$FLOTT_BIN" "${arguments[@]}" "$@"
    ;;
  stop) end worker "$instance" ;;
  stop-all) for instance in $(instances worker); do end worker "$instance"; done ;;
  status)
    pid=$(living worker "$instance") || { say "worker $instance does not run"; exit 1; }
    say "worker $instance runs (process $pid)"
    ;;
  check) check_alive worker "$instance" ;;
  *) wrong "start, start-foreground, stop, stop-all, status or check is wanted, not '$action'" ;;
esac
