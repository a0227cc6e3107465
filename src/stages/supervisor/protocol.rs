//! What is said at smaster's socket, as docs/supervisor.md has it: a message is a JSON object, or a byte that names a stream
//! and the stream's bytes after it.

use super::streams::CHUNK;
use crate::state::{End, StateDir};
use crate::sys::{Errno, On, socket};
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub const VERSION: u32 = 1;
/// No message is longer.
pub const LONGEST: usize = CHUNK + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Verb {
    /// Whether smaster is there.
    Hello,
    /// From now on everything that the program prints is sent, and what is sent is typed.
    Attach,
    /// The size of the terminal.
    Resize,
    /// Nothing more will be typed.
    CloseInput,
    /// The container is not to be restarted.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    pub version: u32,
    pub request: Verb,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rows: u16,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub columns: u16,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u16) -> bool {
    *number == 0
}

impl Request {
    pub fn new(request: Verb) -> Self {
        Self { version: VERSION, request, rows: 0, columns: 0 }
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Answer {
    pub version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Of the program: it has a terminal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<bool>,
    /// Bytes that were not sent because they were not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<End>,
}

/// One message from smaster.
#[derive(Debug)]
pub enum Message {
    Answer(Answer),
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// A connection to smaster.
pub struct Connection {
    socket: OwnedFd,
}

impl Connection {
    /// `None` where there is no smaster any more.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(state: &StateDir) -> Result<Option<Self>> {
        match state.dial_supervisor() {
            Ok(socket) => Ok(Some(Self { socket })),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(errno).on("connect to the smaster of", state.id())?,
        }
    }

    /// # Errors
    /// `EPIPE` where smaster has gone.
    pub fn send(&self, request: &Request) -> Result<()> {
        Ok(socket::send(&self.socket, &[&serde_json::to_vec(request)?], &[]).on("send to", "smaster")?)
    }

    /// Types.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_input(&self, bytes: &[u8]) -> Result<()> {
        for part in bytes.chunks(CHUNK) {
            socket::send(&self.socket, &[&[0], part], &[]).on("send to", "smaster")?;
        }
        Ok(())
    }

    /// The next message; `None` when smaster has gone.
    ///
    /// # Errors
    /// What cannot be understood.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = vec![0; LONGEST];
        let received = crate::sys::retry(|| socket::receive(&self.socket, &mut buffer));
        let length = match received {
            Err(Errno::ECONNRESET) => 0,
            other => other.on("receive from", "smaster")?.0,
        };
        buffer.truncate(length);
        Ok(match buffer.first() {
            None => None,
            Some(1) => Some(Message::Stdout(buffer.split_off(1))),
            Some(2) => Some(Message::Stderr(buffer.split_off(1))),
            Some(_) => Some(Message::Answer(serde_json::from_slice(&buffer)?)),
        })
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// What smaster answers with; where it does not.
    pub fn ask(&self, request: &Request) -> Result<Answer> {
        self.send(request)?;
        loop {
            match self.receive()? {
                Some(Message::Answer(Answer { error: Some(error), .. })) => bail!("{error}"),
                Some(Message::Answer(answer)) => return Ok(answer),
                Some(_) => {}
                None => bail!("smaster has gone"),
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
