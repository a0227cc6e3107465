//! The walk of a document along the description of its schema: types, required and unknown properties, ranges,
//! enumerations, NUL bytes.

use serde_json::Value;

use super::{Report, as_integer, escape};

/// What a value may be.
pub enum Kind {
    Boolean,
    Text,
    /// A whole number between the two, both included. The name is the spec's word for the range.
    Integer(i128, i128, &'static str),
    OneOf(&'static Names),
    List(&'static Kind),
    /// An object whose keys are the author's.
    Map(&'static Kind),
    Object(&'static [Property]),
    /// Something for another platform: it has to be well-formed, and is ignored.
    Foreign(&'static Kind),
}

/// An enumeration.
pub struct Names {
    pub list: &'static [&'static str],
    /// What to say of another name, which replaces `{}`.
    pub problem: &'static str,
    /// An empty string says the same as no property.
    pub or_empty: bool,
}

/// One property of an object.
pub struct Property {
    pub name: &'static str,
    pub kind: Kind,
    pub needed: Needed,
}

/// What it means that a property is absent.
pub enum Needed {
    /// Nothing.
    No,
    /// An error with this text.
    Yes(&'static str),
    /// The spec requires it, other runtimes do not: a warning that this is assumed.
    Assumed(&'static str),
}

pub const fn optional(name: &'static str, kind: Kind) -> Property {
    Property { name, kind, needed: Needed::No }
}

pub const fn required(name: &'static str, kind: Kind, problem: &'static str) -> Property {
    Property { name, kind, needed: Needed::Yes(problem) }
}

pub const fn assumed(name: &'static str, kind: Kind, assumed: &'static str) -> Property {
    Property { name, kind, needed: Needed::Assumed(assumed) }
}

/// Where the walk is; made a pointer only when there is something to report.
enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl At<'_> {
    fn pointer(&self) -> String {
        match self {
            At::Root => String::new(),
            At::Key(parent, key) => format!("{}/{}", parent.pointer(), escape(key)),
            At::Index(parent, index) => format!("{}/{index}", parent.pointer()),
        }
    }
}

pub(super) fn check(report: &mut Report, kind: &Kind, value: &Value) {
    walk(report, kind, value, &At::Root);
}

fn walk(report: &mut Report, kind: &Kind, value: &Value, at: &At<'_>) {
    match (kind, value) {
        (Kind::Foreign(kind), _) => {
            report.note(at.pointer(), "this is for another platform", "remove it: rtx ignores it");
            walk(report, kind, value, at);
        }
        (Kind::Boolean, Value::Bool(_)) => {}
        (Kind::Text, Value::String(text)) => no_nul(report, text, at),
        (Kind::OneOf(names), Value::String(text)) => one_of(report, names, text, at),
        (Kind::Integer(least, most, name), Value::Number(number)) => match as_integer(value) {
            Some(number) if (*least..=*most).contains(&number) => {}
            Some(number) => report.error(
                at.pointer(),
                format!("{number} is out of range for {name}"),
                format!("use a number from {least} to {most}"),
            ),
            None => report.error(
                at.pointer(),
                format!("{number} is not a whole number in the range of {name}"),
                format!("use a whole number from {least} to {most}, without fraction or exponent"),
            ),
        },
        (Kind::List(element), Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                walk(report, element, value, &At::Index(at, index));
            }
        }
        (Kind::Map(element), Value::Object(map)) => {
            for (key, value) in map {
                let at = At::Key(at, key);
                no_nul(report, key, &at);
                if !value.is_null() {
                    walk(report, element, value, &at);
                }
            }
        }
        (Kind::Object(properties), Value::Object(object)) => walk_object(report, properties, object, at),
        _ => report.error(
            at.pointer(),
            format!("must be {}, not {}", expected(kind), described(value)),
            "correct the type",
        ),
    }
}

fn walk_object(report: &mut Report, properties: &[Property], object: &serde_json::Map<String, Value>, at: &At<'_>) {
    let mut found = 0;
    for (key, value) in object {
        let Some(property) = properties.iter().find(|property| property.name == key) else {
            unknown(report, properties, key, at);
            continue;
        };
        found += 1;
        if !value.is_null() {
            walk(report, &property.kind, value, &At::Key(at, key));
        }
    }
    if found == properties.len() && !object.values().any(Value::is_null) {
        return;
    }
    for property in properties {
        if matches!(property.needed, Needed::No) || object.get(property.name).is_some_and(|value| !value.is_null()) {
            continue;
        }
        let pointer = At::Key(at, property.name).pointer();
        match property.needed {
            Needed::No => {}
            Needed::Yes(problem) => report.error(pointer, problem, format!("add \"{}\"", property.name)),
            Needed::Assumed(assumed) => report.warning(
                pointer,
                format!("the runtime-spec requires \"{}\"; {assumed} is assumed", property.name),
                format!("add \"{}\"", property.name),
            ),
        }
    }
}

fn unknown(report: &mut Report, properties: &[Property], key: &str, at: &At<'_>) {
    let pointer = At::Key(at, key).pointer();
    match properties.iter().find(|property| property.name.eq_ignore_ascii_case(key)) {
        // Runtimes written in Go would take it for the property, so its author may never have noticed.
        Some(property) => report.warning(
            pointer,
            "the runtime-spec does not know this property; it is ignored",
            format!("write \"{}\", case matters", property.name),
        ),
        None => report.note(
            pointer,
            "the runtime-spec does not know this property; it is ignored",
            "remove it, or put what is yours into annotations",
        ),
    }
}

fn no_nul(report: &mut Report, text: &str, at: &At<'_>) {
    if text.contains('\0') {
        report.error(at.pointer(), "contains a nul byte (\\x00)", "remove it: the kernel would end the string there");
    }
}

fn one_of(report: &mut Report, names: &Names, text: &str, at: &At<'_>) {
    if names.list.contains(&text) || (names.or_empty && text.is_empty()) {
        return;
    }
    report.error(
        at.pointer(),
        names.problem.replace("{}", &text.escape_debug().to_string()),
        format!("use one of {}", names.list.join(", ")),
    );
}

fn expected(kind: &Kind) -> &'static str {
    match kind {
        Kind::Boolean => "true or false",
        Kind::Text | Kind::OneOf(_) => "a string",
        Kind::Integer(..) => "a number",
        Kind::List(_) => "an array",
        Kind::Map(_) | Kind::Object(_) => "an object",
        Kind::Foreign(kind) => expected(kind),
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Every property that the runtime-spec gives a Linux container, as a pointer with `*` for elements of lists and maps.
pub fn properties() -> Vec<String> {
    fn collect(kind: &Kind, at: &str, into: &mut Vec<String>) {
        match kind {
            Kind::List(element) | Kind::Map(element) => collect(element, &format!("{at}/*"), into),
            Kind::Object(properties) => {
                for property in *properties {
                    let at = format!("{at}/{}", property.name);
                    into.push(at.clone());
                    collect(&property.kind, &at, into);
                }
            }
            _ => {}
        }
    }
    let mut properties = Vec::new();
    collect(&super::tables::SPEC, "", &mut properties);
    properties
}
