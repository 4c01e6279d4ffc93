//! An executor from its hello to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flott_dataflow::program::Program;
use flott_schema::Result;
use flott_schema::config::options::ExchangeCompression;
use flott_schema::control::{Report, SnapshotReport, ToCoordinator, ToWorker};
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::snapshot::TaskSnapshot;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::exchange::{self, Compression, Exchange};
use crate::executor::environment::Environment;
use crate::executor::incoming::incoming;
use crate::executor::session::{Session, Speaker};
use crate::metrics::JobMetrics;
use crate::open_files;
use crate::service::{Options, Worker};

/// Reports of tasks that may wait to be sent.
const REPORTS_MAX: usize = 1024;
/// Reports that are sent together.
const REPORTS_AT_ONCE: usize = 256;
/// Bytes of state that a part of a snapshot may hold outside of files.
const STATE_BYTES_MAX: usize = 32 << 20;
/// The same of a last snapshot, which goes into the log of the coordinators.
const LAST_STATE_BYTES_MAX: usize = 2 << 20;
/// How often the worker hears how the tasks do.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How long its last word about them may take.
const LAST_STATS_DEADLINE: Duration = Duration::from_millis(500);
/// The exit status of an executor whose worker is gone.
const ORPHANED: i32 = 3;

/// Becomes the executor that `environment` describes and runs the tasks of `program` on the worker's orders.
/// The process ends with it: when the job is released, when the worker is gone, or with exit status 1 and the
/// reason on the standard error.
pub fn run(environment: Environment, program: Program) -> ! {
    // Its worker has raised what it inherits, unless that was started otherwise.
    if let Some(complaint) = open_files::complaint(&open_files::raise_limit()) {
        eprintln!("{complaint}");
    }
    // A thread of its own: the caller may be inside another runtime.
    let thread = std::thread::Builder::new()
        .name("flott-executor".into())
        .spawn(move || actix::System::new().block_on(serve(environment, Arc::new(program))));
    let ended = match thread {
        Ok(thread) => thread.join(),
        Err(error) => {
            eprintln!("the executor cannot start a thread: {error}");
            std::process::exit(1)
        }
    };
    match ended {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(error)) => {
            eprintln!("{error}");
            std::process::exit(1)
        }
        // The panic's message stands on the standard error.
        Err(_) => std::process::exit(101),
    }
}

async fn serve(environment: Environment, program: Arc<Program>) -> Result<()> {
    let job = environment.job()?;
    flott_storage::configure(&environment.storage.0)?;
    let Session { worker, token, orders, closed, speaker } = Session::open(&environment.control, job).await?;
    actix::spawn(async move {
        let _ = closed.await;
        // Without its worker it must not go on, whatever its tasks are at; so nothing is waited for or tidied
        // up.
        eprintln!("the worker is gone; its executor ends");
        // SAFETY: _exit takes a number and does not return.
        unsafe { libc::_exit(ORPHANED) }
    });
    let exchange_options = exchange::Options {
        token,
        window_bytes: environment.window_bytes,
        compression: match environment.compression {
            ExchangeCompression::None => Compression::None,
            ExchangeCompression::Lz4 => Compression::Lz4,
            ExchangeCompression::Zstd => Compression::Zstd,
        },
        connect_deadline: Duration::from_millis(environment.connect_timeout_ms),
        ..exchange::Options::new(job, worker)
    };
    let exchange = Exchange::start(exchange_options, incoming(&environment.data)?)?;
    let options = Options {
        channel_capacity: environment.channel_capacity,
        spool_memory_bytes: environment.spool_memory_bytes,
        scratch: environment.scratch.clone(),
        // The worker deletes that folder in the end, also where an executor was killed.
        state_folder: environment.control.parent().map(PathBuf::from),
        ..Options::new(worker, environment.slots)
    };
    let (reports, outbox) = mpsc::channel(REPORTS_MAX);
    let (runtime, handle) = Worker::start(options, reports);
    let metrics = handle.add_program(job, program);
    let (to_runtime, runtime_orders) = mpsc::channel(1);
    actix::spawn(forward_reports(outbox, speaker.clone(), metrics.clone(), job));
    actix::spawn(send_stats(speaker.clone(), metrics.clone(), job));
    actix::spawn(forward_orders(orders, to_runtime, job));
    runtime.with_exchange(exchange).run(runtime_orders).await;
    // The last numbers of tasks that were short-lived; not worth a wait if the worker does not take them.
    let _ = timeout(LAST_STATS_DEADLINE, speaker.stats(&metrics.stats(job))).await;
    Ok(())
}

/// Hands orders to the task runtime, up to the release of the job: then the runtime ends, and with it the
/// executor.
async fn forward_orders(
    mut orders: mpsc::Receiver<ToWorker>,
    to_runtime: mpsc::Sender<ToWorker>,
    job: JobId,
) {
    while let Some(order) = orders.recv().await {
        let is_last = matches!(&order, ToWorker::Release { job: released } if *released == job);
        if to_runtime.send(order).await.is_err() || is_last {
            return;
        }
    }
}

/// Tells the worker what becomes of the tasks, in order, everything that waits at once.
async fn forward_reports(
    mut outbox: mpsc::Receiver<ToCoordinator>,
    speaker: Speaker,
    metrics: Arc<JobMetrics>,
    job: JobId,
) {
    let mut waiting = Vec::new();
    while outbox.recv_many(&mut waiting, REPORTS_AT_ONCE).await > 0 {
        let (mut reports, mut parts, mut wanted) = (Vec::new(), Vec::new(), Vec::new());
        for message in waiting.drain(..) {
            match message {
                ToCoordinator::TaskState(report) => reports.push(Report::Task(report)),
                ToCoordinator::Snapshot(snapshot) => {
                    let snapshot = sendable(snapshot);
                    match snapshot.is_last() {
                        true => reports.push(Report::LastSnapshot(snapshot)),
                        false => parts.push(*snapshot),
                    }
                }
                ToCoordinator::SnapshotWanted { job, attempt } => wanted.push((job, attempt)),
                // The worker offers the slots, not the executor.
                ToCoordinator::Register { .. } => {}
            }
        }
        if let Err(error) = tell(&speaker, &metrics, job, &reports, &parts, &wanted).await {
            // If the worker is gone, so is this process in a moment; else the worker cannot know the state of
            // the tasks any more.
            eprintln!("a report did not reach the worker: {error}");
            // SAFETY: as above.
            unsafe { libc::_exit(ORPHANED) }
        }
    }
}

async fn tell(
    speaker: &Speaker,
    metrics: &JobMetrics,
    job: JobId,
    reports: &[Report],
    parts: &[SnapshotReport],
    wanted: &[(JobId, AttemptId)],
) -> Result<()> {
    // One message may hold a few large ones at most.
    for part in parts {
        speaker.snapshots(std::slice::from_ref(part)).await?;
    }
    let has_ended = |report: &&Report| matches!(report, Report::Task(report) if report.state.is_terminal());
    let ended: Vec<AttemptId> = reports.iter().filter(has_ended).map(|report| report.task().1).collect();
    if !ended.is_empty() {
        // The last numbers of a task go before the word that it has ended. If they cannot be sent,
        // neither can the word.
        let _ = speaker.stats(&metrics.stats_of(job, &ended)).await;
    }
    if !reports.is_empty() {
        speaker.report(reports).await?;
    }
    if !wanted.is_empty() {
        speaker.snapshots_wanted(wanted).await?;
    }
    Ok(())
}

/// The part of a snapshot, or, if it holds more than messages and logs can take, word of that.
fn sendable(mut report: Box<SnapshotReport>) -> Box<SnapshotReport> {
    let bytes_max = if report.is_last() { LAST_STATE_BYTES_MAX } else { STATE_BYTES_MAX };
    let bytes = report.result.as_ref().map_or(0, TaskSnapshot::inline_bytes);
    if bytes > bytes_max {
        let text = "bytes in its list states and its enumerator, which go into the manifest";
        report.result = Err(format!("the task has {bytes} {text}; they may have {bytes_max} there"));
    }
    report
}

async fn send_stats(speaker: Speaker, metrics: Arc<JobMetrics>, job: JobId) {
    let mut tick = interval(STATS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        // One without tasks says that it lives.
        if speaker.stats(&metrics.stats(job)).await.is_err() {
            return;
        }
    }
}
