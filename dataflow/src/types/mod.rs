//! What the engine knows about a Rust type without holding a value of it.
//!
//! - [`shape`]: [`Shape`], the structure that a type's `Deserialize` asks for, as data that can be stored and compared
//! - [`key_check`]: refuses key types whose encoding is not one and the same for equal keys
//! - `parse`: from the text of a shape back to the shape
//! - `tracer`: how a shape is found: `T::deserialize` run against a deserialiser that answers with samples
//!
//! Called while a job graph is built and while state is opened or saved; never per record or per batch.
//!
//! What must never happen here: a panic or an endless loop because of a user's type, a change of the canonical text
//! or of the fingerprint of an existing shape (both are stored with state).

pub mod key_check;
mod parse;
pub mod shape;
mod tracer;

pub use key_check::{KeyProblem, UnstableKey, check_key_type};
pub use shape::{Shape, VariantShape};

#[cfg(test)]
mod tests;
