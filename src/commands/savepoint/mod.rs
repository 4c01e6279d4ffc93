//! `flott savepoint`: takes a savepoint, or looks at one, or deletes one.
//!
//! * this file: `flott savepoint JOB [DIR]`
//! * `inspect`: what a savepoint or checkpoint holds, read from its manifest; `described`: the same for people and as JSON; `entries`:
//!   what its tables hold; `values`: bytes as values of a type
//! * `dispose`: deleting one
//!
//! Who may call it: the command line. What must never happen here: a file of a snapshot that is written.

mod described;
mod dispose;
mod entries;
mod inspect;
mod values;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use flott::Result;
use flott::client::ClientError;
use flott::schema::snapshot::SavepointFormat;
use serde_json::json;

use super::connection::{Connection, length};
use super::operation::{absolute, result_of};

/// Takes a savepoint of a job, which goes on; or looks at a savepoint, or deletes one.
#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<SavepointCommand>,

    #[command(flatten)]
    connection: Connection,

    /// The job's id, or the beginning of it
    #[arg(required = true)]
    job: Option<String>,

    /// Folder for the savepoint, in place of execution.checkpointing.savepoint-dir of the job
    #[arg(value_name = "DIR")]
    directory: Option<String>,

    /// Form of the savepoint's files
    #[arg(long, alias = "type", value_enum, default_value_t = Format::Canonical)]
    format: Format,

    /// Does not wait until it is complete
    #[arg(long)]
    no_wait: bool,

    /// How long to wait until it is complete; it goes on after that
    #[arg(long, value_name = "DURATION", default_value = "15 min", value_parser = length)]
    timeout: Duration,

    /// Prints job and savepoint as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Subcommand)]
enum SavepointCommand {
    Inspect(inspect::Arguments),
    Dispose(dispose::Arguments),
}

/// Form of a savepoint's files.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Format {
    /// Documented rows, which any state backend reads
    Canonical,
    /// The files of the state backend: quicker
    Native,
}

impl From<Format> for SavepointFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Canonical => SavepointFormat::Canonical,
            Format::Native => SavepointFormat::Native,
        }
    }
}

const EXAMPLES: &str = "Examples:
  flott savepoint 3f9a /shared/savepoints
  flott savepoint inspect /shared/savepoints/savepoint-3f9a1c-0123456789ab
  flott savepoint dispose /shared/savepoints/savepoint-3f9a1c-0123456789ab";

impl Arguments {
    /// Takes the savepoint, or obeys the command behind the word.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Some(SavepointCommand::Inspect(arguments)) => return arguments.run(),
            Some(SavepointCommand::Dispose(arguments)) => return arguments.run(),
            None => {}
        }
        let client = self.connection.client()?;
        let job = client.find_job(&self.job.unwrap_or_default())?;
        let folder = self.directory.as_deref().map(absolute).transpose()?;
        let started = client.start_savepoint(&job.jid, folder.as_deref(), self.format.into());
        let operation = started.map_err(ClientError::into_error)?;
        if self.no_wait {
            match self.json {
                true => {
                    println!("{}", json!({"job": job.jid, "name": job.name, "trigger": operation.trigger}))
                }
                false => println!("a savepoint of job {} ('{}') is being taken", job.jid, job.name),
            }
            return Ok(ExitCode::SUCCESS);
        }
        let what = format!("the savepoint of job {} ('{}')", job.jid, job.name);
        let savepoint = result_of(&client, Some(&job.jid), &operation, &what, self.timeout)?;
        match self.json {
            true => println!("{}", json!({"job": job.jid, "name": job.name, "savepoint": savepoint})),
            false => println!("savepoint of job {} ('{}'): {savepoint}", job.jid, job.name),
        }
        Ok(ExitCode::SUCCESS)
    }
}
