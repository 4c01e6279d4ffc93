//! One subtask, and where it runs.

use std::collections::BTreeMap;

use flott_schema::control::TaskState;
use flott_schema::graph::Vertex;
use flott_schema::ids::WorkerId;
use serde::Serialize;

use super::Body;
use super::io::{Io, Numbers};
use super::times::{LIVE_STATES, Span, time_in};
use crate::machine::{ClusterState, JobRecord, TaskRecord, VertexRecord};

/// A worker as answers name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rest) struct Host {
    /// Its name.
    pub(in crate::rest) name: String,
    /// `host:port`.
    pub(in crate::rest) endpoint: String,
}

/// The workers of a cluster, by id.
#[derive(Clone, Debug, Default)]
pub(in crate::rest) struct Hosts {
    known: BTreeMap<WorkerId, Host>,
}

/// What stands for the place of a task that has none, as in Flink.
const UNASSIGNED: &str = "(unassigned)";

impl Hosts {
    /// Of the workers that the tasks of a job run or ran on.
    pub(in crate::rest) fn of_job(state: &ClusterState, job: &JobRecord) -> Self {
        let slots = job.vertices().iter().flat_map(VertexRecord::tasks).filter_map(TaskRecord::slot);
        let failed = job.exceptions().latest().flat_map(|exception| {
            exception.worker.into_iter().chain(exception.concurrent.iter().filter_map(|failed| failed.worker))
        });
        let mut known = BTreeMap::new();
        for worker in slots.map(|slot| slot.worker).chain(failed) {
            if let Some(record) = state.workers().get(&worker) {
                known.entry(worker).or_insert_with(|| Host {
                    name: worker_name(worker, &record.profile().name),
                    endpoint: endpoint(&record.profile().host, &record.profile().data_address),
                });
            }
        }
        Hosts { known }
    }

    /// A worker; one that is gone has no address any more.
    pub(in crate::rest) fn of_worker(&self, worker: WorkerId) -> Host {
        let gone = || Host { name: worker_name(worker, ""), endpoint: "(lost)".into() };
        self.known.get(&worker).cloned().unwrap_or_else(gone)
    }

    /// Where a task runs or ran.
    pub(in crate::rest) fn of(&self, task: &TaskRecord) -> Host {
        match task.slot() {
            Some(slot) => self.of_worker(slot.worker),
            None => Host { name: UNASSIGNED.into(), endpoint: UNASSIGNED.into() },
        }
    }
}

/// The name of a worker; one is made of its number where it has none.
pub(in crate::rest) fn worker_name(worker: WorkerId, name: &str) -> String {
    if name.is_empty() { format!("worker-{}", worker.0) } else { name.to_owned() }
}

/// The host that people know, with the port of the data address.
fn endpoint(host: &str, data_address: &str) -> String {
    match (host, data_address.rsplit_once(':')) {
        ("", _) => data_address.to_owned(),
        (host, Some((_, port))) => format!("{host}:{port}"),
        (host, None) => host.to_owned(),
    }
}

/// Flink's object of a subtask.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Subtask {
    subtask: u32,
    status: &'static str,
    attempt: u32,
    endpoint: String,
    #[serde(flatten)]
    span: Span,
    #[serde(rename = "start_time")]
    start_again: i64,
    metrics: Io,
    taskmanager_id: String,
    status_duration: BTreeMap<&'static str, i64>,
}

impl Subtask {
    pub(super) fn of(task: &TaskRecord, hosts: &Hosts, numbers: &Numbers, now_ms: u64) -> Self {
        let host = hosts.of(task);
        let span = Span::of_task(task, now_ms);
        Subtask {
            subtask: task.attempt().task.subtask,
            status: task.state().word(),
            attempt: task.attempt().attempt,
            endpoint: host.endpoint,
            span,
            start_again: span.start_time,
            metrics: Io::sum(numbers, [task].into_iter()),
            taskmanager_id: host.name,
            status_duration: durations(task, now_ms),
        }
    }
}

/// How long a task was in each state before its end.
pub(super) fn durations(task: &TaskRecord, now_ms: u64) -> BTreeMap<&'static str, i64> {
    LIVE_STATES.into_iter().map(|state| (state.word(), time_in(task, state, now_ms))).collect()
}

/// `/jobs/:jobid/vertices/:vertexid/subtasks/:subtask`.
pub(in crate::rest) fn subtask(task: &TaskRecord, hosts: &Hosts, numbers: &Numbers, now_ms: u64) -> Body {
    Body::of(&Subtask::of(task, hosts, numbers, now_ms))
}

#[derive(Serialize)]
struct SubtaskTimes {
    id: String,
    name: String,
    now: u64,
    subtasks: Vec<Times>,
}

#[derive(Serialize)]
struct Times {
    subtask: u32,
    endpoint: String,
    duration: i64,
    timestamps: BTreeMap<&'static str, u64>,
}

/// `/jobs/:jobid/vertices/:vertexid/subtasktimes`.
pub(in crate::rest) fn subtask_times(
    vertex: &Vertex,
    record: &VertexRecord,
    hosts: &Hosts,
    now_ms: u64,
) -> Body {
    let times = |task: &TaskRecord| {
        let stamp = |state: TaskState| (state.word(), task.entered_ms(state).unwrap_or(0));
        let mut timestamps: BTreeMap<_, _> = TaskState::ALL.into_iter().map(stamp).collect();
        timestamps.insert("RECONCILING", 0);
        Times {
            subtask: task.attempt().task.subtask,
            endpoint: hosts.of(task).endpoint,
            duration: Span::of_task(task, now_ms).duration,
            timestamps,
        }
    };
    Body::of(&SubtaskTimes {
        id: vertex.id.to_string(),
        name: vertex.name.clone(),
        now: now_ms,
        subtasks: record.tasks().iter().map(times).collect(),
    })
}
