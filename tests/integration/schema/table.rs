//! docs/config.md: every property of the schema, where rtx handles it, and the test that shows it. `make docs` writes it; the
//! test fails when a property is neither handled nor refused, when what the table names does not exist, and when the file is
//! stale.

use std::collections::HashMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rtx::config::check;

use super::{Property, properties};

const DOCUMENT: &str = "docs/config.md";

/// Sections that concern no container on Linux: checked against the schema, and ignored.
const FOREIGN: &[&str] =
    &["/solaris", "/windows", "/vm", "/zos", "/freebsd", "/process/commandLine", "/process/user/username"];

/// Not in 1.3.0 any more; configurations of 1.1 and 1.2 have them.
const GONE: &[&str] = &["/linux/intelRdt/enableCMT", "/linux/intelRdt/enableMBM"];

const INTRODUCTION: &str = "\
# What rtx does with each property of config.json

Every property that the JSON schema of the OCI runtime-spec 1.3.0 has for a Linux container, where rtx handles it, and a
test that shows it. `make docs` writes this file. The tests fail when a property of the schema is missing here, when the
file that is named does not speak of it, when the test does not exist, and when this file is stale; and they show for each
property that a value of the wrong type is found by `rtx check` and refused by `create`.

What the schema does not allow is refused, with these exceptions, for what other runtimes' callers write: an `ociVersion`
that is missing, which is taken for 1.0.0; `null` for a property that may be absent; `rshared` and its kin as
`rootfsPropagation`; the bits of a node's type in `fileMode`; properties that the schema does not know, which are ignored.
";

/// A line of handled.txt.
struct Handled {
    file: &'static str,
    /// `MODULE::NAME` below tests/integration.
    test: &'static str,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn handled() -> HashMap<&'static str, Handled> {
    let mut lines = HashMap::new();
    for line in include_str!("handled.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [pointer, file, test] = words[..] else { panic!("not POINTER FILE TEST: {line}") };
        assert!(lines.insert(pointer, Handled { file, test }).is_none(), "two lines for {pointer}");
    }
    lines
}

/// The line that holds for a pointer: its own, or that of the nearest pointer above it.
fn line_for<'a>(lines: &'a HashMap<&str, Handled>, pointer: &str) -> Option<&'a Handled> {
    let mut at = pointer;
    loop {
        if let Some(line) = lines.get(at) {
            return Some(line);
        }
        at = at.rsplit_once('/').map(|(parent, _)| parent).filter(|parent| !parent.is_empty())?;
    }
}

/// Whether the property, or what it is part of, is refused as not supported yet.
fn is_refused(pointer: &str) -> bool {
    check::UNSUPPORTED.iter().any(|(row, _)| {
        !row.contains('=') && pointer.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// `fileMode` as Rust writes it.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (index, letter) in letters.iter().enumerate() {
        // Of a run of capitals only the last can begin a word: `throttleReadIOPSDevice`.
        let begins = letter.is_uppercase()
            && (letters[..index].last().is_some_and(|before| !before.is_uppercase())
                || letters.get(index + 1).is_some_and(|after| after.is_lowercase()));
        if begins && index > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Whether `text` has one of the names as a word, or as the end of a longer one: `cpu_affinity_final`.
fn speaks_of(text: &str, names: &[&str]) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| {
        names.iter().any(|name| word.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('_')))
    })
}

/// A claim that cannot be true.
fn doubt(property: &Property, line: &Handled) -> Option<String> {
    let pointer = property.pointer;
    let Ok(source) = fs::read_to_string(repository().join(line.file)) else {
        return Some(format!("{pointer}: there is no {}", line.file));
    };
    // `type` is a keyword, and oci-spec calls it otherwise.
    let name = if property.name() == "type" { "typ" } else { property.name() };
    if !speaks_of(&source, &[name, &snake(name)]) {
        return Some(format!("{pointer}: {} does not speak of {name} or {}", line.file, snake(name)));
    }
    let (module, test) = line.test.rsplit_once("::").expect("MODULE::NAME");
    let Ok(tests) = fs::read_to_string(test_file(module)) else {
        return Some(format!("{pointer}: there is no test file {module}"));
    };
    let forms = [format!("fn {test}("), format!("probe {test} =>"), format!("flow {test} =>"), format!("    {test}: ")];
    if !forms.iter().any(|form| tests.contains(form)) {
        return Some(format!("{pointer}: {module} has no test {test}"));
    }
    None
}

fn test_file(module: &str) -> PathBuf {
    repository().join("tests/integration").join(format!("{module}.rs"))
}

fn link(file: &str) -> String {
    format!("[{}](../{file})", file.rsplit('/').next().unwrap_or(file))
}

fn table(doubts: &mut Vec<String>) -> String {
    let lines = handled();
    let mut text = INTRODUCTION.to_owned();
    let _ = writeln!(text, "\n| property | type | handled in | shown by |\n|---|---|---|---|");
    for property in properties().iter().filter(|property| property.is_named()) {
        let pointer = property.pointer;
        let kind = if property.required { format!("{}, required", property.kind) } else { property.kind.to_owned() };
        let row = if FOREIGN.contains(&pointer) {
            let test = "src/config/check/tests/rules.rs";
            let file = if pointer.starts_with("/process/") { "tables.rs" } else { "platforms.rs" };
            let file = format!("src/config/check/{file}");
            format!("{}: for another platform; checked and ignored | {}", link(&file), link(test))
        } else if is_refused(pointer) {
            let (file, test) = ("src/config/check/unsupported.rs", "tests/integration/schema/violations.rs");
            format!("{}: refused, not supported yet | {}", link(file), link(test))
        } else if GONE.contains(&pointer) {
            let (file, test) = ("src/config/check/tables.rs", "tests/integration/schema/violations.rs");
            format!("{}: gone in 1.3.0; checked and ignored | {}", link(file), link(test))
        } else if let Some(line) = line_for(&lines, pointer) {
            doubts.extend(doubt(property, line));
            let (module, test) = line.test.rsplit_once("::").expect("MODULE::NAME");
            format!("{} | {} `{test}`", link(line.file), link(&format!("tests/integration/{module}.rs")))
        } else {
            doubts.push(format!(
                "{pointer} is neither handled nor refused: add a line to handled.txt, or a row to unsupported.rs"
            ));
            continue;
        };
        let _ = writeln!(text, "| `{pointer}` | {kind} | {row} |");
    }
    let values: Vec<_> = check::UNSUPPORTED.iter().filter(|(row, _)| row.contains('=')).collect();
    if !values.is_empty() {
        let _ = writeln!(text, "\nValues that are refused because they are not supported yet:\n");
        for (row, what) in values {
            let (pointer, _) = row.split_once('=').expect("a value");
            let _ = writeln!(text, "- {what}, at `{pointer}`");
        }
    }
    for pointer in lines.keys().filter(|pointer| !properties().iter().any(|property| property.pointer == **pointer)) {
        doubts.push(format!("{pointer} of handled.txt is not in the schema"));
    }
    text
}

#[test]
fn every_property_is_handled_or_refused() {
    let mut doubts = Vec::new();
    let table = table(&mut doubts);
    assert!(doubts.is_empty(), "\n{}", doubts.join("\n"));
    let path = repository().join(DOCUMENT);
    if std::env::var_os("RTX_WRITE_DOCS").is_some() {
        fs::write(&path, &table).expect("write the table");
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(current == table, "{DOCUMENT} is stale: run `make docs`");
}

/// The description that `rtx check` walks along and the schema have the same properties.
#[test]
fn the_check_knows_the_schema_and_nothing_else() {
    let of_schema: Vec<&str> = properties().iter().map(|property| property.pointer).collect();
    let known = check::properties();
    for property in properties().iter().filter(|property| property.is_named()) {
        assert!(known.iter().any(|known| known == property.pointer), "rtx check does not know {}", property.pointer);
    }
    for known in known {
        assert!(of_schema.contains(&&*known), "{known} is not in the schema");
    }
}
