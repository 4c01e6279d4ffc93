//! The programs that the cluster stores, as a list: the files themselves are kept outside of the machine.

use std::collections::BTreeMap;

use flott_schema::job::ProgramDigest;

use super::state::ClusterState;
use super::step::Step;

/// A stored program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredProgram {
    /// Its file name, for people: that of its latest upload.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was stored (milliseconds since 1970).
    pub stored_ms: u64,
}

impl ClusterState {
    /// The stored programs.
    pub fn programs(&self) -> &BTreeMap<ProgramDigest, StoredProgram> {
        &self.programs
    }

    /// Whether the file of a program has to be kept: it is listed, or a job that is not over may have to start it again.
    pub fn needs_program(&self, digest: &ProgramDigest) -> bool {
        let names = |job: &super::JobRecord| {
            job.spec.program.as_ref().is_some_and(|program| program.digest == *digest)
        };
        self.programs.contains_key(digest) || self.open.iter().any(|job| names(&self.jobs[job]))
    }
}

impl Step<'_> {
    pub(super) fn store_program(&mut self, digest: ProgramDigest, name: String, size: u64) {
        let stored_ms = self.state.programs.get(&digest).map(|program| program.stored_ms);
        let stored_ms = stored_ms.unwrap_or(self.state.now_ms);
        self.state.programs.insert(digest, StoredProgram { name, size, stored_ms });
    }

    pub(super) fn remove_program(&mut self, digest: ProgramDigest) {
        if self.state.programs.remove(&digest).is_none() {
            self.state.ignored.unknown_program += 1;
        }
    }
}
