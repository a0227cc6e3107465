//! Who is connected to smaster. Only root and smaster's own user are listened to; whatever they say, the container is not
//! harmed, and who does not read loses what he does not read.

use super::output::Stream;
use super::protocol::{Answer, LONGEST, Request, VERSION, Verb};
use crate::sys::{Errno, On, socket};
use anyhow::Result;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::os::fd::{AsFd, OwnedFd};

/// Of more, the one that has been there longest without being attached goes.
const MOST: usize = 128;

pub struct Client {
    pub socket: OwnedFd,
    pub attached: bool,
    lost: u64,
    gone: bool,
}

/// What a client wants of smaster.
pub enum Wish {
    Nothing,
    Type(Vec<u8>),
    Resize(u16, u16),
    CloseInput,
    Stop,
}

pub struct Clients {
    pub listener: OwnedFd,
    pub all: Vec<Client>,
    terminal: bool,
}

impl Clients {
    /// # Errors
    /// The kernel's.
    pub fn new(listener: OwnedFd, terminal: bool) -> Result<Self> {
        fcntl(&listener, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).on("fcntl", "smaster's socket")?;
        Ok(Self { listener, all: Vec::new(), terminal })
    }

    /// Takes whoever has connected.
    pub fn accept(&mut self) {
        while let Ok(socket) = socket::accept(&self.listener) {
            let user = socket::peer_user(&socket);
            if !user.is_ok_and(|user| user == 0 || user == nix::unistd::geteuid().as_raw()) {
                continue;
            }
            if fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK | OFlag::O_RDWR)).is_err() {
                continue;
            }
            if self.all.len() >= MOST {
                let idle = self.all.iter().position(|client| !client.attached).unwrap_or(0);
                self.all.remove(idle);
            }
            self.all.push(Client { socket, attached: false, lost: 0, gone: false });
        }
    }

    /// Reads one message of a client.
    pub fn hear(&mut self, index: usize) -> Wish {
        let Some(client) = self.all.get_mut(index) else { return Wish::Nothing };
        let mut buffer = vec![0; LONGEST];
        let length = match socket::receive(&client.socket, &mut buffer) {
            Ok((length @ 1.., _)) => length,
            Err(Errno::EAGAIN | Errno::EINTR) => return Wish::Nothing,
            Err(Errno::EMSGSIZE) => {
                client.refuse("the message is too long");
                return Wish::Nothing;
            }
            Ok((0, _)) | Err(_) => {
                client.gone = true;
                return Wish::Nothing;
            }
        };
        let message = &buffer[..length];
        if let [0, typed @ ..] = message {
            if client.attached {
                return Wish::Type(typed.to_vec());
            }
            client.refuse("attach first");
            return Wish::Nothing;
        }
        let request: Request = match serde_json::from_slice(message) {
            Ok(request) => request,
            Err(error) => {
                client.refuse(&format!("not understood: {error}"));
                return Wish::Nothing;
            }
        };
        if request.version != VERSION {
            client.refuse(&format!("version {} is not spoken here, only {VERSION}", request.version));
            return Wish::Nothing;
        }
        let wish = match request.request {
            Verb::Hello => Wish::Nothing,
            Verb::Attach => {
                client.attached = true;
                Wish::Nothing
            }
            Verb::Resize => Wish::Resize(request.rows, request.columns),
            Verb::CloseInput => Wish::CloseInput,
            Verb::Stop => Wish::Stop,
        };
        if !matches!(request.request, Verb::Resize | Verb::CloseInput) {
            client.tell(&Answer { version: VERSION, terminal: Some(self.terminal), ..Answer::default() });
        }
        wish
    }

    /// Sends what the program has printed to all that are attached.
    pub fn copy(&mut self, stream: Stream, bytes: &[u8]) {
        let name = [if stream == Stream::Stdout { 1 } else { 2 }];
        for client in self.all.iter_mut().filter(|client| client.attached) {
            if client.lost > 0 {
                let answer = Answer { version: VERSION, lost: Some(client.lost), ..Answer::default() };
                if client.tell(&answer) {
                    client.lost = 0;
                }
            }
            let sent = client.lost == 0 && socket::send(&client.socket, &[&name, bytes], &[]).is_ok();
            if !sent {
                client.lost += bytes.len() as u64;
            }
        }
    }

    /// Tells all that are attached of the end.
    pub fn tell_end(&mut self, end: &crate::state::End) {
        let answer = Answer { version: VERSION, ended: Some(end.clone()), ..Answer::default() };
        for client in self.all.iter_mut().filter(|client| client.attached) {
            client.tell(&answer);
        }
    }

    pub fn drop_gone(&mut self) {
        self.all.retain(|client| !client.gone);
    }
}

impl Client {
    fn tell(&mut self, answer: &Answer) -> bool {
        serde_json::to_vec(answer).is_ok_and(|body| socket::send(self.socket.as_fd(), &[&body], &[]).is_ok())
    }

    fn refuse(&mut self, why: &str) {
        self.tell(&Answer { version: VERSION, error: Some(why.to_owned()), ..Answer::default() });
        self.gone = true;
    }
}
