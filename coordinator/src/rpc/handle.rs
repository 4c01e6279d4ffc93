//! What the rest of the process says to the control port, and asks workers through it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flott_schema::answer::{FilePart, ProgramRun};
use flott_schema::error::{Error, ErrorKind, Result};
use flott_schema::ids::{JobId, WorkerId};
use flott_schema::job::ProgramRef;
use flott_schema::stats::LogFile;
use flott_schema::wire::fields::{list, text};
use flott_schema::wire::generated::control_capnp::{program_result, worker};
use flott_schema::wire::{Wire, broken, read_id};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::server::{Server, not_connected};
use super::stats::LiveStats;
use crate::live::AskWorkers;

/// Talks to the control port. Cheap to clone; when all clones are gone, the port is closed.
#[derive(Clone, Debug)]
pub struct RpcHandle {
    pub(super) address: SocketAddr,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) ended: watch::Receiver<()>,
    pub(super) stats: LiveStats,
    pub(super) refused: Arc<AtomicU64>,
    pub(super) ask_timeout_ms: u64,
    pub(super) program_timeout_ms: u64,
}

impl RpcHandle {
    /// The address that the port is bound to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The numbers that come with heartbeats.
    pub fn stats(&self) -> LiveStats {
        self.stats.clone()
    }

    /// How many callers were turned away.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Closes the port and all connections. Workers keep what they run and look for a coordinator.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until the port is closed.
    pub async fn ended(&self) {
        // Nothing is ever sent; the other end goes with the thread.
        let _ = self.ended.clone().changed().await;
    }

    fn ask<T: Send + 'static>(
        &self,
        worker: WorkerId,
        deadline_ms: u64,
        question: impl FnOnce(oneshot::Sender<Result<T>>) -> Question,
    ) -> BoxFuture<'static, Result<T>> {
        let (reply, answer) = oneshot::channel();
        let ask = Ask { worker, question: question(reply) };
        let asks = self.asks.clone();
        let gone = || Error::new(ErrorKind::Io, "the control port is closed");
        let work = async move {
            asks.send(ask).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        };
        let late = move |_| {
            let text = format!("worker {} has not answered within {deadline_ms} ms", worker.0);
            Err(Error::new(ErrorKind::Io, text))
        };
        Box::pin(async move { timeout(Duration::from_millis(deadline_ms), work).await.unwrap_or_else(late) })
    }
}

impl AskWorkers for RpcHandle {
    fn list_logs(&self, worker: WorkerId) -> BoxFuture<'static, Result<Vec<LogFile>>> {
        self.ask(worker, self.ask_timeout_ms, Question::ListLogs)
    }

    fn read_log(
        &self,
        worker: WorkerId,
        name: String,
        offset: u64,
        length_max: u32,
    ) -> BoxFuture<'static, Result<FilePart>> {
        self.ask(worker, self.ask_timeout_ms, |reply| Question::ReadLog { name, offset, length_max, reply })
    }

    fn run_program(
        &self,
        worker: WorkerId,
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
    ) -> BoxFuture<'static, Result<ProgramRun>> {
        self.ask(worker, self.program_timeout_ms, |reply| Question::RunProgram {
            program,
            rest_address,
            plan_only,
            reply,
        })
    }
}

/// A question to a worker.
pub(super) struct Ask {
    worker: WorkerId,
    question: Question,
}

enum Question {
    ListLogs(oneshot::Sender<Result<Vec<LogFile>>>),
    ReadLog {
        name: String,
        offset: u64,
        length_max: u32,
        reply: oneshot::Sender<Result<FilePart>>,
    },
    RunProgram {
        program: ProgramRef,
        rest_address: String,
        plan_only: bool,
        reply: oneshot::Sender<Result<ProgramRun>>,
    },
}

impl Ask {
    /// Asks the worker and answers, on the thread of the port. The call is given up when nobody waits for it any more.
    pub(super) async fn answer(self, server: &Server) {
        let session = server.sessions.borrow().get(&self.worker).cloned();
        let client = session.map(|session| session.client.clone()).ok_or_else(|| not_connected(self.worker));
        match self.question {
            Question::ListLogs(reply) => until_closed(reply, async { list_logs(client?).await }).await,
            Question::ReadLog { name, offset, length_max, reply } => {
                until_closed(reply, async { read_log(client?, &name, offset, length_max).await }).await;
            }
            Question::RunProgram { program, rest_address, plan_only, reply } => {
                let call = async { run_program(client?, &program, &rest_address, plan_only).await };
                until_closed(reply, call).await;
            }
        }
    }
}

async fn until_closed<T>(mut reply: oneshot::Sender<Result<T>>, call: impl Future<Output = Result<T>>) {
    let answer = tokio::select! {
        answer = call => answer,
        () = reply.closed() => return,
    };
    let _ = reply.send(answer);
}

async fn list_logs(worker: worker::Client) -> Result<Vec<LogFile>> {
    let response = worker.list_logs_request().send().promise.await.map_err(call_failed)?;
    list("files", response.get().map_err(broken)?.get_files())
}

async fn read_log(worker: worker::Client, name: &str, offset: u64, length_max: u32) -> Result<FilePart> {
    let mut request = worker.read_log_request();
    let mut form = request.get();
    form.set_name(name);
    form.set_offset(offset);
    form.set_length(length_max);
    let response = request.send().promise.await.map_err(call_failed)?;
    let form = response.get().map_err(broken)?;
    Ok(FilePart { bytes: form.get_part().map_err(broken)?.to_vec(), size: form.get_size() })
}

async fn run_program(
    worker: worker::Client,
    program: &ProgramRef,
    rest_address: &str,
    plan_only: bool,
) -> Result<ProgramRun> {
    let mut request = worker.run_program_request();
    let mut form = request.get();
    program.write(form.reborrow().init_program())?;
    form.set_rest_address(rest_address);
    form.set_plan_only(plan_only);
    let response = request.send().promise.await.map_err(call_failed)?;
    let form = response.get().and_then(|results| results.get_result()).map_err(broken)?;
    match form.which().map_err(|error| broken(error.into()))? {
        program_result::Submitted(jobs) => {
            let jobs = jobs.map_err(broken)?;
            Ok(ProgramRun::Submitted(jobs.iter().map(|job| JobId(read_id(job))).collect()))
        }
        program_result::Plan(plan) => Ok(ProgramRun::Plan(text("plan", plan)?)),
        program_result::Failed(reason) => Err(Error::user(text("failed", reason)?)),
    }
}

/// An error of a call as one of this process: what the worker said, without the words that the library puts in front.
fn call_failed(error: capnp::Error) -> Error {
    let said = if error.extra.is_empty() { error.to_string() } else { error.extra };
    let said = said.strip_prefix("remote exception: ").map(str::to_string).unwrap_or(said);
    Error::new(ErrorKind::Io, said)
}
