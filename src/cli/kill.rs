//! `rtx kill`: a signal by number or name, to init or to every process.

use super::Context;
use super::args::KillArgs;
use crate::stages::{ending, lifecycle};
use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use std::str::FromStr;

#[inline(never)]
pub fn kill(context: &Context, args: KillArgs) -> Result<i32> {
    // Scripts pass an empty word where they have none.
    let signal = parse(if args.signal.is_empty() { "TERM" } else { &args.signal })?;
    match args.timeout {
        None => lifecycle::kill(&context.root, &args.id, signal, args.all)?,
        Some(patience) => ending::kill_within(&context.root, &args.id, signal, args.all, patience)?,
    }
    Ok(0)
}

/// A signal by number, or by name in either case with or without `SIG`; realtime signals as `RTMIN+N` and `RTMAX-N`
/// (signal(7)).
pub(super) fn parse(text: &str) -> Result<i32> {
    let hyphen = if text.starts_with('-') { ", without a hyphen" } else { "" };
    let unknown =
        || anyhow::anyhow!("unknown signal {text:?}: give a number, or a name such as TERM or SIGKILL{hyphen}");
    if let Ok(number) = text.parse::<i32>() {
        // 0 sends nothing and asks whether the process is there (kill(2)).
        return if (0..=libc::SIGRTMAX()).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) = realtime(name) {
        if !(libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&number) {
            bail!(unknown());
        }
        return Ok(number);
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        name => name,
    };
    Signal::from_str(&format!("SIG{name}")).map(|signal| signal as i32).map_err(|_| unknown())
}

fn realtime(name: &str) -> Option<i32> {
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<i32>().ok(),
    };
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return Some(libc::SIGRTMIN() + offset(rest, '+')?);
    }
    Some(libc::SIGRTMAX() - offset(name.strip_prefix("RTMAX")?, '-')?)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn signals_have_numbers_and_names() {
        for text in ["9", "KILL", "kill", "SIGKILL", "sigkill"] {
            assert_eq!(parse(text).unwrap(), libc::SIGKILL, "{text}");
        }
        assert_eq!(parse("RTMIN+3").unwrap(), libc::SIGRTMIN() + 3);
        assert_eq!(parse("SIGRTMAX").unwrap(), libc::SIGRTMAX());
        for text in ["NOSUCH", "", "-1", "9999", "RTMIN+99", "RTMINx", "SIG"] {
            assert!(parse(text).unwrap_err().to_string().contains("unknown signal"), "{text}");
        }
    }
}
