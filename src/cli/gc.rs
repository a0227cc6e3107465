//! `rtx gc`: removes what killed commands left, a line a thing.

use super::Context;
use super::args::GcArgs;
use super::output;
use crate::stages::gc::{self, Found, Outcome};
use anyhow::{Result, bail};

pub fn gc(context: &Context, args: GcArgs) -> Result<i32> {
    let found = gc::collect(&context.root, args.dry_run)?;
    output::print(&(found.iter().map(line).collect::<String>() + &total(&found)))?;
    let failed = found.iter().filter(|found| matches!(found.outcome, Outcome::Failed(_))).count();
    if failed > 0 {
        bail!("{failed} thing(s) in {} could not be removed", context.root.display());
    }
    Ok(0)
}

/// Where nothing was found nothing is said.
fn total(found: &[Found]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for Found { outcome, .. } in found {
        let word = word(outcome);
        match counts.iter_mut().find(|(known, _)| *known == word) {
            Some((_, count)) => *count += 1,
            None => counts.push((word, 1)),
        }
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    if counts.is_empty() { String::new() } else { format!("total: {}\n", counts.join(", ")) }
}

fn word(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Removed => "removed",
        Outcome::WouldBeRemoved => "would be removed",
        Outcome::Left(_) => "left",
        Outcome::Failed(_) => "not removed",
    }
}

fn line(found: &Found) -> String {
    let Found { thing, about, outcome } = found;
    let why = match outcome {
        Outcome::Removed | Outcome::WouldBeRemoved => String::new(),
        Outcome::Left(why) => format!(": {why}"),
        Outcome::Failed(error) => format!(": {error:#}"),
    };
    format!("{}: {thing} ({about}){why}\n", word(outcome))
}
