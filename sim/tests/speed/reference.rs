//! The reference of the measurements: ten clients, one forwarder, four servers; links of 10 Gb/s with a delay of 10 us.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use evenkeel_sim::Scenario;

use crate::support::scenario;

const CLIENTS: usize = 10;
const SERVERS: usize = 4;

/// What lies between the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Between {
    /// Each host has a cable to the forwarder, whose engine is behind a TUN.
    Cables,
    /// The same, and the engine has the forwarder's Ethernet ports itself.
    Ports,
    /// Clients share a switch, and servers do.
    Switches,
}

/// The reference with the given load.
pub(crate) fn reference(between: Between, load: &str) -> Scenario {
    let mut text = String::from("scenario = { name = \"speed\", duration = \"1h\" }\n");
    let mut forwarder = String::new();
    let mut plug = |kind: &str, segment: &str, address: &str| {
        let subnet = format!("{}.0/24", address.rsplit_once('.').unwrap().0);
        writeln!(text, "segment.{segment} = {{ kind = \"{kind}\", subnet = \"{subnet}\" }}").unwrap();
        let ends = format!("ends = [\"*\", \"{segment}\"]");
        writeln!(text, "link.{segment} = {{ {ends}, rate = \"10Gbit\", delay = \"10us\", queue = 1000 }}")
            .unwrap();
        let own = match between {
            Between::Ports => format!("interface = \"{segment}\""),
            Between::Cables | Between::Switches => format!("address = \"{address}/24\""),
        };
        writeln!(forwarder, "    {{ segment = \"{segment}\", {own} }},").unwrap();
    };
    match between {
        Between::Cables | Between::Ports => {
            (0..CLIENTS).for_each(|host| plug("cable", &format!("c{host}"), &format!("198.51.{host}.1")));
            (0..SERVERS).for_each(|host| plug("cable", &format!("s{host}"), &format!("10.0.1{host}.1")));
        }
        Between::Switches => {
            plug("switch", "clients", "198.51.0.1");
            plug("switch", "servers", "10.0.10.1");
        }
    }
    let mut host = |name: &str, segment: &str, address: &str| {
        let gateway = format!("{}.1", address.rsplit_once('.').unwrap().0);
        writeln!(
            text,
            "host.{name} = {{ attach = [{{ segment = \"{segment}\", address = \"{address}/24\" }}], gateway = \"{gateway}\" }}"
        )
        .unwrap();
    };
    for number in 0..CLIENTS {
        let address = match between {
            Between::Cables | Between::Ports => (format!("c{number}"), format!("198.51.{number}.2")),
            Between::Switches => ("clients".to_owned(), format!("198.51.0.{}", number + 2)),
        };
        host(&format!("client{number}"), &address.0, &address.1);
    }
    for number in 0..SERVERS {
        let address = match between {
            Between::Cables | Between::Ports => (format!("s{number}"), format!("10.0.1{number}.2")),
            Between::Switches => ("servers".to_owned(), format!("10.0.10.{}", number + 2)),
        };
        host(&format!("server{number}"), &address.0, &address.1);
    }
    let config = match between {
        Between::Cables => "evenkeel.toml",
        Between::Ports => "ports.toml",
        Between::Switches => "switches.toml",
    };
    scenario(&format!(
        "{text}\n[forwarder.lb]\nattach = [\n{forwarder}]\nconfig = \"{}\"\n\n{load}\n",
        folder().join(config).display(),
    ))
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/speed")
}
