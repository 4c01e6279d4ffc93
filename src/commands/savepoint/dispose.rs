//! `flott savepoint dispose`: deletes a savepoint.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use flott::Result;
use flott::client::{Client, ClientError};
use flott::storage::manifest;
use serde_json::json;

use super::super::connection::{Connection, length};
use super::super::operation::{absolute, result_of};

/// Deletes a savepoint: through the cluster, or, if none is named, from here.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,

    /// Its folder, or the _metadata in it
    #[arg(value_name = "PATH")]
    path: String,

    /// How long to wait until it is gone
    #[arg(long, value_name = "DURATION", default_value = "5 min", value_parser = length)]
    timeout: Duration,

    /// Prints the path as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "Examples:
  flott savepoint dispose /shared/savepoints/savepoint-3f9a1c-0123456789ab";

impl Arguments {
    /// Deletes the savepoint.
    pub fn run(self) -> Result<ExitCode> {
        let path = absolute(&self.path)?;
        match self.connection.named_client()? {
            Some(client) => self.ask(&client, &path)?,
            None => delete_here(&path)?,
        }
        match self.json {
            true => println!("{}", json!({"disposed": path})),
            false => println!("savepoint {path} is deleted"),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn ask(&self, client: &Client, path: &str) -> Result<()> {
        let operation = client.start_disposal(path).map_err(ClientError::into_error)?;
        let what = format!("the deletion of savepoint {path}");
        result_of(client, None, &operation, &what, self.timeout).map(drop)
    }
}

fn delete_here(path: &str) -> Result<()> {
    manifest::dispose(&manifest::folder_of(path)?)
}
