//! How a new flow comes to be, as in `open.rs` of the engine: permission, director, real server, entry.

use evenkeel_engine::director::sticky;
use evenkeel_engine::flow::{Direction, FlowEntry, FlowState, InsertError, Traits};
use evenkeel_engine::plan::MidStream;
use evenkeel_engine::policy::{PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{Instant, InterfaceId};

use super::{Connections, Forwarder, Packet, Reached, Refused, Way, later, note, pool_key};

impl Forwarder {
    #[inline(always)]
    pub(super) fn open(&mut self, packet: &Packet, now: Instant) -> Result<Reached, Refused> {
        let place = self.permit(packet, now)?;
        let director = self.directors.at(place).ok_or(Refused::NotPermitted)?;
        if !packet.is_opening && director.mid_stream != MidStream::Pick {
            return Err(Refused::NoFlow);
        }
        let is_one_packet = director.is_one_packet && packet.flow.tuple.protocol == Protocol::UDP;
        let view = self.pick(place, packet, now)?;
        let opened = if is_one_packet || matches!(self.connections, Connections::Stateless) {
            self.pass_by(place, view)
        } else if packet.is_private && self.is_plain {
            self.open_unlisted(place, view, packet.flow.hash, now)
        } else {
            self.open_listed(place, view, packet, now)
        };
        // What was counted for a flow that did not come to be, or is gone again, is taken back.
        if (!matches!(opened, Ok(Reached { way: Way::Listed(_) | Way::Unlisted, .. })))
            && let Some(director) = self.directors.at_mut(place)
        {
            director.unassign(view, packet.flow.tuple.protocol, now);
        }
        opened
    }

    /// The director that a new flow may go to.
    #[inline(always)]
    fn permit(&mut self, packet: &Packet, now: Instant) -> Result<u16, Refused> {
        let FiveTuple { destination, destination_port, protocol, .. } = packet.flow.tuple;
        let verdict = if self.policies.is_empty() { PolicyVerdict::Skip } else { self.decide(packet, now) };
        let place = match verdict {
            PolicyVerdict::Deny => None,
            PolicyVerdict::Skip if !self.plan.default_permit => None,
            // By which way a packet leaves has no meaning here.
            PolicyVerdict::Skip | PolicyVerdict::Permit | PolicyVerdict::Table(_) => {
                let asked = (destination, destination_port, protocol);
                if self.bound.0 != asked {
                    self.bound = (asked, self.directors.bound_to(destination, destination_port, protocol));
                }
                self.bound.1
            }
            PolicyVerdict::Director(number) => self.directors.of_plan(number),
        };
        place.ok_or(Refused::NotPermitted)
    }

    /// What the policies say of a new flow.
    #[inline(never)]
    fn decide(&mut self, packet: &Packet, now: Instant) -> PolicyVerdict {
        let FiveTuple { source, .. } = packet.flow.tuple;
        let interface = self.routes.find(source).map_or(InterfaceId(0), |hop| hop.interface);
        let asked = PolicyFlow::new(packet.flow.hash, packet.flow.tuple, interface);
        let decided = self.policies.decide(&[asked], now).first();
        let verdict = decided.map_or(PolicyVerdict::Skip, |decided| decided.verdict);
        while let Some((name, fault)) = self.policies.poll_fault() {
            note(&mut self.faults, &name, fault);
        }
        verdict
    }

    /// The view of the server that the flow's client sticks to, or else the one that the scheduler picks.
    #[inline(always)]
    fn pick(&mut self, place: u16, packet: &Packet, now: Instant) -> Result<u16, Refused> {
        let needs_weight = self.plan.handling.expires_quiescent;
        let director = self.directors.at_mut(place).ok_or(Refused::NotPermitted)?;
        let FiveTuple { source, protocol, .. } = packet.flow.tuple;
        let stick = director.persistence.map(|it| (sticky::key(place, source, &it), it.timeout));
        let known = stick.as_ref().and_then(|(key, _)| self.sticky.find(key));
        if let Some(view) = known.and_then(|(slot, id)| director.view_of(slot, id, needs_weight)) {
            director.assign(view, protocol, now);
            return Ok(view);
        }
        let mut answer = None;
        director.pick(std::slice::from_ref(&packet.flow), std::slice::from_mut(&mut answer), now);
        self.scheduler_calls += 1;
        if let Some(fault) = director.scheduler_mut().take_fault() {
            note(&mut self.faults, &director.name, fault);
        }
        let view = answer.ok_or(Refused::NoServer)?;
        if let (Some((key, timeout)), Some((slot, id))) = (stick, director.identity(view)) {
            self.sticky.open(key, slot, id, timeout, now);
            // The flow counts when it is open.
            self.sticky.close(&key, slot);
            self.expiry = None;
        }
        Ok(view)
    }

    /// A request that leaves nothing behind.
    fn pass_by(&mut self, place: u16, view: u16) -> Result<Reached, Refused> {
        let director = self.directors.at_mut(place).ok_or(Refused::NotPermitted)?;
        let slot = director.open_and_close(view).ok_or(Refused::NoServer)?;
        let machine = self.machine(place, slot);
        Ok(Reached { machine, place, slot, way: Way::Stateless, is_new: true })
    }

    /// A flow that nobody will look up: it is counted as an entry would be.
    #[inline(always)]
    fn open_unlisted(&mut self, place: u16, view: u16, hash: u64, now: Instant) -> Result<Reached, Refused> {
        if self.entries() - self.table.half_open() >= self.table.capacity() {
            return Err(Refused::TableFull);
        }
        let director = self.directors.at_mut(place).ok_or(Refused::NotPermitted)?;
        let slot = director.open(view, hash, Protocol::TCP, now).ok_or(Refused::NoServer)?;
        self.unlisted += 1;
        self.opened += 1;
        self.entries.rise(now.as_nanos());
        let machine = self.machine(place, slot);
        Ok(Reached { machine, place, slot, way: Way::Unlisted, is_new: true })
    }

    fn open_listed(
        &mut self,
        place: u16,
        view: u16,
        packet: &Packet,
        now: Instant,
    ) -> Result<Reached, Refused> {
        let FiveTuple { source, protocol, .. } = packet.flow.tuple;
        if !self.clients.may_open(source) {
            return Err(Refused::NotPermitted);
        }
        let entry = self.make_entry(place, view, packet, now)?;
        let (slot, held) = (entry.server_slot, entry.traits.has(Traits::HOLDS_PORT));
        let (pool, port) = (pool_key(&entry), entry.mapped_port);
        let (id, evicted) = self.table.insert(entry, packet.flow.hash).map_err(|error| {
            if held {
                self.ports.release(pool, port);
            }
            match error {
                InsertError::Full => Refused::TableFull,
                InsertError::Taken => Refused::NoPort,
            }
        })?;
        if let Some(evicted) = evicted {
            self.evicted += 1;
            self.farewell(evicted, now);
        }
        let director = self.directors.at_mut(place).ok_or(Refused::NotPermitted)?;
        director.open(view, packet.flow.hash, protocol, now);
        if director.times_flows() {
            self.table.note_beginning(id, now);
        }
        if let (Some(persistence), Some((slot, id))) = (&director.persistence, director.identity(view)) {
            self.sticky.open(sticky::key(place, source, persistence), slot, id, persistence.timeout, now);
        }
        self.clients.open(source);
        self.opened += 1;
        self.expiry = None;
        self.half_open_max = self.half_open_max.max(self.table.half_open());
        self.count_entries(now);
        Ok(Reached { machine: self.machine(place, slot), place, slot, way: Way::Listed(id), is_new: true })
    }

    fn make_entry(
        &mut self,
        place: u16,
        view: u16,
        packet: &Packet,
        now: Instant,
    ) -> Result<FlowEntry, Refused> {
        let FiveTuple { source, destination, source_port, destination_port, protocol } = packet.flow.tuple;
        let director = self.directors.at(place).ok_or(Refused::NotPermitted)?;
        let state = match protocol {
            Protocol::TCP if director.mode.is_one_sided() => FlowState::SynReceived,
            Protocol::TCP => FlowState::SynSent,
            _ => FlowState::Udp,
        };
        let lifetime = self.lifetime(state);
        let server = director.viewed(view).ok_or(Refused::NoServer)?;
        // Under its original tuple alone: answers are looked up by it as well.
        let mut traits = Traits::HALF_OPEN.with(Traits::ONE_SIDED);
        if director.persistence.is_some() {
            traits = traits.with(Traits::STICKS);
        }
        let mut entry = FlowEntry {
            client: source,
            service: destination,
            server: server.address,
            mapped: source,
            client_port: source_port,
            service_port: destination_port,
            server_port: if server.port == 0 { destination_port } else { server.port },
            mapped_port: source_port,
            traits,
            director: place,
            server_slot: director.identity(view).ok_or(Refused::NoServer)?.0,
            expires: lifetime.map_or(Instant::NEVER, |lifetime| later(now, lifetime)),
            ..FlowEntry::new(state, self.generation)
        };
        entry.count(Direction::Original, 0);
        if !self.is_plain {
            let way = |to: Address| self.routes.find(to).map_or(InterfaceId(0), |hop| hop.interface);
            let (inside, outside) = (way(source), way(server.address));
            let nat = director.source_nat(inside, outside, destination_port, source.is_v4());
            if let Some(nat) = nat {
                entry.mapped = nat.address.into();
                let taken = self.ports.take(pool_key(&entry), source_port, &nat.ports, packet.flow.hash);
                entry.mapped_port = taken.ok_or(Refused::NoPort)?;
                entry.traits = entry.traits.with(Traits::HOLDS_PORT);
            }
        }
        Ok(entry)
    }
}
