//! `flott stop`: ends a job with a savepoint.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flott::client::ClientError;
use flott::client::views::has_ended;
use flott::{Error, ErrorKind, Result};
use serde_json::json;

use super::connection::{Connection, length};
use super::operation::{Wait, absolute, result_of};
use super::savepoint::Format;

/// Ends a job with a savepoint, from which it can be started again: every result up to there is committed.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The job's id, or the beginning of it
    job: String,

    /// Ends event time first: windows fire, timers are due. For a job that is not to go on
    #[arg(short, long)]
    drain: bool,

    /// Folder for the savepoint, in place of execution.checkpointing.savepoint-dir of the job
    #[arg(short = 'p', long, value_name = "DIR")]
    savepoint_path: Option<String>,

    /// Form of the savepoint's files
    #[arg(long, alias = "type", value_enum, default_value_t = Format::Canonical)]
    format: Format,

    /// Does not wait for the end
    #[arg(long)]
    no_wait: bool,

    /// How long to wait for the end; the job goes on ending after it
    #[arg(long, value_name = "DURATION", default_value = "15 min", value_parser = length)]
    timeout: Duration,

    /// Prints id, state and savepoint as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott stop 3f9a --savepoint-path /shared/savepoints
  flott stop --drain -m host:8081 3f9a1c";

impl Arguments {
    /// Stops the job.
    pub fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        let job = client.find_job(&self.job)?;
        if has_ended(&job.state) {
            return Err(Error::bad_input(format!(
                "job {} ('{}') has ended already: {}",
                job.jid, job.name, job.state
            )));
        }
        let folder = self.savepoint_path.as_deref().map(absolute).transpose()?;
        let started = client.start_stop(&job.jid, folder.as_deref(), self.drain, self.format.into());
        let operation = started.map_err(ClientError::into_error)?;
        if self.no_wait {
            match self.json {
                true => {
                    println!("{}", json!({"job": job.jid, "name": job.name, "trigger": operation.trigger}))
                }
                false => println!("job {} ('{}') is being stopped", job.jid, job.name),
            }
            return Ok(ExitCode::SUCCESS);
        }
        let what = format!("the stop of job {} ('{}')", job.jid, job.name);
        let savepoint = result_of(&client, Some(&job.jid), &operation, &what, self.timeout)?;
        let wait = Wait::begin(what, self.timeout);
        let state = loop {
            let state = match client.job(&job.jid) {
                Ok(job) => job.state,
                Err(error) if wait.goes_on_after(&error) => "the coordinators change places".into(),
                Err(error) => return Err(error.into_error()),
            };
            if has_ended(&state) {
                break state;
            }
            wait.step(&state)?;
        };
        drop(wait);
        match self.json {
            true => println!(
                "{}",
                json!({"job": job.jid, "name": job.name, "state": state, "savepoint": savepoint})
            ),
            false => println!("job {} ('{}') has ended: {state}; savepoint {savepoint}", job.jid, job.name),
        }
        match state.as_str() {
            "FINISHED" => Ok(ExitCode::SUCCESS),
            _ => Err(Error::new(
                ErrorKind::UserCode,
                format!(
                    "the savepoint is complete, but the job ended {state}; `flott info {}` says why",
                    job.jid
                ),
            )),
        }
    }
}
