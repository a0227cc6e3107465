//! `rtx run`: create, start, and in the foreground wait and delete.

use super::args::RunArgs;
use super::{Context, launch, supervise};
use crate::stages::foreground::{self, RunOptions};
use crate::stages::{Mode, deletion, lifecycle, smaster};
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
    prepared.launch.options.announced_later = true;
    let mut created = |created: &smaster::Created| {
        context.warn(&created.warnings);
        launch::announce(&args.launch, created)
    };
    let options = RunOptions { no_subreaper: args.no_subreaper, keep: args.keep, created: &mut created };
    let what = format!("rtx run {}", prepared.launch.id);
    let ended = foreground::run(prepared, options)?;
    super::report::warn(&what, &ended.failed_hooks);
    Ok(ended.status.code())
}

#[inline(never)]
fn run_detached(context: &Context, args: &RunArgs, mut prepared: crate::stages::stage1::Prepared) -> Result<i32> {
    prepared.launch.options.announced_later = args.launch.id.is_some();
    let id = prepared.launch.id.clone();
    let notify_socket = prepared.launch.options.notify_socket.clone();
    let mut created = smaster::create(prepared)?;
    context.warn(&created.warnings);
    let started = launch::announce(&args.launch, &created)
        // Before the payload can write to the same stream.
        .and_then(|()| if args.launch.id.is_none() { launch::print_id(&id) } else { Ok(()) })
        .and_then(|()| {
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
