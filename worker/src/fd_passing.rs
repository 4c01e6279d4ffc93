//! Handing an open descriptor to another process over a Unix socket (SCM_RIGHTS), with a message beside it.
//!
//! On the socket a message is its length (4 bytes, little-endian) and its bytes; the descriptor travels with the length. The sender
//! never blocks, the receiver always may.

use std::io::{Error, ErrorKind, IoSlice, Read, Result};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Longest message that may travel beside a descriptor: short enough for the kernel to take all of it or nothing.
pub const MESSAGE_BYTES_MAX: usize = 8 << 10;

/// Room for one control message with one descriptor; `u64` for the alignment that `cmsghdr` wants.
type ControlBuffer = [u64; 8];

/// Sends `descriptor` and `message` over `socket`. `WouldBlock` if a socket that does not block has no room: nothing was sent
/// then. A message that went out in part cannot be completed: any other error means that the socket is of no use any more.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], descriptor: BorrowedFd<'_>) -> Result<()> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidInput, "message beside a descriptor is too long"));
    }
    let length = (message.len() as u32).to_le_bytes();
    let parts = [IoSlice::new(&length), IoSlice::new(message)];
    let mut control: ControlBuffer = [0; 8];
    // SAFETY: an all-zero `msghdr` is a valid one without name, parts and control data.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    // `IoSlice` has the layout of `iovec`, and sendmsg does not write to the parts.
    header.msg_iov = parts.as_ptr().cast_mut().cast();
    header.msg_iovlen = parts.len();
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE only computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
    // SAFETY: `msg_control` has room for one control message of this size (CMSG_SPACE of 4 bytes is 24, the buffer has 64), so
    // CMSG_FIRSTHDR points into it and CMSG_DATA leaves room for a descriptor; the buffer is aligned for `cmsghdr`.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SCM_RIGHTS;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        libc::CMSG_DATA(first).cast::<RawFd>().write_unaligned(descriptor.as_raw_fd());
    }
    // SAFETY: `header` and all it points to live until the call returns.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &header, libc::MSG_NOSIGNAL) };
    match usize::try_from(sent) {
        Err(_) => Err(Error::last_os_error()),
        Ok(sent) if sent == length.len() + message.len() => Ok(()),
        Ok(_) => Err(Error::new(ErrorKind::WriteZero, "a descriptor's message went out in part")),
    }
}

/// Waits for the next message and its descriptor; nothing when the other side has closed the socket.
pub fn receive(socket: &mut UnixStream) -> Result<Option<(Vec<u8>, OwnedFd)>> {
    let mut length = [0u8; 4];
    let (read, descriptor) = receive_start(socket.as_fd(), &mut length)?;
    if read == 0 {
        return Ok(None);
    }
    let Some(descriptor) = descriptor else {
        return Err(Error::new(ErrorKind::InvalidData, "a message came without a descriptor"));
    };
    socket.read_exact(&mut length[read..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidData, "message beside a descriptor is too long"));
    }
    let mut message = vec![0; length];
    socket.read_exact(&mut message)?;
    Ok(Some((message, descriptor)))
}

/// Reads the first bytes of a message, and the descriptor that comes with them.
fn receive_start(socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut part = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let mut control: ControlBuffer = [0; 8];
    // SAFETY: as in `send`.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    // Room for one descriptor and no more: the kernel closes any other.
    // SAFETY: CMSG_SPACE only computes.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<RawFd>() as u32) } as usize;
    let read = loop {
        // SAFETY: `header` and all it points to live until the call returns, and are not used elsewhere meanwhile.
        let read = unsafe { libc::recvmsg(socket.as_raw_fd(), &mut header, libc::MSG_CMSG_CLOEXEC) };
        match usize::try_from(read) {
            Ok(read) => break read,
            Err(_) => {
                let error = Error::last_os_error();
                if error.kind() != ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    };
    // SAFETY: the kernel has filled `msg_control` up to `msg_controllen`, so that the first control message, if there is one,
    // is complete; one of SCM_RIGHTS with room for one descriptor holds one, which is ours from here on.
    let descriptor = unsafe {
        let first = libc::CMSG_FIRSTHDR(&header);
        let holds_one = !first.is_null()
            && (*first).cmsg_level == libc::SOL_SOCKET
            && (*first).cmsg_type == libc::SCM_RIGHTS
            && (*first).cmsg_len >= libc::CMSG_LEN(size_of::<RawFd>() as u32) as usize;
        holds_one.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(first).cast::<RawFd>().read_unaligned()))
    };
    Ok((read, descriptor))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Seek, Write};

    use super::*;

    #[test]
    fn a_descriptor_arrives_with_its_message() {
        let (sender, mut receiver) = UnixStream::pair().unwrap();
        for text in ["first", "", "third"] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.rewind().unwrap();
            send(sender.as_fd(), format!("message {text}").as_bytes(), file.as_fd()).unwrap();
        }
        drop(sender);
        for text in ["first", "", "third"] {
            let (message, descriptor) = receive(&mut receiver).unwrap().unwrap();
            assert_eq!(message, format!("message {text}").as_bytes());
            let mut read = String::new();
            File::from(descriptor).read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
        assert!(receive(&mut receiver).unwrap().is_none());
    }

    #[test]
    fn a_socket_without_room_takes_nothing_rather_than_a_part() {
        let (sender, mut receiver) = UnixStream::pair().unwrap();
        sender.set_nonblocking(true).unwrap();
        let file = tempfile::tempfile().unwrap();
        let message = vec![7; MESSAGE_BYTES_MAX];
        let mut sent = 0;
        let error = loop {
            match send(sender.as_fd(), &message, file.as_fd()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        drop(sender);
        for _ in 0..sent {
            assert_eq!(receive(&mut receiver).unwrap().unwrap().0.len(), MESSAGE_BYTES_MAX);
        }
        assert!(receive(&mut receiver).unwrap().is_none());
    }

    #[test]
    fn bytes_without_a_descriptor_are_refused() {
        let (mut sender, mut receiver) = UnixStream::pair().unwrap();
        sender.write_all(&[1, 0, 0, 0, 9]).unwrap();
        assert_eq!(receive(&mut receiver).unwrap_err().kind(), ErrorKind::InvalidData);
        let file = tempfile::tempfile().unwrap();
        let too_long = vec![0; MESSAGE_BYTES_MAX + 1];
        assert!(send(sender.as_fd(), &too_long, file.as_fd()).is_err());
    }
}
