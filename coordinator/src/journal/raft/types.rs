//! The types with which openraft is used.

use std::fmt;
use std::io::Cursor;

use openraft::{BasicNode, TokioRuntime};
use serde::{Deserialize, Serialize};

/// Number of a proposal that carries no events: a new leader commits it, and has applied all before it when it comes back.
pub(super) const MARK: u64 = 0;

/// Events that are committed together, each in the machine's stored form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// The process that proposed them.
    pub proposer: u64,
    /// Its number there, or [`MARK`].
    pub number: u64,
    /// The events.
    pub events: Vec<Vec<u8>>,
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proposal {} of {:016x} with {} events", self.number, self.proposer, self.events.len())
    }
}

openraft::declare_raft_types!(
    /// A group of coordinators, as openraft sees it.
    pub Types:
        D = Proposal,
        R = (),
        NodeId = u64,
        Node = BasicNode,
        Entry = openraft::Entry<Types>,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = TokioRuntime,
);

pub(super) type Entry = openraft::Entry<Types>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Membership = openraft::Membership<u64, BasicNode>;
pub(super) type Raft = openraft::Raft<Types>;
pub(super) type SnapshotMeta = openraft::SnapshotMeta<u64, BasicNode>;
pub(super) type StorageError = openraft::StorageError<u64>;
pub(super) type StoredMembership = openraft::StoredMembership<u64, BasicNode>;
pub(super) type Vote = openraft::Vote<u64>;
