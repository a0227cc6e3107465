//! The systemd cgroup manager: a container is a transient scope, which systemd makes, shows, limits and stops.
//! Files of the scope's cgroup, which is delegated to us, are then written as anywhere else.

mod annotations;
mod bus;
mod devices;
mod owner;
mod properties;
mod unit;
mod wire;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::devices::Rule;
use super::limits::Setting;
use bus::{Bus, Refusal};
pub use devices::warning as device_warning;
pub use owner::{Standing, orphans, scopes};
pub use unit::Unit;
use wire::{Argument, Property, Value};

/// `--systemd-cgroup` was given, and this host has no systemd to ask.
#[derive(Debug)]
pub struct SystemdManagerUnavailable;

impl std::fmt::Display for SystemdManagerUnavailable {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(
            "--systemd-cgroup: systemd is not running on this host (there is no /run/systemd/system); leave the flag out to manage cgroups through cgroupfs",
        )
    }
}

impl std::error::Error for SystemdManagerUnavailable {}

/// The properties that the annotations ask for; checked before anything is made.
pub use annotations::properties as annotated;

/// Whether systemd is this host's init.
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Decides which unit a container will be, whose state will be in a directory, and where its cgroup is, below the
/// hierarchy's root. Asks systemd, changes nothing.
///
/// # Errors
/// By the pointer of the path; where systemd does not run or does not answer.
pub fn plan(path: Option<&Path>, id: &str, state: &Path, user: bool) -> Result<(Unit, PathBuf)> {
    if !is_running() {
        return Err(SystemdManagerUnavailable.into());
    }
    let unit = Unit { owner: owner::url(state)?, ..Unit::new(path, id, user)? };
    // The manager of a user's session, or of a container with a systemd of its own, is not at the root.
    let manager = connect(user)?.property("ControlGroup")?;
    let path = Path::new(manager.trim_start_matches('/')).join(unit.path());
    Ok((unit, path))
}

fn connect(user: bool) -> Result<Bus> {
    Bus::connect(user).with_context(|| {
        let whose = if user { "the systemd of the user's session" } else { "systemd" };
        format!("--systemd-cgroup: cannot talk to {whose} over D-Bus")
    })
}

/// What a scope is started with.
pub struct Start<'a> {
    pub id: &'a str,
    pub pid: u32,
    pub settings: &'a [Setting],
    /// Where systemd rules devices as well, which is on cgroup v1.
    pub devices: Option<&'a [Rule]>,
    /// Of annotations; they have the last word.
    pub annotated: &'a [Property],
}

impl Unit {
    /// Starts the scope around a process, and waits until the process is in its cgroup.
    ///
    /// # Errors
    /// What systemd refused.
    pub fn start(&self, start: &Start) -> Result<()> {
        let mut bus = connect(self.user)?;
        bus.subscribe()?;
        let mut wanted = self.properties(start);
        let version = version(&mut bus)?;
        wanted.extend(properties::of(start.settings, version));
        if let Some(rules) = start.devices {
            wanted.extend(devices::properties(rules, version)?);
        }
        wanted.retain(|(name, _)| !start.annotated.iter().any(|(given, _)| given == name));
        wanted.extend(start.annotated.iter().cloned());
        // systemd adds to a list, so this takes nothing away from what an annotation says.
        wanted.push(owner::property(&self.owner));
        let arguments =
            [Argument::Str(&self.name), Argument::Str("replace"), Argument::Properties(&wanted), Argument::NoMoreUnits];
        let mut reply = bus.manager("StartTransientUnit", &arguments);
        if is(&reply, "UnitExists") {
            // A scope that failed is remembered under its name, and only that is in the way.
            let _ = bus.manager("ResetFailedUnit", &[Argument::Str(&self.name)]);
            reply = bus.manager("StartTransientUnit", &arguments);
        }
        let reply = reply.with_context(|| format!("start {}", self.name))?;
        match self.finish(&mut bus, &reply)?.as_str() {
            "done" => Ok(()),
            result => bail!("systemd could not start {}: {result}; see journalctl for why", self.name),
        }
    }

    /// Without default dependencies a scope outlives nothing and holds nothing up; delegated, its cgroup is ours.
    fn properties(&self, start: &Start) -> Vec<Property> {
        let yes = |name: &str| (name.to_owned(), Value::Bool(true));
        vec![
            ("Description".to_owned(), Value::text(description(start.id))),
            ("Slice".to_owned(), Value::text(&self.slice)),
            ("PIDs".to_owned(), Value::Array("u", vec![Value::U32(start.pid)])),
            ("DefaultDependencies".to_owned(), Value::Bool(false)),
            yes("Delegate"),
            yes("CPUAccounting"),
            yes(if start.devices.is_some() { "BlockIOAccounting" } else { "IOAccounting" }),
            yes("MemoryAccounting"),
            yes("TasksAccounting"),
        ]
    }

    /// Tells systemd of new limits, lest it puts the old ones back.
    ///
    /// # Errors
    /// What systemd refused.
    pub fn update(&self, settings: &[Setting]) -> Result<()> {
        let mut bus = connect(self.user)?;
        let wanted = properties::of(settings, version(&mut bus)?);
        if wanted.is_empty() {
            return Ok(());
        }
        // At run time alone: the unit is gone after a restart anyway.
        let arguments = [Argument::Str(&self.name), Argument::Bool(true), Argument::Properties(&wanted)];
        bus.manager("SetUnitProperties", &arguments).with_context(|| format!("update {}", self.name))?;
        Ok(())
    }

    /// Ends the unit, which is this container's. One that is gone has ended.
    ///
    /// # Errors
    /// What systemd refused.
    pub fn stop(&self) -> Result<()> {
        let mut bus = connect(self.user)?;
        bus.subscribe()?;
        let reply = bus.manager("StopUnit", &[Argument::Str(&self.name), Argument::Str("replace")]);
        if !is(&reply, "NoSuchUnit") {
            let reply = reply.with_context(|| format!("stop {}", self.name))?;
            self.finish(&mut bus, &reply)?;
        }
        // A scope whose processes were killed may count as failed, and would be listed until someone looks.
        let reset = bus.manager("ResetFailedUnit", &[Argument::Str(&self.name)]);
        if is(&reset, "NoSuchUnit") { Ok(()) } else { reset.map(drop) }
    }

    /// Moves a process into the scope, or a cgroup below (`/sub`), for a caller who may not do so by the files.
    ///
    /// # Errors
    /// What systemd refused.
    pub fn attach(&self, pid: i32, below: &str) -> Result<()> {
        let pids = [u32::try_from(pid).context("the pid to move")?];
        let arguments = [Argument::Str(&self.name), Argument::Str(below), Argument::Pids(&pids)];
        connect(self.user)?.manager("AttachProcessesToUnit", &arguments)?;
        Ok(())
    }

    fn finish(&self, bus: &mut Bus, reply: &wire::Message) -> Result<String> {
        let job = reply.strings().into_iter().next().context("systemd named no job")?;
        bus.wait_for_job(&job).with_context(|| format!("wait for {}", self.name))
    }
}

/// What `systemctl` shows of a container.
fn description(id: &str) -> String {
    format!("OCI container {id}")
}

/// The number that systemd's version starts with: 252 of `252.39-1~deb12u2`.
fn version(bus: &mut Bus) -> Result<u32> {
    let text = bus.property("Version")?;
    let digits: String = text.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().with_context(|| format!("systemd's version {text:?} starts with no number"))
}

/// Whether systemd answered with this error.
fn is<T>(reply: &Result<T>, error: &str) -> bool {
    let refusal = reply.as_ref().err().and_then(|error| error.downcast_ref::<Refusal>());
    refusal.is_some_and(|refusal| refusal.is(error))
}
