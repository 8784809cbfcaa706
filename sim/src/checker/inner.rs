//! The packet inside a tunnel's (IPIP, GRE, GUE), by the headers alone.

use crate::packet::{IPV4_BYTES, IPV6_BYTES, UDP_BYTES};

/// IPv4 and IPv6 in IP.
const IP_IN_IP: [u8; 2] = [4, 41];
/// Generic routing encapsulation.
const GRE: u8 = 47;
/// UDP.
const UDP: u8 = 17;
/// The port of generic UDP encapsulation.
const GUE_PORT: [u8; 2] = 6_080_u16.to_be_bytes();

/// What is inside `bytes`, where that is a packet of a tunnel.
pub(super) fn inner(bytes: &[u8]) -> Option<&[u8]> {
    let (header, protocol) = match bytes.first()? >> 4 {
        4 => (usize::from(bytes.first()? & 15) * 4, *bytes.get(9)?),
        6 => (IPV6_BYTES, *bytes.get(6)?),
        _ => return None,
    };
    let body = bytes.get(header.max(IPV4_BYTES)..)?;
    let skip = match protocol {
        UDP if body.get(2..4)? == GUE_PORT => match body.get(UDP_BYTES)? >> 6 {
            0 => UDP_BYTES + 4 + usize::from(body.get(UDP_BYTES)? & 0x1f) * 4,
            1 => UDP_BYTES,
            _ => return None,
        },
        // Checksum, key and sequence number each add a word.
        GRE => 4 + 4 * usize::try_from((body.first()? & 0xb0).count_ones()).ok()?,
        _ if IP_IN_IP.contains(&protocol) => 0,
        _ => return None,
    };
    body.get(skip..).filter(|inner| inner.first().is_some_and(|first| matches!(first >> 4, 4 | 6)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{self, End, Header};

    #[test]
    fn every_kind_of_tunnel_is_looked_into_and_nothing_else() {
        let end = |last, port| End { address: std::net::Ipv4Addr::new(10, 0, 0, last), port };
        let datagram = |port, payload: &[u8]| {
            let fill = |bytes: &mut [u8]| bytes.copy_from_slice(payload);
            packet::build(
                packet::Packet::default(),
                (end(1, 9), end(2, port)),
                Header::Udp,
                payload.len(),
                fill,
            )
        };
        let inside = datagram(80, b"x").bytes().to_vec();
        let around = |protocol: u8, between: &[u8]| {
            let mut bytes = datagram(80, &[between, &inside].concat()).bytes().to_vec();
            bytes.drain(20..28);
            bytes[9] = protocol;
            bytes
        };
        assert_eq!(inner(&around(4, &[])), Some(&inside[..]));
        assert_eq!(inner(&around(47, &[0, 0, 8, 0])), Some(&inside[..]));
        assert_eq!(inner(&around(47, &[0x20, 0, 8, 0, 1, 2, 3, 4])), Some(&inside[..]));
        let gue = |between: &[u8]| datagram(6_080, &[between, &inside].concat());
        assert_eq!(inner(gue(&[0, 4, 0, 0]).bytes()), Some(&inside[..]));
        assert_eq!(inner(gue(&[]).bytes()), Some(&inside[..]));
        assert_eq!(inner(&inside), None);
        for length in 0..30 {
            assert_eq!(inner(&around(4, &[])[..length]).filter(|inner| inner.is_empty()), None);
        }
    }
}
