//! Settings of the REST API.

use std::path::PathBuf;
use std::time::Duration;

use flott_schema::config::{Configuration, options};
use flott_schema::error::{Error, Result};
use flott_schema::security::Token;
use thiserror::Error;

/// Why the REST API does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// None of the ports is free, or the address is not one of this host.
    #[error(
        "cannot open the REST API on {address}, ports {ports}: {source}; set `rest.bind-address` and `rest.bind-port`"
    )]
    Bind {
        /// The address.
        address: String,
        /// The ports tried.
        ports: String,
        /// Of the last try.
        source: std::io::Error,
    },
    /// Others could reach it, and it has no secret.
    #[error("{0}")]
    Open(Error),
    /// The thread of the server did not come up.
    #[error("cannot start the threads of the REST API: {0}")]
    Thread(std::io::Error),
}

/// Settings of a [`super::Server`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on.
    pub bind_address: String,
    /// Ports of which the first free one is taken; 0: any.
    pub bind_ports: Vec<u16>,
    /// What stands in front of every path: starts and ends with `/`.
    pub url_prefix: String,
    /// Threads that answer requests.
    pub threads: usize,
    /// Largest body of a request, other than of the upload of a program: the store has a bound of its own.
    pub content_length_max_bytes: u64,
    /// How long an answer may take, waiting for a leader and for workers included.
    pub request_deadline_ms: u64,
    /// How long a client may leave a connection, or a body it is sending, silent.
    pub idleness_timeout_ms: u64,
    /// How often a dashboard should ask.
    pub refresh_interval_ms: u64,
    /// Value of `Access-Control-Allow-Origin`. Where there is no token, pages of this origin may also ask for changes, unless
    /// it is `*`.
    pub allow_origin: String,
    /// The shared secret that clients must show as a bearer token.
    pub token: Token,
    /// Whether programs can be uploaded and run.
    pub submit_enabled: bool,
    /// Whether a dashboard offers to cancel jobs.
    pub cancel_enabled: bool,
    /// Failures of a job that are told unless a request says otherwise.
    pub exceptions_max: usize,
    /// The coordinator's configuration as it may be shown, secrets masked.
    pub configuration: Vec<(String, String)>,
    /// Where this process writes its log files; nothing: nowhere.
    pub log_folder: Option<PathBuf>,
    /// The address that clients reach this server under, `host:port`; nothing: as it listens.
    pub advertised_address: Option<String>,
    /// Milliseconds since 1970.
    pub now_ms: fn() -> u64,
}

impl Options {
    /// The options of a configuration. Token and log folder are for the caller to add.
    pub fn from_configuration(configuration: &Configuration) -> Result<Self> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let masked = configuration.masked().map(|(key, value)| (key.to_owned(), value.into_owned()));
        let port = configuration.get(&options::REST_PORT)?;
        let host = configuration.get(&options::REST_ADDRESS)?;
        Ok(Options {
            bind_address: configuration.get(&options::REST_BIND_ADDRESS)?,
            bind_ports: configuration.get(&options::REST_BIND_PORT)?.iter().collect(),
            url_prefix: configuration.get(&options::REST_URL_PREFIX)?,
            threads: configuration.get(&options::REST_SERVER_THREADS)? as usize,
            content_length_max_bytes: configuration.get(&options::REST_SERVER_MAX_CONTENT_LENGTH)?.as_usize()
                as u64,
            request_deadline_ms: millis(configuration.get(&options::REST_AWAIT_LEADER_TIMEOUT)?),
            idleness_timeout_ms: millis(configuration.get(&options::REST_IDLENESS_TIMEOUT)?),
            refresh_interval_ms: millis(configuration.get(&options::WEB_REFRESH_INTERVAL)?),
            allow_origin: configuration.get(&options::WEB_ALLOW_ORIGIN)?,
            token: Token::none(),
            submit_enabled: configuration.get(&options::WEB_SUBMIT_ENABLE)?,
            cancel_enabled: configuration.get(&options::WEB_CANCEL_ENABLE)?,
            exceptions_max: configuration.get(&options::WEB_EXCEPTION_HISTORY_SIZE)? as usize,
            configuration: masked.collect(),
            log_folder: None,
            advertised_address: host.map(|host| format!("{host}:{port}")),
            now_ms: crate::service::Options::default().now_ms,
        })
    }
}

impl Default for Options {
    /// Flink's defaults, on loopback.
    fn default() -> Self {
        Self::from_configuration(&Configuration::new()).expect("the defaults of the options are valid")
    }
}
