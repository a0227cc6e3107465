//! A site: the namespaces in which one caller works with one runtime.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::support::keeper::{self, Keeper, Kept, installed};
use crate::support::runtime::{Invocation, find_program};
use crate::support::{Output, Runtime, image, report_skip};

/// Daemons that work on other containers meanwhile, on a busy machine, answer late. Only what hangs takes so long.
const TIME_LIMIT: Duration = Duration::from_secs(900);

/// What every site's scripts have. $D is its directory, $RT the runtime in it, $Y a name of its own; $SYSTEMD says
/// whether that makes the cgroups.
const COMMON: &str = r#"
# How long one command of a caller may take.
LIMIT=300
await() { end=$(($(date +%s) + LIMIT)); until eval "$1"; do [ $(date +%s) -lt $end ] || { echo "never: $1" >&2; return 1; }; sleep 0.1; done; }
# What containerd gives its shims, and gives up on in a few seconds where a machine is slow: it forgets containers then.
patience() { echo '[timeouts]'; for of in shim.cleanup shim.load shim.shutdown task.state; do echo "\"io.containerd.timeout.$of\" = \"${LIMIT}s\""; done; }
# containerd at $D/c.sock, for itself and below Docker.
containerd_start() {
    cat > $D/containerd.toml << END
version = 2
root = "$D/root"
state = "$D/run"
oom_score = 0
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$D/c.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "$D/opt"
$(patience)
END
    setsid containerd -c $D/containerd.toml >> $D/containerd.log 2>&1 < /dev/null &
    echo $! > $D/containerd.pid
    await 'ctr -a $D/c.sock version > /dev/null 2>&1'
}
"#;

/// Whether this is the machine of contrib/guest, which ends after the tests, and which systemd runs.
pub fn in_guest() -> bool {
    std::env::var_os("RTX_TEST_GUEST").is_some()
}

/// What has to be known of a caller to start it.
pub struct Caller {
    pub name: &'static str,
    /// The programs that it consists of, and which packages they come from.
    pub programs: &'static [&'static str],
    pub packages: &'static str,
    /// Shell functions for all scripts, beside the common ones.
    pub functions: &'static str,
    /// Starts the daemons and loads the image; returns when they answer.
    pub setup: &'static str,
    pub sites: OnceLock<Result<Vec<Site>, String>>,
}

/// One caller with one runtime.
pub struct Site {
    caller: &'static Caller,
    pub runtime: String,
    pub dir: PathBuf,
    keeper: Keeper,
}

impl Caller {
    /// The caller with the packaged runc, the control, and with the runtime under test, which may be that one; none and
    /// the reason where it cannot run.
    pub fn sites(&'static self) -> Result<&'static [Site], &'static str> {
        let made = self.sites.get_or_init(|| {
            installed(self.programs).map_err(|e| format!("{e} (package {})", self.packages))?;
            installed(&["tini-static", "umoci", "nsenter", "unshare", "ip", "script", "setpriv"])?;
            let tested = Runtime::under_test().program;
            let name = |program: &Path| program.file_name().map(ToOwned::to_owned);
            if ![Some("rtx".into()), Some("runc".into())].contains(&name(&tested)) {
                return Err(format!("the runtime under test is {}, not called rtx or runc", tested.display()));
            }
            let control = find_program("runc");
            if control.is_none() {
                report_skip(self.name, "without its control: runc is not installed");
            }
            let control = control.filter(|program| name(program) != name(&tested));
            Ok(control.into_iter().chain([tested]).map(|program| Site::start(self, &program)).collect())
        });
        made.as_deref().map_err(String::as_str)
    }
}

impl Site {
    fn start(caller: &'static Caller, program: &Path) -> Site {
        let runtime = program.file_name().expect("a program").to_string_lossy().into_owned();
        let dir = keeper::directory(&format!("{}-{runtime}", caller.name));
        image::build(&dir);
        let keeper = Keeper::start(&dir, program, if in_guest() { Kept::Network } else { Kept::All });
        let site = Site { caller, runtime, dir, keeper };
        let output = site.sh(caller.setup);
        assert_eq!(output.code, 0, "{} did not start with {}: {output:?}", caller.name, site.runtime);
        site
    }

    /// Runs a shell script in the site.
    pub fn sh(&self, script: &str) -> Output {
        self.call(script).start().wait_within(TIME_LIMIT)
    }

    /// Prepares a shell script in the site.
    pub fn call(&self, script: &str) -> Invocation {
        // A failed test shows the runtime that it failed with.
        println!("with {}: {script}", self.runtime);
        let dir = self.dir.display();
        let name = self.dir.file_name().expect("a name").display();
        let prelude = format!(
            "D={dir} RT={dir}/{} Y={name} SYSTEMD={}\n{COMMON}{}",
            self.runtime,
            in_guest(),
            self.caller.functions
        );
        let mut words = self.keeper.enter();
        words.extend(["sh".to_owned(), "-c".to_owned(), format!("{prelude}\n{script}")]);
        Invocation::new(words, self.dir.join("calls")).env("HOME", &dir.to_string())
    }

    /// Fails the test unless the shell function `left`, given `what`, comes to print nothing.
    #[track_caller]
    pub fn assert_gone(&self, what: &str) {
        let output = self.sh(&format!("await '[ -z \"$(left {what})\" ]' || left {what}"));
        assert_eq!(output.stdout, "", "left behind");
    }
}
