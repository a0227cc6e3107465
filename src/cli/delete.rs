//! `rtx delete`: a stopped container and everything it holds; with `--force` any.

use super::Context;
use super::args::DeleteArgs;
use crate::stages::lifecycle;
use anyhow::Result;

pub fn delete(context: &Context, args: DeleteArgs) -> Result<i32> {
    lifecycle::delete(&context.root, &args.id, args.force)?;
    Ok(0)
}
