//! Where events become facts: they are committed here before the machine applies them.
//!
//! [`Journal`] is what the service knows of it. There are two: [`MemoryJournal`] of a coordinator that is alone and keeps
//! nothing (the embedded cluster), and the [replicated log](raft) of a group of coordinators. Who may call it: the service's
//! loop, which owns its journal. What must never happen here: a decision about a job, an effect on a worker.

mod memory;
pub mod raft;

use std::fmt::Debug;

use flott_schema::error::Result;
use tokio::sync::oneshot;

use crate::machine::{ClusterState, Event};

pub use memory::MemoryJournal;

/// Where the leader of a group is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderAddresses {
    /// `host:port` of its control port, for workers and coordinators.
    pub control: String,
    /// `host:port` of its REST API, for clients; empty while it is not known.
    pub rest: String,
}

/// What a coordinator is in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides and gives orders.
    Leader {
        /// Counts the leaders of the group; orders of an older term are refused by workers.
        term: u64,
    },
    /// It keeps the state, and answers questions about it.
    Follower {
        /// Who leads; nothing while that is being decided.
        leader: Option<LeaderAddresses>,
    },
}

impl Role {
    /// The term of a leader.
    pub fn term(&self) -> Option<u64> {
        match self {
            Role::Leader { term } => Some(*term),
            Role::Follower { .. } => None,
        }
    }
}

/// What a journal tells. Notices come in the order in which they are to be acted upon.
#[derive(Debug)]
pub enum Notice {
    /// Events are committed: apply them.
    Committed {
        /// The number of the proposal, when they were proposed here since the process started.
        proposal: Option<u64>,
        /// The events, in order.
        events: Vec<Event>,
    },
    /// A proposal was not taken, because another coordinator leads. It may be committed by that one nevertheless.
    Refused {
        /// The proposal.
        proposal: u64,
    },
    /// The role has changed. A leader has applied everything that was committed before it became one.
    Role(Role),
    /// A snapshot is wanted: hand over a copy of the state as it is now.
    Capture(oneshot::Sender<ClusterState>),
    /// What has been applied so far is outdated: here is the state of a snapshot, to go on from.
    Restore(Box<ClusterState>, oneshot::Sender<()>),
    /// The journal can commit nothing any more, for the reason given: the coordinator has to end.
    Broken(String),
}

/// Commits events. Every replica of a coordinator is told the same events in the same order.
pub trait Journal: Debug {
    /// What the coordinator is now.
    fn role(&self) -> Role;

    /// Bytes that the event takes in the log, roughly; nothing where nothing is stored. Fails if it cannot be stored.
    fn size_of(&self, event: &Event) -> Result<usize> {
        let _ = event;
        Ok(0)
    }

    /// Proposes events as one group, which is committed as a whole or not at all. Gives them back if they are committed
    /// already: apply them at once. Else a [`Notice`] follows, and until then nothing may be proposed. Only a leader may
    /// propose.
    fn propose(&mut self, proposal: u64, events: Vec<Event>) -> Option<Vec<Event>>;

    /// The next notice. Waits until there is one; a dropped future loses none.
    fn next(&mut self) -> impl Future<Output = Notice> + Send;

    /// Ends it: what is committed stays, nothing follows.
    fn close(&mut self) -> impl Future<Output = ()> + Send;
}
