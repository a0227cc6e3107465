//! What the commands of a container's life may cost, counted and not timed: system calls, processes, mounts that fail, and
//! bytes that are read. A budget is there to go down.

use crate::support::runtime::find_program;
use crate::support::tracer::{Tracer, name, result};
use crate::support::{Bundle, Container, own_engine, skip};

/// Of one command: its own process and the one that it starts, up to the program or to the start barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cost {
    calls: usize,
    forks: usize,
    bytes_read: usize,
}

/// Calls of a command on a host with one cgroup hierarchy, those for each further one, processes, KiB read.
const BUDGETS: [(&str, usize, usize, usize, usize); 7] = [
    ("run", 326, 8, 1, 8),
    ("create", 297, 8, 1, 8),
    ("state", 27, 0, 0, 4),
    ("list", 31, 0, 0, 8),
    ("start", 45, 0, 0, 8),
    ("exec", 168, 3, 2, 8),
    ("delete", 31, 1, 0, 8),
];

/// Calls that depend on the C library and on how memory is laid out.
const MEMORY: [&str; 8] = ["brk", "mmap", "munmap", "mremap", "mprotect", "madvise", "futex", "getrandom"];
const MOUNT: [&str; 6] = ["mount", "move_mount", "fsmount", "fsconfig", "open_tree", "mount_setattr"];

/// What rtx itself did in one process: after the C library's start, and before the program or the start barrier.
fn own_calls(text: &str) -> impl Iterator<Item = &str> {
    // What is no program of its own before the container's has nothing to start.
    let (own, program) = (text.find("set_tid_address("), text.find("\nexecve("));
    let starts = own.is_some_and(|own| program.is_none_or(|program| own < program));
    text.lines()
        .filter(|line| !line.starts_with("+++") && !line.starts_with("---"))
        .skip_while(move |line| starts && !line.starts_with("poll(") && !line.starts_with("close_range("))
        .take_while(|line| !line.starts_with("execve(") && !line.starts_with("accept"))
        // The second is what a debug build asks before it closes anything.
        .filter(|line| !MEMORY.contains(&name(line)) && !line.contains("F_GETFD"))
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
