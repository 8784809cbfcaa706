//! What is joined and cut again is what was there before: the whole batch against a model of the kernel.

use std::collections::BTreeMap;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::BATCH_MAX;
use evenkeel_engine::wire::checksum;
use proptest::prelude::*;

use crate::buffers::{BUFFERS, Pool, READ_RANGE};
use crate::coalesce::{HEADERS_BYTES, SEGMENTS_MAX};
use crate::offload::{HEADER_BYTES, VirtioNetHeader};
use crate::slots::Slots;

/// How the sender has left the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sum {
    Right,
    Open,
    VouchedFor,
    Wrong,
    None,
}

/// A packet as it is sent.
#[derive(Clone, Debug)]
struct Sent {
    interface: u16,
    flow: u8,
    protocol: u8,
    payload: Vec<u8>,
    ttl: u8,
    has_dont_fragment: bool,
    is_fragment: bool,
    has_options: bool,
    identification: u16,
    sum: Sum,
}

/// A packet with the header in front of it.
type Packet = (u16, VirtioNetHeader, Vec<u8>);

fn datagram(flow: u8, payload: &[u8], identification: u16) -> Sent {
    Sent {
        interface: 0,
        flow,
        protocol: 17,
        payload: payload.to_vec(),
        ttl: 63,
        has_dont_fragment: true,
        is_fragment: false,
        has_options: false,
        identification,
        sum: Sum::Right,
    }
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

fn pseudo_sum(packet: &[u8], headers: usize) -> u16 {
    let address = |at: usize| <[u8; 4]>::try_from(&packet[at..at + 4]).unwrap();
    let length = u16::try_from(packet.len() - headers).unwrap();
    checksum::pseudo_header_v4(address(12), address(16), packet[9], length)
}

/// Computes the checksum of the IP header and, where it is to be right, that of the UDP header.
fn finish(packet: &mut [u8], is_right: bool) {
    let headers = usize::from(packet[0] & 0x0f) * 4;
    put(packet, 10, 0);
    let sum = checksum::checksum(0, &packet[..headers]);
    put(packet, 10, sum);
    if is_right {
        put(packet, headers + 6, 0);
        let sum = checksum::checksum(pseudo_sum(packet, headers), &packet[headers..]);
        put(packet, headers + 6, if sum == 0 { 0xffff } else { sum });
    }
}

impl Sent {
    fn packet(&self) -> Packet {
        let headers: usize = if self.has_options { 24 } else { 20 };
        let total = headers + 8 + self.payload.len();
        let mut bytes = vec![0x40 | u8::try_from(headers / 4).unwrap(), 0];
        bytes.extend(u16::try_from(total).unwrap().to_be_bytes());
        bytes.extend(self.identification.to_be_bytes());
        let flags = u16::from(self.has_dont_fragment) << 14 | u16::from(self.is_fragment) << 13;
        bytes.extend(flags.to_be_bytes());
        bytes.extend([self.ttl, self.protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, self.flow]);
        bytes.resize(headers, 1);
        bytes.extend([0x10, self.flow, 0x20, 0]);
        bytes.extend(u16::try_from(total - headers).unwrap().to_be_bytes());
        bytes.extend([0, 0]);
        bytes.extend(&self.payload);
        finish(&mut bytes, self.sum != Sum::None);
        let mut header = VirtioNetHeader::WHOLE;
        match self.sum {
            Sum::Right | Sum::None => {}
            Sum::VouchedFor => header.flags = 2,
            Sum::Wrong => {
                let wrong = half(&bytes, headers + 6) ^ 0x0101;
                put(&mut bytes, headers + 6, wrong);
            }
            Sum::Open => {
                header.flags = 1;
                header.checksum_start = u16::try_from(headers).unwrap();
                header.checksum_offset = 6;
                let open = pseudo_sum(&bytes, headers);
                put(&mut bytes, headers + 6, open);
            }
        }
        (self.interface, header, bytes)
    }
}

/// What the kernel makes of a packet on its way out: its segments, with all checksums.
fn cut((interface, header, packet): &Packet) -> Vec<Packet> {
    let done = |packet| (*interface, VirtioNetHeader::WHOLE, packet);
    if header.gso_type == 0 {
        let mut packet = packet.clone();
        if header.flags & 1 != 0 {
            finish(&mut packet, true);
        }
        return vec![done(packet)];
    }
    assert_eq!((header.flags, header.gso_type, header.header_bytes), (1, 5, 28));
    assert_eq!((header.checksum_start, header.checksum_offset), (20, 6));
    assert_eq!(usize::from(half(packet, 2)), packet.len());
    assert_eq!(usize::from(half(packet, 24)), packet.len() - 20);
    assert_eq!(half(packet, 26), pseudo_sum(packet, 20), "the sum of the pseudo header is there");
    assert!(checksum::is_valid(0, &packet[..20]));
    let (headers, payload) = packet.split_at(HEADERS_BYTES);
    let segments: Vec<&[u8]> = payload.chunks(header.segment_bytes.into()).collect();
    assert!((2..=usize::from(SEGMENTS_MAX)).contains(&segments.len()));
    let cut_out = |(number, segment): (usize, &&[u8])| {
        let mut bytes = [headers, segment].concat();
        let identification = half(headers, 4).wrapping_add(u16::try_from(number).unwrap());
        put(&mut bytes, 4, identification);
        let total = u16::try_from(bytes.len()).unwrap();
        put(&mut bytes, 2, total);
        put(&mut bytes, 24, total - 20);
        finish(&mut bytes, true);
        done(bytes)
    };
    segments.iter().enumerate().map(cut_out).collect()
}

/// Sends `packets` as one batch; what leaves, and how many of them have joined others.
fn leave(packets: &[Packet]) -> (Vec<Packet>, u64) {
    let mut slots = Slots::new(2).unwrap();
    (0..2).for_each(|interface| slots.allow_super_datagrams(interface));
    for (_, header, packet) in packets {
        let mut buffer = slots.pool.take().unwrap();
        let bytes = &mut slots.pool.bytes_mut(&mut buffer)[READ_RANGE];
        bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        bytes[HEADER_BYTES..][..packet.len()].copy_from_slice(packet);
        assert!(slots.fill(buffer, 0, HEADER_BYTES + packet.len()).is_none());
    }
    for (slot, (interface, ..)) in packets.iter().enumerate() {
        let range = slots.packet(slot).range;
        assert!(slots.forward(slot, InterfaceId(*interface), &range));
    }
    slots.coalesce();
    let mut list = slots.take_outgoing();
    let mut left = Vec::new();
    let mut count = 0;
    for mut outgoing in list.drain(..) {
        let bytes = &slots.pool.bytes_mut(&mut outgoing.buffer)[outgoing.range.clone()];
        let (header, packet) = bytes.split_first_chunk().unwrap();
        let interface = u16::try_from(outgoing.interface).unwrap();
        left.push((interface, VirtioNetHeader::parse(*header), packet.to_vec()));
        count += usize::from(outgoing.packets);
        slots.pool.give(outgoing.buffer);
    }
    slots.put_back(list);
    slots.clear(Pool::give);
    assert_eq!(slots.pool.free_count(), BUFFERS, "no buffer is lost");
    assert_eq!(count, packets.len(), "each packet is counted once");
    (left, slots.counters.packets_joined)
}

/// The packets as their receivers see them, by flow and in order. Where nobody may fragment a datagram its
/// identification means nothing; a packet whose flow cannot be told belongs to each of them.
fn by_flow(packets: &[Packet]) -> BTreeMap<(u16, u8, u8), Vec<Vec<u8>>> {
    let mut flows = BTreeMap::<_, Vec<_>>::new();
    for (interface, _, packet) in packets.iter().flat_map(cut) {
        let mut packet = packet;
        let is_clear = packet[0] == 0x45 && half(&packet, 6) & 0x3fff == 0;
        if is_clear && half(&packet, 6) & 0x4000 != 0 {
            put(&mut packet, 4, 0);
            finish(&mut packet, false);
        }
        let (protocol, own) = (packet[9], packet[19]);
        for flow in (0..FLOWS).filter(|flow| *flow == own || (protocol == 17 && !is_clear)) {
            flows.entry((interface, protocol, flow)).or_default().push(packet.clone());
        }
    }
    flows
}

const FLOWS: u8 = 20;

fn sums() -> impl Strategy<Value = Sum> {
    prop_oneof![
        4 => Just(Sum::Right),
        4 => Just(Sum::Open),
        2 => Just(Sum::VouchedFor),
        1 => Just(Sum::Wrong),
        1 => Just(Sum::None),
    ]
}

fn payloads() -> impl Strategy<Value = Vec<u8>> {
    let lengths = prop_oneof![8 => Just(18_usize), 2 => 0_usize..40, 2 => Just(1_472), 1 => Just(30_000)];
    (lengths, any::<u8>()).prop_map(|(length, start)| {
        (0..length).map(|place| u8::try_from((place * 7 + usize::from(start)) % 256).unwrap()).collect()
    })
}

/// Batches in which much can be joined and much can not. Each flow counts its identifications, stays at one
/// or draws them.
fn batches() -> impl Strategy<Value = Vec<Sent>> {
    let rarely = || prop::bool::weighted(0.03);
    let flow = prop_oneof![6 => 0_u8..3, 1 => 0_u8..FLOWS];
    let flags = (prop::bool::weighted(0.7), rarely(), rarely());
    let way = (prop::bool::weighted(0.05), rarely(), rarely());
    let plain =
        (flow, payloads(), any::<u16>()).prop_map(|(flow, payload, number)| datagram(flow, &payload, number));
    let one = (plain, sums(), flags, way).prop_map(|(plain, sum, flags, way)| {
        let (has_dont_fragment, is_fragment, has_options) = flags;
        let (is_other_way, is_tcp, is_late) = way;
        Sent {
            interface: u16::from(is_other_way),
            protocol: if is_tcp { 6 } else { 17 },
            ttl: if is_late { 1 } else { 63 },
            has_dont_fragment,
            is_fragment,
            has_options,
            sum,
            ..plain
        }
    });
    prop::collection::vec(one, 0..=BATCH_MAX).prop_map(|mut batch: Vec<Sent>| {
        let mut counts = BTreeMap::<u8, u16>::new();
        for sent in &mut batch {
            let count = counts.entry(sent.flow).or_insert(0xfff0);
            *count = count.wrapping_add(1);
            match sent.flow % 3 {
                0 => sent.identification = *count,
                1 => sent.identification = 0,
                _ => {}
            }
        }
        batch
    })
}

proptest! {
    #[test]
    fn what_is_joined_and_cut_again_is_what_was_sent(batch in batches()) {
        let sent: Vec<Packet> = batch.iter().map(Sent::packet).collect();
        let (left, joined) = leave(&sent);
        prop_assert_eq!(left.len() + usize::try_from(joined).unwrap(), sent.len());
        prop_assert_eq!(by_flow(&left), by_flow(&sent));
    }
}

fn joined(batch: &[Sent]) -> Vec<usize> {
    let sent: Vec<Packet> = batch.iter().map(Sent::packet).collect();
    let (left, _) = leave(&sent);
    assert_eq!(by_flow(&left), by_flow(&sent));
    left.iter().map(|packet| cut(packet).len()).collect()
}

#[test]
fn a_batch_of_one_flow_leaves_as_one_packet() {
    let batch: Vec<Sent> = (0..64).map(|number| datagram(1, b"eighteen bytes now", number)).collect();
    assert_eq!(joined(&batch), [64]);
    let same: Vec<Sent> = batch.iter().map(|sent| Sent { identification: 0, ..sent.clone() }).collect();
    assert_eq!(joined(&same), [64], "identifications that mean nothing are no obstacle");
}

#[test]
fn flows_that_take_turns_are_joined_each_by_itself() {
    let turn = |number: u16| datagram(u8::try_from(number % 16).unwrap(), b"turn", number / 16);
    assert_eq!(joined(&(0..64).map(turn).collect::<Vec<_>>()), [4; 16]);
}

#[test]
fn a_shorter_datagram_is_the_last_and_a_longer_one_begins_anew() {
    let sizes = [18, 18, 7, 7, 18, 18, 1];
    let batch: Vec<Sent> =
        (0..).zip(sizes).map(|(number, size)| datagram(1, &vec![5; size], number)).collect();
    assert_eq!(joined(&batch), [3, 1, 3]);
}

#[test]
fn a_super_packet_is_no_longer_than_ipv4_can_say() {
    let batch: Vec<Sent> = (0..64).map(|number| datagram(1, &[9; 1_472], number)).collect();
    assert_eq!(joined(&batch), [44, 20]);
}

#[test]
fn what_would_come_out_otherwise_stays_alone() {
    let first = datagram(1, b"same", 7);
    let second = datagram(1, b"same", 8);
    assert_eq!(joined(&[first.clone(), second.clone()]), [2]);
    for (what, other) in [
        ("no checksum", Sent { sum: Sum::None, ..second.clone() }),
        ("wrong checksum", Sent { sum: Sum::Wrong, ..second.clone() }),
        ("another TTL", Sent { ttl: 62, ..second.clone() }),
        ("may be fragmented", Sent { has_dont_fragment: false, ..second.clone() }),
        ("a fragment", Sent { is_fragment: true, ..second.clone() }),
        ("options", Sent { has_options: true, ..second.clone() }),
        ("an identification out of turn", Sent { identification: 9, ..second.clone() }),
        ("nothing in it", Sent { payload: Vec::new(), ..second.clone() }),
        ("another way out", Sent { interface: 1, ..second.clone() }),
        ("TCP", Sent { protocol: 6, ..second }),
    ] {
        assert_eq!(joined(&[first.clone(), other]), [1, 1], "{what}");
    }
    let wrong = Sent { sum: Sum::Wrong, ..first.clone() };
    assert_eq!(joined(&[wrong, datagram(1, b"same", 8)]), [1, 1], "a wrong one at the front");
    let may_be_cut = |identification| Sent { has_dont_fragment: false, identification, ..first.clone() };
    assert_eq!(joined(&[may_be_cut(3), may_be_cut(4)]), [2], "the kernel counts on");
    assert_eq!(joined(&[may_be_cut(3), may_be_cut(3)]), [1, 1], "this one means something");
}

#[test]
fn an_interface_that_takes_no_super_packets_gets_none() {
    let mut slots = Slots::new(1).unwrap();
    let (_, _, packet) = datagram(1, b"alone", 0).packet();
    for _ in 0..4 {
        assert!(slots.send(InterfaceId(0), &packet));
    }
    slots.coalesce();
    assert_eq!(slots.take_outgoing().len(), 4);
}
