//! The broadcast state pattern: one input goes to every task and fills maps there, the other is processed by them.
//!
//! What lives here: the maps ([`state`]), the functions over streams without keys ([`plain`]) and with keys
//! ([`keyed`]), and what has the broadcast side come first in batch execution ([`first`]). Who may call it: the API. What must never happen here: a map that differs between the tasks. That is
//! why only the broadcast side, of which every task sees all records, can write.

/// What all contexts of this folder can do with a record, by their field `inner`. Inherent methods instead of a
/// `Deref`, so that `ctx.collect(format!("{}", ctx.key()))` compiles.
macro_rules! record_methods {
    ($out:ident) => {
        /// Emits a record with the timestamp of the current one.
        #[inline]
        pub fn collect(&mut self, record: $out) {
            self.inner.collect(record);
        }

        /// Emits a record to a side output.
        pub fn side<S: 'static>(&mut self, tag: &OutputTag<S>, record: S) {
            self.inner.side(tag, record);
        }

        /// The timestamp of the current record, epoch milliseconds.
        pub fn timestamp(&self) -> Option<i64> {
            self.inner.timestamp()
        }

        /// The watermark; `i64::MIN` before the first.
        pub fn watermark(&self) -> i64 {
            self.inner.watermark()
        }

        /// Processing time, epoch milliseconds.
        pub fn processing_time(&self) -> i64 {
            self.inner.processing_time()
        }
    };
}

mod first;
pub mod keyed;
pub mod plain;
pub mod state;

pub use first::BroadcastFirst;
pub use keyed::{
    KeyedBroadcastContext, KeyedBroadcastProcess, KeyedBroadcastProcessFunction, KeyedReadOnlyContext,
    OtherKeyContext,
};
pub use plain::{BroadcastContext, BroadcastProcess, BroadcastProcessFunction, ReadOnlyContext};
pub use state::{BroadcastMap, BroadcastState, BroadcastStates, DeclaredState};

#[cfg(test)]
mod tests;
