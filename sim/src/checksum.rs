//! The checksum of the Internet (RFC 1071), apart from the engine's own, so that neither can hide the other's mistakes.
//!
//! Words are added as they lie in memory, eight bytes at a time: a sum of turned words is the turned sum (RFC 1071 s.2).

/// The sum of big-endian 16-bit words, folded to 16 bits; an odd last byte counts as a high one. Sums can be added to
/// one another and to numbers before they are [finished](finish).
#[inline]
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let (words, rest) = rest.as_chunks::<8>();
    let mut whole = Words::default();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        let [one, two, three, four] = *words else { continue };
        whole.add(one);
        whole.add(two);
        whole.add(three);
        whole.add(four);
    }
    for word in words {
        whole.add(*word);
    }
    if !rest.is_empty() {
        whole.add(rest_of(rest).to_ne_bytes());
    }
    whole.sum()
}

/// A sum of bytes that come eight at a time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Words(u128);

impl Words {
    /// Adds the next eight bytes.
    #[inline(always)]
    pub(crate) fn add(&mut self, bytes: [u8; 8]) {
        self.0 += u128::from(u64::from_ne_bytes(bytes));
    }

    /// The [sum] of all of them.
    #[inline(always)]
    pub(crate) fn sum(self) -> u64 {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "the parts of the sum, each of which counts alike"
        )]
        let (sum, is_over) = ((self.0 >> 64) as u64).overflowing_add(self.0 as u64);
        u64::from(u16::from_be(fold(sum + u64::from(is_over))))
    }
}

/// The sum of what is behind the last whole word, as it lies in memory.
#[inline]
fn rest_of(rest: &[u8]) -> u64 {
    let (halves, rest) = rest.as_chunks::<4>();
    let half = halves.first().map_or(0, |half| u32::from_ne_bytes(*half));
    let rest = match *rest {
        [a, b, c] => [a, b, c, 0],
        [a, b] => [a, b, 0, 0],
        [a] => [a, 0, 0, 0],
        _ => [0; 4],
    };
    u64::from(half) + u64::from(u32::from_ne_bytes(rest))
}

/// Whether a header of IPv4 without options adds up, its checksum included.
#[inline(always)]
pub(crate) fn adds_up(header: &[u8; 20]) -> bool {
    let (words, _) = header.as_chunks::<4>();
    fold(words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum()) == 0xffff
}

/// Folds a sum and turns it around.
#[inline]
pub(crate) const fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// Adds up the 16-bit words of a sum. Where a number is added to itself with its halves exchanged, the upper half is the
/// sum of both halves and of what was carried.
#[inline]
const fn fold(sum: u64) -> u16 {
    #[allow(clippy::cast_possible_truncation, reason = "the upper half of each")]
    {
        let half = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
        (half.wrapping_add(half.rotate_left(16)) >> 16) as u16
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
