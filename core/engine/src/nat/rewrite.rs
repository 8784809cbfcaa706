//! The edit of one packet: addresses, ports and checksums, by the difference that the flow computed once.

use crate::flow::{Direction, FlowEntry};
use crate::wire::checksum::Delta;
use crate::wire::{Address, Protocol, icmp, ip, tcp, udp};

/// What of a packet a rewrite has to do with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// The payload begins with the header of layer 4: the packet is whole, or the first of its fragments.
    pub has_ports: bool,
    /// The layer-4 checksum holds only the pseudo header's sum, to be completed on the way out; then ports do not
    /// touch it.
    pub needs_checksum: bool,
    /// The protocol of layer 4.
    pub protocol: Protocol,
}

/// Translates `packet`, which belongs to `entry` and goes in `direction`, and takes one hop off.
#[inline(always)]
pub fn rewrite(packet: &mut ip::Packet<'_>, entry: &FlowEntry, direction: Direction, scope: Scope) {
    let to = entry.translated(direction);
    let (addresses, tuple) = match direction {
        Direction::Original => (entry.address_delta, entry.tuple_delta),
        Direction::Reply => (entry.address_delta.inverse(), entry.tuple_delta.inverse()),
    };
    packet.pass_on(to.source, to.destination, addresses);
    if !scope.has_ports {
        return;
    }
    let (source, destination) = (to.source_port, to.destination_port);
    // The door has checked that the header is there.
    match scope.protocol {
        Protocol::TCP => {
            if let Some(header) = tcp::Header::reopen(packet.payload()) {
                if scope.needs_checksum {
                    header.set_ports_partial(source, destination, addresses);
                } else {
                    header.set_ports(source, destination, tuple);
                }
            }
        }
        Protocol::UDP => {
            if let Some(header) = udp::Header::reopen(packet.payload()) {
                if scope.needs_checksum {
                    header.set_ports_partial(source, destination, addresses);
                } else {
                    header.set_ports(source, destination, tuple);
                }
            }
        }
        // A query names itself once, by the port of whichever side is the client's.
        _ => {
            let identifier = if direction == Direction::Original { source } else { destination };
            icmp::Header::set_identifier(packet.payload(), identifier, tuple);
        }
    }
}

/// Gives a datagram over IPv4 that has no checksum the one that it should have. It must be whole.
pub fn fill_udp_checksum(packet: &mut ip::Packet<'_>) {
    let (source, destination) = (packet.source(), packet.destination());
    let ip::Packet::V4(packet) = packet else { return };
    udp::Header::fill_checksum(packet.payload, source.v4_bytes(), destination.v4_bytes());
}

/// What it does to a checksum that `old` becomes `new`, an address of the same family.
#[inline]
pub(crate) fn between(old: Address, new: Address) -> Delta {
    if old.is_v4() {
        Delta::of_bytes(old.v4_bytes(), new.v4_bytes())
    } else {
        Delta::of_16_bytes(old.v6_bytes(), new.v6_bytes())
    }
}
