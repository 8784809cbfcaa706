//! The ring through which buffers are handed to the kernel: the shared memory of
//! `IORING_REGISTER_PBUF_RING`.
//!
//! In go addresses, lengths and numbers of free buffers; the kernel takes them in order. Who owns a
//! buffer is not decided here but in [`buffers`](crate::buffers).

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use super::memory::Memory;

/// The number of the one buffer group of a ring.
pub(crate) const GROUP: u16 = 0;

/// A registered ring of free buffers.
#[derive(Debug)]
pub(crate) struct BufferRing {
    memory: Memory,
    mask: u16,
    tail: u16,
    published: u16,
}

impl BufferRing {
    /// Memory for a ring of `entries` buffers (a power of two, at most 32,768), registered under [`GROUP`].
    ///
    /// # Errors
    ///
    /// When the kernel refuses the registration, or `entries` is not such a number.
    ///
    /// # Safety
    ///
    /// The value must live as long as the io_uring instance that `submitter` belongs to.
    pub(crate) unsafe fn register(submitter: &Submitter<'_>, entries: u16) -> io::Result<Self> {
        if !entries.is_power_of_two() || entries > 1 << 15 {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let memory = Memory::map(usize::from(entries) * size_of::<BufRingEntry>())?;
        let address = memory.base().as_ptr().addr();
        let address = u64::try_from(address).map_err(io::Error::other)?;
        // SAFETY: the kernel reads the ring from memory that it is told of here. It is page-aligned,
        // long enough for `entries`, and by the contract of this function outlives the instance.
        unsafe { submitter.register_buf_ring_with_flags(address, entries, GROUP, 0) }?;
        Ok(Self { memory, mask: entries - 1, tail: 0, published: 0 })
    }

    /// Puts a buffer behind those that wait already; the kernel sees it after [`BufferRing::publish`].
    ///
    /// # Safety
    ///
    /// The `length_bytes` bytes at `address` belong to the kernel from `publish` on, until a completion
    /// names `number`. No more buffers than the ring has entries are with the kernel at a time.
    pub(crate) unsafe fn push(&mut self, address: NonNull<u8>, length_bytes: u32, number: u16) {
        let index = usize::from(self.tail & self.mask);
        let entry = self.memory.base().cast::<BufRingEntry>();
        // SAFETY: the mask keeps the index below the number of entries that the memory was mapped for.
        let mut entry = unsafe { entry.add(index) };
        // SAFETY: the entry lies in mapped memory, aligned, zeroed or written before; the kernel does not
        // look at entries at or behind the published tail, so nothing else refers to it.
        let entry = unsafe { entry.as_mut() };
        // The first entry shares its last two bytes with the tail: field by field keeps them.
        entry.set_addr(address.as_ptr().addr() as u64);
        entry.set_len(length_bytes);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel see what was pushed.
    pub(crate) fn publish(&mut self) {
        if self.published == self.tail {
            return;
        }
        self.published = self.tail;
        let first = self.memory.base().cast::<BufRingEntry>().as_ptr();
        // SAFETY: only its caller can know that this is the ring's first entry. It is: the base of the mapping.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: the tail lies in mapped memory and is aligned for u16. The kernel shares it with us and
        // treats it as atomic; no reference to the first entry is alive here.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use io_uring::IoUring;

    #[test]
    fn only_a_power_of_two_makes_a_ring() {
        let Ok(uring) = IoUring::new(2) else {
            println!("SKIPPED: io_uring is refused here");
            return;
        };
        for entries in [0, 3, 48] {
            // SAFETY: nothing is registered, since the number is refused.
            assert!(unsafe { BufferRing::register(&uring.submitter(), entries) }.is_err());
        }
    }
}
