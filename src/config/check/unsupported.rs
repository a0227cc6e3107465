//! What the runtime-spec has and rtx does not, yet. One table, and nothing else knows: a feature that arrives takes its
//! row away.

use serde_json::Value;

use super::{Report, escape};

/// Pointer patterns into config.json, and what to call the thing. `*` stands for every element, and `=x` at the end
/// means: only this value.
pub const UNSUPPORTED: &[(&str, &str)] = &[];

/// Whether a pattern is in the table, for `features`.
pub fn is_unsupported(pattern: &str) -> bool {
    UNSUPPORTED.iter().any(|(row, _)| *row == pattern)
}

/// `within` is where in config.json the document sits; rows for other places do not count.
pub(super) fn check(report: &mut Report, document: &Value, within: &str) {
    for (pattern, what) in UNSUPPORTED {
        if let Some(pattern) = pattern.strip_prefix(within) {
            let (path, wanted) = pattern.split_once('=').map_or((pattern, None), |(path, value)| (path, Some(value)));
            find(document, path, wanted, &mut String::new(), &mut |pointer| {
                report.error(pointer, format!("rtx does not support {what} yet"), "remove it");
            });
        }
    }
}

fn find(value: &Value, path: &str, wanted: Option<&str>, at: &mut String, found: &mut impl FnMut(&str)) {
    let Some(rest) = path.strip_prefix('/') else {
        if wanted.map_or_else(|| asks_for_something(value), |wanted| value.as_str() == Some(wanted)) {
            found(at);
        }
        return;
    };
    let (step, rest) = rest.find('/').map_or((rest, ""), |end| rest.split_at(end));
    let length = at.len();
    if step != "*" {
        if let Some(value) = value.get(step) {
            at.push('/');
            at.push_str(&escape(step));
            find(value, rest, wanted, at, found);
            at.truncate(length);
        }
        return;
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        // The last step needs no text unless it matches, and that is where a pattern spends its time.
        if rest.is_empty() && wanted.is_some_and(|wanted| value.as_str() != Some(wanted)) {
            continue;
        }
        at.push_str(&format!("/{index}"));
        find(value, rest, wanted, at, found);
        at.truncate(length);
    }
}

/// An empty value asks for nothing: callers write `"uidMappings": []` and `"listenerPath": ""`.
fn asks_for_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(object) => !object.is_empty(),
        Value::Bool(_) | Value::Number(_) => true,
    }
}
