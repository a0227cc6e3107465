//! A command that is disturbed once, what has to be there before, and what has to be true after.

use std::os::fd::OwnedFd;
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
use crate::support::{Bundle, Container, Output, Runtime, payload};

const LIMIT: Duration = Duration::from_secs(30);
pub(super) const SOON: Duration = Duration::from_secs(5);

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
    pub(super) bundle: Bundle,
    /// What the program sees in a container that nobody disturbed.
    pub(super) expected: Option<Value>,
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

    pub(super) fn is_supervised(&self) -> bool {
        self.kind == Kind::Supervised
    }

    /// Every call of an undisturbed command.
    pub fn places(&mut self) -> Vec<Place> {
        let report = self.rehearse();
        calls::places(&report, self.kind.roles(self.verb))
    }

    /// The report of an undisturbed command, whose program sees what all others are to see.
    pub fn rehearse(&mut self) -> String {
        let container = Container::new(&self.runtime, &self.bundle);
        let _terminal = self.prepare(&container);
        let done = self.disturb(&container, None, Action::Nothing).expect("an undisturbed command ends");
        assert_eq!(done.output.code, self.success(), "{}", done.output.stderr);
        let seen = self.seen(&container, &done).expect("an undisturbed command does its work");
        reaping(&done, || self.remove(&container)).expect("what was made undisturbed can be removed");
        drop(container);
        self.expected = seen;
        done.report
    }

    /// A container as it is before the command, with its terminal where it has one by then.
    pub fn fresh(&self) -> (Container<'_>, Option<OwnedFd>) {
        let container = Container::new(&self.runtime, &self.bundle);
        let terminal = self.prepare(&container);
        (container, terminal)
    }

    fn prepare(&self, container: &Container<'_>) -> Option<OwnedFd> {
        // With the program in the cache a command does less: each compiles it, keeps it, and reads it again.
        let _ = std::fs::remove_dir_all(self.runtime.root().join("seccomp@cache"));
        let flags: &[&str] = if self.is_supervised() { &["--supervise"] } else { &[] };
        let mut console = None;
        match self.verb {
            Verb::Create | Verb::Run => {}
            Verb::Start => drop(container.create_with(flags).ok()),
            Verb::Exec | Verb::Kill | Verb::DeleteForce | Verb::Delete => {
                console = self.console(container);
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
        // Where nobody holds it the container's mounts tell of it, or not yet.
        console.map(|console| console.receive().expect("the terminal").0)
    }

    pub(super) fn console(&self, container: &Container<'_>) -> Option<FdSocket> {
        let name = format!("console-{}", next_number());
        (self.kind == Kind::Terminal).then(|| FdSocket::listen(container.runtime.scratch(), &name))
    }

    pub fn success(&self) -> i32 {
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
    pub fn seen(&self, container: &Container<'_>, disturbed: &Disturbed) -> Result<Option<Value>, String> {
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
}

fn take(path: PathBuf) -> String {
    let text = read_lossy(&path);
    let _ = std::fs::remove_file(path);
    text
}
