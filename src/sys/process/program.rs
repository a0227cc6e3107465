//! Starting another program: a hook, newuidmap, ps, rtx itself. The standard library panics where the pipe fails through
//! which its child tells of a failed exec, and a runtime's caller is to read a message. There is no pipe here: the child
//! leaves its errno in memory that both see, and until it has executed or ended the parent sleeps (`CLONE_VFORK`).

use super::children::wait;
use crate::sys::{Errno, check, fd, memfd, seccomp};
use nix::fcntl::OFlag;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use nix::unistd::{Pid, chdir, setpgid};
use std::ffi::{CString, OsStr, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitStatus;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, Ordering};

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// A program, its arguments and what it finds. It gets SIGKILL when the thread that starts it ends.
pub struct Program {
    /// Tried one after the other.
    paths: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    directory: Option<CString>,
    streams: [Option<OwnedFd>; 3],
    has_own_group: bool,
    filter: Option<(Vec<u8>, u32)>,
}

/// How a program ended, and what it printed.
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

impl Program {
    /// The program at `name`, or where PATH has it if that is no path, with this process's environment and standard
    /// streams. `arguments` begin with the name that it is called by.
    ///
    /// # Errors
    /// `EINVAL` for a NUL among the letters.
    pub fn new<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> nix::Result<Self> {
        let inherited = std::env::vars_os().map(|(name, value)| [name, value].join(OsStr::new("=")));
        Ok(Self {
            paths: candidates(name)?,
            arguments: strings(arguments)?,
            environment: strings(inherited)?,
            directory: None,
            streams: [None, None, None],
            has_own_group: false,
            filter: None,
        })
    }

    /// The whole environment, as `name=value`.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn environment<A: AsRef<OsStr>>(&mut self, entries: impl IntoIterator<Item = A>) -> nix::Result<()> {
        self.environment = strings(entries)?;
        Ok(())
    }

    /// Takes names out of the environment.
    pub fn environment_without(&mut self, names: &[&str]) {
        let has_name =
            |entry: &CString, name: &&str| entry.to_bytes().split(|byte| *byte == b'=').next() == Some(name.as_bytes());
        self.environment.retain(|entry| !names.iter().any(|name| has_name(entry, name)));
    }

    /// The working directory.
    ///
    /// # Errors
    /// As [`Program::new`].
    pub fn directory(&mut self, directory: &OsStr) -> nix::Result<()> {
        self.directory = Some(string(directory)?);
        Ok(())
    }

    /// Its standard input, output and error; `None` is this process's. None of them has a number below 3 here.
    pub fn streams(&mut self, streams: [Option<OwnedFd>; 3]) {
        self.streams = streams;
    }

    /// Makes it the first of a process group.
    pub fn own_group(&mut self) {
        self.has_own_group = true;
    }

    /// Puts it under a seccomp filter, with these flags, from its first instruction on.
    pub fn filter(&mut self, filter: Vec<u8>, flags: u32) {
        self.filter = Some((filter, flags));
    }

    /// Starts it; the pid of a child that is to be waited for. Its streams are closed here.
    ///
    /// # Errors
    /// What the exec failed with, or what goes before it; `EAGAIN` or `ENOMEM` where there can be no child.
    pub fn start(self) -> nix::Result<i32> {
        let failure = Shared::new()?;
        let pointers = |strings: &[CString]| -> Vec<_> {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        let flags = libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: without CLONE_VM this is a fork. The child makes system calls on what has been allocated before, takes
        // no lock, and never returns.
        let pid = match check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
            0 => {
                let Err(errno) = self.become_it(&arguments, &environment);
                failure.number().store(errno as i32, Ordering::Release);
                // SAFETY: nothing of the parent's is flushed or torn down.
                unsafe { libc::_exit(127) }
            }
            pid => pid as i32,
        };
        match failure.number().load(Ordering::Acquire) {
            0 => Ok(pid),
            number => {
                let _ = wait(pid);
                Err(Errno::from_raw(number))
            }
        }
    }

    /// Runs it to its end, without any input.
    ///
    /// # Errors
    /// As [`Program::start`]; those of waiting and of reading.
    pub fn output(mut self) -> nix::Result<Output> {
        let [stdout, stderr] = [memfd::create(c"stdout", false)?, memfd::create(c"stderr", false)?];
        let given = |file: &OwnedFd| fd::duplicate_above(file, 3).map(Some);
        let null = fd::open(c"/dev/null", OFlag::O_RDONLY)?;
        self.streams([Some(null), given(&stdout)?, given(&stderr)?]);
        let status = wait(self.start()?)?;
        let read = |file: OwnedFd| {
            nix::unistd::lseek(&file, 0, nix::unistd::Whence::SeekSet)?;
            fd::read_to_end(file)
        };
        Ok(Output { status, stdout: read(stdout)?, stderr: read(stderr)? })
    }

    /// In the child, until it executes.
    fn become_it(
        &self,
        arguments: &[*const libc::c_char],
        environment: &[*const libc::c_char],
    ) -> nix::Result<std::convert::Infallible> {
        super::set_parent_death_signal(libc::SIGKILL)?;
        for (number, stream) in self.streams.iter().enumerate() {
            if let Some(stream) = stream {
                // SAFETY: the call takes only integers, and this process is about to become another.
                check(unsafe { libc::dup2(stream.as_raw_fd(), number as i32) }.into())?;
            }
        }
        if self.has_own_group {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        }
        if let Some(directory) = &self.directory {
            chdir(directory.as_c_str())?;
        }
        super::stop_ignoring_any();
        super::restore_sigpipe();
        super::unblock_signals()?;
        if let Some((filter, flags)) = &self.filter {
            seccomp::install(filter, *flags)?;
        }
        let mut refused = None;
        for path in &self.paths {
            // SAFETY: a path and two arrays of strings that end with a null pointer; all of them outlive the call.
            unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
            match Errno::last() {
                Errno::ENOENT | Errno::ENOTDIR => {}
                // Another directory of PATH may have one that can be executed.
                errno @ Errno::EACCES => refused = Some(errno),
                errno => return Err(errno),
            }
        }
        Err(refused.unwrap_or(Errno::ENOENT))
    }
}

/// A number that a forked child sees as this process does.
struct Shared(NonNull<c_void>);

impl Shared {
    fn new() -> nix::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: new memory at a place of the kernel's choice, which is used by this value alone.
        unsafe { mmap_anonymous(None, PAGE, access, MapFlags::MAP_SHARED) }.map(Self)
    }

    fn number(&self) -> &AtomicI32 {
        // SAFETY: the mapping is aligned to a page, filled with zeros and lives as long as this value.
        unsafe { self.0.cast().as_ref() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: no reference outlives this value.
        let _ = unsafe { munmap(self.0, PAGE.get()) };
    }
}

fn string(text: &OsStr) -> nix::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_| Errno::EINVAL)
}

fn strings<A: AsRef<OsStr>>(texts: impl IntoIterator<Item = A>) -> nix::Result<Vec<CString>> {
    texts.into_iter().map(|text| string(text.as_ref())).collect()
}

/// Where a program may be (execvp(3)).
fn candidates(name: &str) -> nix::Result<Vec<CString>> {
    if name.contains('/') {
        return strings([name]);
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    strings(std::env::split_paths(&path).map(|directory| directory.join(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output_of(name: &str, arguments: &[&str]) -> nix::Result<Output> {
        Program::new(name, arguments)?.output()
    }

    #[test]
    fn a_program_is_found_and_what_it_prints_is_kept() {
        let output = output_of("sh", &["sh", "-c", "cat; echo $0; echo why >&2; exit 3", "a"]).unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"a\n"[..], &b"why\n"[..]));
    }

    #[test]
    fn what_cannot_be_executed_says_why() {
        assert_eq!(output_of("/nowhere", &["nowhere"]).err(), Some(Errno::ENOENT));
        assert_eq!(output_of("no-such-program", &["x"]).err(), Some(Errno::ENOENT));
        assert_eq!(output_of("/etc/passwd", &["x"]).err(), Some(Errno::EACCES));
        assert_eq!(output_of("sh", &["a\0b"]).err(), Some(Errno::EINVAL));
    }

    #[test]
    fn environment_directory_and_group_are_its_own() {
        let script = "test $(pwd) = / && test \"$A\" = b && test \"$(env | wc -l)\" -le 4 && cut -d' ' -f5 /proc/$$/stat && echo $$";
        let mut program = Program::new("/bin/sh", ["sh", "-c", script]).unwrap();
        program.environment(["A=b", "PATH=/usr/bin:/bin"]).unwrap();
        program.directory(OsStr::new("/")).unwrap();
        program.own_group();
        let printed = String::from_utf8(program.output().unwrap().stdout).unwrap();
        let lines: Vec<_> = printed.lines().collect();
        assert!(lines.len() == 2 && lines[0] == lines[1], "{printed:?}");
    }
}
