//! The files that every root file system shares: busybox, and the probe, compiled once per test process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the packages busybox-static (Debian, Ubuntu, Fedora) put their binary.
const BUSYBOX: &[&str] = &["/bin/busybox", "/usr/bin/busybox", "/sbin/busybox"];

/// A copy of the host's static busybox: root file systems link to it, so a test that writes to its own /bin/busybox
/// must not reach the host's.
pub fn busybox() -> &'static Path {
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let found = BUSYBOX.iter().map(Path::new).find(|p| p.exists());
        let found = found.expect("no busybox found: install the package busybox-static");
        let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox");
        let partial = copy.with_extension(std::process::id().to_string());
        std::fs::copy(found, &partial).and_then(|_| std::fs::rename(&partial, &copy)).expect("copy busybox");
        copy
    })
}

/// The names of busybox's applets.
pub fn applets() -> &'static [String] {
    static APPLETS: OnceLock<Vec<String>> = OnceLock::new();
    APPLETS.get_or_init(|| {
        let listed = Command::new(busybox()).arg("--list").output().expect("run busybox --list");
        String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
    })
}

/// The probe (see `probe.rs`) as a static executable in cargo's directory for test artefacts.
pub fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| built("probe"))
}

/// The program that takes system calls away (see `without.rs`).
pub fn without() -> &'static Path {
    static WITHOUT: OnceLock<PathBuf> = OnceLock::new();
    WITHOUT.get_or_init(|| built("without"))
}

/// The program that fails one system call (see `fault.rs`).
pub fn fault() -> &'static Path {
    static FAULT: OnceLock<PathBuf> = OnceLock::new();
    FAULT.get_or_init(|| built("fault"))
}

fn built(name: &str) -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/integration/support/{name}.rs"));
    let modified = |path: &Path| path.metadata().and_then(|m| m.modified()).ok();
    if modified(&built) <= modified(&source) {
        compile(&source, &built);
    }
    built
}

/// Compiles beside the target and renames, so that a test process that runs at the same time never sees half a file.
fn compile(source: &Path, target: &Path) {
    let partial = target.with_extension(std::process::id().to_string());
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let status = Command::new(rustc)
        .args([
            "--edition",
            "2021",
            "-O",
            "-C",
            "target-feature=+crt-static",
            "-C",
            "panic=abort",
            "-C",
            "strip=symbols",
            "-o",
        ])
        .args([partial.as_path(), source])
        .status()
        .expect("run rustc to compile the probe");
    assert!(status.success(), "compiling the probe failed");
    std::fs::rename(&partial, target).expect("put the probe in place");
}
