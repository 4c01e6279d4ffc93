//! A whole worker process against a coordinator that the test plays over the real control protocol.

mod support;

use std::cell::RefCell;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::twoparty::VatNetwork;
use capnp_rpc::{RpcSystem, new_client};
use flott_schema::control::{Order, Placement, TaskReport, TaskState, ToWorker, WorkerHost};
use flott_schema::ids::{JobId, SlotId, WorkerId};
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
    worker: WorkerId,
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
        accepted.set_worker(self.worker.0);
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
        let form = params.get()?;
        let mut reports: Vec<TaskReport> = fields::list("reports", form.get_reports()).unwrap();
        let mixed: Vec<flott_schema::control::Report> = fields::list("mixed", form.get_mixed()).unwrap();
        reports.extend(mixed.into_iter().filter_map(|report| match report {
            flott_schema::control::Report::Task(report) => Some(report),
            flott_schema::control::Report::LastSnapshot(_) => None,
        }));
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

fn start_worker(port: u16, folder: &Path) -> Process {
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

/// A worker process that has registered.
struct Registered {
    process: Process,
    profile: WorkerProfile,
    worker: worker::Client,
    saying: mpsc::Receiver<Said>,
    stats: Rc<RefCell<WorkerStats>>,
    reports: Vec<TaskReport>,
}

impl Registered {
    async fn start(id: WorkerId, folder: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let process = start_worker(listener.local_addr().unwrap().port(), folder);
        let (said, mut saying) = mpsc::channel(16);
        let stats = Rc::<RefCell<WorkerStats>>::default();
        let played = Played { worker: id, said, stats: stats.clone() };
        let (stream, _) = listener.accept().await.unwrap();
        let (read, write) = stream.into_split();
        let network = VatNetwork::new(read.compat(), write.compat_write(), Side::Server, Default::default());
        let bootstrap: coordinator::Client = new_client(played);
        spawn_local(RpcSystem::new(Box::new(network), Some(bootstrap.client)));
        let Some(Said::Registered(profile, worker)) = saying.recv().await else { panic!("no worker comes") };
        Registered { process, profile, worker, saying, stats, reports: Vec::new() }
    }

    async fn order(&self, message: ToWorker) {
        let mut request = self.worker.order_request();
        Order { term: 1, message }.write(request.get().init_order()).unwrap();
        request.send().promise.await.unwrap();
    }

    async fn until(&mut self, holds: impl Fn(&[TaskReport]) -> bool) {
        while !holds(&self.reports) {
            let Some(Said::Reports(more)) = self.saying.recv().await else { panic!("it registers again") };
            self.reports.extend(more);
        }
    }
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async { timeout(DEADLINE, test).await }).expect("it takes too long");
}

#[test]
fn a_worker_registers_runs_jobs_tells_how_they_do_and_ends_with_sigterm() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let mut one = Registered::start(support::WORKER, folder.path()).await;
        let profile = &one.profile;
        assert_eq!((profile.slots, profile.host.as_str()), (2, "127.0.0.1"));
        assert!(profile.name.starts_with(&profile.data_address), "{profile:?}");

        let (counting, endless) = (JobId(0xf10f_0001), JobId(0xf10f_0002));
        let target = folder.path().join("tally");
        let count = vec!["counts", target.to_str().unwrap()];
        for (job, arguments) in [(counting, count), (endless, vec!["endless"])] {
            one.order(support::deployment(job, &arguments, support::program().1).1).await;
        }
        let is_running = |report: &&TaskReport| report.job == endless && report.state == TaskState::Running;
        one.until(|reports| {
            ended(reports, counting).len() == 4 && reports.iter().filter(is_running).count() == 4
        })
        .await;
        assert!(ended(&one.reports, counting).iter().all(|report| report.state == TaskState::Finished));
        let stats = one.stats.clone();
        eventually(|| stats.borrow().usage.executors == 2).await;
        let records_in = || -> u64 {
            let stats = stats.borrow();
            stats.tasks.iter().filter(|task| task.job == counting).map(|task| task.records_in).sum()
        };
        eventually(|| records_in() == 1000).await;

        let listed = one.worker.list_logs_request().send().promise.await.unwrap();
        assert_eq!(listed.get().unwrap().get_files().unwrap().len(), 4);
        let mut request = one.worker.read_log_request();
        request.get().set_name(format!("flott-executor-{counting}-1.out"));
        request.get().set_length(1000);
        let answer = request.send().promise.await.unwrap();
        let text = String::from_utf8(answer.get().unwrap().get_part().unwrap().to_vec()).unwrap();
        assert!(text.contains("records"), "{text}");

        let id = one.process.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        eventually(|| one.process.0.try_wait().unwrap().is_some()).await;
        assert!(one.process.0.wait().unwrap().success());
        assert!(executors_of(counting).is_empty() && executors_of(endless).is_empty());
        let left = std::fs::read_dir(folder.path().join("tmp")).unwrap();
        let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1, "only the programs stay: {left:?}");
    });
}

#[test]
fn a_job_over_two_workers_exchanges_its_records_through_their_data_ports() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let (first, second) = (WorkerId(11), WorkerId(12));
        let mut workers = Vec::new();
        for id in [first, second] {
            workers.push(Registered::start(id, &folder.path().join(id.0.to_string())).await);
        }
        let job = JobId(0xf10f_0003);
        let target = folder.path().join("tally");
        let arguments = ["counts", target.to_str().unwrap()];
        let (_, order) = support::deployment(job, &arguments, support::program().1);
        let ToWorker::Deploy { spec, tasks, .. } = order else { panic!("no deployment") };
        // Subtask 0 of each vertex on the first worker, subtask 1 on the second.
        let place = |placement: Placement| {
            let worker = [first, second][placement.slot.index as usize];
            Placement { slot: SlotId { worker, index: 0 }, ..placement }
        };
        let peers: Arc<[Placement]> = tasks.into_iter().map(place).collect();
        let host = |(index, worker): (usize, WorkerId)| WorkerHost {
            worker,
            data_address: workers[index].profile.data_address.clone(),
        };
        let hosts: Arc<[WorkerHost]> = [first, second].into_iter().enumerate().map(host).collect();
        for (worker, id) in workers.iter().zip([first, second]) {
            let tasks = peers.iter().filter(|placement| placement.slot.worker == id).copied().collect();
            let (spec, peers, hosts) = (spec.clone(), peers.clone(), hosts.clone());
            worker.order(ToWorker::Deploy { job, spec, tasks, peers, hosts, restore: None }).await;
        }
        for worker in &mut workers {
            worker.until(|reports| ended(reports, job).len() == 2).await;
            let ended = ended(&worker.reports, job);
            assert!(ended.iter().all(|report| report.state == TaskState::Finished), "{ended:?}");
        }
        let tally = |subtask| -> u64 {
            std::fs::read_to_string(format!("{}.{subtask}", target.display())).unwrap().parse().unwrap()
        };
        assert_eq!(tally(0) + tally(1), 1000);
        assert!(tally(0) > 0 && tally(1) > 0);
        let stats = workers.iter().map(|worker| worker.stats.clone()).collect::<Vec<_>>();
        let crossed = |stats: &Rc<RefCell<WorkerStats>>| {
            stats.borrow().tasks.iter().any(|task| task.job == job && task.bytes_in > 0)
        };
        eventually(|| stats.iter().any(crossed)).await;
    });
}
