//! The operator of the interval join.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::task::Context;

use flott_schema::{Error, Result};

use super::Interval;
use super::buffer::{Buffer, Buffers, Kept};
use super::function::{JoinContext, ProcessJoinFunction};
use crate::batch::{Batch, NO_TIMESTAMP, Record};
use crate::context::{OperatorContext, count};
use crate::element::{Barrier, MAX_WATERMARK, Signal};
use crate::key::{Key, KeySelector, hash_keys};
use crate::operator::{Collector, OutputTag};
use crate::operators::open::OpenContext;
use crate::stage::Flow;
use crate::state::{KeyedState, TimeDomain, ValueState};
use crate::two_input::TwoInputOperator;
use crate::window::clocks::{Progress, SavedClocks, save};

/// In front of the names of states and timers in snapshots; frozen.
const STATES: &str = "join/";

/// A step of clean-ups is this share of the time records are kept: they may stay so much longer.
const STEP_SHARE: i64 = 8;

/// What is joined, and where late records go.
pub struct JoinOptions<L, R> {
    /// The bounds.
    pub interval: Interval,
    /// Late records of the first input; dropped and counted if not given.
    pub left_late: Option<OutputTag<L>>,
    /// Late records of the second input; dropped and counted if not given.
    pub right_late: Option<OutputTag<R>>,
}

impl<L, R> Clone for JoinOptions<L, R> {
    fn clone(&self) -> Self {
        JoinOptions {
            interval: self.interval,
            left_late: self.left_late.clone(),
            right_late: self.right_late.clone(),
        }
    }
}

/// Joins the records of two inputs by key and interval, in event time.
///
/// A record waits in its key's buffer until the watermark says that no partner can come. The buffers of a key are
/// cleaned up whenever a record of the key comes, and by a timer if none comes: at most one a key and step, where a
/// step is a share of the time that records are kept. So a watermark costs nothing for keys that have nothing to clean
/// up, and a record rarely a timer.
pub struct IntervalJoin<SL: KeySelector<L>, SR, L, R, O, F> {
    left: Side<SL, L>,
    right: Side<SR, R>,
    waiting: Waiting<SL::Key, L, R>,
    function: F,
    out: PhantomData<fn() -> O>,
}

/// What one input needs.
struct Side<S, T> {
    selector: S,
    /// Where partners lie, seen from this side.
    interval: Interval,
    late: Option<OutputTag<T>>,
    /// For error messages.
    name: &'static str,
}

/// The records of both inputs that may still find a partner.
struct Waiting<K, L, R> {
    state: KeyedState<K>,
    buffers: ValueState<Buffers<L, R>>,
    ctx: OperatorContext,
    watermark_ms: i64,
    kept: Kept,
    hashes: Vec<u64>,
}

impl<SL: KeySelector<L>, SR, L, R, O, F> IntervalJoin<SL, SR, L, R, O, F> {
    /// An operator around `function`, with the key selectors of both inputs.
    pub fn new(left: SL, right: SR, options: JoinOptions<L, R>, function: F, ctx: &OperatorContext) -> Self {
        let JoinOptions { interval, left_late, right_late } = options;
        let left = Side { selector: left, interval, late: left_late, name: "first" };
        let mirrored = interval.mirrored();
        let right = Side { selector: right, interval: mirrored, late: right_late, name: "second" };
        let waiting = Waiting {
            state: KeyedState::default(),
            buffers: ValueState::default(),
            ctx: ctx.clone(),
            watermark_ms: i64::MIN,
            kept: Kept { left_ms: interval.kept_ms(), right_ms: mirrored.kept_ms() },
            hashes: Vec::new(),
        };
        IntervalJoin { left, right, waiting, function, out: PhantomData }
    }

    /// Keys and records held.
    #[cfg(test)]
    pub(super) fn held(&mut self) -> (usize, usize)
    where
        L: Record,
        R: Record,
    {
        let (keys, buffers) = (self.waiting.state.key_count(), self.waiting.buffers.clone());
        let mut records = 0;
        self.waiting.state.for_each_key(|_, store| {
            records += buffers.get(store).map_or(0, |buffers| buffers.left.len() + buffers.right.len());
        });
        (keys, records)
    }
}

impl<K: Key, L: Record, R: Record> Waiting<K, L, R> {
    fn register(&mut self) -> Result<()> {
        self.buffers = ValueState::register(self.state.store(), "buffers", None)?;
        Ok(())
    }

    /// Registers the state, and gets back what was restored.
    fn open(&mut self) -> Result<()> {
        self.state.attach(&self.ctx, STATES)?;
        self.register()?;
        self.watermark_ms = SavedClocks::load(&self.ctx)?.least().watermark_ms;
        self.state.restore()
    }

    /// A barrier.
    fn freeze(&mut self) -> Result<()> {
        save(&self.ctx, Progress { watermark_ms: self.watermark_ms, ..Progress::NONE })?;
        self.state.freeze();
        Ok(())
    }

    /// Joins a batch of one side with what waits on the other, and has it wait. `sides` gives the buffer of this side
    /// and that of the partners; `pair` gets the record, its timestamp, the partner and its timestamp.
    fn join<S, T, P, O>(
        &mut self,
        side: &Side<S, T>,
        batch: Batch<T>,
        sides: impl Fn(&mut Buffers<L, R>) -> (&mut Buffer<T>, &Buffer<P>),
        out: &mut Collector<O>,
        mut pair: impl FnMut(&T, i64, &P, i64, &mut Collector<O>) -> Result<()>,
    ) -> Result<()>
    where
        S: KeySelector<T, Key = K>,
        T: 'static,
        O: 'static,
    {
        let (watermark_ms, kept, kept_ms) = (self.watermark_ms, self.kept, side.interval.kept_ms());
        hash_keys(&side.selector, &batch.records, &mut self.hashes);
        for (index, (record, timestamp)) in batch.into_iter().enumerate() {
            self.state.prefetch_ahead(&self.hashes, index);
            if timestamp == NO_TIMESTAMP {
                return Err(self.without_timestamp(side.name));
            }
            if timestamp < watermark_ms {
                match &side.late {
                    Some(tag) => out.side_at(tag, record, timestamp),
                    None => count(&self.ctx.metrics.late_records_dropped, 1),
                }
                continue;
            }
            let slot = self.state.enter(self.hashes[index], side.selector.key(&record).borrow());
            let mut cleanup_ms = None;
            self.buffers.update(self.state.store(), |buffers| {
                buffers.expire_overdue(kept, watermark_ms);
                let (own, partners) = sides(buffers);
                let first = timestamp.saturating_add(side.interval.lower_ms);
                let last = timestamp.saturating_add(side.interval.upper_ms);
                partners.range(first, last).try_for_each(|(partner_ms, partner)| {
                    pair(&record, timestamp, partner, partner_ms, out)
                })?;
                own.insert(timestamp, record);
                let due_ms = next_step(timestamp.saturating_add(kept_ms), kept_ms);
                if due_ms < buffers.cleanup_ms {
                    buffers.cleanup_ms = due_ms;
                    cleanup_ms = Some(due_ms);
                }
                Ok::<(), Error>(())
            })?;
            if let Some(due_ms) = cleanup_ms {
                self.state.register_timer(TimeDomain::Event, due_ms, slot);
            }
            self.state.leave(slot);
        }
        self.state.end();
        self.state.drain_some(self.hashes.len());
        Ok(())
    }

    fn without_timestamp(&self, side: &str) -> Error {
        Error::user(format!(
            "operator '{}' joins by event time, but a record of its {side} input has no timestamp; call \
             assign_timestamps_and_watermarks() on that stream",
            self.ctx.name
        ))
    }

    /// Moves the watermark, and cleans up the keys whose time has come.
    fn advance(&mut self, watermark_ms: i64) -> Result<()> {
        if watermark_ms <= self.watermark_ms {
            return Ok(());
        }
        self.watermark_ms = watermark_ms;
        if watermark_ms == MAX_WATERMARK && self.ctx.state.is_none() {
            // Nothing can come that is not late: everything goes at once.
            self.state = KeyedState::default();
            return self.register();
        }
        let kept = self.kept;
        while let Some((_, slot)) = self.state.pop_timer(TimeDomain::Event, watermark_ms)? {
            let next = self.buffers.update(self.state.store(), |buffers| {
                buffers.expire(kept, watermark_ms);
                let left = buffers.left.next_expiry_ms(kept.left_ms).map(|ms| next_step(ms, kept.left_ms));
                let right =
                    buffers.right.next_expiry_ms(kept.right_ms).map(|ms| next_step(ms, kept.right_ms));
                let next = left.into_iter().chain(right).min();
                buffers.cleanup_ms = next.unwrap_or(i64::MAX);
                next
            });
            match next {
                // It may be registered already.
                Some(due_ms) => self.state.register_timer(TimeDomain::Event, due_ms, slot),
                None => self.buffers.clear(self.state.store()),
            }
            self.state.leave(slot);
        }
        self.state.end();
        Ok(())
    }
}

/// The end of the step that `expires_ms` lies in, for records kept for `kept_ms`.
fn next_step(expires_ms: i64, kept_ms: i64) -> i64 {
    let step_ms = (kept_ms / STEP_SHARE).max(1);
    let behind = expires_ms.rem_euclid(step_ms);
    if behind == 0 { expires_ms } else { expires_ms.saturating_add(step_ms - behind) }
}

impl<SL, SR, L, R, O, F> TwoInputOperator for IntervalJoin<SL, SR, L, R, O, F>
where
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    L: Record,
    R: Record,
    O: 'static,
    F: ProcessJoinFunction<L, R, O>,
{
    type Left = L;
    type Right = R;
    type Out = O;

    fn open(&mut self, ctx: &OperatorContext) -> Result<()> {
        self.waiting.open()?;
        self.function.open(&mut OpenContext::plain(ctx))
    }

    fn process_left(&mut self, batch: Batch<L>, out: &mut Collector<O>) -> Result<()> {
        self.waiting.join(
            &self.left,
            batch,
            Buffers::seen_from_left,
            out,
            |left, left_ms, right, right_ms, out| {
                self.function.process(left, right, &mut JoinContext::new(out, left_ms, right_ms))
            },
        )
    }

    fn process_right(&mut self, batch: Batch<R>, out: &mut Collector<O>) -> Result<()> {
        self.waiting.join(
            &self.right,
            batch,
            Buffers::seen_from_right,
            out,
            |right, right_ms, left, left_ms, out| {
                self.function.process(left, right, &mut JoinContext::new(out, left_ms, right_ms))
            },
        )
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        match signal {
            Signal::Watermark(watermark) => self.waiting.advance(watermark)?,
            // Nobody polls a task that has ended.
            Signal::EndOfInput => drop(self.waiting.state.drain(usize::MAX)),
            _ => {}
        }
        out.signal(signal)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        self.waiting.freeze()
    }

    fn poll(&mut self, _now_ms: i64, _cx: &mut Context<'_>, _out: &mut Collector<O>) -> Result<Flow> {
        self.waiting.state.drain_some(0);
        Ok(Flow::Done)
    }

    fn next_deadline_ms(&self) -> i64 {
        if self.waiting.state.is_draining() { i64::MIN } else { i64::MAX }
    }

    fn close(&mut self) -> Result<()> {
        self.function.close()
    }
}
