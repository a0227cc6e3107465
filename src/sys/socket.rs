//! SEQPACKET sockets with descriptor passing (unix(7)).

use super::{Errno, retry};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind,
    connect, listen, recvmsg, sendmsg, socket, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

/// How many descriptors one message may carry (`SCM_MAX_FD`).
pub const MAX_FDS: usize = 253;

/// A connected pair, close-on-exec.
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// One message: the parts of `body`, one after another, and descriptors beside it. Never raises SIGPIPE.
///
/// # Errors
/// `EPIPE` where the peer is gone; `EMSGSIZE` where the message is larger than the socket's buffer.
pub fn send(socket: impl AsFd, body: &[&[u8]], fds: &[RawFd]) -> nix::Result<()> {
    let parts: Vec<IoSlice> = body.iter().map(|part| IoSlice::new(part)).collect();
    let rights = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    retry(|| sendmsg::<()>(socket.as_fd().as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None)).map(drop)
}

/// One message into `buffer`: its length (0 at end-of-file) and the descriptors that came with it.
///
/// # Errors
/// `EINTR` where a signal came first; `EMSGSIZE` where the message did not fit, beside the kernel's own.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> nix::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message =
        recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just installed these descriptors for this message; nothing else owns them.
            fds.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
        return Err(Errno::EMSGSIZE);
    }
    Ok((message.bytes, fds))
}

/// A listening socket bound at `path`, which has to be short (`sun_path` is 108 bytes): name it through
/// /proc/self/fd where it may be long.
///
/// # Errors
/// The kernel's; `EADDRINUSE` where the path exists.
pub fn listener(path: &Path) -> nix::Result<OwnedFd> {
    listener_of(path, 1)
}

/// As [`listener`], for as many that may wait to be accepted.
///
/// # Errors
/// As [`listener`].
pub fn listener_of(path: &Path, backlog: i32) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&socket, Backlog::new(backlog)?)?;
    Ok(socket)
}

/// A datagram socket bound at `path`, which has to be short as for [`listener`]. Reading from it does not wait.
///
/// # Errors
/// The kernel's; `EADDRINUSE` where the path exists.
pub fn datagrams(path: &Path) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A datagram socket connected to a path, or with `@` at the start to an abstract name, as sd_notify(3) has it.
///
/// # Errors
/// `ENOENT`, `ECONNREFUSED` where nobody listens.
pub fn datagram_to(address: &[u8]) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let address = match address.strip_prefix(b"@") {
        Some(name) => UnixAddr::new_abstract(name)?,
        None => UnixAddr::new(address)?,
    };
    retry(|| connect(socket.as_raw_fd(), &address))?;
    Ok(socket)
}

/// Waits for the next connection.
///
/// # Errors
/// The kernel's.
pub fn accept(listener: impl AsFd) -> nix::Result<OwnedFd> {
    let number = retry(|| accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC))?;
    // SAFETY: accept4 has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Connects to the socket at `path`.
///
/// # Errors
/// `ENOENT` where there is none, `ECONNREFUSED` where nobody listens any more.
pub fn dial(path: &Path, kind: SockType) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    retry(|| connect(socket.as_raw_fd(), &UnixAddr::new(path)?))?;
    Ok(socket)
}

/// Whether somebody listens at `path`, without waiting and without saying anything.
///
/// # Errors
/// As [`dial`]; `EAGAIN` where somebody does, and others are waiting to be heard.
pub fn probe(path: &Path) -> nix::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    retry(|| connect(socket.as_raw_fd(), &UnixAddr::new(path)?))
}

/// The user at the other end of a connection, as the kernel knows it (`SO_PEERCRED`).
///
/// # Errors
/// The kernel's.
pub fn peer_user(socket: &OwnedFd) -> nix::Result<u32> {
    nix::sys::socket::getsockopt(socket, nix::sys::socket::sockopt::PeerCredentials).map(|peer| peer.uid())
}

/// Whether nobody has the other end any more, even if messages of his are still to be read.
///
/// # Errors
/// The kernel's.
pub fn is_hung_up(socket: impl AsFd) -> nix::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    retry(|| poll(&mut fds, PollTimeout::ZERO))?;
    Ok(fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP)))
}
