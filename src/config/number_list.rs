//! Lists of processors and of memory nodes, as `0-3,7`.

/// More than any kernel has processors or nodes.
const MOST: usize = 8192;

/// The list as a mask: bit n of word n/64 stands for number n. `None` where it is no such list.
pub fn parse(list: &str) -> Option<Vec<u64>> {
    let mut mask = Vec::new();
    for range in list.split(',') {
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(range)?, number(range)?),
        };
        if first > last || last >= MOST {
            return None;
        }
        let words = last / 64 + 1;
        if mask.len() < words {
            mask.resize(words, 0);
        }
        (first..=last).for_each(|number| mask[number / 64] |= 1u64 << (number % 64));
    }
    Some(mask)
}

fn number(text: &str) -> Option<usize> {
    // Not the signs that Rust's numbers may have.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_list_becomes_a_mask() {
        assert_eq!(parse("0"), Some(vec![1]));
        assert_eq!(parse("0-3,7"), Some(vec![0x8f]));
        assert_eq!(parse("1,64-65"), Some(vec![2, 3]));
        for wrong in ["", "a", "1-", "-1", "3-1", "1,,2", "+1", "99999", "0 1"] {
            assert_eq!(parse(wrong), None, "{wrong:?}");
        }
    }
}
