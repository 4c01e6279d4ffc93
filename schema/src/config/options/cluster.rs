//! Liveness, slots and deadlines between the processes of a cluster.

use std::time::Duration;

use crate::config::option::{checks, options};

options! {
    "Liveness and deadlines";

    /// Time between two heartbeats of coordinator and worker.
    HEARTBEAT_INTERVAL: Duration = "heartbeat.interval", default("10 s"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Silence after which a process is given up; longer than the interval.
    HEARTBEAT_TIMEOUT: Duration = "heartbeat.timeout", default("50 s"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Number of heartbeats in a row that cannot be delivered after which a process is given up; -1 waits for the timeout.
    HEARTBEAT_RPC_FAILURE_THRESHOLD: i32 = "heartbeat.rpc-failure-threshold", default("2"),
        check(|threshold| *threshold == -1 || *threshold >= 1, "-1 or a whole number of at least 1");

    /// How long a job waits for the slots that it needs before it fails.
    SLOT_REQUEST_TIMEOUT: Duration = "slot.request.timeout", default("5 min");

    /// How long a job keeps a slot that it no longer uses.
    SLOT_IDLE_TIMEOUT: Duration = "slot.idle.timeout", default("50 s");

    /// How long a worker looks for a coordinator before it ends.
    REGISTRATION_TIMEOUT: Duration = "worker.registration.timeout", default("5 min"),
        also(&["taskmanager.registration.timeout"]), check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Time between two attempts to make a cancelled task end.
    TASK_CANCELLATION_INTERVAL: Duration = "task.cancellation.interval", default("30 s"),
        deprecated(&["task.cancellation-interval"]), check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Time after which a task that does not end on being cancelled has its executor killed; 0 waits for ever.
    TASK_CANCELLATION_TIMEOUT: Duration = "task.cancellation.timeout", default("3 min");

    /// How long the end of a task waits for timers that are running.
    TASK_CANCELLATION_TIMERS_TIMEOUT: Duration = "task.cancellation.timers.timeout", default("7500 ms");

    /// Deadline of a client's call.
    CLIENT_TIMEOUT: Duration = "client.timeout", default("1 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);
}
