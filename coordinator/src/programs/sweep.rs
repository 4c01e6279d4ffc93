//! The store brought in line with the state: what no job needs goes, what is missing comes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flott_schema::job::ProgramDigest;

use super::error::ProgramError;
use super::files::Programs;
use crate::service::{CoordinatorError, Handle};

/// Age below which a program stays although the state does not name it: it may have been uploaded just now.
const UNKNOWN_KEPT: Duration = Duration::from_secs(3_600);
/// Time between two sweeps.
const SWEEP_INTERVAL: Duration = Duration::from_secs(300);

/// Has programs taken off the list that were not used for `kept`, longest unused first, until the rest is within the
/// budget. The leader's business; others do nothing.
pub(crate) async fn shed(
    handle: &Handle,
    total_max_bytes: u64,
    kept: Duration,
) -> Result<(), CoordinatorError> {
    if handle.role().term().is_none() {
        return Ok(());
    }
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let unused_since_ms = since_epoch.saturating_sub(kept).as_millis() as u64;
    let unused = handle
        .read("programs", move |state| state.programs_to_shed(total_max_bytes, unused_since_ms))
        .await?;
    for digest in unused {
        match handle.remove_program(digest).await {
            Ok(()) => tracing::info!(%digest, total_max_bytes, "program removed: longest unused"),
            // A job came meanwhile, or somebody else has removed it.
            Err(CoordinatorError::ProgramInUse { .. } | CoordinatorError::UnknownProgram(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Programs {
    /// Sweeps from time to time and when the role has changed, until the coordinator has stopped.
    /// `total_max_bytes` is what the programs of the group may take together.
    pub async fn keep_swept(self, handle: Handle, total_max_bytes: u64) {
        let mut roles = handle.watch_role();
        loop {
            let shed = shed(&handle, total_max_bytes, UNKNOWN_KEPT).await;
            match shed.and(self.sweep(&handle, UNKNOWN_KEPT).await) {
                Ok(()) => {}
                Err(CoordinatorError::Stopped) => return,
                Err(error) => tracing::warn!(%error, "the programs were not swept"),
            }
            // Who begins to lead is asked for programs soon.
            if let Ok(Err(_)) = tokio::time::timeout(SWEEP_INTERVAL, roles.changed()).await {
                return;
            }
        }
    }

    /// Removes the programs that are older than `kept` and that neither the list of programs nor a job that is not over
    /// names, and gets those from the other members that are listed and missing here.
    pub async fn sweep(&self, handle: &Handle, kept: Duration) -> Result<(), CoordinatorError> {
        let here: Vec<ProgramDigest> = match self.aside(Programs::list).await {
            Ok(programs) => programs.into_iter().map(|program| program.digest).collect(),
            Err(error) => {
                tracing::warn!(%error, "the programs cannot be listed");
                return Ok(());
            }
        };
        let (superfluous, listed) = handle
            .read("programs", move |state| {
                let superfluous: Vec<_> =
                    here.into_iter().filter(|digest| !state.needs_program(digest)).collect();
                (superfluous, state.programs().keys().copied().collect::<Vec<_>>())
            })
            .await?;
        for digest in superfluous {
            let removed = self.aside(move |programs| {
                let is_old = programs.age(digest).is_some_and(|age| age >= kept);
                if is_old { programs.remove(digest) } else { Ok(false) }
            });
            match removed.await {
                Ok(false) => {}
                Ok(true) => tracing::info!(%digest, "program removed: no job needs it"),
                Err(error) => tracing::warn!(%error, "program not removed"),
            }
        }
        for digest in listed {
            if let Err(error) = self.fetch(digest).await {
                tracing::debug!(%digest, %error, "program missing here");
            }
        }
        Ok(())
    }

    /// Does on another thread what may wait for the disk.
    pub(super) async fn aside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, ProgramError> + Send + 'static,
    ) -> Result<T, ProgramError> {
        let programs = self.clone();
        let path = self.directory().to_path_buf();
        match tokio::task::spawn_blocking(move || work(&programs)).await {
            Ok(outcome) => outcome,
            Err(error) => Err(ProgramError::Disk { path, reason: std::io::Error::other(error) }),
        }
    }

    fn age(&self, digest: ProgramDigest) -> Option<Duration> {
        let modified = std::fs::metadata(self.path(digest)).ok()?.modified().ok()?;
        // A clock that was put back makes it new.
        Some(SystemTime::now().duration_since(modified).unwrap_or(Duration::ZERO))
    }
}
