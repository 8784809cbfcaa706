//! Small spaces, all of them. Only in release builds, where four thousand million steps take seconds:
//! `make test-exhaustive`.
#![cfg(not(debug_assertions))]

use evenkeel_engine::wire::checksum::{Delta, fold};

/// Whether the checksum of a message whose other words sum up to `rest`, when its word `old` becomes `new`, is by
/// difference (RFC 1624, equation 3) what it is when it is computed anew.
#[inline]
fn is_mended(rest: u16, old: u16, new: u16) -> bool {
    let checksum = |word: u16| !fold(u64::from(rest) + u64::from(word));
    Delta::of_word(old, new).apply(checksum(old)) == checksum(new)
}

/// A sum of words of which one is not zero is never zero, and a header has such a word.
#[test]
fn checksums_by_difference_are_those_computed_anew_for_every_sum_and_new_word() {
    for rest in 1..=u16::MAX {
        let all = (0..=u16::MAX).fold(true, |all, new| {
            // Another old word for every pair, and the two that one's complement takes for the same.
            let old = rest.wrapping_mul(0x9e37) ^ new.wrapping_mul(0x79b1);
            all & is_mended(rest, old, new) & is_mended(rest, 0, new) & is_mended(rest, 0xffff, new)
        });
        assert!(all, "sum {rest:#x}");
    }
}

#[test]
fn a_change_and_its_inverse_leave_every_checksum_as_it_was() {
    // The one checksum that no computation gives is 0xffff.
    for checksum in 0..u16::MAX {
        let all = (0..=u16::MAX).fold(true, |all, new| {
            let change = Delta::of_word(checksum.rotate_left(5) ^ 0x5555, new);
            all & (change.inverse().apply(change.apply(checksum)) == checksum)
        });
        assert!(all, "checksum {checksum:#x}");
    }
}
