//! Where packets leave: the longest route to an address, its interface and its next hop.

use alloc::vec::Vec;

use super::ranges::Ranges;
use crate::plan::{Plan, RoutePlan};
use crate::verdict::InterfaceId;
use crate::wire::Address;

/// The number of the main table.
pub const MAIN: u8 = 0;

/// The routing tables of a plan: the main one, then those that rules lead to; in each the longest prefix first.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    main: Table,
    /// The table with the number 1 comes first.
    others: Vec<Table>,
}

#[derive(Clone, Debug, Default)]
struct Table {
    routes: Vec<RoutePlan>,
    /// The interface to leave by, and the gateway where there is one.
    exits: Ranges<(InterfaceId, Option<Address>)>,
}

impl Table {
    /// Of two routes of the same length the one that the user wrote first stays first.
    fn new(mut routes: Vec<RoutePlan>) -> Self {
        routes.sort_by_key(|route| core::cmp::Reverse(route.destination.length));
        let exit = |route: &RoutePlan| (route.interface, route.gateway.map(Address::from));
        let exits = Ranges::new(routes.iter().map(|route| (&route.destination, Some(exit(route)))));
        Self { routes, exits }
    }
}

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface to leave by.
    pub interface: InterfaceId,
    /// Whom to hand the packet to on the link: the gateway, or the destination itself.
    pub address: Address,
    /// The table that the route is in.
    pub table: u8,
}

impl Routes {
    /// The routes of `plan` and those that its interfaces' own networks imply, which are in the main table.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut main: Vec<RoutePlan> = plan.routes.clone();
        for (interface, place) in plan.interfaces.iter().zip(0_u16..) {
            main.extend(interface.addresses.iter().map(|own| RoutePlan {
                destination: *own,
                gateway: None,
                interface: InterfaceId(place),
            }));
        }
        Self {
            main: Table::new(main),
            others: plan.tables.iter().map(|table| Table::new(table.routes.clone())).collect(),
        }
    }

    /// The way to `destination`.
    #[must_use]
    pub fn find(&self, destination: Address) -> Option<NextHop> {
        self.find_in(MAIN, destination)
    }

    /// The way to `destination` by the table with this number, or by the main one where that has none.
    #[must_use]
    pub fn find_in(&self, table: u8, destination: Address) -> Option<NextHop> {
        let special = self.other(table).and_then(|other| other.exits.get(destination));
        let main = || self.main.exits.get(destination).map(|exit| (exit, MAIN));
        let ((interface, gateway), table) = special.map(|exit| (exit, table)).or_else(main)?;
        Some(NextHop { interface, address: gateway.unwrap_or(destination), table })
    }

    /// The routes by `interface` of the table with this number, and then those of the main one.
    pub(super) fn by(&self, table: u8, interface: InterfaceId) -> impl Iterator<Item = &RoutePlan> {
        let other = self.other(table).map_or(&[][..], |other| &other.routes);
        other.iter().chain(&self.main.routes).filter(move |route| route.interface == interface)
    }

    fn other(&self, table: u8) -> Option<&Table> {
        self.others.get(usize::from(table).checked_sub(1)?)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::plan::Prefix;
    use alloc::vec;

    pub(in crate::forward) fn route(
        text: &str,
        length: u8,
        gateway: Option<&str>,
        interface: u16,
    ) -> RoutePlan {
        RoutePlan {
            destination: Prefix { address: text.parse().unwrap(), length },
            gateway: gateway.map(|text| text.parse().unwrap()),
            interface: InterfaceId(interface),
        }
    }

    #[test]
    fn the_longest_prefix_wins_and_then_the_first() {
        let routes = vec![
            route("0.0.0.0", 0, Some("192.0.2.1"), 0),
            route("10.0.0.0", 8, None, 1),
            route("10.0.0.0", 8, None, 2),
            route("10.1.0.0", 16, Some("10.0.0.1"), 3),
        ];
        let routes = Routes::new(&Plan { routes, ..Plan::empty() });
        let find = |a, b, c, d| routes.find(Address::v4([a, b, c, d])).unwrap();
        assert_eq!(find(8, 8, 8, 8).interface, InterfaceId(0));
        assert_eq!(find(8, 8, 8, 8).address, Address::v4([192, 0, 2, 1]));
        assert_eq!(
            find(10, 2, 0, 1),
            NextHop { interface: InterfaceId(1), address: Address::v4([10, 2, 0, 1]), table: MAIN }
        );
        assert_eq!(find(10, 1, 0, 1).interface, InterfaceId(3));
    }

    #[test]
    fn without_a_route_there_is_no_way() {
        let routes = Routes::new(&Plan { routes: vec![route("10.0.0.0", 8, None, 0)], ..Plan::empty() });
        assert_eq!(routes.find(Address::v4([11, 0, 0, 1])), None);
    }

    #[test]
    fn a_table_is_asked_first_and_the_main_one_where_it_has_no_route() {
        let table = |routes| crate::plan::TablePlan { id: 200, routes };
        let plan = Plan {
            routes: vec![route("0.0.0.0", 0, Some("192.0.2.1"), 0), route("10.0.0.0", 8, None, 1)],
            tables: vec![table(vec![]), table(vec![route("10.0.0.0", 8, Some("10.9.9.9"), 2)])],
            ..Plan::empty()
        };
        let routes = Routes::new(&plan);
        let to = |table, last| routes.find_in(table, Address::v4([last, 0, 0, 5])).unwrap();
        assert_eq!((to(2, 10).interface, to(2, 10).table), (InterfaceId(2), 2));
        assert_eq!(to(2, 10).address, Address::v4([10, 9, 9, 9]));
        assert_eq!((to(2, 11).interface, to(2, 11).table), (InterfaceId(0), MAIN));
        assert_eq!((to(1, 10).interface, to(1, 10).table), (InterfaceId(1), MAIN));
        let by = |table, interface| routes.by(table, InterfaceId(interface)).count();
        assert_eq!((by(2, 2), by(2, 1), by(2, 0), by(1, 2)), (1, 1, 1, 0));
    }
}
