//! What happens with the results of windows.

use std::marker::PhantomData;

use flott_schema::Result;

use crate::batch::Record;
use crate::context::OperatorContext;
use crate::key::Key;
use crate::operator::Collector;
use crate::window::function::{Firing, FunctionStates, ProcessWindowFunction, Runner};
use crate::window::trigger::Clocks;
use crate::window::{Elements, Window};

/// What happens with one value, the result of an aggregation.
pub(crate) trait Emit<K, R, W>: 'static {
    type Out: Record;

    /// The states of a function, if there is one.
    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        None
    }
    fn open(&mut self, _ctx: &OperatorContext, _merges: bool) -> Result<()> {
        Ok(())
    }
    fn emit(&mut self, firing: Firing<'_, K, W>, result: R, out: &mut Collector<Self::Out>) -> Result<()>;
    fn expire(&mut self, _until_ms: i64, _clocks: Clocks) -> Result<()> {
        Ok(())
    }
    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Emits results as they are.
pub(crate) struct Plain;

impl<K, R: Record, W> Emit<K, R, W> for Plain {
    type Out = R;

    #[inline]
    fn emit(&mut self, _firing: Firing<'_, K, W>, result: R, out: &mut Collector<R>) -> Result<()> {
        out.collect(result);
        Ok(())
    }
}

/// Emits what a closure `(key, window, result)` makes of results.
pub(crate) struct With<F>(pub(crate) F);

impl<K, R, W, O: Record, F: FnMut(&K, &W, R) -> O + 'static> Emit<K, R, W> for With<F> {
    type Out = O;

    #[inline]
    fn emit(&mut self, firing: Firing<'_, K, W>, result: R, out: &mut Collector<O>) -> Result<()> {
        out.collect((self.0)(firing.key(), firing.window(), result));
        Ok(())
    }
}

/// Gives results to a process function. `O` is what that emits.
pub(crate) struct Process<K, W, O, F> {
    runner: Runner<K, W, F>,
    out: PhantomData<fn() -> O>,
}

impl<K: Key, W: Window, O, F> Process<K, W, O, F> {
    pub(crate) fn new(function: F) -> Self {
        Process { runner: Runner::new(function), out: PhantomData }
    }
}

impl<K, R, W, O, F> Emit<K, R, W> for Process<K, W, O, F>
where
    K: Key,
    R: 'static,
    W: Window,
    O: Record,
    F: ProcessWindowFunction<K, R, O, W>,
{
    type Out = O;

    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        Some(self.runner.states())
    }

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()> {
        self.runner.open::<R, O>(ctx, merges)
    }

    fn emit(&mut self, firing: Firing<'_, K, W>, result: R, out: &mut Collector<O>) -> Result<()> {
        self.runner.process(firing, Elements::one(result), out)
    }

    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()> {
        self.runner.expire::<R, O>(until_ms, clocks)
    }

    fn close(&mut self) -> Result<()> {
        self.runner.close::<R, O>()
    }
}

/// What happens with the records of a window.
pub(crate) trait EmitElements<K, T, W>: 'static {
    type Out: Record;

    /// The states of a function, if there is one.
    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        None
    }
    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()>;
    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        elements: Elements<'_, T>,
        out: &mut Collector<Self::Out>,
    ) -> Result<()>;
    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()>;
    fn close(&mut self) -> Result<()>;
}

impl<K, T, W, O, F> EmitElements<K, T, W> for Process<K, W, O, F>
where
    K: Key,
    T: 'static,
    W: Window,
    O: Record,
    F: ProcessWindowFunction<K, T, O, W>,
{
    type Out = O;

    fn states(&mut self) -> Option<&mut dyn FunctionStates> {
        Some(self.runner.states())
    }

    fn open(&mut self, ctx: &OperatorContext, merges: bool) -> Result<()> {
        self.runner.open::<T, O>(ctx, merges)
    }

    fn emit(
        &mut self,
        firing: Firing<'_, K, W>,
        elements: Elements<'_, T>,
        out: &mut Collector<O>,
    ) -> Result<()> {
        self.runner.process(firing, elements, out)
    }

    fn expire(&mut self, until_ms: i64, clocks: Clocks) -> Result<()> {
        self.runner.expire::<T, O>(until_ms, clocks)
    }

    fn close(&mut self) -> Result<()> {
        self.runner.close::<T, O>()
    }
}
