//! Log files.

use crate::config::option::options;

options! {
    "Log files";

    /// Folder of the log files. Not set: `log` in the folder in which the process was started.
    LOG_DIR: Option<String> = "env.log.dir";

    /// Number of old log files that are kept beside each one that is written.
    LOG_FILES_KEPT: u32 = "env.log.max", default("10");
}
