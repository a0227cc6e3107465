//! What is true of a container and of the words of a command that was disturbed, and whether that is as it should be.

use serde_json::Value;

use super::scene::{Disturbed, SOON, Scene, Verb};
use crate::support::children::poll_until;
use crate::support::terminal::FdSocket;
use crate::support::{Container, Output, leftover};

impl Scene {
    /// What is there of the container that should not be, after a while.
    pub fn left(&self, container: &Container<'_>) -> Vec<String> {
        poll_until(SOON, || self.is_clean(container).then_some(()))
            .map_or_else(|| self.there_is(container), |()| Vec::new())
    }

    pub fn is_clean(&self, container: &Container<'_>) -> bool {
        self.there_is(container).is_empty()
    }

    fn there_is(&self, container: &Container<'_>) -> Vec<String> {
        leftover::of(&container.id, self.bundle.path(), &self.runtime.root())
    }

    /// After a fault: what is wrong, if anything. `excused` is the role that may have ended without a word.
    pub fn judge(
        &self,
        container: &Container<'_>,
        disturbed: &Disturbed,
        excused: Option<&str>,
        difference: Option<&str>,
    ) -> Result<(), String> {
        let output = &disturbed.output;
        if output.code == self.success() {
            let seen = match self.seen(container, disturbed) {
                Err(_) if difference == Some("output") => None,
                other => other?,
            };
            return self.compare(seen, difference).map_err(|what| format!("{what}; it said {:?}", output.stderr));
        }
        if excused.is_none() {
            self.judge_message(container, output)?;
        }
        match self.verb {
            // The removal itself, of a container that has ended, may be what failed; it can be repeated.
            Verb::Run if output.stderr.contains(": remove the container after its end: ") => Ok(()),
            // It was made, and has lost its smaster since.
            Verb::Run if self.is_supervised() && output.stderr.contains("rtx wait ") => Ok(()),
            Verb::Create | Verb::Run if excused != Some("0") => match self.left(container) {
                left if left.is_empty() => Ok(()),
                left => Err(format!("it failed ({}) and left {left:?}", output.stderr.trim())),
            },
            Verb::Exec if excused != Some("0") => {
                let count = || leftover::processes(&container.id).len();
                match poll_until(SOON, || (count() == 1).then_some(())) {
                    Some(()) => Ok(()),
                    None => Err(format!(
                        "it failed ({}) and left {:?}",
                        output.stderr.trim(),
                        leftover::processes(&container.id)
                    )),
                }
            }
            _ => Ok(()),
        }?;
        self.remove(container)
    }

    pub fn compare(&self, seen: Option<Value>, difference: Option<&str>) -> Result<(), String> {
        let (Some(seen), Some(expected)) = (seen, &self.expected) else { return Ok(()) };
        let (Some(seen), Some(expected)) = (seen.as_object(), expected.as_object()) else { return Ok(()) };
        let other = |key: &&String| Some(key.as_str()) != difference && seen.get(*key) != expected.get(*key);
        match expected.keys().find(other) {
            None => Ok(()),
            Some(key) => Err(format!(
                "it succeeded, but {key} is {} and not {}",
                seen.get(key).unwrap_or(&Value::Null),
                expected[key]
            )),
        }
    }

    /// An error names what was done, to what, and why it failed, in one line.
    fn judge_message(&self, container: &Container<'_>, output: &Output) -> Result<(), String> {
        let text = output.stderr.trim();
        let verb = self.verb.name().split(' ').next().unwrap_or_default();
        let expected = if self.verb == Verb::Run { 1..=1 } else { 1..=255 };
        let last = text.lines().last().unwrap_or_default();
        let by = |verb: &str| last.strip_prefix(&format!("rtx {verb} {}: ", container.id));
        let waited = || if self.is_supervised() { by("wait") } else { None };
        let told = by(verb).or_else(waited).or_else(|| last.strip_prefix("rtx: "));
        // More than the kernel's reason.
        let names = told.is_some_and(|told| told.contains(": ") || told.split(' ').count() > 5);
        if !names
            || text.contains("panicked")
            || !expected.contains(&output.code)
            || output.code >= 128 && output.code != 255
        {
            return Err(format!("exit code {}, stdout {:?}, stderr {text:?}", output.code, output.stdout));
        }
        Ok(())
    }

    /// Removes the container as an operator would, who may not know how far it came.
    pub fn remove(&self, container: &Container<'_>) -> Result<(), String> {
        let delete = container.delete(&["--force"]);
        if delete.code != 0 {
            return Err(format!("delete --force fails: {}", delete.stderr));
        }
        match self.left(container) {
            left if left.is_empty() => Ok(()),
            left => Err(format!("delete --force leaves {left:?}")),
        }
    }

    /// Whether the id of a container that is gone can be used again.
    pub fn reuse(&self, container: &Container<'_>) -> Result<(), String> {
        let listed = self.runtime.run(&["list", "--quiet"]);
        if listed.code != 0 || listed.stdout.contains(&container.id) {
            return Err(format!("list shows {:?} after the removal: {}", listed.stdout, listed.stderr));
        }
        let console = self.console(container);
        let path = console.as_ref().map(FdSocket::path);
        let flags: Vec<&str> = path.iter().flat_map(|path| ["--console-socket", path]).collect();
        let create = container.create_with(&flags);
        if create.code != 0 {
            return Err(format!("the id cannot be used again: {}", create.stderr));
        }
        self.remove(container)
    }
}
