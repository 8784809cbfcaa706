//! A virtual service of another system, and how it is written as a director.

use std::fmt::Write;
use std::net::IpAddr;
use std::ops::Range;

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

/// What is said of all services together.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    /// Real servers saw the address of the other system, not the client's.
    pub(super) is_proxy: bool,
    /// How long a connection may be silent, in milliseconds.
    pub(super) idle_ms: Option<u64>,
    /// How many clients stick to a real server; 0 where nothing is said.
    pub(super) persistent: u64,
}

/// A virtual service.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) name: String,
    /// Where it stands.
    pub(super) span: Range<usize>,
    /// What it is bound to, as configuration files write it.
    pub(super) binds: Vec<String>,
    pub(super) scheduler: String,
    /// Flags of its scheduler.
    pub(super) uses_port: bool,
    pub(super) has_fallback: bool,
    /// Options of its scheduler, as configuration files write them.
    pub(super) options: Vec<(&'static str, String)>,
    pub(super) way: Option<Way>,
    pub(super) persistence_seconds: Option<u32>,
    /// The mask of persistence: a text for IPv4, a length for IPv6.
    pub(super) netmask: Option<String>,
    pub(super) is_one_packet: bool,
    /// How its servers' agents are asked.
    pub(super) agents: Option<Agents>,
    pub(super) servers: Vec<Server>,
}

/// How agents are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Agents {
    pub(super) port: u16,
    pub(super) interval_ms: u64,
    pub(super) send: String,
}

/// A real server.
#[derive(Clone, Debug)]
pub(super) struct Server {
    /// Its name, where it has one.
    pub(super) name: Option<String>,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) weight: u32,
    pub(super) upper: u32,
    pub(super) lower: u32,
    /// The port where its agent answers, if it has one.
    pub(super) agent_port: Option<u16>,
}

impl Server {
    /// A server of weight 1 without bounds.
    pub(super) const fn at(address: IpAddr, port: u16) -> Self {
        Self { name: None, address, port, weight: 1, upper: 0, lower: 0, agent_port: None }
    }
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
pub(super) fn file(services: &[Service], extras: Extras) -> String {
    let mut out = String::from(
        "# By which packets come and go; `kind = \"ethernet\"` for an interface of the machine.\n\
         [interface.tun0]\nkind = \"tun\"\n",
    );
    if services.iter().any(|service| matches!(service.way, Some(Way::Tunnel(..)))) {
        out.push_str(
            "address = [\"10.99.0.1/24\", \"fc00:99::1/64\"] # The source of tunnels: choose your own.\n",
        );
    }
    // Writing into a String cannot fail.
    if let Some(idle) = extras.idle_ms {
        let _ = writeln!(out, "\n[timeouts]\ntcp_established = \"{idle}ms\"");
    }
    if extras.persistent > 0 {
        let most = extras.persistent.min(PERSISTENT_MAX);
        let _ = writeln!(out, "\n[limits]\npersistent = {most}");
    }
    if extras.is_proxy {
        out.push_str(
            "\n# Real servers see the client's address here, so their answers must come back through the forwarder.\n\
             # Where they do not, add `source_nat` with an address of its own to the directors.\n",
        );
    }
    services.iter().for_each(|service| director(&mut out, service));
    out
}

/// The most clients that may stick to real servers.
const PERSISTENT_MAX: u64 = 1 << 24;

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
    scheduler(out, service);
    if let Some(seconds) = service.persistence_seconds {
        let mask = match &service.netmask {
            Some(mask) if mask.contains('.') => format!(", netmask = {}", text(mask)),
            Some(length) => format!(", netmask6 = {length}"),
            None => String::new(),
        };
        let _ = writeln!(out, "persistence = {{ timeout = \"{seconds}s\"{mask} }}");
    }
    if let Some(Agents { port, interval_ms, send }) = &service.agents {
        let send = if send.is_empty() { String::new() } else { format!(", send = {}", text(send)) };
        let rhythm = format!("interval = \"{interval_ms}ms\", timeout = \"{interval_ms}ms\"");
        let _ = writeln!(out, "agent_check = {{ port = {port}, {rhythm}{send} }}");
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
        let common = service.agents.as_ref().map(|agents| agents.port);
        let agent = match server.agent_port.or_else(|| common.map(|_| 0)) {
            own if own == common => String::new(),
            own => own.map_or_else(String::new, |port| format!(", agent_port = {port}")),
        };
        let name = server.name.clone().unwrap_or_else(|| format!("s{}", number + 1));
        let _ = writeln!(
            out,
            "  {{ name = {}, address = \"{address}\", weight = {}{upper}{lower}{agent} }},",
            text(&name),
            server.weight
        );
    }
    out.push_str("]\n");
}

/// Writing into a String cannot fail.
fn scheduler(out: &mut String, service: &Service) {
    let mut options = service.options.clone();
    if ["sh", "mh"].contains(&service.scheduler.as_str()) {
        if service.uses_port {
            options.push(("key", "\"source-port\"".to_owned()));
        }
        options.push(("fallback", service.has_fallback.to_string()));
    }
    let scheduler = text(&service.scheduler);
    if options.is_empty() {
        let _ = writeln!(out, "scheduler = {scheduler}");
    } else {
        let options: String = options.iter().map(|(key, value)| format!(", {key} = {value}")).collect();
        let _ = writeln!(out, "scheduler = {{ name = {scheduler}{options} }}");
    }
}
