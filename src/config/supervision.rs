//! How a supervised container is supervised: restarts, what is kept of its output, and its health checks. From flags, the
//! configuration file and annotations.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr;

/// What the program's end leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    /// After a failure; at most so many times in a row.
    OnFailure(Option<u32>),
    Always,
}

impl FromStr for RestartPolicy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.parse().ok().filter(|count| *count > 0);
        match text.split_once(':') {
            None if text == "no" => Ok(Self::No),
            None if text == "always" => Ok(Self::Always),
            None if text == "on-failure" => Ok(Self::OnFailure(None)),
            Some(("on-failure", count)) if number(count).is_some() => Ok(Self::OnFailure(number(count))),
            _ => Err(format!("'{text}' is none of no, on-failure, on-failure:N and always")),
        }
    }
}

/// How long the restarts wait, in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backoff {
    /// Before the second restart in a row; the first does not wait.
    pub delay: u64,
    pub factor: f64,
    /// How far a delay may be from what was computed, as a part of it.
    pub jitter: f64,
    pub max_delay: u64,
    /// A container that was up so long begins anew.
    pub reset_after: u64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { delay: 500, factor: 1.5, jitter: 0.5, max_delay: 60_000, reset_after: 10_000 }
    }
}

impl Backoff {
    /// # Errors
    /// A value that makes no sense.
    pub fn check(&self) -> Result<()> {
        if !(1.0..=100.0).contains(&self.factor) {
            bail!("supervision.backoff.factor must be between 1 and 100, not {}", self.factor);
        }
        if !(0.0..=1.0).contains(&self.jitter) {
            bail!("supervision.backoff.jitter must be between 0 and 1, not {}", self.jitter);
        }
        Ok(())
    }

    /// Milliseconds before the restart that follows `in_a_row` others. `chance` is between 0 and 1.
    pub fn delay(&self, in_a_row: u32, chance: f64) -> u64 {
        let Some(exponent) = in_a_row.checked_sub(1) else { return 0 };
        let exponent = i32::try_from(exponent).unwrap_or(i32::MAX);
        let delay = (self.delay as f64 * self.factor.powi(exponent)).min(self.max_delay as f64);
        let jittered = delay * (1.0 + self.jitter * (2.0 * chance - 1.0));
        jittered.clamp(0.0, self.max_delay as f64) as u64
    }
}

/// How the program's output is written down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputFormat {
    /// `TIME STREAM F|P TEXT`, as Kubernetes and podman read it.
    #[default]
    K8sFile,
    /// An object a line, as Docker's json-file has it.
    JsonLines,
    /// The bytes as they are; standard error in a file of its own.
    Plain,
    /// Not at all.
    None,
}

impl FromStr for OutputFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "k8s-file" => Ok(Self::K8sFile),
            "json-lines" => Ok(Self::JsonLines),
            "plain" => Ok(Self::Plain),
            "none" => Ok(Self::None),
            _ => Err(format!("'{text}' is none of k8s-file, json-lines, plain and none")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct OutputSettings {
    pub format: OutputFormat,
    /// Absolute.
    pub file: PathBuf,
    /// Bytes, after which a new file begins.
    pub max_size: u64,
    /// How many there are, the newest included.
    pub max_files: u32,
}

impl Default for OutputSettings {
    fn default() -> Self {
        Self { format: OutputFormat::default(), file: PathBuf::new(), max_size: 16 << 20, max_files: 4 }
    }
}

/// The annotation that holds a health check, as a JSON object.
pub const HEALTH_ANNOTATION: &str = "org.rtx.health";

/// Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthCheck {
    /// The program and its arguments. Exit code 0 is healthy.
    pub exec: Vec<String>,
    #[serde(default = "half_a_minute")]
    pub interval: f64,
    #[serde(default = "half_a_minute")]
    pub timeout: f64,
    /// How many failures in a row make it unhealthy.
    #[serde(default = "three")]
    pub retries: u32,
    /// Failures so soon after the start do not count.
    #[serde(default)]
    pub start_period: f64,
}

fn half_a_minute() -> f64 {
    30.0
}

fn three() -> u32 {
    3
}

impl HealthCheck {
    /// The one that a bundle's annotations ask for.
    ///
    /// # Errors
    /// Where it is not understood.
    pub fn read(annotations: Option<&HashMap<String, String>>) -> Result<Option<Self>> {
        let Some(text) = annotations.and_then(|annotations| annotations.get(HEALTH_ANNOTATION)) else {
            return Ok(None);
        };
        Self::parse(text).with_context(|| format!("/annotations/{HEALTH_ANNOTATION}")).map(Some)
    }

    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Result<Self> {
        let check: Self = serde_json::from_str(text).context("not a health check")?;
        if check.exec.is_empty() {
            bail!("exec must name a program");
        }
        let day = 86_400.0;
        for (name, value, least) in [
            ("interval", check.interval, 0.01),
            ("timeout", check.timeout, 0.01),
            ("startPeriod", check.start_period, 0.0),
        ] {
            if !(least..=day).contains(&value) {
                bail!("{name} must be between {least} and {day} seconds, not {value}");
            }
        }
        Ok(check)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read() {
        assert_eq!("no".parse(), Ok(RestartPolicy::No));
        assert_eq!("on-failure:3".parse(), Ok(RestartPolicy::OnFailure(Some(3))));
        for wrong in ["", "yes", "on-failure:", "on-failure:0", "on-failure:x", "always:1"] {
            assert!(wrong.parse::<RestartPolicy>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn delays_grow_to_their_limit_and_no_further() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, 0.9), 0);
        assert_eq!(backoff.delay(1, 0.5), 500);
        assert_eq!(backoff.delay(2, 0.5), 750);
        assert_eq!((backoff.delay(1, 0.0), backoff.delay(1, 1.0)), (250, 750));
        assert_eq!(backoff.delay(40, 0.5), 60_000);
        assert_eq!(backoff.delay(u32::MAX, 1.0), 60_000);
        assert!(backoff.check().is_ok() && Backoff { factor: 0.5, ..backoff }.check().is_err());
    }

    #[test]
    fn an_annotation_is_read_strictly() {
        let read =
            |text: &str| HealthCheck::read(Some(&HashMap::from([(HEALTH_ANNOTATION.to_owned(), text.to_owned())])));
        let check = read(r#"{"exec":["true"],"interval":0.5,"retries":2}"#).unwrap().unwrap();
        assert_eq!((check.interval, check.timeout, check.retries), (0.5, 30.0, 2));
        for wrong in ["{}", r#"{"exec":[]}"#, r#"{"exec":["a"],"interval":0}"#, r#"{"exec":["a"],"every":1}"#, "x"] {
            let error = format!("{:#}", read(wrong).unwrap_err());
            assert!(error.contains("/annotations/org.rtx.health"), "{error}");
        }
        assert!(HealthCheck::read(None).unwrap().is_none());
    }
}
