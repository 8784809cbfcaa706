//! Who is who in a scenario, for the sentences of a checker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::Finding;
use super::arp::Claim;
use crate::index::{Index, address_word, hash};
use crate::net::{index, number};

/// A machine as sentences and questions know it.
#[derive(Debug)]
struct Machine {
    name: String,
    is_host: bool,
    is_forwarder: bool,
    /// The stations of its interfaces, in their order.
    stations: Vec<[u8; 6]>,
}

/// What is known of an address of the scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// The machine that has it, and whether on its loopback interface alone.
    pub(super) owner: Option<(usize, bool)>,
    /// A load balancer has it for a service.
    pub(super) is_vip: bool,
    /// Flows are opened from it.
    pub(super) is_client: bool,
}

impl Known {
    /// Whether a machine has the address on an interface.
    pub(super) fn is_of(&self, machine: usize) -> bool {
        self.owner == Some((machine, false))
    }
}

/// Machines, stations and addresses by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    machines: Vec<Machine>,
    segments: Vec<String>,
    /// The machine of each station.
    stations: BTreeMap<[u8; 6], usize>,
    forwarders: BTreeSet<[u8; 6]>,
    loopbacks: BTreeSet<(usize, IpAddr)>,
    /// Every address of which something is known.
    addresses: Vec<(IpAddr, Known)>,
    by_address: Index,
}

impl Names {
    pub(crate) fn segment(&mut self, name: &str) {
        self.segments.push(name.to_owned());
    }

    /// Adds the next machine.
    pub(crate) fn machine(&mut self, name: &str, is_host: bool) {
        self.machines.push(Machine {
            name: name.to_owned(),
            is_host,
            is_forwarder: false,
            stations: Vec::new(),
        });
    }

    /// Adds the station of the next interface of a machine.
    pub(crate) fn station_of(&mut self, machine: usize, station: [u8; 6], is_forwarder: bool) {
        self.stations.insert(station, machine);
        if let Some(machine) = self.machines.get_mut(machine) {
            machine.stations.push(station);
            machine.is_forwarder |= is_forwarder;
        }
        if is_forwarder {
            self.forwarders.insert(station);
        }
    }

    /// Adds an address of a machine.
    pub(crate) fn address_of(&mut self, machine: usize, address: IpAddr, is_loopback: bool) {
        if is_loopback {
            self.loopbacks.insert((machine, address));
        }
        self.note(address, |known| {
            if !is_loopback || known.owner.is_none() {
                known.owner = Some((machine, is_loopback));
            }
        });
    }

    pub(crate) fn vip(&mut self, address: IpAddr) {
        self.note(address, |known| known.is_vip = true);
    }

    pub(crate) fn client(&mut self, address: IpAddr) {
        self.note(address, |known| known.is_client = true);
    }

    /// Changes what is known of an address.
    fn note(&mut self, address: IpAddr, change: impl FnOnce(&mut Known)) {
        let place = self.place(address).unwrap_or_else(|| {
            let place = self.addresses.len();
            self.addresses.push((address, Known::default()));
            self.by_address.insert(hash([address_word(address)]), number(place));
            place
        });
        if let Some((_, known)) = self.addresses.get_mut(place) {
            change(known);
        }
    }

    #[inline]
    fn place(&self, address: IpAddr) -> Option<usize> {
        let is_meant = |place| self.addresses.get(index(place)).is_some_and(|(known, _)| *known == address);
        self.by_address.find(hash([address_word(address)]), is_meant).map(index)
    }

    /// What is known of an address.
    #[inline]
    pub(super) fn known(&self, address: IpAddr) -> Known {
        let known = self.place(address).and_then(|place| self.addresses.get(place));
        known.map(|(_, known)| *known).unwrap_or_default()
    }

    pub(super) fn is_host(&self, machine: usize) -> bool {
        self.machines.get(machine).is_some_and(|machine| machine.is_host)
    }

    pub(super) fn is_forwarders(&self, station: [u8; 6]) -> bool {
        self.forwarders.contains(&station)
    }

    #[inline]
    pub(super) fn is_forwarder(&self, machine: usize) -> bool {
        self.machines.get(machine).is_some_and(|machine| machine.is_forwarder)
    }

    /// The addresses that a machine has on its interfaces.
    pub(super) fn addresses(&self, machine: usize) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter(move |(_, known)| known.is_of(machine)).map(|(address, _)| *address)
    }

    /// Whether a frame that has come by an interface is for a station of this machine.
    #[inline]
    pub(super) fn hears(&self, machine: usize, interface: usize, to: [u8; 6]) -> bool {
        let Some(machine) = self.machines.get(machine) else { return false };
        machine.stations.get(interface) == Some(&to) || machine.stations.contains(&to)
    }

    pub(super) fn of(&self, machine: usize) -> &str {
        self.machines.get(machine).map_or("somebody", |machine| &machine.name)
    }

    fn station(&self, station: [u8; 6]) -> String {
        match self.stations.get(&station) {
            Some(machine) => self.of(*machine).to_owned(),
            None => station.map(|byte| format!("{byte:02x}")).join(":"),
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> &str {
        self.known(address).owner.map_or("nobody's address", |(machine, _)| self.of(machine))
    }

    /// A finding in words.
    pub(super) fn sentence(&self, finding: Finding) -> String {
        match finding {
            Finding::Denied { server, called, forwarder } => {
                let (server, forwarder) = (self.of(server), self.of(forwarder));
                format!("{server} gets flows to {called} that a rule of {forwarder} denies")
            }
            Finding::OutOfService { server, called, forwarder } => {
                let (server, forwarder) = (self.of(server), self.of(forwarder));
                format!("{server} gets new flows to {called} from {forwarder}, where it is drained or down")
            }
            Finding::Shared { server, port, one, other } => {
                let (one, other, server) = (self.owner(one), self.owner(other), self.of(server));
                let (address, port) = (port.address, port.port);
                format!("{address} port {port} stands for flows of {one} and of {other} at {server} at once")
            }
            Finding::Early { server, address } => {
                let server = self.of(server);
                format!("{address} uses ports towards {server} again while {server} waits (TIME-WAIT)")
            }
            Finding::Strayed { server, expected, at } => {
                let (server, expected, at) = (self.owner(server), self.of(expected), self.of(at));
                format!(
                    "answers of {server} to flows of {expected} come to {at}: the path is asymmetric; give {server} a \
                     route back by {expected}, or each forwarder source addresses of its own"
                )
            }
            Finding::Conflict { segment, claim, first } => self.conflict(segment, claim, first),
            Finding::Bypassed { host, vip, from } => {
                let (server, sender) = (self.of(host), self.station(from));
                format!(
                    "{server} gets packets for the VIP {vip} from {sender}, past every forwarder: whoever sends them \
                     takes {server} for {vip}"
                )
            }
            Finding::BadPackets { machine } => {
                let name = self.of(machine);
                format!("{name} gets packets whose checksum or length is wrong, and no cable corrupts")
            }
            Finding::Removed { server, forwarder } => {
                let (server, forwarder) = (self.owner(server), self.of(forwarder));
                format!(
                    "{server} was removed from {forwarder} with flows open: its answers to them are no longer \
                     translated; drain it first (weight 0)"
                )
            }
            Finding::Foreign { client, called, from } => {
                let (who, server) = (self.of(client), self.owner(from));
                format!(
                    "{who} called {called} and gets answers from {from} ({server}): the real server's answers do not \
                     come back through the forwarder; make it the gateway of {server}, or use source NAT"
                )
            }
        }
    }

    /// The sentence about an address that two stations claim.
    fn conflict(&self, segment: usize, claim: Claim, first: [u8; 6]) -> String {
        let Claim { address, station, is_answer } = claim;
        let segment = self.segments.get(segment).map_or("", String::as_str);
        let (second, other) = (self.station(station), self.station(first));
        // Whoever has it on its loopback interface should have kept quiet, be it the first or the second.
        let quiet = [station, first].into_iter().find(|station| self.is_on_loopback(*station, address));
        let Some(quiet) = quiet.map(|station| self.station(station)) else {
            return format!(
                "{second} and {other} both claim {address} on {segment}: give one of them another address"
            );
        };
        if is_answer {
            format!(
                "{quiet} answers who-has {address} on {segment}, which is the forwarder's: set arp_ignore = 1 on {quiet}"
            )
        } else {
            format!(
                "{quiet} asks in the name of {address} on {segment}, which is the forwarder's: set arp_announce = 2 on \
                 {quiet}"
            )
        }
    }

    fn is_on_loopback(&self, station: [u8; 6], address: Ipv4Addr) -> bool {
        let machine = self.stations.get(&station);
        machine.is_some_and(|machine| self.loopbacks.contains(&(*machine, IpAddr::V4(address))))
    }
}
