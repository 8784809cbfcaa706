//! Addresses as numbers, and networks of them.
//!
//! An address is the 128-bit number that a [`Flow`](crate::Flow) holds in two halves; IPv4 in its mapped form. A network is
//! read from a text as configurations write it.

use core::net::{IpAddr, Ipv4Addr};

use crate::Flow;

/// Where the mapped form of IPv4 begins.
const MAPPED: u128 = 0xffff_0000_0000;

impl Flow {
    /// The source address as a number.
    #[must_use]
    pub const fn source_bits(&self) -> u128 {
        (self.source_high as u128) << 64 | self.source_low as u128
    }

    /// The destination address as a number.
    #[must_use]
    pub const fn destination_bits(&self) -> u128 {
        (self.destination_high as u128) << 64 | self.destination_low as u128
    }
}

/// Whether a number is an IPv4 address.
#[must_use]
pub const fn is_ipv4(bits: u128) -> bool {
    bits >> 32 == MAPPED >> 32
}

/// A network: the addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Network {
    first: u128,
    /// Of the 128 bits, mapped IPv4 included.
    length: u8,
    is_ipv4: bool,
}

impl Network {
    /// Reads `ADDRESS`, `ADDRESS/LENGTH` or `ADDRESS/255.255.255.0`; nothing where it is none of these, or where the
    /// address has bits behind the length.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, mask) = match text.split_once('/') {
            Some((address, mask)) => (address, Some(mask)),
            None => (text, None),
        };
        let (first, is_ipv4, most) = match address.parse::<IpAddr>().ok()? {
            IpAddr::V4(address) => (MAPPED | u128::from(address.to_bits()), true, 32),
            IpAddr::V6(address) => (address.to_bits(), false, 128),
        };
        if !is_ipv4 && self::is_ipv4(first) {
            return None;
        }
        let length = match mask {
            None => most,
            Some(mask) if is_ipv4 && mask.contains('.') => mask_length(mask)?,
            Some(length) => plain(length).filter(|length| *length <= most)?,
        };
        let network = Self { first, length: length + (128 - most), is_ipv4 };
        (network.first & network.rest() == 0).then_some(network)
    }

    /// Whether it holds the address with these bits. No IPv4 address lies in a network of IPv6.
    #[must_use]
    pub const fn contains(&self, bits: u128) -> bool {
        (bits ^ self.first) & !self.rest() == 0 && is_ipv4(bits) == self.is_ipv4
    }

    /// Whether it is one of IPv4.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        self.is_ipv4
    }

    /// The bits of its first address.
    #[must_use]
    pub const fn first(&self) -> u128 {
        self.first
    }

    /// The bits of its last address.
    #[must_use]
    pub const fn last(&self) -> u128 {
        self.first | self.rest()
    }

    /// The bits that its addresses may have as they like.
    const fn rest(&self) -> u128 {
        match u128::MAX.checked_shr(self.length as u32) {
            Some(rest) => rest,
            None => 0,
        }
    }
}

/// A number without a sign or zeros before it.
fn plain(text: &str) -> Option<u8> {
    let is_plain =
        text.bytes().all(|byte| byte.is_ascii_digit()) && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| is_plain)
}

/// The length of a dotted mask.
fn mask_length(text: &str) -> Option<u8> {
    let mask = text.parse::<Ipv4Addr>().ok()?.to_bits();
    (mask.leading_ones() + mask.trailing_zeros() >= 32).then(|| u8::try_from(mask.leading_ones()).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits(text: &str) -> u128 {
        match text.parse().unwrap() {
            IpAddr::V4(address) => MAPPED | u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        }
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        for (text, inside, outside) in [
            ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0", "192.0.1.255"]),
            ("192.0.2.0/255.255.255.0", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0", "::192.0.2.1"]),
            ("0.0.0.0/0", ["0.0.0.0", "255.255.255.255"], ["::", "2001:db8::1"]),
            ("::/0", ["::", "ffff::"], ["0.0.0.0", "192.0.2.1"]),
            ("2001:db8::/32", ["2001:db8::", "2001:db8:ffff::1"], ["2001:db9::", "192.0.2.1"]),
            ("192.0.2.7", ["192.0.2.7", "192.0.2.7"], ["192.0.2.6", "192.0.2.8"]),
        ] {
            let network = Network::parse(text).unwrap();
            assert!(inside.iter().all(|address| network.contains(bits(address))), "{text}");
            assert!(!outside.iter().any(|address| network.contains(bits(address))), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "192.0.2.0/33",
            "192.0.2.1/24",
            "192.0.2.0/",
            "192.0.2.0/+24",
            "192.0.2.0/024",
            "192.0.2",
            "192.0.2.0/255.0.255.0",
            "2001:db8::/129",
            "2001:db8::1/64",
            "::ffff:192.0.2.1",
            "a/8",
        ] {
            assert_eq!(Network::parse(text), None, "{text}");
        }
        assert_eq!(mask_length("0.0.0.0"), Some(0));
    }
}
