//! One function call for all records of a key.

use std::cell::Cell;

use flott_schema::Result;

use super::ending::{Ending, Pace, holds_input};
use super::groups::{Group, Groups};
use super::order::Comparator;
use super::records::{Reading, Records};
use super::results::{Results, Spool};
use crate::batch::{Batch, NO_TIMESTAMP, Record};
use crate::context::OperatorContext;
use crate::element::{Barrier, Signal};
use crate::key::KeySelector;
use crate::operator::{Collector, Operator};
use crate::stage::Flow;

/// Calls a function for each key with all its records, in the order that `C` gives.
pub struct ReduceGroup<S: KeySelector<T>, T, O, C, F> {
    function: F,
    groups: Groups<S, T, C>,
    reading: Reading<T>,
    spool: Spool<O>,
    ending: Ending,
}

impl<S, T, O, C, F> ReduceGroup<S, T, O, C, F>
where
    S: KeySelector<T>,
    T: Record,
    O: Record,
    C: Comparator<T>,
{
    /// Reduces with `function`; `within` orders the records of a key.
    pub fn new(selector: S, within: C, function: F, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes;
        ReduceGroup {
            function,
            groups: Groups::new(selector, within, ctx, limit_bytes / 4 * 3),
            reading: Reading::default(),
            spool: Spool::new(ctx, limit_bytes / 4),
            ending: Ending::default(),
        }
    }
}

impl<S, T, O, C, F> Operator for ReduceGroup<S, T, O, C, F>
where
    S: KeySelector<T>,
    T: Record,
    O: Record,
    C: Comparator<T>,
    F: FnMut(&S::Key, Records<'_, T>, &mut Results<'_, O>),
{
    type In = T;
    type Out = O;

    fn process(&mut self, batch: Batch<T>, _out: &mut Collector<O>) -> Result<()> {
        self.groups.push_batch(batch)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<O>) -> Result<Flow> {
        let ReduceGroup { function, groups, reading, spool, ending } = self;
        ending.signal(signal, out, |out, pace| {
            if groups.prepare(pace)? == Flow::Again {
                return Ok(Flow::Again);
            }
            loop {
                if spool.emit_full(out, pace)? == Flow::Again {
                    return Ok(Flow::Again);
                }
                let Some((hash, key)) = groups.head_key() else { break };
                let largest = Cell::new(NO_TIMESTAMP);
                let mut group = Group::new(groups, hash, &key);
                function(&key, reading.records(&mut group, &largest), &mut spool.results(&largest));
                reading.finish(&mut group)?;
                if pace.must_pause(1, out) {
                    return Ok(Flow::Again);
                }
            }
            spool.emit_all(out, pace)
        })
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}

/// Emits the first `n` records of each key in the order that `C` gives.
pub struct FirstOfSorted<S: KeySelector<T>, T, C> {
    n: usize,
    groups: Groups<S, T, C>,
    /// The key being emitted, and how many of its records are still wanted.
    current: Option<(u64, S::Key, usize)>,
    ending: Ending,
}

impl<S: KeySelector<T>, T: Record, C: Comparator<T>> FirstOfSorted<S, T, C> {
    /// The first `n` by `within`.
    pub fn new(selector: S, within: C, n: usize, ctx: &OperatorContext) -> Self {
        let limit_bytes = ctx.task.settings.operator_memory_bytes;
        let groups = Groups::new(selector, within, ctx, limit_bytes);
        FirstOfSorted { n, groups, current: None, ending: Ending::default() }
    }
}

/// Emits the first `n` records of each key of `groups`; `current` is where it stands.
pub(super) fn emit_first<S: KeySelector<T>, T: Record, C: Comparator<T>>(
    groups: &mut Groups<S, T, C>,
    current: &mut Option<(u64, S::Key, usize)>,
    n: usize,
    out: &mut Collector<T>,
    pace: &mut Pace,
) -> Result<Flow> {
    if groups.prepare(pace)? == Flow::Again {
        return Ok(Flow::Again);
    }
    loop {
        if let Some((hash, key, wanted)) = current {
            while let Some((record, timestamp)) = groups.take_of(*hash, key)? {
                if *wanted > 0 {
                    *wanted -= 1;
                    out.collect_at(record, timestamp);
                }
                if pace.must_pause(1, out) {
                    return Ok(Flow::Again);
                }
            }
        }
        match groups.head_key() {
            Some((hash, key)) => *current = Some((hash, key, n)),
            None => return Ok(Flow::Done),
        }
    }
}

impl<S: KeySelector<T>, T: Record, C: Comparator<T>> Operator for FirstOfSorted<S, T, C> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, _out: &mut Collector<T>) -> Result<()> {
        self.groups.push_batch(batch)
    }

    fn snapshot(&mut self, _barrier: &Barrier) -> Result<()> {
        Err(holds_input())
    }

    fn signal(&mut self, signal: Signal, out: &mut Collector<T>) -> Result<Flow> {
        let FirstOfSorted { n, groups, current, ending } = self;
        ending.signal(signal, out, |out, pace| emit_first(groups, current, *n, out, pace))
    }

    fn next_deadline_ms(&self) -> i64 {
        self.ending.next_deadline_ms()
    }
}
