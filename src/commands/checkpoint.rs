//! `flott checkpoint`: takes a checkpoint of a job now.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flott::Result;
use flott::client::ClientError;
use serde_json::json;

use super::connection::{Connection, length};
use super::operation::result_of;

/// Takes a checkpoint of a job now, beside those that it takes by itself.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The job's id, or the beginning of it
    job: String,

    /// Shares no file with earlier checkpoints
    #[arg(long)]
    full: bool,

    /// How long to wait until it is complete; it goes on after that
    #[arg(long, value_name = "DURATION", default_value = "15 min", value_parser = length)]
    timeout: Duration,

    /// Prints job, id and place as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott checkpoint 3f9a
  flott checkpoint --full -m host:8081 3f9a1c";

impl Arguments {
    /// Takes the checkpoint.
    pub fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        let job = client.find_job(&self.job)?;
        let operation = client.start_checkpoint(&job.jid, self.full).map_err(ClientError::into_error)?;
        let what = format!("the checkpoint of job {} ('{}')", job.jid, job.name);
        let id = result_of(&client, Some(&job.jid), &operation, &what, self.timeout)?;
        // Who asks later may find it gone: the next ones push it out.
        let history = client.checkpoints(&job.jid).map(|checkpoints| checkpoints.history).unwrap_or_default();
        let taken = history.into_iter().find(|checkpoint| checkpoint.id.to_string() == id);
        let path = taken.and_then(|checkpoint| checkpoint.external_path);
        match (self.json, path) {
            (true, path) => println!(
                "{}",
                json!({"job": job.jid, "name": job.name, "checkpoint": id.parse::<u64>().ok(), "path": path})
            ),
            (false, Some(path)) => println!("checkpoint {id} of job {} ('{}'): {path}", job.jid, job.name),
            (false, None) => println!("checkpoint {id} of job {} ('{}') is complete", job.jid, job.name),
        }
        Ok(ExitCode::SUCCESS)
    }
}
