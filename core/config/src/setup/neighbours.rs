//! Who answers when neighbours ask for the address of a service.
//!
//! In: a plan, and the networks that the machine is attached to. Out: a list of [`Change`]s, and what remains without
//! an answer. Reads nothing of the machine and changes nothing.
//!
//! A service's address that lies in a network of the machine is asked for there, by ARP or neighbour discovery. The
//! kernel answers for addresses that it is told of, one by one (proxy neighbours), as long as their route leads to
//! another interface, which the forwarder's TUN is. On its Ethernet interfaces the engine answers itself.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::Plan;
use evenkeel_engine::plan::Prefix;

use super::change::{Attached, Change, is_of_forwarder, service_addresses, setting};

/// The largest network of VIPs that is answered for, in bits of its hosts: 256 addresses. Each is an entry in a list
/// of the kernel, and in the one that is looked at when the forwarder starts.
const HOST_BITS_MAX: u32 = 8;

/// For service addresses in a network of the machine: its kernel answers there when neighbours ask for them,
/// and at once. By default it would take up to 0.8 s for addresses that are not its own.
pub(super) fn proxies(plan: &Plan, networks: &[Attached]) -> Vec<Change> {
    let mut found = BTreeSet::new();
    for (network, (_, served)) in inside(plan, networks) {
        let hosts = hosts_of(served).unwrap_or_default();
        let others = hosts.into_iter().filter(|host| is_answerable(network, *host));
        found.extend(others.map(|host| (network.interface.as_str(), host)));
    }
    let interfaces: BTreeSet<(&str, bool)> =
        found.iter().map(|(interface, address)| (*interface, address.is_ipv6())).collect();
    let settings = interfaces.iter().flat_map(|&(name, is_v6)| {
        let family = if is_v6 { "ipv6" } else { "ipv4" };
        let at_once = setting(&format!("net/{family}/neigh/{name}/proxy_delay"), "0");
        // For IPv4 the list alone is enough.
        let switch = is_v6.then(|| setting(&format!("net/ipv6/conf/{name}/proxy_ndp"), "1"));
        [Some(at_once), switch].into_iter().flatten()
    });
    let answers = found
        .iter()
        .map(|&(interface, address)| Change::ProxyNeighbour { address, interface: interface.to_owned() });
    settings.chain(answers).collect()
}

/// Networks of VIPs that are too large to be answered for, one sentence each.
#[must_use]
pub fn unanswered(plan: &Plan, networks: &[Attached]) -> Vec<String> {
    let too_large = inside(plan, networks).filter(|(_, (_, served))| hosts_of(*served).is_none());
    let sentences = too_large.map(|(network, (who, served))| {
        format!(
            "{who} {}/{} is a part of the network on {}, where nobody answers for so many addresses; give the \
             neighbours there a route to it by this machine, or write at most 256 addresses",
            served.address, served.length, network.interface
        )
    });
    sentences.collect::<BTreeSet<String>>().into_iter().collect()
}

/// The networks of the machine, each with what is served in it, but for those of the forwarder's own interfaces.
fn inside<'a>(
    plan: &'a Plan,
    networks: &'a [Attached],
) -> impl Iterator<Item = (&'a Attached, (String, Prefix))> {
    let foreign = networks.iter().filter(|network| !is_of_forwarder(plan, &network.interface));
    foreign.flat_map(|network| {
        let prefix = Prefix { address: network.address, length: network.length };
        let served = service_addresses(plan).into_iter();
        // A larger network than the machine's is routed elsewhere but for the machine's part of it, which stays there.
        let is_part =
            move |served: &Prefix| served.length >= prefix.length && prefix.contains(served.address);
        served.filter(move |(_, served)| is_part(served)).map(move |served| (network, served))
    })
}

/// The addresses of a network; nothing if they are too many.
fn hosts_of(network: Prefix) -> Option<Vec<IpAddr>> {
    let bits = if network.address.is_ipv4() { 32 } else { 128 };
    let host_bits = u32::from(network.length).abs_diff(bits);
    if host_bits > HOST_BITS_MAX {
        return None;
    }
    let count = 1_u32 << host_bits;
    Some(match network.address {
        IpAddr::V4(first) => {
            let first = first.to_bits() & !(count - 1);
            (0..count).map(|host| Ipv4Addr::from_bits(first | host).into()).collect()
        }
        IpAddr::V6(first) => {
            let first = first.to_bits() & !u128::from(count - 1);
            (0..count).map(|host| Ipv6Addr::from_bits(first | u128::from(host)).into()).collect()
        }
    })
}

/// Whether anybody may answer for `host` in the network but its machine: not for the machine itself, and not for what
/// is the network's own.
fn is_answerable(network: &Attached, host: IpAddr) -> bool {
    let (IpAddr::V4(own), IpAddr::V4(asked)) = (network.address, host) else {
        return host != network.address;
    };
    let mask = u32::MAX.checked_shr(network.length.into()).unwrap_or(0);
    let part = asked.to_bits() & mask;
    // Two addresses are both hosts' (RFC 3021).
    let is_of_network = network.length < 31 && (part == 0 || part == mask);
    own != asked && !is_of_network
}

#[cfg(test)]
mod tests {
    use evenkeel_engine::plan::{
        ANY_PORT, Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Mode, SourceNat,
    };
    use evenkeel_engine::wire::Protocol;

    use super::*;

    fn attached(interface: &str, address: &str, length: u8) -> Attached {
        Attached { interface: interface.to_owned(), address: address.parse().unwrap(), length }
    }

    fn plan(vip: &str, length: u8) -> Plan {
        let network = Prefix { address: vip.parse().unwrap(), length };
        let bind = Binding { network, ports: ANY_PORT, protocol: Some(Protocol::TCP) };
        let director = DirectorPlan::new("web", bind, Builtin::RoundRobin, Vec::new());
        let interfaces = vec![InterfacePlan::new("tun0", Layer::Ip)];
        Plan { interfaces, directors: vec![director], ..Plan::empty() }
    }

    fn commands(plan: &Plan, networks: &[Attached]) -> Vec<String> {
        proxies(plan, networks).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arp_is_answered_for_services_in_networks_of_the_machine_and_for_nothing_else() {
        let mut plan = plan("10.0.0.3", 32);
        let source = SourceNat::to([10, 0, 3, 9].into(), 1024..=65535);
        plan.directors[0].mode = Mode::Nat { sources: vec![source] };
        let networks = [
            attached("eth0", "10.0.0.1", 24),
            attached("eth1.5", "10.0.3.1", 24),
            attached("eth1.5", "10.0.3.2", 24),
            attached("eth2", "192.0.2.1", 24),
            attached("tun0", "10.0.0.7", 8),
        ];
        let expected = [
            "sysctl -w net.ipv4.neigh.eth0.proxy_delay=0",
            "sysctl -w net/ipv4/neigh/eth1.5/proxy_delay=0",
            "ip neigh add proxy 10.0.0.3 dev eth0 protocol 69",
            "ip neigh add proxy 10.0.3.9 dev eth1.5 protocol 69",
        ];
        assert_eq!(commands(&plan, &networks), expected);
        assert_eq!(unanswered(&plan, &networks), Vec::<String>::new());
    }

    #[test]
    fn neighbour_discovery_is_answered_as_arp_is() {
        let mut plan = plan("fd98::3", 128);
        let source = SourceNat::to("fd03::9".parse().unwrap(), 1024..=65535);
        plan.directors[0].mode = Mode::Nat { sources: vec![source] };
        let networks = [attached("eth0", "fd98::1", 64), attached("eth1", "fd03::1", 64)];
        let expected = [
            "sysctl -w net.ipv6.neigh.eth0.proxy_delay=0",
            "sysctl -w net.ipv6.conf.eth0.proxy_ndp=1",
            "sysctl -w net.ipv6.neigh.eth1.proxy_delay=0",
            "sysctl -w net.ipv6.conf.eth1.proxy_ndp=1",
            "ip -6 neigh add proxy fd98::3 dev eth0 protocol 69",
            "ip -6 neigh add proxy fd03::9 dev eth1 protocol 69",
        ];
        assert_eq!(commands(&plan, &networks), expected);
    }

    #[test]
    fn a_small_network_of_vips_is_answered_for_address_by_address() {
        let networks = [attached("eth0", "10.0.0.66", 24)];
        let hosts = |plan: &Plan| -> Vec<IpAddr> {
            let changes = proxies(plan, &networks).into_iter();
            let address = |change| {
                if let Change::ProxyNeighbour { address, .. } = change { Some(address) } else { None }
            };
            changes.filter_map(address).collect()
        };
        let of = |last: u8| IpAddr::from([10, 0, 0, last]);
        // Not for the machine itself.
        assert_eq!(hosts(&plan("10.0.0.64", 30)), [of(64), of(65), of(67)]);
        // Nor for the network and its broadcast address.
        let all = hosts(&plan("10.0.0.0", 24));
        assert_eq!((all.len(), all[0], all[252]), (253, of(1), of(254)));
        assert_eq!(unanswered(&plan("10.0.0.0", 24), &networks), Vec::<String>::new());
        let v6 = [attached("eth0", "fd98::1", 64)];
        assert_eq!(proxies(&plan("fd98::100", 120), &v6).len(), 2 + 256);
    }

    #[test]
    fn a_large_network_of_vips_is_named_as_one_that_nobody_answers_for() {
        let networks = [attached("eth0", "fd98::1", 64)];
        let plan = plan("fd98::1:0", 112);
        assert_eq!(proxies(&plan, &networks), []);
        let sentences = unanswered(&plan, &networks);
        assert_eq!(sentences.len(), 1);
        assert!(sentences[0].starts_with("director web: the VIP fd98::1:0/112"), "{sentences:?}");
    }

    #[test]
    fn a_network_that_is_larger_than_the_machines_is_none_of_its_neighbours() {
        let networks = [attached("eth0", "10.0.0.1", 24)];
        assert_eq!(proxies(&plan("10.0.0.0", 16), &networks), []);
        assert_eq!(unanswered(&plan("10.0.0.0", 16), &networks), Vec::<String>::new());
    }

    #[test]
    fn both_addresses_of_a_point_to_point_network_are_hosts() {
        assert!(is_answerable(&attached("eth0", "10.0.0.1", 31), [10, 0, 0, 0].into()));
        assert!(!is_answerable(&attached("eth0", "10.0.0.1", 30), [10, 0, 0, 0].into()));
        assert!(!is_answerable(&attached("eth0", "10.0.0.1", 0), [255, 255, 255, 255].into()));
    }
}
