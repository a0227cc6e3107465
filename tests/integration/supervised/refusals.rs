use super::Supervised;
use crate::support::runtime::find_program;
use crate::support::{Bundle, Container, own_engine};
use std::os::unix::fs::PermissionsExt;

#[test]
fn callers_that_watch_themselves_are_refused() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exit 0");
    let container = Container::new(&runtime, &bundle);
    let flags = ["--supervise"];
    container.create_with(&["--supervise", "--console-socket", "/x"]).fails(1, "--console-socket");
    container.create_with(&["--supervise", "--pidfd-socket", "/x"]).fails(1, "--pidfd-socket");
    let conmon = container.background("create", &flags).env("_OCI_SYNCPIPE", "3").run();
    conmon.fails(1, "not for conmon (_OCI_SYNCPIPE is set)");
    // A shim is known by its name.
    let shim = runtime.scratch().join("containerd-shim-runc-v2");
    std::fs::write(&shim, "#!/bin/sh\n\"$@\"\nexit $?\n").expect("write a shim");
    std::fs::set_permissions(&shim, std::fs::Permissions::from_mode(0o755)).expect("chmod a shim");
    let shim = shim.display().to_string();
    container.background("create", &flags).through(&[&shim]).run().fails(1, "not for containerd-shim");
    if find_program("setpriv").is_some() {
        let call = container.background("create", &flags).through(&["setpriv", "--pdeathsig", "KILL"]);
        call.run().fails(1, "parent-death signal (9)");
    }
    assert!(container.state().is_none());
}

#[test]
fn flags_that_would_say_nothing_are_refused() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exit 0");
    let container = Container::new(&runtime, &bundle);
    container.run(&["--supervise"]).fails(1, "give --detach as well");
    container.create_with(&["--restart", "always"]).fails(1, "give --supervise as well");
    container.create_with(&["--supervise", "--restart", "maybe"]).fails(1, "none of no, on-failure");
    container
        .create_with(&["--supervise", "--output-file", "/nosuch/file"])
        .fails(1, "open /nosuch/file: no such file");
    container.create_with(&["--supervise", "--output-file", "/dev/full"]).fails(1, "invalid argument");
    assert!(container.state().is_none());
}

#[test]
fn an_engine_without_a_first_process_says_so() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exit 0");
    let mock = runtime.copy().with_flags(&["--engine", "mock"]);
    let container = Container::new(&mock, &bundle);
    container.create_with(&["--supervise"]).fails(1, "engine \"mock\" does not support supervised containers");
}

#[test]
fn the_configuration_file_may_ask_for_it() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let with = |name: &str, text: &str| {
        let path = runtime.scratch().join(name);
        std::fs::write(&path, text).expect("write a configuration");
        runtime.copy().with_flags(&["--config", &path.display().to_string()])
    };
    let always = with("always.json", r#"{"supervise":true,"supervision":{"output":{"format":"plain"}}}"#);
    let auto = with("auto.json", r#"{"supervise":"auto"}"#);
    let is_supervised = |container: &Container| container.shown()["mode"] == "supervised";

    let container = Container::new(&always, &bundle);
    container.create().ok();
    assert!(is_supervised(&container));
    let container = Container::new(&always, &bundle);
    let output = container.background("create", &[]).env("_OCI_SYNCPIPE", "3").run();
    output.fails(1, "the configuration file says");

    let container = Container::new(&auto, &bundle);
    container.create().ok();
    assert!(!is_supervised(&container), "create is what shims call");
    let container = Container::new(&auto, &bundle);
    container.run_detached(&[]).ok();
    assert!(is_supervised(&container));
    let container = Container::new(&auto, &bundle);
    container.background("run", &["--detach"]).env("_OCI_SYNCPIPE", "3").run().ok();
    assert!(!is_supervised(&container));
    container.pid();
    let wrong = with("wrong.json", r#"{"supervise":"yes"}"#);
    wrong.run(&["list"]).fails(1, "none of true, false and");
}

#[test]
fn rtx_does_not_watch_what_nobody_made() {
    let runtime = own_engine!();
    for words in [&["smaster"][..], &["smaster", "watch", "/", "c", "{}"], &["smaster", "again", "/", "c", "99"]] {
        let call = crate::support::runtime::Invocation::new(
            [&[&*runtime.program.display().to_string()], words]
                .concat()
                .iter()
                .map(|word| (*word).to_owned())
                .collect(),
            runtime.scratch().to_path_buf(),
        );
        call.run().fails(1, "smaster is not a command");
    }
}
