//! The command lines that callers write all day, understood without clap: building its definitions takes as long as all else
//! that `state` does, and a quarter of a megabyte. Whatever is not plain here, mistakes and requests for help among it, is
//! clap's to understand, and what is understood here clap would understand in the same way.

use super::args::{
    Cli, Command, CreateArgs, DeleteArgs, ExecArgs, Format, Globals, IdArgs, KillArgs, LaunchArgs, ListArgs, LogFormat,
    RunArgs,
};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Parses a full argument vector, the program's name included. `None` for one that is not plain.
pub fn parse(argv: &[OsString]) -> Option<Cli> {
    let mut rest = argv.get(1..)?.iter();
    let mut globals = Globals::default();
    let verb = loop {
        let word = rest.next()?;
        match flag(word)? {
            Some(flag) => take(global(&mut globals, flag.name)?, flag, &mut rest)?,
            None => break word.to_str()?,
        }
    };
    let command = command(verb, &mut globals, rest)?;
    Some(Cli { globals, command: Some(command) })
}

type Rest<'a> = std::slice::Iter<'a, OsString>;

fn command(verb: &str, globals: &mut Globals, mut rest: Rest) -> Option<Command> {
    let rest = &mut rest;
    Some(match verb {
        "create" => {
            let mut args = CreateArgs::default();
            let id = words(globals, rest, &mut args.launch, launch)?;
            args.launch.id = id;
            done(rest)?;
            Command::Create(args)
        }
        "run" => {
            let mut args = RunArgs::default();
            let id = words(globals, rest, &mut args, run)?;
            args.launch.id = id;
            done(rest)?;
            Command::Run(args)
        }
        "exec" => {
            let mut args = ExecArgs::default();
            args.id = words(globals, rest, &mut args, exec)??;
            args.args = rest.map(|word| word.to_str().map(str::to_owned)).collect::<Option<_>>()?;
            // What it looks like a flag there may still be one of rtx's.
            if args.args.first().is_some_and(|word| word.starts_with('-')) {
                return None;
            }
            Command::Exec(args)
        }
        "start" => Command::Start(IdArgs { id: only_id(globals, rest)? }),
        "state" => Command::State(IdArgs { id: only_id(globals, rest)? }),
        "pause" => Command::Pause(IdArgs { id: only_id(globals, rest)? }),
        "resume" => Command::Resume(IdArgs { id: only_id(globals, rest)? }),
        "list" => {
            let mut args = ListArgs { format: Format::Table, quiet: false };
            match words(globals, rest, &mut args, list)? {
                None => Command::List(args),
                Some(_) => return None,
            }
        }
        "kill" => {
            let mut all = false;
            let id = words(globals, rest, &mut all, |all, name| match name {
                "--all" | "-a" => Some(Slot::Switch(all)),
                _ => None,
            })??;
            let signal = match rest.next() {
                Some(word) => word.to_str().filter(|word| is_plain(word))?.to_owned(),
                None => "SIGTERM".to_owned(),
            };
            done(rest)?;
            Command::Kill(KillArgs { all, id, signal, timeout: None })
        }
        "delete" => {
            let mut force = false;
            let id = words(globals, rest, &mut force, |force, name| match name {
                "--force" | "-f" => Some(Slot::Switch(force)),
                _ => None,
            })??;
            done(rest)?;
            Command::Delete(DeleteArgs { force, id })
        }
        _ => return None,
    })
}

fn only_id(globals: &mut Globals, rest: &mut Rest) -> Option<String> {
    let id = words(globals, rest, &mut (), |(), _| None)??;
    done(rest)?;
    Some(id)
}

/// Takes the flags of a command up to the id, which is returned where there is one.
fn words<A>(
    globals: &mut Globals,
    rest: &mut Rest<'_>,
    args: &mut A,
    own: for<'a> fn(&'a mut A, &str) -> Option<Slot<'a>>,
) -> Option<Option<String>> {
    while let Some(word) = rest.next() {
        let Some(flag) = flag(word)? else { return Some(Some(word.to_str()?.to_owned())) };
        match own(args, flag.name) {
            Some(slot) => take(slot, flag, rest)?,
            None => take(global(globals, flag.name)?, flag, rest)?,
        }
    }
    Some(None)
}

/// `None` where anything is left: flags may stand behind the id as well.
fn done(rest: &mut Rest) -> Option<()> {
    rest.next().is_none().then_some(())
}

struct Flag<'a> {
    /// With its dashes.
    name: &'a str,
    value: Option<&'a OsStr>,
}

/// A word as a flag; `None` inside where it is none, outside where that is not plain.
fn flag(word: &OsStr) -> Option<Option<Flag<'_>>> {
    let bytes = word.as_bytes();
    match bytes {
        [] => None,
        [b'-', b'-', _, ..] => {
            let equals = bytes.iter().position(|byte| *byte == b'=');
            let name = std::str::from_utf8(&bytes[..equals.unwrap_or(bytes.len())]).ok()?;
            let value = equals.map(|at| OsStr::from_bytes(&bytes[at + 1..]));
            Some(Some(Flag { name, value }))
        }
        [b'-', letter] if letter.is_ascii_alphabetic() => Some(Some(Flag { name: word.to_str()?, value: None })),
        [b'-', ..] => None,
        _ => Some(None),
    }
}

/// Where a flag's value goes.
enum Slot<'a> {
    Switch(&'a mut bool),
    Path(&'a mut Option<PathBuf>),
    Text(&'a mut Option<String>),
    List(&'a mut Vec<String>),
    Number(&'a mut u32),
    Form(&'a mut LogFormat),
    Output(&'a mut Format),
}

fn is_plain(value: impl AsRef<OsStr>) -> bool {
    !matches!(value.as_ref().as_bytes(), [] | [b'-', ..])
}

/// Puts the value of a flag, which may be the next word, where it belongs.
fn take<'w>(slot: Slot<'_>, flag: Flag<'w>, rest: &mut Rest<'w>) -> Option<()> {
    if let Slot::Switch(switch) = slot {
        *switch = true;
        return flag.value.is_none().then_some(());
    }
    let value = flag.value.or_else(|| rest.next().map(OsString::as_os_str)).filter(|value| is_plain(value))?;
    match slot {
        Slot::Path(path) => *path = Some(PathBuf::from(value)),
        Slot::Text(text) => *text = Some(value.to_str()?.to_owned()),
        Slot::List(list) => list.push(value.to_str()?.to_owned()),
        Slot::Number(number) => *number = value.to_str()?.parse().ok()?,
        Slot::Form(form) => {
            *form = match value.to_str()? {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return None,
            }
        }
        Slot::Output(format) => {
            *format = match value.to_str()? {
                "table" => Format::Table,
                "json" => Format::Json,
                _ => return None,
            }
        }
        Slot::Switch(_) => {}
    }
    Some(())
}

fn global<'a>(globals: &'a mut Globals, name: &str) -> Option<Slot<'a>> {
    Some(match name {
        "--root" => Slot::Path(&mut globals.root),
        "--log" => Slot::Path(&mut globals.log),
        "--log-format" => Slot::Form(&mut globals.log_format),
        "--debug" => Slot::Switch(&mut globals.debug),
        "--systemd-cgroup" => Slot::Switch(&mut globals.systemd_cgroup),
        _ => return None,
    })
}

fn list<'a>(args: &'a mut ListArgs, name: &str) -> Option<Slot<'a>> {
    Some(match name {
        "--format" | "-f" => Slot::Output(&mut args.format),
        "--quiet" | "-q" => Slot::Switch(&mut args.quiet),
        _ => return None,
    })
}

fn launch<'a>(args: &'a mut LaunchArgs, name: &str) -> Option<Slot<'a>> {
    Some(match name {
        "--bundle" | "-b" => Slot::Path(&mut args.bundle),
        "--console-socket" => Slot::Path(&mut args.console_socket),
        "--pidfd-socket" => Slot::Path(&mut args.pidfd_socket),
        "--pid-file" => Slot::Path(&mut args.pid_file),
        "--no-pivot" => Slot::Switch(&mut args.no_pivot),
        "--no-new-keyring" => Slot::Switch(&mut args.no_new_keyring),
        "--preserve-fds" => Slot::Number(&mut args.preserve_fds),
        _ => return None,
    })
}

fn run<'a>(args: &'a mut RunArgs, name: &str) -> Option<Slot<'a>> {
    Some(match name {
        "--detach" | "-d" => Slot::Switch(&mut args.detach),
        "--keep" => Slot::Switch(&mut args.keep),
        "--no-subreaper" => Slot::Switch(&mut args.no_subreaper),
        _ => return launch(&mut args.launch, name),
    })
}

fn exec<'a>(args: &'a mut ExecArgs, name: &str) -> Option<Slot<'a>> {
    Some(match name {
        "--console-socket" => Slot::Path(&mut args.console_socket),
        "--pidfd-socket" => Slot::Path(&mut args.pidfd_socket),
        "--pid-file" => Slot::Path(&mut args.pid_file),
        "--process" | "-p" => Slot::Path(&mut args.process),
        "--cwd" => Slot::Text(&mut args.cwd),
        "--user" | "-u" => Slot::Text(&mut args.user),
        "--env" | "-e" => Slot::List(&mut args.env),
        "--tty" | "-t" => Slot::Switch(&mut args.tty),
        "--detach" | "-d" => Slot::Switch(&mut args.detach),
        "--preserve-fds" => Slot::Number(&mut args.preserve_fds),
        _ => return None,
    })
}
