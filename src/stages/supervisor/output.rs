//! What the program prints, written down as it comes: in one of three forms, in files of a limited size. Readers read the
//! files. A disk that is full costs output and never holds the program up.

use crate::config::supervision::{OutputFormat, OutputSettings};
use crate::state::now;
use crate::sys::{Errno, On, errno_of};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How much is formatted before it is written.
const AT_ONCE: usize = 64 * 1024;

/// Where a program printed something. A terminal has one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// Where the output goes.
pub struct Output {
    format: OutputFormat,
    /// Standard error's is the second, where the form does not tell the streams apart.
    files: Vec<LogFile>,
    formatted: Vec<u8>,
    /// Which streams are in the middle of a line.
    cut: [bool; 2],
    /// Bytes that could not be written down.
    pub lost: u64,
}

impl Output {
    /// Opens the files.
    ///
    /// # Errors
    /// The kernel's.
    pub fn open(settings: &OutputSettings) -> Result<Self> {
        let paths = paths(settings);
        let files = paths.into_iter().map(|path| LogFile::open(path, settings)).collect::<Result<_>>()?;
        Ok(Self { format: settings.format, files, formatted: Vec::new(), cut: [false; 2], lost: 0 })
    }

    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        match self.format {
            OutputFormat::None => {}
            OutputFormat::Plain => {
                let index = usize::from(stream == Stream::Stderr);
                for part in bytes.chunks(AT_ONCE) {
                    self.lost += self.files[index].write(part, part.len(), true);
                }
            }
            OutputFormat::K8sFile | OutputFormat::JsonLines => self.write_lines(stream, bytes),
        }
    }

    fn write_lines(&mut self, stream: Stream, bytes: &[u8]) {
        let is_json = self.format == OutputFormat::JsonLines;
        let (time, name) = (now(), stream.name());
        // What lines begin with, until the next of them is read from the program.
        let (whole, part) = if is_json {
            let begin = format!(r#"{{"time":"{time}","stream":"{name}","log":"#);
            (begin.clone(), begin)
        } else {
            (format!("{time} {name} F "), format!("{time} {name} P "))
        };
        let (mut raw, mut begin) = (0, 0);
        let mut ends_line = self.cut == [false; 2];
        while begin < bytes.len() {
            let end = memchr::memchr(b'\n', &bytes[begin..]).map(|at| begin + at + 1);
            let line = &bytes[begin..end.unwrap_or(bytes.len())];
            begin += line.len();
            raw += line.len();
            let head = if end.is_some() { &whole } else { &part };
            self.formatted.extend_from_slice(head.as_bytes());
            if is_json {
                // Into memory, which cannot fail.
                let _ = serde_json::to_writer(&mut self.formatted, &String::from_utf8_lossy(line));
                self.formatted.extend_from_slice(b"}\n");
            } else {
                self.formatted.extend_from_slice(line);
                if end.is_none() {
                    self.formatted.push(b'\n');
                }
            }
            self.cut[usize::from(stream == Stream::Stderr)] = end.is_none();
            if self.formatted.len() >= AT_ONCE {
                self.flush(std::mem::take(&mut raw), ends_line);
                ends_line = self.cut == [false; 2];
            }
        }
        self.flush(raw, ends_line);
    }

    /// `ends_line`: what was written before ends where a line does.
    fn flush(&mut self, raw: usize, ends_line: bool) {
        self.lost += self.files[0].write(&self.formatted, raw, ends_line);
        self.formatted.clear();
        self.formatted.shrink_to(AT_ONCE);
    }
}

/// The files of a setting: of both streams, or of each.
pub fn paths(settings: &OutputSettings) -> Vec<PathBuf> {
    match settings.format {
        OutputFormat::None => Vec::new(),
        OutputFormat::Plain => vec![settings.file.clone(), beside(&settings.file, "stderr")],
        OutputFormat::K8sFile | OutputFormat::JsonLines => vec![settings.file.clone()],
    }
}

/// The `number`th file before the newest.
pub fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { beside(path, &number.to_string()) }
}

/// A place in a file, which may have been given another name since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begin {
    pub inode: u64,
    /// An inode's number may be given to another file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<SystemTime>,
    pub offset: u64,
}

impl Begin {
    /// The end of a file.
    pub fn at_end_of(file: &Metadata) -> Self {
        Self { inode: file.ino(), made: file.created().ok(), offset: file.len() }
    }

    pub fn is_in(&self, file: &Metadata) -> bool {
        // Where nobody knows when a file was made, one that is shorter is another one.
        (self.inode, self.made) == (file.ino(), file.created().ok()) && self.offset <= file.len()
    }
}

/// The ends of the newest files; `None` where nobody has written anything yet. An inode's number and the tick at which it
/// was made come again within one tick, so the first of a container's own files is none to remember.
pub fn begin(settings: &OutputSettings) -> Vec<Option<Begin>> {
    let end = |path: PathBuf| {
        let file = path.metadata().ok()?;
        let is_used = file.len() > 0 || (1..settings.max_files).any(|number| rotated(&path, number).exists());
        is_used.then(|| Begin::at_end_of(&file))
    };
    paths(settings).into_iter().map(end).collect()
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// One file that is followed by another when it is full.
struct LogFile {
    path: PathBuf,
    file: Option<File>,
    size: u64,
    max_size: u64,
    max_files: u32,
}

impl LogFile {
    fn open(path: PathBuf, settings: &OutputSettings) -> Result<Self> {
        let file = open(&path).on("open", path.display())?;
        let size = file.metadata().map_or(0, |meta| meta.len());
        Ok(Self { path, file: Some(file), size, max_size: settings.max_size, max_files: settings.max_files })
    }

    /// Writes what stands for `raw` bytes of output, all or nothing. Returns how many of them are lost. Another file is begun
    /// where a line ends, as long as none is endless: the older one is removed some time, and with it what a line began with.
    fn write(&mut self, bytes: &[u8], raw: usize, ends_line: bool) -> u64 {
        if bytes.is_empty() {
            return 0;
        }
        let size = self.size + bytes.len() as u64;
        if self.size > 0 && size > self.max_size && (ends_line || size / 2 > self.max_size) {
            self.rotate();
        }
        if self.file.is_none() {
            self.file = open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return raw as u64 };
        match file.write_all(bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                0
            }
            Err(_) => {
                // Half a line would spoil the next one as well.
                let _ = file.set_len(self.size);
                raw as u64
            }
        }
    }

    fn rotate(&mut self) {
        self.file = None;
        for number in (1..self.max_files).rev() {
            let _ = std::fs::rename(rotated(&self.path, number - 1), rotated(&self.path, number));
        }
        if self.max_files <= 1 {
            let _ = std::fs::remove_file(&self.path);
        }
        self.file = open(&self.path).ok();
        self.size = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |meta| meta.len());
    }
}

fn open(path: &Path) -> Result<File, Errno> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let file = options.open(path).map_err(|error| errno_of(&error))?;
    // A pipe or a device would make the program wait for whoever reads it.
    if file.metadata().is_ok_and(|meta| meta.is_file()) { Ok(file) } else { Err(Errno::EINVAL) }
}
