//! From an argument vector in the manner of Go's flag package to one for clap, and from clap's errors to runc's texts.
//!
//! Callers write for runc: long flags with one dash (`-no-subreaper`), truth values (`--detach=true`), values that begin
//! with a dash (`--memory-swap -1`), empty paths for "none", and flags after the id (`run ID -b DIR`).

use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches, ValueHint};

use super::args::Cli;
use super::plain;
use super::values::go_bool;

/// Parses a full argument vector, the program's name included.
///
/// # Errors
/// clap's error; `use_stderr()` tells a request for help from a mistake, for which see [`usage_error`].
pub fn parse(argv: Vec<OsString>) -> Result<Cli, clap::Error> {
    match plain::parse(&argv) {
        Some(cli) => Ok(cli),
        None => parse_all(argv),
    }
}

// What is plain does without the memory that this takes.
#[inline(never)]
fn parse_all(argv: Vec<OsString>) -> Result<Cli, clap::Error> {
    let definitions = Cli::command();
    let argv = normalise(&definitions, argv);
    Cli::from_arg_matches(&definitions.try_get_matches_from(argv)?)
}

/// Rewrites an argument vector (the program's name included) from Go's flag style to GNU's. Known flags only; what it
/// does not know it leaves to clap. Nothing after `--`, after the command of `exec` or after the id of `ps` is touched.
pub fn normalise_argv(argv: Vec<OsString>) -> Vec<OsString> {
    normalise(&Cli::command(), argv)
}

fn normalise(definitions: &Command, argv: Vec<OsString>) -> Vec<OsString> {
    let mut scope = Scope { globals: definitions, command: None };
    let (mut positionals, mut signal) = (0, None);
    let mut out = Vec::with_capacity(argv.len() + 1);
    let mut rest = argv.into_iter();
    out.extend(rest.next());
    while let Some(word) = rest.next() {
        if word == "--" {
            if signal.is_none() {
                out.push(word);
            }
            break;
        }
        if !is_flag(&word) {
            if scope.command.is_none() {
                // Without a known command there is nothing to go by; clap will name the unknown one.
                let Some(command) = definitions.find_subcommand(&word) else {
                    let is_help = word == "help";
                    out.push(word);
                    if is_help {
                        out.extend(
                            rest.by_ref().filter(|word| !["--help", "-help", "-h"].iter().any(|help| word == help)),
                        );
                    }
                    break;
                };
                scope.command = Some(command);
                out.push(word);
                continue;
            }
            positionals += 1;
            match (scope.name(), positionals) {
                ("exec", 2) => out.extend([OsString::from("--"), word]),
                ("ps", 1) => {
                    out.push(word);
                    out.push("--".into());
                }
                _ => {
                    out.push(word);
                    continue;
                }
            }
            break;
        }
        // `kill ID -9`: runc takes it for the name of a signal, and knows none.
        if scope.name() == "kill" && positionals == 1 && signal.is_none() && scope.is_unknown(&word) {
            signal = Some(word);
            continue;
        }
        scope.rewrite(word, &mut rest, &mut out);
    }
    out.extend(signal.into_iter().flat_map(|signal| ["--".into(), signal]));
    let tail_starts = out.len();
    out.extend(rest);
    // `ps ID -- -ef`: the caller's own separator is one of ours already.
    if scope.name() == "ps" && out[tail_starts - 1] == "--" && out.get(tail_starts).is_some_and(|word| word == "--") {
        out.remove(tail_starts);
    }
    out
}

/// Go takes every word that begins with a dash for a flag, but `-` alone, which means standard input.
fn is_flag(word: &OsStr) -> bool {
    word.len() > 1 && word.as_bytes()[0] == b'-'
}

/// The flags that are defined where the scan stands.
struct Scope<'a> {
    globals: &'a Command,
    command: Option<&'a Command>,
}

impl Scope<'_> {
    fn name(&self) -> &str {
        self.command.map_or("", Command::get_name)
    }

    /// The command's own flags come first: `spec --rootless` is not the global one.
    fn find(&self, matches: impl Fn(&Arg) -> bool) -> Option<&Arg> {
        let own = self.command.and_then(|command| command.get_arguments().find(|arg| matches(arg)));
        own.or_else(|| {
            self.globals.get_arguments().find(|arg| (self.command.is_none() || arg.is_global_set()) && matches(arg))
        })
    }

    fn long(&self, name: &OsStr) -> Option<&Arg> {
        self.find(|arg| arg.get_long().is_some_and(|long| name == long))
    }

    fn short(&self, letter: char) -> Option<&Arg> {
        self.find(|arg| arg.get_short() == Some(letter))
    }

    /// Whether the letters after a dash are short flags one and all, as far as they go before a value.
    fn is_cluster(&self, letters: &OsStr) -> bool {
        let Some(letters) = letters.to_str() else { return false };
        for letter in letters.chars() {
            match self.short(letter) {
                Some(arg) if takes_value(arg) => return true,
                Some(_) => {}
                None if letter == 'h' => {}
                None => return false,
            }
        }
        true
    }

    /// Whether a word with one dash is no flag at all.
    fn is_unknown(&self, word: &OsStr) -> bool {
        let body = OsStr::from_bytes(&word.as_bytes()[1..]);
        let name = OsStr::from_bytes(body.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default());
        !body.as_bytes().starts_with(b"-") && name != "help" && self.long(name).is_none() && !self.is_cluster(name)
    }

    /// Moves one flag, and its value where that is a word of its own, from `word` and `rest` to `out`.
    fn rewrite(&self, word: OsString, rest: &mut impl Iterator<Item = OsString>, out: &mut Vec<OsString>) {
        let bytes = word.as_bytes();
        let body = &bytes[if bytes.starts_with(b"--") { 2 } else { 1 }..];
        let equals = body.iter().position(|byte| *byte == b'=');
        let name = OsStr::from_bytes(&body[..equals.unwrap_or(body.len())]);
        let inline = equals.map(|at| OsStr::from_bytes(&body[at + 1..]));
        let letter = name.to_str().and_then(|name| name.chars().next().filter(|first| first.len_utf8() == name.len()));

        let arg = match letter {
            Some(letter) => self.short(letter),
            None => self.long(name),
        };
        let Some(arg) = arg else {
            // `-help`, and an unknown `-nosuch`, which clap would report as `-n`.
            if !bytes.starts_with(b"--") && letter.is_none() && !self.is_cluster(OsStr::from_bytes(body)) {
                out.push(joined(&[b"--", body]));
            } else {
                out.push(word);
            }
            return;
        };
        let flag = match letter {
            Some(_) => joined(&[b"-", name.as_bytes()]),
            None => joined(&[b"--", name.as_bytes()]),
        };
        if !takes_value(arg) {
            match inline.map(|value| value.to_str().and_then(go_bool)) {
                None | Some(Some(true)) => out.push(flag),
                Some(Some(false)) if arg.is_require_equals_set() => out.push(joined(&[flag.as_bytes(), b"=false"])),
                Some(Some(false)) => {}
                Some(None) => out.push(word),
            }
            return;
        }
        let Some(value) = inline.map(OsStr::to_owned).or_else(|| rest.next()) else {
            out.push(flag);
            return;
        };
        // An empty path is how Go programs say that there is none; they know nothing of a timeline.
        let is_path = !matches!(arg.get_value_hint(), ValueHint::Unknown | ValueHint::Other);
        if value.is_empty() && is_path && arg.get_id() != "timeline" {
            return;
        }
        if inline.is_some() || value.is_empty() || is_flag(&value) {
            out.push(joined(&[flag.as_bytes(), b"=", value.as_bytes()]));
        } else {
            out.extend([flag, value]);
        }
    }
}

/// A switch that can be turned off takes its value after an equals sign alone.
fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values() && !arg.is_require_equals_set()
}

fn joined(parts: &[&[u8]]) -> OsString {
    OsString::from_vec(parts.concat())
}

/// Exit code and one-line text for a mistake on the command line, in the words that runc's callers know. Not for help
/// and version, which are no mistakes (`err.use_stderr()` is false).
pub fn usage_error(err: clap::Error, argv: &[OsString]) -> (i32, String) {
    let command = command_name(&err, argv);
    let argument = context(&err, ContextKind::InvalidArg);
    let value = context(&err, ContextKind::InvalidValue);
    let text = match err.kind() {
        ErrorKind::InvalidSubcommand => {
            let name = context(&err, ContextKind::InvalidSubcommand);
            let program = if command.is_empty() { "rtx".to_owned() } else { format!("rtx {command}") };
            let hint =
                nearest(&err, ContextKind::SuggestedSubcommand).unwrap_or_else(|| format!(" (see '{program} --help')"));
            return (3, format!("No help topic for '{name}'{hint}"));
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            format!("flag provided but not defined: -{}", flag_name(&argument))
        }
        ErrorKind::UnknownArgument | ErrorKind::MissingRequiredArgument => format!("rtx: {}", argument_count(&command)),
        ErrorKind::MissingSubcommand => {
            format!("rtx: {command:?} requires one of: {}", context(&err, ContextKind::ValidSubcommand))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("flag needs an argument: -{}", flag_name(&argument)),
        ErrorKind::InvalidValue => {
            let valid = context(&err, ContextKind::ValidValue);
            format!("invalid value for {}: '{value}' is none of: {valid}", flag_name(&argument))
        }
        ErrorKind::ValueValidation => {
            let cause = err.source().map(ToString::to_string).unwrap_or_default();
            let cause = if cause.contains(&value) { cause } else { format!("'{value}': {cause}") };
            format!("invalid value for {}: {cause}", flag_name(&argument))
        }
        ErrorKind::TooManyValues => {
            format!("invalid value for {}: '{value}': it takes no value, or true or false", flag_name(&argument))
        }
        ErrorKind::InvalidUtf8 => {
            let argument = argv.iter().rfind(|argument| argument.to_str().is_none());
            let named =
                argument.map_or_else(|| "an argument".to_owned(), |argument| format!("the argument {argument:?}"));
            format!("{named} is not valid UTF-8, as everything in a configuration has to be: write it otherwise")
        }
        _ => err.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    };
    let hint = nearest(&err, ContextKind::SuggestedArg).unwrap_or_else(|| match command.as_str() {
        "" => " (see 'rtx --help')".into(),
        command => format!(" (see 'rtx {command} --help')"),
    });
    (1, format!("{text}{hint}"))
}

/// "did you mean ...?", if clap has a suggestion; the best of several is its last.
fn nearest(err: &clap::Error, kind: ContextKind) -> Option<String> {
    let name = match err.get(kind)? {
        ContextValue::String(name) => name,
        ContextValue::Strings(names) => names.last()?,
        _ => return None,
    };
    Some(format!(" (did you mean '{name}'?)"))
}

/// The command that an error is about, from the usage line that clap keeps with it, but for an error about a value; empty for
/// the global flags.
fn command_name(err: &clap::Error, argv: &[OsString]) -> String {
    let usage = context(err, ContextKind::Usage);
    let words = usage.trim_start_matches("Usage:").split_whitespace().skip(1);
    let name =
        words.take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase())).collect::<Vec<_>>().join(" ");
    if name.is_empty() { command_of(argv) } else { name }
}

/// The command of an argument vector; empty where there is none.
fn command_of(argv: &[OsString]) -> String {
    let definitions = Cli::command();
    let mut out = normalise(&definitions, argv.to_vec()).into_iter().skip(1);
    let globals = Scope { globals: &definitions, command: None };
    while let Some(word) = out.next() {
        match word.to_str().and_then(|word| word.strip_prefix("--")) {
            Some(name) if globals.long(OsStr::new(name)).is_some_and(takes_value) => drop(out.next()),
            _ if is_flag(&word) => {}
            _ => {
                let Some(command) = definitions.find_subcommand(&word) else { break };
                let below = out.find_map(|word| command.find_subcommand(&word));
                let names = [Some(command), below];
                return names.into_iter().flatten().map(Command::get_name).collect::<Vec<_>>().join(" ");
            }
        }
    }
    String::new()
}

fn context(err: &clap::Error, kind: ContextKind) -> String {
    match err.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        Some(ContextValue::Strings(texts)) => texts.join(", "),
        Some(ContextValue::StyledStr(text)) => text.to_string(),
        _ => String::new(),
    }
}

/// `--log-format <FORMAT>` → `log-format`.
fn flag_name(argument: &str) -> &str {
    let name = argument.trim_start_matches('-');
    &name[..name.find([' ', '=']).unwrap_or(name.len())]
}

/// runc's words for too few or too many arguments.
fn argument_count(command: &str) -> String {
    let count = match command {
        "kill" => "a minimum of 1 and a maximum of 2",
        "exec" | "ps" | "wait" => "a minimum of 1",
        "create" | "run" => "at most 1",
        "list" | "spec" | "gc" | "doctor" | "features" | "engine list" | "engine schema" => "exactly 0",
        _ => "exactly 1",
    };
    format!("{command:?} requires {count} argument(s)")
}

#[cfg(test)]
#[path = "argv_tests.rs"]
mod tests;
