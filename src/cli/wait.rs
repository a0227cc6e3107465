//! `rtx wait`: until containers have ended, or are as they should be.

use super::Context;
use super::args::{WaitArgs, WaitCondition};
use super::{output, report};
use crate::stages::supervisor::wait::{self, Condition, Waited};
use anyhow::Result;
use std::time::Instant;

/// What timeout(1) returns.
const TIMED_OUT: i32 = 124;

/// Prints the exit codes in the order of the ids, and returns the first that is not 0.
pub fn wait(context: &Context, args: WaitArgs) -> Result<i32> {
    let deadline = args.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let condition = match args.condition {
        WaitCondition::Created => Condition::Created,
        WaitCondition::Running => Condition::Running,
        WaitCondition::Stopped => Condition::Stopped,
    };
    let mut first = 0;
    for id in &args.ids {
        match wait::wait(&context.root, id, condition, deadline)? {
            Waited::Ended(code) if condition == Condition::Stopped => {
                output::print(&format!("{code}\n"))?;
                first = if first == 0 { code } else { first };
            }
            Waited::Met | Waited::Ended(_) => {}
            Waited::TimedOut => {
                report::remark(&format!("rtx wait {id}: timed out"));
                return Ok(TIMED_OUT);
            }
        }
    }
    Ok(first)
}
