//! Service of one connection: heartbeats, reports and reads of programs go out until it breaks.

use std::rc::Rc;
use std::time::Duration;

use flott_schema::answer::FilePart;
use flott_schema::control::{Report, SnapshotReport};
use flott_schema::error::Result;
use flott_schema::ids::{AttemptId, JobId};
use flott_schema::stats::WorkerStats;
use flott_schema::wire::Wire;
use flott_schema::wire::broken;
use flott_schema::wire::fields::write_list;
use flott_schema::wire::generated::control_capnp::{cluster, worker_session};
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::answers::Shared;
use super::connect::{Registered, call_failed, said};
use super::handle::{ReadProgram, SessionEnd};
use super::run::Queues;

/// Reports in one call.
const REPORTS_MAX: usize = 1_024;

/// Bytes of failures and of state in one call, about.
const REPORT_BYTES_MAX: usize = 4 << 20;

/// Reports held here; further ones wait in the queue, and then their senders.
const REPORTS_HELD_MAX: usize = 8 * REPORTS_MAX;

/// Bytes of a program in one call.
const PROGRAM_PART_BYTES_MAX: u32 = 4 << 20;

/// Most time between two heartbeats, whatever the leader asks for: the numbers that people look at come with them.
const NUMBERS_INTERVAL: Duration = Duration::from_secs(1);

/// How the service of a connection ended.
pub(super) enum Served {
    /// The session is over.
    Over(SessionEnd),
    /// The connection is of no use any more.
    Broken(String),
}

/// A call that has ended.
enum Done {
    Heartbeat(std::result::Result<(), String>),
    Reports(std::result::Result<(), String>),
    Snapshots(std::result::Result<(), String>),
    Waiting(std::result::Result<(), String>),
    Read,
}

/// Serves a connection until it breaks or the session ends.
pub(super) async fn serve(shared: &Rc<Shared>, queues: &mut Queues, registered: Registered) -> Served {
    let Registered { session, mut connection, heartbeat_interval, heartbeat_timeout, .. } = registered;
    let mut heartbeats = interval(heartbeat_interval.min(NUMBERS_INTERVAL));
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut calls: FuturesUnordered<LocalBoxFuture<'static, Done>> = FuturesUnordered::new();
    let (mut heartbeat_out, mut snapshots_out) = (false, false);
    let orders = shared.orders.clone();
    loop {
        let group = shared.book.borrow_mut().take_up(REPORTS_MAX, REPORT_BYTES_MAX);
        if !group.is_empty() {
            calls.push(Box::pin(report(session.clone(), shared.clone(), group, heartbeat_timeout)));
        }
        let parts = match snapshots_out {
            true => Vec::new(),
            false => shared.book.borrow_mut().take_snapshots(REPORTS_MAX, REPORT_BYTES_MAX),
        };
        if !parts.is_empty() {
            snapshots_out = true;
            calls.push(Box::pin(hand_in(session.clone(), parts, heartbeat_timeout)));
        }
        let waiting = shared.book.borrow_mut().take_waiting();
        if !waiting.is_empty() {
            calls.push(Box::pin(want(session.clone(), waiting, heartbeat_timeout)));
        }
        let room = shared.book.borrow().held() < REPORTS_HELD_MAX;
        tokio::select! {
            biased;
            () = Queues::stop(&mut queues.stopped) => return Served::Over(SessionEnd::Stopped),
            () = orders.closed() => return Served::Over(SessionEnd::Deserted),
            reason = connection.line.closed() => return Served::Broken(reason),
            _ = heartbeats.tick(), if !heartbeat_out => {
                heartbeat_out = true;
                let told = tell(session.clone(), shared.side.stats(), heartbeat_timeout);
                calls.push(Box::pin(async move { Done::Heartbeat(told.await) }));
            }
            Some(done) = calls.next(), if !calls.is_empty() => match done {
                Done::Heartbeat(Ok(())) => heartbeat_out = false,
                Done::Reports(Ok(())) => shared.book.borrow_mut().acknowledge(),
                Done::Snapshots(Ok(())) => snapshots_out = false,
                Done::Heartbeat(Err(reason))
                | Done::Reports(Err(reason))
                | Done::Snapshots(Err(reason))
                | Done::Waiting(Err(reason)) => return Served::Broken(reason),
                Done::Waiting(Ok(())) | Done::Read => {}
            },
            Some(reports) = queues.reports.recv(), if room => shared.book.borrow_mut().add(reports),
            Some(read) = queues.reads.recv() => {
                calls.push(Box::pin(answer_read(connection.cluster.clone(), read)));
            }
        }
    }
}

/// Sends numbers, which are a sign of life too.
async fn tell(
    session: worker_session::Client,
    stats: WorkerStats,
    deadline: Duration,
) -> std::result::Result<(), String> {
    let mut request = session.heartbeat_request();
    if let Err(error) = stats.write(request.get().init_stats()) {
        // Numbers for people: a heartbeat without them is better than none.
        tracing::warn!(%error, "the statistics do not fit a heartbeat");
        request = session.heartbeat_request();
        request.get().init_stats().init_usage();
    }
    in_time("a heartbeat", deadline, request.send().promise).await
}

async fn report(
    session: worker_session::Client,
    shared: Rc<Shared>,
    reports: Vec<Report>,
    deadline: Duration,
) -> Done {
    let has_ended = |report: &&Report| matches!(report, Report::Task(report) if report.state.is_terminal());
    let ended: Vec<_> = reports.iter().filter(has_ended).map(Report::task).collect();
    if !ended.is_empty() {
        // The last numbers of a task come before the word that it has ended: who waits for that word reads them.
        let told = tell(session.clone(), shared.side.last_stats(&ended), deadline).await;
        if told.is_err() {
            return Done::Reports(told);
        }
    }
    let mut request = session.report_request();
    if let Err(error) = write_reports(&reports, request.get()) {
        return Done::Reports(Err(error.to_string()));
    }
    Done::Reports(in_time("reports", deadline, request.send().promise).await)
}

/// Reports of tasks alone, or all there are in order.
fn write_reports(reports: &[Report], form: worker_session::report_params::Builder<'_>) -> Result<()> {
    match Report::of_tasks_alone(reports) {
        Some(tasks) => write_list("reports", &tasks, |length| form.init_reports(length)),
        None => write_list("mixed", reports, |length| form.init_mixed(length)),
    }
}

async fn hand_in(session: worker_session::Client, parts: Vec<SnapshotReport>, deadline: Duration) -> Done {
    let mut request = session.snapshots_request();
    let form = request.get();
    if let Err(error) = write_list("reports", &parts, |length| form.init_reports(length)) {
        return Done::Snapshots(Err(error.to_string()));
    }
    drop(parts);
    Done::Snapshots(in_time("parts of snapshots", deadline, request.send().promise).await)
}

async fn want(session: worker_session::Client, tasks: Vec<(JobId, AttemptId)>, deadline: Duration) -> Done {
    let mut request = session.snapshots_wanted_request();
    let form = request.get();
    if let Err(error) = write_list("tasks", &tasks, |length| form.init_tasks(length)) {
        return Done::Waiting(Err(error.to_string()));
    }
    Done::Waiting(in_time("tasks that wait for a snapshot", deadline, request.send().promise).await)
}

/// Waits for the answer to a call.
async fn in_time<T>(
    what: &str,
    deadline: Duration,
    answer: impl Future<Output = capnp::Result<T>>,
) -> std::result::Result<(), String> {
    match timeout(deadline, answer).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(said(&error)),
        Err(_) => Err(format!("{what} had no answer within {} ms", deadline.as_millis())),
    }
}

async fn answer_read(cluster: cluster::Client, read: ReadProgram) -> Done {
    let ReadProgram { digest, offset, length_max, mut reply } = read;
    let work = async {
        let mut request = cluster.read_program_request();
        let mut form = request.get();
        form.set_digest(&digest.0);
        form.set_offset(offset);
        form.set_length(length_max.min(PROGRAM_PART_BYTES_MAX));
        let response = request.send().promise.await.map_err(call_failed)?;
        let results = response.get().map_err(broken)?;
        let bytes = results.get_part().map_err(broken)?.to_vec();
        Ok(FilePart { bytes, size: results.get_size() })
    };
    let answer: Option<Result<FilePart>> = tokio::select! {
        answer = work => Some(answer),
        // Whoever asked has given up.
        () = reply.closed() => None,
    };
    if let Some(answer) = answer {
        let _ = reply.send(answer);
    }
    Done::Read
}
