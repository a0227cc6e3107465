//! `state.json` on disk. While a container is made each state of it is added as a line, and the last line counts: to
//! replace the file would cost a file more, which some file systems write out at once. Later changes replace it whole.

use super::directory::{RECORD, open_file};
use super::root::with_advice;
use super::{Foreign, NotFound, Record, StateDir, plain};
use crate::sys::{Errno, On, errno_of, fd, retry};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;

/// The record of a container that is being made.
pub struct Recording {
    id: String,
    file: File,
}

impl Recording {
    /// Adds what is known by now. Whoever reads meanwhile finds what was known before.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add(&mut self, record: &Record) -> Result<()> {
        let written = self.file.write_all(&line(record)?).map_err(|error| errno_of(&error));
        with_advice(written.on("write", format_args!("{}/{RECORD}", self.id)))
    }
}

impl StateDir {
    /// Begins the record of a container that is being made. What there was of an earlier one is replaced.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin_record(&self, record: &Record) -> Result<Recording> {
        Ok(Recording { id: self.id().to_owned(), file: self.replace(RECORD, &line(record)?)? })
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// The kernel's.
    pub fn write_record(&self, record: &Record) -> Result<()> {
        self.begin_record(record).map(drop)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`NotFound`] where there is none yet; where it is not of this version or is damaged.
    pub fn record(&self) -> Result<Record> {
        let id = self.id();
        let bytes = match open_file(self, RECORD).and_then(fd::read_lines) {
            Err(Errno::ENOENT) => return Err(NotFound { id: id.to_owned() }.into()),
            other => other.on("read state of", id)?,
        };
        let record = match last(&bytes) {
            Err(_) if is_foreign(&bytes) => return Err(Foreign { id: id.to_owned() }.into()),
            other => other.with_context(|| {
                format!("the state of container {id:?} is damaged: remove it with {}", self.forced_deletion())
            })?,
        };
        if record.id != id {
            let advice = self.forced_deletion();
            bail!("the state of container {id:?} is that of {:?}: remove it with {advice}", record.id);
        }
        if record.version != Record::VERSION {
            bail!("the state of container {id:?} is of version {}, which this rtx does not read", record.version);
        }
        Ok(record)
    }
}

/// Room for the records of many containers, one after the other.
pub struct Line(Vec<u8>);

/// What a record has at most, unless its annotations are many.
const ROOM: usize = 32 * 1024;

impl Default for Line {
    fn default() -> Self {
        Self(vec![0; ROOM])
    }
}

impl Line {
    /// The record at `path` in a directory, without the end of its line. `None` where it is larger, or has no whole line, or
    /// cannot be read: [`StateDir::record`] says which.
    pub(super) fn read(&mut self, directory: impl AsFd, path: &str) -> Option<&str> {
        let file = open_file(directory, path).ok()?;
        let length = retry(|| nix::unistd::read(&file, &mut self.0)).ok()?;
        if length == self.0.len() {
            return None;
        }
        let (end, lines) = self.0[..length].split_last()?;
        let begin = last_end(lines).map_or(0, |end| end + 1);
        str::from_utf8(lines.get(begin..)?).ok().filter(|_| *end == b'\n')
    }
}

fn line(record: &Record) -> Result<Vec<u8>> {
    // With ten hierarchies, and annotations of no great length.
    let mut line = Vec::with_capacity(1024);
    serde_json::to_writer(&mut line, record)?;
    line.push(b'\n');
    Ok(line)
}

/// The last record that is whole. A line without an end is one that its writer was killed over, or is still writing.
fn last(bytes: &[u8]) -> serde_json::Result<Record> {
    let (lines, rest) = match last_end(bytes) {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => return serde_json::from_slice(bytes),
    };
    if !rest.is_empty()
        && let Ok(record) = serde_json::from_slice(rest)
    {
        return Ok(record);
    }
    let begin = last_end(lines).map_or(0, |end| end + 1);
    serde_json::from_slice(&lines[begin..])
}

/// Whether this is another program's: of a record of rtx's, whatever its version, these are always members.
fn is_foreign(bytes: &[u8]) -> bool {
    let value: serde_json::Result<serde_json::Map<String, serde_json::Value>> = serde_json::from_slice(bytes);
    value.is_ok_and(|record| !record.is_empty() && !record.contains_key("version") && !record.contains_key("engine"))
}

/// Where the last line ends. Eight bytes at a time, of which most hold no end.
fn last_end(bytes: &[u8]) -> Option<usize> {
    let (rest, words) = bytes.as_rchunks::<8>();
    let (begin, part) = match words.iter().rposition(|word| plain::has(*word, b'\n')) {
        Some(index) => (rest.len() + index * 8, &words[index][..]),
        None => (0, rest),
    };
    part.iter().rposition(|byte| *byte == b'\n').map(|at| begin + at)
}

#[cfg(test)]
mod tests {
    use super::{Line, is_foreign, last, last_end};

    const FIRST: &str = r#"{"version":1,"id":"a","engine":"oci","bundle":"/b","rootfs":"/r","created":"","owner":0,"complete":false,"init":null}"#;

    fn complete(text: &str) -> Option<bool> {
        last(text.as_bytes()).ok().map(|record| record.complete)
    }

    #[test]
    fn the_last_whole_line_counts() {
        let second = FIRST.replace("false", "true");
        assert_eq!(complete(&format!("{FIRST}\n")), Some(false));
        assert_eq!(complete(&format!("{FIRST}\n{second}\n")), Some(true));
        for end in 0..second.len() {
            assert_eq!(complete(&format!("{FIRST}\n{}", &second[..end])), Some(false), "{end}");
        }
        assert_eq!(complete(&format!("{FIRST}\n{second}")), Some(true));
        assert_eq!(complete(&second), Some(true));
    }

    #[test]
    fn another_runtimes_is_told_from_a_damaged_one() {
        for text in [r#"{"id":"a","init_process_pid":1}"#, r#"{"ociVersion":"1.0.0","id":"a","pid":1}"#] {
            assert!(is_foreign(text.as_bytes()), "{text}");
        }
        let newer = FIRST.replace("\"version\":1", "\"version\":2,\"more\":1");
        for text in [FIRST, &newer, &FIRST[..40], "{}", "[]", ""] {
            assert!(!is_foreign(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn the_last_end_is_found() {
        for length in 0..40 {
            let mut bytes = vec![b'a'; length];
            assert_eq!(last_end(&bytes), None);
            for at in 0..length {
                bytes[at] = b'\n';
                assert_eq!(last_end(&bytes), Some(at), "{length}");
            }
        }
    }

    #[test]
    fn a_line_is_what_serde_would_read() {
        let directory = tempfile::tempdir().unwrap();
        let open = std::fs::File::open(directory.path()).unwrap();
        let mut line = Line::default();
        let mut of = |text: &str| {
            std::fs::write(directory.path().join("r"), text).unwrap();
            line.read(&open, "r").map(str::to_owned)
        };
        assert_eq!(of("one\n").as_deref(), Some("one"));
        assert_eq!(of("one\ntwo\n").as_deref(), Some("two"));
        let large = "x".repeat(super::ROOM - 6);
        assert_eq!(of(&format!("one\n{large}\n")).as_deref(), Some(&*large));
        for other in ["", "one", "one\ntwo", &format!("one\n{large}x\n")] {
            assert_eq!(of(other), None);
        }
        std::fs::write(directory.path().join("r"), b"\xff\n").unwrap();
        assert_eq!(line.read(&open, "r"), None);
        assert_eq!(line.read(&open, "none"), None);
    }

    #[test]
    fn without_a_whole_line_it_is_damaged() {
        for text in ["", "{", "\n", &format!("{FIRST}\n{{\n"), "[]\n"] {
            assert_eq!(complete(text), None, "{text:?}");
        }
    }
}
