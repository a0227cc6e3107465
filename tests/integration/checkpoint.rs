//! `checkpoint` and `restore`. Debian's CRIU does not read every kernel's vDSO: where it does not, its refusal is what can
//! be seen here, and the rest is seen on Debian's own kernel in a virtual machine (contrib/guest/qemu-run).

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::runtime::find_program;
use crate::support::{Bundle, Container, Runtime, needs_root, report_skip, skip};

fn counting() -> Bundle {
    Bundle::shell("i=0; while :; do i=$((i + 1)); echo $i >/tmp/count; sleep 0.1; done")
}

fn images(bundle: &Bundle) -> String {
    bundle.host("images").display().to_string()
}

/// A program that takes criu's place: a shell script that has the socket as its standard output. It reads the request: a
/// socket that is closed with something unread takes the answer with it.
fn fake_criu(bundle: &Bundle, script: &str) -> String {
    bundle
        .make_script("criu", &format!("dd bs=64k count=1 <&\"$2\" >/dev/null 2>&1\nexec >&\"$2\"\n{script}"))
        .display()
        .to_string()
}

#[test]
fn without_criu_it_says_what_to_install() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), counting());
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let images = images(&bundle);
    let call = ["--criu", "/nonexistent/criu", "checkpoint", "--image-path", &images, &container.id];
    runtime.run(&call).fails(1, "/nonexistent/criu: executable file not found: install CRIU");
    assert_eq!(container.status(), "running");
    assert!(!Path::new(&images).exists(), "a directory of images was left");
}

#[test]
fn an_old_criu_is_refused() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), counting());
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    // VERSION, success, major 3, minor 6.
    let criu = fake_criu(&bundle, r"printf '\010\012\020\001\122\004\010\003\020\006'");
    let images = images(&bundle);
    let call = ["--criu", &criu, "checkpoint", "--image-path", &images, &container.id];
    runtime.run(&call).fails(1, "CRIU 3.6").fails(1, "too old: install 3.11 or later");
    // One that ends without a word.
    let criu = fake_criu(&bundle, "echo lost >&2");
    let call = ["--criu", &criu, "checkpoint", "--image-path", &images, &container.id];
    runtime.run(&call).fails(1, "does not tell its version: lost");
    assert_eq!(container.status(), "running");
}

#[test]
fn flags_are_checked_first() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), counting());
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let images = images(&bundle);
    let refused = |flags: &[&str], text: &str| {
        let call = [&["checkpoint", "--image-path", &images], flags, &[&*container.id]].concat();
        runtime.run(&call).fails(1, text);
    };
    refused(&["--parent-path", "/abs"], "--parent-path must be relative");
    refused(&["--page-server", "nowhere"], "--page-server takes ADDRESS:PORT");
    refused(&["--page-server", "host:x"], "invalid port number \"x\"");
    refused(&["--empty-ns", "pid"], "namespace \"pid\" is not supported");
    refused(&["--status-fd", "77"], "descriptor 77 of --status-fd: bad file number");
    runtime.run(&["checkpoint", "--image-path", &images, "nosuch"]).fails(1, "container does not exist");
    assert_eq!(container.status(), "running");
}

#[test]
fn a_container_that_does_not_run_has_nothing_to_save() {
    needs_root!();
    let (runtime, bundle) = (Runtime::under_test(), Bundle::shell("exit 0"));
    let container = Container::new(&runtime, &bundle);
    container.create().ok();
    let call = ["checkpoint", "--image-path", &images(&bundle), &container.id];
    runtime.run(&call).fails(1, "container cannot be checkpointed in created state");
    container.start().ok();
    container.wait_exit();
    runtime.run(&call).fails(1, "container cannot be checkpointed in stopped state");
}

/// Whether CRIU works on this kernel at all.
pub fn criu_works() -> bool {
    let mut check = Command::new("criu");
    check.arg("check").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    check.status().is_ok_and(|status| status.success())
}

#[test]
fn what_criu_refuses_is_told_in_its_words() {
    needs_root!();
    if find_program("criu").is_none() {
        skip!("no criu: install the package criu");
    }
    if criu_works() {
        skip!("criu works on this kernel: its refusals are seen in the guest");
    }
    let (runtime, bundle) = (Runtime::under_test(), counting());
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let images = images(&bundle);
    let checkpoint = runtime.run(&["checkpoint", "--image-path", &images, &container.id]);
    checkpoint
        .fails(1, "criu cannot checkpoint the container: ")
        .fails(1, "/images/dump.log ends with: ")
        .fails(1, "Error (");
    assert_eq!(container.status(), "running");
    container.delete(&["--force"]).ok();
    let bundle_path = bundle.path().display().to_string();
    let restore = ["restore", "--detach", "--bundle", &bundle_path, "--image-path", &images, &container.id];
    runtime.run(&restore).fails(1, "criu cannot restore the container: ").fails(1, "Error (");
    assert_eq!(container.status(), "");
}

/// Ends a test where no guest with Debian's kernel can be made.
macro_rules! boots_debian {
    () => {
        for program in ["qemu-system-x86_64", "mmdebstrap", "mke2fs", "busybox", "modprobe", "cpio"] {
            if $crate::support::runtime::find_program(program).is_none() {
                skip!("no {program} for the guest: contrib/guest/qemu-build --packages lists what to install");
            }
        }
        if !cfg!(target_arch = "x86_64") {
            skip!("the guest is of x86_64");
        }
    };
}
pub(crate) use boots_debian;

/// The lines of contrib/guest/checkpoint.sh, of rtx and of runc, on cgroup v2 and on v1.
#[test]
fn a_saved_container_goes_on() {
    needs_root!();
    boots_debian!();
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let runtime = std::fs::canonicalize(Runtime::under_test().program).expect("the runtime");
    let script = top.join("contrib/guest/checkpoint.sh");
    let run = |name: &str, path: &str| format!("echo '== {name}'; sh /host{} {path}\n", script.display());
    let copy = format!("cp /host{} /tmp/rtx\n", runtime.display());
    let (rtx, runc) = (run("rtx", "/tmp/rtx"), run("runc", "runc"));
    // A machine for each: the controllers of a hierarchy that is gone stay with it for long.
    let text = boot(&format!("{copy}{V2}{rtx}{runc}")) + &boot(&format!("{copy}{V1}{rtx}"));
    let mut sections: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("== "), sections.last_mut()) {
            (Some(name), _) => sections.push((name, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {}
        }
    }
    assert_eq!(sections.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["rtx", "runc", "rtx"]);
    for (name, lines) in &sections {
        assert!(lines.len() > 40, "{name} said little: {lines:?}");
        for line in lines.iter().filter(|line| line.starts_with("not ok")) {
            assert_ne!(*name, "rtx", "{line}");
            report_skip("a_saved_container_goes_on", &format!("{name} does not pass: {line}"));
        }
    }
}

/// What the guest prints that runs this script.
fn boot(script: &str) -> String {
    let mut guest = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/guest/qemu-run"));
    // A minute or two where nothing else runs.
    let output = guest.arg(script).env("GUEST_TIME", "300").stdin(Stdio::null()).output().expect("run the guest");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "the guest failed: {}", output.status);
    text.into_owned()
}

const V2: &str = "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n";
const V1: &str = "mount -t tmpfs tmpfs /sys/fs/cgroup
for name in memory cpu,cpuacct cpuset devices freezer pids blkio; do
	mkdir /sys/fs/cgroup/$name && mount -t cgroup -o $name cgroup /sys/fs/cgroup/$name
done
mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
";
