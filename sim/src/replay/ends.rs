//! Whose address becomes whose: the capture's server end becomes the VIP, and addresses that no network carries become
//! some that it does.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use evenkeel_engine::wire::Address;

/// The most mappings of one replay: they are looked through one by one for each packet.
pub const MAPPINGS_MAX: usize = 64;

/// An end of the capture and what it becomes: `127.0.0.1:7000=10.0.0.3:80`, or addresses alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The address in the capture.
    pub from: IpAddr,
    /// What it becomes; of the same family.
    pub to: IpAddr,
    /// The port in the capture and what it becomes; without them, every port stays as it is.
    pub ports: Option<(u16, u16)>,
}

/// Why a text is no mapping.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MappingError(String);

impl FromStr for Mapping {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        const FORM: &str = "OLD=NEW, such as 127.0.0.1:7000=10.0.0.3:80 or [::1]:80=[fc00::3]:80";
        let Some((old, new)) = text.split_once('=') else {
            return Err(MappingError(format!("{text:?} is not of the form {FORM}")));
        };
        let (from, from_port) = end(old)?;
        let (to, to_port) = end(new)?;
        if from.is_ipv4() != to.is_ipv4() {
            return Err(MappingError(format!("{old} and {new} are of different families")));
        }
        let ports = match (from_port, to_port) {
            (Some(from), Some(to)) => Some((from, to)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                return Err(MappingError(format!("{old} and {new}: name both ports, or none")));
            }
        };
        Ok(Self { from, to, ports })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ports {
            Some((from, to)) => {
                write!(f, "{}={}", SocketAddr::new(self.from, from), SocketAddr::new(self.to, to))
            }
            None => write!(f, "{}={}", self.from, self.to),
        }
    }
}

/// An address, with or without a port.
fn end(text: &str) -> Result<(IpAddr, Option<u16>), MappingError> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Ok((both.ip(), Some(both.port())));
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse::<IpAddr>();
    address.map(|address| (address, None)).map_err(|_| {
        MappingError(format!(
            "{text:?} is no address, nor an address and a port: 192.0.2.1, 192.0.2.1:80, [fc00::3]:80"
        ))
    })
}

/// Bits of a loopback address that are kept: as many as the network of RFC 2544 has for hosts.
const LOOPBACK_BITS: u32 = 0x0001_ffff;
/// The network for measurements, 198.18.0.0/15 (RFC 2544).
const MEASURING_V4: u32 = 0xc612_0000;
/// The network for measurements, 2001:2::/48 (RFC 5180), and in it the host 1.
const MEASURING_V6: [u8; 16] = [0x20, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// All mappings of a replay.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends {
    exact: Vec<(Address, u16, Address, u16)>,
    hosts: Vec<(Address, Address)>,
}

impl Ends {
    pub(super) fn new(mappings: &[Mapping]) -> Self {
        let mut ends = Self::default();
        for mapping in mappings {
            let (from, to) = (mapping.from.into(), mapping.to.into());
            match mapping.ports {
                Some((from_port, to_port)) => ends.exact.push((from, from_port, to, to_port)),
                None => ends.hosts.push((from, to)),
            }
        }
        ends
    }

    /// What an address and port become.
    #[inline]
    pub(super) fn of(&self, address: Address, port: u16) -> (Address, u16) {
        for (from, from_port, to, to_port) in &self.exact {
            if *from_port == port && *from == address {
                return (*to, *to_port);
            }
        }
        (self.host(address), port)
    }

    /// What an address becomes where no port is known: of a later fragment, or of a ping. Mappings with ports count
    /// where they agree about the address.
    pub(super) fn without_port(&self, address: Address) -> Address {
        let mut named = self.exact.iter().filter(|(from, ..)| *from == address).map(|(_, _, to, _)| *to);
        let is_host = self.hosts.iter().any(|(from, _)| *from == address);
        match named.next() {
            Some(to) if !is_host && named.all(|other| other == to) => to,
            _ => self.host(address),
        }
    }

    #[inline]
    fn host(&self, address: Address) -> Address {
        for (from, to) in &self.hosts {
            if *from == address {
                return *to;
            }
        }
        measured(address)
    }
}

/// A loopback address becomes one for measurements: no network carries the first, and a forwarder drops it.
#[inline]
fn measured(address: Address) -> Address {
    if address.is_v4() {
        let [first, b, c, d] = address.v4_bytes();
        if first != 127 {
            return address;
        }
        let bits = u32::from_be_bytes([0, b, c, d]) & LOOPBACK_BITS | MEASURING_V4;
        return Address::v4(bits.to_be_bytes());
    }
    if address.halves() == [0, 1] { Address::v6(MEASURING_V6) } else { address }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn mappings_are_read_and_shown() {
        for text in
            ["127.0.0.1:7000=10.0.0.3:80", "[::1]:80=[fc00::3]:8080", "192.0.2.1=10.0.0.3", "::1=fc00::3"]
        {
            assert_eq!(text.parse::<Mapping>().unwrap().to_string(), text);
        }
        assert_eq!("[::1]=[fc00::3]".parse::<Mapping>().unwrap().to_string(), "::1=fc00::3");
        for (text, words) in [
            ("", "\"\" is not of the form OLD=NEW"),
            ("1.2.3.4", "is not of the form"),
            ("1.2.3=1.2.3.4", "\"1.2.3\" is no address"),
            ("1.2.3.4:99999=1.2.3.4:1", "\"1.2.3.4:99999\" is no address"),
            ("1.2.3.4:1=1.2.3.4", "name both ports, or none"),
            ("1.2.3.4=1.2.3.4:1", "name both ports, or none"),
            ("1.2.3.4=fc00::3", "of different families"),
        ] {
            let error = text.parse::<Mapping>().unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn the_narrowest_mapping_counts() {
        let texts = ["127.0.0.1:7000=10.0.0.3:80", "127.0.0.1=192.0.2.9", "[fc00::9]:53=[fc00::3]:53"];
        let ends = Ends::new(&texts.map(|text| text.parse().unwrap()));
        let of = |text, port| ends.of(address(text), port);
        assert_eq!(of("127.0.0.1", 7000), (address("10.0.0.3"), 80));
        assert_eq!(of("127.0.0.1", 7001), (address("192.0.2.9"), 7001));
        assert_eq!(of("127.0.0.2", 7000), (address("198.18.0.2"), 7000));
        assert_eq!(of("127.255.1.2", 1), (address("198.19.1.2"), 1));
        assert_eq!(of("::1", 5), (address("2001:2::1"), 5));
        assert_eq!(of("192.0.2.1", 5), (address("192.0.2.1"), 5));
        assert_eq!(ends.without_port(address("127.0.0.1")), address("192.0.2.9"));
        assert_eq!(ends.without_port(address("fc00::9")), address("fc00::3"));
        assert_eq!(ends.without_port(address("fc00::8")), address("fc00::8"));
        let two = ["[fc00::9]:53=[fc00::3]:53", "[fc00::9]:80=[fc00::4]:80"];
        let ends = Ends::new(&two.map(|text| text.parse().unwrap()));
        assert_eq!(ends.without_port(address("fc00::9")), address("fc00::9"));
    }
}
