//! `rtx run`: create, start, and in the foreground wait and delete.

use super::args::RunArgs;
use super::{Context, launch, supervise};
use crate::stages::foreground::{self, RunOptions};
use crate::stages::smaster::{self, Announced};
use crate::stages::{Mode, deletion, lifecycle};
use anyhow::Result;

pub fn run(context: &Context, args: RunArgs) -> Result<i32> {
    if !args.detach {
        supervise::check_flags(&args.launch.supervise)?;
    } else if supervise::is_wanted(context, &args.launch, true)? {
        return supervise::launch(context, &args.launch, true);
    }
    let mode = if args.detach { Mode::Handover } else { Mode::Foreground };
    let mut prepared = launch::prepare(context, &args.launch, mode)?;
    prepared.launch.options.attended = !args.detach && !args.keep;
    prepared.launch.options.started_at_once = true;
    if args.detach {
        return run_detached(context, &args, prepared);
    }
    let mut announce = |created: Announced<'_>| launch::announce(&args.launch, created);
    let warn = |warnings: &[String]| context.warn(warnings);
    let options = RunOptions { no_subreaper: args.no_subreaper, keep: args.keep, announce: &mut announce, warn: &warn };
    let what = format!("rtx run {}", prepared.launch.id);
    let ended = foreground::run(prepared, options)?;
    super::report::warn(&what, &ended.failed_hooks);
    Ok(ended.status.code())
}

#[inline(never)]
fn run_detached(context: &Context, args: &RunArgs, prepared: crate::stages::stage1::Prepared) -> Result<i32> {
    let id = prepared.launch.id.clone();
    let notify_socket = prepared.launch.options.notify_socket.clone();
    let mut announce = |created: Announced<'_>| {
        launch::announce(&args.launch, created)?;
        // Before the payload can write to the same stream.
        if args.launch.id.is_none() { launch::print_id(&id) } else { Ok(()) }
    };
    let mut created = smaster::create(prepared, Some(&mut announce))?;
    context.warn(&created.warnings);
    let announced = if created.has_begun() { Ok(()) } else { announce(created.announced()) };
    let started = announced.and_then(|()| {
        let smaster::Created { container, engine, stage2, .. } = &mut created;
        lifecycle::start_and_notify(container, &mut **engine, stage2.as_mut(), notify_socket.as_deref())
    });
    if let Err(error) = started {
        let smaster::Created { container, engine, stage2, .. } = created;
        drop(stage2);
        let _ = deletion::destroy(container, engine);
        return Err(error);
    }
    if let Some(stage2) = &mut created.stage2 {
        stage2.release();
    }
    Ok(0)
}
