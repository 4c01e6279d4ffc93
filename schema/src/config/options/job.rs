//! How a job is built and run.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::option::options;
use crate::config::words::words;
use crate::key_group::UPPER_BOUND_MAX_PARALLELISM;

words! {
    /// How a job is executed.
    RuntimeMode {
        /// Results as they change; input may never end.
        Streaming = "STREAMING",
        /// Final results once, stage by stage; input must end.
        Batch = "BATCH",
        /// Batch where all input ends, else streaming.
        Automatic = "AUTOMATIC",
    }
}

fn is_parallelism(parallelism: &u32) -> bool {
    (1..=UPPER_BOUND_MAX_PARALLELISM).contains(parallelism)
}

fn is_max_parallelism(parallelism: &i32) -> bool {
    *parallelism == -1 || u32::try_from(*parallelism).is_ok_and(|parallelism| is_parallelism(&parallelism))
}

options! {
    "Jobs";

    /// Name of the job; where it is not set, the program gives one.
    PIPELINE_NAME: Option<String> = "pipeline.name";

    /// Number of parallel subtasks of an operator for which the job gives none.
    PARALLELISM_DEFAULT: u32 = "parallelism.default", default("1"), check(is_parallelism, "a whole number from 1 to 32768");

    /// Number of key groups, the most subtasks to which a job can ever be rescaled. -1 derives it from the parallelism. It must
    /// not change over the life of a job's state.
    PIPELINE_MAX_PARALLELISM: i32 = "pipeline.max-parallelism", default("-1"),
        check(is_max_parallelism, "-1 or a whole number from 1 to 32768");

    /// Parallelism by vertex id, over what the job says: how an autoscaler or a rescale sets it.
    PIPELINE_PARALLELISM_OVERRIDES: BTreeMap<String, String> = "pipeline.jobvertex-parallelism-overrides", default("{}");

    /// Free parameters of the job, readable by its functions and shown by the dashboard.
    PIPELINE_GLOBAL_JOB_PARAMETERS: BTreeMap<String, String> = "pipeline.global-job-parameters", default("{}");

    /// Whether operators that need no shuffle between them run as one task.
    OPERATOR_CHAINING_ENABLED: bool = "pipeline.operator-chaining.enabled", default("true"),
        deprecated(&["pipeline.operator-chaining"]);

    /// How often periodic watermark generators are asked; 0 never asks them.
    AUTO_WATERMARK_INTERVAL: Duration = "pipeline.auto-watermark-interval", default("200 ms");

    /// Whether the job runs as a stream, as a batch, or as whichever its sources allow.
    RUNTIME_MODE: RuntimeMode = "execution.runtime-mode", default("STREAMING");

    /// How long a task may hold back records to fill a batch. 0 sends at once. A task that is about to go idle never holds back.
    BUFFER_TIMEOUT_INTERVAL: Duration = "execution.buffer-timeout.interval", default("100 ms"),
        deprecated(&["execution.buffer-timeout"]);

    /// Whether the buffer timeout counts at all; without it a busy task sends full batches only.
    BUFFER_TIMEOUT_ENABLED: bool = "execution.buffer-timeout.enabled", default("true");
}
