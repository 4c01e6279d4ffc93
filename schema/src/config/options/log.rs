//! Log files.

use crate::config::option::{checks, options};

options! {
    "Log files";

    /// Folder of the log files. Not set: `log` in the folder in which the process was started.
    LOG_DIR: Option<String> = "env.log.dir";

    /// Number of old log files that are kept beside each one that is written.
    LOG_FILES_KEPT: u32 = "env.log.max", default("10");

    /// Number of jobs whose executors' log files a worker keeps, and of programs run on it to submit jobs. Those written to last
    /// are kept, and those that are still written to.
    LOG_JOBS_KEPT: u32 = "worker.log.jobs", default("100"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);
}
