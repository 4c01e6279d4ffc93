//! The DataSet vocabulary on two streams: joins, co-groups and cross products of bounded streams, at their end.

use std::marker::PhantomData;

use super::connected::TwoInputs;
use super::keyed::KeyedStream;
use super::stream::DataStream;
use crate::batch::Record;
use crate::function::{Function, Prototype};
use crate::key::KeySelector;
use crate::operator::Collector;
use crate::operators::bounded::co_group::CoGroup;
use crate::operators::bounded::cross::Cross;
use crate::operators::bounded::join::{Join, Unmatched};
use crate::operators::bounded::records::Records;
use crate::operators::bounded::results::Results;

impl<T: Record> DataStream<T> {
    /// `f` of each record with each record of `other`, at the end. `other` is sent to every task, so it should be the
    /// smaller one.
    pub fn cross<R: Record, O: Record>(
        &self,
        other: &DataStream<R>,
        f: impl FnMut(&T, &R) -> O + Function,
    ) -> DataStream<O> {
        let f = Prototype::new(f);
        TwoInputs::new("Cross", self, &other.broadcast()).transform("Cross", move |ctx| {
            let mut f = f.get();
            let pair = move |left: &T, right: &R, out: &mut Collector<O>| out.collect(f(left, right));
            Ok(Cross::<T, R, O, _>::new(pair, ctx))
        })
    }
}

impl<T: Record, S: KeySelector<T>> KeyedStream<T, S> {
    fn joined<R, SR, K>(&self, right: &KeyedStream<R, SR>) -> JoinedByKey<T, R, S, SR, K>
    where
        R: Record,
        SR: KeySelector<R, Key = S::Key>,
    {
        JoinedByKey {
            left: self.keyed(self.stream()),
            right: right.keyed(right.stream()),
            selectors: (self.selector(), right.selector()),
            kind: PhantomData,
        }
    }

    /// Pairs of records of the same key, at the end: `left.join(&right).with(|left, right| ..)`.
    pub fn join<R: Record, SR: KeySelector<R, Key = S::Key>>(
        &self,
        right: &KeyedStream<R, SR>,
    ) -> JoinedByKey<T, R, S, SR, Inner> {
        self.joined(right)
    }

    /// Like [`Self::join`], and left records without a partner: `.with(|left, right: Option<_>| ..)`.
    pub fn left_outer_join<R: Record, SR: KeySelector<R, Key = S::Key>>(
        &self,
        right: &KeyedStream<R, SR>,
    ) -> JoinedByKey<T, R, S, SR, LeftOuter> {
        self.joined(right)
    }

    /// Like [`Self::join`], and right records without a partner: `.with(|left: Option<_>, right| ..)`.
    pub fn right_outer_join<R: Record, SR: KeySelector<R, Key = S::Key>>(
        &self,
        right: &KeyedStream<R, SR>,
    ) -> JoinedByKey<T, R, S, SR, RightOuter> {
        self.joined(right)
    }

    /// Like [`Self::join`], and all records without a partner: `.with(|left: Option<_>, right: Option<_>| ..)`.
    pub fn full_outer_join<R: Record, SR: KeySelector<R, Key = S::Key>>(
        &self,
        right: &KeyedStream<R, SR>,
    ) -> JoinedByKey<T, R, S, SR, FullOuter> {
        self.joined(right)
    }

    /// Calls `f` once for each key that one of the streams has, at the end, with all records of both in order of
    /// arrival: `|key, lefts, rights, out| ..`.
    pub fn co_group<R: Record, SR: KeySelector<R, Key = S::Key>, O: Record>(
        &self,
        right: &KeyedStream<R, SR>,
        f: impl FnMut(&S::Key, Records<'_, T>, Records<'_, R>, &mut Results<'_, O>) + Function,
    ) -> DataStream<O> {
        let selectors = Prototype::new((self.selector(), right.selector()));
        let f = Prototype::new(f);
        let (left, right) = (self.keyed(self.stream()), right.keyed(right.stream()));
        TwoInputs::new("CoGroup", &left, &right).transform("CoGroup", move |ctx| {
            let (left, right) = selectors.get();
            Ok(CoGroup::<S, SR, T, R, O, _>::new(left, right, f.get(), ctx))
        })
    }
}

/// Which records a join emits, and how its function gets them.
pub trait JoinKind: 'static {
    /// A left record: a reference, or an option of one if it may be missing.
    type Left<'a, L: 'a>;
    /// A right record.
    type Right<'a, R: 'a>;
    /// The operator's name.
    const NAME: &'static str;
    /// Which records without a partner are emitted.
    const UNMATCHED: Unmatched;
    /// What the function gets; `None` if it is not called.
    fn sides<'a, L, R>(
        left: Option<&'a L>,
        right: Option<&'a R>,
    ) -> Option<(Self::Left<'a, L>, Self::Right<'a, R>)>;
}

/// Pairs only.
pub struct Inner;

impl JoinKind for Inner {
    type Left<'a, L: 'a> = &'a L;
    type Right<'a, R: 'a> = &'a R;
    const NAME: &'static str = "Join";
    const UNMATCHED: Unmatched = Unmatched { left: false, right: false };

    #[inline]
    fn sides<'a, L, R>(left: Option<&'a L>, right: Option<&'a R>) -> Option<(&'a L, &'a R)> {
        left.zip(right)
    }
}

/// Pairs, and left records without a partner.
pub struct LeftOuter;

impl JoinKind for LeftOuter {
    type Left<'a, L: 'a> = &'a L;
    type Right<'a, R: 'a> = Option<&'a R>;
    const NAME: &'static str = "Left Outer Join";
    const UNMATCHED: Unmatched = Unmatched { left: true, right: false };

    #[inline]
    fn sides<'a, L, R>(left: Option<&'a L>, right: Option<&'a R>) -> Option<(&'a L, Option<&'a R>)> {
        left.map(|left| (left, right))
    }
}

/// Pairs, and right records without a partner.
pub struct RightOuter;

impl JoinKind for RightOuter {
    type Left<'a, L: 'a> = Option<&'a L>;
    type Right<'a, R: 'a> = &'a R;
    const NAME: &'static str = "Right Outer Join";
    const UNMATCHED: Unmatched = Unmatched { left: false, right: true };

    #[inline]
    fn sides<'a, L, R>(left: Option<&'a L>, right: Option<&'a R>) -> Option<(Option<&'a L>, &'a R)> {
        right.map(|right| (left, right))
    }
}

/// Pairs, and all records without a partner.
pub struct FullOuter;

impl JoinKind for FullOuter {
    type Left<'a, L: 'a> = Option<&'a L>;
    type Right<'a, R: 'a> = Option<&'a R>;
    const NAME: &'static str = "Full Outer Join";
    const UNMATCHED: Unmatched = Unmatched { left: true, right: true };

    #[inline]
    fn sides<'a, L, R>(left: Option<&'a L>, right: Option<&'a R>) -> Option<(Option<&'a L>, Option<&'a R>)> {
        Some((left, right))
    }
}

/// Two keyed streams about to be joined; what is left to say is what to do with each pair.
pub struct JoinedByKey<L, R, SL, SR, Kind> {
    left: DataStream<L>,
    right: DataStream<R>,
    selectors: (SL, SR),
    kind: PhantomData<Kind>,
}

impl<L, R, SL, SR, Kind> JoinedByKey<L, R, SL, SR, Kind>
where
    L: Record,
    R: Record,
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    Kind: JoinKind,
{
    /// One result for each pair.
    pub fn with<O: Record>(
        &self,
        mut f: impl for<'a> FnMut(Kind::Left<'a, L>, Kind::Right<'a, R>) -> O + Function,
    ) -> DataStream<O> {
        self.each(move |left: Option<&L>, right: Option<&R>, out: &mut Collector<O>| {
            if let Some((left, right)) = Kind::sides(left, right) {
                out.collect(f(left, right));
            }
        })
    }

    /// Any number of results for each pair: `|left, right, out| out.collect(..)`.
    pub fn with_flat<O: Record>(
        &self,
        mut f: impl for<'a> FnMut(Kind::Left<'a, L>, Kind::Right<'a, R>, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        self.each(move |left: Option<&L>, right: Option<&R>, out: &mut Collector<O>| {
            if let Some((left, right)) = Kind::sides(left, right) {
                f(left, right, out);
            }
        })
    }

    fn each<O: Record>(
        &self,
        f: impl FnMut(Option<&L>, Option<&R>, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        let (selectors, f) = (Prototype::new(self.selectors.clone()), Prototype::new(f));
        TwoInputs::new(Kind::NAME, &self.left, &self.right).transform(Kind::NAME, move |ctx| {
            let (left, right) = selectors.get();
            Ok(Join::<SL, SR, L, R, O, _>::new(left, right, Kind::UNMATCHED, f.get(), ctx))
        })
    }
}
