//! Where this program's jobs run.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use flott_schema::{Result, variables};

use crate::submit::Target;

/// What this process is, as its environment says.
pub enum Place {
    /// A program on its own: jobs run in an embedded cluster.
    Embedded,
    /// A client: jobs are submitted to a cluster.
    Client(Target),
    /// A program that says what would become of a snapshot in its jobs, and runs none.
    Planner {
        /// Where to say it.
        notes: PathBuf,
        /// Whether the jobs would run in an embedded cluster.
        alone: bool,
    },
    /// An executor: one of the program's jobs runs here, as a worker says.
    Executor(flott_worker::executor::Environment),
}

impl Place {
    /// What this process is.
    pub fn of_this_process() -> Result<Self> {
        if let Some(environment) = flott_worker::executor::environment()? {
            return Ok(Place::Executor(environment));
        }
        let target = Target::of_this_process()?;
        if let Some(notes) = std::env::var_os(variables::RESTORE_PLAN).filter(|path| !path.is_empty()) {
            return Ok(Place::Planner { notes: notes.into(), alone: target.is_none() });
        }
        Ok(target.map_or(Place::Embedded, Place::Client))
    }

    /// Whether jobs have the machine for themselves.
    pub fn is_alone(&self) -> bool {
        matches!(self, Place::Embedded | Place::Planner { alone: true, .. })
    }
}

/// The number of this call of `execute`, from 0. A client and the executors count alike, since they run the same program.
pub fn next_execution() -> u32 {
    static EXECUTIONS: AtomicU32 = AtomicU32::new(0);
    EXECUTIONS.fetch_add(1, Ordering::Relaxed)
}
