//! What is done with findings: errors refuse the bundle, all in one message, warnings are told.

use super::check::{Finding, Severity};
use std::fmt;

/// How many problems a message tells.
const MOST: usize = 100;

/// A configuration that cannot be run as it is.
#[derive(Debug)]
pub struct Invalid {
    /// As a message calls it.
    pub document: String,
    pub findings: Vec<Finding>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let document = &self.document;
        match self.findings.as_slice() {
            [finding] => write!(f, "{document}: {finding}"),
            findings => {
                write!(f, "{document} has {} problems:", findings.len())?;
                let mut told = findings.iter().take(MOST).enumerate();
                told.try_for_each(|(index, finding)| write!(f, " ({}) {finding}", index + 1))?;
                if findings.len() > MOST { write!(f, " and {} more", findings.len() - MOST) } else { Ok(()) }
            }
        }
    }
}

impl std::error::Error for Invalid {}

/// Refuses what has errors; returns the warnings of what has none.
///
/// # Errors
/// [`Invalid`] with every error.
pub fn refuse(document: &str, findings: Vec<Finding>) -> Result<Vec<String>, Invalid> {
    let (errors, others): (Vec<_>, Vec<_>) =
        findings.into_iter().partition(|finding| finding.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(Invalid { document: document.to_owned(), findings: errors });
    }
    let is_warning = |finding: &Finding| finding.severity == Severity::Warning;
    Ok(others.into_iter().filter(is_warning).map(|finding| finding.to_string()).collect())
}
