//! What runtime-spec 1.3 says about a process and the packaged runc does not know or does otherwise: scheduler, memory
//! policy, CPU affinity, labels. Seen from the host in the process that a container runs.

use serde_json::{Value, json};

use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Output, Runtime, own_engine, skip};

/// The processors that a cpuset without limits has.
fn online() -> String {
    read_lossy("/sys/devices/system/cpu/online".as_ref()).trim().to_owned()
}

/// A container that sleeps.
fn sleeping(build: impl Fn(&mut Bundle)) -> Bundle {
    let mut bundle = Bundle::shell("exec sleep 600");
    build(&mut bundle);
    bundle
}

/// What chrt(1) says of a process, a line each: policy, priority, and runtime/deadline/period.
fn chrt(pid: i32) -> Vec<String> {
    let output = std::process::Command::new("chrt").args(["-p", &pid.to_string()]).output().expect("run chrt");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter_map(|line| line.rsplit_once(": ")).map(|(_, value)| value.to_owned()).collect()
}

fn nice(pid: i32) -> Option<String> {
    crate::support::children::stat_field(pid, 19)
}

/// `create` of a container with this scheduler, and what the host sees of its init.
fn scheduled(runtime: &Runtime, scheduler: Value, resources: Value) -> Result<(Vec<String>, Option<String>), Output> {
    let bundle = sleeping(|b| {
        b.set("/process/scheduler", scheduler.clone());
        if !resources.is_null() {
            b.set("/linux/resources/cpu", resources.clone());
        }
    });
    let container = Container::new(runtime, &bundle);
    let output = container.create();
    if output.code != 0 {
        return Err(output);
    }
    container.start().ok();
    let seen = (chrt(container.pid()), nice(container.pid()));
    // A process that gets little time takes long to die where others want it all.
    container.kill("KILL").ok();
    container.wait_exit();
    Ok(seen)
}

/// Realtime that a new cgroup is given where cgroup v1's cpu controller hands it out, and nothing elsewhere.
fn realtime() -> Value {
    match std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists() {
        true => json!({ "realtimeRuntime": 1000, "realtimePeriod": 1_000_000 }),
        false => Value::Null,
    }
}

#[test]
fn every_scheduling_policy() {
    let runtime = own_engine!();
    let seen = |scheduler, resources| scheduled(&runtime, scheduler, resources).unwrap_or_else(|o| panic!("{o:?}"));
    let (policy, nice) = seen(json!({ "policy": "SCHED_OTHER", "nice": -5 }), Value::Null);
    assert_eq!((policy[0].as_str(), nice.as_deref()), ("SCHED_OTHER", Some("-5")));
    let (policy, nice) = seen(json!({ "policy": "SCHED_BATCH", "nice": 19 }), Value::Null);
    assert_eq!((policy[0].as_str(), nice.as_deref()), ("SCHED_BATCH", Some("19")));
    let (policy, _) = seen(json!({ "policy": "SCHED_IDLE" }), Value::Null);
    assert_eq!(policy[0], "SCHED_IDLE");
    let flags = json!(["SCHED_FLAG_RESET_ON_FORK"]);
    let (policy, _) = seen(json!({ "policy": "SCHED_FIFO", "priority": 7 }), realtime());
    assert_eq!(policy[..2], ["SCHED_FIFO", "7"]);
    let (policy, _) = seen(json!({ "policy": "SCHED_RR", "priority": 1, "flags": flags }), realtime());
    assert_eq!(policy[..2], ["SCHED_RR|SCHED_RESET_ON_FORK", "1"]);
}

#[test]
fn a_deadline() {
    let runtime = own_engine!();
    let deadline =
        json!({ "policy": "SCHED_DEADLINE", "runtime": 20_000_000, "deadline": 200_000_000, "period": 1_000_000_000 });
    match scheduled(&runtime, deadline, Value::Null) {
        Ok((seen, _)) => {
            assert_eq!(seen[0], "SCHED_DEADLINE");
            assert_eq!(seen.last().map(String::as_str), Some("20000000/200000000/1000000000"));
        }
        // A cpuset whose processors are not all of a scheduling domain takes none.
        Err(output) => drop(output.fails(1, "/process/scheduler")),
    }
}

#[test]
fn a_realtime_policy_without_realtime_says_where_it_would_come_from() {
    let runtime = own_engine!();
    if realtime().is_null() {
        skip!("no cgroup v1 cpu controller with realtime groups");
    }
    let output = scheduled(&runtime, json!({ "policy": "SCHED_FIFO", "priority": 1 }), Value::Null).expect_err("EPERM");
    output.fails(1, "/linux/resources/cpu/realtimeRuntime");
}

#[test]
fn wrong_schedulers_are_refused_by_pointer() {
    let runtime = own_engine!();
    for (scheduler, at) in [
        (json!({ "policy": "SCHED_ISO" }), "/process/scheduler/policy: SCHED_ISO is in no Linux kernel"),
        (json!({ "policy": "SCHED_FIFO" }), "/process/scheduler/priority"),
        (json!({ "policy": "SCHED_OTHER", "priority": 1 }), "scheduler.priority can only be specified for"),
        (json!({ "policy": "SCHED_OTHER", "nice": 20 }), "invalid scheduler.nice: 20"),
        (json!({ "policy": "SCHED_RR", "priority": 1, "period": 5 }), "can only be specified for SCHED_DEADLINE"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 9000 }), "/process/scheduler/runtime"),
        (json!({ "policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 4000 }), "/process/scheduler/deadline"),
        (
            json!({ "policy": "SCHED_DEADLINE", "runtime": 5000, "deadline": 9000, "period": 8000 }),
            "/process/scheduler/period",
        ),
        (json!({ "policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"] }), "/process/scheduler/flags/0"),
    ] {
        scheduled(&runtime, scheduler, Value::Null).expect_err("refused").fails(1, at);
    }
}

/// A process that joins has the container's scheduler, or the one that its own document names.
#[test]
fn exec_is_scheduled_as_well() {
    let runtime = own_engine!();
    let bundle = sleeping(|b| {
        b.set("/process/scheduler", json!({ "policy": "SCHED_BATCH", "nice": 3 }));
        b.set("/process/ioPriority", json!({ "class": "IOPRIO_CLASS_IDLE", "priority": 0 }));
    });
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let show = ["sh", "-c", "cut -d' ' -f19,41 /proc/self/stat; ionice -p $$"];
    assert_eq!(container.exec(&[], &show).ok().stdout, "3 3\nidle\n");
    let process = json!({
        "args": show, "cwd": "/", "env": ["PATH=/bin"],
        "scheduler": { "policy": "SCHED_OTHER", "nice": -1 }, "ioPriority": { "class": "IOPRIO_CLASS_RT", "priority": 6 },
    });
    let file = bundle.make_file("process.json", &process.to_string()).display().to_string();
    let output = container.exec(&["--process", &file], &[]).ok();
    assert_eq!(output.stdout, "-1 0\nrealtime: prio 6\n");
}

/// Whether a process keeps its affinity when it is moved to another cpuset: since Linux 6.2, and where there are none.
fn survives_a_move() -> bool {
    let release = read_lossy("/proc/sys/kernel/osrelease".as_ref());
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let is_new = (numbers.next(), numbers.next()) >= (Some(6), Some(2));
    is_new || !read_lossy("/sys/fs/cgroup/cgroup.controllers".as_ref()).contains("cpuset")
}

#[test]
fn cpu_affinity_is_for_exec_alone() {
    let runtime = own_engine!();
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        skip!("needs two processors");
    }
    const SHOW: &[&str] = &["sh", "-c", "grep Cpus_allowed_list /proc/self/status | cut -f2"];
    let everything = format!("{}\n", online());
    for (affinity, seen) in [
        (json!({ "initial": "0" }), if survives_a_move() { "0\n" } else { &everything }),
        (json!({ "final": "1" }), "1\n"),
        (json!({ "initial": "0", "final": "0-1" }), "0-1\n"),
        (json!({}), &everything),
    ] {
        let bundle = sleeping(|b| {
            b.set("/process/execCPUAffinity", affinity.clone());
        });
        let container = Container::new(&runtime, &bundle);
        container.run_detached(&[]).ok();
        let own = read_lossy(format!("/proc/{}/status", container.pid()).as_ref());
        assert!(own.contains(&format!("Cpus_allowed_list:\t{}\n", online())), "{own}");
        assert_eq!(container.exec(&[], SHOW).ok().stdout, seen, "{affinity}");
    }
    let bundle = sleeping(|_| {});
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let exec = |affinity: Value| {
        let process = json!({ "args": SHOW, "cwd": "/", "env": ["PATH=/bin"], "execCPUAffinity": affinity });
        let file = bundle.make_file("process.json", &process.to_string()).display().to_string();
        container.exec(&["--process", &file], &[])
    };
    assert_eq!(exec(json!({ "final": "1" })).ok().stdout, "1\n");
    exec(json!({ "initial": "500" })).fails(255, "/process/execCPUAffinity/initial");
    exec(json!({ "final": "500" })).fails(255, "/process/execCPUAffinity/final");
    let output = exec(json!({ "final": "1-" }));
    let output = output.fails(255, "process.json: /execCPUAffinity/final");
    assert!(!output.stderr.contains("config.json"), "{}", output.stderr);
}

/// A container has its cpuset's processors and not those of whoever called rtx, as before Linux 6.2.
#[test]
fn the_callers_affinity_is_not_the_containers() {
    let runtime = own_engine!();
    if std::thread::available_parallelism().map_or(1, std::num::NonZero::get) < 2 {
        skip!("needs two processors");
    }
    let allowed = |pid: i32| {
        let status = read_lossy(format!("/proc/{pid}/status").as_ref());
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t").map(str::to_owned))
    };
    for (cpus, seen) in [(None, &*online()), (Some("1"), "1")] {
        let bundle = sleeping(|b| {
            if let Some(cpus) = cpus {
                b.set("/linux/resources/cpu", json!({ "cpus": cpus }));
            }
        });
        let container = Container::new(&runtime, &bundle);
        container.background("run", &["--detach"]).through(&["taskset", "-c", "0"]).run().ok();
        assert_eq!(allowed(container.pid()).as_deref(), Some(seen));
        let exec = container.exec_call(&[], &["grep", "Cpus_allowed_list", "/proc/self/status"]);
        let output = exec.through(&["taskset", "-c", "0"]).run().ok();
        assert_eq!(output.stdout.split_whitespace().last(), Some(seen));
    }
}

#[test]
fn memory_policies() {
    let runtime = own_engine!();
    if !std::path::Path::new("/sys/devices/system/node/node0").exists() {
        skip!("the kernel knows no memory nodes");
    }
    let run = |policy: &Value| {
        let mut bundle = Bundle::shell("cut -d' ' -f2 /proc/self/numa_maps | sort -u");
        bundle.set("/linux/memoryPolicy", policy.clone());
        Container::new(&runtime, &bundle).run(&[])
    };
    for (policy, seen) in [
        (json!({ "mode": "MPOL_DEFAULT" }), "default"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }), "bind=static:0"),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }),
            "interleave=relative:0",
        ),
        (json!({ "mode": "MPOL_PREFERRED", "nodes": "0" }), "prefer:0"),
        (json!({ "mode": "MPOL_PREFERRED_MANY", "nodes": "0" }), "prefer (many):0"),
        (json!({ "mode": "MPOL_LOCAL" }), "local"),
    ] {
        let seen: String = seen.split(' ').next().unwrap_or_default().to_owned();
        let output = run(&policy).ok();
        assert!(output.stdout.lines().any(|line| line == seen), "{policy}: {}", output.stdout);
    }
    for (policy, at) in [
        (json!({ "mode": "MPOL_X" }), "/linux/memoryPolicy/mode"),
        (json!({ "mode": "MPOL_BIND" }), "/linux/memoryPolicy/nodes"),
        (json!({ "mode": "MPOL_DEFAULT", "nodes": "0" }), "/linux/memoryPolicy/nodes"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0-" }), "/linux/memoryPolicy/nodes"),
        (json!({ "mode": "MPOL_BIND", "nodes": "900" }), "/linux/memoryPolicy"),
        (json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_X"] }), "/linux/memoryPolicy/flags/0"),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            "/linux/memoryPolicy/flags",
        ),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"] }),
            "/linux/memoryPolicy/flags",
        ),
    ] {
        run(&policy).fails(1, at);
    }
}

#[test]
fn a_memory_policy_holds_for_exec() {
    let runtime = own_engine!();
    if !std::path::Path::new("/sys/devices/system/node/node0").exists() {
        skip!("the kernel knows no memory nodes");
    }
    let bundle = sleeping(|b| {
        b.set("/linux/memoryPolicy", json!({ "mode": "MPOL_BIND", "nodes": "0" }));
    });
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let output = container.exec(&[], &["sh", "-c", "cut -d' ' -f2 /proc/self/numa_maps | sort -u"]).ok();
    assert!(output.stdout.contains("bind:0"), "{}", output.stdout);
}

#[test]
fn personality_has_domains_and_no_flags() {
    let runtime = own_engine!();
    let run = |personality: Value| {
        let mut bundle = Bundle::shell("cat /proc/self/personality");
        bundle.set("/linux/personality", personality);
        Container::new(&runtime, &bundle).run(&[])
    };
    assert_eq!(run(json!({ "domain": "LINUX32" })).ok().stdout, "00000008\n");
    assert_eq!(run(json!({ "domain": "LINUX", "flags": [] })).ok().stdout, "00000000\n");
    run(json!({ "domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"] })).fails(1, "/linux/personality/flags");
}

/// A label that no security module of this host understands is refused before anything is made.
#[test]
fn labels_need_their_security_module() {
    let runtime = own_engine!();
    let run = |pointer: &str, label: &str| {
        let mut bundle = Bundle::shell("true");
        bundle.set(pointer, json!(label));
        Container::new(&runtime, &bundle).run(&[])
    };
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        run("/process/apparmorProfile", "some-profile").fails(1, "/process/apparmorProfile");
        run("/process/apparmorProfile", "unconfined").ok();
    }
    if !std::path::Path::new("/sys/fs/selinux").exists() {
        run("/process/selinuxLabel", "system_u:system_r:svirt_t:s0").fails(1, "/process/selinuxLabel");
        run("/linux/mountLabel", "system_u:object_r:svirt_t:s0").fails(1, "/linux/mountLabel");
    }
}

/// In a user namespace capabilities are those of the namespace: all can be had, none reaches the host.
#[test]
fn capabilities_limits_and_groups_in_a_user_namespace() {
    let runtime = own_engine!();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    let mut bundle = Bundle::shell(
        "grep -E '^(Cap(Eff|Amb|Bnd)|Groups)' /proc/self/status; umask; ulimit -n; hostname changed && hostname; \
         mount -t tmpfs x /tmp 2>&1; cat /proc/self/oom_score_adj",
    );
    bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).bind_sys();
    std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000)).expect("chown the root");
    bundle.capabilities(&["CAP_SYS_ADMIN", "CAP_NET_ADMIN"]);
    bundle.set("/process/user", json!({ "uid": 0, "gid": 0, "umask": 0o027, "additionalGids": [5, 6] }));
    bundle.set("/process/rlimits", json!([{ "type": "RLIMIT_NOFILE", "soft": 77, "hard": 99 }]));
    bundle.set("/process/oomScoreAdj", json!(123));
    let output = Container::new(&runtime, &bundle).run(&[]).ok();
    let lines: Vec<&str> = output.stdout.lines().collect();
    let set = "0000000000201000";
    assert_eq!(
        lines,
        [
            "Groups:\t5 6 ",
            &format!("CapEff:\t{set}"),
            &format!("CapBnd:\t{set}"),
            &format!("CapAmb:\t{set}"),
            "0027",
            "77",
            "changed",
            "123"
        ]
    );
}

/// Seen only on processors that have it: the class of service appears with the container and goes with it.
#[test]
fn intel_rdt_or_a_refusal() {
    let runtime = own_engine!();
    let mut bundle = sleeping(|_| {});
    bundle.set("/linux/intelRdt", json!({ "closID": "a/b", "l3CacheSchema": "nonsense" }));
    let output = Container::new(&runtime, &bundle).create().fails(1, "/linux/intelRdt/closID");
    assert!(output.stderr.contains("/linux/intelRdt/l3CacheSchema"), "{}", output.stderr);
    bundle.set("/linux/intelRdt", json!({ "enableMonitoring": true }));
    let container = Container::new(&runtime, &bundle);
    let output = container.create();
    let table = read_lossy("/proc/self/mountinfo".as_ref());
    let mount = table.lines().find(|line| line.contains(" - resctrl "));
    let Some(root) = mount.and_then(|line| line.split(' ').nth(4)) else {
        output.fails(1, "/linux/intelRdt: intelRdt is specified in config, but Intel RDT is not enabled");
        skip!("no resctrl file system is mounted: only the refusal was seen");
    };
    if !std::path::Path::new(root).join("info/L3_MON").exists() {
        output.fails(1, "/linux/intelRdt/enableMonitoring");
        skip!("resctrl does not count here: only the refusal was seen");
    }
    output.ok();
    let class = std::path::Path::new(root).join(&container.id);
    let tasks = read_lossy(&class.join("mon_groups").join(&container.id).join("tasks"));
    assert!(tasks.lines().any(|line| line == container.pid().to_string()), "{tasks}");
    container.delete(&["--force"]).ok();
    assert!(!class.exists());
}
