//! What CRIU's log says about a failure.

use std::path::Path;

/// How many lines a message shows.
const SHOWN: usize = 8;
/// Where there is no line of an error, the last ones have to do.
const LAST: usize = 4;
/// The end of a log is read, at most so many bytes.
const TAIL: usize = 64 * 1024;

/// CRIU's own last words and where the rest is. `stderr` is what it said before it had a log.
pub fn last_words(log: &Path, stderr: &str) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let tail = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(TAIL)..]);
    if tail.trim().is_empty() {
        let words = select(stderr);
        return if words.is_empty() { "criu said nothing".to_owned() } else { format!("criu said: {words}") };
    }
    format!("{} ends with: {}", log.display(), select(&tail))
}

/// The last lines that name an error, or the last lines.
pub fn select(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(trim).filter(|line| !line.is_empty()).collect();
    let errors: Vec<&str> = lines.iter().copied().filter(|line| line.contains("Error")).collect();
    let (from, count) = if errors.is_empty() { (&lines, LAST) } else { (&errors, SHOWN) };
    from[from.len().saturating_sub(count)..].join("; ")
}

/// What criu could not print of its first lines it fills with NUL.
fn trim(line: &str) -> &str {
    line.trim_matches(|character: char| character.is_whitespace() || character.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_come_before_other_lines() {
        assert_eq!(
            select("a\n(0.1) Error (x.c:1): no\nb\nError (y.c:2): never\nc\n"),
            "(0.1) Error (x.c:1): no; Error (y.c:2): never"
        );
        assert_eq!(select("1\n2\n3\n\n4\n5\n"), "2; 3; 4; 5");
        assert_eq!(last_words(Path::new("/nonexistent"), ""), "criu said nothing");
        assert_eq!(last_words(Path::new("/nonexistent"), "oops\n"), "criu said: oops");
    }
}
