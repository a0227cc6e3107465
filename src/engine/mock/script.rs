//! How the program that is not there behaves: what the annotations `org.rtx.mock.*` say.
//!
//! | annotation | meaning |
//! |---|---|
//! | `exitCode` | how the program and every `exec` end; 0 where it is missing. A signal but SIGKILL ends with it, too |
//! | `duration` | milliseconds from start to end; until killed where it is missing |
//! | `stdout` | what a run in the foreground prints |
//! | `fail` | commands that fail, separated by commas |

use crate::engine::ExitStatus;
use anyhow::{Context, Result, bail};
use std::time::Duration;

const PREFIX: &str = "org.rtx.mock.";
const COMMANDS: &[&str] = &["create", "start", "kill", "delete", "pause", "resume", "exec", "update"];
/// Signals that do nothing to a process that does not ask for them (signal(7)), those that stop it included.
const HARMLESS: &[i32] = &[
    0,
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Script {
    pub exit_code: Option<i32>,
    pub duration: Option<Duration>,
    pub stdout: String,
    pub fail: Vec<String>,
}

impl Script {
    /// Reads the annotations.
    ///
    /// # Errors
    /// A value that means nothing, or a name that is none of ours, with its JSON pointer.
    pub fn read<'a>(annotations: impl IntoIterator<Item = (&'a String, &'a String)>) -> Result<Self> {
        let mut script = Self::default();
        for (name, value) in annotations {
            if let Some(name) = name.strip_prefix(PREFIX) {
                script.set(name, value).with_context(|| format!("/annotations/{PREFIX}{name}"))?;
            }
        }
        Ok(script)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "exitCode" => match value.parse::<u8>() {
                Ok(code) => self.exit_code = Some(code.into()),
                Err(_) => bail!("{value:?} is not an exit code from 0 to 255"),
            },
            "duration" => match value.parse() {
                Ok(milliseconds) => self.duration = Some(Duration::from_millis(milliseconds)),
                Err(_) => bail!("{value:?} is not a number of milliseconds"),
            },
            "stdout" => value.clone_into(&mut self.stdout),
            "fail" => {
                for command in value.split(',').map(str::trim).filter(|command| !command.is_empty()) {
                    if !COMMANDS.contains(&command) {
                        bail!("{command:?} is not one of {}", COMMANDS.join(", "));
                    }
                    self.fail.push(command.to_owned());
                }
            }
            _ => bail!("there is no such annotation; there are exitCode, duration, stdout and fail"),
        }
        Ok(())
    }

    /// # Errors
    /// Where the script has this command fail.
    pub fn may(&self, command: &str) -> Result<()> {
        if self.fail.iter().any(|failing| failing == command) {
            bail!("{command} fails, as the annotation {PREFIX}fail says");
        }
        Ok(())
    }

    /// How a signal ends the program, if it does.
    pub fn end_by(&self, signal: i32) -> Option<ExitStatus> {
        if HARMLESS.contains(&signal) {
            return None;
        }
        Some(match self.exit_code {
            Some(code) if signal != libc::SIGKILL => ExitStatus::Exited(code),
            _ => ExitStatus::Signaled(signal),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn read(annotations: &[(&str, &str)]) -> Result<Script> {
        let map: BTreeMap<String, String> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).to_owned())).collect();
        Script::read(&map)
    }

    #[test]
    fn annotations_script_the_program() {
        let script =
            read(&[("exitCode", "7"), ("duration", "200"), ("stdout", "hi\n"), ("fail", "start, kill")]).unwrap();
        assert_eq!((script.exit_code, script.duration), (Some(7), Some(Duration::from_millis(200))));
        assert_eq!(script.stdout, "hi\n");
        assert!(script.may("start").is_err() && script.may("kill").is_err() && script.may("create").is_ok());
        assert_eq!(script.end_by(libc::SIGTERM), Some(ExitStatus::Exited(7)));
        assert_eq!(script.end_by(libc::SIGKILL), Some(ExitStatus::Signaled(9)));
        assert_eq!(script.end_by(libc::SIGWINCH), None);
        assert_eq!(Script::default().end_by(libc::SIGTERM), Some(ExitStatus::Signaled(15)));
    }

    #[test]
    fn what_means_nothing_is_an_error_with_its_place() {
        for (name, value) in [("exitCode", "256"), ("duration", "-1"), ("fail", "dance"), ("exitcode", "1")] {
            let error = format!("{:#}", read(&[(name, value)]).unwrap_err());
            assert!(error.starts_with(&format!("/annotations/{PREFIX}{name}: ")), "{error}");
        }
    }
}
