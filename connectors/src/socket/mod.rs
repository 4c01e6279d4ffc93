//! A source of lines from a TCP connection, for trying things out (`nc -lk 9999`) and simple feeds.
//!
//! Who may call it: job authors. What must never happen here: blocking; a read that waits gives its waker to the connection.
//!
//! A socket cannot be read twice, so there is no position to keep: a job that starts from a checkpoint connects again, and lines
//! that came between the checkpoint and the failure are lost, each line is processed at most once. Lines that came before the
//! checkpoint are in it, except those that lay unread in the reader's buffer.

mod connection;
mod reader;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use flott_dataflow::codec::{decode_value, encode_value};
use flott_dataflow::context::OperatorContext;
use flott_dataflow::source::{Assignment, Boundedness, Source, SplitEnumerator};
use flott_schema::{Error, Result};

use crate::bad_record::{BadRecords, OnBadRecord};

pub use reader::SocketReader;

/// Reads lines from one connection, in one task; other tasks of the source have nothing to do, so give it parallelism 1.
/// After a failure of the job lines may be missing (at most once): what was sent cannot be asked for again.
/// It ends when the peer closes the connection and there are no retries left, which is at once by default, as in Flink.
///
/// ```
/// use std::time::Duration;
/// use flott_connectors::socket::SocketText;
/// let lines = SocketText::new("localhost", 9999).retries(5).retry_delay(Duration::from_millis(200));
/// ```
#[derive(Clone, Debug)]
pub struct SocketText {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) delimiter: u8,
    pub(crate) retries: u32,
    pub(crate) retry_delay: Duration,
    pub(crate) retry_delay_max: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_line_bytes: usize,
    on_bad_record: OnBadRecord,
}

impl SocketText {
    /// Lines from `host:port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        SocketText {
            host: host.into(),
            port,
            delimiter: b'\n',
            retries: 0,
            retry_delay: Duration::from_millis(500),
            retry_delay_max: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            max_line_bytes: 64 << 20,
            on_bad_record: OnBadRecord::default(),
        }
    }

    /// What ends a line. Default: `\n`, which also takes `\r\n`.
    pub fn delimiter(mut self, delimiter: u8) -> Self {
        self.delimiter = delimiter;
        self
    }

    /// How often in a row to connect again when connecting fails or the connection ends; `u32::MAX` for ever. Counted anew
    /// when data arrives. A line that was cut off by the end of a connection is emitted as it is. Default 0.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// How long to wait before the first retry; each further one waits twice as long, up to 30 seconds. Default 500 ms.
    pub fn retry_delay(mut self, delay: Duration) -> Self {
        self.retry_delay = delay;
        self
    }

    /// How long connecting may take. Default 10 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A line longer than this is an error. Default 64 MiB.
    pub fn max_line_bytes(mut self, bytes: usize) -> Self {
        self.max_line_bytes = bytes;
        self
    }

    /// What to do with lines that are not UTF-8. Default: fail.
    pub fn on_bad_record(mut self, policy: OnBadRecord) -> Self {
        self.on_bad_record = policy;
        self
    }
}

/// The one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketSplit;

impl Source for SocketText {
    type Record = String;
    type Split = SocketSplit;
    type Enumerator = SocketEnumerator;
    type Reader = SocketReader;

    fn boundedness(&self) -> Boundedness {
        Boundedness::Unbounded
    }

    fn check(&self) -> Result<()> {
        if self.host.is_empty() || self.port == 0 {
            return Err(Error::configuration(format!(
                "socket address '{}:{}' is not complete; give a host and a port from 1 to 65535",
                self.host, self.port
            )));
        }
        self.on_bad_record.check()
    }

    fn enumerator(&self, _parallelism: u32) -> Result<SocketEnumerator> {
        Ok(SocketEnumerator { handed_out: false })
    }

    fn reader(&self, ctx: &OperatorContext) -> Result<SocketReader> {
        let bad = BadRecords::new(self.on_bad_record.clone(), ctx.metrics.clone());
        Ok(SocketReader::new(self.clone(), bad))
    }
}

/// Hands out the connection to the first reader that asks.
pub struct SocketEnumerator {
    handed_out: bool,
}

impl SplitEnumerator for SocketEnumerator {
    type Split = SocketSplit;

    fn next_split(&mut self, _subtask: u32) -> Result<Assignment<SocketSplit>> {
        match std::mem::replace(&mut self.handed_out, true) {
            false => Ok(Assignment::Split(SocketSplit)),
            true => Ok(Assignment::NoMore),
        }
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        encode_value(&self.handed_out, &mut bytes)?;
        Ok(bytes)
    }

    fn restore(&mut self, state: &[u8]) -> Result<()> {
        self.handed_out = decode_value(state)?;
        Ok(())
    }
}
