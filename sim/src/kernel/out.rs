//! What comes out of a network stack, and buffers for what goes in. One of these serves all machines of a world.

use crate::packet::Packet;

use super::drops::KernelDrop;

/// Packets whose buffers are kept for later: more packets than this are seldom under way.
const POOL_MAX: usize = 4_096;

/// What becomes of a packet at once. One that goes up is the IP packet, with checked header, and whole.
#[derive(Clone, Debug)]
pub enum Up {
    /// For its programs.
    Host(Packet),
    /// For whoever reads this TUN device.
    Tun(usize, Packet),
    /// It leaves by this interface, as the frame that it has become.
    Wire(usize, Packet),
}

/// What comes out of a network stack.
#[derive(Debug, Default)]
pub struct Out {
    /// Frames, each with the interface that it leaves by, in order.
    pub frames: Vec<(usize, Packet)>,
    /// Packets that go up otherwise than as the answer of `receive`: those that the machine sends to itself, and errors about
    /// packets of its own.
    pub up: Vec<Up>,
    /// Packets that ended and why, if they are to be kept.
    pub ended: Vec<(KernelDrop, Packet)>,
    /// Whether packets that ended are kept. Else their buffers are used again.
    pub keeps_ended: bool,
    pool: Vec<Packet>,
}

impl Out {
    /// A packet that has ended, whose buffer can be used again, or a new one.
    #[inline]
    pub fn buffer(&mut self) -> Packet {
        self.pool.pop().unwrap_or_default()
    }

    /// Adds what became of a packet at once to everything else that has come out.
    pub fn keep(&mut self, up: Option<Up>) {
        match up {
            Some(Up::Wire(interface, frame)) => self.frames.push((interface, frame)),
            Some(up) => self.up.push(up),
            None => {}
        }
    }

    /// Whether a packet goes up otherwise than as an answer.
    #[inline]
    pub(crate) const fn has_up(&self) -> bool {
        !self.up.is_empty()
    }

    /// The next packet that goes up otherwise than as an answer.
    pub(crate) fn take_up(&mut self) -> Option<Up> {
        if self.up.is_empty() { None } else { Some(self.up.remove(0)) }
    }

    /// Takes back a packet that is of no more use.
    #[inline]
    pub fn recycle(&mut self, packet: Packet) {
        if self.pool.len() < POOL_MAX {
            self.pool.push(packet);
        }
    }

    pub(super) fn end(&mut self, reason: KernelDrop, packet: Packet) {
        if self.keeps_ended {
            self.ended.push((reason, packet));
        } else {
            self.recycle(packet);
        }
    }
}
