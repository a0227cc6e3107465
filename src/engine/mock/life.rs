//! How far a container without a process has come: a few times in its record, from which its status follows.

use super::script::Script;
use crate::engine::ExitStatus;
use crate::state::{Record, Status};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::time::{Duration, SystemTime};

/// All times since the epoch, in milliseconds. A pause moves the start, so that time stands still meanwhile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Life {
    started: Option<u64>,
    paused: Option<u64>,
    end: Option<End>,
}

/// An end that a signal brought, before the program's own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum End {
    ExitCode(i32),
    Signal(i32),
}

/// Milliseconds since the epoch.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Life {
    /// As the record has it.
    ///
    /// # Errors
    /// Where the record is damaged.
    pub fn of(record: &Record) -> Result<Self> {
        match &record.engine_state {
            Some(state) => serde_json::from_str(state.get())
                .with_context(|| format!("the state of container {:?} is damaged", record.id)),
            None => Ok(Self::default()),
        }
    }

    pub fn to_json(&self) -> Result<Box<RawValue>> {
        Ok(serde_json::value::to_raw_value(self)?)
    }

    pub fn start(&mut self, now: u64) {
        self.started = Some(now);
    }

    pub fn pause(&mut self, now: u64) {
        self.paused = Some(now);
    }

    pub fn resume(&mut self, now: u64) {
        if let Some(paused) = self.paused.take() {
            self.started = self.started.map(|started| started + now.saturating_sub(paused));
        }
    }

    pub fn end(&mut self, how: ExitStatus) {
        self.end = Some(match how {
            ExitStatus::Exited(code) => End::ExitCode(code),
            ExitStatus::Signaled(signal) => End::Signal(signal),
        });
    }

    /// How the program has ended, if it has.
    pub fn ended(&self, script: &Script, now: u64) -> Option<ExitStatus> {
        match self.end {
            Some(End::ExitCode(code)) => return Some(ExitStatus::Exited(code)),
            Some(End::Signal(signal)) => return Some(ExitStatus::Signaled(signal)),
            None => {}
        }
        let is_over = self.left(script, now) == Some(Duration::ZERO);
        is_over.then(|| ExitStatus::Exited(script.exit_code.unwrap_or(0)))
    }

    /// The time until the program ends by itself; `None` where it has not started, or never does.
    pub fn left(&self, script: &Script, now: u64) -> Option<Duration> {
        let elapsed = self.paused.unwrap_or(now).saturating_sub(self.started?);
        Some(script.duration?.saturating_sub(Duration::from_millis(elapsed)))
    }

    pub fn status(&self, script: &Script, now: u64) -> Status {
        if self.ended(script, now).is_some() {
            return Status::Stopped;
        }
        match (self.paused, self.started) {
            (Some(_), _) => Status::Paused,
            (None, Some(_)) => Status::Running,
            (None, None) => Status::Created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reachable_and_a_pause_stops_time() {
        let script = Script { duration: Some(Duration::from_millis(100)), exit_code: Some(7), ..Script::default() };
        let mut life = Life::default();
        assert_eq!(life.status(&script, 1000), Status::Created);
        life.start(1000);
        assert_eq!(life.status(&script, 1099), Status::Running);
        life.pause(1050);
        assert_eq!(life.status(&script, 9000), Status::Paused);
        life.resume(9000);
        assert_eq!(life.status(&script, 9049), Status::Running);
        assert_eq!(life.ended(&script, 9050), Some(ExitStatus::Exited(7)));
        assert_eq!(life.status(&script, 9050), Status::Stopped);
    }

    #[test]
    fn without_a_duration_only_a_signal_ends_it() {
        let script = Script::default();
        let mut life = Life::default();
        life.start(1);
        assert_eq!(life.status(&script, u64::MAX), Status::Running);
        life.end(ExitStatus::Signaled(15));
        assert_eq!(life.ended(&script, 2), Some(ExitStatus::Signaled(15)));
        let json = life.to_json().unwrap();
        assert_eq!(serde_json::from_str::<Life>(json.get()).unwrap(), life);
    }
}
