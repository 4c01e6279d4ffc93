//! What the ledger wants done outside, what it is told of that, and the time: data alone.
//!
//! Who may call it: everything in this room. What must never happen here: a decision.

use flott_schema::ids::JobId;
use flott_schema::snapshot::Manifest;

use crate::machine::Event;

/// The time: of a clock that never goes back, and of people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since some moment.
    pub clock_ms: u64,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
}

/// Something to do outside.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Have the event committed.
    Propose(Event),
    /// Write the manifest of a snapshot into its folder; [`Ledger::stored`](super::Ledger::stored) follows.
    Store {
        /// The job.
        job: JobId,
        /// The snapshot.
        checkpoint: u64,
        /// Its folder.
        folder: String,
        /// What to write.
        manifest: Box<Manifest>,
    },
    /// Delete files that nobody needs; what cannot be deleted comes back by [`Ledger::not_deleted`](super::Ledger::not_deleted).
    Delete(Deletion),
    /// Look at what the leader before has left; [`Ledger::surveyed`](super::Ledger::surveyed) follows.
    Survey(Survey),
}

/// Files that nobody needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Whose they were.
    pub job: Option<JobId>,
    /// Single files.
    pub files: Vec<String>,
    /// Folders with all that is in them.
    pub trees: Vec<String>,
    /// The snapshot that the job has claimed: it goes with what it alone needed.
    pub claimed: Option<Box<ClaimedSnapshot>>,
    /// A folder that goes if nothing is left in it.
    pub empty_folder: Option<String>,
}

/// A snapshot of another job that is this one's now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedSnapshot {
    /// Its folder.
    pub folder: String,
}

impl Deletion {
    /// Whether there is nothing to delete.
    pub fn is_empty(&self) -> bool {
        let Deletion { job: _, files, trees, claimed, empty_folder } = self;
        files.is_empty() && trees.is_empty() && claimed.is_none() && empty_folder.is_none()
    }
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// The job.
    pub job: JobId,
    /// The folder of its checkpoints.
    pub folder: String,
    /// Those that it can go back to: id and folder.
    pub retained: Vec<(u64, String)>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surveyed {
    /// By checkpoint the names of the shared files that it needs; nothing if a manifest could not be read.
    pub manifests: Option<Vec<(u64, Vec<String>)>>,
    /// Names of the files in the shared folder.
    pub files: Vec<String>,
    /// Ids of the checkpoints that have a folder.
    pub folders: Vec<u64>,
}
