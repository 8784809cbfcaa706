//! Random early detection: which frame is picked, and the mark on a frame that is picked.

use crate::packet::Packet;
use crate::random::Stream;

use super::frame;
use super::quality::Red;

/// The frame that idle time is measured in, in bytes: between a full one and an acknowledgement, as `tc-red` suggests.
const IDLE_FRAME_BYTES: u64 = 1_000;

/// For how many frames' time a cable of this rate has been idle.
pub(super) fn idle_frames(idle_ps: u64, rate_bits: u64) -> u64 {
    let frame_ps = IDLE_FRAME_BYTES * 8 * 1_000_000_000_000 / rate_bits.max(1);
    idle_ps / frame_ps.max(1)
}

/// What is remembered from frame to frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RedState {
    /// The average queue, in packets.
    average: f64,
    /// Frames since the last one that was picked while the average was in between.
    count: u32,
}

impl RedState {
    /// Whether a frame that finds `queue` frames waiting is picked. `idle` is for how many frames' time nothing was sent.
    pub(super) fn picks(&mut self, plan: &Red, queue: usize, idle: u64, stream: &mut Stream) -> bool {
        let weight = f64::from(plan.weight_millionths.min(1_000_000)) / 1e6;
        if idle > 0 {
            let frames = f64::from(u32::try_from(idle).unwrap_or(u32::MAX));
            self.average *= libm::pow(1.0 - weight, frames);
        }
        let sample = f64::from(u32::try_from(queue).unwrap_or(u32::MAX));
        self.average += weight * (sample - self.average);
        let (low, high) = (f64::from(plan.low), f64::from(plan.high));
        if self.average < low {
            self.count = 0;
            return false;
        }
        if self.average >= high {
            self.count = 0;
            return true;
        }
        let base = f64::from(plan.share_millionths) / 1e6 * (self.average - low) / (high - low);
        let left = 1.0 - f64::from(self.count) * base;
        let is_picked = left <= base || stream.unit() <= base / left;
        self.count = if is_picked { 0 } else { self.count.saturating_add(1) };
        is_picked
    }

    /// The average queue, in packets.
    #[cfg(test)]
    pub(super) const fn average(&self) -> f64 {
        self.average
    }
}

/// Sets "congestion experienced" (RFC 3168 s.5) in a frame with IPv4 or IPv6 whose sender allows it; says whether it
/// is set now.
pub(super) fn mark(packet: &mut Packet) -> bool {
    let (ethertype, offset) = frame::payload(packet.bytes());
    let Some(header) = packet.bytes_mut().get_mut(offset..) else { return false };
    match (ethertype, header) {
        (frame::IPV4, [first, traffic, _, _, _, _, _, _, _, _, c0, c1, ..]) if *first >> 4 == 4 => {
            if *traffic & 3 == 0 {
                return false;
            }
            let added = u32::from(3 - (*traffic & 3));
            *traffic |= 3;
            // RFC 1624: the complemented sum shrinks by what the field gains.
            let sum = u32::from(!u16::from_be_bytes([*c0, *c1])) + added;
            let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap_or(u16::MAX);
            [*c0, *c1] = (!folded).to_be_bytes();
            true
        }
        (frame::IPV6, [first, second, ..]) if *first >> 4 == 6 && *second & 0x30 != 0 => {
            *second |= 0x30;
            true
        }
        _ => false,
    }
}
