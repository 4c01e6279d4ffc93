//! The part of one task in snapshots: what it was asked for, what it has begun and what it waits for.
//!
//! A snapshot of a task begins when the barrier reaches its first operator and is handed over when the barrier has left its last; files are
//! written behind that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Instant;

use flott_dataflow::context::TaskContext;
use flott_schema::Result;
use flott_schema::control::{CheckpointOrder, LAST_SNAPSHOT, SnapshotReport, ToCoordinator};
use flott_schema::ids::{AttemptId, JobId, OperatorId};
use flott_schema::snapshot::{Barrier, OperatorSnapshot, SnapshotTimes, TaskSnapshot};
use futures_util::task::AtomicWaker;
use tokio::sync::mpsc;

use crate::enumerator::LastStates;
use crate::overtaking::Recording;

/// What is kept of snapshots that are not complete: the rest comes soon or not at all.
const KEPT: usize = 16;
/// Ids of snapshots that are remembered: of each something may still be on its way.
const IDS_KEPT: usize = 64;

fn remember(ids: &mut BTreeSet<u64>, id: u64) {
    ids.insert(id);
    while ids.len() > IDS_KEPT {
        ids.pop_first();
    }
}

/// Takes what became of a task's part, on any thread.
pub type Taken = Box<dyn FnOnce(Result<TaskSnapshot>) + Send>;

/// What belongs to a task's part of a snapshot beside the state of its operators.
#[derive(Debug, Default)]
pub struct Extras {
    /// Whether the task has ended.
    pub finished: bool,
    /// State of the split enumerator of a source.
    pub enumerator: Option<(OperatorId, Vec<u8>)>,
    /// Records in flight, in frames one behind the other, by number of the channel into the task.
    pub channels: BTreeMap<u32, Vec<u8>>,
    /// How it went so far.
    pub times: SnapshotTimes,
}

/// Keeps the state of one task; calls come from the task's thread.
pub trait StateKeeper {
    /// All operators have opened: what they have not claimed of the snapshot they start from is an error, unless it may be dropped.
    fn opened(&self) -> Result<()>;
    /// Operators hand in their state from now on.
    fn begin(&self, barrier: &Barrier) -> Result<()>;
    /// They all have: the barrier has left the last one, or the task had ended before.
    fn passed(&self, checkpoint: u64, finished: bool);
    /// Says where what they have handed in goes; the rest happens on other threads. May come long after `passed`, and not in order.
    fn end(&self, order: &CheckpointOrder, extras: Extras, taken: Taken);
    /// The snapshot is complete, or was given up.
    fn ended(&self, checkpoint: u64, completed: bool);
}

/// Who is told of parts of snapshots.
#[derive(Clone)]
pub struct Reporter {
    /// The job.
    pub job: JobId,
    /// The deployment.
    pub attempt: AttemptId,
    /// To the coordinator.
    pub sender: mpsc::Sender<ToCoordinator>,
}

impl Reporter {
    /// Reports a part; from any thread, without waiting.
    pub fn report(&self, checkpoint: u64, result: Result<TaskSnapshot>) {
        self.send_report(checkpoint, 0, result);
    }

    /// Reports the part of all snapshots behind `handed_in`.
    pub fn report_last(&self, handed_in: u64, result: Result<TaskSnapshot>) {
        self.send_report(LAST_SNAPSHOT, handed_in, result);
    }

    fn send_report(&self, checkpoint: u64, handed_in: u64, result: Result<TaskSnapshot>) {
        let result = result.map_err(|error| error.to_string());
        let report = SnapshotReport { job: self.job, attempt: self.attempt, checkpoint, handed_in, result };
        flott_faults::point("task.report");
        self.send(ToCoordinator::Snapshot(Box::new(report)));
        flott_faults::point("task.reported");
    }

    /// Asks for a snapshot.
    pub fn want(&self) {
        self.send(ToCoordinator::SnapshotWanted { job: self.job, attempt: self.attempt });
    }

    fn send(&self, message: ToCoordinator) {
        // A queue that is full for long means a coordinator that is gone; the checkpoint will be given up, and the next one asks again.
        if let Err(mpsc::error::TrySendError::Full(message)) = self.sender.try_send(message) {
            let sender = self.sender.clone();
            match tokio::runtime::Handle::try_current() {
                Ok(_) => drop(tokio::task::spawn_local(async move {
                    let _ = sender.send(message).await;
                })),
                Err(_) => drop(sender.blocking_send(message)),
            }
        }
    }
}

/// Snapshots of one task.
pub struct TaskSnapshots {
    keeper: Box<dyn StateKeeper>,
    reporter: Reporter,
    /// The operator whose split enumerator lives with this task.
    enumerator: Option<OperatorId>,
    /// Whether barriers may overtake records.
    overtaking: bool,
    /// Orders for snapshots that the task has yet to hand over.
    orders: BTreeMap<u64, Arc<CheckpointOrder>>,
    /// Barriers that have passed the task.
    passed: BTreeMap<u64, Passed>,
    /// States of the enumerator.
    enumerator_states: BTreeMap<u64, Result<Vec<u8>>>,
    /// Records that the last barrier has overtaken.
    recording: Option<Recording>,
    /// Snapshots that were given up lately.
    given_up: BTreeSet<u64>,
    /// Savepoints beside which the job goes on, lately. Sinks do not commit with them, as in Flink (FLIP-203): they are the user's, and may be gone
    /// when the job has to go back to a checkpoint before them.
    beside: BTreeSet<u64>,
    /// Parts that are being written.
    writing: Arc<Writing>,
    /// The last barrier begun, and when.
    begun: Option<(Barrier, Instant)>,
    /// The last snapshot that the task took part in.
    last: u64,
    pub(crate) ending: Ending,
    /// The newest snapshot that the task was ordered to take part in.
    ordered: u64,
    last_enumerator: LastState,
}

/// Parts that are being written, and who waits for them.
#[derive(Default)]
struct Writing {
    parts: AtomicUsize,
    waker: AtomicWaker,
}

impl Writing {
    fn begin(&self) {
        self.parts.fetch_add(1, Ordering::AcqRel);
    }

    fn end(&self) {
        self.parts.fetch_sub(1, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Whether any is left; then `waker` is woken when one ends.
    fn is_left(&self, waker: &Waker) -> bool {
        self.waker.register(waker);
        self.parts.load(Ordering::Acquire) > 0
    }
}

/// A barrier that has passed.
struct Passed {
    barrier: Barrier,
    times: SnapshotTimes,
    /// The task had ended before.
    finished: bool,
}

/// How far a task that has ended is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It has not ended.
    Not,
    /// Its sinks wait for a snapshot to commit.
    Waits,
    /// Its last report is on its way.
    Reported,
}

/// How a task that has ended stands with the last states of its split enumerator.
enum LastState {
    Unasked,
    /// They come when no reader can get a split any more.
    Asked,
    Here(LastStates),
}

impl TaskSnapshots {
    /// For the task of `reporter`, whose state is in the hands of `keeper`.
    pub fn new(
        keeper: Box<dyn StateKeeper>,
        reporter: Reporter,
        enumerator: Option<OperatorId>,
        overtaking: bool,
    ) -> Self {
        TaskSnapshots {
            keeper,
            reporter,
            enumerator,
            overtaking,
            orders: BTreeMap::new(),
            passed: BTreeMap::new(),
            enumerator_states: BTreeMap::new(),
            recording: None,
            given_up: BTreeSet::new(),
            beside: BTreeSet::new(),
            writing: Arc::default(),
            begun: None,
            last: 0,
            ending: Ending::Not,
            ordered: 0,
            last_enumerator: LastState::Unasked,
        }
    }

    /// Whether barriers may overtake records.
    pub fn barriers_overtake(&self) -> bool {
        self.overtaking
    }

    /// Whether a split enumerator lives with this task.
    pub fn has_enumerator(&self) -> bool {
        self.enumerator.is_some()
    }

    /// A barrier is about to reach the first operator; repeated calls for one barrier count once.
    pub fn begin(&mut self, barrier: Barrier) -> Result<()> {
        if self.begun.is_some_and(|(begun, _)| begun.checkpoint == barrier.checkpoint) {
            return Ok(());
        }
        flott_faults::point("task.barrier");
        self.begun = Some((barrier, Instant::now()));
        self.keeper.begin(&barrier)
    }

    /// All operators of the task have opened.
    pub fn opened(&self) -> Result<()> {
        self.keeper.opened()
    }

    /// The barrier has left the last operator.
    pub fn passed(&mut self, barrier: Barrier, now_ms: i64, times: SnapshotTimes) {
        let since = self.begun.map_or_else(Instant::now, |(_, since)| since);
        let times = SnapshotTimes {
            start_delay_ms: (now_ms - barrier.timestamp_ms).max(0) as u64,
            sync_us: since.elapsed().as_micros() as u64,
            ..times
        };
        self.take_part(Passed { barrier, times, finished: false });
    }

    fn take_part(&mut self, passed: Passed) {
        let checkpoint = passed.barrier.checkpoint;
        flott_faults::point("task.passed");
        self.keeper.passed(checkpoint, passed.finished);
        self.last = self.last.max(checkpoint);
        if passed.barrier.kind.is_savepoint() && !passed.barrier.after.stops() {
            remember(&mut self.beside, checkpoint);
        }
        if self.given_up.contains(&checkpoint) {
            // The barrier came late: nobody will ask for it.
            return self.keeper.ended(checkpoint, false);
        }
        self.passed.insert(checkpoint, passed);
        while self.passed.len() > KEPT {
            self.passed.pop_first();
        }
        self.hand_over(checkpoint);
    }

    /// The order for a snapshot. `true` if it is the first of its number.
    pub fn order(&mut self, order: Arc<CheckpointOrder>) -> bool {
        let checkpoint = order.barrier.checkpoint;
        self.ordered = self.ordered.max(checkpoint);
        // Orders come in order: one that is still missing was never given.
        self.passed.retain(|other, _| *other >= checkpoint || self.orders.contains_key(other));
        let is_new = self.orders.insert(checkpoint, order).is_none();
        while self.orders.len() > KEPT {
            self.orders.pop_first();
        }
        self.hand_over(checkpoint);
        is_new
    }

    /// The state of the split enumerator for a snapshot.
    pub fn enumerator_state(&mut self, checkpoint: u64, state: Result<Vec<u8>>) {
        self.enumerator_states.insert(checkpoint, state);
        while self.enumerator_states.len() > KEPT {
            self.enumerator_states.pop_first();
        }
        self.hand_over(checkpoint);
    }

    /// The records that a barrier has overtaken.
    pub fn recorded(&mut self, recording: Recording) {
        let checkpoint = recording.checkpoint;
        self.recording = Some(recording);
        self.hand_over(checkpoint);
    }

    /// Hands the state over, once everything is there: the barrier has passed, the order says where files go, the enumerator has given its state, and
    /// what was overtaken has come.
    fn hand_over(&mut self, checkpoint: u64) {
        let Some(passed) = self.passed.get(&checkpoint) else { return };
        let has_recording =
            self.recording.as_ref().is_some_and(|recording| recording.checkpoint == checkpoint);
        let waits_for_records = passed.times.unaligned && !has_recording;
        let waits_for_enumerator =
            self.enumerator.is_some() && !self.enumerator_states.contains_key(&checkpoint);
        if waits_for_records || waits_for_enumerator {
            return;
        }
        let Some(order) = self.orders.remove(&checkpoint) else { return };
        let Some(Passed { barrier, times, finished }) = self.passed.remove(&checkpoint) else { return };
        let recording = self.recording.take_if(|recording| recording.checkpoint == checkpoint);
        let state = self.enumerator_states.remove(&checkpoint);
        let reporter = self.reporter.clone();
        let enumerator = match (self.enumerator, state) {
            (Some(operator), Some(Ok(state))) => Some((operator, state)),
            (_, Some(Err(error))) => return reporter.report(checkpoint, Err(error.at("split enumerator"))),
            _ => None,
        };
        let channels = recording.map(|recording| recording.channels).unwrap_or_default();
        let extras = Extras { finished, enumerator, channels, times };
        let order = CheckpointOrder { barrier, ..CheckpointOrder::clone(&order) };
        let writing = self.writing.clone();
        writing.begin();
        let taken = move |task| {
            reporter.report(checkpoint, task);
            writing.end();
        };
        self.keeper.end(&order, extras, Box::new(taken));
    }

    /// A snapshot is complete, or was given up.
    pub fn ended(&mut self, checkpoint: u64, completed: bool) {
        self.orders.remove(&checkpoint);
        self.passed.remove(&checkpoint);
        self.enumerator_states.remove(&checkpoint);
        flott_faults::point("task.ended");
        self.keeper.ended(checkpoint, completed);
        if !completed {
            self.recording.take_if(|recording| recording.checkpoint == checkpoint);
            remember(&mut self.given_up, checkpoint);
        }
    }

    /// Whether sinks commit when this snapshot is complete.
    pub fn commits_with(&self, checkpoint: u64) -> bool {
        !self.beside.contains(&checkpoint)
    }

    /// The task has ended, and what its sinks have to commit waits for a snapshot: takes part in all that it is asked for. In the newest alone would
    /// not do: it may be a savepoint, with which sinks do not commit.
    /// Gives the one with which the job stops, if that is among them.
    pub fn take_part_at_the_end(&mut self, ctx: &TaskContext) -> Result<Option<u64>> {
        if self.ending == Ending::Not && ctx.snapshots.has_uncommitted() {
            self.ending = Ending::Waits;
            self.reporter.want();
        }
        let mut stops_with = None;
        let orders: Vec<Barrier> =
            self.orders.range(self.last + 1..).map(|(_, order)| order.barrier).collect();
        for barrier in orders {
            self.begin(barrier)?;
            ctx.snapshots.last_snapshot(&barrier)?;
            self.take_part(Passed { barrier, times: SnapshotTimes::default(), finished: true });
            if barrier.after.stops() {
                stops_with = Some(barrier.checkpoint);
            }
        }
        Ok(stops_with)
    }

    /// Whether the last states of the split enumerator are to be asked for before the task can end.
    pub fn wants_last_enumerator_states(&self) -> bool {
        self.has_enumerator() && matches!(self.last_enumerator, LastState::Unasked)
    }

    /// They were asked for.
    pub fn last_enumerator_states_asked(&mut self) {
        self.last_enumerator = LastState::Asked;
    }

    /// Whether they were, and are yet to come: until then the task takes part in snapshots, for the enumerator.
    pub fn awaits_last_enumerator_states(&self) -> bool {
        matches!(self.last_enumerator, LastState::Asked)
    }

    /// They are here.
    pub fn last_enumerator_states(&mut self, last: LastStates) {
        self.last_enumerator = LastState::Here(last);
    }

    /// Whether the task has to live on: its part in a snapshot is not written. A part that comes behind the one that is meant for all snapshots
    /// to come would come too late.
    pub fn is_taking_part(&self, waker: &Waker) -> bool {
        self.writing.is_left(waker) || !self.passed.is_empty()
    }

    /// The task has ended and has nothing to commit: its part of all snapshots to come.
    /// An error, of an enumerator that cannot give its state, is for those to come as well.
    ///
    /// Readers elsewhere may be in front: they may have sent a barrier and got splits behind it whose order is still on its way to this task.
    /// Of such a snapshot the task reports a part of its own, with the state that the enumerator had then.
    pub fn report_last(&mut self) {
        if self.ending == Ending::Reported {
            return;
        }
        self.ending = Ending::Reported;
        let LastState::Here(last) = std::mem::replace(&mut self.last_enumerator, LastState::Unasked) else {
            return self.reporter.report_last(self.last, Ok(self.finished_with(None)));
        };
        let is_ahead = last.epoch.saturating_sub(KEPT as u64).max(self.ordered) + 1..=last.epoch;
        for checkpoint in is_ahead {
            self.reporter.report(checkpoint, self.finished_with_state(last.state_in(checkpoint)));
        }
        self.reporter.report_last(self.last.max(last.epoch), self.finished_with_state(last.state));
    }

    fn finished_with_state(&self, enumerator: Result<Vec<u8>>) -> Result<TaskSnapshot> {
        let state = enumerator.map_err(|error| error.at("split enumerator"))?;
        Ok(self.finished_with(Some(state)))
    }

    /// The part of the task when it has ended.
    fn finished_with(&self, enumerator: Option<Vec<u8>>) -> TaskSnapshot {
        let of_enumerator = self.enumerator.zip(enumerator).map(|(operator, state)| OperatorSnapshot {
            operator: Some(operator),
            enumerator: Some(state),
            ..OperatorSnapshot::default()
        });
        TaskSnapshot {
            task: self.reporter.attempt.task,
            finished: true,
            operators: of_enumerator.into_iter().collect(),
            channels: Vec::new(),
            times: SnapshotTimes::default(),
        }
    }
}

#[cfg(test)]
#[path = "snapshots_tests.rs"]
mod tests;
