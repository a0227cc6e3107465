//! Whether a container is frozen, for commands that only look, some of them at many containers: of what the record keeps
//! about cgroups nothing is taken but the place that can freeze, and of that one file is read.

use super::live::is_below;
use crate::state::Plain;
use crate::sys::fd;
use crate::sys::stat::Stat;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::utsname::uname;
use serde::Deserialize;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

/// The places of a [`super::Placement`] that can be frozen: one of a hierarchy of version 1 with that controller, or otherwise
/// the one of version 2.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Placement<'a>", bound(deserialize = "'de: 'a"))]
pub struct Freezer<'a> {
    v1: Option<(Cow<'a, str>, Cow<'a, str>)>,
    v2: Option<(Cow<'a, str>, Cow<'a, str>)>,
}

/// As the record has it.
#[derive(Deserialize)]
struct Placement<'a> {
    #[serde(borrow)]
    places: Vec<Place<'a>>,
}

/// The controllers of a hierarchy, where that is mounted, and the container's cgroup below that: a [`super::Place`].
#[derive(Deserialize)]
struct Place<'a>(#[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>, #[serde(borrow)] Cow<'a, str>);

impl<'a> From<Placement<'a>> for Freezer<'a> {
    fn from(placement: Placement<'a>) -> Self {
        let mut freezer = Self::default();
        for Place(controllers, mount, path) in placement.places {
            freezer.see(&controllers, mount, path);
        }
        freezer
    }
}

/// Of what an engine keeps in the record.
#[derive(Deserialize)]
struct EngineState<'a> {
    #[serde(borrow)]
    cgroup: Option<Freezer<'a>>,
}

/// What may follow in a [`super::Placement`], and in what an engine keeps, in the order in which it is written there.
const AFTER_PLACES: [&str; 5] = [",\"rootless\":", ",\"found\":", ",\"unsettled\":", ",\"shared\":", ",\"unit\":"];
const AFTER_CGROUP: [&str; 5] =
    [",\"netDevices\":", ",\"resctrl\":", ",\"hostRoot\":", ",\"sharedPids\":", ",\"noNewKeyring\":"];

impl<'a> Freezer<'a> {
    /// From what an engine keeps in the record, which is JSON; `None` where it keeps no cgroup.
    ///
    /// # Errors
    /// Where it is damaged.
    pub fn of(state: &'a str) -> serde_json::Result<Option<Self>> {
        Ok(serde_json::from_str::<EngineState>(state)?.cgroup)
    }

    /// As [`Self::of`], where it is written as rtx does; otherwise `None`.
    pub fn plain(state: &'a str) -> Option<Self> {
        let (mut freezer, mut rest) = (Self::default(), Plain::new(state));
        rest.take("{\"cgroup\":{\"places\":[")?;
        rest.each(b']', |rest| {
            rest.take("[")?;
            let controllers = rest.text()?;
            rest.take(",")?;
            let mount = rest.text()?;
            rest.take(",")?;
            let path = rest.text()?;
            rest.take("]")?;
            freezer.see(controllers, mount.into(), path.into());
            Some(())
        })?;
        for names in [&AFTER_PLACES[..], &AFTER_CGROUP] {
            for name in names {
                if rest.has(name) {
                    rest.value()?;
                }
            }
            rest.take("}")?;
        }
        rest.is_empty().then_some(freezer)
    }

    fn see(&mut self, controllers: &str, mount: Cow<'a, str>, path: Cow<'a, str>) {
        const NAME: &str = "freezer";
        let has_it = || controllers.len() >= NAME.len() && controllers.split(',').any(|name| name == NAME);
        let place = if controllers.is_empty() { &mut self.v2 } else { &mut self.v1 };
        if place.is_none() && (controllers.is_empty() || has_it()) && is_below(Path::new(&*path)) {
            *place = Some((mount, path));
        }
    }

    /// As [`super::Cgroup::is_frozen`]. Of the container's first process this has just been seen: where it runs or sleeps,
    /// and could not if it were frozen, no file is read.
    ///
    /// # Errors
    /// Where that cannot be told.
    pub fn is_frozen(&self, init: Option<&Stat>) -> Result<bool> {
        let ((mount, path), file) = match (&self.v1, &self.v2) {
            (Some(_), _) if init.is_some_and(|init| matches!(init.state, b'R' | b'S')) && shows_frozen() => {
                return Ok(false);
            }
            (Some(place), _) => (place, "freezer.state"),
            (None, Some(place)) => (place, "cgroup.freeze"),
            (None, None) => return Ok(false),
        };
        read(Path::new(&format!("{mount}/{path}/{file}")))
    }
}

/// Since Linux 6.1 what the freezer of cgroup v1 holds is not shown as sleeping.
fn shows_frozen() -> bool {
    static SHOWS: OnceLock<bool> = OnceLock::new();
    *SHOWS.get_or_init(|| uname().is_ok_and(|name| release(name.release()).is_some_and(|release| release >= (6, 1))))
}

fn release(text: &OsStr) -> Option<(u32, u32)> {
    let mut numbers = text.to_str()?.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// What the file of a freezer says, of either version; one that is not there freezes nobody.
pub(super) fn read(file: &Path) -> Result<bool> {
    let mut line = [0; 64];
    match fd::read_line(file, &mut line) {
        Ok(state) => Ok(matches!(state.trim_ascii(), b"1" | b"FROZEN" | b"FREEZING")),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ENODEV) => Ok(false),
        Err(errno) => Err(errno).with_context(|| format!("read {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        let of = |text: &str| release(OsStr::new(text));
        assert_eq!(of("6.1.0-25-amd64"), Some((6, 1)));
        assert_eq!(of("5.15"), Some((5, 15)));
        assert_eq!(of("6"), None);
        assert_eq!(of("six.one"), None);
    }

    #[test]
    fn only_a_freezer_below_its_mount_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let mount = directory.path().display();
        let is_frozen = |places: &str| {
            let text = format!(r#"{{"places":[{places}],"shared":true}}"#);
            let freezer: Freezer = serde_json::from_str(&text).unwrap();
            let state = format!(r#"{{"cgroup":{text},"sharedPids":true}}"#);
            // What is not plain here is serde's to read.
            assert!(Freezer::plain(&state).map_or(places.contains('\\'), |plain| plain == freezer), "{places}");
            freezer.is_frozen(None).unwrap()
        };
        std::fs::create_dir(directory.path().join("c1")).unwrap();
        for (file, controllers) in [("freezer.state", "net_cls,freezer"), ("cgroup.freeze", "")] {
            let place = |path: &str| format!(r#"["pids","/none","c1"],["{controllers}","{mount}","{path}"]"#);
            assert!(!is_frozen(&place("c1")), "{file}");
            for (state, expected) in
                [("FROZEN\n", true), ("FREEZING\n", true), ("THAWED\n", false), ("1\n", true), ("0\n", false)]
            {
                std::fs::write(directory.path().join("c1").join(file), state).unwrap();
                assert_eq!(is_frozen(&place("c1")), expected, "{file} {state}");
            }
            std::fs::write(directory.path().join("c1").join(file), "1\n").unwrap();
            assert!(is_frozen(&place("c1")) && !is_frozen(&place("c1/../c1")) && !is_frozen(&place("")), "{file}");
            std::fs::remove_file(directory.path().join("c1").join(file)).unwrap();
        }
        assert!(!is_frozen(r#"["pids","/none","c1"]"#));
        assert!(!is_frozen(""));
        for state in [
            "{}",
            r#"{"cgroup":null}"#,
            r#"{"cgroup":{"places":[["a","b"]]}}"#,
            r#"{"cgroup":{"places":[["a","b",1]]}}"#,
            r#"{"cgroup":{"places":[],"places":[]}}"#,
            r#"{"cgroup":{"places":[]},"cgroup":null}"#,
            r#"{"cgroup":{"places":[],"shared":true,"rootless":true}}"#,
            r#"{"cgroup":{"places":[]}} "#,
        ] {
            assert_eq!(Freezer::plain(state), None, "{state}");
        }
        // A letter that JSON spells otherwise.
        std::fs::write(directory.path().join("c1/freezer.state"), "FROZEN").unwrap();
        assert!(is_frozen(&format!(r#"["freezer","{mount}","\u0063\u0031"]"#)));
    }
}
