//! `rtx pause` and `rtx resume`.

use super::Context;
use super::args::IdArgs;
use crate::stages::lifecycle;
use anyhow::Result;

pub fn pause(context: &Context, args: IdArgs) -> Result<i32> {
    lifecycle::pause(&context.root, &args.id)?;
    Ok(0)
}

pub fn resume(context: &Context, args: IdArgs) -> Result<i32> {
    lifecycle::resume(&context.root, &args.id)?;
    Ok(0)
}
