//! One connection: frames out of its outbox into the socket, frames out of the socket to whom they are for.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use flott_schema::{Error, Result};
use tokio::net::TcpStream;

use super::header::{FrameHeader, HEADER_BYTES};
use super::peer::Peer;
use super::route::Router;

/// Room for what is read at once.
const READ_BYTES: usize = 256 << 10;
/// Frames written at once.
const FRAMES_AT_ONCE: usize = 64;
/// Reads in a row before others of the thread have their turn.
const READS_IN_A_ROW: usize = 8;
/// How much room a long body is given before its bytes have come.
const BODY_ROOM_BYTES: usize = 4 << 20;
/// Silence of the other machine, where it should answer, after which a connection counts as lost.
const SILENCE_MS: libc::c_uint = 30_000;

/// Frames leave at once, and a machine that is gone is noticed. The sizes of the buffers are left to the kernel, which grows
/// them with the connection's need beyond what may be asked for here.
pub(super) fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let set = |level: libc::c_int, name: libc::c_int, value: libc::c_uint| {
        // SAFETY: the descriptor is open as long as `stream`, and the option's value is the four bytes pointed to.
        let done = unsafe {
            libc::setsockopt(
                stream.as_raw_fd(),
                level,
                name,
                (&raw const value).cast(),
                size_of::<libc::c_uint>() as libc::socklen_t,
            )
        };
        if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    set(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, SILENCE_MS)?;
    set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, SILENCE_MS / 3000)?;
    set(libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, SILENCE_MS / 6000)
}

/// Moves frames both ways until the connection ends; gives the reason. An outbox that was closed from elsewhere ends it
/// too: then the reason is known there.
pub(super) async fn run(stream: TcpStream, peer: Arc<Peer>, router: Arc<Router>) -> Error {
    let ended = tokio::select! {
        ended = write(&stream, &peer) => ended,
        ended = read(&stream, &peer, &router) => ended,
    };
    // At once, even where another process still holds a copy of the descriptor.
    if let Ok(stream) = stream.into_std() {
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
    let error = match ended {
        Ok(()) => Error::new(flott_schema::ErrorKind::Io, "it was closed"),
        Err(error) => error,
    };
    error.at(format!("connection to {}", peer.place()))
}

async fn write(stream: &TcpStream, peer: &Peer) -> Result<()> {
    let mut frames: VecDeque<Vec<u8>> = VecDeque::new();
    // Bytes of the first frame that are written.
    let mut written = 0;
    while peer.outbox.take(&mut frames).await {
        while !frames.is_empty() {
            match write_some(stream, &frames, written) {
                Ok(0) => return Ok(()),
                Ok(bytes) => written = drop_written(&mut frames, written + bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    stream.writable().await.map_err(|error| Error::io("write", error))?;
                }
                Err(error) => return Err(Error::io("write", error)),
            }
            // A socket that always has room must not keep the reading side waiting.
            tokio::task::consume_budget().await;
        }
    }
    Ok(())
}

fn write_some(stream: &TcpStream, frames: &VecDeque<Vec<u8>>, written: usize) -> std::io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); FRAMES_AT_ONCE];
    let mut count = 0;
    for (slice, frame) in slices.iter_mut().zip(frames) {
        *slice = IoSlice::new(if count == 0 { &frame[written..] } else { frame });
        count += 1;
    }
    stream.try_write_vectored(&slices[..count])
}

/// Drops the frames that are written; gives how many bytes of the first one left are.
fn drop_written(frames: &mut VecDeque<Vec<u8>>, mut written: usize) -> usize {
    while let Some(first) = frames.front()
        && written >= first.len()
    {
        written -= first.len();
        frames.pop_front();
    }
    written
}

async fn read(stream: &TcpStream, peer: &Arc<Peer>, router: &Router) -> Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let (mut start, mut end, mut reads) = (0, 0, 0);
    loop {
        while let Some(head) = buffer[start..end].first_chunk::<HEADER_BYTES>() {
            let head = *head;
            let header = FrameHeader::read(&head)?;
            let length = header.body_bytes as usize;
            let have = &buffer[start + HEADER_BYTES..end];
            let body = if let Some(body) = have.get(..length) {
                start += HEADER_BYTES + length;
                body.to_vec()
            } else if HEADER_BYTES + length > READ_BYTES / 2 {
                let begun = have.to_vec();
                (start, end) = (0, 0);
                match read_long(stream, begun, length).await? {
                    Some(body) => body,
                    None => return Ok(()),
                }
            } else {
                break;
            };
            header.check_body(&head, &body)?;
            router.dispatch(&header, body, peer)?;
        }
        buffer.copy_within(start..end, 0);
        (start, end) = (0, end - start);
        match stream.try_read(&mut buffer[end..]) {
            Ok(0) => return Ok(()),
            Ok(bytes) => end += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                reads = 0;
                stream.readable().await.map_err(|error| Error::io("read", error))?;
            }
            Err(error) => return Err(Error::io("read", error)),
        }
        reads += 1;
        if reads == READS_IN_A_ROW {
            reads = 0;
            tokio::task::yield_now().await;
        }
    }
}

/// Reads the rest of a body straight to where it will stay; nothing if the connection ends before. Room is taken as the
/// bytes come, so that a length alone takes no memory.
async fn read_long(stream: &TcpStream, mut body: Vec<u8>, length: usize) -> Result<Option<Vec<u8>>> {
    let mut have = body.len();
    while have < length {
        if have == body.len() {
            body.resize(length.min(have + BODY_ROOM_BYTES.max(have)), 0);
        }
        match stream.try_read(&mut body[have..]) {
            Ok(0) => return Ok(None),
            Ok(bytes) => have += bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                stream.readable().await.map_err(|error| Error::io("read", error))?;
            }
            Err(error) => return Err(Error::io("read", error)),
        }
    }
    Ok(Some(body))
}
