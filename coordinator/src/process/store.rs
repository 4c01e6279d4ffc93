//! The stored programs, as the REST API and the workers see them.

use flott_schema::Result;
use flott_schema::answer::FilePart;
use flott_schema::job::ProgramDigest;
use futures_util::future::BoxFuture;

use crate::programs::{ProgramError, Programs, Upload};
use crate::service::{CoordinatorError, Handle};
use crate::{rest, rpc};

/// The store: files, their copies on the other members, and the list that the group agrees on.
#[derive(Clone)]
pub struct Store {
    /// The files.
    pub programs: Programs,
    /// The list.
    pub handle: Handle,
}

impl rpc::ReadProgram for Store {
    fn read(&self, digest: ProgramDigest, offset: u64, length_max: u32) -> Result<FilePart> {
        let (bytes, size) = self.programs.read(digest, offset, length_max).map_err(failed)?;
        Ok(FilePart { bytes, size })
    }
}

fn failed(error: ProgramError) -> flott_schema::Error {
    flott_schema::Error::new(error.kind(), error.to_string())
}

impl rest::Programs for Store {
    fn list(&self) -> BoxFuture<'static, Result<Vec<rest::StoredProgram>>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let listed = handle.read("programs", |state| {
                let programs = state.programs().iter();
                let stored = programs.map(|(digest, program)| rest::StoredProgram {
                    digest: *digest,
                    name: program.name.clone(),
                    size: program.size,
                    stored_ms: program.stored_ms,
                });
                stored.collect()
            });
            listed.await.map_err(CoordinatorError::into_error)
        })
    }

    fn store(
        &self,
        name: String,
        mut parts: rest::ProgramParts,
    ) -> BoxFuture<'static, Result<rest::StoredProgram>> {
        let Store { programs, handle } = self.clone();
        Box::pin(async move {
            let mut upload = Some(programs.upload().map_err(failed)?);
            while let Some(part) = parts.recv().await {
                let part = part?;
                // The disk is not waited for on a thread that answers others.
                let written = tokio::task::spawn_blocking({
                    let taken = upload.take();
                    move || write(taken, &part)
                });
                upload = written.await.map_err(|error| flott_schema::Error::internal(error.to_string()))?.map_err(failed)?;
            }
            let Some(upload) = upload else {
                return Err(flott_schema::Error::internal("an upload was lost"));
            };
            let stored = upload.finish(&programs, None).await.map_err(failed)?;
            programs.replicate(stored.digest).await.map_err(failed)?;
            let committed = handle.program_stored(stored.digest, name.clone(), stored.size_bytes).await;
            committed.map_err(CoordinatorError::into_error)?;
            let digest = stored.digest;
            let stored_ms = handle.read("program", move |state| state.programs().get(&digest).map(|p| p.stored_ms));
            let stored_ms = stored_ms.await.map_err(CoordinatorError::into_error)?.unwrap_or_default();
            Ok(rest::StoredProgram { digest, name, size: stored.size_bytes, stored_ms })
        })
    }

    fn remove(&self, digest: ProgramDigest) -> BoxFuture<'static, Result<bool>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let is_listed = handle.read("program", move |state| state.programs().contains_key(&digest));
            if !is_listed.await.map_err(CoordinatorError::into_error)? {
                return Ok(false);
            }
            handle.remove_program(digest).await.map_err(CoordinatorError::into_error)?;
            Ok(true)
        })
    }
}

fn write(upload: Option<Upload>, part: &[u8]) -> std::result::Result<Option<Upload>, ProgramError> {
    let Some(mut upload) = upload else { return Ok(None) };
    upload.write(part)?;
    Ok(Some(upload))
}
