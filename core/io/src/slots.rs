//! One batch: the packets that the engine is looking at, and those that wait to leave.
//!
//! A backend puts received buffers in; the engine edits them and names those that leave; the backend
//! takes those out and gives every other one back. What both backends count is counted here, so that
//! it means the same. No system call is made here.

mod incoming;

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::{BATCH_MAX, HEADROOM_BYTES, Offload, PacketBuffer};
use rustix::io::Errno;

use crate::buffers::{BUFFERS, Buffer, Pool, engine_part, leaving_part};
use crate::coalesce::{self, Coalescer, HEADERS_BYTES, Reading};
use crate::offload::{HEADER_BYTES, VirtioNetHeader};
use crate::port::Port;
use crate::segment::Cut;

/// The most packets that leave at once: a whole batch, and as many born in the engine.
const OUTGOING_MAX: usize = 2 * BATCH_MAX;

/// Errors of reading in a row, over all interfaces, after which one is taken for gone: an interface that can not be
/// read must not keep a processor busy for ever.
const ERRORS_IN_ROW_MAX: u32 = 10_000;

/// What a device counts. All of it only grows; bytes are those of packets, without virtio-net headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    /// Packets read.
    pub packets_read: u64,
    /// Bytes of the packets read.
    pub bytes_read: u64,
    /// Reads that gave less than a header or more than a buffer holds, or failed. An interface that is gone is
    /// counted once.
    pub read_errors: u64,
    /// Packets written.
    pub packets_written: u64,
    /// Bytes of the packets written.
    pub bytes_written: u64,
    /// Packets that the kernel did not take, other than for a full queue: the interface is down, say.
    pub write_errors: u64,
    /// Datagrams that left as a part of an earlier one's super-packet. They are among the packets written.
    pub packets_joined: u64,
    /// Packets of which the kernel took only a part.
    pub short_writes: u64,
    /// Packets that found the kernel's queue or our own full.
    pub queue_full: u64,
    /// Packets that could not leave as asked: no such interface, or a header that can not be adjusted.
    pub refused: u64,
    /// Times that the kernel had packets, but no buffer was free to take them.
    pub buffers_exhausted: u64,
    /// Super-packets that were cut before the engine saw them. Each is one of the packets read.
    pub packets_cut: u64,
    /// Times that an Ethernet interface has gone down. It is read on when it is up again.
    pub links_down: u64,
    /// Frames that found the queue of an Ethernet interface towards us full, by the kernel's count.
    pub queue_overflows: u64,
    /// Times that the completion queue had overflowed. Nothing is lost by it.
    pub completion_overflows: u64,
    /// Batches that held at least one packet.
    pub batches: u64,
}

/// A packet that the engine is looking at.
#[derive(Debug)]
struct Filled {
    /// The packet's buffer, until it is forwarded.
    buffer: Option<Buffer>,
    interface: InterfaceId,
    /// Where the packet begins in the engine's part of the buffer.
    start: usize,
    length_bytes: usize,
    header: VirtioNetHeader,
}

/// A super-packet that is being cut.
#[derive(Debug)]
struct BeingCut {
    whole: Filled,
    cut: Cut,
}

/// A packet that waits to leave.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The right to its bytes.
    pub(crate) buffer: Buffer,
    /// By which interface, as an index.
    pub(crate) interface: usize,
    /// Header and packet, as positions in the whole buffer.
    pub(crate) range: Range<usize>,
    /// How many packets it is: more than one for datagrams that were joined.
    pub(crate) packets: u8,
    /// Payload of the first of them, in bytes, where there are several.
    segment_bytes: u16,
}

/// The batch and the buffers.
#[derive(Debug)]
pub(crate) struct Slots {
    pub(crate) pool: Pool,
    pub(crate) counters: DeviceCounters,
    /// An interface that is gone, and what it said: told to whoever waits next.
    pub(crate) gone: Option<(usize, Errno)>,
    filled: Vec<Filled>,
    outgoing: Vec<Outgoing>,
    /// Buffers whose packets have joined others.
    spare: Vec<Buffer>,
    coalescer: Coalescer,
    /// By interface, whether it takes super-packets of datagrams.
    takes_super_datagrams: Vec<bool>,
    /// By interface, whether its frames are finished before the engine sees them.
    takes_whole: Vec<bool>,
    /// What the rest of the batch, and the next ones, begin with.
    being_cut: Option<BeingCut>,
    /// What has come behind it, in order. Each has a buffer, so that they are no more than those.
    behind: VecDeque<Filled>,
    /// Segments that were cut off for this batch.
    segments: usize,
    interfaces: usize,
    /// Errors of reading since the last packet.
    errors_in_row: u32,
}

impl Slots {
    /// Empty, with all buffers free.
    ///
    /// # Errors
    ///
    /// When there is no address space for the buffers.
    pub(crate) fn new(interfaces: usize) -> io::Result<Self> {
        Ok(Self {
            pool: Pool::new()?,
            counters: DeviceCounters::default(),
            gone: None,
            filled: Vec::with_capacity(BATCH_MAX),
            outgoing: Vec::with_capacity(OUTGOING_MAX),
            spare: Vec::with_capacity(OUTGOING_MAX),
            coalescer: Coalescer::new(),
            takes_super_datagrams: vec![false; interfaces],
            takes_whole: vec![false; interfaces],
            being_cut: None,
            behind: VecDeque::with_capacity(BUFFERS),
            segments: 0,
            interfaces,
            errors_in_row: 0,
        })
    }

    /// Whether the batch takes no more packets.
    pub(crate) fn is_full(&self) -> bool {
        self.filled.len() >= BATCH_MAX
    }

    /// Counts the batch when it holds something, and says how many packets that are.
    pub(crate) fn count_batch(&mut self) -> usize {
        self.counters.batches += u64::from(!self.filled.is_empty());
        self.filled.len()
    }

    /// The packet in `slot`; an empty one if nothing is there.
    pub(crate) fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let Some(Filled { buffer: Some(buffer), interface, start, length_bytes, header }) =
            self.filled.get_mut(slot)
        else {
            debug_assert!(false, "slot {slot} is not filled");
            let interface = InterfaceId(0);
            return PacketBuffer { interface, buffer: &mut [], range: 0..0, offload: Offload::default() };
        };
        PacketBuffer {
            interface: *interface,
            buffer: engine_part(self.pool.bytes_mut(buffer)),
            range: *start..*start + *length_bytes,
            offload: header.offload(),
        }
    }

    /// Queues the packet in `slot`, which lies at `range` now, to leave by `interface`.
    pub(crate) fn forward(&mut self, slot: usize, interface: InterfaceId, range: &Range<usize>) -> bool {
        let taken = self.take_forwarded(slot, interface, range);
        if let Some(outgoing) = taken {
            self.outgoing.push(outgoing);
            return true;
        }
        self.counters.refused += 1;
        false
    }

    fn take_forwarded(
        &mut self,
        slot: usize,
        interface: InterfaceId,
        range: &Range<usize>,
    ) -> Option<Outgoing> {
        let leaving = leaving_part(range)?;
        let filled = self.filled.get_mut(slot)?;
        if interface.index() >= self.interfaces {
            return None;
        }
        let header = filled.header.moved(filled.start, range.start)?;
        let mut buffer = filled.buffer.take()?;
        write_header(self.pool.bytes_mut(&mut buffer), leaving.start, header);
        Some(Outgoing { buffer, interface: interface.index(), range: leaving, packets: 1, segment_bytes: 0 })
    }

    /// Queues a copy of `packet` to leave by `interface`.
    pub(crate) fn send(&mut self, interface: InterfaceId, packet: &[u8]) -> bool {
        let leaving = leaving_part(&(HEADROOM_BYTES..HEADROOM_BYTES + packet.len()));
        let (Some(range), true) = (leaving, interface.index() < self.interfaces) else {
            self.counters.refused += 1;
            return false;
        };
        let has_room = self.outgoing.len() < OUTGOING_MAX;
        let Some(mut buffer) = has_room.then(|| self.pool.take()).flatten() else {
            self.counters.queue_full += 1;
            return false;
        };
        let bytes = self.pool.bytes_mut(&mut buffer);
        write_header(bytes, range.start, VirtioNetHeader::WHOLE);
        let place = engine_part(bytes).get_mut(HEADROOM_BYTES..HEADROOM_BYTES + packet.len());
        debug_assert!(place.is_some(), "what leaves is within the engine's part");
        if let Some(place) = place {
            place.copy_from_slice(packet);
        }
        let interface = interface.index();
        self.outgoing.push(Outgoing { buffer, interface, range, packets: 1, segment_bytes: 0 });
        true
    }

    /// Allows datagrams that leave by `interface` to be joined to super-packets.
    pub(crate) fn allow_super_datagrams(&mut self, interface: usize) {
        if let Some(takes) = self.takes_super_datagrams.get_mut(interface) {
            *takes = true;
        }
    }

    /// Joins datagrams that leave: the kernel cuts them again. See [`crate::coalesce`].
    pub(crate) fn coalesce(&mut self) {
        if self.outgoing.len() < 2 {
            return;
        }
        self.coalescer.clear();
        let mut kept = 0;
        for place in 0..self.outgoing.len() {
            if !self.joins_earlier(place, kept) {
                self.outgoing.swap(kept, place);
                kept += 1;
            }
        }
        for joined in self.outgoing.drain(kept..) {
            self.spare.push(joined.buffer);
        }
        for outgoing in self.outgoing.iter_mut().filter(|outgoing| outgoing.packets > 1) {
            let whole = self.pool.bytes_mut(&mut outgoing.buffer);
            let packet = whole.get_mut(outgoing.range.start + HEADER_BYTES..outgoing.range.end);
            let header = coalesce::seal(packet.unwrap_or_default(), outgoing.segment_bytes);
            write_header(whole, outgoing.range.start, header);
        }
    }

    /// Whether the packet at `place` has joined one of the first `kept`; if not, it is the next of those.
    fn joins_earlier(&mut self, place: usize, kept: usize) -> bool {
        let Self { outgoing, coalescer, pool, counters, .. } = self;
        let Some((earlier, Some(last))) =
            outgoing.split_at_mut_checked(place).map(|(a, b)| (a, b.first_mut()))
        else {
            return false;
        };
        let interface = last.interface;
        if !self.takes_super_datagrams.get(interface).copied().unwrap_or(false) {
            return false;
        }
        let (header, packet) = parts(pool, last);
        let datagram = match coalesce::read(header, packet) {
            Reading::Other => return false,
            Reading::Unclear => {
                coalescer.stop_all();
                return false;
            }
            Reading::Alone(ends) => {
                coalescer.stop(ends);
                return false;
            }
            Reading::Fit(datagram) => datagram,
        };
        if let Some(growing) = coalescer.find(&datagram, interface)
            && coalesce::has_right_checksum(&datagram, packet)
            && let Some(head) = earlier.get_mut(growing.place)
        {
            growing.is_checked =
                growing.is_checked || coalesce::has_right_checksum(&growing.first, parts(pool, head).1);
            let payload = last.range.start + HEADER_BYTES + HEADERS_BYTES..last.range.end;
            let (end, bytes) = (head.range.end, payload.len());
            if growing.is_checked && pool.copy(&mut last.buffer, payload, &mut head.buffer, end) {
                head.range.end = end + bytes;
                head.packets = growing.add(&datagram);
                head.segment_bytes = growing.segment_bytes();
                counters.packets_joined += 1;
                return true;
            }
        }
        coalescer.begin(kept, datagram, interface);
        false
    }

    /// Takes out what leaves, in order. The list comes back with [`Slots::put_back`], empty, so that its
    /// memory is used again.
    pub(crate) fn take_outgoing(&mut self) -> Vec<Outgoing> {
        std::mem::take(&mut self.outgoing)
    }

    /// See [`Slots::take_outgoing`].
    pub(crate) fn put_back(&mut self, list: Vec<Outgoing>) {
        debug_assert!(list.is_empty(), "what leaves has left");
        self.outgoing = list;
    }

    /// Empties the batch; every buffer that was not forwarded goes to `release`.
    pub(crate) fn clear(&mut self, mut release: impl FnMut(&mut Pool, Buffer)) {
        for filled in self.filled.drain(..) {
            if let Some(buffer) = filled.buffer {
                release(&mut self.pool, buffer);
            }
        }
        for buffer in self.spare.drain(..) {
            release(&mut self.pool, buffer);
        }
        self.segments = 0;
    }

    /// Counts what became of a write of `wanted_bytes` bytes, header included, that holds `packets` packets.
    pub(crate) fn count_write(&mut self, result: Result<usize, Errno>, wanted_bytes: usize, packets: u8) {
        let counters = &mut self.counters;
        let packets = u64::from(packets);
        match result {
            Ok(written) if written == wanted_bytes => {
                counters.packets_written += packets;
                let left_behind = packets.saturating_sub(1) * HEADERS_BYTES as u64;
                counters.bytes_written += wanted_bytes.saturating_sub(HEADER_BYTES) as u64 + left_behind;
            }
            Ok(_) => counters.short_writes += packets,
            Err(Errno::AGAIN | Errno::NOBUFS) => counters.queue_full += packets,
            Err(_) => counters.write_errors += packets,
        }
    }

    /// Counts a failed read of the interface `number`, which is `port`. Says whether it may be read again; if not, it
    /// is gone.
    pub(crate) fn count_read_error(&mut self, number: usize, port: &Port, error: Errno) -> bool {
        self.errors_in_row = self.errors_in_row.saturating_add(1);
        match error {
            Errno::AGAIN | Errno::INTR => return true,
            Errno::NOBUFS => self.counters.buffers_exhausted += 1,
            Errno::NETDOWN => self.counters.links_down += 1,
            _ => self.counters.read_errors += 1,
        }
        let goes_on = port.outlives(error) && self.errors_in_row < ERRORS_IN_ROW_MAX;
        if !goes_on {
            self.gone = self.gone.or(Some((number, error)));
        }
        goes_on
    }
}

/// The header that a packet leaves with, and the packet.
fn parts<'a>(pool: &'a mut Pool, outgoing: &'a mut Outgoing) -> (VirtioNetHeader, &'a [u8]) {
    let bytes = pool.bytes_mut(&mut outgoing.buffer).get(outgoing.range.clone()).unwrap_or_default();
    let Some((header, packet)) = bytes.split_first_chunk() else { return (VirtioNetHeader::WHOLE, &[]) };
    (VirtioNetHeader::parse(*header), packet)
}

/// Writes `header` at `start` of a whole buffer.
fn write_header(whole: &mut [u8], start: usize, header: VirtioNetHeader) {
    let place = whole.get_mut(start..).and_then(<[u8]>::first_chunk_mut);
    debug_assert!(place.is_some(), "there is room for the header in front of every packet");
    if let Some(place) = place {
        *place = header.to_bytes();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tun;
    use crate::buffers::{ENGINE_BYTES, PACKET_BYTES_MAX, READ_RANGE};

    fn slots_with(header: VirtioNetHeader, packets: &[&[u8]]) -> Slots {
        let mut slots = Slots::new(2).unwrap();
        for packet in packets {
            let mut buffer = slots.pool.take().unwrap();
            let bytes = &mut slots.pool.bytes_mut(&mut buffer)[READ_RANGE];
            bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
            bytes[HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
            assert!(slots.fill(buffer, 1, HEADER_BYTES + packet.len()).is_none());
        }
        slots
    }

    pub(super) fn leave(slots: &mut Slots) -> Vec<(usize, Vec<u8>)> {
        let mut list = slots.take_outgoing();
        let mut sent = Vec::new();
        for mut outgoing in list.drain(..) {
            let bytes = slots.pool.bytes_mut(&mut outgoing.buffer)[outgoing.range.clone()].to_vec();
            sent.push((outgoing.interface, bytes));
            slots.pool.give(outgoing.buffer);
        }
        slots.put_back(list);
        slots.clear(Pool::give);
        sent
    }

    #[test]
    fn a_packet_leaves_as_it_was_edited_with_its_header_in_front() {
        let header =
            VirtioNetHeader { flags: 1, checksum_start: 20, checksum_offset: 6, ..VirtioNetHeader::WHOLE };
        let mut slots = slots_with(header, &[b"first", b"second"]);
        let packet = slots.packet(1);
        assert_eq!(
            (packet.interface, &packet.buffer[packet.range.clone()]),
            (InterfaceId(1), &b"second"[..])
        );
        assert!(packet.offload.needs_checksum);
        packet.buffer[packet.range.start] = b'S';
        assert!(slots.forward(1, InterfaceId(0), &(HEADROOM_BYTES..HEADROOM_BYTES + 6)));
        let expected = [&header.to_bytes()[..], b"Second"].concat();
        assert_eq!(leave(&mut slots), [(0, expected)]);
        assert_eq!(slots.pool.free_count(), BUFFERS);
    }

    #[test]
    fn a_packet_may_grow_over_the_whole_headroom_without_losing_its_header() {
        let header =
            VirtioNetHeader { flags: 1, checksum_start: 20, checksum_offset: 6, ..VirtioNetHeader::WHOLE };
        let mut slots = slots_with(header, &[b"inner"]);
        slots.packet(0).buffer[..HEADROOM_BYTES].fill(b'o');
        assert!(slots.forward(0, InterfaceId(0), &(0..HEADROOM_BYTES + 5)));
        let sent = leave(&mut slots);
        let [(0, bytes)] = &sent[..] else { panic!("it leaves by interface 0") };
        let moved = VirtioNetHeader { checksum_start: 20 + 80, ..header };
        assert_eq!(*bytes, [&moved.to_bytes()[..], &[b'o'; HEADROOM_BYTES], b"inner"].concat());
    }

    #[test]
    fn a_packet_leaves_once_and_only_by_an_interface_that_exists() {
        let mut slots = slots_with(VirtioNetHeader::WHOLE, &[b"once"]);
        assert!(
            !slots.forward(0, InterfaceId(2), &(HEADROOM_BYTES..HEADROOM_BYTES + 4)),
            "there are two interfaces"
        );
        assert!(
            !slots.forward(1, InterfaceId(0), &(HEADROOM_BYTES..HEADROOM_BYTES + 4)),
            "there is one packet"
        );
        assert!(
            !slots.forward(0, InterfaceId(0), &(HEADROOM_BYTES..ENGINE_BYTES + 1)),
            "the buffer ends before"
        );
        assert!(slots.forward(0, InterfaceId(0), &(HEADROOM_BYTES..HEADROOM_BYTES + 4)));
        assert!(!slots.forward(0, InterfaceId(0), &(HEADROOM_BYTES..HEADROOM_BYTES + 4)), "it has left");
        assert_eq!(slots.counters.refused, 4);
        assert_eq!(leave(&mut slots).len(), 1);
    }

    #[test]
    fn a_packet_born_in_the_engine_leaves_whole() {
        let mut slots = slots_with(VirtioNetHeader { flags: 1, ..VirtioNetHeader::WHOLE }, &[]);
        assert!(slots.send(InterfaceId(1), b"born"));
        assert!(!slots.send(InterfaceId(2), b"born"));
        assert!(!slots.send(InterfaceId(1), &vec![0; ENGINE_BYTES - HEADROOM_BYTES + 1]));
        assert!(slots.send(InterfaceId(1), &vec![7; PACKET_BYTES_MAX]));
        let sent = leave(&mut slots);
        assert_eq!(sent[0], (1, [&[0; HEADER_BYTES][..], b"born"].concat()));
        assert_eq!(sent[1].1.len(), HEADER_BYTES + PACKET_BYTES_MAX);
    }

    #[test]
    fn packets_of_our_own_are_bounded_and_the_rest_is_counted() {
        let mut slots = Slots::new(1).unwrap();
        let taken = (0..BUFFERS).filter(|_| slots.send(InterfaceId(0), b"x")).count();
        assert_eq!(taken, OUTGOING_MAX);
        assert_eq!(slots.counters.queue_full, (BUFFERS - OUTGOING_MAX) as u64);
        assert_eq!(leave(&mut slots).len(), OUTGOING_MAX);
        assert_eq!(slots.pool.free_count(), BUFFERS);
    }

    #[test]
    fn less_than_a_header_is_no_packet() {
        let mut slots = Slots::new(1).unwrap();
        let buffer = slots.pool.take().unwrap();
        assert!(slots.fill(buffer, 0, HEADER_BYTES - 1).is_some());
        assert_eq!((slots.counters.read_errors, slots.count_batch()), (1, 0));
    }

    #[test]
    fn writes_are_counted_by_what_became_of_them() {
        let mut slots = Slots::new(1).unwrap();
        slots.count_write(Ok(112), 112, 1);
        slots.count_write(Ok(50), 112, 1);
        slots.count_write(Err(Errno::AGAIN), 112, 1);
        slots.count_write(Err(Errno::IO), 112, 1);
        let expected = DeviceCounters {
            packets_written: 1,
            bytes_written: 100,
            short_writes: 1,
            queue_full: 1,
            write_errors: 1,
            ..DeviceCounters::default()
        };
        assert_eq!(slots.counters, expected);
    }

    fn a_tun() -> Port {
        Tun::adopt(crate::tests::packet_pair().0, "fake").unwrap().into()
    }

    #[test]
    fn an_interface_is_gone_only_after_an_error_that_stays() {
        let (mut slots, port) = (Slots::new(2).unwrap(), a_tun());
        for error in [Errno::AGAIN, Errno::INTR, Errno::NOBUFS, Errno::NOMEM] {
            assert!(slots.count_read_error(0, &port, error), "{error}");
        }
        assert_eq!(slots.gone, None);
        assert!(!slots.count_read_error(1, &port, Errno::BADFD));
        assert!(!slots.count_read_error(0, &port, Errno::IO));
        assert_eq!(slots.gone, Some((1, Errno::BADFD)));
    }

    #[test]
    fn an_interface_that_only_gives_errors_is_gone_in_the_end() {
        let (mut slots, port) = (Slots::new(1).unwrap(), a_tun());
        let count = (0..).take_while(|_| slots.count_read_error(0, &port, Errno::NOMEM)).count();
        assert_eq!(count + 1, ERRORS_IN_ROW_MAX as usize);
        assert_eq!(slots.gone, Some((0, Errno::NOMEM)));
    }
}
