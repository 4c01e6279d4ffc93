//! The replicated journal: what the service proposes goes through openraft, what is committed comes back.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flott_schema::control::TaskFailure;
use flott_schema::error::Result as SchemaResult;
use flott_schema::stable_hash::stable_hash;
use openraft::error::{InitializeError, RaftError};
use openraft::{BasicNode, RaftMetrics, ServerState};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::error::JournalError;
use super::log_store::LogStore;
use super::network::Network;
use super::options::RaftOptions;
use super::server::{Member, RestAddresses};
use super::state_machine::{Order, StateMachine};
use super::store::Store;
use super::types::{MARK, Proposal, Raft};
use crate::journal::{Journal, LeaderAddresses, Notice, Role};
use crate::machine::Event;
use crate::machine::persist::encode_event;

/// Committed groups that may wait for the service's loop; then openraft waits.
const ORDERS_MAX: usize = 64;
/// Bytes of an event without texts and lists in the log, at most.
const SMALL_EVENT_BYTES: usize = 256;
/// How long the end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// A member's journal. It lives in the service's loop.
pub struct RaftJournal {
    raft: Raft,
    id: u64,
    /// Tells this process from others, also from one that was this member before.
    proposer: u64,
    role: Role,
    /// The term whose mark was proposed.
    marked: Option<u64>,
    orders: mpsc::Receiver<Order>,
    /// What came before the service's loop ran.
    early: VecDeque<Notice>,
    under_way: Option<UnderWay>,
    metrics: watch::Receiver<RaftMetrics<u64, BasicNode>>,
    rest_addresses: RestAddresses,
    rest_changed: watch::Receiver<BTreeMap<u64, String>>,
    store: Weak<Store>,
    sync_count: Arc<AtomicU64>,
    closed: watch::Receiver<()>,
    options: RaftOptions,
    snapshot_asked: bool,
    is_broken: bool,
}

/// A proposal that openraft works on.
struct UnderWay {
    proposal: u64,
    /// Whether it was taken.
    taken: Pin<Box<oneshot::Receiver<bool>>>,
}

impl fmt::Debug for RaftJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftJournal").field("id", &self.id).field("role", &self.role).finish_non_exhaustive()
    }
}

impl RaftJournal {
    /// Opens the log and joins the group. The other members are called through `network`; their calls are answered by
    /// the [`Member`], which is to be served on the control port. Needs a tokio runtime, on which openraft's tasks run.
    pub async fn start(options: RaftOptions, network: Network) -> Result<(Self, Member), JournalError> {
        let group = options.group()?;
        let id = options.id()?;
        let config = options.config()?;
        let directory = options.directory.clone();
        // All records are read and checked.
        let (store, closed) = tokio::task::spawn_blocking(move || Store::open(&directory))
            .await
            .map_err(|error| JournalError::Raft(error.to_string()))??;
        let (orders, mut waiting) = mpsc::channel(ORDERS_MAX);
        let (machine, state) = StateMachine::open(store.clone(), orders)?;
        let mut early = VecDeque::new();
        if let Some(state) = state {
            // Nobody waits until it is in place: it comes first.
            early.push_back(Notice::Restore(Box::new(state), oneshot::channel().0));
        }
        let (weak, sync_count) = (Arc::downgrade(&store), store.sync_count());
        let proposer = new_proposer(id);
        let raft = {
            let starting = Raft::new(id, config, network, LogStore::new(store), machine);
            let mut starting = std::pin::pin!(starting);
            // The committed part of the log is applied before openraft has started.
            loop {
                tokio::select! {
                    biased;
                    raft = &mut starting => break raft.map_err(|error| JournalError::Raft(error.to_string()))?,
                    Some(order) = waiting.recv() => early.push_back(replayed(order)),
                }
            }
        };
        let rest_addresses = RestAddresses::new();
        let member = Member::new(raft.clone(), rest_addresses.clone());
        let journal = RaftJournal {
            id,
            proposer,
            role: Role::Follower { leader: None },
            marked: None,
            orders: waiting,
            early,
            under_way: None,
            metrics: raft.metrics(),
            rest_changed: rest_addresses.watch(),
            rest_addresses,
            store: weak,
            sync_count,
            closed,
            options,
            snapshot_asked: false,
            is_broken: false,
            raft,
        };
        journal.join(group).await?;
        Ok((journal, member))
    }

    /// Forms the group if this member is new, else checks that it is the group that was formed once.
    async fn join(&self, group: Vec<(u64, String)>) -> Result<(), JournalError> {
        let failed = |error: &dyn fmt::Display| JournalError::Raft(error.to_string());
        if !self.raft.is_initialized().await.map_err(|error| failed(&error))? {
            let nodes: BTreeMap<u64, BasicNode> =
                group.iter().map(|(id, address)| (*id, BasicNode::new(address))).collect();
            // One member forms the group, and the others hear of it; the next one does if nobody has. A member that
            // stands for election while a leader is there already would make it step down.
            let rank = group.iter().take_while(|(id, _)| *id != self.id).count() as u32;
            match rank {
                0 => form(&self.raft, nodes).await?,
                _ => {
                    let patience = Duration::from_millis(2 * self.options.election_timeout_max_ms()) * rank;
                    let raft = self.raft.clone();
                    tokio::spawn(async move {
                        sleep(patience).await;
                        if let Err(error) = form(&raft, nodes).await {
                            tracing::warn!(%error, "the group was not formed");
                        }
                    });
                }
            }
        }
        let membership = self.raft.metrics().borrow().membership_config.clone();
        let mut formed: Vec<u64> = membership.voter_ids().collect();
        let mut named: Vec<u64> = group.iter().map(|(id, _)| *id).collect();
        formed.sort_unstable();
        named.sort_unstable();
        if !formed.is_empty() && formed != named {
            let addresses: Vec<_> = membership.nodes().map(|(_, node)| node.addr.clone()).collect();
            return Err(JournalError::Members(format!(
                "the log in '{}' is that of a group of {}: {}; name the same members, or use another directory",
                self.options.directory.display(),
                formed.len(),
                addresses.join(", ")
            )));
        }
        if let [alone] = group.as_slice()
            && alone.0 == self.id
        {
            // Nobody else can be the leader; no need to wait for one.
            self.raft.trigger().elect().await.map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// Counts how often the disk was waited for.
    pub fn sync_count(&self) -> Arc<AtomicU64> {
        self.sync_count.clone()
    }

    fn take_order(&mut self, order: Order) -> Option<Notice> {
        match order {
            Order::Apply { proposer, number: MARK, term, .. } => {
                let leads = proposer == self.proposer && self.marked == Some(term);
                // A second mark of the term changes nothing.
                if leads { self.change(Role::Leader { term }) } else { None }
            }
            Order::Apply { proposer, number, events, .. } => {
                self.cut_log();
                let proposal = (proposer == self.proposer).then_some(number);
                // The word that it was taken may come later than the next proposal.
                self.under_way.take_if(|under_way| proposal == Some(under_way.proposal));
                Some(Notice::Committed { proposal, events })
            }
            Order::Capture(reply) => Some(Notice::Capture(reply)),
            Order::Restore(state, done) => Some(Notice::Restore(state, done)),
        }
    }

    /// Asks for a snapshot when the log has become long.
    fn cut_log(&mut self) {
        let Some(store) = self.store.upgrade() else { return };
        let is_long = store.log_bytes() > self.options.snapshot_log_bytes;
        if std::mem::replace(&mut self.snapshot_asked, is_long) != is_long && is_long {
            let raft = self.raft.clone();
            tokio::spawn(async move { raft.trigger().snapshot().await });
        }
    }

    /// What openraft says about who leads.
    fn look(&mut self) -> Option<Notice> {
        let metrics = self.metrics.borrow_and_update().clone();
        if let Err(fatal) = &metrics.running_state {
            self.is_broken = true;
            return Some(Notice::Broken(fatal.to_string()));
        }
        let is_heard = metrics
            .millis_since_quorum_ack
            .is_none_or(|silence| silence <= 2 * self.options.election_timeout_max_ms());
        let leads =
            metrics.state == ServerState::Leader && metrics.current_leader == Some(self.id) && is_heard;
        if leads {
            return self.begin_term(metrics.current_term);
        }
        self.marked = None;
        let leader = metrics.current_leader.filter(|leader| *leader != self.id).map(|leader| {
            let node = metrics.membership_config.membership().get_node(&leader);
            LeaderAddresses {
                control: node.map(|node| node.addr.clone()).unwrap_or_default(),
                rest: self.rest_addresses.of(leader),
            }
        });
        self.change(Role::Follower { leader })
    }

    fn begin_term(&mut self, term: u64) -> Option<Notice> {
        if self.marked == Some(term) {
            return None;
        }
        self.marked = Some(term);
        let raft = self.raft.clone();
        let mark = Proposal { proposer: self.proposer, number: MARK, events: Vec::new() };
        // If it is not taken, another one leads, and the metrics will say so.
        tokio::spawn(async move { raft.client_write(mark).await.is_ok() });
        self.change(Role::Follower { leader: None })
    }

    fn change(&mut self, role: Role) -> Option<Notice> {
        (self.role != role).then(|| {
            if role.term().is_none() {
                // The service has given up what was under way, and may propose at once when this one leads again.
                self.under_way = None;
            }
            self.role = role.clone();
            Notice::Role(role)
        })
    }
}

/// Forms the group, unless it is formed already.
async fn form(raft: &Raft, nodes: BTreeMap<u64, BasicNode>) -> Result<(), JournalError> {
    match raft.initialize(nodes).await {
        Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(error) => Err(JournalError::Raft(error.to_string())),
    }
}

/// What an order of the time before the service's loop means.
fn replayed(order: Order) -> Notice {
    match order {
        Order::Apply { events, .. } => Notice::Committed { proposal: None, events },
        Order::Capture(reply) => Notice::Capture(reply),
        Order::Restore(state, done) => Notice::Restore(state, done),
    }
}

/// A number that no process had before.
fn new_proposer(id: u64) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    stable_hash(&(id, since_epoch.as_nanos() as u64, std::process::id()))
}

impl Journal for RaftJournal {
    fn role(&self) -> Role {
        self.role.clone()
    }

    fn size_of(&self, event: &Event) -> SchemaResult<usize> {
        Ok(match event {
            // Thousands of them come at once: their form is known.
            Event::TaskStateChanged { failure, .. } => {
                let text = |failure: &TaskFailure| {
                    failure.vertex.len()
                        + failure.message.len()
                        + failure.backtrace.as_ref().map_or(0, String::len)
                };
                SMALL_EVENT_BYTES + failure.as_ref().map_or(0, text)
            }
            Event::WorkerLost { .. }
            | Event::CancelRequested { .. }
            | Event::SlotWaitExpired { .. }
            | Event::RestartDelayExpired { .. }
            | Event::CheckpointCompleted { .. }
            | Event::ClaimEnded { .. }
            | Event::ProgramRemoved { .. } => SMALL_EVENT_BYTES,
            Event::CheckpointFailed { reason, .. } => SMALL_EVENT_BYTES + reason.len(),
            Event::LastSnapshot { snapshot, .. } if snapshot.operators.is_empty() => SMALL_EVENT_BYTES,
            Event::WorkerRegistered { .. }
            | Event::WorkerReturned { .. }
            | Event::JobSubmitted { .. }
            | Event::CheckpointRequested { .. }
            | Event::LastSnapshot { .. }
            | Event::SavepointDisposed { .. }
            | Event::ProgramStored { .. } => encode_event(event)?.len(),
        })
    }

    fn propose(&mut self, proposal: u64, events: Vec<Event>) -> Option<Vec<Event>> {
        debug_assert!(self.under_way.is_none() && proposal != MARK);
        let (tell, taken) = oneshot::channel();
        self.under_way = Some(UnderWay { proposal, taken: Box::pin(taken) });
        let encoded: Result<Vec<_>, _> = events.iter().map(encode_event).collect();
        match encoded {
            Ok(events) => {
                let entry = Proposal { proposer: self.proposer, number: proposal, events };
                let raft = self.raft.clone();
                tokio::spawn(async move {
                    let taken = raft.client_write(entry).await;
                    if let Err(error) = &taken {
                        tracing::debug!(%error, proposal, "proposal not taken");
                    }
                    let _ = tell.send(taken.is_ok());
                });
            }
            Err(error) => {
                tracing::error!(%error, "an event cannot be stored");
                let _ = tell.send(false);
            }
        }
        None
    }

    async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.early.pop_front() {
                return notice;
            }
            if self.is_broken {
                std::future::pending::<()>().await;
            }
            let taken = async {
                match &mut self.under_way {
                    Some(under_way) => under_way.taken.as_mut().await.unwrap_or(false),
                    None => std::future::pending().await,
                }
            };
            // What was applied comes before the word that it was taken.
            let notice = tokio::select! {
                biased;
                Some(order) = self.orders.recv() => self.take_order(order),
                is_taken = taken => {
                    let proposal = self.under_way.take().map(|under_way| under_way.proposal);
                    proposal.filter(|_| !is_taken).map(|proposal| Notice::Refused { proposal })
                }
                changed = self.metrics.changed() => match changed {
                    Ok(()) => self.look(),
                    Err(_) => {
                        self.is_broken = true;
                        Some(Notice::Broken("openraft has ended".to_string()))
                    }
                },
                Ok(()) = self.rest_changed.changed() => self.look(),
            };
            if let Some(notice) = notice {
                return notice;
            }
        }
    }

    async fn close(&mut self) {
        // Who applies must not wait for a loop that has ended.
        self.orders.close();
        while self.orders.try_recv().is_ok() {}
        self.early.clear();
        let ending = async {
            let _ = self.raft.shutdown().await;
            // Its channel ends when the database has been closed.
            while self.closed.changed().await.is_ok() {}
        };
        if timeout(CLOSE_TIMEOUT, ending).await.is_err() {
            tracing::warn!("the log was not closed in time");
        }
    }
}
