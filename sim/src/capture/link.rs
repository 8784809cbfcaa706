//! What is in front of an IP packet in a capture, by link type: Ethernet with VLAN tags, Linux cooked, loopback, nothing.

/// VLAN tags that are taken off at most: a provider's and a customer's, and as many again for those who stack them.
pub const VLANS_MAX: u8 = 4;

/// What the bytes of a packet begin with. The numbers are those of the registry of link types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Ethernet (1).
    Ethernet,
    /// An IP packet (101; 12 and 14 on some systems; 228 and 229 for one family).
    Raw,
    /// Linux cooked, version 1 (113): what the interface `any` gives.
    Cooked,
    /// Linux cooked, version 2 (276).
    Cooked2,
    /// Loopback of the BSDs (0 and 108): the address family in four bytes.
    Loopback,
    /// Any other.
    Unknown(u16),
}

/// The numbers under which links are written.
const ETHERNET: u16 = 1;
const RAW: u16 = 101;

impl Link {
    /// The link with this number.
    #[must_use]
    pub const fn of(number: u16) -> Self {
        match number {
            ETHERNET => Self::Ethernet,
            RAW | 12 | 14 | 228 | 229 => Self::Raw,
            113 => Self::Cooked,
            276 => Self::Cooked2,
            0 | 108 => Self::Loopback,
            _ => Self::Unknown(number),
        }
    }

    /// The number under which it is written.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Ethernet => ETHERNET,
            Self::Raw => RAW,
            Self::Cooked => 113,
            Self::Cooked2 => 276,
            Self::Loopback => 108,
            Self::Unknown(number) => number,
        }
    }
}

/// What is behind the link header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// What says to be an IP packet, with what may follow it on the link.
    Ip {
        /// Its bytes.
        bytes: &'a [u8],
        /// VLAN tags that were in front of it.
        vlans: u8,
    },
    /// ARP.
    Arp,
    /// Something else, by its Ethernet type; 0 where it has none.
    Other(u16),
    /// The packet ends within its link header.
    Short,
    /// The link cannot be read.
    UnknownLink,
}

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;

/// Takes the link header and VLAN tags off.
#[must_use]
#[inline]
pub fn strip(link: Link, bytes: &[u8]) -> Content<'_> {
    match link {
        Link::Ethernet => match bytes.split_first_chunk::<14>() {
            Some(([.., high, low], rest)) => by_type(u16::from_be_bytes([*high, *low]), rest),
            None => Content::Short,
        },
        Link::Raw => ip(bytes, 0),
        Link::Cooked => match bytes.split_first_chunk::<16>() {
            Some(([.., high, low], rest)) => by_type(u16::from_be_bytes([*high, *low]), rest),
            None => Content::Short,
        },
        Link::Cooked2 => match bytes.split_first_chunk::<20>() {
            Some(([high, low, ..], rest)) => by_type(u16::from_be_bytes([*high, *low]), rest),
            None => Content::Short,
        },
        Link::Loopback => match bytes.split_first_chunk::<4>() {
            Some((family, rest)) => by_family(*family, rest),
            None => Content::Short,
        },
        Link::Unknown(_) => Content::UnknownLink,
    }
}

/// Takes VLAN tags off until something else comes.
#[inline]
fn by_type(kind: u16, rest: &[u8]) -> Content<'_> {
    if kind == IPV4 || kind == IPV6 {
        return ip(rest, 0);
    }
    untagged(kind, rest)
}

#[cold]
fn untagged(mut kind: u16, mut rest: &[u8]) -> Content<'_> {
    let mut vlans = 0;
    // IEEE 802.1Q, 802.1ad, and two from before that.
    while matches!(kind, 0x8100 | 0x88a8 | 0x9100 | 0x9200) && vlans < VLANS_MAX {
        let Some(([_, _, high, low], behind)) = rest.split_first_chunk::<4>() else { return Content::Short };
        (kind, rest) = (u16::from_be_bytes([*high, *low]), behind);
        vlans += 1;
    }
    match kind {
        IPV4 | IPV6 => ip(rest, vlans),
        ARP => Content::Arp,
        // Below 1,536 it is a length.
        0..1536 => Content::Other(0),
        _ => Content::Other(kind),
    }
}

/// By the address family, which is in the order of whatever machine captured: 2 is IPv4 everywhere, IPv6 is 10 (Linux), 24
/// (NetBSD, OpenBSD), 28 (FreeBSD) or 30 (macOS).
fn by_family(family: [u8; 4], rest: &[u8]) -> Content<'_> {
    let family = u32::from_le_bytes(family).min(u32::from_be_bytes(family));
    if matches!(family, 2 | 10 | 24 | 28 | 30) { ip(rest, 0) } else { Content::Other(0) }
}

#[inline]
fn ip(bytes: &[u8], vlans: u8) -> Content<'_> {
    match bytes.first().map(|first| first >> 4) {
        Some(4 | 6) => Content::Ip { bytes, vlans },
        Some(_) => Content::Other(0),
        None => Content::Short,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 20] = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 253, 0, 0, 192, 0, 2, 1, 10, 0, 0, 3];

    fn found(link: u16, header: &[u8]) -> Option<u8> {
        let bytes = [header, &PACKET].concat();
        for length in 0..header.len() {
            let content = strip(Link::of(link), &bytes[..length]);
            assert!(!matches!(content, Content::Ip { .. }), "{link} {length}");
        }
        match strip(Link::of(link), &bytes) {
            Content::Ip { bytes, vlans } => {
                assert_eq!(bytes, PACKET);
                Some(vlans)
            }
            _ => None,
        }
    }

    #[test]
    fn an_ip_packet_is_found_behind_every_link() {
        let macs = [2; 12];
        assert_eq!(found(1, &[&macs[..], &[8, 0]].concat()), Some(0));
        assert_eq!(found(1, &[&macs[..], &[0x81, 0, 0, 7, 8, 0]].concat()), Some(1));
        let double = [&macs[..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 9, 0x86, 0xdd]].concat();
        assert_eq!(found(1, &double), Some(2));
        for link in [101, 12, 14, 228, 229] {
            assert_eq!(found(link, &[]), Some(0));
        }
        assert_eq!(found(113, &[[0; 14].as_slice(), &[8, 0]].concat()), Some(0));
        assert_eq!(found(113, &[[0; 14].as_slice(), &[0x81, 0, 0, 1, 8, 0]].concat()), Some(1));
        assert_eq!(found(276, &[&[8, 0][..], &[0; 18]].concat()), Some(0));
        for family in [[2, 0, 0, 0], [0, 0, 0, 2], [30, 0, 0, 0], [0, 0, 0, 28]] {
            assert_eq!(found(0, &family), Some(0));
            assert_eq!(found(108, &family), Some(0));
        }
    }

    #[test]
    fn what_is_no_ip_packet_is_told_apart() {
        let ethernet = |kind: [u8; 2]| [&[2; 12][..], &kind, &[0; 46]].concat();
        assert_eq!(strip(Link::Ethernet, &ethernet([8, 6])), Content::Arp);
        assert_eq!(strip(Link::Ethernet, &ethernet([0x88, 0xcc])), Content::Other(0x88cc));
        assert_eq!(strip(Link::Ethernet, &ethernet([0, 40])), Content::Other(0));
        assert_eq!(strip(Link::Ethernet, &ethernet([8, 0])), Content::Other(0), "no version");
        assert_eq!(strip(Link::Raw, &[]), Content::Short);
        assert_eq!(strip(Link::Unknown(105), &PACKET), Content::UnknownLink);
        assert_eq!(strip(Link::Loopback, &[9, 0, 0, 0, 0x45]), Content::Other(0));
        let tags = [&[2; 12][..], &[0x81, 0, 0, 1].repeat(9), &[8, 0], &PACKET].concat();
        assert_eq!(strip(Link::Ethernet, &tags), Content::Other(0x8100));
    }

    #[test]
    fn numbers_go_there_and_back() {
        for number in [1, 101, 113, 276, 108, 105] {
            assert_eq!(Link::of(number).number(), number);
        }
    }
}
