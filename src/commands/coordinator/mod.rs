//! `flott coordinator`: runs a coordinator.
//!
//! * `options`: what the configuration says; `directory`: where files are kept; `assembly`: the parts, put together
//!
//! Who may call it: the command line. What must never happen here: a decision about a job.

mod assembly;
mod directory;
mod options;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use flott::{Error, Result};

use assembly::run;
use options::CoordinatorProcess;

use super::process::Settings;

/// Runs a coordinator until Ctrl-C or SIGTERM: it decides where jobs run, and serves the REST API.
///
/// Jobs go on without their coordinator; one that comes back with its data directory (coordinator.data-dir) takes them over again.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    settings: Settings,

    /// Writes the address of the REST API to a file as soon as it answers
    #[arg(long, value_name = "FILE")]
    address_file: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:
  flott coordinator --config conf/flott.yaml
  flott coordinator -D coordinator.data-dir=/var/lib/flott -D rest.bind-port=8081";

impl Arguments {
    /// Runs until the end.
    pub fn run(self) -> Result<ExitCode> {
        let configuration = self.settings.start("coordinator")?;
        let process = CoordinatorProcess::from_configuration(&configuration)?;
        let ended = run(process, |address| match &self.address_file {
            Some(file) => note(file, address),
            None => {
                eprintln!("REST API: http://{address}");
                Ok(())
            }
        });
        // The log is a file that nobody may be looking at.
        ended.inspect_err(|error| tracing::error!(%error, "the coordinator ends"))?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Writes the file at once, so that nobody reads half of it.
fn note(file: &Path, address: SocketAddr) -> Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let written = std::fs::write(&part, format!("{address}\n")).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|error| Error::io(file.display(), error))
}
