//! stage2's dispatch: each operation to the file that knows it, then the last steps before the payload.

use super::{console, devices, hierarchies, identity, masks, mounts, program, root::Root, root::Target, sysctl};
use crate::config::envelope::{Common, OciConfig};
use crate::engine::oci::hooks;
use crate::engine::{Caller, PayloadOperations, table::PayloadRequest};
use crate::rpc::Reply;
use crate::rpc::frame::{self, Kind};
use crate::rpc::operation::{ConsoleOperation, Operation};
use crate::rpc::server::{Context, Perform};
use crate::sys::{Errno, On, classic, clone, describe, fd, process, sched, seccomp};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// Missing in the libc crate for some targets.
const CLONE_NEWTIME: i32 = 0x80;

pub struct Payload {
    common: Common,
    config: OciConfig,
    root: Option<Root>,
    /// Where the host has the root, as long as stage2 sees the host: hooks start there.
    root_path: Option<PathBuf>,
    terminal: Option<OwnedFd>,
    /// What the standard streams are, where that has been looked at.
    streams: Option<identity::Streams>,
    /// Opened before the container's own /proc is the only one, and closed before the payload's program is executed. An exec closes
    /// it before others may look at this process: it is the host's.
    proc: Option<Arc<OwnedFd>>,
    program: PathBuf,
    filter: Vec<u8>,
    preserve_fds: u32,
    listen_fds: u32,
    /// What smaster had: hooks have it too.
    umask: Mode,
}

impl Payload {
    /// # Errors
    /// Where /proc is not usable.
    pub fn new(request: PayloadRequest) -> Result<Self> {
        let umask = nix::sys::stat::umask(Mode::empty());
        Ok(Self {
            umask,
            common: request.common,
            config: request.oci_config,
            root: None,
            root_path: None,
            terminal: None,
            streams: None,
            proc: Some(Arc::new(sysctl::open_proc()?)),
            program: PathBuf::new(),
            filter: Vec::new(),
            preserve_fds: request.starter.preserve_fds,
            listen_fds: request.starter.listen_fds,
        })
    }

    fn root(&self) -> Result<&Root> {
        match &self.root {
            Some(root) => Ok(root),
            None => bail!("rtx asked for something in the root before it was opened"),
        }
    }

    fn host_proc(&self) -> Result<&Arc<OwnedFd>> {
        self.proc.as_ref().context("rtx asked for the host's /proc after it was closed")
    }
}

impl Perform for Payload {
    fn perform(&mut self, operation: Operation, context: &mut Context) -> Result<()> {
        match operation {
            Operation::JoinCgroups { tasks, keep_affinity } => join_cgroups(tasks, keep_affinity, context),
            Operation::JoinNamespace { fd, kind, path } => {
                let namespace = context.take(fd)?;
                process::setns(&namespace, kind).on("join the namespace", path)?;
                if kind & libc::CLONE_NEWUSER != 0 { die_with_smaster() } else { Ok(()) }
            }
            Operation::Unshare { kinds } => unshare(kinds),
            Operation::MoveToNamespaces { kinds, without_proc } => {
                if without_proc {
                    self.close_proc();
                }
                self.move_to_namespaces(kinds, context)
            }
            Operation::EnterTimeNamespace { offsets } => {
                let proc = self.host_proc()?;
                crate::trace::across_clocks(|| enter_time_namespace(proc, &offsets))
            }
            Operation::BecomeRoot => become_root(),
            Operation::LoopbackUp => Ok(crate::sys::net::loopback_up().on("bring up", "the loopback interface")?),
            Operation::Hostname { name } => Ok(nix::unistd::sethostname(&name).on("sethostname", name)?),
            Operation::Domainname { name } => Ok(process::set_domainname(&name).on("setdomainname", name)?),
            Operation::Isolate { propagation } => {
                isolate(propagation)?;
                classic::allow(Arc::clone(self.host_proc()?));
                Ok(())
            }
            Operation::OpenRoot(operation) => {
                let tree = operation.tree.map(|index| context.take(index)).transpose()?;
                self.root = Some(Root::open(&operation, tree)?);
                self.root_path = Some(PathBuf::from(operation.path));
                Ok(())
            }
            Operation::Mount(operation) => mounts::mount(self.root()?, &operation, context),
            Operation::Hierarchies(operation) => hierarchies::mount(self.root()?, &operation, context),
            Operation::CopySymlink { pointer, target, path } => {
                mounts::copy_symlink(self.root()?, &pointer, &target, &path)
            }
            Operation::Directory { path, mode } => {
                let root = self.root()?;
                match root.find(&path)? {
                    Some(_) => Ok(()),
                    None => root.make(&path, Target::Directory, mode).map(drop),
                }
            }
            Operation::Devices { devices } => devices::make(self.root()?, &devices, context),
            Operation::StandardLinks => devices::standard_links(self.root()?),
            Operation::OpenConsole(operation) => self.open_console(operation, context),
            Operation::RunHooks { point, hooks, state } => {
                self.root()?.forget();
                nix::sys::stat::umask(self.umask);
                let done = hooks::run(&point, &hooks, &state, self.root_path.as_deref().filter(|path| path.is_dir()));
                nix::sys::stat::umask(Mode::empty());
                done
            }
            Operation::EnterRoot { how, propagation } => {
                self.root()?.enter(how)?;
                if let Some(propagation) = propagation {
                    isolate(propagation)?;
                }
                self.streams = Some(identity::reopen_null()?);
                Ok(())
            }
            Operation::MakeReadonly { paths, attributes } => masks::change(self.root()?, &paths, attributes),
            Operation::MaskPaths { paths, label } => masks::mask(self.root()?, &paths, label.as_deref()),
            Operation::ReadonlyPaths { paths } => masks::make_readonly(self.root()?, &paths),
            Operation::SeccompProgram { fd, length } => {
                File::from(context.take(fd)?)
                    .take(length)
                    .read_to_end(&mut self.filter)
                    .map_err(|error| crate::sys::errno_of(&error))
                    .on("read", "the seccomp program")?;
                Ok(())
            }
            Operation::Sysctl { entries } => sysctl::set(&entries),
        }
    }
}

fn join_cgroups(tasks: Vec<usize>, keep_affinity: bool, context: &mut Context) -> Result<()> {
    let files = tasks.into_iter().map(|index| context.take(index)).collect::<Result<Vec<_>>>()?;
    for file in &files {
        nix::unistd::write(file, b"0").on("join", "a cgroup")?;
    }
    fd::close_together(files);
    if !keep_affinity {
        // Where that is refused the process keeps what it has, as before Linux 6.2 without a cpuset.
        let _ = sched::set_affinity(&sched::EVERY_PROCESSOR);
    }
    Ok(())
}

fn unshare(kinds: i32) -> Result<()> {
    match process::unshare(kinds) {
        Err(errno @ Errno::EINVAL) if kinds & CLONE_NEWTIME != 0 => {
            Err(errno).on("unshare", "namespaces").context("/linux/namespaces: a time namespace needs Linux 5.6")
        }
        other => Ok(other.on("unshare", "namespaces")?),
    }
}

/// Since Linux 6.3 execve(2) enters it. Before, only children did.
fn enter_time_namespace(proc: &OwnedFd, offsets: &str) -> Result<()> {
    if !offsets.is_empty() {
        sysctl::write_proc(proc, "self/timens_offsets", offsets)?;
    }
    let path = "self/ns/time_for_children";
    let namespace = openat(proc, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .on("open", format_args!("/proc/{path}"))?;
    Ok(process::setns(&namespace, CLONE_NEWTIME).on("enter", "the time namespace")?)
}

/// In a new user namespace, ids 0 need its maps, which smaster has written by now.
fn become_root() -> Result<()> {
    match process::set_groups(&[]) {
        Ok(()) | Err(Errno::EPERM) => {}
        Err(errno) => Err(errno).on("setgroups", "")?,
    }
    match process::set_ids(0, 0) {
        // A map without 0 leaves stage2 as nobody, with the capabilities that it was given as ambient ones.
        Err(Errno::EINVAL) => Ok(()),
        other => {
            other.on("become", "root of the user namespace")?;
            die_with_smaster()
        }
    }
}

/// Once more: the kernel forgets it when a process changes its user or its user namespace (PR_SET_PDEATHSIG(2const)).
/// Whether smaster has died meanwhile is looked at before the next batch.
fn die_with_smaster() -> Result<()> {
    Ok(process::set_parent_death_signal(libc::SIGKILL).on("prctl", "PR_SET_PDEATHSIG")?)
}

fn isolate(propagation: u64) -> Result<()> {
    let flags = nix::mount::MsFlags::from_bits_truncate(propagation as libc::c_ulong);
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).on("set the propagation of", "/")?;
    Ok(())
}

impl Payload {
    /// After what is read there.
    fn close_proc(&mut self) {
        if let Some(proc) = self.proc.take().and_then(Arc::into_inner) {
            let status = process::stop_ignoring(&proc);
            fd::close_together([proc].into_iter().chain(status));
        }
    }

    fn move_to_namespaces(&mut self, kinds: i32, context: &mut Context) -> Result<()> {
        let born = match clone::fork_sibling(kinds as u64) {
            refused @ Err(Errno::EAGAIN) => refused.on("clone", "into new namespaces").context(
                "it takes the place of this process, and for as long as there are both they need two of the processes that the \
                 container may have (/linux/resources/pids/limit)",
            ),
            other => Ok(other.on("clone", "into new namespaces")?),
        };
        match born? {
            Some(pid) => context.moved_to = Some(pid),
            None => {
                context.is_successor = true;
                die_with_smaster()?;
            }
        }
        Ok(())
    }

    fn open_console(&mut self, operation: ConsoleOperation, context: &mut Context) -> Result<()> {
        let console = console::open(self.root.as_ref(), operation)?;
        if operation.bind {
            console::bind(self.root()?, &console.terminal)?;
        }
        context.returned.push(console.master);
        self.terminal = Some(console.terminal);
        Ok(())
    }

    /// A filter with a listener has been installed by [`PayloadOperations::confine`].
    fn install_filter(&self) -> Result<()> {
        let Some(plan) = self.config.process.seccomp.as_ref().filter(|plan| plan.listener.is_none()) else {
            return Ok(());
        };
        let flags = seccomp::plain_flags(plan.flags);
        let refused = seccomp::install(&self.filter, flags);
        let flags_are_new = flags != 0 && refused.as_ref().is_err_and(|errno| *errno == Errno::EINVAL);
        let result = refused.on("load", "the seccomp filter").map(drop);
        match flags_are_new {
            true => result.context("/linux/seccomp/flags: the kernel may be older than one of them: leave it out"),
            false => Ok(result?),
        }
    }

    /// What the payload gets beside the standard streams: sockets of LISTEN_FDS and preserved descriptors, from 3 on.
    ///
    /// All others are closed and not only marked: execve(2) looks the program up first, and through a directory of the
    /// host, by way of /proc/self/fd, a link in the image could name a program of the host (CVE-2024-21626).
    fn pass_descriptors(&mut self, caller: BorrowedFd) -> Result<()> {
        self.close_all_but(caller)?;
        for number in self.inherited() {
            fd::keep_number_on_exec(number);
        }
        Ok(())
    }

    fn inherited(&self) -> Range<i32> {
        3..3 + (self.listen_fds + self.preserve_fds) as i32
    }
}

impl PayloadOperations for Payload {
    fn finish(&mut self, context: &mut Context) -> Result<()> {
        if let Some(proc) = &self.proc {
            // Closed with all others.
            std::mem::forget(process::stop_ignoring(proc));
        }
        match nix::unistd::setsid() {
            Ok(_) => {}
            // It leads a session already.
            Err(Errno::EPERM) if nix::unistd::getsid(None) == Ok(nix::unistd::getpid()) => {}
            Err(errno) => Err(errno).on("setsid", "")?,
        }
        if let Some(terminal) = self.terminal.take() {
            console::adopt(&terminal)?;
            self.streams = None;
        }
        if self.proc.is_none() && identity::has_label(&self.config.process) {
            self.proc = Some(Arc::new(sysctl::open_proc()?));
        }
        identity::join_keyring(&self.config.process, self.proc.as_deref())?;
        if self.config.process.seccomp.is_some() && self.filter.is_empty() {
            bail!("the seccomp program did not arrive");
        }
        let plan = &mut self.config.process;
        identity::keep_last_of_each(&mut plan.env);
        identity::set_home(&mut plan.env, plan.uid)?;
        identity::adopt(plan, self.proc.as_deref(), self.streams.take(), &mut context.warnings)?;
        let Some(program) = plan.args.first() else { bail!("args must not be empty") };
        self.program = program::find_program(program, &plan.env)?;
        process::unblock_signals().on("unblock", "signals")?;
        Ok(())
    }

    /// Whoever answers the notifications must have the listener before the first of them: the container's program, and
    /// its startContainer hooks, run under this filter. From the installation on every call that is made here may be
    /// one to be notified of, so there is as little as can be: smaster is told the listener's number before, copies it
    /// by that, and answers with a byte.
    fn confine(&mut self, smaster: BorrowedFd<'_>) -> Result<()> {
        let Some(plan) = self.config.process.seccomp.as_ref().filter(|plan| plan.listener.is_some()) else {
            return Ok(());
        };
        let flags = seccomp::listener_flags(plan.flags);
        let number = fd::lowest_free().on("look for", "a free descriptor")?;
        let announcement = Reply { listener: Some(number), ..Reply::default() };
        frame::send(smaster, Kind::Reply, &announcement, &[])?;
        let listener = seccomp::install(&self.filter, flags).on("load", "the seccomp filter")?;
        let mut answer = [0; 1];
        let length = crate::sys::retry(|| nix::unistd::read(smaster, &mut answer)).on("read", "smaster's answer")?;
        drop(listener);
        if length == 0 {
            bail!("smaster is gone");
        }
        Ok(())
    }

    fn close_all_but(&mut self, kept: BorrowedFd<'_>) -> Result<()> {
        // All together, and not each by its owner.
        let own = [self.root.take().map(Root::into_fd), self.terminal.take()];
        for fd in own.into_iter().flatten() {
            let _ = fd.into_raw_fd();
        }
        std::mem::forget(self.proc.clone());
        let keep: Vec<i32> = self.inherited().chain([kept.as_raw_fd()]).collect();
        Ok(fd::close_all_but(&keep).on("close_range", "")?)
    }

    fn start_process(&mut self, caller: Caller<'_>) -> Result<Infallible> {
        if !self.config.start_container.is_empty() {
            let state = self.common.state.replace("\"pid\":0", &format!("\"pid\":{}", std::process::id()));
            let hooks = hooks::with_env(&self.config.start_container, &self.config.process.env);
            // stage2 itself still needs calls that the filter may forbid.
            let plan = self.config.process.seccomp.as_ref();
            let filter = plan.map(|plan| (self.filter.as_slice(), seccomp::plain_flags(plan.flags)));
            let filter = filter.filter(|_| plan.is_some_and(|plan| plan.listener.is_none()));
            hooks::run_in("startContainer", &hooks, &state, hooks::Setting { directory: None, filter })?;
        }
        self.pass_descriptors(caller.as_fd())?;
        let strings = |list: &[String]| list.iter().map(super::root::c_string).collect::<Result<Vec<_>>>();
        let mut env = strings(&self.config.process.env)?;
        if self.listen_fds > 0 {
            env.push(CString::new(format!("LISTEN_FDS={}", self.listen_fds))?);
            env.push(c"LISTEN_PID=1".to_owned());
        }
        let args = strings(&self.config.process.args)?;
        let program = CString::new(self.program.as_os_str().as_bytes())?;
        process::restore_sigpipe();
        let told = frame::send(caller, Kind::Executing, &(), &[]);
        if let Caller::Smaster(_) = caller {
            told.context("smaster is gone")?;
        }
        // The last call before the payload: the filter may forbid every other.
        self.install_filter()?;
        let Err(errno) = nix::unistd::execve(&program, &args, &env);
        let shown = self.config.process.args.first().map(String::as_str).unwrap_or_default();
        bail!("exec {shown:?}: {}", describe(errno))
    }
}
