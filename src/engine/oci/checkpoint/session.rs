//! One request to CRIU: `criu swrk N` serves it over the socket that it finds under number N, tells what it is doing by
//! notifications, each of which waits for an answer, and ends.

use crate::sys::{Errno, On, errno_of, fd, process, socket};
use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sys::memfd::{MFdFlags, memfd_create};
use protobuf::{Message, MessageField};
use rust_criu::rust_criu_protobuf::rpc::{Criu_features, Criu_req, Criu_req_type, Criu_resp};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The largest answer; those of CRIU are a few dozen bytes.
const ANSWER: usize = 64 * 1024;

/// Of CRIU: major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub i32, pub i32);

impl std::fmt::Display for Version {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}.{}", self.0, self.1)
    }
}

/// What CRIU tells while it works.
pub struct Notification {
    /// The moment, as criu(8) names those of action scripts.
    pub script: String,
    /// The root of the tree, in this process's pid namespace; 0 where there is none yet.
    pub pid: i32,
    pub fds: Vec<OwnedFd>,
}

/// How a criu is started.
#[derive(Default)]
pub struct Launch {
    /// Descriptors that it finds under the numbers they have here.
    pub keep: Vec<OwnedFd>,
    /// It has this process's standard input, where `--shell-job` looks for the terminal.
    pub stdin: bool,
}

/// A criu that waits for its request.
pub struct Session {
    child: Child,
    socket: OwnedFd,
    stderr: File,
}

impl Session {
    /// Starts the program.
    ///
    /// # Errors
    /// Where it is not installed.
    pub fn start(program: &Path, launch: Launch) -> Result<Self> {
        let (socket, theirs) = socket::pair().on("socketpair", "")?;
        let stderr: File = memfd_create("criu", MFdFlags::MFD_CLOEXEC).on("memfd_create", "")?.into();
        for kept in launch.keep.iter().chain([&theirs]) {
            fd::keep_on_exec(kept).on("keep open", "a descriptor for criu")?;
        }
        let mut command = Command::new(program);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string()).stdout(Stdio::null());
        command.stdin(if launch.stdin { Stdio::inherit() } else { Stdio::null() });
        command.stderr(stderr.try_clone().map_err(|error| errno_of(&error)).on("duplicate", "a memfd")?);
        let child = command.spawn().map_err(|error| not_started(program, &error))?;
        Ok(Self { child, socket, stderr })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends the request and answers notifications until the result is there.
    ///
    /// # Errors
    /// What `notify` failed with, or else CRIU; `why` finds the words for the latter in what criu printed.
    pub fn serve(
        mut self,
        request: &Criu_req,
        notify: &mut dyn FnMut(Notification) -> Result<()>,
        why: &dyn Fn(&str) -> String,
    ) -> Result<Criu_resp> {
        let outcome = self.converse(request, notify);
        let Self { mut child, socket, mut stderr } = self;
        // A criu that is in the midst of something finds nobody to answer, and undoes it.
        drop(socket);
        child.wait().map_err(|error| errno_of(&error)).on("wait for", "criu")?;
        let response = outcome?;
        if let Some(response) = response.filter(Criu_resp::success) {
            return Ok(response);
        }
        let mut printed = String::new();
        let _ = stderr.rewind().and_then(|()| stderr.read_to_string(&mut printed));
        Err(anyhow!("{}", why(&printed)))
    }

    /// The last answer; `None` where criu has ended without one.
    fn converse(
        &mut self,
        request: &Criu_req,
        notify: &mut dyn FnMut(Notification) -> Result<()>,
    ) -> Result<Option<Criu_resp>> {
        let mut failed = None;
        let mut buffer = vec![0; ANSWER];
        if let Err(errno) = self.send(request) {
            // It has ended already, and says why on its standard error.
            return if errno == Errno::EPIPE { Ok(None) } else { Err(errno).on("send to", "criu")? };
        }
        loop {
            let (length, fds) = match socket::receive(&self.socket, &mut buffer) {
                Err(Errno::EINTR) => continue,
                Err(Errno::ECONNRESET) => (0, Vec::new()),
                other => other.on("receive from", "criu")?,
            };
            if length == 0 {
                return failed.map_or(Ok(None), Err);
            }
            let response = Criu_resp::parse_from_bytes(&buffer[..length]).context("understand criu's answer")?;
            if response.type_() != Criu_req_type::NOTIFY {
                return failed.map_or(Ok(Some(response)), Err);
            }
            let (script, pid) = (response.notify.script().to_owned(), response.notify.pid());
            let outcome = if failed.is_some() { Ok(()) } else { notify(Notification { script, pid, fds }) };
            let mut answer = self::request(Criu_req_type::NOTIFY);
            answer.set_notify_success(outcome.is_ok() && failed.is_none());
            failed = failed.or(outcome.err());
            match self.send(&answer) {
                Ok(()) | Err(Errno::EPIPE) => {}
                Err(errno) => Err(errno).on("answer", "criu")?,
            }
        }
    }

    fn send(&self, message: &Criu_req) -> nix::Result<()> {
        let bytes = message.write_to_bytes().map_err(|_| Errno::EINVAL)?;
        socket::send(&self.socket, &[&bytes], &[])
    }
}

fn not_started(program: &Path, error: &std::io::Error) -> anyhow::Error {
    let program = program.display();
    match error.kind() {
        ErrorKind::NotFound => {
            anyhow!("{program}: executable file not found: install CRIU (the package criu), or name it with --criu")
        }
        _ => anyhow!("execute {program}: {}", crate::sys::describe(errno_of(error))),
    }
}

/// Does something in a mount namespace in which `from` is mounted at `to` as well: what is started there stays there, and
/// the mount is gone with it, whatever happens to this process. A namespace of one thread is that of no other, so it is a
/// thread that does it.
///
/// # Errors
/// The kernel's, or those of `action`.
pub fn with_mount<T: Send>(from: &Path, to: &Path, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let in_thread = || {
        process::unshare(libc::CLONE_NEWNS).on("unshare", "the mount namespace for criu")?;
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).on("set the propagation of", "/")?;
        mount(Some(from), to, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).on("bind", from.display())?;
        action()
    };
    match std::thread::scope(|scope| scope.spawn(in_thread).join()) {
        Ok(outcome) => outcome,
        Err(_) => bail!("the thread that starts criu has panicked"),
    }
}

/// The version of CRIU, which has to be the oldest that rtx knows to work or newer.
///
/// # Errors
/// Where it is not installed, or older.
pub fn version(program: &Path, oldest: Version) -> Result<Version> {
    let response = ask(program, "its version", &request(Criu_req_type::VERSION))?;
    let version = Version(response.version.major_number(), response.version.minor_number());
    if version < oldest {
        bail!("CRIU {version} ({}) is too old: install {oldest} or later", program.display());
    }
    Ok(version)
}

/// Which of the features CRIU and this kernel have.
///
/// # Errors
/// Where CRIU cannot tell.
pub fn features(program: &Path, asked: Criu_features) -> Result<Criu_features> {
    let mut request = request(Criu_req_type::FEATURE_CHECK);
    request.features = MessageField::some(asked);
    Ok(ask(program, "which features it has", &request)?.features.unwrap_or_default())
}

/// A request of this kind.
pub fn request(kind: Criu_req_type) -> Criu_req {
    let mut request = Criu_req::new();
    request.set_type(kind);
    request
}

fn ask(program: &Path, what: &str, request: &Criu_req) -> Result<Criu_resp> {
    let why = |printed: &str| {
        format!(
            "{} does not tell {what}: {} (`criu check` may say more)",
            program.display(),
            super::log::select(printed)
        )
    };
    Session::start(program, Launch::default())?.serve(request, &mut |_| Ok(()), &why)
}
