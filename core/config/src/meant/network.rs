//! Interfaces and routes.

use evenkeel_engine::plan::{InterfacePlan, Layer, Prefix, RoutePlan, TablePlan};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{InterfaceId, Plan};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Meaning, entries, number};
use crate::addresses::{self, family};
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::setup::INTERFACES_MAX;
use crate::written::{self, At, Kind, Named};

/// The most addresses of one interface.
const ADDRESSES_MAX: usize = 256;

/// The most routes that a file may write: more than a forwarder has use for, and sorted in a fifth of a second for all of
/// 255 pairs of table and interface.
const ROUTES_MAX: usize = 1_024;

/// The most routing tables beside the main one: the bound of the engine.
const TABLES_MAX: usize = 254;

/// The largest IP packet when the file does not say: that of Ethernet.
const MTU_DEFAULT: u16 = 1_500;

/// Every destination, of each family.
const EVERYWHERE: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 },
    Prefix { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 },
];

pub(super) fn interface_id(index: usize) -> Option<InterfaceId> {
    u16::try_from(index).ok().map(InterfaceId)
}

impl Meaning<'_> {
    pub(super) fn interfaces(&mut self, file: &written::File) -> Vec<InterfacePlan> {
        let written = file.interface.as_ref();
        let tables = Named::entries(written.map(|at| &at.value));
        if let (Some(at), []) = (written, tables) {
            let diagnostic = self.diagnostic(Code::MissingKey, &at.span, "there is no interface");
            self.found.push(diagnostic.help("add a table `[interface.tun0]` with `kind = \"tun\"`"));
        }
        if let Some((name, _)) = tables.get(INTERFACES_MAX) {
            let message = format!("there are {} interfaces; {INTERFACES_MAX} is the most", tables.len());
            let diagnostic = self.diagnostic(Code::TooMany, &name.span, message);
            self.found.push(diagnostic.help("take out some interfaces"));
        }
        tables.iter().map(|(name, table)| self.interface(name, table)).collect()
    }

    /// An interface. One with a mistake keeps its place, so that the others keep their numbers.
    fn interface(&mut self, name: &At<String>, table: &At<written::Interface>) -> InterfacePlan {
        self.places.insert("interface", &name.value, "", &name.span);
        self.text(&name.span, forms::interface_name(&name.value));
        let written = &table.value;
        if let Some(kind) = &written.kind {
            self.places.insert("interface", &name.value, "kind", &kind.span);
        }
        self.bounded(entries(written.address.as_ref()), ADDRESSES_MAX, "addresses");
        let mut addresses = Vec::new();
        for At { span, value } in entries(written.address.as_ref()) {
            self.places.insert("interface", &name.value, "address", span);
            addresses.extend(self.text(span, addresses::interface_address(&value.0)));
        }
        let passes_to = written.pass_to.as_ref().and_then(|other| self.passes_to(name, written, other));
        InterfacePlan {
            addresses,
            mtu_bytes: number(written.mtu.as_ref(), MTU_DEFAULT),
            passes_to,
            ..InterfacePlan::new(&name.value, self.layer(written).unwrap_or(Layer::Ip))
        }
    }

    /// Where an interface passes on what is not for the forwarder.
    fn passes_to(
        &mut self,
        name: &At<String>,
        written: &written::Interface,
        other: &At<written::InterfaceNameText>,
    ) -> Option<InterfaceId> {
        let span = &other.span;
        self.places.insert("interface", &name.value, "pass_to", span);
        let index = self.resolve(Code::UnknownInterface, "interface", &other.value.0, span)?;
        let conflict = if other.value.0 == name.value {
            let message = format!("the interface {} passes packets to itself", quote(&name.value));
            Some((message, "write the name of another interface"))
        } else {
            let kind = |written: &written::Interface| written.kind.as_ref().map(|at| at.value);
            let target = self.interface_tables.get(index).map(|(_, table)| kind(&table.value));
            let is_other =
                kind(written).is_some() && target.flatten().is_some_and(|to| Some(to) != kind(written));
            is_other.then(|| {
                let (from, to) = (quote(&name.value), quote(&other.value.0));
                let message =
                    format!("{from} and {to} are of different kinds, and packets are passed on as they are");
                (message, "write the name of an interface of the same kind")
            })
        };
        let Some((message, help)) = conflict else { return interface_id(index) };
        let diagnostic = self.diagnostic(Code::Conflict, span, message);
        self.found.push(diagnostic.help(help));
        None
    }

    fn layer(&mut self, written: &written::Interface) -> Option<Layer> {
        let kind = written.kind.as_ref()?;
        match (kind.value, &written.mac) {
            (Kind::Tun, None) => Some(Layer::Ip),
            (Kind::Tun, Some(mac)) => {
                let message = "a `tun` interface has no MAC address";
                let diagnostic = self.diagnostic(Code::UnknownKey, &mac.span, message);
                self.found.push(diagnostic.help("take out `mac`, or write `kind = \"ethernet\"`"));
                None
            }
            (Kind::Ethernet, Some(mac)) => {
                self.text(&mac.span, forms::mac(&mac.value.0)).map(Layer::Ethernet)
            }
            (Kind::Ethernet, None) => Some(Layer::Ethernet(MacAddress::UNSPECIFIED)),
        }
    }

    /// The routes of the file, then the networks of the interfaces, then the implied default; and those of other tables.
    pub(super) fn routes(
        &mut self,
        file: &written::File,
        interfaces: &[InterfacePlan],
    ) -> (Vec<RoutePlan>, Vec<TablePlan>) {
        let written = entries(file.route.as_ref());
        self.bounded(written, ROUTES_MAX, "routes");
        if let Some(beyond) = self.tables.get(TABLES_MAX) {
            let is_it = |route: &&At<written::Route>| number_of_table(route) == Some(*beyond);
            if let Some(at) = written.iter().find(is_it) {
                let message =
                    format!("there are {} routing tables; {TABLES_MAX} is the most", self.tables.len());
                let diagnostic = self.diagnostic(Code::TooMany, &at.span, message);
                self.found.push(diagnostic.help("take out some tables"));
            }
        }
        let mut routes = Vec::new();
        let mut tables: Vec<_> =
            self.tables.iter().map(|id| TablePlan { id: *id, routes: Vec::new() }).collect();
        for route in written {
            let Some(plan) = self.route(&route.value, interfaces) else { continue };
            match number_of_table(route) {
                None => routes.push(plan),
                Some(id) => {
                    let table = tables.iter_mut().find(|table| table.id == id);
                    table.into_iter().for_each(|table| table.routes.push(plan));
                }
            }
        }
        for (index, interface) in interfaces.iter().enumerate() {
            let Some(id) = interface_id(index) else { break };
            let networks = interface.addresses.iter().map(|own| addresses::network_around(*own));
            routes.extend(networks.map(|destination| RoutePlan {
                destination,
                gateway: None,
                interface: id,
            }));
        }
        if let [_] = interfaces {
            for destination in EVERYWHERE {
                if routes.iter().all(|route| route.destination != destination) {
                    routes.push(RoutePlan { destination, gateway: None, interface: InterfaceId(0) });
                }
            }
        }
        (routes, tables)
    }

    /// Warns of a family that is used and has no default route, where there is none that goes without saying.
    pub(super) fn default_routes(&mut self, file: &written::File, plan: &Plan) {
        let Some(interfaces) = file.interface.as_ref().filter(|_| plan.interfaces.len() > 1) else { return };
        let own = plan.interfaces.iter().flat_map(|one| &one.addresses).map(|own| own.address);
        let binds = plan.directors.iter().flat_map(|one| &one.binds).map(|bind| bind.network.address);
        let servers = plan.directors.iter().flat_map(|one| &one.servers).map(|server| server.address);
        let used: Vec<IpAddr> = own.chain(binds).chain(servers).collect();
        let place = Named::entries(Some(&interfaces.value)).first().map(|(name, _)| name.span.clone());
        let place: Range<usize> = place.unwrap_or_else(|| interfaces.span.clone());
        for everywhere in EVERYWHERE {
            let is_v4 = everywhere.address.is_ipv4();
            let is_used = used.iter().any(|address| address.is_ipv4() == is_v4) || (used.is_empty() && is_v4);
            if !is_used || plan.routes.iter().any(|route| route.destination == everywhere) {
                continue;
            }
            let family = family(&everywhere.address);
            let message = format!(
                "there are several interfaces and no default route for {family}: packets to other networks are dropped"
            );
            let diagnostic = self.diagnostic(Code::NoDefaultRoute, &place, message);
            self.found.push(diagnostic.help(format!(
                "add `[[route]]` with `to = \"{}/0\"` and the interface that leads there",
                everywhere.address
            )));
        }
    }

    fn route(&mut self, written: &written::Route, interfaces: &[InterfacePlan]) -> Option<RoutePlan> {
        let destination =
            written.to.as_ref().and_then(|to| self.text(&to.span, addresses::network(&to.value.0)));
        let gateway = match &written.via {
            Some(via) => self.text(&via.span, addresses::host_address(&via.value.0)).map(Some),
            None => Some(None),
        };
        let interface = match &written.interface {
            Some(name) => self.resolve(Code::UnknownInterface, "interface", &name.value.0, &name.span),
            None => self.interface_to(written, gateway.flatten(), interfaces),
        };
        let (destination, gateway, interface) = (destination?, gateway?, interface_id(interface?)?);
        if let (Some(at), Some(router)) = (&written.via, &gateway)
            && router.is_ipv4() != destination.address.is_ipv4()
        {
            let (of, to) = (family(router), family(&destination.address));
            let message = format!("the router is an {of} address, and the destinations are of {to}");
            let diagnostic = self.diagnostic(Code::FamilyMismatch, &at.span, message);
            self.found.push(diagnostic.help(format!("write the {to} address of the router")));
            return None;
        }
        Some(RoutePlan { destination, gateway, interface })
    }

    /// The interface in whose network the router of a route is.
    fn interface_to(
        &mut self,
        written: &written::Route,
        router: Option<IpAddr>,
        interfaces: &[InterfacePlan],
    ) -> Option<usize> {
        let (at, router) = match (&written.via, router) {
            (Some(at), Some(router)) => (at, router),
            (Some(_), None) => return None,
            (None, _) => {
                let span = written.to.as_ref().map_or(0..0, |to| to.span.clone());
                let message = "this route says neither by which interface packets leave nor to which router";
                let diagnostic = self.diagnostic(Code::MissingKey, &span, message);
                self.found.push(diagnostic.help("add `interface`, or `via` with the address of a router"));
                return None;
            }
        };
        let holds = |interface: &&(usize, &InterfacePlan)| {
            interface.1.addresses.iter().any(|own| own.contains(router))
        };
        let all: Vec<_> = interfaces.iter().enumerate().collect();
        let found = all.iter().find(holds).map(|(index, _)| *index);
        if found.is_none() {
            let message = format!("the router {router} is in the network of no interface");
            let diagnostic = self.diagnostic(Code::UnknownInterface, &at.span, message);
            self.found
                .push(diagnostic.help("add `interface`, or to an interface an `address` in its network"));
        }
        found
    }
}

/// The numbers of the routing tables beside the main one, in the order of the file.
pub(super) fn table_numbers(file: &written::File) -> Vec<u32> {
    let mut numbers = Vec::new();
    for number in entries(file.route.as_ref()).iter().filter_map(number_of_table) {
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    numbers
}

fn number_of_table(route: &At<written::Route>) -> Option<u32> {
    route.value.table.as_ref().and_then(|at| u32::try_from(at.value).ok())
}
