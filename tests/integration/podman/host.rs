//! What podman needs on this host, once a test process: an image, a configuration that names the runtime, and the
//! namespaces of a keeper.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::PATIENCE;
use crate::support::keeper::{self, Keeper, Kept, USER, USER_ID, installed};
use crate::support::runtime::{Invocation, engine, read_lossy};
use crate::support::{Output, Runtime, image};

/// The image's name in both users' storage.
pub const IMAGE: &str = "localhost/busybox:1";

/// Ends what the keeper's end leaves: there is no pid namespace.
const CLEANUP: &str = r#"cd /
"$dir/podman" pod rm --force --all --time 0
"$dir/podman" rm --force --all --time 0
"$dir/upodman" rm --force --all --time 0
"$dir/upodman" system migrate
# What a failed removal left: conmon and the payloads have the directory in their command lines or cgroups.
for process in /proc/[0-9]*; do
    pid=${process#/proc/}
    if [ "$pid" != $$ ] && tr '\0' ' ' < "$process/cmdline" 2> /dev/null | grep -q "conmon.*$dir/"; then kill -9 "$pid"; fi
done
while read -r _ _ _ _ point _; do
    case $point in "$dir"/*) umount -l "$point" ;; esac
done < /proc/self/mountinfo 2> /dev/null
"#;

/// Who calls podman.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    Root,
    User,
}

/// The podman of this test process.
pub struct Host {
    dir: PathBuf,
    runtime: String,
    keeper: Keeper,
}

/// Prepares podman at the first call; the reason when it cannot be used here.
pub fn host() -> Result<&'static Host, &'static str> {
    static HOST: OnceLock<Result<Host, String>> = OnceLock::new();
    HOST.get_or_init(Host::new).as_ref().map_err(String::as_str)
}

impl Host {
    fn new() -> Result<Host, String> {
        installed(&["podman", "conmon", "umoci", "unshare", "nsenter", "setsid"])?;
        let runtime = Runtime::under_test().program;
        let name = runtime.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !["rtx", "runc"].contains(&&*name) {
            return Err(format!("the runtime under test is called {name}, not rtx or runc"));
        }
        let dir = keeper::directory("podman");
        configure(&dir, &name);
        let keeper = Keeper::start(&dir, &runtime, Kept::Mounts);
        write_commands(&dir, &keeper.enter().join(" "));
        let host = Host { dir, runtime: name, keeper };
        image::build(&host.dir);
        fs::remove_dir_all(host.dir.join("unpacked")).expect("remove the unpacked image");
        host.pull(Who::Root);
        Ok(host)
    }

    /// The name by which podman knows the runtime.
    pub fn runtime(&self) -> &str {
        &self.runtime
    }

    /// Whether this is about rtx, and not the control.
    pub fn is_rtx(&self) -> bool {
        self.runtime == "rtx"
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The flag that puts a container's or a pod's cgroups where the keeper will remove what stays of them.
    pub fn cgroup_parent(&self) -> String {
        format!("--cgroup-parent=/{}", self.dir.file_name().expect("a directory name").display())
    }

    fn command(&self, who: Who) -> String {
        let name = if who == Who::Root { "podman" } else { "upodman" };
        self.dir.join(name).display().to_string()
    }

    /// Prepares a call of podman.
    pub fn call_as(&self, who: Who, args: &[&str]) -> Invocation {
        self.invoke(&self.command(who), args)
    }

    /// Calls root's podman.
    pub fn podman(&self, args: &[&str]) -> Output {
        self.call_as(Who::Root, args).run()
    }

    /// Runs a program in podman's mount namespace.
    pub fn enter(&self, words: &[&str]) -> Output {
        let enter = self.keeper.enter();
        let enter: Vec<&str> = enter.iter().map(String::as_str).collect();
        self.invoke(enter[0], &[&enter[1..], words].concat()).run()
    }

    /// Gives the image to the ordinary user too; the reason when the user's podman does not work on this host.
    pub fn prepare_user(&self) -> Result<(), String> {
        static READY: OnceLock<Result<(), String>> = OnceLock::new();
        let prepare = || {
            installed(&["newuidmap", "newgidmap", "setpriv"])?;
            let output = self.call_as(Who::User, &["unshare", "true"]).run();
            if output.code != 0 {
                let why = output.stderr.trim().to_owned();
                return Err(format!("podman unshare does not work for an ordinary user here: {why}"));
            }
            self.pull(Who::User);
            Ok(())
        };
        READY.get_or_init(prepare).clone()
    }

    fn invoke(&self, command: &str, args: &[&str]) -> Invocation {
        let mut words = vec![command.to_owned()];
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        Invocation::new(words, self.dir.join("calls")).within(PATIENCE)
    }

    fn pull(&self, who: Who) {
        let pulled = self.call_as(who, &["pull", "--quiet", &format!("oci:{}:1", self.dir.join("image").display())]);
        let id = pulled.run().ok().stdout;
        self.call_as(who, &["tag", id.trim(), IMAGE]).run().ok();
    }
}

/// Writes the configuration: the drop-in that rtx ships, with the runtime's place here, and what makes the runtime the
/// default on a host where root cannot raise every limit.
fn configure(dir: &Path, runtime: &str) {
    let drop_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/containers.conf.d/50-rtx.conf");
    let shipped = read_lossy(&drop_in);
    let line = format!("{runtime} = [\"{}\"]", dir.join(runtime).display());
    let adapted: Vec<&str> =
        shipped.lines().map(|given| if given.starts_with("rtx = ") { &line } else { given }).collect();
    let host = format!(
        "[containers]\n\
         default_ulimits=[\"nofile=1024:1024\",\"nproc=4096:4096\"]\n\
         [engine]\n\
         lock_type=\"file\"\n\
         runtime=\"{runtime}\"\n"
    );
    let place = dir.join("containers.conf.d");
    fs::create_dir(&place).expect("make a directory");
    fs::write(place.join("50-rtx.conf"), adapted.join("\n")).expect("write a configuration");
    fs::write(place.join("60-host.conf"), host).expect("write a configuration");
}

/// `podman` and `upodman`: podman with all its places below the directory, for root and for the ordinary user, in the
/// keeper's mount namespace.
fn write_commands(dir: &Path, enter: &str) {
    let flag = engine().map(|name| format!("--runtime-flag engine={name}")).unwrap_or_default();
    let d = dir.display();
    let podman = |places: String| {
        format!(
            "podman --root {places}/root --runroot {places}/run --tmpdir {places}/tmp --network-config-dir {places}/net \
             --cgroup-manager cgroupfs --events-backend file --storage-driver vfs --log-level error {flag} \"$@\""
        )
    };
    let root = format!("#!/bin/sh\nexport HOME={d}\nexec {enter} {}\n", podman(format!("{d}/of-root")));
    let user = format!(
        "#!/bin/sh\nexport HOME={d}/user/home XDG_RUNTIME_DIR={d}/user/xdg USER={USER}\n\
         exec {enter} env --chdir={d}/user setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups {}\n",
        podman(format!("{d}/user"))
    );
    let cleanup = format!("#!/bin/sh\ndir={d}\n{CLEANUP}");
    for (name, script) in [("podman", root), ("upodman", user), ("cleanup", cleanup)] {
        fs::write(dir.join(name), script).expect("write a command");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).expect("chmod a command");
    }
}
