//! The virtio-net header that stands in front of each packet on a TUN with offloads.
//!
//! In go its 12 bytes, out comes what the engine needs to know ([`Offload`]); the other way round the
//! header that a changed packet leaves with. Nothing here looks into the packet.
//!
//! The header says what the sender has left undone: the checksum from `checksum_start` on, and the cutting
//! of a super-packet into segments of `segment_bytes`. NAT touches neither, so a header passes through
//! unchanged, but for its offsets where the packet has grown or shrunk at the front.

use evenkeel_engine::device::Offload;

/// Length of the header on the wire: with the count of merged buffers, as TUNSETVNETHDRSZ is told.
pub const HEADER_BYTES: usize = 12;

/// The checksum from `checksum_start` on is open.
const NEEDS_CSUM: u8 = 1;
/// The sender vouches for the checksum.
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
/// Set beside the kind when a segment carries ECN's congestion mark.
const GSO_ECN: u8 = 0x80;

/// The header, in the order of the wire; numbers are little endian there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtioNetHeader {
    /// Bit 0: the checksum is open. Bit 1: the checksum was verified.
    pub flags: u8,
    /// Kind of super-packet: 0 none, 1 TCP over IPv4, 3 UDP fragments, 4 TCP over IPv6, 5 UDP; bit 7 ECN.
    pub gso_type: u8,
    /// Bytes of all headers in front of the payload.
    pub header_bytes: u16,
    /// Bytes of payload in each segment of a super-packet.
    pub segment_bytes: u16,
    /// Where the checksummed part begins, in bytes from the start of the packet.
    pub checksum_start: u16,
    /// Where the checksum lies, in bytes from `checksum_start`.
    pub checksum_offset: u16,
}

impl VirtioNetHeader {
    /// The header of a packet in which nothing is left undone.
    pub const WHOLE: Self = Self {
        flags: 0,
        gso_type: GSO_NONE,
        header_bytes: 0,
        segment_bytes: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Reads the header. Every value of the bytes is one; the count of merged buffers is not kept,
    /// since on a TUN a packet is always in one.
    #[must_use]
    pub const fn parse(bytes: [u8; HEADER_BYTES]) -> Self {
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1, _, _] = bytes;
        Self {
            flags,
            gso_type,
            header_bytes: u16::from_le_bytes([h0, h1]),
            segment_bytes: u16::from_le_bytes([s0, s1]),
            checksum_start: u16::from_le_bytes([c0, c1]),
            checksum_offset: u16::from_le_bytes([o0, o1]),
        }
    }

    /// The header as bytes; the count of merged buffers is 0.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let [h0, h1] = self.header_bytes.to_le_bytes();
        let [s0, s1] = self.segment_bytes.to_le_bytes();
        let [c0, c1] = self.checksum_start.to_le_bytes();
        let [o0, o1] = self.checksum_offset.to_le_bytes();
        [self.flags, self.gso_type, h0, h1, s0, s1, c0, c1, o0, o1, 0, 0]
    }

    /// What the engine is told of it.
    #[must_use]
    pub const fn offload(self) -> Offload {
        let is_super = self.gso_type & !GSO_ECN != GSO_NONE && self.segment_bytes != 0;
        Offload {
            needs_checksum: self.flags & NEEDS_CSUM != 0,
            segment_bytes: if is_super { Some(self.segment_bytes) } else { None },
        }
    }

    /// Whether the sender vouches for the checksum.
    #[must_use]
    pub const fn is_verified(self) -> bool {
        self.flags & DATA_VALID != 0
    }

    /// The header of the same packet after its start has moved from `old_start` to `new_start` in the
    /// buffer: a header was put in front (smaller) or taken off (larger).
    ///
    /// Nothing if that cuts into what the offsets point at, or they do not fit any more.
    #[must_use]
    pub fn moved(self, old_start: usize, new_start: usize) -> Option<Self> {
        if old_start == new_start || (self.flags & NEEDS_CSUM == 0 && self.gso_type == GSO_NONE) {
            return Some(self);
        }
        let shifted = |offset: u16| -> Option<u16> {
            let from_buffer = usize::from(offset) + old_start;
            u16::try_from(from_buffer.checked_sub(new_start)?).ok()
        };
        let checksum_start =
            if self.flags & NEEDS_CSUM == 0 { self.checksum_start } else { shifted(self.checksum_start)? };
        let header_bytes = if self.header_bytes == 0 { 0 } else { shifted(self.header_bytes)? };
        // The inner sum no longer covers the outer packet: what was verified was the old one.
        Some(Self { flags: self.flags & !DATA_VALID, header_bytes, checksum_start, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A TCP super-packet over IPv4 as Linux hands it over: 20 + 32 bytes of headers.
    const TSO: VirtioNetHeader = VirtioNetHeader {
        flags: NEEDS_CSUM,
        gso_type: 1,
        header_bytes: 52,
        segment_bytes: 1448,
        checksum_start: 20,
        checksum_offset: 16,
    };

    #[test]
    fn a_header_survives_the_wire() {
        let bytes = TSO.to_bytes();
        assert_eq!(bytes, [1, 1, 52, 0, 0xa8, 0x05, 20, 0, 16, 0, 0, 0]);
        assert_eq!(VirtioNetHeader::parse(bytes), TSO);
        assert_eq!(VirtioNetHeader::parse([0; HEADER_BYTES]), VirtioNetHeader::WHOLE);
    }

    #[test]
    fn each_field_has_its_own_place() {
        for place in 0..10 {
            let mut bytes = [0; HEADER_BYTES];
            bytes[place] = 0xa5;
            assert_eq!(VirtioNetHeader::parse(bytes).to_bytes(), bytes, "byte {place}");
        }
    }

    #[test]
    fn the_engine_learns_of_open_checksums_and_super_packets() {
        let offload = |flags, gso_type, segment_bytes| {
            VirtioNetHeader { flags, gso_type, segment_bytes, ..VirtioNetHeader::WHOLE }.offload()
        };
        assert_eq!(TSO.offload(), Offload { needs_checksum: true, segment_bytes: Some(1448) });
        assert_eq!(VirtioNetHeader::WHOLE.offload(), Offload::default());
        assert_eq!(offload(DATA_VALID, 0, 0), Offload::default());
        assert_eq!(offload(0, 5, 1200).segment_bytes, Some(1200));
        assert_eq!(offload(0, 4 | GSO_ECN, 1200).segment_bytes, Some(1200));
        assert_eq!(offload(0, GSO_ECN, 1200).segment_bytes, None, "ECN alone is no kind");
        assert_eq!(offload(0, 1, 0).segment_bytes, None, "a super-packet of empty segments is none");
    }

    #[test]
    fn offsets_follow_a_header_that_was_put_in_front_or_taken_off() {
        let grown = TSO.moved(64, 44).unwrap();
        assert_eq!((grown.checksum_start, grown.header_bytes), (40, 72));
        assert_eq!((grown.checksum_offset, grown.segment_bytes), (16, 1448));
        assert_eq!(grown.moved(44, 64).unwrap(), TSO);
        assert_eq!(TSO.moved(64, 64).unwrap(), TSO);
    }

    #[test]
    fn a_packet_can_not_lose_what_its_header_points_at() {
        assert_eq!(TSO.moved(64, 85), None);
        assert!(TSO.moved(64, 84).is_some());
        let far = VirtioNetHeader { checksum_start: u16::MAX, ..TSO };
        assert_eq!(far.moved(64, 63), None);
    }

    #[test]
    fn a_whole_packet_moves_without_change() {
        let valid = VirtioNetHeader { flags: DATA_VALID, ..VirtioNetHeader::WHOLE };
        assert_eq!(valid.moved(64, 0), Some(valid));
        assert_eq!(valid.moved(64, 200), Some(valid));
    }
}
