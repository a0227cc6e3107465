//! Whose a scope is. Its name is the caller's choice, and two containers may ask for the same one; so each scope names the
//! directory of its container's state, as its documentation, and no scope that names another is touched.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::bus::Bus;
use super::wire::{Argument, Property, Value};
use super::{Unit, connect, description, is};

/// What systemd knows under the name of a container's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Ours,
    Anothers,
    Absent,
}

impl Unit {
    /// Whether the scope is there, and is this container's.
    ///
    /// # Errors
    /// Where systemd does not answer.
    pub fn standing(&self) -> Result<Standing> {
        Ok(match object(&mut connect(self.user)?, &self.name, &self.owner)? {
            None => Standing::Absent,
            Some((_, true)) => Standing::Ours,
            Some((_, false)) => Standing::Anothers,
        })
    }
}

/// The object of a unit, and whether it is the owner's. Scopes of before they had one are as their records say.
fn object(bus: &mut Bus, name: &str, owner: &str) -> Result<Option<(String, bool)>> {
    let reply = bus.manager("GetUnit", &[Argument::Str(name)]);
    if is(&reply, "NoSuchUnit") {
        return Ok(None);
    }
    let Some(path) = reply?.strings().into_iter().next() else { return Ok(None) };
    let is_ours = owner.is_empty() || bus.strings_of(&path, "Unit", "Documentation")?.iter().any(|url| url == owner);
    // A unit that has ended since is there again, as one that is not found, because it was asked for.
    if !is_ours && bus.strings_of(&path, "Unit", "LoadState")? == ["not-found"] {
        return Ok(None);
    }
    Ok(Some((path, is_ours)))
}

/// Every scope of a container, and its cgroup: by what systemd knows alone, for a container whose record is lost.
///
/// # Errors
/// Where systemd does not answer.
pub fn scopes(id: &str, state: &Path, user: bool) -> Result<Vec<(Unit, PathBuf)>> {
    let owner = url(state)?;
    let mut bus = connect(user)?;
    let patterns = [Argument::Strings(&[]), Argument::Strings(&["*.scope"])];
    let listed = bus.manager("ListUnitsByPatterns", &patterns)?.units()?;
    let about = description(id);
    let mut found = Vec::new();
    for (name, _) in listed.into_iter().filter(|(name, text)| *text == about || name.contains(id)) {
        let Some((path, true)) = object(&mut bus, &name, &owner)? else { continue };
        let cgroup = cgroup(&mut bus, &path);
        found.push((Unit { name, user, slice: String::new(), owner: owner.clone() }, cgroup));
    }
    Ok(found)
}

/// Every scope of a container whose state was in a directory below `root` that is no more, with the container's id.
///
/// # Errors
/// Where systemd does not answer.
pub fn orphans(root: &Path, user: bool) -> Result<Vec<(String, Unit, PathBuf)>> {
    let above = format!("{}/", url(root)?);
    let mut bus = connect(user)?;
    let patterns = [Argument::Strings(&[]), Argument::Strings(&["*.scope"])];
    let listed = bus.manager("ListUnitsByPatterns", &patterns)?.units()?;
    let mut found = Vec::new();
    for (name, text) in listed {
        let Some(id) = text.strip_prefix(&description("")) else { continue };
        // What the scope says by itself: its name and its description are anybody's.
        let owner = url(&root.join(id))?;
        if crate::config::id::validate(id).is_err() || !owner.starts_with(&above) || is_there(&root.join(id)) {
            continue;
        }
        let Some((path, true)) = object(&mut bus, &name, &owner)? else { continue };
        let cgroup = cgroup(&mut bus, &path);
        found.push((id.to_owned(), Unit { name, user, slice: String::new(), owner }, cgroup));
    }
    Ok(found)
}

/// One that cannot be looked for may be there.
fn is_there(state: &Path) -> bool {
    !state.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// The cgroup of a scope, below the hierarchy's root.
fn cgroup(bus: &mut Bus, path: &str) -> PathBuf {
    let cgroup = bus.strings_of(path, "Scope", "ControlGroup").unwrap_or_default().pop().unwrap_or_default();
    PathBuf::from(cgroup.trim_start_matches('/'))
}

/// The owner as a property.
pub fn property(owner: &str) -> Property {
    ("Documentation".to_owned(), Value::Array("s", vec![Value::text(owner)]))
}

/// The directory of a container's state as a URL.
///
/// # Errors
/// Where the working directory, that a relative path starts from, is gone.
pub fn url(state: &Path) -> Result<String> {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let path = std::path::absolute(state)?;
    let escaped = path.as_os_str().as_bytes().iter().map(|byte| match keep(*byte) {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02x}"),
    });
    Ok(format!("file:{}", escaped.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_directories() {
        assert_eq!(url(Path::new("/run/rtx/c1")).unwrap(), "file:/run/rtx/c1");
        assert_eq!(url(Path::new("/a b/ü+%")).unwrap(), "file:/a%20b/%c3%bc%2b%25");
        assert!(url(Path::new("relative")).unwrap().starts_with("file:/"));
    }
}
