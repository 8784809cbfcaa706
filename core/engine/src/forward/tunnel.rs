//! Outer headers: the packet of a client, unchanged, inside a packet to a real server.
//!
//! ```text
//! | room for a link header | outer IP | UDP, GUE or GRE | inner IP packet |
//!                          ^ new range                  ^ range that is given
//! ```
//!
//! The outer header tells routers what the inner one would: the same time to live, type of service (DSCP and ECN
//! as in the normal mode of RFC 6040) and don't fragment. An inner packet of IPv6 must not be cut on its way, so
//! over IPv4 it sets don't fragment.
//!
//! The identification of an outer IPv4 header is 0 where it must not be cut (RFC 6864 s.4.1). Where it may be cut,
//! it is the inner one's, shifted by the flow's hash and the inner fragment's place: packets of one flow then differ
//! as long as the client's do, the fragments of one inner packet differ, and flows to the same real server seldom meet.
//!
//! Of four ways to treat an inner packet that does not fit (RFC 4459), this is the first: the caller looks at
//! [`overhead_bytes`] before and tells the sender, or cuts the inner packet ([`cut`](super::cut)). The caller also
//! does not give a super-packet or a packet whose checksum is left undone, unless the device moves its notes about
//! the inner headers by as much as the packet has grown; and then no outer checksum is asked for, since it would be
//! one over unfinished bytes.

use core::ops::Range;

use crate::verdict::DropReason;
use crate::wire::{Address, Protocol, checksum};

/// The port of Generic UDP Encapsulation.
pub const GUE_PORT: u16 = 6080;

/// The most bytes that an outer header takes: IPv6, UDP and GUE.
pub const OVERHEAD_BYTES_MAX: u16 = IPV6_BYTES + UDP_BYTES + GUE_BYTES;

const IPV4_BYTES: u16 = 20;
const IPV6_BYTES: u16 = 40;
const UDP_BYTES: u16 = 8;
const GUE_BYTES: u16 = 4;
const GRE_BYTES: u16 = 4;
const GRE_CHECKSUM_BYTES: u16 = 4;
const IPV4_IN_IP: Protocol = Protocol(4);
const IPV6_IN_IP: Protocol = Protocol(41);
const GRE: Protocol = Protocol(47);
/// The flag of GRE that says that a checksum follows (RFC 2784 s.2.1).
const GRE_HAS_CHECKSUM: u8 = 0x80;
/// The first of the ports from which GUE is sent: the dynamic ones of RFC 6335, 2^14 of them.
const FIRST_SOURCE_PORT: u16 = 49_152;

/// What lies between the outer and the inner IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encapsulation {
    /// Nothing (RFC 2003, RFC 2473, RFC 4213): protocol 4 for IPv4 and 41 for IPv6.
    IpIp,
    /// Generic Routing Encapsulation (RFC 2784) without key and sequence numbers.
    Gre {
        /// Whether a checksum over the inner packet is sent.
        checksum: bool,
    },
    /// Generic UDP Encapsulation, variant 0, with the inner packet's protocol in its header. The source port is made
    /// from the flow's hash, so that routers spread flows (RFC 7510 s.3 does the same).
    Gue {
        /// The port to which it is sent; [`GUE_PORT`] unless the real server listens elsewhere.
        port: u16,
        /// Whether the UDP checksum is computed. Without, it is 0, which over IPv6 is allowed for tunnels
        /// whose both ends are set up for it (RFC 6935 s.5, RFC 6936 s.4): the inner packet has checksums of its own, but
        /// then nothing protects the outer addresses.
        checksum: bool,
    },
}

/// The outer addresses and what else is not in the inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outer {
    /// One of our addresses.
    pub source: Address,
    /// The real server, of the same family as the source.
    pub destination: Address,
    /// The hash of the flow, the same for all of its packets.
    pub flow_hash: u64,
    /// The outer time to live; `None` for that of the inner packet.
    pub ttl: Option<u8>,
}

/// How many bytes `encapsulation` puts in front of an inner packet.
#[must_use]
pub const fn overhead_bytes(encapsulation: Encapsulation, is_outer_v6: bool) -> u16 {
    let ip = if is_outer_v6 { IPV6_BYTES } else { IPV4_BYTES };
    ip + match encapsulation {
        Encapsulation::IpIp => 0,
        Encapsulation::Gre { checksum: false } => GRE_BYTES,
        Encapsulation::Gre { checksum: true } => GRE_BYTES + GRE_CHECKSUM_BYTES,
        Encapsulation::Gue { .. } => UDP_BYTES + GUE_BYTES,
    }
}

/// Puts an outer header in front of the IP packet that lies at `inner` in `buffer`, and says where the outer packet
/// lies. Whoever wants to take a hop off the inner packet has done so before.
///
/// # Errors
/// `Truncated` when there is no room in front of the packet or it is no whole header, `BadHeader` when it is neither
/// IPv4 nor IPv6 or the outer addresses are of two families, `TooBig` when the lengths do not fit the outer header.
pub fn encapsulate(
    buffer: &mut [u8],
    inner: Range<usize>,
    encapsulation: Encapsulation,
    outer: &Outer,
) -> Result<Range<usize>, DropReason> {
    let is_v6 = !outer.source.is_v4();
    if outer.destination.is_v4() == is_v6 {
        return Err(DropReason::BadHeader);
    }
    let overhead = usize::from(overhead_bytes(encapsulation, is_v6));
    let start = inner.start.checked_sub(overhead).ok_or(DropReason::Truncated)?;
    let bytes = buffer.get_mut(start..inner.end).ok_or(DropReason::Truncated)?;
    let (front, packet) = bytes.split_at_mut_checked(overhead).ok_or(DropReason::Truncated)?;
    let facts = Facts::read(packet)?;
    let ip_bytes = usize::from(if is_v6 { IPV6_BYTES } else { IPV4_BYTES });
    let (header, shim) = front.split_at_mut_checked(ip_bytes).ok_or(DropReason::Truncated)?;
    // What IPv4 can say is the bound for both: its length includes the header.
    let length = u16::try_from(shim.len() + packet.len()).ok();
    let length = length.filter(|length| *length <= u16::MAX - IPV4_BYTES).ok_or(DropReason::TooBig)?;
    let protocol = match encapsulation {
        Encapsulation::IpIp => facts.protocol,
        Encapsulation::Gre { .. } => GRE,
        Encapsulation::Gue { .. } => Protocol::UDP,
    };
    write_shim(shim, packet, &facts, encapsulation, outer);
    if let Encapsulation::Gue { checksum: true, .. } = encapsulation {
        let sums = [pseudo_sum(outer, protocol, length), checksum::sum(shim), checksum::sum(packet)];
        let sum = !checksum::fold(sums.into_iter().map(u64::from).sum());
        put(shim, 6, (if sum == 0 { 0xffff } else { sum }).to_be_bytes());
    }
    if is_v6 {
        write_ipv6(header, &facts, outer, protocol, length);
    } else {
        write_ipv4(header, &facts, outer, protocol, length);
    }
    Ok(start..inner.end)
}

/// Where in `quote`, which an ICMP error gives of an outer packet, the inner packet begins and ends; `None` when it is no
/// tunnel of ours, or too little of it is there.
#[must_use]
pub fn inner_of(quote: &[u8]) -> Option<Range<usize>> {
    let first = *quote.first()?;
    let (protocol, header_bytes) = match first >> 4 {
        4 => (Protocol(*quote.get(9)?), usize::from(first & 0xf) * 4),
        6 => (Protocol(*quote.get(6)?), usize::from(IPV6_BYTES)),
        _ => return None,
    };
    let shim_bytes = match protocol {
        IPV4_IN_IP | IPV6_IN_IP => 0,
        GRE if quote.get(header_bytes)? & GRE_HAS_CHECKSUM != 0 => GRE_BYTES + GRE_CHECKSUM_BYTES,
        GRE => GRE_BYTES,
        Protocol::UDP => UDP_BYTES + GUE_BYTES,
        _ => return None,
    };
    let start = header_bytes + usize::from(shim_bytes);
    (start < quote.len()).then_some(start..quote.len())
}

/// What the outer header takes over from the inner one.
struct Facts {
    /// The protocol under which the inner packet travels.
    protocol: Protocol,
    tos: u8,
    ttl: u8,
    is_dont_fragment: bool,
    /// A number that differs between packets that may be cut.
    identification: u16,
}

impl Facts {
    fn read(packet: &[u8]) -> Result<Self, DropReason> {
        let first = *packet.first().ok_or(DropReason::Truncated)?;
        match first >> 4 {
            4 => {
                let Some([_, tos, _, _, a, b, flags, offset, ttl, ..]) =
                    packet.first_chunk::<{ IPV4_BYTES as usize }>()
                else {
                    return Err(DropReason::Truncated);
                };
                let place = u16::from_be_bytes([flags & 0x1f, *offset]);
                // An odd factor: other places, other numbers, and far from the next packets' identifications.
                let shift = place.wrapping_mul(0x9e37);
                Ok(Self {
                    protocol: IPV4_IN_IP,
                    tos: *tos,
                    ttl: *ttl,
                    is_dont_fragment: flags & 0x40 != 0,
                    identification: u16::from_be_bytes([*a, *b]).wrapping_add(shift),
                })
            }
            6 => {
                let Some([a, b, _, _, _, _, _, hop_limit, ..]) =
                    packet.first_chunk::<{ IPV6_BYTES as usize }>()
                else {
                    return Err(DropReason::Truncated);
                };
                Ok(Self {
                    protocol: IPV6_IN_IP,
                    tos: a << 4 | b >> 4,
                    ttl: *hop_limit,
                    is_dont_fragment: true,
                    identification: 0,
                })
            }
            _ => Err(DropReason::BadHeader),
        }
    }
}

/// Puts `bytes` at `at`, which the caller knows to be inside.
fn put<const N: usize>(header: &mut [u8], at: usize, bytes: [u8; N]) {
    if let Some(place) = header.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
        *place = bytes;
    }
}

/// Writes what lies between the two IP headers; the UDP checksum stays 0.
fn write_shim(shim: &mut [u8], packet: &[u8], facts: &Facts, encapsulation: Encapsulation, outer: &Outer) {
    match encapsulation {
        Encapsulation::IpIp => {}
        Encapsulation::Gre { checksum: has_checksum } => {
            let [a, b] = if facts.protocol == IPV4_IN_IP { [0x08, 0x00] } else { [0x86, 0xdd] };
            put(shim, 0, [if has_checksum { GRE_HAS_CHECKSUM } else { 0 }, 0, a, b]);
            if has_checksum {
                put(shim, 4, [0; 4]);
                let sum = checksum::checksum(checksum::sum(shim), packet);
                put(shim, 4, sum.to_be_bytes());
            }
        }
        Encapsulation::Gue { port, checksum: _ } => {
            // Of a hash whose upper bits choose places in tables, the lower ones are as good.
            let spread = low_16(outer.flow_hash) % (u16::MAX - FIRST_SOURCE_PORT + 1);
            put(shim, 0, (FIRST_SOURCE_PORT + spread).to_be_bytes());
            put(shim, 2, port.to_be_bytes());
            // That it fits has been checked.
            put(shim, 4, u16::try_from(shim.len() + packet.len()).unwrap_or(0).to_be_bytes());
            put(shim, 6, [0; 2]);
            // Variant 0, no control message, no options.
            put(shim, 8, [0, facts.protocol.0, 0, 0]);
        }
    }
}

fn write_ipv4(header: &mut [u8], facts: &Facts, outer: &Outer, protocol: Protocol, length: u16) {
    let identification = if facts.is_dont_fragment {
        0
    } else {
        facts.identification.wrapping_add(low_16(outer.flow_hash >> 16))
    };
    put(header, 0, [0x45, facts.tos]);
    put(header, 2, (length + IPV4_BYTES).to_be_bytes());
    put(header, 4, identification.to_be_bytes());
    put(header, 6, [if facts.is_dont_fragment { 0x40 } else { 0 }, 0]);
    put(header, 8, [outer.ttl.unwrap_or(facts.ttl), protocol.0, 0, 0]);
    put(header, 12, outer.source.v4_bytes());
    put(header, 16, outer.destination.v4_bytes());
    put(header, 10, checksum::checksum(0, header).to_be_bytes());
}

fn write_ipv6(header: &mut [u8], facts: &Facts, outer: &Outer, protocol: Protocol, length: u16) {
    // A flow label from the flow's hash, for routers that spread by it (RFC 6438).
    let label = u32::from(low_16(outer.flow_hash)) | u32::from(low_16(outer.flow_hash >> 16) & 0xf) << 16;
    put(header, 0, (6 << 28 | u32::from(facts.tos) << 20 | label).to_be_bytes());
    put(header, 4, length.to_be_bytes());
    put(header, 6, [protocol.0, outer.ttl.unwrap_or(facts.ttl)]);
    put(header, 8, address_bytes(outer.source));
    put(header, 24, address_bytes(outer.destination));
}

fn address_bytes(address: Address) -> [u8; 16] {
    let [high, low] = address.halves();
    (u128::from(high) << 64 | u128::from(low)).to_be_bytes()
}

/// The sum of the pseudo header in either family: both add the same fields.
fn pseudo_sum(outer: &Outer, protocol: Protocol, length: u16) -> u16 {
    let sum = |address: Address| {
        let sum = if address.is_v4() {
            checksum::sum(&address.v4_bytes())
        } else {
            checksum::sum(&address_bytes(address))
        };
        u64::from(sum)
    };
    checksum::fold(sum(outer.source) + sum(outer.destination) + u64::from(protocol.0) + u64::from(length))
}

#[allow(clippy::cast_possible_truncation, reason = "the low bits are what is asked for")]
const fn low_16(hash: u64) -> u16 {
    hash as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::HEADROOM_BYTES;
    use crate::wire::ethernet;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::net::IpAddr;
    use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, PacketBuilder, UdpHeaderSlice};
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    fn outer(source: &str, destination: &str) -> Outer {
        let (source, destination) = (address(source), address(destination));
        Outer { source, destination, flow_hash: 0x1234_5678_9abc_def0, ttl: None }
    }

    fn wrap(inner: &[u8], encapsulation: Encapsulation, outer: &Outer) -> Vec<u8> {
        let mut buffer = vec![0xaa; HEADROOM_BYTES];
        buffer.extend_from_slice(inner);
        let range = HEADROOM_BYTES..buffer.len();
        let range = encapsulate(&mut buffer, range, encapsulation, outer).unwrap();
        assert_eq!(range.end, buffer.len());
        assert!(buffer[..range.start].iter().all(|byte| *byte == 0xaa));
        let overhead = usize::from(overhead_bytes(encapsulation, !outer.source.is_v4()));
        assert_eq!(range.start + overhead, HEADROOM_BYTES);
        assert_eq!(&buffer[HEADROOM_BYTES..], inner);
        buffer[range].to_vec()
    }

    fn inner_v4(tos: u8, ttl: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv4([192, 0, 2, 10], [10, 0, 0, 3], ttl).udp(40_000, 8000);
        builder.write(&mut bytes, payload).unwrap();
        (bytes[1], bytes[6]) = (tos, flags);
        bytes
    }

    fn inner_v6(payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let builder = PacketBuilder::ipv6([1; 16], [2; 16], 61).udp(40_000, 8000);
        builder.write(&mut bytes, payload).unwrap();
        (bytes[0], bytes[1]) = (0x6b, 0x90);
        bytes
    }

    const ALL: [Encapsulation; 5] = [
        Encapsulation::IpIp,
        Encapsulation::Gre { checksum: false },
        Encapsulation::Gre { checksum: true },
        Encapsulation::Gue { port: GUE_PORT, checksum: false },
        Encapsulation::Gue { port: 5555, checksum: true },
    ];

    #[test]
    fn the_headroom_takes_the_longest_outer_header_and_a_link_header() {
        let longest = ALL.map(|encapsulation| overhead_bytes(encapsulation, true)).into_iter().max();
        assert_eq!(longest, Some(OVERHEAD_BYTES_MAX));
        let room = HEADROOM_BYTES.checked_sub(ethernet::HEADER_BYTES + usize::from(OVERHEAD_BYTES_MAX));
        assert!(room.is_some(), "{HEADROOM_BYTES}");
    }

    #[test]
    fn ipip_is_what_linux_sends() {
        let inner = hex("4500002180e140003e11efddc000020a0a0000039c401f40000d347468656c6c6f");
        let sent = hex(concat!(
            "45000035000040003e0428b00a0000020a000014",
            "4500002180e140003e11efddc000020a0a0000039c401f40000d347468656c6c6f"
        ));
        assert_eq!(wrap(&inner, Encapsulation::IpIp, &outer("10.0.0.2", "10.0.0.20")), sent);
    }

    #[test]
    fn gue_is_what_linux_sends_but_for_the_source_port() {
        let inner = hex("45000021a55740003e11cb67c000020a0a0000039c401f40000d347468656c6c6f");
        let kind = Encapsulation::Gue { port: GUE_PORT, checksum: false };
        let sent = wrap(&inner, kind, &outer("10.0.0.2", "10.0.0.20"));
        assert_eq!(sent[..20], hex("45000041000040003e1128970a0000020a000014"));
        assert!(u16::from_be_bytes([sent[20], sent[21]]) >= 49_152);
        assert_eq!(sent[22..32], hex("17c0002d000000040000"));
    }

    #[test]
    fn gre_is_four_bytes_or_eight_with_a_checksum() {
        let to = outer("10.0.0.2", "10.0.0.20");
        let plain = wrap(&inner_v4(0, 9, 0x40, b"x"), Encapsulation::Gre { checksum: false }, &to);
        assert_eq!((plain[9], &plain[20..24]), (47, &[0, 0, 8, 0][..]));
        let summed = wrap(&inner_v6(b"odd"), Encapsulation::Gre { checksum: true }, &to);
        assert_eq!(summed[20..24], [0x80, 0, 0x86, 0xdd]);
        assert_eq!(summed[26..28], [0, 0]);
        assert!(checksum::is_valid(0, &summed[20..]));
    }

    #[test]
    fn the_outer_header_may_be_cut_where_the_inner_one_may() {
        let to = outer("10.0.0.2", "10.0.0.20");
        let flags = |bytes: &[u8]| (bytes[6], u16::from_be_bytes([bytes[4], bytes[5]]));
        let wrapped = |flags, offset: u8, identification: u8| {
            let mut inner = inner_v4(0, 9, flags, b"x");
            (inner[5], inner[7]) = (identification, offset);
            wrap(&inner, Encapsulation::IpIp, &to)
        };
        assert_eq!(flags(&wrapped(0x40, 0, 7)), (0x40, 0));
        let (may, one) = flags(&wrapped(0, 0, 7));
        let (_, next) = flags(&wrapped(0, 0, 8));
        let (_, later) = flags(&wrapped(0x20, 185, 7));
        assert_eq!((may, next), (0, one.wrapping_add(1)));
        assert!(later != one && later != next);
        assert_eq!(flags(&wrap(&inner_v6(b"x"), Encapsulation::IpIp, &to)), (0x40, 0));
    }

    #[test]
    fn what_can_not_be_wrapped_is_refused() {
        let (kind, to) = (Encapsulation::IpIp, outer("10.0.0.2", "10.0.0.20"));
        let refused =
            |buffer: &mut [u8], range, to: &Outer| encapsulate(buffer, range, kind, to).unwrap_err();
        assert_eq!(refused(&mut [0x45; 60], 19..60, &to), DropReason::Truncated);
        assert_eq!(refused(&mut [0x45; 60], 20..61, &to), DropReason::Truncated);
        assert_eq!(refused(&mut [0x45; 60], 20..39, &to), DropReason::Truncated);
        assert_eq!(refused(&mut [0x60; 60], 20..59, &to), DropReason::Truncated);
        assert_eq!(refused(&mut [0x45; 60], 20..20, &to), DropReason::Truncated);
        assert_eq!(refused(&mut [0x55; 60], 20..60, &to), DropReason::BadHeader);
        assert_eq!(refused(&mut [0x45; 60], 20..60, &outer("10.0.0.2", "::1")), DropReason::BadHeader);
        let mut large = vec![0x45; 20 + 65_516];
        let end = large.len();
        assert_eq!(refused(&mut large, 20..end, &to), DropReason::TooBig);
        assert!(encapsulate(&mut large, 20..end - 1, kind, &to).is_ok());
    }

    #[test]
    fn a_time_to_live_can_be_set_apart_from_the_inner_one() {
        let to = Outer { ttl: Some(64), ..outer("10.0.0.2", "10.0.0.20") };
        assert_eq!(wrap(&inner_v4(0, 9, 0x40, b"x"), Encapsulation::IpIp, &to)[8], 64);
        let to = Outer { ttl: Some(64), ..outer("fc00::2", "fc00::20") };
        assert_eq!(wrap(&inner_v4(0, 9, 0x40, b"x"), Encapsulation::IpIp, &to)[7], 64);
    }

    proptest! {
        /// Every kind in every family, read back by a parser that is not ours.
        #[test]
        fn an_outer_packet_is_well_formed(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            tos: u8, ttl: u8, is_inner_v6: bool, is_outer_v6: bool, hash: u64, place in 0..ALL.len(),
        ) {
            let kind = ALL[place];
            let inner = if is_inner_v6 { inner_v6(&payload) } else { inner_v4(tos, ttl, 0x40, &payload) };
            let (tos, ttl) = if is_inner_v6 { (0xb9, 61) } else { (tos, ttl) };
            let (source, destination) =
                if is_outer_v6 { ("fc00::2", "fc00::20") } else { ("10.0.0.2", "10.0.0.20") };
            let to = Outer { flow_hash: hash, ..outer(source, destination) };
            let bytes = wrap(&inner, kind, &to);
            let inner_protocol = if is_inner_v6 { 41 } else { 4 };
            let protocol = match kind {
                Encapsulation::IpIp => inner_protocol,
                Encapsulation::Gre { .. } => 47,
                Encapsulation::Gue { .. } => 17,
            };
            let body = if is_outer_v6 {
                let header = Ipv6HeaderSlice::from_slice(&bytes).unwrap();
                prop_assert_eq!(header.traffic_class(), tos);
                prop_assert_eq!((header.hop_limit(), header.next_header().0), (ttl, protocol));
                prop_assert_eq!(usize::from(header.payload_length()), bytes.len() - 40);
                prop_assert_eq!(u64::from(header.flow_label().value()), hash & 0xf_ffff);
                prop_assert_eq!(IpAddr::V6(header.source_addr()), source.parse::<IpAddr>().unwrap());
                prop_assert_eq!(IpAddr::V6(header.destination_addr()), destination.parse::<IpAddr>().unwrap());
                &bytes[40..]
            } else {
                let header = Ipv4HeaderSlice::from_slice(&bytes).unwrap();
                prop_assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
                prop_assert_eq!((bytes[1], header.ttl(), header.protocol().0), (tos, ttl, protocol));
                prop_assert_eq!(usize::from(header.total_len()), bytes.len());
                &bytes[20..]
            };
            if let Encapsulation::Gue { port, checksum: has_checksum } = kind {
                let udp = UdpHeaderSlice::from_slice(body).unwrap();
                prop_assert_eq!((udp.destination_port(), usize::from(udp.length())), (port, body.len()));
                prop_assert!(udp.source_port() >= 49_152);
                prop_assert_eq!(&body[8..12], &[0, inner_protocol, 0, 0]);
                let computed = if is_outer_v6 {
                    let header = Ipv6HeaderSlice::from_slice(&bytes).unwrap().to_header();
                    udp.to_header().calc_checksum_ipv6(&header, &body[8..])
                } else {
                    let header = Ipv4HeaderSlice::from_slice(&bytes).unwrap().to_header();
                    udp.to_header().calc_checksum_ipv4(&header, &body[8..])
                };
                prop_assert_eq!(udp.checksum(), if has_checksum { computed.unwrap() } else { 0 });
            }
        }
    }
}
