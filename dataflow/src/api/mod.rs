//! The DataStream API: names operators, and gathers them in a graph.
//!
//! What lives here: one file a kind of stream. Who may call it: job authors, through the facade. What must never
//! happen here: running anything; a program only describes.

mod async_io;
mod bounded;
mod bounded_join;
mod broadcast;
mod connected;
mod env;
mod interval_join;
mod keyed;
mod settings;
mod stream;
mod window_joined;
mod windowed;

pub use bounded::SortedGroups;
pub use bounded_join::{FullOuter, Inner, JoinKind, JoinedByKey, LeftOuter, RightOuter};
pub use broadcast::{BroadcastConnectedStream, BroadcastStream, KeyedBroadcastConnectedStream};
pub use connected::{ConnectedStreams, KeyedConnectedStreams};
pub use env::StreamEnv;
pub use interval_join::{IntervalJoinStreams, IntervalJoined};
pub use keyed::KeyedStream;
pub use stream::{DataStream, StreamSink};
pub use window_joined::{
    CoGroup, CoGroupedStreams, CoGroupedWindows, EqualTo, Join, JoinedStreams, JoinedWindows, Paired,
    PairedWindows, Side, SideKey, SideSelector, WhereKey,
};
pub use windowed::{
    ByAssigner, Chosen, CountWindows, NoKey, SlidingCountWindows, TriggerChoice, WindowedStream,
};

pub use crate::operators::bounded::{Order, Records, Results};

#[cfg(test)]
mod multi_stream_tests;
