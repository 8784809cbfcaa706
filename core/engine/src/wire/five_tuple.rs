//! Who talks to whom: addresses, ports and protocol of a packet, and the one keyed hash of them.

use core::fmt;
use core::hash::Hasher;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use siphasher::sip::SipHasher13;

/// An IP address of either family in 16 bytes; IPv4 as `::ffff:a.b.c.d`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    high: u64,
    low: u64,
}

/// The bits above an IPv4 address in its mapped form.
const MAPPED: u64 = 0xffff_0000_0000;

impl Address {
    /// The address `::`, which is nobody's.
    pub const UNSPECIFIED: Self = Self { high: 0, low: 0 };

    /// An IPv4 address from its bytes on the wire.
    #[must_use]
    #[inline]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self { high: 0, low: MAPPED | u32::from_be_bytes(bytes) as u64 }
    }

    /// An IPv6 address from its bytes on the wire. One within `::ffff:0:0/96` is the IPv4 address in its last four,
    /// so a packet that names such an address on the wire is refused (RFC 4942 s.2.2) before it gets here.
    #[must_use]
    #[inline]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, low @ ..] = bytes;
        Self { high: u64::from_be_bytes([a, b, c, d, e, f, g, h]), low: u64::from_be_bytes(low) }
    }

    /// Whether this is an IPv4 address.
    #[must_use]
    #[inline]
    pub const fn is_v4(self) -> bool {
        self.high == 0 && self.low >> 32 == 0xffff
    }

    /// The bytes of an IPv4 address as on the wire; for IPv6, its last four.
    #[must_use]
    #[inline]
    pub const fn v4_bytes(self) -> [u8; 4] {
        let [_, _, _, _, a, b, c, d] = self.low.to_be_bytes();
        [a, b, c, d]
    }

    /// The bytes of an IPv6 address as on the wire; for IPv4, of its mapped form.
    #[must_use]
    #[inline]
    pub const fn v6_bytes(self) -> [u8; 16] {
        self.bits().to_be_bytes()
    }

    /// Whether one station can have it: neither nobody's nor many's (multicast, and IPv4 from 224.0.0.0 on).
    #[must_use]
    pub const fn is_station(self) -> bool {
        if self.is_v4() {
            let [first, ..] = self.v4_bytes();
            first != 0 && first < 224
        } else {
            self.high >> 56 != 0xff && (self.high | self.low) != 0
        }
    }

    /// The 16 bytes as one number, the first on the wire the highest. The IPv4 addresses lie side by side.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// The two halves, the first on the wire first.
    #[must_use]
    #[inline]
    pub const fn halves(self) -> [u64; 2] {
        [self.high, self.low]
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::v4(address.octets()),
            IpAddr::V6(address) => {
                let bits = address.to_bits().to_be_bytes();
                let half = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
                let (high, low) = bits.split_at(8);
                Self { high: half(high), low: half(low) }
            }
        }
    }
}

impl From<Ipv4Addr> for Address {
    fn from(address: Ipv4Addr) -> Self {
        Self::v4(address.octets())
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            Self::V4(Ipv4Addr::from(address.v4_bytes()))
        } else {
            Self::V6(Ipv6Addr::from_bits(u128::from(address.high) << 64 | u128::from(address.low)))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A protocol number of layer 4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol(pub u8);

impl Protocol {
    /// ICMP.
    pub const ICMP: Self = Self(1);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// ICMP for IPv6.
    pub const ICMPV6: Self = Self(58);
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ICMP => f.write_str("icmp"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::ICMPV6 => f.write_str("icmpv6"),
            Self(number) => write!(f, "protocol {number}"),
        }
    }
}

/// The key of the flow hash. Whoever knows it can aim collisions, so it never leaves the plan.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u64; 2]);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

/// Protocol, addresses and ports of one direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// From which port.
    pub source_port: u16,
    /// To which port.
    pub destination_port: u16,
    /// By which protocol.
    pub protocol: Protocol,
}

impl FiveTuple {
    /// The keyed hash (SipHash-1-3) of this tuple: of 16 bytes for IPv4, of 40 for IPv6.
    ///
    /// IPv4: source, destination, source port, destination port, protocol, three zeros, in network order.
    /// IPv6: the same fields with addresses of 16 bytes.
    #[must_use]
    #[inline(always)]
    pub fn hash(&self, key: HashKey) -> u64 {
        let HashKey([first, second]) = key;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        // Word by word, as SipHash reads bytes: the first on the wire is the lowest.
        let ports = u32::from(self.source_port) << 16 | u32::from(self.destination_port);
        let tail = u64::from(ports.swap_bytes()) | u64::from(self.protocol.0) << 32;
        // Both are IPv4: nothing differs from the mapped form but the last four bytes of each.
        let [source, destination] = [self.source, self.destination];
        let differs = ((source.low ^ MAPPED) | (destination.low ^ MAPPED)) >> 32;
        if source.high | destination.high | differs == 0 {
            let [source, destination] =
                [self.source, self.destination].map(|address| address.low.swap_bytes() >> 32);
            hasher.write_u64(source | destination << 32);
        } else {
            let halves = [self.source.halves(), self.destination.halves()];
            halves.as_flattened().iter().for_each(|half| hasher.write_u64(half.swap_bytes()));
        }
        hasher.write_u64(tail);
        hasher.finish()
    }

    /// The tuple of the other direction.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
    }
}

impl fmt::Display for FiveTuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, destination, source_port, destination_port, protocol } = self;
        write!(f, "{protocol} {source}:{source_port} > {destination}:{destination_port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn tuple(source: IpAddr, destination: IpAddr) -> FiveTuple {
        FiveTuple {
            source: source.into(),
            destination: destination.into(),
            source_port: 40_000,
            destination_port: 80,
            protocol: Protocol::TCP,
        }
    }

    #[test]
    fn an_address_survives_the_mapped_form() {
        for text in ["10.0.0.3", "0.0.0.0", "255.255.255.255", "::1", "fc00:1::1", "1:2:3:4:5:6:7:8"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).is_v4(), address.is_ipv4());
        }
    }

    #[test]
    fn an_address_of_16_bytes_is_the_one_on_the_wire() {
        for text in ["::", "::1", "fc00:1::1", "1:2:3:4:5:6:7:8", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"] {
            let address: Ipv6Addr = text.parse().unwrap();
            assert_eq!(Address::v6(address.octets()), IpAddr::V6(address).into());
            assert_eq!(Address::v6(address.octets()).v6_bytes(), address.octets());
        }
        let mapped = Ipv4Addr::new(10, 0, 0, 3).to_ipv6_mapped().octets();
        assert_eq!(Address::v4([10, 0, 0, 3]).v6_bytes(), mapped);
        assert_eq!(Address::v6(mapped), Address::v4([10, 0, 0, 3]));
        assert_eq!(Protocol::ICMPV6.to_string(), "icmpv6");
    }

    #[test]
    fn the_hash_depends_on_every_field_and_on_the_key() {
        let base = tuple("192.0.2.1".parse().unwrap(), "10.0.0.3".parse().unwrap());
        let key = HashKey([1, 2]);
        let hash = base.hash(key);
        let others = [
            FiveTuple { source: Address::v4([192, 0, 2, 2]), ..base },
            FiveTuple { destination: Address::v4([10, 0, 0, 4]), ..base },
            FiveTuple { source_port: 40_001, ..base },
            FiveTuple { destination_port: 81, ..base },
            FiveTuple { protocol: Protocol::UDP, ..base },
            base.reversed(),
        ];
        for other in others {
            assert_ne!(other.hash(key), hash, "{other}");
        }
        assert_ne!(base.hash(HashKey([1, 3])), hash);
        assert_ne!(base.hash(HashKey([2, 2])), hash);
    }

    #[test]
    fn the_hash_is_siphash_1_3_of_the_documented_bytes() {
        let base = tuple("192.0.2.1".parse().unwrap(), "10.0.0.3".parse().unwrap());
        let bytes = [192, 0, 2, 1, 10, 0, 0, 3, 0x9c, 0x40, 0, 80, 6, 0, 0, 0];
        assert_eq!(base.hash(HashKey([7, 9])), SipHasher13::new_with_keys(7, 9).hash(&bytes));
        let base = tuple("fc00::1".parse().unwrap(), "fc00::2".parse().unwrap());
        let mut bytes = [0; 40];
        (bytes[0], bytes[15], bytes[16], bytes[31]) = (0xfc, 1, 0xfc, 2);
        bytes[32..].copy_from_slice(&[0x9c, 0x40, 0, 80, 6, 0, 0, 0]);
        assert_eq!(base.hash(HashKey([7, 9])), SipHasher13::new_with_keys(7, 9).hash(&bytes));
    }
}
