//! A state directory on a file system that takes its time with everything, and that like NFS does not forget what is removed
//! while it is open.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::children::poll_until;
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime, own_engine, skip};

const PATIENCE: Duration = Duration::from_secs(120);

/// The mount, and the process that answers for it.
struct Slow {
    path: PathBuf,
    server: Child,
}

impl Slow {
    fn mount(runtime: &Runtime) -> Result<Slow, String> {
        let [source, path] = ["source", "slow"].map(|name| runtime.scratch().join(name));
        for directory in [&source, &path] {
            std::fs::create_dir(directory).expect("make a directory");
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/support/slow_files.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(script).args([&source, &path]).arg("3").stdin(Stdio::null()).stderr(Stdio::piped());
        let mut server = command.spawn().map_err(|error| format!("python3: {error}"))?;
        let mounted = || read_lossy(Path::new("/proc/self/mountinfo")).contains(&format!(" {} ", path.display()));
        let outcome =
            poll_until(
                PATIENCE,
                || {
                    if mounted() { Some(true) } else { server.try_wait().ok().flatten().map(|_| false) }
                },
            );
        if outcome == Some(true) {
            return Ok(Slow { path, server });
        }
        let _ = server.kill();
        let output = server.wait_with_output().expect("wait for python3");
        Err(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned())
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Commands that meet find no half of anything, and nothing stays.
#[test]
fn a_container_lives() {
    let runtime = own_engine!();
    if !Path::new("/dev/fuse").exists() {
        skip!("no /dev/fuse");
    }
    let root = runtime.scratch().join("slow/state");
    let runtime = runtime.with_flags(&["--root", &root.display().to_string()]);
    // Gone before the directory that it is in.
    let _slow = match Slow::mount(&runtime) {
        Ok(slow) => slow,
        Err(why) => skip!("no file system can be made with python3 and fusepy: {why}"),
    };
    let bundle = Bundle::shell("echo right; exec sleep 600");
    for round in 0..3 {
        let container = Container::new(&runtime, &bundle);
        let patiently = |words: &[&str]| runtime.invoke(words).start().wait_within(PATIENCE);
        let flags: &[&str] = if round == 2 { &["--detach", "--supervise"] } else { &["--detach"] };
        let creating = container.background("run", flags).start();
        poll_until(PATIENCE, || root.read_dir().ok()?.next().map(drop)).expect("the container's directory");
        let (state, list) = (patiently(&["state", &container.id]), patiently(&["list", "--quiet"]));
        assert!(state.code == 0 || state.stderr.contains("does not exist"), "{}", state.stderr);
        assert_eq!(list.code, 0, "{}", list.stderr);
        creating.wait_within(PATIENCE).ok();
        container.exec_call(&[], &["true"]).start().wait_within(PATIENCE).ok();
        patiently(&["update", "--pids-limit", "50", &container.id]).ok();
        if round == 1 {
            let commands = ["kill", "delete"].map(|verb| runtime.invoke(&[verb, &container.id]).start());
            for output in commands.map(|command| command.wait_within(PATIENCE)) {
                assert!(output.code < 2, "{}", output.stderr);
            }
        }
        patiently(&["delete", "--force", &container.id]).ok();
        let names: Vec<_> = root.read_dir().expect("read the state directory").flatten().collect();
        assert!(names.is_empty(), "{names:?} are left");
    }
}
