//! Map, filter, flat map: whole batches through one closure.

use std::marker::PhantomData;

use flott_schema::Result;

use crate::batch::{Batch, Timestamps};
use crate::operator::{Collector, Operator};

/// One record in, one out.
pub struct Map<I, O, F>(F, PhantomData<fn(I) -> O>);

impl<I, O, F> Map<I, O, F> {
    /// Maps with `f`.
    pub fn new(f: F) -> Self {
        Map(f, PhantomData)
    }
}

impl<I: 'static, O: 'static, F: FnMut(I) -> O> Operator for Map<I, O, F> {
    type In = I;
    type Out = O;

    fn process(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        let Batch { records, timestamps } = batch;
        // Reuses the vector where input and output have the same layout.
        let records = records.into_iter().map(&mut self.0).collect();
        out.push_batch(Batch { records, timestamps })
    }
}

/// One record in, one out, or an error.
pub struct TryMap<I, O, F>(F, PhantomData<fn(I) -> O>);

impl<I, O, F> TryMap<I, O, F> {
    /// Maps with `f`.
    pub fn new(f: F) -> Self {
        TryMap(f, PhantomData)
    }
}

impl<I: 'static, O: 'static, F: FnMut(I) -> Result<O>> Operator for TryMap<I, O, F> {
    type In = I;
    type Out = O;

    fn process(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        let Batch { records, timestamps } = batch;
        let records = records.into_iter().map(&mut self.0).collect::<Result<_>>()?;
        out.push_batch(Batch { records, timestamps })
    }
}

/// Keeps the records that `f` holds for.
pub struct Filter<T, F>(F, PhantomData<fn(T)>);

impl<T, F> Filter<T, F> {
    /// Filters with `f`.
    pub fn new(f: F) -> Self {
        Filter(f, PhantomData)
    }
}

impl<T: 'static, F: FnMut(&T) -> bool> Operator for Filter<T, F> {
    type In = T;
    type Out = T;

    fn process(&mut self, batch: Batch<T>, out: &mut Collector<T>) -> Result<()> {
        let Batch { mut records, mut timestamps } = batch;
        match &mut timestamps {
            Timestamps::Same(_) => records.retain(&mut self.0),
            Timestamps::Each(each) => {
                let keep: Vec<bool> = records.iter().map(&mut self.0).collect();
                let mut kept = keep.iter();
                records.retain(|_| *kept.next().expect("one verdict a record"));
                let mut kept = keep.iter();
                each.retain(|_| *kept.next().expect("one verdict a record"));
            }
        }
        if records.is_empty() { Ok(()) } else { out.push_batch(Batch { records, timestamps }) }
    }
}

/// One record in, any number out.
pub struct FlatMap<I, O, F>(F, PhantomData<fn(I) -> O>);

impl<I, O, F> FlatMap<I, O, F> {
    /// Maps with `f`, which collects.
    pub fn new(f: F) -> Self {
        FlatMap(f, PhantomData)
    }
}

impl<I: 'static, O: 'static, F: FnMut(I, &mut Collector<O>)> Operator for FlatMap<I, O, F> {
    type In = I;
    type Out = O;

    fn process(&mut self, batch: Batch<I>, out: &mut Collector<O>) -> Result<()> {
        for (record, timestamp) in batch {
            out.set_timestamp(timestamp);
            (self.0)(record, out);
        }
        Ok(())
    }
}
