//! Metrics.

use crate::config::option::options;
use crate::config::ports::PortsOrOff;

options! {
    "Metrics";

    /// Ports for the metrics of a worker and of the tasks on it, as text for Prometheus under `/metrics`; the first free one is taken.
    /// It listens on worker.bind-host. `off` for none: then the leading coordinator, whose metrics are at its REST port, gives those of
    /// the tasks. Flink has no reporter until one is configured.
    METRICS_PROMETHEUS_PORT: PortsOrOff = "metrics.reporter.prom.port", default("9249-9349");
}
