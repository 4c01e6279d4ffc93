//! The subtask actor: one task on one slot. Its mailbox carries control only; records flow through the pump, which is
//! one future in the actor's context. The mailbox is looked at before each quantum.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskCx, Poll};
use std::time::Duration;

use actix::fut::{ActorFuture, ActorFutureExt};
use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, WrapFuture};
use flott_dataflow::source::Assignment;
use flott_schema::control::{CheckpointOrder, TaskFailure, TaskState};
use flott_schema::ids::AttemptId;
use flott_schema::{Error, Result};

use crate::enumerator::{AskSplit, AskState, LastStates, WantedState};
use crate::panics;
use crate::pump::{Progress, Pump};

/// Orders for snapshots that a task keeps until what it starts from is there.
const EARLY_MAX: usize = 16;

/// Who hears of a task's states. Called on the slot's thread; must not block.
pub type Report = Box<dyn FnMut(AttemptId, TaskState, Option<TaskFailure>)>;

/// Builds a task on the slot's thread.
pub type Build = Box<dyn FnOnce() -> Result<Pump> + Send>;
/// Fetches what a task starts from; what is given back goes on with it.
pub type Fetch = Box<dyn FnOnce() -> Result<Build> + Send>;

/// What a subtask is started with; sent to the slot's thread, where the task is built.
pub struct SubtaskPlan {
    /// The deployment.
    pub attempt: AttemptId,
    /// Vertex name, for failures.
    pub vertex_name: String,
    /// Number of tasks of the vertex, for failures.
    pub parallelism: u32,
    /// Fetches what the task starts from, on a thread that may wait for files.
    pub fetch: Fetch,
    /// Set when the task has ended, and seen by `fetch`, which ends early then.
    pub cancelled: Arc<AtomicBool>,
    /// For a source.
    pub ask_split: Option<AskSplit>,
    /// For the subtask of a source with which the split enumerator lives.
    pub ask_state: Option<AskState>,
    /// Makes the report on the slot's thread.
    pub report: Box<dyn FnOnce() -> Report + Send>,
}

/// The actor.
pub struct Subtask {
    attempt: AttemptId,
    vertex_name: String,
    parallelism: u32,
    fetch: Option<Fetch>,
    cancelled: Arc<AtomicBool>,
    /// It has not ended, though it has no pump yet.
    is_starting: bool,
    /// Orders that came meanwhile.
    early: VecDeque<Arc<CheckpointOrder>>,
    pump: Option<Pump>,
    ask_split: Option<AskSplit>,
    ask_state: Option<AskState>,
    report: Report,
}

impl Subtask {
    /// An actor that builds and runs the planned task once it is started.
    pub fn new(plan: SubtaskPlan) -> Self {
        Subtask {
            attempt: plan.attempt,
            vertex_name: plan.vertex_name,
            parallelism: plan.parallelism,
            fetch: Some(plan.fetch),
            cancelled: plan.cancelled,
            is_starting: true,
            early: VecDeque::new(),
            pump: None,
            ask_split: plan.ask_split,
            ask_state: plan.ask_state,
            report: (plan.report)(),
        }
    }

    fn open(&mut self, build: Build) -> Result<()> {
        let pump = self.pump.insert(panics::guard(build)?);
        self.is_starting = false;
        panics::guard(|| pump.open())
    }

    /// What the task starts from is here, or cannot be had.
    fn start(&mut self, fetched: Result<Build>, ctx: &mut Context<Self>) {
        if !self.is_starting {
            // Cancelled meanwhile.
            return;
        }
        match fetched.and_then(|build| self.open(build)) {
            Ok(()) => {
                (self.report)(self.attempt, TaskState::Running, None);
                ctx.spawn(DataLoop);
                let early = std::mem::take(&mut self.early);
                early.into_iter().for_each(|order| self.take_snapshot(order, ctx));
            }
            Err(error) => self.end(Err(error), ctx),
        }
    }

    fn take_snapshot(&mut self, order: Arc<CheckpointOrder>, ctx: &mut Context<Self>) {
        if self.is_starting {
            self.early.push_back(order);
            if self.early.len() > EARLY_MAX {
                self.early.pop_front();
            }
            return;
        }
        let checkpoint = order.barrier.checkpoint;
        if self.pump.as_mut().is_some_and(|pump| pump.order(order)) {
            self.request_state(checkpoint, ctx);
        }
    }

    /// Closes the task and reports its last state; later calls do nothing.
    fn end(&mut self, result: Result<TaskState>, ctx: &mut Context<Self>) {
        let closed = match self.pump.take() {
            Some(mut pump) => panics::guard(move || pump.close()),
            None if self.is_starting => Ok(()),
            None => return ctx.stop(),
        };
        self.is_starting = false;
        // The next attempt must not fetch beside it.
        self.cancelled.store(true, Ordering::Release);
        let result = match (result, closed) {
            (Ok(TaskState::Finished), Err(error)) => Err(error.at("close")),
            (result, _) => result,
        };
        match result {
            Ok(state) => (self.report)(self.attempt, state, None),
            Err(error) => self.report_failure(&error),
        }
        ctx.stop();
    }

    fn report_failure(&mut self, error: &Error) {
        let failure = TaskFailure {
            kind: error.kind(),
            vertex: self.vertex_name.clone(),
            subtask: self.attempt.task.subtask,
            parallelism: self.parallelism,
            message: error.to_string(),
            backtrace: error.backtrace().map(str::to_string),
        };
        (self.report)(self.attempt, TaskState::Failed, Some(failure));
    }

    fn request_split(&mut self, ctx: &mut Context<Self>) {
        if let (Some(ask), Some(pump)) = (&self.ask_split, &mut self.pump) {
            let address = ctx.address();
            // A reader that is gone needs no answer.
            let reply = Box::new(move |answer| address.do_send(SplitAnswer(answer)));
            ask(self.attempt.task.subtask, pump.ask_split(), reply);
        }
    }

    fn request_state(&mut self, checkpoint: u64, ctx: &mut Context<Self>) {
        let address = ctx.address();
        let reply = Box::new(move |state| address.do_send(EnumeratorState(checkpoint, state)));
        match &self.ask_state {
            Some(ask) => ask(WantedState::In(checkpoint, reply)),
            None => reply(Err(not_here())),
        }
    }

    /// What stands for all snapshots to come; asked for by the task with which the enumerator lives.
    fn request_last_states(&mut self, ctx: &mut Context<Self>) {
        let address = ctx.address();
        let reply = Box::new(move |last| address.do_send(LastEnumeratorStates(last)));
        match &self.ask_state {
            Some(ask) => ask(WantedState::Last(reply)),
            None => reply(LastStates::of(Err(not_here()))),
        }
    }

    /// All is done; what is left is the task's part of snapshots to come.
    fn finish(&mut self, ctx: &mut Context<Self>) {
        if let Some(pump) = &mut self.pump {
            pump.report_last();
        }
        self.end(Ok(TaskState::Finished), ctx);
    }
}

fn not_here() -> Error {
    Error::internal("the split enumerator is not here")
}

impl Actor for Subtask {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        (self.report)(self.attempt, TaskState::Initializing, None);
        let Some(fetch) = self.fetch.take() else { return };
        // The other tasks of the slot go on meanwhile, and this one can be cancelled.
        let fetched = tokio::task::spawn_blocking(move || panics::guard(fetch)).into_actor(self);
        ctx.spawn(fetched.map(|fetched, subtask, ctx| {
            let lost = |_| Err(Error::internal("the thread that fetched a task's state has gone"));
            subtask.start(fetched.unwrap_or_else(lost), ctx);
        }));
    }
}

/// The data loop: one future a subtask, polled after the mailbox.
struct DataLoop;

impl ActorFuture<Subtask> for DataLoop {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        subtask: &mut Subtask,
        ctx: &mut Context<Subtask>,
        cx: &mut TaskCx<'_>,
    ) -> Poll<()> {
        let Some(pump) = &mut subtask.pump else { return Poll::Ready(()) };
        match panics::guard(|| pump.poll(cx)) {
            Ok(Progress::Waiting) => Poll::Pending,
            Ok(Progress::NeedsSplit) => {
                subtask.request_split(ctx);
                Poll::Pending
            }
            Ok(Progress::Finished) if pump.wants_last_enumerator_states() => {
                pump.last_enumerator_states_asked();
                subtask.request_last_states(ctx);
                Poll::Pending
            }
            Ok(Progress::Finished) => {
                subtask.finish(ctx);
                Poll::Ready(())
            }
            Err(error) => {
                subtask.end(Err(error), ctx);
                Poll::Ready(())
            }
        }
    }
}

/// Stops the task.
pub struct Cancel;

impl Message for Cancel {
    type Result = ();
}

impl Handler<Cancel> for Subtask {
    type Result = ();

    fn handle(&mut self, _cancel: Cancel, ctx: &mut Self::Context) {
        self.end(Ok(TaskState::Canceled), ctx);
    }
}

/// Ends the task with an error that came from outside of it.
pub struct Fail(pub Error);

impl Message for Fail {
    type Result = ();
}

impl Handler<Fail> for Subtask {
    type Result = ();

    fn handle(&mut self, Fail(error): Fail, ctx: &mut Self::Context) {
        self.end(Err(error), ctx);
    }
}

/// The enumerator's answer.
pub struct SplitAnswer(pub Result<Assignment<Vec<u8>>>);

impl Message for SplitAnswer {
    type Result = ();
}

impl Handler<SplitAnswer> for Subtask {
    type Result = ();

    fn handle(&mut self, SplitAnswer(answer): SplitAnswer, ctx: &mut Self::Context) {
        let Some(pump) = &mut self.pump else { return };
        pump.split_answered();
        let given = match answer {
            Ok(Assignment::Split(split)) => panics::guard(|| pump.give_split(Some(&split))),
            Ok(Assignment::NoMore) => panics::guard(|| pump.give_split(None)),
            Ok(Assignment::Later(wait_ms)) => {
                // It asks again in its turn: not in front of a barrier that it has yet to pass.
                ctx.run_later(Duration::from_millis(wait_ms.max(1)), |_subtask, ctx| {
                    // A message, so that the data loop is polled behind it.
                    ctx.address().do_send(AskAgain);
                });
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = given {
            self.end(Err(error), ctx);
        }
        // The data loop is polled behind the mailbox, in this same wake-up.
    }
}

/// The enumerator may have a split now.
struct AskAgain;

impl Message for AskAgain {
    type Result = ();
}

impl Handler<AskAgain> for Subtask {
    type Result = ();

    fn handle(&mut self, _again: AskAgain, _ctx: &mut Self::Context) {
        if let Some(pump) = &mut self.pump {
            pump.ask_again();
        }
    }
}

/// Take a snapshot.
pub struct TakeSnapshot(pub Arc<CheckpointOrder>);

impl Message for TakeSnapshot {
    type Result = ();
}

impl Handler<TakeSnapshot> for Subtask {
    type Result = ();

    fn handle(&mut self, TakeSnapshot(order): TakeSnapshot, ctx: &mut Self::Context) {
        self.take_snapshot(order, ctx);
    }
}

/// The state of the split enumerator in a snapshot.
pub struct EnumeratorState(pub u64, pub Result<Vec<u8>>);

impl Message for EnumeratorState {
    type Result = ();
}

impl Handler<EnumeratorState> for Subtask {
    type Result = ();

    fn handle(&mut self, EnumeratorState(checkpoint, state): EnumeratorState, _ctx: &mut Self::Context) {
        // The data loop is polled behind the mailbox.
        if let Some(pump) = &mut self.pump {
            pump.enumerator_state(checkpoint, state);
        }
    }
}

/// What the split enumerator leaves.
struct LastEnumeratorStates(LastStates);

impl Message for LastEnumeratorStates {
    type Result = ();
}

impl Handler<LastEnumeratorStates> for Subtask {
    type Result = ();

    fn handle(&mut self, LastEnumeratorStates(last): LastEnumeratorStates, _ctx: &mut Self::Context) {
        // As above.
        if let Some(pump) = &mut self.pump {
            pump.last_enumerator_states(last);
        }
    }
}

/// A snapshot is complete, or was given up.
pub struct SnapshotEnded {
    /// The snapshot.
    pub checkpoint: u64,
    /// Whether it is complete.
    pub completed: bool,
}

impl Message for SnapshotEnded {
    type Result = ();
}

impl Handler<SnapshotEnded> for Subtask {
    type Result = ();

    fn handle(&mut self, SnapshotEnded { checkpoint, completed }: SnapshotEnded, ctx: &mut Self::Context) {
        self.early.retain(|order| order.barrier.checkpoint != checkpoint);
        let Some(pump) = &mut self.pump else { return };
        if let Err(error) = panics::guard(|| pump.checkpoint_ended(checkpoint, completed)) {
            self.end(Err(error), ctx);
        }
    }
}
