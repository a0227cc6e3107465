//! JSON from outside: config.json, a process, limits. Whatever the file is and says, it is read in bounded time and
//! memory, and what it says is not open to two readings.

use std::fmt;
use std::io::Read;
use std::path::Path;

use anyhow::{Result, bail};
use nix::fcntl::OFlag;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::sys::{On, errno_of, fd};

/// The longest document. The arguments and the environment of a program are at most 6 MiB (execve(2)).
pub const LARGEST: u64 = 16 << 20;
/// The most values in a document; an object weighs as much as some of them.
const MOST: usize = 1 << 20;
/// What the first entry of a map takes, in the memory of a value.
const OBJECT: usize = 20;

/// Reads a file that has to be one: a pipe that nobody writes to would be waited for without end.
///
/// # Errors
/// Where it is something else or too large; the kernel's.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_any(path, false)
}

/// Reads a file, or what comes through a pipe or a device.
///
/// # Errors
/// Where it is too large; the kernel's.
pub fn read_stream(path: &Path) -> Result<Vec<u8>> {
    read_any(path, true)
}

fn read_any(path: &Path, is_stream: bool) -> Result<Vec<u8>> {
    let name = path.display();
    // Opening a pipe waits for whoever writes to it, too.
    let flags = if is_stream { OFlag::O_NOCTTY } else { OFlag::O_NOCTTY | OFlag::O_NONBLOCK };
    let file = std::fs::File::from(fd::open(path, flags).on("open", &name)?);
    let metadata = file.metadata().map_err(|error| errno_of(&error)).on("stat", &name)?;
    if metadata.is_dir() || !is_stream && !metadata.is_file() {
        bail!("{name} is no regular file: put the document there as one");
    }
    if !metadata.is_file() {
        return read_from(file, metadata.len(), name);
    }
    check_size(metadata.len(), &name)?;
    let bytes = fd::read_sized(&file, metadata.len() as usize, LARGEST as usize).on("read", &name)?;
    check_size(bytes.len() as u64, name).map(|()| bytes)
}

fn check_size(size: u64, name: impl fmt::Display) -> Result<()> {
    if size > LARGEST {
        bail!("{name} is larger than {} MiB, which no configuration has to be: make it smaller", LARGEST >> 20);
    }
    Ok(())
}

/// Reads the rest of a stream of which `expected` bytes are likely.
///
/// # Errors
/// Where it is too long; the kernel's.
pub fn read_from(stream: impl Read, expected: u64, name: impl fmt::Display) -> Result<Vec<u8>> {
    check_size(expected, &name)?;
    let mut bytes = Vec::with_capacity(expected as usize + 1);
    stream.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| errno_of(&error)).on("read", &name)?;
    check_size(bytes.len() as u64, name).map(|()| bytes)
}

/// Takes a document apart. An object that has a key twice is refused: which of the two holds, and whether they are
/// merged, is another matter in each runtime.
///
/// # Errors
/// What is wrong with it and where.
pub fn parse(bytes: &[u8]) -> Result<Value> {
    let mut walk = Walk { left: MOST, pointer: None };
    // Looked at once as a whole instead of string by string. What is no text is taken apart up to where it is none.
    let parsed = match std::str::from_utf8(bytes) {
        Ok(text) => walk.take_apart(serde_json::Deserializer::from_str(text)),
        Err(_) => walk.take_apart(serde_json::Deserializer::from_slice(bytes)),
    };
    parsed.map_err(|error| match walk.pointer {
        Some(pointer) => anyhow::anyhow!("{pointer}: {error}"),
        None => anyhow::anyhow!(explain(bytes, &error)),
    })
}

/// What is wrong with JSON, with the character that does not belong there, as runc names it.
fn explain(text: &[u8], error: &serde_json::Error) -> String {
    if text.starts_with(b"\xef\xbb\xbf") {
        return format!("it begins with a byte order mark: write it in UTF-8 without one: {error}");
    }
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    match line.and_then(|line| line.get(error.column().checked_sub(1)?)) {
        Some(byte) if error.is_syntax() && byte.is_ascii_graphic() => {
            format!("invalid character {:?}: {error}", char::from(*byte))
        }
        _ => error.to_string(),
    }
}

/// What one walk has left, and where it failed, which is put together on the way back.
struct Walk {
    left: usize,
    pointer: Option<String>,
}

impl Walk {
    fn take_apart<'de>(
        &mut self,
        mut document: serde_json::Deserializer<impl serde_json::de::Read<'de>>,
    ) -> serde_json::Result<Value> {
        let value = Element(self).deserialize(&mut document)?;
        document.end()?;
        Ok(value)
    }

    fn spend<E: serde::de::Error>(&mut self, amount: usize) -> Result<(), E> {
        match self.left.checked_sub(amount) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(E::custom(format_args!("more than {MOST} values: no configuration has so many"))),
        }
    }

    fn came_by(&mut self, step: impl fmt::Display) {
        if let Some(below) = &self.pointer {
            self.pointer = Some(format!("/{step}{below}"));
        }
    }
}

struct Element<'a>(&'a mut Walk);

impl<'de> DeserializeSeed<'de> for Element<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.spend(1)?;
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            match elements.next_element_seed(Element(self.0)) {
                Ok(Some(value)) => list.push(value),
                Ok(None) => return Ok(Value::Array(list)),
                Err(error) => {
                    self.0.came_by(list.len());
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.is_empty() {
                self.0.spend(OBJECT)?;
            }
            match map.entry(key) {
                Entry::Occupied(entry) => {
                    self.0.pointer = Some(format!("/{}", super::check::escape(entry.key())));
                    return Err(A::Error::custom("is there twice: keep the one that is meant"));
                }
                Entry::Vacant(entry) => match entries.next_value_seed(Element(self.0)) {
                    Ok(value) => {
                        entry.insert(value);
                    }
                    Err(error) => {
                        self.0.came_by(super::check::escape(entry.key()));
                        return Err(error);
                    }
                },
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn as_serde_json_does() {
        for text in [
            "null",
            "true",
            "-5",
            "18446744073709551615",
            "1.5",
            "1e3",
            "-0",
            r#""aé\u0000\ud83d\ude00""#,
            "[]",
            "{}",
            r#" {"a": [1, {"b": null, "c~/": "x"}], "": false} "#,
            r#"{"process": {"args": ["x"]}, "a": {"process": 1}}"#,
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap(), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_there_twice_is_told_with_its_place() {
        let text = error(r#"{"linux": {"devices": [{}, {"a/b": 1, "a/b": 1}]}}"#);
        assert!(text.starts_with("/linux/devices/1/a~1b: is there twice"), "{text}");
        assert!(error(r#"{"a":1,"\u0061":2}"#).starts_with("/a: is there twice"));
    }

    #[test]
    fn what_is_no_json_is_told_as_such() {
        assert!(error("").contains("EOF"));
        assert!(error("{} x").contains("invalid character 'x'"));
        assert!(error("\u{feff}{}").contains("byte order mark"));
        assert!(error(&"[".repeat(100_000)).contains("recursion limit"));
        assert!(parse(b"{\"a\": \"\xff\"}").is_err() && parse(b"{}\0").is_err());
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_kept() {
        assert!(error(&format!("[{}0]", "0,".repeat(MOST))).contains("more than"));
        let objects = r#"{"":0},"#.repeat(MOST / OBJECT);
        assert!(error(&format!("[{objects}0]")).contains("more than"));
        assert!(read_stream(Path::new("/dev/zero")).unwrap_err().to_string().contains("larger than 16 MiB"));
        assert!(read(Path::new("/dev/null")).unwrap_err().to_string().contains("no regular file"));
        assert!(read(Path::new("/")).unwrap_err().to_string().contains("no regular file"));
    }
}
