//! A connection that is made again when it ends.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep, timeout};

use flott_schema::{Error, Result};

use super::SocketText;

/// A connection to one address.
pub struct Connection {
    settings: SocketText,
    address: String,
    state: State,
    /// Failures in a row.
    failures: u32,
}

enum State {
    Waiting(Pin<Box<Sleep>>),
    Connecting(Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>),
    Connected(TcpStream),
    Ended,
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// So many bytes.
    Bytes(usize),
    /// This connection has ended; what follows, if anything, comes from another.
    Closed,
}

impl Connection {
    /// Connects when it is first read from.
    pub fn new(settings: SocketText) -> Self {
        let address = format!("{}:{}", settings.host, settings.port);
        let state = connecting(&settings);
        Connection { settings, address, state, failures: 0 }
    }

    /// The address, for people.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether nothing more will come.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Reads into `room`. Must be called within a tokio runtime.
    pub fn poll_read(&mut self, room: &mut [u8], cx: &mut Context<'_>) -> Poll<Result<Received>> {
        loop {
            match &mut self.state {
                State::Ended => return Poll::Ready(Ok(Received::Closed)),
                State::Waiting(sleep) => {
                    ready!(sleep.as_mut().poll(cx));
                    self.state = connecting(&self.settings);
                }
                State::Connecting(connect) => match ready!(connect.as_mut().poll(cx)) {
                    Ok(stream) => self.state = State::Connected(stream),
                    Err(error) => self.failed("cannot connect to", error)?,
                },
                State::Connected(stream) => {
                    let mut buffer = ReadBuf::new(room);
                    match ready!(Pin::new(stream).poll_read(cx, &mut buffer)) {
                        Ok(()) if buffer.filled().is_empty() => {
                            if !self.retry() {
                                self.state = State::Ended;
                            }
                            return Poll::Ready(Ok(Received::Closed));
                        }
                        Ok(()) => {
                            self.failures = 0;
                            return Poll::Ready(Ok(Received::Bytes(buffer.filled().len())));
                        }
                        Err(error) => {
                            self.failed("lost the connection to", error)?;
                            return Poll::Ready(Ok(Received::Closed));
                        }
                    }
                }
            }
        }
    }

    /// Waits for the next attempt; false if there is none.
    fn retry(&mut self) -> bool {
        let SocketText { retries, retry_delay, retry_delay_max, .. } = self.settings;
        if self.failures >= retries && retries != u32::MAX {
            return false;
        }
        let doubled = retry_delay.saturating_mul(1 << self.failures.min(20));
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting(Box::pin(sleep(doubled.min(retry_delay_max.max(retry_delay)))));
        true
    }

    fn failed(&mut self, what: &str, error: io::Error) -> Result<()> {
        if self.retry() {
            tracing::warn!(address = %self.address, failures = self.failures, "{what} a socket source's peer: {error}");
            return Ok(());
        }
        self.state = State::Ended;
        let tried = match self.settings.retries {
            0 => String::new(),
            retries => format!(" (after {retries} retries)"),
        };
        Err(Error::io(format!("{what} '{}'{tried}", self.address), error))
    }
}

fn connecting(settings: &SocketText) -> State {
    let (host, port) = (settings.host.clone(), settings.port);
    let limit: Duration = settings.connect_timeout;
    State::Connecting(Box::pin(async move {
        match timeout(limit, TcpStream::connect((host, port))).await {
            Ok(connected) => connected,
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {} ms", limit.as_millis()),
            )),
        }
    }))
}
