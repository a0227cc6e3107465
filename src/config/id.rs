//! Container ids: what a name may look like, and how one is made when the caller gives none.
//!
//! The id becomes a directory name below the state root and part of a cgroup path, so what is refused here can never
//! become a path traversal later.

use anyhow::{Result, bail};

/// Longest id accepted, in bytes: runc's limit.
pub const MAX_LENGTH: usize = 1024;

/// Checks a container id: `[A-Za-z0-9_+.-]+`, not `.` or `..`, at most [`MAX_LENGTH`] bytes. The texts are runc's,
/// because callers match on them.
pub fn validate(id: &str) -> Result<()> {
    if id.is_empty() {
        bail!("container id cannot be empty");
    }
    if id == "." || id == ".." {
        bail!("invalid container ID format: {id:?} names a directory; use letters, digits and _ + - .");
    }
    if id.len() > MAX_LENGTH {
        bail!("invalid container ID format: {} bytes, where at most {MAX_LENGTH} are allowed", id.len());
    }
    if let Some(wrong) = id.chars().find(|c| !(c.is_ascii_alphanumeric() || "_+-.".contains(*c))) {
        bail!("invalid container ID format: {id:?} contains {wrong:?}; use letters, digits and _ + - .");
    }
    Ok(())
}

/// A new id: a lowercase ULID, so that ids sort by the time they were made. 26 characters.
pub fn generate() -> String {
    ulid::Ulid::generate().to_string().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_runc() {
        for id in ["a", "A_b-c.d+1", "...", "-", "0", &"x".repeat(1024)] {
            assert!(validate(id).is_ok(), "{id}");
        }
        for id in [".", "..", "a/b", "a b", "ä", "a\n", "a\0", "a:b", &"x".repeat(1025)] {
            let text = validate(id).unwrap_err().to_string();
            assert!(text.starts_with("invalid container ID format"), "{text}");
        }
        assert_eq!(validate("").unwrap_err().to_string(), "container id cannot be empty");
    }

    #[test]
    fn generated_ids_are_valid_lowercase_and_differ() {
        let (a, b) = (generate(), generate());
        assert!(validate(&a).is_ok() && a.len() == 26 && a == a.to_lowercase());
        assert_ne!(a, b);
    }
}
