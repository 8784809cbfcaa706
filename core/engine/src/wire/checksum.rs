//! The internet checksum: computed over bytes (RFC 1071), and mended by difference (RFC 1624, equation 3).
//!
//! All values are as a reader of the wire sees them (network order turned to native).

/// The one's complement sum of `bytes` as big-endian words, folded; an odd last byte counts as a high byte.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let mut words = bytes.chunks_exact(8);
    // Sums in the machine's order give the same result with its bytes swapped (RFC 1071, s.2(B)).
    let mut total: u64 = 0;
    for word in &mut words {
        if let Some(&eight) = word.first_chunk::<8>() {
            let value = u64::from_ne_bytes(eight);
            total += (value >> 32) + (value & 0xffff_ffff);
        }
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let mut last = [0; 8];
        for (place, byte) in last.iter_mut().zip(rest) {
            *place = *byte;
        }
        let value = u64::from_ne_bytes(last);
        total += (value >> 32) + (value & 0xffff_ffff);
    }
    u16::from_be(fold(total))
}

/// The sum of an IPv4 header without options, the one that is asked for with every packet.
#[must_use]
#[inline]
pub fn sum_20(bytes: &[u8; 20]) -> u16 {
    let (words, _) = bytes.as_chunks::<4>();
    let total = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
    u16::from_be(fold(total))
}

/// Folds a sum of words to 16 bits with end-around carry.
#[must_use]
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "after four folds the sum has 16 bits")]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The checksum of `bytes`, whose checksum field is zero, on top of a `start` sum such as a pseudo header's.
#[must_use]
pub fn checksum(start: u16, bytes: &[u8]) -> u16 {
    !fold(u64::from(start) + u64::from(sum(bytes)))
}

/// Whether `bytes`, checksum field included, add up on top of `start`.
#[must_use]
pub fn is_valid(start: u16, bytes: &[u8]) -> bool {
    fold(u64::from(start) + u64::from(sum(bytes))) == 0xffff
}

/// The sum of the IPv4 pseudo header (RFC 793, RFC 768).
#[must_use]
pub fn pseudo_header_v4(source: [u8; 4], destination: [u8; 4], protocol: u8, length_bytes: u16) -> u16 {
    let addresses = u64::from(u32::from_be_bytes(source)) + u64::from(u32::from_be_bytes(destination));
    fold(addresses + u64::from(protocol) + u64::from(length_bytes))
}

/// The sum of the IPv6 pseudo header (RFC 8200 s.8.1); `length_bytes` is that of the upper-layer packet.
#[must_use]
pub const fn pseudo_header_v6(
    source: [u8; 16],
    destination: [u8; 16],
    protocol: u8,
    length_bytes: u32,
) -> u16 {
    let addresses = sum_16(u128::from_be_bytes(source)) + sum_16(u128::from_be_bytes(destination));
    fold(addresses + protocol as u64 + length_bytes as u64)
}

/// The sum of 16 bytes as four words of 32 bits, not folded.
#[inline]
const fn sum_16(bits: u128) -> u64 {
    const WORD: u128 = 0xffff_ffff;
    #[allow(clippy::cast_possible_truncation, reason = "the sum of four words of 32 bits has at most 34")]
    let sum = ((bits >> 96) + (bits >> 64 & WORD) + (bits >> 32 & WORD) + (bits & WORD)) as u64;
    sum
}

/// The one's complement sum of two words.
#[inline]
#[allow(clippy::cast_possible_truncation, reason = "the sum of the halves of at most 0x1fffe has 16 bits")]
const fn add(a: u16, b: u16) -> u16 {
    let sum = a as u32 + b as u32;
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// A change of checksummed words, ready to be applied to any checksum over them.
///
/// Computed once per flow and applied to each packet; [`Delta::inverse`] is the change back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta(u16);

impl Delta {
    /// Nothing changes.
    pub const NONE: Self = Self(0);

    /// The high byte of a word becomes one less, as the time to live does at each hop: `~m + m - 0x100`.
    pub const HOP: Self = Self(0xfeff);

    /// The word `old` becomes `new`.
    #[must_use]
    #[inline]
    pub const fn of_word(old: u16, new: u16) -> Self {
        Self(add(!old, new))
    }

    /// The four bytes `old`, aligned to words, become `new`.
    #[must_use]
    #[inline]
    pub const fn of_bytes(old: [u8; 4], new: [u8; 4]) -> Self {
        let (old, new) = (u32::from_be_bytes(old), u32::from_be_bytes(new));
        Self(fold(!old as u64 + new as u64))
    }

    /// The 16 bytes `old`, aligned to words, become `new`.
    #[must_use]
    #[inline]
    pub const fn of_16_bytes(old: [u8; 16], new: [u8; 16]) -> Self {
        let (old, new) = (u128::from_be_bytes(old), u128::from_be_bytes(new));
        Self(fold(sum_16(!old) + sum_16(new)))
    }

    /// Both changes.
    #[must_use]
    #[inline]
    pub const fn and(self, other: Self) -> Self {
        Self(add(self.0, other.0))
    }

    /// The change back.
    #[must_use]
    #[inline]
    pub const fn inverse(self) -> Self {
        Self(!self.0)
    }

    /// The checksum after the change: RFC 1624, equation 3.
    #[must_use]
    #[inline]
    pub const fn apply(self, checksum: u16) -> u16 {
        !add(!checksum, self.0)
    }

    /// The plain sum after the change, for a field that holds a sum and not its complement.
    #[must_use]
    #[inline]
    pub const fn apply_to_sum(self, sum: u16) -> u16 {
        add(sum, self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// The definition, word by word.
    fn slow_sum(bytes: &[u8]) -> u16 {
        let mut total = 0_u64;
        for pair in bytes.chunks(2) {
            total += u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        }
        while total > 0xffff {
            total = (total & 0xffff) + (total >> 16);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn rfc_1624_example_gives_zero_and_not_ones() {
        assert_eq!(Delta::of_word(0x5555, 0x3285).apply(0xdd2f), 0x0000);
    }

    #[test]
    fn a_word_of_every_value_can_change_to_every_sampled_value() {
        // A header of two words: the field under change and a fixed neighbour.
        for old in (0..=u16::MAX).step_by(37) {
            for new in (0..=u16::MAX).step_by(509) {
                let before = !fold(u64::from(old) + 0x1234);
                let after = !fold(u64::from(new) + 0x1234);
                assert_eq!(Delta::of_word(old, new).apply(before), after, "{old:#x} to {new:#x}");
            }
        }
    }

    proptest! {
        #[test]
        fn sum_equals_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..1600)) {
            prop_assert_eq!(sum(&bytes), slow_sum(&bytes));
            if let Some(header) = bytes.first_chunk() {
                prop_assert_eq!(sum_20(header), slow_sum(header));
            }
        }

        #[test]
        fn a_delta_and_its_inverse_restore_the_checksum(
            mut bytes in proptest::collection::vec(any::<u8>(), 8..64),
            new in any::<[u8; 4]>(),
        ) {
            // An all-zero message has two representations of zero; headers never are.
            bytes[0] |= 0x40;
            let old: [u8; 4] = bytes[4..8].try_into().unwrap();
            let before = checksum(0, &bytes);
            let delta = Delta::of_bytes(old, new);
            let mut changed: Vec<u8> = bytes.clone();
            changed[4..8].copy_from_slice(&new);
            prop_assert_eq!(delta.apply(before), checksum(0, &changed));
            prop_assert_eq!(delta.inverse().apply(delta.apply(before)), before);
            prop_assert_eq!(delta.apply_to_sum(sum(&bytes)), sum(&changed));
        }

        #[test]
        fn a_delta_of_16_bytes_is_that_of_its_words(
            mut bytes in proptest::collection::vec(any::<u8>(), 24..64),
            new in any::<[u8; 16]>(),
        ) {
            bytes[0] |= 0x40;
            let old: [u8; 16] = bytes[8..24].try_into().unwrap();
            let before = checksum(0, &bytes);
            let delta = Delta::of_16_bytes(old, new);
            bytes[8..24].copy_from_slice(&new);
            prop_assert_eq!(delta.apply(before), checksum(0, &bytes));
            prop_assert_eq!(delta.inverse().apply(delta.apply(before)), before);
        }

        #[test]
        fn the_pseudo_header_of_ipv6_is_the_sum_of_its_bytes(
            source: [u8; 16], destination: [u8; 16], protocol: u8, length_bytes: u32,
        ) {
            let tail = [&length_bytes.to_be_bytes()[..], &[0, 0, 0, protocol]].concat();
            let bytes = [&source[..], &destination, &tail].concat();
            prop_assert_eq!(
                pseudo_header_v6(source, destination, protocol, length_bytes),
                slow_sum(&bytes)
            );
        }
    }
}
