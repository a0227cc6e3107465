//! Lives of containers with random commands, of which many are disturbed or meet another: whatever happens, `delete --force`
//! leaves nothing.
//!
//! `RTX_TEST_SOAK` is the number of lives, `RTX_TEST_SEED` the seed, which is printed; with `RTX_TEST_SOAK_FIRST` the lives
//! begin at that number, so that one of them can be repeated.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::json;

use super::calls::{self, Place};
use super::kinds::Kind as Sweep;
use super::scene::{Action, Scene, Verb};
use crate::support::chance::Chance;
use crate::support::children::poll_until;
use crate::support::runtime::Running;
use crate::support::{Bundle, Container, Output, Runtime, leftover, own_engine, report_total, skip};

/// In `make test`.
const LIVES: usize = 40;
const WORKERS: usize = 2;
const LIMIT: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);

/// A name, and what makes it of the default container.
type Kind = (&'static str, fn(&mut Bundle));

const KINDS: [Kind; 6] = [
    ("plain", |_| {}),
    ("short", |bundle| {
        bundle.shell_payload("sleep 0.05; exit 7");
    }),
    ("shared pids", |bundle| {
        bundle.without_namespace("pid");
    }),
    ("hooks", |bundle| {
        let hook = json!([{ "path": "/bin/sh", "args": ["sh", "-c", "sleep 0.01"] }]);
        let kinds = ["prestart", "createRuntime", "poststart", "poststop"];
        bundle.set("/hooks", kinds.into_iter().map(|kind| (kind.to_owned(), hook.clone())).collect());
    }),
    ("seccomp", |bundle| {
        let rule = json!([{ "names": ["getcwd"], "action": "SCMP_ACT_ERRNO" }]);
        bundle.set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule }));
    }),
    ("nested cgroup", |bundle| {
        let path = format!("/{}/a/b", bundle.name());
        bundle.set("/linux/cgroupsPath", path.into());
    }),
];

/// What one worker has.
struct Stage {
    runtime: Runtime,
    bundles: Vec<Bundle>,
}

impl Stage {
    fn new() -> Stage {
        let bundle = |(_, change): &Kind| {
            let mut bundle = Bundle::shell("exec sleep 600");
            change(&mut bundle);
            bundle
        };
        Stage { runtime: Runtime::under_test(), bundles: KINDS.iter().map(bundle).collect() }
    }
}

/// The commands that can be disturbed, and their calls.
struct Places {
    scenes: Vec<(Scene, Vec<Place>)>,
}

/// The others, with the words after them.
const WORDS: [(&str, &[&str]); 9] = [
    ("state", &[]),
    ("pause", &[]),
    ("resume", &[]),
    ("ps", &["--format", "json"]),
    ("events", &["--stats"]),
    ("update", &["--pids-limit", "77"]),
    ("kill", &["--all"]),
    ("list", &[]),
    ("gc", &[]),
];

/// What has been done to one container, for the reader of a failure.
struct Life<'a> {
    container: Container<'a>,
    story: Vec<String>,
    /// Processes that come to us when their parents are killed.
    orphans: &'a Mutex<Vec<Pid>>,
}

impl Life<'_> {
    fn undisturbed(&mut self, dice: &mut Chance) -> Running {
        let (verb, flags) = *dice.pick(&WORDS);
        self.story.push(verb.to_owned());
        let mut words = vec![verb];
        words.extend(flags);
        if !matches!(verb, "list" | "gc") {
            words.push(&self.container.id);
        }
        self.container.runtime.invoke(&words).start()
    }

    /// A command that may fail at one call, or be killed there.
    fn disturbed(&mut self, places: &Places, dice: &mut Chance) -> Result<(), String> {
        let (scene, calls) = dice.pick(&places.scenes);
        // In the foreground it ends only where its program does.
        let verb = scene.verb;
        if verb == Verb::Run && !self.container.bundle.spec["process"]["args"].to_string().contains("exit 7") {
            return Ok(());
        }
        let place = dice.pick(calls);
        let errors = calls::errors(place);
        let action = match dice.below(4) {
            0 | 1 => Action::Nothing,
            2 if !errors.is_empty() => Action::Fail(dice.pick(errors).raw_os_error()),
            _ => Action::Kill,
        };
        let name = match action {
            Action::Nothing => verb.name().to_owned(),
            Action::Fail(_) => format!("{} ({place}: {:?})", verb.name(), action.errno()),
            Action::Kill => format!("{} (killed at {place})", verb.name()),
        };
        self.story.push(name);
        let undisturbed = matches!(action, Action::Nothing);
        let disturbed = scene.disturb(&self.container, (!undisturbed).then_some(place), action)?;
        self.orphans.lock().expect("the orphans").extend(disturbed.pids());
        // Of the message itself nothing can be told.
        let is_message = place.name() == "write" && !undisturbed && disturbed.output.stderr.is_empty();
        let is_excused = matches!(action, Action::Kill) || calls::excuse(place, disturbed.output.code).is_some();
        let is_excused = is_excused || is_message;
        if is_excused { Ok(()) } else { self.judge(&disturbed.output) }
    }

    /// What fails says why.
    fn judge(&mut self, output: &Output) -> Result<(), String> {
        if let Some(last) = self.story.last_mut() {
            last.push_str(&format!(" -> {}", output.code));
        }
        let text = output.stderr.trim();
        let is_program = matches!(output.code, 0 | 7 | 137 | 143);
        let is_told = text.lines().last().is_some_and(|line| line.starts_with("rtx "));
        if text.contains("panicked") || !is_program && !is_told {
            return Err(format!("exit code {}, stderr {text:?}", output.code));
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let runtime = self.container.runtime;
        let (id, bundle) = (&self.container.id, self.container.bundle);
        let look = || leftover::of(id, bundle.path(), &runtime.root());
        let delete = self.container.delete(&["--force"]);
        if delete.code != 0 {
            return Err(format!("delete --force fails: {}", delete.stderr));
        }
        if poll_until(SOON, || look().is_empty().then_some(())).is_none() {
            return Err(format!("left: {:?}", look()));
        }
        for words in [["list", "--quiet"], ["gc", "--dry-run"]] {
            let output = runtime.run(&words);
            if output.code != 0 || !output.stdout.is_empty() || !output.stderr.is_empty() {
                return Err(format!("{} says {:?} {:?}", words[0], output.stdout, output.stderr));
            }
        }
        Ok(())
    }

    fn live(&mut self, places: &Places, dice: &mut Chance) -> Result<(), String> {
        for _ in 0..2 + dice.below(7) {
            // Beside the next one.
            let other = dice.one_in(4).then(|| self.undisturbed(dice));
            let result = if dice.one_in(3) {
                let output = self.undisturbed(dice).end_within(LIMIT)?;
                self.judge(&output)
            } else {
                self.disturbed(places, dice)
            };
            if let Some(other) = other {
                self.judge(&other.end_within(LIMIT)?)?;
            }
            result?;
        }
        Ok(())
    }
}

fn life(stage: &Stage, places: &Places, seed: u64, number: usize) -> Result<usize, String> {
    let mut dice = Chance::from_seed(seed ^ (number as u64).wrapping_mul(0x2545_f491_4f6c_dd1d));
    let kind = dice.below(KINDS.len());
    let container = Container::new(&stage.runtime, &stage.bundles[kind]);
    let orphans = Mutex::default();
    let mut life = Life { container, story: vec![KINDS[kind].0.to_owned()], orphans: &orphans };
    let done = AtomicBool::new(false);
    let result = std::thread::scope(|scope| {
        // As a shell or a shim would: a pid namespace does not end before.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                orphans
                    .lock()
                    .expect("the orphans")
                    .retain(|pid| !matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_))));
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let result = catch_unwind(AssertUnwindSafe(|| life.live(places, &mut dice).and(life.end())));
        done.store(true, Ordering::Relaxed);
        result
    });
    let what = match result {
        Ok(Ok(())) => return Ok(life.story.len() - 1),
        Ok(Err(what)) => what,
        Err(panic) => panic.downcast_ref::<String>().cloned().unwrap_or_default(),
    };
    let what = format!("life {number}: {what}\n  its story: {}", life.story.join("; "));
    // What is left makes the end of the container panic, which would be all that is told.
    eprintln!("{what}");
    Err(what)
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn lives_with_random_commands_leave_nothing() {
    let runtime = own_engine!();
    if !cfg!(target_arch = "x86_64") {
        skip!("the program that disturbs others knows only the registers of x86_64");
    }
    drop(runtime);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let seed = number_of("RTX_TEST_SEED").unwrap_or(now);
    let lives = number_of("RTX_TEST_SOAK").map_or(LIVES, |lives| lives as usize);
    let first = number_of("RTX_TEST_SOAK_FIRST").map_or(0, |first| first as usize);
    let _ = writeln!(std::io::stderr(), "SOAK {lives} lives from {first}, RTX_TEST_SEED={seed}");
    let plain = Verb::ALL.map(|verb| (Sweep::Plain, verb));
    let supervised = [Verb::Create, Verb::Run, Verb::Delete].map(|verb| (Sweep::Supervised, verb));
    let scenes = plain.into_iter().chain(supervised).map(|(kind, verb)| {
        let mut scene = Scene::new(Runtime::under_test(), kind, verb);
        let places = scene.places();
        (scene, places)
    });
    let places = &Places { scenes: scenes.collect() };
    let next = AtomicUsize::new(first);
    let (commands, wrong) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let stage = Stage::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + lives {
                        return;
                    }
                    match life(&stage, places, seed, number) {
                        Ok(count) => drop(commands.fetch_add(count, Ordering::Relaxed)),
                        Err(what) => drop(wrong.lock().expect("the failures").insert(number, what)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().expect("the failures");
    let commands = commands.into_inner();
    report_total(&format!("SOAK {lives} lives, {commands} commands, {} wrong, RTX_TEST_SEED={seed}", wrong.len()));
    let told: Vec<String> = wrong.into_values().collect();
    assert!(told.is_empty(), "RTX_TEST_SEED={seed}: {} went wrong:\n{}", told.len(), told.join("\n"));
}
