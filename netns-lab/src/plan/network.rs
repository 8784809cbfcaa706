//! What the kernel of a machine is told: settings, addresses, routes and rules, as commands of `ip`.

use std::fmt::Write as _;
use std::net::IpAddr;

use evenkeel_sim::scenario::{
    Attachment, Ecmp, Network, Route, RouteAction, Rule, Scenario, Subnet, TABLE_MAIN,
};

use crate::LabError;
use crate::orders::NetworkOrder;

/// Bits of an address of each family.
const IPV4_HOST_BITS: u8 = 32;
const IPV6_HOST_BITS: u8 = 128;

/// Refuses what no kernel does.
///
/// # Errors
///
/// With the machine and the field.
pub(super) fn check(name: &str, network: &Network) -> Result<(), LabError> {
    let deals =
        network.routes.iter().any(|route| matches!(&route.action, RouteAction::Via(ways) if ways.len() > 1));
    let ecmp = match network.ecmp {
        Ecmp::HashThreshold => return decapsulation(name, network),
        Ecmp::Modulo => "modulo",
        Ecmp::Rendezvous => "rendezvous",
        Ecmp::Resilient => "resilient",
    };
    if !deals {
        return decapsulation(name, network);
    }
    Err(LabError::Unable(format!(
        "{name}: ecmp = \"{ecmp}\": the kernel deals flows out by thresholds of a hash (\"hash-threshold\")"
    )))
}

fn decapsulation(name: &str, network: &Network) -> Result<(), LabError> {
    if !network.decapsulates {
        return Ok(());
    }
    let what = format!("{name}: tunnel = true: a lab's machines have no tunnels of their own");
    Err(LabError::Unable(what))
}

/// Whether anything in a scenario has an IPv6 address.
pub(super) fn has_v6(scenario: &Scenario) -> bool {
    scenario.segments.iter().flat_map(|segment| &segment.subnets).any(|subnet| subnet.address.is_ipv6())
}

/// What a machine's kernel is told. `sends_on`: whether it is a router.
pub(super) fn order(scenario: &Scenario, network: &Network, sends_on: bool, has_v6: bool) -> NetworkOrder {
    let mut order = NetworkOrder { settings: settings(network, sends_on, has_v6), ..NetworkOrder::default() };
    order.links.push("link set lo up".to_owned());
    for attachment in &network.attachments {
        attach(scenario, attachment, has_v6, &mut order.links);
    }
    for address in &network.loopback {
        order.links.push(format!(
            "address add {address}/{} dev lo{}",
            host_bits(*address),
            no_check(*address)
        ));
    }
    order.routes.extend(network.gateways.iter().map(|gateway| {
        let family = family(*gateway);
        format!("{family} route replace default via {gateway}")
    }));
    order.routes.extend(network.routes.iter().map(set_route));
    order.rules.extend(network.rules.iter().flat_map(rule));
    if !network.masquerade.is_empty() {
        order.nft = masquerade(network);
    }
    order
}

fn attach(scenario: &Scenario, attachment: &Attachment, has_v6: bool, links: &mut Vec<String>) {
    let Attachment { segment, interface, addresses, mtu_bytes, .. } = attachment;
    let subnets = scenario.segments.get(*segment).map_or(&[][..], |segment| &segment.subnets);
    if !has_v6 || addresses.is_empty() {
        // A port that is only bridged says nothing of its own accord.
        links.push(format!("link set {interface} addrgenmode none"));
    }
    links.push(format!("link set {interface} mtu {mtu_bytes}"));
    for address in addresses {
        let on = subnets.iter().find(|subnet| subnet.contains(*address));
        let length = on.map_or_else(|| host_bits(*address), |subnet| subnet.length);
        links.push(format!("address add {address}/{length} dev {interface}{}", no_check(*address)));
    }
    links.push(format!("link set {interface} up"));
}

/// Detection of duplicates takes seconds in which an address can not be used.
const fn no_check(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

const fn host_bits(address: IpAddr) -> u8 {
    if address.is_ipv6() { IPV6_HOST_BITS } else { IPV4_HOST_BITS }
}

const fn family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "-6" } else { "-4" }
}

/// The command that sets a route, in place of one for the same network in the same table.
pub(super) fn set_route(route: &Route) -> String {
    let mut text = format!("{} route replace ", family(route.to.address));
    match &route.action {
        RouteAction::Via(_) => {}
        RouteAction::Blackhole => text.push_str("blackhole "),
        RouteAction::Unreachable => text.push_str("unreachable "),
    }
    let _ = write!(text, "{} table {}", prefix(&route.to), route.table);
    match &route.action {
        RouteAction::Via(ways) => match &ways[..] {
            [(way, _)] => {
                let _ = write!(text, " via {way}");
            }
            ways => {
                for (way, weight) in ways {
                    let _ = write!(text, " nexthop via {way} weight {weight}");
                }
            }
        },
        RouteAction::Blackhole | RouteAction::Unreachable => {}
    }
    text
}

/// The command that takes a route away.
pub(super) fn delete_route(to: &Subnet, table: u32) -> String {
    format!("{} route delete {} table {table}", family(to.address), prefix(to))
}

fn prefix(subnet: &Subnet) -> String {
    if subnet.length == 0 { "default".to_owned() } else { subnet.to_string() }
}

/// The commands of a rule: one for each family that it is about.
fn rule(rule: &Rule) -> Vec<String> {
    let Rule { priority, interface, from, to, protocol, source_ports, destination_ports, table } = rule;
    let mut text = format!("rule add priority {priority}");
    if let Some(interface) = interface {
        let _ = write!(text, " iif {interface}");
    }
    if let Some(from) = from {
        let _ = write!(text, " from {from}");
    }
    if let Some(to) = to {
        let _ = write!(text, " to {to}");
    }
    if let Some(protocol) = protocol {
        let _ = write!(text, " ipproto {}", protocol.0);
    }
    if let Some((first, last)) = source_ports {
        let _ = write!(text, " sport {first}-{last}");
    }
    if let Some((first, last)) = destination_ports {
        let _ = write!(text, " dport {first}-{last}");
    }
    let _ =
        write!(text, " table {}", if *table == TABLE_MAIN { "main".to_owned() } else { table.to_string() });
    let families = match from.or(*to) {
        Some(subnet) => vec![family(subnet.address)],
        None => vec!["-4", "-6"],
    };
    families.into_iter().map(|family| format!("{family} {text}")).collect()
}

fn masquerade(network: &Network) -> Vec<String> {
    let mut lines = vec![
        "add table inet lab".to_owned(),
        "add chain inet lab out { type nat hook postrouting priority srcnat; }".to_owned(),
    ];
    lines.extend(
        network
            .masquerade
            .iter()
            .map(|interface| format!("add rule inet lab out oifname \"{interface}\" masquerade")),
    );
    lines
}

/// A new namespace copies settings from the machine outside, on which a lab must not depend: each that matters is set.
fn settings(network: &Network, sends_on: bool, has_v6: bool) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut set = |key: String, value: u8| settings.push((key, value.to_string()));
    let interfaces = network.attachments.iter().map(|one| one.interface.as_str());
    for scope in ["default", "lo"].into_iter().chain(interfaces.clone()) {
        for key in ["rp_filter", "arp_ignore", "arp_announce", "send_redirects", "accept_redirects"] {
            set(format!("net/ipv4/conf/{scope}/{key}"), 0);
        }
        set(format!("net/ipv6/conf/{scope}/disable_ipv6"), u8::from(!has_v6));
    }
    let sysctl = network.sysctl;
    for (key, value) in [
        ("rp_filter", sysctl.rp_filter),
        ("arp_ignore", sysctl.arp_ignore),
        ("arp_announce", sysctl.arp_announce),
        ("send_redirects", 0),
        ("accept_redirects", 0),
    ] {
        set(format!("net/ipv4/conf/all/{key}"), value);
    }
    set("net/ipv6/conf/all/disable_ipv6".to_owned(), u8::from(!has_v6));
    if has_v6 {
        for scope in ["default"].into_iter().chain(interfaces) {
            // Nobody here sends advertisements, and asking for them would only be noise.
            set(format!("net/ipv6/conf/{scope}/accept_ra"), 0);
            set(format!("net/ipv6/conf/{scope}/router_solicitations"), 0);
            // With the link the kernel would forget the addresses.
            set(format!("net/ipv6/conf/{scope}/keep_addr_on_down"), 1);
        }
        set("net/ipv6/conf/all/forwarding".to_owned(), u8::from(sends_on));
        set("net/ipv6/fib_multipath_hash_policy".to_owned(), 1);
    }
    // By addresses and ports, as the simulator's routers do.
    set("net/ipv4/fib_multipath_hash_policy".to_owned(), 1);
    set("net/ipv4/ip_forward".to_owned(), u8::from(sends_on));
    settings
}
