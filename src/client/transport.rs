//! Calls: one after the other, to whichever coordinator answers.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use flott_schema::Result;
use flott_schema::config::{Configuration, options};
use flott_schema::security::Token;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::http::{Method, Request, Response};

use super::addresses::Addresses;
use super::error::ClientError;

/// How long a call waits before it asks again whether there is a leader.
const ELECTION_PAUSE: Duration = Duration::from_millis(250);
/// The media type of JSON.
const JSON: &str = "application/json";
/// How often a call follows an answer that names another coordinator.
const REDIRECTS_MAX: usize = 3;

/// Calls the REST API of a cluster, from one thread or several; connections are kept.
pub struct Client {
    addresses: Addresses,
    /// The coordinator that answered last: index into the addresses.
    preferred: AtomicUsize,
    agent: Agent,
    /// Without a deadline for the whole call: uploads take as long as they take, but each step has one.
    patient: Agent,
    /// `Bearer TOKEN`, where the cluster asks for one.
    authorization: Option<String>,
    /// What stands in front of each path; empty, or a path without `/` at its end.
    prefix: String,
    answer_bytes_max: u64,
    /// How long a call waits while coordinators answer that they have no leader.
    leader_wait: Duration,
}

/// What a call sends.
pub(super) trait Body {
    /// The bytes from their beginning, and their number. Called once for each coordinator that is tried.
    fn open(&self) -> Result<(Box<dyn Read + Send>, u64)>;
}

impl Body for &[u8] {
    fn open(&self) -> Result<(Box<dyn Read + Send>, u64)> {
        let bytes = self.to_vec();
        let length = bytes.len() as u64;
        Ok((Box::new(std::io::Cursor::new(bytes)), length))
    }
}

/// The body of every answer that is no success.
#[derive(Deserialize)]
struct Errors {
    errors: Vec<String>,
}

/// One try of a call.
enum Tried {
    Answered(String),
    /// This coordinator cannot help, another may.
    Next(ClientError),
    Redirected(String),
    Failed(ClientError),
}

impl Client {
    /// A client with the deadlines, the token and the path prefix of `configuration`.
    pub fn new(addresses: Addresses, configuration: &Configuration) -> Result<Self> {
        let connect: Duration = configuration.get(&options::REST_CONNECTION_TIMEOUT)?;
        let whole: Duration = configuration.get(&options::CLIENT_TIMEOUT)?;
        let prefix: String = configuration.get(&options::REST_URL_PREFIX)?;
        let token = Token::from_configuration(configuration, |path| std::fs::read_to_string(path))?;
        let agent = |global: Option<Duration>| {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .user_agent(concat!("flott/", env!("CARGO_PKG_VERSION")))
                // A cluster is not behind the proxy for the world.
                .proxy(None)
                .timeout_global(global)
                .timeout_connect(Some(connect))
                .timeout_per_write(Some(whole))
                .timeout_recv_response(Some(whole))
                .timeout_recv_body(Some(whole));
            Agent::new_with_config(config.build())
        };
        Ok(Client {
            addresses,
            preferred: AtomicUsize::new(0),
            agent: agent(Some(whole)),
            patient: agent(None),
            authorization: (!token.is_none()).then(|| format!("Bearer {}", token.reveal())),
            prefix: prefix.trim_end_matches('/').to_string(),
            answer_bytes_max: configuration.get(&options::REST_CLIENT_MAX_CONTENT_LENGTH)?.bytes(),
            leader_wait: configuration.get(&options::REST_AWAIT_LEADER_TIMEOUT)?,
        })
    }

    /// The coordinators that are asked.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// `GET path`, read as `T`.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let text = self.get_text(path)?;
        self.parse(path, &text)
    }

    /// `GET path`, as it comes.
    pub fn get_text(&self, path: &str) -> Result<String, ClientError> {
        self.call(&self.agent, Method::GET, path, None)
    }

    /// `PATCH path` without a body.
    pub fn patch(&self, path: &str) -> Result<(), ClientError> {
        self.call(&self.agent, Method::PATCH, path, None).map(drop)
    }

    /// `POST path` with `bytes` of a type. It is sent again to the next coordinator if one cannot be reached, so what is
    /// posted must be fit for that.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        bytes: &[u8],
    ) -> Result<T, ClientError> {
        let text = self.call(&self.agent, Method::POST, path, Some((content_type, &bytes)))?;
        self.parse(path, &text)
    }

    /// `POST path` with JSON; as [`Client::post`].
    pub fn post_json<T: DeserializeOwned>(&self, path: &str, json: &str) -> Result<T, ClientError> {
        self.post(path, JSON, json.as_bytes())
    }

    /// `PUT path` with JSON.
    pub fn put_json(&self, path: &str, json: &str) -> Result<(), ClientError> {
        self.call(&self.agent, Method::PUT, path, Some((JSON, &json.as_bytes()))).map(drop)
    }

    /// `POST path` with a body of any length.
    pub(super) fn post_stream<T: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &str,
        body: &dyn Body,
    ) -> Result<T, ClientError> {
        let text = self.call(&self.patient, Method::POST, path, Some((content_type, body)))?;
        self.parse(path, &text)
    }

    fn parse<T: DeserializeOwned>(&self, path: &str, text: &str) -> Result<T, ClientError> {
        serde_json::from_str(text).map_err(|error| ClientError::Strange {
            address: self.address_of(self.preferred.load(Ordering::Relaxed)).to_string(),
            path: path.to_string(),
            reason: error.to_string(),
        })
    }

    fn address_of(&self, index: usize) -> &str {
        self.addresses.iter().nth(index % self.addresses.count()).unwrap_or_default()
    }

    /// Calls, and calls again while the coordinators elect a leader.
    fn call(
        &self,
        agent: &Agent,
        method: Method,
        path: &str,
        body: Option<(&str, &dyn Body)>,
    ) -> Result<String, ClientError> {
        let started = Instant::now();
        loop {
            let result = self.call_all(agent, &method, path, body);
            let elects = matches!(result, Err(ClientError::Unavailable { .. }));
            if !elects || started.elapsed() + ELECTION_PAUSE > self.leader_wait {
                return result;
            }
            std::thread::sleep(ELECTION_PAUSE);
        }
    }

    /// Calls one coordinator after the other, until one answers.
    fn call_all(
        &self,
        agent: &Agent,
        method: &Method,
        path: &str,
        body: Option<(&str, &dyn Body)>,
    ) -> Result<String, ClientError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for index in (0..self.addresses.count()).map(|step| (first + step) % self.addresses.count()) {
            match self.call_one(agent, method, self.address_of(index), path, body) {
                Ok(text) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(text);
                }
                // That one has no leader says more than that another is gone.
                Err(error @ ClientError::Unavailable { .. }) => last = Some(error),
                Err(error) if error.is_transient() => {
                    last.get_or_insert(error);
                }
                Err(error) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
        Err(match last {
            Some(ClientError::Unreachable { reason, .. }) => {
                ClientError::Unreachable { addresses: self.addresses.to_string(), reason }
            }
            Some(error) => error,
            None => ClientError::Unreachable { addresses: String::new(), reason: "none is named".into() },
        })
    }

    /// Calls one coordinator, and the one it points to.
    fn call_one(
        &self,
        agent: &Agent,
        method: &Method,
        address: &str,
        path: &str,
        body: Option<(&str, &dyn Body)>,
    ) -> Result<String, ClientError> {
        let mut address = address.to_string();
        for _ in 0..REDIRECTS_MAX {
            match self.attempt(agent, method, &address, path, body) {
                Tried::Answered(text) => return Ok(text),
                Tried::Redirected(to) => address = to,
                Tried::Next(error) | Tried::Failed(error) => return Err(error),
            }
        }
        Err(ClientError::Unavailable { address, message: "the coordinators point to one another".into() })
    }

    fn attempt(
        &self,
        agent: &Agent,
        method: &Method,
        address: &str,
        path: &str,
        body: Option<(&str, &dyn Body)>,
    ) -> Tried {
        let strange = |reason: String| {
            Tried::Failed(ClientError::Strange { address: address.into(), path: path.into(), reason })
        };
        let unreachable = |error: ureq::Error| {
            Tried::Next(ClientError::Unreachable { addresses: address.into(), reason: error.to_string() })
        };
        let mut request =
            Request::builder().method(method).uri(format!("http://{address}{}{path}", self.prefix));
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let sent = match body {
            None if method == Method::GET => request.body(()).map(|request| agent.run(request)),
            // With a length: a follower hands on what has one.
            None => request
                .header("Content-Length", 0)
                .body(ureq::SendBody::from_owned_reader(std::io::empty()))
                .map(|request| agent.run(request)),
            Some((content_type, body)) => {
                let (reader, length) = match body.open() {
                    Ok(opened) => opened,
                    Err(error) => return strange(error.to_string()),
                };
                let request = request.header("Content-Type", content_type).header("Content-Length", length);
                request.body(ureq::SendBody::from_owned_reader(reader)).map(|request| agent.run(request))
            }
        };
        let mut response = match sent {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return unreachable(error),
            Err(error) => return strange(error.to_string()),
        };
        let status = response.status().as_u16();
        if let (307 | 308, Some(to)) = (status, redirect(&response)) {
            return Tried::Redirected(to);
        }
        // One more than wanted, to tell what is too long.
        let text = match response.body_mut().with_config().limit(self.answer_bytes_max).read_to_string() {
            Ok(text) => text,
            Err(ureq::Error::BodyExceedsLimit(limit)) => {
                return strange(format!("it has more than {limit} bytes (rest.client.max-content-length)"));
            }
            Err(error) => return unreachable(error),
        };
        match status {
            200..300 => Tried::Answered(text),
            503 => Tried::Next(ClientError::Unavailable {
                address: address.into(),
                message: message(&text, status),
            }),
            _ => Tried::Failed(ClientError::Refused { status, message: message(&text, status) }),
        }
    }
}

/// `host:port` of the coordinator that an answer points to.
fn redirect<B>(response: &Response<B>) -> Option<String> {
    let location = response.headers().get("Location")?.to_str().ok()?;
    let after = location.strip_prefix("http://")?;
    let address = after.split('/').next()?;
    (!address.is_empty()).then(|| address.to_string())
}

/// What an answer that is no success says. Flink puts the stack of the exception below its message.
fn message(text: &str, status: u16) -> String {
    let said = serde_json::from_str::<Errors>(text).map(|errors| errors.errors.join("; "));
    match said {
        Ok(message) if !message.trim().is_empty() => message.trim().to_string(),
        _ => format!("the coordinator answered with HTTP status {status}"),
    }
}
