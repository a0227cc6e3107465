//! `rtx features`: what this runtime can do (runtime-spec features.md).

use anyhow::Result;

pub fn features() -> Result<i32> {
    println!("{}", serde_json::to_string_pretty(&crate::config::features::features())?);
    Ok(0)
}
