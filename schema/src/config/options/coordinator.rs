//! Coordinators: their addresses, the group they form, and where they keep their log.

use crate::config::option::options;
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
}
