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
use crate::wire::checksum::Delta;
use crate::wire::{Address, FiveTuple, Protocol, icmp, icmpv6, ip, ipv4, ipv6, tcp, udp};

/// The bytes behind a quoted IP header that name the flow, and that every error quotes (RFC 792): ports, or type, code,
/// checksum and identifier.
const NAME_BYTES: usize = 8;

/// Bytes of an ICMP header, the same in both families.
const HEADER_BYTES: usize = icmp::HEADER_BYTES;

/// The tuple of the packet that the error in `packet` quotes.
///
/// # Errors
/// `Truncated` when the quote ends before it names its flow, `BadChecksum` when the message or the quoted header does
/// not add up, `IcmpUnhandled` when the quote is of another protocol than TCP, UDP and ICMP echo.
pub fn quoted(packet: &mut ip::Packet<'_>) -> Result<FiveTuple, DropReason> {
    let (source, destination) = (packet.source(), packet.destination());
    let quote = match packet {
        ip::Packet::V4(packet) => icmp::Header::split(packet.payload)?.1,
        ip::Packet::V6(_, payload) => {
            icmpv6::Header::split(payload, source.v6_bytes(), destination.v6_bytes())?.1
        }
    };
    tuple_of(quote)
}

/// How large packets may be, as the ICMP message with this `header` says: fragmentation needed, or packet too big.
#[must_use]
pub fn mtu_of(header: &[u8], protocol: Protocol) -> Option<u16> {
    let [kind, code, _, _, a, b, c, d] = *header.first_chunk::<HEADER_BYTES>()?;
    match protocol {
        Protocol::ICMP if (kind, code) == (icmp::kind::UNREACHABLE, 4) => Some(u16::from_be_bytes([c, d])),
        Protocol::ICMPV6 if kind == icmpv6::kind::TOO_BIG => {
            Some(u16::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(u16::MAX))
        }
        _ => None,
    }
}

/// The tuple of the cut packet in `quote`.
///
/// # Errors
/// As [`quoted`], for the quoted packet.
pub fn tuple_of(quote: &mut [u8]) -> Result<FiveTuple, DropReason> {
    let inner = Inner::split(quote)?;
    let name = inner.rest.first_chunk::<NAME_BYTES>().ok_or(DropReason::Truncated)?;
    let [a, b, c, d, e, f, ..] = *name;
    let (first, second, identifier) =
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), u16::from_be_bytes([e, f]));
    let (source_port, destination_port) = match (inner.protocol, a) {
        (Protocol::TCP | Protocol::UDP, _) => (first, second),
        (Protocol::ICMP, icmp::kind::ECHO_REQUEST) | (Protocol::ICMPV6, icmpv6::kind::ECHO_REQUEST) => {
            (identifier, 0)
        }
        (Protocol::ICMP, icmp::kind::ECHO_REPLY) | (Protocol::ICMPV6, icmpv6::kind::ECHO_REPLY) => {
            (0, identifier)
        }
        _ => return Err(DropReason::IcmpUnhandled),
    };
    let (source, destination, protocol) = (inner.source, inner.destination, inner.protocol);
    Ok(FiveTuple { source, destination, source_port, destination_port, protocol })
}

/// Turns the error in `packet`, which travels in `direction` of the flow `entry`, into what its receiver must see: the
/// quote as the receiver sent it, inner checksums mended, and nobody named whom the receiver does not know. Takes
/// one hop off.
pub fn translate(packet: &mut ip::Packet<'_>, entry: &FlowEntry, direction: Direction) {
    let out = entry.translated(direction);
    // Towards the client the service speaks. Towards the server whoever sent it, unless sources are hidden from it.
    let source = match direction {
        Direction::Reply => out.source,
        Direction::Original if entry.mapped == entry.client => packet.source(),
        Direction::Original => entry.mapped,
    };
    let addresses = between(packet.source(), source).and(between(packet.destination(), out.destination));
    packet.pass_on(source, out.destination, addresses);
    // The door has checked that all of this is there.
    if let Some(quote) = packet.payload().get_mut(HEADER_BYTES..) {
        translate_quote(quote, &entry.tuple(direction.opposite()));
    }
    match packet {
        ip::Packet::V4(packet) => icmp::Header::mend(packet.payload),
        ip::Packet::V6(_, payload) => {
            icmpv6::Header::mend(payload, source.v6_bytes(), out.destination.v6_bytes());
        }
    }
}

/// Gives the quoted packet the tuple `to`. Its own checksums are mended by the difference.
fn translate_quote(quote: &mut [u8], to: &FiveTuple) {
    let Ok(inner) = Inner::split(quote) else { return };
    let addresses = between(inner.source, to.source).and(between(inner.destination, to.destination));
    let rest = inner.rest;
    let (at, change) = match to.protocol {
        Protocol::TCP | Protocol::UDP => {
            let Some(ports) = rest.first_chunk_mut::<4>() else { return };
            let old = *ports;
            let [a, b] = to.source_port.to_be_bytes();
            let [c, d] = to.destination_port.to_be_bytes();
            *ports = [a, b, c, d];
            let at = if to.protocol == Protocol::TCP { tcp::CHECKSUM_AT } else { udp::CHECKSUM_AT };
            (at, addresses.and(Delta::of_bytes(old, *ports)))
        }
        _ => {
            let Some(identifier) = rest.get_mut(4..).and_then(|rest| rest.first_chunk_mut::<2>()) else {
                return;
            };
            let (old, new) = (u16::from_be_bytes(*identifier), to.source_port | to.destination_port);
            *identifier = new.to_be_bytes();
            let change = Delta::of_word(old, new);
            // The pseudo header is summed for IPv6 alone.
            (2, if to.source.is_v4() { change } else { change.and(addresses) })
        }
    };
    // A short quote ends before the checksum of TCP; UDP without a checksum stays without.
    if let Some(Some(field)) = rest.get_mut(at..).map(|rest| rest.first_chunk_mut::<2>()) {
        let old = u16::from_be_bytes(*field);
        let is_none = to.protocol == Protocol::UDP && old == 0;
        let new = change.apply(old);
        let sent = if to.protocol == Protocol::UDP && new == 0 { 0xffff } else { new };
        *field = if is_none { old } else { sent }.to_be_bytes();
    }
    if let Ok((header, _)) = ipv4::Header::quoted(quote) {
        header.set_addresses(to.source.v4_bytes(), to.destination.v4_bytes(), addresses);
    } else if let Ok((header, _, _)) = ipv6::Header::quoted(quote) {
        header.set_addresses(to.source.v6_bytes(), to.destination.v6_bytes());
    }
}

/// A quoted packet: less of it is checked than at the door, since a quote is cut.
struct Inner<'a> {
    source: Address,
    destination: Address,
    protocol: Protocol,
    rest: &'a mut [u8],
}

impl<'a> Inner<'a> {
    fn split(quote: &'a mut [u8]) -> Result<Self, DropReason> {
        if quote.first().is_some_and(|first| first >> 4 == 6) {
            let (header, protocol, rest) = ipv6::Header::quoted(quote)?;
            return Ok(Self { source: header.source(), destination: header.destination(), protocol, rest });
        }
        let (header, rest) = ipv4::Header::quoted(quote)?;
        let (source, destination, protocol) = (header.source(), header.destination(), header.protocol());
        Ok(Self { source, destination, protocol, rest })
    }
}
