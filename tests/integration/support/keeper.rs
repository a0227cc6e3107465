//! The namespaces in which the programs that call a runtime work, kept and cleaned up by `keeper.sh`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::runtime::read_lossy;

/// The ordinary user, who exists in the keeper's mount namespace alone.
pub const USER: &str = "rtxtest";
pub const USER_ID: &str = "54321";

/// Which namespaces are kept.
#[derive(Clone, Copy)]
pub enum Kept {
    /// Only mounts: what is done can be looked at from outside.
    Mounts,
    /// Mounts and network, for callers of systemd, which knows processes by the ids that it sees itself. Whoever starts
    /// daemons there ends them, or the machine.
    Network,
    /// Mounts, network and pids: nothing outlives them.
    All,
}

/// A keeper; its end comes with its stdin's, which this holds.
pub struct Keeper {
    child: Child,
    kept: Kept,
}

/// Makes a directory for a site that everybody can reach. Its name is also that of the site's cgroups.
pub fn directory(name: &str) -> PathBuf {
    // podman derives an image's name from its path, and wants lower case.
    let dir = std::env::temp_dir().join(format!("rtx-{name}-{}", std::process::id()));
    fs::create_dir(&dir).expect("make the site's directory");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("chmod the site's directory");
    fs::create_dir(dir.join("calls")).expect("make the directory of outputs");
    dir
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

impl Keeper {
    /// Makes the namespaces, with `runtime` in `dir` under its own name.
    pub fn start(dir: &Path, runtime: &Path, kept: Kept) -> Keeper {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/support/keeper.sh");
        let log = fs::File::create(dir.join("keeper.log")).expect("make the keeper's log");
        let namespaces = match kept {
            Kept::Mounts => "mounts",
            Kept::Network => "network",
            Kept::All => "all",
        };
        // A session of its own: an interrupt from the keyboard must not end it before it has cleaned up.
        let mut child = Command::new("setsid")
            .arg("sh")
            .arg(script)
            .args([dir.as_os_str(), runtime.as_os_str(), namespaces.as_ref(), USER.as_ref(), USER_ID.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("start the keeper");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("the keeper's stdout");
        BufReader::new(stdout).read_line(&mut line).expect("hear from the keeper");
        assert_eq!(line, "ready\n", "the keeper failed: {}", read_lossy(&dir.join("keeper.log")));
        Keeper { child, kept }
    }

    /// The process to enter the namespaces by.
    pub fn target(&self) -> String {
        let child_of = |pid: &str| read_lossy(Path::new(&format!("/proc/{pid}/task/{pid}/children"))).trim().to_owned();
        let inside = child_of(&self.child.id().to_string());
        match self.kept {
            Kept::Mounts | Kept::Network => inside,
            Kept::All => child_of(&inside),
        }
    }

    /// The words that run a program in the namespaces.
    pub fn enter(&self) -> Vec<String> {
        let kinds: &[&str] = match self.kept {
            Kept::Mounts => &["--mount"],
            Kept::Network => &["--mount", "--net"],
            Kept::All => &["--mount", "--net", "--pid"],
        };
        let words = ["nsenter", "--target", &self.target()].map(str::to_owned);
        words.into_iter().chain(kinds.iter().map(|kind| (*kind).to_owned())).chain(["--".to_owned()]).collect()
    }
}
