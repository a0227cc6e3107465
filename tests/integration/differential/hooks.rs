//! Hooks: their order, what they get on stdin, their environment, directory and namespaces, and what their failure does.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Report, cases, lifecycle};
use crate::support::runtime::read_lossy;
use crate::support::{Bundle, Container, Runtime};

const POINTS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

/// The hooks that run with the host's root file system before them.
const OUTSIDE: [&str; 5] = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];

/// A hook that notes in the bundle's "log-NAME" files what it sees; startContainer can only reach a mount.
fn noting_script(bundle: &Bundle, directory: &str) -> String {
    let namespace =
        |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap_or_default().display().to_string();
    let mut script = format!(
        "name=$1; log={directory}/log-$name; echo $name >> {directory}/order; cat > $log.state; pwd > $log.cwd\n"
    );
    script += "env | grep -v -e ^PWD= -e ^SHLVL= -e ^_= | sort > $log.env; ls /proc/self/fd | wc -w > $log.fds; umask > $log.umask; echo \"$0 $@\" > $log.args\n";
    for name in ["mnt", "net", "pid", "uts", "ipc"] {
        script += &format!(
            "[ \"$(readlink /proc/self/ns/{name})\" = '{}' ] && echo {name} host >> $log.ns || echo {name} new >> $log.ns\n",
            namespace(name)
        );
    }
    let _ = bundle;
    script
}

/// All six hooks, each noting what it sees.
fn all_hooks(bundle: &mut Bundle, env: &Value) {
    bundle.make_dir("log");
    let log = bundle.host("log").display().to_string();
    let outside = bundle.make_script("hook", &noting_script(bundle, &log)).display().to_string();
    bundle.make_script("rootfs/usr/bin/hook", &noting_script(bundle, "/log"));
    bundle.bind("log", "/log", &["bind", "rw"]);
    let mut hooks = Map::new();
    for point in POINTS {
        let path = if OUTSIDE.contains(&point) { &*outside } else { "/usr/bin/hook" };
        hooks.insert(point.to_owned(), json!([{ "path": path, "args": ["hook", point], "env": env }]));
    }
    bundle.set("/hooks", Value::Object(hooks));
}

/// The notes of the hooks; the state with its pid replaced.
fn notes(directory: &Path) -> Value {
    let mut notes = Map::new();
    let mut names: Vec<_> = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|e| e.path()).collect();
    names.sort();
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = read_lossy(&path);
        let note = match serde_json::from_str::<Value>(&text) {
            Ok(mut state) if name.ends_with(".state") => {
                state["pid"] = json!(state["pid"].as_i64().is_some_and(|p| p > 1));
                state
            }
            _ => json!(text.lines().collect::<Vec<_>>()),
        };
        notes.insert(name, note);
    }
    Value::Object(notes)
}

fn noted(runtime: &Runtime, env: Value, build: impl Fn(&mut Bundle)) -> Value {
    let mut bundle = Bundle::shell("echo payload >> /log/order");
    all_hooks(&mut bundle, &env);
    build(&mut bundle);
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    report.step("create", &container.create());
    report.add("order_after_create", json!(read_lossy(&bundle.host("log/order"))));
    report.step("start", &container.start());
    report.add("exit", json!(container.wait_exit()));
    report.step("delete", &container.delete(&[]));
    report.add("notes", notes(&bundle.host("log")));
    report.finish(&container)
}

/// One hook at `point` that is a shell script of the host (or of the container, for startContainer).
fn one(runtime: &Runtime, point: &str, script: &str, more: &Value) -> Value {
    let mut bundle = Bundle::shell("echo payload");
    let inside = point == "startContainer";
    let file = bundle.make_script(if inside { "rootfs/usr/bin/hook" } else { "hook" }, script).display().to_string();
    let mut hook = json!({ "path": if inside { "/usr/bin/hook" } else { &*file } });
    for (key, value) in more.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    let mut hooks = Map::new();
    hooks.insert(point.to_owned(), json!([hook]));
    bundle.set("/hooks", Value::Object(hooks));
    lifecycle(runtime, &bundle)
}

/// Two poststop hooks, of which the second fails, in a life that `build` may spoil: how often the first ran, and with what
/// status on its standard input. `command` is create, or run, which deletes as well.
fn poststop_after(runtime: &Runtime, command: &str, build: impl Fn(&mut Bundle)) -> Value {
    let mut bundle = Bundle::shell("echo payload");
    let log = bundle.host("poststop").display().to_string();
    let script = bundle.make_script("poststop-hook", &format!("cat >> {log}; echo >> {log}; pwd >> {log}"));
    let failing = bundle.make_script("failing-hook", "exit 3");
    bundle.set("/hooks", json!({ "poststop": [{ "path": script }, { "path": failing }] }));
    build(&mut bundle);
    let container = Container::new(runtime, &bundle);
    let mut report = Report::default();
    let output = if command == "run" { container.run(&[]) } else { container.create() };
    if report.step(command, &output) && command == "create" {
        report.step("start", &container.start());
        report.add("exit", json!(container.wait_exit()));
        report.add("before_delete", json!(read_lossy(log.as_ref())));
        report.step("delete", &container.delete(&[]));
    }
    report.add("status", json!(container.status()));
    let text = read_lossy(log.as_ref());
    let lines = text.lines().map(|line| match serde_json::from_str::<Value>(line) {
        Ok(state) => {
            json!({ "status": state["status"], "pid": state["pid"], "id": state["id"], "bundle": state["bundle"] })
        }
        Err(_) => json!(line),
    });
    report.add("poststop", lines.collect());
    report.finish(&container)
}

/// A hook of `point` that fails, before another that must not run then.
fn spoiled(b: &mut Bundle, point: &str, mark: &Path) {
    let (name, path) = if point == "startContainer" { ("rootfs/usr/bin/bad", "/usr/bin/bad") } else { ("bad", "") };
    let file = b.make_script(name, "exit 5").display().to_string();
    let second = b.make_script("second-hook", &format!("echo ran >> {}", mark.display())).display().to_string();
    let first = json!({ "path": if path.is_empty() { &*file } else { path } });
    b.spec["hooks"][point] = json!([first, { "path": second }]);
}

/// The same, and whether the second hook ran.
fn spoiled_by(runtime: &Runtime, command: &str, point: &str) -> Value {
    // Beside the bundle, which is gone when the life has been looked at.
    let second = runtime.scratch().join("second-ran");
    let mut value = poststop_after(runtime, command, |b| spoiled(b, point, &second));
    value["second_ran"] = json!(second.exists());
    value
}

/// `run` with a hook that takes too long.
fn spoiled_run(runtime: &Runtime, point: &str) -> Value {
    let mut bundle = Bundle::shell("exec sleep 600");
    bundle.set("/hooks", json!({ point: [{ "path": "/bin/sleep", "args": ["sleep", "20"], "timeout": 1 }] }));
    super::foreground(runtime, &bundle, &[])
}

/// A hook that fails at `point`.
fn failing(runtime: &Runtime, point: &str) -> Value {
    one(runtime, point, "echo oh no >&2; exit 7", &json!({}))
}

/// A container that `build` has changed, with a hook of `point` that is a script of the host, which finds init's pid in $pid.
fn prepared_by(runtime: &Runtime, point: &str, script: &str, build: impl Fn(&mut Bundle)) -> Value {
    let mut bundle = Bundle::new();
    let script = format!("pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/')\ncd '{}'\n{script}", bundle.path().display());
    let hook = bundle.make_script("hook", &script);
    bundle.set("/hooks", json!({ point: [{ "path": hook, "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"] }] }));
    build(&mut bundle);
    lifecycle(runtime, &bundle)
}

/// Kernel parameters of an interface that the hook makes.
fn parameter_of_interface(runtime: &Runtime, point: &str) -> Value {
    let busybox = "rootfs/bin/busybox ip link set lo";
    let script = format!("nsenter -t $pid -n {busybox} down && nsenter -t $pid -n {busybox} name eth0");
    prepared_by(runtime, point, &script, |b| {
        b.set("/linux/sysctl", json!({ "net.ipv4.conf.eth0.forwarding": "1" }));
        b.shell_payload("cat /proc/sys/net/ipv4/conf/eth0/forwarding");
    })
}

/// A working directory on what the hook mounts.
fn directory_on_mount(runtime: &Runtime, point: &str) -> Value {
    let script = "nsenter -t $pid -m mount -t tmpfs none \"$PWD/rootfs/mnt\"";
    prepared_by(runtime, point, script, |b| {
        b.make_dir("rootfs/mnt");
        b.set("/process/cwd", json!("/mnt/sub")).shell_payload("pwd; stat -c %a .; stat -f -c %T .");
    })
}

cases! {
    "hooks";
    flow parameter_of_interface_of_prestart => |r| parameter_of_interface(r, "prestart");
    flow parameter_of_interface_of_create_runtime => |r| parameter_of_interface(r, "createRuntime");
    flow directory_on_mount_of_prestart => |r| directory_on_mount(r, "prestart");
    flow directory_on_mount_of_create_runtime => |r| directory_on_mount(r, "createRuntime");
    flow all => |r| noted(r, json!(["A=b", "PATH=/bin:/usr/bin"]), |_| {});
    flow all_without_env => |r| noted(r, json!([]), |_| {});
    flow all_with_the_env_around_them => |r| noted(r, json!([]), |b| {
        b.set("/process/env", json!(["PATH=/bin:/usr/bin", "ONE=two", "HOME=/tmp"]));
        for point in POINTS {
            b.remove(&format!("/hooks/{point}/0/env"));
        }
    });
    flow all_in_user_namespace => |r| noted(r, json!(["PATH=/bin:/usr/bin"]), |b| {
        let map = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        b.namespace("user", "").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    });
    flow state_has_annotations => |r| noted(r, json!(["PATH=/bin:/usr/bin"]), |b| { b.set("/annotations", json!({ "org.example": "x" })); });
    flow two_at_one_point => |r| noted(r, json!(["PATH=/bin:/usr/bin"]), |b| {
        let hook = b.spec["hooks"]["createRuntime"][0].clone();
        b.spec["hooks"]["createRuntime"].as_array_mut().expect("hooks").push(hook);
    });
    flow failing_prestart => |r| failing(r, "prestart");
    flow failing_create_runtime => |r| failing(r, "createRuntime");
    flow failing_create_container => |r| failing(r, "createContainer");
    flow failing_start_container => |r| failing(r, "startContainer");
    flow failing_poststart => |r| failing(r, "poststart");
    flow poststop_after_a_life => |r| poststop_after(r, "create", |_| {});
    flow poststop_goes_on_after_a_failure => |r| poststop_after(r, "create", |b| {
        b.spec["hooks"]["poststop"].as_array_mut().expect("hooks").reverse();
    });
    flow poststop_after_run => |r| poststop_after(r, "run", |_| {});
    flow poststop_after_prestart => |r| spoiled_by(r, "create", "prestart");
    flow poststop_after_create_runtime => |r| spoiled_by(r, "create", "createRuntime");
    flow poststop_after_create_container => |r| spoiled_by(r, "create", "createContainer");
    flow poststop_after_run_with_start_container => |r| spoiled_by(r, "run", "startContainer");
    flow poststop_after_run_with_poststart => |r| spoiled_by(r, "run", "poststart");
    flow poststop_after_missing_program => |r| poststop_after(r, "create", |b| { b.args(&["/nope"]); });
    flow poststop_after_run_of_missing_program => |r| poststop_after(r, "run", |b| { b.args(&["/nope"]); });
    flow poststop_after_failed_mount => |r| poststop_after(r, "create", |b| { b.mount("/mnt", "nosuchfs", "x", &[]); });
    flow poststop_after_failed_bind => |r| poststop_after(r, "create", |b| { b.bind("not-there", "/mnt", &["bind"]); });
    flow failing_poststop => |r| failing(r, "poststop");
    flow timeout => |r| one(r, "createRuntime", "exec sleep 20", &json!({ "timeout": 1 }));
    // It leaves the group that it leads.
    flow timeout_of_one_in_another_group => |r| one(r, "createRuntime", "exec perl -e 'setpgrp(0, getpgrp(getppid)); sleep 600'", &json!({ "timeout": 1 }));
    flow timeout_of_prestart => |r| one(r, "prestart", "exec sleep 20", &json!({ "timeout": 1 }));
    flow timeout_of_create_container => |r| one(r, "createContainer", "exec sleep 20", &json!({ "timeout": 1 }));
    flow timeout_of_poststop => |r| one(r, "poststop", "exec sleep 20", &json!({ "timeout": 1 }));
    flow timeout_of_start_container_in_run => |r| spoiled_run(r, "startContainer");
    flow timeout_of_poststart_in_run => |r| spoiled_run(r, "poststart");
    flow timeout_not_reached => |r| one(r, "createRuntime", "sleep 0.1", &json!({ "timeout": 5 }));
    flow missing => |r| one(r, "prestart", "true", &json!({ "path": "/nope" }));
    flow relative_path => |r| one(r, "prestart", "true", &json!({ "path": "hook" }));
    flow changes_root_file_system => |r| {
        let mut bundle = Bundle::shell("cat /etc/from-hook");
        let target = bundle.host("rootfs/etc/from-hook").display().to_string();
        let script = bundle.make_script("hook", &format!("echo from hook > {target}")).display().to_string();
        bundle.set("/hooks", json!({ "createRuntime": [{ "path": script }] }));
        lifecycle(r, &bundle)
    };
    flow mounts_in_container => |r| {
        let mut bundle = Bundle::shell("cat /tmp/from-hook; grep -c ' /tmp ' /proc/self/mountinfo");
        let target = bundle.host("rootfs/tmp").display().to_string();
        let script = bundle.make_script("hook", &format!("mount -t tmpfs hook {target} && echo x > {target}/from-hook")).display().to_string();
        bundle.set("/hooks", json!({ "createContainer": [{ "path": script, "env": ["PATH=/bin:/usr/bin"] }] }));
        lifecycle(r, &bundle)
    };
}
