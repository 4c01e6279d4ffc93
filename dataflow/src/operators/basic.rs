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
            Timestamps::Same(_) => retain(&mut records, &mut self.0),
            Timestamps::Each(each) => {
                let keep: Vec<bool> = records.iter().map(&mut self.0).collect();
                let mut kept = keep.iter();
                retain(&mut records, |_| *kept.next().expect("one verdict a record"));
                let mut kept = keep.iter();
                retain(each, |_| *kept.next().expect("one verdict a record"));
            }
        }
        if records.is_empty() { Ok(()) } else { out.push_batch(Batch { records, timestamps }) }
    }
}

/// `Vec::retain`, without a branch on the verdict where records need no drop: a verdict that changes from record to
/// record would mislead the processor's branch prediction.
fn retain<T>(records: &mut Vec<T>, mut keep: impl FnMut(&T) -> bool) {
    if std::mem::needs_drop::<T>() {
        return records.retain(keep);
    }
    let (count, first) = (records.len(), records.as_mut_ptr());
    // SAFETY: the vector is empty while records are moved, so whatever `keep` does, none is seen twice (and none needs a
    // drop). Both positions stay below the old length; the first `kept` records are whole when the length is set again.
    unsafe {
        records.set_len(0);
        let mut kept = 0;
        for index in 0..count {
            let record = first.add(index);
            let verdict = keep(&*record);
            std::ptr::copy(record, first.add(kept), 1);
            kept += usize::from(verdict);
        }
        records.set_len(kept);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::harness::Harness;

    proptest! {
        #[test]
        fn a_filter_keeps_what_it_should_with_and_without_drop(records: Vec<(u8, i64)>) {
            let expected: Vec<(u8, i64)> = records.iter().copied().filter(|(n, _)| n % 3 == 0).collect();
            let mut plain = Harness::one_input(|_| Ok(Filter::new(|n: &u8| n.is_multiple_of(3)))).unwrap();
            plain.push_all(records.clone()).unwrap();
            prop_assert_eq!(plain.take(), expected.clone());
            let mut owned = Harness::one_input(|_| Ok(Filter::new(|n: &String| n.parse::<u8>().unwrap() % 3 == 0))).unwrap();
            owned.push_all(records.into_iter().map(|(n, time)| (n.to_string(), time))).unwrap();
            let expected: Vec<(String, i64)> = expected.into_iter().map(|(n, time)| (n.to_string(), time)).collect();
            prop_assert_eq!(owned.take(), expected);
        }
    }
}
