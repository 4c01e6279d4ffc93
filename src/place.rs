//! Where this program's jobs run.

use std::sync::atomic::{AtomicU32, Ordering};

use flott_schema::Result;

use crate::submit::Target;

/// What this process is, as its environment says.
pub enum Place {
    /// A program on its own: jobs run in an embedded cluster.
    Embedded,
    /// A client: jobs are submitted to a cluster.
    Client(Target),
    /// An executor: one of the program's jobs runs here, as a worker says.
    Executor(flott_worker::executor::Environment),
}

impl Place {
    /// What this process is.
    pub fn of_this_process() -> Result<Self> {
        if let Some(environment) = flott_worker::executor::environment()? {
            return Ok(Place::Executor(environment));
        }
        Ok(Target::of_this_process()?.map_or(Place::Embedded, Place::Client))
    }
}

/// The number of this call of `execute`, from 0. A client and the executors count alike, since they run the same program.
pub fn next_execution() -> u32 {
    static EXECUTIONS: AtomicU32 = AtomicU32::new(0);
    EXECUTIONS.fetch_add(1, Ordering::Relaxed)
}
