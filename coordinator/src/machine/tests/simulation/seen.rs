//! What happened over all seeds.

use flott_schema::error::ErrorKind;

use super::World;
use crate::machine::{Ignored, JobFailure, JobOutcome, JobState};

pub(super) fn is_legal(before: JobState, after: JobState) -> bool {
    use JobState::*;
    matches!(
        (before, after),
        (Created, Created | Running | Restarting | Failing | Cancelling)
            | (Running, Restarting | Failing | Cancelling | Finished)
            | (Restarting, Running | Failing | Cancelling)
            | (Failing, Cancelling | Failed)
            | (Cancelling, Canceled)
    )
}

/// What happened over all seeds: a simulation in which something never happens proves nothing about it.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) finished: u32,
    pub(super) canceled: u32,
    pub(super) failed_by_task: u32,
    pub(super) failed_by_loss: u32,
    pub(super) failed_for_slots: u32,
    pub(super) failed_for_results: u32,
    pub(super) concurrent_failures: usize,
    /// Restarts of jobs that finished afterwards.
    pub(super) survived: u32,
    /// Restarts that left tasks of their job alone.
    pub(super) partial: u32,
    pub(super) ignored: Vec<Ignored>,
    /// Snapshots that were completed and failed; deployments from one; requests to stop and to rescale that succeeded, and any that did not.
    pub(super) snapshots: [u32; 6],
}

impl Seen {
    pub(super) fn add(&mut self, world: &World) {
        for job in world.state.jobs() {
            match job.outcome().expect("all have ended") {
                JobOutcome::Finished => {
                    self.finished += 1;
                    self.survived += job.restarts();
                    let attempts = || job.vertices().iter().flat_map(|vertex| vertex.tasks());
                    self.partial += u32::from(attempts().any(|task| task.attempt().attempt < job.restarts()));
                }
                JobOutcome::Canceled => self.canceled += 1,
                JobOutcome::Failed(JobFailure::Job { .. }) => self.failed_for_slots += 1,
                JobOutcome::Failed(JobFailure::Task(failure))
                    if failure.message.contains("finished result") =>
                {
                    self.failed_for_results += 1;
                }
                JobOutcome::Failed(JobFailure::Task(failure)) if failure.kind == ErrorKind::Io => {
                    self.failed_by_loss += 1;
                }
                JobOutcome::Failed(JobFailure::Task(_)) => self.failed_by_task += 1,
            }
            self.concurrent_failures +=
                job.exceptions().latest().map(|one| one.concurrent.len()).sum::<usize>();
        }
        self.ignored.push(world.state.ignored());
        let one = &world.snapshots;
        let counts = [one.completed, one.failed, one.restored, one.stopped, one.rescaled, one.refused];
        self.snapshots.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
    }

    pub(super) fn assert_everything_happened(&self) {
        assert!(self.finished > 0 && self.canceled > 0 && self.failed_by_task > 0 && self.failed_by_loss > 0);
        assert!(self.failed_for_slots > 0 && self.failed_for_results > 0 && self.concurrent_failures > 0);
        assert!(self.survived > 1_000 && self.partial > 100, "{} {}", self.survived, self.partial);
        let any = |count: fn(&Ignored) -> u64| self.ignored.iter().any(|ignored| count(ignored) > 0);
        assert!(any(|ignored| ignored.stale_attempt) && any(|ignored| ignored.impossible_transition));
        assert!(any(|ignored| ignored.repeated) && any(|ignored| ignored.overtaken));
        assert!(self.snapshots.iter().all(|count| *count > 20), "{:?}", self.snapshots);
        assert!(any(|ignored| ignored.refused_checkpoint) && any(|ignored| ignored.stale_checkpoint));
        assert!(any(|ignored| ignored.stale_slot_wait) && any(|ignored| ignored.stale_restart_delay));
    }
}
