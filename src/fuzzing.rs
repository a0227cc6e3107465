//! Everything that reads what others have written, each as a function of bytes: for the fuzzer in fuzz/ and for
//! tests/integration/fuzz.rs. What a function asserts holds for whatever comes.

use std::path::Path;

use crate::cli::{argv, inherited, values};
use crate::config::bundle::Bundle;
use crate::config::check::{self, Finding, Severity};
use crate::config::envelope::{Envelope, OciConfig, Starter};
use crate::config::{id, idmap_option, json, mount_options, number_list, update};
use crate::engine::live::EngineState;
use crate::engine::oci::cgroup::Freezer;
use crate::engine::{LaunchConfig, LaunchOptions, table};
use crate::rpc::operation::Operation;
use crate::rpc::{Reply, frame};
use crate::state::{Brief, Record};
use crate::sys::{memfd, socket};
use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json as value};
use std::io::Write;
use std::os::fd::AsRawFd;

/// Reads bytes, whatever they are.
pub type Target = fn(&[u8]);

/// What can be fuzzed.
pub const TARGETS: &[(&str, Target)] = &[
    ("arguments", arguments),
    ("bundle", bundle),
    ("envelope", envelope),
    ("frame", frame_of),
    ("id", id_of),
    ("limits", limits),
    ("listen_fds", listen_fds),
    ("mount_options", options),
    ("process", process),
    ("state", state),
];

/// Runs the target of that name.
///
/// # Panics
/// Where there is none, and where the target finds a fault.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(target, _)| *target == name);
    target.expect("a target of rtx::fuzzing").1(data);
}

fn is_refused(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

/// Findings are in the document, or about what is missing there.
fn are_placed(document: &Value, findings: &[Finding]) {
    for Finding { pointer, .. } in findings {
        let parent = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        let is_there = document.pointer(pointer).or_else(|| document.pointer(parent)).is_some();
        assert!(is_there || !document.is_object() || has_missing_parent(document, pointer), "{pointer} is nowhere");
    }
}

/// What is required of something that may be left out as a whole.
fn has_missing_parent(document: &Value, pointer: &str) -> bool {
    let section = pointer.split('/').nth(1).unwrap_or_default();
    document.get(section).is_none_or(|section| section.is_null() || section.is_object())
}

/// config.json as `create` takes it: read, checked, and everything about it decided.
fn bundle(data: &[u8]) {
    let Ok(mut document) = json::parse(data) else { return };
    let findings = check::check(&document, None);
    are_placed(&document, &findings);
    if is_refused(&findings) {
        return;
    }
    check::normalise(&mut document);
    let spec: Spec = serde_json::from_value(document).expect("a document without errors is a configuration");
    // The container's own root, so that nothing is looked for elsewhere.
    let bundle = Bundle {
        directory: "/nonexistent".into(),
        raw: data.to_vec(),
        rootfs: "/nonexistent/rootfs".into(),
        spec: spec.into(),
        warnings: Vec::new(),
    };
    for engine in ["oci", "native", "libcontainer"] {
        let Ok(provider) = table::find(engine) else { continue };
        let mut launch = LaunchConfig {
            id: "fuzzed".to_owned(),
            bundle: bundle.clone(),
            options: LaunchOptions { foreground: true, allow_unconfined: true, ..LaunchOptions::default() },
            engine_config: Value::Null,
            starter: Starter::default(),
            oci_config: OciConfig::default(),
            root: "/nonexistent/state".into(),
            engine_state: None,
            warnings: Vec::new(),
        };
        let _ = (provider.make)().prepare_config(&mut launch);
    }
}

/// What `exec --process` takes.
fn process(data: &[u8]) {
    let Ok(mut document) = json::parse(data) else { return };
    let findings = check::check_process(&document);
    if !is_refused(&findings) {
        check::normalise_process(&mut document);
        serde_json::from_value::<Process>(document).expect("a document without errors is a process");
    }
}

/// What `update --resources` takes, laid over limits that a container has.
fn limits(data: &[u8]) {
    let Ok(document) = json::parse(data) else { return };
    for current in
        [value!({}), value!({ "memory": { "limit": 10_000_000 }, "cpu": { "quota": 5000, "period": 10_000 } })]
    {
        for swap_is_apart in [false, true] {
            let _ = update::plan(&current, &document, swap_is_apart);
        }
    }
}

/// What stage2 takes from smaster.
fn envelope(data: &[u8]) {
    if let Ok(envelope) = serde_json::from_slice::<Envelope>(data) {
        let again = serde_json::to_vec(&envelope).expect("an envelope is JSON");
        serde_json::from_slice::<Envelope>(&again).expect("what was written can be read");
    }
}

/// A message between smaster and stage2, in the message itself and, after its first 64 bytes, as a file beside it.
fn frame_of(data: &[u8]) {
    let (Ok((left, right)), data) = (socket::pair(), &data[..data.len().min(60_000)]) else { return };
    let (header, body) = data.split_at(data.len().min(64));
    let Ok(mut file) = memfd::create(c"fuzzed", false).map(std::fs::File::from) else { return };
    file.write_all(body).expect("write to memory");
    for (bytes, fds) in [(data, &[][..]), (header, &[file.as_raw_fd()][..])] {
        if bytes.is_empty() || socket::send(&left, &[bytes], fds).is_err() {
            continue;
        }
        if let Ok(Some(message)) = frame::receive(&right) {
            let is_batch = frame::each(message.kind, &message.body, |_: Operation| Ok(())).is_ok();
            let _ = (is_batch, message.parse::<Reply>().is_ok());
        }
    }
}

/// state.json, and what the engine has kept in it.
fn state(data: &[u8]) {
    let brief = str::from_utf8(data).ok().and_then(Brief::read);
    if let Some(state) = brief.as_ref().and_then(|brief| brief.engine_state)
        && let Some(freezer) = Freezer::plain(state)
    {
        assert_eq!(Freezer::of(state).ok(), Some(Some(freezer)), "what an engine keeps says two things");
    }
    let Ok(record) = serde_json::from_slice::<Record>(data) else {
        assert_eq!(brief, None, "what is no record is taken for one");
        return;
    };
    assert!(brief.is_none_or(|brief| brief == Brief::from(&record)), "a record says two things");
    let again = serde_json::to_vec(&record).expect("a record is JSON");
    let again: Record = serde_json::from_slice(&again).expect("what was written can be read");
    assert_eq!((&again.id, &again.init), (&record.id, &record.init));
    if let Some(kept) = &record.engine_state {
        let _ = serde_json::from_str::<EngineState>(kept.get());
    }
    if let Some(init) = &record.init {
        let _ = init.liveness();
    }
}

/// A mount's options, one a line.
fn options(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lines: Vec<&str> = text.lines().collect();
    let parsed = mount_options::parse(lines.iter().copied());
    assert_eq!(parsed.attr_set & parsed.attr_clear & !libc::MOUNT_ATTR__ATIME, 0, "set and cleared");
    assert_eq!(parsed.rec_set & parsed.rec_clear & !libc::MOUNT_ATTR__ATIME, 0, "set and cleared");
    assert!(parsed.data.iter().all(|(key, _)| !key.is_empty() || text.contains('=')), "an option without a name");
    for line in &lines {
        let _ = idmap_option::parse(line, &[], &[]);
        let _ = number_list::parse(line);
    }
}

/// LISTEN_PID, LISTEN_FDS and `--preserve-fds`, a line each.
fn listen_fds(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.lines();
    let (pid, fds, preserved) = (lines.next(), lines.next(), lines.next());
    let preserved = preserved.and_then(|number| number.parse().ok()).unwrap_or(0);
    for found in [0, 3, 1024, u32::MAX] {
        let mut options = LaunchOptions::default();
        if inherited::count_for(7, (pid, fds), found, preserved, &mut options).is_ok() {
            let passed = u64::from(options.listen_fds) + u64::from(options.preserve_fds);
            assert!(passed <= u64::from(found), "more is passed on than there is");
            let is_own = pid.and_then(|pid| pid.parse().ok()) == Some(7u32);
            assert!(options.listen_fds == 0 || is_own, "the sockets are another's");
        }
    }
}

/// What is accepted names one directory below another, and nothing else.
fn id_of(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if id::validate(text).is_ok() {
        let path = Path::new("/root").join(text);
        assert_eq!(path.parent(), Some(Path::new("/root")));
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(text));
    }
}

/// The command line, a word a line, and what its values may be.
fn arguments(data: &[u8]) {
    use std::os::unix::ffi::OsStringExt;
    let words = data.split(|byte| *byte == b'\n').map(|word| std::ffi::OsString::from_vec(word.to_vec()));
    let words: Vec<_> = std::iter::once("rtx".into()).chain(words).collect();
    if let Err(error) = argv::parse(words.clone()) {
        let _ = argv::usage_error(error, &words);
    }
    for word in String::from_utf8_lossy(data).lines() {
        let _ = (values::parse_bytes(word), values::parse_interval(word));
    }
}
