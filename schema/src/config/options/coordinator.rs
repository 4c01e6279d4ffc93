//! Coordinators: their addresses, the group they form, and where they keep their log.

use std::time::Duration;

use crate::config::MemorySize;
use crate::config::option::{checks, options};
use crate::config::ports::PortRanges;

fn are_addresses(members: &[String]) -> bool {
    let is_address = |member: &String| {
        member.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains("://") && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
    };
    members.iter().all(is_address)
}

options! {
    "Coordinators";

    /// Host under which workers and other coordinators find this coordinator.
    COORDINATOR_HOST: String = "coordinator.host", default("localhost"), also(&["jobmanager.rpc.address"]);

    /// Address on which the coordinator listens; 0.0.0.0 means all.
    COORDINATOR_BIND_HOST: String = "coordinator.bind-host", default("127.0.0.1"), also(&["jobmanager.bind-host"]);

    /// Port on which workers and other coordinators call. Several mean the first free one.
    COORDINATOR_PORT: PortRanges = "coordinator.port", default("6123"), also(&["jobmanager.rpc.port"]);

    /// Addresses of all coordinators of the group, three or five of them. Empty: this one alone.
    COORDINATOR_MEMBERS: Vec<String> = "coordinator.members", default("[]"),
        check(|members| are_addresses(members), "a list of HOST:PORT such as `a:6123,b:6123,c:6123`");

    /// Directory of the coordinator's log and snapshots, on a disk that survives the process. Not set: a temporary one, so that a
    /// coordinator that is alone forgets its jobs when it ends.
    COORDINATOR_DATA_DIR: Option<String> = "coordinator.data-dir";

    /// Time between two signs of life of the leader of a group to the other coordinators.
    COORDINATOR_HEARTBEAT_INTERVAL: Duration = "coordinator.heartbeat-interval", default("150 ms"),
        check(|interval| (10..=60_000).contains(&interval.as_millis()), "a duration from 10 ms to 1 min");

    /// Silence of the leader after which the other coordinators choose a new one: each waits for this long, and at most for twice
    /// as long. Several times the heartbeat interval.
    COORDINATOR_ELECTION_TIMEOUT: Duration = "coordinator.election-timeout", default("600 ms"),
        check(|timeout| (50..=600_000).contains(&timeout.as_millis()), "a duration from 50 ms to 10 min");

    /// Size of the coordinators' log at which a snapshot of the state takes its place.
    COORDINATOR_SNAPSHOT_LOG_SIZE: MemorySize = "coordinator.snapshot.log-size", default("16 mb"),
        check(|size| size.bytes() > 0, "a memory size above 0");

    /// Number of entries of the coordinators' log at which a snapshot of the state takes its place.
    COORDINATOR_SNAPSHOT_LOG_ENTRIES: u32 = "coordinator.snapshot.log-entries", default("10000"),
        check(checks::at_least_one, checks::AT_LEAST_ONE);

    /// Largest program that is stored.
    COORDINATOR_PROGRAMS_MAX_SIZE: MemorySize = "coordinator.programs.max-size", default("1 gb");

    /// Size of all stored programs at which those longest unused are removed. What a job that is not over needs stays, and what
    /// was used within the last hour.
    COORDINATOR_PROGRAMS_TOTAL_SIZE: MemorySize = "coordinator.programs.total-size", default("20 gb"),
        check(|size| size.bytes() > 0, "a memory size above 0");
}
