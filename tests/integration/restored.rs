//! What a container gets back from its images, with CRIU at work: on Debian's kernel (contrib/guest/qemu-test), and
//! wherever else `criu check` is content. The plain life of a saved container is in contrib/guest/checkpoint.sh.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::checkpoint::criu_works;
use crate::support::children::poll_until;
use crate::support::runtime::{Output, find_program, read_lossy};
use crate::support::terminal::{FdSocket, Terminal};
use crate::support::{Bundle, Container, Runtime, needs_root, skip};

/// Nothing here is quick where a processor is emulated.
const LIMIT: Duration = Duration::from_secs(240);

/// The runtime under test; ends the test where CRIU does not work.
macro_rules! runtime {
    () => {{
        needs_root!();
        if !criu_works() {
            skip!("criu does not work on this kernel, or is not installed");
        }
        Runtime::under_test()
    }};
}

/// Replaces a number in a file of the container, whole, for as long as the container lives.
const COUNT: &str = "i=0; while :; do i=$((i + 1)); echo $i >/count.new; mv /count.new /count; sleep 0.05; done";

fn counting() -> Bundle {
    let mut bundle = Bundle::shell(COUNT);
    bundle.set("/root/readonly", json!(false));
    bundle
}

fn count(bundle: &Bundle) -> u64 {
    read_lossy(&bundle.rootfs().join("count")).trim().parse().unwrap_or(0)
}

#[track_caller]
fn counts_on(bundle: &Bundle) {
    let before = count(bundle);
    let grown = poll_until(LIMIT, || (count(bundle) > before).then_some(()));
    assert!(grown.is_some(), "it does not count on from {before}");
}

fn call(container: &Container, verb: &str, flags: &[&str]) -> Vec<String> {
    let images = container.bundle.host("images").display().to_string();
    [&[verb, "--image-path", &images], flags, &[&*container.id]]
        .concat()
        .iter()
        .map(|word| (*word).to_owned())
        .collect()
}

fn checkpoint(container: &Container, flags: &[&str]) -> Output {
    container.runtime.invoke(&call(container, "checkpoint", flags)).start().wait_within(LIMIT)
}

fn restore(container: &Container, flags: &[&str]) -> Output {
    let (bundle, pid_file) =
        (container.bundle.path().display().to_string(), container.pid_file().display().to_string());
    let own = ["--detach", "--bundle", &bundle, "--pid-file", &pid_file];
    let call = call(container, "restore", &[&own, flags].concat());
    container.runtime.invoke(&call).start().wait_within(LIMIT)
}

/// CRIU saves no file of the host that a container has open, so its streams lead nowhere.
#[track_caller]
fn run(container: &Container) {
    container.background("run", &["--detach"]).stdout(Stdio::null()).stderr(Stdio::null()).run().ok();
    container.pid();
}

/// Saves the container and makes it again, and sees it count on.
#[track_caller]
fn there_and_back(container: &Container, flags: &[&str]) {
    counts_on(container.bundle);
    checkpoint(container, flags).ok();
    assert_eq!(container.status(), "", "it is gone");
    let saved = count(container.bundle);
    restore(container, flags).ok();
    container.pid();
    assert_eq!(container.status(), "running");
    counts_on(container.bundle);
    assert!(count(container.bundle) > saved);
}

#[test]
fn a_terminal_behind_a_socket() {
    let runtime = runtime!();
    let mut bundle = Bundle::shell("while read line; do echo \"got $line\"; done");
    bundle.set("/process/terminal", json!(true));
    let container = Container::new(&runtime, &bundle);
    let received = |socket: &FdSocket| Terminal::of(socket.receive().expect("the master of a terminal").0);
    let socket = FdSocket::listen(runtime.scratch(), "first");
    container.run_detached(&["--console-socket", &socket.path()]).ok();
    let terminal = received(&socket);
    terminal.send("one\n");
    terminal.wait_for("got one");
    checkpoint(&container, &[]).ok();
    drop(terminal);
    let socket = FdSocket::listen(runtime.scratch(), "second");
    restore(&container, &["--console-socket", &socket.path()]).ok();
    let terminal = received(&socket);
    terminal.send("two\n");
    terminal.wait_for("got two");
}

/// Both ends are in the container. Only `--tcp-established` says that the connection may be taken apart.
#[test]
fn tcp_connections() {
    let runtime = runtime!();
    let mut bundle = Bundle::shell(
        "nc -l -p 7000 -e cat & sleep 1
         (while :; do echo ping; sleep 0.1; done) | nc 127.0.0.1 7000 |
         while read x; do i=$((i + 1)); echo $i >/count.new; mv /count.new /count; done",
    );
    bundle.set("/root/readonly", json!(false));
    let container = Container::new(&runtime, &bundle);
    run(&container);
    counts_on(&bundle);
    checkpoint(&container, &[])
        .fails(1, "criu cannot checkpoint the container: ")
        .fails(1, "/images/dump.log ends with: ")
        .fails(1, "tcp-established");
    there_and_back(&container, &["--tcp-established"]);
}

#[test]
fn a_user_namespace() {
    let runtime = runtime!();
    let mut bundle = counting();
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    for path in ["", "dev", "etc", "proc", "sys", "tmp"] {
        let path = bundle.rootfs().join(path);
        std::os::unix::fs::chown(path, Some(100_000), Some(100_000)).expect("chown the root file system");
    }
    let container = Container::new(&runtime, &bundle);
    run(&container);
    there_and_back(&container, &[]);
    assert_eq!(container.exec(&[], &["id", "-u"]).ok().stdout, "0\n");
    let map = read_lossy(format!("/proc/{}/uid_map", container.pid()).as_ref());
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
    // CRIU opens the first image before the namespace has a map, or after that: it is then one user or the other.
    let images = bundle.host("images").metadata().expect("the directory of the images");
    assert_eq!((images.uid(), images.gid(), images.mode() & 0o777), (0, 100_000, 0o750));
}

/// The pages come later, from the process that saved the container, over a socket.
#[test]
fn pages_that_come_later() {
    let runtime = runtime!();
    let bundle = counting();
    let container = Container::new(&runtime, &bundle);
    run(&container);
    counts_on(&bundle);
    let served = bundle.host("served");
    let port = (20_000 + std::process::id() % 10_000).to_string();
    let flags = ["--lazy-pages", "--page-server", &format!("127.0.0.1:{port}"), "--status-fd", "9"];
    let script = format!("exec 9>'{}'; exec \"$@\"", served.display());
    let saving = runtime.invoke(&call(&container, "checkpoint", &flags)).through_shell(&script).start();
    let ready = poll_until(LIMIT, || served.metadata().is_ok_and(|file| file.len() > 0).then_some(()));
    if ready.is_none() {
        panic!("nothing came on --status-fd: {}", saving.wait().stderr);
    }
    assert_eq!(std::fs::read(&served).expect("what came on --status-fd"), [0]);
    let mut daemon = Command::new("criu");
    daemon.args(["lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", &port, "-D"]);
    let daemon = daemon.arg(bundle.host("images")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut daemon = daemon.spawn().expect("start criu lazy-pages");
    let socket = bundle.host("images").join("lazy-pages.socket");
    poll_until(LIMIT, || socket.exists().then_some(())).expect("the socket of criu lazy-pages");
    // The first one is there until its last page has gone, so this one needs another id.
    let restored = Container::new(&runtime, &bundle);
    let saved = count(&bundle);
    let images = bundle.host("images").display().to_string();
    restore(&restored, &["--lazy-pages", "--work-path", &images]).ok();
    counts_on(&bundle);
    assert!(count(&bundle) > saved);
    saving.wait_within(LIMIT).ok();
    assert_eq!(container.status(), "");
    assert!(daemon.wait().is_ok_and(|status| status.success()), "criu lazy-pages failed");
}

#[test]
fn file_locks() {
    let runtime = runtime!();
    // busybox has no flock(1) here: it is the host's.
    let mut bundle = Bundle::shell(&format!("/usr/bin/flock /lock sh -c '{COUNT}'"));
    bundle.set("/root/readonly", json!(false)).mount("/usr", "bind", "/usr", &["bind", "ro"]);
    for name in ["lib", "lib64"] {
        bundle.make_link(&format!("rootfs/{name}"), &format!("usr/{name}"));
    }
    let container = Container::new(&runtime, &bundle);
    run(&container);
    counts_on(&bundle);
    checkpoint(&container, &[]).fails(1, "criu cannot checkpoint the container: ").fails(1, "lock");
    there_and_back(&container, &["--file-locks"]);
    let free = Command::new("flock").args(["--nonblock"]).arg(bundle.rootfs().join("lock")).arg("true").status();
    assert!(free.is_ok_and(|status| !status.success()), "the lock is not held");
}

/// Docker and podman make the network themselves, and say so.
#[test]
fn an_empty_network() {
    let runtime = runtime!();
    let mut bundle = counting();
    bundle.namespace("network", "");
    let container = Container::new(&runtime, &bundle);
    run(&container);
    container.exec(&["--cap", "CAP_NET_ADMIN"], &["ip", "link", "add", "extra", "type", "dummy"]).ok();
    there_and_back(&container, &["--empty-ns", "network"]);
    let devices = container.exec(&[], &["ls", "/sys/class/net"]).ok().stdout;
    assert!(devices.contains("lo") && !devices.contains("extra"), "{devices}");
}

#[test]
fn a_socket_of_the_service_manager() {
    let runtime = runtime!();
    let mut bundle = Bundle::shell(&format!("probe --notify READY=1 >/dev/null; {COUNT}"));
    bundle.set("/root/readonly", json!(false));
    let manager = bundle.host("manager.sock");
    let _listening = std::os::unix::net::UnixDatagram::bind(&manager).expect("listen on a socket");
    let container = Container::new(&runtime, &bundle);
    let manager = manager.display().to_string();
    let create = container.background("create", &[]).env("NOTIFY_SOCKET", &manager);
    create.stdout(Stdio::null()).stderr(Stdio::null()).run().ok();
    // A start returns when the service manager has heard of it: this one never reads, so nothing waits for the start.
    container.start().ok();
    there_and_back(&container, &[]);
    container.exec(&[], &["ls", "/run/notify"]).ok();
}

#[test]
fn devices_of_the_host_are_not_saved() {
    let runtime = runtime!();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not rtx");
    }
    let mut bundle = counting();
    let name = format!("rd{:x}", std::process::id());
    let ip = |words: &[&str]| Command::new("ip").args(words).status().is_ok_and(|status| status.success());
    if !ip(&["link", "add", &name, "type", "dummy"]) {
        skip!("no dummy device can be made here");
    }
    bundle.namespace("network", "").set("/linux/netDevices", json!({ &name: { "name": "given" } }));
    {
        let container = Container::new(&runtime, &bundle);
        run(&container);
        // Not only at the restore, when it would be too late.
        checkpoint(&container, &[]).fails(1, "/linux/netDevices: ");
        assert_eq!(container.status(), "running");
    }
    // It is not hardware, so it has ended with the namespace.
    let _ = ip(&["link", "del", &name]);
}

/// What callers do, where nobody else uses them: in the guest. Ends the test elsewhere.
macro_rules! needs_caller {
    ($name:literal) => {
        if std::env::var_os("RTX_TEST_GUEST").is_none() || find_program($name).is_none() {
            skip!("what {} has here is left alone: this is for the guest", $name);
        }
    };
}

/// Runs a script to whose end all has to go well; its output.
#[track_caller]
fn script(text: &str) -> String {
    let output = Command::new("sh").args(["-e", "-c", text]).stdin(Stdio::null()).output().expect("run sh");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    text.into_owned()
}

/// podman takes no path of more than 50 characters, a socket none of more than 107, and how long the bundle's is depends on
/// where this repository is.
fn short_directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("rtx-").tempdir_in("/run").expect("make a directory")
}

#[test]
fn podman_saves_and_restores() {
    let runtime = runtime!();
    needs_caller!("podman");
    let bundle = counting();
    let places = short_directory();
    let text = script(&format!(
        "p() {{ podman --log-level error --root {dir}/root --runroot {dir}/run --storage-driver vfs --runtime {rtx} \
             --cgroup-manager cgroupfs --events-backend file --network-config-dir {dir}/net \"$@\"; }}
         p run --detach --name saved --network none --security-opt label=disable --rootfs {rootfs} /bin/sh -c '{COUNT}'
         while [ ! -e {rootfs}/count ]; do sleep 0.1; done
         p container checkpoint saved
         p ps --all --format '{{{{.Names}}}} {{{{.Status}}}}'
         p container restore saved
         p exec saved sh -c 'before=$(cat /count); while [ $(cat /count) = $before ]; do sleep 0.1; done; echo counts on'
         p rm --force --time 0 saved",
        dir = places.path().display(),
        rtx = runtime.program.display(),
        rootfs = bundle.rootfs().display(),
    ));
    assert!(text.contains("counts on"), "{text}");
}

/// `ctr` restores from an image in its registry alone, so this is the way there.
#[test]
fn containerd_saves() {
    let runtime = runtime!();
    needs_caller!("ctr");
    let bundle = counting();
    let places = short_directory();
    let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
    let config = bundle.make_file("containerd.toml", config).display().to_string();
    script(&format!(
        "containerd --config {config} --root {dir}/root --state {dir}/state --address {dir}/socket >{dir}/log 2>&1 &
         daemon=$!
         trap 'kill $daemon; wait $daemon || true' EXIT
         c() {{ ctr --address {dir}/socket \"$@\"; }}
         until c version >/dev/null 2>&1; do kill -0 $daemon; sleep 0.3; done
         c run --detach --rootfs --runc-binary {rtx} --runc-root {dir}/rtx {rootfs} saved \
             /bin/sh -c 'export PATH=/bin; {COUNT}'
         until [ -e {rootfs}/count ]; do sleep 0.1; done
         c task checkpoint --exit --image-path {images} saved
         until c task ls | grep -q 'saved.*STOPPED'; do sleep 0.3; done
         c task delete saved || true
         c container delete saved",
        dir = places.path().display(),
        rtx = runtime.program.display(),
        rootfs = bundle.rootfs().display(),
        images = bundle.make_dir("images").display(),
    ));
    assert!(bundle.host("images").join("inventory.img").exists(), "CRIU has written nothing");
}
