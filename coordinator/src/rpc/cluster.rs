//! What a caller may call: hello, and once it is let in, what belongs to members of the cluster.

use std::rc::Rc;

use capnp_rpc::new_client;
use flott_schema::error::Error;
use flott_schema::ids::WorkerId;
use flott_schema::job::ProgramDigest;
use flott_schema::security::CONTROL_PROTOCOL;
use flott_schema::wire::fields::{array, list, required, text};
use flott_schema::wire::generated::control_capnp::{cluster, coordinator};
use tokio::task::{JoinError, spawn_blocking, spawn_local};

use super::connection::Caller;
use super::server::Server;
use super::session::{Admission, Application, admit};

/// Most bytes of a program in one answer.
const PROGRAM_PART_BYTES_MAX: u32 = 4 << 20;

/// The object that everyone who reaches the port may call.
pub(super) struct Bootstrap {
    pub server: Rc<Server>,
    pub caller: Rc<Caller>,
}

impl coordinator::Server for Bootstrap {
    async fn connect(
        self: Rc<Self>,
        params: coordinator::ConnectParams,
        mut results: coordinator::ConnectResults,
    ) -> capnp::Result<()> {
        let hello = params.get()?.get_hello()?;
        let (protocol, offered) = (hello.get_protocol(), text("token", hello.get_token()).map_err(failed)?);
        let version = text("version", hello.get_version()).map_err(failed)?;
        let refusal = if protocol != CONTROL_PROTOCOL {
            Some(format!(
                "it speaks protocol {protocol} (Flott {version}) and this coordinator {CONTROL_PROTOCOL} (Flott {}); run the \
                 same version of Flott everywhere",
                env!("CARGO_PKG_VERSION")
            ))
        } else if !self.server.options.token.admits(&offered) {
            Some(match offered.is_empty() {
                true => "it gave no token; set security.token as on the coordinators".to_string(),
                false => "its token is another one; set security.token as on the coordinators".to_string(),
            })
        } else {
            None
        };
        if let Some(reason) = refusal {
            self.server.refuse(&self.caller, &reason);
            self.caller.part();
            return Err(capnp::Error::failed(reason));
        }
        self.caller.admitted.set(true);
        let member = Member { server: self.server.clone(), caller: self.caller.clone() };
        results.get().set_cluster(new_client(member));
        Ok(())
    }
}

/// The object that members of the cluster may call.
struct Member {
    server: Rc<Server>,
    caller: Rc<Caller>,
}

impl cluster::Server for Member {
    async fn register(
        self: Rc<Self>,
        params: cluster::RegisterParams,
        mut results: cluster::RegisterResults,
    ) -> capnp::Result<()> {
        let application = {
            let form = params.get()?;
            Application {
                profile: required("profile", form.has_profile(), form.get_profile()).map_err(failed)?,
                previous: Some(form.get_previous()).filter(|id| *id != 0).map(WorkerId),
                tasks: list("tasks", form.get_tasks()).map_err(failed)?,
                client: form.get_worker()?,
            }
        };
        if self.caller.registered.replace(true) {
            return Err(capnp::Error::failed("this connection has a worker already".into()));
        }
        // Runs on when the caller hangs up, so that what was begun is taken back.
        let admission = spawn_local(admit(self.server.clone(), self.caller.clone(), application)).await;
        let admission = match admission {
            Ok(Ok(admission)) => admission,
            Ok(Err(error)) => {
                self.caller.registered.set(false);
                return Err(capnp::Error::overloaded(error.to_string()));
            }
            Err(error) => return Err(capnp::Error::failed(error.to_string())),
        };
        let mut form = results.get().init_registration();
        match admission {
            Admission::Accepted { worker, term, session } => {
                let options = &self.server.options;
                let mut form = form.init_accepted();
                form.set_worker(worker.0);
                form.set_term(term);
                form.set_heartbeat_interval_ms(options.heartbeat_interval_ms);
                form.set_heartbeat_timeout_ms(options.heartbeat_timeout_ms);
                form.set_session(session);
            }
            Admission::NotLeader(leader) => {
                self.caller.registered.set(false);
                form.init_not_leader().set_leader(&leader);
            }
            Admission::Refused(reason) => {
                self.server.refuse(&self.caller, &reason);
                self.caller.part();
                form.set_refused(&reason);
            }
        }
        Ok(())
    }

    async fn raft(
        self: Rc<Self>,
        _: cluster::RaftParams,
        mut results: cluster::RaftResults,
    ) -> capnp::Result<()> {
        let Some(peer) = self.server.peer.clone() else {
            return Err(capnp::Error::failed(
                "this coordinator is alone: coordinator.members names no others".into(),
            ));
        };
        results.get().set_peer(peer);
        Ok(())
    }

    async fn read_program(
        self: Rc<Self>,
        params: cluster::ReadProgramParams,
        mut results: cluster::ReadProgramResults,
    ) -> capnp::Result<()> {
        let form = params.get()?;
        let digest = ProgramDigest(array("digest", form.get_digest()).map_err(failed)?);
        let (offset, length_max) = (form.get_offset(), form.get_length().min(PROGRAM_PART_BYTES_MAX));
        let programs = self.server.programs.clone();
        let read = move || match programs.is_here(digest) {
            true => Some(programs.read(digest, offset, length_max)),
            false => None,
        };
        let broken = |error: JoinError| capnp::Error::failed(error.to_string());
        let part = match spawn_blocking(read.clone()).await.map_err(broken)? {
            Some(part) => part,
            None => {
                // It came while this coordinator was away. The fetch goes on when the worker does not wait.
                let _ = spawn_local(self.server.programs.fetch(digest)).await;
                let programs = self.server.programs.clone();
                let read = move || programs.read(digest, offset, length_max);
                spawn_blocking(read).await.map_err(broken)?
            }
        };
        let part = part.map_err(failed)?;
        let mut form = results.get();
        form.set_part(&part.bytes);
        form.set_size(part.size);
        Ok(())
    }
}

/// An error as it goes back to the caller.
pub(super) fn failed(error: Error) -> capnp::Error {
    capnp::Error::failed(error.to_string())
}
