//! The checksum of the Internet (RFC 1071), apart from the engine's own, so that neither can hide the other's mistakes.
//!
//! Words are added as they lie in memory, eight bytes at a time: a sum of turned words is the turned sum (RFC 1071 s.2).

/// The sum of big-endian 16-bit words, folded to 16 bits; an odd last byte counts as a high one. Sums can be added to
/// one another and to numbers before they are [finished](finish).
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let whole: u128 = words.iter().map(|word| u128::from(u64::from_ne_bytes(*word))).sum();
    let (halves, rest) = rest.as_chunks::<4>();
    let (pairs, odd) = rest.as_chunks::<2>();
    let half = halves.first().map_or(0, |half| u64::from(u32::from_ne_bytes(*half)));
    let pair = pairs.first().map_or(0, |pair| u64::from(u16::from_ne_bytes(*pair)));
    let odd = odd.first().map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
    #[allow(clippy::cast_possible_truncation, reason = "the parts of the sum, each of which counts alike")]
    let (high, low) = ((whole >> 64) as u64, whole as u64);
    let all = high + (low >> 32) + (low & 0xffff_ffff) + half + pair + odd;
    u64::from(u16::from_be(fold(all)))
}

/// Whether a header of IPv4 without options adds up, its checksum included.
#[inline]
pub(crate) fn adds_up(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    fold(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()) == 0xffff
}

/// Folds a sum and turns it around.
#[inline]
pub(crate) fn finish(sum: u64) -> u16 {
    !fold((sum >> 32) + (sum & 0xffff_ffff))
}

/// Adds up the 16-bit words of a sum below 2^48, until one is left.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum >> 16 & 0xffff) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    #[allow(clippy::cast_possible_truncation, reason = "at most 0xffff: what was carried has been added")]
    {
        ((sum >> 16) + (sum & 0xffff)) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// Word by word, as the RFC says it.
    fn plain(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap()
    }

    #[test]
    fn the_quick_sum_is_the_plain_one() {
        let mut draw = Stream::new(1, "checksum", "test");
        for length in (0..200).chain([1_459, 1_460, 1_500, 65_535]) {
            let mut bytes: Vec<u8> = (0..length).map(|_| u8::try_from(draw.below(256)).unwrap()).collect();
            assert_eq!(finish(sum(&bytes)), plain(&bytes), "{length}");
            bytes.fill(0xff);
            assert_eq!(finish(sum(&bytes)), plain(&bytes), "{length} times 0xff");
            bytes.fill(0);
            assert_eq!(finish(sum(&bytes)), 0xffff, "nothing is nothing");
        }
    }

    #[test]
    fn a_header_adds_up_when_its_sum_does() {
        let mut draw = Stream::new(2, "checksum", "test");
        for _ in 0..2_000 {
            let mut header: [u8; 20] = std::array::from_fn(|_| u8::try_from(draw.below(256)).unwrap());
            assert_eq!(adds_up(&header), plain(&header) == 0);
            (header[10], header[11]) = (0, 0);
            [header[10], header[11]] = plain(&header).to_be_bytes();
            assert!(adds_up(&header), "{header:?}");
        }
        assert!(!adds_up(&[0; 20]), "nothing has no checksum");
        assert!(adds_up(&[0xff; 20]));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let bytes: Vec<u8> = (0..=255).collect();
        for at in (0..256).step_by(2) {
            let (first, second) = bytes.split_at(at);
            assert_eq!(finish(sum(first) + sum(second)), plain(&bytes), "{at}");
        }
        assert_eq!(finish(u64::MAX), 0, "a sum of any size is folded");
    }
}
