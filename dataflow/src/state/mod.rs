//! Keyed state: what a function remembers about the key of the record it is processing.
//!
//! What lives here: the tables of keys, the typed tables of states, the handles that functions hold, timers, time to live;
//! [`epochs`] and [`TrackedTable`], by which tables know what a snapshot still has to take; [`rows`], what stands in snapshots.
//! A table is typed and in memory; a backend that keeps more than memory holds stands behind it, asked once per batch
//! for what is missing. Who may call it: operators; functions through their handles. What must never happen here:
//! serialisation or a virtual call per record.

mod columns;
pub mod epochs;
mod handles;
mod key_table;
mod keyed;
mod keyed_fetch;
mod keyed_snapshot;
pub mod rows;
mod store;
mod stored_table;
pub(crate) mod time_pages;
mod timer_pages;
mod timers;
mod tracked;
mod ttl;
mod update_table;

pub use epochs::Tracking;
pub use handles::{AggregatingState, KeyedScope, ListState, MapState, ReducingState, ValueState};
pub(crate) use key_table::prefetch;
pub use key_table::{KeyTable, MISSING};
pub use keyed::KeyedState;
pub use store::StateStore;
pub use stored_table::StoredTable;
pub use timers::{TimeDomain, Timer, Timers};
pub use tracked::{FrozenRow, TrackedTable};
pub use ttl::{StateTtl, TtlUpdate, TtlVisibility};
pub use update_table::UpdateTable;
