//! Controllers of cgroup v2 that few hosts have: cpuset, huge pages, block devices, pressure, and memory that runs out for
//! all at once. Debian's kernel has them all (contrib/guest/qemu-test); elsewhere each is skipped for itself.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, needs_root, skip};

/// Ends the test where cgroup v2 has no such controller at its root.
macro_rules! needs_controller {
    ($name:literal) => {
        needs_root!();
        let controllers = read_lossy(Path::new("/sys/fs/cgroup/cgroup.controllers"));
        if !controllers.split_whitespace().any(|name| name == $name) {
            skip!("this host has no cgroup v2 alone with the controller {}", $name);
        }
    };
}

const PAGE: u64 = 2 << 20;

/// A container of `bundle` in the background.
fn running<'a>(runtime: &'a Runtime, bundle: &'a Bundle) -> Container<'a> {
    let container = Container::new(runtime, bundle);
    container.run_detached(&[]).ok();
    container
}

/// Its cgroup, as the kernel says.
fn directory(container: &Container) -> PathBuf {
    let text = read_lossy(Path::new(&format!("/proc/{}/cgroup", container.pid())));
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a cgroup v2");
    Path::new("/sys/fs/cgroup").join(path)
}

fn value(container: &Container, file: &str) -> String {
    read_lossy(&directory(container).join(file)).trim().to_owned()
}

fn stats(container: &Container) -> Value {
    let text = container.runtime.run(&["events", "--stats", &container.id]).ok().stdout;
    serde_json::from_str::<Value>(&text).expect("statistics are JSON")["data"].take()
}

fn update(container: &Container, limits: Value) {
    let call = ["update", "--resources", "-", &container.id];
    container.runtime.invoke(&call).input(&limits.to_string()).run().ok();
}

#[test]
fn processors_and_nodes() {
    needs_controller!("cpuset");
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.set("/linux/resources/cpu", json!({ "cpus": "1", "mems": "0" }));
    let container = running(&runtime, &bundle);
    let seen = || container.exec(&[], &["grep", "-h", "_allowed_list", "/proc/self/status"]).ok().stdout;
    assert_eq!(seen().split_whitespace().collect::<Vec<_>>(), ["Cpus_allowed_list:", "1", "Mems_allowed_list:", "0"]);
    runtime.run(&["update", "--cpuset-cpus", "0", &container.id]).ok();
    assert_eq!(value(&container, "cpuset.cpus"), "0");
    assert!(seen().starts_with("Cpus_allowed_list:\t0\n"), "{}", seen());
    // What the kernel refuses is told by its place, and is not there afterwards.
    runtime.run(&["update", "--cpuset-cpus", "700", &container.id]).fails(1, "--cpuset-cpus: ");
    runtime.run(&["update", "--cpuset-mems", "63", &container.id]).fails(1, "--cpuset-mems: ");
    assert_eq!((&*value(&container, "cpuset.cpus"), &*value(&container, "cpuset.mems")), ("0", "0"));
}

#[test]
fn time_of_processors() {
    needs_controller!("cpu");
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.set("/linux/resources/cpu", json!({ "shares": 512, "quota": 20_000, "period": 50_000, "burst": 10_000 }));
    let container = running(&runtime, &bundle);
    let files = || ["cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle"].map(|file| value(&container, file));
    let weight = files()[0].clone();
    assert_eq!(files()[1..], ["20000 50000", "10000", "0"]);
    for (flags, expected) in [
        (&["--cpu-burst", "0"][..], ["20000 50000", "0", "0"]),
        (&["--cpu-idle", "1"], ["20000 50000", "0", "1"]),
        (&["--cpu-quota", "-1"], ["max 50000", "0", "1"]),
        (&["--cpu-idle", "0"], ["max 50000", "0", "0"]),
    ] {
        runtime.run(&[&["update"], flags, &[&*container.id]].concat()).ok();
        assert_eq!(files()[1..], expected, "after {flags:?}");
    }
    assert_eq!(files()[0], weight, "what is no longer idle has its share again");
    // A burst above the quota is the kernel's to refuse.
    let refused = ["update", "--cpu-quota", "10000", "--cpu-burst", "20000", &container.id];
    runtime.run(&refused).fails(1, "--cpu-burst");
    assert_eq!(files()[1..], ["max 50000", "0", "0"]);
}

#[test]
fn idle_from_the_start() {
    needs_controller!("cpu");
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle.set("/linux/resources/cpu", json!({ "idle": 1 }));
    let container = running(&runtime, &bundle);
    assert_eq!(value(&container, "cpu.idle"), "1");
}

/// Huge pages that the host keeps ready while this value lives.
struct Pages {
    file: PathBuf,
    before: String,
}

impl Pages {
    /// `None` where the host has no such pages, or no memory for them.
    fn reserve(count: u64) -> Option<Pages> {
        let file = PathBuf::from("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
        let before = fs::read_to_string(&file).ok()?;
        let pages = Pages { file, before };
        fs::write(&pages.file, count.to_string()).ok()?;
        let there: u64 = fs::read_to_string(&pages.file).ok()?.trim().parse().ok()?;
        (there >= count).then_some(pages)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let _ = fs::write(&self.file, &self.before);
    }
}

#[test]
fn huge_pages_and_their_reservation() {
    needs_controller!("hugetlb");
    let Some(_pages) = Pages::reserve(8) else { skip!("this host has no room for 8 huge pages of 2 MiB") };
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    bundle
        .mount("/huge", "hugetlbfs", "hugetlbfs", &["pagesize=2M"])
        .set("/linux/resources/hugepageLimits", json!([{ "pageSize": "2MB", "limit": 2 * PAGE }]));
    let container = running(&runtime, &bundle);
    assert_eq!(value(&container, "hugetlb.2MB.max"), (2 * PAGE).to_string());
    assert_eq!(value(&container, "hugetlb.2MB.rsvd.max"), (2 * PAGE).to_string(), "a reservation counts, too");
    let take = |pages: u64, file: &str| container.exec(&[], &["fallocate", "-l", &(pages * PAGE).to_string(), file]);
    take(2, "/huge/fits").ok();
    let pages = &stats(&container)["hugetlb"]["2MB"];
    assert_eq!((&pages["usage"], &pages["failcnt"]), (&json!(2 * PAGE), &json!(0)));
    assert_ne!(take(1, "/huge/more").code, 0, "a third page was granted");
    assert_eq!(stats(&container)["hugetlb"]["2MB"]["failcnt"], 1);
    update(&container, json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 3 * PAGE }] }));
    take(1, "/huge/more").ok();
}

/// The first disk of this host, as its driver names it, with its numbers.
fn disk() -> Option<(String, u64, u64)> {
    let name = ["vda", "sda", "nvme0n1"].into_iter().find(|name| Path::new("/sys/block").join(name).exists())?;
    let numbers = read_lossy(&Path::new("/sys/block").join(name).join("dev"));
    let (major, minor) = numbers.trim().split_once(':')?;
    Some((name.to_owned(), major.parse().ok()?, minor.parse().ok()?))
}

#[test]
fn block_devices() {
    needs_controller!("io");
    let Some((name, major, minor)) = disk() else { skip!("this host has no disk") };
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let rate = |rate: u64| json!([{ "major": major, "minor": minor, "rate": rate }]);
    bundle
        .set(
            "/linux/resources/blockIO",
            json!({
                "throttleReadBpsDevice": rate(1 << 30), "throttleWriteBpsDevice": rate(2 << 30),
                "throttleReadIOPSDevice": rate(100_000), "throttleWriteIOPSDevice": rate(200_000),
            }),
        )
        .set(
            "/linux/resources/devices",
            json!([{ "allow": false, "access": "rwm" },
                { "allow": true, "type": "b", "major": major, "minor": minor, "access": "r" }]),
        )
        .set("/linux/devices", json!([{ "path": "/dev/disk", "type": "b", "major": major, "minor": minor }]));
    let container = running(&runtime, &bundle);
    let all = |text: &str| format!("{major}:{minor} {text}");
    assert_eq!(value(&container, "io.max"), all("rbps=1073741824 wbps=2147483648 riops=100000 wiops=200000"));
    update(&container, json!({ "blockIO": { "throttleReadBpsDevice": rate(1 << 29) } }));
    assert_eq!(value(&container, "io.max"), all("rbps=536870912 wbps=2147483648 riops=100000 wiops=200000"));
    // 0 lifts a limit, as in v1.
    update(&container, json!({ "blockIO": { "throttleWriteBpsDevice": rate(0) } }));
    assert_eq!(value(&container, "io.max"), all("rbps=536870912 wbps=max riops=100000 wiops=200000"));
    container.exec(&[], &["dd", "if=/dev/disk", "of=/dev/null", "bs=64k", "count=4", "iflag=direct"]).ok();
    let counted = &stats(&container)["blkio"]["ioServiceBytesRecursive"];
    let of_disk = |entry: &&Value| (&entry["major"], entry["minor"].as_u64().unwrap_or(0)) == (&json!(major), minor);
    let read = counted.as_array().into_iter().flatten().filter(of_disk).find(|entry| entry["op"] == "Read");
    assert!(read.is_some_and(|entry| entry["value"].as_u64() >= Some(4 * 65536)), "{name}: {counted}");
}

#[test]
fn pressure_is_told() {
    needs_controller!("memory");
    if fs::read("/proc/pressure/memory").is_err() {
        skip!("this kernel does not account for pressure (psi=1 on its command line)");
    }
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exec sleep 600"));
    let container = running(&runtime, &bundle);
    let stats = stats(&container);
    for resource in ["cpu", "memory", "blkio"] {
        for share in ["some", "full"] {
            let line = &stats[resource]["psi"][share];
            assert!(line["avg10"].is_number() && line["total"].is_u64(), "{resource}: {}", stats[resource]);
        }
    }
}

/// `memory.oom.group`: who runs out of memory takes the whole container with him.
#[test]
fn out_of_memory_for_all() {
    needs_controller!("memory");
    let (runtime, mut bundle) = (Runtime::under_test(), Bundle::shell("tail /dev/zero; echo survived; exec sleep 600"));
    bundle
        .set("/linux/resources/memory", json!({ "limit": 16 << 20 }))
        .set("/linux/resources/unified", json!({ "memory.oom.group": "1", "memory.swap.max": "0" }));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    assert_eq!(value(&container, "memory.oom.group"), "1");
    let events = runtime.invoke(&["events", "--interval", "100ms", &container.id]).start();
    let told = || events.stdout_now().contains("stats").then_some(());
    crate::support::children::poll_until(std::time::Duration::from_secs(20), told).expect("statistics");
    container.start().ok();
    assert_eq!(container.wait_exit(), Some(137));
    let output = events.wait().ok();
    assert!(output.stdout.contains(r#""type":"oom""#), "{}", output.stdout);
    assert_eq!(container.stdout(), "");
    assert_eq!(container.status(), "stopped");
}
