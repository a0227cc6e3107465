//! Files that are no configuration at all, or one that is made to cost time and memory: each is an error soon, whoever
//! reads it, and nothing is created.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

use super::samples::Schema;
use crate::support::{Bundle, Container, Runtime, leftover, needs_root, own_engine, report_total};

/// More than any of it may take.
const MEMORY: &str = "--as=1073741824";
/// How long it may take on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(180);
/// What an error may say of it.
const WORDS: usize = 64 << 10;

/// What is to be read, and how it comes to be at a path.
enum Document {
    Bytes(Vec<u8>),
    /// `before`, then `middle` until there are so many bytes, then `after`.
    Long(&'static str, &'static str, &'static str, usize),
    Link(&'static str),
    Pipe,
    /// Somebody has it open and writes nothing.
    HeldPipe,
    Directory,
    Socket,
}

impl Document {
    /// Makes it at `path`; what it returns is to be kept until it was read.
    fn place(&self, path: &Path) -> Option<fs::File> {
        let node = |kind| mknodat(CWD, path, kind, Mode::from(0o600), 0).expect("make a node");
        match self {
            Document::Bytes(bytes) => fs::write(path, bytes).expect("write a document"),
            Document::Long(before, middle, after, length) => {
                let mut file = std::io::BufWriter::new(fs::File::create(path).expect("make a document"));
                let block = middle.repeat((1 << 16) / middle.len());
                file.write_all(before.as_bytes()).expect("write");
                for _ in 0..length.div_ceil(block.len()) {
                    file.write_all(block.as_bytes()).expect("write");
                }
                file.write_all(after.as_bytes()).expect("write");
            }
            Document::Link(target) => symlink(target, path).expect("make a link"),
            Document::Pipe => node(FileType::Fifo),
            Document::HeldPipe => {
                node(FileType::Fifo);
                return Some(fs::File::options().read(true).write(true).open(path).expect("open a pipe"));
            }
            Document::Directory => fs::create_dir(path).expect("make a directory"),
            Document::Socket => node(FileType::Socket),
        }
        None
    }

    fn remove(path: &Path) {
        let _ = fs::remove_file(path).or_else(|_| fs::remove_dir(path));
    }

    /// Whether `exec --process` waits for the rest of it, as is meant with a pipe.
    fn is_waited_for(&self) -> bool {
        matches!(self, Document::Pipe | Document::HeldPipe)
    }
}

/// A right document with one thing wrong: `text` in place of `instead`.
fn spoilt(right: &str, instead: &str, text: &[u8]) -> Document {
    let at = right.find(instead).expect("what is to be replaced");
    Document::Bytes([&right.as_bytes()[..at], text, &right.as_bytes()[at + instead.len()..]].concat())
}

/// Documents around `right`, which has an argument `marker`.
fn documents(right: &str) -> Vec<(String, Document)> {
    let mut all: Vec<(String, Document)> = Vec::new();
    let mut add = |name: &str, document| all.push((name.to_owned(), document));
    let bytes = |text: &str| Document::Bytes(text.as_bytes().to_vec());
    let utf16: Vec<u8> = "\u{feff}".encode_utf16().chain(right.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    add("nothing", bytes(""));
    add("a byte order mark", bytes(&format!("\u{feff}{right}")));
    add("UTF-16", Document::Bytes(utf16));
    add("a nul byte behind it", bytes(&format!("{right}\0")));
    add("nul bytes", Document::Bytes(vec![0; 4096]));
    add("a nul byte in a string", spoilt(right, "marker", b"mar\0ker"));
    add("a nul byte written as \\u0000", spoilt(right, "marker", b"mar\\u0000ker"));
    add("Latin-1", spoilt(right, "marker", b"mark\xe9"));
    add("an encoded surrogate", spoilt(right, "marker", b"\xed\xa0\x80"));
    add("half a surrogate pair", spoilt(right, "marker", b"\\ud800"));
    add("an overlong encoding", spoilt(right, "marker", b"\xc0\xaf"));
    add("a comma too many", spoilt(right, "\"marker\"", b"\"marker\","));
    add("a comment", bytes(&format!("// configuration\n{right}")));
    add("two documents", bytes(&format!("{right}{right}")));
    add("single quotes", bytes(&right.replace('"', "'")));
    add("not a number", spoilt(right, "\"marker\"", b"NaN"));
    add("an immense number", spoilt(right, "\"marker\"", b"1e999999"));
    add("a megabyte of digits", spoilt(right, "\"marker\"", "9".repeat(1 << 20).as_bytes()));
    add("a key twice", spoilt(right, "\"args\"", b"\"args\": [\"other\"], \"args\""));
    add("a key twice, written otherwise", spoilt(right, "\"args\"", b"\"\\u0061rgs\": [\"other\"], \"args\""));
    add("deep lists", Document::Long("", "[", "", 1 << 20));
    add("deep objects", Document::Long("", "{\"a\":", "", 1 << 20));
    add("deep and closed", bytes(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))));
    let hundred = 100 << 20;
    add("100 MB of a string", Document::Long("{\"ociVersion\":\"", "x", "\"}", hundred));
    add("100 MB of numbers", Document::Long("{\"x\":[", "0,", "0]}", hundred));
    add("100 MB of blanks", Document::Long("", " ", "{}", hundred));
    let almost = (16 << 20) - (1 << 17);
    add("15 MB of numbers", Document::Long("{\"x\":[", "0,", "0]}", almost));
    add("15 MB of objects", Document::Long("{\"x\":[", "{\"\":0},", "0]}", almost));
    add("15 MB of empty lists", Document::Long("{\"x\":[", "[],", "0]}", almost));
    add("15 MB of wrong arguments", Document::Long("{\"args\":[", "0.0000000000000,", "0]}", almost));
    add("zeros without end", Document::Link("/dev/zero"));
    add("random bytes without end", Document::Link("/dev/urandom"));
    add("an empty device", Document::Link("/dev/null"));
    add("a link to nothing", Document::Link("/nonexistent"));
    add("a link to itself", Document::Link("itself"));
    add("a pipe", Document::Pipe);
    add("a pipe that somebody holds", Document::HeldPipe);
    add("a directory", Document::Directory);
    add("a socket", Document::Socket);
    for part in 1..16 {
        add(&format!("{part} sixteenths"), bytes(&right[..right.len() * part / 16]));
    }
    all
}

/// The words of a call, which ends with an error in words that are not too many.
fn is_refused(runtime: &Runtime, words: &[&str]) -> Result<(), String> {
    let output = runtime.invoke(words).through(&["prlimit", MEMORY]).start().wait_within(PATIENCE);
    let said = format!("{}{}", output.stdout, output.stderr);
    // As runc has it.
    let code = if words[0] == "exec" { 255 } else { 1 };
    // What `check` is there for is to tell everything.
    let is_too_long = said.len() > WORDS && words[0] != "check";
    if output.code != code || said.is_empty() || is_too_long {
        let beginning: String = said.chars().take(300).collect();
        return Err(format!("{}: code {}, {} bytes: {beginning}", words[0], output.code, said.len()));
    }
    Ok(())
}

#[test]
fn no_document_is_run_that_is_none() {
    let runtime = own_engine!();
    let mut bundle = Bundle::new();
    bundle.args(&["/bin/true", "marker"]);
    bundle.write();
    let path = bundle.host("config.json");
    let all = documents(&bundle.spec.to_string());
    let (count, mut wrongly) = (all.len(), Vec::new());
    let directory = bundle.path().display().to_string();
    for (name, document) in all {
        Document::remove(&path);
        let _kept = document.place(&path);
        for words in [&["create", "--bundle", &directory, &bundle.name()][..], &["check", &directory]] {
            wrongly.extend(is_refused(&runtime, words).err().map(|error| format!("{name}: {error}")));
        }
    }
    report_total(&format!("INPUT documents that are none: {count} tried, {} wrong", wrongly.len()));
    assert!(wrongly.is_empty(), "\n{}", wrongly.join("\n"));
    let left = leftover::of(&bundle.name(), bundle.path(), &runtime.root());
    assert!(left.is_empty() && !runtime.root().exists(), "left behind: {left:?}");
}

#[test]
fn no_process_and_no_limits_that_are_none() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let path = bundle.host("document");
    let name = path.display().to_string();
    let mut wrongly = Vec::new();
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["/bin/true", "marker"]);
    let process = documents(&process.to_string());
    let mut limits = documents(r#"{"args": {}, "cpu": {"cpus": "marker"}}"#);
    // Limits have no arguments, and what is unknown is ignored.
    limits.retain(|(name, _)| name != "15 MB of wrong arguments");
    for (words, documents) in [(["exec", "--process"], process), (["update", "--resources"], limits)] {
        for (kind, document) in documents.into_iter().filter(|(_, document)| !document.is_waited_for()) {
            Document::remove(&path);
            let _kept = document.place(&path);
            let words = [&words[..], &[&name, &container.id]].concat();
            wrongly.extend(is_refused(&runtime, &words).err().map(|error| format!("{kind}: {error}")));
        }
    }
    assert!(wrongly.is_empty(), "\n{}", wrongly.join("\n"));
    assert_eq!(container.status(), "running");
}

/// A shell's `<(…)` is a pipe.
#[test]
fn a_process_may_come_through_a_pipe() {
    let runtime = own_engine!();
    let bundle = Bundle::shell("exec sleep 600");
    let container = Container::new(&runtime, &bundle);
    container.run_detached(&[]).ok();
    let mut process = bundle.spec["process"].clone();
    process["args"] = json!(["/bin/busybox", "echo", "came through"]);
    let pipe = bundle.host("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::from(0o600), 0).expect("make a pipe");
    let (script, text) = ("sleep 0.2; printf %s \"$1\" > \"$0\"", process.to_string());
    let writer = Command::new("sh").args(["-c", script, &pipe.display().to_string(), &text]).spawn();
    let output = container.exec(&["--process", &pipe.display().to_string()], &[]);
    writer.expect("run a shell").wait().expect("wait for the shell");
    assert_eq!(output.ok().stdout, "came through\n");
}

/// No rule compares every element with every other one.
#[test]
fn long_lists_are_checked_in_time() {
    needs_root!();
    let runtime = own_engine!();
    let (schema, mut bundle) = (Schema::new(), Bundle::new());
    let base = bundle.spec.clone();
    let length = 20_000;
    for property in schema.0.iter().filter(|property| property.is_named()) {
        let pointer = property.pointer;
        let is_there = |below: &str| schema.0.iter().any(|other| other.pointer == below);
        let element = format!("{pointer}/*");
        let values: Vec<Value> = match property.kind {
            "array" if is_there(&element) => {
                let right = schema.right(&element);
                let numbered = (0..length).map(|number| match &right {
                    Value::String(text) => json!(format!("{text}{number}")),
                    other => other.clone(),
                });
                vec![json!(vec![right.clone(); length]), numbered.collect()]
            }
            "object" if is_there(&element) => {
                let right = schema.right(&element);
                vec![(0..length).map(|number| (format!("key.{number}"), right.clone())).collect()]
            }
            _ => continue,
        };
        for value in values {
            bundle.spec = schema.with(&base, pointer, value);
            bundle.write();
            // The harness ends what takes too long.
            let call = runtime.invoke(&["check", &bundle.path().display().to_string()]);
            let output = call.start().wait_within(PATIENCE);
            assert!(output.code < 2, "{pointer}: code {} {}", output.code, output.stderr);
        }
    }
}
