//! The list of accepted differences, and which of them were needed.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde::Deserialize;

use super::compare::glob;
use crate::support::runtime::engine;
use crate::support::units::{is_v2, systemd_runs};

/// A difference that is meant to be, for the cases that match the pattern ('*' stands for any text) and the fields that
/// match one of the patterns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    case: String,
    fields: Vec<String>,
    reason: String,
    #[serde(skip)]
    used: AtomicBool,
}

fn entries() -> &'static [Entry] {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    ENTRIES.get_or_init(|| {
        let text = match engine().as_deref() {
            Some("libcontainer") => include_str!("accepted-libcontainer.json"),
            _ => include_str!("accepted.json"),
        };
        let parse = |text| serde_json::from_str::<Vec<Entry>>(text).expect("the list of accepted differences");
        let mut entries = parse(text);
        // On a host of the one kind an entry for the other would be reported as not needed.
        if is_v2() {
            entries.extend(parse(include_str!("accepted-v2.json")));
        }
        if systemd_runs() {
            entries.extend(parse(include_str!("accepted-systemd.json")));
        }
        assert!(entries.iter().all(|e| !e.reason.is_empty()), "an accepted difference has no reason");
        entries
    })
}

/// Whether a difference in `field` of `case` is accepted.
pub fn covers(case: &str, field: &str) -> bool {
    let found = entries().iter().find(|e| glob(&e.case, case) && e.fields.iter().any(|pattern| glob(pattern, field)));
    found.inspect(|e| e.used.store(true, Ordering::Relaxed)).is_some()
}

/// Why a case cannot be run on the engine that is tested: it would wait for what never comes.
pub fn cannot_run(case: &str) -> Option<&'static str> {
    let foreground = glob("terminal/foreground_*", case) || case == "exec/terminal_in_foreground";
    (engine().as_deref() == Some("libcontainer") && foreground)
        .then_some("the libcontainer engine refuses a terminal in the foreground")
}

/// Counts a finished case; after the last of `all`, reports the entries that no case needed.
pub fn case_done(all: usize) {
    static DONE: AtomicUsize = AtomicUsize::new(0);
    if DONE.fetch_add(1, Ordering::Relaxed) + 1 != all {
        return;
    }
    for entry in entries().iter().filter(|e| !e.used.load(Ordering::Relaxed)) {
        let line =
            format!("UNUSED accepted difference: case {}, fields {:?}: {}", entry.case, entry.fields, entry.reason);
        let _ = writeln!(std::io::stderr(), "{line}");
    }
}
