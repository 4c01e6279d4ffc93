//! The DataStream API: names operators, and gathers them in a graph.
//!
//! What lives here: one file a kind of stream. Who may call it: job authors, through the facade. What must never
//! happen here: running anything; a program only describes.

mod connected;
mod env;
mod keyed;
mod settings;
mod stream;

pub use connected::{ConnectedStreams, KeyedConnectedStreams};
pub use env::StreamEnv;
pub use keyed::KeyedStream;
pub use stream::{DataStream, StreamSink};
