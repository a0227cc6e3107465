//! `rtx restore`: a container from the images of `checkpoint`.

use super::Context;
use super::announce::Announcement;
use super::args::RestoreArgs;
use super::checkpoint::criu_options;
use crate::engine::{RestoreRequest, Restored};
use crate::stages::checkpoint::{self, RestoreOptions};
use crate::stages::stage1::{self, Request};
use anyhow::Result;
use std::path::Path;

pub fn restore(context: &Context, args: RestoreArgs) -> Result<i32> {
    let request = RestoreRequest {
        criu: criu_options(context, args.criu)?,
        lsm_profile: args.lsm_profile.filter(|text| !text.is_empty()),
        lsm_mount_context: args.lsm_mount_context.filter(|text| !text.is_empty()),
    };
    let mut options = context.launch_options();
    options.console_socket = args.console_socket.as_ref().map(|path| path.as_os_str().to_owned());
    options.foreground = !args.detach;
    options.attended = !args.detach;
    options.no_pivot = args.no_pivot;
    let prepared = stage1::prepare(Request {
        id: Some(args.id.clone()),
        bundle: args.bundle.as_deref().unwrap_or(Path::new(".")),
        engine: context.globals.engine.as_deref(),
        config: &context.config,
        options,
        root: context.root.clone(),
    })?;
    context.warn(&prepared.launch.warnings);
    let announcement = Announcement {
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: None,
        pid_file: args.pid_file.as_deref(),
    };
    let mut announce = |restored: &Restored| {
        announcement.send(Some((restored.init.pid, &restored.init.pidfd)), restored.console.as_ref())
    };
    let options = RestoreOptions { request: &request, no_subreaper: args.no_subreaper, announce: &mut announce };
    if args.detach {
        checkpoint::restore_detached(prepared, options)?;
        return Ok(0);
    }
    let ended = checkpoint::restore_foreground(prepared, options)?;
    super::report::warn(&format!("rtx restore {}", args.id), &ended.failed_hooks);
    Ok(ended.status.code())
}
