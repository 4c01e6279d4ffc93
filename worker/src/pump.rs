//! Drives one task: control first, then input, never longer than a quantum at a time.
//!
//! The pump knows neither actors nor threads. [`Pump::poll`] works until its quantum is over, its input is empty or its
//! outputs are congested; what has to happen next wakes it. Before it waits for input it flushes, so that nothing is held
//! back in a task that is idle.

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
use tokio::time::Sleep;

use crate::clock::Clock;
use crate::gate::{Input, InputGate};
use crate::metrics::TaskMetrics;

/// How long a task works before it lets others of its slot work.
const QUANTUM: Duration = Duration::from_millis(1);

/// Where the records of a task come from.
pub enum Origin {
    /// Channels.
    Gate(InputGate),
    /// Outside.
    Source(Splits),
}

/// How a source stands with its split enumerator.
#[derive(Default)]
pub struct Splits {
    requested: bool,
    ended: bool,
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
    /// A signal that the task has not finished with.
    pending: Option<Signal>,
    /// The signal behind the pending one: the end of input behind the final watermark of a source.
    next_signal: Option<Signal>,
    /// The end of input has passed through the task.
    ended: bool,
    /// The task's poll has answered `Again`.
    poll_again: bool,
    /// An `Again` without congestion was repeated in this call of `poll`.
    asked_twice: bool,
    sleep: Option<(i64, Pin<Box<Sleep>>)>,
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
        origin: Origin,
        ctx: Rc<TaskContext>,
        clock: Clock,
        metrics: Arc<TaskMetrics>,
    ) -> Self {
        Pump {
            task,
            origin,
            ctx,
            clock,
            metrics,
            pending: None,
            next_signal: None,
            ended: false,
            poll_again: false,
            asked_twice: false,
            sleep: None,
            waiting: None,
        }
    }

    /// Opens the task's operators.
    pub fn open(&mut self) -> Result<()> {
        self.ctx.set_now_ms(self.clock.now_ms());
        self.task.open()
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
            if now.duration_since(started) >= QUANTUM {
                cx.waker().wake_by_ref();
                break Progress::Waiting;
            }
        };
        self.metrics.busy_ns.fetch_add(started.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(progress)
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
        if self.ended {
            return Ok(self.finish(cx));
        }
        if woken || self.poll_again || self.task.next_deadline_ms() <= now_ms {
            self.poll_again = self.task.poll(now_ms, cx)? == Flow::Again;
            if self.poll_again {
                return self.wait_for_outputs(cx);
            }
        }
        if let Some(signal) = self.pending {
            if self.task.signal(signal)? == Flow::Again {
                return self.wait_for_outputs(cx);
            }
            self.pending = self.next_signal.take();
            self.ended = signal == Signal::EndOfInput;
            return Ok(Step::Worked);
        }
        if self.ctx.congestion.register(cx.waker()) {
            // An operator that takes no more may wait long: what it has given so far must not wait with it.
            if !self.ctx.congestion.is_congested() {
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
    fn finish(&mut self, cx: &mut Context<'_>) -> Step {
        self.ctx.congestion.watch(cx.waker());
        match self.ctx.congestion.is_congested() {
            true => Step::Wait(Wait::Backpressured),
            false => Step::Finished,
        }
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
        let read = self.task.read(cx)?;
        let Origin::Source(splits) = &mut self.origin else { return Ok(Step::Finished) };
        match read {
            Poll::Ready(Read::Batch) => Ok(Step::Worked),
            Poll::Ready(Read::NeedsSplit) if !splits.requested => {
                splits.requested = true;
                self.go_idle()?;
                // The next call waits for what is due; this one only asks.
                cx.waker().wake_by_ref();
                Ok(Step::NeedsSplit)
            }
            Poll::Ready(Read::Ended) if !splits.ended => {
                splits.ended = true;
                self.pending = Some(Signal::Watermark(MAX_WATERMARK));
                self.next_signal = Some(Signal::EndOfInput);
                Ok(Step::Worked)
            }
            Poll::Ready(_) | Poll::Pending => self.go_idle(),
        }
    }

    fn read_gate(&mut self, cx: &mut Context<'_>) -> Result<Step> {
        let Origin::Gate(gate) = &mut self.origin else { return Ok(Step::Finished) };
        match gate.poll_next(cx) {
            Poll::Ready(input) => {
                match input? {
                    Input::Batch(input, batch) => self.task.push(input, batch)?,
                    Input::Signal(signal) => {
                        if let Signal::Watermark(watermark) = signal {
                            self.metrics.input_watermark_ms.0.store(watermark, Ordering::Relaxed);
                        }
                        self.pending = Some(signal);
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
        let deadline_ms = self.task.next_deadline_ms();
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
