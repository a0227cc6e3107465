//! What reads the words of others (rtx::fuzzing) on the corpus of fuzz/, and on what a seeded chance makes of it. The same
//! functions are libFuzzer's: see CONTRIBUTING.md.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::schema::samples::Schema;
use crate::support::chance::Chance;
use crate::support::report_total;

/// Mutations of each target; `RTX_TEST_FUZZ` is another number.
const ROUNDS: usize = 3000;

/// Values that something may stumble on.
fn odd_values() -> Vec<Value> {
    let huge = "9".repeat(400);
    vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(u32::MAX),
        json!(1u64 << 32),
        json!(""),
        json!("\0"),
        json!("/"),
        json!(".."),
        json!("../../x"),
        json!("="),
        json!("a=b"),
        json!("0-4294967295"),
        json!("-"),
        json!(","),
        json!("é\u{202e}"),
        json!(huge),
        json!([]),
        json!([null]),
        json!({}),
        json!({ "": null }),
        json!([[[]]]),
    ]
}

/// Pieces of the languages that are read.
const PIECES: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ",",
    ":",
    "\\u0000",
    "\\ud800",
    "null",
    "-0",
    "1e999",
    "18446744073709551616",
    "\n",
    "\0",
    "/",
    "..",
    "=",
    ";",
    "#",
    "@",
    "-",
    "\u{feff}",
    "idmap=",
    "uids=",
    "4294967296",
    "--",
    "'",
];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory).expect("read the corpus").flatten().map(|entry| entry.path()).collect();
    files.sort();
    let mut all: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).expect("read a file of the corpus")).collect();
    if target == "bundle" {
        let (schema, base) = (Schema::new(), serde_json::from_slice(&all[0]).unwrap_or_else(|_| default()));
        let with = |pointer| schema.with(&base, pointer, schema.right(pointer)).to_string().into_bytes();
        all.extend(schema.0.iter().map(|property| with(property.pointer)));
    }
    assert!(!all.is_empty(), "{target} has no corpus");
    all
}

fn default() -> Value {
    serde_json::from_str(include_str!("support/default_spec.json")).expect("default_spec.json")
}

/// Changes bytes, or, where there is a document, a value in it.
fn mutate(seed: &[u8], others: &[Vec<u8>], chance: &mut Chance) -> Vec<u8> {
    if chance.below(2) == 0
        && let Ok(mut document) = serde_json::from_slice::<Value>(seed)
    {
        for _ in 0..=chance.below(2) {
            change(&mut document, chance);
        }
        return document.to_string().into_bytes();
    }
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(4) {
        let at = chance.below(bytes.len() + 1);
        let end = (at + chance.below(16)).min(bytes.len());
        match chance.below(6) {
            0 => drop(bytes.splice(at..end, [])),
            1 => drop(bytes.splice(at..at, PIECES[chance.below(PIECES.len())].bytes())),
            2 => drop(bytes.splice(at..end, PIECES[chance.below(PIECES.len())].bytes())),
            3 if at < bytes.len() => bytes[at] ^= 1 << chance.below(8),
            4 => {
                let other = &others[chance.below(others.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[chance.below(other.len() + 1)..]);
            }
            _ => {
                let part = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, part));
            }
        }
    }
    bytes
}

/// Replaces, removes, repeats or renames something in a document.
fn change(value: &mut Value, chance: &mut Chance) {
    let children = value.as_object().map(|map| map.len()).or(value.as_array().map(Vec::len)).unwrap_or(0);
    if children > 0 && chance.below(4) > 0 {
        let at = chance.below(children);
        match value {
            Value::Object(map) => {
                let key = map.keys().nth(at).expect("a key").clone();
                match chance.below(12) {
                    0 => drop(map.remove(&key)),
                    1 => drop(map.remove(&key).map(|value| map.insert(key.to_ascii_uppercase(), value))),
                    _ => change(&mut map[&key], chance),
                }
            }
            Value::Array(list) => match chance.below(12) {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => change(&mut list[at], chance),
            },
            _ => {}
        }
        return;
    }
    let odd = odd_values();
    *value = odd[chance.below(odd.len())].clone();
}

fn fuzz(target: &str) {
    let rounds = std::env::var("RTX_TEST_FUZZ").ok().and_then(|number| number.parse().ok()).unwrap_or(ROUNDS);
    let (corpus, mut chance) = (corpus(target), Chance::new());
    let seed = chance.seed();
    let mutations = (0..rounds).map(|_| mutate(&corpus[chance.below(corpus.len())], &corpus, &mut chance));
    for input in corpus.iter().cloned().chain(mutations) {
        if catch_unwind(|| rtx::fuzzing::run(target, &input)).is_err() {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("fuzz-{target}"));
            fs::write(&file, &input).expect("keep the input");
            panic!("{target}: the input is in {} (RTX_TEST_SEED={seed})", file.display());
        }
    }
    report_total(&format!("INPUT fuzz {target}: {} tried, 0 wrong, RTX_TEST_SEED={seed}", corpus.len() + rounds));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { fuzz(stringify!($name)); })*

        #[test]
        fn every_target_is_here_and_in_the_crate_of_the_fuzzer() {
            let names = [$(stringify!($name)),*];
            let manifest = include_str!("../../fuzz/Cargo.toml");
            for (target, _) in rtx::fuzzing::TARGETS {
                assert!(names.contains(target), "{target} is not run here");
                assert!(manifest.contains(&format!("name = \"{target}\"")), "{target} is not in fuzz/Cargo.toml");
            }
        }
    };
}

targets! { arguments bundle envelope frame id limits listen_fds mount_options process state }
