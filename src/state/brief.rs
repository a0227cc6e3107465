//! What a command that looks at many containers needs of a record, without a copy of it.

use super::plain::Plain;
use super::{Identity, Record};
use anyhow::Result;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// See [`Record`].
#[derive(Debug)]
pub struct Brief<'a> {
    pub id: &'a str,
    pub engine: &'a str,
    pub bundle: &'a Path,
    pub rootfs: &'a Path,
    pub created: &'a str,
    pub owner: u32,
    pub complete: bool,
    pub starting: bool,
    pub init: Option<Identity<'a>>,
    annotations: Annotations<'a>,
    pub supervised: bool,
    pub engine_state: Option<&'a str>,
}

#[derive(Debug)]
enum Annotations<'a> {
    Read(&'a BTreeMap<String, String>),
    /// As JSON; empty where there are none.
    Written(&'a str),
}

impl<'a> Brief<'a> {
    /// From a record as rtx writes it, as a line without its end. `None` where it is written in another way, or is none.
    pub fn read(line: &'a str) -> Option<Self> {
        let mut rest = Plain::new(line);
        rest.take("{\"version\":")?;
        if rest.number::<u32>()? != Record::VERSION {
            return None;
        }
        rest.take(",\"id\":")?;
        let id = rest.text()?;
        rest.take(",\"engine\":")?;
        let engine = rest.text()?;
        rest.take(",\"bundle\":")?;
        let bundle = Path::new(rest.text()?);
        rest.take(",\"rootfs\":")?;
        let rootfs = Path::new(rest.text()?);
        rest.take(",\"created\":")?;
        let created = rest.text()?;
        rest.take(",\"owner\":")?;
        let owner = rest.number()?;
        rest.take(",\"complete\":")?;
        let complete = rest.flag()?;
        let starting = rest.has(",\"starting\":") && rest.flag()?;
        if rest.has(",\"attended\":") {
            rest.flag()?;
        }
        rest.take(",\"init\":")?;
        let init = if rest.has("null") { None } else { Some(identity(&mut rest)?) };
        let annotations = if rest.has(",\"annotations\":") { rest.strings()? } else { "" };
        let supervised = rest.has(",\"supervised\":") && rest.flag()?;
        let engine_state = if rest.has(",\"engineState\":") { Some(rest.value()?) } else { None };
        rest.take("}")?;
        // serde takes that for nothing there.
        let engine_state = engine_state.filter(|state| *state != "null");
        let annotations = Annotations::Written(annotations);
        rest.is_empty().then_some(Self {
            id,
            engine,
            bundle,
            rootfs,
            created,
            owner,
            complete,
            starting,
            init,
            annotations,
            supervised,
            engine_state,
        })
    }

    /// # Errors
    /// None that can be expected.
    pub fn annotations(&self) -> Result<Cow<'a, BTreeMap<String, String>>> {
        Ok(match self.annotations {
            Annotations::Read(annotations) => Cow::Borrowed(annotations),
            Annotations::Written("") => Cow::Owned(BTreeMap::new()),
            Annotations::Written(text) => Cow::Owned(serde_json::from_str(text)?),
        })
    }
}

fn identity<'a>(rest: &mut Plain<'a>) -> Option<Identity<'a>> {
    rest.take("{\"pid\":")?;
    let pid = rest.number()?;
    rest.take(",\"startTime\":")?;
    let start_time = rest.number()?;
    rest.take(",\"bootId\":")?;
    let boot_id = rest.text()?;
    rest.take("}")?;
    Some(Identity { pid, start_time, boot_id })
}

impl<'a> From<&'a Record> for Brief<'a> {
    fn from(record: &'a Record) -> Self {
        Self {
            id: &record.id,
            engine: &record.engine,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            owner: record.owner,
            complete: record.complete,
            starting: record.starting,
            init: record.init.as_ref().map(super::ProcessIdentity::borrowed),
            annotations: Annotations::Read(&record.annotations),
            supervised: record.supervised,
            engine_state: record.engine_state.as_deref().map(serde_json::value::RawValue::get),
        }
    }
}

/// They say the same, however they were read.
impl PartialEq for Brief<'_> {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            id,
            engine,
            bundle,
            rootfs,
            created,
            owner,
            complete,
            starting,
            init,
            annotations: _,
            supervised,
            engine_state,
        } = other;
        (self.id, self.engine, self.bundle, self.rootfs, self.created) == (*id, *engine, *bundle, *rootfs, *created)
            && (self.owner, self.complete, self.starting, self.supervised)
                == (*owner, *complete, *starting, *supervised)
            && (self.init, self.engine_state) == (*init, *engine_state)
            && self.annotations().ok() == other.annotations().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{BootId, ProcessIdentity};
    use serde_json::value::RawValue;

    fn record() -> Record {
        Record {
            version: Record::VERSION,
            id: "c1".into(),
            engine: "oci".into(),
            bundle: "/b ü".into(),
            rootfs: "/b/rootfs".into(),
            created: "2026-01-02T03:04:05Z".into(),
            owner: 1000,
            complete: true,
            starting: false,
            attended: false,
            init: None,
            annotations: BTreeMap::new(),
            supervised: false,
            engine_state: None,
        }
    }

    /// All shapes that a record has.
    fn records() -> Vec<Record> {
        let init = ProcessIdentity { pid: i32::MAX, start_time: u64::MAX, boot_id: BootId("b".into()) };
        let state = |text: &str| RawValue::from_string(text.into()).ok();
        let annotations = [("a", "\"b\"\n\u{1}\\"), ("ä", "")].map(|(key, value)| (key.into(), value.into()));
        (0..128)
            .map(|shape| {
                let mut record = record();
                (record.complete, record.starting) = (shape & 1 == 0, shape & 2 == 0);
                (record.attended, record.supervised) = (shape & 4 == 0, shape & 8 == 0);
                record.init = (shape & 16 == 0).then(|| init.clone());
                record.engine_state =
                    (shape & 32 == 0).then(|| state(r#"{"cgroup":{"places":[["","/m","p"]]}}"#)).flatten();
                if shape & 64 == 0 {
                    record.annotations = annotations.clone().into();
                }
                record
            })
            .collect()
    }

    #[test]
    fn what_rtx_writes_is_read() {
        for record in records() {
            let line = serde_json::to_string(&record).unwrap();
            assert_eq!(Brief::read(&line), Some(Brief::from(&record)), "{line}");
        }
    }

    #[test]
    fn only_what_serde_reads_is_read() {
        for record in records().iter().step_by(9) {
            let line = serde_json::to_string(record).unwrap();
            for at in 0..line.len() {
                for letter in ["", "0", " ", "\"", "\\", "}", ",", "x"] {
                    let (Some(begin), Some(end)) = (line.get(..at), line.get(at + 1..)) else { continue };
                    let changed = format!("{begin}{letter}{end}");
                    if let Some(brief) = Brief::read(&changed) {
                        let read: Record = serde_json::from_str(&changed).expect("serde reads it as well");
                        assert_eq!(brief, Brief::from(&read), "{changed}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_written_otherwise_is_not_read() {
        let line = serde_json::to_string(&record()).unwrap();
        for changed in [
            line.replace("\"version\":1", "\"version\":2"),
            line.replace(":", ": "),
            line.replace("/rootfs", "\\/rootfs"),
            line.replace("1000", "-1"),
            line.replace("1000", "1e3"),
            line.replace("true", "null"),
            line.replace(",\"init\":null", ""),
            line.replace(",\"init\"", ",\"new\":0,\"init\""),
            format!("{line} "),
            String::new(),
        ] {
            assert_ne!(changed, line);
            assert_eq!(Brief::read(&changed), None, "{changed}");
        }
    }
}
