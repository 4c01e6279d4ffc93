//! What a coordinator process is started with.

use std::path::PathBuf;

use flott::coordinator::{rest, rpc};
use flott::schema::config::{Configuration, options};
use flott::schema::security::{Token, check_binding};
use flott::{Error, Result};

/// A coordinator process, before it runs.
#[derive(Clone, Debug)]
pub struct CoordinatorProcess {
    /// The service of jobs.
    pub service: flott::coordinator::Options,
    /// The control port.
    pub control: rpc::Options,
    /// The REST API.
    pub rest: rest::Options,
    /// Where log, snapshots and programs are kept; nothing: in a directory that goes with the process.
    pub data: Option<PathBuf>,
    /// `host:port` under which workers and the other members reach the control port.
    pub address: String,
    /// All members of the group; empty: this one alone.
    pub members: Vec<String>,
    /// `host:port` under which clients reach the REST API.
    pub rest_address: String,
}

impl CoordinatorProcess {
    /// What the configuration says. Refuses to listen to other machines without a secret.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let token = Token::from_configuration(configuration, |path| std::fs::read_to_string(path))?;
        let control = rpc::Options::from_configuration(configuration, token.clone())?;
        check_binding(options::COORDINATOR_BIND_HOST.key(), &control.bind_host, &token)?;
        let mut rest = rest::Options::from_configuration(configuration)?;
        check_binding(options::REST_BIND_ADDRESS.key(), &rest.bind_address, &token)?;
        rest.token = token;
        rest.log_folder = configuration.get(&options::LOG_DIR)?.map(PathBuf::from);
        let host = configuration.get(&options::COORDINATOR_HOST)?;
        let members = configuration.get(&options::COORDINATOR_MEMBERS)?;
        let data = configuration.get(&options::COORDINATOR_DATA_DIR)?.map(PathBuf::from);
        if members.len() > 1 && data.is_none() {
            return Err(Error::configuration(format!(
                "a coordinator of a group needs a directory that survives it: set {}",
                options::COORDINATOR_DATA_DIR.key()
            )));
        }
        let port = control.ports.first().copied().unwrap_or_default();
        let rest_host = configuration.get(&options::REST_ADDRESS)?.unwrap_or_else(|| host.clone());
        let rest_port = configuration.get(&options::REST_PORT)?;
        let slot_wait = configuration.get(&options::SLOT_REQUEST_TIMEOUT)?;
        let service = flott::coordinator::Options {
            slot_wait_ms: u64::try_from(slot_wait.as_millis()).unwrap_or(u64::MAX),
            worker_return_ms: control.heartbeat_timeout_ms,
            ..flott::coordinator::Options::default()
        };
        Ok(CoordinatorProcess {
            service,
            address: address(&host, port),
            rest_address: address(&rest_host, rest_port),
            control,
            rest,
            data,
            members,
        })
    }
}

fn address(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pairs: &[&str]) -> Result<CoordinatorProcess> {
        CoordinatorProcess::from_configuration(&Configuration::from_pairs(pairs)?)
    }

    #[test]
    fn a_coordinator_is_what_its_configuration_says() {
        let process = process(&[
            "coordinator.host=far",
            "coordinator.port=7000",
            "rest.port=9000",
            "slot.request.timeout=2 s",
            "heartbeat.timeout=20 s",
            "coordinator.data-dir=/data",
        ])
        .unwrap();
        assert_eq!((process.address.as_str(), process.rest_address.as_str()), ("far:7000", "far:9000"));
        assert_eq!((process.service.slot_wait_ms, process.service.worker_return_ms), (2_000, 20_000));
        assert_eq!(process.data, Some(PathBuf::from("/data")));
    }

    #[test]
    fn other_machines_are_not_listened_to_without_a_secret() {
        for key in ["coordinator.bind-host", "rest.bind-address"] {
            let error = process(&[&format!("{key}=0.0.0.0")]).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("security.token"), "{error}");
            process(&[&format!("{key}=0.0.0.0"), "security.token=tell-nobody"]).unwrap();
        }
    }

    #[test]
    fn a_member_of_a_group_needs_a_directory() {
        let error = process(&["coordinator.members=a:1,b:1,c:1"]).unwrap_err().to_string();
        assert!(error.contains("coordinator.data-dir"), "{error}");
    }
}
