//! Two JSON values compared field by field.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

/// One field in which the two sides differ.
pub struct Difference {
    /// The way to the field: keys joined by " > ".
    pub field: String,
    expected: Option<Value>,
    actual: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |value: &Option<Value>| value.as_ref().map_or("absent".to_owned(), Value::to_string);
        write!(f, "{}: {} | {}", self.field, show(&self.expected), show(&self.actual))
    }
}

/// The fields in which `actual` is not `expected`; keys that begin with '#' are not compared.
pub fn differences(expected: &Value, actual: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    walk("", Some(expected), Some(actual), &mut found);
    found
}

fn walk(field: &str, expected: Option<&Value>, actual: Option<&Value>, found: &mut Vec<Difference>) {
    if expected == actual {
        return;
    }
    if let (Some(Value::Object(left)), Some(Value::Object(right))) = (expected, actual) {
        let keys: BTreeSet<&String> = left.keys().chain(right.keys()).filter(|k| !k.starts_with('#')).collect();
        for key in keys {
            let deeper = if field.is_empty() { key.clone() } else { format!("{field} > {key}") };
            walk(&deeper, left.get(key), right.get(key), found);
        }
        return;
    }
    found.push(Difference { field: field.to_owned(), expected: expected.cloned(), actual: actual.cloned() });
}

/// `value` with every `from` in a string or key replaced by its `to`; the harness's numbered files lose their numbers.
pub fn rename(value: Value, names: &[(String, &str)]) -> Value {
    let text = |text: String| {
        let text = names.iter().fold(text, |t, (from, to)| t.replace(from, to));
        if text.starts_with("SCRATCH/") { text.trim_end_matches(|c: char| c.is_ascii_digit()).to_owned() } else { text }
    };
    match value {
        Value::String(s) => Value::String(text(s)),
        Value::Array(items) => Value::Array(items.into_iter().map(|v| rename(v, names)).collect()),
        Value::Object(fields) => Value::Object(fields.into_iter().map(|(k, v)| (text(k), rename(v, names))).collect()),
        other => other,
    }
}

/// Whether `text` matches `pattern`, in which '*' stands for any text.
pub fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(rest) = text.strip_prefix(head) else {
        return false;
    };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(tail, &rest[at..]))
}

#[test]
fn globs_match_whole_texts() {
    assert!(glob("mounts/*", "mounts/bind") && glob("*", "") && glob("a*c", "abc"));
    assert!(!glob("a*c", "abcd") && !glob("a", "ab"));
}
