//! The latest statistics of a task and those before them, which together give rates.

use std::mem::replace;

use crate::stats::TaskStats;

/// Least time between two samples from which a rate is computed: a shorter one says more about the clock than about the task.
const RATE_WINDOW_MIN_MS: u64 = 500;

/// A value and when it came (milliseconds since 1970).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample<T> {
    /// When.
    pub at_ms: u64,
    /// What.
    pub value: T,
}

/// The last two statistics of the current or last attempt of a task. Two of the same attempt give rates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskSamples {
    /// The latest.
    pub latest: Sample<TaskStats>,
    /// An earlier one, of the same attempt.
    pub previous: Option<Sample<TaskStats>>,
}

impl TaskSamples {
    /// The first sample of a task.
    pub fn new(stats: TaskStats, at_ms: u64) -> Self {
        TaskSamples { latest: Sample { at_ms, value: stats }, previous: None }
    }

    /// Takes in statistics of the task. A later attempt starts anew, an earlier one is ignored.
    pub fn note(&mut self, stats: TaskStats, at_ms: u64) {
        let order = |stats: &TaskStats| (stats.attempt.job_epoch, stats.attempt.attempt);
        let sample = Sample { at_ms, value: stats };
        match order(&sample.value).cmp(&order(&self.latest.value)) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Greater => *self = TaskSamples { latest: sample, previous: None },
            std::cmp::Ordering::Equal => {
                let former = replace(&mut self.latest, sample);
                // The last numbers of a task may follow right after others.
                let spans = |previous: &Sample<TaskStats>| {
                    former.at_ms.saturating_sub(previous.at_ms) >= RATE_WINDOW_MIN_MS
                };
                if self.previous.as_ref().is_none_or(spans) {
                    self.previous = Some(former);
                }
            }
        }
    }

    /// How fast a number grows, per second, between the two samples; 0 before the second one.
    pub fn per_second(&self, of: impl Fn(&TaskStats) -> u64) -> f64 {
        let Some(previous) = &self.previous else { return 0.0 };
        let elapsed_ms = self.latest.at_ms.saturating_sub(previous.at_ms);
        if elapsed_ms == 0 {
            return 0.0;
        }
        let grown = of(&self.latest.value).saturating_sub(of(&previous.value));
        grown as f64 * 1_000.0 / elapsed_ms as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AttemptId, JobId, TaskId, VertexId};

    fn stats(attempt: u32, records_in: u64) -> TaskStats {
        let task = TaskId { vertex: VertexId(1), subtask: 0 };
        TaskStats { records_in, ..TaskStats::new(JobId(1), AttemptId { task, job_epoch: attempt, attempt }) }
    }

    fn records(samples: &TaskSamples) -> (u64, Option<u64>) {
        let previous = samples.previous.as_ref().map(|sample| sample.value.records_in);
        (samples.latest.value.records_in, previous)
    }

    #[test]
    fn two_samples_give_a_rate() {
        let mut samples = TaskSamples::new(stats(0, 1), 1_000);
        assert_eq!(samples.per_second(|stats| stats.records_in), 0.0);
        samples.note(stats(0, 4), 2_000);
        samples.note(stats(0, 9), 4_000);
        assert_eq!(records(&samples), (9, Some(4)));
        assert_eq!(samples.per_second(|stats| stats.records_in), 2.5);
    }

    #[test]
    fn a_sample_right_after_another_takes_its_place_and_leaves_the_rate_its_window() {
        let mut samples = TaskSamples::new(stats(0, 0), 1_000);
        samples.note(stats(0, 100), 2_000);
        samples.note(stats(0, 200), 3_000);
        samples.note(stats(0, 201), 3_001);
        assert_eq!(records(&samples), (201, Some(200)));
        samples.note(stats(0, 202), 3_002);
        assert_eq!(records(&samples), (202, Some(200)), "not the one a millisecond before");
        samples.note(stats(0, 300), 4_000);
        assert_eq!(samples.per_second(|stats| stats.records_in), 100.0);
        samples.note(stats(0, 500), 5_000);
        assert_eq!(records(&samples), (500, Some(300)));
    }

    #[test]
    fn a_new_attempt_starts_anew_and_an_old_one_is_ignored() {
        let mut samples = TaskSamples::new(stats(0, 100), 1_000);
        samples.note(stats(1, 3), 2_000);
        assert_eq!(records(&samples), (3, None));
        samples.note(stats(0, 200), 3_000);
        assert_eq!(records(&samples), (3, None));
    }
}
