//! Addresses of both families as one kind of number, and networks of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::plan::Prefix;

use crate::wires::frame::MacAddress;

/// Where IPv4 lies among IPv6 addresses (RFC 4291 s.2.5.5.2). No packet of IPv6 has such an address: the door refuses it.
const MAPPED: u128 = 0xffff_0000_0000;
/// Bits in front of an IPv4 address.
const MAPPED_BITS: u8 = 96;
/// The first 64 bits of addresses that hold on one link.
const LINK_LOCAL: u128 = 0xfe80 << 112;
/// The first 104 bits of the groups that neighbours are asked in (RFC 4291 s.2.7.1).
const SOLICITED: u128 = 0xff02_0000_0000_0000_0000_0001_ff00_0000;

/// An address. Those of IPv4 are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Ip(pub(super) u128);

impl Ip {
    pub(super) const V4_ANY: Self = Self(MAPPED);
    pub(super) const V4_BROADCAST: Self = Self(MAPPED | 0xffff_ffff);
    pub(super) const V6_ANY: Self = Self(0);
    /// Every node of a link (RFC 4291 s.2.7.1).
    pub(super) const ALL_NODES: Self = Self(0xff02_0000_0000_0000_0000_0000_0000_0001);

    #[allow(clippy::cast_lossless, reason = "`From` is not const")]
    pub(super) const fn of_v4(bits: u32) -> Self {
        Self(MAPPED | bits as u128)
    }

    pub(super) const fn is_v4(self) -> bool {
        self.0 >> 32 == MAPPED >> 32
    }

    /// The 32 bits of an IPv4 address.
    #[allow(clippy::cast_possible_truncation, reason = "the low 32 bits are meant")]
    pub(super) const fn v4_bits(self) -> u32 {
        self.0 as u32
    }

    pub(super) const fn v4_octets(self) -> [u8; 4] {
        self.v4_bits().to_be_bytes()
    }

    pub(super) const fn v6_octets(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(super) const fn is_multicast(self) -> bool {
        if self.is_v4() { self.v4_bits() >> 28 == 0xe } else { self.0 >> 120 == 0xff }
    }

    pub(super) const fn is_unspecified(self) -> bool {
        self.0 == MAPPED || self.0 == 0
    }

    pub(super) const fn is_loopback(self) -> bool {
        if self.is_v4() { self.v4_bits() >> 24 == 127 } else { self.0 == 1 }
    }

    /// Whether it lies in 0.0.0.0/8, "this network".
    pub(super) const fn is_zero_net(self) -> bool {
        self.is_v4() && self.v4_bits() >> 24 == 0
    }

    pub(super) const fn is_link_local(self) -> bool {
        !self.is_v4() && self.0 >> 118 == LINK_LOCAL >> 118
    }

    /// The group in which the owner of this IPv6 address listens.
    pub(super) const fn solicited_node(self) -> Self {
        Self(SOLICITED | self.0 & 0x00ff_ffff)
    }

    /// The group of stations that listen to this multicast address (RFC 1112 s.6.4, RFC 2464 s.7).
    pub(super) const fn group(self) -> MacAddress {
        if self.is_v4() {
            let [_, b, c, d] = self.v4_octets();
            return MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
        }
        MacAddress::multicast_of(self.v6_octets())
    }
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address.to_bits()),
            IpAddr::V6(address) => Self(address.to_bits()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(address: Ip) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from_bits(address.v4_bits()))
        } else {
            Self::V6(Ipv6Addr::from_bits(address.0))
        }
    }
}

/// The link-local address of a station (RFC 4291, appendix A).
pub(super) fn link_local(mac: MacAddress) -> Ip {
    let [a, b, c, d, e, f] = mac.0;
    let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ip(LINK_LOCAL | u128::from(interface))
}

/// The bits of a network's own part, with its length counted from the first of 128 bits.
const fn mask(length: u8) -> u128 {
    if length == 0 { 0 } else { u128::MAX << (128 - length as u32) }
}

/// An address with the length of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Net {
    pub(super) address: Ip,
    /// Bits of the network's part, of 128.
    pub(super) length: u8,
}

impl Net {
    /// Whether an address lies in this network. Those of the other family never do.
    pub(super) const fn contains(&self, address: Ip) -> bool {
        (self.address.0 ^ address.0) & mask(self.length) == 0 && self.address.is_v4() == address.is_v4()
    }

    /// The network's own address.
    pub(super) const fn base(&self) -> Ip {
        Ip(self.address.0 & mask(self.length))
    }

    /// The last address of the network.
    pub(super) const fn last(&self) -> Ip {
        Ip(self.address.0 | !mask(self.length))
    }

    /// Whether it is one address alone.
    pub(super) const fn is_host(&self) -> bool {
        self.length == 128
    }
}

impl From<Prefix> for Net {
    fn from(prefix: Prefix) -> Self {
        let length = match prefix.address {
            IpAddr::V4(_) => MAPPED_BITS + prefix.length.min(32),
            IpAddr::V6(_) => prefix.length.min(128),
        };
        Self { address: prefix.address.into(), length }
    }
}

/// Values by network, of one family: the longest network that contains an address comes first.
#[derive(Clone, Debug)]
pub(super) struct Networks<T> {
    /// By length, the longest first; within, by network.
    groups: Vec<(u8, Vec<(u128, T)>)>,
}

impl<T> Default for Networks<T> {
    fn default() -> Self {
        Self { groups: Vec::new() }
    }
}

impl<T> Networks<T> {
    /// The values of all networks that contain an address, from the longest on.
    pub(super) fn matches(&self, address: Ip) -> impl Iterator<Item = &T> {
        self.groups.iter().filter_map(move |(length, entries)| {
            let base = address.0 & mask(*length);
            let place = entries.binary_search_by_key(&base, |(network, _)| *network).ok()?;
            entries.get(place).map(|(_, value)| value)
        })
    }

    /// The value of a network, put in where there is none.
    pub(super) fn entry(&mut self, net: Net, empty: impl FnOnce() -> T) -> Option<&mut T> {
        let group = match self.groups.binary_search_by(|(length, _)| net.length.cmp(length)) {
            Ok(place) => place,
            Err(place) => {
                self.groups.insert(place, (net.length, Vec::new()));
                place
            }
        };
        let (_, entries) = self.groups.get_mut(group)?;
        let base = net.base().0;
        let place = match entries.binary_search_by_key(&base, |(network, _)| *network) {
            Ok(place) => place,
            Err(place) => {
                entries.insert(place, (base, empty()));
                place
            }
        };
        entries.get_mut(place).map(|(_, value)| value)
    }

    /// Keeps only some values.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(&mut T) -> bool) {
        for (_, entries) in &mut self.groups {
            entries.retain_mut(|(_, value)| keeps(value));
        }
        self.groups.retain(|(_, entries)| !entries.is_empty());
    }

    /// All values, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.groups.iter_mut().flat_map(|(_, entries)| entries.iter_mut().map(|(_, value)| value))
    }

    /// All values.
    pub(super) fn values(&self) -> impl Iterator<Item = &T> {
        self.groups.iter().flat_map(|(_, entries)| entries.iter().map(|(_, value)| value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }.into()
    }

    fn ip(text: &str) -> Ip {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn the_longest_network_comes_first() {
        let mut networks = Networks::default();
        for text in ["10.0.0.0/8", "0.0.0.0/0", "10.1.0.0/16", "10.1.2.3/32", "10.2.0.0/16"] {
            *networks.entry(net(text), || "").unwrap() = text;
        }
        let all = |address| networks.matches(ip(address)).copied().collect::<Vec<_>>();
        assert_eq!(all("10.1.2.3"), ["10.1.2.3/32", "10.1.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!(all("10.2.2.3"), ["10.2.0.0/16", "10.0.0.0/8", "0.0.0.0/0"]);
        assert_eq!(all("192.0.2.1"), ["0.0.0.0/0"]);
        networks.retain(|text| *text != "0.0.0.0/0");
        assert_eq!(networks.matches(ip("192.0.2.1")).count(), 0);
    }

    #[test]
    fn families_do_not_meet() {
        assert!(net("::/0").contains(ip("2001:db8::1")) && !net("::/0").contains(ip("192.0.2.1")));
        assert!(net("0.0.0.0/0").contains(ip("192.0.2.1")) && !net("0.0.0.0/0").contains(ip("::1")));
        assert_eq!(net("10.0.0.7/24").last(), ip("10.0.0.255"));
        assert_eq!(IpAddr::from(ip("2001:db8::1")), "2001:db8::1".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn groups_are_those_of_the_rfcs() {
        assert_eq!(ip("239.129.2.3").group(), MacAddress([1, 0, 0x5e, 1, 2, 3]));
        assert_eq!(ip("2001:db8::1234:5678").solicited_node(), ip("ff02::1:ff34:5678"));
        assert_eq!(link_local(MacAddress([2, 0, 0, 0, 0, 1])), ip("fe80::ff:fe00:1"));
        assert!(ip("fe80::1").is_link_local() && !ip("2001:db8::1").is_link_local());
    }
}
