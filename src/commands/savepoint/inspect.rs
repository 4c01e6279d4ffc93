//! `flott savepoint inspect`: what a savepoint or checkpoint holds.

use std::process::ExitCode;

use clap::Args;
use flott::Result;
use flott::schema::config::Configuration;
use flott::schema::snapshot::Manifest;
use flott::storage::{self, Storage, lists, manifest};

use super::super::operation::absolute;
use super::described::{as_json, as_text};
use super::entries::Entries;

/// Shows what a savepoint or checkpoint holds: operators, states, types, sizes, key groups. Reads its files; no cluster is asked.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Its folder, or the _metadata in it
    #[arg(value_name = "PATH")]
    path: String,

    /// Shows the entries too, which reads all files
    #[arg(long)]
    state: bool,

    /// Entries that are shown of each state
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: usize,

    /// Reads every file and compares it with its checksum
    #[arg(long)]
    verify: bool,

    /// Sets a key of the configuration: how S3 is reached
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    properties: Vec<String>,

    /// Prints JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott savepoint inspect /shared/savepoints/savepoint-3f9a1c-0123456789ab
  flott savepoint inspect --json /checkpoints/3f9a1c.../chk-7 | jq '.vertices[].operators[].uid'";

impl Arguments {
    /// Prints what the manifest says.
    pub fn run(self) -> Result<ExitCode> {
        let configuration =
            flott::process_configuration()?.overlaid_with(Configuration::from_pairs(&self.properties)?);
        storage::configure(&storage::keys_of(&configuration))?;
        let folder = manifest::folder_of(&absolute(&self.path)?)?;
        let mut manifest = manifest::read(&folder)?;
        lists::bring_in(&folder, &mut manifest)?;
        let entries = self.state.then(|| Entries::read(&folder, &manifest, self.limit)).transpose()?;
        match self.json {
            true => {
                println!("{}", serde_json::to_string_pretty(&as_json(&folder, &manifest, entries.as_ref()))?)
            }
            false => print!("{}", as_text(&folder, &manifest, entries.as_ref())),
        }
        if self.verify {
            let files = verify(&folder, &manifest)?;
            eprintln!("{files} files are as they were written");
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Checks all files, each once; the error names the first that is not as it was written.
fn verify(folder: &Storage, manifest: &Manifest) -> Result<usize> {
    let mut files: Vec<_> = manifest.tasks.iter().flat_map(|task| task.files()).collect();
    files.sort();
    files.dedup();
    files.iter().try_for_each(|file| folder.verify(file))?;
    Ok(files.len())
}
