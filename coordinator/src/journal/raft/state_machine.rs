//! The machine as openraft sees it. The state itself belongs to the service's loop; here committed entries are decoded and
//! handed to it, in order, and snapshots are taken of it and given to it.

use std::io::{self, Cursor};
use std::sync::Arc;

use openraft::storage::RaftStateMachine;
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, Snapshot, StorageIOError};
use tokio::sync::{mpsc, oneshot};

use super::error::JournalError;
use super::log_store::on_disk;
use super::store::Store;
use super::types::{Entry, LogId, SnapshotMeta, StorageError, StoredMembership, Types};
use crate::machine::persist::{decode_event, decode_state, encode_state};
use crate::machine::{ClusterState, Event};

/// What openraft wants done to the state, on its way to the service's loop.
#[derive(Debug)]
pub(super) enum Order {
    /// Apply these events.
    Apply {
        /// The process that proposed them.
        proposer: u64,
        /// Its number there.
        number: u64,
        /// The term in which they were proposed.
        term: u64,
        /// The events.
        events: Vec<Event>,
    },
    /// Give a copy of the state.
    Capture(oneshot::Sender<ClusterState>),
    /// Go on from this state.
    Restore(Box<ClusterState>, oneshot::Sender<()>),
}

/// openraft's hold on the state.
#[derive(Debug)]
pub struct StateMachine {
    store: Arc<Store>,
    orders: mpsc::Sender<Order>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

fn stopped() -> AnyError {
    AnyError::error("the coordinator has stopped")
}

fn any(error: impl std::error::Error + 'static) -> AnyError {
    AnyError::new(&error)
}

/// The state in a snapshot.
fn state_of(data: &[u8], name: &str) -> Result<ClusterState, JournalError> {
    decode_state(data)
        .map_err(|error| JournalError::Unreadable { record: name.to_string(), reason: error.to_string() })
}

impl StateMachine {
    /// Begins with the stored snapshot, which is the state given back; nothing: there is none.
    pub(super) fn open(
        store: Arc<Store>,
        orders: mpsc::Sender<Order>,
    ) -> Result<(Self, Option<ClusterState>), JournalError> {
        let (meta, data) = (store.snapshot_meta()?, store.snapshot_data()?);
        let state = match (&meta, data) {
            (Some(meta), Some(data)) => Some(state_of(&data, &format!("the snapshot {}", meta.snapshot_id))?),
            _ => None,
        };
        let meta = meta.unwrap_or_default();
        let machine =
            StateMachine { store, orders, last_applied: meta.last_log_id, membership: meta.last_membership };
        Ok((machine, state))
    }

    async fn give(&self, order: Order) -> Result<(), StorageIOError<u64>> {
        self.orders.send(order).await.map_err(|_| StorageIOError::write_state_machine(stopped()))
    }
}

impl RaftStateMachine<Types> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        for entry in entries {
            let log_id = entry.log_id;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(log_id), membership);
                }
                EntryPayload::Normal(proposal) => {
                    let events: Result<Vec<Event>, _> =
                        proposal.events.iter().map(|event| decode_event(event)).collect();
                    let events =
                        events.map_err(|error| StorageIOError::apply(log_id, AnyError::error(error)))?;
                    let (proposer, number) = (proposal.proposer, proposal.number);
                    let term = log_id.leader_id.term;
                    self.give(Order::Apply { proposer, number, term, events }).await?;
                }
            }
            self.last_applied = Some(log_id);
            replies.push(());
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        let (reply, state) = oneshot::channel();
        // If nobody answers, building the snapshot fails.
        let _ = self.give(Order::Capture(reply)).await;
        SnapshotBuilder {
            store: self.store.clone(),
            state: state.await.ok(),
            last_applied: self.last_applied,
            membership: self.membership.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::default())
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let data = snapshot.into_inner();
        let failed = |error: AnyError| StorageIOError::write_snapshot(Some(meta.signature()), error);
        let name = format!("the snapshot {} of the leader", meta.snapshot_id);
        let state = state_of(&data, &name).map_err(|error| failed(any(error)))?;
        let (saved, _) = save_aside(&self.store, meta, data).await.map_err(failed)?;
        on_disk(saved).await.map_err(|error| failed(any(error)))?;
        let (done, restored) = oneshot::channel();
        self.give(Order::Restore(Box::new(state), done)).await?;
        restored.await.map_err(|_| StorageIOError::write_state_machine(stopped()))?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Types>>, StorageError> {
        let read = || Ok((self.store.snapshot_meta()?, self.store.snapshot_data()?));
        match read().map_err(|error: JournalError| StorageIOError::read_snapshot(None, any(error)))? {
            (Some(meta), Some(data)) => Ok(Some(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })),
            _ => Ok(None),
        }
    }
}

/// Has a snapshot saved on a thread that may wait: the database makes who writes much wait for the disk.
async fn save_aside(
    store: &Arc<Store>,
    meta: &SnapshotMeta,
    data: Vec<u8>,
) -> Result<(oneshot::Receiver<io::Result<()>>, Vec<u8>), AnyError> {
    let (store, meta) = (store.clone(), meta.clone());
    let saving = tokio::task::spawn_blocking(move || store.save_snapshot(&meta, &data).map(|it| (it, data)));
    saving.await.map_err(any)?.map_err(any)
}

/// A copy of the state, on its way to the disk.
#[derive(Debug)]
pub struct SnapshotBuilder {
    store: Arc<Store>,
    state: Option<ClusterState>,
    last_applied: Option<LogId>,
    membership: StoredMembership,
}

impl RaftSnapshotBuilder<Types> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Types>, StorageError> {
        let failed = |error: AnyError| StorageIOError::write_snapshot(None, error);
        let state = self.state.take().ok_or_else(|| failed(stopped()))?;
        // A large state takes its time; the group has to go on meanwhile.
        let encoding = tokio::task::spawn_blocking(move || encode_state(&state));
        let data = encoding
            .await
            .map_err(|error| failed(any(error)))?
            .map_err(|error| failed(AnyError::error(error)))?;
        let place = self.last_applied.map_or("empty".to_string(), |id| {
            format!("{}-{}-{}", id.leader_id.term, id.leader_id.node_id, id.index)
        });
        let meta = SnapshotMeta {
            last_log_id: self.last_applied,
            last_membership: self.membership.clone(),
            snapshot_id: place,
        };
        let (saved, data) = save_aside(&self.store, &meta, data).await.map_err(failed)?;
        on_disk(saved).await.map_err(|error| failed(any(error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(data)) })
    }
}
