//! memcpy(3), memmove(3) and memcmp(3) of the binary where it is linked with musl. Its own begin a string instruction for each
//! copy, which takes some thirty cycles, and compare byte by byte; and a `run` copies and compares a few bytes thousands of
//! times.
#![allow(unsafe_code)]

use std::arch::asm;
use std::ffi::c_int;

/// # Safety
/// As memcpy(3): `length` bytes can be read at `from` and written at `to`, and the two do not overlap.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: what the caller says.
    unsafe {
        if !copied_few(to, from, length) {
            forwards(to, from, length);
        }
    }
    to
}

/// # Safety
/// As memmove(3): `length` bytes can be read at `from` and written at `to`.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: what the caller says. Copied forwards, what is overwritten has been read where `to` comes first; copied
    // backwards, where it comes last.
    unsafe {
        if !copied_few(to, from, length) {
            if to.addr().wrapping_sub(from.addr()) >= length {
                forwards(to, from, length);
            } else {
                backwards(to, from, length);
            }
        }
    }
    to
}

/// # Safety
/// As memcmp(3): `length` bytes can be read at `one` and at `other`.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> c_int {
    // SAFETY: what the caller says; each branch reads no more than there is. What the last part has in common with the one
    // before is the same in both.
    unsafe {
        match length {
            0 => 0,
            1..4 => {
                let middle = length / 2;
                let part = |at: *const u8| {
                    u32::from(*at) << 16 | u32::from(*at.add(middle)) << 8 | u32::from(*at.add(length - 1))
                };
                order(part(one), part(other))
            }
            4..8 => {
                let part = |at: *const u8| {
                    let word = |at: *const u8| u64::from(u32::from_be(at.cast::<u32>().read_unaligned()));
                    word(at) << 32 | word(at.add(length - 4))
                };
                order(part(one), part(other))
            }
            _ => {
                let part = |at: *const u8| u64::from_be(at.cast::<u64>().read_unaligned());
                let last = length - 8;
                let mut at = 0;
                while at < last {
                    let (one, other) = (part(one.add(at)), part(other.add(at)));
                    if one != other {
                        return order(one, other);
                    }
                    at += 8;
                }
                order(part(one.add(last)), part(other.add(last)))
            }
        }
    }
}

fn order<T: Ord>(one: T, other: T) -> c_int {
    one.cmp(&other) as c_int
}

/// Copies at most 128 bytes, or says that there are more.
///
/// # Safety
/// As [`memmove`].
#[inline(always)]
unsafe fn copied_few(to: *mut u8, from: *const u8, length: usize) -> bool {
    // SAFETY: each branch has at least as many bytes as its type, and at most twice as many. There is no loop, which the
    // compiler could take for a copy and make a call of these functions.
    unsafe {
        match length {
            0 => {}
            1 => *to = *from,
            2..4 => ends::<u16>(to, from, length),
            4..8 => ends::<u32>(to, from, length),
            8..16 => ends::<u64>(to, from, length),
            16..=32 => ends::<u128>(to, from, length),
            33..=64 => ends::<[u128; 2]>(to, from, length),
            65..=128 => ends::<[u128; 4]>(to, from, length),
            _ => return false,
        }
    }
    true
}

/// Copies the first and the last bytes, which may be the same ones.
///
/// # Safety
/// As [`memmove`], for a length of at least a `T` and at most two.
#[inline(always)]
unsafe fn ends<T: Copy>(to: *mut u8, from: *const u8, length: usize) {
    let last = length - size_of::<T>();
    // SAFETY: both ends are within what the caller says can be read and written, and all is read before any is written.
    unsafe {
        let (head, tail) = (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
        to.cast::<T>().write_unaligned(head);
        to.add(last).cast::<T>().write_unaligned(tail);
    }
}

/// # Safety
/// As [`memcpy`], but that `to` may also overlap what comes after it.
unsafe fn forwards(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: reads and writes these bytes alone, one after the other.
    unsafe {
        asm!(
            "rep movsb",
            inout("rdi") to => _,
            inout("rsi") from => _,
            inout("rcx") length => _,
            options(nostack, preserves_flags)
        );
    }
}

/// # Safety
/// As [`memmove`], for at least one byte and a `to` that comes after `from`.
#[cold]
unsafe fn backwards(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: reads and writes these bytes alone, the last one first; the direction is as it was afterwards.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rdi") to.add(length - 1) => _,
            inout("rsi") from.add(length - 1) => _,
            inout("rcx") length => _,
            options(nostack)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{memcmp, memcpy, memmove};

    #[test]
    fn every_length_is_copied() {
        for length in (0..300).chain([4096, 5000]) {
            let from: Vec<u8> = (0..length).map(|number| (number % 251) as u8).collect();
            let mut to = vec![255; length + 1];
            // SAFETY: both are as long.
            unsafe { memcpy(to.as_mut_ptr(), from.as_ptr(), length) };
            assert_eq!((&to[..length], to[length]), (&from[..], 255));
        }
    }

    #[test]
    fn whatever_overlaps_is_moved_as_a_whole() {
        for length in (0..300).chain([4096, 5000]) {
            for (from, to) in [(300, 0), (0, 300), (100, 101), (101, 100), (100, 100), (64, 200), (200, 64)] {
                let mut bytes: Vec<u8> = (0..length + 600).map(|number| (number % 251) as u8).collect();
                let wanted = [&bytes[..to], &bytes[from..from + length], &bytes[to + length..]].concat();
                let base = bytes.as_mut_ptr();
                // SAFETY: both are within `bytes`.
                unsafe { memmove(base.add(to), base.add(from), length) };
                assert_eq!(bytes, wanted, "{length} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn the_first_difference_decides() {
        let compare = |one: &[u8], other: &[u8]| {
            // SAFETY: both are as long.
            unsafe { memcmp(one.as_ptr(), other.as_ptr(), one.len()) }.signum()
        };
        for length in 0..70 {
            let one: Vec<u8> = (0..length).map(|number| (number * 7 % 256) as u8).collect();
            assert_eq!(compare(&one, &one), 0);
            for at in 0..length {
                for by in [1, 127, 128, 255] {
                    let mut other = one.clone();
                    other[at] = other[at].wrapping_add(by);
                    // What comes later does not count.
                    other[at + 1..].reverse();
                    let wanted = if one[at] < other[at] { -1 } else { 1 };
                    assert_eq!(
                        (compare(&one, &other), compare(&other, &one)),
                        (wanted, -wanted),
                        "{length}, {at}, {by}"
                    );
                }
            }
        }
    }
}
