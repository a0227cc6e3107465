//! `gc`: removes what killed commands left. Only what is ours beyond doubt: what lies in a state directory that nobody is at
//! work in and whose creation was never completed, or whose container has ended and was to be removed by a command that is
//! gone; and what systemd has of a container whose state is gone. A root that others use as well may have been mistaken for
//! the state directory: there only what has a record of rtx's goes.

use super::deletion;
use crate::engine::oci::{cgroup, seccomp};
use crate::engine::remains::{self, Thing, Unrecorded};
use crate::engine::{Container, table};
use crate::state::{self, Busy, Foreign, NotFound, StateDir, Status};
use crate::sys::dir::Entry;
use anyhow::{Context, Result};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::path::Path;
use std::time::Duration;

/// Something that was found, and what was done with it.
#[derive(Debug)]
pub struct Found {
    pub thing: Thing,
    /// The container that it is of, and what is known of that.
    pub about: String,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    Removed,
    /// It was only asked for what would be removed.
    WouldBeRemoved,
    /// It may be somebody else's, or is to be removed by hand.
    Left(String),
    Failed(anyhow::Error),
}

/// Looks through a directory of state, and through what systemd has of the containers in it.
///
/// # Errors
/// Where the directory cannot be read. What could not be removed is among what is found.
pub fn collect(root: &Path, dry_run: bool) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let (ids, strangers) = sort(root, state::entries(root)?);
    for id in ids {
        look_at(root, &id, !strangers.is_empty(), dry_run, &mut found).unwrap_or_else(|error| {
            let thing = Thing::State(root.join(&id));
            found.push(Found { thing, about: of(&id, "left by a killed command"), outcome: Outcome::Failed(error) });
        });
    }
    if !strangers.is_empty() {
        let thing = Thing::Root(root.to_owned());
        let why = format!("{}; what has no record of rtx's there stays", listed(&strangers));
        found.push(Found { thing, about: "which others use as well".to_owned(), outcome: Outcome::Left(why) });
    }
    for program in seccomp::damaged(root, !dry_run) {
        let outcome = if dry_run { Outcome::WouldBeRemoved } else { Outcome::Removed };
        found.push(Found { thing: Thing::Program(program), about: "of the cache".to_owned(), outcome });
    }
    orphaned_scopes(root, dry_run, &mut found);
    Ok(found)
}

/// Tells what may be containers from what is not rtx's, with the reasons. Where there is any of that the directory may be
/// somebody else's, named by mistake, and then an empty directory in it is no sign of a killed create.
fn sort(root: &Path, entries: Vec<Entry>) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut strangers) = (Vec::new(), Vec::new());
    for Entry { name, is_dir } in entries {
        if is_dir && name == seccomp::CACHE {
            continue;
        }
        let id = name.to_str().filter(|id| is_dir && crate::config::id::validate(id).is_ok());
        let Some(id) = id else {
            strangers.push(format!("{name:?} is not a container's"));
            continue;
        };
        match strangeness(root, id) {
            Ok(None) => ids.push(id.to_owned()),
            Ok(Some(why)) => strangers.push(format!("{name:?} {why}")),
            Err(error) if error.is::<NotFound>() => {}
            Err(error) => strangers.push(format!("{name:?}: {error:#}")),
        }
    }
    (ids, strangers)
}

fn strangeness(root: &Path, id: &str) -> Result<Option<String>> {
    let state = StateDir::open(root, id)?;
    match state.record() {
        Ok(_) => Ok(None),
        Err(error) if error.is::<Foreign>() => Ok(Some("has the state of another runtime".to_owned())),
        Err(_) => state.strangeness(),
    }
}

/// The first few of what may be very many.
fn listed(strangers: &[String]) -> String {
    const SHOWN: usize = 3;
    let mut text = strangers.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if strangers.len() > SHOWN {
        text += &format!(", and {} more", strangers.len() - SHOWN);
    }
    text
}

fn of(id: &str, what: &str) -> String {
    format!("of container {id:?}, {what}")
}

/// The container with this id, under its lock. A command that is at work on it has that.
fn look_at(root: &Path, id: &str, is_shared: bool, dry_run: bool, found: &mut Vec<Found>) -> Result<()> {
    let state = match StateDir::open_locked_within(root, id, Duration::ZERO) {
        Err(error) if error.is::<Busy>() || error.is::<NotFound>() => return Ok(()),
        other => other?,
    };
    let directory = Thing::State(root.join(id));
    let left =
        |thing: Thing, what: &str, why: String| Found { thing, about: of(id, what), outcome: Outcome::Left(why) };
    let advice = state.forced_deletion();
    match state.record() {
        Err(error) if error.is::<NotFound>() => {
            let about = of(id, "whose creation was never completed");
            // Another may have put it there since it was sorted.
            if let Some(why) = state.strangeness()? {
                found.push(left(directory, "which has no state", format!("it {why}")));
                return Ok(());
            }
            // Without a configuration it had not come to its cgroups.
            let config = state.config().ok();
            let cgroups = config.map(|config| Unrecorded::find(root, id, Some(&config))).transpose()?;
            let survivor = cgroups.as_ref().map_or(Ok(None), |cgroups| cgroups.survivor(id))?;
            if survivor.is_some() || state.has_lost_record()? {
                found.push(left(directory, "whose record is lost", format!("it may still run; {advice} removes it")));
                return Ok(());
            }
            if is_shared {
                let why = "nothing in it says that it is rtx's, in a directory that others use as well";
                found.push(left(directory, "which has no state", why.to_owned()));
                return Ok(());
            }
            let things = cgroups.iter().flat_map(Unrecorded::things).chain([directory]).collect();
            remove(things, about, dry_run, found, || deletion::delete_locked(root, state, true, None));
        }
        Err(error) if error.is::<Foreign>() => found.push(left(directory, "which is not rtx's", format!("{error:#}"))),
        Err(error) => {
            let mut why = format!("{error:#}");
            if !why.contains(&advice) {
                why += &format!("; {advice} removes it");
            }
            found.push(left(directory, "which cannot be read", why));
        }
        Ok(record) if record.is_abandoned() => {
            let things = remains::recorded(&record)?.into_iter().chain([directory]).collect();
            let about = of(id, "whose creation was never completed");
            remove(things, about, dry_run, found, || deletion::delete_locked(root, state, true, None));
        }
        Ok(record) => {
            for name in state.unfinished_files()? {
                let unlink = || unlinkat(&state, name.as_str(), UnlinkatFlags::NoRemoveDir);
                let thing = Thing::File(root.join(id).join(&name));
                remove(vec![thing], of(id, "never put in its place"), dry_run, found, || {
                    unlink().map(|()| Vec::new()).context(name.clone())
                });
            }
            if !record.attended || state.is_open_elsewhere()? {
                return Ok(());
            }
            let bundle = record.bundle.clone();
            let things: Vec<Thing> = remains::recorded(&record)?.into_iter().chain([directory]).collect();
            let engine = (table::find(&record.engine)?.make)();
            let container = Container::new(state, record);
            if engine.status(&container)? != Status::Stopped {
                return Ok(());
            }
            let about = of(id, "which has ended, and whose `run` is gone");
            remove(things, about, dry_run, found, || {
                deletion::delete_locked(root, container.state, true, Some(&bundle))
            });
        }
    }
    Ok(())
}

/// What is of one container goes together. Hooks that failed change nothing, as with `delete`.
fn remove(
    things: Vec<Thing>,
    about: String,
    dry_run: bool,
    found: &mut Vec<Found>,
    remove: impl FnOnce() -> Result<Vec<String>>,
) {
    let failed = if dry_run { None } else { remove().err().map(|error| format!("{error:#}")) };
    found.extend(things.into_iter().map(|thing| {
        let outcome = match &failed {
            _ if dry_run => Outcome::WouldBeRemoved,
            Some(error) => Outcome::Failed(anyhow::anyhow!(error.clone())),
            None => Outcome::Removed,
        };
        Found { thing, about: about.clone(), outcome }
    }));
}

/// Scopes that say to be of containers below this root that have no state any more. Where systemd does not answer, there is
/// nothing that can be told.
fn orphaned_scopes(root: &Path, dry_run: bool, found: &mut Vec<Found>) {
    let Ok(orphans) = cgroup::orphans(root, state::is_rootless()) else { return };
    for (id, placement) in orphans {
        let things: Vec<Thing> = placement.unit().map(|unit| Thing::Unit(unit.name.clone())).into_iter().collect();
        remove(things, of(&id, "whose state is gone"), dry_run, found, || {
            // Keeps a create of this id away, whose scope would be of the same name.
            let state = StateDir::create(root, &id, &[])?;
            let removed = placement.open().remove(|_| true);
            state.remove()?;
            removed.map(|()| Vec::new())
        });
    }
}
