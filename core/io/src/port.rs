//! One interface of a device: a TUN or an Ethernet interface.
//!
//! In go open interfaces, out comes what both have in common: a descriptor to read and write, a name, and what
//! an error on it means. How each is read is the backends' business.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::io::Errno;

use crate::sys::packet::Ethernet;
use crate::sys::tun::{Offloads, Tun};

/// An open interface.
#[derive(Debug)]
pub enum Port {
    /// IP packets.
    Tun(Tun),
    /// Frames.
    Ethernet(Ethernet),
}

impl Port {
    /// The interface's name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Tun(tun) => tun.name(),
            Self::Ethernet(ethernet) => ethernet.name(),
        }
    }

    /// Whether packets are to be finished before anybody sees them, since the kernel can not be asked to.
    pub(crate) fn takes_whole(&self) -> bool {
        match self {
            // Asked when it was opened.
            Self::Tun(_) => false,
            Self::Ethernet(ethernet) => !ethernet.has_offloads(),
        }
    }

    /// Whether datagrams that leave there may be joined to super-packets.
    pub(crate) fn takes_super_datagrams(&self) -> bool {
        match self {
            Self::Tun(tun) => tun.offloads() == Offloads::ChecksumTcpUdp,
            Self::Ethernet(_) => false,
        }
    }

    /// Packets that found the queue towards us full, where that is not counted with the interface.
    pub(crate) fn dropped(&self) -> u64 {
        match self {
            Self::Tun(_) => 0,
            Self::Ethernet(ethernet) => ethernet.dropped(),
        }
    }

    /// Whether reading can go on after this error.
    pub(crate) fn outlives(&self, error: Errno) -> bool {
        match (self, error) {
            (_, Errno::AGAIN | Errno::INTR | Errno::NOBUFS | Errno::NOMEM) => true,
            // Said once when the interface goes down; frames come again when it is up.
            (Self::Ethernet(ethernet), Errno::NETDOWN) => ethernet.is_there(),
            // A super-packet of a kind that the header has no words for. It is lost, the next one is not.
            (Self::Ethernet(_), Errno::INVAL) => true,
            (Self::Tun(_) | Self::Ethernet(_), _) => false,
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tun(tun) => tun.as_fd(),
            Self::Ethernet(ethernet) => ethernet.as_fd(),
        }
    }
}

impl From<Tun> for Port {
    fn from(tun: Tun) -> Self {
        Self::Tun(tun)
    }
}

impl From<Ethernet> for Port {
    fn from(ethernet: Ethernet) -> Self {
        Self::Ethernet(ethernet)
    }
}
