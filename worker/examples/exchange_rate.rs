//! A keyed sum in one executor, and the same over two that exchange their records over TCP: events per CPU-second of each.
//!
//! `nice -n -10 cargo run --release -p flott-worker --example exchange_rate [EVENTS [local|split|split lz4|split zstd|mixed]]`,
//! on a machine that has nothing else to do. Both executors are in this process, so its CPU time is that of both, with all
//! that the kernel does for the connection. *split*: the sources in one executor, the sums in the other, so that every record
//! crosses; *mixed*: both in both, so that half of them do.
//!
//! It stands here and not in `benches/`, which builds the whole of Flott with RocksDB: this builds the worker alone.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use flott_dataflow::api::StreamEnv;
use flott_dataflow::batch::Batch;
use flott_dataflow::context::OperatorContext;
use flott_dataflow::program::{Program, RuntimeMode};
use flott_dataflow::sink::{NothingToCommit, Sink, SinkWriter};
use flott_dataflow::source::{Assignment, Boundedness, ReadBatch, Source, SourceReader, SplitEnumerator};
use flott_schema::control::{Placement, TaskState, ToCoordinator, ToWorker, WorkerHost};
use flott_schema::ids::{AttemptId, JobId, SlotId, TaskId, WorkerId};
use flott_schema::job::JobSpec;
use flott_schema::{Error, Result};
use flott_worker::exchange::{Compression, Exchange, Options, handshake};
use flott_worker::{Worker, WorkerHandle};
use tokio::sync::mpsc;

/// What the programs of users run with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const JOB: JobId = JobId(1);
const PARALLELISM: u32 = 2;
/// Runs of each kind; the best counts.
const ROUNDS: u32 = 3;
const DEADLINE: Duration = Duration::from_secs(30);

/// Events `(key, value)` with 10,000 keys.
#[derive(Clone)]
struct Events {
    each: u64,
}

impl Source for Events {
    type Record = (u64, u64);
    type Split = u64;
    type Enumerator = Shares;
    type Reader = Generator;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Bounded
    }

    fn enumerator(&self, parallelism: u32) -> Result<Shares> {
        Ok(Shares { left: parallelism, each: self.each })
    }

    fn reader(&self, _ctx: &OperatorContext) -> Result<Generator> {
        Ok(Generator { left: 0, state: 1 })
    }
}

struct Shares {
    left: u32,
    each: u64,
}

impl SplitEnumerator for Shares {
    type Split = u64;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<u64>> {
        Ok(match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Assignment::Split(self.each)
            }
            None => Assignment::NoMore,
        })
    }
}

struct Generator {
    left: u64,
    state: u64,
}

impl SourceReader for Generator {
    type Record = (u64, u64);
    type Split = u64;

    fn add_split(&mut self, events: u64) -> Result<()> {
        self.left = events;
        Ok(())
    }

    fn read(&mut self, max_records: usize, _cx: &mut Context<'_>) -> Result<ReadBatch<(u64, u64)>> {
        let count = self.left.min(max_records as u64);
        self.left -= count;
        let records = (0..count).map(|_| {
            self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ((self.state >> 33) % 10_000, self.state >> 50)
        });
        let records: Vec<_> = records.collect();
        Ok(Poll::Ready((!records.is_empty()).then(|| Batch::of(records))))
    }

    fn snapshot(&self) -> Vec<u64> {
        vec![self.left]
    }
}

/// A sink of nothing.
#[derive(Clone)]
struct Nowhere;

impl Sink<(u64, u64)> for Nowhere {
    type Committable = ();
    type Writer = Nowhere;
    type Committer = NothingToCommit;

    fn writer(&self, _ctx: &OperatorContext) -> Result<Nowhere> {
        Ok(Nowhere)
    }

    fn committer(&self, _ctx: &OperatorContext) -> Result<NothingToCommit> {
        Ok(NothingToCommit)
    }
}

impl SinkWriter<(u64, u64)> for Nowhere {
    type Committable = ();

    fn write(&mut self, batch: Batch<(u64, u64)>) -> Result<()> {
        std::hint::black_box(batch);
        Ok(())
    }

    fn prepare_commit(&mut self, _end_of_input: bool) -> Result<Vec<()>> {
        Ok(Vec::new())
    }
}

fn program(events: u64) -> Result<Program> {
    let env = StreamEnv::new();
    env.set_parallelism(PARALLELISM).set_runtime_mode(RuntimeMode::Streaming);
    let events = env.add_source(Events { each: events / u64::from(PARALLELISM) }, "events");
    events.key_by(|(key, _)| *key).sum(|(_, value)| value).sink_to(Nowhere, "nowhere");
    env.compile("keyed sum")
}

/// An executor: its task runtime, and the port at which others reach it.
struct Executor {
    orders: mpsc::Sender<ToWorker>,
    handle: WorkerHandle,
    host: WorkerHost,
}

async fn start(
    worker: WorkerId,
    compression: Compression,
    reports: mpsc::Sender<ToCoordinator>,
) -> Result<Executor> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let data_address = listener.local_addr()?.to_string();
    let (incoming, accepted) = mpsc::channel(8);
    actix::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let Ok(handshake) = handshake::read(&mut stream, DEADLINE).await else { continue };
            let Ok(stream) = stream.into_std() else { continue };
            if incoming.send((handshake, stream)).await.is_err() {
                return;
            }
        }
    });
    let options = Options { compression, ..Options::new(JOB, worker) };
    let exchange = Exchange::start(options, accepted)?;
    let (orders, inbox) = mpsc::channel(8);
    let (service, handle) = Worker::start(flott_worker::Options::new(worker, PARALLELISM), reports);
    actix::spawn(service.with_exchange(exchange).run(inbox));
    Ok(Executor { orders, handle, host: WorkerHost { worker, data_address } })
}

/// CPU time of this process so far.
fn cpu_time() -> Result<Duration> {
    // SAFETY: all zeros are a valid `rusage`, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        if libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        usage
    };
    let time = |value: libc::timeval| {
        Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64)
    };
    Ok(time(usage.ru_utime) + time(usage.ru_stime))
}

/// Runs the job with the tasks where `place` says: number of the vertex and of the subtask to the worker. Gives events per
/// CPU-second, and the bytes that crossed for each event.
async fn run(
    events: u64,
    workers: u64,
    compression: Compression,
    place: impl Fn(usize, u32) -> u64,
) -> Result<(f64, f64, f64)> {
    let program = Arc::new(program(events)?);
    let (sender, mut reports) = mpsc::channel(64);
    let mut executors = Vec::new();
    let mut metrics = Vec::new();
    for worker in 1..=workers {
        let executor = start(WorkerId(worker), compression, sender.clone()).await?;
        metrics.push(executor.handle.add_program(JOB, program.clone()));
        executors.push(executor);
    }
    let mut tasks = Vec::new();
    for (number, vertex) in program.graph.vertices.iter().enumerate() {
        for subtask in 0..vertex.parallelism {
            let task = TaskId { vertex: vertex.id, subtask };
            let slot = SlotId { worker: WorkerId(place(number, subtask)), index: subtask };
            tasks.push(Placement { attempt: AttemptId { task, job_epoch: 0, attempt: 0 }, slot });
        }
    }
    let before = cpu_time()?;
    for executor in &executors {
        let order = ToWorker::Deploy {
            job: JOB,
            spec: Arc::new(JobSpec::embedded(program.graph.clone())),
            tasks: tasks.iter().filter(|task| task.slot.worker == executor.host.worker).copied().collect(),
            peers: tasks.clone().into(),
            hosts: executors.iter().map(|executor| executor.host.clone()).collect(),
            restore: None,
        };
        executor.orders.send(order).await.map_err(|_| Error::internal("an executor has ended"))?;
    }
    let mut finished = 0;
    while finished < tasks.len() {
        match reports.recv().await {
            Some(ToCoordinator::TaskState(report)) if report.state == TaskState::Finished => finished += 1,
            Some(ToCoordinator::TaskState(report)) => {
                if let Some(failure) = report.failure {
                    return Err(failure.to_error());
                }
            }
            _ => {}
        }
    }
    let spent = cpu_time()? - before;
    let tasks: Vec<_> = metrics.iter().flat_map(|metrics| metrics.stats(JOB)).collect();
    let bytes: u64 = tasks.iter().map(|task| task.bytes_out).sum();
    let batches: u64 = tasks.iter().map(|task| task.batches_out).sum();
    let rate = events as f64 / spent.as_secs_f64();
    Ok((rate, bytes as f64 / events as f64, events as f64 / batches as f64))
}

fn main() -> Result<()> {
    let events = match std::env::args().nth(1) {
        Some(events) => events.parse()?,
        None => 20_000_000,
    };
    let only = std::env::args().nth(2);
    let wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    actix::System::new().block_on(async {
        println!(
            "{:<12} {:>18} {:>10} {:>12} {:>13}",
            "", "events/CPU-second", "of local", "bytes/event", "events/batch"
        );
        let mut local = 0.0;
        for round in 0..if wanted("local") { ROUNDS } else { 0 } {
            let (rate, _, batch) = run(events, 1, Compression::None, |_, _| 1).await?;
            local = f64::max(local, rate);
            println!("{:<12} {rate:>18.0} {:>10} {:>12} {batch:>13.0}", format!("local {round}"), "", "");
        }
        let print = |name: &str, (rate, bytes, batch): (f64, f64, f64)| {
            println!("{name:<12} {rate:>18.0} {:>10.2} {bytes:>12.2} {batch:>13.0}", rate / local);
        };
        for (name, compression) in
            [("split", Compression::None), ("split lz4", Compression::Lz4), ("split zstd", Compression::Zstd)]
        {
            for _ in 0..if wanted(name) { ROUNDS } else { 0 } {
                print(name, run(events, 2, compression, |vertex, _| vertex as u64 + 1).await?);
            }
        }
        for _ in 0..if wanted("mixed") { ROUNDS } else { 0 } {
            print("mixed", run(events, 2, Compression::None, |_, subtask| u64::from(subtask) + 1).await?);
        }
        Ok(())
    })
}
