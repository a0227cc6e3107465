//! `rtx exec`: another process in a container.

use super::announce::Announcement;
use super::args::ExecArgs;
use super::{Context, inherited};
use crate::config::{check, findings, json};
use crate::engine::ExecConfig;
use crate::stages::exec::{self, ExecOptions, Joined};
use crate::stages::lifecycle::Live;
use crate::state::StateDir;
use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{Capability, LinuxCapabilities, Process};
use serde_json::json;
use std::path::Path;

pub fn exec(context: &Context, args: ExecArgs) -> Result<i32> {
    let mut options = context.launch_options();
    // Sockets of LISTEN_FDS are the first process's, which LISTEN_PID names.
    inherited::preserve(context.inherited, args.preserve_fds, &mut options)?;
    options.console_socket = args.console_socket.as_ref().map(|path| path.as_os_str().to_owned());
    options.foreground = !args.detach;
    let live = Live::open(&context.root, &args.id)?;
    let process = match &args.process {
        Some(path) => read_process(path, &live, &args),
        None => process_from_flags(&live, &args),
    };
    let explain = |error| exec::explain(&live.container.record, error);
    let process = process.map_err(explain)?;
    super::never_free(live.container.spec().map_err(explain)?);
    let words = if live.container.record.supervised { process.args().clone() } else { None };
    let exec = ExecConfig {
        process,
        options,
        ignore_paused: args.ignore_paused,
        sub_cgroups: args.cgroup.clone(),
        starter: crate::config::envelope::Starter::default(),
        oci_config: crate::config::envelope::OciConfig::default(),
        root: context.root.clone(),
        warnings: Vec::new(),
    };
    let supervised = live.container.record.supervised;
    let state = || StateDir::open(&context.root, &args.id);
    let mut pid = 0;
    let mut joined = |joined: Joined| {
        if supervised {
            pid = joined.init.pid;
            let _ = state()?.add_event("exec_started", &json!({ "pid": pid, "args": words }));
        }
        context.warn(joined.warnings);
        let announcement = Announcement {
            console_socket: args.console_socket.as_deref(),
            pidfd_socket: args.pidfd_socket.as_deref(),
            pid_file: args.pid_file.as_deref(),
        };
        announcement.send(Some((joined.init.pid, &joined.init.pidfd)), joined.console)
    };
    let options = ExecOptions { detach: args.detach, no_subreaper: false, joined: &mut joined };
    let outcome = exec::exec(live, exec, options);
    if supervised && pid != 0 && !(args.detach && outcome.is_ok()) {
        // How a detached one ends is known to whoever inherits it.
        let data = match &outcome {
            Ok(status) => json!({ "pid": pid, "exitCode": status.map(|status| status.code()) }),
            Err(error) => json!({ "pid": pid, "error": format!("{error:#}") }),
        };
        let _ = state().and_then(|state| state.add_event("exec_exited", &data));
    }
    let status = outcome?;
    Ok(status.map_or(0, |status| status.code()))
}

/// `--process`: the process object of a config.json. Flags that would contradict it are ignored, as by runc, but for `--tty`.
fn read_process(path: &Path, live: &Live, args: &ExecArgs) -> Result<Process> {
    // Shells have pipes for files: `--process <(…)`.
    let raw = json::read_stream(path)?;
    let mut value = json::parse(&raw).with_context(|| format!("{} is not valid JSON", path.display()))?;
    findings::refuse(&format!("--process {}", path.display()), check::check_process(&value))?;
    check::normalise_process(&mut value);
    let mut process: Process =
        serde_json::from_value(value).with_context(|| format!("{} is not a process", path.display()))?;
    if args.tty {
        process.set_terminal(Some(true));
    }
    inherit(&mut process, live)?;
    Ok(process)
}

/// What confines the container confines a process whose document does not say otherwise.
fn inherit(process: &mut Process, live: &Live) -> Result<()> {
    let spec = live.container.spec()?;
    let Some(own) = spec.process() else { return Ok(()) };
    if process.oom_score_adj().is_none() {
        process.set_oom_score_adj(own.oom_score_adj());
    }
    if process.capabilities().is_none() {
        process.set_capabilities(own.capabilities().clone());
    }
    if process.apparmor_profile().as_ref().is_none_or(String::is_empty) {
        process.set_apparmor_profile(own.apparmor_profile().clone());
    }
    if process.selinux_label().as_ref().is_none_or(String::is_empty) {
        process.set_selinux_label(own.selinux_label().clone());
    }
    Ok(())
}

/// The container's own process with what the flags change.
fn process_from_flags(live: &Live, args: &ExecArgs) -> Result<Process> {
    if args.args.is_empty() {
        bail!("process args cannot be empty: give a command after the container's id, or --process FILE");
    }
    let spec = live.container.spec()?;
    let Some(mut process) = spec.process().clone() else { bail!("the container was created without a process") };
    process.set_args(Some(args.args.clone()));
    process.set_terminal(Some(args.tty));
    process.set_console_size(None);
    if let Some(cwd) = args.cwd.as_ref().filter(|cwd| !cwd.is_empty()) {
        if !cwd.starts_with('/') {
            bail!("--cwd {cwd}: Cwd must be an absolute path");
        }
        process.set_cwd(cwd.into());
    }
    if let Some(entry) = args.env.iter().find(|entry| !entry.contains('=')) {
        bail!("--env {entry}: give NAME=VALUE");
    }
    if let Some(entry) = args.env.iter().find(|entry| entry.starts_with('=')) {
        bail!("--env {entry}: invalid environment variable: name cannot be empty: give NAME=VALUE");
    }
    let mut env = process.env().clone().unwrap_or_default();
    env.extend(args.env.iter().cloned());
    process.set_env(Some(env));
    if let Some(profile) = &args.apparmor {
        process.set_apparmor_profile(Some(profile.clone()));
    }
    if let Some(label) = &args.process_label {
        if !label.is_empty() && !check::selinux_is_enabled() {
            bail!("--process-label {label}: {}: leave it out, or boot with SELinux", check::NO_SELINUX);
        }
        process.set_selinux_label(Some(label.clone()));
    }
    if args.no_new_privs.is_some() {
        process.set_no_new_privileges(args.no_new_privs);
    }
    set_user(&mut process, args)?;
    add_capabilities(&mut process, &args.cap)?;
    Ok(process)
}

fn set_user(process: &mut Process, args: &ExecArgs) -> Result<()> {
    let mut user = process.user().clone();
    if let Some(text) = args.user.as_ref().filter(|user| !user.is_empty()) {
        let (uid, gid) = match text.split_once(':') {
            Some((uid, gid)) => (uid, Some(gid)),
            None => (text.as_str(), None),
        };
        let number = |kind: &str, text: &str| {
            let id = text.parse::<u32>().map_err(|_| {
                anyhow::anyhow!("bad {kind}: parsing {text:?}: invalid syntax: --user takes numbers, UID or UID:GID")
            })?;
            is_an_id("user", id)
        };
        user.set_uid(number("uid", uid)?);
        if let Some(gid) = gid {
            user.set_gid(number("gid", gid)?);
        }
    }
    if !args.additional_gids.is_empty() {
        let mut gids = user.additional_gids().clone().unwrap_or_default();
        for gid in &args.additional_gids {
            gids.push(is_an_id("additional-gids", *gid)?);
        }
        user.set_additional_gids(Some(gids));
    }
    process.set_user(user);
    Ok(())
}

fn is_an_id(flag: &str, id: u32) -> Result<u32> {
    if id == u32::MAX {
        bail!("--{flag}: {}; use another id", check::NO_ID);
    }
    Ok(id)
}

/// `--cap` adds to every set but the inheritable one, which would outlive a change of user (CVE-2022-29162); to the
/// ambient one only what is inheritable already, as Linux demands.
fn add_capabilities(process: &mut Process, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let mut added = Vec::new();
    for name in names {
        let upper = name.to_ascii_uppercase();
        let capability: Result<Capability, _> = upper.strip_prefix("CAP_").unwrap_or(&upper).parse();
        added.push(capability.map_err(|_| anyhow::anyhow!("--cap {name}: there is no such capability"))?);
    }
    let mut sets = match process.capabilities() {
        Some(sets) => sets.clone(),
        None => serde_json::from_str::<LinuxCapabilities>("{}")?,
    };
    let with = |set: &Option<std::collections::HashSet<Capability>>| {
        let mut set = set.clone().unwrap_or_default();
        set.extend(added.iter().copied());
        Some(set)
    };
    let (bounding, effective, permitted) = (with(sets.bounding()), with(sets.effective()), with(sets.permitted()));
    let inheritable = sets.inheritable().clone().unwrap_or_default();
    let mut ambient = sets.ambient().clone().unwrap_or_default();
    ambient.extend(added.iter().filter(|capability| inheritable.contains(capability)));
    sets.set_ambient(Some(ambient));
    sets.set_bounding(bounding).set_effective(effective).set_permitted(permitted);
    process.set_capabilities(Some(sets));
    Ok(())
}
