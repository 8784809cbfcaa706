//! Fragmentation (RFC 791 s.3.2): an IPv4 packet that may be cut and does not fit becomes several that do.
//!
//! In comes a whole packet, which may itself be a fragment; out go headers and parts of its payload, in order. No
//! byte of payload is copied here.

use crate::verdict::DropReason;
use crate::wire::checksum;

/// The longest header.
const HEADER_BYTES_MAX: usize = 60;
const HEADER_BYTES: usize = 20;
const DONT_FRAGMENT: u16 = 0x4000;
const MORE: u16 = 0x2000;
const OFFSET: u16 = 0x1fff;
/// Fragments begin at multiples of this.
const UNIT: usize = 8;
/// The bit of an option's type that says that every fragment carries it.
const COPIED: u8 = 0x80;
const END_OF_OPTIONS: u8 = 0;
const NO_OPERATION: u8 = 1;

/// Cuts the IPv4 packet in `packet` to pieces of at most `mtu_bytes` and gives each to `emit`, as parts that follow one
/// another, which says whether it took the piece. Bytes behind the packet's total length are left out. Returns how many
/// pieces there were: one, and the packet as it is, where it fits.
///
/// Options go into the first piece; those that are marked as copied go into all.
///
/// # Errors
/// `Truncated` and `BadHeader` for what is no packet of IPv4, and when its end lies beyond 65,535 bytes of its datagram;
/// `TooBig` when it must not be cut, or the MTU has no room for its header and eight bytes; `DeviceQueueFull` when
/// `emit` refused a piece: those after it are not offered, since the datagram is lost.
pub fn cut(
    packet: &[u8],
    mtu_bytes: u16,
    emit: &mut impl FnMut(&[&[u8]]) -> bool,
) -> Result<usize, DropReason> {
    let (header, payload, flags_and_offset) = split(packet)?;
    let mtu = usize::from(mtu_bytes);
    if header.len() + payload.len() <= mtu {
        return if emit(&[header, payload]) { Ok(1) } else { Err(DropReason::DeviceQueueFull) };
    }
    if flags_and_offset & DONT_FRAGMENT != 0 {
        return Err(DropReason::TooBig);
    }
    let first = usize::from(flags_and_offset & OFFSET);
    if first * UNIT + payload.len() > usize::from(u16::MAX) {
        return Err(DropReason::BadHeader);
    }
    let (mut later, later_bytes) = later_header(header)?;
    let mut bytes = [0; HEADER_BYTES_MAX];
    let own = bytes.get_mut(..header.len()).ok_or(DropReason::BadHeader)?;
    own.copy_from_slice(header);
    let (mut length, mut rest, mut offset, mut pieces) = (header.len(), payload, first, 0);
    // Each turn takes at least eight bytes, so there are at most 8,192.
    while !rest.is_empty() {
        let room = mtu.saturating_sub(length);
        let is_last = rest.len() <= room;
        let size = if is_last { rest.len() } else { room / UNIT * UNIT };
        if size == 0 {
            return Err(DropReason::TooBig);
        }
        let (part, behind) = rest.split_at_checked(size).ok_or(DropReason::BadHeader)?;
        let more = if is_last { flags_and_offset & MORE } else { MORE };
        let own = bytes.get_mut(..length).ok_or(DropReason::BadHeader)?;
        // 65,535 at most, as has been checked; so is the sum of header and part, by the MTU.
        let place = u16::try_from(offset).unwrap_or(OFFSET);
        let total = u16::try_from(length + size).unwrap_or(u16::MAX);
        set_place(own, total, more | place);
        if !emit(&[own, part]) {
            return Err(DropReason::DeviceQueueFull);
        }
        pieces += 1;
        offset += size / UNIT;
        rest = behind;
        if pieces == 1 {
            core::mem::swap(&mut bytes, &mut later);
            length = later_bytes;
        }
    }
    Ok(pieces)
}

/// Header, payload, and the field of flags and offset of a packet.
fn split(packet: &[u8]) -> Result<(&[u8], &[u8], u16), DropReason> {
    let Some([first, _, a, b, _, _, c, d, ..]) = packet.first_chunk::<HEADER_BYTES>() else {
        return Err(DropReason::Truncated);
    };
    let header_bytes = usize::from(first & 0xf) * 4;
    let total = usize::from(u16::from_be_bytes([*a, *b]));
    if first >> 4 != 4 || header_bytes < HEADER_BYTES || total < header_bytes {
        return Err(DropReason::BadHeader);
    }
    let packet = packet.get(..total).ok_or(DropReason::Truncated)?;
    let (header, payload) = packet.split_at_checked(header_bytes).ok_or(DropReason::Truncated)?;
    Ok((header, payload, u16::from_be_bytes([*c, *d])))
}

/// The header of the pieces after the first: with the options that are copied, padded to four bytes; and its length.
fn later_header(header: &[u8]) -> Result<([u8; HEADER_BYTES_MAX], usize), DropReason> {
    let (fixed, mut options) = header.split_at_checked(HEADER_BYTES).ok_or(DropReason::Truncated)?;
    let mut bytes = [END_OF_OPTIONS; HEADER_BYTES_MAX];
    let mut length = HEADER_BYTES;
    for (place, byte) in bytes.iter_mut().zip(fixed) {
        *place = *byte;
    }
    while let Some((kind, behind)) = options.split_first() {
        let size = match *kind {
            END_OF_OPTIONS => break,
            NO_OPERATION => 1,
            _ => usize::from(*behind.first().ok_or(DropReason::BadHeader)?).max(2),
        };
        let (option, rest) = options.split_at_checked(size).ok_or(DropReason::BadHeader)?;
        if kind & COPIED != 0 {
            let place = bytes.get_mut(length..length + size).ok_or(DropReason::BadHeader)?;
            place.copy_from_slice(option);
            length += size;
        }
        options = rest;
    }
    length = length.next_multiple_of(4);
    if let Some(first) = bytes.first_mut() {
        // At most 15 words.
        *first = 0x40 | u8::try_from(length / 4).unwrap_or(5);
    }
    Ok((bytes, length))
}

/// Sets total length, flags and offset, and the checksum.
fn set_place(header: &mut [u8], total: u16, flags_and_offset: u16) {
    let put = |header: &mut [u8], at: usize, value: u16| {
        if let Some(place) = header.get_mut(at..).and_then(<[u8]>::first_chunk_mut) {
            *place = value.to_be_bytes();
        }
    };
    put(header, 2, total);
    put(header, 6, flags_and_offset);
    put(header, 10, 0);
    let sum = checksum::checksum(0, header);
    put(header, 10, sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use etherparse::Ipv4HeaderSlice;
    use proptest::prelude::*;

    /// A packet with right lengths and checksum.
    fn packet(options: &[u8], flags_and_offset: u16, payload: &[u8]) -> Vec<u8> {
        let mut header = vec![0x45, 0x2e, 0, 0, 0x12, 0x34, 0, 0, 61, 17, 0, 0, 192, 0, 2, 1, 10, 0, 0, 3];
        header.extend_from_slice(options);
        header[0] = 0x40 | u8::try_from(header.len() / 4).unwrap();
        let total = u16::try_from(header.len() + payload.len()).unwrap();
        set_place(&mut header, total, flags_and_offset);
        [&header, payload].concat()
    }

    fn pieces(packet: &[u8], mtu: u16) -> Result<Vec<Vec<u8>>, DropReason> {
        let mut pieces = Vec::new();
        let count = cut(packet, mtu, &mut |parts| {
            pieces.push(parts.concat());
            true
        })?;
        assert_eq!(count, pieces.len());
        Ok(pieces)
    }

    /// Joins pieces by the definition: payload bytes to their places. The flags of the last one are the whole's.
    fn joined(pieces: &[Vec<u8>]) -> (Vec<u8>, usize, bool) {
        let (mut bytes, mut filled, mut has_more) = (Vec::new(), Vec::new(), true);
        let mut start = usize::MAX;
        for piece in pieces {
            let header = Ipv4HeaderSlice::from_slice(piece).unwrap();
            assert_eq!(header.to_header().calc_header_checksum(), header.header_checksum());
            assert_eq!(usize::from(header.total_len()), piece.len());
            let at = usize::from(header.fragments_offset().value()) * 8;
            let payload = &piece[header.slice().len()..];
            start = start.min(at);
            let end = at + payload.len();
            bytes.resize(bytes.len().max(end), 0);
            filled.resize(filled.len().max(end), false);
            assert!(filled[at..end].iter().all(|is_filled| !is_filled), "no byte comes twice");
            filled[at..end].fill(true);
            bytes[at..end].copy_from_slice(payload);
            if end == bytes.len() {
                has_more = header.more_fragments();
            } else {
                assert!(header.more_fragments());
            }
        }
        assert!(filled[start..].iter().all(|is_filled| *is_filled));
        (bytes.split_off(start), start, has_more)
    }

    #[test]
    fn a_datagram_of_3000_bytes_is_cut_as_every_host_does() {
        let payload: Vec<u8> = (0..=255).cycle().take(3008).collect();
        let pieces = pieces(&packet(&[], 0, &payload), 1500).unwrap();
        let places: Vec<_> = pieces.iter().map(|piece| (piece.len(), &piece[..8])).collect();
        assert_eq!(
            places,
            [
                (1500, &[0x45, 0x2e, 5, 0xdc, 0x12, 0x34, 0x20, 0][..]),
                (1500, &[0x45, 0x2e, 5, 0xdc, 0x12, 0x34, 0x20, 0xb9]),
                (68, &[0x45, 0x2e, 0, 0x44, 0x12, 0x34, 0x01, 0x72]),
            ]
        );
    }

    #[test]
    fn only_copied_options_go_into_later_pieces() {
        // Record route (not copied), no operation, strict source route (copied), end.
        let options = [7, 7, 4, 1, 1, 1, 1, 1, 0x89, 3, 4, 0x94, 4, 0, 0, 0];
        let pieces = pieces(&packet(&options, 0, &[9; 200]), 100).unwrap();
        assert_eq!(pieces[0][20..36], options);
        for later in &pieces[1..] {
            assert_eq!(later[0], 0x47);
            assert_eq!(later[20..28], [0x89, 3, 4, 0x94, 4, 0, 0, 0]);
        }
    }

    #[test]
    fn what_can_not_be_cut_is_refused() {
        let large = packet(&[], 0, &[0; 1000]);
        assert_eq!(pieces(&packet(&[], DONT_FRAGMENT, &[0; 1000]), 600), Err(DropReason::TooBig));
        assert_eq!(pieces(&large, 27), Err(DropReason::TooBig));
        assert_eq!(pieces(&large, 0), Err(DropReason::TooBig));
        assert_eq!(pieces(&large[..900], 600), Err(DropReason::Truncated));
        assert_eq!(pieces(&large[..19], 600), Err(DropReason::Truncated));
        assert_eq!(pieces(&packet(&[], 0x1ff0, &[0; 1000]), 600), Err(DropReason::BadHeader));
        assert_eq!(pieces(&packet(&[7, 9, 4, 0], 0, &[0; 1000]), 600), Err(DropReason::BadHeader));
        assert_eq!(pieces(&packet(&[1, 1, 1, 7], 0, &[0; 1000]), 600), Err(DropReason::BadHeader));
        let mut not_v4 = large.clone();
        not_v4[0] = 0x65;
        assert_eq!(pieces(&not_v4, 600), Err(DropReason::BadHeader));
        let mut offered = 0;
        let refuses_the_second = &mut |_: &[&[u8]]| {
            offered += 1;
            offered < 2
        };
        assert_eq!(cut(&large, 300, refuses_the_second), Err(DropReason::DeviceQueueFull));
        assert_eq!(offered, 2);
    }

    proptest! {
        #[test]
        fn pieces_fit_and_make_the_packet_again(
            payload in proptest::collection::vec(any::<u8>(), 1..5000),
            options in prop_oneof![
                Just(vec![]),
                Just(vec![1, 1, 0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                Just(vec![0x94, 4, 0, 0, 7, 3, 4, 0]),
            ],
            offset in 0_u16..=0x1fff, has_more: bool, mtu in 68_u16..1600,
        ) {
            // What has others behind it ends at a multiple of eight.
            let whole = if has_more { payload.len() / 8 * 8 } else { payload.len() };
            prop_assume!(whole > 0 && usize::from(offset) * 8 + whole <= 65_535);
            let flags = if has_more { MORE } else { 0 } | offset;
            let mut original = packet(&options, flags, &payload[..whole]);
            original.extend_from_slice(b"padding");
            let pieces = pieces(&original, mtu).unwrap();
            prop_assert!(pieces.iter().all(|piece| piece.len() <= usize::from(mtu)));
            let (bytes, start, more) = joined(&pieces);
            prop_assert_eq!(bytes, &payload[..whole]);
            prop_assert_eq!((start, more), (usize::from(offset) * 8, has_more));
            // All but the lengths, places and checksum of the fixed header stay.
            for piece in &pieces {
                prop_assert_eq!((&piece[4..6], &piece[8..10]), (&original[4..6], &original[8..10]));
                prop_assert_eq!(&piece[12..20], &original[12..20]);
            }
        }

        #[test]
        fn bytes_of_any_kind_are_cut_or_refused(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..300), mtu in 0_u16..200, is_v4: bool,
        ) {
            if let Some(first) = bytes.first_mut() && is_v4 {
                *first = 0x40 | (*first & 0xf);
            }
            let _ = pieces(&bytes, mtu);
        }
    }
}
