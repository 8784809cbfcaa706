//! Who is who in a scenario, for the sentences of a checker.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::arp::Claim;

/// Machines, stations and addresses by name.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// The name of each machine, and whether it is a host.
    machines: Vec<(String, bool)>,
    segments: Vec<String>,
    /// The machine of each station.
    stations: BTreeMap<[u8; 6], usize>,
    forwarders: BTreeSet<[u8; 6]>,
    forwarder_machines: BTreeSet<usize>,
    /// Who has an address, and whether on its loopback interface.
    owners: BTreeMap<IpAddr, (usize, bool)>,
    loopbacks: BTreeSet<(usize, IpAddr)>,
    vips: BTreeSet<IpAddr>,
    clients: BTreeSet<IpAddr>,
}

impl Names {
    pub(crate) fn segment(&mut self, name: &str) {
        self.segments.push(name.to_owned());
    }

    /// Adds the next machine.
    pub(crate) fn machine(&mut self, name: &str, is_host: bool) {
        self.machines.push((name.to_owned(), is_host));
    }

    /// Adds a station of a machine.
    pub(crate) fn station_of(&mut self, machine: usize, station: [u8; 6], is_forwarder: bool) {
        self.stations.insert(station, machine);
        if is_forwarder {
            self.forwarders.insert(station);
            self.forwarder_machines.insert(machine);
        }
    }

    /// Adds an address of a machine.
    pub(crate) fn address_of(&mut self, machine: usize, address: IpAddr, is_loopback: bool) {
        if is_loopback {
            self.loopbacks.insert((machine, address));
            self.owners.entry(address).or_insert((machine, true));
        } else {
            self.owners.insert(address, (machine, false));
        }
    }

    pub(crate) fn vip(&mut self, address: IpAddr) {
        self.vips.insert(address);
    }

    pub(crate) fn client(&mut self, address: IpAddr) {
        self.clients.insert(address);
    }

    pub(super) fn is_vip(&self, address: IpAddr) -> bool {
        self.vips.contains(&address)
    }

    pub(super) fn is_client(&self, address: IpAddr) -> bool {
        self.clients.contains(&address)
    }

    pub(super) fn is_host(&self, machine: usize) -> bool {
        self.machines.get(machine).is_some_and(|(_, is_host)| *is_host)
    }

    pub(super) fn is_forwarders(&self, station: [u8; 6]) -> bool {
        self.forwarders.contains(&station)
    }

    pub(super) fn is_forwarder(&self, machine: usize) -> bool {
        self.forwarder_machines.contains(&machine)
    }

    /// The addresses that a machine has on its interfaces.
    pub(super) fn addresses(&self, machine: usize) -> impl Iterator<Item = IpAddr> + '_ {
        let is_its = move |owner: &(usize, bool)| *owner == (machine, false);
        self.owners.iter().filter(move |(_, owner)| is_its(owner)).map(|(address, _)| *address)
    }

    /// Whether a machine has an address on an interface.
    pub(super) fn has(&self, machine: usize, address: IpAddr) -> bool {
        self.owners.get(&address) == Some(&(machine, false))
    }

    /// Whether a frame is for a station of this machine.
    pub(super) fn hears(&self, machine: usize, frame: &[u8]) -> bool {
        frame.first_chunk::<6>().is_some_and(|to| self.stations.get(to) == Some(&machine))
    }

    pub(super) fn of(&self, machine: usize) -> &str {
        self.machines.get(machine).map_or("somebody", |(name, _)| name)
    }

    pub(super) fn station(&self, station: [u8; 6]) -> String {
        match self.stations.get(&station) {
            Some(machine) => self.of(*machine).to_owned(),
            None => station.map(|byte| format!("{byte:02x}")).join(":"),
        }
    }

    pub(super) fn owner(&self, address: IpAddr) -> &str {
        self.owners.get(&address).map_or("nobody's address", |(machine, _)| self.of(*machine))
    }

    /// The sentence about an address that two stations claim.
    pub(super) fn conflict(&self, segment: usize, claim: Claim, first: [u8; 6]) -> String {
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
