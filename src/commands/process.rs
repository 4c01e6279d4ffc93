//! What the commands that start a process of a cluster share: configuration and log.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use flott::schema::config::{Configuration, options};
use flott::worker::open_files;
use flott::worker::supervisor::rotate::{RotatingFile, Rotation, SharedLog};
use flott::{Error, Result};
use tracing_subscriber::EnvFilter;

/// The variable that says what is logged, as `tracing` filters are written: `info`, `debug`, `flott_worker=debug,warn`.
const FILTER_VARIABLE: &str = "FLOTT_LOG";

/// What is logged if nothing is said. The library of the coordinators' log says many times a second that a member is gone; that
/// roles and terms change is said by the journal.
const DEFAULT_FILTER: &str = "info,openraft=off";

/// The flags of such a command.
#[derive(Args)]
pub struct Settings {
    /// The configuration file; FLOTT_PROPERTIES, FLOTT_CONF_* and -D go over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Sets a configuration key; may be given several times (conf/flott.yaml lists the keys)
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    properties: Vec<String>,
}

impl Settings {
    /// Reads the configuration, and starts the log of the process `role`.
    pub fn start(&self, role: &str) -> Result<Configuration> {
        let configuration = self.configuration()?;
        start_log(role, &configuration)?;
        let raised = open_files::raise_limit();
        match (open_files::complaint(&raised), raised) {
            (Some(complaint), _) => tracing::warn!("{complaint}"),
            (None, Ok(limit)) => tracing::info!(limit, "files and connections that may be open"),
            (None, Err(_)) => {}
        }
        flott::storage::configure(&flott::storage::keys_of(&configuration))?;
        for key in configuration.ineffective_keys().filter(|key| !flott::storage::is_key(key)) {
            tracing::warn!("{key} is set, but Flott does not act on it");
        }
        for (key, replacement) in configuration.deprecated_keys() {
            match replacement {
                Some(replacement) => tracing::warn!("{key} is an old name; the new one is {replacement}"),
                None => tracing::warn!("{key} has no meaning any more"),
            }
        }
        Ok(configuration)
    }

    fn configuration(&self) -> Result<Configuration> {
        let file = match &self.config {
            Some(path) => read(path)?,
            None => Configuration::new(),
        };
        let pairs = Configuration::from_pairs(&self.properties)?;
        Ok(file.overlaid_with(flott::process_configuration()?).overlaid_with(pairs))
    }
}

fn read(path: &Path) -> Result<Configuration> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::configuration(format!("cannot read the configuration {}: {error}", path.display()))
    })?;
    Ok(Configuration::from_yaml(&text, &path.display().to_string())?)
}

/// Lines go to a file of the log folder if one is set, else to the standard error.
fn start_log(role: &str, configuration: &Configuration) -> Result<()> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| DEFAULT_FILTER.into());
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| Error::configuration(format!("{FILTER_VARIABLE} cannot be read: {error}")))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    match configuration.get(&options::LOG_DIR)? {
        Some(folder) => {
            let file = Path::new(&folder).join(format!("flott-{role}.log"));
            std::fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
            let rotation =
                Rotation { files_kept: configuration.get(&options::LOG_FILES_KEPT)?, ..Rotation::default() };
            let log =
                RotatingFile::open(&file, rotation).map_err(|error| Error::io(file.display(), error))?;
            let log = SharedLog::new(log);
            builder.with_ansi(false).with_writer(move || log.clone()).init();
        }
        None => builder.with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_go_over_the_file_and_a_bad_file_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "worker.slots: 2\nparallelism.default: 3\n").unwrap();
        let settings =
            Settings { config: Some(file.path().into()), properties: vec!["worker.slots=4".into()] };
        let configuration = settings.configuration().unwrap();
        assert_eq!(configuration.get(&options::WORKER_SLOTS).unwrap(), 4);
        assert_eq!(configuration.get(&options::PARALLELISM_DEFAULT).unwrap(), 3);
        std::fs::write(file.path(), "worker.slot: 2\n").unwrap();
        let error = settings.configuration().unwrap_err().to_string();
        assert!(error.contains("worker.slots") && error.contains(file.path().to_str().unwrap()), "{error}");
        let missing = Settings { config: Some("/no/such.yaml".into()), properties: Vec::new() };
        assert!(missing.configuration().unwrap_err().to_string().contains("/no/such.yaml"));
    }
}
