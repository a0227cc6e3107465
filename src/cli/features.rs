//! `rtx features`: what this runtime can do (runtime-spec features.md).

use anyhow::Result;

pub fn features() -> Result<i32> {
    super::output::print_pretty(&crate::config::features::features())?;
    Ok(0)
}
