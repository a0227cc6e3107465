//! `rtx start`: the program of a created container.

use super::Context;
use super::args::IdArgs;
use crate::stages::lifecycle;
use anyhow::Result;

pub fn start(context: &Context, args: IdArgs) -> Result<i32> {
    lifecycle::start(&context.root, &args.id)?;
    Ok(0)
}
