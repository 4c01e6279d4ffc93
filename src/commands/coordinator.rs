//! `flott coordinator`: runs a coordinator.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use flott::coordinator::process::Process;
use flott::coordinator::rest;
use flott::schema::config::{Configuration, options};
use flott::schema::security::{Token, check_binding};
use flott::{Error, ErrorKind, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

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
        // The log is a file that nobody may be looking at.
        self.serve(&configuration).inspect_err(|error| tracing::error!(%error, "the coordinator ends"))?;
        Ok(ExitCode::SUCCESS)
    }

    fn serve(&self, configuration: &Configuration) -> Result<()> {
        let token = Token::from_configuration(configuration, |path| std::fs::read_to_string(path))?;
        let mut rest = rest::Options::from_configuration(configuration)?;
        check_binding(options::REST_BIND_ADDRESS.key(), &rest.bind_address, &token)?;
        rest.token = token.clone();
        rest.log_folder = configuration.get(&options::LOG_DIR)?.map(PathBuf::from);
        if !configuration.is_set(&options::COORDINATOR_DATA_DIR) {
            tracing::warn!(
                "coordinator.data-dir is not set: jobs and programs are forgotten when this coordinator ends"
            );
        }
        let advertised =
            configuration.is_set(&options::REST_ADDRESS).then(|| rest.advertised_address.clone()).flatten();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // Listens before anything is started, so that nothing is cut off.
        let entered = runtime.enter();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        drop(entered);
        let process = Process::start(configuration, token)?;
        let end = Arc::<Notify>::default();
        let told = end.clone();
        let server = rest::Server::start(rest, process.rest_services(Arc::new(move || told.notify_one())))?;
        process.set_rest_address(advertised.unwrap_or_else(|| server.address().to_string()));
        self.note(server.address())?;
        runtime.block_on(async {
            let is_told = tokio::select! {
                _ = terminate.recv() => true,
                _ = interrupt.recv() => true,
                () = end.notified() => true,
                () = process.ended() => false,
            };
            server.stop().await;
            if !is_told {
                return Err(Error::new(
                    ErrorKind::Io,
                    "its log takes nothing any more; the lines before say why",
                ));
            }
            tracing::info!("told to end");
            process.stop().await;
            Ok(())
        })
    }

    fn note(&self, address: SocketAddr) -> Result<()> {
        match &self.address_file {
            Some(file) => write_at_once(file, address),
            None => {
                eprintln!("REST API: http://{address}");
                Ok(())
            }
        }
    }
}

/// Writes the file so that nobody reads half of it.
fn write_at_once(file: &Path, address: SocketAddr) -> Result<()> {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let written = std::fs::write(&part, format!("{address}\n")).and_then(|()| std::fs::rename(&part, file));
    written.map_err(|error| Error::io(file.display(), error))
}
