//! Parsers of single flag values, in the notations that runc takes.

use std::time::Duration;

use super::args::Rootless;

/// A size as runc's `update` takes it: bytes, or a decimal number with k, m, g, t, p (powers of 1024), optionally
/// followed by `b` or `ib`. `-1` means no limit.
pub fn parse_bytes(text: &str) -> Result<i64, String> {
    if text == "-1" {
        return Ok(-1);
    }
    let invalid = || format!("invalid size: '{text}'");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let shift = match lower[digits.len()..].trim_start().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(invalid()),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(invalid());
    }
    // Whole numbers stay exact: a limit above 2^53 bytes must not pass through a float.
    if let Ok(number) = digits.parse::<i64>() {
        return number.checked_mul(1 << shift).ok_or_else(invalid);
    }
    let bytes = digits.parse::<f64>().map_err(|_| invalid())? * (1u64 << shift) as f64;
    if bytes < i64::MAX as f64 { Ok(bytes as i64) } else { Err(invalid()) }
}

/// A value that may be given as the empty string, which runc's `update` takes for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Optional<T>(pub Option<T>);

/// A number, or nothing.
pub fn parse_optional<T: std::str::FromStr<Err = std::num::ParseIntError>>(text: &str) -> Result<Optional<T>, String> {
    if text.is_empty() {
        return Ok(Optional(None));
    }
    text.parse().map(|number| Optional(Some(number))).map_err(|error: std::num::ParseIntError| error.to_string())
}

/// A size, or nothing.
pub fn parse_optional_bytes(text: &str) -> Result<Optional<i64>, String> {
    if text.is_empty() { Ok(Optional(None)) } else { parse_bytes(text).map(|bytes| Optional(Some(bytes))) }
}

/// As good as for ever, and no clock runs over by it.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A duration in Go's notation (`5s`, `1m30s`, `1.5h`, `300ms`), greater than zero.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let invalid = || format!("invalid duration '{text}'; give a number and a unit, such as 5s or 500ms");
    // Go takes a zero without a unit.
    let mut rest = if text == "0" { "0s" } else { text };
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit() || c == '.').map_or(rest.len(), |at| number + at);
        let scale = match &rest[number..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(invalid()),
        };
        seconds += rest[..number].parse::<f64>().map_err(|_| invalid())? * scale;
        rest = &rest[unit..];
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| invalid())?;
    if duration.is_zero() {
        return Err(format!("duration interval must be greater than 0, not '{text}'"));
    }
    Ok(duration.min(LONGEST))
}

/// A duration as [`parse_interval`] has it, or a number of seconds; it may be zero.
pub fn parse_patience(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        Ok(seconds) => Ok(Duration::from_secs(seconds).min(LONGEST)),
        Err(_) if text == "0s" => Ok(Duration::ZERO),
        Err(_) => parse_interval(text),
    }
}

/// The bytes that leave `attach`, one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(pub Vec<u8>);

/// Keys in the notation of docker and podman: `ctrl-p,ctrl-q`.
pub fn parse_keys(text: &str) -> Result<DetachKeys, String> {
    let key = |name: &str| match (name.as_bytes(), name.strip_prefix("ctrl-").map(str::as_bytes)) {
        ([key], _) if key.is_ascii() => Ok(*key),
        (_, Some([key @ b'a'..=b'z'])) => Ok(key - b'a' + 1),
        (_, Some([key @ b'@'..=b'_'])) => Ok(key - b'@'),
        _ => Err(format!("'{name}' is no key: give characters and ctrl-X, with commas between them")),
    };
    if text.is_empty() {
        return Ok(DetachKeys(Vec::new()));
    }
    text.split(',').map(key).collect::<Result<_, _>>().map(DetachKeys)
}

/// The global `--rootless`: `auto`, or a truth value as Go's strconv.ParseBool takes it.
pub fn parse_rootless(text: &str) -> Result<Rootless, String> {
    match (text, go_bool(text)) {
        ("auto" | "", _) => Ok(Rootless::Auto),
        (_, Some(true)) => Ok(Rootless::Always),
        (_, Some(false)) => Ok(Rootless::Never),
        _ => Err(format!("'{text}' is none of true, false and auto")),
    }
}

/// The spellings of a truth value that Go's flag package takes after `=`.
pub(super) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("1048576"), Ok(1 << 20));
        assert_eq!(parse_bytes("32M"), Ok(32 << 20));
        assert_eq!(parse_bytes("1.5g"), Ok(3 << 29));
        assert_eq!(parse_bytes("4KiB"), Ok(4096));
        assert_eq!(parse_bytes("512 kb"), Ok(512 << 10));
        assert_eq!(parse_bytes("9223372036854771712"), Ok(9223372036854771712));
        assert_eq!(parse_bytes("-1"), Ok(-1));
        assert_eq!(parse_bytes("abc"), Err("invalid size: 'abc'".into()));
        for bad in ["", "-2", "1x", "m", "99999999p", "1.2.3", "1e3", "ñ"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn intervals() {
        assert_eq!(parse_interval("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_interval("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_interval("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_interval("300ms"), Ok(Duration::from_millis(300)));
        for bad in ["", "0", "0s", "5", "s", "5 s", "-5s", "5x", "1e400h"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_and_patience() {
        assert_eq!(parse_keys("ctrl-p,ctrl-q"), Ok(DetachKeys(vec![16, 17])));
        assert_eq!(parse_keys("a,ctrl-\\"), Ok(DetachKeys(vec![b'a', 28])));
        assert!(parse_keys("ctrl-").is_err() && parse_keys("ctrl-p,").is_err());
        assert_eq!(parse_patience("3"), Ok(Duration::from_secs(3)));
        assert_eq!(parse_patience("0"), Ok(Duration::ZERO));
        assert!(parse_patience("-1").is_err());
        assert_eq!(parse_patience(&u64::MAX.to_string()), Ok(LONGEST));
        assert_eq!(parse_interval("5000000000000000h"), Ok(LONGEST));
    }

    #[test]
    fn rootless_takes_auto_and_truth_values() {
        assert_eq!(parse_rootless("auto"), Ok(Rootless::Auto));
        assert_eq!(parse_rootless("true"), Ok(Rootless::Always));
        assert_eq!(parse_rootless("0"), Ok(Rootless::Never));
        assert!(parse_rootless("maybe").is_err());
    }
}
