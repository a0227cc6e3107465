use super::*;
use serde_json::json;

mod corpus;
mod linux_rules;
mod rules;

/// A document that nothing is wrong with.
fn minimal() -> Value {
    json!({
        "ociVersion": "1.3.0",
        "root": { "path": "rootfs" },
        "process": { "args": ["true"], "cwd": "/" },
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "pid" }] }
    })
}

/// The minimal document with one value put in at a pointer; `-` appends to a list.
fn with(pointer: &str, value: Value) -> Value {
    let mut document = minimal();
    let mut at = &mut document;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if let Ok(index) = step.parse::<usize>() {
            if !at.is_array() {
                *at = json!([]);
            }
            let list = at.as_array_mut().unwrap();
            if list.len() <= index {
                list.resize(index + 1, Value::Null);
            }
            at = &mut list[index];
        } else {
            if !at.is_object() {
                *at = json!({});
            }
            at = &mut at[&step];
        }
    }
    *at = value;
    document
}

fn errors(document: &Value) -> Vec<Finding> {
    check(document, None).into_iter().filter(|finding| finding.severity == Severity::Error).collect()
}

#[test]
fn nothing_to_say_about_a_good_document() {
    assert_eq!(check(&minimal(), None), []);
}

#[test]
fn the_root_is_looked_at_in_the_bundle() {
    let bundle = tempfile::tempdir().unwrap();
    let findings = check(&minimal(), Some(bundle.path()));
    assert_eq!(findings.len(), 1);
    assert!(findings[0].problem.starts_with("invalid rootfs: stat "), "{}", findings[0]);
    assert!(findings[0].problem.ends_with("rootfs: no such file or directory"), "{}", findings[0]);
    std::fs::write(bundle.path().join("rootfs"), "").unwrap();
    assert!(check(&minimal(), Some(bundle.path()))[0].problem.contains("not a directory"));
    std::fs::remove_file(bundle.path().join("rootfs")).unwrap();
    std::fs::create_dir(bundle.path().join("rootfs")).unwrap();
    assert_eq!(check(&minimal(), Some(bundle.path())), []);
}

#[test]
fn a_process_document_has_pointers_of_its_own() {
    let findings =
        check_process(&json!({ "args": [], "cwd": "x", "scheduler": { "policy": "SCHED_BATCH" }, "nice": 1 }));
    let pointers: Vec<_> = findings.iter().map(|finding| finding.pointer.as_str()).collect();
    assert!(pointers.contains(&"/args") && pointers.contains(&"/cwd") && pointers.contains(&"/nice"), "{findings:?}");
    assert_eq!(pointers.contains(&"/scheduler"), is_unsupported("/process/scheduler"));
    let mut good = json!({ "args": ["id"], "cwd": "/", "capabilities": { "bounding": ["CAP_NOSUCH"] } });
    assert!(check_process(&good).iter().all(|finding| finding.severity != Severity::Error));
    normalise_process(&mut good);
    serde_json::from_value::<oci_spec::runtime::Process>(good).unwrap();
}

#[test]
fn every_row_of_the_unsupported_table_is_found() {
    for (pattern, what) in UNSUPPORTED {
        let (path, value) =
            pattern.split_once('=').map_or((*pattern, json!([1])), |(path, value)| (path, json!(value)));
        let document = with(&path.replace('*', "0"), value);
        let found = errors(&document).iter().any(|finding| finding.problem.contains(what));
        assert!(found, "{pattern}");
    }
}

#[test]
fn every_row_of_the_unsupported_table_is_in_the_schema() {
    let properties = properties();
    for (pattern, _) in UNSUPPORTED {
        let path = pattern.split('=').next().unwrap().trim_end_matches("/*").to_owned();
        assert!(properties.contains(&path), "{pattern}");
    }
}

#[test]
fn pointers_are_escaped() {
    let findings = check(&with("/linux/sysctl/a~1b~0c", json!("1")), None);
    assert_eq!(findings[0].pointer, "/linux/sysctl/a~1b~0c");
}

#[test]
fn nothing_panics_on_any_type_anywhere() {
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!("x"),
        json!([]),
        json!({}),
        json!([null]),
        json!([[]]),
        json!({ "x": {} }),
    ];
    assert!(!check(&json!([]), None).is_empty());
    for property in properties() {
        for value in &values {
            for key in ["0", "x"] {
                let mut document = with(&property.replace('*', key), value.clone());
                check(&document, None);
                normalise(&mut document);
            }
        }
    }
}
