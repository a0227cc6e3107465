//! A failing call in any runtime: it knows nothing of how one works. The calls of a command and of all that it starts are
//! counted together, so that a program of many threads has places too, though not always the same; and what is judged is what
//! everybody can see.
//!
//! `RTX_TEST_RUNTIME=runc RTX_TEST_SWEEP=300 cargo test --test integration sweep::alike` tries so many of each command; of other
//! runtimes it only tells the numbers. crun wants no cgroup v2 hierarchy beside v1: put
//! `unshare -m sh -c 'umount -l /sys/fs/cgroup/unified; mount -t tmpfs none /sys/fs/cgroup/unified; exec "$@"' sh` before it.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::calls::{self, Place};
use super::kinds::Kind;
use super::scene::{Action, Disturbed, Scene, Verb, reaping};
use super::{WORKERS, is_chosen, sample};
use crate::support::children::poll_until;
use crate::support::runtime::find_program;
use crate::support::{Container, Runtime, leftover, needs_root, own_engine, report_total, skip};

const VERBS: [Verb; 4] = [Verb::Create, Verb::Start, Verb::Exec, Verb::DeleteForce];
const LIMIT: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(5);

/// What everybody can see to be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Hung,
    /// It says that it succeeded, and that is not true.
    Wrong,
    /// It failed, and what it had begun is there.
    Left,
    /// `delete --force` has not removed it.
    Stayed,
}

#[derive(Default)]
struct Totals {
    tried: usize,
    hit: usize,
    succeeded: usize,
    findings: Vec<Finding>,
    log: String,
    /// What nothing excuses.
    wrong: String,
}

impl Totals {
    fn count(&self, finding: Finding) -> usize {
        self.findings.iter().filter(|found| **found == finding).count()
    }
}

fn under_test() -> Option<Runtime> {
    let mut runtime = Runtime::under_test();
    runtime.program = find_program(&runtime.program.display().to_string())?;
    Some(runtime)
}

/// What was wrong before anybody cleaned up, in words.
fn look(
    scene: &Scene,
    container: &Container<'_>,
    disturbed: &Disturbed,
    place: &Place,
    action: Action,
) -> Option<(Finding, String)> {
    let output = &disturbed.output;
    if output.code == scene.success() {
        let difference = calls::difference(place, action.errno());
        let seen = scene.seen(container, disturbed).and_then(|seen| scene.compare(seen, difference));
        return seen.err().map(|what| (Finding::Wrong, what));
    }
    let left = match scene.verb {
        Verb::Create => scene.left(container),
        // The container's own program goes on.
        Verb::Exec => {
            let others = || {
                leftover::processes(&container.id)
                    .into_iter()
                    .skip(1)
                    .map(|(pid, command)| format!("process {pid} {command}"))
            };
            poll_until(SOON, || (others().count() == 0).then_some(()))
                .map_or_else(|| others().collect(), |()| Vec::new())
        }
        _ => Vec::new(),
    };
    (!left.is_empty()).then(|| (Finding::Left, format!("{left:?}")))
}

/// Takes away what a runtime has not.
fn clear(scene: &Scene, container: &Container<'_>) {
    let _ = poll_until(SOON, || {
        for (pid, _) in leftover::processes(&container.id) {
            let _ = kill_process(Pid::from_raw(pid)?, Signal::KILL);
        }
        for cgroup in leftover::cgroups(&container.id).iter().rev() {
            let _ = std::fs::remove_dir(cgroup);
        }
        for mount in leftover::mounts_below(&container.bundle.path().display().to_string()) {
            let _ = Command::new("umount").args(["-l", &mount]).status();
        }
        let _ = std::fs::remove_dir_all(container.runtime.root().join(&container.id));
        scene.is_clean(container).then_some(())
    });
}

fn attempt(scene: &Scene, (place, action): &(Place, Action), totals: &Mutex<Totals>) {
    let (container, _terminal) = scene.fresh();
    let (mut findings, mut said) = (Vec::new(), String::new());
    let (mut was_hit, mut has_succeeded, mut is_excused) = (false, false, false);
    let disturbed = scene.disturb(&container, Some(place), *action);
    match &disturbed {
        Err(hung) => findings.push((Finding::Hung, hung.clone())),
        Ok(disturbed) => {
            let code = disturbed.output.code;
            (was_hit, has_succeeded) = (disturbed.was_hit(), code == scene.success());
            is_excused = calls::excuse(place, code).is_some();
            said = format!("{} {}", disturbed.output.code, disturbed.output.stderr.trim());
            reaping(disturbed, || {
                // Where what it made does not work, a call of the harness may fail.
                let found = catch_unwind(AssertUnwindSafe(|| look(scene, &container, disturbed, place, *action)));
                findings.extend(found.unwrap_or_else(|_| Some((Finding::Wrong, "it does not work".to_owned()))));
                let delete = scene.runtime.invoke(&["delete", "--force", &container.id]).start().end_within(LIMIT);
                if let Some(why) =
                    delete.err().or_else(|| Some(format!("{:?}", scene.left(&container))).filter(|left| left != "[]"))
                {
                    findings.push((Finding::Stayed, why));
                }
            });
        }
    }
    clear(scene, &container);
    drop(container);
    let mut totals = totals.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    totals.tried += 1;
    totals.hit += usize::from(was_hit);
    totals.succeeded += usize::from(has_succeeded);
    let name = format!("{} at {place} with {:?}", scene.name(), action.errno());
    let _ = writeln!(totals.log, "{name}: {said}");
    for (finding, why) in findings {
        let _ = writeln!(totals.log, "    {finding:?}: {why}");
        totals.findings.push(finding);
        if !is_excused {
            let _ = writeln!(totals.wrong, "{name}: {said}: {finding:?}: {why}");
        }
    }
}

#[test]
fn a_call_of_any_runtime_fails() {
    needs_root!();
    let Some(runtime) = under_test() else { skip!("the runtime is not installed") };
    if !cfg!(target_arch = "x86_64") {
        skip!("the program that disturbs others knows only the registers of x86_64");
    }
    if runtime.is_rtx() {
        drop(own_engine!());
    }
    let name = runtime.program.file_name().expect("a name").to_string_lossy().into_owned();
    let (is_rtx, mut wrong) = (runtime.is_rtx(), String::new());
    for verb in VERBS.into_iter().filter(|verb| is_chosen("RTX_TEST_SWEEP_VERB", verb.name())) {
        let mut scenes: Vec<Scene> =
            (0..WORKERS).map(|_| Scene::new(under_test().expect("the runtime"), Kind::Plain, verb)).collect();
        let report = scenes.iter_mut().map(Scene::rehearse).next_back().unwrap_or_default();
        // Only programs of several threads call futex(2), and what they call it for has none of these errors.
        let places: Vec<Place> =
            calls::places_of_all(&report).into_iter().filter(|place| place.name() != "futex").collect();
        let calls = places.len();
        let all = places.into_iter().flat_map(|place| {
            let errors = calls::errors(&place).iter();
            errors.map(|errno| (place.clone(), Action::Fail(errno.raw_os_error()))).collect::<Vec<_>>()
        });
        let tries = sample(all.collect(), |_| false);
        let (totals, next) = (Mutex::new(Totals::default()), AtomicUsize::new(0));
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
        report_total(&format!(
            "SWEEP faults {name} {}, all processes alike: {calls} calls, {} tried, {} hit, {} succeeded, {} hung, {} wrong, \
             {} left something, {} left something after delete --force",
            verb.name(),
            totals.tried,
            totals.hit,
            totals.succeeded,
            totals.count(Finding::Hung),
            totals.count(Finding::Wrong),
            totals.count(Finding::Left),
            totals.count(Finding::Stayed),
        ));
        let file = format!("sweep-alike-{name}-{}.log", verb.name().replace(" --", "-"));
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(file), &totals.log).expect("write the log");
        wrong += &totals.wrong;
    }
    assert!(!is_rtx || wrong.is_empty(), "{wrong}");
}
