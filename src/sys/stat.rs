//! What /proc/PID/stat says about a process (proc_pid_stat(5)).

use super::{Errno, errno_of, fd};
use std::fs::File;
use std::io::Read;
use std::str::FromStr;

/// The kernel hands the line out whole, and it is shorter than that: fifty numbers and a name.
const LINE: usize = 2048;

/// Flag of a process that is on its way out (`PF_EXITING`, linux/sched.h); proc_pid_stat(5), field 9.
const EXITING: u64 = 0x4;

/// The fields that rtx needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    pub pid: i32,
    /// At most 15 bytes, whatever they are.
    pub command: Vec<u8>,
    pub state: u8,
    flags: u64,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Stat {
    /// Of the process that has this pid now; `None` where there is none.
    ///
    /// # Errors
    /// The kernel's, which say nothing about the process.
    pub fn of(pid: i32) -> nix::Result<Option<Self>> {
        let mut line = [0; LINE];
        let path = format!("/proc/{pid}/stat");
        let read = super::retry(|| fd::read_line(path.as_str(), &mut line).map(<[u8]>::len));
        match read.and_then(|length| Self::parse(&line[..length]).ok_or(Errno::ESRCH)) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// From an open `stat` file.
    ///
    /// # Errors
    /// `ESRCH` where the process that the file belongs to is gone.
    pub fn read(mut file: File) -> nix::Result<Self> {
        let mut line = [0; LINE];
        let length = file.read(&mut line).map_err(|error| errno_of(&error))?;
        Self::parse(&line[..length]).ok_or(Errno::ESRCH)
    }

    /// Whether it has ended, and nobody has waited for it yet.
    pub fn is_zombie(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Whether it runs no program any more.
    pub fn is_ending(&self) -> bool {
        self.is_zombie() || self.flags & EXITING != 0
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The command in parentheses may hold anything, parentheses and spaces too: fields count from the last one.
        let (start, end) = (line.iter().position(|byte| *byte == b'(')?, line.iter().rposition(|byte| *byte == b')')?);
        let pid = Fields(line.get(..start)?).number(0)?;
        let mut fields = Fields(line.get(end + 1..)?);
        let state = *fields.nth(0)?.first()?;
        let (flags, start_time) = (fields.number(5)?, fields.number(12)?);
        Some(Self { pid, command: line.get(start + 1..end)?.to_vec(), state, flags, start_time })
    }
}

/// What is left of a line, of which each field but the first comes after a space.
struct Fields<'l>(&'l [u8]);

impl<'l> Fields<'l> {
    fn nth(&mut self, before: usize) -> Option<&'l [u8]> {
        let mut before = before;
        loop {
            let rest = self.0.strip_prefix(b" ").unwrap_or(self.0);
            let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
            let (field, rest) = rest.split_at_checked(end).filter(|(field, _)| !field.is_empty())?;
            self.0 = rest;
            match before.checked_sub(1) {
                Some(left) => before = left,
                None => return Some(field),
            }
        }
    }

    fn number<T: FromStr>(&mut self, before: usize) -> Option<T> {
        std::str::from_utf8(self.nth(before)?.trim_ascii_end()).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_cannot_forge_what_follows_it() {
        let line = b"7 (a) Z 1 2 (b) S 1 7 7 0 -1 4194564 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.pid, stat.command.as_slice(), stat.state), (7, &b"a) Z 1 2 (b"[..], b'S'));
        assert_eq!((stat.start_time, stat.is_zombie(), stat.is_ending()), (4242, false, true));
        for line in [
            &b""[..],
            b"7 (a",
            b"7 (a)",
            b"(a) S 1 2 3 4 5 6 7",
            b"7 (a) S 1 7 7 0 -1 4194564 0 0 0 0 0 0 0 0 20 0 1 0",
        ] {
            assert_eq!(Stat::parse(line), None);
        }
        let shortest = b"7 (a) S 1 7 7 0 -1 4194564 0 0 0 0 0 0 0 0 20 0 1 0 4242\n";
        assert_eq!(Stat::parse(shortest).unwrap().start_time, 4242);
        assert!(!Stat::of(std::process::id() as i32).unwrap().unwrap().is_ending());
    }
}
