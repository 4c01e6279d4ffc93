//! A sink that folds what arrives into the state that all engines share.

use std::marker::PhantomData;

use flott::dataflow::batch::{Batch, Record};
use flott::dataflow::context::OperatorContext;
use flott::dataflow::sink::{NothingToCommit, Sink, SinkWriter};

pub struct FoldSink<S, T, F> {
    state: S,
    fold: F,
    record: PhantomData<fn(T)>,
}

impl<S, T, F: Fn(&mut S, &T)> FoldSink<S, T, F> {
    pub fn new(state: S, fold: F) -> Self {
        FoldSink { state, fold, record: PhantomData }
    }
}

impl<S: Clone, T, F: Clone> Clone for FoldSink<S, T, F> {
    fn clone(&self) -> Self {
        FoldSink { state: self.state.clone(), fold: self.fold.clone(), record: PhantomData }
    }
}

impl<S, T, F> Sink<T> for FoldSink<S, T, F>
where
    S: Clone + Send + 'static,
    T: Record,
    F: Fn(&mut S, &T) + Clone + Send + 'static,
{
    type Committable = ();
    type Writer = Self;
    type Committer = NothingToCommit;

    fn writer(&self, _ctx: &OperatorContext) -> flott::Result<Self> {
        Ok(self.clone())
    }

    fn committer(&self, _ctx: &OperatorContext) -> flott::Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

impl<S: 'static, T: 'static, F: Fn(&mut S, &T) + 'static> SinkWriter<T> for FoldSink<S, T, F> {
    type Committable = ();

    fn write(&mut self, batch: Batch<T>) -> flott::Result<()> {
        batch.records.iter().for_each(|record| (self.fold)(&mut self.state, record));
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> flott::Result<Vec<()>> {
        Ok(Vec::new())
    }
}
