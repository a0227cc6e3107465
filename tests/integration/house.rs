//! Rules of the house that no compiler knows: which licences are linked, and where unsafe code is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::skip;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The quoted strings of the list `name` in deny.toml, which is kept simple enough for this.
fn list_of_policy(name: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(ROOT).join("deny.toml")).expect("read deny.toml");
    let (_, list) = text.split_once(&format!("\n{name} = [")).expect("the list");
    let (list, _) = list.split_once(']').expect("its end");
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an expression of SPDX names and no more than AND, OR, `/` and parentheses can be met by what is allowed.
fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "+WITH+");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    any_of(&words, &mut 0, allowed)
}

fn any_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = all_of(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all_of(words, at, allowed);
    }
    met
}

fn all_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let mut met = one_of(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= one_of(words, at, allowed);
    }
    met
}

fn one_of(words: &[&str], at: &mut usize, allowed: &[String]) -> bool {
    let word = words.get(*at).copied().unwrap_or_default();
    *at += 1;
    if word != "(" {
        return allowed.iter().any(|name| *name == word.replace("+WITH+", " WITH "));
    }
    let met = any_of(words, at, allowed);
    *at += 1;
    met
}

#[test]
fn licences_of_all_that_is_linked() {
    let allowed = list_of_policy("allow");
    for (expression, is_met) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("MIT AND GPL-3.0-only", false),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0-only WITH Classpath-exception-2.0/MIT", true),
    ] {
        assert_eq!(is_allowed(expression, &allowed), is_met, "{expression}");
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    // Of crates for other platforms nothing is there where nobody has asked for them.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    command.args(["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", &platform]);
    command.current_dir(ROOT);
    let Ok(output) = command.output() else { skip!("no cargo") };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() > 50, "{} packages", packages.len());
    let policy = fs::read_to_string(Path::new(ROOT).join("deny.toml")).expect("read deny.toml");
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let source = package["source"].as_str();
        if source.is_some_and(|source| !source.contains("crates.io")) {
            wrong.push(format!("{name} comes from {source:?}"));
        }
        let is_clarified = policy.contains(&format!("crate = \"{name}\""));
        match package["license"].as_str() {
            Some(expression) if is_allowed(expression, &allowed) => {}
            None if is_clarified => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("read a source directory").flatten() {
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(sources(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// Unsafe code is in src/sys; each block says before it, or before the statement that it is in, why it is sound.
#[test]
fn unsafe_code_is_in_its_place_and_explained() {
    let (mut wrong, mut blocks) = (Vec::new(), 0);
    for file in sources(&Path::new(ROOT).join("src")) {
        let text = fs::read_to_string(&file).expect("read a source file");
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("allow(unsafe_code)") && !file.starts_with(Path::new(ROOT).join("src/sys")) {
                wrong.push(format!("{}:{}: allows unsafe code", file.display(), index + 1));
            }
            if !code.contains("unsafe {") && !code.contains("unsafe impl") {
                continue;
            }
            blocks += 1;
            let is_of_sys = file.starts_with(Path::new(ROOT).join("src/sys"));
            let above = &lines[index.saturating_sub(8)..index];
            if !is_of_sys || !above.iter().any(|line| line.contains("// SAFETY:")) {
                wrong.push(format!("{}:{}: {}", file.display(), index + 1, line.trim()));
            }
        }
    }
    assert!(blocks > 50, "{blocks} unsafe blocks were found");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Whether there is a test, or with `::` at the end a module of tests, of that name.
fn is_test(name: &str) -> bool {
    let directory = Path::new(ROOT).join("tests/integration");
    let (module, function) = name.rsplit_once("::").unwrap_or(("", name));
    let file = directory.join(module.replace("::", "/"));
    let texts =
        [file.with_extension("rs"), file.join("mod.rs")].map(|file| fs::read_to_string(file).unwrap_or_default());
    // Some are made by a macro from a list of names.
    let has = |text: &String| text.contains("#[test]") && text.contains(function);
    if function.is_empty() { texts.iter().any(|text| !text.is_empty()) } else { texts.iter().any(has) }
}

/// Each defence names a test that attacks it, and there is that test.
#[test]
fn what_security_says_is_tested() {
    let text = fs::read_to_string(Path::new(ROOT).join("SECURITY.md")).expect("read SECURITY.md");
    let (_, table) = text.split_once("| attack | defence | test |\n").expect("the table of defences");
    let rows: Vec<&str> = table.lines().skip(1).take_while(|line| line.starts_with('|')).collect();
    assert!(rows.len() > 10, "{} rows were found", rows.len());
    let mut wrong = Vec::new();
    for row in rows {
        let cell = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            wrong.push(format!("no test: {row}"));
        }
        let missing = names.into_iter().filter(|name| !is_test(name) && !is_test(&format!("escapes::{name}")));
        wrong.extend(missing.map(str::to_owned));
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
