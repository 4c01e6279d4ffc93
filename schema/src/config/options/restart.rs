//! What happens after a failure.

use std::time::Duration;

use crate::config::option::{checks, options};
use crate::config::words::words;

words! {
    /// When a failed job is started again.
    RestartStrategyKind {
        /// Never.
        None = "none" | "off" | "disable",
        /// A number of times, each after the same delay.
        FixedDelay = "fixed-delay" | "fixeddelay",
        /// Unless it fails too often in an interval.
        FailureRate = "failure-rate" | "failurerate",
        /// After delays that grow with each failure and go back after a quiet time.
        ExponentialDelay = "exponential-delay" | "exponentialdelay",
    }
}

words! {
    /// Which tasks are started again.
    FailoverStrategy {
        /// Those that a failed one exchanges records with.
        Region = "region",
        /// All tasks of the job.
        Full = "full",
    }
}

options! {
    "Restarts";

    /// When a failed job is started again. Not set: after growing delays if checkpoints are on, else never.
    RESTART_STRATEGY: Option<RestartStrategyKind> = "restart-strategy.type", deprecated(&["restart-strategy"]);

    /// Number of restarts before the job fails for good.
    FIXED_DELAY_ATTEMPTS: u32 = "restart-strategy.fixed-delay.attempts", default("1");

    /// Delay before each of them.
    FIXED_DELAY_DELAY: Duration = "restart-strategy.fixed-delay.delay", default("1 s");

    /// Number of failures in the interval below that the job survives.
    FAILURE_RATE_MAX_FAILURES: u32 = "restart-strategy.failure-rate.max-failures-per-interval", default("1"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// The interval in which failures are counted.
    FAILURE_RATE_INTERVAL: Duration = "restart-strategy.failure-rate.failure-rate-interval", default("1 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Delay before each restart.
    FAILURE_RATE_DELAY: Duration = "restart-strategy.failure-rate.delay", default("1 s");

    /// Delay before the first restart.
    EXPONENTIAL_DELAY_INITIAL_BACKOFF: Duration = "restart-strategy.exponential-delay.initial-backoff", default("1 s"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Longest delay.
    EXPONENTIAL_DELAY_MAX_BACKOFF: Duration = "restart-strategy.exponential-delay.max-backoff", default("1 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Factor from one delay to the next.
    EXPONENTIAL_DELAY_MULTIPLIER: f64 = "restart-strategy.exponential-delay.backoff-multiplier", default("1.5"),
        check(|factor| *factor > 1.0, "a number greater than 1");

    /// Share by which a delay is shortened or lengthened at random, so that jobs do not restart in step.
    EXPONENTIAL_DELAY_JITTER: f64 = "restart-strategy.exponential-delay.jitter-factor", default("0.1"),
        check(checks::fraction, checks::FRACTION);

    /// Time without a failure after which the delay starts small again.
    EXPONENTIAL_DELAY_RESET_THRESHOLD: Duration = "restart-strategy.exponential-delay.reset-backoff-threshold",
        default("1 h"), check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Number of restarts without such a quiet time before the job fails for good; the default means any number.
    EXPONENTIAL_DELAY_ATTEMPTS: u32 = "restart-strategy.exponential-delay.attempts-before-reset-backoff",
        default("2147483647"), check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Which tasks are started again after a failure.
    FAILOVER_STRATEGY: FailoverStrategy = "jobmanager.execution.failover-strategy", default("region");
}
