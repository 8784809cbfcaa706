//! What of an engine's state one decision looked at, as bytes, and an engine that knows only that: so the decision can be
//! made again elsewhere.
//!
//! ```text
//! Engine::explain -> Touched -> Engine::remember -> bytes -> Memory -> a new engine of the same plan, Engine::recall
//! ```
//! Real servers, directors, tables and components are named by their place in the plan, which is the same in both engines.
//!
//! What a component said is in the bytes: it can not be copied, and asked twice it may say something else.

mod bytes;

use alloc::vec::Vec;

use crate::director::builtin::seed_of;
use crate::director::{Directors, native};
use crate::engine::Engine;
use crate::explain::Explanation;
use crate::flow::fragments::{FragmentKey, PIECES_MAX, Passed, Phase};
use crate::flow::tcp_track::TcpTrack;
use crate::flow::{Birth, FlowEntry, FlowState, FlowTable, Tally, Traits};
use crate::journal::{PolicyTold, Route, Step};
use crate::nat::PoolKey;
use crate::plan::{Layer, Plan};
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::time::{Duration, Instant};
use crate::verdict::{DropReason, InterfaceId, Verdict};
use crate::wire::ethernet::MacAddress;
use crate::wire::{Address, FiveTuple, HashKey, Protocol};
use bytes::{Read, Write};

/// The form of these bytes. Another one is not read.
const FORM: u64 = 2;

/// Why a decision can not be made again from bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// A component decides that was not asked, and whose state nobody can read.
    #[error("a component decides, and its state is its own")]
    Component,
    /// Packets that wait for a neighbour leave it no room.
    #[error("it depends on the packets that wait for a neighbour")]
    Neighbours,
    /// Somebody else schedules for the director than the plan says.
    #[error("the director has another scheduler than its configuration says")]
    Scheduler,
    /// It belongs to something that the plan no longer has.
    #[error("it depends on a director or a real server that the configuration no longer has")]
    Gone,
    /// The bytes are none.
    #[error("the bytes end early, or mean nothing")]
    Bytes,
}

/// What [`Engine::remember`] gave, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// When the packet came.
    pub now: Instant,
    /// Where it came in.
    pub interface: InterfaceId,
    /// The packet.
    pub packet: Vec<u8>,
    /// The real server that the scheduler picked: the places of the director and the server in the plan.
    pub pick: Option<(u16, u16)>,
    /// What components about policy answered.
    pub answers: Vec<PolicyTold>,
    hash_key: HashKey,
    seed: u64,
    macs: Vec<Option<MacAddress>>,
    /// What the engine knew, still to be read.
    state: Vec<u8>,
}

impl Memory {
    /// Reads what [`Engine::remember`] gave.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(bytes: &[u8]) -> Result<Self, MemoryError> {
        let mut read = Read(bytes);
        if read.number()? != FORM {
            return Err(MemoryError::Bytes);
        }
        let hash_key = HashKey([read.number()?, read.number()?]);
        let seed = read.number()?;
        let macs = read.many(|read| match read.number()? {
            0 => Ok(None),
            mac => Ok(Some(mac_of(mac - 1))),
        })?;
        let now = Instant::from_nanos(read.number()?);
        let interface = InterfaceId(read.small()?);
        let packet = read.bytes()?.to_vec();
        let pick = match read.number()? {
            0 => None,
            _ => Some((read.small()?, read.small()?)),
        };
        let answers = read.many(read_answer)?;
        Ok(Self { now, interface, packet, pick, answers, hash_key, seed, macs, state: read.0.to_vec() })
    }

    /// Gives `plan` what is not in a configuration: the seed, the hash key, and link addresses.
    pub fn complete(&self, plan: &mut Plan) {
        plan.hash_key = self.hash_key;
        plan.seed = self.seed;
        for (interface, mac) in plan.interfaces.iter_mut().zip(&self.macs) {
            if let Some(mac) = mac {
                interface.layer = Layer::Ethernet(*mac);
            }
        }
    }
}

impl Engine {
    /// What decides about the packet that was `told` of, as bytes.
    ///
    /// # Errors
    /// When part of it can not be told.
    pub fn remember(&self, told: &Explanation) -> Result<Vec<u8>, MemoryError> {
        if told.unknown().is_some() {
            return Err(MemoryError::Component);
        }
        let touched = &told.touched;
        if told.account.end == Some(Verdict::Drop(DropReason::NeighbourUnresolved)) {
            return Err(MemoryError::Neighbours);
        }
        for place in &touched.schedulers {
            let number = self.directors.number_of(*place).ok_or(MemoryError::Gone)?;
            let planned = self.exit.plan.directors.get(usize::from(number)).map(|plan| &plan.scheduler);
            if planned != self.directors.at(*place).map(|director| director.scheduler_plan()) {
                return Err(MemoryError::Scheduler);
            }
        }
        let fork = self.fork(touched);
        let mut write = Write::default();
        let HashKey([one, other]) = self.exit.plan.hash_key;
        write.numbers(&[FORM, one, other, self.exit.plan.seed]);
        write.many(self.exit.plan.interfaces.iter(), |write, interface| {
            write.number(match interface.layer {
                Layer::Ip => 0,
                Layer::Ethernet(mac) => number_of(mac) + 1,
            });
            Ok(())
        })?;
        write.numbers(&[told.account.at.as_nanos(), u64::from(told.account.interface.0)]);
        write.bytes(&told.account.before);
        self.write_pick(told, &mut write);
        write.many(touched.answers.iter(), write_answer)?;
        write.numbers(&fork.exit.answers.state());
        fork.write_flows(&mut write)?;
        let sources = touched.tuples.iter().map(|tuple| tuple.source);
        write.many(sources, |write, client| {
            write.address(client);
            write.number(u64::from(fork.clients.count(client)));
            Ok(())
        })?;
        fork.write_directors(told, &mut write)?;
        fork.write_sticks(&mut write)?;
        write.many(touched.pools.iter(), |write, key| {
            write_pool(write, key, &fork.ports.ranges(key));
            Ok(())
        })?;
        fork.write_limits(told, &mut write)?;
        write_neighbours(told, &mut write)?;
        // Other datagrams give way to a fragment, never the other way round.
        let passed = touched.datagram.and_then(|key| fork.fragments.passed(&key));
        write.many(passed.into_iter(), write_passed)?;
        Ok(write.0)
    }

    /// Lets whoever decided in `told` decide the same again, whatever they would decide now: for an engine of the same plan
    /// that has seen nothing. So components are remembered, which can not be asked twice.
    ///
    /// # Errors
    /// When the plan is another one.
    pub fn answer_as_told(&mut self, told: &Explanation) -> Result<(), MemoryError> {
        self.fix(self.picked(told), &told.touched.answers, told.account.at)
    }

    fn fix(
        &mut self,
        pick: Option<(u16, u16)>,
        answers: &[PolicyTold],
        now: Instant,
    ) -> Result<(), MemoryError> {
        if let Some((director, view)) = pick {
            let place = self.directors.of_plan(director).ok_or(MemoryError::Gone)?;
            self.directors.at_mut(place).ok_or(MemoryError::Gone)?.fix(view, now);
        }
        for PolicyTold { is_leaving, place, .. } in answers {
            let its = answers.iter().filter(|other| (other.is_leaving, other.place) == (*is_leaving, *place));
            let its = its.map(|answer| (answer.tuple, answer.verdict)).collect();
            let chain = if *is_leaving { &mut self.outflow_guests } else { &mut self.chain };
            chain.fix(usize::from(*place), its);
        }
        Ok(())
    }

    /// The places in the plan of the director and of the real server that its scheduler picked.
    fn picked(&self, told: &Explanation) -> Option<(u16, u16)> {
        let picked = told
            .account
            .steps()
            .find_map(|step| if let Step::Picked(pick) = step { Some(pick) } else { None });
        let pick = picked?;
        let number = self.directors.iter().position(|director| director.name == pick.director)?;
        let director = self.directors.iter().nth(number)?;
        let server = director.members().position(|server| Some(&server.name) == pick.server.as_ref())?;
        Some((u16::try_from(number).ok()?, u16::try_from(server).ok()?))
    }

    fn write_pick(&self, told: &Explanation, write: &mut Write) {
        match self.picked(told) {
            Some((director, server)) => write.numbers(&[1, u64::from(director), u64::from(server)]),
            None => write.number(0),
        }
    }

    fn write_flows(&self, write: &mut Write) -> Result<(), MemoryError> {
        let [flows_max, places, next] = self.flows.shape();
        write.numbers(&[flows_max as u64, places as u64, next as u64]);
        write.many(self.flows.kept(), |write, (entry, birth)| {
            let number = self.directors.number_of(entry.director).ok_or(MemoryError::Gone)?;
            let director = self.directors.at(entry.director).ok_or(MemoryError::Gone)?;
            let view = director.server(entry.server_slot).and_then(|server| server.view);
            write.numbers(&[u64::from(number), u64::from(view.ok_or(MemoryError::Gone)?)]);
            [entry.client, entry.service, entry.server, entry.mapped]
                .into_iter()
                .for_each(|address| write.address(address));
            let ports = [entry.client_port, entry.service_port, entry.server_port, entry.mapped_port];
            ports.into_iter().for_each(|port| write.number(u64::from(port)));
            write.numbers(&[entry.state as u64, u64::from(entry.traits.bits())]);
            write.number(u64::from(entry.generation == self.generation));
            write.numbers(&[entry.expires.as_nanos(), u64::from(entry.interface_in)]);
            entry.ways.into_iter().for_each(|way| write.number(u64::from(way)));
            entry.tallies.into_iter().for_each(|tally| write.number(tally.bits()));
            entry.track.numbers().into_iter().for_each(|number| write.number(u64::from(number)));
            let birth = birth.map_or([0, 0], |birth| {
                let answered = birth.answered.map_or(0, |after| nanos(after) + 1);
                [birth.at.as_nanos() + 1, answered]
            });
            write.numbers(&birth);
            Ok(())
        })
    }

    fn write_directors(&self, told: &Explanation, write: &mut Write) -> Result<(), MemoryError> {
        let mut places: Vec<u16> = told.touched.schedulers.iter().copied().collect();
        places.extend(self.flows.iter().map(|entry| entry.director));
        places.extend(told.touched.sticks.iter().map(|(place, _)| *place));
        places.sort_unstable();
        places.dedup();
        write.many(places.into_iter(), |write, place| {
            let number = self.directors.number_of(place).ok_or(MemoryError::Gone)?;
            let director = self.directors.at(place).ok_or(MemoryError::Gone)?;
            write.number(u64::from(number));
            write.many(director.members().zip(director.candidates()), |write, (server, (view, load))| {
                let flags = u64::from(view.is_up) | u64::from(view.is_full) << 1;
                let loads = [u64::from(load.active), u64::from(load.inactive)];
                write.numbers(&[u64::from(server.weight), u64::from(view.weight), flags]);
                write.numbers(&loads);
                Ok(())
            })?;
            // A copy is asked: to save changes nothing that anybody has.
            let state = director.scheduler().fork().and_then(|mut copy| copy.save(told.account.at));
            write.bytes(&state.unwrap_or_default());
            Ok(())
        })
    }

    fn write_sticks(&self, write: &mut Write) -> Result<(), MemoryError> {
        write.many(self.sticky.all(), |write, ((place, client), slot, expires, flows)| {
            let number = self.directors.number_of(place).ok_or(MemoryError::Gone)?;
            let server = self.directors.at(place).and_then(|director| director.server(slot));
            let view = server.and_then(|server| server.view).ok_or(MemoryError::Gone)?;
            write.number(u64::from(number));
            write.address(client);
            write.numbers(&[u64::from(view), expires.as_nanos(), u64::from(flows)]);
            Ok(())
        })?;
        write.number(self.sticky.most() as u64);
        Ok(())
    }

    /// The limits that have counted whom this packet counts for: as it came in, and as it leaves.
    fn write_limits(&self, told: &Explanation, write: &mut Write) -> Result<(), MemoryError> {
        let chains = [&self.chain, &self.outflow_guests];
        for (chain, asked) in chains.into_iter().zip([told.touched.asked, told.touched.asked_leaving]) {
            let counted = asked.map(|ends| chain.counted(&flow_of(ends))).unwrap_or_default();
            let (source, destination) = asked.unwrap_or_default();
            write.address(source);
            write.address(destination);
            write.many(counted.into_iter(), |write, (link, limit, used_up)| {
                write.numbers(&[link as u64, limit as u64, used_up]);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn read_limits(&mut self, read: &mut Read<'_>) -> Result<(), MemoryError> {
        for chain in [&mut self.chain, &mut self.outflow_guests] {
            let flow = flow_of((read.address()?, read.address()?));
            for _ in 0..read.count()? {
                let place = |number| usize::try_from(number).unwrap_or(usize::MAX);
                let limit = (place(read.number()?), place(read.number()?));
                chain.set_counted(limit, &flow, read.number()?);
            }
        }
        Ok(())
    }

    /// Becomes what `memory` holds: for an engine of the same plan that has seen nothing. Where `is_as_told`, the scheduler
    /// and the components that were asked answer what they answered then, whatever they would now.
    ///
    /// # Errors
    /// When the memory does not fit the plan.
    pub fn recall(&mut self, memory: &Memory, is_as_told: bool) -> Result<(), MemoryError> {
        let mut read = Read(&memory.state);
        self.now = memory.now;
        self.exit.answers.set_state([read.number()?, read.number()?]);
        self.read_flows(&mut read)?;
        for _ in 0..read.count()? {
            let client = read.address()?;
            self.clients.set_count(client, u32::try_from(read.number()?).map_err(|_| MemoryError::Bytes)?);
        }
        self.read_directors(&mut read, memory.now)?;
        self.read_sticks(&mut read)?;
        for _ in 0..read.count()? {
            let (mapped, server) = (read.address()?, read.address()?);
            let (server_port, protocol) = (read.small()?, Protocol(read.byte()?));
            let key = PoolKey { mapped, server, server_port, protocol };
            for _ in 0..read.count()? {
                self.ports.hold(key, read.small()?..=read.small()?);
            }
        }
        self.read_limits(&mut read)?;
        for _ in 0..read.count()? {
            let (interface, address, mac) =
                (InterfaceId(read.small()?), read.address()?, mac_of(read.number()?));
            self.exit.neighbours.learn(interface, address, mac, true, memory.now);
        }
        if read.number()? > 0 {
            self.fragments.recall(read_passed(&mut read)?);
        }
        if is_as_told {
            self.fix(memory.pick, &memory.answers, memory.now)?;
        }
        Ok(())
    }

    fn read_flows(&mut self, read: &mut Read<'_>) -> Result<(), MemoryError> {
        let (flows_max, places, next) = (read.number()?, read.small()?, read.small()?);
        let mut kept = Vec::new();
        for _ in 0..read.count()? {
            kept.push(self.read_flow(read)?);
        }
        let flows_max = usize::try_from(flows_max).unwrap_or(usize::MAX);
        self.flows =
            FlowTable::assemble(flows_max, places, usize::from(next), self.flows.key(), kept.into_iter());
        Ok(())
    }

    fn read_flow(&mut self, read: &mut Read<'_>) -> Result<(FlowEntry, Option<Birth>), MemoryError> {
        let (number, view) = (read.small()?, read.small()?);
        let place = self.directors.of_plan(number).ok_or(MemoryError::Gone)?;
        let slot = self.directors.at(place).and_then(|director| director.identity(view));
        let (client, service) = (read.address()?, read.address()?);
        let (server, mapped) = (read.address()?, read.address()?);
        let [client_port, service_port, server_port, mapped_port] =
            [read.small()?, read.small()?, read.small()?, read.small()?];
        let state = usize::try_from(read.number()?).ok().and_then(|at| FlowState::ALL.get(at).copied());
        let traits = Traits::of_bits(read.byte()?);
        let is_current = read.number()? == 1;
        let expires = Instant::from_nanos(read.number()?);
        let interface_in = read.byte()?;
        let ways = [read.byte()?, read.byte()?];
        let tallies = [Tally::of_bits(read.number()?), Tally::of_bits(read.number()?)];
        let mut word = || u32::try_from(read.number()?).map_err(|_| MemoryError::Bytes);
        let track = TcpTrack::of_numbers([word()?, word()?, word()?, word()?]);
        let (at, answered) = (read.number()?, read.number()?);
        let birth = at.checked_sub(1).map(|at| Birth {
            at: Instant::from_nanos(at),
            answered: answered.checked_sub(1).map(Duration::from_nanos),
        });
        let generation = if is_current { self.generation } else { 0 };
        let mut entry = FlowEntry {
            client,
            service,
            server,
            mapped,
            client_port,
            service_port,
            server_port,
            mapped_port,
            traits,
            director: place,
            server_slot: slot.ok_or(MemoryError::Gone)?.0,
            expires,
            interface_in,
            ways,
            tallies,
            track,
            ..FlowEntry::new(state.ok_or(MemoryError::Bytes)?, generation)
        };
        entry.set_deltas();
        Ok((entry, birth))
    }

    fn read_directors(&mut self, read: &mut Read<'_>, now: Instant) -> Result<(), MemoryError> {
        for _ in 0..read.count()? {
            let number = read.small()?;
            let mut servers = Vec::new();
            for _ in 0..read.count()? {
                let mut word = || u32::try_from(read.number()?).map_err(|_| MemoryError::Bytes);
                servers.push([word()?, word()?, word()?, word()?, word()?]);
            }
            let state = read.bytes()?;
            let place = self.directors.of_plan(number).ok_or(MemoryError::Gone)?;
            let seed = self.exit.plan.seed;
            let director = self.directors.at_mut(place).ok_or(MemoryError::Gone)?;
            let tuned = director.scheduler_plan().native();
            let scheduler = tuned.map(|tuned| {
                let mut scheduler = native(&tuned, seed_of(seed, &director.name));
                if !state.is_empty() {
                    scheduler.restore(state, now);
                }
                scheduler
            });
            let flows = self.flows.iter().filter(|entry| entry.director == place).count();
            if !director.recall(&servers, flows, scheduler, now) {
                return Err(MemoryError::Gone);
            }
        }
        Ok(())
    }

    fn read_sticks(&mut self, read: &mut Read<'_>) -> Result<(), MemoryError> {
        for _ in 0..read.count()? {
            let number = read.small()?;
            let client = read.address()?;
            let view = read.small()?;
            let (expires, flows) = (Instant::from_nanos(read.number()?), read.number()?);
            let place = self.directors.of_plan(number).ok_or(MemoryError::Gone)?;
            let found = self.directors.at(place).and_then(|director| director.identity(view));
            let (slot, id) = found.ok_or(MemoryError::Gone)?;
            self.sticky.recall((place, client), slot, id, expires, u32::try_from(flows).unwrap_or(u32::MAX));
        }
        self.sticky.set_most(u32::try_from(read.number()?).unwrap_or(u32::MAX));
        Ok(())
    }
}

impl Directors {
    /// Which director of the plan has this place.
    pub(crate) fn number_of(&self, place: u16) -> Option<u16> {
        let number = self.places().position(|other| other == place)?;
        u16::try_from(number).ok()
    }
}

/// A flow between these two, as far as limits look at it.
fn flow_of((source, destination): (Address, Address)) -> PolicyFlow {
    let tuple = FiveTuple { source, destination, ..FiveTuple::default() };
    PolicyFlow::new(0, tuple, InterfaceId(0))
}

fn write_pool(write: &mut Write, key: &PoolKey, held: &[(u16, u16)]) {
    write.address(key.mapped);
    write.address(key.server);
    write.numbers(&[u64::from(key.server_port), u64::from(key.protocol.0), held.len() as u64]);
    held.iter().for_each(|(first, last)| write.numbers(&[u64::from(*first), u64::from(*last)]));
}

/// The link addresses that the packet, and what was born of it, were given.
fn write_neighbours(told: &Explanation, write: &mut Write) -> Result<(), MemoryError> {
    let known = told.account.steps().filter_map(|step| {
        let Step::Carried(settlement) = step else { return None };
        let way = settlement.way?;
        let Route::Known(mac) = way.link else { return None };
        Some((way.interface, way.next_hop, mac))
    });
    write.many(known.collect::<Vec<_>>().into_iter(), |write, (interface, address, mac)| {
        write.number(u64::from(interface.0));
        write.address(address);
        write.number(number_of(mac));
        Ok(())
    })
}

fn write_answer(write: &mut Write, answer: &PolicyTold) -> Result<(), MemoryError> {
    let (kind, place) = match answer.verdict {
        PolicyVerdict::Permit => (0, 0),
        PolicyVerdict::Deny => (1, 0),
        PolicyVerdict::Director(place) => (2, place),
        PolicyVerdict::Table(place) => (3, place),
        PolicyVerdict::Skip => (4, 0),
    };
    write.numbers(&[u64::from(answer.is_leaving), u64::from(answer.place), kind, u64::from(place)]);
    write.tuple(&answer.tuple);
    Ok(())
}

fn read_answer(read: &mut Read<'_>) -> Result<PolicyTold, MemoryError> {
    let (is_leaving, place, kind, target) =
        (read.number()? == 1, read.small()?, read.number()?, read.small()?);
    let verdict = match kind {
        0 => PolicyVerdict::Permit,
        1 => PolicyVerdict::Deny,
        2 => PolicyVerdict::Director(target),
        3 => PolicyVerdict::Table(target),
        4 => PolicyVerdict::Skip,
        _ => return Err(MemoryError::Bytes),
    };
    Ok(PolicyTold { is_leaving, place, tuple: read.tuple()?, verdict })
}

/// A datagram whose fragments are under way.
fn write_passed(write: &mut Write, passed: Passed) -> Result<(), MemoryError> {
    let FragmentKey { source, destination, protocol, identification } = passed.key;
    write.address(source);
    write.address(destination);
    write.numbers(&[u64::from(protocol.0), u64::from(identification), passed.touched.as_nanos()]);
    match passed.phase {
        Phase::Waiting | Phase::Asked => write.number(0),
        Phase::Settled(tuple) => {
            write.number(1);
            write.tuple(&tuple);
        }
        Phase::Refused(reason) => {
            let place = DropReason::ALL.iter().position(|other| *other == reason);
            write.numbers(&[2, place.unwrap_or_default() as u64]);
        }
    }
    write.many(passed.pieces.into_iter(), |write, (start, end)| {
        write.numbers(&[u64::from(start), u64::from(end)]);
        Ok(())
    })?;
    write.number(passed.end.map_or(0, |end| u64::from(end) + 1));
    write.many(passed.held.into_iter(), |write, (interface, bytes)| {
        write.number(u64::from(interface.0));
        write.bytes(&bytes);
        Ok(())
    })
}

fn read_passed(read: &mut Read<'_>) -> Result<Passed, MemoryError> {
    let (source, destination, protocol) = (read.address()?, read.address()?, Protocol(read.byte()?));
    let identification = u32::try_from(read.number()?).map_err(|_| MemoryError::Bytes)?;
    let touched = Instant::from_nanos(read.number()?);
    let phase = match read.number()? {
        0 => Phase::Waiting,
        1 => Phase::Settled(read.tuple()?),
        2 => {
            let place = usize::try_from(read.number()?).unwrap_or(usize::MAX);
            Phase::Refused(*DropReason::ALL.get(place).ok_or(MemoryError::Bytes)?)
        }
        _ => return Err(MemoryError::Bytes),
    };
    let pieces = read.many(|read| Ok((read.small()?, read.small()?)))?;
    let end = read.number()?.checked_sub(1).map(u16::try_from).transpose().map_err(|_| MemoryError::Bytes)?;
    let held = read.many(|read| Ok((read.interface()?, read.bytes()?.to_vec())))?;
    let are_apart = |pair: &[(u16, u16)]| matches!(pair, [(_, before), (after, _)] if before <= after);
    let is_sound = pieces.len() <= PIECES_MAX
        && held.len() <= pieces.len()
        && pieces.iter().all(|(start, end)| start < end)
        && pieces.windows(2).all(are_apart);
    if !is_sound {
        return Err(MemoryError::Bytes);
    }
    let key = FragmentKey { source, destination, protocol, identification };
    Ok(Passed { key, phase, pieces, end, held, touched })
}

fn number_of(mac: MacAddress) -> u64 {
    mac.0.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn mac_of(number: u64) -> MacAddress {
    let [_, _, mac @ ..] = number.to_be_bytes();
    MacAddress(mac)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX - 1)
}
