//! The Cap'n Proto forms of the words: on the wire, in the Raft log, in manifests.
//!
//! * [`generated`]: readers and builders, made from `schema/capnp`
//! * [`Wire`]: what has such a form; [`to_bytes`] and [`from_bytes`]: a value as a message of its own
//! * [`fields`]: one field at a time, for messages that are no value of their own: the parameters of a call
//! * `common`, `graph`, `job`, `settings`, `control`, `snapshot`, `stats`: the forms of the words, a file for each of theirs
//!
//! Who may call it: every room. What must never happen here: a field that is renumbered, retyped or removed; a panic, whatever
//! the bytes. A field that is added later is written only if it has another value than the one that its absence means, so that
//! what older versions wrote stays what this one writes.

pub mod fields;
pub mod generated;

mod common;
mod control;
mod graph;
mod job;
mod settings;
mod snapshot;
mod stats;

use capnp::Word;
use capnp::message::{Builder, HeapAllocator, ReaderOptions};
use capnp::traits::{Owned, OwnedStruct};

use crate::error::{Error, ErrorKind, Result};

pub use common::{read_id, write_id};

/// A struct of a schema.
pub trait Form: Owned
    + for<'a> OwnedStruct<Reader<'a> = <Self as Owned>::Reader<'a>, Builder<'a> = <Self as Owned>::Builder<'a>>
{
}

impl<T> Form for T where
    T: Owned
        + for<'a> OwnedStruct<Reader<'a> = <T as Owned>::Reader<'a>, Builder<'a> = <T as Owned>::Builder<'a>>
{
}

/// A value with a Cap'n Proto form.
pub trait Wire: Sized {
    /// The struct of the schema.
    type Form: Form;

    /// Fills a builder. An error says which text or list is too long for a message.
    fn write(&self, form: <Self::Form as Owned>::Builder<'_>) -> Result<()>;

    /// Reads what [`Wire::write`] wrote, in this version of Flott or another. An error names the field that is missing, broken, or
    /// has a value that this version does not know.
    fn read(form: <Self::Form as Owned>::Reader<'_>) -> Result<Self>;
}

/// Words of a first segment: most messages need no other.
const SEGMENT_WORDS: u32 = 256;

/// Words that a message may have at most: 64 Mi words are 512 MiB.
const MESSAGE_WORDS_MAX: usize = 64 << 20;

/// The value as a message of its own.
pub fn to_bytes<T: Wire>(value: &T) -> Result<Vec<u8>> {
    let mut message = Builder::new(HeapAllocator::new().first_segment_words(SEGMENT_WORDS));
    value.write(message.init_root())?;
    Ok(capnp::serialize::write_message_to_words(&message))
}

/// The value in a message made by [`to_bytes`]; `bytes` is that message and nothing else.
pub fn from_bytes<T: Wire>(bytes: &[u8]) -> Result<T> {
    let words = bytes.len() / size_of::<Word>();
    if words > MESSAGE_WORDS_MAX {
        return Err(unreadable(format!("{} bytes are more than any message has", bytes.len())));
    }
    // Words are read once, a few of them twice. A message that says much more of itself, by pointers that meet or lists of
    // nothing, is none of ours.
    let options = *ReaderOptions::new().traversal_limit_in_words(Some(2 * words));
    let mut copy = Vec::new();
    let mut rest = aligned(bytes, &mut copy);
    let message = capnp::serialize::read_message_from_flat_slice(&mut rest, options).map_err(broken)?;
    if !rest.is_empty() {
        return Err(unreadable(format!("{} bytes follow its end", rest.len())));
    }
    T::read(message.get_root().map_err(broken)?)
}

/// The bytes at an address that a word may have, where Cap'n Proto can read them: their own, or one in `copy`.
fn aligned<'a>(bytes: &'a [u8], copy: &'a mut Vec<Word>) -> &'a [u8] {
    if bytes.as_ptr().addr().is_multiple_of(align_of::<Word>()) {
        return bytes;
    }
    *copy = Word::allocate_zeroed_vec(bytes.len().div_ceil(size_of::<Word>()));
    let copied = &mut Word::words_to_bytes_mut(copy)[..bytes.len()];
    copied.copy_from_slice(bytes);
    copied
}

/// The error for a message that cannot be read.
pub fn broken(error: capnp::Error) -> Error {
    unreadable(error)
}

fn unreadable(reason: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Io, format!("broken message: {reason}"))
}

#[cfg(test)]
mod tests;
