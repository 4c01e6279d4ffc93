//! What is done with a pair.

use std::marker::PhantomData;

use flott_schema::Result;

use crate::function::Function;
use crate::operator::{Collector, OutputTag};
use crate::operators::open::OpenContext;

/// Any number of records out for each pair, with side outputs (Flink's `ProcessJoinFunction`).
pub trait ProcessJoinFunction<L, R, O>: Function {
    /// Called once before the first pair.
    fn open(&mut self, _ctx: &mut OpenContext<'_>) -> Result<()> {
        Ok(())
    }

    /// Processes a pair.
    fn process(&mut self, left: &L, right: &R, ctx: &mut JoinContext<'_, O>) -> Result<()>;

    /// Called once at the end, also after a failure.
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One record out for each pair, by a closure.
pub struct JoinWith<O, F> {
    join: F,
    out: PhantomData<fn() -> O>,
}

impl<O, F> JoinWith<O, F> {
    /// Emits `join(left, right)`.
    pub fn new(join: F) -> Self {
        JoinWith { join, out: PhantomData }
    }
}

impl<O, F: Clone> Clone for JoinWith<O, F> {
    fn clone(&self) -> Self {
        JoinWith { join: self.join.clone(), out: PhantomData }
    }
}

impl<L, R, O: 'static, F: FnMut(&L, &R) -> O + Function> ProcessJoinFunction<L, R, O> for JoinWith<O, F> {
    #[inline]
    fn process(&mut self, left: &L, right: &R, ctx: &mut JoinContext<'_, O>) -> Result<()> {
        ctx.collect((self.join)(left, right));
        Ok(())
    }
}

/// What a function can do with a pair. The timestamp of results is the larger one of the pair.
pub struct JoinContext<'a, O> {
    out: &'a mut Collector<O>,
    left_ms: i64,
    right_ms: i64,
}

impl<'a, O: 'static> JoinContext<'a, O> {
    #[inline]
    pub(super) fn new(out: &'a mut Collector<O>, left_ms: i64, right_ms: i64) -> Self {
        out.set_timestamp(left_ms.max(right_ms));
        JoinContext { out, left_ms, right_ms }
    }

    /// Emits a record.
    #[inline]
    pub fn collect(&mut self, record: O) {
        self.out.collect(record);
    }

    /// Emits a record to a side output.
    pub fn side<S: 'static>(&mut self, tag: &OutputTag<S>, record: S) {
        self.out.side(tag, record);
    }

    /// The timestamp of results, epoch milliseconds.
    pub fn timestamp(&self) -> i64 {
        self.left_ms.max(self.right_ms)
    }

    /// The timestamp of the left record, epoch milliseconds.
    pub fn left_timestamp(&self) -> i64 {
        self.left_ms
    }

    /// The timestamp of the right record, epoch milliseconds.
    pub fn right_timestamp(&self) -> i64 {
        self.right_ms
    }
}
