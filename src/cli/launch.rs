//! What `create` and `run` share: from the flags to a prepared container, and what the caller is told of it.

use super::announce::Announcement;
use super::launch_args::LaunchArgs;
use super::{Context, inherited, output};
use crate::stages::Mode;
use crate::stages::smaster::Created;
use crate::stages::stage1::{self, Prepared, Request};
use crate::sys::On;
use anyhow::{Context as _, Result};
use std::path::Path;

/// stage1 for these flags.
///
/// # Errors
/// Everything that is wrong with the request.
pub fn prepare(context: &Context, args: &LaunchArgs, mode: Mode) -> Result<Prepared> {
    let mut options = context.launch_options();
    inherited::count(context.inherited, args.preserve_fds, &mut options)?;
    options.console_socket = args.console_socket.as_ref().map(|path| path.as_os_str().to_owned());
    options.foreground = mode == Mode::Foreground;
    options.supervised = mode == Mode::Supervised;
    options.notify_socket = inherited::notify_socket();
    options.no_pivot = args.no_pivot;
    options.no_new_keyring = args.no_new_keyring;
    options.allow_unconfined = args.allow_unconfined;
    let prepared = stage1::prepare(Request {
        id: args.id.clone(),
        bundle: args.bundle.as_deref().unwrap_or(Path::new(".")),
        engine: context.globals.engine.as_deref(),
        config: &context.config,
        options,
        root: context.root.clone(),
    })?;
    // A supervisor lives on, and may make its container again.
    if mode != Mode::Supervised {
        super::never_free(&prepared.launch.bundle.spec);
    }
    context.warn(&prepared.launch.warnings);
    Ok(prepared)
}

/// Tells the caller of a new container.
///
/// # Errors
/// Where a socket or the pid file cannot be written to.
pub fn announce(args: &LaunchArgs, created: &Created) -> Result<()> {
    let announcement = Announcement {
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        pid_file: args.pid_file.as_deref(),
    };
    if let Some(stage2) = &created.stage2 {
        return announcement.send(Some((stage2.init.pid, &stage2.init.pidfd)), created.console.as_ref());
    }
    // An engine that makes its processes itself, or has none.
    match &created.container.record.init {
        Some(init) => {
            let pidfd = init.open().on("open", format_args!("init of {}", created.container.record.id))?;
            announcement.send(Some((init.pid, &pidfd)), None)
        }
        None => announcement.send(None, None),
    }
}

/// Prints the id of a new container that nobody gave a name.
///
/// # Errors
/// Where standard output cannot be written to; the error tells the id in its place.
pub fn print_id(id: &str) -> Result<()> {
    output::print(&format!("{id}\n")).with_context(|| format!("the id {id} of the new container cannot be printed"))
}
