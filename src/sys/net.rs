//! The loopback interface of a new network namespace (netdevice(7)), and rtnetlink(7) sockets in any.

use super::{check, fd::own, process, retry};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Brings `lo` of this thread's network namespace up.
///
/// # Errors
/// `EPERM` without CAP_NET_ADMIN over the namespace.
pub fn loopback_up() -> nix::Result<()> {
    // SAFETY: the call takes only integers.
    let socket =
        own(libc::c_long::from(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }))?;
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    (request.ifr_name[0], request.ifr_name[1]) = (b'l' as libc::c_char, b'o' as libc::c_char);
    // The kernel brings the interface up and ignores the flags that cannot be set; IFF_RUNNING is its own to keep.
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_LOOPBACK) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq.
    check(libc::c_long::from(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as libc::Ioctl, &raw const request)
    }))
    .map(drop)
}

/// A socket to the routing part of the kernel, in the network namespace that it was opened in.
pub struct Netlink(OwnedFd);

impl Netlink {
    /// # Errors
    /// `EMFILE`, `ENFILE`.
    pub fn open() -> nix::Result<Self> {
        let kind = SockType::Raw;
        socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute).map(Self)
    }

    /// The same in another namespace, which only a thread of its own enters, so that nothing has to return. The socket
    /// keeps the namespace from ending.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN over the namespace.
    pub fn open_in(namespace: impl AsFd) -> nix::Result<Self> {
        let namespace = namespace.as_fd();
        let enter = || process::setns(namespace, libc::CLONE_NEWNET).and_then(|()| Self::open());
        std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or(Err(super::Errno::EIO))
    }

    /// # Errors
    /// The kernel's.
    pub fn send(&self, message: &[u8]) -> nix::Result<()> {
        retry(|| send(self.0.as_raw_fd(), message, MsgFlags::empty())).map(drop)
    }

    /// One datagram, which holds whole messages.
    ///
    /// # Errors
    /// `ENOBUFS` where the kernel had more to say than the socket could hold.
    pub fn receive(&self, buffer: &mut [u8]) -> nix::Result<usize> {
        retry(|| recv(self.0.as_raw_fd(), buffer, MsgFlags::empty()))
    }
}
