//! JSON as rtx writes it: no white space, and members in their order. For commands that look at many records; what is written
//! in another way is `None` here and serde's to read.

use std::str::FromStr;

/// A text, and how much of it has been read.
#[derive(Debug, Clone, Copy)]
pub struct Plain<'a> {
    text: &'a str,
    at: usize,
}

/// How deep a value may be, which is read by calls of calls.
const DEPTH: usize = 32;

impl<'a> Plain<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    /// Reads these letters.
    pub fn take(&mut self, letters: &str) -> Option<()> {
        self.has(letters).then_some(())
    }

    /// Reads these letters, where they come next.
    pub fn has(&mut self, letters: &str) -> bool {
        let is_next = self.rest().starts_with(letters.as_bytes());
        if is_next {
            self.at += letters.len();
        }
        is_next
    }

    /// A string that is written as it is.
    pub fn text(&mut self) -> Option<&'a str> {
        self.byte(b'"')?;
        let begin = self.at;
        self.at += plain(self.rest());
        let text = self.text.get(begin..self.at);
        self.byte(b'"')?;
        text
    }

    /// A number without a sign.
    pub fn number<T: FromStr>(&mut self) -> Option<T> {
        let rest = self.rest();
        let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        if length > 1 && rest[0] == b'0' {
            return None;
        }
        let begin = self.at;
        self.at += length;
        self.text.get(begin..self.at)?.parse().ok()
    }

    pub fn flag(&mut self) -> Option<bool> {
        if self.has("true") { Some(true) } else { self.take("false").map(|()| false) }
    }

    /// Any value, as it is written.
    pub fn value(&mut self) -> Option<&'a str> {
        let begin = self.at;
        self.skip(DEPTH)?;
        self.text.get(begin..self.at)
    }

    /// An object of strings, as it is written.
    pub fn strings(&mut self) -> Option<&'a str> {
        let begin = self.at;
        self.byte(b'{')?;
        self.each(b'}', |rest| rest.member(Self::string))?;
        self.text.get(begin..self.at)
    }

    /// What one call reads of each, up to the byte that ends them. What they begin with has been read.
    pub fn each(&mut self, end: u8, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.byte(end).is_some() {
            return Some(());
        }
        loop {
            one(self)?;
            if self.byte(end).is_some() {
                return Some(());
            }
            self.byte(b',')?;
        }
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn byte(&mut self, byte: u8) -> Option<()> {
        (self.text.as_bytes().get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn skip(&mut self, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match self.rest().first()? {
            b'"' => self.string(),
            b'[' => {
                self.at += 1;
                self.each(b']', |rest| rest.skip(depth))
            }
            b'{' => {
                self.at += 1;
                self.each(b'}', |rest| rest.member(|rest| rest.skip(depth)))
            }
            b'n' => self.take("null"),
            b't' | b'f' => self.flag().map(drop),
            _ => self.number::<u64>().map(drop),
        }
    }

    fn member(&mut self, value: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        self.string()?;
        self.byte(b':')?;
        value(self)
    }

    /// A string, of which letters may be written otherwise.
    fn string(&mut self) -> Option<()> {
        self.byte(b'"')?;
        loop {
            self.at += plain(self.rest());
            if self.byte(b'"').is_some() {
                return Some(());
            }
            self.byte(b'\\')?;
            self.at += match self.rest() {
                [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 1,
                // Control characters, which have no others: a pair of surrogates begins with `d`.
                [b'u', b'0', b'0', one, other, ..] if one.is_ascii_hexdigit() && other.is_ascii_hexdigit() => 5,
                _ => return None,
            };
        }
    }
}

/// How many bytes come before one that ends a string, or that a string does not have as it is.
#[inline]
fn plain(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The first that is found is one; what seems to be found after it may be a borrow from there.
        let found = below(word, 0x20) | are(word, b'"') | are(word, b'\\');
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let end = rest.iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'));
    words.len() * 8 + end.unwrap_or(rest.len())
}

/// Whether one of the bytes is this one.
pub(super) fn has(bytes: [u8; 8], byte: u8) -> bool {
    are(u64::from_le_bytes(bytes), byte) != 0
}

/// One in each byte.
const EACH: u64 = u64::MAX / 255;

/// The highest bit of each byte that is this one.
fn are(word: u64, byte: u8) -> u64 {
    below(word ^ (EACH * u64::from(byte)), 1)
}

/// The highest bit of each byte that is below `limit`, which is at most 128.
fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(EACH * limit) & !word & (EACH << 7)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_end_where_they_end() {
        for value in [
            "null",
            "true",
            "false",
            "0",
            "10",
            r#""""#,
            r#""a b""#,
            "[]",
            "{}",
            r#"["a",1,[null]]"#,
            r#"{"a":{"b":[true]},"c":0}"#,
            r#""\"\\\/\b\f\n\r\t\u001f""#,
            r#""\u00e4""#,
            "\"ä\u{7f}😀\"",
        ] {
            let text = format!("{value},rest");
            let mut plain = Plain::new(&text);
            assert_eq!(plain.value(), Some(value));
            assert_eq!(plain.take(",rest"), Some(()));
            assert!(plain.is_empty());
            assert!(serde_json::from_str::<serde_json::Value>(value).is_ok(), "{value}");
        }
    }

    #[test]
    fn what_is_not_plain_is_not_read() {
        for value in [
            "",
            " 1",
            "01",
            "-1",
            "\"",
            "\"a",
            "\"\u{1f}\"",
            r#""\"#,
            r#""\u""#,
            r#""\u12"#,
            r#""\ud800""#,
            r#""\x""#,
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,]",
            "[1 ,2]",
            "{",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            "nul",
            "tru",
            "x",
        ] {
            assert_eq!(Plain::new(value).value(), None, "{value}");
        }
        assert_eq!(Plain::new(&"[".repeat(100_000)).value(), None);
        // The number ends, and what follows belongs to nothing.
        assert_eq!(Plain::new("1.5").value(), Some("1"));
        assert_eq!(Plain::new("[1.5]").value(), None);
    }

    #[test]
    fn members() {
        assert_eq!(Plain::new(r#""a b","c""#).text(), Some("a b"));
        assert_eq!(Plain::new(r#""a\n""#).text(), None);
        assert_eq!(Plain::new("256,").number::<u32>(), Some(256));
        assert_eq!(Plain::new("256").number::<u8>(), None);
        assert_eq!(Plain::new("").number::<u8>(), None);
        assert_eq!(Plain::new(r#"{"a":"\"","b":""}x"#).strings(), Some(r#"{"a":"\"","b":""}"#));
        assert_eq!(Plain::new(r#"{"a":1}"#).strings(), None);
    }

    #[test]
    fn the_first_that_is_not_plain_is_found() {
        for length in 0..40 {
            for letter in [0, 1, 0x1f, b'"', b'\\'] {
                for at in 0..length {
                    for other in [0x20, 0x21, 0x23, 0x5b, 0x5d, 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                        let mut bytes = vec![other; length];
                        assert_eq!(plain(&bytes), length);
                        bytes[at] = letter;
                        assert_eq!(plain(&bytes), at, "{letter} beside {other}");
                        bytes[at..].fill(letter);
                        assert_eq!(plain(&bytes), at, "{letter} from {at}");
                    }
                }
            }
        }
    }
}
