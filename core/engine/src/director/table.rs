//! All directors, by place and by what they are bound to.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::net::IpAddr;

use super::Director;
use super::agents::Agenda;
use super::builtin::{native, seed_of};
use crate::Guests;
use crate::plan::{Binding, DirectorPlan, Mode, Ping, Plan};
use crate::probe::Probe;
use crate::time::Instant;
use crate::wire::{Address, Protocol};

/// The directors of an engine.
#[derive(Debug, Default)]
pub struct Directors {
    places: Vec<Option<Director>>,
    /// Bindings to one address, port and protocol.
    exact: BTreeMap<(Address, u16, Protocol), u16>,
    /// The other bindings, the narrowest first. Looked through one by one for a new flow.
    wide: Vec<(Binding, u16)>,
    /// The place of each director of the plan, in the plan's order.
    pub(super) order: Vec<u16>,
    /// The addresses that are ours to answer for: VIPs and those of source NAT.
    own: BTreeSet<Address>,
    has_one_packet: bool,
    /// Places of the directors whose schedulers may want probes to be carried, and who of them is next.
    probing: Vec<u16>,
    next_probing: usize,
    /// When a scheduler wants to be told that time has passed.
    next_tick: Option<Instant>,
    /// When which agent is asked.
    pub(super) agenda: Agenda,
}

/// Who is concerned by a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pinged {
    /// Nobody here.
    Stranger,
    /// An address of ours without a director.
    Own,
    /// A VIP that is served.
    Served,
    /// A VIP without a usable real server.
    Unserved,
    /// A VIP whose pings go to a real server of the director at this place.
    Forwarded(u16),
}

impl Directors {
    /// Becomes what `plan` has. A director keeps its place, servers and scheduler under its name; one that the plan
    /// lacks stays without a binding until its flows are gone.
    ///
    /// `guests` holds a scheduler for every director that needs a new one.
    pub fn apply(&mut self, plan: &Plan, guests: &mut Guests, now: Instant) {
        for director in self.places.iter_mut().flatten() {
            director.is_removed = true;
        }
        self.exact.clear();
        self.wide.clear();
        self.order.clear();
        self.own.clear();
        self.probing.clear();
        self.has_one_packet = plan.directors.iter().any(|director| director.is_one_packet);
        for wanted in &plan.directors {
            let place = self.place_of(&wanted.name);
            let Some(slot) = self.places.get_mut(place) else { continue };
            let scheduler = guests.schedulers.remove(&wanted.name).or_else(|| {
                let kept = slot.as_ref().is_some_and(|known| *known.scheduler_plan() == wanted.scheduler);
                let tuned = wanted.scheduler.native().filter(|_| !kept)?;
                Some(native(&tuned, seed_of(plan.seed, &wanted.name)))
            });
            match (slot.as_mut(), scheduler) {
                (Some(known), scheduler) => known.change(wanted, scheduler, now),
                (None, Some(scheduler)) => *slot = Some(Director::new(wanted, scheduler, now)),
                (None, None) => continue, // Checked before: every guest of a new director is there.
            }
            if let Some(director) = self.places.get_mut(place).and_then(Option::as_mut) {
                shade(director, wanted, plan.seed, guests, now);
            }
            // A plan has at most 65,535 directors; those that are gone give their places back.
            let place = u16::try_from(place).unwrap_or(u16::MAX);
            self.order.push(place);
            for binding in &wanted.binds {
                self.bind(binding, place);
            }
            match &wanted.mode {
                Mode::Nat { sources } => {
                    self.own.extend(sources.iter().map(|source| Address::from(source.address)));
                }
                Mode::Tunnel { sources, .. } => {
                    self.own.extend(sources.iter().map(|source| Address::from(*source)));
                }
                Mode::Gateway => {}
            }
        }
        self.wide.sort_by_key(|(binding, _)| {
            let Binding { network, ports, protocol } = binding;
            (Reverse(network.length), ports.len(), protocol.is_none())
        });
        self.own.extend(
            plan.interfaces.iter().flat_map(|one| &one.addresses).map(|own| Address::from(own.address)),
        );
        self.sweep();
        self.note_wishes();
        self.plan_agents();
    }

    /// The same directors in the same state, of which the schedulers of those at `asked` can be asked.
    #[must_use]
    pub fn fork(&self, asked: &BTreeSet<u16>) -> Self {
        let fork = |(place, slot): (usize, &Option<Director>)| {
            let is_asked = u16::try_from(place).is_ok_and(|place| asked.contains(&place));
            slot.as_ref().map(|director| director.fork(is_asked))
        };
        Self {
            places: self.places.iter().enumerate().map(fork).collect(),
            exact: self.exact.clone(),
            wide: self.wide.clone(),
            order: self.order.clone(),
            own: self.own.clone(),
            has_one_packet: self.has_one_packet,
            probing: Vec::new(),
            next_probing: 0,
            next_tick: None,
            agenda: Agenda::default(),
        }
    }

    fn bind(&mut self, binding: &Binding, place: u16) {
        let address = Address::from(binding.network.address);
        if binding.network.is_host() {
            self.own.insert(address);
            if let (Some(port), Some(protocol)) = (binding.port(), binding.protocol) {
                self.exact.insert((address, port, protocol), place);
                return;
            }
        }
        self.wide.push((binding.clone(), place));
    }

    fn place_of(&mut self, name: &str) -> usize {
        let is_its = |slot: &Option<Director>| slot.as_ref().is_some_and(|known| known.name == name);
        let known = self.places.iter().position(is_its);
        known.or_else(|| self.places.iter().position(Option::is_none)).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        })
    }

    /// Gives back the places of directors that are gone.
    fn sweep(&mut self) {
        for slot in &mut self.places {
            if slot.as_ref().is_some_and(Director::is_gone) {
                *slot = None;
            }
        }
    }

    /// The place of the director that is bound to this address, port and protocol: of several the narrowest, one
    /// address before a network and one port before many.
    #[must_use]
    pub fn bound_to(&self, address: Address, port: u16, protocol: Protocol) -> Option<u16> {
        if let Some(place) = self.exact.get(&(address, port, protocol)) {
            return Some(*place);
        }
        let ip = IpAddr::from(address);
        self.wide.iter().find(|(binding, _)| binding.serves(ip, port, protocol)).map(|(_, place)| *place)
    }

    /// The places of the directors that are bound to any port of this address.
    fn at_address(&self, address: Address) -> impl Iterator<Item = u16> {
        let range = (address, 0, Protocol(0))..=(address, u16::MAX, Protocol(u8::MAX));
        let ip = IpAddr::from(address);
        let wide = self.wide.iter().filter(move |(binding, _)| binding.network.contains(ip));
        self.exact.range(range).map(|(_, place)| *place).chain(wide.map(|(_, place)| *place))
    }

    /// The places of the plan's directors, in its order.
    pub(crate) fn places(&self) -> impl Iterator<Item = u16> {
        self.order.iter().copied()
    }

    /// The place of the plan's director number `number`.
    #[must_use]
    pub fn of_plan(&self, number: u16) -> Option<u16> {
        self.order.get(usize::from(number)).copied()
    }

    /// The director at `place`.
    #[must_use]
    #[inline]
    pub fn at(&self, place: u16) -> Option<&Director> {
        self.places.get(usize::from(place))?.as_ref()
    }

    /// The director at `place`, to change it.
    #[inline]
    pub fn at_mut(&mut self, place: u16) -> Option<&mut Director> {
        self.places.get_mut(usize::from(place))?.as_mut()
    }

    /// The next probe that a scheduler wants to be carried; each director in turn.
    #[inline]
    pub fn poll_probe(&mut self, now: Instant) -> Option<Probe> {
        if self.probing.is_empty() { None } else { self.next_probe(now) }
    }

    #[inline(never)]
    fn next_probe(&mut self, now: Instant) -> Option<Probe> {
        for _ in 0..self.probing.len() {
            self.next_probing = (self.next_probing + 1) % self.probing.len();
            let place = *self.probing.get(self.next_probing)?;
            let Some(director) = self.at_mut(place) else { continue };
            if let Some((server, shown)) = director.poll_probe(now) {
                let (address, port) = (shown.address.into(), shown.port);
                return Some(Probe { director: place, server, address, port });
            }
        }
        None
    }

    /// When [`Directors::handle_ticks`] has something to do next.
    #[must_use]
    pub const fn next_tick(&self) -> Option<Instant> {
        self.next_tick
    }

    /// When an agent is to be asked, or given up, next.
    #[must_use]
    pub fn next_agents(&self) -> Option<Instant> {
        self.agenda.next()
    }

    /// Lets the schedulers know that time has passed which wished for it.
    pub fn handle_ticks(&mut self, now: Instant) {
        if self.next_tick.is_none_or(|due| due > now) {
            return;
        }
        self.places.iter_mut().flatten().for_each(|director| director.handle_tick(now));
        self.note_ticks();
    }

    /// Looks up who sends probes and who wants to hear of time, after a scheduler has changed.
    pub fn note_wishes(&mut self) {
        let order = self.order.iter().copied();
        self.probing = order.filter(|place| self.at(*place).is_some_and(Director::sends_probes)).collect();
        self.note_ticks();
    }

    /// Looks up who wants to hear of time next.
    fn note_ticks(&mut self) {
        let all = self.places.iter().flatten().filter(|director| !director.is_removed);
        self.next_tick = all.filter_map(Director::next_tick).min();
    }

    /// The plan's director called `name`.
    pub fn named_mut(&mut self, name: &str) -> Option<&mut Director> {
        self.places.iter_mut().flatten().find(|director| !director.is_removed && director.name == name)
    }

    /// The plan's director called `name`.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Director> {
        self.places.iter().flatten().find(|director| !director.is_removed && director.name == name)
    }

    /// The directors of the plan, in its order.
    pub fn iter(&self) -> impl Iterator<Item = &Director> {
        self.order.iter().filter_map(|place| self.at(*place))
    }

    /// Every director, to fetch faults.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Director> {
        self.places.iter_mut().flatten()
    }

    /// Whether we answer for `address`.
    #[must_use]
    pub fn is_own(&self, address: Address) -> bool {
        self.own.contains(&address)
    }

    /// What becomes of a ping of `address`.
    #[must_use]
    pub fn pinged(&self, address: Address) -> Pinged {
        let mut answer = if self.is_own(address) { Pinged::Own } else { Pinged::Stranger };
        for place in self.at_address(address) {
            let Some(director) = self.at(place) else { continue };
            match director.ping {
                Ping::Forward => return Pinged::Forwarded(place),
                Ping::WhenUsable if !director.has_usable_server() => {
                    if answer != Pinged::Served {
                        answer = Pinged::Unserved;
                    }
                }
                Ping::WhenUsable | Ping::Always => answer = Pinged::Served,
            }
        }
        answer
    }

    /// Whether `address` is ours, or lies in a network that a director serves.
    #[must_use]
    pub fn is_served(&self, address: Address) -> bool {
        self.is_own(address) || self.at_address(address).next().is_some()
    }

    /// Whether a director serves some port of `address`.
    #[must_use]
    pub fn is_bound(&self, address: Address) -> bool {
        self.at_address(address).next().is_some()
    }

    /// Addresses of ours, to be announced on links.
    pub fn own_addresses(&self) -> impl Iterator<Item = Address> {
        self.own.iter().copied()
    }

    /// A VIP of the family of `other`, for packets that we send about others; any will do.
    #[must_use]
    pub fn any_address(&self, other: Address) -> Option<Address> {
        let vips = self.exact.keys().map(|(address, _, _)| *address);
        vips.chain(self.own.iter().copied()).find(|address| address.is_v4() == other.is_v4())
    }

    /// Whether any director schedules each datagram on its own.
    #[must_use]
    pub const fn has_one_packet(&self) -> bool {
        self.has_one_packet
    }

    /// The director that schedules each packet on its own, towards which `server` may answer from `port`.
    #[must_use]
    pub fn one_packet_of(&self, server: Address, port: u16) -> Option<u16> {
        self.order.iter().copied().find(|place| {
            let director = self.at(*place);
            director.is_some_and(|director| director.is_one_packet && director.answers_from(server, port))
        })
    }

    /// Gives the place of a director back when its last flow has gone.
    pub fn release(&mut self, place: u16) {
        if let Some(slot) = self.places.get_mut(usize::from(place))
            && slot.as_ref().is_some_and(Director::is_gone)
        {
            *slot = None;
        }
    }
}

/// Gives a director the shadow that its plan wants. One that stays goes on counting, unless a new instance has come.
fn shade(director: &mut Director, wanted: &DirectorPlan, seed: u64, guests: &mut Guests, now: Instant) {
    let guest = guests.shadows.remove(&wanted.name);
    if guest.is_none() && director.shadow_plan() == wanted.shadow.as_ref() {
        return;
    }
    let shadow = wanted.shadow.as_ref().and_then(|plan| {
        let native = || plan.native().map(|tuned| native(&tuned, seed_of(seed, &wanted.name)));
        Some((guest.or_else(native)?, plan.clone()))
    });
    director.set_shadow(shadow, now);
}
