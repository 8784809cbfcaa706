//! How a new flow comes to be: permission, director, real server, entry.
//!
//! All new flows of a batch are asked about together, one call per policy and per director, in the order of their
//! packets. Further packets of the same new flow in the batch wait for the first and then follow it.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::device::{BATCH_MAX, Device, PacketBuffer};
use crate::director::sticky;
use crate::director::{Director, Directors, NewFlow, Pinged, Server};
use crate::engine::{Engine, pool_key};
use crate::event::Event;
use crate::flow::tcp_track::TcpTrack;
use crate::flow::{Direction, FlowEntry, FlowState, InsertError, Traits};
use crate::forward::{MAIN, NextHop};
use crate::journal::Step;
use crate::journal::notes::{Question, decide_aloud, stick};
use crate::permit;
use crate::plan::{Binding, MidStream};
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::reply::IcmpError;
use crate::time::Instant;
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::walk::{Subject, Walk};
use crate::wire::tcp::Flags;
use crate::wire::{FiveTuple, Protocol, checksum};

/// Room for the new flows of one batch, allocated once.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    leaders: Vec<Leader>,
    asking: Vec<PolicyFlow>,
    picking: Vec<NewFlow>,
    /// Who sticks to a real server and is asked about now, so that another flow of the same client waits its turn.
    sticking: Vec<sticky::Key>,
    /// Which leaders are asked about.
    asked: Vec<usize>,
    answers: Vec<Option<u16>>,
}

/// A new flow, with the walk that opens it.
#[derive(Clone, Copy, Debug)]
struct Leader {
    slot: usize,
    /// What policies see of its first packet.
    asking: PolicyFlow,
    /// The routing table by which it leaves.
    table: u8,
    /// The guests that judge its packets.
    judges: u8,
    kind: Opener,
    /// Whether its sender is to get a reset if it opens nothing.
    is_reset: bool,
    fate: Fate,
}

/// What the packet is that would open a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opener {
    /// One that opens a flow: a SYN, a datagram, a query.
    First,
    /// A TCP segment from the middle of a connection.
    MidStream,
    /// One that opens none: a later fragment, an answer without a question.
    Never,
}

impl Opener {
    fn of(walk: &Walk) -> Self {
        let FiveTuple { protocol, source_port, .. } = walk.tuple;
        match protocol {
            _ if walk.subject == Subject::LaterFragment => Self::Never,
            Protocol::TCP if walk.segment.flags.is_opening() => Self::First,
            Protocol::TCP => Self::MidStream,
            // The identifier of an answer stands at the other end.
            Protocol::ICMP | Protocol::ICMPV6 if source_port == 0 => Self::Never,
            _ => Self::First,
        }
    }
}

/// How far the decision about a new flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No policy has decided.
    Asked,
    /// Permitted, for the director at this place.
    To(u16),
    /// Permitted, and the director at the place has given it the real server with this view.
    Picked(u16, u16),
    /// Not to be opened.
    Refused(DropReason),
}

impl Opening {
    pub(crate) fn new() -> Self {
        Self {
            leaders: Vec::with_capacity(BATCH_MAX),
            asking: Vec::with_capacity(BATCH_MAX),
            picking: Vec::with_capacity(BATCH_MAX),
            sticking: Vec::with_capacity(BATCH_MAX),
            asked: Vec::with_capacity(BATCH_MAX),
            answers: vec![None; BATCH_MAX],
        }
    }

    /// Notes the walks that no flow is known for: one leader for each tuple, or where some director schedules each
    /// datagram on its own, each datagram.
    fn gather<D: Device>(&mut self, device: &mut D, walks: &[Walk], directors: &Directors) {
        self.leaders.clear();
        let has_one_packet = directors.has_one_packet();
        for (slot, walk) in walks.iter().enumerate().filter(|(_, walk)| walk.end.is_none()) {
            let is_alone = has_one_packet && walk.protocol == Protocol::UDP;
            if is_alone || self.first_of(walk).is_none() {
                let asking = permit::asking(&device.packet(slot), walk);
                // A later fragment goes the way of its first, which had to be permitted.
                let is_later = walk.subject == Subject::LaterFragment;
                let fate = if is_later { fate_by_binding(directors, &walk.tuple) } else { Fate::Asked };
                let kind = Opener::of(walk);
                self.leaders.push(Leader {
                    slot,
                    asking,
                    table: MAIN,
                    judges: 0,
                    kind,
                    is_reset: false,
                    fate,
                });
            }
        }
    }

    /// The first leader with the tuple of `walk`.
    fn first_of(&self, walk: &Walk) -> Option<&Leader> {
        self.leaders
            .iter()
            .find(|leader| leader.asking.hash == walk.hash && leader.asking.tuple == walk.tuple)
    }

    /// The leader that the packet in `slot` is, or else the one that it follows.
    fn leader_of(&self, walk: &Walk, slot: usize) -> Option<&Leader> {
        // They were noted in the order of the slots.
        let own = self.leaders.binary_search_by_key(&slot, |leader| leader.slot).ok();
        own.and_then(|place| self.leaders.get(place)).or_else(|| self.first_of(walk))
    }
}

impl Engine {
    /// Opens the flows of all `walks` that have no end yet, and gives every one of these an end.
    pub(crate) fn open_flows<D: Device>(&mut self, device: &mut D, walks: &mut [Walk], now: Instant) {
        let mut opening = core::mem::take(&mut self.opening);
        opening.gather(device, walks, &self.directors);
        self.ask_policies(&mut opening, now);
        self.find_directors(&mut opening);
        self.ask_schedulers(&mut opening, now);
        let is_judged = self.chain.judges_packets();
        if is_judged {
            // Where packets are judged, those that follow the first one are as well, once the flow is there.
            self.finish(&opening, device, walks, |leader, slot| leader.slot == slot, now);
            self.judge_packets(device, walks, now);
        }
        self.finish(&opening, device, walks, |_, _| true, now);
        self.opening = opening;
    }

    /// Gives an end to those `walks` that have none and that `is_due` names.
    fn finish<D: Device>(
        &mut self,
        opening: &Opening,
        device: &mut D,
        walks: &mut [Walk],
        is_due: impl Fn(&Leader, usize) -> bool,
        now: Instant,
    ) {
        for (slot, walk) in walks.iter_mut().enumerate().filter(|(_, walk)| walk.end.is_none()) {
            let leader = opening.leader_of(walk, slot).copied();
            if !leader.as_ref().is_none_or(|leader| is_due(leader, slot)) {
                continue;
            }
            if let Some(journal) = &mut self.journal {
                journal.turn(slot);
            }
            let mut packet = device.packet(slot);
            if !self.pass(&mut packet, walk, now) {
                self.open_or_refuse(&mut packet, walk, leader, slot, now);
            } else if let Some(Leader { fate: Fate::Picked(place, view), slot: own, .. }) = leader
                && own == slot
                && let Some(director) = self.directors.at_mut(place)
            {
                // An earlier packet of the batch has opened its flow.
                director.unassign(view, walk.protocol, now);
            }
        }
    }

    fn ask_policies(&mut self, opening: &mut Opening, now: Instant) {
        if self.chain.is_empty() {
            return;
        }
        opening.asking.clear();
        let asked = opening.leaders.iter().filter(|leader| leader.fate == Fate::Asked);
        opening.asking.extend(asked.map(|leader| leader.asking));
        if let Some(journal) = &mut self.journal {
            let slots = opening.leaders.iter().filter(|leader| leader.fate == Fate::Asked);
            let slots: Vec<usize> = slots.map(|leader| leader.slot).collect();
            decide_aloud(&mut self.chain, journal, &opening.asking, &slots, now);
        } else {
            self.chain.decide(&opening.asking, now);
        }
        let decided = self.chain.decided();
        let asked = opening.leaders.iter_mut().filter(|leader| leader.fate == Fate::Asked);
        for (leader, decided) in asked.zip(decided) {
            leader.judges = decided.met;
            leader.fate = match decided.verdict {
                PolicyVerdict::Skip => Fate::Asked,
                PolicyVerdict::Deny => Fate::Refused(DropReason::PolicyDenied),
                PolicyVerdict::Permit => fate_by_binding(&self.directors, &leader.asking.tuple),
                PolicyVerdict::Table(place) => {
                    leader.table = permit::table_number(place);
                    fate_by_binding(&self.directors, &leader.asking.tuple)
                }
                PolicyVerdict::Director(number) => {
                    self.directors.of_plan(number).map_or(Fate::Refused(DropReason::NoDirector), Fate::To)
                }
            };
        }
        self.fetch_policy_faults();
    }

    /// Applies the default to flows that no policy decided, and refuses segments that open nothing.
    fn find_directors(&mut self, opening: &mut Opening) {
        for leader in &mut opening.leaders {
            if leader.fate == Fate::Asked {
                let permits = self.exit.plan.default_permit;
                if let Some(journal) = &mut self.journal {
                    journal.note_at(leader.slot, Step::Default { permits }, None);
                }
                leader.fate = if self.exit.plan.default_permit {
                    fate_by_binding(&self.directors, &leader.asking.tuple)
                } else {
                    Fate::Refused(DropReason::PolicyDenied)
                };
            }
            let chosen = leader.fate;
            if let Fate::To(place) = leader.fate
                && let Some(reason) = self.reason_against(place, leader)
            {
                let mid_stream = self.directors.at(place).map(|director| director.mid_stream);
                leader.is_reset = leader.kind == Opener::MidStream && mid_stream == Some(MidStream::Refuse);
                leader.fate = Fate::Refused(reason);
            }
            if let Some(journal) = &mut self.journal
                && let Some(step) = directed(&self.directors, chosen, leader.fate)
            {
                journal.note_at(leader.slot, step, None);
            }
        }
    }

    /// Why the director at `place` can not take the flow of `leader`, if it can not.
    fn reason_against(&self, place: u16, leader: &Leader) -> Option<DropReason> {
        let Some(director) = self.directors.at(place) else { return Some(DropReason::NoDirector) };
        let protocol = leader.asking.tuple.protocol;
        let mut bound = director.binds.iter().filter_map(|binding| binding.protocol).peekable();
        let is_query = protocol == Protocol::ICMP || protocol == Protocol::ICMPV6;
        // Flow rules lead to a director whatever it is bound to, but its real servers speak what it is bound to.
        if !is_query && bound.peek().is_some() && bound.all(|bound| bound != protocol) {
            return Some(DropReason::NoDirector);
        }
        match (leader.kind, director.mid_stream) {
            (Opener::First, _) | (Opener::MidStream, MidStream::Pick) => None,
            (Opener::MidStream, MidStream::Refuse | MidStream::Drop) => Some(DropReason::NoFlow),
            (Opener::Never, _) if is_query => Some(DropReason::IcmpUnhandled),
            (Opener::Never, _) => Some(DropReason::Fragment),
        }
    }

    /// Asks the scheduler of each director that has new flows, once for all of them. A client that sticks to a real
    /// server is not asked about; of several flows of a new such client the first is, and the others follow it.
    fn ask_schedulers(&mut self, opening: &mut Opening, now: Instant) {
        // Each turn serves one director, and at least one flow of it.
        for _ in 0..opening.leaders.len() {
            let next = opening.leaders.iter().find_map(|leader| match leader.fate {
                Fate::To(place) => Some(place),
                Fate::Asked | Fate::Picked(..) | Fate::Refused(_) => None,
            });
            let Some(place) = next else { break };
            self.gather_questions(opening, place, now);
            if opening.picking.is_empty() {
                continue;
            }
            let Some(answers) = opening.answers.get_mut(..opening.picking.len()) else { break };
            answers.fill(None);
            let Some(director) = self.directors.at_mut(place) else { break };
            self.exit.counters.scheduler_calls += 1;
            let question = self.journal.as_mut().map(|journal| {
                journal.touch(|touched| {
                    touched.schedulers.insert(place);
                });
                director.prepare(now);
                let question = Question::of(director, &opening.picking, journal.is_thorough());
                journal.turn(0);
                question
            });
            director.pick(&opening.picking, answers, now);
            if let (Some(journal), Some(question)) = (&mut self.journal, question) {
                let took = journal.share(answers.len());
                let asked = opening.asked.iter().zip(&opening.picking).zip(&*answers).enumerate();
                for (number, ((leader, flow), answer)) in asked {
                    let Some(leader) = opening.leaders.get(*leader) else { continue };
                    let pick = question.answered(director, flow, number, *answer);
                    journal.note_at(leader.slot, Step::Picked(pick), took);
                }
            }
            let fault = director.scheduler_mut().take_fault();
            if fault.is_some() {
                let name = director.name.clone();
                let gone = director.judge(now);
                let to = String::from(director.scheduler().name());
                self.push_fault(&name, fault);
                if let Some(from) = gone {
                    self.push_event(Event::SchedulerRolledBack { director: name, from, to });
                }
            }
            for (number, answer) in opening.asked.iter().zip(answers) {
                let fate =
                    answer.map_or(Fate::Refused(DropReason::NoServer), |view| Fate::Picked(place, view));
                let Some(leader) = opening.leaders.get_mut(*number) else { continue };
                leader.fate = fate;
                if let Fate::Picked(place, view) = fate {
                    self.stick(place, leader, view, now);
                }
            }
        }
    }

    /// Notes what to ask the scheduler of the director at `place`, after settling what needs no asking.
    fn gather_questions(&mut self, opening: &mut Opening, place: u16, now: Instant) {
        opening.picking.clear();
        opening.sticking.clear();
        opening.asked.clear();
        let needs_weight = self.exit.plan.handling.expires_quiescent;
        let Some(director) = self.directors.at_mut(place) else { return };
        for (number, leader) in opening.leaders.iter_mut().enumerate() {
            if leader.fate != Fate::To(place) {
                continue;
            }
            if let Some(persistence) = &director.persistence {
                let key = sticky::key(place, leader.asking.tuple.source, persistence);
                let known = self.sticky.find(&key);
                let view = known.and_then(|(slot, id)| director.view_of(slot, id, needs_weight));
                if let Some(journal) = &mut self.journal {
                    journal.touch(|touched| touched.sticks.push(key));
                    let step = stick(director, &key, known.map(|(slot, _)| slot), view.is_some());
                    journal.note_at(leader.slot, step, None);
                }
                if let Some(view) = view {
                    director.assign(view, leader.asking.tuple.protocol, now);
                    leader.fate = Fate::Picked(place, view);
                    continue;
                }
                if opening.sticking.contains(&key) {
                    continue;
                }
                opening.sticking.push(key);
            }
            opening.asked.push(number);
            opening.picking.push(NewFlow { hash: leader.asking.hash, tuple: leader.asking.tuple });
        }
    }

    /// Lets the client of `leader` stick to the server with this view from now on, before its flow is open: other flows
    /// of the same batch follow it.
    fn stick(&mut self, place: u16, leader: &Leader, view: u16, now: Instant) {
        let Some(director) = self.directors.at(place) else { return };
        if let (Some(persistence), Some((slot, id))) = (&director.persistence, director.identity(view)) {
            let key = sticky::key(place, leader.asking.tuple.source, persistence);
            self.sticky.open(key, slot, id, persistence.timeout, now);
            // The flow counts when it is open.
            self.sticky.close(&key, slot);
        }
    }

    fn open_or_refuse(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        leader: Option<Leader>,
        slot: usize,
        now: Instant,
    ) {
        let fate = leader.map_or(Fate::Asked, |leader| leader.fate);
        let is_leader = leader.is_some_and(|leader| leader.slot == slot);
        let result = match fate {
            Fate::Picked(director, view) if is_leader => {
                let way = leader.map_or((MAIN, 0), |leader| (leader.table, leader.judges));
                self.open_checked(packet, walk, (director, view), way, now)
            }
            // The flow of its leader could not be opened, so neither can this one.
            Fate::Picked(..) | Fate::Asked | Fate::To(_) => Err(DropReason::NoServer),
            Fate::Refused(DropReason::NoDirector) => self.answer_one_packet(packet, walk, now),
            Fate::Refused(reason) => Err(reason),
        };
        match result {
            Ok(Some(end)) => walk.end = Some(end),
            // The flow is there now, so the packet is one of a known flow.
            Ok(None) => {
                self.pass(packet, walk, now);
            }
            Err(reason) => {
                if reason == DropReason::PolicyDenied {
                    self.refuse_fragments(packet, walk);
                }
                walk.end = Some(self.refuse(packet, walk, leader, reason, now));
            }
        }
    }

    /// Tells the sender of a packet that opens no flow, where that helps.
    fn refuse(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        leader: Option<Leader>,
        reason: DropReason,
        now: Instant,
    ) -> Verdict {
        let is_others = reason == DropReason::NoDirector
            // Where somebody else may serve it, nobody is told.
            && (walk.is_foreign || self.passes(walk) || !self.directors.is_served(walk.tuple.destination));
        if reason == DropReason::NoDirector && !is_others && walk.protocol == Protocol::TCP {
            // At an address of source NAT alone, a SYN that nobody asked for is met with silence (RFC 5382 REQ-4).
            if walk.segment.flags.is_opening() && !self.directors.is_bound(walk.tuple.destination) {
                return Verdict::Drop(reason);
            }
            let told = self.exit.send_reset(packet, walk, now);
            return Verdict::Drop(told.err().unwrap_or(reason));
        }
        let is_full = matches!(
            reason,
            DropReason::FlowTableFull | DropReason::PortsExhausted | DropReason::ClientLimit
        );
        let error = if reason == DropReason::NoServer || (reason == DropReason::NoDirector && !is_others) {
            Some(IcmpError::PortUnreachable)
        } else {
            (is_full && self.exit.plan.handling.tells_exhausted).then_some(IcmpError::Prohibited)
        };
        if let Some(error) = error {
            self.exit.send_error(packet, walk, error, &self.directors, now);
        }
        let is_reset = reason == DropReason::NoFlow && leader.is_some_and(|leader| leader.is_reset);
        let told = if is_reset { self.exit.send_reset(packet, walk, now) } else { Ok(()) };
        Verdict::Drop(told.err().unwrap_or(reason))
    }

    fn passes(&self, walk: &Walk) -> bool {
        self.exit.plan.interfaces.get(walk.interface.index()).is_some_and(|plan| plan.passes_to.is_some())
    }

    /// Opens the flow of `walk` if its packet adds up, or sends it on alone where each packet is scheduled on its own.
    fn open_checked(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        (place, view): (u16, u16),
        (table, judges): (u8, u8),
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let is_one_packet = walk.protocol == Protocol::UDP
            && self.directors.at(place).is_some_and(|director| director.is_one_packet);
        let result = if self.exit.plan.handling.verifies_checksums && !adds_up(packet, walk) {
            Err(DropReason::BadChecksum)
        } else if is_one_packet {
            self.send_one(packet, walk, (place, view), table, now).map(Some)
        } else {
            self.open_flow(walk, (place, view), (table, judges), now).map(|()| None)
        };
        if (result.is_err() || is_one_packet)
            && let Some(director) = self.directors.at_mut(place)
        {
            director.unassign(view, walk.protocol, now);
        }
        result
    }

    /// Sends a packet to the server that was picked, and forgets it.
    fn send_one(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        (place, view): (u16, u16),
        table: u8,
        now: Instant,
    ) -> Result<Verdict, DropReason> {
        let mut entry = self.make_entry(walk, (place, view), table, now)?;
        let tuple = walk.tuple;
        let carried = self.exit.carry(packet, walk, &mut entry, Direction::Original, &self.directors, now);
        self.note_carried(&entry, Direction::Original, None, (tuple, walk), carried.as_ref().err().copied());
        let verdict = carried?;
        if let Some(director) = self.directors.at_mut(place) {
            let slot = director.open_and_close(view);
            if let Some(server) = slot.and_then(|slot| director.server_mut(slot)) {
                server.count(Direction::Original, walk.length);
            }
        }
        Ok(verdict)
    }

    /// Sends a datagram that answers one that was scheduled on its own back to its client, in the service's name.
    fn answer_one_packet(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &mut Walk,
        now: Instant,
    ) -> Result<Option<Verdict>, DropReason> {
        let FiveTuple { source, destination, source_port, destination_port, protocol } = walk.tuple;
        if protocol != Protocol::UDP {
            return Err(DropReason::NoDirector);
        }
        let place = self.directors.one_packet_of(source, source_port).ok_or(DropReason::NoDirector)?;
        let director = self.directors.at(place).ok_or(DropReason::NoDirector)?;
        let is_its = |binding: &&Binding| binding.network.address.is_ipv4() == source.is_v4();
        let binding = director.binds.iter().find(is_its).ok_or(DropReason::NoDirector)?;
        let out = self.exit.routes.find(destination).ok_or(DropReason::NoRoute)?;
        let mut entry = FlowEntry {
            client: destination,
            service: binding.network.address.into(),
            server: source,
            mapped: destination,
            client_port: destination_port,
            service_port: binding.port().unwrap_or(source_port),
            server_port: source_port,
            mapped_port: destination_port,
            director: place,
            interface_in: number_of(out.interface),
            ..FlowEntry::new(FlowState::Udp, self.generation)
        };
        entry.set_deltas();
        let back = NextHop { interface: walk.interface, address: source, table: MAIN };
        entry.ways = self.find_ways(&entry, &back, Some(Flags(0)), now)?;
        let tuple = walk.tuple;
        let carried = self.exit.carry(packet, walk, &mut entry, Direction::Reply, &self.directors, now);
        self.note_carried(&entry, Direction::Reply, None, (tuple, walk), carried.as_ref().err().copied());
        carried.map(Some)
    }

    /// Enters the flow of `walk` into the table, towards the server that was picked.
    fn open_flow(
        &mut self,
        walk: &Walk,
        (place, view): (u16, u16),
        (table, judges): (u8, u8),
        now: Instant,
    ) -> Result<(), DropReason> {
        let client = walk.tuple.source;
        if !self.clients.may_open(client) {
            return Err(DropReason::ClientLimit);
        }
        let mut entry = self.make_entry(walk, (place, view), table, now)?;
        entry.traits = entry.traits.judged_by(judges);
        let director = self.directors.at_mut(place).ok_or(DropReason::NoDirector)?;
        entry.server_slot = director.identity(view).ok_or(DropReason::NoServer)?.0;
        if let Some(journal) = &mut self.journal
            && !entry.is_one_sided()
        {
            journal.touch_tuple(entry.tuple(Direction::Reply));
        }
        let inserted = self.flows.insert(entry.clone(), walk.hash).map_err(|error| {
            self.release_port(&entry);
            match error {
                InsertError::Full => {
                    self.note_full();
                    DropReason::FlowTableFull
                }
                InsertError::Taken => DropReason::PortsExhausted,
            }
        })?;
        let has_evicted = inserted.evicted.is_some();
        self.note(|_| Step::Opened { has_evicted });
        if let Some(evicted) = inserted.evicted {
            self.exit.counters.half_open_evicted += 1;
            self.farewell(&evicted);
        }
        let Some(director) = self.directors.at_mut(place) else { return Err(DropReason::NoDirector) };
        director.open(view, walk.hash, walk.protocol, now);
        if director.times_flows() {
            self.flows.note_beginning(inserted.id, now);
        }
        if let (Some(persistence), Some((slot, id))) = (&director.persistence, director.identity(view)) {
            self.sticky.open(sticky::key(place, client, persistence), slot, id, persistence.timeout, now);
        }
        self.clients.open(client);
        self.exit.counters.flows_opened += 1;
        Ok(())
    }

    fn make_entry(
        &mut self,
        walk: &Walk,
        (place, view): (u16, u16),
        table: u8,
        now: Instant,
    ) -> Result<FlowEntry, DropReason> {
        let director = self.directors.at(place).ok_or(DropReason::NoDirector)?;
        let server = director.viewed(view).ok_or(DropReason::NoServer)?;
        let out = self.exit.routes.find_in(table, server.address).ok_or(DropReason::NoRoute)?;
        let is_v4 = walk.tuple.destination.is_v4();
        if !director.mode.is_one_sided() && server.address.is_v4() != is_v4 {
            return Err(DropReason::NoServer);
        }
        let mut entry = FlowEntry { director: place, ..towards(director, server, walk, self.generation) };
        let lifetime = self.exit.lifetime(entry.state);
        entry.expires = Instant::from_nanos(now.as_nanos().saturating_add(lifetime));
        let source_port = walk.tuple.source_port;
        let service_port = walk.tuple.destination_port;
        let nat = director.source_nat(walk.interface, out.interface, service_port, is_v4);
        if let Some(nat) = nat {
            entry.mapped = nat.address.into();
            let key = pool_key(&entry);
            let taken = self.ports.take(key, source_port, &nat.ports, walk.hash);
            if let Some(journal) = &mut self.journal {
                journal.touch(|touched| touched.pools.push(key));
                journal.note(Step::Mapped { address: entry.mapped, wanted: source_port, port: taken });
            }
            let Some(port) = taken else {
                let (director, server) = (director.name.clone(), server.name.clone());
                self.note_exhausted(director, server);
                return Err(DropReason::PortsExhausted);
            };
            entry.mapped_port = port;
            entry.traits = entry.traits.with(Traits::HOLDS_PORT);
        }
        entry.set_deltas();
        match self.find_ways(&entry, &out, Some(walk.segment.flags), now) {
            Ok(ways) => entry.ways = ways,
            Err(reason) => {
                self.release_port(&entry);
                return Err(reason);
            }
        }
        Ok(entry)
    }
}

/// The number of an interface as an entry keeps it; a plan has at most 255.
fn number_of(interface: InterfaceId) -> u8 {
    u8::try_from(interface.0).unwrap_or(u8::MAX)
}

/// Whether the layer-4 checksum of a whole packet is right, or left to the device.
fn adds_up(packet: &mut PacketBuffer<'_>, walk: &Walk) -> bool {
    if packet.offload.needs_checksum || walk.subject != Subject::Packet {
        return true;
    }
    let start = walk.range.start + usize::from(walk.layer_4);
    let payload = packet.buffer.get(start..walk.range.end).unwrap_or_default();
    let FiveTuple { source, destination, protocol, .. } = walk.tuple;
    let is_none = protocol == Protocol::UDP && payload.get(6..8) == Some(&[0, 0]);
    let length = u32::try_from(payload.len()).unwrap_or(0);
    let sum = match protocol {
        Protocol::ICMP => 0,
        _ if source.is_v4() => {
            let length = u16::try_from(payload.len()).unwrap_or(0);
            checksum::pseudo_header_v4(source.v4_bytes(), destination.v4_bytes(), protocol.0, length)
        }
        _ => checksum::pseudo_header_v6(source.v6_bytes(), destination.v6_bytes(), protocol.0, length),
    };
    (is_none && source.is_v4()) || checksum::is_valid(sum, payload)
}

impl Engine {
    /// Notes that the flow table has become full, once until there is room again.
    fn note_full(&mut self) {
        if !self.was_full {
            self.was_full = true;
            self.push_event(Event::FlowTableFull { flows_max: self.exit.plan.limits.flows_max });
        }
    }

    /// Notes that ports have run out, once until a flow has ended.
    fn note_exhausted(&mut self, director: String, server: String) {
        if !self.was_exhausted {
            self.was_exhausted = true;
            self.push_event(Event::PortsExhausted { director, server });
        }
    }
}

/// The flow that `walk` would begin with `server`, before its source is translated.
fn towards(director: &Director, server: &Server, walk: &Walk, generation: u8) -> FlowEntry {
    let FiveTuple { source, destination, source_port, destination_port, protocol } = walk.tuple;
    let is_one_sided = director.mode.is_one_sided();
    let state = match protocol {
        Protocol::UDP => FlowState::Udp,
        Protocol::TCP if is_one_sided => FlowState::SynReceived,
        Protocol::TCP => FlowState::SynSent,
        _ => FlowState::Icmp,
    };
    let keeps_port = server.port == 0 || state == FlowState::Icmp || is_one_sided;
    let mut traits = Traits::HALF_OPEN;
    if is_one_sided {
        traits = traits.with(Traits::ONE_SIDED);
    }
    if director.persistence.is_some() {
        traits = traits.with(Traits::STICKS);
    }
    FlowEntry {
        client: source,
        service: destination,
        server: server.address,
        mapped: source,
        client_port: source_port,
        service_port: destination_port,
        server_port: if keeps_port { destination_port } else { server.port },
        mapped_port: source_port,
        traits,
        interface_in: number_of(walk.interface),
        track: TcpTrack::default(),
        ..FlowEntry::new(state, generation)
    }
}

/// What is to be said of the director that was `chosen` for a flow, and of what that came to.
fn directed(directors: &Directors, chosen: Fate, fate: Fate) -> Option<Step> {
    let refused = if let Fate::Refused(reason) = fate { Some(reason) } else { None };
    let director = match chosen {
        Fate::To(place) => directors.at(place).map(|director| director.name.clone()),
        // Somebody said no before it was asked who serves it.
        Fate::Refused(DropReason::PolicyDenied) => return None,
        Fate::Refused(_) | Fate::Asked | Fate::Picked(..) => None,
    };
    Some(Step::Directed { director, refused })
}

/// The director that serves a tuple: by its pings for a query, by its bindings else.
fn fate_by_binding(directors: &Directors, tuple: &FiveTuple) -> Fate {
    let place = match tuple.protocol {
        Protocol::ICMP | Protocol::ICMPV6 => match directors.pinged(tuple.destination) {
            Pinged::Forwarded(place) => Some(place),
            Pinged::Stranger | Pinged::Own | Pinged::Served | Pinged::Unserved => {
                return Fate::Refused(DropReason::IcmpUnhandled);
            }
        },
        protocol => directors.bound_to(tuple.destination, tuple.destination_port, protocol),
    };
    place.map_or(Fate::Refused(DropReason::NoDirector), Fate::To)
}
