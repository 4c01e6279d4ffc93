//! The programs of jobs: files by their SHA-256, kept by every coordinator of the group.
//!
//! [`Programs`] is the store of this coordinator: an [`Upload`] streams a file in, [`Programs::replicate`] brings it to the
//! others, [`Programs::read`] gives it out in parts. That a program is there is a fact only once it is an event; [`Library`]
//! stores, replicates, then has it committed. Who may call it: the REST API, the control port, the members of the group.
//! What must never happen here: a program that is started, or a file whose content is not what its name says.

mod error;
mod files;
mod library;
mod replicate;
mod sweep;
mod upload;

pub use error::ProgramError;
pub use files::{Programs, StoredProgram};
pub use library::Library;
pub use replicate::ProgramPeers;
#[cfg(test)]
pub(crate) use sweep::shed;
pub use upload::Upload;

#[cfg(test)]
mod tests;
