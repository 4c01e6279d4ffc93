//! What can be wrong with a coordinator's log.

use std::path::PathBuf;

use flott_schema::error::{Error, ErrorKind};

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk changed what was written.
    #[error(
        "{record} is damaged: its checksum does not match ({bytes} bytes). Restore the directory from a copy, or, if \
         other coordinators hold the log, empty it and start this one again"
    )]
    Damaged {
        /// Which record.
        record: String,
        /// How long it is.
        bytes: usize,
    },
    /// A record that cannot be read though its checksum is right: it was written by another version.
    #[error("{record} cannot be read: {reason}")]
    Unreadable {
        /// Which record.
        record: String,
        /// Why.
        reason: String,
    },
    /// The database refuses.
    #[error("the coordinator's log in '{}': {reason}", .directory.display())]
    Database {
        /// Where it lies.
        directory: PathBuf,
        /// What the database says.
        reason: String,
    },
    /// The directory is of a newer version, or of something else.
    #[error("'{}' holds the log of another version of Flott (format {found}, this one reads {known})", .directory.display())]
    Format {
        /// The directory.
        directory: PathBuf,
        /// What it says.
        found: String,
        /// What is understood.
        known: u32,
    },
    /// The configuration of the group makes no sense.
    #[error("coordinator.members: {0}")]
    Members(String),
    /// openraft has stopped.
    #[error("the group of coordinators: {0}")]
    Raft(String),
}

impl JournalError {
    /// The error in the form that crosses rooms.
    pub fn into_error(self) -> Error {
        let kind = match &self {
            JournalError::Members(_) => ErrorKind::Configuration,
            _ => ErrorKind::Io,
        };
        Error::from(self).with_kind(kind)
    }
}
