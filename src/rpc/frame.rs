//! One message: a fixed header, a body, descriptors beside it. Bodies are JSON, but for lists of operations: most of what is
//! said, by and to the same binary, in Postcard's form.

use crate::sys::{self, Errno, On, socket};
use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Mutex;

/// Raised whenever a message changes its meaning: both ends are the same binary, so they never have to negotiate.
const VERSION: u16 = 2;
const HEADER: usize = 8;
/// Bodies up to this size travel in the message; larger ones as a memfd, because a socket's buffer is limited.
const INLINE: usize = 64 * 1024;
/// More than any configuration that the kernel could execute: an argument and environment area is at most 6 MiB.
const LARGEST: u64 = 256 * 1024 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Config = 1,
    Batch = 2,
    Finish = 3,
    Reply = 4,
    /// On the start barrier: execute the payload.
    Start = 5,
    /// From stage2 at the very end: the payload could not be executed.
    Failed = 6,
    /// From stage2: the next call is execve(2) of the payload.
    Executing = 7,
    /// A batch whose success is told with the answer to what follows it.
    Prelude = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Batch, Config, Executing, Failed, Finish, Prelude, Reply, Start};
        [Config, Batch, Finish, Reply, Start, Failed, Executing, Prelude].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// A message as it was received.
#[derive(Debug)]
pub struct Frame {
    pub kind: Kind,
    pub body: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Frame {
    /// The body as what it is.
    ///
    /// # Errors
    /// Where the body is not JSON of that form.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| malformed(self.kind, &error))
    }
}

/// Does something with each element of a list, as it is read: the whole list would be several times as large as its text, and
/// stay in the heap of a process that stays. What fails ends it.
///
/// # Errors
/// What `act` failed with; where the body is no list of such elements, which may be seen only after the first of them.
pub fn each<T: DeserializeOwned>(kind: Kind, body: &[u8], mut act: impl FnMut(T) -> Result<()>) -> Result<()> {
    let (count, mut rest) = postcard::take_from_bytes::<usize>(body).map_err(|error| malformed(kind, &error))?;
    for _ in 0..count {
        let element;
        (element, rest) = postcard::take_from_bytes(rest).map_err(|error| malformed(kind, &error))?;
        act(element)?;
    }
    if !rest.is_empty() {
        return Err(malformed(kind, &"trailing bytes"));
    }
    Ok(())
}

fn malformed(kind: Kind, error: &dyn Display) -> anyhow::Error {
    anyhow::anyhow!("rtx received a malformed {kind:?} message: {error}")
}

/// Sends one frame.
///
/// # Errors
/// `EPIPE` where the peer is gone; `ETOOMANYREFS` or `EINVAL` where there are too many descriptors.
pub fn send(socket: impl AsFd, kind: Kind, body: &impl Serialize, fds: &[BorrowedFd]) -> Result<()> {
    send_bytes(socket.as_fd(), kind, &serde_json::to_vec(body)?, fds)
}

/// Sends a list for [`each`].
///
/// # Errors
/// As [`send`].
pub fn send_list(socket: impl AsFd, kind: Kind, list: &[impl Serialize], fds: &[BorrowedFd]) -> Result<()> {
    send_bytes(socket.as_fd(), kind, &postcard::to_allocvec(list)?, fds)
}

fn send_bytes(socket: BorrowedFd, kind: Kind, body: &[u8], fds: &[BorrowedFd]) -> Result<()> {
    let mut numbers: Vec<RawFd> = Vec::with_capacity(fds.len() + 1);
    let memfd = if body.len() > INLINE { Some(in_memory(body)?) } else { None };
    numbers.extend(memfd.iter().map(AsRawFd::as_raw_fd));
    numbers.extend(fds.iter().map(AsRawFd::as_raw_fd));
    let [low, high] = VERSION.to_le_bytes();
    let header = [b'r', b't', b'x', kind as u8, low, high, u8::from(memfd.is_some()), 0];
    let inline: &[u8] = if memfd.is_some() { &[] } else { body };
    Ok(socket::send(socket, &[&header, inline], &numbers).on("send", format_args!("{kind:?} message"))?)
}

/// Receives one frame; `None` at end-of-file.
///
/// # Errors
/// Where what arrived is no frame of this version.
pub fn receive(socket: impl AsFd) -> Result<Option<Frame>> {
    // One for all messages, of which only what arrives is ever touched. Not one for each thread: with what a thread has of its
    // own, the C library would have to map it before anything else.
    static BUFFER: Mutex<[u8; HEADER + INLINE]> = Mutex::new([0; HEADER + INLINE]);
    match BUFFER.try_lock() {
        Ok(mut buffer) => receive_into(&mut *buffer, socket.as_fd()),
        Err(_) => receive_into(&mut vec![0; HEADER + INLINE], socket.as_fd()),
    }
}

fn receive_into(buffer: &mut [u8], socket: BorrowedFd) -> Result<Option<Frame>> {
    let (length, mut fds) = loop {
        match socket::receive(socket, buffer) {
            // The peer has gone without reading everything. The kernel says so once, before it hands out what the peer
            // had written: which may be why it has gone.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            other => break other.on("receive", "message")?,
        }
    };
    if length == 0 {
        return Ok(None);
    }
    let [b'r', b't', b'x', kind, low, high, large, _, ref body @ ..] = buffer[..length] else {
        bail!("rtx received a message that is none of its own");
    };
    let version = u16::from_le_bytes([low, high]);
    let Some(kind) = Kind::from_byte(kind).filter(|_| version == VERSION) else {
        bail!("rtx received a message of version {version}, kind {kind}; it speaks version {VERSION}");
    };
    let body = if large == 1 {
        if fds.is_empty() {
            bail!("rtx received a {kind:?} message without its body");
        }
        from_memory(File::from(fds.remove(0)))?
    } else {
        body.to_vec()
    };
    Ok(Some(Frame { kind, body, fds }))
}

fn in_memory(body: &[u8]) -> Result<OwnedFd> {
    let mut file = File::from(sys::memfd::create(c"rtx-message", false).on("memfd_create", "for a message")?);
    file.write_all(body).map_err(|error| sys::errno_of(&error)).on("write", "a message's memfd")?;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).on("seal", "a message's memfd")?;
    Ok(file.into())
}

fn from_memory(mut file: File) -> Result<Vec<u8>> {
    let size = file.metadata().map_err(|error| sys::errno_of(&error)).on("stat", "a message's memfd")?.len();
    if size > LARGEST {
        bail!("rtx received a message of {size} bytes; the limit is {LARGEST}");
    }
    let mut body = Vec::with_capacity(size as usize);
    file.rewind()
        .and_then(|()| file.read_to_end(&mut body))
        .map_err(|error| sys::errno_of(&error))
        .on("read", "a message's memfd")?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_bodies_arrive_with_their_descriptors() {
        for size in [3, INLINE * 3] {
            let (left, right) = socket::pair().unwrap();
            let text = "x".repeat(size);
            send(&left, Kind::Batch, &text, &[left.as_fd()]).unwrap();
            drop(left);
            let frame = receive(&right).unwrap().unwrap();
            assert_eq!(frame.kind, Kind::Batch);
            assert_eq!(frame.parse::<String>().unwrap(), text);
            assert_eq!(frame.fds.len(), 1);
            drop(frame);
            assert!(receive(&right).unwrap().is_none());
        }
    }

    #[test]
    fn a_list_is_read_one_by_one_up_to_what_fails_or_does_not_belong() {
        let list = ["one".to_owned(), "two".to_owned()];
        let whole = postcard::to_allocvec(&list[..]).unwrap();
        let read = |body: &[u8], act: &dyn Fn(&str) -> Result<()>| {
            let mut seen = Vec::new();
            let outcome = each(Kind::Batch, body, |text: String| {
                act(&text)?;
                seen.push(text);
                Ok(())
            });
            (seen, outcome.map_err(|error| error.to_string()))
        };
        assert_eq!(read(&whole, &|_| Ok(())), (list.to_vec(), Ok(())));
        let refused = |text: &str| if text == "two" { bail!("refused") } else { Ok(()) };
        assert_eq!(read(&whole, &refused), (list[..1].to_vec(), Err("refused".to_owned())));
        for body in [&whole[..whole.len() - 1], &[&whole[..], b"x"].concat()] {
            let error = read(body, &|_| Ok(())).1.unwrap_err();
            assert!(error.starts_with("rtx received a malformed Batch message: "), "{error}");
        }
    }

    #[test]
    fn a_foreign_message_is_an_error() {
        let (left, right) = socket::pair().unwrap();
        socket::send(&left, &[b"hello, is this rtx?"], &[]).unwrap();
        assert!(receive(&right).is_err());
        socket::send(&left, &[b"rtx\x02\x63\x00\x00\x00{}"], &[]).unwrap();
        assert!(receive(&right).unwrap_err().to_string().contains("version 99"));
    }
}
