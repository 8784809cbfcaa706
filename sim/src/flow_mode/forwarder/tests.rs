//! Held against the engine: the same clients, one time as packets through an [`Engine`], one time as requests here.
//! After each step both know the same flows, have given the same servers, and count the same loads.

use std::net::Ipv4Addr;

use evenkeel_engine::device::{HEADROOM_BYTES, Offload, PacketBuffer};
use evenkeel_engine::director::ServerLoad;
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, Handling, InterfacePlan, Layer, Limits, MidStream, Persistence, Prefix,
    RoutePlan, ServerPlan, SourceNat, Timeouts,
};
use evenkeel_engine::wire::Address;
use evenkeel_engine::{Device, Duration, Engine, InterfaceId, step};

use super::*;
use crate::random::Stream;

const VIP: [u8; 4] = [10, 0, 0, 1];
const OWN: [u8; 4] = [10, 9, 0, 1];
const SERVERS: u8 = 4;
const CLIENTS: usize = 24;
const SECOND: u64 = 1_000_000_000;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

fn rip(number: u8) -> [u8; 4] {
    [10, 1, 0, 1 + number]
}

/// One packet in, what comes out.
#[derive(Debug, Default)]
struct Wire {
    buffer: Vec<u8>,
    has_packet: bool,
    out: Vec<Vec<u8>>,
}

impl Device for Wire {
    fn receive(&mut self) -> usize {
        usize::from(self.has_packet)
    }

    fn packet(&mut self, _slot: usize) -> PacketBuffer<'_> {
        let range = HEADROOM_BYTES..self.buffer.len();
        let interface = InterfaceId(0);
        PacketBuffer { interface, buffer: &mut self.buffer, range, offload: Offload::default() }
    }

    fn forward(&mut self, _slot: usize, _interface: InterfaceId, range: std::ops::Range<usize>) -> bool {
        self.out.push(self.buffer[range].to_vec());
        true
    }

    fn send(&mut self, _interface: InterfaceId, bytes: &[u8]) -> bool {
        self.out.push(bytes.to_vec());
        true
    }

    fn flush(&mut self) {
        self.has_packet = false;
    }
}

fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: Protocol, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let mut header = vec![0x45, 0, length[0], length[1], 0, 0, 0, 0, 64, protocol.0, 0, 0];
    header.extend_from_slice(&source);
    header.extend_from_slice(&destination);
    let words = header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let check = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
    header[10..12].copy_from_slice(&check.to_be_bytes());
    header.extend_from_slice(payload);
    header
}

/// A segment whose numbers fit wherever it stands in its connection; its checksum is left to nobody's care.
fn tcp(source_port: u16, destination_port: u16, flags: u8, is_server: bool, payload: &[u8]) -> Vec<u8> {
    let (own, other) = if is_server { (2_000_u32, 1_001_u32) } else { (1_001, 2_000) };
    let sequence = own - u32::from(flags & SYN != 0);
    let acknowledgement = if flags & ACK != 0 { other } else { 0 };
    let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&acknowledgement.to_be_bytes());
    bytes.extend_from_slice(&[0x50, flags, 0xff, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(payload);
    bytes
}

fn udp(source_port: u16, destination_port: u16) -> Vec<u8> {
    let mut bytes = [source_port.to_be_bytes(), destination_port.to_be_bytes()].concat();
    bytes.extend_from_slice(&[0, 9, 0, 0, 7]);
    bytes
}

/// Who a packet is from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ends {
    source: ([u8; 4], u16),
    destination: ([u8; 4], u16),
    flags: u8,
}

fn ends(packet: &[u8]) -> Ends {
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let address = |at: usize| [packet[at], packet[at + 1], packet[at + 2], packet[at + 3]];
    let flags = if packet[9] == Protocol::TCP.0 { packet[33] } else { 0 };
    Ends { source: (address(12), port(20)), destination: (address(16), port(22)), flags }
}

/// What a case is about.
struct Case {
    scheduler: Builtin,
    mode: Mode,
    protocol: Protocol,
    persistence: bool,
    mid_stream: MidStream,
    expires_nodest: bool,
    limits: Limits,
    seed: u64,
}

fn plan(case: &Case) -> Plan {
    let server = |number| {
        let weight = 1 + u32::from(number % 3);
        ServerPlan::new(&format!("s{number}"), Ipv4Addr::from(rip(number)).into(), 80, weight)
    };
    let bind = Binding::of(Ipv4Addr::from(VIP).into(), 80, case.protocol);
    let mut director =
        DirectorPlan::new("web", bind, case.scheduler, (0..SERVERS).map(server).collect::<Vec<_>>());
    director.mode = case.mode.clone();
    director.mid_stream = case.mid_stream;
    if case.persistence {
        director.persistence =
            Some(Persistence { timeout: Duration::from_secs(40), length_v4: 32, length_v6: 128 });
    }
    let own = Prefix { address: Ipv4Addr::from(OWN).into(), length: 24 };
    let everywhere = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
    let seconds = Duration::from_secs;
    Plan {
        hash_key: HashKey([11, 13]),
        interfaces: vec![InterfacePlan { addresses: vec![own], ..InterfacePlan::new("tun0", Layer::Ip) }],
        routes: vec![RoutePlan { destination: everywhere, gateway: None, interface: InterfaceId(0) }],
        directors: vec![director],
        limits: case.limits,
        timeouts: Timeouts {
            tcp_established: seconds(30),
            tcp_syn_sent: seconds(12),
            tcp_syn_received: seconds(12),
            tcp_close_wait: seconds(7),
            tcp_fin_wait: seconds(9),
            tcp_time_wait: seconds(5),
            tcp_close: seconds(3),
            udp: seconds(14),
            ..Timeouts::default()
        },
        handling: Handling { expires_nodest: case.expires_nodest, ..Handling::default() },
        ..Plan::empty()
    }
}

/// A client as itself sees it.
#[derive(Clone, Copy, Debug, Default)]
struct Client {
    is_open: bool,
    /// Whom its last request reached, and as whom the server saw it.
    server: Option<u8>,
    seen_as: ([u8; 4], u16),
}

/// Both of them, and the clients.
struct Pair {
    engine: Engine,
    forwarder: Forwarder,
    protocol: Protocol,
    is_one_sided: bool,
    clients: Vec<Client>,
    now: u64,
}

impl Pair {
    fn new(case: &Case) -> Self {
        let plan = plan(case);
        let machine_of = (0..SERVERS).map(|number| (Ipv4Addr::from(rip(number)).into(), number.into()));
        let setup = ForwarderSetup { name: "lb".into(), plan: plan.clone(), guests: Guests::default() };
        Self {
            engine: Engine::new(plan, Guests::default(), Instant::ZERO).unwrap(),
            forwarder: Forwarder::new(setup, Connections::Timed, &machine_of.collect(), 0).unwrap(),
            protocol: case.protocol,
            is_one_sided: case.mode.is_one_sided(),
            clients: vec![Client::default(); CLIENTS],
            now: 0,
        }
    }

    fn time(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    /// Lets time pass, with every timer at its time.
    fn pass(&mut self, nanoseconds: u64) {
        let until = self.now + nanoseconds;
        while let Some(due) = self.engine.poll_timeout().filter(|due| due.as_nanos() <= until) {
            self.engine.handle_timeout(due.max(self.time()));
            self.now = self.now.max(due.as_nanos());
        }
        while self.forwarder.next_timeout() <= until {
            let due = Instant::from_nanos(self.forwarder.next_timeout());
            self.forwarder.handle_timeout(due);
        }
        self.now = until;
    }

    fn tuple(&self, client: usize) -> FiveTuple {
        let source = address(client);
        FiveTuple {
            source: Address::v4(source),
            destination: Address::v4(VIP),
            source_port: port(client),
            destination_port: 80,
            protocol: self.protocol,
        }
    }

    /// A packet through the engine; what comes out.
    fn packet(&mut self, source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<Ends> {
        let bytes = ipv4(source, destination, self.protocol, payload);
        let mut wire = Wire { buffer: vec![0; HEADROOM_BYTES], has_packet: true, out: Vec::new() };
        wire.buffer.extend_from_slice(&bytes);
        let now = self.time();
        while step(&mut self.engine, &mut wire, now).received > 0 {}
        wire.out.iter().map(|packet| ends(packet)).collect()
    }

    /// A packet from a client: the server that it reaches, and as whom.
    fn ask(&mut self, client: usize, flags: u8) -> Option<(u8, ([u8; 4], u16))> {
        let payload = if self.protocol == Protocol::TCP {
            tcp(port(client), 80, flags, false, &[])
        } else {
            udp(port(client), 80)
        };
        let out = self.packet(address(client), VIP, &payload);
        if self.is_one_sided {
            // A gateway leaves the packet as it is: the flow says who got it.
            let tuple = self.tuple(client);
            let is_its = |entry: &&FlowEntry| entry.is_tuple(Direction::Original, &tuple);
            let forwarded = out.iter().any(|ends| ends.destination.0 == VIP);
            let entry = self.engine.flows().find(is_its).filter(|_| forwarded)?;
            return Some((entry.server.v4_bytes()[3] - 1, (address(client), port(client))));
        }
        let reached = out.iter().find(|ends| ends.destination.0[..3] == rip(0)[..3])?;
        Some((reached.destination.0[3] - 1, reached.source))
    }

    /// A packet from the server that a client has. Returns whether it got through.
    fn reply(&mut self, client: usize, flags: u8) -> bool {
        let Client { server: Some(server), seen_as: (seen, seen_port), .. } = self.clients[client] else {
            return false;
        };
        // Where another client has got its port since, the packet would be one of that client's flow.
        let mapping = FiveTuple {
            source: Address::v4(rip(server)),
            destination: Address::v4(seen),
            source_port: 80,
            destination_port: seen_port,
            protocol: self.protocol,
        };
        let owner = self.engine.flow(&mapping).map(|flow| (flow.entry.client, flow.entry.client_port));
        if owner.is_some_and(|owner| owner != (Address::v4(address(client)), port(client))) {
            return false;
        }
        let payload = if self.protocol == Protocol::TCP {
            tcp(80, seen_port, flags, true, &[])
        } else {
            udp(80, seen_port)
        };
        let out = self.packet(rip(server), seen, &payload);
        out.iter().any(|ends| ends.destination == (address(client), port(client)))
    }

    /// A client opens a flow, and its server takes it unless it `resets`; both sides agree on what comes of it.
    fn open(&mut self, client: usize, resets: bool) {
        let (now, tuple) = (self.time(), self.tuple(client));
        let hash = tuple.hash(self.forwarder.key());
        let reached = self.ask(client, SYN);
        let packet = Packet { flow: NewFlow { hash, tuple }, is_opening: true, is_private: false };
        let here = self.forwarder.deliver(&packet, now);
        assert_eq!(here.ok().map(|here| here.machine), reached.map(|(server, _)| server.into()), "{here:?}");
        let (Some((server, seen_as)), Ok(here)) = (reached, here) else { return };
        self.clients[client] = Client { is_open: !resets, server: Some(server), seen_as };
        if self.protocol != Protocol::TCP {
            return;
        }
        if resets {
            if !self.is_one_sided {
                self.reply(client, RST | ACK);
            }
            return self.forwarder.reset(&here, hash, now);
        }
        if !self.is_one_sided {
            assert!(self.reply(client, SYN | ACK));
        }
        self.ask(client, ACK);
        self.forwarder.accepted(&here, true, now);
    }

    /// A client sends a request by a flow that it believes to be open.
    fn request(&mut self, client: usize) {
        let (now, tuple) = (self.time(), self.tuple(client));
        let hash = tuple.hash(self.forwarder.key());
        let reached = self.ask(client, ACK);
        let is_opening = self.protocol != Protocol::TCP;
        let here = self
            .forwarder
            .deliver(&Packet { flow: NewFlow { hash, tuple }, is_opening, is_private: false }, now);
        assert_eq!(here.ok().map(|here| here.machine), reached.map(|(server, _)| server.into()), "{here:?}");
        let Ok(here) = here else {
            self.clients[client].is_open = false;
            return;
        };
        let is_moved = reached.map(|(server, _)| server) != self.clients[client].server;
        if let Some((server, seen_as)) = reached {
            self.clients[client] = Client { is_open: true, server: Some(server), seen_as };
        }
        if is_moved && self.protocol == Protocol::TCP {
            // The new server knows of no connection.
            if !self.is_one_sided {
                self.reply(client, RST | ACK);
            }
            self.forwarder.reset(&here, hash, now);
            self.clients[client].is_open = false;
        } else if here.is_new && self.protocol == Protocol::TCP {
            // The forwarder had forgotten the flow, the server has not.
            if !self.is_one_sided {
                assert!(self.reply(client, ACK));
            }
            self.forwarder.accepted(&here, false, now);
        }
    }

    /// The server answers, and closes with its client if it is the last answer.
    fn answer(&mut self, client: usize, is_last: bool) {
        let (now, tuple) = (self.time(), self.tuple(client));
        let hash = tuple.hash(self.forwarder.key());
        if self.is_one_sided {
            if is_last && self.protocol == Protocol::TCP {
                self.ask(client, FIN | ACK);
                self.forwarder.answer(&tuple, hash, 0, true, now);
            }
        } else {
            let got_through = self.reply(client, ACK);
            let is_last = is_last && self.protocol == Protocol::TCP;
            if got_through && is_last {
                self.ask(client, FIN | ACK);
                self.reply(client, FIN | ACK);
            }
            let here = self.forwarder.answer(&tuple, hash, 0, is_last, now);
            assert_eq!(here, got_through, "{:?}", self.clients[client]);
        }
        if is_last {
            self.clients[client].is_open = false;
        }
    }

    fn remove(&mut self, case: &Case, server: u8, is_removed: bool) {
        let now = self.time();
        self.forwarder.set_removed(server.into(), is_removed, now);
        let mut plan = plan(case);
        let removed = &self.forwarder.removed;
        let number = |name: &str| name[1..].parse::<u32>().unwrap();
        plan.directors[0].servers.retain(|server| !removed.contains(&number(&server.name)));
        // Weights are those of today.
        for server in &mut plan.directors[0].servers {
            let today = self.forwarder.plan.directors[0].servers.iter();
            server.weight = today.clone().find(|one| one.name == server.name).unwrap().weight;
        }
        self.engine.apply(plan, Guests::default(), now).unwrap();
    }

    fn weigh(&mut self, server: u8, weight: u32) {
        let now = self.time();
        // A server that is out has no weight to change there; it comes back with the new one.
        let _ = self.engine.set_weight("web", &format!("s{server}"), weight, now);
        self.forwarder.set_weight(server.into(), weight, now);
    }

    /// Both have the same flows, loads and ports.
    fn compare(&self, step: u32, client: usize, kind: u64) {
        let forwarder = &self.forwarder;
        let counters = self.engine.counters();
        let here = (
            (forwarder.table.len(), forwarder.table.half_open()),
            (forwarder.ports.held(), forwarder.sticky.len()),
            (forwarder.opened, forwarder.closed, forwarder.evicted, forwarder.scheduler_calls),
        );
        let there = (
            (self.engine.flow_count(), self.engine.half_open_count()),
            (self.engine.ports_held(), self.engine.sticky_count()),
            (
                counters.flows_opened,
                counters.flows_closed,
                counters.half_open_evicted,
                counters.scheduler_calls,
            ),
        );
        let dropped: Vec<_> = counters.drops().filter(|(_, count)| *count > 0).collect();
        let client = self.clients[client];
        assert_eq!(here, there, "step {step}, kind {kind}, {client:?}, {dropped:?}");
        let status = &self.engine.directors()[0];
        let here: Vec<_> = forwarder.directors.iter().next().unwrap().members().collect();
        assert_eq!(here.len(), status.servers.len());
        for (here, there) in here.iter().zip(&status.servers) {
            let load = ServerLoad { active: there.active, inactive: there.inactive };
            assert_eq!((here.load, here.flows), (load, there.flows), "step {step}: {}", here.name);
        }
    }
}

/// Four clients of one address each.
fn address(client: usize) -> [u8; 4] {
    [192, 0, 2, u8::try_from(client / 4).unwrap()]
}

fn port(client: usize) -> u16 {
    5_000 + u16::try_from(client).unwrap()
}

/// Random steps of one case.
fn play(case: &Case, steps: u32) {
    let mut pair = Pair::new(case);
    let mut draws = Stream::new(case.seed, "forwarder", "test");
    for step in 0..steps {
        let client = usize::try_from(draws.below(CLIENTS as u64)).unwrap();
        let server = u8::try_from(draws.below(SERVERS.into())).unwrap();
        let is_open = pair.clients[client].is_open;
        let kind = draws.below(40);
        match kind {
            0..10 if !is_open => pair.open(client, false),
            10 if !is_open => pair.open(client, true),
            // A flood: nobody answers.
            11 if !is_open && case.protocol == Protocol::TCP => {
                let tuple = pair.tuple(client);
                let hash = tuple.hash(pair.forwarder.key());
                pair.ask(client, SYN);
                let packet = Packet { flow: NewFlow { hash, tuple }, is_opening: true, is_private: false };
                let now = pair.time();
                let _ = pair.forwarder.deliver(&packet, now);
            }
            0..12 if is_open => pair.request(client),
            12..18 if is_open => pair.answer(client, false),
            18..24 if is_open => pair.answer(client, true),
            24 => pair.weigh(server, u32::try_from(draws.below(3)).unwrap()),
            25 => pair.remove(case, server, true),
            26..28 => {
                let back = pair.forwarder.removed.first().copied();
                if let Some(back) = back {
                    pair.remove(case, u8::try_from(back).unwrap(), false);
                }
            }
            28..32 => pair.pass(draws.below(6 * SECOND)),
            _ => pair.pass(draws.below(SECOND / 10)),
        }
        pair.compare(step, client, kind);
    }
}

fn case(scheduler: Builtin, protocol: Protocol, seed: u64) -> Case {
    Case {
        scheduler,
        mode: Mode::Nat { sources: Vec::new() },
        protocol,
        persistence: false,
        mid_stream: MidStream::Refuse,
        expires_nodest: false,
        limits: Limits::default(),
        seed,
    }
}

#[test]
fn schedulers_see_what_they_see_in_the_engine() {
    for (scheduler, seed) in Builtin::ALL.iter().zip(1..) {
        for protocol in [Protocol::TCP, Protocol::UDP] {
            play(&case(*scheduler, protocol, seed), 400);
        }
    }
}

#[test]
fn flows_live_and_end_as_in_the_engine() {
    for protocol in [Protocol::TCP, Protocol::UDP] {
        for (mid_stream, expires_nodest, seed) in
            [(MidStream::Refuse, true, 1), (MidStream::Pick, false, 2), (MidStream::Pick, true, 3)]
        {
            let plain = case(Builtin::WeightedLeastConnections, protocol, seed);
            play(&Case { mid_stream, expires_nodest, ..plain }, 1_500);
        }
        let gateway = Case { mode: Mode::Gateway, ..case(Builtin::Maglev, protocol, 4) };
        play(&gateway, 1_500);
        let sticky = Case { persistence: true, ..case(Builtin::RoundRobin, protocol, 5) };
        play(&sticky, 1_500);
    }
}

#[test]
fn bounds_hold_as_in_the_engine() {
    let limits = |flows_max, half_open_max, flows_per_client| Limits {
        flows_max,
        half_open_max,
        flows_per_client,
        persistent_max: 3,
        ..Limits::default()
    };
    for protocol in [Protocol::TCP, Protocol::UDP] {
        let plain = || case(Builtin::LeastConnections, protocol, 6);
        play(&Case { limits: limits(8, 3, 0), ..plain() }, 1_500);
        play(&Case { limits: limits(100, 100, 2), persistence: true, ..plain() }, 1_500);
        let sources = vec![SourceNat::to(Ipv4Addr::from(OWN).into(), 5_002..=5_006)];
        play(&Case { mode: Mode::Nat { sources }, ..plain() }, 1_500);
    }
}
