//! The Cap'n Proto forms of the words: on the wire, in the Raft log, in manifests.
//!
//! * [`generated`]: readers and builders, made from `schema/capnp`
//! * [`Wire`]: what has such a form; [`to_bytes`] and [`from_bytes`]: a value as a message of its own
//!
//! Who may call it: every room. What must never happen here: a field that is renumbered, retyped or removed.

pub mod generated;

use capnp::message::{Builder, ReaderOptions};
use capnp::traits::Owned;

use crate::error::{Error, ErrorKind, Result};

/// A value with a Cap'n Proto form.
pub trait Wire: Sized {
    /// The struct of the schema.
    type Form: Owned;

    /// Fills a builder.
    fn write(&self, form: <Self::Form as Owned>::Builder<'_>) -> Result<()>;

    /// Reads what [`Wire::write`] wrote, in this version of Flott or another.
    fn read(form: <Self::Form as Owned>::Reader<'_>) -> Result<Self>;
}

/// Words that a message may have at most: 64 Mi words are 512 MiB.
const TRAVERSAL_WORDS_MAX: usize = 64 << 20;

/// The value as a message of its own.
pub fn to_bytes<T: Wire>(value: &T) -> Result<Vec<u8>> {
    let mut message = Builder::new_default();
    value.write(message.init_root())?;
    Ok(capnp::serialize::write_message_to_words(&message))
}

/// The value in a message made by [`to_bytes`].
pub fn from_bytes<T: Wire>(mut bytes: &[u8]) -> Result<T> {
    let mut options = ReaderOptions::new();
    options.traversal_limit_in_words(Some(TRAVERSAL_WORDS_MAX));
    let message = capnp::serialize::read_message_from_flat_slice(&mut bytes, options).map_err(broken)?;
    T::read(message.get_root().map_err(broken)?)
}

/// The error for a message that cannot be read.
pub fn broken(error: capnp::Error) -> Error {
    Error::new(ErrorKind::Io, format!("broken message: {error}"))
}
