//! All directors, by place and by what they are bound to.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::IpAddr;

use super::{Director, builtin};
use crate::Guests;
use crate::plan::{Mode, Plan, SchedulerPlan};
use crate::time::Instant;
use crate::wire::{Address, Protocol};

/// The directors of an engine.
#[derive(Debug, Default)]
pub struct Directors {
    places: Vec<Option<Director>>,
    bindings: BTreeMap<(Address, u16, Protocol), u16>,
    /// The place of each director of the plan, in the plan's order.
    order: Vec<u16>,
    /// The addresses that are ours to answer for: VIPs and those of source NAT.
    own: BTreeSet<Address>,
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
        self.bindings.clear();
        self.order.clear();
        self.own.clear();
        for wanted in &plan.directors {
            let place = self.place_of(&wanted.name);
            let Some(slot) = self.places.get_mut(place) else { continue };
            let scheduler = guests.schedulers.remove(&wanted.name).or_else(|| match wanted.scheduler {
                SchedulerPlan::Builtin(kind) => {
                    let kept = slot.as_ref().is_some_and(|known| *known.scheduler_plan() == wanted.scheduler);
                    (!kept).then(|| builtin(kind))
                }
                SchedulerPlan::Guest(_) => None,
            });
            match (slot.as_mut(), scheduler) {
                (Some(known), scheduler) => known.change(wanted, scheduler, now),
                (None, Some(scheduler)) => *slot = Some(Director::new(wanted, scheduler, now)),
                (None, None) => continue, // Checked before: every guest of a new director is there.
            }
            // A plan has at most 65,535 directors; those that are gone give their places back.
            let place = u16::try_from(place).unwrap_or(u16::MAX);
            let address = Address::from(wanted.address);
            self.bindings.insert((address, wanted.port, wanted.protocol), place);
            self.order.push(place);
            self.own.insert(address);
            match &wanted.mode {
                Mode::Nat { source: Some(source) } => {
                    self.own.insert(source.address.into());
                }
                Mode::Nat { source: None } => {}
            }
        }
        self.own.extend(
            plan.interfaces.iter().flat_map(|one| &one.addresses).map(|own| Address::from(own.address)),
        );
        self.sweep();
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

    /// The place of the director that is bound to this address, port and protocol.
    #[must_use]
    pub fn bound_to(&self, address: Address, port: u16, protocol: Protocol) -> Option<u16> {
        self.bindings.get(&(address, port, protocol)).copied()
    }

    /// The place of the plan's director number `number`.
    #[must_use]
    pub fn of_plan(&self, number: u16) -> Option<u16> {
        self.order.get(usize::from(number)).copied()
    }

    /// The director at `place`.
    #[must_use]
    pub fn at(&self, place: u16) -> Option<&Director> {
        self.places.get(usize::from(place))?.as_ref()
    }

    /// The director at `place`, to change it.
    #[inline]
    pub fn at_mut(&mut self, place: u16) -> Option<&mut Director> {
        self.places.get_mut(usize::from(place))?.as_mut()
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

    /// Whether a director with this VIP has a server that may take flows; `None` when no director has it.
    #[must_use]
    pub fn is_served(&self, address: Address) -> Option<bool> {
        let range = (address, 0, Protocol(0))..=(address, u16::MAX, Protocol(u8::MAX));
        let places = self.bindings.range(range).map(|(_, place)| *place);
        places.map(|place| self.at(place).is_some_and(Director::has_usable_server)).reduce(|a, b| a || b)
    }

    /// An address of ours in the words of the plan, for packets that we send about others; any VIP will do.
    #[must_use]
    pub fn any_address(&self) -> Option<IpAddr> {
        self.bindings.keys().next().map(|(address, _, _)| IpAddr::from(*address))
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
