//! IPv6 (RFC 8200): the header, the walk over its extension headers, and its edits.
//!
//! In comes a packet or a quote of one; out go views of its header and of what the last walked header carries. The
//! walk knows the lengths of extension headers, and what routing and fragment headers say; it never looks at options.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Address, Protocol};
use crate::verdict::DropReason;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 40;

/// The most extension headers that are walked. RFC 8200 s.4.1 knows seven, each once but destination options twice.
pub const EXTENSIONS_MAX: usize = 8;

/// Bytes of a fragment header.
pub const FRAGMENT_BYTES: u16 = 8;

/// Where the header names what follows it.
const NEXT_HEADER_AT: u16 = 6;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The most bytes that the payload length can tell of.
const PAYLOAD_BYTES_MAX: usize = 65_535;

/// The header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    version_class_flow: U32,
    payload_length: U16,
    next_header: u8,
    hop_limit: u8,
    source: [u8; 16],
    destination: [u8; 16],
}

/// A checked packet: header and payload in place. Bytes beyond the payload length are left out.
#[derive(Debug)]
pub struct Packet<'a> {
    /// The header.
    pub header: &'a mut Header,
    /// What the last walked header carries: from the upper-layer header, or for a later fragment from behind its
    /// fragment header, to the end by the payload length.
    pub payload: &'a mut [u8],
    /// What lies between the two.
    pub chain: Chain,
}

/// What the walk over the extension headers found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The protocol of the payload. An extension header that is not walked (authentication, encryption, unknown ones)
    /// stands here with its own number; so does whatever a later fragment's first part begins with.
    pub protocol: Protocol,
    /// Where the payload starts, from the start of the header.
    pub offset: u16,
    /// The fragment header, if there is one.
    pub fragment: Option<Fragment>,
    /// Where the byte lies that names the payload, from the start of the header.
    pub last_next_header: u16,
}

/// What a fragment header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Which packet this is a part of, between one source and one destination.
    pub identification: u32,
    /// Where this part starts in the fragmentable part of the packet.
    pub offset_bytes: u16,
    /// Whether more parts follow.
    pub more: bool,
    /// Where the fragment header starts, from the start of the IPv6 header.
    pub header_offset: u16,
    /// Where the byte lies that announces the fragment header, from the start of the IPv6 header.
    pub previous_next_header: u16,
}

impl Fragment {
    /// Whether this is a whole packet that only carries a fragment header (RFC 6946). It is treated as one without.
    #[must_use]
    pub const fn is_atomic(&self) -> bool {
        self.offset_bytes == 0 && !self.more
    }
}

impl Chain {
    /// The chain of a packet without extension headers.
    const fn empty(next_header: u8) -> Self {
        Self { protocol: Protocol(next_header), offset: 40, fragment: None, last_next_header: NEXT_HEADER_AT }
    }

    /// Whether this is a part of a larger packet.
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| !fragment.is_atomic())
    }

    /// Whether this is a part of a larger packet other than its first.
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset_bytes != 0)
    }
}

impl<'a> Packet<'a> {
    /// Checks `bytes`, walks the extension headers and splits the packet.
    ///
    /// # Errors
    /// `Truncated` when bytes are missing, or a first fragment does not hold all headers (RFC 7112); `BadHeader` for
    /// another version, a jumbogram, a chain that RFC 8200 forbids or that is too long, a source route that is not at
    /// its end or of type 0 (RFC 5095), and a fragment whose lengths contradict each other.
    #[inline]
    pub fn split(bytes: &'a mut [u8]) -> Result<Self, DropReason> {
        let Ok((header, _)) = Header::ref_from_prefix(bytes) else { return Err(DropReason::Truncated) };
        let next_header = header.next_header;
        let total = header.total_length();
        let is_jumbo = header.payload_length.get() == 0 && next_header == HOP_BY_HOP;
        if header.version() != 6 || is_jumbo {
            return Err(DropReason::BadHeader);
        }
        let packet = bytes.get(..total).ok_or(DropReason::Truncated)?;
        let chain = if is_extension(next_header) {
            let chain = walk(packet, next_header)?;
            if let Some(fragment) = chain.fragment {
                check_fragment(packet, &chain, fragment)?;
            }
            chain
        } else {
            Chain::empty(next_header)
        };
        let packet = bytes.get_mut(..total).ok_or(DropReason::Truncated)?;
        let (header, payload) = Self::reopen(packet, chain.offset)?;
        Ok(Self { header, payload, chain })
    }

    /// Splits a packet that [`Packet::split`] has checked before, without what lies behind it; `offset` is that of its chain.
    ///
    /// # Errors
    /// `BadHeader` where the bytes are not those that were checked.
    #[inline]
    pub fn reopen(bytes: &'a mut [u8], offset: u16) -> Result<(&'a mut Header, &'a mut [u8]), DropReason> {
        let Some((head, payload)) = bytes.split_at_mut_checked(usize::from(offset)) else {
            return Err(DropReason::BadHeader);
        };
        let Ok((header, _)) = Header::mut_from_prefix(head) else { return Err(DropReason::BadHeader) };
        Ok((header, payload))
    }
}

impl Header {
    /// A header with flow label 0, for `payload_bytes` behind it.
    #[must_use]
    pub fn new(
        traffic_class: u8,
        hop_limit: u8,
        next_header: Protocol,
        source: [u8; 16],
        destination: [u8; 16],
        payload_bytes: u16,
    ) -> Self {
        Self {
            version_class_flow: U32::new(6 << 28 | u32::from(traffic_class) << 20),
            payload_length: U16::new(payload_bytes),
            next_header: next_header.0,
            hop_limit,
            source,
            destination,
        }
    }

    /// The header at the start of a packet that an ICMPv6 error quotes, the protocol of its payload, and what is quoted
    /// of that. Less is checked than at the door, since a quote is cut.
    ///
    /// # Errors
    /// `Truncated` when the chain of headers is not whole, `BadHeader` when it is not one of IPv6, `Fragment` when the
    /// quoted packet is a later fragment, `Martian` when it names an IPv4 address.
    pub fn quoted(quote: &mut [u8]) -> Result<(&mut Self, Protocol, &mut [u8]), DropReason> {
        let (header, _) = Self::ref_from_prefix(quote).map_err(|_| DropReason::Truncated)?;
        if header.version() != 6 {
            return Err(DropReason::BadHeader);
        }
        if embeds_v4(header.source) || embeds_v4(header.destination) {
            return Err(DropReason::Martian);
        }
        let end = header.total_length().min(quote.len());
        let next_header = header.next_header;
        let packet = quote.get_mut(..end).ok_or(DropReason::Truncated)?;
        let chain = walk(packet, next_header)?;
        if chain.is_later_fragment() {
            return Err(DropReason::Fragment);
        }
        let (header, rest) = Self::mut_from_prefix(packet).map_err(|_| DropReason::Truncated)?;
        let start = usize::from(chain.offset) - HEADER_BYTES;
        let rest = rest.get_mut(start..).ok_or(DropReason::Truncated)?;
        Ok((header, chain.protocol, rest))
    }

    /// Replaces both addresses.
    #[inline]
    pub const fn set_addresses(&mut self, source: [u8; 16], destination: [u8; 16]) {
        self.source = source;
        self.destination = destination;
    }

    /// Takes one hop off the hop limit, which is at least 1, and replaces both addresses.
    #[inline]
    pub fn pass_on(&mut self, source: [u8; 16], destination: [u8; 16]) {
        debug_assert!(self.hop_limit > 0, "a packet without hops left is dropped before");
        self.hop_limit = self.hop_limit.wrapping_sub(1);
        self.set_addresses(source, destination);
    }

    /// Turns a packet around: from `source` to `destination` with a new hop limit. The flow label was the other side's
    /// and goes (RFC 6437 s.2).
    pub fn become_answer(&mut self, source: [u8; 16], destination: [u8; 16], hop_limit: u8) {
        self.version_class_flow.set(self.version_class_flow.get() & 0xfff0_0000);
        self.hop_limit = hop_limit;
        self.set_addresses(source, destination);
    }

    /// Sets the number of bytes behind the header.
    pub fn set_payload_length(&mut self, payload_bytes: u16) {
        self.payload_length.set(payload_bytes);
    }

    /// Names what follows the header.
    pub const fn set_next_header(&mut self, protocol: Protocol) {
        self.next_header = protocol.0;
    }

    /// The sender.
    #[must_use]
    #[inline]
    pub const fn source(&self) -> Address {
        Address::v6(self.source)
    }

    /// The receiver.
    #[must_use]
    #[inline]
    pub const fn destination(&self) -> Address {
        Address::v6(self.destination)
    }

    /// What follows the header: the payload's protocol or an extension header.
    #[must_use]
    pub const fn next_header(&self) -> Protocol {
        Protocol(self.next_header)
    }

    /// Hops left.
    #[must_use]
    #[inline]
    pub const fn hop_limit(&self) -> u8 {
        self.hop_limit
    }

    /// The traffic class: DSCP and ECN.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        let [first, second, ..] = self.version_class_flow.to_bytes();
        first << 4 | second >> 4
    }

    /// The label that the sender gave to the packet's flow.
    #[must_use]
    pub fn flow_label(&self) -> u32 {
        self.version_class_flow.get() & 0xf_ffff
    }

    /// Bytes behind the header, extension headers included.
    #[must_use]
    #[inline]
    pub fn payload_length(&self) -> u16 {
        self.payload_length.get()
    }

    /// Bytes of the header and all behind it.
    #[must_use]
    #[inline]
    pub fn total_length(&self) -> usize {
        HEADER_BYTES + usize::from(self.payload_length.get())
    }

    /// Whether the addresses are ones that a router must not forward: nobody's, this host's, a group as sender, one
    /// that stands for an IPv4 address (RFC 4942 s.2.2), or equal ones (a LAND attack).
    #[must_use]
    #[inline]
    pub fn is_martian(&self) -> bool {
        let [first, ..] = self.source;
        // Nobody's and this host's address lie within the IPv4-compatible ones.
        first == 0xff
            || embeds_v4(self.source)
            || embeds_v4(self.destination)
            || self.source == self.destination
    }

    /// Whether an address has meaning only on its link, so that the packet must stay there (RFC 4291 s.2.5.6).
    #[must_use]
    #[inline]
    pub fn is_link_local(&self) -> bool {
        is_link_local(self.source) || is_link_local(self.destination)
    }

    fn version(&self) -> u8 {
        let [first, ..] = self.version_class_flow.to_bytes();
        first >> 4
    }
}

/// Whether an address is within `fe80::/10`.
const fn is_link_local(address: [u8; 16]) -> bool {
    let [first, second, ..] = address;
    first == 0xfe && second & 0xc0 == 0x80
}

/// Whether an address is IPv4-mapped (`::ffff:0:0/96`) or IPv4-compatible (`::/96`).
pub(super) const fn embeds_v4(address: [u8; 16]) -> bool {
    matches!(u128::from_be_bytes(address) >> 32, 0 | 0xffff)
}

/// Whether the walk knows how to pass a header of this number.
const fn is_extension(next_header: u8) -> bool {
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Walks the extension headers of `packet`, the first of which is `first`, up to the first header that is none.
#[cold]
fn walk(packet: &[u8], first: u8) -> Result<Chain, DropReason> {
    let mut chain = Chain::empty(first);
    for walked in 0..=EXTENSIONS_MAX {
        let kind = chain.protocol.0;
        if !is_extension(kind) {
            return Ok(chain);
        }
        if kind == HOP_BY_HOP && walked != 0 {
            return Err(DropReason::BadHeader);
        }
        let rest = packet.get(usize::from(chain.offset)..).ok_or(DropReason::Truncated)?;
        // Every extension header has at least eight bytes.
        let fixed: &[u8; 8] = rest.first_chunk().ok_or(DropReason::Truncated)?;
        let [next, length, third, fourth, ..] = *fixed;
        let bytes = if kind == FRAGMENT { FRAGMENT_BYTES } else { u16::from(length) * 8 + 8 };
        if rest.len() < usize::from(bytes) {
            return Err(DropReason::Truncated);
        }
        // Type, then segments left.
        if kind == ROUTING && (third == 0 || fourth != 0) {
            return Err(DropReason::BadHeader);
        }
        if kind == FRAGMENT {
            if chain.fragment.is_some() {
                return Err(DropReason::BadHeader);
            }
            chain.fragment = Some(Fragment::read(*fixed, chain.offset, chain.last_next_header));
        }
        chain.last_next_header = chain.offset;
        // At most nine headers of 2048 bytes.
        chain.offset += bytes;
        chain.protocol = Protocol(next);
        if chain.is_later_fragment() {
            return Ok(chain);
        }
    }
    Err(DropReason::BadHeader)
}

impl Fragment {
    fn read(header: [u8; 8], header_offset: u16, previous_next_header: u16) -> Self {
        let [_, _, high, low, identification @ ..] = header;
        let offset_and_flags = u16::from_be_bytes([high, low]);
        Self {
            identification: u32::from_be_bytes(identification),
            offset_bytes: offset_and_flags & 0xfff8,
            more: offset_and_flags & 1 == 1,
            header_offset,
            previous_next_header,
        }
    }
}

/// Checks that a fragment can be a part of a packet (RFC 8200 s.4.5) and that a first one holds all headers (RFC 7112).
#[cold]
fn check_fragment(packet: &[u8], chain: &Chain, fragment: Fragment) -> Result<(), DropReason> {
    if fragment.is_atomic() {
        return Ok(());
    }
    let start = usize::from(fragment.header_offset);
    let part_bytes = packet.len().saturating_sub(start + usize::from(FRAGMENT_BYTES));
    let end = start - HEADER_BYTES + usize::from(fragment.offset_bytes) + part_bytes;
    let is_odd = fragment.more && !part_bytes.is_multiple_of(8);
    if part_bytes == 0 || is_odd || end > PAYLOAD_BYTES_MAX {
        return Err(DropReason::BadHeader);
    }
    if fragment.offset_bytes == 0 {
        let payload = packet.get(usize::from(chain.offset)..).ok_or(DropReason::Truncated)?;
        let needed = match chain.protocol {
            Protocol::TCP => payload.get(12).map_or(20, |byte| (usize::from(byte >> 4) * 4).max(20)),
            Protocol::UDP | Protocol::ICMPV6 => 8,
            _ => 0,
        };
        if payload.len() < needed {
            return Err(DropReason::Truncated);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::Ipv6Addr;
    use etherparse::{IpNumber, Ipv6Slice, PacketBuilder};
    use proptest::prelude::*;

    const CLIENT: [u8; 16] = octets(0xc1);
    const SERVER: [u8; 16] = octets(0x5e);

    const fn octets(last: u8) -> [u8; 16] {
        [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]
    }

    /// A packet whose first header behind the fixed one is `next_header`.
    fn packet(next_header: u8, behind: &[u8]) -> Vec<u8> {
        let length = u16::try_from(behind.len()).unwrap();
        let header = Header::new(0, 64, Protocol(next_header), CLIENT, SERVER, length);
        [header.as_bytes(), behind].concat()
    }

    fn fragment(next: u8, offset_bytes: u16, more: bool, part: &[u8]) -> Vec<u8> {
        let [high, low] = (offset_bytes | u16::from(more)).to_be_bytes();
        [&[next, 0, high, low, 0, 0, 0x12, 0x34], part].concat()
    }

    fn reason(mut bytes: Vec<u8>) -> DropReason {
        Packet::split(&mut bytes).map(|_| ()).unwrap_err()
    }

    fn chain(mut bytes: Vec<u8>) -> Chain {
        Packet::split(&mut bytes).unwrap().chain
    }

    #[test]
    fn a_packet_of_another_maker_is_read_and_padding_is_left_out() {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv6(CLIENT, SERVER, 61).udp(40_000, 53);
        builder.write(&mut bytes, b"hello").unwrap();
        bytes.extend_from_slice(&[0; 6]);
        let packet = Packet::split(&mut bytes).unwrap();
        assert_eq!(packet.chain, Chain::empty(17));
        assert_eq!(packet.payload.len(), 13);
        assert_eq!(packet.header.source().v6_bytes(), CLIENT);
        assert_eq!(packet.header.destination().v6_bytes(), SERVER);
        assert_eq!((packet.header.hop_limit(), packet.header.total_length()), (61, 53));
    }

    #[test]
    fn a_header_is_the_one_that_another_reader_reads() {
        let mut header = Header::new(0xa5, 7, Protocol::TCP, CLIENT, SERVER, 20);
        let (read, _) = etherparse::Ipv6Header::from_slice(header.as_bytes()).unwrap();
        assert_eq!((read.traffic_class, read.hop_limit, read.payload_length), (0xa5, 7, 20));
        assert_eq!((read.next_header, read.source, read.destination), (IpNumber::TCP, CLIENT, SERVER));
        let labelled = etherparse::Ipv6Header { flow_label: 0xb_cdef.try_into().unwrap(), ..read }.to_bytes();
        header = Header::read_from_bytes(&labelled).unwrap();
        assert_eq!((header.traffic_class(), header.flow_label()), (0xa5, 0xb_cdef));
        header.become_answer(SERVER, CLIENT, 64);
        assert_eq!((header.traffic_class(), header.flow_label(), header.hop_limit()), (0xa5, 0, 64));
        header.pass_on(CLIENT, SERVER);
        assert_eq!((header.hop_limit(), header.source().v6_bytes()), (63, CLIENT));
        header.set_payload_length(9);
        header.set_next_header(Protocol::UDP);
        assert_eq!((header.payload_length(), header.next_header()), (9, Protocol::UDP));
    }

    #[test]
    fn each_contradiction_has_its_reason() {
        let good = packet(17, &[0; 8]);
        let with = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(reason(Vec::new()), DropReason::Truncated);
        assert_eq!(reason(good[..39].to_vec()), DropReason::Truncated);
        assert_eq!(reason(good[..47].to_vec()), DropReason::Truncated);
        assert_eq!(reason(with(0, 0x45)), DropReason::BadHeader);
        // A jumbogram: payload length 0 before a hop-by-hop header.
        let mut jumbo = packet(0, &[17, 0, 0xc2, 4, 0, 1, 0, 0]);
        jumbo[5] = 0;
        assert_eq!(reason(jumbo), DropReason::BadHeader);
        assert_eq!(chain(packet(59, &[])).protocol, Protocol(59));
    }

    #[test]
    fn extension_headers_are_walked_in_any_order_but_hop_by_hop_comes_first() {
        let options = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
        let segment = [0; 20];
        let all =
            [&options(60)[..], &options(43), &[60, 0, 4, 0, 0, 0, 0, 0], &options(6), &segment].concat();
        let found = chain(packet(0, &all));
        let expected = Chain { protocol: Protocol::TCP, offset: 72, fragment: None, last_next_header: 64 };
        assert_eq!(found, expected);
        let late = [&options(0)[..], &options(6), &segment].concat();
        assert_eq!(reason(packet(60, &late)), DropReason::BadHeader);
        assert_eq!(reason(packet(0, &options(6)[..7])), DropReason::Truncated);
        assert_eq!(reason(packet(0, &[6, 1, 1, 4, 0, 0, 0, 0])), DropReason::Truncated);
        assert_eq!(reason(packet(0, &[])), DropReason::BadHeader);
    }

    #[test]
    fn at_most_eight_extension_headers_are_walked() {
        let many = |count: usize| {
            let mut behind = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
            behind[(count - 1) * 8] = 17;
            behind.extend_from_slice(&[0; 8]);
            packet(60, &behind)
        };
        assert_eq!(chain(many(EXTENSIONS_MAX)).offset, 104);
        assert_eq!(reason(many(EXTENSIONS_MAX + 1)), DropReason::BadHeader);
        let largest = [60, 255].into_iter().chain([0; 2046]).collect::<Vec<u8>>().repeat(31);
        assert_eq!(reason(packet(60, &largest)), DropReason::BadHeader);
    }

    #[test]
    fn source_routes_are_refused_until_they_are_at_their_end() {
        let route = |kind, left| packet(43, &[17, 0, kind, left, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(reason(route(0, 1)), DropReason::BadHeader);
        assert_eq!(reason(route(0, 0)), DropReason::BadHeader);
        assert_eq!(reason(route(2, 1)), DropReason::BadHeader);
        assert_eq!(chain(route(2, 0)).protocol, Protocol::UDP);
    }

    #[test]
    fn headers_that_are_not_known_end_the_walk_with_their_number() {
        for number in [50, 51, 59, 132, 135, 139, 253] {
            let found = chain(packet(60, &[number, 0, 1, 4, 0, 0, 0, 0, 1, 2, 3]));
            assert_eq!((found.protocol, found.offset), (Protocol(number), 48));
            assert_eq!(found.last_next_header, 40);
        }
    }

    #[test]
    fn a_first_fragment_is_walked_through_and_a_later_one_is_not() {
        let options = [60, 0, 1, 4, 0, 0, 0, 0];
        let first = [&[44, 0, 1, 4, 0, 0, 0, 0], &fragment(60, 0, true, &options)[..], &[0; 24]].concat();
        let mut first = packet(60, &first);
        first[56] = 6;
        let found = chain(first);
        let described = Fragment {
            identification: 0x1234,
            offset_bytes: 0,
            more: true,
            header_offset: 48,
            previous_next_header: 40,
        };
        assert_eq!(found.fragment, Some(described));
        assert_eq!((found.protocol, found.offset, found.last_next_header), (Protocol::TCP, 64, 56));
        assert!(found.is_fragment() && !found.is_later_fragment());

        let mut later = packet(44, &fragment(60, 1456, false, b"rest"));
        let later = Packet::split(&mut later).unwrap();
        let part = later.chain.fragment.unwrap();
        assert_eq!((part.offset_bytes, part.more, part.previous_next_header), (1456, false, 6));
        assert_eq!((later.chain.protocol, later.chain.offset), (Protocol(60), 48));
        assert_eq!(later.payload, b"rest");
        assert!(later.chain.is_fragment() && later.chain.is_later_fragment());
    }

    #[test]
    fn an_atomic_fragment_is_a_whole_packet() {
        let found = chain(packet(44, &fragment(17, 0, false, &[0; 9])));
        assert!(found.fragment.unwrap().is_atomic());
        assert!(!found.is_fragment());
        assert_eq!(found.protocol, Protocol::UDP);
    }

    #[test]
    fn a_first_fragment_without_all_headers_is_refused() {
        let first = |protocol, bytes: &[u8]| packet(44, &fragment(protocol, 0, true, bytes));
        let mut segment = [0; 24];
        segment[12] = 0x70;
        assert_eq!(reason(first(6, &segment[..16])), DropReason::Truncated);
        assert_eq!(reason(first(6, &segment)), DropReason::Truncated);
        segment[12] = 0x60;
        assert_eq!(chain(first(6, &segment)).protocol, Protocol::TCP);
        assert_eq!(reason(first(60, &[17, 0, 1, 4, 0, 0, 0, 0])), DropReason::Truncated);
        assert_eq!(reason(first(60, &[17, 1, 1, 4, 0, 0, 0, 0])), DropReason::Truncated);
    }

    #[test]
    fn fragments_that_can_not_be_parts_are_refused() {
        // Not a multiple of eight and yet not the last, empty, beyond the end of any packet, one within another.
        assert_eq!(reason(packet(44, &fragment(17, 8, true, &[0; 9]))), DropReason::BadHeader);
        assert_eq!(reason(packet(44, &fragment(17, 8, false, &[]))), DropReason::BadHeader);
        assert_eq!(reason(packet(44, &fragment(17, 65_528, false, &[0; 8]))), DropReason::BadHeader);
        assert_eq!(chain(packet(44, &fragment(17, 65_528, false, &[0; 7]))).offset, 48);
        let nested = fragment(17, 0, false, &[0; 8]);
        assert_eq!(reason(packet(44, &fragment(44, 0, false, &nested))), DropReason::BadHeader);
    }

    #[test]
    fn addresses_that_must_not_be_forwarded_are_known() {
        let header = |source: &str, destination: &str| {
            let [source, destination] =
                [source, destination].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
            Header::new(0, 64, Protocol::UDP, source, destination, 0)
        };
        let good = "2001:db8::1";
        for bad in ["::", "::1", "::ffff:10.0.0.1", "::10.0.0.1", good] {
            assert!(header(bad, good).is_martian(), "{bad}");
            assert!(header(good, bad).is_martian(), "{bad}");
        }
        assert!(header("ff02::1", good).is_martian());
        assert!(!header(good, "ff02::1").is_martian());
        assert!(!header(good, "64:ff9b::10.0.0.1").is_martian());
        assert!(header("fe80::1", good).is_link_local());
        assert!(header(good, "febf::1").is_link_local());
        assert!(!header(good, "fec0::1").is_link_local());
    }

    #[test]
    fn a_quote_is_walked_as_far_as_it_goes() {
        let mut whole = packet(60, &[&[17, 0, 1, 4, 0, 0, 0, 0], &[7; 400][..]].concat());
        let (header, protocol, rest) = Header::quoted(&mut whole[..60]).unwrap();
        assert_eq!((header.source().v6_bytes(), protocol), (CLIENT, Protocol::UDP));
        assert_eq!(rest, [7; 12]);
        let reason = |bytes: &mut [u8]| Header::quoted(bytes).map(|_| ()).unwrap_err();
        assert_eq!(reason(&mut whole[..39]), DropReason::Truncated);
        assert_eq!(reason(&mut whole[..47]), DropReason::Truncated);
        assert_eq!(reason(&mut packet(44, &fragment(17, 8, true, &[0; 8]))), DropReason::Fragment);
        whole[0] = 0x40;
        assert_eq!(reason(&mut whole), DropReason::BadHeader);
        let mapped = Ipv6Addr::from([0, 0, 0, 0, 0, 0xffff, 0x0a00, 1]).octets();
        let mut mapped = Header::new(0, 64, Protocol::UDP, mapped, SERVER, 0).as_bytes().to_vec();
        assert_eq!(reason(&mut mapped), DropReason::Martian);
        // A first fragment's quote names the flow.
        let mut first = packet(44, &fragment(17, 0, true, &[3; 8]));
        assert_eq!(Header::quoted(&mut first).unwrap().2, [3; 8]);
    }

    /// Bytes that often are a chain of extension headers.
    fn near_packets() -> impl Strategy<Value = Vec<u8>> {
        let kind = prop_oneof![Just(0_u8), Just(43), Just(44), Just(60), Just(17), any::<u8>()];
        let header = (kind.clone(), 0_u8..3, any::<[u8; 6]>());
        let headers = proptest::collection::vec(header, 0..12);
        let tail = proptest::collection::vec(any::<u8>(), 0..40);
        (kind, headers, tail).prop_map(|(first, headers, tail)| {
            let mut behind = Vec::new();
            for (next, length, body) in headers {
                behind.extend_from_slice(&[next, length]);
                behind.extend_from_slice(&body);
                behind.extend(core::iter::repeat_n(1, usize::from(length) * 8));
            }
            behind.extend_from_slice(&tail);
            packet(first, &behind)
        })
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_are_split_or_refused(
            mut bytes in prop_oneof![proptest::collection::vec(any::<u8>(), 0..120), near_packets()],
            cut in 0_usize..400,
        ) {
            let length = cut.min(bytes.len());
            for end in [length, bytes.len()] {
                let bytes = &mut bytes[..end];
                let _ = Header::quoted(bytes);
                let Ok(packet) = Packet::split(bytes) else { continue };
                let (chain, total) = (packet.chain, packet.header.total_length());
                let payload = packet.payload.to_vec();
                prop_assert_eq!(usize::from(chain.offset) + payload.len(), total);
                prop_assert_eq!(&bytes[usize::from(chain.offset)..total], &payload[..]);
                prop_assert_eq!(bytes[usize::from(chain.last_next_header)], chain.protocol.0);
                if let Some(fragment) = chain.fragment {
                    prop_assert_eq!(bytes[usize::from(fragment.previous_next_header)], FRAGMENT);
                }
                let (_, again) = Packet::reopen(&mut bytes[..total], chain.offset).unwrap();
                prop_assert_eq!(again, &payload[..]);
            }
        }

        #[test]
        fn what_is_split_is_what_another_reader_sees(mut bytes in near_packets()) {
            let read = Ipv6Slice::from_slice(&bytes)
                .map(|slice| (slice.payload().ip_number.0, slice.payload().payload.to_vec()));
            if let Ok(packet) = Packet::split(&mut bytes)
                && packet.chain.protocol != Protocol(51)
                && !packet.chain.is_later_fragment()
            {
                let (protocol, payload) = read.unwrap();
                prop_assert_eq!(packet.chain.protocol.0, protocol);
                prop_assert_eq!(packet.payload, &payload[..]);
            }
        }
    }

    #[test]
    fn reopen_refuses_an_offset_that_split_never_gave() {
        let mut bytes = vec![0x60; 40];
        bytes[4..6].copy_from_slice(&[0, 0]);
        assert_eq!(Packet::reopen(&mut bytes, 39).unwrap_err(), DropReason::BadHeader);
        assert_eq!(Packet::reopen(&mut bytes, 41).unwrap_err(), DropReason::BadHeader);
    }
}
