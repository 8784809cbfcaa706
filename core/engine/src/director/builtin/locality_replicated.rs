//! `lblcr`: each address that clients call has a set of servers, which grows while they are overloaded.
//!
//! Meant for caches behind a network of addresses. Within the set `wlc` decides; when nobody there may take the flow, or
//! its choice is overloaded (more active connections than weight, while some server has fewer than half its
//! weight), the server that `wlc` finds among all joins the set. A set that has not changed for the expiration loses its most
//! loaded server with the next flow. O(ln addresses + set) per flow, O(servers) where the set grows. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::destinations::Destinations;
use super::held;
use super::ipvs::{least, overhead, walk};
use super::locality::{Places, is_overloaded};
use crate::director::{Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::Instant;

/// Members of a set that the plan no longer has, beyond as many as it has: what a plan that changes again and again may
/// leave behind. IPVS keeps each for as long as the set lives.
const ABSENT_MAX: usize = 64;

#[derive(Clone, Debug)]
pub(super) struct LocalityReplicated {
    known: Destinations<Set>,
    places: Places,
}

/// The servers of a destination, the one that joined last first.
#[derive(Clone, Debug)]
struct Set {
    servers: Vec<ServerId>,
    changed: Instant,
}

impl LocalityReplicated {
    pub(super) fn new(options: &Options) -> Self {
        Self { known: Destinations::new(options.expiration), places: Places::default() }
    }
}

impl Scheduler for LocalityReplicated {
    fn name(&self) -> &'static str {
        "lblcr"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.known, &self.places])
    }

    fn update(&mut self, servers: &[ServerView], now: Instant) {
        // The first call starts the clock of the sweeps.
        self.known.sweep(now);
        self.places = Places::of(servers);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, now: Instant) {
        self.known.sweep(now);
        let expiration = self.known.expiration();
        for (flow, new) in selection.flows().iter().enumerate() {
            let destination = new.tuple.destination;
            let mut set = self.known.touch(destination, now);
            if let Some(set) = &mut set {
                let chosen = least(selection, set.places(&self.places), overhead);
                if set.servers.len() > 1 && now > set.changed.after(expiration) {
                    set.drop_most_loaded(selection, &self.places, now);
                }
                if let Some(place) = chosen
                    && !is_overloaded(selection, place)
                {
                    selection.assign(flow, place);
                    continue;
                }
            }
            let Some(place) = least(selection, walk(selection), overhead) else { continue };
            let Some(server) = selection.servers().get(place) else { continue };
            match set {
                Some(set) => set.join(server.id, &self.places, now),
                None => {
                    self.known.insert(destination, Set { servers: Vec::from([server.id]), changed: now }, now)
                }
            }
            selection.assign(flow, place);
        }
    }
}

impl Set {
    fn places(&self, places: &Places) -> impl Iterator<Item = usize> {
        self.servers.iter().filter_map(|id| places.find(*id))
    }

    fn join(&mut self, id: ServerId, places: &Places, now: Instant) {
        if self.servers.contains(&id) {
            return;
        }
        // A server that the plan no longer has may come back, and is then a member as before.
        if self.servers.len() >= 2 * places.len() + ABSENT_MAX {
            self.servers.retain(|id| places.find(*id).is_some());
        }
        self.servers.insert(0, id);
        self.changed = now;
    }

    /// Takes out the server with the most overhead for its weight; the first of equals.
    fn drop_most_loaded(&mut self, selection: &Selection<'_>, places: &Places, now: Instant) {
        let mut most: Option<(usize, u64, u64)> = None;
        for (number, id) in self.servers.iter().enumerate() {
            let Some((server, load)) = places.find(*id).and_then(|place| selection.server(place)) else {
                continue;
            };
            let (overhead, weight) = (overhead(load), u64::from(server.weight));
            let is_more = |(_, most, its): (usize, u64, u64)| {
                most.saturating_mul(weight) < overhead.saturating_mul(its)
            };
            if weight > 0 && most.is_none_or(is_more) {
                most = Some((number, overhead, weight));
            }
        }
        if let Some((number, _, _)) = most {
            self.servers.remove(number);
            self.changed = now;
        }
    }
}
