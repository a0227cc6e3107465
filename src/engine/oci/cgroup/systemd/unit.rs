//! Which unit of systemd a container is, and where systemd puts its cgroup. systemd.unit(5), systemd.slice(5).

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The scope that a container lives in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    pub name: String,
    /// The manager is that of a user's session, not the system's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub user: bool,
    #[serde(skip)]
    pub slice: String,
    /// What the scope says of itself, so that no other of the same name is taken for it.
    #[serde(default)]
    pub(super) owner: String,
}

const POINTER: &str = "/linux/cgroupsPath";

impl Unit {
    /// Reads `slice:prefix:name`. Without a path a container is `rtx-ID.scope` in the slice where such things go.
    ///
    /// # Errors
    /// By the pointer of the path.
    pub fn new(path: Option<&Path>, id: &str, user: bool) -> Result<Self> {
        let default_slice = if user { "user.slice" } else { "system.slice" };
        let path = path.map(Path::to_string_lossy).filter(|path| !path.is_empty());
        let name = match &path {
            None => format!("rtx-{}.scope", escape(id)),
            Some(path) => scope_name(path)?,
        };
        let slice = path.as_deref().and_then(|path| path.split(':').next()).filter(|slice| !slice.is_empty());
        let slice = slice.unwrap_or(default_slice).to_owned();
        check_slice(&slice)?;
        Ok(Self { name, user, slice, owner: String::new() })
    }

    /// The cgroup below the manager's own.
    pub fn path(&self) -> PathBuf {
        expand_slice(&self.slice).join(&self.name)
    }
}

/// Characters that a unit's name cannot have, as systemd-escape(1) writes them.
fn escape(id: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte);
    id.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("\\x{byte:02x}") }).collect()
}

fn scope_name(path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split(':').collect();
    let [_, prefix, name] = parts[..] else {
        bail!("{POINTER}: expected \"slice:prefix:name\" for the systemd cgroup manager and found {path:?}");
    };
    if name.is_empty() || name.ends_with(".slice") {
        bail!("{POINTER}: {path:?} must end in the name of a scope; a slice holds no processes");
    }
    let joint = if prefix.is_empty() { "" } else { "-" };
    let unit = format!("{prefix}{joint}{name}.scope");
    check_name(&unit, path)?;
    Ok(unit)
}

fn check_name(unit: &str, path: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
    // The cgroup of a unit with such a beginning has another name than the unit, to be no file of the kernel's.
    let clashes = unit.starts_with(['_', '.']) || unit.starts_with("cgroup.");
    if !unit.bytes().all(allowed) || unit.len() > 255 || clashes {
        bail!(
            "{POINTER}: {path:?} makes the unit {unit:?}, which is no name of one; use letters, digits and \":-_.\\\", at most 255"
        );
    }
    Ok(())
}

fn check_slice(slice: &str) -> Result<()> {
    let stem = slice.strip_suffix(".slice").unwrap_or_default();
    let well_formed = stem == "-" || (!stem.is_empty() && stem.split('-').all(|part| !part.is_empty()));
    if !well_formed || slice.contains('/') {
        bail!("{POINTER}: {slice:?} is no name of a slice; write it as in \"machine.slice\" or \"a-b.slice\"");
    }
    Ok(())
}

/// `a-b.slice` is in `a.slice`; `-.slice` is the root.
fn expand_slice(slice: &str) -> PathBuf {
    let stem = slice.strip_suffix(".slice").unwrap_or(slice);
    let mut path = PathBuf::new();
    if stem == "-" {
        return path;
    }
    for (end, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
        path.push(format!("{}.slice", &stem[..end]));
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(cgroups_path: &str, user: bool) -> String {
        let path = Some(Path::new(cgroups_path)).filter(|path| !path.as_os_str().is_empty());
        match Unit::new(path, "c1", user) {
            Ok(unit) => unit.path().display().to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn where_units_are() {
        assert_eq!(path("", false), "system.slice/rtx-c1.scope");
        assert_eq!(path("", true), "user.slice/rtx-c1.scope");
        assert_eq!(path("::x", false), "system.slice/x.scope");
        assert_eq!(path("machine.slice:libpod:abc", false), "machine.slice/libpod-abc.scope");
        assert_eq!(path("a-b-c.slice:p:n", false), "a.slice/a-b.slice/a-b-c.slice/p-n.scope");
        assert_eq!(path("-.slice:p:n", false), "p-n.scope");
        assert_eq!(Unit::new(None, "a+b", false).unwrap().name, "rtx-a\\x2bb.scope");
    }

    #[test]
    fn what_is_no_unit() {
        for bad in ["/a/b", "x", "a:b:c:d", "a.slice:p:", "a.slice:p:n.slice", "a:p:n", ".slice:p:n", "a--b.slice:p:n"]
        {
            assert!(path(bad, false).starts_with("/linux/cgroupsPath: "), "{bad}: {}", path(bad, false));
        }
        assert!(path("a/b.slice:p:n", false).contains("no name of a slice"));
        assert!(path("a.slice:_p:n", false).contains("no name of one"));
        assert!(path("a.slice:p:n/m", false).contains("no name of one"));
    }
}
