//! Pseudo terminals: one to run a command on, and the socket on which a runtime hands over a container's.

use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::children::poll_until;

/// The master side of a pseudo terminal; what arrives there is collected by a thread.
pub struct Terminal {
    master: File,
    /// Without a slave that stays open, the first one to be closed ends all reading with EIO.
    _slave: Option<File>,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// Opens a new pseudo terminal of the given size.
    pub fn open(rows: u16, columns: u16) -> Terminal {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a pseudo terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("unlock a pseudo terminal");
        let name = ptsname(&master, Vec::new()).expect("the name of a pseudo terminal").to_string_lossy().into_owned();
        let slave = open_slave(&name);
        let terminal = Terminal { _slave: Some(slave), ..Terminal::of(master) };
        terminal.resize(rows, columns);
        terminal
    }

    /// Takes over a master that a runtime sent.
    pub fn of(master: OwnedFd) -> Terminal {
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut reader = master.try_clone().expect("duplicate a pseudo terminal");
        let sink = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO says that the last slave is closed.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                sink.lock().expect("the collected output").extend_from_slice(&buffer[..count]);
            }
        });
        Terminal { master, _slave: None, seen }
    }

    /// The path of the slave.
    pub fn path(&self) -> String {
        ptsname(&self.master, Vec::new()).expect("the name of a pseudo terminal").to_string_lossy().into_owned()
    }

    /// Opens the slave, for a child's stdio.
    pub fn slave(&self) -> File {
        open_slave(&self.path())
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("set the window size");
    }

    /// Types `text`.
    pub fn send(&self, text: &str) {
        (&self.master).write_all(text.as_bytes()).expect("type on a terminal");
    }

    /// Everything that was printed by now.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().expect("the collected output")).into_owned()
    }

    /// Everything that was printed, once nothing has come for a while: whoever printed has ended, and the reader may
    /// lag behind.
    pub fn settled_text(&self) -> String {
        let mut before = self.text();
        loop {
            std::thread::sleep(Duration::from_millis(60));
            let now = self.text();
            if now == before {
                return now;
            }
            before = now;
        }
    }

    /// Waits until `text` was printed.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let seen = poll_until(Duration::from_secs(60), || self.text().contains(text).then_some(()));
        assert!(seen.is_some(), "{text:?} never came on the terminal, only {:?}", self.text());
    }

    /// The settings as `stty -a` prints them, to see whether they were restored.
    pub fn settings(&self) -> String {
        // Through the master: the name of a slave in a container's devpts means another one out here.
        let master = self.master.try_clone().expect("duplicate a pseudo terminal");
        let output = std::process::Command::new("stty").arg("-a").stdin(master).output().expect("run stty");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Opens a slave, which must not become the controlling terminal of the tests themselves.
fn open_slave(path: &str) -> File {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    File::from(rustix::fs::open(path, flags, Mode::empty()).expect("open the slave of a pseudo terminal"))
}

/// The socket of `--console-socket`, or `--pidfd-socket`.
pub struct FdSocket {
    path: PathBuf,
    listener: UnixListener,
}

impl FdSocket {
    /// Listens at `dir/name`.
    pub fn listen(dir: &Path, name: &str) -> FdSocket {
        let path = dir.join(name);
        let listener = UnixListener::bind(&path).expect("listen on a socket");
        FdSocket { path, listener }
    }

    pub fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// The descriptor that was sent, with the text beside it. None when none came within a few seconds.
    pub fn receive(&self) -> Option<(OwnedFd, String)> {
        let mut ready = [PollFd::new(&self.listener, PollFlags::IN)];
        let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
        if poll(&mut ready, Some(&limit)).ok()? == 0 {
            return None;
        }
        let (stream, _) = self.listener.accept().ok()?;
        receive_fd(stream)
    }
}

fn receive_fd(stream: impl AsFd) -> Option<(OwnedFd, String)> {
    let mut text = [0_u8; 4096];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })?;
    Some((fd, String::from_utf8_lossy(&text[..got.bytes]).into_owned()))
}
