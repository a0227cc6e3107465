//! What podman needs on this host, once a test process: an image, a configuration that names rtx, and a mount namespace
//! of its own, kept by `keeper.sh`, which also removes everything when the test process has ended.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::support::runtime::{Invocation, engine};
use crate::support::{Output, Runtime, image};

/// The image's name in both users' storage.
pub const IMAGE: &str = "localhost/busybox:1";
/// The ordinary user, who exists in the keeper's mount namespace alone.
const USER: &str = "rtxtest";
const USER_ID: &str = "54321";

/// The podman of this test process.
pub struct Host {
    dir: PathBuf,
    /// Holding its stdin open is what keeps it waiting.
    keeper: Child,
}

/// Prepares podman at the first call; the reason when it cannot be used here.
pub fn host() -> Result<&'static Host, &'static str> {
    static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
    HOST.get_or_init(Host::new).as_ref().map_err(String::as_str)
}

/// Whether all of these programs are installed.
pub fn installed(programs: &[&str]) -> Result<(), String> {
    for program in programs {
        let found = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
            .iter()
            .any(|dir| Path::new(dir).join(program).exists());
        if !found {
            return Err(format!("{program} is not installed"));
        }
    }
    Ok(())
}

impl Host {
    fn new() -> Result<Host, String> {
        installed(&["podman", "conmon", "umoci", "unshare", "nsenter", "setsid"])?;
        let runtime = Runtime::under_test();
        if !runtime.is_rtx() {
            return Err("the runtime under test is not called rtx".to_owned());
        }
        // podman derives an image's name from its path, and wants lower case.
        let dir = std::env::temp_dir().join(format!("rtx-podman-{}", std::process::id()));
        fs::create_dir(&dir).expect("make podman's directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod podman's directory");
        fs::write(dir.join("containers.conf"), configuration(&dir)).expect("write containers.conf");
        let keeper = keep(&dir, &runtime.program);
        write_commands(&dir, keeper.id());
        let host = Host { dir, keeper };
        image::build(&host.dir);
        fs::remove_dir_all(host.dir.join("unpacked")).expect("remove the unpacked image");
        host.pull(&host.root_command());
        Ok(host)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The flag that puts a container's or a pod's cgroups where the keeper will remove what stays of them.
    pub fn cgroup_parent(&self) -> String {
        format!("--cgroup-parent=/{}", self.dir.file_name().expect("a directory name").display())
    }

    fn root_command(&self) -> String {
        self.dir.join("podman").display().to_string()
    }

    fn user_command(&self) -> String {
        self.dir.join("upodman").display().to_string()
    }

    /// Prepares a call of root's podman.
    pub fn call(&self, args: &[&str]) -> Invocation {
        self.invoke(&self.root_command(), args)
    }

    /// Calls root's podman.
    pub fn podman(&self, args: &[&str]) -> Output {
        self.call(args).run()
    }

    /// Runs a program in podman's mount namespace.
    pub fn enter(&self, words: &[&str]) -> Output {
        let target = self.keeper.id().to_string();
        self.invoke("nsenter", &[&["--target", &*target, "--mount"], words].concat()).run()
    }

    /// Calls the ordinary user's podman.
    pub fn as_user(&self, args: &[&str]) -> Output {
        self.invoke(&self.user_command(), args).run()
    }

    /// Gives the image to the ordinary user too; the reason when the user's podman does not work on this host.
    pub fn prepare_user(&self) -> Result<(), String> {
        static READY: OnceLock<Result<(), String>> = OnceLock::new();
        let prepare = || {
            installed(&["newuidmap", "newgidmap", "setpriv"])?;
            let output = self.as_user(&["unshare", "true"]);
            if output.code != 0 {
                return Err(format!(
                    "podman unshare does not work for an ordinary user here: {}",
                    output.stderr.trim()
                ));
            }
            self.pull(&self.user_command());
            Ok(())
        };
        READY.get_or_init(prepare).clone()
    }

    fn invoke(&self, command: &str, args: &[&str]) -> Invocation {
        let mut words = vec![command.to_owned()];
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        Invocation::new(words, self.dir.join("calls"))
    }

    fn pull(&self, command: &str) {
        let pulled = self.invoke(command, &["pull", "--quiet", &format!("oci:{}:1", self.dir.join("image").display())]);
        let id = pulled.run().ok().stdout;
        self.invoke(command, &["tag", id.trim(), IMAGE]).run().ok();
    }
}

/// Limits that a root without CAP_SYS_RESOURCE can set, and the features of rtx that podman knows only by its name.
fn configuration(dir: &Path) -> String {
    format!(
        "[containers]\n\
         default_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n\
         [engine]\n\
         lock_type=\"file\"\n\
         runtime=\"rtx\"\n\
         runtime_supports_json=[\"rtx\"]\n\
         runtime_supports_nocgroup=[\"rtx\"]\n\
         runtime_supports_nocgroups=[\"rtx\"]\n\
         [engine.runtimes]\n\
         rtx=[\"{}\"]\n",
        dir.join("rtx").display()
    )
}

fn keep(dir: &Path, runtime: &Path) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/podman/keeper.sh");
    fs::create_dir(dir.join("calls")).expect("make the directory of outputs");
    let log = fs::File::create(dir.join("keeper.log")).expect("make the keeper's log");
    // A session of its own: an interrupt from the keyboard must not end it before it has cleaned up.
    let mut keeper = Command::new("setsid")
        .args(["unshare", "--mount", "--propagation", "slave", "sh"])
        .arg(script)
        .args([dir.as_os_str(), runtime.as_os_str(), USER.as_ref(), USER_ID.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("start the keeper");
    let mut line = String::new();
    let stdout = keeper.stdout.take().expect("the keeper's stdout");
    BufReader::new(stdout).read_line(&mut line).expect("hear from the keeper");
    let log = crate::support::runtime::read_lossy(&dir.join("keeper.log"));
    assert_eq!(line, "ready\n", "the keeper failed: {log}");
    keeper
}

/// `podman` and `upodman`: podman with all its places below the directory, for root and for the ordinary user, in the
/// keeper's mount namespace.
fn write_commands(dir: &Path, keeper: u32) {
    let flag = engine().map(|name| format!("--runtime-flag engine={name}")).unwrap_or_default();
    let d = dir.display();
    let podman = |places: String| {
        format!(
            "podman --root {places}/root --runroot {places}/run --tmpdir {places}/tmp --network-config-dir {places}/net \
             --cgroup-manager cgroupfs --events-backend file --storage-driver vfs --log-level error {flag} \"$@\""
        )
    };
    let enter = format!("nsenter --target {keeper} --mount");
    let root = format!(
        "#!/bin/sh\nexport CONTAINERS_CONF={d}/containers.conf HOME={d}\nexec {enter} {}\n",
        podman(format!("{d}/of-root"))
    );
    let user = format!(
        "#!/bin/sh\nexport CONTAINERS_CONF={d}/containers.conf HOME={d}/user/home XDG_RUNTIME_DIR={d}/user/xdg USER={USER}\n\
         exec {enter} --wd={d}/user setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups {}\n",
        podman(format!("{d}/user"))
    );
    for (name, script) in [("podman", root), ("upodman", user)] {
        fs::write(dir.join(name), script).expect("write a command");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).expect("chmod a command");
    }
}
