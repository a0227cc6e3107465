//! One system call after another of each command fails, or the command is killed at it. Whatever was asked for has happened
//! then, or an error says what did not, and nothing is left that `delete --force` does not remove.
//!
//! A sample, always the same, is tried; `RTX_TEST_SWEEP=all` tries all, and a number so many of each. What came of each is in sweep-*.log, in cargo's
//! directory for test artefacts.

mod alike;
mod calls;
mod kinds;
mod scene;
mod soak;
mod verdict;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{own_engine, report_total, skip};
use calls::Place;
use kinds::Kind;
use scene::{Action, Scene, Verb, reaping};

/// How many tries of each command are in the sample.
const SAMPLE: usize = 20;
const WORKERS: usize = 2;

type Try = (Place, Action);

#[derive(Default)]
struct Totals {
    tried: usize,
    /// The others came to their end by another way than the undisturbed command.
    hit: usize,
    succeeded: usize,
    excused: usize,
    log: String,
    wrong: Vec<String>,
}

/// One of them: what was tried, in words.
fn attempt(scene: &Scene, (place, action): &Try, totals: &Mutex<Totals>) {
    let errno = action.errno();
    let kind = errno.map_or_else(|| "killed".to_owned(), |errno| format!("{errno:?}"));
    let name = format!("{}: {place}: {kind}", scene.name());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let (container, _terminal) = scene.fresh();
        let disturbed = scene.disturb(&container, Some(place), *action);
        let mut excuse = None;
        let result = match (&disturbed, action) {
            (Err(hung), _) => scene.remove(&container).and(Err(hung.clone())),
            (Ok(disturbed), Action::Kill) => {
                reaping(disturbed, || scene.remove(&container)).and_then(|()| scene.reuse(&container))
            }
            (Ok(disturbed), _) => reaping(disturbed, || {
                excuse = calls::excuse(place, disturbed.output.code);
                let result =
                    scene.judge(&container, disturbed, excuse.map(|_| &*place.role), calls::difference(place, errno));
                scene.remove(&container).and(result)
            }),
        };
        (disturbed, result, excuse.is_some())
    }));
    let mut totals = totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    totals.tried += 1;
    match outcome {
        Ok((disturbed, result, excused)) => {
            if let Ok(disturbed) = &disturbed {
                let (code, text) = (disturbed.output.code, disturbed.output.stderr.trim());
                let met = if disturbed.was_hit() { "" } else { " not met" };
                let _ = writeln!(totals.log, "{name}{met}: {code} {text}");
                totals.hit += usize::from(disturbed.was_hit());
                totals.succeeded += usize::from(code == 0 || code == 7);
                totals.excused += usize::from(excused);
            }
            if let Err(what) = result {
                totals.wrong.push(format!("{name}: {what}"));
            }
        }
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            totals.wrong.push(format!("{name}: {text}"));
        }
    }
}

/// Every so many of the tries, so that the sample is spread over the whole command, and what has gone wrong before.
fn sample(tries: Vec<Try>, is_known: impl Fn(&Try) -> bool) -> Vec<Try> {
    let wanted = std::env::var("RTX_TEST_SWEEP").unwrap_or_default();
    let (count, total) = (wanted.parse().unwrap_or(SAMPLE), tries.len());
    if wanted == "all" || total <= count {
        return tries;
    }
    let spread: HashSet<usize> = (0..count).map(|index| index * total / count).collect();
    let is_chosen = |(index, one): &(usize, Try)| spread.contains(index) || is_known(one);
    tries.into_iter().enumerate().filter(is_chosen).map(|(_, one)| one).collect()
}

fn sweep(what: &str, tries_at: impl Fn(&Place) -> Vec<Action>) {
    let runtime = own_engine!();
    if !cfg!(target_arch = "x86_64") {
        skip!("the program that disturbs others knows only the registers of x86_64");
    }
    drop(runtime);
    let mut wrong = Vec::new();
    for (kind, verb) in chosen() {
        let totals = Mutex::new(Totals::default());
        let mut scenes: Vec<Scene> =
            (0..WORKERS).map(|_| Scene::new(crate::support::Runtime::under_test(), kind, verb)).collect();
        let places = scenes.iter_mut().map(Scene::places).next_back().unwrap_or_default();
        let calls = places.len();
        let tries = places.into_iter().flat_map(|place| {
            let actions = tries_at(&place);
            actions.into_iter().map(move |action| (place.clone(), action))
        });
        let only = std::env::var("RTX_TEST_SWEEP_PLACE").unwrap_or_default();
        let tries =
            sample(tries.filter(|(place, _)| place.to_string().contains(&only)).collect(), |(place, action)| {
                kind == Kind::Plain && calls::is_known(place, action.errno(), verb == Verb::Exec)
            });
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for scene in &scenes {
                scope.spawn(|| {
                    while let Some(one) = tries.get(next.fetch_add(1, Ordering::Relaxed)) {
                        attempt(scene, one, &totals);
                    }
                });
            }
        });
        let totals = totals.into_inner().expect("the totals");
        let name = scenes[0].name();
        report_total(&format!(
            "SWEEP {what} {name}: {calls} calls, {} tried, {} hit, {} succeeded all the same, {} excused, {} wrong",
            totals.tried,
            totals.hit,
            totals.succeeded,
            totals.excused,
            totals.wrong.len()
        ));
        let file = format!("sweep-{what}-{}.log", name.replace(" --", "-").replace(' ', "-"));
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file), totals.log).expect("write the log");
        wrong.extend(totals.wrong);
    }
    assert!(wrong.is_empty(), "{} went wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn is_chosen(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |chosen| chosen == name)
}

/// RTX_TEST_SWEEP_KIND and RTX_TEST_SWEEP_VERB choose some, and RTX_TEST_SWEEP_PLACE what is swept of them: `sendmsg #1 of`.
fn chosen() -> Vec<(Kind, Verb)> {
    let kinds = Kind::ALL.into_iter().filter(|kind| is_chosen("RTX_TEST_SWEEP_KIND", kind.name()));
    let all = kinds.flat_map(|kind| kind.verbs().iter().map(move |verb| (kind, *verb)));
    all.filter(|(_, verb)| is_chosen("RTX_TEST_SWEEP_VERB", verb.name())).collect()
}

#[test]
fn a_call_fails() {
    let errors = |place: &Place| {
        let errors = calls::errors(place).iter();
        errors.map(|errno| Action::Fail(errno.raw_os_error())).collect()
    };
    sweep("faults", errors);
}

#[test]
fn a_command_is_killed() {
    sweep("kills", |_| vec![Action::Kill]);
}
