//! Anonymous memory whose address never changes: what the kernel is told to write into.
//!
//! In goes a length, out comes zeroed memory that is resident only where it was touched. It is given
//! back when the value is dropped; whoever has told the kernel about it takes care of that order.

use std::fmt;
use std::io;
use std::ptr::{self, NonNull};

/// A private anonymous mapping, aligned to a page and zeroed.
pub(crate) struct Memory {
    base: NonNull<u8>,
    length_bytes: usize,
}

impl Memory {
    /// Maps `length_bytes` bytes, at least one.
    ///
    /// # Errors
    ///
    /// When the system has no memory or address space left, or the length is zero.
    pub(crate) fn map(length_bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: std offers no page-aligned memory that is only resident where touched. A null hint
        // and an anonymous private mapping touch no memory that exists already.
        let base = unsafe { libc::mmap(ptr::null_mut(), length_bytes, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { base, length_bytes })
    }

    /// Where the memory begins.
    pub(crate) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// How long it is, in bytes.
    pub(crate) const fn length_bytes(&self) -> usize {
        self.length_bytes
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping has to be given back by hand. It was made by `map` with this address and
        // length, and nothing borrows from it any more, since `self` is being dropped.
        let result = unsafe { libc::munmap(self.base.as_ptr().cast(), self.length_bytes) };
        debug_assert_eq!(result, 0, "the mapping was made by this type");
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("length_bytes", &self.length_bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zeroed_and_keeps_what_is_written() {
        let memory = Memory::map(10_000).unwrap();
        assert_eq!(memory.length_bytes(), 10_000);
        let last = memory.base().as_ptr().wrapping_add(9_999);
        // SAFETY: the byte lies in the mapping, which lives, and nothing else refers to it.
        assert_eq!(unsafe { last.read() }, 0);
        // SAFETY: as above.
        unsafe { last.write(7) };
        // SAFETY: as above.
        assert_eq!(unsafe { last.read() }, 7);
    }

    #[test]
    fn no_memory_of_length_zero() {
        assert!(Memory::map(0).is_err());
    }
}
