//! The programs of the cluster: the files, and the events that say that they are there.

use flott_schema::error::Result;
use flott_schema::job::ProgramDigest;

use super::error::ProgramError;
use super::files::{Programs, StoredProgram};
use super::upload::Upload;
use crate::journal::Role;
use crate::service::{CoordinatorError, Handle};

/// Stores, lists and removes programs for the whole group. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Library {
    files: Programs,
    handle: Handle,
}

impl Library {
    /// Of the coordinator that `handle` talks to.
    pub fn new(files: Programs, handle: Handle) -> Self {
        Library { files, handle }
    }

    /// The files of this coordinator.
    pub fn files(&self) -> &Programs {
        &self.files
    }

    /// Begins to store a program; [`Library::add`] ends it. Refused by a follower, before anything is sent to it.
    pub fn upload(&self) -> Result<Upload> {
        match self.handle.role() {
            Role::Leader { .. } => self.files.upload().map_err(ProgramError::into_error),
            Role::Follower { leader } => Err(CoordinatorError::NotLeader { leader }.into_error()),
        }
    }

    /// Ends an upload: jobs may name the program when this returns, also after this coordinator is lost.
    pub async fn add(
        &self,
        upload: Upload,
        name: String,
        expected: Option<ProgramDigest>,
    ) -> Result<StoredProgram> {
        let stored = upload.finish(&self.files, expected).await.map_err(ProgramError::into_error)?;
        self.files.replicate(stored.digest).await.map_err(ProgramError::into_error)?;
        let committed = self.handle.program_stored(stored.digest, name, stored.size_bytes).await;
        committed.map_err(CoordinatorError::into_error)?;
        Ok(stored)
    }

    /// Takes a program off the list; whether it was on it. Refused while a job that is not over needs it. The file goes
    /// later, when the folder is swept.
    pub async fn remove(&self, digest: ProgramDigest) -> Result<bool> {
        match self.handle.remove_program(digest).await {
            Ok(()) => Ok(true),
            Err(CoordinatorError::UnknownProgram(_)) => Ok(false),
            Err(error) => Err(error.into_error()),
        }
    }
}
