//! Restart strategies: whether a job survives a failure, and after which delay (Flink: *Task Failure Recovery*).

use std::collections::VecDeque;

use flott_schema::ids::JobId;
use flott_schema::job::RestartStrategy;
use flott_schema::stable_hash::stable_hash;

/// What a strategy remembers of the failures of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RestartMemory {
    /// Failures that counted, since the job began or since the last quiet time.
    pub(super) counted: u32,
    /// When the latest failures happened, the oldest first: as many as a failure rate looks at.
    pub(super) failures_ms: VecDeque<u64>,
    /// The growing delay that was used last; 0 before the first.
    pub(super) backoff_ms: u64,
    /// When the delay in course ends, or the last one ended.
    pub(super) next_restart_ms: u64,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The job goes on after the delay.
    Restart {
        /// The delay.
        delay_ms: u64,
        /// Whether this is a restart of its own, rather than a failure that joins the restart in course.
        is_new: bool,
    },
    /// It fails for good.
    GiveUp,
}

impl RestartMemory {
    /// Notes a failure. Depends on its arguments alone, so that every replica comes to the same delay.
    pub(super) fn note_failure(&mut self, strategy: &RestartStrategy, job: JobId, now_ms: u64) -> Verdict {
        match *strategy {
            RestartStrategy::None => Verdict::GiveUp,
            RestartStrategy::FixedDelay { attempts, delay_ms } => {
                if self.counted >= attempts {
                    return Verdict::GiveUp;
                }
                self.counted += 1;
                self.restart_after(delay_ms, now_ms)
            }
            RestartStrategy::FailureRate { failures_max, interval_ms, delay_ms } => {
                self.failures_ms.push_back(now_ms);
                let began_ms = now_ms.saturating_sub(interval_ms);
                while self.failures_ms.front().is_some_and(|failed_ms| *failed_ms < began_ms) {
                    self.failures_ms.pop_front();
                }
                if self.failures_ms.len() > failures_max as usize {
                    return Verdict::GiveUp;
                }
                self.counted = self.counted.saturating_add(1);
                self.restart_after(delay_ms, now_ms)
            }
            RestartStrategy::ExponentialDelay {
                initial_ms,
                max_ms,
                multiplier_milli,
                jitter_milli,
                reset_ms,
                attempts,
            } => {
                // Failures while a restart is on its way share it: mostly they have one cause.
                if self.counted > 0 && now_ms < self.next_restart_ms {
                    return Verdict::Restart { delay_ms: self.next_restart_ms - now_ms, is_new: false };
                }
                if now_ms >= self.next_restart_ms.saturating_add(reset_ms) {
                    *self = RestartMemory::default();
                }
                if self.counted >= attempts {
                    return Verdict::GiveUp;
                }
                self.backoff_ms = match self.counted {
                    0 => initial_ms,
                    _ => scaled(self.backoff_ms, u64::from(multiplier_milli)),
                };
                self.backoff_ms = self.backoff_ms.min(max_ms);
                self.counted += 1;
                let delay_ms = jittered(self.backoff_ms, jitter_milli, job, (self.counted, now_ms));
                self.restart_after(delay_ms.min(max_ms), now_ms)
            }
        }
    }

    fn restart_after(&mut self, delay_ms: u64, now_ms: u64) -> Verdict {
        self.next_restart_ms = now_ms.saturating_add(delay_ms);
        Verdict::Restart { delay_ms, is_new: true }
    }
}

/// `value` times so many thousandths.
fn scaled(value: u64, milli: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(milli) / 1_000).unwrap_or(u64::MAX)
}

/// The delay, made longer or shorter by up to the given share, so that jobs that failed together do not restart in step.
/// The chance comes from a hash of what is replicated.
fn jittered(delay_ms: u64, jitter_milli: u32, job: JobId, count: (u32, u64)) -> u64 {
    let reach_ms = scaled(delay_ms, u64::from(jitter_milli.min(1_000)));
    let span_ms = reach_ms.saturating_mul(2).saturating_add(1);
    let chance = stable_hash(&("restart-jitter", (job.0 >> 64) as u64, job.0 as u64, count)) % span_ms;
    (delay_ms - reach_ms).saturating_add(chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: JobId = JobId(7);

    /// The delays that follow failures at these times; nothing where the job fails for good.
    fn delays(strategy: RestartStrategy, failures_ms: &[u64]) -> Vec<Option<u64>> {
        let mut memory = RestartMemory::default();
        let delay = |at_ms: &u64| match memory.note_failure(&strategy, JOB, *at_ms) {
            Verdict::Restart { delay_ms, .. } => Some(delay_ms),
            Verdict::GiveUp => None,
        };
        failures_ms.iter().map(delay).collect()
    }

    fn exponential(jitter_milli: u32, attempts: u32) -> RestartStrategy {
        RestartStrategy::ExponentialDelay {
            initial_ms: 100,
            max_ms: 450,
            multiplier_milli: 2_000,
            jitter_milli,
            reset_ms: 1_000,
            attempts,
        }
    }

    #[test]
    fn a_fixed_delay_survives_as_many_failures_as_it_has_attempts() {
        let strategy = RestartStrategy::FixedDelay { attempts: 2, delay_ms: 50 };
        assert_eq!(delays(strategy, &[0, 1_000, 2_000, 3_000]), [Some(50), Some(50), None, None]);
        assert_eq!(delays(RestartStrategy::None, &[0]), [None]);
    }

    #[test]
    fn a_failure_rate_counts_within_its_interval() {
        let strategy = RestartStrategy::FailureRate { failures_max: 2, interval_ms: 100, delay_ms: 5 };
        assert_eq!(
            delays(strategy, &[0, 50, 101, 151, 201]),
            [Some(5), Some(5), Some(5), Some(5), None],
            "50 and 151 are further apart than the interval, 101 and 201 are not"
        );
    }

    #[test]
    fn an_exponential_delay_grows_to_its_bound_and_goes_back_after_a_quiet_time() {
        let strategy = exponential(0, 9);
        assert_eq!(
            delays(strategy, &[0, 100, 300, 700, 1_200, 2_650]),
            [Some(100), Some(200), Some(400), Some(450), Some(450), Some(100)]
        );
        assert_eq!(delays(exponential(0, 2), &[0, 100, 300]), [Some(100), Some(200), None]);
    }

    #[test]
    fn failures_during_an_exponential_delay_share_its_restart() {
        assert_eq!(delays(exponential(0, 1), &[0, 40, 99, 100]), [Some(100), Some(60), Some(1), None]);
    }

    #[test]
    fn jitter_stays_within_its_share_and_differs_between_jobs() {
        let mut seen = std::collections::BTreeSet::new();
        for job in 0..200 {
            let delay_ms = jittered(1_000, 100, JobId(job), (1, 0));
            assert!((900..=1_100).contains(&delay_ms), "{delay_ms}");
            seen.insert(delay_ms);
        }
        assert!(seen.len() > 50, "{seen:?}");
        assert_eq!(jittered(1_000, 0, JOB, (1, 0)), 1_000);
        assert_eq!(jittered(u64::MAX, 1_000, JOB, (1, 0)), jittered(u64::MAX, 1_000, JOB, (1, 0)));
    }
}
