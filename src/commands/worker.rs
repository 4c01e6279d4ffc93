//! `flott worker`: runs a worker.

use std::process::ExitCode;

use clap::Args;
use flott::Result;
use flott::worker::supervisor::{WorkerProcess, run};

use super::process::Settings;

/// Runs a worker until Ctrl-C or SIGTERM: it offers slots to the cluster, and runs jobs in processes of their own.
///
/// It looks for the coordinators of coordinator.members, or the one of coordinator.host and coordinator.port.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,
}

const EXAMPLES: &str = "Examples:
  flott worker --config conf/flott.yaml
  flott worker -D worker.slots=4 -D coordinator.host=control.example.com";

impl Arguments {
    /// Runs until the end.
    pub fn run(self) -> Result<ExitCode> {
        let configuration = self.settings.start("worker")?;
        let process = WorkerProcess::from_configuration(&configuration)?;
        run(process).inspect_err(|error| tracing::error!(%error, "the worker ends"))?;
        Ok(ExitCode::SUCCESS)
    }
}
