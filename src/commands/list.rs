//! `flott list`: the jobs of a cluster.

use std::process::ExitCode;

use clap::Args;
use flott::Result;
use flott::client::views::{JobOverview, count, has_ended};

use super::connection::Connection;
use super::table::{Table, duration, time};

/// Lists the jobs of a cluster: those that have not ended, unless a flag says otherwise.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// All jobs, those that ended too
    #[arg(short, long)]
    all: bool,

    /// Jobs that run or are being restarted
    #[arg(short, long, conflicts_with = "all")]
    running: bool,

    /// Jobs that wait for their first tasks
    #[arg(short, long, conflicts_with_all = ["all", "running"])]
    scheduled: bool,

    /// Prints the list as JSON, as the REST API gives it (/jobs/overview)
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott list -m localhost:8081
  flott list -a --json | jq -r '.jobs[] | select(.state == \"FAILED\") | .jid'";

impl Arguments {
    /// Prints the list.
    pub fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        if self.json {
            let mut overview: serde_json::Value =
                client.get("/jobs/overview").map_err(|error| error.into_error())?;
            if let Some(jobs) = overview["jobs"].as_array_mut() {
                jobs.retain(|job| job["state"].as_str().is_some_and(|state| self.wants(state)));
            }
            println!("{}", serde_json::to_string_pretty(&overview)?);
            return Ok(ExitCode::SUCCESS);
        }
        let mut jobs = client.jobs().map_err(|error| error.into_error())?;
        let known = jobs.len();
        jobs.retain(|job| self.wants(&job.state));
        jobs.sort_by_key(|job| (has_ended(&job.state), std::cmp::Reverse(job.start_time)));
        match (jobs.is_empty(), known) {
            (false, _) => print!("{}", table(&jobs)),
            (true, 0) => println!("the cluster has no jobs"),
            (true, known) => println!("no such jobs, of {known} in all (-a lists them)"),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wants(&self, state: &str) -> bool {
        let scheduled = matches!(state, "CREATED" | "INITIALIZING");
        match (self.all, self.running, self.scheduled) {
            (true, ..) => true,
            (_, true, _) => !scheduled && !has_ended(state),
            (.., true) => scheduled,
            _ => !has_ended(state),
        }
    }
}

fn table(jobs: &[JobOverview]) -> Table {
    let mut table = Table::new(&["job", "name", "state", "tasks running", "started (UTC)", "duration"], &[3]);
    for job in jobs {
        let running = format!("{} of {}", count(&job.tasks, "running"), count(&job.tasks, "total"));
        table.row([
            job.jid.clone(),
            job.name.clone(),
            job.state.clone(),
            running,
            time(job.start_time),
            duration(job.duration),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn flags_choose_by_state() {
        let wanted = |flags: &[&str]| {
            let line = Line::parse_from(["list"].iter().chain(flags));
            let states = ["CREATED", "RUNNING", "RESTARTING", "CANCELLING", "FINISHED", "FAILED", "CANCELED"];
            states.into_iter().filter(|state| line.arguments.wants(state)).collect::<Vec<_>>()
        };
        assert_eq!(wanted(&[]), ["CREATED", "RUNNING", "RESTARTING", "CANCELLING"]);
        assert_eq!(wanted(&["-r"]), ["RUNNING", "RESTARTING", "CANCELLING"]);
        assert_eq!(wanted(&["-s"]), ["CREATED"]);
        assert_eq!(wanted(&["-a"]).len(), 7);
    }
}
