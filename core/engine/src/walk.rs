//! A batch's walk through the engine: known flows straight to the [way out](crate::exit), the others through
//! [`open`](crate::open).
//!
//! Passes over the batch, so that what one packet waits for from memory, the next ones wait for at the same time:
//! read headers; hash; touch the index; find the flows; let policies judge packets, where one wants to; send packets of
//! known flows on; open new flows. Then every packet leaves in the order in which it came.

use alloc::vec;
use core::ops::Range;

use crate::device::{BATCH_MAX, Device, HEADROOM_BYTES, Offload, PacketBuffer};
use crate::director::{Director, FlowAnswered};
use crate::engine::Engine;
use crate::flow::tcp_track::{Segment, TcpTrack};
use crate::flow::{Direction, FlowId, FlowState, FlowTable, Traits};
use crate::forward::MAIN;
use crate::journal::Review;
use crate::journal::notes::Before;
use crate::outbox::Kind;
use crate::permit::Standing;
use crate::time::Instant;
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::wire::{Address, FiveTuple, Protocol};

/// What is known of one packet of the batch.
#[derive(Clone, Debug)]
pub(crate) struct Walk {
    /// How it ended; `None` while it is on its way.
    pub(crate) end: Option<Verdict>,
    /// Where the IP packet lies; at the end, where that lies which leaves.
    pub(crate) range: Range<usize>,
    /// Bytes of the IP packet as it came.
    pub(crate) length: u32,
    /// Where layer 4 begins, from the start of the IP packet.
    pub(crate) layer_4: u16,
    /// The protocol of layer 4.
    pub(crate) protocol: Protocol,
    pub(crate) subject: Subject,
    /// Who talks to whom; for an error the quoted tuple, turned to the error's own direction.
    pub(crate) tuple: FiveTuple,
    pub(crate) hash: u64,
    pub(crate) interface: InterfaceId,
    /// What TCP says; nothing for other protocols.
    pub(crate) segment: Segment,
    /// The frame is for another station and was read only since it may be passed on.
    pub(crate) is_foreign: bool,
    /// What the index said first. Read to warm the cache.
    pub(crate) hint: u32,
    /// Its flow, and which way of that it goes; `None` where it belongs to none.
    pub(crate) found: Option<(FlowId, Direction)>,
}

/// What of its flow a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A whole packet.
    Packet,
    /// The first fragment of one.
    FirstFragment,
    /// A fragment that follows its first.
    LaterFragment,
    /// An ICMP error about one.
    Error,
}

impl Subject {
    /// Whether the header of layer 4 is there.
    pub(crate) const fn has_ports(self) -> bool {
        matches!(self, Self::Packet | Self::FirstFragment)
    }
}

impl Walk {
    /// The walk of no packet, to be overwritten.
    pub(crate) const NONE: Self = Self {
        end: None,
        range: 0..0,
        length: 0,
        layer_4: 0,
        protocol: Protocol(0),
        subject: Subject::Packet,
        tuple: FiveTuple {
            source: Address::UNSPECIFIED,
            destination: Address::UNSPECIFIED,
            source_port: 0,
            destination_port: 0,
            protocol: Protocol(0),
        },
        hash: 0,
        interface: InterfaceId(0),
        segment: Segment::NONE,
        is_foreign: false,
        hint: 0,
        found: None,
    };
}

impl Engine {
    /// Walks the `received` packets of `device` through the engine. Returns how many left.
    pub fn handle_batch<D: Device>(&mut self, device: &mut D, received: usize, now: Instant) -> usize {
        // Two walks by one description: the one to which nobody listens has no word of the journal in it.
        if self.journal.is_some() {
            self.walk_batch::<D, true>(device, received, now)
        } else {
            self.walk_batch::<D, false>(device, received, now)
        }
    }

    fn walk_batch<D: Device, const TOLD: bool>(
        &mut self,
        device: &mut D,
        received: usize,
        now: Instant,
    ) -> usize {
        let now = self.tick(now);
        debug_assert!(received <= BATCH_MAX, "a device keeps to the bound");
        let mut all = core::mem::take(&mut self.walks);
        let walks = all.get_mut(..received.min(BATCH_MAX)).unwrap_or_default();
        let mut bytes = 0;
        if TOLD {
            self.begin_accounts(walks.len());
        }
        for (slot, walk) in walks.iter_mut().enumerate() {
            let mut packet = device.packet(slot);
            bytes += packet.range.len() as u64;
            if TOLD {
                self.begin_account(slot, &packet, now);
            }
            self.enter(&mut packet, walk, now);
            if TOLD {
                self.note_read(walk);
            }
        }
        self.exit.counters.packets_in += walks.len() as u64;
        self.exit.counters.bytes_in += bytes;
        find_flows(&self.flows, walks);
        if self.chain.judges_packets() {
            self.judge_packets(device, walks, now);
        }
        let mut has_new = false;
        for (slot, walk) in walks.iter_mut().enumerate() {
            if TOLD {
                self.turn_to(slot);
            }
            if walk.end.is_none() && !self.pass_known::<TOLD>(&mut device.packet(slot), walk, now) {
                if walk.subject == Subject::Error {
                    walk.end = Some(Verdict::Drop(DropReason::IcmpUnhandled));
                } else {
                    has_new = true;
                }
            }
        }
        if has_new {
            self.open_flows(device, walks, now);
        }
        let sent = self.leave::<D, TOLD>(device, walks);
        self.walks = all;
        if self.fragments.has_news() {
            self.release_fragments(now);
        }
        sent
    }

    /// Reads the headers of one packet into `walk`.
    #[inline(always)]
    fn enter(&mut self, packet: &mut PacketBuffer<'_>, walk: &mut Walk, now: Instant) {
        walk.interface = packet.interface;
        walk.end = None;
        match self.read_headers(packet, walk, now) {
            Ok(None) => {}
            Ok(end) => walk.end = end,
            Err(reason) => walk.end = Some(Verdict::Drop(reason)),
        }
    }

    /// Sends a packet on where its flow is known. Returns whether it is.
    pub(crate) fn pass(&mut self, packet: &mut PacketBuffer<'_>, walk: &mut Walk, now: Instant) -> bool {
        walk.found = self.flows.find(walk.hash, &walk.tuple);
        if self.journal.is_some() {
            self.pass_known::<true>(packet, walk, now)
        } else {
            self.pass_known::<false>(packet, walk, now)
        }
    }

    /// The same where it has to be fast, and the flow has been looked for.
    #[inline(never)]
    fn pass_known<const TOLD: bool>(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> bool {
        if TOLD {
            self.note_lookup(walk, now);
        }
        let Some((id, direction)) = walk.found else { return false };
        let Some(mut entry) = self.flows.entry_mut(id) else { return false };
        let is_reopened =
            entry.state.is_over() && direction == Direction::Original && walk.segment.flags.is_opening();
        if is_reopened || entry.expires <= now || entry.generation != self.generation {
            match self.review(id, is_reopened.then_some(&walk.segment), now) {
                Validity::Valid => {}
                Validity::Gone => return false,
                Validity::Refused(reason) => {
                    walk.end = Some(Verdict::Drop(reason));
                    return true;
                }
            }
            let Some(reviewed) = self.flows.entry_mut(id) else { return false };
            entry = reviewed;
        }
        let before = Before { state: entry.state, tuple: walk.tuple };
        let carried = if walk.subject == Subject::Error {
            self.exit.carry_error(packet, walk, entry, direction, &self.directors, now)
        } else {
            let carried = self.exit.carry(packet, walk, entry, direction, &self.directors, now);
            if carried.is_ok()
                && let Some(director) = self.directors.at_mut(entry.director)
                && let Some(server) = director.server_mut(entry.server_slot)
            {
                server.count(direction, walk.length);
            }
            // A packet that found no place to leave by has said what it says of its flow all the same.
            if before.state != entry.state || entry.traits.has(Traits::HALF_OPEN) {
                self.settle(id, before.state);
            }
            carried
        };
        if TOLD {
            self.note_sent(id, direction, before, walk, carried.err());
        }
        walk.end = match carried {
            Ok(verdict) => Some(verdict),
            Err(reason) => Some(Verdict::Drop(reason)),
        };
        true
    }

    /// Looks closer at a flow that may be over, that `reopened` would begin anew, or that is of an older plan.
    #[cold]
    fn review(&mut self, id: FlowId, reopened: Option<&Segment>, now: Instant) -> Validity {
        let is_over = self.flows.entry(id).is_none_or(|entry| entry.expires <= now);
        if is_over || reopened.is_some_and(|segment| !self.reopen(id, segment)) {
            self.note_lapse();
            self.end_flow(id);
            return Validity::Gone;
        }
        if self.flows.entry(id).is_some_and(|entry| entry.generation == self.generation) {
            return Validity::Valid;
        }
        let validity = self.revalidate(id);
        self.note_review(validity.review());
        validity
    }

    /// Begins a closed flow anew with its real server, where the server is not seen: whoever forges the reset that
    /// closed it and the SYN that follows must not move a living connection. Returns whether that was so.
    fn reopen(&mut self, id: FlowId, segment: &Segment) -> bool {
        let Some(entry) = self.flows.entry(id) else { return false };
        if !entry.is_one_sided() || entry.state != FlowState::Closed {
            return false;
        }
        let director = self.directors.at(entry.director).filter(|director| !director.is_removed);
        if !director.is_some_and(|director| director.takes_flows(entry.server_slot)) {
            return false;
        }
        let Some(entry) = self.flows.entry_mut(id) else { return false };
        let before = entry.state;
        entry.state = FlowState::SynReceived;
        entry.track = TcpTrack::opened(segment);
        self.settle(id, before);
        true
    }

    /// Tells the table and the director that a flow has come further than `before`.
    #[cold]
    fn settle(&mut self, id: FlowId, before: FlowState) {
        let Some(entry) = self.flows.entry(id) else { return };
        let after = entry.state;
        let (place, slot) = (entry.director, entry.server_slot);
        let is_half_open = entry.traits.has(Traits::HALF_OPEN);
        let is_answered = is_half_open && entry.is_answered();
        // The real server's first word: it acknowledges the SYN, or sends a datagram.
        let is_first_word = match (before, after) {
            (FlowState::SynSent, FlowState::SynReceived | FlowState::Established) => true,
            // Where answers do not come by, the client's acknowledgement is the first sign of one.
            (FlowState::SynReceived, FlowState::Established) => entry.is_one_sided(),
            (FlowState::Udp | FlowState::Icmp, _) => entry.tally(Direction::Reply).packets() == 1,
            _ => false,
        };
        if is_half_open && is_first_word && self.directors.at(place).is_some_and(Director::times_flows) {
            self.tell_answer(id);
        }
        if before != after
            && let Some(director) = self.directors.at_mut(place)
        {
            director.change_state(slot, before, after);
        }
        if is_answered {
            self.flows.promote(id);
        }
        if before != after && self.exit.lifetime(after) < self.exit.lifetime(before) {
            self.flows.reschedule(id);
        }
    }

    /// Tells the director of the flow `id` that its real server has answered for the first time.
    #[cold]
    fn tell_answer(&mut self, id: FlowId) {
        let Some(after) = self.flows.note_answer(id, self.now) else { return };
        let Some(entry) = self.flows.entry(id) else { return };
        let (place, slot, is_through_client) = (entry.director, entry.server_slot, entry.is_one_sided());
        let hash = entry.tuple(Direction::Original).hash(self.flows.key());
        if let Some(director) = self.directors.at_mut(place) {
            director.answered(slot, FlowAnswered { hash, server: 0, after, is_through_client }, self.now);
        }
    }

    /// Whether the plan in force still permits a flow of an older one.
    #[cold]
    pub(crate) fn revalidate(&mut self, id: FlowId) -> Validity {
        let generation = self.generation;
        let Some(entry) = self.flows.entry(id) else { return Validity::Gone };
        let director = self.directors.at(entry.director).filter(|director| !director.is_removed);
        let server = director.and_then(|director| director.server(entry.server_slot));
        let is_there = server.is_some_and(|server| server.view.is_some());
        // A flow is translated for one mode; under another it begins anew.
        let is_same_mode =
            director.is_none_or(|director| director.mode.is_one_sided() == entry.is_one_sided());
        let has_director = director.is_some();
        let (standing, judges) = self.standing(entry);
        if standing == Standing::Denied {
            self.end_flow(id);
            return Validity::Refused(DropReason::PolicyDenied);
        }
        if is_there && is_same_mode {
            if let Err(reason) = self.redirect(id, standing) {
                self.end_flow(id);
                return Validity::Refused(reason);
            }
            if let Some(entry) = self.flows.entry_mut(id) {
                entry.generation = generation;
                entry.traits = entry.traits.judged_by(judges);
            }
            return Validity::Valid;
        }
        if has_director && is_same_mode && !self.exit.plan.handling.expires_nodest {
            // The real server may come back; until then the flow waits for it, or for its end.
            return Validity::Refused(DropReason::NoServer);
        }
        self.end_flow(id);
        Validity::Gone
    }

    /// Finds out by which ways packets of an old flow leave under the plan in force.
    fn redirect(&mut self, id: FlowId, standing: Standing) -> Result<(), DropReason> {
        let Some(entry) = self.flows.entry(id).cloned() else { return Ok(()) };
        let table = match standing {
            Standing::Permitted(table) => table,
            Standing::Denied => return Err(DropReason::PolicyDenied),
            Standing::Unknown => {
                let way = self.exit.ways.at(entry.way(Direction::Original));
                way.map_or(MAIN, |way| way.table)
            }
        };
        let hop = self.exit.routes.find_in(table, entry.server).ok_or(DropReason::NoRoute)?;
        let ways = self.find_ways(&entry, &hop, None, self.now)?;
        if let Some(entry) = self.flows.entry_mut(id) {
            entry.ways = ways;
        }
        Ok(())
    }

    /// Lets every packet leave that may, in the order of arrival, and counts all ends.
    fn leave<D: Device, const TOLD: bool>(&mut self, device: &mut D, walks: &mut [Walk]) -> usize {
        let mut sent = 0;
        for (slot, walk) in walks.iter_mut().enumerate() {
            if TOLD {
                self.keep_after(device, slot, walk);
            }
            if let Some(Verdict::Forward(out)) = walk.end
                && device.forward(slot, out, walk.range.clone())
            {
                self.exit.counters.forwarded += 1;
                sent += 1;
                if TOLD {
                    self.end_account(slot, Verdict::Forward(out));
                }
            } else {
                sent += usize::from(self.end_otherwise(device, slot, walk));
            }
        }
        sent
    }

    /// Ends a walk that is not simply forwarded. Returns whether its packet left.
    fn end_otherwise<D: Device>(&mut self, device: &mut D, slot: usize, walk: &mut Walk) -> bool {
        // Every walk has an end by now; one without would be a bug of ours, and the packet stays here.
        debug_assert!(walk.end.is_some(), "each pass gives an end to what it takes");
        let mut end = match walk.end.unwrap_or(Verdict::Drop(DropReason::NoFlow)) {
            Verdict::Forward(_) => Verdict::Drop(DropReason::DeviceQueueFull),
            end @ (Verdict::Replace(_)
            | Verdict::Hold
            | Verdict::Answer(_)
            | Verdict::Consume
            | Verdict::Drop(_)) => end,
        };
        if let Verdict::Drop(reason) = end
            && (walk.is_foreign || reason.is_about_others())
            && reason != DropReason::DeviceQueueFull
            && let Some(out) = self.passes_to(walk.interface)
        {
            // Nothing has touched the packet: it leaves as it came.
            walk.range = device.packet(slot).range;
            self.exit.counters.passed += 1;
            end = Verdict::Forward(out);
            walk.end = Some(end);
            self.keep_after(device, slot, walk);
        }
        let is_sent = match end {
            Verdict::Forward(out) | Verdict::Answer(out) => {
                let is_sent = device.forward(slot, out, walk.range.clone());
                if !is_sent {
                    end = Verdict::Drop(DropReason::DeviceQueueFull);
                }
                is_sent
            }
            Verdict::Replace(_) | Verdict::Hold | Verdict::Consume | Verdict::Drop(_) => false,
        };
        self.exit.counters.count_end(end);
        self.end_account(slot, end);
        device.ended(slot, end);
        is_sent
    }

    fn passes_to(&self, interface: InterfaceId) -> Option<InterfaceId> {
        self.exit.plan.interfaces.get(interface.index())?.passes_to
    }

    /// Sends fragments on that have waited for their first one.
    fn release_fragments(&mut self, now: Instant) {
        while let Some(held) = self.fragments.poll_released() {
            self.exit.counters.waiting = self.exit.counters.waiting.saturating_sub(1);
            let mut buffer = vec![0; HEADROOM_BYTES + held.bytes.len()];
            if let Some(place) = buffer.get_mut(HEADROOM_BYTES..) {
                place.copy_from_slice(&held.bytes);
            }
            let range = HEADROOM_BYTES..buffer.len();
            let (tuple, interface) = (held.tuple, held.interface);
            let layer_4 = self.payload_offset(buffer.get_mut(range.clone()).unwrap_or_default());
            let mut walk = Walk {
                range: range.clone(),
                length: u32::try_from(held.bytes.len()).unwrap_or(u32::MAX),
                layer_4,
                protocol: tuple.protocol,
                subject: Subject::LaterFragment,
                hash: tuple.hash(self.flows.key()),
                tuple,
                interface,
                ..Walk::NONE
            };
            let offload = Offload::default();
            let mut packet = PacketBuffer { interface, buffer: &mut buffer, range, offload };
            let is_known = self.pass(&mut packet, &mut walk, now);
            let mut end = walk.end.filter(|_| is_known).unwrap_or(Verdict::Drop(DropReason::Fragment));
            if let Verdict::Forward(out) = end {
                let bytes = buffer.get(walk.range).unwrap_or_default();
                // Counted when it leaves.
                if self.exit.outbox.push(out, Kind::Released, &[bytes]) {
                    continue;
                }
                end = Verdict::Drop(DropReason::DeviceQueueFull);
            }
            self.exit.counters.count_end(end);
        }
        while let Some((reason, count)) = self.fragments.poll_given_up() {
            self.exit.counters.give_up(reason, count);
        }
    }
}

/// Finds the flows of packets in short loops, none of which waits for what it reads: memory answers for all packets at once.
#[inline(never)]
fn find_flows(flows: &FlowTable, walks: &mut [Walk]) {
    let key = flows.key();
    for walk in walks.iter_mut().filter(|walk| walk.end.is_none()) {
        walk.hash = walk.tuple.hash(key);
    }
    for walk in walks.iter_mut() {
        walk.hint = flows.touch_index(walk.hash);
    }
    for walk in walks.iter_mut().filter(|walk| walk.end.is_none()) {
        walk.found = flows.find(walk.hash, &walk.tuple);
    }
}

/// What the plan in force says of a flow of an older one.
#[derive(Clone, Copy)]
pub(crate) enum Validity {
    /// It goes on.
    Valid,
    /// It has ended, and the packet may open another.
    Gone,
    /// The packet is dropped.
    Refused(DropReason),
}

impl Validity {
    const fn review(self) -> Review {
        match self {
            Self::Valid => Review::Valid,
            Self::Gone => Review::Gone,
            Self::Refused(reason) => Review::Refused(reason),
        }
    }
}
