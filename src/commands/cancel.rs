//! `flott cancel`: ends a job of a cluster.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use flott::client::views::has_ended;
use flott::client::{Client, ClientError};
use flott::{Error, ErrorKind, Result};
use serde_json::json;

use super::connection::{Connection, length};

/// Cancels a job, and waits until it has ended.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// The job's id, or the beginning of it
    job: String,

    /// Does not wait for the end
    #[arg(long)]
    no_wait: bool,

    /// How long to wait for the end; the job goes on ending after it
    #[arg(long, value_name = "DURATION", default_value = "5 min", value_parser = length)]
    timeout: Duration,

    /// Prints id and state as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott cancel 3f9a
  flott cancel -m host:8081 --no-wait 3f9a1c";

/// Between two questions whether the job has ended.
const INTERVAL: Duration = Duration::from_millis(100);

impl Arguments {
    /// Cancels the job.
    pub fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        let job = client.find_job(&self.job)?;
        if has_ended(&job.state) {
            return Err(Error::bad_input(format!(
                "job {} ('{}') has ended already: {}",
                job.jid, job.name, job.state
            )));
        }
        client.cancel(&job.jid).map_err(ClientError::into_error)?;
        let state = match self.no_wait {
            true => "CANCELLING".to_string(),
            false => self.wait(&client, &job.jid)?,
        };
        match self.json {
            true => println!("{}", json!({"job": job.jid, "name": job.name, "state": state})),
            false if self.no_wait => println!("job {} ('{}') is being cancelled", job.jid, job.name),
            false => println!("job {} ('{}') has ended: {state}", job.jid, job.name),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn wait(&self, client: &Client, id: &str) -> Result<String> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let state = match client.job(id) {
                Ok(job) => Some(job.state),
                // It goes on ending while coordinators change places.
                Err(error) if error.is_transient() && Instant::now() < deadline => None,
                Err(error) => return Err(error.into_error()),
            };
            match state {
                Some(state) if has_ended(&state) => return Ok(state),
                Some(state) if Instant::now() >= deadline => {
                    return Err(Error::new(
                        ErrorKind::Resources,
                        format!(
                            "job {id} is still {state} after {:?}; task.cancellation.timeout of the job says when its \
                             executors are killed",
                            self.timeout
                        ),
                    ));
                }
                _ => std::thread::sleep(INTERVAL),
            }
        }
    }
}
