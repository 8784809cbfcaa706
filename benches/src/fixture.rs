//! An engine with many established flows, and a device that offers their packets again and again.

use std::net::IpAddr;
use std::ops::Range;

use evenkeel_engine::device::{BATCH_MAX, HEADROOM_BYTES, Offload, PacketBuffer};
use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Limits, Plan, Prefix, RoutePlan, ServerPlan,
};
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::wire::{HashKey, Protocol, checksum};
use evenkeel_engine::{Device, Engine, Guests, Instant, InterfaceId, PlanError, step};

/// Bytes of a packet in the device: the smallest frame's worth, and the headroom in front.
const PACKET_BYTES: usize = 64;
const VIP: [u8; 4] = [10, 0, 0, 3];
/// Bytes of a link header, and of an ARP message behind it.
const LINK_BYTES: usize = 14;
const ARP_BYTES: usize = 28;
/// The forwarder's station, and the first five bytes of all others'.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OTHERS: [u8; 5] = [2, 0, 0, 0, 1];
/// The link header of frames that come in.
const FRONT: [u8; LINK_BYTES] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 99, 0x08, 0x00];

/// A plan with one TUN and one UDP director with `servers` real servers.
#[must_use]
pub fn plan(flows_max: u32, servers: u8, scheduler: Builtin) -> Plan {
    let any = Prefix { address: IpAddr::from([0, 0, 0, 0]), length: 0 };
    let server = |last: u8| ServerPlan::new(&format!("s{last}"), IpAddr::from([10, 0, 3, last]), 8080, 1);
    let bind = Binding::of(VIP.into(), 53, Protocol::UDP);
    Plan {
        hash_key: HashKey([1, 2]),
        interfaces: vec![InterfacePlan::new("tun0", Layer::Ip)],
        routes: vec![RoutePlan { destination: any, gateway: None, interface: InterfaceId(0) }],
        directors: vec![DirectorPlan::new("dns", bind, scheduler, (1..=servers).map(server).collect())],
        limits: Limits { flows_max, ..Limits::default() },
        ..Plan::empty()
    }
}

/// The same plan with an Ethernet port in the place of the TUN: real servers are on its link, and there are 64 routes by
/// gateways of which no packet takes one.
#[must_use]
pub fn ethernet_plan(flows_max: u32, servers: u8, scheduler: Builtin) -> Plan {
    let address = Prefix { address: IpAddr::from([10, 0, 3, 254]), length: 24 };
    let port = InterfacePlan {
        addresses: vec![address],
        ..InterfacePlan::new("lan0", Layer::Ethernet(MacAddress(OWN)))
    };
    let route = |number: u8| RoutePlan {
        destination: Prefix { address: IpAddr::from([200, 0, number, 0]), length: 24 },
        gateway: Some(IpAddr::from([10, 0, 3, 100 + number])),
        interface: InterfaceId(0),
    };
    Plan {
        interfaces: vec![port],
        routes: (0..64).map(route).collect(),
        ..plan(flows_max, servers, scheduler)
    }
}

/// A UDP packet of 64 bytes from client number `client` to the VIP, all checksums right.
#[must_use]
pub fn packet(client: u32) -> [u8; PACKET_BYTES] {
    let [_, a, b, c] = client.to_be_bytes();
    let mut bytes = [0; PACKET_BYTES];
    let head = [
        [0x45, 0, 0, 64],
        [0, 0, 0x40, 0],
        [64, 17, 0, 0],
        [100, a, b, c],
        VIP,
        [0x9c, 0x40, 0, 53],
        [0, 44, 0, 0],
    ];
    for (place, byte) in bytes.iter_mut().zip(head.as_flattened()) {
        *place = *byte;
    }
    let sum = bytes.first_chunk::<20>().map_or(0, |header| checksum::checksum(0, header));
    put(&mut bytes, 10, sum);
    let pseudo = checksum::pseudo_header_v4([100, a, b, c], VIP, 17, 44);
    let sum = bytes.last_chunk::<44>().map_or(0, |datagram| checksum::checksum(pseudo, datagram));
    put(&mut bytes, 26, sum);
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn mend(bytes: &mut [u8], at: usize, change: checksum::Delta) {
    if let Some([high, low]) = bytes.get_mut(at..at + 2).and_then(|bytes| bytes.first_chunk_mut()) {
        [*high, *low] = change.apply(u16::from_be_bytes([*high, *low])).to_be_bytes();
    }
}

/// A device that offers packets from clients chosen by a walk that a cache cannot foresee. It makes each packet from
/// one template by a change of the source address, so that offering costs a few nanoseconds and no memory.
#[derive(Debug)]
pub struct Loop {
    template: [u8; PACKET_BYTES],
    clients: u32,
    next: u32,
    stride: u32,
    batch: usize,
    filled: usize,
    buffers: Vec<[u8; HEADROOM_BYTES + PACKET_BYTES]>,
    /// Packets that left.
    pub sent: u64,
}

impl Loop {
    /// Offers the packets of clients 0 to `clients` (at least 1), `batch` at a time (1 to 64), far from each other.
    #[must_use]
    pub fn new(clients: u32, batch: usize) -> Self {
        // An odd step near the golden section visits all of a power of two.
        Self { stride: (clients / 1000 * 618) | 1, ..Self::in_order(clients, batch) }
    }

    /// Offers the packets of clients 0 to `clients` in order.
    #[must_use]
    pub fn in_order(clients: u32, batch: usize) -> Self {
        Self {
            template: packet(0),
            clients: clients.max(1),
            next: 0,
            stride: 1,
            batch: batch.clamp(1, BATCH_MAX),
            filled: 0,
            buffers: vec![[0; HEADROOM_BYTES + PACKET_BYTES]; BATCH_MAX],
            sent: 0,
        }
    }
}

impl Device for Loop {
    fn receive(&mut self) -> usize {
        self.filled = self.batch;
        for buffer in self.buffers.iter_mut().take(self.batch) {
            let [_, a, b, c] = self.next.to_be_bytes();
            let change = checksum::Delta::of_bytes([100, 0, 0, 0], [100, a, b, c]);
            if let Some(place) = buffer.last_chunk_mut::<PACKET_BYTES>() {
                *place = self.template;
                if let Some(source) = place.get_mut(13..16) {
                    source.copy_from_slice(&[a, b, c]);
                }
                mend(place, 10, change);
                mend(place, 26, change);
            }
            self.next += self.stride;
            if self.next >= self.clients {
                self.next -= self.clients;
            }
        }
        self.filled
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let buffer: &mut [u8] = self.buffers.get_mut(slot).map_or(&mut [], |buffer| buffer);
        let range = HEADROOM_BYTES..buffer.len();
        PacketBuffer { interface: InterfaceId(0), buffer, range, offload: Offload::default() }
    }

    fn forward(&mut self, _slot: usize, _interface: InterfaceId, _range: Range<usize>) -> bool {
        self.sent += 1;
        true
    }

    fn send(&mut self, _interface: InterfaceId, _bytes: &[u8]) -> bool {
        true
    }

    fn flush(&mut self) {
        self.filled = 0;
    }
}

/// A device that offers the same packets in frames, and answers questions for neighbours before everything else.
#[derive(Debug)]
pub struct Frames {
    inside: Loop,
    answers: Vec<[u8; LINK_BYTES + ARP_BYTES]>,
}

impl Frames {
    /// The packets of `inside` in frames for the forwarder's station.
    #[must_use]
    pub const fn new(inside: Loop) -> Self {
        Self { inside, answers: Vec::new() }
    }

    /// Packets that left.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        self.inside.sent
    }

    /// Writes a frame, or its beginning, into the buffer of a slot.
    fn put<const N: usize>(&mut self, slot: usize, bytes: [u8; N]) {
        let buffer = self.inside.buffers.get_mut(slot);
        let place = buffer.and_then(|buffer| buffer.get_mut(HEADROOM_BYTES - LINK_BYTES..));
        if let Some(place) = place.and_then(|place| place.first_chunk_mut()) {
            *place = bytes;
        }
    }
}

impl Device for Frames {
    fn receive(&mut self) -> usize {
        if let Some(answer) = self.answers.pop() {
            self.put(0, answer);
            self.inside.filled = 1;
            return 1;
        }
        let received = self.inside.receive();
        // Whoever had the frame before has left its own header there.
        (0..received).for_each(|slot| self.put(slot, FRONT));
        received
    }

    fn packet(&mut self, slot: usize) -> PacketBuffer<'_> {
        let mut packet = self.inside.packet(slot);
        packet.range.start -= LINK_BYTES;
        packet
    }

    fn forward(&mut self, slot: usize, interface: InterfaceId, range: Range<usize>) -> bool {
        self.inside.forward(slot, interface, range)
    }

    fn send(&mut self, _interface: InterfaceId, bytes: &[u8]) -> bool {
        self.answers.extend(answer(bytes));
        true
    }

    fn flush(&mut self) {
        self.inside.flush();
    }
}

/// What the station with the address that a frame asks for answers; nothing where it is no question for a neighbour.
fn answer(frame: &[u8]) -> Option<[u8; LINK_BYTES + ARP_BYTES]> {
    let asked = frame.first_chunk::<{ LINK_BYTES + ARP_BYTES }>()?;
    let [.., 0, 1, _, _, _, _, _, _, f0, f1, f2, f3, _, _, _, _, _, _, t0, t1, t2, t3] = *asked else {
        return None;
    };
    if asked.get(12..14) != Some(&[0x08, 0x06]) {
        return None;
    }
    let [s0, s1, s2, s3, s4] = OTHERS;
    let station = [s0, s1, s2, s3, s4, t3];
    let kinds = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 2];
    let parts: [&[u8]; 7] = [&OWN, &station, &kinds, &station, &[t0, t1, t2, t3], &OWN, &[f0, f1, f2, f3]];
    let mut bytes = [0; LINK_BYTES + ARP_BYTES];
    for (place, byte) in bytes.iter_mut().zip(parts.into_iter().flatten()) {
        *place = *byte;
    }
    Some(bytes)
}

/// An engine in whose flow table `clients` flows are established, and the device that offers their packets. Each flow has
/// had two packets: the first opens it, the second shows that its client goes on.
///
/// # Errors
/// When the plan is refused, which would be a bug of the fixture.
pub fn established(clients: u32, batch: usize) -> Result<(Engine, Loop), PlanError> {
    let mut engine =
        Engine::new(plan(clients.max(1), 16, Builtin::RoundRobin), Guests::default(), Instant::ZERO)?;
    let mut device = Loop::in_order(clients, BATCH_MAX);
    // Batch by batch, since there is less room for half-open flows than for others.
    for _ in 0..clients.div_ceil(64) {
        let first = device.next;
        step(&mut engine, &mut device, Instant::ZERO);
        device.next = first;
        step(&mut engine, &mut device, Instant::ZERO);
    }
    debug_assert_eq!(engine.half_open_count(), 0, "every flow is established");
    Ok((engine, Loop::new(clients, batch)))
}

/// The same on an Ethernet port whose neighbours are all known.
///
/// # Errors
/// As [`established`].
pub fn established_on_ethernet(clients: u32, batch: usize) -> Result<(Engine, Frames), PlanError> {
    let plan = ethernet_plan(clients.max(1), 16, Builtin::RoundRobin);
    let mut engine = Engine::new(plan, Guests::default(), Instant::ZERO)?;
    let mut device = Frames::new(Loop::in_order(clients, BATCH_MAX));
    // The first packets ask for neighbours, and some of them wait in vain.
    step(&mut engine, &mut device, Instant::ZERO);
    while !device.answers.is_empty() {
        step(&mut engine, &mut device, Instant::ZERO);
    }
    device.inside.next = 0;
    for _ in 0..clients.div_ceil(64) {
        let first = device.inside.next;
        step(&mut engine, &mut device, Instant::ZERO);
        device.inside.next = first;
        step(&mut engine, &mut device, Instant::ZERO);
    }
    debug_assert_eq!(engine.half_open_count(), 0, "every flow is established");
    Ok((engine, Frames::new(Loop::new(clients, batch))))
}
