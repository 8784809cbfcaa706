//! One virtual service in an engine: clients call it, and its flow table says who answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::plan::{
    Binding, DirectorPlan, Handling, InterfacePlan, Layer, Limits, Mode, Persistence, Plan, Prefix,
    RoutePlan, SchedulerPlan, ServerPlan, Tuned,
};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::{Protocol, checksum};
use evenkeel_engine::{Duration, Instant, PlanError};

use super::super::bench::Bench;

/// The service's address.
pub(super) const VIP_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));
pub(super) const VIP_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 9));

const OUTSIDE: InterfaceId = InterfaceId(0);
const INSIDE: InterfaceId = InterfaceId(1);

/// Time between two packets: long enough to be one after the other, short enough that no timer of the kernel ends.
const GAP: Duration = Duration::from_millis(1);

/// Flows that the engine has room for; as many may be half-open.
const FLOWS_MAX: u32 = 65_535;

/// A real server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dest {
    pub(super) number: u32,
    pub(super) weight: u32,
    pub(super) upper: u32,
    pub(super) lower: u32,
}

impl Dest {
    pub(super) const fn new(number: u32, weight: u32) -> Self {
        Self { number, weight, upper: 0, lower: 0 }
    }
}

/// What is changed at a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A real server goes.
    Remove(u32),
    /// A real server comes, behind the others.
    Add(Dest),
    /// A real server has this weight from now on.
    Weight(u32, u32),
}

/// How a service is set up.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) protocol: Protocol,
    pub(super) is_v4: bool,
    pub(super) tuned: Tuned,
    pub(super) is_one_packet: bool,
    pub(super) persistence: Option<Persistence>,
    pub(super) handling: Handling,
    pub(super) dests: Vec<Dest>,
}

impl Setup {
    /// The port of the service and of its real servers.
    pub(super) fn port(&self) -> u16 {
        if self.protocol == Protocol::UDP { 53 } else { 80 }
    }

    const fn vip(&self) -> IpAddr {
        if self.is_v4 { VIP_V4 } else { VIP_V6 }
    }

    /// The address of the real server of this number (1 to 254).
    fn address(&self, number: u32) -> IpAddr {
        let last = u8::try_from(number).unwrap_or(u8::MAX);
        if self.is_v4 {
            return Ipv4Addr::new(192, 168, 100, last).into();
        }
        // Written in decimal, as one writes `fd00::101` for the first.
        let text = format!("fd00::{}", 100 + u32::from(last));
        text.parse::<Ipv6Addr>().unwrap_or(Ipv6Addr::UNSPECIFIED).into()
    }

    fn plan(&self) -> Plan {
        let mut plan = Plan::empty();
        plan.handling = self.handling;
        plan.limits = Limits { flows_max: FLOWS_MAX, half_open_max: u16::MAX, ..Limits::default() };
        plan.interfaces = ["outside", "inside"].map(|name| InterfacePlan::new(name, Layer::Ip)).to_vec();
        for (address, length, interface) in [
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0, OUTSIDE),
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0, OUTSIDE),
            (IpAddr::V4(Ipv4Addr::new(192, 168, 100, 0)), 24, INSIDE),
            (IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0)), 112, INSIDE),
        ] {
            let destination = Prefix { address, length };
            plan.routes.push(RoutePlan { destination, gateway: None, interface });
        }
        let server = |dest: &Dest| ServerPlan {
            flows_upper: dest.upper,
            flows_lower: dest.lower,
            ..ServerPlan::new(&dest.number.to_string(), self.address(dest.number), self.port(), dest.weight)
        };
        let bind = Binding::of(self.vip(), self.port(), self.protocol);
        plan.directors.push(DirectorPlan {
            mode: Mode::Gateway,
            scheduler: SchedulerPlan::Tuned(self.tuned),
            is_one_packet: self.is_one_packet,
            persistence: self.persistence,
            ..DirectorPlan::new("service", bind, self.tuned.kind, self.dests.iter().map(server).collect())
        });
        plan
    }
}

/// A service at work.
#[derive(Debug)]
pub(super) struct Service {
    setup: Setup,
    bench: Bench,
    now: Instant,
}

impl Service {
    /// # Errors
    /// When the engine refuses it.
    pub(super) fn new(setup: Setup) -> Result<Self, PlanError> {
        let bench = Bench::new(setup.plan())?;
        Ok(Self { setup, bench, now: Instant::ZERO })
    }

    /// Changes the service.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub(super) fn take(&mut self, change: &Change) -> Result<(), PlanError> {
        let dests = &mut self.setup.dests;
        match change {
            Change::Remove(number) => dests.retain(|dest| dest.number != *number),
            Change::Add(dest) => {
                dests.retain(|known| known.number != dest.number);
                dests.push(dest.clone());
            }
            Change::Weight(number, weight) => {
                let its = dests.iter_mut().filter(|dest| dest.number == *number);
                its.for_each(|dest| dest.weight = *weight);
            }
        }
        self.bench.apply(self.setup.plan())
    }

    /// Lets time pass.
    pub(super) fn wait(&mut self, time: Duration) {
        self.now = self.now.after(time);
        self.bench.pass_time(self.now);
    }

    /// A packet of this client: who is asked to answer it, by number. What leaves no flow behind is known by what
    /// has been counted.
    pub(super) fn call(&mut self, client: (IpAddr, u16)) -> Option<u32> {
        let before = self.packets();
        self.wait(GAP);
        let packet = packet(client, (self.setup.vip(), self.setup.port()), self.setup.protocol);
        self.bench.feed(OUTSIDE, &packet, self.now);
        if !self.setup.is_one_packet {
            return self.server_of(client);
        }
        let grown = before.iter().zip(self.packets()).find(|((_, before), (_, after))| before < after);
        grown.and_then(|((name, _), _)| name.parse().ok())
    }

    /// The real server in the flow table, whether the plan still has it or not.
    fn server_of(&self, client: (IpAddr, u16)) -> Option<u32> {
        let mut flows = self.bench.engine().flows();
        let flow =
            flows.find(|flow| IpAddr::from(flow.client) == client.0 && flow.client_port == client.1)?;
        let server = IpAddr::from(flow.server);
        (1..=u32::from(u8::MAX)).find(|number| self.setup.address(*number) == server)
    }

    fn packets(&self) -> Vec<(String, u64)> {
        let directors = self.bench.engine().directors();
        let servers = directors.into_iter().flat_map(|director| director.servers);
        servers.map(|server| (server.name, server.packets_to)).collect()
    }

    /// Of each real server: its number, flows that it ever got, packets and bytes to it.
    pub(super) fn counts(&self) -> Vec<(u32, [u64; 3])> {
        let directors = self.bench.engine().directors();
        let servers = directors.into_iter().flat_map(|director| director.servers);
        let counts = servers.filter_map(|server| {
            Some((server.name.parse().ok()?, [server.flows, server.packets_to, server.bytes_to]))
        });
        counts.collect()
    }
}

/// The first packet of a client: a datagram of one byte, or a SYN.
fn packet(client: (IpAddr, u16), service: (IpAddr, u16), protocol: Protocol) -> Vec<u8> {
    let ports = [client.1.to_be_bytes(), service.1.to_be_bytes()].concat();
    let (mut payload, checksum_at) = if protocol == Protocol::UDP {
        ([&ports[..], &[0, 9, 0, 0, b'x']].concat(), 6)
    } else {
        ([&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat(), 16)
    };
    let length = u16::try_from(payload.len()).unwrap_or(0);
    let (mut header, sum) = match (client.0, service.0) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let total = (length + 20).to_be_bytes();
            let fixed = [0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, protocol.0, 0, 0];
            let header = [&fixed[..], &source.octets(), &destination.octets()].concat();
            let sum = checksum::pseudo_header_v4(source.octets(), destination.octets(), protocol.0, length);
            (header, sum)
        }
        (source, destination) => {
            let [source, destination] = [source, destination].map(octets_v6);
            let length_bytes = length.to_be_bytes();
            let fixed = [0x60, 0, 0, 0, length_bytes[0], length_bytes[1], protocol.0, 64];
            let header = [&fixed[..], &source, &destination].concat();
            let sum = checksum::pseudo_header_v6(source, destination, protocol.0, u32::from(length));
            (header, sum)
        }
    };
    if header.first() == Some(&0x45) {
        let sum = checksum::checksum(0, &header);
        put(&mut header, 10, sum);
    }
    let sum = checksum::checksum(sum, &payload);
    put(&mut payload, checksum_at, if sum == 0 { 0xffff } else { sum });
    [header, payload].concat()
}

const fn octets_v6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
