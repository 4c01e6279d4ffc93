//! A stream gathered in windows.

use std::ops::AddAssign;
use std::time::Duration;

use flott_schema::Error;

use super::keyed::KeyedStream;
use super::stream::DataStream;
use crate::batch::Record;
use crate::function::{Function, Prototype};
use crate::key::KeySelector;
use crate::operator::{Collector, OutputTag};
use crate::operators::reducers;
use crate::time::{AggregateFunction, millis};
use crate::window::fold::{Aggregating, Fold, Reducing};
use crate::window::function::Apply;
use crate::window::general::{ByWindow, GeneralWindows, Merging, Rules};
use crate::window::logic::{
    Buffered, Emit, EmitElements, Evicting, Folded, Incremental, Plain, Process, SlicedLogic, WindowLogic,
    With,
};
use crate::window::slicing::SlicingWindows;
use crate::window::{
    CountEvictor, CountTrigger, Elements, Evictor, GlobalWindows, LateRule, NoEvictor, ProcessWindowFunction,
    PurgingTrigger, Trigger, WindowAssigner,
};

/// Windows of so many records.
pub type CountWindows<T, S> = WindowedStream<T, S, GlobalWindows, Chosen<PurgingTrigger<CountTrigger>>>;

/// Windows of the last so many records.
pub type SlidingCountWindows<T, S> = WindowedStream<T, S, GlobalWindows, Chosen<CountTrigger>, CountEvictor>;

/// The key of streams that have none: all records have the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKey;

impl<T> KeySelector<T> for NoKey {
    type Key = ();
    type Found<'a>
        = ()
    where
        T: 'a;

    #[inline]
    fn key(&self, _record: &T) {}
}

/// The trigger is the one that the assigner brings along.
#[derive(Clone, Copy, Debug, Default)]
pub struct ByAssigner;

/// The trigger is one that the job has chosen.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<Tr>(Tr);

/// Where the trigger of windows comes from.
pub trait TriggerChoice<T, A: WindowAssigner<T>>: Function {
    /// The trigger.
    type Trigger: Trigger<T, A::Window>;
    /// Whether it is the one that the assigner brings along.
    const IS_DEFAULT: bool;
    /// The trigger for windows of `assigner`.
    fn choose(&self, assigner: &A) -> Self::Trigger;
}

impl<T, A: WindowAssigner<T>> TriggerChoice<T, A> for ByAssigner {
    type Trigger = A::Trigger;
    const IS_DEFAULT: bool = true;

    fn choose(&self, assigner: &A) -> A::Trigger {
        assigner.default_trigger()
    }
}

impl<T, A: WindowAssigner<T>, Tr: Trigger<T, A::Window>> TriggerChoice<T, A> for Chosen<Tr> {
    type Trigger = Tr;
    const IS_DEFAULT: bool = false;

    fn choose(&self, _assigner: &A) -> Tr {
        self.0.clone()
    }
}

/// Records of a key gathered in windows. Say when windows give results (`trigger`), which records count (`evictor`),
/// and how long to wait for late ones (`allowed_lateness`), then what the results are: the other methods.
///
/// Results carry the window's max timestamp.
pub struct WindowedStream<T, S, A, Tr = ByAssigner, Ev = NoEvictor> {
    stream: DataStream<T>,
    selector: S,
    /// Whether there is no key, and so one task only.
    all: bool,
    assigner: A,
    trigger: Tr,
    evictor: Ev,
    lateness_ms: i64,
    late_output: Option<OutputTag<T>>,
}

impl<T: Record, S: KeySelector<T>, A: WindowAssigner<T>> WindowedStream<T, S, A> {
    pub(super) fn keyed(keyed: &KeyedStream<T, S>, assigner: A) -> Self {
        Self::new(keyed.keyed(keyed.stream()), keyed.selector(), false, assigner)
    }

    fn new(stream: DataStream<T>, selector: S, all: bool, assigner: A) -> Self {
        if let Err(error) = assigner.check() {
            stream.env().add_error(error);
        }
        WindowedStream {
            stream,
            selector,
            all,
            assigner,
            trigger: ByAssigner,
            evictor: NoEvictor,
            lateness_ms: 0,
            late_output: None,
        }
    }
}

impl<T: Record, A: WindowAssigner<T>> WindowedStream<T, NoKey, A> {
    pub(super) fn all(stream: &DataStream<T>, assigner: A) -> Self {
        Self::new(stream.clone(), NoKey, true, assigner)
    }
}

impl<T, S, A, Tr, Ev> WindowedStream<T, S, A, Tr, Ev>
where
    T: Record,
    S: KeySelector<T>,
    A: WindowAssigner<T>,
    Tr: TriggerChoice<T, A>,
    Ev: Evictor<T, A::Window>,
{
    /// Has windows give results when `trigger` says so.
    pub fn trigger<Other: Trigger<T, A::Window>>(
        self,
        trigger: Other,
    ) -> WindowedStream<T, S, A, Chosen<Other>, Ev> {
        if A::MERGES && !trigger.can_merge() {
            self.stream.env().add_error(Error::graph(format!(
                "{} windows merge, and the trigger {} cannot be used with windows that merge",
                self.assigner.describe(),
                std::any::type_name::<Other>()
            )));
        }
        WindowedStream {
            trigger: Chosen(trigger),
            stream: self.stream,
            selector: self.selector,
            all: self.all,
            assigner: self.assigner,
            evictor: self.evictor,
            lateness_ms: self.lateness_ms,
            late_output: self.late_output,
        }
    }

    /// Has `evictor` remove records before or after the function sees them. All records are then kept until the
    /// window is dropped, also with `reduce` and `aggregate`.
    pub fn evictor<Other: Evictor<T, A::Window>>(self, evictor: Other) -> WindowedStream<T, S, A, Tr, Other> {
        WindowedStream {
            evictor,
            stream: self.stream,
            selector: self.selector,
            all: self.all,
            assigner: self.assigner,
            trigger: self.trigger,
            lateness_ms: self.lateness_ms,
            late_output: self.late_output,
        }
    }

    /// Keeps event-time windows this long behind their end, in event time: each record that comes within that time
    /// makes its windows give results again. Without it late records are dropped and counted.
    pub fn allowed_lateness(self, lateness: Duration) -> Self {
        WindowedStream { lateness_ms: millis(lateness), ..self }
    }

    /// Puts records that come too late for all of their windows into a side output of the resulting stream.
    pub fn side_output_late(self, tag: &OutputTag<T>) -> Self {
        WindowedStream { late_output: Some(tag.clone()), ..self }
    }

    /// Reduces the records of each window into one with `f(so_far, next)`, which must be associative; `next` is of no
    /// further use, so it may be taken apart or swapped with what there is so far.
    pub fn reduce<F: FnMut(&mut T, &mut T) + Function>(self, f: F) -> DataStream<T> {
        self.reduce_named("Reduce", f)
    }

    fn reduce_named<F: FnMut(&mut T, &mut T) + Function>(self, what: &str, f: F) -> DataStream<T> {
        let f = Prototype::new(f);
        self.fold(what, move || (Reducing(f.get()), Plain))
    }

    /// Like [`Self::reduce`], and `finish(key, window, reduced)` makes the result.
    pub fn reduce_with<O: Record, F: FnMut(&mut T, &mut T) + Function>(
        self,
        f: F,
        finish: impl FnMut(&S::Key, &A::Window, T) -> O + Function,
    ) -> DataStream<O> {
        let (f, finish) = (Prototype::new(f), Prototype::new(finish));
        self.fold("Reduce", move || (Reducing(f.get()), With(finish.get())))
    }

    /// Like [`Self::reduce`], and `function` gets what the records were reduced to.
    pub fn reduce_process<O: Record, F: FnMut(&mut T, &mut T) + Function>(
        self,
        f: F,
        function: impl ProcessWindowFunction<S::Key, T, O, A::Window>,
    ) -> DataStream<O> {
        let (f, function) = (Prototype::new(f), Prototype::new(function));
        self.fold("Reduce", move || (Reducing(f.get()), Process::<_, _, O, _>::new(function.get())))
    }

    /// Aggregates the records of each window.
    pub fn aggregate<F: AggregateFunction<In = T>>(self, function: F) -> DataStream<F::Out>
    where
        F::Out: Record,
    {
        let function = Prototype::new(function);
        self.fold("Aggregate", move || (Aggregating(function.get()), Plain))
    }

    /// Like [`Self::aggregate`], and `finish(key, window, aggregated)` makes the result.
    pub fn aggregate_with<O: Record, F: AggregateFunction<In = T>>(
        self,
        function: F,
        finish: impl FnMut(&S::Key, &A::Window, F::Out) -> O + Function,
    ) -> DataStream<O> {
        let (function, finish) = (Prototype::new(function), Prototype::new(finish));
        self.fold("Aggregate", move || (Aggregating(function.get()), With(finish.get())))
    }

    /// Like [`Self::aggregate`], and `then` gets what the records were aggregated to.
    pub fn aggregate_process<O: Record, F: AggregateFunction<In = T, Out: 'static>>(
        self,
        function: F,
        then: impl ProcessWindowFunction<S::Key, F::Out, O, A::Window>,
    ) -> DataStream<O> {
        let (function, then) = (Prototype::new(function), Prototype::new(then));
        self.fold("Aggregate", move || (Aggregating(function.get()), Process::<_, _, O, _>::new(then.get())))
    }

    /// Gives all records of each window to `function`.
    pub fn process<O: Record>(
        self,
        function: impl ProcessWindowFunction<S::Key, T, O, A::Window>,
    ) -> DataStream<O> {
        self.process_named("Process", function)
    }

    /// Gives all records of each window to `f(key, window, records, out)`.
    pub fn apply<O: Record>(
        self,
        f: impl FnMut(&S::Key, &A::Window, Elements<'_, T>, &mut Collector<O>) + Function,
    ) -> DataStream<O> {
        self.process_named("Apply", Apply(f))
    }

    pub(super) fn process_named<O: Record>(
        self,
        what: &str,
        function: impl ProcessWindowFunction<S::Key, T, O, A::Window>,
    ) -> DataStream<O> {
        let function = Prototype::new(function);
        self.elements(what, move || Process::<S::Key, A::Window, O, _>::new(function.get()))
    }

    /// Adds `field` up over the records of each window: `sum(|record| &mut record.amount)`. Other fields are those
    /// of the first record.
    pub fn sum<N: AddAssign + Copy>(self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_named("Sum", reducers::sum(field))
    }

    /// The smallest `field` over the records of each window; other fields are those of the first record.
    pub fn min<N: PartialOrd + Copy>(self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_named("Min", reducers::min(field))
    }

    /// The largest `field` over the records of each window; other fields are those of the first record.
    pub fn max<N: PartialOrd + Copy>(self, field: impl Fn(&mut T) -> &mut N + Function) -> DataStream<T> {
        self.reduce_named("Max", reducers::max(field))
    }

    /// The record with the smallest `value` of each window; of equal ones the first.
    pub fn min_by<N: PartialOrd>(self, value: impl Fn(&T) -> N + Function) -> DataStream<T> {
        self.reduce_named("MinBy", reducers::min_by(value))
    }

    /// The record with the largest `value` of each window; of equal ones the first.
    pub fn max_by<N: PartialOrd>(self, value: impl Fn(&T) -> N + Function) -> DataStream<T> {
        self.reduce_named("MaxBy", reducers::max_by(value))
    }

    fn fold<F, E>(
        self,
        what: &str,
        make: impl Fn() -> (F, E) + Send + Sync + 'static,
    ) -> DataStream<<E as Emit<S::Key, F::Result, A::Window>>::Out>
    where
        F: Fold<T>,
        E: Emit<S::Key, F::Result, A::Window>,
    {
        if Ev::EVICTS {
            let evictor = Prototype::new(self.evictor.clone());
            return self.general(what, move || {
                let (fold, emit) = make();
                Evicting { evictor: evictor.get(), emit: Folded { fold, emit } }
            });
        }
        self.sliced(what, move || {
            let (fold, emit) = make();
            Incremental { fold, emit }
        })
    }

    fn elements<E>(
        self,
        what: &str,
        make: impl Fn() -> E + Send + Sync + 'static,
    ) -> DataStream<<E as EmitElements<S::Key, T, A::Window>>::Out>
    where
        E: EmitElements<S::Key, T, A::Window>,
    {
        if Ev::EVICTS {
            let evictor = Prototype::new(self.evictor.clone());
            return self.general(what, move || Evicting { evictor: evictor.get(), emit: make() });
        }
        self.sliced(what, move || Buffered(make()))
    }

    /// By slices if the windows allow it.
    fn sliced<L>(
        self,
        what: &str,
        make: impl Fn() -> L + Send + Sync + 'static,
    ) -> DataStream<<L as WindowLogic<S::Key, T, A::Window>>::Out>
    where
        L: SlicedLogic<S::Key, T, A::Window>,
    {
        if A::SLICED
            && Tr::IS_DEFAULT
            && let Some(slices) = self.assigner.slices()
        {
            let (selector, domain) = (Prototype::new(self.selector.clone()), self.assigner.domain());
            let late = self.late_rule();
            return self.finished(what, |stream, name| {
                stream.transform(name, move |ctx| {
                    Ok(SlicingWindows::new(selector.get(), make(), slices, domain, late.clone(), ctx))
                })
            });
        }
        self.general(what, make)
    }

    fn general<L>(
        self,
        what: &str,
        make: impl Fn() -> L + Send + Sync + 'static,
    ) -> DataStream<<L as WindowLogic<S::Key, T, A::Window>>::Out>
    where
        L: WindowLogic<S::Key, T, A::Window>,
    {
        let (selector, late) = (Prototype::new(self.selector.clone()), self.late_rule());
        let trigger = Prototype::new(self.trigger.choose(&self.assigner));
        let assigner = Prototype::new(self.assigner.clone());
        let rules = move || Rules::new(assigner.get(), trigger.get(), make(), late.clone());
        self.finished(what, move |stream, name| {
            if A::MERGES {
                return stream.transform(name, move |ctx| {
                    Ok(GeneralWindows::new(selector.get(), rules(), Merging::default(), ctx))
                });
            }
            stream.transform(name, move |ctx| {
                Ok(GeneralWindows::new(selector.get(), rules(), ByWindow::default(), ctx))
            })
        })
    }

    fn late_rule(&self) -> LateRule<T> {
        LateRule { lateness_ms: self.lateness_ms, output: self.late_output.clone() }
    }

    fn finished<O: Record>(
        self,
        what: &str,
        add: impl FnOnce(&DataStream<T>, &str) -> DataStream<O>,
    ) -> DataStream<O> {
        let name = format!("{what} in {}", self.assigner.describe());
        let result = add(&self.stream, &name);
        if self.all { result.force_single() } else { result }
    }
}
