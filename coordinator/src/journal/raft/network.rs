//! Calls to the other members. openraft's futures run on any thread, Cap'n Proto's clients on one: calls cross in bounded
//! queues, to the thread that [`connect_peers`](super::connect_peers) started.

use std::time::Duration;

use flott_schema::job::ProgramDigest;
use openraft::error::{
    InstallSnapshotError, RPCError, RaftError, RemoteError, SnapshotMismatch, Unreachable,
};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
    VoteRequest, VoteResponse,
};
use openraft::{BasicNode, RaftNetwork, RaftNetworkFactory, SnapshotSegmentId};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::types::{LogId, Types, Vote};

/// Calls that may wait for the thread that carries them out.
const CALLS_MAX: usize = 256;
/// Pause before a member that could not be reached is called again.
const RETRY_MS: u64 = 100;
/// Deadline for a part of a program, of which the last is answered when the whole is on the disk.
const PROGRAM_TIMEOUT_MS: u64 = 30_000;

/// Why a call failed. The member is called again after a pause, whatever the reason: an answer that fails at once must
/// not be asked for without end.
#[derive(Clone, Debug, thiserror::Error)]
#[error("coordinator {address}: {reason}")]
pub(super) struct CallError {
    /// The address called.
    pub(super) address: String,
    /// What happened.
    pub(super) reason: String,
}

type Reply<T> = oneshot::Sender<Result<T, CallError>>;

/// A call on its way.
pub(super) enum Request {
    Append(Box<AppendEntriesRequest<Types>>, Reply<AppendEntriesResponse<u64>>),
    Vote(Box<VoteRequest<u64>>, Reply<VoteResponse<u64>>),
    /// Answered with nothing if the parts have to start again.
    Snapshot(Box<InstallSnapshotRequest<Types>>, Reply<Option<InstallSnapshotResponse<u64>>>),
    /// Answered with whether the program is complete there.
    StoreProgram(ProgramPart, Reply<bool>),
    /// Answered with the part and the size of the whole.
    ReadProgram {
        digest: ProgramDigest,
        offset: u64,
        length: u32,
        reply: Reply<(Vec<u8>, u64)>,
    },
}

/// A part of a program on its way to another member.
pub(super) struct ProgramPart {
    pub(super) from: u64,
    pub(super) digest: ProgramDigest,
    pub(super) offset: u64,
    pub(super) data: Vec<u8>,
    pub(super) is_last: bool,
}

impl Request {
    /// Nobody waits for the answer any more.
    pub(super) fn is_abandoned(&self) -> bool {
        match self {
            Request::Append(_, reply) => reply.is_closed(),
            Request::Vote(_, reply) => reply.is_closed(),
            Request::Snapshot(_, reply) => reply.is_closed(),
            Request::StoreProgram(_, reply) => reply.is_closed(),
            Request::ReadProgram { reply, .. } => reply.is_closed(),
        }
    }

    pub(super) fn fail(self, error: CallError) {
        match self {
            Request::Append(_, reply) => drop(reply.send(Err(error))),
            Request::Vote(_, reply) => drop(reply.send(Err(error))),
            Request::Snapshot(_, reply) => drop(reply.send(Err(error))),
            Request::StoreProgram(_, reply) => drop(reply.send(Err(error))),
            Request::ReadProgram { reply, .. } => drop(reply.send(Err(error))),
        }
    }
}

/// A call and whom it goes to.
pub(super) struct Call {
    pub(super) address: String,
    pub(super) request: Request,
}

/// Makes the callers that openraft asks for.
#[derive(Clone, Debug)]
pub struct Network {
    calls: mpsc::Sender<Call>,
}

impl Network {
    /// A network, and the queue of its calls.
    pub(super) fn new() -> (Self, mpsc::Receiver<Call>) {
        let (calls, waiting) = mpsc::channel(CALLS_MAX);
        (Network { calls }, waiting)
    }
}

impl Network {
    async fn call<T>(
        &self,
        address: &str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, CallError> {
        self.begin(address, request).await?.await.map_err(|_| Self::ended(address))?
    }

    /// Hands a call over, and gives what its answer comes by.
    async fn begin<T>(
        &self,
        address: &str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<oneshot::Receiver<Result<T, CallError>>, CallError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { address: address.to_string(), request: request(reply) };
        self.calls.send(call).await.map_err(|_| Self::ended(address))?;
        Ok(answer)
    }

    fn ended(address: &str) -> CallError {
        let reason = "the thread that calls it has ended".to_string();
        CallError { address: address.to_string(), reason }
    }

    async fn call_in_time<T>(
        &self,
        address: &str,
        request: impl FnOnce(Reply<T>) -> Request,
    ) -> Result<T, String> {
        let limit = Duration::from_millis(PROGRAM_TIMEOUT_MS);
        match timeout(limit, self.call(address, request)).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("coordinator {address} did not answer within {PROGRAM_TIMEOUT_MS} ms")),
        }
    }

    /// Sends a part of a program; whether the program is complete there.
    pub(crate) async fn store_program(
        &self,
        address: &str,
        from: u64,
        digest: ProgramDigest,
        offset: u64,
        data: Vec<u8>,
        is_last: bool,
    ) -> Result<bool, String> {
        let part = ProgramPart { from, digest, offset, data, is_last };
        self.call_in_time(address, |reply| Request::StoreProgram(part, reply)).await
    }

    /// Reads a part of a program, and its size.
    pub(crate) async fn read_program(
        &self,
        address: &str,
        digest: ProgramDigest,
        offset: u64,
        length: u32,
    ) -> Result<(Vec<u8>, u64), String> {
        self.call_in_time(address, |reply| Request::ReadProgram { digest, offset, length, reply }).await
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Caller;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Caller {
        Caller { target, address: node.addr.clone(), network: self.clone(), sent: None }
    }
}

/// Calls one member.
#[derive(Debug)]
pub struct Caller {
    target: u64,
    address: String,
    network: Network,
    sent: Option<Sent>,
}

/// Entries on their way, which openraft gives up after a heartbeat interval, whatever their size, and sends again from the
/// start. The same entries once more wait for the answer to the first time.
#[derive(Debug)]
struct Sent {
    vote: Vote,
    previous: Option<LogId>,
    last: LogId,
    answer: oneshot::Receiver<Result<AppendEntriesResponse<u64>, CallError>>,
}

impl Caller {
    async fn append(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        let Some(last) = rpc.entries.last().map(|entry| entry.log_id) else {
            return self.network.call(&self.address, |reply| Request::Append(Box::new(rpc), reply)).await;
        };
        let (vote, previous) = (rpc.vote, rpc.prev_log_id);
        let is_same = |sent: &Sent| sent.vote == vote && sent.previous == previous && sent.last == last;
        if !self.sent.as_ref().is_some_and(is_same) {
            let answer =
                self.network.begin(&self.address, |reply| Request::Append(Box::new(rpc), reply)).await?;
            self.sent = Some(Sent { vote, previous, last, answer });
        }
        let outcome = match &mut self.sent {
            Some(sent) => (&mut sent.answer).await,
            None => unreachable!("just set"),
        };
        self.sent = None;
        outcome.map_err(|_| Network::ended(&self.address))?
    }

    fn error<E: std::error::Error>(error: CallError) -> RPCError<u64, BasicNode, RaftError<u64, E>> {
        RPCError::Unreachable(Unreachable::new(&error))
    }
}

impl RaftNetwork<Types> for Caller {
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        self.append(rpc).await.map_err(Self::error)
    }

    async fn install_snapshot(
        &mut self,
        rpc: InstallSnapshotRequest<Types>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RPCError<u64, BasicNode, RaftError<u64, InstallSnapshotError>>>
    {
        let got = SnapshotSegmentId { id: rpc.meta.snapshot_id.clone(), offset: rpc.offset };
        match self.network.call(&self.address, |reply| Request::Snapshot(Box::new(rpc), reply)).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                let expect = SnapshotSegmentId { id: got.id.clone(), offset: 0 };
                let mismatch = InstallSnapshotError::SnapshotMismatch(SnapshotMismatch { expect, got });
                Err(RPCError::RemoteError(RemoteError::new(self.target, RaftError::APIError(mismatch))))
            }
            Err(error) => Err(Self::error(error)),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, BasicNode, RaftError<u64>>> {
        self.network
            .call(&self.address, |reply| Request::Vote(Box::new(rpc), reply))
            .await
            .map_err(Self::error)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(Duration::from_millis(RETRY_MS)))
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::super::types::Entry;
    use super::*;

    fn entries(last: u64) -> AppendEntriesRequest<Types> {
        let log_id = |index| LogId::new(CommittedLeaderId::new(3, 1), index);
        let entry = |index| Entry { log_id: log_id(index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(3, 1),
            prev_log_id: None,
            entries: (0..=last).map(entry).collect(),
            leader_commit: None,
        }
    }

    #[tokio::test]
    async fn entries_that_were_given_up_are_not_sent_again_while_they_are_on_their_way() {
        let (mut network, mut calls) = Network::new();
        let mut caller = network.new_client(2, &BasicNode::new("there:1")).await;
        let short = Duration::from_millis(1);
        for _ in 0..3 {
            assert!(timeout(short, caller.append(entries(5))).await.is_err());
        }
        let first = calls.try_recv().unwrap();
        assert!(calls.try_recv().is_err());
        assert!(!first.request.is_abandoned());
        let Request::Append(_, reply) = first.request else { panic!("not an append") };
        reply.send(Ok(AppendEntriesResponse::Success)).unwrap();
        assert!(matches!(caller.append(entries(5)).await, Ok(AppendEntriesResponse::Success)));
        // Others are, and what they replace is nobody's any more.
        assert!(timeout(short, caller.append(entries(5))).await.is_err());
        let second = calls.try_recv().unwrap();
        assert!(timeout(short, caller.append(entries(6))).await.is_err());
        assert!(calls.try_recv().is_ok());
        assert!(second.request.is_abandoned());
    }
}
