//! Factories of operators for the graph.

use std::marker::PhantomData;

use flott_schema::{Error, Result};

use crate::batch::{Batch, BatchDecoder, Record, decoder_of};
use crate::context::OperatorContext;
use crate::function::Prototype;
use crate::operator::{Operator, OperatorStage};
use crate::operators::commits;
use crate::operators::sink::{MakeWriter, SinkStage};
use crate::program::{Built, NodeFactory, NodeOutputs};
use crate::sink::Sink;
use crate::source::{self, Boundedness, EnumeratorBox, ErasedEnumerator, Source, SourceTask};
use crate::stage::StageBox;
use crate::task::{OneInputTask, Task};
use crate::two_input::{TwoInputOperator, TwoInputTask};

/// Makes one-input operators with `make`.
pub struct OperatorFactory<I, O, F> {
    make: F,
    records: PhantomData<fn(I) -> O>,
}

impl<I, O, F> OperatorFactory<I, O, F> {
    /// A factory.
    pub fn new(make: F) -> Self {
        OperatorFactory { make, records: PhantomData }
    }
}

impl<I, O, Op, F> NodeFactory for OperatorFactory<I, O, F>
where
    I: Record,
    O: Record,
    Op: Operator<In = I, Out = O> + 'static,
    F: Fn(&OperatorContext) -> Result<Op> + Send + Sync,
{
    fn build(&self, ctx: &OperatorContext, outputs: NodeOutputs) -> Result<Built> {
        let stage = OperatorStage::new((self.make)(ctx)?, outputs.collector::<O>(ctx)?);
        Ok(Built::Stage(StageBox::new::<Batch<I>>(Box::new(stage))))
    }

    fn head(&self, stage: StageBox) -> Result<Box<dyn Task>> {
        Ok(Box::new(OneInputTask::<Batch<I>>::new(stage.typed()?)))
    }

    fn decoder(&self, _input: u16) -> BatchDecoder {
        decoder_of::<Batch<I>>()
    }
}

/// Makes the tasks of a source.
pub struct SourceFactory<S>(Prototype<S>);

impl<S: Source> SourceFactory<S> {
    /// A factory.
    pub fn new(source: S) -> Self {
        SourceFactory(Prototype::new(source))
    }
}

impl<S: Source> NodeFactory for SourceFactory<S> {
    fn build(&self, ctx: &OperatorContext, outputs: NodeOutputs) -> Result<Built> {
        let reader = self.0.get().reader(ctx)?;
        Ok(Built::Task(Box::new(SourceTask::new(reader, outputs.next()?, ctx.clone()))))
    }

    fn head(&self, _stage: StageBox) -> Result<Box<dyn Task>> {
        Err(Error::internal("a source is a task, not a stage"))
    }

    fn decoder(&self, _input: u16) -> BatchDecoder {
        |_| Err(Error::internal("a source has no input"))
    }

    fn declare(&self, ctx: &OperatorContext) -> Result<()> {
        source::declare::<S::Split>(ctx)
    }

    fn boundedness(&self) -> Option<Boundedness> {
        Some(self.0.get().boundedness())
    }

    fn enumerator(&self, parallelism: u32) -> Result<Box<dyn ErasedEnumerator>> {
        Ok(Box::new(EnumeratorBox(self.0.get().enumerator(parallelism)?)))
    }

    fn check(&self) -> Result<()> {
        self.0.get().check()
    }
}

/// Makes the writers and committers of a sink.
pub struct SinkFactory<T, S> {
    sink: Prototype<S>,
    record: PhantomData<fn(T)>,
}

impl<T: Record, S: Sink<T>> SinkFactory<T, S> {
    /// A factory.
    pub fn new(sink: S) -> Self {
        SinkFactory { sink: Prototype::new(sink), record: PhantomData }
    }
}

impl<T: Record, S: Sink<T>> NodeFactory for SinkFactory<T, S> {
    fn build(&self, ctx: &OperatorContext, outputs: NodeOutputs) -> Result<Built> {
        let sink = self.sink.get();
        let committer = sink.committer(ctx)?;
        let is_global = sink.global_committer().is_some();
        let make_writer: MakeWriter<S::Writer> = Box::new(move |ctx, restored| match restored.is_empty() {
            true => sink.writer(ctx),
            false => sink.restore_writer(ctx, restored),
        });
        let mut stage = SinkStage::new(make_writer, committer, ctx.clone());
        if is_global {
            stage = stage.with_global_committer(outputs.next()?);
        }
        Ok(Built::Stage(StageBox::new::<Batch<T>>(Box::new(stage))))
    }

    fn head(&self, stage: StageBox) -> Result<Box<dyn Task>> {
        Ok(Box::new(OneInputTask::<Batch<T>>::new(stage.typed()?)))
    }

    fn decoder(&self, _input: u16) -> BatchDecoder {
        decoder_of::<Batch<T>>()
    }

    fn declare(&self, ctx: &OperatorContext) -> Result<()> {
        commits::declare::<S::Committable>(ctx)
    }

    fn check(&self) -> Result<()> {
        self.sink.get().check()
    }
}

/// Makes two-input operators with `make`.
pub struct TwoInputFactory<Op, F> {
    make: F,
    operator: PhantomData<fn() -> Op>,
}

impl<Op, F> TwoInputFactory<Op, F> {
    /// A factory.
    pub fn new(make: F) -> Self {
        TwoInputFactory { make, operator: PhantomData }
    }
}

impl<Op, F> NodeFactory for TwoInputFactory<Op, F>
where
    Op: TwoInputOperator + 'static,
    Op::Left: Record,
    Op::Right: Record,
    Op::Out: Record,
    F: Fn(&OperatorContext) -> Result<Op> + Send + Sync,
{
    fn build(&self, ctx: &OperatorContext, outputs: NodeOutputs) -> Result<Built> {
        let task = TwoInputTask::new((self.make)(ctx)?, outputs.collector::<Op::Out>(ctx)?);
        Ok(Built::Task(Box::new(task)))
    }

    fn head(&self, _stage: StageBox) -> Result<Box<dyn Task>> {
        Err(Error::internal("a two-input operator is a task, not a stage"))
    }

    fn decoder(&self, input: u16) -> BatchDecoder {
        if input == 0 { decoder_of::<Batch<Op::Left>>() } else { decoder_of::<Batch<Op::Right>>() }
    }
}
