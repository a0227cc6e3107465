//! `rtx start`: the program of a created container.

use super::args::IdArgs;
use super::{Context, inherited};
use crate::stages::lifecycle;
use anyhow::Result;

#[inline(never)]
pub fn start(context: &Context, args: IdArgs) -> Result<i32> {
    lifecycle::start(&context.root, &args.id, inherited::notify_socket().as_deref())?;
    Ok(0)
}
