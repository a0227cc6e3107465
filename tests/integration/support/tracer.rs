//! The system calls of a call and of the processes that it starts, as strace(1) writes them down.

use super::runtime::Invocation;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a tracer may take to write down what it has seen.
const LIMIT: Duration = Duration::from_secs(60);

/// Where traces go.
pub struct Tracer {
    directory: tempfile::TempDir,
}

impl Tracer {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("make a directory for traces") }
    }

    /// Traces a call, as `name`. The tracer is nobody's child, so that a created container does not keep the call from
    /// ending.
    pub fn trace(&self, name: &str, invocation: Invocation) -> Invocation {
        let prefix = self.directory.path().join(name).display().to_string();
        invocation.through(&["strace", "-D", "-ff", "-s", "0", "-o", &prefix])
    }

    /// The traces of the call's processes, when all have ended.
    pub fn traces(&self, name: &str) -> Vec<String> {
        let begin = Instant::now();
        loop {
            let texts: Vec<String> =
                self.files(name).iter().map(|path| std::fs::read_to_string(path).unwrap_or_default()).collect();
            let is_over = |text: &String| text.lines().last().is_some_and(|line| line.starts_with("+++"));
            if !texts.is_empty() && texts.iter().all(is_over) {
                return texts;
            }
            assert!(begin.elapsed() < LIMIT, "the traces of {name} do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn files(&self, name: &str) -> Vec<PathBuf> {
        let of_it = |path: &Path| path.file_stem().is_some_and(|stem| stem == name);
        let entries = std::fs::read_dir(self.directory.path()).expect("read the directory of the traces");
        entries.flatten().map(|entry| entry.path()).filter(|path| of_it(path)).collect()
    }
}

/// The call of a line.
pub fn name(line: &str) -> &str {
    line.split('(').next().unwrap_or_default()
}

/// What the call of a line returned; 0 for what is no number.
pub fn result(line: &str) -> i64 {
    let result = line.rsplit(" = ").next().unwrap_or_default();
    result.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}
