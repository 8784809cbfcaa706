//! IP headers of both families, read and written. Apart from the engine's own, so that neither can hide the other's
//! mistakes.

use evenkeel_engine::wire::Protocol;

pub(super) use crate::checksum::{finish, sum};
use crate::packet::Packet;

use super::address::Ip;
use super::drops::KernelDrop;

/// Bytes of an IPv4 header without options.
pub(super) const V4_BYTES: usize = 20;
/// Bytes of an IPv6 header.
pub(super) const V6_BYTES: usize = 40;
/// The time to live that packets are born with.
pub(super) const TTL: u8 = 64;
/// IPv6 fragment header.
pub(super) const FRAGMENT: u8 = 44;
/// Extension headers that are looked through; Linux has no bound, but packets with more of them are nobody's.
const EXTENSIONS_MAX: usize = 8;

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(super) source: Ip,
    pub(super) destination: Ip,
    /// What is behind the header and its extensions.
    pub(super) protocol: Protocol,
    pub(super) ttl: u8,
    /// Where that begins.
    pub(super) offset: usize,
    /// Source port and destination port; 0 where there are none.
    pub(super) ports: (u16, u16),
    pub(super) fragment: Option<Fragment>,
    pub(super) may_fragment: bool,
}

/// What is said of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Fragment {
    pub(super) identification: u32,
    /// In bytes.
    pub(super) offset: u16,
    pub(super) has_more: bool,
}

impl Head {
    pub(super) const fn is_v4(&self) -> bool {
        self.source.is_v4()
    }

    /// Whether it is the first fragment, or whole.
    pub(super) fn has_transport(&self) -> bool {
        self.fragment.is_none_or(|fragment| fragment.offset == 0)
    }
}

/// Reads the header of a packet, and cuts off what is behind the packet's end.
pub(super) fn read(packet: &mut Packet) -> Result<Head, KernelDrop> {
    match packet.bytes().first().map(|first| first >> 4) {
        Some(4) => read_v4(packet),
        Some(6) => read_v6(packet),
        _ => Err(KernelDrop::Malformed),
    }
}

/// Reads the header of an IPv4 packet, and cuts off what is behind the packet's end.
#[inline]
pub(super) fn read_v4(packet: &mut Packet) -> Result<Head, KernelDrop> {
    let (head, total) = parse_v4(packet.bytes())?;
    packet.cut_to(total);
    Ok(head)
}

/// Reads the header of an IPv6 packet and what is between it and the transport, and cuts off what is behind the packet's
/// end.
pub(super) fn read_v6(packet: &mut Packet) -> Result<Head, KernelDrop> {
    let (head, total) = parse_v6(packet.bytes())?;
    packet.cut_to(total);
    Ok(head)
}

/// Reads the header of a packet.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, KernelDrop> {
    match bytes.first().map(|first| first >> 4) {
        Some(4) => parse_v4(bytes).map(|(head, _)| head),
        Some(6) => parse_v6(bytes).map(|(head, _)| head),
        _ => Err(KernelDrop::Malformed),
    }
}

#[inline]
fn parse_v4(bytes: &[u8]) -> Result<(Head, usize), KernelDrop> {
    let header = bytes.first_chunk::<V4_BYTES>().ok_or(KernelDrop::Malformed)?;
    let [first, _, t0, t1, i0, i1, f0, f1, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3] = *header;
    let offset = usize::from(first & 15) * 4;
    let total = usize::from(u16::from_be_bytes([t0, t1]));
    if first >> 4 != 4 || offset < V4_BYTES || total < offset || total > bytes.len() {
        return Err(KernelDrop::Malformed);
    }
    let sum = if offset == V4_BYTES { sum(header) } else { sum(bytes.get(..offset).unwrap_or(&[])) };
    if finish(sum) != 0 {
        return Err(KernelDrop::Checksum);
    }
    let flags = u16::from_be_bytes([f0, f1]);
    let is_fragment = flags & 0x3fff != 0;
    let fragment = is_fragment.then(|| Fragment {
        identification: u32::from(u16::from_be_bytes([i0, i1])),
        offset: (flags & 0x1fff) << 3,
        has_more: flags & 0x2000 != 0,
    });
    let protocol = Protocol(protocol);
    let ports = if flags & 0x1fff == 0 { ports(protocol, bytes, offset, total) } else { (0, 0) };
    let head = Head {
        source: Ip::of_v4(u32::from_be_bytes([s0, s1, s2, s3])),
        destination: Ip::of_v4(u32::from_be_bytes([d0, d1, d2, d3])),
        protocol,
        ttl,
        offset,
        ports,
        fragment,
        may_fragment: flags & 0x4000 == 0,
    };
    Ok((head, total))
}

fn parse_v6(bytes: &[u8]) -> Result<(Head, usize), KernelDrop> {
    let header = bytes.first_chunk::<V6_BYTES>().ok_or(KernelDrop::Malformed)?;
    let [first, _, _, _, l0, l1, next, ttl, rest @ ..] = header;
    let total = V6_BYTES + usize::from(u16::from_be_bytes([*l0, *l1]));
    if first >> 4 != 6 || total > bytes.len() {
        return Err(KernelDrop::Malformed);
    }
    let (addresses, _) = rest.as_chunks::<16>();
    let [source, destination] = *addresses else { return Err(KernelDrop::Malformed) };
    let (source, destination) = (Ip(u128::from_be_bytes(source)), Ip(u128::from_be_bytes(destination)));
    if source.is_v4() || destination.is_v4() {
        return Err(KernelDrop::MartianSource);
    }
    let whole = bytes.get(..total).unwrap_or(&[]);
    let (protocol, offset, fragment) = if matches!(Protocol(*next), Protocol::TCP | Protocol::UDP) {
        (*next, V6_BYTES, None)
    } else {
        extensions(*next, whole)?
    };
    let protocol = Protocol(protocol);
    let is_later = fragment.is_some_and(|fragment| fragment.offset != 0);
    let ports = if is_later { (0, 0) } else { ports(protocol, bytes, offset, total) };
    let ttl = *ttl;
    Ok((Head { source, destination, protocol, ttl, offset, ports, fragment, may_fragment: false }, total))
}

/// What is behind the extension headers of an IPv6 packet, where it begins, and whether it is a fragment.
fn extensions(mut next: u8, bytes: &[u8]) -> Result<(u8, usize, Option<Fragment>), KernelDrop> {
    let (mut at, mut fragment) = (V6_BYTES, None);
    for _ in 0..EXTENSIONS_MAX {
        let Some([following, length, f0, f1, i0, i1, i2, i3]) = bytes.get(at..at + 8) else {
            break;
        };
        match next {
            // Hop-by-hop options, routing, destination options (RFC 8200 s.4.1).
            0 | 43 | 60 => at += 8 + usize::from(*length) * 8,
            FRAGMENT => {
                let field = u16::from_be_bytes([*f0, *f1]);
                let found = Fragment {
                    identification: u32::from_be_bytes([*i0, *i1, *i2, *i3]),
                    offset: field & 0xfff8,
                    has_more: field & 1 != 0,
                };
                at += 8;
                fragment = Some(found);
                if found.offset != 0 {
                    return Ok((*following, at, fragment));
                }
            }
            _ => break,
        }
        next = *following;
    }
    if at > bytes.len() { Err(KernelDrop::Malformed) } else { Ok((next, at, fragment)) }
}

fn ports(protocol: Protocol, bytes: &[u8], offset: usize, total: usize) -> (u16, u16) {
    if !matches!(protocol, Protocol::TCP | Protocol::UDP) || offset + 4 > total {
        return (0, 0);
    }
    match bytes.get(offset..offset + 4) {
        Some([a, b, c, d]) => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        _ => (0, 0),
    }
}

/// The same of one of IPv4.
#[inline(always)]
pub(super) fn take_hop_v4(bytes: &mut [u8]) {
    let Some([.., ttl, _, c0, c1]) = bytes.first_chunk_mut::<12>() else { return };
    *ttl = ttl.saturating_sub(1);
    // RFC 1624: the complemented sum grows by what the field loses, and by what is carried.
    let (sum, is_over) = u16::from_be_bytes([*c0, *c1]).overflowing_add(0x100);
    [*c0, *c1] = (sum + u16::from(is_over)).to_be_bytes();
}

/// Takes one off the time to live of a packet that has more than one left.
#[inline]
pub(super) fn take_hop(bytes: &mut [u8]) {
    match bytes {
        [first, ..] if *first >> 4 == 4 => take_hop_v4(bytes),
        [first, _, _, _, _, _, _, hops, ..] if *first >> 4 == 6 => *hops = hops.saturating_sub(1),
        _ => {}
    }
}

/// The fields of a header that is to be written. Lengths are those of what is behind the header.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewHead {
    pub(super) source: Ip,
    pub(super) destination: Ip,
    pub(super) protocol: Protocol,
    pub(super) ttl: u8,
    /// Type of service or traffic class.
    pub(super) traffic: u8,
    pub(super) identification: u16,
    pub(super) may_fragment: bool,
}

/// Writes the header of IPv4 or IPv6 over the first bytes of a packet, which is as long as it is to be.
pub(super) fn write(packet: &mut Packet, head: &NewHead) {
    let length = packet.len();
    if head.source.is_v4() {
        let total = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let identification = head.identification.to_be_bytes();
        let flags = if head.may_fragment { 0 } else { 0x40 };
        let Some(place) = packet.bytes_mut().first_chunk_mut::<V4_BYTES>() else { return };
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (head.source.v4_octets(), head.destination.v4_octets());
        let ([t0, t1], [i0, i1]) = (total, identification);
        let mut header = [
            0x45,
            head.traffic,
            t0,
            t1,
            i0,
            i1,
            flags,
            0,
            head.ttl,
            head.protocol.0,
            0,
            0,
            s0,
            s1,
            s2,
            s3,
            d0,
            d1,
            d2,
            d3,
        ];
        let [high, low] = finish(sum(&header)).to_be_bytes();
        (header[10], header[11]) = (high, low);
        *place = header;
        return;
    }
    let behind = u16::try_from(length.saturating_sub(V6_BYTES)).unwrap_or(u16::MAX).to_be_bytes();
    let ([l0, l1], traffic) = (behind, head.traffic);
    if let Some(place) = packet.bytes_mut().first_chunk_mut::<V6_BYTES>() {
        let start = [0x60 | traffic >> 4, traffic << 4, 0, 0, l0, l1, head.protocol.0, head.ttl];
        let addresses = [head.source.v6_octets(), head.destination.v6_octets()];
        let bytes = start.iter().chain(addresses.as_flattened());
        for (place, byte) in place.iter_mut().zip(bytes) {
            *place = *byte;
        }
    }
}

/// Bytes of the header that [`write`] writes.
pub(super) const fn header_bytes(source: Ip) -> usize {
    if source.is_v4() { V4_BYTES } else { V6_BYTES }
}

/// The type of service or traffic class of a packet.
pub(super) const fn traffic(bytes: &[u8]) -> u8 {
    match bytes {
        [first, second, ..] if *first >> 4 == 4 => *second,
        [first, second, ..] => *first << 4 | *second >> 4,
        _ => 0,
    }
}

/// Sets the low two bits of the traffic class, which tell of congestion (RFC 3168).
pub(super) fn set_congestion(bytes: &mut [u8]) {
    match bytes {
        [first, second, ..] if *first >> 4 == 4 => *second |= 3,
        [_, second, ..] => *second |= 0x30,
        _ => return,
    }
    mend_header(bytes);
}

/// Computes the checksum of an IPv4 header anew; does nothing to IPv6.
pub(super) fn mend_header(bytes: &mut [u8]) {
    let Some(first) = bytes.first().copied().filter(|first| first >> 4 == 4) else { return };
    let Some(header) = bytes.get_mut(..usize::from(first & 15) * 4) else { return };
    if let Some(place) = header.get_mut(10..12) {
        place.fill(0);
    }
    let check = finish(sum(header)).to_be_bytes();
    if let Some(place) = header.get_mut(10..12) {
        place.copy_from_slice(&check);
    }
}

/// The sum of the pseudo-header (RFC 768, RFC 8200 s.8.1), not yet folded.
pub(super) fn pseudo_sum(source: Ip, destination: Ip, protocol: Protocol, length: usize) -> u64 {
    let both = if source.is_v4() {
        u64::from(source.v4_bits()) + u64::from(destination.v4_bits())
    } else {
        sum(&source.v6_octets()) + sum(&destination.v6_octets())
    };
    both + u64::from(protocol.0) + u64::try_from(length).unwrap_or(0)
}

/// Changes a checksum by what a part that it covers has lost and gained (RFC 1624, equation 3).
pub(super) fn adjust(checksum: u16, lost: u64, gained: u64) -> u16 {
    let turned = u64::from(!u16::try_from(fold(lost)).unwrap_or(u16::MAX));
    finish(u64::from(!checksum) + turned + fold(gained))
}

fn fold(sum: u64) -> u64 {
    u64::from(!finish(sum))
}
