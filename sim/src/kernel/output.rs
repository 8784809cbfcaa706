//! Packets that leave: those of the machine itself, and the last step of all, from the next hop to a frame.

use evenkeel_engine::Instant;

use crate::net::index;
use crate::packet::Packet;
use crate::wires::frame;

use super::address::Ip;
use super::cache::Decision;
use super::icmp::Refusal;
use super::ip;
use super::neighbours::{Due, NeighbourState, Sending};
use super::routes::{DeviceId, LOOPBACK};
use super::{Cast, Kernel, KernelDrop, Out, Timer, Up};

impl Kernel {
    /// Sends an IP packet of the machine itself.
    pub(super) fn output(
        &mut self,
        now: Instant,
        mut packet: Packet,
        mark: u32,
        out: &mut Out,
    ) -> Result<(), KernelDrop> {
        let head = match ip::read(&mut packet) {
            Ok(head) => head,
            Err(reason) => return self.fail(reason, packet, out),
        };
        match self.decide(now, LOOPBACK, &head, mark, &packet) {
            Decision::Local => {
                if let Some(up) = self.deliver(now, (LOOPBACK, Cast::Host), &head, packet, 0, out) {
                    out.up.push(up);
                }
                Ok(())
            }
            Decision::Forward { neighbour, mtu, .. } => {
                if packet.len() > usize::from(mtu) && head.is_v4() && !head.may_fragment {
                    self.refuse(now, Refusal::TooBig(mtu), &packet, out);
                    return self.fail(KernelDrop::TooBig, packet, out);
                }
                self.transmit_whole(now, neighbour, packet, (LOOPBACK, mtu), out);
                Ok(())
            }
            Decision::Tun { tun, mtu, .. } => {
                if packet.len() > usize::from(mtu) && head.is_v4() && !head.may_fragment {
                    self.refuse(now, Refusal::TooBig(mtu), &packet, out);
                    return self.fail(KernelDrop::TooBig, packet, out);
                }
                if let Some(up) = self.hand_to_tun(usize::from(tun), packet, mtu, out) {
                    out.up.push(up);
                }
                Ok(())
            }
            Decision::Drop(reason) | Decision::Refuse(reason) => self.fail(reason, packet, out),
        }
    }

    fn fail(&mut self, reason: KernelDrop, packet: Packet, out: &mut Out) -> Result<(), KernelDrop> {
        self.end(reason, packet, out);
        Err(reason)
    }

    /// Sends a packet to a neighbour, in pieces where it is too large for the link.
    #[inline]
    pub(super) fn transmit_whole(
        &mut self,
        now: Instant,
        neighbour: u32,
        packet: Packet,
        (inlet, mtu): (DeviceId, u16),
        out: &mut Out,
    ) {
        if packet.len() <= usize::from(mtu) {
            self.transmit(now, neighbour, packet, inlet, out);
        } else {
            self.transmit_pieces(now, neighbour, packet, (inlet, mtu), out);
        }
    }

    #[cold]
    fn transmit_pieces(
        &mut self,
        now: Instant,
        neighbour: u32,
        packet: Packet,
        (inlet, mtu): (DeviceId, u16),
        out: &mut Out,
    ) {
        let pieces = self.cut(&packet, mtu, out);
        if pieces.is_empty() {
            self.end(KernelDrop::TooBig, packet, out);
            return;
        }
        out.recycle(packet);
        for piece in pieces {
            self.transmit(now, neighbour, piece, inlet, out);
        }
    }

    /// Sends a packet to a neighbour whose link address may have to be asked for.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        neighbour: u32,
        packet: Packet,
        inlet: DeviceId,
        out: &mut Out,
    ) {
        let up = self.transmit_now(now, neighbour, packet, inlet, out);
        out.keep(up);
    }

    /// The same; a packet that leaves at once is given back as the frame that it has become.
    #[inline(always)]
    pub(super) fn transmit_now(
        &mut self,
        now: Instant,
        neighbour: u32,
        mut packet: Packet,
        inlet: DeviceId,
        out: &mut Out,
    ) -> Option<Up> {
        if let Some(neighbour) = self.neighbours.all.get_mut(index(neighbour))
            && neighbour.use_now(now)
        {
            frame::put_header(&mut packet, &neighbour.header);
            self.counts.transmitted += 1;
            return Some(Up::Wire(usize::from(neighbour.device), packet));
        }
        self.transmit_slowly(now, neighbour, packet, inlet, out);
        None
    }

    /// The same where the neighbour has first to be asked for, or to be looked at later.
    #[cold]
    fn transmit_slowly(
        &mut self,
        now: Instant,
        neighbour: u32,
        mut packet: Packet,
        inlet: DeviceId,
        out: &mut Out,
    ) {
        let place = usize::try_from(neighbour).unwrap_or(usize::MAX);
        let sending = self.neighbours.send(place, &mut packet, inlet, now);
        match sending {
            Some(Sending::Starts) => {
                self.schedule(self.neighbours.due(place), Timer::Neighbour(place));
                self.transmit(now, neighbour, packet, inlet, out);
            }
            Some(Sending::Waits { ask, displaced }) => {
                self.counts.waiting += 1;
                if let Some(displaced) = displaced {
                    self.counts.waiting -= 1;
                    self.end(KernelDrop::NeighbourQueueFull, displaced, out);
                }
                if ask {
                    self.schedule(self.neighbours.due(place), Timer::Neighbour(place));
                    self.ask(now, place, out);
                }
            }
            None => {
                self.end(KernelDrop::NeighbourTableFull, packet, out);
            }
        }
    }

    /// Asks for a neighbour.
    fn ask(&mut self, now: Instant, place: usize, out: &mut Out) {
        let Some(neighbour) = self.neighbours.all.get(place) else { return };
        let (device, target) = (neighbour.device, neighbour.address);
        let waiting = neighbour.waiting.back();
        let source = waiting.map(|waiting| source_of(&waiting.packet));
        let known = self.neighbours.asked(place);
        self.counts.requests_sent += 1;
        if target.is_v4() {
            self.request_arp(device, target, source, known, out);
        } else {
            self.solicit(now, device, target, source, known, out);
        }
    }

    /// A neighbour's time has come.
    pub(super) fn look_at_neighbour(&mut self, now: Instant, place: usize, out: &mut Out) {
        let before = self.neighbours.due(place);
        let due = self.neighbours.look(place, now);
        let after = self.neighbours.due(place);
        if before <= now && after < Instant::NEVER {
            self.schedule(after, Timer::Neighbour(place));
        }
        match due {
            Due::Nothing => {}
            Due::Ask => self.ask(now, place, out),
            Due::Failed => {
                let Some(neighbour) = self.neighbours.all.get_mut(place) else { return };
                for waiting in std::mem::take(&mut neighbour.waiting) {
                    self.counts.waiting -= 1;
                    self.refuse(now, Refusal::HostUnreachable, &waiting.packet, out);
                    self.end(KernelDrop::NeighbourFailed, waiting.packet, out);
                }
            }
        }
    }

    /// A neighbour has become known: what waited for it leaves.
    pub(super) fn release(&mut self, now: Instant, place: usize, out: &mut Out) {
        let due = self.neighbours.due(place);
        self.schedule(due, Timer::Neighbour(place));
        let Some(neighbour) = self.neighbours.all.get_mut(place) else { return };
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        for waiting in std::mem::take(&mut neighbour.waiting) {
            self.counts.waiting -= 1;
            self.transmit(now, number, waiting.packet, waiting.inlet, out);
        }
    }

    /// Packets to a destination are known to arrive.
    pub(super) fn confirm_neighbour(&mut self, now: Instant, destination: Ip) {
        let flow = super::selection::flow_to(destination);
        if let super::routes::Found::Unicast(entry) = self.routing.lookup(&flow, None)
            && let Some(hop) = entry.choose(&flow, None, &self.routing, now)
            && let Some(place) = self.neighbours.find(hop.device, hop.gateway.unwrap_or(destination))
        {
            self.neighbours.confirm(place, now);
        }
    }

    /// Sends a frame that the stack has made itself.
    pub(super) fn transmit_own(&mut self, device: DeviceId, packet: Packet, out: &mut Out) {
        self.counts.born += 1;
        self.counts.transmitted += 1;
        out.frames.push((usize::from(device), packet));
    }

    /// Whether a neighbour is known well enough to be sent to.
    #[must_use]
    pub fn is_resolved(&self, interface: usize, address: std::net::IpAddr) -> bool {
        let state = self.neighbour(interface, address).map(|(state, _)| state);
        state.is_some_and(|state| state >= NeighbourState::Reachable)
    }
}

/// The source of a packet whose header has been read.
fn source_of(packet: &Packet) -> Ip {
    let bytes = packet.bytes();
    if bytes.first().is_some_and(|first| first >> 4 == 4) {
        let octets = bytes.get(12..16).and_then(|octets| octets.first_chunk::<4>());
        return octets.map_or(Ip::V4_ANY, |octets| Ip::of_v4(u32::from_be_bytes(*octets)));
    }
    let octets = bytes.get(8..24).and_then(|octets| octets.first_chunk::<16>());
    octets.map_or(Ip::V6_ANY, |octets| Ip(u128::from_be_bytes(*octets)))
}
