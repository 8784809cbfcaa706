//! Which packets are told about: conditions on what is known of a packet, with `and`, `or` and `not`.
//!
//! On the way not everything is known yet: then a condition is neither true nor false, and the packet is listened to
//! until it is.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::ops::RangeInclusive;

use crate::plan::Prefix;
use crate::verdict::{DropReason, InterfaceId};
use crate::wire::{FiveTuple, Protocol};

/// A condition on packets. Addresses and ports are those of the packet as it came in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Filter {
    /// Every packet.
    #[default]
    All,
    /// Packets with this quality.
    Has(Quality),
    /// Packets for which the condition does not hold.
    Not(Box<Self>),
    /// Packets for which all of them hold.
    And(Vec<Self>),
    /// Packets for which one of them holds.
    Or(Vec<Self>),
}

/// One quality of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Quality {
    /// It comes from there.
    Source(Prefix),
    /// It goes there.
    Destination(Prefix),
    /// It comes from there or goes there.
    Host(Prefix),
    /// Its source port.
    SourcePort(RangeInclusive<u16>),
    /// Its destination port.
    DestinationPort(RangeInclusive<u16>),
    /// One of its ports.
    Port(RangeInclusive<u16>),
    /// Its protocol.
    Protocol(Protocol),
    /// Where it came in.
    Interface(InterfaceId),
    /// The director that serves it.
    Director(String),
    /// The real server that it goes to, or comes from.
    Server(String),
    /// It is dropped for this reason; without one, for any.
    Dropped(Option<DropReason>),
}

/// What is known of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its tuple, where its headers have been read.
    pub tuple: Option<FiveTuple>,
    /// Where it came in.
    pub interface: InterfaceId,
    /// The director.
    pub director: Option<&'a str>,
    /// The real server.
    pub server: Option<&'a str>,
    /// Why it was dropped.
    pub reason: Option<DropReason>,
    /// Nothing is added to this any more.
    pub is_over: bool,
}

impl Filter {
    /// Whether it holds; nothing as long as that is open.
    #[must_use]
    pub fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        match self {
            Self::All => Some(true),
            Self::Has(quality) => quality.holds(facts),
            Self::Not(inner) => inner.holds(facts).map(|holds| !holds),
            Self::And(all) => all_of(all, facts, false),
            Self::Or(all) => all_of(all, facts, true),
        }
    }
}

/// `sought` as soon as one of them is that; its opposite when all are; else open.
fn all_of(filters: &[Filter], facts: &Facts<'_>, sought: bool) -> Option<bool> {
    let mut answer = Some(!sought);
    for filter in filters {
        match filter.holds(facts) {
            Some(holds) if holds == sought => return Some(sought),
            Some(_) => {}
            None => answer = None,
        }
    }
    answer
}

impl Quality {
    fn holds(&self, facts: &Facts<'_>) -> Option<bool> {
        let open = if facts.is_over { Some(false) } else { None };
        let named = |known: Option<&str>, wanted: &str| match known {
            // Until the end another one may still take it over.
            Some(known) if known == wanted => Some(true),
            Some(_) | None => open,
        };
        let of_tuple =
            |test: &dyn Fn(&FiveTuple) -> bool| facts.tuple.map_or(open, |tuple| Some(test(&tuple)));
        let has_ports =
            |tuple: &FiveTuple| tuple.protocol == Protocol::TCP || tuple.protocol == Protocol::UDP;
        match self {
            Self::Source(net) => of_tuple(&|tuple| net.contains(IpAddr::from(tuple.source))),
            Self::Destination(net) => of_tuple(&|tuple| net.contains(IpAddr::from(tuple.destination))),
            Self::Host(net) => of_tuple(&|tuple| {
                net.contains(IpAddr::from(tuple.source)) || net.contains(IpAddr::from(tuple.destination))
            }),
            Self::SourcePort(ports) => {
                of_tuple(&|tuple| has_ports(tuple) && ports.contains(&tuple.source_port))
            }
            Self::DestinationPort(ports) => {
                of_tuple(&|tuple| has_ports(tuple) && ports.contains(&tuple.destination_port))
            }
            Self::Port(ports) => of_tuple(&|tuple| {
                has_ports(tuple)
                    && (ports.contains(&tuple.source_port) || ports.contains(&tuple.destination_port))
            }),
            Self::Protocol(protocol) => of_tuple(&|tuple| tuple.protocol == *protocol),
            Self::Interface(interface) => Some(facts.interface == *interface),
            Self::Director(name) => named(facts.director, name),
            Self::Server(name) => named(facts.server, name),
            Self::Dropped(None) => facts.reason.map_or(open, |_| Some(true)),
            Self::Dropped(Some(reason)) => facts.reason.map_or(open, |known| Some(known == *reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Address;

    fn facts(is_over: bool) -> Facts<'static> {
        let tuple = FiveTuple {
            source: Address::v4([10, 1, 2, 3]),
            destination: Address::v4([192, 0, 2, 1]),
            source_port: 4242,
            destination_port: 80,
            protocol: Protocol::TCP,
        };
        let interface = InterfaceId(1);
        Facts { tuple: Some(tuple), interface, director: Some("web"), server: None, reason: None, is_over }
    }

    fn net(text: &str, length: u8) -> Prefix {
        Prefix { address: text.parse().unwrap(), length }
    }

    #[test]
    fn what_is_not_known_yet_is_open_and_at_the_end_false() {
        let server = Filter::Has(Quality::Server("s1".into()));
        assert_eq!(server.holds(&facts(false)), None);
        assert_eq!(server.holds(&facts(true)), Some(false));
        let not = Filter::Not(Box::new(server.clone()));
        assert_eq!((not.holds(&facts(false)), not.holds(&facts(true))), (None, Some(true)));
        let impossible = Filter::And(alloc::vec![server.clone(), Filter::Has(Quality::Port(443..=443))]);
        assert_eq!(impossible.holds(&facts(false)), Some(false), "one part is false for certain");
        let certain = Filter::Or(alloc::vec![server, Filter::Has(Quality::Port(80..=80))]);
        assert_eq!(certain.holds(&facts(false)), Some(true));
    }

    #[test]
    fn each_quality_looks_at_its_part_of_the_packet() {
        let holds = [
            (Quality::Source(net("10.0.0.0", 8)), true),
            (Quality::Source(net("192.0.2.0", 24)), false),
            (Quality::Destination(net("192.0.2.1", 32)), true),
            (Quality::Host(net("192.0.2.0", 24)), true),
            (Quality::Host(net("172.16.0.0", 12)), false),
            (Quality::SourcePort(4000..=5000), true),
            (Quality::DestinationPort(4000..=5000), false),
            (Quality::Port(80..=80), true),
            (Quality::Protocol(Protocol::UDP), false),
            (Quality::Interface(InterfaceId(1)), true),
            (Quality::Director("web".into()), true),
            (Quality::Director("mail".into()), false),
            (Quality::Dropped(None), false),
        ];
        for (quality, expected) in holds {
            assert_eq!(Filter::Has(quality.clone()).holds(&facts(true)), Some(expected), "{quality:?}");
        }
        let dropped = Facts { reason: Some(DropReason::NoServer), ..facts(true) };
        assert_eq!(Quality::Dropped(Some(DropReason::NoServer)).holds(&dropped), Some(true));
        assert_eq!(Quality::Dropped(Some(DropReason::TooBig)).holds(&dropped), Some(false));
    }
}
