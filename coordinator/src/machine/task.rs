//! The record of a task, and which reports about it make sense.

use std::sync::Arc;

use flott_schema::control::TaskState;
use flott_schema::ids::{AttemptId, SlotId, WorkerId};
use flott_schema::snapshot::TaskSnapshot;

/// When each of `N` states was entered last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateTimes<const N: usize>([Option<u64>; N]);

impl<const N: usize> Default for StateTimes<N> {
    fn default() -> Self {
        StateTimes([None; N])
    }
}

impl<const N: usize> StateTimes<N> {
    pub(super) fn enter(&mut self, state: usize, at_ms: u64) {
        self.0[state] = Some(at_ms);
    }

    /// When the state with this index was entered.
    pub fn get(&self, state: usize) -> Option<u64> {
        self.0[state]
    }
}

/// Number of tasks in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskCounts([u32; TaskState::ALL.len()]);

impl TaskCounts {
    /// Counts tasks by their states.
    pub fn of_states(states: impl Iterator<Item = TaskState>) -> Self {
        let mut counts = TaskCounts::default();
        states.for_each(|state| counts.add(state));
        counts
    }

    /// Tasks in `state`.
    pub fn of(&self, state: TaskState) -> u32 {
        self.0[state as usize]
    }

    /// All tasks.
    pub fn total(&self) -> u32 {
        self.0.iter().sum()
    }

    /// Tasks that have ended in whatever way.
    pub fn terminal(&self) -> u32 {
        self.sum_of(|state| state.is_terminal())
    }

    /// Tasks that hold a slot: placed and not ended.
    pub fn live(&self) -> u32 {
        self.sum_of(|state| !state.is_terminal() && state != TaskState::Created)
    }

    pub(super) fn add(&mut self, state: TaskState) {
        self.0[state as usize] += 1;
    }

    pub(super) fn remove(&mut self, state: TaskState) {
        self.0[state as usize] -= 1;
    }

    pub(super) fn merge(&mut self, other: &TaskCounts) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }

    fn sum_of(&self, wanted: impl Fn(TaskState) -> bool) -> u32 {
        TaskState::ALL.iter().filter(|state| wanted(**state)).map(|state| self.of(*state)).sum()
    }
}

/// A task: one parallel instance of a vertex, in its current deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRecord {
    pub(super) attempt: AttemptId,
    pub(super) state: TaskState,
    pub(super) slot: Option<SlotId>,
    /// Where the deployment before this one ran: it would like to go there again.
    pub(super) previous: Option<SlotId>,
    /// Whether its finished result is gone though its worker is still there.
    pub(super) result_lost: bool,
    /// Its part of all snapshots to come, once it has nothing more to do.
    pub(super) last: Option<Arc<TaskSnapshot>>,
    pub(super) times: StateTimes<{ TaskState::ALL.len() }>,
}

impl TaskRecord {
    pub(super) fn new(attempt: AttemptId, at_ms: u64) -> Self {
        let mut task = TaskRecord {
            attempt,
            state: TaskState::Created,
            slot: None,
            previous: None,
            result_lost: false,
            last: None,
            times: StateTimes::default(),
        };
        task.times.enter(TaskState::Created as usize, at_ms);
        task
    }

    /// Ready for the next deployment.
    pub(super) fn reset(&mut self, job_epoch: u32, at_ms: u64) {
        let attempt = AttemptId { job_epoch, attempt: self.attempt.attempt + 1, ..self.attempt };
        *self = TaskRecord { previous: self.slot.or(self.previous), ..TaskRecord::new(attempt, at_ms) };
    }

    /// Whether it runs on this worker, or ran there.
    pub(super) fn is_on(&self, worker: WorkerId) -> bool {
        self.slot.is_some_and(|slot| slot.worker == worker)
    }

    /// The current deployment; a report on another is stale.
    pub fn attempt(&self) -> AttemptId {
        self.attempt
    }

    /// The state it is in.
    pub fn state(&self) -> TaskState {
        self.state
    }

    /// Where it runs, or ran. Nothing for a task that was never placed.
    pub fn slot(&self) -> Option<SlotId> {
        self.slot
    }

    /// Its part of all snapshots to come, if it has handed that in.
    pub fn last_snapshot(&self) -> Option<&Arc<TaskSnapshot>> {
        self.last.as_ref()
    }

    /// When it entered `state`, if it ever did in this attempt (milliseconds since 1970).
    pub fn entered_ms(&self, state: TaskState) -> Option<u64> {
        self.times.get(state as usize)
    }
}

/// What to make of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The task enters the state.
    Enter(TaskState),
    /// The task is gone although nobody asked it to stop: a failure.
    UnaskedCancel,
    /// It is in that state already.
    Repeated,
    /// The task has finished, and now its result is gone.
    ResultLost,
    /// Sent before the worker had seen the cancel request.
    Overtaken,
    /// Cannot be: a terminal task lives again, or a task goes backwards.
    Impossible,
}

/// Judges a worker's report. Workers report `Initializing`, `Running` and the terminal states, in this order, and may
/// leave some out; `Failed` of a task that has finished says that its result is gone. `Created` to `Deploying` and `Canceling` are the coordinator's own words.
pub(super) fn judge(now: TaskState, reported: TaskState) -> Report {
    use TaskState::*;
    match (now, reported) {
        _ if now == reported => Report::Repeated,
        (Finished, Failed) => Report::ResultLost,
        (Created | Scheduled | Finished | Canceled | Failed, _) => Report::Impossible,
        (_, Created | Scheduled | Deploying | Canceling) => Report::Impossible,
        (Canceling, Initializing | Running) => Report::Overtaken,
        (Running, Initializing) => Report::Impossible,
        (Deploying | Initializing | Running, Canceled) => Report::UnaskedCancel,
        (_, Initializing | Running | Finished | Canceled | Failed) => Report::Enter(reported),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_of_states_agree_with_the_table() {
        for (index, state) in TaskState::ALL.iter().enumerate() {
            assert_eq!(*state as usize, index);
        }
    }

    #[test]
    fn nothing_leaves_a_terminal_state_and_nothing_goes_backwards() {
        for now in TaskState::ALL {
            for reported in TaskState::ALL {
                if let Report::Enter(next) = judge(now, reported) {
                    assert!(!now.is_terminal() && next == reported && now != reported);
                    assert!(next.is_terminal() || (next as usize) > now as usize, "{now:?} -> {next:?}");
                }
            }
        }
    }

    #[test]
    fn a_deployed_task_may_end_in_any_way_from_any_state() {
        use TaskState::*;
        for now in [Deploying, Initializing, Running, Canceling] {
            assert_eq!(judge(now, Finished), Report::Enter(Finished));
            assert_eq!(judge(now, Failed), Report::Enter(Failed));
            let canceled = if now == Canceling { Report::Enter(Canceled) } else { Report::UnaskedCancel };
            assert_eq!(judge(now, Canceled), canceled);
        }
    }
}
