//! The Ethernet header of a frame: reading it, putting it in front of a packet, and its VLAN tag (IEEE 802.1Q).

use evenkeel_engine::device::HEADROOM_BYTES;
pub use evenkeel_engine::wire::ethernet::MacAddress;

use crate::packet::Packet;

/// IPv4 (RFC 894).
pub const IPV4: u16 = 0x0800;
/// ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// IPv6 (RFC 2464).
pub const IPV6: u16 = 0x86dd;
/// A VLAN tag.
pub const VLAN: u16 = 0x8100;
/// A VLAN tag of a provider (IEEE 802.1ad).
pub const PROVIDER_VLAN: u16 = 0x88a8;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_BYTES: usize = 14;
/// Bytes of a VLAN tag.
pub const TAG_BYTES: usize = 4;
/// Tags that are looked through: one of the provider and one of the customer.
const TAGS_MAX: usize = 2;

/// Whether a header is that of a frame of this type to this station: compared in words, since every frame is asked.
#[inline(always)]
pub(crate) fn is_to(header: &[u8; ETHERNET_BYTES], station: MacAddress, ethertype: u16) -> bool {
    let [d0, d1, d2, d3, d4, d5, .., t0, t1] = *header;
    let [o0, o1, o2, o3, o4, o5] = station.0;
    let first = u32::from_ne_bytes([d0, d1, d2, d3]) ^ u32::from_ne_bytes([o0, o1, o2, o3]);
    let last = u16::from_ne_bytes([d4, d5]) ^ u16::from_ne_bytes([o4, o5]);
    first | u32::from(last) == 0 && u16::from_be_bytes([t0, t1]) == ethertype
}

/// Destination, source and type of a frame.
#[inline(always)]
#[must_use]
pub fn header(frame: &[u8]) -> Option<(MacAddress, MacAddress, u16)> {
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *frame.first_chunk::<ETHERNET_BYTES>()?;
    Some((
        MacAddress([d0, d1, d2, d3, d4, d5]),
        MacAddress([s0, s1, s2, s3, s4, s5]),
        u16::from_be_bytes([t0, t1]),
    ))
}

/// The type of what a frame carries behind its tags, and where that begins; 0 where the frame is too short.
#[must_use]
pub fn payload(frame: &[u8]) -> (u16, usize) {
    let mut at = ETHERNET_BYTES;
    for _ in 0..=TAGS_MAX {
        let Some([t0, t1]) = frame.get(at - 2..at) else { return (0, frame.len()) };
        let ethertype = u16::from_be_bytes([*t0, *t1]);
        if !matches!(ethertype, VLAN | PROVIDER_VLAN) {
            return (ethertype, at);
        }
        at += TAG_BYTES;
    }
    (0, frame.len())
}

/// The number of the VLAN that a frame's tag names; `None` without a tag.
#[must_use]
pub fn vlan(frame: &[u8]) -> Option<u16> {
    let [.., t0, t1, n0, n1] = *frame.first_chunk::<{ ETHERNET_BYTES + 2 }>()?;
    (u16::from_be_bytes([t0, t1]) == VLAN).then(|| u16::from_be_bytes([n0, n1]) & 0xfff)
}

/// The header as bytes.
#[must_use]
pub const fn header_bytes(
    destination: MacAddress,
    source: MacAddress,
    ethertype: u16,
) -> [u8; ETHERNET_BYTES] {
    let [d0, d1, d2, d3, d4, d5] = destination.0;
    let [s0, s1, s2, s3, s4, s5] = source.0;
    let [t0, t1] = ethertype.to_be_bytes();
    [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]
}

/// Puts a header in front of an IP packet, which makes it a frame.
#[inline]
pub fn put_header(packet: &mut Packet, header: &[u8; ETHERNET_BYTES]) {
    grow_front(packet, ETHERNET_BYTES);
    if let Some(place) = packet.bytes_mut_soundly().first_chunk_mut() {
        *place = *header;
    }
}

/// Makes room for `bytes` more in front; where the buffer has none, what it holds moves back.
#[inline]
pub fn grow_front(packet: &mut Packet, bytes: usize) {
    if packet.range().start < bytes {
        move_back(packet, HEADROOM_BYTES.max(bytes));
    }
    packet.grow_front(bytes);
}

#[cold]
fn move_back(packet: &mut Packet, bytes: usize) {
    packet.buffer_mut().splice(0..0, core::iter::repeat_n(0, bytes));
    let range = packet.range();
    packet.set_range(range.start + bytes..range.end + bytes);
}

/// Puts a VLAN tag into a frame.
pub fn push_tag(packet: &mut Packet, vlan: u16) {
    if packet.len() < ETHERNET_BYTES {
        return;
    }
    grow_front(packet, TAG_BYTES);
    let bytes = packet.bytes_mut();
    bytes.copy_within(TAG_BYTES..ETHERNET_BYTES + 2, 0);
    let ([t0, t1], [n0, n1]) = (VLAN.to_be_bytes(), (vlan & 0xfff).to_be_bytes());
    if let Some(place) = bytes.get_mut(12..16) {
        place.copy_from_slice(&[t0, t1, n0, n1]);
    }
}

/// Takes the VLAN tag out of a frame, where it has one.
pub fn pop_tag(packet: &mut Packet) {
    if vlan(packet.bytes()).is_none() || packet.len() < ETHERNET_BYTES + TAG_BYTES {
        return;
    }
    packet.bytes_mut().copy_within(0..12, TAG_BYTES);
    packet.take_front(TAG_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
    const B: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

    #[test]
    fn a_tag_goes_in_and_out_again() {
        let mut packet = Packet::copied_into(Packet::default(), b"what is carried");
        put_header(&mut packet, &header_bytes(A, B, IPV4));
        let untagged = packet.bytes().to_vec();
        assert_eq!(vlan(packet.bytes()), None);
        push_tag(&mut packet, 42);
        assert_eq!(header(packet.bytes()), Some((A, B, VLAN)));
        assert_eq!(vlan(packet.bytes()), Some(42));
        assert_eq!(payload(packet.bytes()), (IPV4, 18));
        assert_eq!(packet.bytes().len(), untagged.len() + 4);
        pop_tag(&mut packet);
        assert_eq!(packet.bytes(), untagged);
        pop_tag(&mut packet);
        assert_eq!(packet.bytes(), untagged, "there is no tag to take");
    }

    #[test]
    fn a_buffer_without_room_in_front_gets_some() {
        let mut packet = Packet::default().emptied(0);
        packet.extend(&[1, 2, 3]);
        put_header(&mut packet, &header_bytes(A, B, ARP));
        assert_eq!(packet.bytes().get(14..), Some(&[1, 2, 3][..]));
        assert_eq!(header(packet.bytes()), Some((A, B, ARP)));
    }

    #[test]
    fn what_is_too_short_is_read_as_nothing() {
        let mut bytes = header_bytes(A, B, VLAN).to_vec();
        bytes.extend([0, 5, 0x81, 0, 0, 6, 0x81, 0, 0, 7, 8, 0]);
        assert_eq!(payload(&bytes).0, 0, "three tags");
        for length in 0..bytes.len() {
            let cut = bytes.get(..length).unwrap();
            assert_eq!(payload(cut), (0, length));
            let mut packet = Packet::copied_into(Packet::default(), cut);
            push_tag(&mut packet, 1);
            pop_tag(&mut packet);
        }
    }
}
