//! Datagrams of one flow become one super-packet, which the kernel cuts into the same datagrams again.
//!
//! ```text
//! | IP | UDP | 18 bytes |   | IP | UDP | 18 bytes |   | IP | UDP | 7 bytes |
//!                  -> | IP | UDP | 18 + 18 + 7 bytes |, to be cut after each 18
//! ```
//!
//! In go the packets of a batch, one after the other; out comes which of them joins an earlier one, and at
//! the end the headers of the whole. What is joined crosses the kernel once instead of once for each
//! datagram. Who receives them sees what he would have seen without: the same payloads, in the order of
//! their flow. What could come out otherwise stays alone (decision 0008). No buffer is held and no system
//! call is made here.

use evenkeel_engine::wire::checksum;

use crate::offload::VirtioNetHeader;

/// The most datagrams of one super-packet: what each kernel that can cut them takes, and a whole batch.
pub(crate) const SEGMENTS_MAX: u8 = 64;

/// Flows whose latest super-packet may still grow. Each packet is compared with all of them; where a batch
/// of 64 packets has more flows, there is little to join.
const GROWING_MAX: usize = 16;

const IP_BYTES: usize = 20;
/// IP and UDP header: what a datagram leaves behind when it joins another.
pub(crate) const HEADERS_BYTES: usize = 28;
/// What the length field of IPv4 can say.
const PACKET_BYTES_MAX: usize = 65_535;
const UDP: u8 = 17;
const DONT_FRAGMENT: u16 = 0x4000;

/// The header of a super-packet of datagrams, but for the length of its segments: the checksum is open (bit
/// 0) and lies at byte 6 of the UDP header, and each segment gets headers of its own (kind 5).
const SUPER: VirtioNetHeader = VirtioNetHeader {
    flags: 1,
    gso_type: 5,
    header_bytes: 28,
    segment_bytes: 0,
    checksum_start: 20,
    checksum_offset: 6,
};

/// Who talks to whom: addresses and ports, as they stand in the packet.
pub(crate) type Ends = [u8; 12];

/// A datagram that may join others of its flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    ends: Ends,
    /// Type of service, ECN included, then TTL: each segment gets the first one's.
    service_and_ttl: [u8; 2],
    has_dont_fragment: bool,
    identification: u16,
    payload_bytes: u16,
    /// Whether its checksum is open or vouched for, so that nobody needs to look.
    is_trusted: bool,
}

/// What a packet is to this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// No datagram over IPv4: it has no place in the order of any flow here.
    Other,
    /// A datagram that stays alone; later ones of its flow must not overtake it.
    Alone(Ends),
    /// A datagram whose flow can not be told.
    Unclear,
    /// A datagram that may join others.
    Fit(Datagram),
}

/// Reads the packet behind `header`.
pub(crate) fn read(header: VirtioNetHeader, packet: &[u8]) -> Reading {
    let Some((ip, _)) = packet.split_first_chunk::<IP_BYTES>() else { return Reading::Other };
    let [version_and_length, service, t0, t1, i0, i1, f0, f1, ttl, protocol, _, _, addresses @ ..] = *ip;
    if version_and_length >> 4 != 4 || protocol != UDP {
        return Reading::Other;
    }
    if version_and_length != 0x45 {
        return Reading::Unclear;
    }
    let Some(udp) = packet.get(IP_BYTES..).and_then(<[u8]>::first_chunk::<8>) else {
        return Reading::Unclear;
    };
    let [s0, s1, d0, d1, l0, l1, c0, c1] = *udp;
    let [a0, a1, a2, a3, a4, a5, a6, a7] = addresses;
    let ends = [a0, a1, a2, a3, a4, a5, a6, a7, s0, s1, d0, d1];
    let flags = u16::from_be_bytes([f0, f1]);
    let is_fragment = flags & !DONT_FRAGMENT != 0;
    if is_fragment {
        return Reading::Unclear;
    }
    let needs_checksum = header.offload().needs_checksum;
    let has_checksum = needs_checksum || [c0, c1] != [0, 0];
    let is_whole = usize::from(u16::from_be_bytes([t0, t1])) == packet.len()
        && usize::from(u16::from_be_bytes([l0, l1])) + IP_BYTES == packet.len();
    let is_super = header.gso_type != 0;
    let payload = packet.len().checked_sub(HEADERS_BYTES).and_then(|bytes| u16::try_from(bytes).ok());
    match payload {
        Some(payload_bytes @ 1..) if has_checksum && is_whole && !is_super => Reading::Fit(Datagram {
            ends,
            service_and_ttl: [service, ttl],
            has_dont_fragment: flags != 0,
            identification: u16::from_be_bytes([i0, i1]),
            payload_bytes,
            is_trusted: needs_checksum || header.is_verified(),
        }),
        Some(_) | None => Reading::Alone(ends),
    }
}

/// Whether the checksum of a datagram that [`read`] has found fit is right. A wrong one must arrive wrong,
/// so such a datagram is not joined: the kernel computes new ones for all segments.
pub(crate) fn has_right_checksum(datagram: &Datagram, packet: &[u8]) -> bool {
    let covered = packet.get(IP_BYTES..).unwrap_or_default();
    datagram.is_trusted || checksum::is_valid(pseudo_header_sum(datagram.ends, covered.len()), covered)
}

/// The sum of the pseudo header of `udp_bytes` bytes with UDP header.
fn pseudo_header_sum(ends: Ends, udp_bytes: usize) -> u16 {
    let [s0, s1, s2, s3, d0, d1, d2, d3, ..] = ends;
    let length = u16::try_from(udp_bytes).unwrap_or(u16::MAX);
    checksum::pseudo_header_v4([s0, s1, s2, s3], [d0, d1, d2, d3], UDP, length)
}

/// A packet that others may join: the latest of its flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growing {
    /// Where it stands among the packets that leave.
    pub(crate) place: usize,
    /// Whether its own checksum has been looked at and is right.
    pub(crate) is_checked: bool,
    interface: usize,
    /// The datagram that it begins with.
    pub(crate) first: Datagram,
    count: u8,
    packet_bytes: usize,
    /// Whether nothing more may join: a shorter datagram is the last one.
    is_complete: bool,
}

impl Growing {
    /// Whether the kernel would cut this datagram out again as it is.
    fn can_take(&self, next: &Datagram) -> bool {
        let first = &self.first;
        let alike = first.service_and_ttl == next.service_and_ttl
            && first.has_dont_fragment == next.has_dont_fragment
            && next.payload_bytes <= first.payload_bytes;
        // The kernel counts on from the first one's. Of a datagram that nobody may fragment the
        // identification means nothing (RFC 6864, s. 4.1): many senders write the same into all of them.
        let steps = next.identification.wrapping_sub(first.identification);
        let is_in_turn = steps == u16::from(self.count) || (first.has_dont_fragment && steps == 0);
        let has_room = self.count < SEGMENTS_MAX
            && self.packet_bytes + usize::from(next.payload_bytes) <= PACKET_BYTES_MAX;
        alike && is_in_turn && has_room && !self.is_complete
    }

    /// Payload of each segment but the last.
    pub(crate) const fn segment_bytes(&self) -> u16 {
        self.first.payload_bytes
    }

    /// Counts a datagram in whose payload has been put behind this packet. Says how many it holds now.
    pub(crate) fn add(&mut self, next: &Datagram) -> u8 {
        self.count += 1;
        self.packet_bytes += usize::from(next.payload_bytes);
        self.is_complete = next.payload_bytes < self.first.payload_bytes;
        self.count
    }
}

/// The packets of one batch that may grow.
#[derive(Debug)]
pub(crate) struct Coalescer {
    growing: Vec<Growing>,
    /// Which is forgotten next when there are too many.
    oldest: usize,
}

impl Coalescer {
    pub(crate) fn new() -> Self {
        Self { growing: Vec::with_capacity(GROWING_MAX), oldest: 0 }
    }

    /// Begins a batch.
    pub(crate) fn clear(&mut self) {
        self.growing.clear();
        self.oldest = 0;
    }

    /// The packet that `datagram`, which leaves by `interface`, may join.
    pub(crate) fn find(&mut self, datagram: &Datagram, interface: usize) -> Option<&mut Growing> {
        let latest = self.growing.iter_mut().find(|growing| growing.first.ends == datagram.ends)?;
        (latest.interface == interface && latest.can_take(datagram)).then_some(latest)
    }

    /// Lets the datagram at `place` be the latest of its flow, which later ones may join.
    pub(crate) fn begin(&mut self, place: usize, datagram: Datagram, interface: usize) {
        let packet_bytes = HEADERS_BYTES + usize::from(datagram.payload_bytes);
        let begun = Growing {
            place,
            is_checked: false,
            interface,
            first: datagram,
            count: 1,
            packet_bytes,
            is_complete: false,
        };
        if let Some(latest) = self.growing.iter_mut().find(|growing| growing.first.ends == datagram.ends) {
            *latest = begun;
        } else if self.growing.len() < GROWING_MAX {
            self.growing.push(begun);
        } else if let Some(oldest) = self.growing.get_mut(self.oldest) {
            *oldest = begun;
            self.oldest = (self.oldest + 1) % GROWING_MAX;
        }
    }

    /// Nothing joins an earlier packet of the flow between these ends.
    pub(crate) fn stop(&mut self, ends: Ends) {
        if let Some(latest) = self.growing.iter_mut().find(|growing| growing.first.ends == ends) {
            latest.is_complete = true;
        }
    }

    /// Nothing joins any earlier packet.
    pub(crate) fn stop_all(&mut self) {
        self.growing.iter_mut().for_each(|growing| growing.is_complete = true);
    }
}

/// Writes the headers of the super-packet that `packet` has become, whose first datagram had a payload of
/// `segment_bytes`; says which header it leaves with.
pub(crate) fn seal(packet: &mut [u8], segment_bytes: u16) -> VirtioNetHeader {
    let total_bytes = packet.len();
    let udp_bytes = total_bytes.saturating_sub(IP_BYTES);
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    let Some((ip, rest)) = packet.split_first_chunk_mut::<IP_BYTES>() else { return VirtioNetHeader::WHOLE };
    let Some(udp) = rest.first_chunk_mut::<8>() else { return VirtioNetHeader::WHOLE };
    let mut ends = [0; 12];
    if let (Some(place), Some(addresses)) = (ends.first_chunk_mut::<8>(), ip.last_chunk::<8>()) {
        *place = *addresses;
    }
    let [_, _, t0, t1, _, _, _, _, _, _, c0, c1, ..] = ip;
    [*t0, *t1] = length(total_bytes);
    [*c0, *c1] = [0, 0];
    let sum = checksum::checksum(0, &*ip);
    let [_, _, _, _, _, _, _, _, _, _, c0, c1, ..] = ip;
    [*c0, *c1] = sum.to_be_bytes();
    let [_, _, _, _, l0, l1, u0, u1] = udp;
    [*l0, *l1] = length(udp_bytes);
    [*u0, *u1] = pseudo_header_sum(ends, udp_bytes).to_be_bytes();
    VirtioNetHeader { segment_bytes, ..SUPER }
}
