//! Connections of other executors, handed over by the worker whose port they came in at.

use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use flott_schema::wire::from_bytes;
use flott_schema::{Error, Result};
use tokio::sync::mpsc;

use crate::exchange::{Handshake, Incoming};
use crate::fd_passing;

/// Connections that may wait to be taken in.
const CONNECTIONS_MAX: usize = 64;

/// Takes connections from the socket at `path`, on a thread of its own; the receiver ends with the socket.
/// The streams do not block.
pub fn incoming(path: &Path) -> Result<mpsc::Receiver<Incoming>> {
    let mut socket =
        UnixStream::connect(path).map_err(|error| Error::io(format!("socket {}", path.display()), error))?;
    let (sender, receiver) = mpsc::channel(CONNECTIONS_MAX);
    let thread = std::thread::Builder::new().name("flott-incoming".into());
    let take = move || {
        while let Ok(Some((message, descriptor))) = fd_passing::receive(&mut socket) {
            let stream = TcpStream::from(descriptor);
            match from_bytes::<Handshake>(&message) {
                Ok(handshake) if stream.set_nonblocking(true).is_ok() => {
                    if sender.blocking_send((handshake, stream)).is_err() {
                        return;
                    }
                }
                Ok(_) => tracing::warn!("a connection was lost while it was handed over"),
                Err(error) => tracing::warn!("a connection came without its handshake: {error}"),
            }
        }
    };
    thread.spawn(take).map_err(|error| Error::io("thread for connections", error))?;
    Ok(receiver)
}
