//! Pairs of records of two keyed streams whose timestamps are close enough.

use super::connected::KeyedConnectedStreams;
use super::keyed::KeyedStream;
use super::stream::DataStream;
use crate::batch::Record;
use crate::function::{Function, Prototype};
use crate::key::KeySelector;
use crate::operator::OutputTag;
use crate::operators::interval_join::{Interval, IntervalJoin, JoinOptions, JoinWith, ProcessJoinFunction};

/// Two keyed streams to be joined; the bounds are still missing.
pub struct IntervalJoinStreams<L, SL, R, SR> {
    inputs: KeyedConnectedStreams<L, SL, R, SR>,
}

impl<L, SL, R, SR> IntervalJoinStreams<L, SL, R, SR>
where
    L: Record,
    SL: KeySelector<L>,
    R: Record,
    SR: KeySelector<R, Key = SL::Key>,
{
    /// Joins a left record with the right ones of its key whose timestamps lie between its own plus `lower_ms` and its
    /// own plus `upper_ms`. Bounds may be negative, and belong to the interval unless said otherwise.
    pub fn between(self, lower_ms: i64, upper_ms: i64) -> IntervalJoined<L, SL, R, SR> {
        IntervalJoined {
            inputs: self.inputs,
            lower_ms,
            upper_ms,
            exclusive: (false, false),
            late: (None, None),
        }
    }
}

/// Two keyed streams to be joined within bounds, in event time.
pub struct IntervalJoined<L, SL, R, SR> {
    inputs: KeyedConnectedStreams<L, SL, R, SR>,
    lower_ms: i64,
    upper_ms: i64,
    exclusive: (bool, bool),
    late: (Option<OutputTag<L>>, Option<OutputTag<R>>),
}

impl<L, SL, R, SR> IntervalJoined<L, SL, R, SR>
where
    L: Record,
    SL: KeySelector<L>,
    R: Record,
    SR: KeySelector<R, Key = SL::Key>,
{
    /// The lower bound does not belong to the interval.
    pub fn lower_bound_exclusive(mut self) -> Self {
        self.exclusive.0 = true;
        self
    }

    /// The upper bound does not belong to the interval.
    pub fn upper_bound_exclusive(mut self) -> Self {
        self.exclusive.1 = true;
        self
    }

    /// Late left records go to this side output of the join instead of being dropped and counted.
    pub fn side_output_left_late(mut self, tag: &OutputTag<L>) -> Self {
        self.late.0 = Some(tag.clone());
        self
    }

    /// Late right records go to this side output of the join instead of being dropped and counted.
    pub fn side_output_right_late(mut self, tag: &OutputTag<R>) -> Self {
        self.late.1 = Some(tag.clone());
        self
    }

    fn options(&self) -> JoinOptions<L, R> {
        let mut interval = Interval::new(self.lower_ms, self.upper_ms);
        if self.exclusive.0 {
            interval = interval.lower_exclusive();
        }
        if self.exclusive.1 {
            interval = interval.upper_exclusive();
        }
        let (left_late, right_late) = self.late.clone();
        JoinOptions { interval, left_late, right_late }
    }

    /// Any number of records out for each pair; their timestamp is the larger one of the pair.
    pub fn process<O: Record>(self, function: impl ProcessJoinFunction<L, R, O>) -> DataStream<O> {
        let (options, function) = (self.options(), Prototype::new(function));
        if let Err(error) = options.interval.check() {
            self.inputs.env().add_error(error);
        }
        self.inputs.transform_keyed("Interval Join", move |left, right, ctx| {
            Ok(IntervalJoin::new(left, right, options.clone(), function.get(), ctx))
        })
    }

    /// One record out for each pair; its timestamp is the larger one of the pair.
    pub fn join<O: Record>(self, f: impl FnMut(&L, &R) -> O + Function) -> DataStream<O> {
        self.process(JoinWith::new(f))
    }
}

impl<L: Record, SL: KeySelector<L>> KeyedStream<L, SL> {
    /// Joins this stream with another one that has the same type of key, by key and time:
    /// `orders.interval_join(&payments).between(0, 60_000).join(|order, payment| ..)`.
    pub fn interval_join<R, SR>(&self, other: &KeyedStream<R, SR>) -> IntervalJoinStreams<L, SL, R, SR>
    where
        R: Record,
        SR: KeySelector<R, Key = SL::Key>,
    {
        IntervalJoinStreams { inputs: KeyedConnectedStreams::new("interval_join", self, other) }
    }
}
