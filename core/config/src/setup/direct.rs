//! Gateway mode (direct server return) on a TUN: for each real server one more interface, by which only its packets
//! leave.
//!
//! A packet in gateway mode still carries the VIP as its destination, so the kernel can not tell from it where it is to
//! go, and would take it back to the forwarder. It can tell by which interface it came: packets of `tun0-g1` are routed
//! by a table of their own, whose only route is the real server as the next hop.
//!
//! ```text
//! client -> [VIP route] -> tun0 -> engine -> tun0-g1 -> [iif rule: own table] -> via RIP -> real server -> client
//! ```
//!
//! In: a plan as the file says it. Out: the plan with these interfaces, and a route of the engine to each. The plan
//! itself says which they are: [`real_server_of`] reads it back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use evenkeel_engine::plan::{InterfacePlan, Layer, Mode, Prefix, RoutePlan};
use evenkeel_engine::{InterfaceId, Plan};

use super::change::way_out;

/// The routing table of the first interface; that of the next one follows. A hundred above those of replies.
pub(super) const TABLE_DIRECT: u32 = 7_900;

/// The most interfaces of a forwarder: each keeps a request open at the kernel; a forwarder has a handful.
pub const INTERFACES_MAX: usize = 64;

/// The longest name of an interface, in bytes.
const NAME_BYTES_MAX: usize = 15;

/// Adds an interface for each real server that is reached as the next hop by a TUN.
///
/// # Errors
/// When there are more than a forwarder opens, or a name would be too long.
pub fn spread(plan: &Plan) -> Result<Plan, String> {
    let mut spread = plan.clone();
    let mut known = BTreeSet::new();
    let gateways = plan.directors.iter().filter(|director| director.mode == Mode::Gateway);
    for server in gateways.flat_map(|director| &director.servers) {
        let Some((base, _)) = way_out(plan, server.address) else { continue };
        let Some(base) = plan.interfaces.get(base).filter(|_| known.insert(server.address)) else { continue };
        let name = name_of(base, known.len());
        if name.len() > NAME_BYTES_MAX {
            return Err(format!(
                "gateway mode opens the interface {name} beside {}, and names have at most {NAME_BYTES_MAX} bytes; \
                 give {} a shorter name",
                base.name, base.name
            ));
        }
        let index = spread.interfaces.len();
        if index >= INTERFACES_MAX {
            return Err(format!(
                "gateway mode opens an interface for each real server, and a forwarder has at most {INTERFACES_MAX}; \
                 the mode tunnel needs none"
            ));
        }
        let mtu_bytes = base.mtu_bytes;
        spread.interfaces.push(InterfacePlan { mtu_bytes, ..InterfacePlan::new(&name, Layer::Ip) });
        let interface = InterfaceId(u16::try_from(index).unwrap_or(u16::MAX));
        // First, so that it wins over another route to the same address.
        let destination = Prefix::host(server.address);
        spread.routes.insert(0, RoutePlan { destination, gateway: None, interface });
    }
    Ok(spread)
}

/// The real server for which alone the interface with this number is, if it is such a one.
pub(super) fn real_server_of(plan: &Plan, index: usize) -> Option<IpAddr> {
    let interface = plan.interfaces.get(index)?;
    let route = plan.routes.iter().find(|route| route.interface.index() == index)?;
    let address = route.destination.is_host().then_some(route.destination.address)?;
    let is_suffixed = |base: &InterfacePlan| {
        let suffix = interface.name.strip_prefix(&base.name).and_then(|rest| rest.strip_prefix("-g"));
        suffix.is_some_and(|number| number.parse::<usize>().is_ok())
    };
    let gateways = plan.directors.iter().filter(|director| director.mode == Mode::Gateway);
    let is_its = gateways.flat_map(|director| &director.servers).any(|server| server.address == address);
    (is_its && plan.interfaces.iter().any(is_suffixed)).then_some(address)
}

fn name_of(base: &InterfacePlan, number: usize) -> String {
    format!("{}-g{number}", base.name)
}

#[cfg(test)]
mod tests {
    use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, ServerPlan};
    use evenkeel_engine::wire::Protocol;

    use super::*;

    fn plan(name: &str, servers: u8) -> Plan {
        let all = Prefix { address: [0, 0, 0, 0].into(), length: 0 };
        let server = |n: u8| ServerPlan::new(&format!("s{n}"), [10, 0, 3, n].into(), 0, 1);
        let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
        let director =
            DirectorPlan::new("web", bind, Builtin::RoundRobin, (1..=servers).map(server).collect());
        Plan {
            interfaces: vec![InterfacePlan::new(name, Layer::Ip)],
            routes: vec![RoutePlan { destination: all, gateway: None, interface: InterfaceId(0) }],
            directors: vec![DirectorPlan { mode: Mode::Gateway, ..director }],
            ..Plan::empty()
        }
    }

    #[test]
    fn each_real_server_gets_an_interface_however_many_directors_have_it() {
        let mut plan = plan("tun0", 3);
        let mut second = plan.directors[0].clone();
        second.name = "more".to_owned();
        plan.directors.push(second);
        let spread = spread(&plan).unwrap();
        let names: Vec<&str> = spread.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        assert_eq!(names, ["tun0", "tun0-g1", "tun0-g2", "tun0-g3"]);
        let found: Vec<_> = (0..4).map(|index| real_server_of(&spread, index)).collect();
        assert_eq!(
            found,
            [None, Some([10, 0, 3, 1].into()), Some([10, 0, 3, 2].into()), Some([10, 0, 3, 3].into())]
        );
        let out = |last: u8| way_out(&spread, [10, 0, 3, last].into()).map(|(_, name)| name.to_owned());
        assert_eq!((out(2), out(9)), (Some("tun0-g2".to_owned()), Some("tun0".to_owned())));
    }

    #[test]
    fn other_modes_need_none() {
        let mut plan = plan("tun0", 3);
        plan.directors[0].mode = Mode::Nat { sources: Vec::new() };
        assert_eq!(spread(&plan), Ok(plan));
    }

    #[test]
    fn too_many_and_too_long_are_refused_with_a_way_out() {
        assert!(spread(&plan("tun0", 64)).unwrap_err().contains("at most 64"));
        assert!(spread(&plan("tun0", 63)).is_ok());
        assert!(spread(&plan("frontend-tun0", 1)).unwrap_err().contains("shorter name"));
    }
}
