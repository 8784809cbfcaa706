//! Routes and rules of machines.

use std::net::IpAddr;
use std::ops::Range;

use evenkeel_config::document::{At, OneOrMany, TextOrTable, quote};
use evenkeel_engine::wire::Protocol;

use super::Checker;
use crate::scenario::quantity;
use crate::scenario::written::{self, AddressText, DestinationText, Ports, Via};
use crate::scenario::{Attachment, Route, RouteAction, Rule, Subnet, TABLE_MAIN};

/// The most routes of a machine, and the most rules.
const ROUTES_MAX: usize = 1_024;
/// The most routers of one route; as many as a resilient table has slots for on switches that one buys.
const WAYS_MAX: usize = 256;

/// What a route does as it is written.
pub(super) struct WrittenRoute<'a> {
    pub(super) span: &'a Range<usize>,
    pub(super) to: &'a At<DestinationText>,
    pub(super) via: Option<&'a At<OneOrMany<Via>>>,
    pub(super) table: Option<&'a At<i64>>,
    pub(super) action: Option<&'a At<written::RouteAction>>,
}

impl Checker<'_, '_> {
    pub(super) fn gateways(&mut self, written: Option<&At<OneOrMany<AddressText>>>) -> Vec<IpAddr> {
        let mut gateways: Vec<IpAddr> = Vec::new();
        for (span, text) in OneOrMany::each(written) {
            let Some(address) = self.value(span, &text.0, quantity::address) else { continue };
            if gateways.iter().any(|other| other.is_ipv4() == address.is_ipv4()) {
                let help = Some("write a route to `default` with several `via`".to_owned());
                self.errors.add_with_help(span.clone(), "a machine has one gateway of each family", help);
                continue;
            }
            gateways.push(address);
        }
        gateways
    }

    pub(super) fn routes(&mut self, written: Option<&At<Vec<At<written::Route>>>>) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        let written = written.map_or(&[][..], |at| at.value.as_slice());
        self.too_many_routes(written.get(ROUTES_MAX).map(|at| &at.span), "routes");
        for At { span, value } in written.iter().take(ROUTES_MAX) {
            let Some(to) = value.to.as_ref() else { continue };
            let (via, table, action) = (value.via.as_ref(), value.table.as_ref(), value.action.as_ref());
            let Some(route) = self.route(&WrittenRoute { span, to, via, table, action }) else { continue };
            if routes.iter().any(|other| other.to == route.to && other.table == route.table) {
                let message = format!("a second route to {} in table {}", route.to, route.table);
                let help = Some("give one route several `via`".to_owned());
                self.errors.add_with_help(span.clone(), message, help);
                continue;
            }
            routes.push(route);
        }
        routes
    }

    fn too_many_routes(&mut self, first: Option<&Range<usize>>, what: &str) {
        if let Some(span) = first {
            self.errors.add(span.clone(), format!("a machine has at most {ROUTES_MAX} {what}"));
        }
    }

    pub(super) fn route(&mut self, written: &WrittenRoute<'_>) -> Option<Route> {
        let to = self.value(&written.to.span, &written.to.value.0, quantity::destination);
        let action = match (written.via, written.action) {
            (Some(via), None) => RouteAction::Via(self.ways(via)?),
            (None, Some(action)) => match action.value {
                written::RouteAction::Blackhole => RouteAction::Blackhole,
                written::RouteAction::Unreachable => RouteAction::Unreachable,
            },
            (Some(_), Some(action)) => {
                self.errors.add(action.span.clone(), "`via` or `action`, not both");
                return None;
            }
            (None, None) => {
                self.errors.add_missing(written.span.clone(), "a route needs `via` or `action`");
                return None;
            }
        };
        let to = self.route_network(written, to?, &action)?;
        let table = written.table.and_then(|table| u32::try_from(table.value).ok()).unwrap_or(TABLE_MAIN);
        Some(Route { to, table, action })
    }

    /// The network of a route, of the family of its routers.
    fn route_network(
        &mut self,
        written: &WrittenRoute<'_>,
        to: Option<Subnet>,
        action: &RouteAction,
    ) -> Option<Subnet> {
        let span = &written.to.span;
        let first = match action {
            RouteAction::Via(ways) => ways.first().map(|(address, _)| *address),
            RouteAction::Blackhole | RouteAction::Unreachable => None,
        };
        match (to, first) {
            (None, Some(first)) => Some(everything(first)),
            (None, None) => {
                let help = Some("write `0.0.0.0/0` or `::/0`".to_owned());
                self.errors.add_with_help(span.clone(), "`default` of which family?", help);
                None
            }
            (Some(to), Some(first)) if to.address.is_ipv4() != first.is_ipv4() => {
                let message = format!("{to} and its router {first} are not of one family");
                self.errors.add(span.clone(), message);
                None
            }
            (Some(to), _) => self.is_network(span, to).then_some(to),
        }
    }

    /// The routers of a route, with their weights.
    fn ways(&mut self, written: &At<OneOrMany<Via>>) -> Option<Vec<(IpAddr, u32)>> {
        let mut ways: Vec<(IpAddr, u32)> = Vec::new();
        let each = OneOrMany::each(Some(written));
        if each.is_empty() || each.len() > WAYS_MAX {
            self.errors.add(written.span.clone(), format!("a route has 1 to {WAYS_MAX} routers"));
            return None;
        }
        for (span, via) in each {
            let (span, text, weight) = match via {
                TextOrTable::Text(text) => (span, &text.0, 1),
                TextOrTable::Table(hop) => {
                    let address = hop.address.as_ref()?;
                    let weight = hop.weight.as_ref().and_then(|at| u32::try_from(at.value).ok());
                    (&address.span, &address.value.0, weight.unwrap_or(1))
                }
            };
            let address = self.value(span, text, quantity::address)?;
            if ways.first().is_some_and(|(first, _)| first.is_ipv4() != address.is_ipv4()) {
                self.errors.add(span.clone(), "the routers of a route are of one family");
                return None;
            }
            if ways.iter().any(|(other, _)| *other == address) {
                let help = Some("give it a larger `weight`".to_owned());
                self.errors.add_with_help(span.clone(), format!("{address} is there twice"), help);
                return None;
            }
            ways.push((address, weight));
        }
        Some(ways)
    }

    pub(super) fn rules(
        &mut self,
        written: Option<&At<Vec<At<written::Rule>>>>,
        attachments: &[Attachment],
        is_forwarder: bool,
    ) -> Vec<Rule> {
        let mut rules = Vec::new();
        let written = written.map_or(&[][..], |at| at.value.as_slice());
        self.too_many_routes(written.get(ROUTES_MAX).map(|at| &at.span), "rules");
        for rule in written.iter().take(ROUTES_MAX) {
            let rule = &rule.value;
            if let Some(name) = rule.iif.as_ref().filter(|name| name.value != "lo" && !is_forwarder)
                && !attachments.iter().any(|attachment| attachment.interface == name.value)
            {
                let known = attachments.iter().map(|attachment| attachment.interface.as_str());
                self.unknown(&name.span, "interface", &name.value, known);
            }
            rules.extend(self.rule(rule));
        }
        rules.sort_by_key(|rule: &Rule| rule.priority);
        rules
    }

    fn rule(&mut self, rule: &written::Rule) -> Option<Rule> {
        let number = |at: Option<&At<i64>>| at.and_then(|at| u32::try_from(at.value).ok());
        let from = self.condition(rule.from.as_ref());
        let to = self.condition(rule.to.as_ref());
        if let (Some(from), Some(to), Some(at)) = (from, to, &rule.to)
            && from.address.is_ipv4() != to.address.is_ipv4()
        {
            self.errors.add(at.span.clone(), format!("{from} and {to} are not of one family"));
        }
        let protocol = rule.proto.as_ref().map(|at| match at.value {
            written::Protocol::Tcp => Protocol::TCP,
            written::Protocol::Udp => Protocol::UDP,
            written::Protocol::Icmp => Protocol::ICMP,
            written::Protocol::Icmpv6 => Protocol::ICMPV6,
        });
        let has_ports = protocol.is_some_and(|protocol| [Protocol::TCP, Protocol::UDP].contains(&protocol));
        for ports in [&rule.sport, &rule.dport].into_iter().flatten().filter(|_| !has_ports) {
            let help = Some("add `proto`, `tcp` or `udp`".to_owned());
            self.errors.add_with_help(ports.span.clone(), "ports without a protocol that has them", help);
        }
        Some(Rule {
            priority: number(rule.priority.as_ref())?,
            interface: rule.iif.as_ref().map(|name| name.value.clone()),
            from,
            to,
            protocol,
            source_ports: self.ports(rule.sport.as_ref()),
            destination_ports: self.ports(rule.dport.as_ref()),
            table: number(rule.table.as_ref())?,
        })
    }

    fn condition(&mut self, text: Option<&At<DestinationText>>) -> Option<Subnet> {
        let text = text?;
        let Some(subnet) = self.value(&text.span, &text.value.0, quantity::destination)? else {
            let help = Some("leave the key out, and every address fits".to_owned());
            let message = format!("{} is no condition", quote(&text.value.0));
            self.errors.add_with_help(text.span.clone(), message, help);
            return None;
        };
        self.is_network(&text.span, subnet).then_some(subnet)
    }

    fn ports(&mut self, ports: Option<&At<Ports>>) -> Option<(u16, u16)> {
        let At { span, value } = ports?;
        match value {
            Ports::One(port) => u16::try_from(*port).ok().map(|port| (port, port)),
            Ports::Range(text) => self.value(span, &text.0, quantity::ports),
        }
    }
}

/// The network of all addresses of the family of this one.
const fn everything(address: IpAddr) -> Subnet {
    let address = match address {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
    };
    Subnet { address, length: 0 }
}
