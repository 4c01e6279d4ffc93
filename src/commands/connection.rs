//! Which cluster a command talks to.

use std::time::Duration;

use clap::Args;
use flott::client::{Addresses, COORDINATOR_VARIABLE, Client};
use flott::schema::config::{Configuration, parse_duration};
use flott::{Error, Result};

/// The flag that names the cluster.
#[derive(Args)]
pub struct Target {
    /// The cluster: REST addresses of its coordinators, any of which answers
    #[arg(short = 'm', long, value_name = "HOST:PORT,..", env = COORDINATOR_VARIABLE, value_parser = addresses)]
    coordinator: Option<Named>,
}

/// What the flag says. A variable that is set but empty names no cluster.
#[derive(Clone)]
struct Named(Option<Addresses>);

fn addresses(text: &str) -> std::result::Result<Named, String> {
    match text.trim().is_empty() {
        true => Ok(Named(None)),
        false => {
            text.parse().map(|addresses| Named(Some(addresses))).map_err(|error: Error| error.to_string())
        }
    }
}

/// Reads the value of a flag such as `--timeout '10 s'`.
pub fn length(text: &str) -> std::result::Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

impl Target {
    /// The coordinators, if a cluster is named.
    pub fn addresses(&self) -> Option<&Addresses> {
        self.coordinator.as_ref().and_then(|named| named.0.as_ref())
    }
}

/// The flags of a command that asks a cluster.
#[derive(Args)]
pub struct Connection {
    #[command(flatten)]
    target: Target,

    /// Sets a configuration key, such as client.timeout or security.token-file; may be given several times
    #[arg(short = 'D', value_name = "KEY=VALUE")]
    properties: Vec<String>,
}

impl Connection {
    /// A client of the cluster.
    pub fn client(&self) -> Result<Client> {
        self.named_client()?.ok_or_else(|| {
            Error::configuration(format!(
                "no cluster is named: say -m HOST:PORT, or set {COORDINATOR_VARIABLE} (scripts/start-cluster.sh starts one and \
                 prints its address)"
            ))
        })
    }

    /// A client of the cluster, if one is named.
    pub fn named_client(&self) -> Result<Option<Client>> {
        let configuration =
            flott::process_configuration()?.overlaid_with(Configuration::from_pairs(&self.properties)?);
        let addresses = self.target.addresses();
        addresses.map(|addresses| Client::new(addresses.clone(), &configuration)).transpose()
    }
}
