//! `--supervise`: from the flags and the configuration file to a container with a smaster of its own.

use super::announce::Announcement;
use super::args::{LaunchArgs, SuperviseArgs};
use super::{Context, inherited, launch};
use crate::config::rtx_config::Supervise;
use crate::config::supervision::{HealthCheck, OutputSettings, RestartPolicy};
use crate::engine::LaunchOptions;
use crate::stages::supervisor::{self, Caller, Settings};
use crate::stages::{Mode, deletion, lifecycle};
use crate::sys::process::pidfd_open;
use crate::sys::{On, errno_of};
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;

/// Whether a container is to be supervised; with `start` it is that of a `run --detach`.
///
/// # Errors
/// Why it cannot be, where that was asked for; flags that only a supervised one has.
pub fn is_wanted(context: &Context, args: &LaunchArgs, start: bool) -> Result<bool> {
    let flags = &args.supervise;
    let by_configuration = match context.config.supervise {
        Supervise::Never => false,
        Supervise::Auto => start,
        Supervise::Always => true,
    };
    if !flags.supervise && !by_configuration {
        check_flags(flags)?;
        return Ok(false);
    }
    let mut options = LaunchOptions::default();
    inherited::count(context.inherited, args.preserve_fds, &mut options)?;
    let notify_socket = inherited::notify_socket();
    let caller = Caller {
        console_socket: args.console_socket.is_some(),
        pidfd_socket: args.pidfd_socket.is_some(),
        notify_socket: notify_socket.as_deref(),
    };
    let restarts = flags.restart.is_some_and(|policy| policy != RestartPolicy::No);
    match supervisor::refuse(caller, &options, restarts) {
        Ok(()) => Ok(true),
        Err(_) if !flags.supervise && context.config.supervise == Supervise::Auto => {
            check_flags(flags)?;
            Ok(false)
        }
        Err(error) if !flags.supervise => Err(error.context("the configuration file says \"supervise\": true")),
        Err(error) => Err(error),
    }
}

/// # Errors
/// A flag that says nothing of a container that is not supervised.
pub fn check_flags(flags: &SuperviseArgs) -> Result<()> {
    let name = if flags.supervise {
        bail!("--supervise is for containers in the background: give --detach as well")
    } else if flags.restart.is_some() {
        "--restart"
    } else if flags.interactive {
        "--interactive"
    } else if flags.output_format.is_some() {
        "--output-format"
    } else if flags.output_file.is_some() {
        "--output-file"
    } else if flags.output_max_size.is_some() {
        "--output-max-size"
    } else if flags.output_max_files.is_some() {
        "--output-max-files"
    } else {
        return Ok(());
    };
    bail!("{name} says how a container is supervised: give --supervise as well")
}

/// `create --supervise`, `run --detach --supervise`.
///
/// # Errors
/// Whatever failed; nothing of the container is left then.
#[inline(never)]
pub fn launch(context: &Context, args: &LaunchArgs, start: bool) -> Result<i32> {
    let prepared = launch::prepare(context, args, Mode::Supervised)?;
    let settings = settings(context, &args.supervise, prepared.launch.bundle.spec.annotations().as_ref())?;
    let id = prepared.launch.id.clone();
    let born = supervisor::create(prepared, settings)?;
    context.warn(&born.warnings);
    let told = announce(args, born.init).and_then(|()| {
        if start {
            lifecycle::start(&context.root, &id, inherited::notify_socket().as_deref())?;
        }
        if args.id.is_none() { launch::print_id(&id) } else { Ok(()) }
    });
    if let Err(error) = told {
        let _ = deletion::delete(&context.root, &id, true);
        return Err(error);
    }
    Ok(0)
}

fn announce(args: &LaunchArgs, init: i32) -> Result<()> {
    // The pid file alone, which needs no more than the number.
    let announcement = Announcement { pid_file: args.pid_file.as_deref(), ..Announcement::default() };
    let pidfd = pidfd_open(init).on("open", format_args!("init (process {init})"))?;
    announcement.send(Some((init, &pidfd)), None)
}

fn settings(
    context: &Context,
    flags: &SuperviseArgs,
    annotations: Option<&std::collections::HashMap<String, String>>,
) -> Result<Settings> {
    let (defaults, own) = (&context.config.supervision, OutputSettings::default());
    let max_size = match flags.output_max_size {
        None => defaults.output.max_size.unwrap_or(own.max_size),
        Some(-1) => u64::MAX,
        Some(size) => u64::try_from(size).ok().filter(|size| *size > 0).context("--output-max-size must not be 0")?,
    };
    let file = match &flags.output_file {
        Some(path) => std::path::absolute(path).map_err(|error| errno_of(&error)).on("resolve", path.display())?,
        None => PathBuf::new(),
    };
    Ok(Settings {
        restart: flags.restart.unwrap_or_default(),
        backoff: defaults.backoff.clone(),
        output: OutputSettings {
            format: flags.output_format.or(defaults.output.format).unwrap_or_default(),
            file,
            max_size,
            max_files: flags.output_max_files.or(defaults.output.max_files).unwrap_or(own.max_files).max(1),
        },
        stdin: flags.interactive,
        health: HealthCheck::read(annotations)?,
        ..Settings::default()
    })
}
