//! A whole worker process against a coordinator that the test plays over the real control protocol.

mod support;

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client};
use flott_schema::control::{Order, TaskReport, TaskState};
use flott_schema::ids::JobId;
use flott_schema::stats::{WorkerProfile, WorkerStats};
use flott_schema::wire::generated::control_capnp::{cluster, coordinator, worker, worker_session};
use flott_schema::wire::{Wire, fields};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;
use tokio_util::compat::{TokioAsyncReadCompatExt, TokioAsyncWriteCompatExt};

use support::{ended, eventually, executors_of};

const DEADLINE: Duration = Duration::from_secs(120);

/// What the worker has said.
enum Said {
    Registered(WorkerProfile, worker::Client),
    Reports(Vec<TaskReport>),
}

/// The bootstrap capability, the cluster and the session in one.
#[derive(Clone)]
struct Played {
    said: mpsc::Sender<Said>,
    stats: Rc<RefCell<WorkerStats>>,
}

impl coordinator::Server for Played {
    async fn connect(
        self: Rc<Self>,
        params: coordinator::ConnectParams,
        mut results: coordinator::ConnectResults,
    ) -> capnp::Result<()> {
        assert_eq!(params.get()?.get_hello()?.get_token()?.to_str()?, "long-enough?");
        results.get().set_cluster(new_client((*self).clone()));
        Ok(())
    }
}

impl cluster::Server for Played {
    async fn register(
        self: Rc<Self>,
        params: cluster::RegisterParams,
        mut results: cluster::RegisterResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let profile = WorkerProfile::read(params.get_profile()?).unwrap();
        let mut accepted = results.get().init_registration().init_accepted();
        accepted.set_worker(support::WORKER.0);
        accepted.set_term(1);
        accepted.set_heartbeat_interval_ms(50);
        accepted.set_heartbeat_timeout_ms(60_000);
        accepted.set_session(new_client((*self).clone()));
        let said = Said::Registered(profile, params.get_worker()?);
        self.said.send(said).await.map_err(|_| capnp::Error::failed("over".into()))
    }

    async fn read_program(
        self: Rc<Self>,
        params: cluster::ReadProgramParams,
        mut results: cluster::ReadProgramResults,
    ) -> capnp::Result<()> {
        let params = params.get()?;
        let (path, digest) = support::program();
        assert_eq!(params.get_digest()?, digest.0);
        let file = std::fs::File::open(path)?;
        let size = file.metadata()?.len();
        let length = (size - params.get_offset()).min(u64::from(params.get_length()));
        let mut part = vec![0; length as usize];
        file.read_exact_at(&mut part, params.get_offset())?;
        let mut answer = results.get();
        answer.set_part(&part);
        answer.set_size(size);
        Ok(())
    }
}

impl worker_session::Server for Played {
    async fn heartbeat(
        self: Rc<Self>,
        params: worker_session::HeartbeatParams,
        _results: worker_session::HeartbeatResults,
    ) -> capnp::Result<()> {
        *self.stats.borrow_mut() = WorkerStats::read(params.get()?.get_stats()?).unwrap();
        Ok(())
    }

    async fn report(
        self: Rc<Self>,
        params: worker_session::ReportParams,
        _results: worker_session::ReportResults,
    ) -> capnp::Result<()> {
        let reports = fields::list("reports", params.get()?.get_reports()).unwrap();
        self.said.send(Said::Reports(reports)).await.map_err(|_| capnp::Error::failed("over".into()))
    }
}

/// A worker process; killed when it is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_worker(port: u16, folder: &std::path::Path) -> Process {
    let child = Command::new(&support::program().0)
        .arg("is a worker")
        .args(["coordinator.host=127.0.0.1", "worker.slots=2", "security.token=long-enough?"])
        .arg(format!("coordinator.port={port}"))
        .arg(format!("io.tmp.dirs={}", folder.join("tmp").display()))
        .arg(format!("env.log.dir={}", folder.join("log").display()))
        .stdin(Stdio::null())
        .spawn();
    Process(child.unwrap())
}

#[test]
fn a_worker_registers_runs_jobs_tells_how_they_do_and_ends_with_sigterm() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let body = async {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut process = start_worker(listener.local_addr().unwrap().port(), folder.path());
        let (said, mut saying) = mpsc::channel(16);
        let played = Played { said, stats: Rc::default() };
        let stats = played.stats.clone();
        let (stream, _) = listener.accept().await.unwrap();
        let (read, write) = stream.into_split();
        let network = VatNetwork::new(read.compat(), write.compat_write(), Side::Server, Default::default());
        let bootstrap: coordinator::Client = new_client(played);
        spawn_local(RpcSystem::new(Box::new(network), Some(bootstrap.client)));

        let Some(Said::Registered(profile, worker)) = saying.recv().await else { panic!("no worker comes") };
        assert_eq!((profile.slots, profile.host.as_str()), (2, "127.0.0.1"));
        assert!(profile.name.starts_with(&profile.data_address), "{profile:?}");
        tokio::net::TcpStream::connect(&profile.data_address).await.unwrap();

        let (counting, endless) = (JobId(0xf10f_0001), JobId(0xf10f_0002));
        let target = folder.path().join("tally");
        for (job, arguments) in
            [(counting, vec!["counts", target.to_str().unwrap()]), (endless, vec!["endless"])]
        {
            let (_, message) = support::deployment(job, &arguments, support::program().1);
            let mut request = worker.order_request();
            Order { term: 1, message }.write(request.get().init_order()).unwrap();
            request.send().promise.await.unwrap();
        }
        let mut reports = Vec::new();
        let is_running = |report: &&TaskReport| report.job == endless && report.state == TaskState::Running;
        while ended(&reports, counting).len() < 4 || reports.iter().filter(is_running).count() < 4 {
            let Some(Said::Reports(more)) = saying.recv().await else { panic!("the worker registers again") };
            reports.extend(more);
        }
        assert!(ended(&reports, counting).iter().all(|report| report.state == TaskState::Finished));
        eventually(|| stats.borrow().usage.executors == 2).await;

        let listed = worker.list_logs_request().send().promise.await.unwrap();
        let files = listed.get().unwrap().get_files().unwrap();
        assert_eq!(files.len(), 4);
        let mut request = worker.read_log_request();
        request.get().set_name(format!("flott-executor-{counting}-1.out"));
        request.get().set_length(1000);
        let answer = request.send().promise.await.unwrap();
        let text = String::from_utf8(answer.get().unwrap().get_part().unwrap().to_vec()).unwrap();
        assert!(text.contains("records"), "{text}");

        let id = process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually(|| process.0.try_wait().unwrap().is_some()).await;
        assert!(process.0.wait().unwrap().success());
        assert!(executors_of(counting).is_empty() && executors_of(endless).is_empty());
        let left = std::fs::read_dir(folder.path().join("tmp")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "only the programs stay: {left:?}");
    };
    LocalSet::new().block_on(&runtime, async { timeout(DEADLINE, body).await }).expect("it takes too long");
}
