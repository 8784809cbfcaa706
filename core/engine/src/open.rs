//! How a new flow comes to be: permission, director, real server, entry.
//!
//! All new flows of a batch are asked about together, one call per policy and per director, in the order of their
//! packets. Further packets of the same new flow in the batch wait for the first and then follow it.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::device::{BATCH_MAX, Device, PacketBuffer};
use crate::director::NewFlow;
use crate::engine::{Engine, pool_key, source_nat};
use crate::event::Event;
use crate::flow::{FlowEntry, FlowId, FlowState, InsertError};
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::reply::IcmpError;
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};
use crate::walk::Walk;
use crate::wire::checksum::Delta;
use crate::wire::{FiveTuple, Protocol};

/// Room for the new flows of one batch, allocated once.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    leaders: Vec<Leader>,
    asking: Vec<PolicyFlow>,
    verdicts: Vec<PolicyVerdict>,
    picking: Vec<NewFlow>,
    answers: Vec<Option<u16>>,
}

/// A new flow, with the walk that opens it.
#[derive(Clone, Copy, Debug)]
struct Leader {
    slot: usize,
    hash: u64,
    tuple: FiveTuple,
    opens: bool,
    fate: Fate,
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
            verdicts: vec![PolicyVerdict::Skip; BATCH_MAX],
            picking: Vec::with_capacity(BATCH_MAX),
            answers: vec![None; BATCH_MAX],
        }
    }

    /// Notes the walks that no flow is known for, one leader for each tuple.
    fn gather(&mut self, walks: &[Walk]) {
        self.leaders.clear();
        for (slot, walk) in walks.iter().enumerate().filter(|(_, walk)| walk.end.is_none()) {
            if self.leader_of(walk).is_none() {
                let opens = walk.tuple.protocol != Protocol::TCP || walk.flags.is_opening();
                let (hash, tuple) = (walk.hash, walk.tuple);
                self.leaders.push(Leader { slot, hash, tuple, opens, fate: Fate::Asked });
            }
        }
    }

    fn leader_of(&self, walk: &Walk) -> Option<&Leader> {
        self.leaders.iter().find(|leader| leader.hash == walk.hash && leader.tuple == walk.tuple)
    }
}

impl Engine {
    /// Opens the flows of all `walks` that have no end yet, and gives every one of these an end.
    pub(crate) fn open_flows<D: Device>(&mut self, device: &mut D, walks: &mut [Walk], now: Instant) {
        let mut opening = core::mem::take(&mut self.opening);
        opening.gather(walks);
        self.ask_policies(&mut opening, walks, now);
        self.find_directors(&mut opening);
        self.ask_schedulers(&mut opening, now);
        for slot in 0..walks.len() {
            let Some(walk) = walks.get_mut(slot).filter(|walk| walk.end.is_none()) else { continue };
            let mut packet = device.packet(slot);
            if !self.pass(&mut packet, walk, now) {
                let leader = opening.leader_of(walk).copied();
                self.open_or_refuse(&mut packet, walk, leader, slot, now);
            }
        }
        self.opening = opening;
    }

    fn ask_policies(&mut self, opening: &mut Opening, walks: &[Walk], now: Instant) {
        for number in 0..self.stages.len() {
            opening.asking.clear();
            for leader in opening.leaders.iter().filter(|leader| leader.fate == Fate::Asked) {
                let Some(walk) = walks.get(leader.slot) else { continue };
                let (hash, tuple, interface) = (leader.hash, leader.tuple, walk.interface);
                opening.asking.push(PolicyFlow { hash, tuple, interface });
            }
            let (Some(stage), Some(verdicts)) =
                (self.stages.get_mut(number), opening.verdicts.get_mut(..opening.asking.len()))
            else {
                continue;
            };
            verdicts.fill(PolicyVerdict::Skip);
            let policy = stage.policy_mut();
            policy.decide(&opening.asking, verdicts, now);
            let fault = policy.take_fault().map(|fault| (String::from(policy.name()), fault));
            let asked = opening.leaders.iter_mut().filter(|leader| leader.fate == Fate::Asked);
            for (leader, verdict) in asked.zip(verdicts) {
                leader.fate = match *verdict {
                    PolicyVerdict::Skip => Fate::Asked,
                    PolicyVerdict::Deny => Fate::Refused(DropReason::PolicyDenied),
                    PolicyVerdict::Permit => fate_by_binding(&self.directors, &leader.tuple),
                    PolicyVerdict::Director(number) => {
                        self.directors.of_plan(number).map_or(Fate::Refused(DropReason::NoDirector), Fate::To)
                    }
                };
            }
            if let Some((name, fault)) = fault {
                self.push_fault(&name, Some(fault));
            }
        }
    }

    /// Applies the default to flows that no policy decided, and refuses segments that open nothing.
    fn find_directors(&self, opening: &mut Opening) {
        for leader in &mut opening.leaders {
            if leader.fate == Fate::Asked {
                leader.fate = if self.plan.default_permit {
                    fate_by_binding(&self.directors, &leader.tuple)
                } else {
                    Fate::Refused(DropReason::PolicyDenied)
                };
            }
            if let Fate::To(place) = leader.fate {
                let director = self.directors.at(place);
                if director.is_none_or(|director| director.protocol != leader.tuple.protocol) {
                    leader.fate = Fate::Refused(DropReason::NoDirector);
                } else if !leader.opens {
                    leader.fate = Fate::Refused(DropReason::NoFlow);
                }
            }
        }
    }

    /// Asks the scheduler of each director that has new flows, once for all of them.
    fn ask_schedulers(&mut self, opening: &mut Opening, now: Instant) {
        // Each turn serves one director; a batch has at most as many as packets.
        for _ in 0..opening.leaders.len() {
            let next = opening.leaders.iter().find_map(|leader| match leader.fate {
                Fate::To(place) => Some(place),
                Fate::Asked | Fate::Picked(..) | Fate::Refused(_) => None,
            });
            let Some(place) = next else { break };
            opening.picking.clear();
            let its = opening.leaders.iter().filter(|leader| leader.fate == Fate::To(place));
            opening.picking.extend(its.map(|leader| NewFlow { hash: leader.hash, tuple: leader.tuple }));
            let Some(answers) = opening.answers.get_mut(..opening.picking.len()) else { break };
            answers.fill(None);
            let Some(director) = self.directors.at_mut(place) else { break };
            self.counters.scheduler_calls += 1;
            director.pick(&opening.picking, answers, now);
            let fault = director.scheduler_mut().take_fault();
            if fault.is_some() {
                let name = director.name.clone();
                self.push_fault(&name, fault);
            }
            let its = opening.leaders.iter_mut().filter(|leader| leader.fate == Fate::To(place));
            for (leader, answer) in its.zip(answers) {
                leader.fate =
                    answer.map_or(Fate::Refused(DropReason::NoServer), |view| Fate::Picked(place, view));
            }
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
            Fate::Picked(director, view) if is_leader => self.open_flow(walk, director, view, now),
            // The flow of its leader could not be opened, so neither can this one.
            Fate::Picked(..) | Fate::Asked | Fate::To(_) => Err(DropReason::NoServer),
            Fate::Refused(reason) => Err(reason),
        };
        match result {
            // The flow is there now, so the packet is one of a known flow.
            Ok(_) => {
                self.pass(packet, walk, now);
            }
            Err(reason) => walk.end = Some(self.refuse(packet, walk, reason, now)),
        }
    }

    /// Tells the sender of a packet that opens no flow, where that helps.
    fn refuse(
        &mut self,
        packet: &mut PacketBuffer<'_>,
        walk: &Walk,
        reason: DropReason,
        now: Instant,
    ) -> Verdict {
        if reason == DropReason::NoServer {
            self.send_error(packet, walk.range.clone(), IcmpError::PortUnreachable, now);
        }
        let is_lost = reason == DropReason::NoFlow;
        let told = if is_lost { self.send_reset(packet, walk.range.clone(), now) } else { Ok(()) };
        Verdict::Drop(told.err().unwrap_or(reason))
    }

    /// Enters the flow of `walk` into the table, towards the server that was picked.
    fn open_flow(&mut self, walk: &Walk, place: u16, view: u16, now: Instant) -> Result<FlowId, DropReason> {
        let result = self.make_entry(walk, place, view, now).and_then(|entry| {
            let inserted = self.flows.insert(entry.clone(), walk.hash);
            inserted.map_err(|error| {
                self.release_port(&entry);
                match error {
                    InsertError::Full => {
                        self.note_full();
                        DropReason::FlowTableFull
                    }
                    InsertError::Taken => DropReason::PortsExhausted,
                }
            })
        });
        let Some(director) = self.directors.at_mut(place) else { return Err(DropReason::NoDirector) };
        match result {
            Ok(id) => {
                let slot = director.open(view);
                if let (Some(entry), Some(slot)) = (self.flows.entry_mut(id), slot) {
                    entry.server_slot = slot;
                }
                self.counters.flows_opened += 1;
            }
            Err(_) => director.unassign(view),
        }
        result
    }

    fn make_entry(
        &mut self,
        walk: &Walk,
        place: u16,
        view: u16,
        now: Instant,
    ) -> Result<FlowEntry, DropReason> {
        let director = self.directors.at(place).ok_or(DropReason::NoDirector)?;
        let server = director.viewed(view).ok_or(DropReason::NoServer)?;
        let out = self.routes.find(server.address).ok_or(DropReason::NoRoute)?;
        let FiveTuple { source, destination, source_port, destination_port, protocol } = walk.tuple;
        let state = if protocol == Protocol::TCP { FlowState::SynSent } else { FlowState::Udp };
        let lifetime = self.lifetimes.get(state as usize).copied().unwrap_or(0);
        let mut entry = FlowEntry {
            client: source,
            service: destination,
            server: server.address,
            mapped: source,
            client_port: source_port,
            service_port: destination_port,
            server_port: server.port,
            mapped_port: source_port,
            protocol,
            state,
            director: place,
            server_slot: 0,
            expires: Instant::from_nanos(now.as_nanos().saturating_add(lifetime)),
            generation: self.generation,
            address_delta: Delta::NONE,
            tuple_delta: Delta::NONE,
            client_interface: walk.interface,
            server_interface: out.interface,
            packets_original: 0,
            packets_reply: 0,
            bytes: 0,
        };
        if let Some(nat) = source_nat(&director.mode) {
            entry.mapped = nat.address.into();
            let taken = self.ports.take(pool_key(&entry), source_port, &nat.ports, walk.hash);
            let Some(port) = taken else {
                let (director, server) = (director.name.clone(), server.name.clone());
                self.note_exhausted(director, server);
                return Err(DropReason::PortsExhausted);
            };
            entry.mapped_port = port;
        }
        entry.set_deltas();
        Ok(entry)
    }
}

impl Engine {
    /// Notes that ports have run out, once until a flow has ended.
    fn note_exhausted(&mut self, director: String, server: String) {
        if !self.was_exhausted {
            self.was_exhausted = true;
            self.push_event(Event::PortsExhausted { director, server });
        }
    }
}

fn fate_by_binding(directors: &crate::director::Directors, tuple: &FiveTuple) -> Fate {
    let place = directors.bound_to(tuple.destination, tuple.destination_port, tuple.protocol);
    place.map_or(Fate::Refused(DropReason::NoDirector), Fate::To)
}
