//! The member that others call: answers the calls of `RaftPeer` by asking openraft.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use flott_schema::job::ProgramDigest;
use flott_schema::wire::generated::raft_capnp as form;
use openraft::error::{InstallSnapshotError, RaftError};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, VoteRequest};
use tokio::sync::watch;

use super::codec;
use super::types::{Raft, Types};
use crate::programs::{ProgramError, Programs};

/// Where members answer clients, as they say while they lead.
#[derive(Clone, Debug)]
pub(super) struct RestAddresses {
    known: Arc<watch::Sender<BTreeMap<u64, String>>>,
}

impl RestAddresses {
    pub(super) fn new() -> Self {
        RestAddresses { known: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }

    pub(super) fn of(&self, member: u64) -> String {
        self.known.borrow().get(&member).cloned().unwrap_or_default()
    }

    pub(super) fn watch(&self) -> watch::Receiver<BTreeMap<u64, String>> {
        self.known.subscribe()
    }

    fn learn(&self, member: u64, address: &str) {
        self.known.send_if_modified(|known| {
            let is_new = known.get(&member).is_none_or(|known| known != address);
            if is_new {
                known.insert(member, address.to_string());
            }
            is_new
        });
    }
}

/// A member, to be served to others: [`Member::peer`] on the thread of the control port.
#[derive(Clone)]
pub struct Member {
    raft: Raft,
    rest_addresses: RestAddresses,
    programs: Option<Programs>,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Member").finish_non_exhaustive()
    }
}

impl Member {
    pub(super) fn new(raft: Raft, rest_addresses: RestAddresses) -> Self {
        Member { raft, rest_addresses, programs: None }
    }

    /// With the store of programs, which others fill and read.
    pub fn with_programs(self, programs: Programs) -> Self {
        Member { programs: Some(programs), ..self }
    }

    /// What `Cluster.raft` hands out. Only callers that have shown the cluster's token may get it.
    pub fn peer(&self) -> form::raft_peer::Client {
        capnp_rpc::new_client(PeerServer { member: self.clone() })
    }
}

struct PeerServer {
    member: Member,
}

fn refuse(error: impl std::fmt::Display) -> capnp::Error {
    capnp::Error::failed(error.to_string())
}

impl form::raft_peer::Server for PeerServer {
    async fn append(
        self: Rc<Self>,
        params: form::raft_peer::AppendParams,
        mut results: form::raft_peer::AppendResults,
    ) -> Result<(), capnp::Error> {
        let rpc = {
            let request = params.get()?.get_request()?;
            let vote = codec::read_vote(request.get_vote()?);
            let rest = request.get_rest_address()?.to_str()?;
            self.member.rest_addresses.learn(vote.leader_id.node_id, rest);
            let mut entries = Vec::new();
            for entry in request.get_entries()? {
                entries.push(codec::read_entry(entry).map_err(refuse)?);
            }
            let optional = |is_there: bool, id: capnp::Result<form::log_id::Reader<'_>>| match is_there {
                true => id.map(|id| Some(codec::read_log_id(id))),
                false => Ok(None),
            };
            AppendEntriesRequest::<Types> {
                vote,
                prev_log_id: optional(request.has_previous(), request.get_previous())?,
                entries,
                leader_commit: optional(request.has_committed(), request.get_committed())?,
            }
        };
        let answer = self.member.raft.append_entries(rpc).await;
        let mut reply = results.get().init_reply();
        match answer {
            Ok(AppendEntriesResponse::Success) => reply.set_success(()),
            Ok(AppendEntriesResponse::Conflict) => reply.set_conflict(()),
            Ok(AppendEntriesResponse::HigherVote(vote)) => {
                codec::write_vote(&vote, reply.init_higher_vote());
            }
            Ok(AppendEntriesResponse::PartialSuccess(Some(id))) => {
                codec::write_log_id(&id, reply.init_partial());
            }
            // Nothing of it matches: the same as to say that what came before is missing.
            Ok(AppendEntriesResponse::PartialSuccess(None)) => reply.set_conflict(()),
            Err(error) => reply.set_failed(error.to_string()),
        }
        Ok(())
    }

    async fn vote(
        self: Rc<Self>,
        params: form::raft_peer::VoteParams,
        mut results: form::raft_peer::VoteResults,
    ) -> Result<(), capnp::Error> {
        let rpc = {
            let params = params.get()?;
            let last_log_id = match params.has_last_log_id() {
                true => Some(codec::read_log_id(params.get_last_log_id()?)),
                false => None,
            };
            VoteRequest::new(codec::read_vote(params.get_vote()?), last_log_id)
        };
        let answer = self.member.raft.vote(rpc).await;
        let mut reply = results.get().init_reply();
        match answer {
            Ok(answer) => {
                let mut form = reply.init_answer();
                codec::write_vote(&answer.vote, form.reborrow().init_vote());
                form.set_granted(answer.vote_granted);
                if let Some(id) = &answer.last_log_id {
                    codec::write_log_id(id, form.init_last_log_id());
                }
            }
            Err(error) => reply.set_failed(error.to_string()),
        }
        Ok(())
    }

    async fn install_snapshot(
        self: Rc<Self>,
        params: form::raft_peer::InstallSnapshotParams,
        mut results: form::raft_peer::InstallSnapshotResults,
    ) -> Result<(), capnp::Error> {
        let rpc = {
            let part = params.get()?.get_part()?;
            InstallSnapshotRequest::<Types> {
                vote: codec::read_vote(part.get_vote()?),
                meta: codec::read_snapshot_meta(part.get_meta()?).map_err(refuse)?,
                offset: part.get_offset(),
                data: part.get_data()?.to_vec(),
                done: part.get_done(),
            }
        };
        let answer = self.member.raft.install_snapshot(rpc).await;
        let mut reply = results.get().init_reply();
        match answer {
            Ok(answer) => codec::write_vote(&answer.vote, reply.init_vote()),
            Err(RaftError::APIError(InstallSnapshotError::SnapshotMismatch(_))) => reply.set_start_again(()),
            Err(error) => reply.set_failed(error.to_string()),
        }
        Ok(())
    }

    async fn store_program(
        self: Rc<Self>,
        params: form::raft_peer::StoreProgramParams,
        mut results: form::raft_peer::StoreProgramResults,
    ) -> Result<(), capnp::Error> {
        let programs = self.programs()?;
        let params = params.get()?;
        let (from, offset, is_last) = (params.get_from(), params.get_offset(), params.get_done());
        let digest = digest(params.get_digest()?)?;
        let data = params.get_data()?.to_vec();
        // The last part waits for the disk.
        let taken = blocking(move || programs.take_part(from, digest, offset, &data, is_last)).await?;
        let mut reply = results.get().init_reply();
        match taken {
            Ok(is_complete) => reply.set_stored(is_complete),
            Err(error) => reply.set_failed(error.to_string()),
        }
        Ok(())
    }

    async fn read_program(
        self: Rc<Self>,
        params: form::raft_peer::ReadProgramParams,
        mut results: form::raft_peer::ReadProgramResults,
    ) -> Result<(), capnp::Error> {
        let programs = self.programs()?;
        let params = params.get()?;
        let (digest, offset, length) =
            (digest(params.get_digest()?)?, params.get_offset(), params.get_length());
        let read = blocking(move || programs.read(digest, offset, length)).await?;
        let mut reply = results.get().init_reply();
        match read {
            Ok((data, size)) => {
                let mut part = reply.init_part();
                part.set_data(&data);
                part.set_size(size);
            }
            Err(error) => reply.set_failed(error.to_string()),
        }
        Ok(())
    }
}

impl PeerServer {
    fn programs(&self) -> Result<Programs, capnp::Error> {
        self.member.programs.clone().ok_or_else(|| refuse("this coordinator keeps no programs"))
    }
}

/// Does on another thread what may wait for the disk.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ProgramError> + Send + 'static,
) -> Result<Result<T, ProgramError>, capnp::Error> {
    tokio::task::spawn_blocking(work).await.map_err(refuse)
}

fn digest(bytes: &[u8]) -> Result<ProgramDigest, capnp::Error> {
    bytes.try_into().map(ProgramDigest).map_err(|_| refuse("a SHA-256 has 32 bytes"))
}
