//! The ways by which packets can leave, numbered, so that an entry keeps one in a byte: each interface by the main routing
//! table, and each interface to which a route of another table leads, by that table.

use alloc::vec::Vec;

use super::{MAIN, NextHop};
use crate::plan::{Layer, Plan};
use crate::verdict::InterfaceId;

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
pub(crate) struct Ways(Vec<Way>);

impl Ways {
    pub(crate) fn new(plan: &Plan) -> Self {
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
        Self(pairs.into_iter().filter_map(way).collect())
    }

    /// How many there are; a plan may have 255.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(crate) fn at(&self, number: u8) -> Option<&Way> {
        self.0.get(usize::from(number))
    }

    /// The number of the way by this interface and table.
    pub(crate) fn find(&self, interface: InterfaceId, table: u8) -> u8 {
        let is_it = |way: &Way| way.interface == interface && way.table == table;
        let found = if table == MAIN { Some(interface.index()) } else { self.0.iter().position(is_it) };
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
    use crate::plan::{InterfacePlan, Prefix, RoutePlan, TablePlan};
    use alloc::vec;

    #[test]
    fn each_pair_of_table_and_interface_has_one_number() {
        let destination = Prefix { address: [0, 0, 0, 0].into(), length: 0 };
        let route = |interface| RoutePlan { destination, gateway: None, interface: InterfaceId(interface) };
        let table = |id, routes| TablePlan { id, routes };
        let plan = Plan {
            interfaces: vec![InterfacePlan::new("a", Layer::Ip), InterfacePlan::new("b", Layer::Ip)],
            tables: vec![table(200, vec![route(1), route(1)]), table(201, vec![route(1), route(0)])],
            ..Plan::empty()
        };
        let ways = Ways::new(&plan);
        assert_eq!(ways.count(), 5);
        for (interface, table) in [(0, 0), (1, 0), (1, 1), (1, 2), (0, 2)] {
            let way = ways.at(ways.find(InterfaceId(interface), table)).unwrap();
            assert_eq!((way.interface, way.table), (InterfaceId(interface), table));
        }
        assert_eq!(ways.find(InterfaceId(0), 1), DEAD_END);
        assert_eq!(ways.at(DEAD_END), None);
    }
}
