//! `flott info`: one job of a cluster.

use std::process::ExitCode;

use clap::Args;
use flott::Result;
use flott::client::snapshots::{CheckpointView, RetainedView};
use flott::client::views::{ExceptionEntry, JobDetails, count};

use super::connection::Connection;
use super::table::{Table, bytes, duration, time};

/// Shows a job: its vertices, how far they are, and why it failed.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The job's id, or the beginning of it
    job: String,

    /// Prints the job as JSON, as the REST API gives it (/jobs/ID)
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott info 3f9a
  flott info 3f9a --json | jq '.vertices[] | {name, status}'";

/// Failures that are shown; the REST API has the others.
const FAILURES_SHOWN: usize = 3;

impl Arguments {
    /// Prints the job.
    pub fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        let id = client.find_job(&self.job)?.jid;
        if self.json {
            let details: serde_json::Value =
                client.get(&format!("/jobs/{id}")).map_err(|error| error.into_error())?;
            println!("{}", serde_json::to_string_pretty(&details)?);
            return Ok(ExitCode::SUCCESS);
        }
        let details = client.job(&id).map_err(|error| error.into_error())?;
        let failures = client.exceptions(&id).map_err(|error| error.into_error())?.exception_history.entries;
        // Coordinators of an older Flott do not tell.
        let snapshots = client.retained(&id).ok();
        print!("{}", described(&details));
        print!(
            "{}",
            snapshots.map_or_else(String::new, |snapshots| retained(&details, &failures, &snapshots))
        );
        let checkpoints = client.checkpoints(&id).map_err(|error| error.into_error())?;
        print!("{}", failing(&checkpoints.history));
        print!("{}", failed(&failures));
        Ok(ExitCode::SUCCESS)
    }
}

fn described(job: &JobDetails) -> String {
    let mut text = format!("job {}\n", job.jid);
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<9} {value}\n"));
    line("name", job.name.clone());
    line("state", job.state.clone());
    line("type", job.job_type.clone());
    line("started", format!("{} UTC", time(job.start_time)));
    if job.end_time >= 0 {
        line("ended", format!("{} UTC", time(job.end_time)));
    }
    line("duration", duration(job.duration));
    line("tasks", format!("{} of {} running", job.tasks_in("RUNNING"), job.task_count()));
    if let Some(wait) = &job.slot_wait {
        line("waits", format!("for {} slots; see flott cluster status", wait.slots_needed));
    }
    let mut table = Table::new(
        &["vertex", "state", "running", "records in", "records out", "bytes in", "bytes out", "busy"],
        &[2, 3, 4, 5, 6, 7],
    );
    for vertex in &job.vertices {
        let metrics = &vertex.metrics;
        table.row([
            vertex.name.clone(),
            vertex.status.clone(),
            format!("{} of {}", count(&vertex.tasks, "RUNNING"), vertex.parallelism),
            metrics.read_records.to_string(),
            metrics.write_records.to_string(),
            bytes(metrics.read_bytes),
            bytes(metrics.write_bytes),
            duration(metrics.accumulated_busy_time as i64),
        ]);
    }
    format!("{text}\n{table}")
}

/// The snapshots that the job can go back to, or be started from again.
fn retained(job: &JobDetails, failures: &[ExceptionEntry], snapshots: &[RetainedView]) -> String {
    let mut text = String::new();
    if !snapshots.is_empty() {
        text.push_str("\nsnapshots\n");
    }
    for one in snapshots {
        let kind = if one.is_savepoint { "savepoint" } else { "checkpoint" };
        let gone = if one.exists == Some(false) { ", gone" } else { "" };
        let (at, size) = (time(one.trigger_timestamp), bytes(one.state_size));
        text.push_str(&format!("  {} {kind}, {at} UTC, {size}{gone}: {}\n", one.id, one.external_path));
    }
    // A failure of the snapshot itself names another one.
    let is_damaged = failures.first().is_some_and(|failure| failure.exception_name == "flott.Snapshot");
    if job.state == "FAILED" && !is_damaged {
        match snapshots.iter().find(|one| one.exists != Some(false)) {
            Some(newest) => text.push_str(&format!(
                "\nto go on from its newest snapshot: flott run -s {} PROGRAM [ARGUMENTS]\n",
                newest.external_path
            )),
            None => text.push_str(
                "\nno snapshot of it is left; execution.checkpointing.externalized-checkpoint-retention says which stay\n",
            ),
        }
    }
    text
}

/// What is wrong with the checkpoints of the job, if the latest have failed.
fn failing(history: &[CheckpointView]) -> String {
    let ended = history.iter().filter(|one| one.status != "IN_PROGRESS");
    let failed: Vec<_> = ended.take_while(|one| one.status == "FAILED").collect();
    let Some(newest) = failed.first() else { return String::new() };
    let kind = if newest.is_savepoint { "savepoint" } else { "checkpoint" };
    let reason = newest.failure_message.as_deref().unwrap_or("no reason is known");
    let before = match failed.len() - 1 {
        0 => String::new(),
        before => format!(", and {before} before it"),
    };
    format!("\n{kind} {} failed{before}: {reason}\n", newest.id)
}

fn failed(failures: &[ExceptionEntry]) -> String {
    let mut text = String::new();
    for failure in failures.iter().take(FAILURES_SHOWN) {
        let task = failure.task_name.as_deref().unwrap_or("the job");
        let lines: Vec<&str> = failure.stacktrace.trim_end().lines().collect();
        text.push_str(&format!("\nfailure at {} UTC in {task}\n", time(failure.timestamp)));
        text.extend(lines.iter().map(|line| format!("  {line}\n")));
    }
    if failures.len() > FAILURES_SHOWN {
        text.push_str(&format!("\nand {} earlier failures\n", failures.len() - FAILURES_SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(id: u64, status: &str) -> CheckpointView {
        let failure_message = (status == "FAILED").then(|| format!("disk {id} is full"));
        CheckpointView { id, status: status.to_string(), failure_message, ..CheckpointView::default() }
    }

    #[test]
    fn checkpoints_that_failed_since_the_last_complete_one_are_told() {
        let history = [
            ended(5, "IN_PROGRESS"),
            ended(4, "FAILED"),
            ended(3, "FAILED"),
            ended(2, "COMPLETED"),
            ended(1, "FAILED"),
        ];
        assert_eq!(failing(&history), "\ncheckpoint 4 failed, and 1 before it: disk 4 is full\n");
        assert_eq!(failing(&history[3..]), "");
    }
}
