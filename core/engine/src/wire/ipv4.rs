//! IPv4 (RFC 791): the header, its checks (RFC 1812 s.5.2.2) and its edits.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::{self, Delta};
use super::{Address, Protocol};
use crate::verdict::DropReason;

/// Bytes of a header without options.
pub const HEADER_BYTES: usize = 20;

const DONT_FRAGMENT: u16 = 0x4000;
const FRAGMENT: u16 = 0x3fff;

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_and_length: u8,
    dscp_and_ecn: u8,
    total_length: U16,
    identification: U16,
    flags_and_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    source: [u8; 4],
    destination: [u8; 4],
}

/// A checked packet: header and payload in place. Bytes beyond the total length are left out.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The fixed part of the header.
    pub header: &'a mut Header,
    /// What the packet carries, without options and padding.
    pub payload: &'a mut [u8],
}

impl<'a> Packet<'a> {
    /// Checks `bytes` and splits them.
    ///
    /// # Errors
    /// Those of [`Header::check`].
    #[inline]
    pub fn split(bytes: &'a mut [u8]) -> Result<Self, DropReason> {
        let header = Header::check(bytes)?;
        let (start, end) = (header.header_length(), usize::from(header.total_length()));
        Self::reopen(bytes.get_mut(..end).ok_or(DropReason::Truncated)?, start)
    }

    /// Splits a packet that [`Header::check`] has accepted, without what lies behind it; its payload begins at `offset`.
    ///
    /// # Errors
    /// `BadHeader` where the bytes are not those that were checked.
    #[inline]
    pub fn reopen(bytes: &'a mut [u8], offset: usize) -> Result<Self, DropReason> {
        let Some((head, payload)) = bytes.split_at_mut_checked(offset) else {
            return Err(DropReason::BadHeader);
        };
        let Ok((header, _)) = Header::mut_from_prefix(head) else { return Err(DropReason::BadHeader) };
        Ok(Self { header, payload })
    }
}

impl Header {
    /// A header without options, its checksum set: tos, identification 0, don't fragment.
    #[must_use]
    pub fn new(
        tos: u8,
        ttl: u8,
        protocol: Protocol,
        source: [u8; 4],
        destination: [u8; 4],
        payload: u16,
    ) -> Self {
        let mut header = Self {
            version_and_length: 0x45,
            dscp_and_ecn: tos,
            total_length: U16::new(payload.saturating_add(20)),
            identification: U16::ZERO,
            flags_and_offset: U16::new(DONT_FRAGMENT),
            ttl,
            protocol: protocol.0,
            checksum: U16::ZERO,
            source,
            destination,
        };
        header.checksum = U16::new(checksum::checksum(0, header.as_bytes()));
        header
    }

    /// The header of the packet at the start of `bytes`, after all of its checks.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, `BadHeader` for another version and when lengths contradict each other,
    /// `BadChecksum` when the header does not add up.
    #[inline]
    pub fn check(bytes: &[u8]) -> Result<&Self, DropReason> {
        let sum = match bytes.first_chunk::<HEADER_BYTES>() {
            Some(fixed @ [0x45, ..]) => checksum::sum_20(fixed),
            _ => sum_of_other(bytes)?,
        };
        if sum != 0xffff {
            return Err(DropReason::BadChecksum);
        }
        let Ok((header, _)) = Self::ref_from_prefix(bytes) else { return Err(DropReason::Truncated) };
        let total = usize::from(header.total_length.get());
        if total < header.header_length() {
            return Err(DropReason::BadHeader);
        }
        if total > bytes.len() {
            return Err(DropReason::Truncated);
        }
        Ok(header)
    }

    /// The header at the start of a packet that an ICMP error quotes, and what is quoted of its payload. Less is checked
    /// than at the door, since a quote is cut.
    ///
    /// # Errors
    /// `Truncated` when the header is not whole, `BadHeader` when it is not one of IPv4, `Fragment` when the quoted
    /// packet is a later fragment, `BadChecksum` when the header does not add up.
    pub fn quoted(quote: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        let first = *quote.first().ok_or(DropReason::Truncated)?;
        let header_bytes = usize::from(first & 0xf) * 4;
        if first >> 4 != 4 || header_bytes < HEADER_BYTES {
            return Err(DropReason::BadHeader);
        }
        let whole = quote.get(..header_bytes).ok_or(DropReason::Truncated)?;
        if checksum::sum(whole) != 0xffff {
            return Err(DropReason::BadChecksum);
        }
        let (header, rest) = Self::mut_from_prefix(quote).map_err(|_| DropReason::Truncated)?;
        if header.is_later_fragment() {
            return Err(DropReason::Fragment);
        }
        let rest = rest.get_mut(header_bytes - HEADER_BYTES..).ok_or(DropReason::Truncated)?;
        Ok((header, rest))
    }

    /// Replaces both addresses; `delta` is the change that they make to the checksum.
    pub fn set_addresses(&mut self, source: [u8; 4], destination: [u8; 4], delta: Delta) {
        self.source = source;
        self.destination = destination;
        self.checksum.set(delta.apply(self.checksum.get()));
    }

    /// Takes one hop off the time to live, which is at least 1, and replaces both addresses; `delta` is the change
    /// that the addresses make to the checksum.
    #[inline(always)]
    pub fn pass_on(&mut self, source: [u8; 4], destination: [u8; 4], delta: Delta) {
        debug_assert!(self.ttl > 0, "a packet without time to live is dropped before");
        self.ttl = self.ttl.wrapping_sub(1);
        self.source = source;
        self.destination = destination;
        self.checksum.set(delta.and(Delta::HOP).apply(self.checksum.get()));
    }

    /// Turns a packet around: from `source` to `destination` with a new time to live, checksum mended.
    pub fn become_answer(&mut self, source: [u8; 4], destination: [u8; 4], ttl: u8) {
        let old = u16::from_be_bytes([self.ttl, self.protocol]);
        let new = u16::from_be_bytes([ttl, self.protocol]);
        let addresses =
            Delta::of_bytes(self.source, source).and(Delta::of_bytes(self.destination, destination));
        self.ttl = ttl;
        self.source = source;
        self.destination = destination;
        self.checksum.set(addresses.and(Delta::of_word(old, new)).apply(self.checksum.get()));
    }

    /// The sender.
    #[must_use]
    #[inline]
    pub const fn source(&self) -> Address {
        Address::v4(self.source)
    }

    /// The receiver.
    #[must_use]
    #[inline]
    pub const fn destination(&self) -> Address {
        Address::v4(self.destination)
    }

    /// The protocol of the payload.
    #[must_use]
    #[inline]
    pub const fn protocol(&self) -> Protocol {
        Protocol(self.protocol)
    }

    /// Hops left.
    #[must_use]
    #[inline]
    pub const fn ttl(&self) -> u8 {
        self.ttl
    }

    /// The type-of-service byte: DSCP and ECN.
    #[must_use]
    pub const fn tos(&self) -> u8 {
        self.dscp_and_ecn
    }

    /// Bytes of header and payload.
    #[must_use]
    #[inline]
    pub fn total_length(&self) -> u16 {
        self.total_length.get()
    }

    /// Bytes of the header with its options.
    #[must_use]
    pub fn header_length(&self) -> usize {
        usize::from(self.version_and_length & 0xf) * 4
    }

    /// Whether routers must not cut this packet.
    #[must_use]
    pub fn is_dont_fragment(&self) -> bool {
        self.flags_and_offset.get() & DONT_FRAGMENT != 0
    }

    /// Whether this is a part of a larger packet.
    #[must_use]
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_and_offset.get() & FRAGMENT != 0
    }

    /// Whether this is a part of a larger packet other than its first.
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.flags_and_offset.get() & 0x1fff != 0
    }

    /// What the parts of a larger packet have in common.
    #[must_use]
    pub fn identification(&self) -> u16 {
        self.identification.get()
    }

    /// Where in a larger packet's payload this part begins.
    #[must_use]
    pub fn fragment_offset_bytes(&self) -> u16 {
        (self.flags_and_offset.get() & 0x1fff) << 3
    }

    /// Whether other parts of a larger packet follow.
    #[must_use]
    pub fn has_more_fragments(&self) -> bool {
        self.flags_and_offset.get() & 0x2000 != 0
    }

    /// Whether the addresses are ones that a router must not forward (RFC 1812 s.5.3.7), or equal (a LAND attack).
    #[must_use]
    #[inline]
    pub fn is_martian(&self) -> bool {
        let [source, ..] = self.source;
        let [destination, ..] = self.destination;
        source == 0
            || source == 127
            || source >= 224
            || destination == 0
            || destination == 127
            || self.source == self.destination
    }
}

/// The sum of a header that is not the usual one: with options, or none at all.
#[cold]
fn sum_of_other(bytes: &[u8]) -> Result<u16, DropReason> {
    let first = *bytes.first().ok_or(DropReason::Truncated)?;
    let header_bytes = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header_bytes < HEADER_BYTES {
        return Err(DropReason::BadHeader);
    }
    Ok(checksum::sum(bytes.get(..header_bytes).ok_or(DropReason::Truncated)?))
}

/// Whether the `options` of a header ask for a way through other routers (types 131 and 137). Options that contradict
/// their length end the search.
#[must_use]
pub fn has_source_route(mut options: &[u8]) -> bool {
    // Each turn takes at least one of at most 40 bytes.
    while let Some(&kind) = options.first() {
        let length = match kind {
            0 => return false,
            1 => 1,
            131 | 137 => return true,
            _ => usize::from(options.get(1).copied().unwrap_or(0)),
        };
        match options.get(length..) {
            Some(rest) if length > 0 => options = rest,
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap();
        let header = Header::new(0, 64, Protocol::UDP, [192, 0, 2, 1], [10, 0, 0, 3], length);
        [header.as_bytes(), payload].concat()
    }

    fn mended(mut bytes: Vec<u8>) -> Vec<u8> {
        bytes[10..12].fill(0);
        let length = usize::from(bytes[0] & 0xf) * 4;
        let sum = checksum::checksum(0, &bytes[..length.min(bytes.len())]);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        bytes
    }

    #[test]
    fn a_well_formed_packet_is_split_and_padding_is_left_out() {
        let mut bytes = packet(b"hello");
        bytes.extend_from_slice(&[0; 7]);
        let packet = Packet::split(&mut bytes).unwrap();
        assert_eq!(packet.payload, b"hello");
        assert_eq!(packet.header.source(), Address::v4([192, 0, 2, 1]));
    }

    #[test]
    fn each_contradiction_has_its_reason() {
        let good = packet(b"hello");
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            mended(bytes)
        };
        let reason = |mut bytes: Vec<u8>| Packet::split(&mut bytes).map(|_| ()).unwrap_err();
        assert_eq!(reason(Vec::new()), DropReason::Truncated);
        assert_eq!(reason(good[..19].to_vec()), DropReason::Truncated);
        assert_eq!(reason(good[..24].to_vec()), DropReason::Truncated);
        assert_eq!(reason(with(0, 0x65)), DropReason::BadHeader);
        assert_eq!(reason(with(0, 0x44)), DropReason::BadHeader);
        assert_eq!(reason(with(3, 19)), DropReason::BadHeader);
        assert_eq!(reason(with(0, 0x4f)), DropReason::Truncated);
        let mut bytes = good.clone();
        bytes[8] = 63;
        assert_eq!(reason(bytes), DropReason::BadChecksum);
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_split_or_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let length = bytes.len();
            if let Ok(packet) = Packet::split(&mut bytes) {
                prop_assert!(packet.header.header_length() + packet.payload.len() <= length);
            }
        }

        #[test]
        fn passing_on_keeps_the_checksum_right(
            ttl in 1_u8.., tos: u8, old: [[u8; 4]; 2], new: [[u8; 4]; 2],
        ) {
            let header = |ttl, [source, destination]: [[u8; 4]; 2]| {
                Header::new(tos, ttl, Protocol::TCP, source, destination, 100)
            };
            let delta = Delta::of_bytes(old[0], new[0]).and(Delta::of_bytes(old[1], new[1]));
            let mut passed = header(ttl, old);
            passed.pass_on(new[0], new[1], delta);
            let fresh = header(ttl - 1, new);
            prop_assert_eq!(passed.as_bytes(), fresh.as_bytes());
        }
    }
}
