//! The ways by which packets can leave, numbered, so that an entry keeps one in a byte: each interface by the main routing
//! table, and each interface to which a route of another table leads, by that table.

use alloc::vec::Vec;

use super::ranges::Ranges;
use super::{MAIN, NextHop, Routes};
use crate::plan::{Layer, Plan, RoutePlan};
use crate::verdict::InterfaceId;
use crate::wire::Address;

/// The way of packets that an outflow denies: no number of a way.
pub(crate) const DEAD_END: u8 = u8::MAX;

/// One way out, with what a packet needs to know of its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) interface: InterfaceId,
    /// The routing table that knows the next hop.
    pub(crate) table: u8,
    pub(crate) layer: Layer,
    pub(crate) mtu_bytes: u16,
}

/// All ways of a plan; those of the main table have the numbers of their interfaces.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ways {
    ways: Vec<Way>,
    /// The gateways behind each of them; what has none is on the link itself.
    gateways: Vec<Ranges<Address>>,
}

impl Ways {
    pub(crate) fn new(plan: &Plan, routes: &Routes) -> Self {
        let mut pairs: Vec<(u8, InterfaceId)> = Vec::new();
        pairs.extend(
            (0..plan.interfaces.len())
                .filter_map(|place| Some((MAIN, InterfaceId(u16::try_from(place).ok()?)))),
        );
        for (table, number) in plan.tables.iter().zip(1_u8..) {
            for route in &table.routes {
                let pair = (number, route.interface);
                if !pairs.contains(&pair) {
                    pairs.push(pair);
                }
            }
        }
        let way = |(table, interface): (u8, InterfaceId)| {
            let plan = plan.interfaces.get(interface.index())?;
            Some(Way { interface, table, layer: plan.layer, mtu_bytes: plan.mtu_bytes })
        };
        let ways: Vec<Way> = pairs.into_iter().filter_map(way).collect();
        let gateway = |route: &RoutePlan| route.gateway.map(Address::from);
        let gateways = ways.iter().map(|way| {
            let routes = routes.by(way.table, way.interface);
            Ranges::new(routes.map(|route| (&route.destination, gateway(route))))
        });
        Self { gateways: gateways.collect(), ways }
    }

    /// How many there are; a plan may have 255.
    pub(crate) fn count(&self) -> usize {
        self.ways.len()
    }

    #[inline]
    pub(crate) fn at(&self, number: u8) -> Option<&Way> {
        self.ways.get(usize::from(number))
    }

    /// The link address to look for when a packet to `target` leaves by the way with this number.
    #[inline]
    pub(crate) fn next_hop(&self, number: u8, target: Address) -> Address {
        let gateways = self.gateways.get(usize::from(number));
        gateways.and_then(|gateways| gateways.get(target)).unwrap_or(target)
    }

    /// The number of the way by this interface and table.
    pub(crate) fn find(&self, interface: InterfaceId, table: u8) -> u8 {
        let is_it = |way: &Way| way.interface == interface && way.table == table;
        let found = if table == MAIN { Some(interface.index()) } else { self.ways.iter().position(is_it) };
        found.and_then(|place| u8::try_from(place).ok()).unwrap_or(DEAD_END)
    }

    /// The number of the way that a route has chosen.
    pub(crate) fn to(&self, hop: &NextHop) -> u8 {
        self.find(hop.interface, hop.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::routes::tests::route;
    use crate::plan::{InterfacePlan, Prefix, TablePlan};
    use alloc::vec;

    #[test]
    fn each_pair_of_table_and_interface_has_one_number() {
        let destination = Prefix { address: [0, 0, 0, 0].into(), length: 0 };
        let all_by = |interface| RoutePlan { destination, gateway: None, interface: InterfaceId(interface) };
        let table = |id, routes| TablePlan { id, routes };
        let plan = Plan {
            interfaces: vec![InterfacePlan::new("a", Layer::Ip), InterfacePlan::new("b", Layer::Ip)],
            tables: vec![table(200, vec![all_by(1), all_by(1)]), table(201, vec![all_by(1), all_by(0)])],
            ..Plan::empty()
        };
        let ways = Ways::new(&plan, &Routes::new(&plan));
        assert_eq!(ways.count(), 5);
        for (interface, table) in [(0, 0), (1, 0), (1, 1), (1, 2), (0, 2)] {
            let way = ways.at(ways.find(InterfaceId(interface), table)).unwrap();
            assert_eq!((way.interface, way.table), (InterfaceId(interface), table));
        }
        assert_eq!(ways.find(InterfaceId(0), 1), DEAD_END);
        assert_eq!(ways.at(DEAD_END), None);
    }

    #[test]
    fn the_next_hop_is_that_of_the_ways_own_table_and_then_of_the_main_one() {
        let plan = Plan {
            interfaces: ["a", "b", "c"].map(|name| InterfacePlan::new(name, Layer::Ip)).to_vec(),
            routes: vec![route("0.0.0.0", 0, Some("192.0.2.1"), 0), route("10.0.0.0", 8, None, 1)],
            tables: vec![
                TablePlan { id: 200, routes: vec![] },
                TablePlan {
                    id: 201,
                    routes: [0, 1, 2].map(|out| route("11.0.0.0", 8, Some("10.9.9.9"), out)).to_vec(),
                },
            ],
            ..Plan::empty()
        };
        let ways = Ways::new(&plan, &Routes::new(&plan));
        let next = |table, interface, first| {
            ways.next_hop(ways.find(InterfaceId(interface), table), Address::v4([first, 0, 0, 5]))
        };
        let itself = |first| Address::v4([first, 0, 0, 5]);
        assert_eq!([next(2, 0, 11), next(2, 1, 11)], [Address::v4([10, 9, 9, 9]); 2]);
        assert_eq!((next(2, 2, 10), next(2, 1, 10), next(MAIN, 1, 11)), (itself(10), itself(10), itself(11)));
        assert_eq!([next(2, 0, 10), next(MAIN, 0, 11)], [Address::v4([192, 0, 2, 1]); 2]);
        assert_eq!(ways.next_hop(DEAD_END, itself(9)), itself(9));
    }
}
