//! Waiting for the end of a job of a cluster, in front of a person.

use std::time::{Duration, Instant};

use flott_schema::graph::JobGraph;
use flott_schema::ids::JobId;
use flott_schema::{Error, ErrorKind, Result};

use super::summary;
use crate::client::views::{ExceptionEntry, JobDetails, Overview, has_ended};
use crate::client::{Client, ClientError};
use crate::interrupt::Interrupts;
use crate::progress::Progress;
use crate::restarts::{self, Failure, Restarts, Restored};
use crate::result::JobResult;

/// Between two questions how the job is doing, at first and later.
const INTERVALS: [Duration; 2] = [Duration::from_millis(25), Duration::from_millis(250)];
/// For how long the first one counts: short jobs are to end when they end.
const SOON: Duration = Duration::from_secs(1);
/// How long coordinators may be silent before the wait is given up. Jobs run on without them, and so would this one.
const SILENCE_MAX: Duration = Duration::from_secs(180);

/// Waits until the job has ended, shows how far it is, and cancels it on Ctrl-C. A job that did not finish is an error.
pub fn to_the_end(client: Client, job: JobId, graph: &JobGraph) -> Result<JobResult> {
    // A thread of its own: the caller may be inside a runtime.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("flott-watch".into());
        let watched = thread.spawn_scoped(scope, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(|error| Error::io("the wait for the job", error))?;
            runtime.block_on(watch(&client, job, graph))
        });
        let watched = watched.map_err(|error| Error::io("the wait for the job", error))?;
        watched.join().unwrap_or_else(|_| Err(Error::internal("the wait for the job panicked")))
    })
}

async fn watch(client: &Client, job: JobId, graph: &JobGraph) -> Result<JobResult> {
    let interrupts = Interrupts::listen()?;
    let started = Instant::now();
    let mut watch = Watch {
        client,
        job: job.to_string(),
        graph,
        progress: Progress::start(&graph.name, true),
        silent: None,
        waits: false,
        restarted_ms: 0,
        restarts: Restarts::default(),
    };
    let mut cancelled = false;
    let outcome = loop {
        match watch.ask() {
            Ok(Some(details)) if has_ended(&details.state) => break Ok(details),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        let interval = INTERVALS[usize::from(started.elapsed() > SOON)];
        let interrupted = async {
            match cancelled {
                true => std::future::pending().await,
                false => interrupts.requested().await,
            }
        };
        if tokio::time::timeout(interval, interrupted).await.is_ok() {
            cancelled = true;
            if let Err(error) = watch.cancel() {
                break Err(error);
            }
        }
    };
    watch.progress.finish();
    outcome.and_then(|details| ended(client, job, graph, &details))
}

/// A job that is waited for.
struct Watch<'a> {
    client: &'a Client,
    job: String,
    graph: &'a JobGraph,
    progress: Progress,
    /// Since when no coordinator answers.
    silent: Option<Instant>,
    /// Whether it was said that the job waits for slots.
    waits: bool,
    /// When it was last restarted, as far as was told.
    restarted_ms: u64,
    restarts: Restarts,
}

impl Watch<'_> {
    /// How the job is doing; nothing if no coordinator can say it just now.
    fn ask(&mut self) -> Result<Option<JobDetails>> {
        match self.client.job(&self.job) {
            Ok(details) => {
                if self.silent.take().is_some() {
                    self.progress.say("the cluster answers again");
                }
                self.say_what_it_waits_for(&details);
                self.say_what_went_wrong(&details);
                if self.progress.is_shown() && !has_ended(&details.state) {
                    let events = summary::source_records(self.client, &self.job, self.graph).unwrap_or(0);
                    let running = (details.tasks_in("RUNNING"), details.task_count());
                    self.progress.update_remote(&details.state, running, events);
                }
                Ok(Some(details))
            }
            Err(error) if error.is_transient() => self.wait_for_the_cluster(error).map(|()| None),
            Err(error) => Err(error.into_error().at(format!("job {}", self.job))),
        }
    }

    /// Once a wait: that the job waits for slots, and for how many.
    fn say_what_it_waits_for(&mut self, details: &JobDetails) {
        let Some(wait) = details.slot_wait else {
            self.waits = false;
            return;
        };
        if std::mem::replace(&mut self.waits, true) {
            return;
        }
        let needed = wait.slots_needed;
        match self.client.get::<Overview>("/overview") {
            Ok(Overview { slots_available, slots_total, .. }) => self.progress.say(&format!(
                "waiting for slots: the job needs {needed}, the cluster has {slots_available} free of {slots_total}"
            )),
            Err(_) => self.progress.say(&format!("waiting for slots: the job needs {needed}")),
        }
    }

    /// Once for each restart: why, and what it goes on from.
    fn say_what_went_wrong(&mut self, details: &JobDetails) {
        let restarted_ms = details.timestamps.get("RESTARTING").copied().unwrap_or(0);
        if restarted_ms > self.restarted_ms && !matches!(details.state.as_str(), "FAILING" | "FAILED") {
            // What cannot be read now is read with the next answer.
            let Ok(history) = self.client.exceptions(&self.job) else { return };
            self.restarted_ms = restarted_ms;
            let failures = history.exception_history.entries.into_iter().map(|entry| Failure {
                at_ms: u64::try_from(entry.timestamp).unwrap_or(0),
                message: message_of(&entry).0.to_owned(),
            });
            let told = self.restarts.failed(failures);
            told.iter().for_each(|line| self.progress.say(line));
        }
        let is_deployed = details.tasks_in("CREATED") + details.tasks_in("SCHEDULED") == 0;
        if self.restarts.waits()
            && !matches!(details.state.as_str(), "RESTARTING" | "FAILING" | "FAILED")
            && is_deployed
        {
            let Ok(checkpoints) = self.client.checkpoints(&self.job) else { return };
            let restored = checkpoints.latest.restored.map(|restored| Restored {
                checkpoint: restored.id,
                folder: restored.external_path,
                at_ms: restored.restore_timestamp,
            });
            if let Some(line) = self.restarts.goes_on(restored) {
                self.progress.say(&line);
            }
        }
    }

    /// A job runs on without coordinators, so one that does not answer is waited for.
    fn wait_for_the_cluster(&mut self, error: ClientError) -> Result<()> {
        let since = *self.silent.get_or_insert_with(|| {
            self.progress.say(&format!("waiting for the cluster: {error}"));
            Instant::now()
        });
        match since.elapsed() > SILENCE_MAX {
            true => Err(error.into_error().at(format!("gave up waiting for job {}", self.job))),
            false => Ok(()),
        }
    }

    fn cancel(&self) -> Result<()> {
        let name = &self.graph.name;
        self.progress.say(&format!("cancelling job '{name}'; a second Ctrl-C leaves it alone"));
        match self.client.cancel(&self.job) {
            Ok(()) => Ok(()),
            Err(error) => {
                // It may have ended this moment; else the reader has to know that it goes on.
                match self.client.job(&self.job) {
                    Ok(details) if has_ended(&details.state) => Ok(()),
                    _ => Err(error
                        .into_error()
                        .at(format!("job {} could not be cancelled and may run on", self.job))),
                }
            }
        }
    }
}

/// What the end of a job means for its program.
fn ended(client: &Client, job: JobId, graph: &JobGraph, details: &JobDetails) -> Result<JobResult> {
    match details.state.as_str() {
        "FINISHED" => {
            let result = summary::summarised(client, job, graph, details);
            eprintln!("{result}");
            Ok(result)
        }
        "CANCELED" => Err(Error::new(ErrorKind::Cancelled, format!("job '{}' was cancelled", graph.name))),
        _ => {
            let failure = failure(client, job);
            let retained = client.retained(&job.to_string()).unwrap_or_default();
            // A failure of the snapshot itself names another one.
            if failure.kind() != ErrorKind::Snapshot
                && let Some(newest) = retained.iter().find(|one| one.exists != Some(false))
            {
                eprintln!("{}", restarts::advice(&newest.external_path));
            }
            Err(failure.at(format!("job '{}' failed", graph.name)))
        }
    }
}

/// Why the job failed.
fn failure(client: &Client, job: JobId) -> Error {
    let entries = match client.exceptions(&job.to_string()) {
        Ok(history) => history.exception_history.entries,
        Err(error) => return error.into_error().at("its failure cannot be read"),
    };
    let Some(entry) = entries.into_iter().next() else {
        return Error::internal("the cluster does not say why");
    };
    let (message, rest) = message_of(&entry);
    let error = Error::new(kind_of(&entry.exception_name), message.trim());
    match rest.trim().is_empty() {
        true => error,
        false => error.with_backtrace(rest.trim_end()),
    }
}

/// The first line of a failure, and the others. As in a stack trace of Java, the kind stands in front, which is left out.
fn message_of(entry: &ExceptionEntry) -> (&str, &str) {
    let (message, rest) = entry.stacktrace.split_once('\n').unwrap_or((&entry.stacktrace, ""));
    let without = message.strip_prefix(&entry.exception_name);
    (without.map_or(message, |message| message.trim_start_matches(": ")), rest)
}

/// The kind of a failure by the class that the REST API names: `flott.UserCode`.
fn kind_of(class: &str) -> ErrorKind {
    let kinds = [
        ErrorKind::BadInput,
        ErrorKind::Configuration,
        ErrorKind::Graph,
        ErrorKind::Resources,
        ErrorKind::Io,
        ErrorKind::Cancelled,
        ErrorKind::Internal,
        ErrorKind::Snapshot,
    ];
    let name = class.rsplit('.').next().unwrap_or_default();
    let letters = |kind: &ErrorKind| kind.word().chars().filter(|c| c.is_alphabetic()).collect::<String>();
    kinds.into_iter().find(|kind| letters(kind).eq_ignore_ascii_case(name)).unwrap_or(ErrorKind::UserCode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_kind_over_the_rest_api() {
        for (class, kind) in [
            ("flott.UserCode", ErrorKind::UserCode),
            ("flott.InputOutput", ErrorKind::Io),
            ("flott.InternalError", ErrorKind::Internal),
            ("flott.JobGraph", ErrorKind::Graph),
            ("java.lang.Exception", ErrorKind::UserCode),
        ] {
            assert_eq!(kind_of(class), kind, "{class}");
        }
    }
}
