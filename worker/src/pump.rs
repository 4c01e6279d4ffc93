//! Drives one task: control first, then input, never longer than a quantum at a time.
//!
//! The pump knows neither actors nor threads. [`Pump::poll`] works until its quantum is over, its input is empty or its
//! outputs are congested; what has to happen next wakes it. Before it waits for input it flushes, so that nothing is held
//! back in a task that is idle.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use flott_dataflow::context::TaskContext;
use flott_dataflow::element::{MAX_WATERMARK, Signal};
use flott_dataflow::stage::Flow;
use flott_dataflow::task::{Read, Task};
use flott_schema::Result;
use flott_schema::control::{CheckpointOrder, LAST_SNAPSHOT};
use flott_schema::snapshot::{AfterBarrier, SnapshotTimes};
use tokio::time::Sleep;

use crate::clock::Clock;
use crate::enumerator::LastStates;
use crate::gate::{Input, InputGate};
use crate::metrics::TaskMetrics;
use crate::pace::Pace;
use crate::snapshots::{Ending, TaskSnapshots};

/// How long a task works before it lets others of its slot work.
const QUANTUM: Duration = Duration::from_millis(1);
/// Behind a quantum that took so long, what has come from other threads goes first. Elsewhere the runtime looks for it once in some thirty quanta.
const LONG: Duration = Duration::from_millis(5);

/// Where the records of a task come from.
pub enum Origin {
    /// Channels.
    Gate(Box<InputGate>),
    /// Outside.
    Source(Splits),
}

/// How a source stands with its split enumerator.
#[derive(Default)]
pub struct Splits {
    /// A split is wanted; it is asked for once.
    requested: bool,
    /// The question is under way. Until the answer is here no barrier goes out: a split that was given in front of a barrier must be in
    /// the reader's part of the snapshot.
    asked: bool,
    held: Vec<Signal>,
    ended: bool,
    /// Behind a barrier with which the job stops: its checkpoint.
    stopped: Option<u64>,
    /// The last barrier that was sent.
    epoch: u64,
}

impl Splits {
    /// Sends held barriers, unless an answer is under way.
    fn release(&mut self, pending: &mut VecDeque<Signal>) {
        if self.asked || self.ended {
            return;
        }
        for signal in self.held.drain(..) {
            if let Signal::Barrier(barrier) = signal {
                self.epoch = barrier.checkpoint;
            }
            pending.push_back(signal);
        }
    }
}

/// What the pump wants from outside.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Waiting; it has been seen to that something wakes the task.
    Waiting,
    /// Needs a split; ask the enumerator, then call [`Pump::give_split`].
    NeedsSplit,
    /// Done: all input processed, all output sent.
    Finished,
}

/// A task and what it works on.
pub struct Pump {
    task: Box<dyn Task>,
    origin: Origin,
    ctx: Rc<TaskContext>,
    clock: Clock,
    metrics: Arc<TaskMetrics>,
    /// Signals that the task has not finished with: one from the gate, or what a source sends in a row.
    pending: VecDeque<Signal>,
    /// The end of input has passed through the task.
    ended: bool,
    /// The task's poll has answered `Again`.
    poll_again: bool,
    /// The task's part in snapshots; none if the job takes none.
    snapshots: Option<TaskSnapshots>,
    /// The barrier with which the job stops has passed the task; it ends when that snapshot is complete.
    stops_with: Option<u64>,
    /// The task has ended with a snapshot.
    stopped: bool,
    /// When a barrier overtakes.
    overtakes: Option<Instant>,
    /// An `Again` without congestion was repeated in this call of `poll`.
    asked_twice: bool,
    sleep: Option<(i64, Pin<Box<Sleep>>)>,
    /// Records of the batch that was pushed last, and when, until it is known how long the operators take over it.
    pushed: Option<(usize, Instant)>,
    pace: Pace,
    waiting: Option<(Instant, Wait)>,
}

#[derive(Clone, Copy)]
enum Wait {
    Idle,
    Backpressured,
}

/// What one step of the loop came to.
enum Step {
    Worked,
    Wait(Wait),
    NeedsSplit,
    Finished,
}

impl Pump {
    /// A pump for an unopened task.
    pub fn new(
        task: Box<dyn Task>,
        mut origin: Origin,
        ctx: Rc<TaskContext>,
        clock: Clock,
        metrics: Arc<TaskMetrics>,
    ) -> Self {
        if let Origin::Gate(gate) = &mut origin {
            gate.set_clock(clock);
            if task.is_strictly_aligned() {
                gate.align_strictly();
            }
        }
        Pump {
            task,
            origin,
            ctx,
            clock,
            metrics,
            pending: VecDeque::new(),
            ended: false,
            poll_again: false,
            snapshots: None,
            stops_with: None,
            stopped: false,
            overtakes: None,
            asked_twice: false,
            sleep: None,
            pushed: None,
            pace: Pace::default(),
            waiting: None,
        }
    }

    /// Has the task take part in snapshots.
    pub fn with_snapshots(mut self, snapshots: Option<TaskSnapshots>) -> Self {
        self.snapshots = snapshots;
        self
    }

    /// The order to take a snapshot: a source sends the barrier. Gives whether the state of the split enumerator is wanted.
    pub fn order(&mut self, order: Arc<CheckpointOrder>) -> bool {
        let Some(snapshots) = &mut self.snapshots else { return false };
        let barrier = order.barrier;
        if !snapshots.order(order) {
            return false;
        }
        match &mut self.origin {
            Origin::Source(splits) if !splits.ended => {
                let drain =
                    (barrier.after == AfterBarrier::Drain).then_some(Signal::Watermark(MAX_WATERMARK));
                splits.held.extend(drain.into_iter().chain([Signal::Barrier(barrier)]));
                splits.release(&mut self.pending);
                if barrier.after.stops() {
                    splits.stopped = Some(barrier.checkpoint);
                }
                snapshots.has_enumerator()
            }
            // The end of the input is under way: what is left to do comes at the end.
            Origin::Source(_) => snapshots.has_enumerator(),
            Origin::Gate(_) => false,
        }
    }

    /// The state of the split enumerator for a snapshot.
    pub fn enumerator_state(&mut self, checkpoint: u64, state: Result<Vec<u8>>) {
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.enumerator_state(checkpoint, state);
        }
    }

    /// A snapshot is complete, and sinks commit; or it was given up.
    pub fn checkpoint_ended(&mut self, checkpoint: u64, completed: bool) -> Result<()> {
        let Some(snapshots) = &mut self.snapshots else { return Ok(()) };
        snapshots.ended(checkpoint, completed);
        if let (Origin::Gate(gate), false) = (&mut self.origin, completed) {
            gate.give_up(checkpoint);
        }
        if let (Origin::Source(splits), false) = (&mut self.origin, completed) {
            // Splits are asked for again by whoever has waited for this one.
            splits.epoch = splits.epoch.max(checkpoint);
            if splits.stopped == Some(checkpoint) {
                splits.stopped = None;
            }
        }
        if completed && snapshots.commits_with(checkpoint) {
            self.ctx.snapshots.completed(checkpoint)?;
            self.stopped |= self.stops_with == Some(checkpoint);
        }
        if self.stops_with == Some(checkpoint) {
            self.stops_with = None;
        }
        Ok(())
    }

    /// The question for a split is going out; gives the last barrier in front of it, or [`LAST_SNAPSHOT`] from a reader that had finished.
    pub fn ask_split(&mut self) -> u64 {
        match &mut self.origin {
            Origin::Source(splits) => {
                splits.asked = true;
                if self.ctx.snapshots.had_finished() { LAST_SNAPSHOT } else { splits.epoch }
            }
            Origin::Gate(_) => 0,
        }
    }

    /// The enumerator had nothing yet, and may have something now.
    pub fn ask_again(&mut self) {
        if let Origin::Source(splits) = &mut self.origin {
            splits.requested = false;
        }
    }

    /// Its answer is here.
    pub fn split_answered(&mut self) {
        if let Origin::Source(splits) = &mut self.origin {
            splits.asked = false;
            splits.release(&mut self.pending);
        }
    }

    /// Whether the last states of the split enumerator are wanted before the task can end.
    pub fn wants_last_enumerator_states(&self) -> bool {
        let wants = |snapshots: &TaskSnapshots| {
            snapshots.wants_last_enumerator_states() && snapshots.ending != Ending::Reported
        };
        self.snapshots.as_ref().is_some_and(wants) && !self.stopped
    }

    /// They were asked for: the task goes on until they are here.
    pub fn last_enumerator_states_asked(&mut self) {
        self.snapshots.iter_mut().for_each(TaskSnapshots::last_enumerator_states_asked);
    }

    /// They are here.
    pub fn last_enumerator_states(&mut self, last: LastStates) {
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.last_enumerator_states(last);
        }
    }

    /// The task ends: its part of all snapshots to come.
    pub fn report_last(&mut self) {
        if let (Some(snapshots), false) = (&mut self.snapshots, self.stopped) {
            snapshots.report_last();
        }
    }

    /// Opens the task's operators.
    pub fn open(&mut self) -> Result<()> {
        self.ctx.set_now_ms(self.clock.now_ms());
        self.task.open()?;
        self.snapshots.as_ref().map_or(Ok(()), TaskSnapshots::opened)
    }

    /// Closes the task's operators; to be called once, whatever happened.
    pub fn close(&mut self) -> Result<()> {
        self.task.close()
    }

    /// The enumerator's answer: a split, or none any more.
    pub fn give_split(&mut self, split: Option<&[u8]>) -> Result<()> {
        if let Origin::Source(splits) = &mut self.origin {
            splits.requested = false;
        }
        self.task.add_split(split)
    }

    /// Works for up to a quantum. After `Pending` the task's waker will be woken.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Result<Progress> {
        let started = Instant::now();
        self.note_wait(started);
        self.asked_twice = false;
        let mut now = started;
        let mut woken = true;
        self.look_ahead(cx)?;
        let progress = loop {
            self.ctx.set_now_ms(self.clock.at_ms(now));
            match self.step(std::mem::take(&mut woken), cx)? {
                Step::Worked => {}
                Step::Finished => break Progress::Finished,
                Step::NeedsSplit => break Progress::NeedsSplit,
                Step::Wait(wait) => {
                    if self.sleep_until_deadline(cx) {
                        woken = true;
                    } else {
                        self.waiting = Some((Instant::now(), wait));
                        break Progress::Waiting;
                    }
                }
            }
            now = Instant::now();
            let took = now.duration_since(started);
            if took >= QUANTUM {
                if took < LONG || std::pin::pin!(tokio::task::yield_now()).poll(cx).is_ready() {
                    cx.waker().wake_by_ref();
                }
                break Progress::Waiting;
            }
        };
        self.metrics.busy_ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(progress)
    }

    /// Barriers that may overtake do so whatever the task is at; it goes on with them as soon as it has done with the signal at hand.
    fn look_ahead(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let (Origin::Gate(gate), Some(snapshots)) = (&mut self.origin, &mut self.snapshots) else {
            return Ok(());
        };
        if !snapshots.barriers_overtake() || gate.is_strict() {
            return Ok(());
        }
        self.overtakes = gate.look_ahead(cx)?;
        if let Some(recording) = gate.take_recording() {
            snapshots.recorded(recording);
        }
        if self.pending.is_empty()
            && let Some(barrier) = gate.next_overtaking()
        {
            self.pending.push_back(Signal::Barrier(barrier));
        }
        Ok(())
    }

    fn note_wait(&mut self, now: Instant) {
        if let Some((since, wait)) = self.waiting.take() {
            let counter = match wait {
                Wait::Idle => &self.metrics.idle_ns,
                Wait::Backpressured => &self.metrics.backpressured_ns,
            };
            counter.fetch_add(now.duration_since(since).as_nanos() as u64, Ordering::Relaxed);
        }
    }

    fn step(&mut self, woken: bool, cx: &mut Context<'_>) -> Result<Step> {
        let now_ms = self.ctx.now_ms();
        if self.stopped {
            return Ok(Step::Finished);
        }
        if self.ended {
            return self.finish(cx);
        }
        if woken || self.poll_again || self.task.next_deadline_ms() <= now_ms {
            self.poll_again = self.task.poll(now_ms, cx)? == Flow::Again;
            if self.poll_again {
                return self.wait_for_outputs(cx);
            }
        }
        if let Some(signal) = self.pending.front().copied() {
            if let (Signal::Barrier(barrier), Some(snapshots)) = (signal, &mut self.snapshots) {
                snapshots.begin(barrier)?;
            }
            if self.task.signal(signal)? == Flow::Again {
                return self.wait_for_outputs(cx);
            }
            self.pending.pop_front();
            self.ended = signal == Signal::EndOfInput;
            if let Signal::Barrier(barrier) = signal {
                let times = match &mut self.origin {
                    Origin::Gate(gate) => gate.take_alignment(),
                    Origin::Source(_) => SnapshotTimes::default(),
                };
                if barrier.after.stops() {
                    self.stops_with = Some(barrier.checkpoint);
                }
                if let Some(snapshots) = &mut self.snapshots {
                    snapshots.passed(barrier, now_ms, times);
                }
            }
            return Ok(Step::Worked);
        }
        if self.ctx.congestion.register(cx.waker()) {
            if self.ctx.congestion.is_congested() {
                // Others are slow: nobody waits for these operators.
                self.pushed = None;
            } else {
                // An operator that takes no more may wait long: what it has given so far must not wait with it.
                self.task.flush()?;
            }
            return Ok(Step::Wait(Wait::Backpressured));
        }
        match &mut self.origin {
            Origin::Source(_) => self.read_source(cx),
            Origin::Gate(_) => self.read_gate(cx),
        }
    }

    /// Everything is sent: the task has finished once it can no longer be lost on the way to another executor, because
    /// until then somebody must be there to fail.
    /// What its sinks have to commit waits for a snapshot, and so does a split enumerator that has splits for others.
    fn finish(&mut self, cx: &mut Context<'_>) -> Result<Step> {
        self.ctx.congestion.watch(cx.waker());
        if self.ctx.congestion.is_congested() {
            return Ok(Step::Wait(Wait::Backpressured));
        }
        if let Some(snapshots) = &mut self.snapshots {
            let waits = self.ctx.snapshots.has_uncommitted() || snapshots.awaits_last_enumerator_states();
            // What the enumerator leaves does not stand for a snapshot that was ordered before it came.
            if (waits || snapshots.has_enumerator())
                && let Some(checkpoint) = snapshots.take_part_at_the_end(&self.ctx)?
            {
                self.stops_with = Some(checkpoint);
            }
            if waits {
                // An order or the end of a snapshot wakes the task.
                return Ok(Step::Wait(Wait::Idle));
            }
        }
        if self.snapshots.as_ref().is_some_and(|snapshots| snapshots.is_taking_part(cx.waker())) {
            return Ok(Step::Wait(Wait::Idle));
        }
        Ok(Step::Finished)
    }

    /// What has to be repeated goes on when the outputs have room, or when an operator wakes the task.
    fn wait_for_outputs(&mut self, cx: &mut Context<'_>) -> Result<Step> {
        // From here on every return of credit wakes the task. Credit that came back before this, but after the task had
        // asked for it, woke nobody: so where there is credit now, the task is asked once more.
        self.ctx.congestion.watch(cx.waker());
        if self.ctx.congestion.is_congested() {
            return Ok(Step::Wait(Wait::Backpressured));
        }
        if std::mem::replace(&mut self.asked_twice, true) {
            self.task.flush()?;
            return Ok(Step::Wait(Wait::Backpressured));
        }
        Ok(Step::Worked)
    }

    fn read_source(&mut self, cx: &mut Context<'_>) -> Result<Step> {
        if matches!(&self.origin, Origin::Source(splits) if splits.stopped.is_some()) {
            return self.go_idle();
        }
        let read = self.task.read(cx)?;
        let Origin::Source(splits) = &mut self.origin else { return Ok(Step::Finished) };
        match read {
            Poll::Ready(Read::Batch) => Ok(Step::Worked),
            Poll::Ready(Read::NeedsSplit | Read::Ended)
                if self.ctx.snapshots.had_finished() && !splits.ended =>
            {
                self.end_source();
                // The enumerator is told that nobody reads here.
                cx.waker().wake_by_ref();
                Ok(Step::NeedsSplit)
            }
            Poll::Ready(Read::NeedsSplit) if !splits.requested => {
                splits.requested = true;
                self.go_idle()?;
                // The next call waits for what is due; this one only asks.
                cx.waker().wake_by_ref();
                Ok(Step::NeedsSplit)
            }
            Poll::Ready(Read::Ended) if !splits.ended => {
                self.end_source();
                Ok(Step::Worked)
            }
            Poll::Ready(_) | Poll::Pending => self.go_idle(),
        }
    }

    fn end_source(&mut self) {
        if let Origin::Source(splits) = &mut self.origin
            && !std::mem::replace(&mut splits.ended, true)
        {
            self.pending.extend([Signal::Watermark(MAX_WATERMARK), Signal::EndOfInput]);
        }
    }

    fn read_gate(&mut self, cx: &mut Context<'_>) -> Result<Step> {
        let Origin::Gate(gate) = &mut self.origin else { return Ok(Step::Finished) };
        if let Some((records, since)) = self.pushed.take()
            && let Some(records) = self.pace.after(records, since.elapsed())
        {
            gate.take_at_once(records);
        }
        match gate.poll_next(cx) {
            Poll::Ready(input) => {
                match input? {
                    Input::Batch(input, batch) => {
                        self.pushed = Some((batch.record_count(), Instant::now()));
                        self.task.push(input, batch)?;
                    }
                    Input::Signal(signal) => {
                        if let Signal::Watermark(watermark) = signal {
                            self.metrics.input_watermark_ms.0.store(watermark, Ordering::Relaxed);
                        }
                        self.pending.push_back(signal);
                    }
                    Input::InputEnded(input) => self.task.input_ended(input)?,
                }
                Ok(Step::Worked)
            }
            Poll::Pending => self.go_idle(),
        }
    }

    /// Nothing to read: sends on what is held back, and does what that makes due.
    fn go_idle(&mut self) -> Result<Step> {
        self.task.flush()?;
        Ok(if self.task.next_deadline_ms() <= self.ctx.now_ms() {
            Step::Worked
        } else {
            Step::Wait(Wait::Idle)
        })
    }

    /// Has the task woken at its next deadline; `true` if that is now.
    fn sleep_until_deadline(&mut self, cx: &mut Context<'_>) -> bool {
        let overtakes_ms = self.overtakes.map_or(i64::MAX, |at| {
            let left = at.saturating_duration_since(Instant::now()).as_millis() as i64;
            self.clock.now_ms() + left.max(1)
        });
        let deadline_ms = self.task.next_deadline_ms().min(overtakes_ms);
        if deadline_ms == i64::MAX {
            self.sleep = None;
            return false;
        }
        if deadline_ms <= self.clock.now_ms() {
            self.sleep = None;
            return true;
        }
        if self.sleep.as_ref().is_none_or(|(at_ms, _)| *at_ms != deadline_ms) {
            let wait_ms = deadline_ms.saturating_sub(self.clock.now_ms()).max(0) as u64;
            // A far deadline is approached in steps that the timer can hold.
            let wait = Duration::from_millis(wait_ms.min(24 * 60 * 60 * 1000));
            self.sleep = Some((deadline_ms, Box::pin(tokio::time::sleep(wait))));
        }
        let Some((_, sleep)) = &mut self.sleep else { return false };
        let due = sleep.as_mut().poll(cx).is_ready();
        if due {
            self.sleep = None;
        }
        due
    }
}
