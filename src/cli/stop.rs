//! `rtx stop`: ends a container for good.

use super::args::StopArgs;
use super::{Context, kill};
use crate::stages::ending;
use anyhow::Result;

pub fn stop(context: &Context, args: StopArgs) -> Result<i32> {
    ending::stop(&context.root, &args.id, kill::parse(&args.signal)?, args.timeout)?;
    Ok(0)
}
