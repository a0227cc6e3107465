//! One container of one runtime, removed when it goes out of scope, with a check that nothing stayed.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use super::children::{poll_until, shell_code, wait_orphan};
use super::runtime::{Invocation, next_number, read_lossy};
use super::{Bundle, Output, Runtime, leftover};

/// How long a payload of a test may run.
const PAYLOAD_LIMIT: Duration = Duration::from_secs(20);

/// A container id and the runtime and bundle it belongs to.
pub struct Container<'a> {
    pub runtime: &'a Runtime,
    pub bundle: &'a Bundle,
    pub id: String,
    init: Cell<Option<i32>>,
    stdout: PathBuf,
}

impl<'a> Container<'a> {
    /// Writes the bundle's configuration and chooses an id; nothing is created yet.
    pub fn new(runtime: &'a Runtime, bundle: &'a Bundle) -> Container<'a> {
        bundle.write();
        let number = next_number();
        let id = format!("rtxtest-{}-{number}", std::process::id());
        Container {
            runtime,
            bundle,
            id,
            init: Cell::new(None),
            stdout: runtime.scratch().join(format!("stdout-{number}")),
        }
    }

    /// `create`, with the payload's stdout in a file of its own.
    pub fn create(&self) -> Output {
        self.create_with(&[])
    }

    /// `create` with more flags.
    pub fn create_with(&self, flags: &[&str]) -> Output {
        let output = self.background("create", flags).run();
        self.remember_init();
        output
    }

    /// A call of `create` or `run` with bundle and pid file, its stdout kept for `stdout()`.
    pub fn background(&self, verb: &str, flags: &[&str]) -> Invocation {
        let pid_file = self.pid_file().display().to_string();
        let bundle = self.bundle.path().display().to_string();
        let mut args = vec![verb, "--bundle", &bundle, "--pid-file", &pid_file];
        args.extend(flags);
        args.push(&self.id);
        let stdout =
            std::fs::File::options().create(true).append(true).open(&self.stdout).expect("make the stdout file");
        self.runtime.invoke(&args).stdout(stdout)
    }

    /// `run` in the foreground.
    pub fn run(&self, flags: &[&str]) -> Output {
        let mut output = self.background("run", flags).run();
        output.stdout = self.stdout();
        self.remember_init();
        output
    }

    /// `run --detach`.
    pub fn run_detached(&self, flags: &[&str]) -> Output {
        let output = self.background("run", &[&["--detach"], flags].concat()).run();
        self.remember_init();
        output
    }

    pub fn start(&self) -> Output {
        self.runtime.run(&["start", &self.id])
    }

    /// `exec` with `flags` before the id and `words` after it.
    pub fn exec(&self, flags: &[&str], words: &[&str]) -> Output {
        self.exec_call(flags, words).run()
    }

    /// Prepares an `exec`.
    pub fn exec_call(&self, flags: &[&str], words: &[&str]) -> Invocation {
        self.runtime.invoke(&[&["exec"], flags, &[&*self.id], words].concat())
    }

    /// `state`, parsed; None when the runtime does not know the container.
    pub fn state(&self) -> Option<Value> {
        let output = self.runtime.run(&["state", &self.id]);
        (output.code == 0).then(|| serde_json::from_str(&output.stdout).expect("state prints JSON"))
    }

    /// The status that `state` reports, or "" for an unknown container.
    pub fn status(&self) -> String {
        self.state().and_then(|s| s["status"].as_str().map(str::to_owned)).unwrap_or_default()
    }

    pub fn kill(&self, signal: &str) -> Output {
        self.runtime.run(&["kill", &self.id, signal])
    }

    pub fn delete(&self, flags: &[&str]) -> Output {
        self.runtime.run(&[&["delete"], flags, &[&*self.id]].concat())
    }

    pub fn pid_file(&self) -> PathBuf {
        self.stdout.with_extension("pid")
    }

    /// The pid of the container's init, from the pid file.
    pub fn pid(&self) -> i32 {
        self.remember_init();
        self.init.get().expect("a pid file with a pid")
    }

    /// Of an id that is used again the earlier init is waited for: unburied it would keep its pid, and its keyring, of which an
    /// ordinary user may have two hundred.
    fn remember_init(&self) {
        let Ok(pid) = read_lossy(&self.pid_file()).trim().parse() else { return };
        if let Some(earlier) = self.init.replace(Some(pid)).filter(|earlier| *earlier != pid) {
            let _ = wait_orphan(earlier, Duration::from_secs(2));
        }
    }

    /// Waits for the payload, which became this process's child, and gives its exit code as a shell would.
    pub fn wait_exit(&self) -> Option<i32> {
        wait_orphan(self.init.get()?, PAYLOAD_LIMIT).map(shell_code)
    }

    /// What the payload of `create` or `run` has printed by now.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// Waits until the payload has printed `text`.
    #[track_caller]
    pub fn wait_stdout(&self, text: &str) {
        let seen = poll_until(PAYLOAD_LIMIT, || self.stdout().contains(text).then_some(()));
        assert!(seen.is_some(), "{text:?} was never printed, only {:?}", self.stdout());
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        let _ = self.runtime.run(&["delete", "--force", &self.id]);
        if let Some(pid) = self.init.get() {
            let _ = wait_orphan(pid, Duration::from_secs(2));
        }
        let clean = || Some(leftover::of(&self.id, self.bundle.path(), &self.runtime.root())).filter(Vec::is_empty);
        if poll_until(Duration::from_secs(2), clean).is_none() {
            let found = leftover::of(&self.id, self.bundle.path(), &self.runtime.root());
            if std::thread::panicking() {
                eprintln!("left behind: {found:#?}");
            } else {
                panic!("left behind: {found:#?}");
            }
        }
    }
}
