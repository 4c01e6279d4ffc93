//! What can be wrong with a program.

use std::path::PathBuf;

use flott_schema::error::{Error, ErrorKind};
use flott_schema::job::ProgramDigest;

/// Why a program was not stored or is not there.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Nobody has stored it.
    #[error("there is no program {0}; upload it first")]
    Unknown(ProgramDigest),
    /// More bytes than a program may have.
    #[error(
        "the program is larger than {max_bytes} bytes, the most that is stored (coordinator.programs.max-size)"
    )]
    TooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// It is not the file that was meant: something was lost or changed on the way.
    #[error("the program's SHA-256 is {found}, not {expected}; upload it again")]
    WrongDigest {
        /// What was said.
        expected: ProgramDigest,
        /// What has come.
        found: ProgramDigest,
    },
    /// Parts came in another order than sent.
    #[error("a part of program {digest} begins at {offset}, where {expected} bytes have come")]
    OutOfOrder {
        /// The program.
        digest: ProgramDigest,
        /// Where the part begins.
        offset: u64,
        /// Where it should.
        expected: u64,
    },
    /// The disk.
    #[error("'{}': {reason}", .path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        reason: std::io::Error,
    },
    /// Too few coordinators have it for it to survive the loss of one.
    #[error("only {stored} of {members} coordinators could store program {digest}: {reason}")]
    NoMajority {
        /// The program.
        digest: ProgramDigest,
        /// Who has it.
        stored: usize,
        /// Who should.
        members: usize,
        /// Why one of the others has not.
        reason: String,
    },
}

impl ProgramError {
    /// Who may act.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ProgramError::Unknown(_)
            | ProgramError::TooLarge { .. }
            | ProgramError::WrongDigest { .. }
            | ProgramError::OutOfOrder { .. } => ErrorKind::BadInput,
            ProgramError::Disk { .. } | ProgramError::NoMajority { .. } => ErrorKind::Io,
        }
    }

    /// The error in the form that crosses rooms.
    pub fn into_error(self) -> Error {
        let kind = self.kind();
        Error::from(self).with_kind(kind)
    }
}
