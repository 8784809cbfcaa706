//! Where packets leave: the longest route to an address, its interface and its next hop.

use alloc::vec::Vec;
use core::net::IpAddr;

use crate::plan::{Plan, RoutePlan};
use crate::verdict::InterfaceId;
use crate::wire::Address;

/// The routes of a plan, the longest prefix first.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Vec<RoutePlan>,
}

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The interface to leave by.
    pub interface: InterfaceId,
    /// Whom to hand the packet to on the link: the gateway, or the destination itself.
    pub address: Address,
}

impl Routes {
    /// The routes of `plan` and those that its interfaces' own networks imply.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        let mut routes: Vec<RoutePlan> = plan.routes.clone();
        for (interface, place) in plan.interfaces.iter().zip(0_u16..) {
            routes.extend(interface.addresses.iter().map(|own| RoutePlan {
                destination: *own,
                gateway: None,
                interface: InterfaceId(place),
            }));
        }
        // Stable: of two routes of the same length the one that the user wrote first stays first.
        routes.sort_by_key(|route| core::cmp::Reverse(route.destination.length));
        Self { routes }
    }

    /// The way to `destination`. Asked once per flow; the cost grows with the number of routes.
    #[must_use]
    pub fn find(&self, destination: Address) -> Option<NextHop> {
        let address = IpAddr::from(destination);
        let route = self.routes.iter().find(|route| route.destination.contains(address))?;
        Some(NextHop {
            interface: route.interface,
            address: route.gateway.map_or(destination, Address::from),
        })
    }

    /// The link address to look for when a packet to `destination` leaves by `interface`, which was chosen before.
    #[must_use]
    pub fn next_hop_on(&self, interface: InterfaceId, destination: Address) -> Address {
        let address = IpAddr::from(destination);
        let route = self
            .routes
            .iter()
            .find(|route| route.interface == interface && route.destination.contains(address));
        route.and_then(|route| route.gateway).map_or(destination, Address::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Prefix;
    use alloc::vec;

    fn route(text: &str, length: u8, gateway: Option<&str>, interface: u16) -> RoutePlan {
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
            NextHop { interface: InterfaceId(1), address: Address::v4([10, 2, 0, 1]) }
        );
        assert_eq!(find(10, 1, 0, 1).interface, InterfaceId(3));
    }

    #[test]
    fn without_a_route_there_is_no_way() {
        let routes = Routes::new(&Plan { routes: vec![route("10.0.0.0", 8, None, 0)], ..Plan::empty() });
        assert_eq!(routes.find(Address::v4([11, 0, 0, 1])), None);
    }
}
