//! What the commands of a container's life may cost, counted and not timed: system calls, processes, mounts that fail, and
//! bytes that are read. A budget is there to go down.

use crate::support::runtime::{Invocation, find_program};
use crate::support::{Bundle, Container, own_engine, skip};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Of one command: its own process and the one that it starts, up to the program or to the start barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    calls: usize,
    forks: usize,
    bytes_read: usize,
}

/// Calls of a command on a host with one cgroup hierarchy, those for each further one, processes, KiB read.
const BUDGETS: [(&str, usize, usize, usize, usize); 7] = [
    ("run", 330, 8, 1, 8),
    ("create", 299, 8, 1, 8),
    ("state", 27, 0, 0, 4),
    ("list", 31, 0, 0, 8),
    ("start", 45, 0, 0, 8),
    ("exec", 179, 3, 1, 8),
    ("delete", 31, 1, 0, 8),
];

/// How long a tracer may take to write down what it has seen.
const LIMIT: Duration = Duration::from_secs(60);

/// Calls that depend on the C library and on how memory is laid out.
const MEMORY: [&str; 8] = ["brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "getrandom"];
const MOUNT: [&str; 6] = ["mount", "move_mount", "fsmount", "fsconfig", "open_tree", "mount_setattr"];

struct Tracer {
    directory: tempfile::TempDir,
}

impl Tracer {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("make a directory for traces") }
    }

    /// Traces a call, as `name`. The tracer is nobody's child, so that a created container does not keep the call from
    /// ending.
    fn trace(&self, name: &str, invocation: Invocation) -> Invocation {
        let prefix = self.directory.path().join(name).display().to_string();
        invocation.through(&["strace", "-D", "-ff", "-s", "0", "-o", &prefix])
    }

    /// The traces of the call's processes, when all have ended.
    fn traces(&self, name: &str) -> Vec<String> {
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

/// What rtx itself did in one process: after the C library's start, and before the program or the start barrier.
fn own_calls(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.starts_with("+++") && !line.starts_with("---"))
        .skip_while(|line| !line.starts_with("poll(") && !line.starts_with("close_range("))
        .take_while(|line| !line.starts_with("execve(") && !line.starts_with("accept"))
        // The second is what a debug build asks before it closes anything.
        .filter(|line| !MEMORY.contains(&name(line)) && !line.contains("F_GETFD"))
}

fn name(line: &str) -> &str {
    line.split('(').next().unwrap_or_default()
}

fn result(line: &str) -> i64 {
    let result = line.rsplit(" = ").next().unwrap_or_default();
    result.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn cost(traces: &[String]) -> Cost {
    let calls = || traces.iter().flat_map(|text| own_calls(text));
    let forks = calls().filter(|line| matches!(name(line), "clone" | "clone3" | "fork" | "vfork"));
    let reads = calls().filter(|line| matches!(name(line), "read" | "pread64"));
    Cost {
        calls: calls().count(),
        forks: forks.count(),
        bytes_read: reads.map(|line| usize::try_from(result(line)).unwrap_or(0)).sum(),
    }
}

fn failed_mounts(traces: &[String]) -> Vec<&str> {
    let calls = traces.iter().flat_map(|text| own_calls(text));
    calls.filter(|line| MOUNT.contains(&name(line)) && result(line) < 0).collect()
}

fn hierarchies() -> usize {
    let table = std::fs::read_to_string("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    table.lines().filter(|line| line.contains(" - cgroup")).count().max(1)
}

#[test]
fn a_default_life_keeps_to_its_budgets() {
    let runtime = own_engine!();
    if find_program("strace").is_none() {
        skip!("no strace");
    }
    let tracer = Tracer::new();
    let (mut short, mut long) = (Bundle::new(), Bundle::new());
    short.args(&["/bin/true"]);
    long.args(&["/bin/sleep", "600"]);
    let (once, container) = (Container::new(&runtime, &short), Container::new(&runtime, &long));
    tracer.trace("run", once.background("run", &[])).run().ok();
    tracer.trace("create", container.background("create", &[])).run().ok();
    let call = |name: &str, words: &[&str]| {
        let words = [&[name, &container.id], words].concat();
        tracer.trace(name, runtime.invoke(&words)).run().ok();
    };
    call("state", &[]);
    tracer.trace("list", runtime.invoke(&["list"])).run().ok();
    call("start", &[]);
    call("exec", &["/bin/true"]);
    container.pid();
    container.kill("KILL").ok();
    container.wait_exit();
    call("delete", &[]);

    let mut wrong = Vec::new();
    for (name, calls, each_hierarchy, forks, kibibytes) in BUDGETS {
        let traces = tracer.traces(name);
        let cost = cost(&traces);
        eprintln!("{name}: {cost:?} on a host with {} cgroup hierarchies", hierarchies());
        let allowed = calls + each_hierarchy * (hierarchies() - 1);
        if cost.calls > allowed || cost.forks > forks || cost.bytes_read > kibibytes * 1024 {
            wrong.push(format!("{name}: {cost:?}, of {allowed} calls, {forks} processes and {kibibytes} KiB"));
        }
        wrong.extend(failed_mounts(&traces).iter().map(|line| format!("{name}: a mount that fails: {line}")));
    }
    assert!(wrong.is_empty(), "over the budget:\n{}", wrong.join("\n"));
}
