//! TCP (RFC 9293): ports, flags, options and checksum of a segment, in place.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Delta;
use crate::verdict::DropReason;

/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;

/// Where the checksum lies in the header.
pub const CHECKSUM_AT: usize = 16;

/// The option that says how large the segments may be that its sender takes in.
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// The control bits of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender is done.
    pub const FIN: Self = Self(0x01);
    /// A connection begins.
    pub const SYN: Self = Self(0x02);
    /// The connection is over at once.
    pub const RST: Self = Self(0x04);
    /// The acknowledgement number counts.
    pub const ACK: Self = Self(0x10);

    /// Whether any bit of `other` is set here.
    #[must_use]
    #[inline]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether this belongs to a connection that goes on: an acknowledgement that neither opens nor ends it.
    #[must_use]
    #[inline]
    pub const fn goes_on(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0 | Self::FIN.0) == Self::ACK.0
    }

    /// Whether this opens a connection: SYN alone.
    #[must_use]
    #[inline]
    pub const fn is_opening(self) -> bool {
        self.0 & (Self::SYN.0 | Self::ACK.0 | Self::RST.0 | Self::FIN.0) == Self::SYN.0
    }
}

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    source_port: U16,
    destination_port: U16,
    sequence: U32,
    acknowledgement: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

impl Header {
    /// Checks the header at the start of `payload`.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadHeader` when the data offset contradicts the length.
    #[inline]
    pub fn split(payload: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        let length = payload.len();
        let Ok((header, rest)) = Self::mut_from_prefix(payload) else { return Err(DropReason::Truncated) };
        let offset = usize::from(header.data_offset >> 4) * 4;
        if offset < HEADER_BYTES || offset > length {
            return Err(DropReason::BadHeader);
        }
        Ok((header, rest))
    }

    /// A segment without payload and options; the checksum is zero.
    #[must_use]
    pub fn bare(
        source_port: u16,
        destination_port: u16,
        sequence: u32,
        acknowledgement: u32,
        flags: Flags,
    ) -> Self {
        Self {
            source_port: U16::new(source_port),
            destination_port: U16::new(destination_port),
            sequence: U32::new(sequence),
            acknowledgement: U32::new(acknowledgement),
            data_offset: 0x50,
            flags: flags.0,
            window: U16::ZERO,
            checksum: U16::ZERO,
            urgent: U16::ZERO,
        }
    }

    /// Sets the checksum field.
    pub fn set_checksum(&mut self, checksum: u16) {
        self.checksum.set(checksum);
    }

    /// The header at the start of a payload that [`Header::split`] has checked before; `None` where it is not that.
    #[inline]
    pub fn reopen(payload: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(payload).ok().map(|(header, _)| header)
    }

    /// Replaces both ports and mends the checksum by `delta`, the change of addresses and ports.
    #[inline(always)]
    pub fn set_ports(&mut self, source: u16, destination: u16, delta: Delta) {
        self.source_port.set(source);
        self.destination_port.set(destination);
        self.checksum.set(delta.apply(self.checksum.get()));
    }

    /// Replaces both ports where the checksum field holds only the pseudo header's sum; `delta` is the change of
    /// the addresses.
    #[inline]
    pub fn set_ports_partial(&mut self, source: u16, destination: u16, delta: Delta) {
        self.source_port.set(source);
        self.destination_port.set(destination);
        self.checksum.set(delta.apply_to_sum(self.checksum.get()));
    }

    /// The sender's port.
    #[must_use]
    #[inline]
    pub fn source_port(&self) -> u16 {
        self.source_port.get()
    }

    /// The receiver's port.
    #[must_use]
    #[inline]
    pub fn destination_port(&self) -> u16 {
        self.destination_port.get()
    }

    /// The control bits.
    #[must_use]
    #[inline]
    pub const fn flags(&self) -> Flags {
        Flags(self.flags)
    }

    /// The number of the first byte.
    #[must_use]
    pub fn sequence(&self) -> u32 {
        self.sequence.get()
    }

    /// The next byte that the sender expects.
    #[must_use]
    pub fn acknowledgement(&self) -> u32 {
        self.acknowledgement.get()
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// How many bytes the sender takes in, before scaling.
    #[must_use]
    pub fn window(&self) -> u16 {
        self.window.get()
    }
}

/// One option of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpOption<'a> {
    /// Its kind; never 0 (end of options) or 1 (no operation), which have no length.
    pub kind: u8,
    /// Where its value begins in the segment.
    pub at: usize,
    /// Its value, without kind and length.
    pub value: &'a [u8],
}

/// The options of a segment, in order; ends before one that contradicts the length of the header.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    /// What has not been walked yet.
    rest: &'a [u8],
    /// Where that begins in the segment.
    at: usize,
}

/// Walks the options of `segment`; there are none in bytes that are no whole header.
#[must_use]
pub fn options(segment: &[u8]) -> Options<'_> {
    let header_bytes = segment.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
    Options { rest: segment.get(HEADER_BYTES..header_bytes).unwrap_or_default(), at: HEADER_BYTES }
}

impl<'a> Iterator for Options<'a> {
    type Item = TcpOption<'a>;

    fn next(&mut self) -> Option<TcpOption<'a>> {
        loop {
            let (kind, behind) = self.rest.split_first()?;
            let length = match *kind {
                0 => 0,
                1 => 1,
                _ => usize::from(*behind.first()?),
            };
            let is_empty = *kind == 1;
            if length == 0 || (length < 2 && !is_empty) {
                self.rest = &[];
                return None;
            }
            let (option, rest) = self.rest.split_at_checked(length)?;
            let at = self.at + 2;
            self.rest = rest;
            self.at += length;
            if !is_empty {
                return Some(TcpOption { kind: *kind, at, value: option.get(2..)? });
            }
        }
    }
}

/// Lowers the maximum segment size that a SYN announces to `mss`, if it is larger, and mends the checksum. Returns
/// whether anything changed. A segment that is no SYN, or says nothing, stays as it is.
///
/// With `needs_checksum`, the checksum field holds only the sum of the pseudo header, which options do not touch.
pub fn clamp_mss(segment: &mut [u8], mss: u16, needs_checksum: bool) -> bool {
    if !segment.get(13).is_some_and(|flags| Flags(*flags).has(Flags::SYN)) {
        return false;
    }
    let mut has_changed = false;
    // A segment has at most ten such options; each turn lowers one, so the bound is never met.
    for _ in 0..10 {
        let too_large = options(segment).find_map(|option| {
            let value = u16::from_be_bytes(*option.value.as_array()?);
            (option.kind == MAXIMUM_SEGMENT_SIZE && value > mss).then_some((option.at, value))
        });
        let Some((at, old)) = too_large else { break };
        if let Some(place) = segment.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = mss.to_be_bytes();
        }
        // At an odd place the two bytes belong to two words, each in the other half.
        let change = if at % 2 == 0 {
            Delta::of_word(old, mss)
        } else {
            Delta::of_word(old.swap_bytes(), mss.swap_bytes())
        };
        if let Some(field) = segment.get_mut(CHECKSUM_AT..).and_then(<[u8]>::first_chunk_mut::<2>)
            && !needs_checksum
        {
            *field = change.apply(u16::from_be_bytes(*field)).to_be_bytes();
        }
        has_changed = true;
    }
    has_changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::checksum;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A segment with these options, padded, and a right checksum over itself alone.
    fn segment(flags: Flags, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut bytes = Header::bare(40_000, 80, 7, 8, flags).as_bytes().to_vec();
        bytes.extend_from_slice(options);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes[12] = u8::try_from(bytes.len() / 4).unwrap() << 4;
        bytes.extend_from_slice(payload);
        let sum = checksum::checksum(0, &bytes);
        bytes[16..18].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn the_segment_size_of_a_syn_is_lowered_wherever_it_lies() {
        for (options, at) in [
            (&[2, 4, 5, 0xb4, 1, 3, 3, 7][..], 22),
            (&[1, 2, 4, 5, 0xb4, 3, 3, 7], 23),
            (&[3, 3, 7, 2, 4, 5, 0xb4], 25),
            (&[4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0xff, 0xff], 34),
        ] {
            let mut bytes = segment(Flags::SYN, options, b"early");
            let before = bytes.clone();
            assert!(clamp_mss(&mut bytes, 1400, false));
            assert_eq!(bytes[at..at + 2], 1400_u16.to_be_bytes());
            assert!(checksum::is_valid(0, &bytes), "{options:?}");
            assert!(!clamp_mss(&mut bytes, 1400, false));
            // A checksum that is still to be completed covers no options yet.
            let mut partial = before.clone();
            assert!(clamp_mss(&mut partial, 1400, true));
            assert_eq!((&partial[..18], &partial[18..]), (&before[..18], &bytes[18..]));
        }
    }

    #[test]
    fn nothing_else_is_touched() {
        for (flags, options) in [
            (Flags::ACK, &[2, 4, 5, 0xb4][..]),
            (Flags::SYN, &[2, 4, 5, 0x78]),
            (Flags::SYN, &[]),
            // Behind the end of options, of a wrong length, and beyond the header.
            (Flags::SYN, &[0, 2, 4, 5, 0xb4]),
            (Flags::SYN, &[2, 3, 5, 0xb4]),
            (Flags::SYN, &[8, 9, 2, 4, 5, 0xb4]),
            (Flags::SYN, &[8, 1, 2, 4, 5, 0xb4]),
            (Flags::SYN, &[1, 1, 2, 4]),
        ] {
            let mut bytes = segment(flags, options, &[2, 4, 5, 0xb4]);
            let before = bytes.clone();
            assert!(!clamp_mss(&mut bytes, 1400, false), "{options:?}");
            assert_eq!(bytes, before);
        }
    }

    #[test]
    fn options_are_walked_with_their_places() {
        let bytes = segment(Flags::SYN, &[1, 2, 4, 5, 0xb4, 4, 2, 3, 3, 7], b"");
        let found: Vec<_> = options(&bytes).map(|option| (option.kind, option.at, option.value)).collect();
        assert_eq!(found, [(2, 23, &[5, 0xb4][..]), (4, 27, &[]), (3, 29, &[7])]);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_walked(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), mss: u16) {
            prop_assert!(options(&bytes).all(|option| bytes[option.at..].starts_with(option.value)));
            if let Some(flags) = bytes.get_mut(13) {
                *flags |= 2;
            }
            let before = bytes.clone();
            let has_changed = clamp_mss(&mut bytes, mss, false);
            prop_assert_eq!(has_changed, bytes != before);
            prop_assert!(!clamp_mss(&mut bytes, mss, false));
            if bytes.len() >= 20 {
                // The sum over the whole is what it was, right or wrong.
                let sums = [&before, &bytes].map(|bytes| checksum::sum(bytes) % 0xffff);
                prop_assert_eq!(sums[0], sums[1]);
            }
        }
    }
}
