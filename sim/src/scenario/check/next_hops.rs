//! Whether next hops are somebody's addresses on a segment of the machine, and whether packets go in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use evenkeel_config::document::{At, Named, OneOrMany, TextOrTable};

use super::Checker;
use crate::scenario::written::{self, NetworkKeys};
use crate::scenario::{Network, RouteAction, Scenario, TABLE_MAIN};

/// The most routes that are looked at in search of circles: what a second is enough for. Large networks are looked at
/// in part.
const STEPS_MAX: usize = 1 << 22;

/// Every group, router and forwarder with the place of its name and what it says of its network.
fn machines(file: &written::File) -> Vec<(&At<String>, NetworkKeys<'_>)> {
    let hosts = Named::entries(file.host.as_ref().map(|at| &at.value)).iter();
    let routers = Named::entries(file.router.as_ref().map(|at| &at.value)).iter();
    let forwarders = Named::entries(file.forwarder.as_ref().map(|at| &at.value)).iter();
    let hosts = hosts.map(|(name, host)| (name, host.value.network()));
    let routers = routers.map(|(name, router)| (name, router.value.network()));
    let forwarders = forwarders.map(|(name, forwarder)| (name, forwarder.value.network()));
    hosts.chain(routers).chain(forwarders).collect()
}

/// The first machine of each group.
fn firsts(scenario: &Scenario) -> BTreeMap<&str, usize> {
    let mut firsts = BTreeMap::new();
    for number in 0..scenario.machine_count() {
        if let Some((_, group, _)) = scenario.machine(number) {
            firsts.entry(group).or_insert(number);
        }
    }
    firsts
}

/// Whose interface an address is: the machine, its segment and VLAN.
fn owners(scenario: &Scenario) -> BTreeMap<IpAddr, (usize, usize, u16)> {
    let mut owners = BTreeMap::new();
    for number in 0..scenario.machine_count() {
        let Some((_, _, network)) = scenario.machine(number) else { continue };
        for attachment in &network.attachments {
            for address in &attachment.addresses {
                owners.insert(*address, (number, attachment.segment, attachment.vlan));
            }
        }
    }
    owners
}

impl Checker<'_, '_> {
    /// Gateways and next hops are addresses of other machines on a segment of those who use them.
    pub(super) fn next_hops(&mut self, file: &written::File, scenario: &Scenario) {
        let (firsts, owners) = (firsts(scenario), owners(scenario));
        for (name, keys) in machines(file) {
            let found = firsts.get(name.value.as_str()).and_then(|number| scenario.machine(*number));
            let Some((_, _, network)) = found else { continue };
            let mut hops: Vec<(&Range<usize>, &str, &str)> = Vec::new();
            let gateways = OneOrMany::each(keys.gateway).into_iter();
            hops.extend(gateways.map(|(span, text)| (span, text.0.as_str(), "gateway")));
            for route in keys.routes.map_or(&[][..], |at| at.value.as_slice()) {
                for (span, via) in OneOrMany::each(route.value.via.as_ref()) {
                    let text = match via {
                        TextOrTable::Text(text) => Some((span, text)),
                        TextOrTable::Table(hop) => hop.address.as_ref().map(|at| (&at.span, &at.value)),
                    };
                    hops.extend(text.map(|(span, text)| (span, text.0.as_str(), "router")));
                }
            }
            for (span, text, what) in hops {
                // What is no address has been noted.
                let Ok(address) = text.parse() else { continue };
                let hop = Hop { machine: &name.value, network, what, address };
                if let Some(message) = hop.mistake(scenario, &owners) {
                    self.errors.add(span.clone(), message);
                }
            }
        }
    }

    /// Packets to addresses that there are come to an end.
    pub(super) fn circles(&mut self, file: &written::File, scenario: &Scenario) {
        let services: BTreeSet<IpAddr> = scenario.loads.iter().map(|load| load.service.address).collect();
        let mut search = Search { scenario, owners: owners(scenario), services: &services, steps: 0 };
        let firsts = firsts(scenario);
        let mut told = BTreeSet::new();
        for destination in destinations(scenario, &services) {
            let Some(circle) = search.circle(destination, firsts.values().copied()) else { continue };
            let mut members = circle.clone();
            members.sort_unstable();
            members.dedup();
            if !told.insert(members) {
                continue;
            }
            let names: Vec<&str> =
                circle.iter().filter_map(|number| scenario.machine(*number)).map(|(name, ..)| name).collect();
            let group =
                circle.first().and_then(|number| scenario.machine(*number)).map(|(_, group, _)| group);
            let places = machines(file).into_iter().map(|(name, _)| name);
            let span =
                places.filter(|name| Some(name.value.as_str()) == group).map(|name| name.span.clone()).next();
            let message = format!("packets to {destination} go in circles: {}", names.join(", "));
            let help = Some("give one of them a route that leads there".to_owned());
            self.errors.add_with_help(span.unwrap_or(0..0), message, help);
        }
    }
}

/// A next hop of a machine.
struct Hop<'a> {
    machine: &'a str,
    network: &'a Network,
    what: &'a str,
    address: IpAddr,
}

impl Hop<'_> {
    fn mistake(&self, scenario: &Scenario, owners: &BTreeMap<IpAddr, (usize, usize, u16)>) -> Option<String> {
        let Hop { machine, network, what, address } = self;
        let own = |addresses: &Vec<IpAddr>| addresses.contains(address);
        if network.attachments.iter().any(|attachment| own(&attachment.addresses)) {
            return Some(format!("{what} {address} is an address of {machine} itself"));
        }
        let is_on = |segment: usize| scenario.segments.get(segment).is_some_and(|one| one.contains(*address));
        let Some(attachment) = network.attachments.iter().find(|attachment| is_on(attachment.segment)) else {
            return Some(format!("{what} {address} is on no segment of {machine}"));
        };
        let segment = scenario.segments.get(attachment.segment)?;
        match owners.get(address) {
            Some((_, _, vlan)) if *vlan != attachment.vlan => {
                let own = attachment.vlan;
                Some(format!(
                    "{what} {address} is in VLAN {vlan} of {}, and {machine} in {own}",
                    segment.name
                ))
            }
            Some(_) => None,
            // It may be in the configuration of a forwarder.
            None if is_bridged(scenario, attachment.segment) => None,
            None => Some(format!("nobody has the {what}'s address {address}")),
        }
    }
}

/// Whether a forwarder has a port without addresses on this segment.
fn is_bridged(scenario: &Scenario, segment: usize) -> bool {
    let attachments = scenario.forwarders.iter().flat_map(|forwarder| &forwarder.network.attachments);
    let mut there = attachments.filter(|attachment| attachment.segment == segment);
    there.any(|attachment| attachment.addresses.is_empty())
}

/// One address of each network, those on loopback interfaces, and the services.
fn destinations(scenario: &Scenario, services: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
    let mut all = services.clone();
    all.extend(scenario.segments.iter().flat_map(|segment| &segment.subnets).map(|subnet| subnet.address));
    for number in 0..scenario.machine_count() {
        let network = scenario.machine(number).map(|(_, _, network)| network);
        all.extend(network.into_iter().flat_map(|network| &network.loopback));
    }
    all
}

/// The search for circles.
struct Search<'a> {
    scenario: &'a Scenario,
    owners: BTreeMap<IpAddr, (usize, usize, u16)>,
    services: &'a BTreeSet<IpAddr>,
    steps: usize,
}

impl Search<'_> {
    /// The machines of a circle that a packet to this address can get into, in order, the first one at the end again.
    fn circle(&mut self, destination: IpAddr, origins: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
        let mut done = BTreeSet::new();
        for origin in origins {
            // The way that is being looked at: machines, and which next hops of each are left.
            let mut way = vec![(origin, self.next(origin, destination, true))];
            while let Some((machine, left)) = way.last_mut() {
                let Some(next) = left.pop() else {
                    done.insert(*machine);
                    way.pop();
                    continue;
                };
                if let Some(start) = way.iter().position(|(on_way, _)| *on_way == next) {
                    let mut circle: Vec<usize> =
                        way.iter().skip(start).map(|(machine, _)| *machine).collect();
                    circle.push(next);
                    return Some(circle);
                }
                if !done.contains(&next) {
                    let further = self.next(next, destination, false);
                    way.push((next, further));
                }
            }
        }
        None
    }

    /// To which machines a packet goes on; none where it ends, or where one can not know.
    fn next(&mut self, machine: usize, destination: IpAddr, is_origin: bool) -> Vec<usize> {
        let Some((_, _, network)) = self.scenario.machine(machine) else { return Vec::new() };
        let is_forwarder = machine >= self.scenario.hosts.len() + self.scenario.routers.len();
        let is_own = network.loopback.contains(&destination)
            || network.attachments.iter().any(|attachment| attachment.addresses.contains(&destination));
        let is_end = is_own
            || !network.rules.is_empty()
            || (is_forwarder && self.services.contains(&destination))
            || (!is_origin && !network.sysctl.ip_forward);
        self.steps += 1 + network.routes.len() + network.attachments.len();
        if is_end || self.steps > STEPS_MAX {
            return Vec::new();
        }
        let owner = |address: &IpAddr| self.owners.get(address).map(|(machine, ..)| *machine);
        let best = network
            .routes
            .iter()
            .filter(|route| route.table == TABLE_MAIN && route.to.contains(destination))
            .max_by_key(|route| route.to.length);
        let segments = network.attachments.iter().filter_map(|own| self.scenario.segments.get(own.segment));
        let connected = segments.flat_map(|segment| &segment.subnets).filter(|net| net.contains(destination));
        let connected = connected.map(|subnet| subnet.length).max();
        match best {
            Some(route) if connected.is_none_or(|length| route.to.length > length) => match &route.action {
                RouteAction::Via(ways) => ways.iter().filter_map(|(address, _)| owner(address)).collect(),
                RouteAction::Blackhole | RouteAction::Unreachable => Vec::new(),
            },
            _ if connected.is_some() => Vec::new(),
            _ => {
                let fits = |address: &&IpAddr| address.is_ipv4() == destination.is_ipv4();
                network.gateways.iter().filter(fits).filter_map(owner).collect()
            }
        }
    }
}
