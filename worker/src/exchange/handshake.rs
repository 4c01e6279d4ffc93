//! How a connection between executors begins: who connects, to whom, for which job; and the answer.
//!
//! On the wire: the length as 4 bytes, little endian, then the Cap'n Proto message. Reading takes these bytes and none that
//! follow, so that the connection can be handed over to another process behind it.

use std::time::Duration;

use flott_schema::ids::{JobId, WorkerId};
use flott_schema::wire::generated::exchange_capnp::{handshake, handshake_reply};
use flott_schema::wire::{Wire, broken, from_bytes, to_bytes};
use flott_schema::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// The protocol spoken; another is refused with the reason.
pub const PROTOCOL: u32 = 1;
/// Longest message: tokens and reasons are short.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// The first message, from the executor that connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// The shared secret; empty where none is configured.
    pub token: String,
    /// The job whose executors these are.
    pub job: JobId,
    /// Worker of the executor that connects.
    pub from: WorkerId,
    /// Worker of the executor that is meant.
    pub to: WorkerId,
    /// Credit with which each channel begins, bytes.
    pub window_bytes: u32,
}

impl Handshake {
    /// Refuses another protocol, and another token than `token`.
    pub fn check(&self, token: &str) -> Result<()> {
        let refuse = |what: String| Err(Error::new(ErrorKind::Io, what));
        if self.protocol != PROTOCOL {
            return refuse(format!("data protocol {} is not spoken here, but {PROTOCOL}", self.protocol));
        }
        // Every byte is looked at, so that the time taken tells nothing of the token.
        let (mine, theirs) = (token.as_bytes(), self.token.as_bytes());
        let differ =
            mine.iter().zip(theirs).fold(mine.len() ^ theirs.len(), |all, (a, b)| all | usize::from(a ^ b));
        if differ != 0 {
            return refuse("the token is wrong; `security.token` must be the same on all machines".into());
        }
        Ok(())
    }
}

impl Wire for Handshake {
    type Form = handshake::Owned;

    fn write(&self, mut form: handshake::Builder<'_>) -> Result<()> {
        form.set_protocol(self.protocol);
        form.set_token(&self.token);
        let mut job = form.reborrow().init_job();
        job.set_high((self.job.0 >> 64) as u64);
        job.set_low(self.job.0 as u64);
        form.set_from(self.from.0);
        form.set_to(self.to.0);
        form.set_window_bytes(self.window_bytes);
        Ok(())
    }

    fn read(form: handshake::Reader<'_>) -> Result<Self> {
        let job = form.get_job().map_err(broken)?;
        Ok(Handshake {
            protocol: form.get_protocol(),
            token: text(form.get_token().map_err(broken)?)?,
            job: JobId(u128::from(job.get_high()) << 64 | u128::from(job.get_low())),
            from: WorkerId(form.get_from()),
            to: WorkerId(form.get_to()),
            window_bytes: form.get_window_bytes(),
        })
    }
}

/// The answer; behind `Accepted` frames may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HandshakeReply {
    /// Frames may follow.
    Accepted,
    /// The reason why not; the connection is closed.
    Refused(String),
    /// The executor that is meant is not there, for this reason; the connection is closed, and may be tried again.
    NotYet(String),
}

impl Wire for HandshakeReply {
    type Form = handshake_reply::Owned;

    fn write(&self, mut form: handshake_reply::Builder<'_>) -> Result<()> {
        match self {
            HandshakeReply::Accepted => form.set_accepted(()),
            HandshakeReply::Refused(reason) => form.set_refused(reason),
            HandshakeReply::NotYet(reason) => form.set_not_yet(reason),
        }
        Ok(())
    }

    fn read(form: handshake_reply::Reader<'_>) -> Result<Self> {
        match form.which().map_err(|error| broken(error.into()))? {
            handshake_reply::Which::Accepted(()) => Ok(HandshakeReply::Accepted),
            handshake_reply::Which::Refused(reason) => {
                Ok(HandshakeReply::Refused(text(reason.map_err(broken)?)?))
            }
            handshake_reply::Which::NotYet(reason) => {
                Ok(HandshakeReply::NotYet(text(reason.map_err(broken)?)?))
            }
        }
    }
}

/// Reads the handshake of a connection, within `deadline`.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), deadline: Duration) -> Result<Handshake> {
    read_message(stream, deadline, "handshake").await
}

/// Sends the handshake of a connection, within `deadline`.
pub async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    handshake: &Handshake,
    deadline: Duration,
) -> Result<()> {
    write_message(stream, handshake, deadline, "handshake").await
}

/// Reads the answer to a handshake, within `deadline`.
pub async fn read_reply(stream: &mut (impl AsyncRead + Unpin), deadline: Duration) -> Result<HandshakeReply> {
    read_message(stream, deadline, "answer to the handshake").await
}

/// Answers a handshake, within `deadline`.
pub async fn write_reply(
    stream: &mut (impl AsyncWrite + Unpin),
    reply: &HandshakeReply,
    deadline: Duration,
) -> Result<()> {
    write_message(stream, reply, deadline, "answer to the handshake").await
}

async fn read_message<T: Wire>(
    stream: &mut (impl AsyncRead + Unpin),
    deadline: Duration,
    what: &str,
) -> Result<T> {
    let read = async {
        let length = stream.read_u32_le().await.map_err(|error| Error::io(what, error))? as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Io,
                format!("{what} of {length} bytes: this is no executor of Flott"),
            ));
        }
        let mut bytes = vec![0; length];
        stream.read_exact(&mut bytes).await.map_err(|error| Error::io(what, error))?;
        from_bytes(&bytes)
    };
    timeout(deadline, read).await.unwrap_or_else(|_| Err(late(what, deadline)))
}

async fn write_message<T: Wire>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
    deadline: Duration,
    what: &str,
) -> Result<()> {
    let message = to_bytes(message)?;
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Error::configuration(format!("{what} of {} bytes is too long", message.len())));
    }
    let mut bytes = Vec::with_capacity(4 + message.len());
    bytes.extend_from_slice(&(message.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&message);
    let write = async { stream.write_all(&bytes).await.map_err(|error| Error::io(what, error)) };
    timeout(deadline, write).await.unwrap_or_else(|_| Err(late(what, deadline)))
}

fn late(what: &str, deadline: Duration) -> Error {
    Error::new(ErrorKind::Io, format!("{what} did not come through within {} ms", deadline.as_millis()))
}

fn text(text: capnp::text::Reader<'_>) -> Result<String> {
    text.to_string().map_err(|_| Error::new(ErrorKind::Io, "broken message: a text that is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn handshake() -> Handshake {
        Handshake {
            protocol: PROTOCOL,
            token: "secret".into(),
            job: JobId(0x0123_4567_89ab_cdef_0011_2233_4455_6677),
            from: WorkerId(1),
            to: WorkerId(2),
            window_bytes: 1 << 20,
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_handshake_is_frozen() {
        let mut text = hex(&to_bytes(&handshake()).unwrap());
        for reply in [HandshakeReply::Accepted, HandshakeReply::Refused("no such job".into())] {
            text.push('\n');
            text.push_str(&hex(&to_bytes(&reply).unwrap()));
        }
        assert_eq!(text, include_str!("../../samples/exchange_handshake_v1.hex").trim());
    }

    #[tokio::test]
    async fn handshake_and_answer_cross_a_connection_and_leave_what_follows() {
        let (mut a, mut b) = tokio::io::duplex(4096);
        write(&mut a, &handshake(), DEADLINE).await.unwrap();
        a.write_all(b"frames").await.unwrap();
        assert_eq!(read(&mut b, DEADLINE).await.unwrap(), handshake());
        let mut rest = [0; 6];
        b.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"frames");
        let reasons = ["no such job", "no such executor"].map(String::from);
        let [refused, not_yet] = reasons;
        for reply in
            [HandshakeReply::Accepted, HandshakeReply::Refused(refused), HandshakeReply::NotYet(not_yet)]
        {
            write_reply(&mut b, &reply, DEADLINE).await.unwrap();
            assert_eq!(read_reply(&mut a, DEADLINE).await.unwrap(), reply);
        }
    }

    #[tokio::test]
    async fn a_peer_that_says_nothing_is_not_waited_for_longer_than_the_deadline() {
        let (_a, mut b) = tokio::io::duplex(4096);
        let error = read(&mut b, Duration::from_millis(20)).await.unwrap_err();
        assert!(error.to_string().contains("within 20 ms"), "{error}");
    }

    #[tokio::test]
    async fn what_is_no_handshake_is_refused() {
        let (mut a, mut b) = tokio::io::duplex(4096);
        a.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let error = read(&mut b, DEADLINE).await.unwrap_err();
        assert!(error.to_string().contains("no executor of Flott"), "{error}");
    }

    #[test]
    fn another_protocol_or_token_is_refused() {
        assert!(handshake().check("secret").is_ok());
        for token in ["", "secre", "secret2", "sacret"] {
            assert!(handshake().check(token).unwrap_err().to_string().contains("token"), "{token}");
        }
        let other = Handshake { protocol: 2, ..handshake() };
        assert!(other.check("secret").unwrap_err().to_string().contains("protocol 2"));
    }
}
