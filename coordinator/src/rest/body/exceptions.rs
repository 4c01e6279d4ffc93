//! What went wrong with a job.

use std::collections::BTreeMap;

use flott_schema::control::TaskFailure;
use flott_schema::error::Error;
use flott_schema::ids::{AttemptId, WorkerId};
use serde::Serialize;

use super::Body;
use super::job::class_of;
use super::subtask::Hosts;
use crate::machine::{JobException, JobFailure, JobRecord};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Exceptions {
    exception_history: History,
}

#[derive(Serialize)]
struct History {
    entries: Vec<Entry>,
    truncated: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    exception_name: String,
    stacktrace: String,
    timestamp: u64,
    failure_labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_manager_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrent_exceptions: Option<Vec<Entry>>,
}

/// `/jobs/:jobid/exceptions`, the latest first, at most `entries_max` of them.
pub(in crate::rest) fn exceptions(job: &JobRecord, hosts: &Hosts, entries_max: usize) -> Body {
    let history = job.exceptions();
    let entries: Vec<Entry> =
        history.latest().rev().take(entries_max).map(|exception| Entry::of(exception, hosts)).collect();
    let truncated = history.total() > entries.len() as u64;
    Body::of(&Exceptions { exception_history: History { entries, truncated } })
}

impl Entry {
    fn of(exception: &JobException, hosts: &Hosts) -> Self {
        let mut entry = match (&exception.cause, exception.attempt) {
            (JobFailure::Task(failure), attempt) => {
                Self::of_task(exception.at_ms, attempt, exception.worker, failure, hosts)
            }
            (JobFailure::Job { kind, .. }, _) => Entry {
                exception_name: class_of(*kind),
                stacktrace: trace(&exception.cause.to_error()),
                timestamp: exception.at_ms,
                failure_labels: BTreeMap::new(),
                task_name: None,
                endpoint: None,
                task_manager_id: None,
                concurrent_exceptions: None,
            },
        };
        let concurrent = exception.concurrent.iter();
        let concurrent = concurrent.map(|failed| {
            Self::of_task(failed.at_ms, Some(failed.attempt), failed.worker, &failed.failure, hosts)
        });
        entry.concurrent_exceptions = Some(concurrent.collect());
        entry
    }

    fn of_task(
        at_ms: u64,
        attempt: Option<AttemptId>,
        worker: Option<WorkerId>,
        failure: &TaskFailure,
        hosts: &Hosts,
    ) -> Self {
        let host = worker.map(|worker| hosts.of_worker(worker));
        let attempt = attempt.map_or(0, |attempt| attempt.attempt);
        Entry {
            exception_name: class_of(failure.kind),
            stacktrace: trace(&failure.to_error()),
            timestamp: at_ms,
            failure_labels: BTreeMap::new(),
            task_name: Some(format!("{} - execution #{attempt}", name_of(failure))),
            endpoint: host.as_ref().map(|host| host.endpoint.clone()),
            task_manager_id: host.map(|host| host.name),
            concurrent_exceptions: None,
        }
    }
}

/// `Map (1/4)`.
fn name_of(failure: &TaskFailure) -> String {
    format!("{} ({}/{})", failure.vertex, failure.subtask + 1, failure.parallelism)
}

/// An error as readers of stack traces expect it: the class, the message, and a backtrace where there is one.
pub(super) fn trace(error: &Error) -> String {
    let mut text = format!("{}: {error}", class_of(error.kind()));
    if let Some(backtrace) = error.backtrace() {
        text.push('\n');
        text.push_str(backtrace);
    }
    text
}
