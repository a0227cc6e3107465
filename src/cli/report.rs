//! How a failure is told: one line on standard error, and one entry in the `--log` file, which callers parse. Nothing
//! is written there on success: podman takes the whole file for one object.

use super::args::LogFormat;
use crate::sys::{Errno, On, describe, errno_of};
use anyhow::Result;
use std::borrow::Cow;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

#[derive(Default)]
pub struct Report {
    log: Option<(File, Form)>,
}

#[derive(Clone, Copy)]
enum Form {
    Text,
    Json,
}

impl Report {
    /// Opens the log, which has to exist even if nothing is ever written to it: containerd reads it after a failure,
    /// however early that was.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(path: Option<&Path>, format: LogFormat) -> Result<Self> {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else { return Ok(Self::default()) };
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(|error| errno_of(&error))
            .on("open the log", path.display())?;
        let form = if format == LogFormat::Json { Form::Json } else { Form::Text };
        Ok(Self { log: Some((file, form)) })
    }

    /// For a command line that could not be parsed: looks for the log in it all the same.
    pub fn from_arguments(arguments: &[OsString]) -> Self {
        let path = value_of(arguments, "log");
        let is_json = value_of(arguments, "log-format").is_some_and(|format| format == "json");
        let format = if is_json { LogFormat::Json } else { LogFormat::Text };
        Self::new(path.as_deref().map(Path::new), format).unwrap_or_default()
    }

    /// Tells of a failure and returns the exit code that goes with it.
    pub fn fail(&self, message: &str, code: i32) -> i32 {
        let message = plain(message.trim_end());
        if let Some((file, form)) = &self.log {
            let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Nanos, true);
            let line = match form {
                Form::Json => serde_json::json!({ "level": "error", "msg": message, "time": time }).to_string(),
                Form::Text => format!("time={time:?} level=error msg={message:?}"),
            };
            let mut file: &File = file;
            // A full disk must not hide the message on standard error.
            let _ = writeln!(file, "{line}");
        }
        let _ = writeln!(std::io::stderr(), "{message}");
        code
    }
}

/// Says something on standard error that is no failure. That nobody can be told must not become one: `eprintln!` would end
/// the command over it, half-way.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Whether nobody reads any more what was to be written.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<crate::sys::Error>()
        .is_some_and(|error| error.errno == Errno::EPIPE && error.op.starts_with("write"))
}

/// An error and its causes in one line. Callers compare the words of the kernel's errors, which libraries write in other
/// ways: `ENOENT: No such file or directory`, `No such file or directory (os error 2)`.
pub fn explain(error: &anyhow::Error) -> String {
    error.chain().map(link).collect::<Vec<_>>().join(": ")
}

fn link(error: &(dyn Error + 'static)) -> String {
    if let Some(errno) = error.downcast_ref::<Errno>() {
        return describe(*errno);
    }
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error) {
        Some(number) => describe(Errno::from_raw(number)),
        None => error.to_string(),
    }
}

/// A message as one line that is what it looks like: names in it are others' words, and could end the line, or move what is
/// written by control characters and those that turn the direction.
fn plain(message: &str) -> Cow<'_, str> {
    let is_other =
        |c: char| c.is_control() && c != '\t' || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !message.contains(is_other) {
        return message.into();
    }
    let mut plain = String::new();
    for c in message.chars() {
        if is_other(c) { plain.extend(c.escape_default()) } else { plain.push(c) }
    }
    plain.into()
}

/// Tells what failed without changing the outcome of the command.
pub fn warn(what: &str, failed: &[String]) {
    for failure in failed {
        let _ = writeln!(std::io::stderr(), "{what}: warning: {}", plain(failure));
    }
}

fn value_of(arguments: &[OsString], flag: &str) -> Option<OsString> {
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let bytes = argument.as_bytes();
        let Some(name) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")) else { continue };
        if name == flag.as_bytes() {
            return arguments.next().cloned();
        }
        if let Some(value) = name.strip_prefix(flag.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")) {
            return Some(OsStr::from_bytes(value).to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::explain;
    use crate::sys::Errno;

    #[test]
    fn the_kernels_words_are_the_same_from_every_library() {
        let error = anyhow::Error::new(Errno::EBUSY).context("write x");
        assert_eq!(explain(&error), "write x: device or resource busy");
        let error = anyhow::Error::new(std::io::Error::from_raw_os_error(2)).context("open x");
        assert_eq!(explain(&error), "open x: no such file or directory");
    }
}
