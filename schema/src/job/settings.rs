//! The settings of a job out of its configuration, by Flink's rules.

use std::time::Duration;

use super::{CheckpointSettings, JobSettings, RestartStrategy, StateSettings};
use crate::config::Configuration;
use crate::config::options::{
    EXPONENTIAL_DELAY_ATTEMPTS, EXPONENTIAL_DELAY_INITIAL_BACKOFF, EXPONENTIAL_DELAY_JITTER,
    EXPONENTIAL_DELAY_MAX_BACKOFF, EXPONENTIAL_DELAY_MULTIPLIER, EXPONENTIAL_DELAY_RESET_THRESHOLD,
    FAILOVER_STRATEGY, FAILURE_RATE_DELAY, FAILURE_RATE_INTERVAL, FAILURE_RATE_MAX_FAILURES,
    FIXED_DELAY_ATTEMPTS, FIXED_DELAY_DELAY, FailoverStrategy, RESTART_STRATEGY, RestartStrategyKind,
    SLOT_REQUEST_TIMEOUT, TASK_CANCELLATION_TIMEOUT,
};
use crate::error::{Error, Result};

impl JobSettings {
    /// What `configuration` settles for a job. An error names the key whose value cannot be meant.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let checkpoints = CheckpointSettings::from_configuration(configuration)?;
        let slot_wait_is_set = configuration.is_set(&SLOT_REQUEST_TIMEOUT);
        let slot_wait_ms = milliseconds(configuration.get(&SLOT_REQUEST_TIMEOUT)?);
        Ok(JobSettings {
            restart: restart_strategy(configuration, checkpoints.are_taken())?,
            restart_all: configuration.get(&FAILOVER_STRATEGY)? == FailoverStrategy::Full,
            slot_wait_ms: slot_wait_is_set.then_some(slot_wait_ms),
            cancellation_timeout_ms: milliseconds(configuration.get(&TASK_CANCELLATION_TIMEOUT)?),
            checkpoints,
            state: StateSettings::from_configuration(configuration)?,
        })
    }
}

fn restart_strategy(configuration: &Configuration, has_checkpoints: bool) -> Result<RestartStrategy> {
    let unset = match has_checkpoints {
        true => RestartStrategyKind::ExponentialDelay,
        // A job that starts again would start from nothing: not unless its author asks for it.
        false => RestartStrategyKind::None,
    };
    let kind = configuration.get(&RESTART_STRATEGY)?.unwrap_or(unset);
    Ok(match kind {
        RestartStrategyKind::None => RestartStrategy::None,
        RestartStrategyKind::FixedDelay => RestartStrategy::FixedDelay {
            attempts: configuration.get(&FIXED_DELAY_ATTEMPTS)?,
            delay_ms: milliseconds(configuration.get(&FIXED_DELAY_DELAY)?),
        },
        RestartStrategyKind::FailureRate => RestartStrategy::FailureRate {
            failures_max: configuration.get(&FAILURE_RATE_MAX_FAILURES)?,
            interval_ms: milliseconds(configuration.get(&FAILURE_RATE_INTERVAL)?),
            delay_ms: milliseconds(configuration.get(&FAILURE_RATE_DELAY)?),
        },
        RestartStrategyKind::ExponentialDelay => {
            let initial = configuration.get(&EXPONENTIAL_DELAY_INITIAL_BACKOFF)?;
            let max = configuration.get(&EXPONENTIAL_DELAY_MAX_BACKOFF)?;
            if initial > max {
                return Err(Error::configuration(format!(
                    "`{}` is {initial:?}, longer than `{}`, which is {max:?}; raise the second or lower the first",
                    EXPONENTIAL_DELAY_INITIAL_BACKOFF.key(),
                    EXPONENTIAL_DELAY_MAX_BACKOFF.key()
                )));
            }
            RestartStrategy::ExponentialDelay {
                initial_ms: milliseconds(initial),
                max_ms: milliseconds(max),
                // A factor of more than 1 stays more than 1.
                multiplier_milli: thousandths(configuration.get(&EXPONENTIAL_DELAY_MULTIPLIER)?).max(1_001),
                jitter_milli: thousandths(configuration.get(&EXPONENTIAL_DELAY_JITTER)?),
                reset_ms: milliseconds(configuration.get(&EXPONENTIAL_DELAY_RESET_THRESHOLD)?),
                attempts: configuration.get(&EXPONENTIAL_DELAY_ATTEMPTS)?,
            }
        }
    })
}

/// Whole milliseconds, rounded up: a time above zero stays one.
pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// A factor in thousandths; one that is too large for them becomes the largest.
pub(super) fn thousandths(factor: f64) -> u32 {
    (factor * 1_000.0).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn settings(entries: &[(&str, &str)]) -> Result<JobSettings> {
        let mut configuration = Configuration::new();
        for (key, value) in entries {
            configuration.set(key, value)?;
        }
        JobSettings::from_configuration(&configuration)
    }

    #[test]
    fn without_a_word_a_job_is_not_restarted_and_waits_as_the_coordinator_says() {
        let expected = JobSettings {
            restart: RestartStrategy::None,
            restart_all: false,
            slot_wait_ms: None,
            cancellation_timeout_ms: 180_000,
            ..JobSettings::default()
        };
        assert_eq!(settings(&[]).unwrap(), expected);
    }

    #[test]
    fn with_checkpoints_a_job_is_restarted_after_growing_delays_unless_it_says_otherwise() {
        let every_second = ("execution.checkpointing.interval", "1 s");
        let settled = settings(&[every_second]).unwrap();
        assert!(
            matches!(settled.restart, RestartStrategy::ExponentialDelay { initial_ms: 1_000, .. }),
            "{settled:?}"
        );
        assert_eq!(settled.checkpoints.interval_ms, Some(1_000));
        let settled = settings(&[every_second, ("restart-strategy.type", "none")]).unwrap();
        assert_eq!(settled.restart, RestartStrategy::None);
    }

    #[test]
    fn what_is_set_for_a_job_counts() {
        let settings = settings(&[
            ("restart-strategy", "fixeddelay"),
            ("restart-strategy.fixed-delay.attempts", "7"),
            ("restart-strategy.fixed-delay.delay", "500 us"),
            ("jobmanager.execution.failover-strategy", "full"),
            ("slot.request.timeout", "0"),
            ("task.cancellation.timeout", "0"),
        ]);
        let expected = JobSettings {
            restart: RestartStrategy::FixedDelay { attempts: 7, delay_ms: 1 },
            restart_all: true,
            slot_wait_ms: Some(0),
            cancellation_timeout_ms: 0,
            ..JobSettings::default()
        };
        assert_eq!(settings.unwrap(), expected);
    }

    #[test]
    fn strategies_have_the_defaults_of_flink() {
        let restart = |kind| settings(&[("restart-strategy.type", kind)]).unwrap().restart;
        assert_eq!(restart("disable"), RestartStrategy::None);
        assert_eq!(restart("fixed-delay"), RestartStrategy::FixedDelay { attempts: 1, delay_ms: 1_000 });
        let failure_rate =
            RestartStrategy::FailureRate { failures_max: 1, interval_ms: 60_000, delay_ms: 1_000 };
        assert_eq!(restart("failure-rate"), failure_rate);
        let exponential = RestartStrategy::ExponentialDelay {
            initial_ms: 1_000,
            max_ms: 60_000,
            multiplier_milli: 1_500,
            jitter_milli: 100,
            reset_ms: 3_600_000,
            attempts: i32::MAX as u32,
        };
        assert_eq!(restart("exponential-delay"), exponential);
    }

    #[test]
    fn factors_are_rounded_to_thousandths_but_delays_always_grow() {
        let multiplier = |factor| {
            let entries = [
                ("restart-strategy.type", "exponential-delay"),
                ("restart-strategy.exponential-delay.backoff-multiplier", factor),
            ];
            match settings(&entries).unwrap().restart {
                RestartStrategy::ExponentialDelay { multiplier_milli, .. } => multiplier_milli,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(multiplier("1.2346"), 1_235);
        assert_eq!(multiplier("1.0000001"), 1_001);
        assert_eq!(multiplier("1e300"), u32::MAX);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_key() {
        let error = settings(&[
            ("restart-strategy.type", "exponential-delay"),
            ("restart-strategy.exponential-delay.initial-backoff", "2 min"),
        ])
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("initial-backoff` is 120s, longer than"), "{error}");
        let error = settings(&[("restart-strategy.type", "sometimes")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
    }
}
