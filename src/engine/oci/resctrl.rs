//! Cache and memory bandwidth of a container (runtime-spec config-linux.md, IntelRdt): a class of service, which is a
//! directory of the resctrl file system, and a group in it to count by. Children are born in their parent's group.

use crate::config::resctrl;
use crate::sys::{Errno, On, errno_of};
use anyhow::{Context, Result, bail};
use oci_spec::runtime::LinuxIntelRdt;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What a container has of resctrl. It is in the record before any of it is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Groups {
    /// The file system.
    pub(super) root: PathBuf,
    /// The container's class.
    pub(super) class: PathBuf,
    /// It bears the container's id and goes with it. A class that the configuration names may be others' as well, and
    /// stays.
    own_class: bool,
    /// The group to count by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) monitor: Option<PathBuf>,
}

/// What of it is to be made.
#[derive(Debug, Clone)]
pub struct Plan {
    pub groups: Groups,
    schemata: String,
}

/// Decides. `None` where the configuration asks for nothing.
///
/// # Errors
/// Where resctrl is not mounted.
pub fn plan(rdt: Option<&LinuxIntelRdt>, id: &str) -> Result<Option<Plan>> {
    let Some(rdt) = rdt else { return Ok(None) };
    let Some(root) = resctrl::mount_point() else {
        bail!("/linux/intelRdt: no resctrl file system is mounted: mount -t resctrl resctrl /sys/fs/resctrl")
    };
    Ok(Some(plan_in(root, rdt, id)))
}

/// A class of a container's own, where the configuration did not ask for any.
///
/// # Errors
/// As [`plan`].
pub fn own(id: &str) -> Result<Groups> {
    match plan(Some(&LinuxIntelRdt::default()), id)? {
        Some(plan) => Ok(plan.groups),
        None => bail!("/linux/intelRdt: nothing is planned"),
    }
}

fn plan_in(root: PathBuf, rdt: &LinuxIntelRdt, id: &str) -> Plan {
    let named = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
    let class = match named {
        Some("/") => root.clone(),
        Some(name) => root.join(name),
        None => root.join(id),
    };
    let monitor = rdt.enable_monitoring().unwrap_or(false).then(|| class.join("mon_groups").join(id));
    Plan { groups: Groups { root, class, own_class: named.is_none(), monitor }, schemata: schemata(rdt) }
}

/// The lines to write. `schemata` comes last, so that it overrides, and a line for bandwidth among those for the cache
/// gives way to `memBwSchema`.
fn schemata(rdt: &LinuxIntelRdt) -> String {
    let text = |schema: &Option<String>| schema.clone().unwrap_or_default();
    let (cache, bandwidth) = (text(rdt.l3_cache_schema()), text(rdt.mem_bw_schema()));
    let cache = cache.lines().filter(|line| bandwidth.is_empty() || !line.trim_start().starts_with("MB:"));
    let more = rdt.schemata().iter().flatten().map(String::as_str);
    let lines = cache.chain(bandwidth.lines()).chain(more).filter(|line| !line.trim().is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

impl Plan {
    /// Makes what is missing and puts a process in.
    ///
    /// # Errors
    /// A class that should have been there, or that has other schemata; what the kernel refused, in its own words too.
    pub fn apply(&self, pid: i32) -> Result<()> {
        let Groups { class, own_class, monitor, .. } = &self.groups;
        let is_new = !class.is_dir();
        if is_new && !own_class && self.schemata.is_empty() {
            bail!(
                "/linux/intelRdt/closID: the class {} is not there: make it first, or say by schemata what it is to be",
                class.display()
            );
        }
        if is_new {
            self.groups.make(class).context("/linux/intelRdt: a class of service")?;
        }
        // What a class of another's is like is for that other to say.
        if !self.schemata.is_empty() && (is_new || *own_class) {
            self.groups.write(&class.join("schemata"), &self.schemata).context("/linux/intelRdt: the schemata")?;
        } else if !self.schemata.is_empty() {
            let found = std::fs::read_to_string(class.join("schemata")).map_err(|error| errno_of(&error));
            compare(&self.schemata, &found.on("read", class.join("schemata").display())?)
                .with_context(|| format!("/linux/intelRdt/closID: the class {} is there already", class.display()))?;
        }
        if let Some(monitor) = monitor {
            self.groups.make(monitor).context("/linux/intelRdt/enableMonitoring")?;
        }
        self.groups.add(pid)
    }
}

impl Groups {
    /// Writes other schemata: `update`. Where the class is not there yet, as for a container that had none, it is made, and
    /// the processes are put in.
    ///
    /// # Errors
    /// What the kernel refused, in its own words too.
    pub fn update(&self, rdt: &LinuxIntelRdt, pids: &[i32]) -> Result<()> {
        let is_new = !self.class.is_dir();
        if is_new {
            self.make(&self.class).context("a class of service")?;
        }
        let written = self.write(&self.class.join("schemata"), &schemata(rdt));
        if written.is_err() && is_new {
            let _ = self.remove();
        }
        written?;
        if is_new { pids.iter().try_for_each(|pid| self.add(*pid)) } else { Ok(()) }
    }

    fn make(&self, directory: &Path) -> Result<()> {
        match std::fs::create_dir(directory).map_err(|error| errno_of(&error)) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(Errno::ENOSPC) => Err(Errno::ENOSPC)
                .on("mkdir", directory.display())
                .context("the processors have no more classes or counters: remove one, or share one by closID")?,
            other => Ok(other.on("mkdir", directory.display())?),
        }
    }

    fn write(&self, file: &Path, text: &str) -> Result<()> {
        write(file, text).map_err(|error| {
            // Why, as far as the kernel says more than a number.
            let status = std::fs::read_to_string(self.root.join("info/last_cmd_status")).unwrap_or_default();
            match status.trim() {
                "" | "ok" => error,
                status => error.context(status.to_owned()),
            }
        })
    }

    /// Puts a process in.
    ///
    /// # Errors
    /// The kernel's.
    pub fn add(&self, pid: i32) -> Result<()> {
        for group in [Some(&self.class), self.monitor.as_ref()].into_iter().flatten() {
            write(&group.join("tasks"), &pid.to_string()).context("/linux/intelRdt: join the group")?;
        }
        Ok(())
    }

    /// What there is that bears the container's id.
    pub fn own_directories(&self) -> Vec<PathBuf> {
        let own_class = self.own_class.then_some(&self.class);
        self.monitor.iter().chain(own_class).filter(|directory| directory.is_dir()).cloned().collect()
    }

    /// Removes what bears the container's id. The kernel moves what still runs there to the class above.
    ///
    /// # Errors
    /// The kernel's.
    pub fn remove(&self) -> Result<()> {
        let own_class = self.own_class.then_some(&self.class);
        for directory in self.monitor.iter().chain(own_class) {
            match std::fs::remove_dir(directory).map_err(|error| errno_of(&error)) {
                Ok(()) | Err(Errno::ENOENT) => {}
                other => other.on("rmdir", directory.display())?,
            }
        }
        Ok(())
    }
}

/// In one write(2), as the kernel wants it, and never making a file: where there is none, there is no resctrl.
fn write(file: &Path, text: &str) -> Result<()> {
    let result = File::options().write(true).open(file).and_then(|mut open| open.write_all(text.as_bytes()));
    Ok(result.map_err(|error| errno_of(&error)).on("write", format_args!("{text:?} to {}", file.display()))?)
}

/// Whether a class that is there is what the configuration wants it to be. Only what is wanted is looked at: the kernel
/// shows every resource of every domain.
fn compare(wanted: &str, found: &str) -> Result<()> {
    for (resource, values) in wanted.lines().filter_map(|line| line.split_once(':')) {
        let resource = resource.trim();
        let there = found
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find_map(|(name, values)| (name.trim() == resource).then_some(values))
            .unwrap_or_default();
        for value in values.split(';').filter(|value| !value.trim().is_empty()) {
            if !there.split(';').any(|other| canonical(resource, other) == canonical(resource, value)) {
                bail!("it has {resource}:{}, and not {}", there.trim(), value.trim());
            }
        }
    }
    Ok(())
}

/// Masks are hexadecimal, with or without zeros in front; bandwidths are decimal.
fn canonical(resource: &str, value: &str) -> Option<(u64, u64)> {
    let (domain, value) = value.split_once('=')?;
    let radix = if resource == "MB" || resource == "SMBA" { 10 } else { 16 };
    let value = value.trim().trim_start_matches("0x");
    Some((domain.trim().parse().ok()?, u64::from_str_radix(value, radix).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdt(json: serde_json::Value) -> LinuxIntelRdt {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_class_is_the_configurations_or_the_containers() {
        let of = |json| plan_in("/r".into(), &rdt(json), "box").groups;
        let own = of(serde_json::json!({ "enableMonitoring": true }));
        assert_eq!((own.class.to_str(), own.own_class), (Some("/r/box"), true));
        assert_eq!(own.monitor.as_deref(), Some(Path::new("/r/box/mon_groups/box")));
        let shared = of(serde_json::json!({ "closID": "gold" }));
        assert_eq!((shared.class.to_str(), shared.own_class, shared.monitor), (Some("/r/gold"), false, None));
        let root = of(serde_json::json!({ "closID": "/", "enableMonitoring": true }));
        assert_eq!((root.class.to_str(), root.own_class), (Some("/r"), false));
        assert_eq!(root.monitor.as_deref(), Some(Path::new("/r/mon_groups/box")));
    }

    /// Files in place of the kernel's: what is written where, and what is never made.
    #[test]
    fn a_named_class_is_joined_and_never_written_to() {
        let root = tempfile::tempdir().unwrap();
        let plan = |json| plan_in(root.path().into(), &rdt(json), "box");
        let missing = plan(serde_json::json!({ "closID": "gold" })).apply(7).unwrap_err();
        assert!(missing.to_string().starts_with("/linux/intelRdt/closID"), "{missing}");
        assert!(!root.path().join("gold").exists());
        std::fs::create_dir(root.path().join("gold")).unwrap();
        for (name, text) in [("tasks", ""), ("schemata", "L3:0=f\n")] {
            std::fs::write(root.path().join("gold").join(name), text).unwrap();
        }
        let good = plan(serde_json::json!({ "closID": "gold", "schemata": ["L3:0=f"] }));
        good.apply(7).unwrap();
        assert_eq!(std::fs::read_to_string(root.path().join("gold/tasks")).unwrap(), "7");
        assert!(plan(serde_json::json!({ "closID": "gold", "l3CacheSchema": "L3:0=1" })).apply(7).is_err());
        assert_eq!(std::fs::read_to_string(root.path().join("gold/schemata")).unwrap(), "L3:0=f\n");
        good.groups.remove().unwrap();
        assert!(root.path().join("gold").is_dir(), "it may be others' as well");
        // Where the kernel puts no files into a new directory there is no resctrl, and nothing is left of it.
        let own = plan(serde_json::json!({ "l3CacheSchema": "L3:0=f" }));
        assert!(own.apply(7).is_err());
        own.groups.remove().unwrap();
        assert!(!root.path().join("box").exists());
    }

    #[test]
    fn schemata_are_put_together() {
        let of = |json| schemata(&rdt(json));
        let both = serde_json::json!({ "l3CacheSchema": "L3:0=f;1=f0\nMB:0=10", "memBwSchema": "MB:0=20;1=70" });
        assert_eq!(of(both), "L3:0=f;1=f0\nMB:0=20;1=70\n");
        assert_eq!(of(serde_json::json!({ "l3CacheSchema": "L3:0=f\nMB:0=10" })), "L3:0=f\nMB:0=10\n");
        let more = serde_json::json!({ "memBwSchema": "MB:0=20", "schemata": ["MB:0=30", "L2:0=f"] });
        assert_eq!(of(more), "MB:0=20\nMB:0=30\nL2:0=f\n");
        assert_eq!(of(serde_json::json!({})), "");
    }

    #[test]
    fn a_class_that_is_there_has_to_be_as_wanted() {
        let found = "    MB:0=100;1= 70\n    L3:0=7ff;1=01f\n";
        for good in ["L3:0=7ff;1=1f\n", "L3:1=0x1f", "MB:1=70;\n", "MB:0=100\nL3:0=07FF"] {
            compare(good, found).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in ["L3:0=7fe", "MB:0=64", "L3:2=1f", "L2:0=f", "L3:0=x"] {
            assert!(compare(bad, found).is_err(), "{bad}");
        }
    }
}
