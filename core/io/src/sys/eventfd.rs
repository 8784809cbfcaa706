//! A counter in the kernel that wakes a waiting device from another thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::EventfdFlags;
use rustix::io::Errno;

/// The receiving side: what a device waits for besides packets.
#[derive(Debug)]
pub(crate) struct Wakeup {
    file: Arc<OwnedFd>,
}

/// Wakes the device that it came from, from any thread and any number of times.
///
/// A wakeup before the device waits is not lost: the next wait returns at once.
#[derive(Clone, Debug)]
pub struct Waker {
    file: Arc<OwnedFd>,
}

impl Wakeup {
    /// A new counter at zero.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptor left.
    pub(crate) fn new() -> io::Result<Self> {
        let file = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Another handle of the sending side.
    pub(crate) fn waker(&self) -> Waker {
        Waker { file: Arc::clone(&self.file) }
    }

    /// Takes back all wakeups so far and says whether there was one.
    pub(crate) fn drain(&self) -> bool {
        let mut count = [0; 8];
        rustix::io::read(&self.file, &mut count).is_ok()
    }
}

impl AsFd for Wakeup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Waker {
    /// Ends the wait that goes on, or else the next one.
    pub fn wake(&self) {
        let one = 1_u64.to_ne_bytes();
        while let Err(Errno::INTR) = rustix::io::write(&self.file, &one) {}
        // The other error is EAGAIN: 2^64 - 2 wakeups wait already, so one more tells nothing new.
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakeups_add_up_to_one_and_are_drained_once() {
        let wakeup = Wakeup::new().unwrap();
        assert!(!wakeup.drain());
        let waker = wakeup.waker();
        waker.wake();
        waker.clone().wake();
        assert!(wakeup.drain());
        assert!(!wakeup.drain());
    }
}
