//! Annotations `org.systemd.property.NAME`: properties for the unit, in GVariant's text format. A name that ends in `Sec`
//! takes seconds; systemd itself knows such properties by microseconds.

use std::collections::HashMap;

use anyhow::{Context, Result, anyhow, bail};

use super::wire::{Property, Value};

const PREFIX: &str = "org.systemd.property.";

/// The properties among the annotations, by name.
///
/// # Errors
/// By the pointer of the annotation.
pub fn properties(annotations: &HashMap<String, String>) -> Result<Vec<Property>> {
    let mut found = Vec::new();
    for (annotation, text) in annotations {
        let Some(name) = annotation.strip_prefix(PREFIX) else { continue };
        let at = || format!("/annotations/{annotation}");
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            bail!("{}: {name:?} is no name of a property of systemd's", at());
        }
        let value = parse(text).with_context(at)?;
        found.push(match name.strip_suffix("Sec").filter(|stem| !stem.ends_with('U')) {
            Some(stem) => (format!("{stem}USec"), microseconds(&value).with_context(at)?),
            None => (name.to_owned(), value),
        });
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn microseconds(seconds: &Value) -> Result<Value> {
    const SECOND: f64 = 1_000_000.0;
    let whole = |seconds: u64| seconds.checked_mul(1_000_000).map(Value::U64);
    let value = match seconds {
        Value::I32(value) => u64::try_from(*value).ok().and_then(whole),
        Value::I64(value) => u64::try_from(*value).ok().and_then(whole),
        Value::U32(value) => whole(u64::from(*value)),
        Value::U64(value) => whole(*value),
        Value::F64(value) if *value >= 0.0 => Some(Value::U64((value * SECOND) as u64)),
        _ => None,
    };
    value.ok_or_else(|| anyhow!("expected a number of seconds"))
}

/// `true`, `5`, `uint64 5`, `@t 5`, `1.5`, `'text'`, `['a', 'b']`.
fn parse(text: &str) -> Result<Value> {
    let mut rest = text.trim();
    let value = value(&mut rest)?;
    if !rest.trim_start().is_empty() {
        bail!("{:?} follows the value", rest.trim());
    }
    Ok(value)
}

const NO_LIST: &str = "expected a list of texts, numbers or truth values, all of one type";

/// Keywords before a value, and the types that they mean.
const TYPES: [(&str, &str); 9] = [
    ("boolean", "b"),
    ("byte", "y"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
];

fn value(rest: &mut &str) -> Result<Value> {
    let wanted = begin(rest, None)?;
    match rest.starts_with('[') {
        true => array(rest, wanted.and_then(|kind| kind.strip_prefix('a'))),
        false => single(rest, wanted),
    }
}

/// Goes to where a value begins. What it is to be by the types before it, or else as wanted.
fn begin<'a>(rest: &mut &'a str, mut wanted: Option<&'a str>) -> Result<Option<&'a str>> {
    *rest = rest.trim_start();
    while let Some((kind, after)) = kind_before(rest)? {
        wanted = Some(kind);
        *rest = after.trim_start();
    }
    Ok(wanted)
}

fn single(rest: &mut &str, wanted: Option<&str>) -> Result<Value> {
    match rest.chars().next() {
        Some(quote @ ('\'' | '"')) => text(rest, quote),
        Some(_) => scalar(rest, wanted),
        None => bail!("the value is empty; write it as in GVariant's text format: 'text', true, 5 or uint64 5"),
    }
}

/// The type that stands before a value, and what follows it.
fn kind_before(text: &str) -> Result<Option<(&str, &str)>> {
    if let Some(typed) = text.strip_prefix('@') {
        return typed.split_once(char::is_whitespace).context("a type and no value").map(Some);
    }
    let is_next = |word: &str| text.strip_prefix(word).filter(|after| after.starts_with(char::is_whitespace));
    Ok(TYPES.iter().find_map(|(word, kind)| Some((*kind, is_next(word)?))))
}

fn text(rest: &mut &str, quote: char) -> Result<Value> {
    let mut text = String::new();
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => text.push(match characters.next().context("a text that does not end")?.1 {
                'n' => '\n',
                't' => '\t',
                'r' => '\r',
                other => other,
            }),
            _ if character == quote => {
                *rest = &rest[at + 1..];
                return Ok(Value::Str(text));
            }
            _ => text.push(character),
        }
    }
    bail!("a text that does not end");
}

fn array<'a>(rest: &mut &'a str, element: Option<&'a str>) -> Result<Value> {
    *rest = &rest[1..];
    let mut values: Vec<Value> = Vec::new();
    loop {
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(']') {
            *rest = after;
            break;
        }
        if !values.is_empty() {
            *rest = rest.strip_prefix(',').context("expected a comma or the end of the list")?;
        }
        // The first value decides the type of all.
        let kind = values.first().map(Value::scalar_signature).or(element);
        let kind = begin(rest, kind)?;
        // Lists of lists would be taken as deep as the text is long.
        if rest.starts_with('[') {
            bail!(NO_LIST);
        }
        values.push(single(rest, kind)?);
    }
    let signature = match (values.first(), element) {
        (Some(first), _) => first.scalar_signature(),
        (None, Some(element)) => {
            let known = TYPES.iter().map(|(_, kind)| *kind).chain(["s"]).find(|kind| *kind == element);
            known.context("the type of an empty list is not known")?
        }
        (None, None) => bail!("an empty list needs its type before it, as in @as []"),
    };
    if signature == "a" || values.iter().any(|value| value.scalar_signature() != signature) {
        bail!(NO_LIST);
    }
    Ok(Value::Array(signature, values))
}

fn scalar(rest: &mut &str, wanted: Option<&str>) -> Result<Value> {
    let end = rest.find(|c: char| c.is_whitespace() || c == ',' || c == ']').unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    let number = |kind: &str| -> Option<Value> {
        Some(match kind {
            "b" => Value::Bool(word.parse().ok()?),
            "y" => Value::Byte(integer(word)?.try_into().ok()?),
            "n" => Value::I16(integer(word)?.try_into().ok()?),
            "q" => Value::U16(integer(word)?.try_into().ok()?),
            "i" => Value::I32(integer(word)?.try_into().ok()?),
            "u" => Value::U32(integer(word)?.try_into().ok()?),
            "x" => Value::I64(integer(word)?.try_into().ok()?),
            "t" => Value::U64(integer(word)?.try_into().ok()?),
            "d" => Value::F64(word.parse().ok()?),
            _ => return None,
        })
    };
    let parsed = match wanted {
        Some(kind) => number(kind),
        None => number("b").or_else(|| number("i")).or_else(|| number("d")),
    };
    parsed.with_context(|| format!("{word:?} is no value in GVariant's text format; a text needs quotes: '{word}'"))
}

fn integer(word: &str) -> Option<i128> {
    match word.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_text() {
        let cases = [
            ("true", Value::Bool(true)),
            ("5", Value::I32(5)),
            ("uint64 0x10", Value::U64(16)),
            ("@t 5", Value::U64(5)),
            ("-1.5", Value::F64(-1.5)),
            (r"'it\'s'", Value::text("it's")),
            ("\"x y\"", Value::text("x y")),
            ("['a', \"b\"]", Value::Array("s", vec![Value::text("a"), Value::text("b")])),
            ("[uint64 1, 2]", Value::Array("t", vec![Value::U64(1), Value::U64(2)])),
            ("@as []", Value::Array("s", vec![])),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
        for deep in ["[", "@ai [", "@t ", "uint64 "] {
            assert!(parse(&deep.repeat(1 << 20)).is_err(), "{deep}");
        }
        for bad in ["", "x", "'x", "5 5", "[", "[]", "['a', 1]", "uint32 -1", "[[1]]", "99999999999"] {
            assert!(parse(bad).is_err() || bad == "99999999999", "{bad}");
        }
    }

    fn of(name: &str, text: &str) -> Result<Vec<Property>> {
        properties(&HashMap::from([(format!("{PREFIX}{name}"), text.to_owned())]))
    }

    #[test]
    fn seconds_become_microseconds() {
        assert_eq!(of("TimeoutStopSec", "uint64 3").unwrap(), [("TimeoutStopUSec".into(), Value::U64(3_000_000))]);
        assert_eq!(of("TimeoutStopUSec", "uint64 3").unwrap(), [("TimeoutStopUSec".into(), Value::U64(3))]);
        let error = of("TimeoutStopSec", "'x'").unwrap_err();
        assert_eq!(error.to_string(), "/annotations/org.systemd.property.TimeoutStopSec");
        assert!(of("a_b", "1").is_err());
    }
}
