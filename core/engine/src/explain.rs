//! What would become of a packet, and why: the walk itself, on a copy of what it looks at.
//!
//! ```text
//! fork of the engine, as far as is known to matter -> the walk, with a journal -> what of the state it looked at
//!          ^                                                                                |
//!          +---------------------------- more than was in the fork -------------------------+
//! ```
//! A fork has the rules, directors, routes and neighbours, and of what is large (flows, ports, clients, tables of
//! schedulers) what the walk of this packet looks at. That is not known before: so it is walked again until the fork had
//! all of it. There is no second description of what becomes of packets, which could say something else.
//!
//! A component can not be copied. Where one would be asked, the account ends.

use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;

use crate::device::{Device, HEADROOM_BYTES, Offload, PacketBuffer};
use crate::engine::Engine;
use crate::flow::fragments::Fragments;
use crate::journal::{Account, Filter, Journal, Step, Touched, Wish};
use crate::judge::Judging;
use crate::open::Opening;
use crate::time::Instant;
use crate::verdict::InterfaceId;
use crate::walk::Walk;
use crate::wire::FiveTuple;

/// How often a packet is walked at most, until a fork had all that it looks at. Each turn learns of at least one more
/// thing: its tuple, a scheduler, a client, a port, the tuple of answers; none of them leads to more than a few others.
const TURNS_MAX: usize = 16;

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Its way. Without an end where a component decides, which was not asked.
    pub account: Account,
    /// Packets that would be sent besides: answers, errors, questions for neighbours, pieces.
    pub born: Vec<(InterfaceId, Vec<u8>)>,
    /// What of the engine's state mattered.
    pub touched: Touched,
}

impl Explanation {
    /// The component that would be asked next and was not, where the account ends for that.
    #[must_use]
    pub fn unknown(&self) -> Option<&str> {
        self.account.steps().find_map(Step::unknown)
    }
}

impl Engine {
    /// What would become of `packet`, an IP packet or on Ethernet a frame, if it came in at `interface` now. Nothing
    /// changes: no counter, limit, table, random number or component.
    ///
    /// It is told as of the state that there is. [`Engine::handle_timeout`] of the same time comes first, as in
    /// [`step`](crate::step), if what is over is to be gone.
    #[must_use]
    pub fn explain(&self, packet: &[u8], interface: InterfaceId, now: Instant) -> Explanation {
        let mut known = Touched::default();
        let mut told = self.fork(&known).witness(packet, interface, now);
        for _ in 1..TURNS_MAX {
            if !Self::has_more(&known, &told.touched) {
                break;
            }
            known.join(&told.touched);
            told = self.fork(&known).witness(packet, interface, now);
        }
        told.cut();
        told
    }

    /// Handles `packet` for real, as one that came in at `interface`, and tells what became of it.
    pub fn witness(&mut self, packet: &[u8], interface: InterfaceId, now: Instant) -> Explanation {
        let wish = Wish {
            filter: Filter::All,
            count: Some(1),
            snap_bytes: packet.len().max(1 << 16),
            is_thorough: true,
        };
        let before = self.set_journal(Some(Journal::new(wish, None)));
        let mut booth = Booth::new(packet, interface);
        self.handle_batch(&mut booth, 1, now);
        let journal = self.set_journal(before);
        self.transmit(&mut booth);
        let (account, touched) =
            journal.map(|mut journal| (journal.poll(), journal.touched)).unwrap_or_default();
        let account = account.unwrap_or_else(|| Account::new(now, interface, packet, packet.len()));
        Explanation { account, born: booth.born, touched }
    }

    /// Whether a walk that looked at `touched` may find more here than in a fork that has what is `known`.
    fn has_more(known: &Touched, touched: &Touched) -> bool {
        let is_new = |tuple: &FiveTuple| !known.tuples.contains(tuple);
        touched.tuples.iter().any(is_new)
            || touched.sticks.iter().any(|key| !known.sticks.contains(key))
            || touched.pools.iter().any(|key| !known.pools.contains(key))
            || !touched.schedulers.is_subset(&known.schedulers)
            || !touched.policies.is_subset(&known.policies)
            || !touched.outflow_guests.is_subset(&known.outflow_guests)
            || (touched.datagram.is_some() && known.datagram.is_none())
    }

    /// An engine in the same state as far as `known` says.
    pub(crate) fn fork(&self, known: &Touched) -> Self {
        let ids = known.tuples.iter().filter_map(|tuple| {
            let (id, _) = self.flows.find(tuple.hash(self.flows.key()), tuple)?;
            Some(id)
        });
        let fragments = if known.datagram.is_some() { self.fragments.clone() } else { Fragments::default() };
        Self {
            plans: self.plans,
            generation: self.generation,
            now: self.now,
            flows: self.flows.fork(&ids.collect::<Vec<_>>()),
            fragments,
            clients: self.clients.fork(known.tuples.iter().map(|tuple| tuple.source)),
            chain: self.chain.fork(&known.policies),
            outflows: self.outflows.clone(),
            outflow_guests: self.outflow_guests.fork(&known.outflow_guests),
            directors: self.directors.fork(&known.schedulers),
            sticky: self.sticky.fork(&known.sticks),
            ports: self.ports.fork(&known.pools),
            exit: self.exit.fork(),
            was_full: self.was_full,
            was_exhausted: self.was_exhausted,
            walks: vec![Walk::NONE],
            opening: Opening::new(),
            journal: None,
            judging: Judging::default(),
            events: VecDeque::new(),
        }
    }
}

impl Touched {
    fn join(&mut self, other: &Self) {
        let Self { tuples, sticks, pools, schedulers, policies, outflow_guests, .. } = other;
        add(&mut self.tuples, tuples);
        add(&mut self.sticks, sticks);
        add(&mut self.pools, pools);
        self.schedulers.extend(schedulers);
        self.policies.extend(policies);
        self.outflow_guests.extend(outflow_guests);
        self.asked = other.asked.or(self.asked);
        self.asked_leaving = other.asked_leaving.or(self.asked_leaving);
        self.datagram = other.datagram.or(self.datagram);
    }
}

fn add<T: Copy + PartialEq>(own: &mut Vec<T>, others: &[T]) {
    for other in others {
        if !own.contains(other) {
            own.push(*other);
        }
    }
}

impl Explanation {
    /// Ends the account where a component would have been asked.
    fn cut(&mut self) {
        let Some(place) = self.account.steps().position(|step| step.unknown().is_some()) else { return };
        self.account.notes.truncate(place + 1);
        self.account.after.clear();
        self.account.after_bytes = 0;
        self.account.end = None;
        self.born.clear();
    }
}

/// A device with one packet.
#[derive(Debug)]
struct Booth {
    interface: InterfaceId,
    buffer: Vec<u8>,
    range: Range<usize>,
    born: Vec<(InterfaceId, Vec<u8>)>,
}

impl Booth {
    fn new(packet: &[u8], interface: InterfaceId) -> Self {
        let mut buffer = vec![0; HEADROOM_BYTES];
        buffer.extend_from_slice(packet);
        let range = HEADROOM_BYTES..buffer.len();
        Self { interface, buffer, range, born: Vec::new() }
    }
}

impl Device for Booth {
    fn receive(&mut self) -> usize {
        1
    }

    fn packet(&mut self, _slot: usize) -> PacketBuffer<'_> {
        let (interface, range) = (self.interface, self.range.clone());
        PacketBuffer { interface, buffer: &mut self.buffer, range, offload: Offload::default() }
    }

    fn forward(&mut self, _slot: usize, _interface: InterfaceId, _range: Range<usize>) -> bool {
        true
    }

    fn send(&mut self, interface: InterfaceId, bytes: &[u8]) -> bool {
        self.born.push((interface, bytes.to_vec()));
        true
    }

    fn flush(&mut self) {}
}
