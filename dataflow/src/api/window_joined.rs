//! Two streams joined or grouped by key and window.

use std::borrow::Borrow;
use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::keyed::KeyedStream;
use super::stream::DataStream;
use super::windowed::{ByAssigner, Chosen, TriggerChoice, WindowedStream};
use crate::batch::Record;
use crate::function::Function;
use crate::key::{ByRef, ByValue, Key, KeySelector};
use crate::operator::{Collector, OutputTag};
use crate::window::function::Apply;
use crate::window::{Elements, Evictor, NoEvictor, Trigger, WindowAssigner};

/// A record of one of two streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side<L, R> {
    /// Of the first stream.
    Left(L),
    /// Of the second stream.
    Right(R),
}

/// Finds the key of a record of either stream.
#[derive(Clone)]
pub struct SideSelector<SL, SR> {
    left: SL,
    right: SR,
}

/// A key as one of two selectors found it.
pub struct SideKey<K, L, R> {
    found: Side<L, R>,
    key: PhantomData<fn() -> K>,
}

impl<K, L: Borrow<K>, R: Borrow<K>> Borrow<K> for SideKey<K, L, R> {
    #[inline]
    fn borrow(&self) -> &K {
        match &self.found {
            Side::Left(key) => key.borrow(),
            Side::Right(key) => key.borrow(),
        }
    }
}

impl<L, R, SL, SR> KeySelector<Side<L, R>> for SideSelector<SL, SR>
where
    L: 'static,
    R: 'static,
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
{
    type Key = SL::Key;
    type Found<'a> = SideKey<SL::Key, SL::Found<'a>, SR::Found<'a>>;

    #[inline]
    fn key<'a>(&self, record: &'a Side<L, R>) -> Self::Found<'a> {
        let found = match record {
            Side::Left(record) => Side::Left(self.left.key(record)),
            Side::Right(record) => Side::Right(self.right.key(record)),
        };
        SideKey { found, key: PhantomData }
    }
}

/// Every pair of records of the two streams.
pub enum Join {}

/// All records of the two streams at once.
pub enum CoGroup {}

/// Two streams to be joined: say the key of the first with `where_key`.
pub type JoinedStreams<L, R> = Paired<L, R, Join>;

/// Two streams to be grouped: say the key of the first with `where_key`.
pub type CoGroupedStreams<L, R> = Paired<L, R, CoGroup>;

/// Two streams, before their keys are known. `M` is [`Join`] or [`CoGroup`].
pub struct Paired<L, R, M> {
    left: DataStream<L>,
    right: DataStream<R>,
    mode: PhantomData<M>,
}

impl<L: Record, R: Record, M> Paired<L, R, M> {
    pub(super) fn new(left: &DataStream<L>, right: &DataStream<R>) -> Self {
        Paired { left: left.clone(), right: right.clone(), mode: PhantomData }
    }

    /// The key of the first stream, computed from each record.
    pub fn where_key<K: Key, F: Fn(&L) -> K + Function>(self, key: F) -> WhereKey<L, R, ByValue<F, K>, M> {
        WhereKey { streams: self, left: ByValue::new(key) }
    }

    /// The key of the first stream, which each record holds.
    pub fn where_key_ref<K: Key, F: Fn(&L) -> &K + Function>(self, key: F) -> WhereKey<L, R, ByRef<F, K>, M> {
        WhereKey { streams: self, left: ByRef::new(key) }
    }
}

/// Two streams, and the key of the first: say that of the second with `equal_to`.
pub struct WhereKey<L, R, SL, M> {
    streams: Paired<L, R, M>,
    left: SL,
}

impl<L: Record, R: Record, SL: KeySelector<L>, M> WhereKey<L, R, SL, M> {
    /// The key of the second stream, computed from each record.
    pub fn equal_to<F: Fn(&R) -> SL::Key + Function>(
        self,
        key: F,
    ) -> EqualTo<L, R, SL, ByValue<F, SL::Key>, M> {
        self.on(ByValue::new(key))
    }

    /// The key of the second stream, which each record holds.
    pub fn equal_to_ref<F: Fn(&R) -> &SL::Key + Function>(
        self,
        key: F,
    ) -> EqualTo<L, R, SL, ByRef<F, SL::Key>, M> {
        self.on(ByRef::new(key))
    }

    fn on<SR: KeySelector<R, Key = SL::Key>>(self, right: SR) -> EqualTo<L, R, SL, SR, M> {
        let WhereKey { streams, left } = self;
        let both = streams.left.map(Side::Left).union(&[&streams.right.map(Side::Right)]);
        let keyed = KeyedStream::new(&both, SideSelector { left, right });
        EqualTo { keyed, mode: PhantomData }
    }
}

/// Two streams with their keys: say the windows with `window`.
pub struct EqualTo<L, R, SL, SR, M> {
    keyed: KeyedStream<Side<L, R>, SideSelector<SL, SR>>,
    mode: PhantomData<M>,
}

impl<L, R, SL, SR, M> EqualTo<L, R, SL, SR, M>
where
    L: Record,
    R: Record,
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
{
    /// Gathers the records of both streams in windows.
    pub fn window<A: WindowAssigner<Side<L, R>>>(self, assigner: A) -> PairedWindows<L, R, SL, SR, A, M> {
        PairedWindows { windows: self.keyed.window(assigner), mode: PhantomData }
    }
}

/// Two streams to be joined in windows.
pub type JoinedWindows<L, R, SL, SR, A> = PairedWindows<L, R, SL, SR, A, Join>;

/// Two streams to be grouped in windows.
pub type CoGroupedWindows<L, R, SL, SR, A> = PairedWindows<L, R, SL, SR, A, CoGroup>;

/// Two streams in windows: say with `apply` what the results are.
pub struct PairedWindows<L, R, SL, SR, A, M, Tr = ByAssigner, Ev = NoEvictor> {
    windows: WindowedStream<Side<L, R>, SideSelector<SL, SR>, A, Tr, Ev>,
    mode: PhantomData<M>,
}

impl<L, R, SL, SR, A, M, Tr, Ev> PairedWindows<L, R, SL, SR, A, M, Tr, Ev>
where
    L: Record,
    R: Record,
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    A: WindowAssigner<Side<L, R>>,
    Tr: TriggerChoice<Side<L, R>, A>,
    Ev: Evictor<Side<L, R>, A::Window>,
{
    /// See [`WindowedStream::trigger`].
    pub fn trigger<Other: Trigger<Side<L, R>, A::Window>>(
        self,
        trigger: Other,
    ) -> PairedWindows<L, R, SL, SR, A, M, Chosen<Other>, Ev> {
        PairedWindows { windows: self.windows.trigger(trigger), mode: PhantomData }
    }

    /// See [`WindowedStream::evictor`].
    pub fn evictor<Other: Evictor<Side<L, R>, A::Window>>(
        self,
        evictor: Other,
    ) -> PairedWindows<L, R, SL, SR, A, M, Tr, Other> {
        PairedWindows { windows: self.windows.evictor(evictor), mode: PhantomData }
    }

    /// See [`WindowedStream::allowed_lateness`].
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        PairedWindows { windows: self.windows.allowed_lateness(lateness), mode: PhantomData }
    }

    /// See [`WindowedStream::side_output_late`].
    pub fn side_output_late(self, tag: &OutputTag<Side<L, R>>) -> Self {
        PairedWindows { windows: self.windows.side_output_late(tag), mode: PhantomData }
    }

    /// Calls `f` with the records of each key and window.
    fn apply_sides<O: Record>(
        self,
        what: &str,
        mut f: impl FnMut(&[&L], &[&R], &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        let apply =
            move |_: &SL::Key, _: &A::Window, elements: Elements<'_, Side<L, R>>, out: &mut Collector<O>| {
                let (mut left, mut right) = (Vec::new(), Vec::new());
                for element in elements.iter() {
                    match element {
                        Side::Left(record) => left.push(record),
                        Side::Right(record) => right.push(record),
                    }
                }
                f(&left, &right, out);
            };
        self.windows.process_named(what, Apply(apply))
    }
}

impl<L, R, SL, SR, A, Tr, Ev> PairedWindows<L, R, SL, SR, A, Join, Tr, Ev>
where
    L: Record,
    R: Record,
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    A: WindowAssigner<Side<L, R>>,
    Tr: TriggerChoice<Side<L, R>, A>,
    Ev: Evictor<Side<L, R>, A::Window>,
{
    /// A result for each pair of records of a key and window (an inner join).
    pub fn apply<O: Record>(self, mut f: impl FnMut(&L, &R) -> O + Function) -> DataStream<O> {
        self.apply_flat(move |left, right, out| out.collect(f(left, right)))
    }

    /// Any number of results for each pair of records of a key and window.
    pub fn apply_flat<O: Record>(
        self,
        mut f: impl FnMut(&L, &R, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        self.apply_sides("Join", move |lefts, rights, out| {
            for left in lefts {
                for right in rights {
                    f(left, right, out);
                }
            }
        })
    }
}

impl<L, R, SL, SR, A, Tr, Ev> PairedWindows<L, R, SL, SR, A, CoGroup, Tr, Ev>
where
    L: Record,
    R: Record,
    SL: KeySelector<L>,
    SR: KeySelector<R, Key = SL::Key>,
    A: WindowAssigner<Side<L, R>>,
    Tr: TriggerChoice<Side<L, R>, A>,
    Ev: Evictor<Side<L, R>, A::Window>,
{
    /// Calls `f(left, right, out)` with all records of a key and window, of which one side may have none.
    pub fn apply<O: Record>(
        self,
        f: impl FnMut(&[&L], &[&R], &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        self.apply_sides("CoGroup", f)
    }
}
