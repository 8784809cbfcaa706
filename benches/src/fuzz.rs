//! The whole engine under a stream of hostile input: state is kept across packets, time passes, plans change.
//!
//! The input is a program. Each step takes bytes off its front: a packet as it is, a well-formed packet of few
//! hosts and ports with some bytes changed, time, a changed weight, another plan. After each step everything that
//! came in must have ended once, and everything that left must be a packet with right lengths and checksums.

use std::net::IpAddr;
use std::ops::Range;

use evenkeel_engine::device::{HEADROOM_BYTES, Offload, PacketBuffer};
use evenkeel_engine::plan::{
    Builtin, DirectorPlan, InterfacePlan, Layer, Limits, Mode, Plan, Prefix, RoutePlan, SchedulerPlan,
    ServerPlan, SourceNat,
};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::wire::{HashKey, Protocol, checksum};
use evenkeel_engine::{Device, Duration, Engine, Guests, Instant, InterfaceId, step};

/// Steps of one input: enough to fill and drain the small tables below many times.
const STEPS_MAX: usize = 512;

/// Runs the program in `data`. Panics when the engine breaks a promise.
///
/// # Panics
/// When a packet is not accounted for, or one that leaves is malformed.
pub fn run(data: &[u8]) {
    let mut input = Input { data };
    let Ok(mut engine) = Engine::new(plan(input.byte()), Guests::default(), Instant::ZERO) else { return };
    let mut now = Instant::ZERO;
    for _ in 0..STEPS_MAX {
        if input.data.is_empty() {
            break;
        }
        match input.byte() % 16 {
            0 => now = now.after(Duration::from_millis(u64::from(input.word()) * 20)),
            1 => {
                let (director, server) = (["web", "dns"], ["s1", "s2"]);
                let pick =
                    |names: [&'static str; 2], n: u8| if n.is_multiple_of(2) { names[0] } else { names[1] };
                let (director, server) = (pick(director, input.byte()), pick(server, input.byte()));
                let changed = engine.set_weight(director, server, u32::from(input.byte()), now);
                assert!(changed.is_ok(), "both directors have both servers");
            }
            2 => {
                let changed = engine.apply(plan(input.byte()), Guests::default(), now);
                assert!(changed.is_ok(), "{changed:?}");
            }
            count => {
                let mut device = Once::default();
                for _ in 0..count - 2 {
                    device.push(&mut input);
                }
                step(&mut engine, &mut device, now);
                device.outbox.iter().for_each(|(interface, packet)| audit(*interface, packet));
            }
        }
        assert!(engine.counters().is_conserved(), "{:?}", engine.counters());
        let open = engine.counters().flows_opened - engine.counters().flows_closed;
        assert_eq!(open, engine.flow_count() as u64, "flows are counted as they come and go");
        while engine.poll_event().is_some() {}
    }
    drain(&mut engine, now);
}

/// Lets all flows end and checks that nothing of them is left.
fn drain(engine: &mut Engine, now: Instant) {
    let end = now.after(Duration::from_secs(10_000));
    for _ in 0..64 {
        engine.handle_timeout(end);
    }
    assert_eq!((engine.flow_count(), engine.ports_held()), (0, 0), "everything ends");
    for director in engine.directors() {
        assert!(
            director.servers.iter().all(|server| (server.active, server.inactive) == (0, 0)),
            "{director:?}"
        );
    }
}

/// A small plan; the bits of `kind` choose its features.
fn plan(kind: u8) -> Plan {
    let bit = |n: u8| kind >> n & 1 == 1;
    let any = Prefix { address: IpAddr::from([0, 0, 0, 0]), length: 0 };
    let own = Prefix { address: IpAddr::from([10, 0, 3, 1]), length: 24 };
    let server = |n: u8| ServerPlan {
        name: format!("s{n}"),
        address: IpAddr::from([10, 0, 3, n]),
        port: 80,
        weight: u32::from(n),
    };
    let source = SourceNat { address: IpAddr::from([10, 0, 3, 1]), ports: 1000..=1007 };
    let mode = || Mode::Nat { source: bit(0).then(|| source.clone()) };
    // Maglev's table takes a millisecond to build, so that it is one plan of 128.
    let quick = Builtin::ALL.iter().filter(|builtin| **builtin != Builtin::Maglev || kind >= 254);
    let quick: Vec<Builtin> = quick.copied().collect();
    let scheduler = quick.get(usize::from(kind >> 1) % quick.len()).copied();
    let director = |name: &str, protocol| DirectorPlan {
        name: name.to_owned(),
        address: IpAddr::from([10, 0, 0, 3]),
        port: 80,
        protocol,
        mode: mode(),
        scheduler: SchedulerPlan::Builtin(scheduler.unwrap_or(Builtin::RoundRobin)),
        servers: vec![server(1 + u8::from(bit(4))), server(2 + u8::from(bit(4)))]
            .into_iter()
            .zip(["s1", "s2"])
            .map(|(server, name)| ServerPlan { name: name.to_owned(), ..server })
            .collect(),
    };
    let interface = |name: &str, layer| InterfacePlan {
        name: name.to_owned(),
        layer,
        addresses: vec![own],
        mtu_bytes: if bit(5) { 600 } else { 1500 },
    };
    Plan {
        hash_key: HashKey([u64::from(bit(6)), 2]),
        interfaces: vec![
            interface("tun0", Layer::Ip),
            interface("eth0", Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1]))),
        ],
        routes: vec![RoutePlan {
            destination: any,
            gateway: None,
            interface: InterfaceId(u16::from(bit(7))),
        }],
        directors: vec![director("web", Protocol::TCP), director("dns", Protocol::UDP)],
        limits: Limits { flows_max: 24 + u32::from(kind % 3), answers_per_second: 50 },
        ..Plan::empty()
    }
}

/// A program that is eaten from its front; zeros follow its end.
struct Input<'a> {
    data: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.data.split_first() else { return 0 };
        self.data = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (head, tail) = self.data.split_at(count.min(self.data.len()));
        self.data = tail;
        head.to_vec()
    }

    /// A packet: raw bytes, or a well-formed one with up to three bytes changed.
    fn packet(&mut self) -> Vec<u8> {
        let kind = self.byte();
        if kind.is_multiple_of(8) {
            let length = usize::from(self.byte());
            return self.take(length);
        }
        let mut packet = well_formed(kind, self);
        for _ in 0..kind >> 6 {
            let at = usize::from(self.byte()) % packet.len();
            let change = self.byte();
            if let Some(byte) = packet.get_mut(at) {
                *byte ^= change;
            }
        }
        if kind & 0x20 != 0 {
            mend_header(&mut packet);
        }
        packet
    }
}

/// TCP, UDP or ICMP between a handful of hosts and ports, in either direction.
fn well_formed(kind: u8, input: &mut Input<'_>) -> Vec<u8> {
    let (host, port) = (input.byte() % 4, input.byte() % 16);
    let client = [192, 0, 2, host];
    let vip = [10, 0, 0, 3];
    let server = [10, 0, 3, 1 + host % 3];
    let port = 1000 + u16::from(port);
    let is_reply = kind & 1 == 1;
    let mapped = if input.byte().is_multiple_of(2) { client } else { [10, 0, 3, 1] };
    let (source, destination) = if is_reply { (server, mapped) } else { (client, vip) };
    let (from, to) = if is_reply { (80, port) } else { (port, 80) };
    let size = usize::from(input.byte()) * (1 + usize::from(kind & 0x10 != 0) * 5);
    let ports: [[u8; 2]; 2] = [from.to_be_bytes(), to.to_be_bytes()];
    let (protocol, mut body) = match kind >> 1 & 3 {
        0 | 1 => {
            let flags = input.byte() & 0x17;
            let tail = [0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 1, 0, 0, 0, 0, 0];
            (6_u8, [ports.as_flattened(), &tail].concat())
        }
        2 => {
            let length = u16::try_from(8 + size).unwrap_or(8).to_be_bytes();
            (17, [ports.as_flattened(), &length, &[0, 0]].concat())
        }
        _ => (1, vec![input.byte() % 16, 0, 0, 0, 0, 1, 0, 2]),
    };
    body.resize(body.len() + size, kind);
    let total = u16::try_from(20 + body.len()).unwrap_or(20).to_be_bytes();
    let ttl = input.byte();
    let head = [[0x45, 0, total[0], total[1]], [0, 7, 0x40, 0], [ttl, protocol, 0, 0], source, destination];
    let mut packet = [head.as_flattened(), &body].concat();
    fill_checksum(&mut packet, protocol);
    mend_header(&mut packet);
    packet
}

fn fill_checksum(packet: &mut [u8], protocol: u8) {
    let at = match protocol {
        6 => 36,
        17 => 26,
        _ => 22,
    };
    let sum = layer_4_sum(packet, protocol);
    put(packet, at, if protocol == 17 && sum == 0 { 0xffff } else { sum });
}

/// The checksum over the payload of `packet` as it stands, pseudo header included where there is one.
fn layer_4_sum(packet: &[u8], protocol: u8) -> u16 {
    let Some((head, body)) = packet.split_at_checked(20) else { return 0 };
    let address =
        |at: usize| head.get(at..at + 4).and_then(|bytes| bytes.first_chunk()).copied().unwrap_or_default();
    let length = u16::try_from(body.len()).unwrap_or(0);
    let pseudo = checksum::pseudo_header_v4(address(12), address(16), protocol, length);
    checksum::checksum(if protocol == 1 { 0 } else { pseudo }, body)
}

fn mend_header(packet: &mut [u8]) {
    put(packet, 10, 0);
    let length = usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 4;
    let sum = packet.get(..length).map_or(0, |header| checksum::checksum(0, header));
    put(packet, 10, sum);
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

/// Checks a packet that left: lengths and the header checksum always; what was born here altogether.
fn audit(interface: InterfaceId, packet: &[u8]) {
    let packet = match interface {
        InterfaceId(0) => packet,
        _ => {
            let kind = packet.get(12..14);
            assert!(packet.len() >= 14 && kind.is_some(), "a frame has a header");
            if kind == Some(&[8, 6]) {
                assert!(packet.len() >= 42, "an ARP message is whole");
                return;
            }
            packet.get(14..).unwrap_or_default()
        }
    };
    assert!(packet.len() >= 20, "a packet has a header");
    let header = packet.get(..usize::from(packet.first().copied().unwrap_or(0) & 0xf) * 4);
    assert!(header.is_some_and(|header| checksum::is_valid(0, header)), "the header adds up");
    let total = packet.get(2..4).and_then(|bytes| bytes.first_chunk()).copied().map(u16::from_be_bytes);
    assert_eq!(total.map(usize::from), Some(packet.len()), "the length is right");
    assert!(packet.get(8).is_some_and(|ttl| *ttl > 0), "no packet leaves without time to live");
    let is_icmp = packet.get(9) == Some(&1);
    if is_icmp {
        assert!(checksum::is_valid(0, packet.get(20..).unwrap_or_default()), "our ICMP adds up");
    }
}

/// A device for one batch.
#[derive(Default)]
struct Once {
    slots: Vec<(InterfaceId, Vec<u8>, Range<usize>, Offload)>,
    outbox: Vec<(InterfaceId, Vec<u8>)>,
}

impl Once {
    fn push(&mut self, input: &mut Input<'_>) {
        let interface = InterfaceId(u16::from(input.byte().is_multiple_of(5)));
        let packet = input.packet();
        let frame = match interface {
            InterfaceId(0) => packet,
            _ => [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, input.byte() % 2 * 6][..], &packet].concat(),
        };
        let buffer = [&[0; HEADROOM_BYTES][..], &frame].concat();
        let range = HEADROOM_BYTES..buffer.len();
        self.slots.push((interface, buffer, range, Offload::default()));
    }
}

impl Device for Once {
    fn receive(&mut self) -> usize {
        self.slots.len()
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        match self.slots.get_mut(slot) {
            Some((interface, buffer, range, offload)) => {
                PacketBuffer { interface: *interface, buffer, range: range.clone(), offload: *offload }
            }
            None => PacketBuffer {
                interface: InterfaceId(0),
                buffer: &mut [],
                range: 0..0,
                offload: Offload::default(),
            },
        }
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        let bytes = self.slots.get(slot).and_then(|(_, buffer, _, _)| buffer.get(range));
        self.outbox.extend(bytes.map(|bytes| (interface, bytes.to_vec())));
        true
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        self.outbox.push((interface, bytes.to_vec()));
        true
    }

    fn flush(&mut self) {}
}
