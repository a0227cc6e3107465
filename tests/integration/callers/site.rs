//! A site: the namespaces in which one caller works with one runtime, kept and cleaned up by `keeper.sh`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::podman::host::installed;
use crate::support::runtime::{Invocation, find_program, read_lossy};
use crate::support::{Output, Runtime, image, report_skip};

/// Daemons that work on other containers meanwhile, on a busy machine, answer late.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// What has to be known of a caller to start it.
pub struct Caller {
    pub name: &'static str,
    /// The programs that it consists of, and which packages they come from.
    pub programs: &'static [&'static str],
    pub packages: &'static str,
    /// Shell functions for all scripts. $D is the site's directory, $RT the runtime in it, $Y a name of the site's own.
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
    keeper: Child,
}

impl Caller {
    /// The caller with the packaged runc, the control, and with rtx; none and the reason where it cannot run.
    pub fn sites(&'static self) -> Result<&'static [Site], &'static str> {
        let made = self.sites.get_or_init(|| {
            installed(self.programs).map_err(|e| format!("{e} (package {})", self.packages))?;
            installed(&["tini-static", "umoci", "nsenter", "unshare", "ip", "script"])?;
            let runtime = Runtime::under_test();
            if !runtime.is_rtx() {
                return Err("the runtime under test is not called rtx".to_owned());
            }
            let control = find_program("runc");
            if control.is_none() {
                report_skip(self.name, "without its control: runc is not installed");
            }
            let programs = control.into_iter().chain([runtime.program]);
            Ok(programs.map(|program| Site::start(self, &program)).collect())
        });
        made.as_deref().map_err(String::as_str)
    }
}

impl Site {
    fn start(caller: &'static Caller, program: &Path) -> Site {
        let runtime = program.file_name().expect("a program").to_string_lossy().into_owned();
        let dir = std::env::temp_dir().join(format!("rtx-{}-{runtime}-{}", caller.name, std::process::id()));
        fs::create_dir(&dir).expect("make the site's directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod the site's directory");
        fs::create_dir(dir.join("calls")).expect("make the directory of outputs");
        image::build(&dir);
        let hide = if runtime == "runc" { "keep" } else { "hide" };
        let keeper = keep(&dir, program, hide);
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
        let (target, dir) = (self.target(), self.dir.display());
        let name = self.dir.file_name().expect("a name").display();
        let script = format!("D={dir} RT={dir}/{} Y={name}\n{}\n{script}", self.runtime, self.caller.functions);
        let words = ["nsenter", "--target", &*target, "--mount", "--net", "--pid", "--", "sh", "-c", &*script];
        Invocation::new(words.map(str::to_owned).to_vec(), self.dir.join("calls")).env("HOME", &dir.to_string())
    }

    /// The first process of the site's pid namespace.
    fn target(&self) -> String {
        let child_of = |pid: &str| read_lossy(Path::new(&format!("/proc/{pid}/task/{pid}/children"))).trim().to_owned();
        child_of(&child_of(&self.keeper.id().to_string()))
    }
}

fn keep(dir: &Path, runtime: &Path, hide: &str) -> Child {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/callers/keeper.sh");
    let log = fs::File::create(dir.join("keeper.log")).expect("make the keeper's log");
    // A session of its own: an interrupt from the keyboard must not end it before it has cleaned up.
    let mut keeper = Command::new("setsid")
        .arg("sh")
        .arg(script)
        .args([dir.as_os_str(), runtime.as_os_str(), hide.as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .expect("start the keeper");
    let mut line = String::new();
    let stdout = keeper.stdout.take().expect("the keeper's stdout");
    BufReader::new(stdout).read_line(&mut line).expect("hear from the keeper");
    assert_eq!(line, "ready\n", "the keeper failed: {}", read_lossy(&dir.join("keeper.log")));
    keeper
}
