//! `rtx gc`: removes what killed commands left, a line a thing.

use super::Context;
use super::args::GcArgs;
use super::output;
use crate::stages::gc::{self, Found, Outcome};
use anyhow::{Result, bail};

pub fn gc(context: &Context, args: GcArgs) -> Result<i32> {
    let found = gc::collect(&context.root, args.dry_run)?;
    output::print(&found.iter().map(line).collect::<String>())?;
    let failed = found.iter().filter(|found| matches!(found.outcome, Outcome::Failed(_))).count();
    if failed > 0 {
        bail!("{failed} thing(s) in {} could not be removed", context.root.display());
    }
    Ok(0)
}

fn line(found: &Found) -> String {
    let Found { thing, about, outcome } = found;
    match outcome {
        Outcome::Removed => format!("removed: {thing} ({about})\n"),
        Outcome::WouldBeRemoved => format!("would be removed: {thing} ({about})\n"),
        Outcome::Left(why) => format!("left: {thing} ({about}): {why}\n"),
        Outcome::Failed(error) => format!("not removed: {thing} ({about}): {error:#}\n"),
    }
}
