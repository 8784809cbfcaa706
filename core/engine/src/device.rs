//! The door between the engine and the world: packets come and go through [`Device`], and
//! [`step`] is the one loop body that every driver runs.
//!
//! ```text
//! receive -> batch of slots -> Engine::handle_batch -> forward | release -> flush
//! ```
//!
//! A slot is a buffer of the device. The engine edits it in place and hands it back by number, so a
//! packet is never copied between the two.

use core::ops::Range;

use crate::Engine;
use crate::time::Instant;
use crate::verdict::{InterfaceId, Verdict};

/// The most packets of one batch: enough to spread the cost of a guest call and of a system call
/// (a component's batch of 32 costs a tenth of 32 single calls), and few enough to stay in cache.
pub const BATCH_MAX: usize = 64;

/// Bytes in front of a received packet that the engine may grow into: Ethernet and a tunnel's outer header (IPv6, UDP
/// and GUE) are 66, rounded up so that packets stay where their device aligned them.
pub const HEADROOM_BYTES: usize = 80;

/// What a device offloads for one packet, in the terms of the virtio-net header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The layer-4 checksum field holds only the folded pseudo-header sum; the way out completes it.
    pub needs_checksum: bool,
    /// The packet is a super-packet that the way out cuts into segments of this many payload bytes.
    pub segment_bytes: Option<u16>,
}

/// One packet in a buffer of the device.
#[derive(Debug)]
pub struct PacketBuffer<'a> {
    /// The interface on which it came in.
    pub interface: InterfaceId,
    /// The whole buffer, headroom included.
    pub buffer: &'a mut [u8],
    /// Where the packet lies in `buffer`: an IP packet or an Ethernet frame, as the plan says of the interface.
    pub range: Range<usize>,
    /// What the device has left undone in this packet.
    pub offload: Offload,
}

/// A source and sink of packets. Implemented by the simulator, the TUN and the benches.
pub trait Device {
    /// Takes in what has arrived, without waiting, and says how many slots are filled (at most [`BATCH_MAX`]).
    ///
    /// Slots are numbered from 0 and stay valid until [`Device::flush`].
    fn receive(&mut self) -> usize;

    /// The packet in `slot`, which is below the number that [`Device::receive`] gave.
    fn packet(&mut self, slot: usize) -> PacketBuffer<'_>;

    /// Queues the buffer of `slot`, of which `range` is the packet, to leave by `interface`.
    ///
    /// Returns whether the device took it; the engine counts a refusal.
    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool;

    /// Queues a copy of `bytes`, a packet that was born in the engine, to leave by `interface`.
    ///
    /// Returns whether the device took it; the engine counts a refusal.
    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool;

    /// The packet of `slot` has ended as `end` says: for a driver that wants to know of each packet what became of it.
    ///
    /// Called after [`Device::forward`] where both are, and not at all for a packet of a known or new flow that simply
    /// went on by [`Device::forward`].
    fn ended(&mut self, slot: usize, end: Verdict) {
        let _ = (slot, end);
    }

    /// Sends what is queued and takes back every slot, forwarded or not.
    fn flush(&mut self);
}

/// What one [`step`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StepReport {
    /// Packets taken in.
    pub received: usize,
    /// Packets that left, those born in the engine included.
    pub sent: usize,
}

/// One turn of the loop: timers, a batch in, a batch out. The same for every driver.
///
/// The driver calls it again at once while `received` is not zero, and else waits for the device or for
/// [`Engine::poll_timeout`], whichever comes first.
pub fn step<D: Device>(engine: &mut Engine, device: &mut D, now: Instant) -> StepReport {
    engine.handle_timeout(now);
    let received = device.receive();
    let mut sent = engine.handle_batch(device, received, now);
    sent += engine.transmit(device);
    device.flush();
    StepReport { received, sent }
}
