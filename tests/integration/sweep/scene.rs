//! A command that is disturbed once, what has to be there before, and what has to be true after.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::{Value, json};

use super::calls::{self, Place};
use super::kinds::Kind;
use crate::support::children::{is_alive, poll_until};
use crate::support::runtime::Invocation;
use crate::support::runtime::{next_number, read_lossy};
use crate::support::terminal::{FdSocket, Terminal};
use crate::support::{Bundle, Container, Output, Runtime, leftover, payload};

const LIMIT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Create,
    Start,
    Run,
    Exec,
    Kill,
    Delete,
    DeleteForce,
}

impl Verb {
    pub const ALL: [Verb; 7] =
        [Verb::Create, Verb::Start, Verb::Run, Verb::Exec, Verb::Kill, Verb::Delete, Verb::DeleteForce];

    pub fn name(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Start => "start",
            Verb::Run => "run",
            Verb::Exec => "exec",
            Verb::Kill => "kill",
            Verb::Delete => "delete",
            Verb::DeleteForce => "delete --force",
        }
    }
}

/// What is done to the command.
#[derive(Clone, Copy)]
pub enum Action {
    Nothing,
    Fail(i32),
    Kill,
}

impl Action {
    pub fn errno(self) -> Option<Errno> {
        match self {
            Action::Fail(errno) => Some(Errno::from_raw_os_error(errno)),
            Action::Nothing | Action::Kill => None,
        }
    }
}

/// The command under test and the place where it works.
pub struct Scene {
    pub runtime: Runtime,
    pub kind: Kind,
    pub verb: Verb,
    bundle: Bundle,
    /// What the program sees in a container that nobody disturbed.
    expected: Option<Value>,
}

/// Does `work` while somebody waits for the processes that a disturbed command handed to us, as a shell or a shim would:
/// a pid namespace does not end before.
pub fn reaping<T>(disturbed: &Disturbed, work: impl FnOnce() -> T) -> T {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                disturbed.pids().for_each(|pid| {
                    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                });
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// A command that was disturbed.
pub struct Disturbed {
    pub output: Output,
    pub report: String,
    /// Where the terminal has been sent to.
    console: Option<FdSocket>,
}

impl Disturbed {
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.report.lines().filter_map(|line| Pid::from_raw(line.strip_prefix("pid ")?.parse().ok()?))
    }

    pub fn was_hit(&self) -> bool {
        self.report.lines().any(|line| line == "hit")
    }
}

impl Scene {
    pub fn new(runtime: Runtime, kind: Kind, verb: Verb) -> Scene {
        let mut bundle = Bundle::new();
        kind.furnish(&mut bundle);
        let probe = bundle.spec["process"]["args"].clone();
        // Between the start and the end of what the probe prints; `run` ends with it, the others are looked at.
        let end = if verb == Verb::Run { "exit 7" } else { "exec sleep 600" };
        let script = if matches!(verb, Verb::Create | Verb::Start | Verb::Run) { "\"$@\"; echo END; " } else { "" };
        let mut args = vec![json!("/bin/sh"), json!("-c"), json!(format!("{script}{end}")), json!("sh")];
        args.extend(probe.as_array().expect("args").iter().cloned());
        bundle.spec["process"]["args"] = args.into();
        bundle.write();
        Scene { runtime, kind, verb, bundle, expected: None }
    }

    pub fn name(&self) -> String {
        match self.kind {
            Kind::Plain => self.verb.name().to_owned(),
            kind => format!("{} {}", kind.name(), self.verb.name()),
        }
    }

    fn is_supervised(&self) -> bool {
        self.kind == Kind::Supervised
    }

    /// Every call of an undisturbed command.
    pub fn places(&mut self) -> Vec<Place> {
        let container = Container::new(&self.runtime, &self.bundle);
        self.prepare(&container);
        let done = self.disturb(&container, None, Action::Nothing).expect("an undisturbed command ends");
        assert_eq!(done.output.code, self.success(), "{}", done.output.stderr);
        let seen = self.seen(&container, &done).expect("an undisturbed command does its work");
        self.remove(&container).expect("what was made undisturbed can be removed");
        drop(container);
        self.expected = seen;
        calls::places(&done.report, self.kind.roles(self.verb))
    }

    pub fn fresh(&self) -> Container<'_> {
        let container = Container::new(&self.runtime, &self.bundle);
        self.prepare(&container);
        container
    }

    fn prepare(&self, container: &Container<'_>) {
        let flags: &[&str] = if self.is_supervised() { &["--supervise"] } else { &[] };
        match self.verb {
            Verb::Create | Verb::Run => {}
            Verb::Start => drop(container.create_with(flags).ok()),
            Verb::Exec | Verb::Kill | Verb::DeleteForce | Verb::Delete => {
                let console = self.console(container);
                let mut flags = flags.to_vec();
                let socket = console.as_ref().map(FdSocket::path);
                flags.extend(socket.iter().flat_map(|path| ["--console-socket", path]));
                container.run_detached(&flags).ok();
            }
        }
        if self.verb == Verb::Delete {
            container.kill("KILL").ok();
            if self.is_supervised() {
                let wait = container.runtime.run(&["wait", "--timeout", "20s", &container.id]);
                assert_eq!(wait.code, 137, "{}", wait.stderr);
            } else {
                container.wait_exit();
            }
        }
    }

    fn console(&self, container: &Container<'_>) -> Option<FdSocket> {
        let name = format!("console-{}", next_number());
        (self.kind == Kind::Terminal).then(|| FdSocket::listen(container.runtime.scratch(), &name))
    }

    fn success(&self) -> i32 {
        if matches!(self.verb, Verb::Run | Verb::Exec) { 7 } else { 0 }
    }

    /// The whole life of a supervised container, with a restart.
    fn supervised_life(&self, container: &Container<'_>) -> Invocation {
        let wait = "\"$@\" || exit $?; for word do :; done; exec \"$1\" \"$2\" \"$3\" wait --timeout 60s \"$word\"";
        container
            .background("run", &["--detach", "--supervise", "--restart", "on-failure:1"])
            .through(&["/bin/sh", "-c", wait, "sh"])
    }

    /// Calls the command. An error where it hangs.
    pub fn disturb(
        &self,
        container: &Container<'_>,
        place: Option<&Place>,
        action: Action,
    ) -> Result<Disturbed, String> {
        let id = container.id.as_str();
        let is_life = self.is_supervised() && self.verb == Verb::Run;
        let console = if self.verb == Verb::Create { self.console(container) } else { None };
        let socket = console.as_ref().map(FdSocket::path);
        let mut flags: Vec<&str> = if self.is_supervised() { vec!["--supervise"] } else { Vec::new() };
        flags.extend(socket.iter().flat_map(|path| ["--console-socket", path]));
        let call = match self.verb {
            Verb::Create => container.background("create", &flags),
            Verb::Run if is_life => self.supervised_life(container),
            Verb::Run => container.background("run", &[]),
            Verb::Exec => container.exec_call(&[], &["/bin/sh", "-c", "/bin/probe; echo END; exit 7"]),
            Verb::Start => container.runtime.invoke(&["start", id]),
            Verb::Kill => container.runtime.invoke(&["kill", id, "KILL"]),
            Verb::Delete => container.runtime.invoke(&["delete", id]),
            Verb::DeleteForce => container.runtime.invoke(&["delete", "--force", id]),
        };
        let report = container.runtime.scratch().join(format!("report-{}", next_number()));
        let (role, number, when) = place.map_or(("0", 0, 0), |place| (&*place.role, place.call, place.when));
        let action = match action {
            Action::Nothing => "none".to_owned(),
            Action::Fail(errno) => errno.to_string(),
            Action::Kill => "kill".to_owned(),
        };
        let role = format!("{role}{}", if is_life { "+" } else { "" });
        let (path, own) = (report.display().to_string(), container.runtime.program.display().to_string());
        let words = [path, own, role, number.to_string(), when.to_string(), action];
        let program = payload::fault().display().to_string();
        let mut through = vec![program.as_str()];
        through.extend(words.iter().map(String::as_str));
        let output = call.through(&through).start().end_within(LIMIT);
        let text = take(report);
        let mut output = output?;
        if self.verb == Verb::Run && !is_life {
            output.stdout = container.stdout();
        }
        Ok(Disturbed { output, report: text, console })
    }

    /// What the program of a command that says to have succeeded sees; for the others, looks whether it is true.
    fn seen(&self, container: &Container<'_>, disturbed: &Disturbed) -> Result<Option<Value>, String> {
        match self.verb {
            Verb::Create => {
                if container.status() != "created" {
                    return Err(format!("after create the container is {:?}", container.status()));
                }
                let start = container.start();
                if start.code != 0 {
                    return Err(format!("what was created cannot be started: {}", start.stderr));
                }
                self.printed_inside(container, disturbed).map(Some)
            }
            Verb::Start => self.printed_inside(container, disturbed).map(Some),
            Verb::Run if self.is_supervised() => match self.printed_inside(container, disturbed) {
                // What could not be written is not there, and counted.
                Err(_) if container.state().is_some_and(|state| state.get("outputLost").is_some()) => Ok(None),
                other => other.map(Some),
            },
            Verb::Run | Verb::Exec => self.printed(container, || disturbed.output.stdout.clone()).map(Some),
            Verb::Kill => match poll_until(SOON, || (!is_alive(container.pid())).then_some(())) {
                Some(()) => Ok(None),
                None => Err("the container was not killed".to_owned()),
            },
            Verb::Delete | Verb::DeleteForce => match self.left(container) {
                left if left.is_empty() => Ok(None),
                left => Err(format!("delete left {left:?}")),
            },
        }
    }

    /// What the container's program prints, wherever that goes.
    fn printed_inside(&self, container: &Container<'_>, disturbed: &Disturbed) -> Result<Value, String> {
        let Some(console) = &disturbed.console else {
            return self.printed(container, || {
                if self.is_supervised() {
                    container.runtime.run(&["logs", &container.id]).stdout
                } else {
                    container.stdout()
                }
            });
        };
        let Some((master, _)) = console.receive() else { return Err("no terminal came".to_owned()) };
        let terminal = Terminal::of(master);
        self.printed(container, || terminal.text().replace('\r', ""))
    }

    fn printed(&self, container: &Container<'_>, text: impl Fn() -> String) -> Result<Value, String> {
        let whole = || text().split_once("END\n").map(|(json, _)| json.replace(&container.id, "ID"));
        let json = poll_until(SOON, whole).ok_or_else(|| format!("the program printed only {:?}", text()))?;
        let mut value: Value =
            serde_json::from_str(&json).map_err(|error| format!("the program printed {json:?}: {error}"))?;
        value["fds"] = json!(value["fds"].as_object().map(|fds| fds.keys().cloned().collect::<Vec<_>>()));
        Ok(value)
    }

    /// What is there of the container that should not be, after a while.
    pub fn left(&self, container: &Container<'_>) -> Vec<String> {
        let look = || leftover::of(&container.id, self.bundle.path(), &self.runtime.root());
        poll_until(SOON, || look().is_empty().then_some(())).map_or_else(look, |()| Vec::new())
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

    fn compare(&self, seen: Option<Value>, difference: Option<&str>) -> Result<(), String> {
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

fn take(path: PathBuf) -> String {
    let text = read_lossy(&path);
    let _ = std::fs::remove_file(path);
    text
}
