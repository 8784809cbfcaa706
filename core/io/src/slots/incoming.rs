//! The way into a batch: what was read becomes packets that the engine may see.
//!
//! In go buffers into which something was read; out come packets of the batch, each with its tag where it was, and where
//! whole packets are wanted cut and with its checksum. What finds no room waits for the next batch, in order.

use std::ops::Range;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::{BATCH_MAX, HEADROOM_BYTES};

use super::{BeingCut, Filled, Slots};
use crate::buffers::{
    Buffer, FRAME_BYTES_MAX, FRAME_RANGE, FRONT_BYTES, PACKET_BYTES_MAX, READ_RANGE, SEND_BUFFERS,
    engine_part,
};
use crate::offload::{HEADER_BYTES, VirtioNetHeader};
use crate::segment::{self, Cut};
use crate::sys::packet::{Arrived, VlanTag};

/// The most segments of one batch: half of the buffers that no read takes, so that the engine finds some for packets of
/// its own.
const SEGMENTS_MAX: usize = SEND_BUFFERS / 2;

impl Slots {
    /// Takes in a buffer into which `read_bytes` bytes were read from the TUN `interface`, header included.
    ///
    /// Gives the buffer back when that is not a packet.
    pub(crate) fn fill(&mut self, buffer: Buffer, interface: usize, read_bytes: usize) -> Option<Buffer> {
        let read_bytes = read_bytes.min(HEADER_BYTES + PACKET_BYTES_MAX);
        self.put_in(buffer, interface, READ_RANGE.start..READ_RANGE.start + read_bytes, None)
    }

    /// Takes in a buffer in whose range for frames a frame of the Ethernet interface `interface` was read.
    ///
    /// Gives the buffer back when that is not a whole frame.
    pub(crate) fn fill_frame(
        &mut self,
        buffer: Buffer,
        interface: usize,
        arrived: Arrived,
    ) -> Option<Buffer> {
        let Arrived { length_bytes, is_truncated, vlan } = arrived;
        if is_truncated || length_bytes > HEADER_BYTES + FRAME_BYTES_MAX {
            self.counters.read_errors += 1;
            return Some(buffer);
        }
        self.put_in(buffer, interface, FRAME_RANGE.start..FRAME_RANGE.start + length_bytes, vlan)
    }

    /// Puts header and packet, which lie at `place` of the whole buffer, into the batch.
    fn put_in(
        &mut self,
        mut buffer: Buffer,
        interface: usize,
        place: Range<usize>,
        vlan: Option<VlanTag>,
    ) -> Option<Buffer> {
        let bytes = self.pool.bytes_mut(&mut buffer);
        let read = bytes.get_mut(place.clone()).and_then(|read| read.split_first_chunk_mut());
        let (Some((header, packet)), Ok(index)) = (read, u16::try_from(interface)) else {
            self.counters.read_errors += 1;
            return Some(buffer);
        };
        let mut header = VirtioNetHeader::parse(*header);
        let mut length_bytes = packet.len();
        let mut start = engine_start(place.start + HEADER_BYTES);
        if let Some(tag) = vlan {
            let Some(tagged) = put_back_tag(engine_part(bytes), start, length_bytes, header, tag) else {
                self.counters.read_errors += 1;
                return Some(buffer);
            };
            (start, length_bytes, header) = (start - TAG_BYTES, length_bytes + TAG_BYTES, tagged);
        }
        self.errors_in_row = 0;
        self.counters.packets_read += 1;
        self.counters.bytes_read += length_bytes as u64;
        let whole =
            Filled { buffer: Some(buffer), interface: InterfaceId(index), start, length_bytes, header };
        if self.is_cutting() {
            self.behind.push_back(whole);
            return None;
        }
        self.take_in(whole)
    }

    /// Puts a packet into the batch, finished where that is wanted. Gives the buffer back where that is not possible.
    fn take_in(&mut self, packet: Filled) -> Option<Buffer> {
        if self.takes_whole.get(packet.interface.index()).copied().unwrap_or(false) {
            return self.finish(packet);
        }
        self.filled.push(packet);
        None
    }

    /// Does what the sender of a packet has left undone. Gives the buffer back where that is not possible.
    fn finish(&mut self, mut whole: Filled) -> Option<Buffer> {
        let header = std::mem::replace(&mut whole.header, VirtioNetHeader::WHOLE);
        let mut buffer = whole.buffer.take()?;
        let part = engine_part(self.pool.bytes_mut(&mut buffer));
        let packet = part.get_mut(whole.start..whole.start + whole.length_bytes).unwrap_or_default();
        if header.offload().segment_bytes.is_none() {
            let done = segment::complete(header, packet);
            return self.keep_or_give_up(done, buffer, |slots, buffer| {
                slots.filled.push(Filled { buffer: Some(buffer), ..whole });
            });
        }
        let cut = Cut::of(header, packet);
        self.keep_or_give_up(cut, buffer, |slots, buffer| {
            slots.counters.packets_cut += 1;
            // What is left of it fills the next batches; nothing is read before it is done.
            slots.being_cut =
                cut.map(|cut| BeingCut { whole: Filled { buffer: Some(buffer), ..whole }, cut });
            slots.cut_on();
        })
    }

    /// Goes on with a buffer whose packet is sound, or counts the packet and gives the buffer back.
    fn keep_or_give_up<T>(
        &mut self,
        sound: Option<T>,
        buffer: Buffer,
        keep: impl FnOnce(&mut Self, Buffer),
    ) -> Option<Buffer> {
        if sound.is_none() {
            self.counters.read_errors += 1;
            return Some(buffer);
        }
        keep(self, buffer);
        None
    }

    /// Has frames of this interface cut, and their checksums completed, before the engine sees them.
    pub(crate) fn take_whole(&mut self, interface: usize) {
        if let Some(takes) = self.takes_whole.get_mut(interface) {
            *takes = true;
        }
    }

    /// Whether what was read has not all found room in a batch.
    pub(crate) fn is_cutting(&self) -> bool {
        self.being_cut.is_some() || !self.behind.is_empty()
    }

    /// Whether that is so, and buffers for segments are there.
    pub(crate) fn can_go_on(&self) -> bool {
        self.is_cutting() && self.pool.free_count() > 0
    }

    /// Begins the batch with what is left of the last one.
    pub(crate) fn go_on(&mut self) {
        self.cut_on();
        while self.being_cut.is_none() && self.filled.len() < BATCH_MAX {
            let Some(next) = self.behind.pop_front() else { return };
            let unused = self.take_in(next);
            self.spare.extend(unused);
        }
    }

    /// Fills the batch with segments of the super-packet that is being cut.
    fn cut_on(&mut self) {
        let Some(mut being) = self.being_cut.take() else { return };
        while !being.cut.is_done() && self.filled.len() < BATCH_MAX && self.segments < SEGMENTS_MAX {
            let (Some(mut target), Some(source)) = (self.pool.take(), &mut being.whole.buffer) else { break };
            let Filled { interface, start, length_bytes, .. } = being.whole;
            let (from, to) = self.pool.pair(source, &mut target);
            let packet = from.get(FRONT_BYTES..).and_then(|part| part.get(start..start + length_bytes));
            let place = engine_part(to).get_mut(start..).unwrap_or_default();
            let Some(length_bytes) = being.cut.next(packet.unwrap_or_default(), place) else {
                debug_assert!(false, "a segment is no longer than what it is cut from");
                self.pool.give(target);
                self.counters.read_errors += 1;
                self.spare.extend(being.whole.buffer.take());
                return;
            };
            let (buffer, header) = (Some(target), VirtioNetHeader::WHOLE);
            self.filled.push(Filled { buffer, interface, start, length_bytes, header });
            self.segments += 1;
        }
        if being.cut.is_done() {
            self.spare.extend(being.whole.buffer.take());
        } else {
            self.being_cut = Some(being);
        }
    }
}

/// Where a place in the whole buffer lies in the engine's part: what is read there first is a header, at the end of the
/// headroom.
const fn engine_start(place: usize) -> usize {
    place + HEADROOM_BYTES - (READ_RANGE.start + HEADER_BYTES)
}

/// Bytes of a VLAN tag.
const TAG_BYTES: usize = 4;

/// Puts a VLAN tag that the kernel has taken off back behind the addresses of the frame of `length_bytes` bytes at
/// `start`, which begins that much earlier then. Gives the header that describes it; nothing where it has no room.
fn put_back_tag(
    part: &mut [u8],
    start: usize,
    length_bytes: usize,
    header: VirtioNetHeader,
    tag: VlanTag,
) -> Option<VirtioNetHeader> {
    /// Two addresses of six bytes.
    const ADDRESSES_BYTES: usize = 12;
    let early = start.checked_sub(TAG_BYTES)?;
    let frame = part.get_mut(early..start + length_bytes)?;
    frame.get(TAG_BYTES..TAG_BYTES + ADDRESSES_BYTES)?;
    frame.copy_within(TAG_BYTES..TAG_BYTES + ADDRESSES_BYTES, 0);
    let place = frame.get_mut(ADDRESSES_BYTES..)?.first_chunk_mut::<TAG_BYTES>()?;
    let ([k0, k1], [c0, c1]) = (tag.kind.to_be_bytes(), tag.control.to_be_bytes());
    *place = [k0, k1, c0, c1];
    header.moved(start, early)
}

#[cfg(test)]
mod tests {
    use evenkeel_engine::device::Offload;

    use super::super::tests::leave;
    use super::*;
    use crate::buffers::{BUFFERS, Pool};

    /// A frame with this header, as it is read from interface 1.
    fn slots_with_frame(header: VirtioNetHeader, frame: &[u8], arrived: Arrived) -> Slots {
        let mut slots = Slots::new(2).unwrap();
        let mut buffer = slots.pool.take().unwrap();
        let bytes = &mut slots.pool.bytes_mut(&mut buffer)[FRAME_RANGE];
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        bytes[HEADER_BYTES..][..frame.len()].copy_from_slice(frame);
        if let Some(unused) = slots.fill_frame(buffer, 1, arrived) {
            slots.pool.give(unused);
        }
        slots
    }

    #[test]
    fn a_frame_is_where_its_ip_packet_is_aligned_and_leaves_as_a_packet_of_a_tun() {
        let header =
            VirtioNetHeader { flags: 1, checksum_start: 34, checksum_offset: 6, ..VirtioNetHeader::WHOLE };
        let frame = b"to....from..\x08\0packet";
        let arrived = Arrived { length_bytes: HEADER_BYTES + frame.len(), is_truncated: false, vlan: None };
        let mut slots = slots_with_frame(header, frame, arrived);
        let packet = slots.packet(0);
        assert_eq!(&packet.buffer[packet.range.clone()], frame);
        assert!(packet.range.start >= HEADROOM_BYTES);
        let inner = packet.range.start + 14..packet.range.end;
        assert!(slots.forward(0, InterfaceId(0), &inner));
        let as_ip = VirtioNetHeader { checksum_start: 20, ..header };
        assert_eq!(leave(&mut slots), [(0, [&as_ip.to_bytes()[..], b"packet"].concat())]);
    }

    #[test]
    fn a_tag_is_put_back_where_it_was() {
        let header =
            VirtioNetHeader { flags: 1, checksum_start: 34, header_bytes: 54, ..VirtioNetHeader::WHOLE };
        let frame = b"to....from..\x08\0packet";
        let vlan = Some(VlanTag { kind: 0x8100, control: 0x2007 });
        let arrived = Arrived { length_bytes: HEADER_BYTES + frame.len(), is_truncated: false, vlan };
        let mut slots = slots_with_frame(header, frame, arrived);
        let packet = slots.packet(0);
        let (range, tagged) = (packet.range.clone(), b"to....from..\x81\0\x20\x07\x08\0packet");
        assert_eq!(&packet.buffer[range.clone()], tagged);
        assert_eq!(slots.counters.bytes_read, tagged.len() as u64);
        assert!(slots.forward(0, InterfaceId(0), &range));
        let moved = VirtioNetHeader { checksum_start: 38, header_bytes: 58, ..header };
        assert_eq!(leave(&mut slots), [(0, [&moved.to_bytes()[..], tagged].concat())]);
    }

    /// A frame with a super-packet of UDP, in segments of ten bytes.
    fn super_frame(segments: usize) -> (VirtioNetHeader, Vec<u8>) {
        let ip = [0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
        let frame = [&[2; 12][..], &[8, 0], &ip, &[0; 8], &vec![7; 10 * segments]].concat();
        let header = VirtioNetHeader {
            flags: 1,
            gso_type: 5,
            header_bytes: 42,
            segment_bytes: 10,
            checksum_start: 34,
            checksum_offset: 6,
        };
        (header, frame)
    }

    #[test]
    fn a_super_packet_fills_several_batches_before_anything_else_is_read() {
        let (header, frame) = super_frame(2 * SEGMENTS_MAX + 5);
        let arrived = Arrived { length_bytes: HEADER_BYTES + frame.len(), is_truncated: false, vlan: None };
        let mut slots = Slots::new(2).unwrap();
        slots.take_whole(1);
        let mut buffer = slots.pool.take().unwrap();
        let bytes = &mut slots.pool.bytes_mut(&mut buffer)[FRAME_RANGE];
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        bytes[HEADER_BYTES..][..frame.len()].copy_from_slice(&frame);
        assert!(slots.fill_frame(buffer, 1, arrived).is_none());
        for (count, is_over) in [(SEGMENTS_MAX, false), (SEGMENTS_MAX, false), (5, true)] {
            assert_eq!((slots.count_batch(), slots.can_go_on()), (count, !is_over));
            let packet = slots.packet(0);
            assert_eq!((packet.range.len(), packet.offload), (52, Offload::default()));
            slots.clear(Pool::give);
            slots.go_on();
        }
        assert_eq!(slots.count_batch(), 0);
        assert_eq!(slots.pool.free_count(), BUFFERS);
        assert_eq!((slots.counters.packets_read, slots.counters.packets_cut), (1, 1));
    }

    #[test]
    fn what_comes_behind_a_super_packet_stays_behind_it() {
        let (header, frame) = super_frame(SEGMENTS_MAX + 3);
        let mut slots = Slots::new(2).unwrap();
        slots.take_whole(1);
        let small = frame[..52].to_vec();
        let plain = VirtioNetHeader::WHOLE;
        for (header, frame) in [(header, &frame), (plain, &small), (header, &frame), (plain, &small)] {
            let mut buffer = slots.pool.take().unwrap();
            let bytes = &mut slots.pool.bytes_mut(&mut buffer)[FRAME_RANGE];
            bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
            bytes[HEADER_BYTES..][..frame.len()].copy_from_slice(frame);
            let length_bytes = HEADER_BYTES + frame.len();
            let arrived = Arrived { length_bytes, is_truncated: false, vlan: None };
            assert!(slots.fill_frame(buffer, 1, arrived).is_none());
        }
        // Segments have lengths and checksums of their own; the small ones are as they were sent.
        let mut batches = Vec::new();
        while slots.is_cutting() || slots.count_batch() > 0 {
            let is_small = |slots: &mut Slots, slot: usize| {
                let packet = slots.packet(slot);
                packet.buffer[packet.range] == small[..]
            };
            let count = slots.count_batch();
            batches.push((count, (0..count).filter(|slot| is_small(&mut slots, *slot)).collect::<Vec<_>>()));
            slots.clear(Pool::give);
            slots.go_on();
        }
        let rest = SEGMENTS_MAX - 3;
        assert_eq!(batches, [(SEGMENTS_MAX, vec![]), (4 + rest, vec![3]), (7, vec![6])]);
        assert_eq!(slots.pool.free_count(), BUFFERS);
    }

    #[test]
    fn a_super_packet_that_is_not_what_its_header_says_is_counted() {
        let (header, frame) = super_frame(3);
        let header = VirtioNetHeader { gso_type: 1, ..header };
        let arrived = Arrived { length_bytes: HEADER_BYTES + frame.len(), is_truncated: false, vlan: None };
        let mut slots = Slots::new(2).unwrap();
        slots.take_whole(1);
        let mut buffer = slots.pool.take().unwrap();
        let bytes = &mut slots.pool.bytes_mut(&mut buffer)[FRAME_RANGE];
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        assert!(slots.fill_frame(buffer, 1, arrived).is_some());
        assert_eq!((slots.counters.read_errors, slots.count_batch()), (1, 0));
    }

    #[test]
    fn what_is_no_whole_frame_is_counted() {
        let vlan = Some(VlanTag { kind: 0x8100, control: 7 });
        for (length_bytes, is_truncated, vlan) in [
            (HEADER_BYTES - 1, false, None),
            (HEADER_BYTES + 60, true, None),
            (HEADER_BYTES + FRAME_BYTES_MAX + 1, false, None),
            (HEADER_BYTES + 11, false, vlan),
        ] {
            let arrived = Arrived { length_bytes, is_truncated, vlan };
            let slots = slots_with_frame(VirtioNetHeader::WHOLE, b"", arrived);
            assert_eq!((slots.counters.read_errors, slots.filled.len()), (1, 0), "{arrived:?}");
            assert_eq!(slots.pool.free_count(), BUFFERS);
        }
    }
}
