//! Device rules as properties of a unit. On cgroup v1 systemd writes the devices controller's files by itself, whenever it
//! is reloaded or a property is set: what it is not told of would be undone then. systemd.resource-control(5),
//! DevicePolicy and DeviceAllow.

use anyhow::Result;

use super::super::devices::{self, Exceptions, Kind, Rule};
use super::wire::{Property, Value};

/// systemd takes the number of a driver for its name from here on.
const NUMBERS_FROM: u32 = 240;

/// What makes systemd keep the rules, as far as it can say them: it knows of allowed devices alone. Where the container
/// may use all devices but some, systemd is told of the default ones only, so that it may allow too little, but never too
/// much.
///
/// # Errors
/// Rules that cgroup v1 cannot have.
pub fn properties(rules: &[Rule], version: u32) -> Result<Vec<Property>> {
    let Exceptions { allowed, rules } = match devices::exceptions(rules)? {
        all if all.allowed && !all.rules.is_empty() => devices::exceptions(devices::DEFAULTS)?,
        fitting => fitting,
    };
    let policy = Value::text(if allowed { "auto" } else { "strict" });
    let known = if version < NUMBERS_FROM { std::fs::read_to_string("/proc/devices")? } else { String::new() };
    let entries = rules.iter().filter_map(|rule| Some((path(rule, version, &known)?, rule.letters())));
    Ok(vec![("DevicePolicy".to_owned(), policy), ("DeviceAllow".to_owned(), Value::Pairs(entries.collect()))])
}

/// What systemd would not keep of the rules.
///
/// # Errors
/// As [`properties`].
pub fn warning(rules: &[Rule]) -> Result<Option<String>> {
    let Exceptions { allowed, rules } = devices::exceptions(rules)?;
    let is_partial = rules.iter().any(|rule| rule.major.is_none() && rule.minor.is_some());
    let what = match (allowed, rules.is_empty()) {
        (true, false) => {
            "that forbids some devices and allows all others: until `systemctl daemon-reload` it is in force, and from then on only the default devices are allowed"
        }
        (false, _) if is_partial => {
            "with a minor number and no major one: until `systemctl daemon-reload` it is in force"
        }
        _ => return Ok(None),
    };
    Ok(Some(format!("/linux/resources/devices: on cgroup v1 systemd does not keep a list {what}")))
}

/// How systemd calls the devices of a rule: `/dev/char/1:3`, `char-136`, `char-*`.
fn path(rule: &Rule, version: u32, known: &str) -> Option<String> {
    let kind = match rule.kind? {
        Kind::Block => "block",
        Kind::Character => "char",
    };
    match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => Some(format!("/dev/{kind}/{major}:{minor}")),
        (Some(major), None) if version >= NUMBERS_FROM => Some(format!("{kind}-{major}")),
        (Some(major), None) => Some(format!("{kind}-{}", driver(known, rule.kind?, major)?)),
        (None, None) => Some(format!("{kind}-*")),
        (None, Some(_)) => None,
    }
}

/// The name in /proc/devices, where a line is a number and a name below the heading of its kind.
fn driver(known: &str, kind: Kind, major: u32) -> Option<&str> {
    let heading = match kind {
        Kind::Block => "Block devices:",
        Kind::Character => "Character devices:",
    };
    let list = known.lines().skip_while(|line| *line != heading).skip(1).take_while(|line| !line.is_empty());
    let mut names = list.filter_map(|line| line.trim_start().split_once(' '));
    names.find(|(number, _)| number.parse() == Ok(major)).map(|(_, name)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(json: &str) -> Vec<Rule> {
        devices::rules(&serde_json::from_str(&format!(r#"{{"devices":{json}}}"#)).unwrap()).unwrap()
    }

    fn shown(json: &str) -> (String, Vec<String>) {
        let mut properties = properties(&rules(json), 252).unwrap().into_iter();
        let (Some((_, Value::Str(policy))), Some((_, Value::Pairs(pairs)))) = (properties.next(), properties.next())
        else {
            panic!("not the two properties");
        };
        (policy, pairs.into_iter().map(|(path, access)| format!("{path} {access}")).collect())
    }

    const DEFAULTS: [&str; 11] = [
        "block-* m",
        "char-* m",
        "/dev/char/1:3 rwm",
        "/dev/char/1:5 rwm",
        "/dev/char/1:7 rwm",
        "/dev/char/1:8 rwm",
        "/dev/char/1:9 rwm",
        "/dev/char/5:0 rwm",
        "/dev/char/5:2 rwm",
        "/dev/char/10:200 rwm",
        "char-136 rwm",
    ];

    #[test]
    fn a_list_of_what_is_allowed() {
        let (policy, list) = shown(r#"[{"allow":false},{"allow":true,"type":"b","major":7,"access":"r"}]"#);
        let rest: Vec<_> = list.iter().map(String::as_str).filter(|entry| !DEFAULTS.contains(entry)).collect();
        assert_eq!((policy.as_str(), rest, list.len()), ("strict", vec!["block-7 r"], 12));
        assert!(warning(&rules("[]")).unwrap().is_none());
    }

    #[test]
    fn what_systemd_cannot_say() {
        assert_eq!(shown(r#"[{"allow":true}]"#), ("auto".to_owned(), vec![]));
        assert!(warning(&rules(r#"[{"allow":true}]"#)).unwrap().is_none());
        let but_one = r#"[{"allow":true},{"allow":false,"type":"c","major":10,"minor":229}]"#;
        let (policy, list) = shown(but_one);
        assert_eq!((policy.as_str(), list), ("strict", DEFAULTS.map(str::to_owned).to_vec()));
        assert!(warning(&rules(but_one)).unwrap().unwrap().contains("that forbids some"));
        let any_major = r#"[{"allow":true,"type":"c","minor":3}]"#;
        assert!(warning(&rules(any_major)).unwrap().unwrap().contains("no major"));
        assert_eq!(shown(any_major).1.len(), DEFAULTS.len());
    }

    #[test]
    fn names_of_drivers() {
        let known = "Character devices:\n  4 /dev/vc/0\n136 pts\n\nBlock devices:\n  7 loop\n";
        assert_eq!(driver(known, Kind::Character, 136), Some("pts"));
        assert_eq!(driver(known, Kind::Block, 7), Some("loop"));
        assert_eq!((driver(known, Kind::Block, 136), driver("", Kind::Block, 7)), (None, None));
    }
}
