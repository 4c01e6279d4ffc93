//! Settings of a member of a group of coordinators.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flott_schema::config::{Configuration, options};
use flott_schema::error::Result;
use flott_schema::stable_hash::stable_hash;
use openraft::{Config, SnapshotPolicy};

use super::error::JournalError;
use super::network::Network;
use crate::programs::ProgramPeers;

/// Entries sent to another member at once.
const ENTRIES_AT_ONCE: u64 = 256;
/// Entries kept behind a snapshot, so that a member that was away for a moment needs no snapshot.
const ENTRIES_KEPT: u64 = 512;
/// Bytes of a snapshot sent at once.
const SNAPSHOT_PART_BYTES: u64 = 1 << 20;
/// Deadline for a part of a snapshot, of which the last is answered when the whole is in place.
const SNAPSHOT_PART_TIMEOUT_MS: u64 = 30_000;
/// Id of a coordinator that is alone, whatever its address.
const ALONE: u64 = 1;

/// Settings of a member.
#[derive(Clone, Debug)]
pub struct RaftOptions {
    /// Where its log is kept.
    pub directory: PathBuf,
    /// `host:port` under which the others reach it; one of `members` if there are any.
    pub address: String,
    /// All members; empty: this one alone.
    pub members: Vec<String>,
    /// Time between two signs of life of a leader.
    pub heartbeat_interval_ms: u64,
    /// Silence of the leader after which the others choose a new one: at least this long, at most twice as long.
    pub election_timeout_ms: u64,
    /// Size of the log at which a snapshot replaces it, roughly.
    pub snapshot_log_bytes: u64,
    /// Entries of the log at which a snapshot replaces it.
    pub snapshot_log_entries: u64,
}

impl RaftOptions {
    /// Settings for a local network.
    pub fn new(directory: impl Into<PathBuf>, address: impl Into<String>) -> Self {
        RaftOptions {
            directory: directory.into(),
            address: address.into(),
            members: Vec::new(),
            heartbeat_interval_ms: 150,
            election_timeout_ms: 600,
            snapshot_log_bytes: 16 << 20,
            snapshot_log_entries: 10_000,
        }
    }

    /// What `configuration` says. The log goes below `data_directory`.
    pub fn from_configuration(configuration: &Configuration, data_directory: &Path) -> Result<Self> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let host = configuration.get(&options::COORDINATOR_HOST)?;
        let port = configuration.get(&options::COORDINATOR_PORT)?.iter().next().unwrap_or_default();
        Ok(RaftOptions {
            members: configuration.get(&options::COORDINATOR_MEMBERS)?,
            heartbeat_interval_ms: millis(configuration.get(&options::COORDINATOR_HEARTBEAT_INTERVAL)?),
            election_timeout_ms: millis(configuration.get(&options::COORDINATOR_ELECTION_TIMEOUT)?),
            snapshot_log_bytes: configuration.get(&options::COORDINATOR_SNAPSHOT_LOG_SIZE)?.bytes(),
            snapshot_log_entries: u64::from(configuration.get(&options::COORDINATOR_SNAPSHOT_LOG_ENTRIES)?),
            ..RaftOptions::new(data_directory.join("log"), format!("{host}:{port}"))
        })
    }

    /// The longest wait before an election.
    pub(super) fn election_timeout_max_ms(&self) -> u64 {
        self.election_timeout_ms * 2
    }

    /// Id and address of each member. The id is made of the address, so that members need not be numbered by hand.
    pub(super) fn group(&self) -> Result<Vec<(u64, String)>, JournalError> {
        let mut members = self.members.clone();
        members.sort();
        if members.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(JournalError::Members(format!(
                "an address is named twice in {}",
                members.join(", ")
            )));
        }
        match members.len() {
            0 => Ok(vec![(ALONE, self.address.clone())]),
            1 => Ok(vec![(ALONE, members.remove(0))]),
            3 | 5 => Ok(members.into_iter().map(|address| (member_id(&address), address)).collect()),
            count => Err(JournalError::Members(format!(
                "{count} members are named; a group has one, three or five of them"
            ))),
        }
    }

    /// The own id.
    pub(super) fn id(&self) -> Result<u64, JournalError> {
        let group = self.group()?;
        match group.iter().find(|(_, address)| *address == self.address) {
            Some((id, _)) => Ok(*id),
            None => Err(JournalError::Members(format!(
                "this coordinator is '{}', which is none of them: {}; set coordinator.host and coordinator.port to the \
                 address under which the others name it",
                self.address,
                self.members.join(", ")
            ))),
        }
    }

    /// The way of programs to the other members, over the network that openraft uses too.
    pub fn program_peers(&self, network: &Network) -> Result<ProgramPeers, JournalError> {
        let id = self.id()?;
        let others: Vec<_> =
            self.group()?.into_iter().filter(|(other, _)| *other != id).map(|(_, address)| address).collect();
        match others.is_empty() {
            true => Ok(ProgramPeers::none()),
            false => Ok(ProgramPeers::new(id, network.clone(), others)),
        }
    }

    pub(super) fn config(&self) -> Result<Arc<Config>, JournalError> {
        let config = Config {
            cluster_name: "flott".to_string(),
            heartbeat_interval: self.heartbeat_interval_ms,
            election_timeout_min: self.election_timeout_ms,
            election_timeout_max: self.election_timeout_max_ms(),
            install_snapshot_timeout: SNAPSHOT_PART_TIMEOUT_MS,
            max_payload_entries: ENTRIES_AT_ONCE,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_log_entries),
            snapshot_max_chunk_size: SNAPSHOT_PART_BYTES,
            max_in_snapshot_log_to_keep: ENTRIES_KEPT.min(self.snapshot_log_entries),
            // A member that is further behind gets a snapshot.
            replication_lag_threshold: self.snapshot_log_entries,
            ..Config::default()
        };
        config.validate().map(Arc::new).map_err(|error| {
            JournalError::Members(format!("coordinator.election-timeout and heartbeat-interval: {error}"))
        })
    }
}

fn member_id(address: &str) -> u64 {
    stable_hash(address)
}
