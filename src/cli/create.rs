//! `rtx create`: a container whose program waits for `start`.

use super::args::CreateArgs;
use super::{Context, launch, supervise};
use crate::stages::{Mode, deletion, smaster};
use anyhow::{Context as _, Result};

pub fn create(context: &Context, args: CreateArgs) -> Result<i32> {
    if supervise::is_wanted(context, &args.launch, false)? {
        return supervise::launch(context, &args.launch, false);
    }
    let prepared = launch::prepare(context, &args.launch, Mode::Handover)?;
    let id = prepared.launch.id.clone();
    let mut created = smaster::create(prepared)?;
    context.warn(&created.warnings);
    if let Err(error) = launch::announce(&args.launch, &created) {
        let smaster::Created { container, engine, stage2, .. } = created;
        drop(stage2);
        let _ = deletion::destroy(container, engine);
        return Err(error);
    }
    if let Some(stage2) = &mut created.stage2 {
        stage2.release();
    }
    if args.launch.id.is_none() {
        launch::print_id(&id).context("the container is there")?;
    }
    Ok(0)
}
