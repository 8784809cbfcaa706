//! Our own TCP and smoltcp against each other, over wires that lose, delay and reorder: the same bytes arrive, and the
//! connection ends in the same states.

use std::net::IpAddr;

use evenkeel_engine::{Duration, Instant};

use super::smol::Smol;
use super::stack::{Arrival, Outbox, Stack};
use crate::packet::{self, AnyEnd, Flags, Header, Packet, Transport};
use crate::payload::{Message, request_head};
use crate::queue::{EventQueue, HeapQueue};
use crate::random::Stream;
use crate::scenario::Stack as Kind;
use crate::tcp::{State, Tcp};

/// What a segment carries over IPv6.
const SEGMENT_BYTES: u32 = 1_440;

#[derive(Clone, Copy)]
struct Wire {
    loss_millionths: u32,
    jitter_ns: u64,
}

/// Two ends, each with what it has got so far, and a wire.
struct Pair {
    kinds: [Kind; 2],
    ends: [AnyEnd; 2],
    stacks: [Option<Stack>; 2],
    got: [Vec<u8>; 2],
    queue: HeapQueue<(usize, Option<Packet>)>,
    wire: Wire,
    draw: Stream,
    now: Instant,
}

impl Pair {
    fn new(seed: u64, kinds: [Kind; 2], address: &str, wire: Wire, request: Message) -> Self {
        let end = |last: u8, port| {
            let address: IpAddr = format!("{address}{last}").parse().unwrap();
            AnyEnd { address, port }
        };
        let ends = [end(1, 40_000), end(2, 80)];
        let mut out = Outbox::default();
        let mut client = match kinds[0] {
            Kind::Minimal => {
                Stack::Minimal(Tcp::connect(u32::MAX - 5_000, request, Instant::ZERO, &mut out.transmits))
            }
            Kind::Smoltcp => {
                let smol = Smol::connect(seed, (ends[0], ends[1]), request, Instant::ZERO, &mut out.packets);
                Stack::Smoltcp(Box::new(smol.unwrap()))
            }
        };
        client.limit_segments(SEGMENT_BYTES, Instant::ZERO, &mut out);
        let mut pair = Self {
            kinds,
            ends,
            stacks: [Some(client), None],
            got: [Vec::new(), Vec::new()],
            queue: HeapQueue::default(),
            wire,
            draw: Stream::new(seed, "wire", "test"),
            now: Instant::ZERO,
        };
        pair.put(0, out);
        pair
    }

    /// Sends what `from` wants sent, and lets its timer be due.
    fn put(&mut self, from: usize, mut out: Outbox) {
        let ends = (self.ends[from], self.ends[1 - from]);
        let built = out.transmits.drain(..).map(|transmit| {
            let length = transmit.data.map_or(0, |(_, _, length)| usize::try_from(length).unwrap());
            packet::build(Packet::default(), ends, Header::Tcp(transmit.segment), length, |place| {
                if let Some((message, offset, _)) = transmit.data {
                    message.write(offset, place);
                }
            })
        });
        for packet in out.packets.drain(..).chain(built) {
            assert!(packet.bytes().len() <= packet::MTU_BYTES);
            let view = packet::view(packet.bytes()).expect("what is sent is whole");
            assert_eq!((view.source, view.destination), ends);
            if !self.draw.happens(self.wire.loss_millionths) {
                let delay = 100_000 + self.draw.below(self.wire.jitter_ns);
                self.queue.push(self.now.after(Duration::from_nanos(delay)), (1 - from, Some(packet)));
            }
        }
        if let Some(stack) = &self.stacks[from]
            && stack.deadline() != Instant::NEVER
        {
            self.queue.push(stack.deadline(), (from, None));
        }
    }

    /// Runs until nothing is left to happen. The server answers one request with `response`; who has everything closes.
    fn run(&mut self, response: &Message) {
        for _ in 0..200_000 {
            let Some((now, (at, packet))) = self.queue.pop() else { return };
            self.now = now;
            let mut out = Outbox::default();
            match packet {
                None => {
                    if let Some(stack) = &mut self.stacks[at] {
                        stack.timeout(now, &mut out);
                    }
                }
                Some(packet) => self.take(at, packet.bytes(), response, &mut out),
            }
            self.put(at, out);
        }
        panic!("no end: {:?}", self.stacks);
    }

    fn take(&mut self, at: usize, bytes: &[u8], response: &Message, out: &mut Outbox) {
        let now = self.now;
        let view = packet::view(bytes).unwrap();
        let Transport::Tcp(segment) = &view.transport else { panic!("{view:?}") };
        let Some(stack) = &mut self.stacks[at] else {
            if segment.flags == Flags::SYN {
                self.stacks[at] = match self.kinds[at] {
                    Kind::Minimal => {
                        Some(Stack::Minimal(Tcp::accept(u32::MAX - 9, segment, now, &mut out.transmits)))
                    }
                    Kind::Smoltcp => Smol::accept(7, self.ends[at], bytes, now, &mut out.packets)
                        .map(|smol| Stack::Smoltcp(Box::new(smol))),
                };
                if let Some(stack) = &mut self.stacks[at] {
                    stack.limit_segments(SEGMENT_BYTES, now, out);
                }
            }
            return;
        };
        let got = &mut self.got[at];
        let had = got.len();
        let was_closed = stack.is_closed_by_peer();
        let arrival = Arrival { segment, payload: view.payload, packet: bytes };
        stack.receive(arrival, now, out, &mut |piece| got.extend(piece));
        if at == 1 {
            let wanted = request_head(got).map(|head| usize::try_from(head.length).unwrap());
            if wanted == Some(got.len()) && had < got.len() {
                stack.send(*response);
            }
            if stack.is_closed_by_peer() && !was_closed {
                stack.close();
            }
        } else if got.len() == usize::try_from(response.len()).unwrap() && had < got.len() {
            stack.close();
        }
        stack.flush(now, out);
    }

    fn states(&self) -> [Option<State>; 2] {
        [0, 1].map(|at| self.stacks[at].as_ref().map(Stack::state))
    }

    fn retransmitted(&self) -> u32 {
        self.stacks.iter().flatten().map(Stack::retransmitted).sum()
    }
}

const KINDS: [[Kind; 2]; 4] = [
    [Kind::Minimal, Kind::Smoltcp],
    [Kind::Smoltcp, Kind::Minimal],
    [Kind::Smoltcp, Kind::Smoltcp],
    [Kind::Minimal, Kind::Minimal],
];

fn whole(message: &Message) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(message.len()).unwrap()];
    message.write(0, &mut bytes);
    bytes
}

#[test]
fn both_stacks_carry_the_same_bytes_and_end_alike() {
    let wire = Wire { loss_millionths: 0, jitter_ns: 1 };
    for (ask, answer) in [(16, 16), (200, 10_000), (1_460, 1_461), (100_000, 300_000)] {
        for address in ["10.0.0.", "fd00::"] {
            for kinds in KINDS {
                let (request, response) = (Message::request(ask, answer, 5), Message::request(answer, 16, 6));
                let mut pair = Pair::new(1, kinds, address, wire, request);
                pair.run(&response);
                assert_eq!(pair.states(), [Some(State::Closed); 2], "{kinds:?} {address} {ask} {answer}");
                assert!(
                    pair.got == [whole(&response), whole(&request)],
                    "{kinds:?} {address} {ask} {answer}"
                );
                assert_eq!(pair.retransmitted(), 0, "{kinds:?} {address} {ask} {answer}");
            }
        }
    }
}

#[test]
fn loss_and_reordering_are_survived_by_both_stacks() {
    let wire = Wire { loss_millionths: 20_000, jitter_ns: 400_000 };
    for kinds in KINDS {
        let mut again = 0;
        for seed in 0..25 {
            let (request, response) = (Message::request(9_000, 60_000, 5), Message::request(60_000, 16, 6));
            let mut pair = Pair::new(seed, kinds, "10.0.0.", wire, request);
            pair.run(&response);
            assert!(pair.got == [whole(&response), whole(&request)], "{kinds:?}, seed {seed}");
            let is_over = |state| matches!(state, Some(State::Closed | State::TimedOut));
            assert!(pair.states().into_iter().all(is_over), "{kinds:?}, seed {seed}: {:?}", pair.states());
            again += pair.retransmitted();
        }
        assert!(again > 25, "{kinds:?}: {again} segments were sent again");
    }
}

#[test]
fn a_dead_peer_ends_in_a_timeout_with_both_stacks() {
    let wire = Wire { loss_millionths: 1_000_000, jitter_ns: 1 };
    for kind in [Kind::Minimal, Kind::Smoltcp] {
        let mut pair = Pair::new(1, [kind; 2], "10.0.0.", wire, Message::request(100, 100, 5));
        pair.run(&Message::request(100, 16, 6));
        assert_eq!(pair.states(), [Some(State::TimedOut), None]);
        let seconds = pair.now.as_nanos() / 1_000_000_000;
        assert!((122..=124).contains(&seconds), "{kind:?}: {seconds} s");
    }
}

#[test]
fn a_reset_ends_both_stacks_at_once() {
    let wire = Wire { loss_millionths: 0, jitter_ns: 1 };
    for kinds in KINDS {
        let (request, response) = (Message::request(100, 100, 5), Message::request(100, 16, 6));
        let mut pair = Pair::new(1, kinds, "10.0.0.", wire, request);
        // As far as the server has the request.
        while pair.got[1].is_empty() {
            let (now, (at, packet)) = pair.queue.pop().unwrap();
            pair.now = now;
            let mut out = Outbox::default();
            if let Some(packet) = packet {
                pair.take(at, packet.bytes(), &response, &mut out);
            }
            pair.put(at, out);
        }
        let mut out = Outbox::default();
        pair.stacks[0].as_mut().unwrap().abort(pair.now, &mut out);
        pair.stacks[0] = None;
        pair.put(0, out);
        pair.run(&response);
        assert_eq!(pair.states(), [None, Some(State::Reset)], "{kinds:?}");
    }
}

#[test]
fn equal_seeds_give_equal_packets() {
    let wire = Wire { loss_millionths: 50_000, jitter_ns: 300_000 };
    let run = |seed| {
        let mut pair = Pair::new(seed, [Kind::Smoltcp; 2], "fd00::", wire, Message::request(3_000, 3_000, 5));
        pair.run(&Message::request(3_000, 16, 6));
        (pair.now, pair.retransmitted(), pair.draw.bits())
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3), run(4));
}

#[test]
fn ends_that_nobody_can_have_are_refused() {
    let end = |address: &str| AnyEnd { address: address.parse().unwrap(), port: 80 };
    let mut out = Vec::new();
    for bad in ["0.0.0.0", "224.0.0.1", "ff02::1"] {
        let ends = (end(bad), end("10.0.0.1"));
        assert!(Smol::connect(1, ends, Message::request(16, 16, 1), Instant::ZERO, &mut out).is_none());
    }
}
