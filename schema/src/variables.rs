//! The environment variables by which `flott run` and workers tell a program what it is started for. A program may be built
//! with another version of Flott, so names and forms never change.

/// Addresses of the REST API of a cluster, `http://host:port[,host:port..]`: the program submits its jobs there. Not set: it runs
/// them in an embedded cluster.
pub const SUBMIT: &str = "FLOTT_SUBMIT";

/// With [`SUBMIT`]: `1` submits without waiting for the end of the jobs.
pub const DETACHED: &str = "FLOTT_DETACHED";

/// With [`SUBMIT`]: a file to which the program adds a line for each job: its id, or with [`PLAN_ONLY`] the job's plan as JSON.
pub const SUBMITTED: &str = "FLOTT_SUBMITTED";

/// With [`SUBMITTED`]: `1` makes the program write the plans of its jobs and run none.
pub const PLAN_ONLY: &str = "FLOTT_PLAN_ONLY";

/// A file to which the program adds a line for each job: what would become of the states of the snapshot that the job starts from, as JSON
/// (`flott::PlannedRestore`). It runs none of them.
pub const RESTORE_PLAN: &str = "FLOTT_RESTORE_PLAN";

/// Settings over all others: a JSON list of `key=value`. Not variables of their own, because a key with a variable part has no
/// variable, and because they go over all variables whatever name of an option they use.
pub const DYNAMIC_PROPERTIES: &str = "FLOTT_DYNAMIC_PROPERTIES";

/// `json`: the summary of each job goes to the standard output as well, as one line of JSON.
pub const SUMMARY: &str = "FLOTT_SUMMARY";
