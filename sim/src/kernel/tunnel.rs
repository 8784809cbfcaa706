//! The end of a tunnel: where the inner packet lies in an outer one.

use evenkeel_engine::wire::Protocol;

use crate::packet::{IPV4_BYTES, IPV6_BYTES, UDP_BYTES};

/// IPv4 in IP.
const IPIP: Protocol = Protocol(4);
/// IPv6 in IP.
const IP6: Protocol = Protocol(41);
/// Generic routing encapsulation.
const GRE: Protocol = Protocol(47);
/// The port of generic UDP encapsulation.
const GUE_PORT: u16 = 6_080;

/// Bytes in front of the packet inside the one in `bytes`, where that is a tunnel's.
pub(super) fn inner(bytes: &[u8]) -> Option<usize> {
    let (header, protocol) = match bytes.first()? >> 4 {
        4 => (usize::from(bytes.first()? & 15) * 4, Protocol(*bytes.get(9)?)),
        6 => (IPV6_BYTES, Protocol(*bytes.get(6)?)),
        _ => return None,
    };
    debug_assert!(header >= IPV4_BYTES, "the header has been looked at");
    let skip = match protocol {
        IPIP | IP6 => header,
        GRE => {
            let flags = *bytes.get(header)?;
            let kind = [*bytes.get(header + 2)?, *bytes.get(header + 3)?];
            // Only the checksum's bit may be set (RFC 2784), and it carries IP.
            if flags & 0x7f != 0 || !matches!(kind, [0x08, 0x00] | [0x86, 0xdd]) {
                return None;
            }
            header + if flags & 0x80 == 0 { 4 } else { 8 }
        }
        Protocol::UDP => {
            let port = u16::from_be_bytes([*bytes.get(header + 2)?, *bytes.get(header + 3)?]);
            let first = *bytes.get(header + UDP_BYTES)?;
            match (port, first >> 6) {
                // Version 0 has a header, whose length counts words behind the first; version 1 has none.
                (GUE_PORT, 0) => header + UDP_BYTES + 4 + usize::from(first & 0x1f) * 4,
                (GUE_PORT, 1) => header + UDP_BYTES,
                _ => return None,
            }
        }
        _ => return None,
    };
    matches!(bytes.get(skip)? >> 4, 4 | 6).then_some(skip)
}
