//! Asynchronous calls to services.

use std::time::Duration;

use flott_schema::Result;

use super::stream::DataStream;
use crate::batch::Record;
use crate::function::{Function, Prototype};
use crate::operators::async_io::{AsyncFunction, AsyncMap, AsyncOptions, AsyncWait};

impl<T: Record> DataStream<T> {
    /// Calls a service for each record and emits what it gives, with the timestamp of the record. At most as many calls
    /// as the options say are in flight in each task.
    pub fn async_wait<O: Record>(
        &self,
        options: AsyncOptions<O>,
        function: impl AsyncFunction<T, O>,
    ) -> DataStream<O> {
        if let Err(error) = options.check() {
            self.env().add_error(error);
        }
        let function = Prototype::new(function);
        self.transform("Async Wait", move |ctx| Ok(AsyncWait::new(function.get(), options.clone(), ctx)))
    }

    /// One result for each record, from a call of its own, in the order of the records:
    /// `async_map_ordered(Duration::from_secs(5), 100, |id| async move { lookup(id).await })`.
    pub fn async_map_ordered<O, F, Fut>(&self, timeout: Duration, capacity: usize, f: F) -> DataStream<O>
    where
        O: Record,
        F: Fn(T) -> Fut + Function,
        Fut: Future<Output = Result<O>> + 'static,
    {
        self.async_wait(AsyncOptions::ordered(timeout, capacity), AsyncMap::new(f))
    }

    /// Like [`Self::async_map_ordered`], but results come when they are there; between two watermarks in any order.
    pub fn async_map_unordered<O, F, Fut>(&self, timeout: Duration, capacity: usize, f: F) -> DataStream<O>
    where
        O: Record,
        F: Fn(T) -> Fut + Function,
        Fut: Future<Output = Result<O>> + 'static,
    {
        self.async_wait(AsyncOptions::unordered(timeout, capacity), AsyncMap::new(f))
    }
}
