//! The edit of one packet: addresses, ports and checksums, by the difference that the flow computed once.

use crate::flow::{Direction, FlowEntry};
use crate::wire::checksum::Delta;
use crate::wire::{Address, Protocol, ipv4, tcp, udp};

/// Translates `packet`, which belongs to `entry` and goes in `direction`, and takes one hop off its time to live.
///
/// `needs_checksum` says that the layer-4 checksum holds only the pseudo header's sum, to be completed on the
/// way out; then ports do not touch it.
#[inline]
pub fn rewrite(packet: &mut ipv4::Packet<'_>, entry: &FlowEntry, direction: Direction, needs_checksum: bool) {
    let to = entry.translated(direction);
    let (addresses, tuple) = match direction {
        Direction::Original => (entry.address_delta, entry.tuple_delta),
        Direction::Reply => (entry.address_delta.inverse(), entry.tuple_delta.inverse()),
    };
    packet.header.pass_on(to.source.v4_bytes(), to.destination.v4_bytes(), addresses);
    // The door has checked that the header is there.
    if entry.protocol == Protocol::TCP {
        if let Some(header) = tcp::Header::reopen(packet.payload) {
            if needs_checksum {
                header.set_ports_partial(to.source_port, to.destination_port, addresses);
            } else {
                header.set_ports(to.source_port, to.destination_port, tuple);
            }
        }
    } else if let Some(header) = udp::Header::reopen(packet.payload) {
        if needs_checksum {
            header.set_ports_partial(to.source_port, to.destination_port, addresses);
        } else {
            header.set_ports(to.source_port, to.destination_port, tuple);
        }
    }
}

/// What it does to a checksum that `old` becomes `new`.
#[inline]
pub(crate) const fn between(old: Address, new: Address) -> Delta {
    Delta::of_bytes(old.v4_bytes(), new.v4_bytes())
}
