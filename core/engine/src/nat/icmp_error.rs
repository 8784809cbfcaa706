//! ICMP errors about translated packets (RFC 5508 s.4): whose packet they quote, and the same error as its sender
//! must see it.
//!
//! ```text
//! real server's side                                    client's side
//! error quotes  mapped > server      -- Reply -->       error quotes  client > service
//! error quotes  server > mapped      <-- Original --    error quotes  service > client
//! ```

use super::between;
use crate::flow::{Direction, FlowEntry};
use crate::verdict::DropReason;
use crate::wire::{FiveTuple, Protocol, checksum, icmp, ipv4, tcp, udp};

/// The bytes behind a quoted IP header that hold the ports, and that every error quotes (RFC 792).
const PORTS_BYTES: usize = 4;

/// The tuple of the packet that the error in `payload` quotes.
///
/// # Errors
/// `Truncated` when the quote ends before its ports, `BadChecksum` when the message or the quoted header does not
/// add up, `IcmpUnhandled` when the quote is of another protocol than TCP and UDP.
pub fn quoted(payload: &mut [u8]) -> Result<FiveTuple, DropReason> {
    let (_, quote) = icmp::Header::split(payload)?;
    let (header, rest) = ipv4::Header::quoted(quote)?;
    let protocol = header.protocol();
    if protocol != Protocol::TCP && protocol != Protocol::UDP {
        return Err(DropReason::IcmpUnhandled);
    }
    let Some([a, b, c, d]) = rest.first_chunk::<PORTS_BYTES>() else { return Err(DropReason::Truncated) };
    Ok(FiveTuple {
        source: header.source(),
        destination: header.destination(),
        source_port: u16::from_be_bytes([*a, *b]),
        destination_port: u16::from_be_bytes([*c, *d]),
        protocol,
    })
}

/// Turns the error in `packet`, which travels in `direction` of the flow `entry`, into what its receiver must see: the
/// quote as the receiver sent it, inner checksums mended, and nobody named whom the receiver does not know. Takes
/// one hop off.
pub fn translate(packet: &mut ipv4::Packet<'_>, entry: &FlowEntry, direction: Direction) {
    let out = entry.translated(direction);
    // Towards the client the service speaks. Towards the server whoever sent it, unless sources are hidden from it.
    let source = match direction {
        Direction::Reply => out.source,
        Direction::Original if entry.mapped == entry.client => packet.header.source(),
        Direction::Original => entry.mapped,
    };
    let addresses =
        between(packet.header.source(), source).and(between(packet.header.destination(), out.destination));
    packet.header.pass_on(source.v4_bytes(), out.destination.v4_bytes(), addresses);
    // The door has checked that all of this is there.
    if let Some(quote) = packet.payload.get_mut(icmp::HEADER_BYTES..) {
        translate_quote(quote, &entry.tuple(direction.opposite()));
    }
    icmp::Header::mend(packet.payload);
}

/// Gives the quoted packet the tuple `to`. Its own checksums are mended by the difference.
fn translate_quote(quote: &mut [u8], to: &FiveTuple) {
    let Ok((header, rest)) = ipv4::Header::quoted(quote) else { return };
    let addresses = between(header.source(), to.source).and(between(header.destination(), to.destination));
    header.set_addresses(to.source.v4_bytes(), to.destination.v4_bytes(), addresses);
    let Some(ports) = rest.first_chunk_mut::<PORTS_BYTES>() else { return };
    let old = *ports;
    let [a, b] = to.source_port.to_be_bytes();
    let [c, d] = to.destination_port.to_be_bytes();
    *ports = [a, b, c, d];
    let change = addresses.and(checksum::Delta::of_bytes(old, *ports));
    let at = if to.protocol == Protocol::TCP { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
    // A short quote ends before the checksum of TCP; UDP without a checksum stays without.
    if let Some(Some(field)) = rest.get_mut(at..).map(|rest| rest.first_chunk_mut::<2>()) {
        let old = u16::from_be_bytes(*field);
        let is_none = to.protocol == Protocol::UDP && old == 0;
        let new = change.apply(old);
        let sent = if to.protocol == Protocol::UDP && new == 0 { 0xffff } else { new };
        *field = if is_none { old } else { sent }.to_be_bytes();
    }
}
