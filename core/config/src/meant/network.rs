//! Interfaces and routes.

use evenkeel_engine::InterfaceId;
use evenkeel_engine::plan::{InterfacePlan, Layer, Prefix, RoutePlan};
use std::net::{IpAddr, Ipv4Addr};

use super::{Meaning, entries, number};
use crate::diagnostic::Code;
use crate::forms;
use crate::written::{self, At, Kind, Named};

/// The most interfaces: as many as one device of the forwarder takes. A forwarder has a handful.
const INTERFACES_MAX: usize = 64;

/// The most addresses of one interface.
const ADDRESSES_MAX: usize = 256;

/// The most routes that a file may write; they are looked through one by one for a new flow.
const ROUTES_MAX: usize = 1_024;

/// The largest IP packet when the file does not say: that of Ethernet.
const MTU_DEFAULT: u16 = 1_500;

/// Every IPv4 destination.
const EVERYWHERE: Prefix = Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };

fn interface_id(index: usize) -> Option<InterfaceId> {
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
            addresses.extend(self.text(span, forms::interface_address(&value.0)));
        }
        InterfacePlan {
            name: name.value.clone(),
            layer: self.layer(written).unwrap_or(Layer::Ip),
            addresses,
            mtu_bytes: number(written.mtu.as_ref(), MTU_DEFAULT),
        }
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
            (Kind::Ethernet, None) => {
                let message = "an `ethernet` interface needs a MAC address";
                let diagnostic = self.diagnostic(Code::MissingKey, &kind.span, message);
                self.found.push(diagnostic.help("add `mac = \"02:00:00:00:00:01\"`"));
                None
            }
        }
    }

    /// The routes of the file, then the networks of the interfaces, then the implied default.
    pub(super) fn routes(&mut self, file: &written::File, interfaces: &[InterfacePlan]) -> Vec<RoutePlan> {
        let written = entries(file.route.as_ref());
        self.bounded(written, ROUTES_MAX, "routes");
        let mut routes: Vec<_> = written.iter().filter_map(|route| self.route(&route.value)).collect();
        for (index, interface) in interfaces.iter().enumerate() {
            let Some(id) = interface_id(index) else { break };
            let networks = interface.addresses.iter().filter_map(|own| forms::network_around(*own));
            routes.extend(networks.map(|destination| RoutePlan {
                destination,
                gateway: None,
                interface: id,
            }));
        }
        if routes.iter().any(|route| route.destination == EVERYWHERE) {
            return routes;
        }
        match interfaces {
            [_] => {
                let interface = InterfaceId(0);
                routes.push(RoutePlan { destination: EVERYWHERE, gateway: None, interface });
            }
            [] => {}
            [..] => self.no_default_route(file),
        }
        routes
    }

    fn no_default_route(&mut self, file: &written::File) {
        let Some(interfaces) = &file.interface else { return };
        let place = Named::entries(Some(&interfaces.value)).first().map(|(name, _)| &name.span);
        let message =
            "there are several interfaces and no default route: packets to other networks are dropped";
        let diagnostic = self.diagnostic(Code::NoDefaultRoute, place.unwrap_or(&interfaces.span), message);
        let help = "add `[[route]]` with `to = \"0.0.0.0/0\"` and the interface that leads there";
        self.found.push(diagnostic.help(help));
    }

    fn route(&mut self, written: &written::Route) -> Option<RoutePlan> {
        let destination = written.to.as_ref().and_then(|to| self.text(&to.span, forms::network(&to.value.0)));
        let gateway = match &written.via {
            Some(via) => self.text(&via.span, forms::host_address(&via.value.0)).map(Some),
            None => Some(None),
        };
        let interface = written
            .interface
            .as_ref()
            .and_then(|name| self.resolve(Code::UnknownInterface, "interface", &name.value.0, &name.span));
        let interface = interface_id(interface?)?;
        Some(RoutePlan { destination: destination?, gateway: gateway?.map(IpAddr::V4), interface })
    }
}
