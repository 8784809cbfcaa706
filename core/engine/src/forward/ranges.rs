//! What applies to an address where networks overlap: all addresses cut into ranges, so that one search finds it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plan::Prefix;
use crate::wire::Address;

/// Every address of IPv4, which lie side by side among those of IPv6.
const ALL_V4: Prefix = Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };

/// Ranges side by side that hold every address, each with what applies to it. There are at most twice as many as networks,
/// and a few more.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<T> {
    /// Where each begins, in order.
    starts: Vec<u128>,
    values: Vec<Option<T>>,
}

impl<T> Default for Ranges<T> {
    /// Nothing applies to any address.
    fn default() -> Self {
        Self { starts: Vec::new(), values: Vec::new() }
    }
}

impl<T: Copy + PartialEq> Ranges<T> {
    /// Of the networks that hold an address, the first counts, also where it says that nothing applies.
    pub(crate) fn new<'a>(networks: impl IntoIterator<Item = (&'a Prefix, Option<T>)>) -> Self {
        let (v4, v6): (Vec<_>, Vec<_>) =
            networks.into_iter().partition(|(network, _)| network.address.is_ipv4());
        // What comes later covers what was there, so the first come last; and no network of IPv6 holds addresses of IPv4.
        let layers = v6.into_iter().rev().chain([(&ALL_V4, None)]).chain(v4.into_iter().rev());
        let mut painted = BTreeMap::from([(u128::MIN, None)]);
        layers.for_each(|(network, value)| paint(&mut painted, network, value));
        let mut ranges: Vec<(u128, Option<T>)> = painted.into_iter().collect();
        ranges.dedup_by_key(|(_, value)| *value);
        let (starts, values) = ranges.into_iter().unzip();
        Self { starts, values }
    }

    /// What applies to `address`.
    #[inline]
    pub(crate) fn get(&self, address: Address) -> Option<T> {
        let bits = address.bits();
        let behind = self.starts.partition_point(|start| *start <= bits);
        *self.values.get(behind.checked_sub(1)?)?
    }
}

/// Puts `value` over all addresses of `network`.
fn paint<T: Copy>(painted: &mut BTreeMap<u128, Option<T>>, network: &Prefix, value: Option<T>) {
    let first = network.network().bits();
    let family_bits = if network.address.is_ipv4() { Ipv4Addr::BITS } else { Ipv6Addr::BITS };
    let host_bits = family_bits.saturating_sub(network.length.into());
    let last = first | u128::MAX.checked_shr(u128::BITS - host_bits).unwrap_or(0);
    let covered: Vec<u128> = painted.range(first..=last).map(|(start, _)| *start).collect();
    // What began last goes on behind it.
    if let Some(next) = last.checked_add(1) {
        let before = painted.range(..=last).next_back().and_then(|(_, value)| *value);
        painted.entry(next).or_insert(before);
    }
    for start in covered {
        painted.remove(&start);
    }
    painted.insert(first, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn network(text: &str) -> Prefix {
        let (address, length) = text.split_once('/').unwrap();
        Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
    }

    #[test]
    fn the_first_network_counts_and_its_ends_are_its_own() {
        let networks = ["10.1.0.0/16", "10.2.2.0/24", "10.0.0.0/8", "::/0", "ffff::/16"].map(network);
        let ranges = Ranges::new(networks.iter().zip([Some(0), None, Some(1), Some(2), Some(3)]));
        let get = |text: &str| ranges.get(Address::from(text.parse::<IpAddr>().unwrap()));
        for (address, value) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(1)),
            ("10.0.255.255", Some(1)),
            ("10.1.0.0", Some(0)),
            ("10.1.255.255", Some(0)),
            ("10.2.0.0", Some(1)),
            ("10.2.2.0", None),
            ("10.2.3.0", Some(1)),
            ("10.255.255.255", Some(1)),
            ("11.0.0.0", None),
            ("255.255.255.255", None),
            ("0.0.0.0", None),
            ("::", Some(2)),
            ("::fffe:ffff:ffff", Some(2)),
            ("::1:0:0:0", Some(2)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(2)),
        ] {
            assert_eq!(get(address), value, "{address}");
        }
        assert_eq!(Ranges::<u8>::default().get(Address::UNSPECIFIED), None);
    }

    /// Networks and addresses with many bits in common, so that they overlap.
    fn address() -> impl Strategy<Value = IpAddr> {
        let few = prop_oneof![Just(0_u128), Just(u128::MAX), any::<u128>()];
        (any::<bool>(), few, 0_u32..128, any::<u128>()).prop_map(|(is_v4, base, shift, low)| {
            let bits = base ^ low >> shift;
            #[allow(clippy::cast_possible_truncation, reason = "the lower bits are an address, too")]
            if is_v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
        })
    }

    proptest! {
        #[test]
        fn an_address_gets_what_the_first_network_that_contains_it_has(
            networks in prop::collection::vec((address(), 0_u8..=128, prop::option::of(0_u8..4)), 0..24),
            addresses in prop::collection::vec(address(), 1..24),
        ) {
            let networks: Vec<(Prefix, Option<u8>)> = networks
                .into_iter()
                .map(|(address, length, value)| {
                    let length = if address.is_ipv4() { length.min(32) } else { length };
                    (Prefix { address, length }, value)
                })
                .collect();
            let ranges = Ranges::new(networks.iter().map(|(network, value)| (network, *value)));
            let edges = networks.iter().flat_map(|(network, _)| {
                let first = network.network().bits();
                [first, first.wrapping_sub(1)].map(|bits| Ipv6Addr::from_bits(bits).into())
            });
            for address in addresses.into_iter().chain(edges).map(Address::from) {
                let expected = networks.iter().find(|(network, _)| network.contains(address.into()));
                prop_assert_eq!(ranges.get(address), expected.and_then(|(_, value)| *value), "{:?}", address);
            }
            prop_assert!(ranges.starts.len() <= 2 * networks.len() + 3);
        }
    }
}
