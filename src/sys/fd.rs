//! Which descriptors live where: ownership of raw numbers, close-on-exec for what nobody asked to pass on.

use super::{Errno, check};
use nix::NixPath;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Opens a file that is there, close-on-exec. By openat(2): musl follows open(2) by a fcntl(2), for kernels that do not know
/// O_CLOEXEC.
///
/// # Errors
/// The kernel's.
pub fn open(path: &(impl NixPath + ?Sized), flags: OFlag) -> nix::Result<OwnedFd> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty())
}

/// Reads to the end, by read(2) alone: std asks for the size and the position first, which files of the kernel do not have.
///
/// # Errors
/// The kernel's.
pub fn read_to_end(fd: impl AsFd) -> nix::Result<Vec<u8>> {
    read_until(fd, |_, count| count == 0)
}

/// Reads a file of lines. Not to its end where a line has ended and less came than was asked for: what may follow was added
/// a moment later.
///
/// # Errors
/// The kernel's.
pub fn read_lines(fd: impl AsFd) -> nix::Result<Vec<u8>> {
    read_until(fd, |bytes, count| count == 0 || count < PORTION && bytes.last() == Some(&b'\n'))
}

/// What is asked for at a time.
const PORTION: usize = 8192;

fn read_until(fd: impl AsFd, is_enough: impl Fn(&[u8], usize) -> bool) -> nix::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; PORTION]);
    loop {
        let count = super::retry(|| nix::unistd::read(&fd, &mut buffer))?;
        bytes.extend_from_slice(&buffer[..count]);
        if is_enough(&bytes, count) {
            return Ok(bytes);
        }
    }
}

/// Reads a regular file of which `size` bytes are expected, and no more than `limit` and one. A read that comes to the
/// expected end, and had room for more, has come to the end.
///
/// # Errors
/// The kernel's.
pub fn read_sized(file: impl AsFd, size: usize, limit: usize) -> nix::Result<Vec<u8>> {
    let mut bytes = vec![0; size.min(limit) + 1];
    let mut length = 0;
    loop {
        let count = super::retry(|| nix::unistd::read(&file, &mut bytes[length..]))?;
        length += count;
        if count == 0 || length > limit || (length == size && length < bytes.len()) {
            break;
        }
        if length == bytes.len() {
            bytes.resize(length + PORTION.min(limit + 1 - length), 0);
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Reads a file to its end.
///
/// # Errors
/// The kernel's.
pub fn read(path: &(impl NixPath + ?Sized)) -> nix::Result<Vec<u8>> {
    read_to_end(open(path, OFlag::O_RDONLY)?)
}

/// Reads a file of the kernel that is a line, which the kernel hands out whole.
///
/// # Errors
/// The kernel's.
pub fn read_line<'b>(path: &(impl NixPath + ?Sized), buffer: &'b mut [u8]) -> nix::Result<&'b [u8]> {
    let file = open(path, OFlag::O_RDONLY)?;
    let length = super::retry(|| nix::unistd::read(&file, buffer))?;
    Ok(&buffer[..length])
}

/// Takes a descriptor that a system call has just returned.
pub(crate) fn own(result: libc::c_long) -> nix::Result<OwnedFd> {
    // SAFETY: the kernel returned this descriptor to this call alone; nothing else owns it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Standard input, output and error. Those of std bring buffers.
pub fn standard_streams() -> [BorrowedFd<'static>; 3] {
    // SAFETY: they are everybody's, open from the start (src/sys/start.rs), and nothing in this process closes one.
    [0, 1, 2].map(|number| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Writes all of it to the standard output, at once, and waits where that is one that does not: std's would keep what has no end
/// of a line yet.
///
/// # Errors
/// The kernel's, `EPIPE` where nobody reads any more.
pub fn print(mut bytes: &[u8]) -> nix::Result<()> {
    let [_, stdout, _] = standard_streams();
    while !bytes.is_empty() {
        match nix::unistd::write(stdout, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let _ = poll(&mut [PollFd::new(stdout, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Takes a descriptor that this process inherited under a number that its command line names.
///
/// # Errors
/// `EBADF` where nothing is open under that number, or the number belongs to the standard streams.
pub fn inherited(number: RawFd) -> nix::Result<OwnedFd> {
    if number <= 2 {
        return Err(nix::errno::Errno::EBADF);
    }
    // SAFETY: F_GETFD takes no memory; it only asks whether the number is open.
    check(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_GETFD) }))?;
    // SAFETY: the number is open, and by the contract of the caller nothing else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A duplicate of a descriptor that this process was started with, close-on-exec and above the standard streams.
///
/// # Errors
/// `EBADF` where nothing is open under that number.
pub fn inherited_duplicate(number: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor.
    own(libc::c_long::from(unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) }))
}

/// Marks every descriptor from `first` upwards close-on-exec (close_range(2)); on kernels before 5.11, which lack
/// the flag, one by one.
///
/// # Errors
/// The kernel's.
pub fn cloexec_from(first: u32) -> nix::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: the call takes only integers and changes descriptor flags, not ownership.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }) {
        Ok(_) => Ok(()),
        Err(_) => each_open(first, |fd| {
            // SAFETY: F_SETFD takes an integer and does not change ownership.
            unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) };
        }),
    }
}

/// Closes every descriptor from 3 upwards that is not in `keep`. For a process that is about to execute another program
/// and has nothing open any more that it will close itself.
///
/// # Errors
/// The kernel's.
pub fn close_all_but(keep: &[RawFd]) -> nix::Result<()> {
    let mut kept: Vec<u32> = keep.iter().filter_map(|number| u32::try_from(*number).ok()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for number in kept.into_iter().filter(|number| *number >= 3) {
        if first < number {
            close_range(first, number - 1)?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> nix::Result<()> {
    // SAFETY: the call takes only integers. By the contracts of its callers nobody uses these descriptors again.
    match check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }) {
        Ok(_) => Ok(()),
        Err(_) => each_open(first, |fd| {
            if fd as u32 <= last {
                // SAFETY: as above.
                unsafe { libc::close(fd) };
            }
        }),
    }
}

/// Closes many descriptors: those with consecutive numbers, as descriptors that were opened or received together have, at
/// once.
pub fn close_together(fds: impl IntoIterator<Item = OwnedFd>) {
    let mut numbers: Vec<RawFd> = fds.into_iter().map(OwnedFd::into_raw_fd).collect();
    numbers.sort_unstable();
    for run in numbers.chunk_by(|before, next| before + 1 == *next) {
        if let (Some(first), Some(last)) = (run.first(), run.last()) {
            // The numbers were owned here, and nobody else uses them.
            let _ = close_range(*first as u32, *last as u32);
        }
    }
}

/// Lets a descriptor survive execve(2).
///
/// # Errors
/// The kernel's.
pub fn keep_on_exec(fd: impl AsFd) -> nix::Result<()> {
    nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).map(drop)
}

/// A duplicate under the lowest free number that is at least `minimum`, close-on-exec.
///
/// # Errors
/// `EMFILE`, or `EINVAL` where the limit of open files is below `minimum`.
pub fn duplicate_above(fd: impl AsFd, minimum: RawFd) -> nix::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor.
    own(unsafe { libc::syscall(libc::SYS_fcntl, fd.as_fd().as_raw_fd(), libc::F_DUPFD_CLOEXEC, minimum) })
}

/// The number that the next descriptor will have.
///
/// # Errors
/// `EMFILE`.
pub fn lowest_free() -> nix::Result<RawFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes an integer and returns a new descriptor; the standard input is always open.
    own(libc::c_long::from(unsafe { libc::fcntl(0, libc::F_DUPFD_CLOEXEC, 3) })).map(|fd| fd.as_raw_fd())
}

fn each_open(first: u32, mut visit: impl FnMut(RawFd)) -> nix::Result<()> {
    let Ok(entries) = super::dir::entries(std::path::Path::new("/proc/self/fd")) else {
        // A container need not have a /proc. Numbers beyond the limit are from before it was lowered, if there are any.
        let (_, limit) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
        let end = i32::try_from(limit).unwrap_or(i32::MAX).min(1 << 20);
        (first as RawFd..end).filter(|number| is_open(*number)).for_each(visit);
        return Ok(());
    };
    // All have been read: the descriptor of the listing was among them, and is closed by now.
    let numbers = entries.iter().filter_map(|entry| entry.name.to_str()?.parse::<u32>().ok());
    numbers.filter(|number| *number >= first).for_each(|number| visit(number as RawFd));
    Ok(())
}

/// Whether the descriptor number is open at all (F_GETFD).
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD takes no memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}

/// Clears close-on-exec of an inherited descriptor by its number; `false` where it is not open.
pub fn keep_number_on_exec(number: RawFd) -> bool {
    // SAFETY: F_SETFD takes an integer and does not change ownership.
    unsafe { libc::fcntl(number, libc::F_SETFD, 0) >= 0 }
}
