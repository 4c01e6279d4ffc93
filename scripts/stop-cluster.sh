#!/usr/bin/env bash
# Stops the cluster that scripts/start-cluster.sh has started: workers first, then coordinators. Jobs end with their workers.
#
# usage: scripts/stop-cluster.sh
# shellcheck source=lib/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib/cluster.sh"

case "${1:-}" in
  '') ;;
  -h | --help) usage; exit 0 ;;
  *) wrong "'$1' is not known" ;;
esac

ending=()
for host in $(host_lines "$FLOTT_CONFIG_DIR/workers" | sort -u); do
  is_here "$host" || on "$host" worker.sh stop-all
done
for instance in $(instances worker); do
  "$FLOTT_ROOT/scripts/worker.sh" stop "$instance" &
  ending+=($!)
done
for process in "${ending[@]}"; do wait "$process"; done
declare -A instance_of=()
while IFS=: read -r host _; do
  instance_of[$host]=$((${instance_of[$host]:-0} + 1))
  is_here "$host" || on "$host" coordinator.sh stop "${instance_of[$host]}"
done < <(host_lines "$FLOTT_CONFIG_DIR/coordinators")
for instance in $(instances coordinator); do "$FLOTT_ROOT/scripts/coordinator.sh" stop "$instance"; done
