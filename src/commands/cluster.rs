//! `flott cluster`: the cluster itself.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use flott::client::views::{Overview, WorkerView, Workers};
use flott::client::{Client, ClientError};
use flott::{Error, ErrorKind, Result};
use serde_json::json;

use super::connection::{Connection, length};
use super::table::{Table, bytes};

/// Shows the cluster.
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Status(Status),
}

/// Shows workers, slots and the number of jobs.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
struct Status {
    #[command(flatten)]
    connection: Connection,

    /// Waits until the cluster answers and has N workers
    #[arg(long, value_name = "N")]
    wait: Option<u32>,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "30 s", value_parser = length, requires = "wait")]
    timeout: Duration,

    /// Prints it as JSON: what the REST API gives for /overview and /taskmanagers
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott cluster status -m localhost:8081
  flott cluster status --wait 2 --timeout '10 s'
  flott cluster status --json | jq '.overview[\"slots-available\"]'";

/// Between two questions whether the workers are there.
const INTERVAL: Duration = Duration::from_millis(20);

impl Arguments {
    /// Obeys the subcommand.
    pub fn run(self) -> Result<ExitCode> {
        match self.command {
            Command::Status(status) => status.run(),
        }
    }
}

impl Status {
    fn run(self) -> Result<ExitCode> {
        let client = self.connection.client()?;
        if let Some(workers) = self.wait {
            wait(&client, workers, self.timeout)?;
        }
        if self.json {
            let get = |path: &str| client.get::<serde_json::Value>(path).map_err(ClientError::into_error);
            let workers = get("/taskmanagers")?["taskmanagers"].take();
            println!(
                "{}",
                serde_json::to_string_pretty(
                    &json!({"overview": get("/overview")?, "taskmanagers": workers})
                )?
            );
            return Ok(ExitCode::SUCCESS);
        }
        let overview: Overview = client.get("/overview").map_err(ClientError::into_error)?;
        let workers: Workers = client.get("/taskmanagers").map_err(ClientError::into_error)?;
        print!("{}", described(&client, &overview, &workers.taskmanagers));
        Ok(ExitCode::SUCCESS)
    }
}

fn wait(client: &Client, workers: u32, timeout: Duration) -> Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let found = match client.get::<Overview>("/overview") {
            Ok(overview) if overview.taskmanagers >= workers => return Ok(()),
            Ok(overview) => format!("{} of {workers} workers are there", overview.taskmanagers),
            Err(error) if error.is_transient() => error.to_string(),
            Err(error) => return Err(error.into_error()),
        };
        if Instant::now() >= deadline {
            return Err(Error::new(
                ErrorKind::Resources,
                format!("the cluster is not ready after {timeout:?}: {found}"),
            ));
        }
        std::thread::sleep(INTERVAL);
    }
}

fn described(client: &Client, overview: &Overview, workers: &[WorkerView]) -> String {
    let mut text = format!("cluster at {}", client.addresses());
    if !overview.flott_version.is_empty() {
        text.push_str(&format!(" (version {})", overview.flott_version));
    }
    text.push_str(&format!(
        "\n  workers   {}\n  slots     {} of {} free\n  jobs      {} running, {} finished, {} cancelled, {} failed\n",
        overview.taskmanagers,
        overview.slots_available,
        overview.slots_total,
        overview.jobs_running,
        overview.jobs_finished,
        overview.jobs_cancelled,
        overview.jobs_failed
    ));
    if workers.is_empty() {
        return text;
    }
    let mut table =
        Table::new(&["worker", "address", "data port", "slots free", "cores", "memory free"], &[2, 3, 4, 5]);
    for worker in workers {
        table.row([
            worker.id.clone(),
            worker.path.clone(),
            worker.data_port.to_string(),
            format!("{} of {}", worker.free_slots, worker.slots_number),
            worker.hardware.cpu_cores.to_string(),
            bytes(worker.hardware.free_memory),
        ]);
    }
    format!("{text}\n{table}")
}
