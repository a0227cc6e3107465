//! One message: a fixed header, a JSON body, descriptors beside it.

use crate::sys::{self, Errno, On, socket};
use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::{DeserializeOwned, Deserializer as _, SeqAccess, Visitor};
use std::cell::RefCell;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Raised whenever a message changes its meaning: both ends are the same binary, so they never have to negotiate.
const VERSION: u16 = 1;
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
pub fn each<T: DeserializeOwned>(kind: Kind, body: &[u8], act: impl FnMut(T) -> Result<()>) -> Result<()> {
    let mut outcome = Ok(());
    let mut list = serde_json::Deserializer::from_slice(body);
    let read =
        list.deserialize_seq(Each { act, outcome: &mut outcome, element: PhantomData }).and_then(|()| list.end());
    // Where it was ended, the rest has not been read.
    outcome.and_then(|()| read.map_err(|error| malformed(kind, &error)))
}

fn malformed(kind: Kind, error: &serde_json::Error) -> anyhow::Error {
    anyhow::anyhow!("rtx received a malformed {kind:?} message: {error}")
}

struct Each<'a, T, F> {
    act: F,
    outcome: &'a mut Result<()>,
    element: PhantomData<T>,
}

impl<'de, T: DeserializeOwned, F: FnMut(T) -> Result<()>> Visitor<'de> for Each<'_, T, F> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while self.outcome.is_ok()
            && let Some(element) = list.next_element()?
        {
            *self.outcome = (self.act)(element);
        }
        Ok(())
    }
}

/// Sends one frame.
///
/// # Errors
/// `EPIPE` where the peer is gone; `ETOOMANYREFS` or `EINVAL` where there are too many descriptors.
pub fn send(socket: impl AsFd, kind: Kind, body: &impl Serialize, fds: &[BorrowedFd]) -> Result<()> {
    let body = serde_json::to_vec(body)?;
    let mut numbers: Vec<RawFd> = Vec::with_capacity(fds.len() + 1);
    let memfd = if body.len() > INLINE { Some(in_memory(&body)?) } else { None };
    numbers.extend(memfd.iter().map(AsRawFd::as_raw_fd));
    numbers.extend(fds.iter().map(AsRawFd::as_raw_fd));
    let [low, high] = VERSION.to_le_bytes();
    let header = [b'r', b't', b'x', kind as u8, low, high, u8::from(memfd.is_some()), 0];
    let inline: &[u8] = if memfd.is_some() { &[] } else { &body };
    Ok(socket::send(socket, &[&header, inline], &numbers).on("send", format_args!("{kind:?} message"))?)
}

/// Receives one frame; `None` at end-of-file.
///
/// # Errors
/// Where what arrived is no frame of this version.
pub fn receive(socket: impl AsFd) -> Result<Option<Frame>> {
    // One for all messages, of which only what arrives is ever touched.
    thread_local!(static BUFFER: RefCell<[u8; HEADER + INLINE]> = const { RefCell::new([0; HEADER + INLINE]) });
    BUFFER.with_borrow_mut(|buffer| receive_into(buffer, socket.as_fd()))
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
    fn a_foreign_message_is_an_error() {
        let (left, right) = socket::pair().unwrap();
        socket::send(&left, &[b"hello, is this rtx?"], &[]).unwrap();
        assert!(receive(&right).is_err());
        socket::send(&left, &[b"rtx\x02\x63\x00\x00\x00{}"], &[]).unwrap();
        assert!(receive(&right).unwrap_err().to_string().contains("version 99"));
    }
}
