//! A container as a service of a manager: sd_notify(3), and the session keyring that separates it from the caller's.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::support::children::poll_until;
use crate::support::{Bundle, Container, own_engine, skip};

/// A service manager: what it was told. The descriptor beside BARRIER=1 is closed by not being taken.
struct Manager {
    address: String,
    told: Arc<Mutex<Vec<String>>>,
}

impl Manager {
    fn new(dir: &Path) -> Manager {
        let path = dir.join("manager.sock");
        let socket = UnixDatagram::bind(&path).expect("listen on a socket");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
        let told: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = Arc::clone(&told);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer) {
                list.lock().expect("the list").push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            }
        });
        Manager { address: path.display().to_string(), told }
    }

    /// The first `count` messages, as soon as they are there.
    fn told(&self, count: usize) -> Vec<String> {
        let list = || self.told.lock().expect("the list").clone();
        poll_until(Duration::from_secs(10), || (list().len() >= count).then_some(()));
        list()
    }
}

/// A payload that is ready after a while and says several things before.
fn ready_later() -> Bundle {
    Bundle::shell(
        "env | grep NOTIFY; sleep 0.3; \
         probe --notify STATUS=starting --notify \"$(printf 'STATUS=up\\nREADY=1\\nMAINPID=1')\" >/dev/null; exec sleep 600",
    )
}

#[test]
fn start_returns_when_the_container_is_ready() {
    let runtime = own_engine!();
    for user in [0, 1000] {
        let mut bundle = ready_later();
        bundle.set("/process/user", json!({ "uid": user, "gid": user }));
        let manager = Manager::new(bundle.path());
        let container = Container::new(&runtime, &bundle);
        let call = container.background("create", &[]).env("NOTIFY_SOCKET", &manager.address);
        call.run().ok();
        let pid = container.pid();
        assert!(manager.told(0).is_empty());
        runtime.invoke(&["start", &container.id]).env("NOTIFY_SOCKET", &manager.address).run().ok();
        assert_eq!(manager.told(3), ["READY=1\n", &format!("MAINPID={pid}\n"), "BARRIER=1"]);
        assert_eq!(container.stdout(), "NOTIFY_SOCKET=/run/notify/notify.sock\n");
        // It is the container's alone: what joins it is not the service.
        assert_eq!(container.exec(&[], &["sh", "-c", "echo \"[$NOTIFY_SOCKET]\""]).ok().stdout, "[]\n");
    }
}

/// While it waits, the container can be told from others and ended.
#[test]
fn a_start_that_waits_holds_nobody_up() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo up; exec sleep 600");
    let manager = Manager::new(bundle.path());
    let container = Container::new(&runtime, &bundle);
    container.background("create", &[]).env("NOTIFY_SOCKET", &manager.address).run().ok();
    let start = runtime.invoke(&["start", &container.id]).env("NOTIFY_SOCKET", &manager.address).start();
    container.wait_stdout("up");
    assert_eq!(container.status(), "running");
    runtime.run(&["pause", &container.id]).ok();
    runtime.run(&["resume", &container.id]).ok();
    container.kill("KILL").ok();
    start.wait().ok();
    assert!(manager.told(0).is_empty());
}

#[test]
fn run_detached_waits_and_run_stays_the_main_process() {
    let runtime = own_engine!();
    let bundle = ready_later();
    let manager = Manager::new(bundle.path());
    let container = Container::new(&runtime, &bundle);
    container.background("run", &["--detach"]).env("NOTIFY_SOCKET", &manager.address).run().ok();
    assert_eq!(manager.told(3)[..2], ["READY=1\n", &format!("MAINPID={}\n", container.pid())]);

    let bundle = ready_later();
    let manager = Manager::new(bundle.path());
    let container = Container::new(&runtime, &bundle);
    let run = container.background("run", &[]).env("NOTIFY_SOCKET", &manager.address).start();
    assert_eq!(manager.told(2), ["READY=1\n", &format!("MAINPID={}\n", run.pid())]);
    container.kill("KILL").ok();
    assert_eq!(run.wait().code, 137);
}

#[test]
fn a_manager_that_is_not_there_is_an_error_before_the_start() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("echo ran");
    let container = Container::new(&runtime, &bundle);
    container.background("create", &[]).env("NOTIFY_SOCKET", "/nope.sock").run().ok();
    let start = runtime.invoke(&["start", &container.id]).env("NOTIFY_SOCKET", "/nope.sock").run();
    start.fails(1, "NOTIFY_SOCKET is set in the environment: connect to /nope.sock: no such file or directory");
    assert_eq!(container.status(), "created");
    container.pid();
    // Neither who created it nor who starts it need have one.
    container.start().ok();
    assert_eq!(container.wait_exit(), Some(0));
}

#[test]
fn without_a_notify_socket_there_is_nothing_of_it() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("env | grep NOTIFY; ls /run/notify 2>&1");
    let output = Container::new(&runtime, &bundle).run(&[]);
    assert!(output.stdout.contains("No such file"), "{}", output.stdout);
}

/// The session keyring has the container's id for a name, and whatever joins the container takes part in it.
#[test]
fn the_session_keyring_is_the_containers() {
    let runtime = own_engine!();
    if !Path::new("/proc/keys").exists() {
        skip!("the kernel has no keyrings");
    }
    const SHOW: &str = "grep -o '^[0-9a-f]*.* keyring *_ses[^:]*' /proc/keys | sed -E 's/ .* / /'";
    let bundle = || {
        let mut bundle = Bundle::shell(&format!("{SHOW}; exec sleep 600"));
        bundle.set("/linux/maskedPaths", json!([]));
        bundle
    };
    let own = bundle();
    let container = Container::new(&runtime, &own);
    container.run_detached(&[]).ok();
    let name = format!("_ses.{}", container.id);
    container.wait_stdout(&name);
    // Other containers' are there to be seen as well.
    let key = |text: &str| text.lines().find(|line| line.ends_with(&format!(" {name}"))).map(str::to_owned);
    let own_key = key(&container.stdout());
    assert!(own_key.is_some());
    assert_eq!(key(&container.exec(&[], &["sh", "-c", SHOW]).ok().stdout), own_key, "the same key");

    let shared = bundle();
    let container = Container::new(&runtime, &shared);
    container.run_detached(&["--no-new-keyring"]).ok();
    let name = format!("_ses.{}", container.id);
    assert!(!container.exec(&[], &["sh", "-c", SHOW]).ok().stdout.contains(&name));
    assert!(!container.stdout().contains(&name));
}
