//! A virtual service of another system, and how it is written as a director.

use std::fmt::Write;
use std::net::IpAddr;

use crate::addresses::in_brackets;
use crate::forms::NAME_LENGTH_MAX;
use crate::sheet::tables::{key, text};

/// How packets reach the real servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    #[default]
    Nat,
    Gateway,
    /// Encapsulation, port of GUE, checksum.
    Tunnel(&'static str, Option<u16>, bool),
}

/// A virtual service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) name: String,
    /// What it is bound to, as configuration files write it.
    pub(super) binds: Vec<String>,
    pub(super) scheduler: String,
    /// Flags of its scheduler.
    pub(super) uses_port: bool,
    pub(super) has_fallback: bool,
    pub(super) way: Option<Way>,
    pub(super) persistence_seconds: Option<u32>,
    /// The mask of persistence: a text for IPv4, a length for IPv6.
    pub(super) netmask: Option<String>,
    pub(super) is_one_packet: bool,
    pub(super) servers: Vec<Server>,
}

/// A real server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) weight: u32,
    pub(super) upper: u32,
    pub(super) lower: u32,
}

/// A name for a service: what it is bound to, where that is a name; else its number.
pub(super) fn name(kind: &str, address: &str, port: u16, number: usize) -> String {
    let words = format!("{kind}-{}-{port}", address.replace(['.', ':'], "-"));
    if words.len() <= NAME_LENGTH_MAX { words } else { format!("{kind}-{number}") }
}

/// What a director is bound to.
pub(super) fn bind(address: IpAddr, port: u16, protocol: &str) -> String {
    if port == 0 {
        format!("{}:*/{protocol}", in_brackets(address))
    } else {
        format!("{}:{port}/{protocol}", in_brackets(address))
    }
}

/// A configuration file with these services.
pub(super) fn file(services: &[Service]) -> String {
    let mut out = String::from(
        "# By which packets come and go; `kind = \"ethernet\"` for an interface of the machine.\n\
         [interface.tun0]\nkind = \"tun\"\n",
    );
    if services.iter().any(|service| matches!(service.way, Some(Way::Tunnel(..)))) {
        out.push_str(
            "address = [\"10.99.0.1/24\", \"fc00:99::1/64\"] # The source of tunnels: choose your own.\n",
        );
    }
    services.iter().for_each(|service| director(&mut out, service));
    out
}

/// Writing into a String cannot fail.
fn director(out: &mut String, service: &Service) {
    let _ = writeln!(out, "\n[director.{}]", key(&service.name));
    match service.binds.as_slice() {
        [] => {}
        [one] => {
            let _ = writeln!(out, "bind = {}", text(one));
        }
        several => {
            let list: Vec<_> = several.iter().map(|bind| text(bind)).collect();
            let _ = writeln!(out, "bind = [{}]", list.join(", "));
        }
    }
    let way = service.way.clone().unwrap_or_default();
    let mode = match &way {
        Way::Nat => "nat",
        Way::Gateway => "gateway",
        Way::Tunnel(..) => "tunnel",
    };
    let _ = writeln!(out, "mode = \"{mode}\"");
    if let Way::Tunnel(encapsulation, port, checksum) = &way {
        let port = port.map(|port| format!(", port = {port}")).unwrap_or_default();
        let checksum = if *checksum { ", checksum = true" } else { "" };
        let _ = writeln!(out, "tunnel = {{ encapsulation = \"{encapsulation}\"{port}{checksum} }}");
    }
    if ["sh", "mh"].contains(&service.scheduler.as_str()) {
        let port = if service.uses_port { ", key = \"source-port\"" } else { "" };
        let (name, fallback) = (text(&service.scheduler), service.has_fallback);
        let _ = writeln!(out, "scheduler = {{ name = {name}{port}, fallback = {fallback} }}");
    } else {
        let _ = writeln!(out, "scheduler = {}", text(&service.scheduler));
    }
    if let Some(seconds) = service.persistence_seconds {
        let mask = match &service.netmask {
            Some(mask) if mask.contains('.') => format!(", netmask = {}", text(mask)),
            Some(length) => format!(", netmask6 = {length}"),
            None => String::new(),
        };
        let _ = writeln!(out, "persistence = {{ timeout = \"{seconds}s\"{mask} }}");
    }
    if service.is_one_packet {
        out.push_str("one_packet = true\n");
    }
    if service.servers.is_empty() {
        return;
    }
    out.push_str("server = [\n");
    for (number, server) in service.servers.iter().enumerate() {
        // Packets reach the real server at the port that the client called, unless they are translated.
        let address = match (way == Way::Nat, server.port) {
            (true, port) if port != 0 => format!("{}:{port}", in_brackets(server.address)),
            _ => server.address.to_string(),
        };
        let upper = if server.upper > 0 { format!(", max_flows = {}", server.upper) } else { String::new() };
        let lower = if server.lower > 0 { format!(", min_flows = {}", server.lower) } else { String::new() };
        let _ = writeln!(
            out,
            "  {{ name = \"s{}\", address = \"{address}\", weight = {}{upper}{lower} }},",
            number + 1,
            server.weight
        );
    }
    out.push_str("]\n");
}
