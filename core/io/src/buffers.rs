//! The buffers that packets live in, and who owns each.
//!
//! ```text
//! | 16: room for a header | 80: headroom of the engine | up to 65,535: packet |
//!                                       ^ 12: header, as the kernel writes it
//! | 16: room for a header | 146: headroom of the engine                | up to 65,557: frame |
//!                                       ^ 16: sizes | 50: control | 12: header
//! ```
//!
//! A packet is read with its virtio-net header directly in front of it, that is at the end of the
//! headroom; the header is taken out at once, so that the engine may grow the packet over it. On the way
//! out the header is put in front of wherever the packet starts then: at most into the first 16 bytes.
//! A frame is read from the same place on, but with its sizes and a control message before the header.
//!
//! A [`Buffer`] is the right to touch one of them. It is given up with [`Pool::lend`] when the kernel
//! gets the address, and comes back with [`Pool::reclaim`] when a completion names it.

use std::io;
use std::ops::Range;
use std::ptr::NonNull;

use evenkeel_engine::device::{BATCH_MAX, HEADROOM_BYTES};

use crate::offload::HEADER_BYTES;
use crate::sys::memory::Memory;
use crate::sys::packet::CONTROL_BYTES;

/// Buffers that wait for packets: one batch in the engine's hands or on its way out, one batch that
/// the kernel fills meanwhile. More of them only spread the packets over more of the cache.
pub(crate) const RECEIVE_BUFFERS: usize = 2 * BATCH_MAX;

/// Buffers for packets that are born in the engine: one for every packet of a batch.
pub(crate) const SEND_BUFFERS: usize = BATCH_MAX;

/// All buffers of a device (12.6 MB of address space, resident where packets have been).
pub(crate) const BUFFERS: usize = RECEIVE_BUFFERS + SEND_BUFFERS;

/// In front of what the engine sees: the header, rounded up so that packets lie on 16 bytes.
pub(crate) const FRONT_BYTES: usize = 16;

/// The largest packet: what the length field of IPv4 can say.
pub(crate) const PACKET_BYTES_MAX: usize = 65_535;

/// The largest frame: such a packet behind an Ethernet header and, at most, two tags within it.
pub(crate) const FRAME_BYTES_MAX: usize = 14 + 8 + PACKET_BYTES_MAX;

/// In front of a frame's header: its sizes, four numbers of 32 bits, and its control message.
pub(crate) const MESSAGE_BYTES: usize = 16 + CONTROL_BYTES;

/// What the engine sees of a buffer: headroom and packet or frame.
pub(crate) const ENGINE_BYTES: usize = HEADROOM_BYTES + MESSAGE_BYTES + FRAME_BYTES_MAX;

/// Where the kernel writes header and packet, or all that comes with a frame.
pub(crate) const READ_RANGE: Range<usize> =
    FRONT_BYTES + HEADROOM_BYTES - HEADER_BYTES..FRONT_BYTES + ENGINE_BYTES;

/// Where it writes header and frame.
pub(crate) const FRAME_RANGE: Range<usize> = READ_RANGE.start + MESSAGE_BYTES..READ_RANGE.end;

/// From one buffer to the next: an odd number of cache lines, so that the first lines of the
/// buffers, where all the work is done, spread over the sets of the cache.
const STRIDE_BYTES: usize = ((FRONT_BYTES + ENGINE_BYTES).div_ceil(64) | 1) * 64;

const _: () = assert!(STRIDE_BYTES == 65_728, "12.6 MB for all of them");
const _: () = assert!(FRONT_BYTES >= HEADER_BYTES, "a header fits in front of the whole headroom");
const _: () = assert!(BUFFERS <= 1 << 15, "the kernel numbers the buffers of a ring with 15 bits");

/// The right to read and write one buffer.
#[derive(Debug)]
pub(crate) struct Buffer {
    number: u16,
}

/// All buffers of a device.
#[derive(Debug)]
pub(crate) struct Pool {
    memory: Memory,
    /// Buffers that nobody uses; the last one given back is taken first, as it is still in the cache.
    free: Vec<Buffer>,
    /// Which buffers are with the kernel.
    lent: Box<[bool]>,
}

impl Pool {
    /// All buffers, all free.
    ///
    /// # Errors
    ///
    /// When there is no address space for them.
    pub(crate) fn new() -> io::Result<Self> {
        let memory = Memory::map(BUFFERS * STRIDE_BYTES)?;
        let free = (0..BUFFERS).rev().filter_map(|number| u16::try_from(number).ok());
        Ok(Self {
            memory,
            free: free.map(|number| Buffer { number }).collect(),
            lent: vec![false; BUFFERS].into_boxed_slice(),
        })
    }

    /// A buffer that nobody uses, if there is one.
    pub(crate) fn take(&mut self) -> Option<Buffer> {
        self.free.pop()
    }

    /// Gives a buffer back.
    pub(crate) fn give(&mut self, buffer: Buffer) {
        self.free.push(buffer);
    }

    /// How many buffers nobody uses.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// The whole buffer: header room, headroom and packet.
    pub(crate) fn bytes_mut(&mut self, buffer: &mut Buffer) -> &mut [u8] {
        let address = self.address(buffer.number).as_ptr();
        // SAFETY: buffers share one mapping, so a slice of one has to be made by hand. The number is below
        // `BUFFERS`, so the bytes lie in the mapping; they are initialised, since it begins zeroed. The only
        // right to touch them is `buffer`, which is borrowed as long as the slice: neither the kernel nor
        // another slice has them.
        unsafe { std::slice::from_raw_parts_mut(address, FRONT_BYTES + ENGINE_BYTES) }
    }

    /// Copies the bytes at `from` of one buffer to `at` of another, and on. Says whether both have them.
    pub(crate) fn copy(
        &mut self,
        source: &mut Buffer,
        from: Range<usize>,
        target: &mut Buffer,
        at: usize,
    ) -> bool {
        let (source, target) = self.pair(source, target);
        let (Some(end), Some(bytes)) = (at.checked_add(from.len()), source.get(from)) else { return false };
        let Some(place) = target.get_mut(at..end) else { return false };
        place.copy_from_slice(bytes);
        true
    }

    /// One whole buffer to read from, and another to write to.
    pub(crate) fn pair<'a>(
        &'a mut self,
        source: &'a mut Buffer,
        target: &'a mut Buffer,
    ) -> (&'a [u8], &'a mut [u8]) {
        let source = std::ptr::from_ref(self.bytes_mut(source));
        // SAFETY: two slices of one mapping can only be had by hand. `source` is borrowed as long as both slices
        // are, and it is another buffer than `target`, as each is there once: nobody writes to it.
        let source = unsafe { &*source };
        (source, self.bytes_mut(target))
    }

    /// Gives a buffer to the kernel and says where it begins and under which number it comes back.
    pub(crate) fn lend(&mut self, buffer: Buffer) -> (NonNull<u8>, u16) {
        let Buffer { number } = buffer;
        if let Some(lent) = self.lent.get_mut(usize::from(number)) {
            *lent = true;
        }
        (self.address(number), number)
    }

    /// Takes a buffer back from the kernel; nothing if it is not there.
    ///
    /// # Safety
    ///
    /// A completion has named `number`, so that the kernel does not touch the buffer any more.
    pub(crate) unsafe fn reclaim(&mut self, number: u16) -> Option<Buffer> {
        let lent = self.lent.get_mut(usize::from(number))?;
        std::mem::take(lent).then_some(Buffer { number })
    }

    /// How many buffers are with the kernel.
    #[cfg(test)]
    pub(crate) fn lent_count(&self) -> usize {
        self.lent.iter().filter(|lent| **lent).count()
    }

    fn address(&self, number: u16) -> NonNull<u8> {
        let offset = usize::from(number) * STRIDE_BYTES;
        debug_assert!(offset + STRIDE_BYTES <= self.memory.length_bytes(), "numbers are made by `new` only");
        // SAFETY: `NonNull` has no checked way to step. Numbers are made by `new` only and are below
        // `BUFFERS`, for which the mapping is long enough.
        unsafe { self.memory.base().add(offset) }
    }
}

/// The part of a whole buffer that the engine sees.
pub(crate) fn engine_part(whole: &mut [u8]) -> &mut [u8] {
    whole.get_mut(FRONT_BYTES..).unwrap_or_default()
}

/// What leaves when the packet lies at `range` of the engine's part: the same, and the header in front, as
/// positions in the whole buffer. Nothing if `range` is not within the engine's part.
pub(crate) fn leaving_part(range: &Range<usize>) -> Option<Range<usize>> {
    let is_inside = range.start <= range.end && range.end <= ENGINE_BYTES;
    is_inside.then(|| FRONT_BYTES + range.start - HEADER_BYTES..FRONT_BYTES + range.end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_buffer_is_there_once_and_none_overlap() {
        let mut pool = Pool::new().unwrap();
        let mut buffers: Vec<Buffer> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(buffers.len(), BUFFERS);
        for buffer in &mut buffers {
            let mark = u8::try_from(buffer.number % 251).unwrap();
            let bytes = pool.bytes_mut(buffer);
            bytes[0] = mark;
            *bytes.last_mut().unwrap() = mark;
        }
        for buffer in &mut buffers {
            let mark = u8::try_from(buffer.number % 251).unwrap();
            let bytes = pool.bytes_mut(buffer);
            assert_eq!((bytes[0], *bytes.last().unwrap()), (mark, mark));
        }
        buffers.into_iter().for_each(|buffer| pool.give(buffer));
        assert_eq!(pool.free_count(), BUFFERS);
    }

    #[test]
    fn the_kernel_writes_the_packet_behind_the_headroom() {
        let mut whole = vec![0; FRONT_BYTES + ENGINE_BYTES];
        whole[READ_RANGE][HEADER_BYTES] = 0x45;
        assert_eq!(engine_part(&mut whole)[HEADROOM_BYTES], 0x45);
        assert!(READ_RANGE.len() >= HEADER_BYTES + PACKET_BYTES_MAX);
        assert_eq!((FRONT_BYTES + HEADROOM_BYTES) % 16, 0);
        assert_eq!(FRAME_RANGE.len(), HEADER_BYTES + FRAME_BYTES_MAX);
        assert_eq!((FRAME_RANGE.start + HEADER_BYTES + 14) % 16, 0);
    }

    #[test]
    fn the_header_leaves_right_in_front_of_the_packet() {
        assert_eq!(leaving_part(&(64..100)), Some(68..116));
        assert_eq!(leaving_part(&(0..100)), Some(4..116));
        assert_eq!(leaving_part(&(0..ENGINE_BYTES)), Some(4..FRONT_BYTES + ENGINE_BYTES));
        assert_eq!(leaving_part(&(0..ENGINE_BYTES + 1)), None);
        #[allow(clippy::reversed_empty_ranges, reason = "a wrong range is what is tested")]
        let reversed = leaving_part(&(10..9));
        assert_eq!(reversed, None);
    }

    #[test]
    fn only_a_lent_buffer_comes_back_and_only_once() {
        let mut pool = Pool::new().unwrap();
        let buffer = pool.take().unwrap();
        let (_, number) = pool.lend(buffer);
        assert_eq!(pool.lent_count(), 1);
        // SAFETY: the kernel was not told of the buffer.
        assert!(unsafe { pool.reclaim(number) }.is_some());
        // SAFETY: as above.
        assert!(unsafe { pool.reclaim(number) }.is_none());
        // SAFETY: as above.
        assert!(unsafe { pool.reclaim(u16::MAX) }.is_none());
    }

    #[test]
    fn the_first_lines_of_the_buffers_spread_over_the_cache() {
        // 64 sets of 64 bytes, as in an L1 cache of 32 to 48 KiB.
        let sets: BTreeSet<usize> = (0..64).map(|number| (number * STRIDE_BYTES / 64) % 64).collect();
        assert_eq!(sets.len(), 64);
    }
}
