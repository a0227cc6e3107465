//! Bundles: a directory with a root file system of busybox and the probe, and a configuration to change before it is
//! written. Each has a root of its own, since runtimes make mount points in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::children::poll_until;
use super::{leftover, payload};

/// A bundle in a temporary directory; `spec` is written to config.json when a runtime is about to use it.
pub struct Bundle {
    dir: TempDir,
    pub spec: Value,
    helpers: Mutex<Vec<Child>>,
}

impl Bundle {
    /// A bundle with the configuration of `runc spec` without a terminal, whose program is the probe.
    pub fn new() -> Bundle {
        let dir = tempfile::Builder::new().prefix("rtx-test-").tempdir().expect("make a bundle directory");
        // A mapped root of a user namespace has to get through.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod the bundle");
        let mut spec: Value = serde_json::from_str(include_str!("default_spec.json")).expect("default_spec.json");
        let mut args = vec!["/bin/probe".to_owned()];
        args.extend(host_namespaces());
        spec["process"]["args"] = json!(args);
        let bundle = Bundle { dir, spec, helpers: Mutex::default() };
        fill_rootfs(&bundle.rootfs());
        bundle
    }

    /// The default bundle with `script` run by a shell instead of the probe.
    pub fn shell(script: &str) -> Bundle {
        let mut bundle = Bundle::new();
        bundle.shell_payload(script);
        bundle
    }

    /// Runs `script` by a shell instead of the probe.
    pub fn shell_payload(&mut self, script: &str) -> &mut Bundle {
        self.args(&["/bin/sh", "-c", script])
    }

    /// A name that no other bundle has, for cgroups: what a runtime leaves of a cgroup path is removed with the bundle.
    pub fn name(&self) -> String {
        self.path().file_name().expect("a bundle directory").to_string_lossy().into_owned()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    /// A path of the host beside the root file system, for bind sources and hooks.
    pub fn host(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces process.args.
    pub fn args(&mut self, args: &[&str]) -> &mut Bundle {
        self.spec["process"]["args"] = json!(args);
        self
    }

    /// Adds arguments, for the probe.
    pub fn probe(&mut self, args: &[&str]) -> &mut Bundle {
        let list = self.spec["process"]["args"].as_array_mut().expect("process.args");
        list.extend(args.iter().map(|a| json!(a)));
        self
    }

    /// Adds an entry to `mounts`.
    pub fn mount(&mut self, destination: &str, kind: &str, source: &str, options: &[&str]) -> &mut Bundle {
        let mount = json!({ "destination": destination, "type": kind, "source": source, "options": options });
        self.spec["mounts"].as_array_mut().expect("mounts").push(mount);
        self
    }

    /// Takes the mount at `destination` out of `mounts`.
    pub fn unmount(&mut self, destination: &str) -> &mut Bundle {
        self.spec["mounts"].as_array_mut().expect("mounts").retain(|m| m["destination"] != destination);
        self
    }

    /// Replaces the options of the mount at `destination`.
    pub fn mount_options(&mut self, destination: &str, options: &[&str]) -> &mut Bundle {
        let mounts = self.spec["mounts"].as_array_mut().expect("mounts");
        let mount = mounts.iter_mut().find(|m| m["destination"] == destination).expect("a mount at the destination");
        mount["options"] = json!(options);
        self
    }

    /// Binds the host's /sys instead of mounting a new one, as `runc spec --rootless` does: sysfs belongs to the owner of
    /// the network namespace.
    pub fn bind_sys(&mut self) -> &mut Bundle {
        self.unmount("/sys/fs/cgroup").unmount("/sys");
        self.mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
    }

    /// Removes the property at a JSON pointer.
    pub fn remove(&mut self, pointer: &str) -> &mut Bundle {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        if let Some(object) = self.spec.pointer_mut(parent).and_then(Value::as_object_mut) {
            object.remove(key);
        }
        self
    }

    /// Sets the property at a JSON pointer whose parent exists.
    pub fn set(&mut self, pointer: &str, value: Value) -> &mut Bundle {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer");
        self.spec.pointer_mut(parent).expect("the parent of a property")[key] = value;
        self
    }

    /// Binds `source`, a name beside the root file system.
    pub fn bind(&mut self, source: &str, destination: &str, options: &[&str]) -> &mut Bundle {
        let source = self.host(source).display().to_string();
        self.mount(destination, "bind", &source, options)
    }

    /// Takes a namespace out of linux.namespaces.
    pub fn without_namespace(&mut self, kind: &str) -> &mut Bundle {
        self.namespaces().retain(|n| n["type"] != kind);
        self
    }

    /// Puts a namespace, with a path when it is not empty, in linux.namespaces.
    pub fn namespace(&mut self, kind: &str, path: &str) -> &mut Bundle {
        self.without_namespace(kind);
        let mut entry = json!({ "type": kind });
        if !path.is_empty() {
            entry["path"] = json!(path);
        }
        self.namespaces().push(entry);
        self
    }

    fn namespaces(&mut self) -> &mut Vec<Value> {
        self.spec["linux"]["namespaces"].as_array_mut().expect("linux.namespaces")
    }

    /// Gives all five capability sets the same members.
    pub fn capabilities(&mut self, names: &[&str]) -> &mut Bundle {
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            self.spec["process"]["capabilities"][set] = json!(names);
        }
        self
    }

    /// Makes a directory beside or, below "rootfs/", in the root file system.
    pub fn make_dir(&self, name: &str) -> PathBuf {
        let path = self.host(name);
        fs::create_dir_all(&path).expect("make a directory of the bundle");
        path
    }

    /// Makes a file, with its directories.
    pub fn make_file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.host(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make the directory of a file");
        fs::write(&path, content).expect("write a file of the bundle");
        path
    }

    /// Makes an executable shell script of the host, for hooks.
    pub fn make_script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.make_file(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod a script");
        path
    }

    /// Makes a symbolic link.
    pub fn make_link(&self, name: &str, target: &str) {
        symlink(target, self.host(name)).expect("make a link of the bundle");
    }

    /// Starts a process in namespaces of its own, as `unshare` makes them by `flags`, which lives as long as the bundle:
    /// its pid, once `script` has made it ready.
    pub fn helper(&self, flags: &[&str], script: &str) -> i32 {
        let ready = self.host("helper-ready");
        let script = format!("{script}\n> '{}'\nexec sleep 600", ready.display());
        let child = Command::new("unshare").args(flags).args(["sh", "-c", &script]).spawn().expect("run unshare");
        let pid = child.id().try_into().expect("a pid");
        self.helpers.lock().expect("the helpers").push(child);
        poll_until(Duration::from_secs(10), || ready.exists().then_some(())).expect("unshare failed");
        fs::remove_file(ready).expect("remove the sign of readiness");
        pid
    }

    /// As [`Bundle::helper`], in a user namespace with `map` for users and groups, which other `flags` belong to.
    pub fn mapped_helper(&self, flags: &[&str], map: &str) -> i32 {
        let pid = self.helper(&[&["--user"], flags].concat(), "");
        for file in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{pid}/{file}"), map).expect("map the ids of a helper");
        }
        pid
    }

    /// Writes config.json.
    pub fn write(&self) {
        let text = serde_json::to_vec_pretty(&self.spec).expect("serialise config.json");
        fs::write(self.host("config.json"), text).expect("write config.json");
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        for mut helper in self.helpers.get_mut().map(std::mem::take).unwrap_or_default() {
            let _ = helper.kill();
            let _ = helper.wait();
        }
        // The parents of a nested cgroupsPath: a runtime removes the last directory alone. Deepest first.
        for cgroup in leftover::cgroups(&self.name()).iter().rev() {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// The `--ns` arguments that tell the probe this process's namespaces.
fn host_namespaces() -> Vec<String> {
    let mut args = Vec::new();
    for name in ["pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time"] {
        if let Ok(target) = fs::read_link(format!("/proc/self/ns/{name}")) {
            let target = target.to_string_lossy().into_owned();
            let inode = target.split_once(":[").map_or("", |(_, i)| i.trim_end_matches(']'));
            args.extend(["--ns".to_owned(), format!("{name}={inode}")]);
        }
    }
    args
}

fn fill_rootfs(root: &Path) {
    for dir in ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr/bin", "var/run"] {
        fs::create_dir_all(root.join(dir)).expect("make the root file system");
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("chmod /tmp");
    for program in [payload::busybox(), payload::probe()] {
        let target = root.join("bin").join(program.file_name().expect("a file name"));
        // A hard link is a few microseconds, but not possible across file systems.
        if fs::hard_link(program, &target).is_err() {
            fs::copy(program, &target).expect("copy a program into the root file system");
        }
    }
    for applet in payload::applets().iter().filter(|a| *a != "busybox") {
        symlink("busybox", root.join("bin").join(applet)).expect("link an applet");
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nplain:x:1000:1000:Plain:/home:/bin/sh\n";
    fs::write(root.join("etc/passwd"), passwd).expect("write /etc/passwd");
    fs::write(root.join("etc/group"), "root:x:0:\ntty:x:5:\nplain:x:1000:\nextra:x:1001:plain\n")
        .expect("write /etc/group");
}
