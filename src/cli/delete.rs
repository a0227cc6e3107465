//! `rtx delete`: a stopped container and everything it holds; with `--force` any.

use super::Context;
use super::args::DeleteArgs;
use crate::stages::deletion;
use anyhow::Result;

#[inline(never)]
pub fn delete(context: &Context, args: DeleteArgs) -> Result<i32> {
    let failed = deletion::delete(&context.root, &args.id, args.force)?;
    super::report::warn(&format!("rtx delete {}", args.id), &failed);
    Ok(0)
}
