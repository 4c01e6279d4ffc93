//! The REST API and the dashboard.

use std::time::Duration;

use crate::config::MemorySize;
use crate::config::option::{checks, options};
use crate::config::ports::PortRanges;

options! {
    "REST API and dashboard";

    /// Host under which clients find the REST API.
    REST_ADDRESS: Option<String> = "rest.address", fallback(&["coordinator.host", "jobmanager.rpc.address"]);

    /// Port that clients call.
    REST_PORT: u16 = "rest.port", default("8081"), deprecated(&["web.port"]);

    /// Address on which the REST API listens; 0.0.0.0 means all (Flink: all).
    REST_BIND_ADDRESS: String = "rest.bind-address", default("127.0.0.1"),
        deprecated(&["web.address", "jobmanager.web.address"]);

    /// Ports of which the REST API takes the first free one.
    REST_BIND_PORT: PortRanges = "rest.bind-port", default("8081"), fallback(&["rest.port", "web.port"]);

    /// What stands between the address and the version in every path of the API, as a proxy may need it.
    REST_URL_PREFIX: String = "rest.url-prefix", default("/"),
        check(|prefix| prefix.starts_with('/') && prefix.ends_with('/'), "a path that starts and ends with `/`");

    /// How long the result of an asynchronous call (savepoint, stop) can be fetched.
    REST_ASYNC_STORE_DURATION: Duration = "rest.async.store-duration", default("5 min");

    /// How long a call waits for a leader among the coordinators.
    REST_AWAIT_LEADER_TIMEOUT: Duration = "rest.await-leader-timeout", default("30 s");

    /// Deadline of a client for making a connection.
    REST_CONNECTION_TIMEOUT: Duration = "rest.connection-timeout", default("15 s"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Time after which a connection on which nothing happens is closed.
    REST_IDLENESS_TIMEOUT: Duration = "rest.idleness-timeout", default("5 min"),
        check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Number of times a client repeats a call that may succeed later.
    REST_RETRY_MAX_ATTEMPTS: u32 = "rest.retry.max-attempts", default("20");

    /// Delay before each of them.
    REST_RETRY_DELAY: Duration = "rest.retry.delay", default("3 s");

    /// Largest request body, other than of an uploaded program: see `coordinator.programs.max-size`.
    REST_SERVER_MAX_CONTENT_LENGTH: MemorySize = "rest.server.max-content-length", default("100 mb");

    /// Largest answer that a client takes.
    REST_CLIENT_MAX_CONTENT_LENGTH: MemorySize = "rest.client.max-content-length", default("100 mb");

    /// Threads that answer requests.
    REST_SERVER_THREADS: u32 = "rest.server.numThreads", default("4"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// How long statistics of checkpoints are answered from memory.
    REST_CHECKPOINT_STATISTICS_TIMEOUT: Duration = "rest.cache.checkpoint-statistics.timeout", default("3 s"),
        fallback(&["web.refresh-interval", "jobmanager.web.refresh-interval"]);

    /// Whether flame graphs of running tasks can be asked for.
    REST_FLAMEGRAPH_ENABLED: bool = "rest.flamegraph.enabled", default("false");

    /// Whether profiles of processes can be asked for.
    REST_PROFILING_ENABLED: bool = "rest.profiling.enabled", default("false");

    /// Whether programs can be uploaded and run through the dashboard.
    WEB_SUBMIT_ENABLE: bool = "web.submit.enable", default("true");

    /// Whether jobs can be cancelled through the dashboard.
    WEB_CANCEL_ENABLE: bool = "web.cancel.enable", default("true");

    /// Whether jobs can be rescaled through the dashboard.
    WEB_RESCALE_ENABLE: bool = "web.rescale.enable", default("true");

    /// Time after which the dashboard asks again, and for which answers about a job are kept.
    WEB_REFRESH_INTERVAL: Duration = "web.refresh-interval", default("3 s"),
        deprecated(&["jobmanager.web.refresh-interval"]), check(checks::longer_than_zero, checks::LONGER_THAN_ZERO);

    /// Deadline of what the dashboard asks of the cluster.
    WEB_TIMEOUT: Duration = "web.timeout", default("10 min");

    /// Number of finished jobs that stay in memory.
    WEB_HISTORY: u32 = "web.history", default("5"), deprecated(&["jobmanager.web.history"]);

    /// Number of failures of a job that are remembered.
    WEB_EXCEPTION_HISTORY_SIZE: u32 = "web.exception-history-size", default("16"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Number of checkpoints of a job that are remembered.
    WEB_CHECKPOINTS_HISTORY: u32 = "web.checkpoints.history", default("10"),
        deprecated(&["jobmanager.web.checkpoints.history"]);

    /// Directory for uploaded programs. Not set: one below `web.tmpdir`.
    WEB_UPLOAD_DIR: Option<String> = "web.upload.dir", deprecated(&["jobmanager.web.upload.dir"]);

    /// Directory for the REST API's temporary files.
    WEB_TMPDIR: String = "web.tmpdir", default("/tmp"), deprecated(&["jobmanager.web.tmpdir"]);

    /// Origin whose pages may call the API; `*`: all may read. Where there is no `security.token`, pages of other origins
    /// change nothing unless theirs is named here.
    WEB_ALLOW_ORIGIN: String = "web.access-control-allow-origin", default("*"),
        deprecated(&["jobmanager.web.access-control-allow-origin"]);
}
