//! What comes beside the binary: the Debian package, and the examples that are configuration of other programs.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::keeper::installed;
use crate::support::runtime::Invocation;
use crate::support::{Bundle, Output, Runtime, needs_root, own_engine, skip};

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a program with its outputs in `dir`.
fn call(dir: &Path, words: &[&str]) -> Output {
    Invocation::new(words.iter().map(|word| (*word).to_owned()).collect(), dir.to_path_buf())
        .start()
        .wait_within(std::time::Duration::from_secs(300))
}

/// Whether a package can be made here.
fn packaging() -> Result<(), String> {
    if !Runtime::under_test().is_rtx() {
        return Err("the runtime under test is not called rtx".to_owned());
    }
    installed(&["dpkg-deb", "make", "strip"])
}

/// Makes the package of the runtime under test.
fn package(dir: &Path) -> String {
    let script = source("contrib/build/deb").display().to_string();
    let binary = Runtime::under_test().program.display().to_string();
    call(dir, &[&script, &binary, &dir.display().to_string()]).ok().stdout.trim().to_owned()
}

#[test]
fn debian_package() {
    if let Err(reason) = packaging().and_then(|()| installed(&["lintian"])) {
        skip!("{reason}");
    }
    let dir = tempfile::tempdir().expect("make a directory");
    let package = package(dir.path());
    call(dir.path(), &["lintian", "--allow-root", "--fail-on", "error,warning", &package]).ok();

    let unpacked = dir.path().join("unpacked");
    call(dir.path(), &["dpkg-deb", "--extract", &package, &unpacked.display().to_string()]).ok();
    for name in [
        "usr/share/man/man1/rtx.1.gz",
        "usr/share/man/man1/rtx-run.1.gz",
        "usr/share/bash-completion/completions/rtx",
        "usr/share/zsh/vendor-completions/_rtx",
        "usr/share/fish/vendor_completions.d/rtx.fish",
        "usr/share/doc/rtx/integrations.md",
        "usr/share/doc/rtx/examples/bundles/hello/config.json",
        "usr/share/doc/rtx/examples/ci/run-in",
        "usr/share/doc/rtx/examples/kubernetes/containerd.toml",
        "usr/share/doc/rtx/examples/slurm/oci.conf",
    ] {
        assert!(unpacked.join(name).is_file(), "{name} is not in the package");
    }
    let drop_in = fs::read_to_string(unpacked.join("etc/containers/containers.conf.d/50-rtx.conf"));
    assert!(drop_in.expect("read the drop-in").contains("\nrtx = [\"/usr/bin/rtx\"]\n"));

    let mut runtime = own_engine!();
    runtime.program = unpacked.join("usr/bin/rtx");
    let bundle = Bundle::shell("echo from the package; exit 5");
    bundle.write();
    let output = runtime.run(&["run", "--bundle", &bundle.path().display().to_string(), "packaged"]);
    assert_eq!((output.code, &*output.stdout), (5, "from the package\n"), "{output:?}");
}

/// dpkg's own way in and out again, in a system that has nothing else: the binary needs nothing.
#[test]
fn debian_package_installed_and_purged() {
    needs_root!();
    if let Err(reason) = packaging() {
        skip!("{reason}");
    }
    let dir = tempfile::tempdir().expect("make a directory");
    let package = package(dir.path());
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("var/lib/dpkg/info")).expect("make dpkg's directories");
    fs::create_dir_all(root.join("var/lib/dpkg/updates")).expect("make dpkg's directories");
    fs::write(root.join("var/lib/dpkg/status"), "").expect("make dpkg's database");
    let target = format!("--root={}", root.display());
    call(dir.path(), &["dpkg", &target, "--install", &package]).ok();
    assert!(call(dir.path(), &["dpkg", &target, "--verify", "rtx"]).ok().stdout.is_empty());
    let version = call(dir.path(), &["chroot", &root.display().to_string(), "/usr/bin/rtx", "--version"]).ok().stdout;
    assert!(version.starts_with("rtx version "), "{version}");
    call(dir.path(), &["dpkg", &target, "--purge", "rtx"]).ok();
    for name in ["usr", "etc"] {
        assert!(!root.join(name).exists(), "/{name} is left");
    }
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Result<Value, String> {
    let dir = tempfile::tempdir().expect("make a directory");
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    if call(dir.path(), &["/usr/bin/python3", "-c", "import yaml"]).code != 0 {
        return Err("python3-yaml is not installed".to_owned());
    }
    let output = call(dir.path(), &["/usr/bin/python3", "-c", script, &source(path).display().to_string()]).ok();
    Ok(serde_json::from_str(&output.stdout).expect("JSON of Python"))
}

macro_rules! yaml {
    ($path:expr) => {
        match yaml($path) {
            Ok(documents) => documents,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn kubernetes_examples_name_the_handler() {
    let class = yaml!("contrib/kubernetes/runtimeclass.yaml");
    let handler = class[0]["handler"].as_str().expect("a handler");
    let containerd = fs::read_to_string(source("contrib/kubernetes/containerd.toml")).expect("read the configuration");
    assert!(containerd.contains(&format!(".containerd.runtimes.{handler}]")), "{handler}");
    let name = &class[0]["metadata"]["name"];
    assert_eq!(&yaml!("contrib/kubernetes/pod.yaml")[0]["spec"]["runtimeClassName"], name);
    assert_eq!(&yaml!("contrib/kubernetes/deployment.yaml")[0]["spec"]["template"]["spec"]["runtimeClassName"], name);
}

/// Runs a job's steps, all but the installation, as its runner does: by bash, in a copy of the project.
#[track_caller]
fn assert_job(steps: &[&Value]) {
    let runtime = Runtime::under_test();
    if !runtime.is_rtx() {
        skip!("the runtime under test is not called rtx");
    }
    if let Err(reason) = installed(&["bash", "jq", "busybox"]) {
        skip!("{reason}");
    }
    let project = tempfile::tempdir().expect("make a project");
    let bin = project.path().join("bin");
    for dir in [&bin, &project.path().join("contrib/ci")] {
        fs::create_dir_all(dir).expect("make a directory of the project");
    }
    fs::copy(source("contrib/ci/run-in"), project.path().join("contrib/ci/run-in")).expect("copy run-in");
    std::os::unix::fs::symlink(&runtime.program, bin.join("rtx")).expect("link rtx");
    std::os::unix::fs::symlink("/usr/bin/env", bin.join("sudo")).expect("make a sudo that needs no password");
    let mut last = String::new();
    for step in steps {
        let script = step.as_str().expect("a step's script");
        let words = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script].map(str::to_owned).to_vec();
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", bin.display());
        let call = Invocation::new(words, project.path().to_path_buf());
        let state = project.path().join("xdg").display().to_string();
        let output = call.env("PATH", &path).env("XDG_RUNTIME_DIR", &state).cwd(project.path()).run().ok();
        last = output.stdout;
    }
    assert!(last.starts_with("process 1 in /work\n"), "{last}");
    assert!(last.contains("\nrootfs\n"), "{last}");
}

#[test]
fn github_job() {
    let jobs = yaml!("contrib/ci/github-actions.yml");
    let steps = jobs[0]["jobs"]["test"]["steps"].as_array().expect("steps");
    assert_eq!(steps[1]["name"], "Install rtx");
    let rest: Vec<_> = steps[2..].iter().map(|step| &step["run"]).collect();
    assert_job(&rest);
}

#[test]
fn gitlab_job() {
    let jobs = yaml!("contrib/ci/gitlab-ci.yml");
    let lines = jobs[0]["test"]["script"].as_array().expect("a script");
    assert!(jobs[0]["test"]["before_script"].is_array());
    assert_job(&lines.iter().collect::<Vec<_>>());
}

/// A command that fails is a job that fails, and what it wrote outside of the working directory is gone.
#[test]
fn failing_job() {
    let runtime = Runtime::under_test();
    if let Err(reason) = installed(&["jq"]) {
        skip!("{reason}");
    }
    let bundle = Bundle::new();
    fs::create_dir(bundle.rootfs().join("work")).expect("make /work");
    let words = [
        source("contrib/ci/run-in").display().to_string(),
        bundle.rootfs().display().to_string(),
        "sh".to_owned(),
        "-c".to_owned(),
        "touch /left 2> /dev/null; echo kept > kept; exit 9".to_owned(),
    ];
    let state = bundle.host("xdg").display().to_string();
    let call = Invocation::new(words.to_vec(), bundle.path().to_path_buf());
    let call = call.env("RTX", &runtime.program.display().to_string()).env("XDG_RUNTIME_DIR", &state);
    assert_eq!(call.cwd(bundle.path()).run().code, 9);
    assert!(!bundle.rootfs().join("left").exists());
    assert_eq!(fs::read_to_string(bundle.host("kept")).expect("read what the job wrote"), "kept\n");
}
