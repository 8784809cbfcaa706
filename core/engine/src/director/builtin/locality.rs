//! `lblc`: each address that clients call sticks to one server, until that is overloaded and another is half idle.
//!
//! Meant for caches behind a network of addresses. The first flow to an address, and one whose server takes no new
//! flows or is overloaded (more active connections than weight, while some server has fewer than half its weight), goes
//! where `wlc` would send it, and the address with it. O(ln addresses) per flow, O(servers) where the server
//! changes. An address that already sticks is given to its server though that is full. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::destinations::Destinations;
use super::held;
use super::held::Held;
use super::ipvs::{least, overhead, walk};
use crate::director::{Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Locality {
    known: Destinations<ServerId>,
    places: Places,
}

impl Locality {
    pub(super) fn new(options: &Options) -> Self {
        Self { known: Destinations::new(options.expiration), places: Places::default() }
    }
}

impl Scheduler for Locality {
    fn name(&self) -> &'static str {
        "lblc"
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
        for (flow, new) in selection.flows().iter().enumerate() {
            let destination = new.tuple.destination;
            if let Some(id) = self.known.touch(destination, now)
                && let Some(place) = self.places.find(*id)
                && !is_overloaded(selection, place)
                && selection.assign_though_full(flow, place)
            {
                continue;
            }
            let Some(place) = least(selection, walk(selection), overhead) else { continue };
            if let Some(server) = selection.servers().get(place) {
                self.known.insert(destination, server.id, now);
            }
            selection.assign(flow, place);
        }
    }
}

/// Whether the server at `place` has more active connections than weight, while another has fewer than half.
pub(super) fn is_overloaded(selection: &Selection<'_>, place: usize) -> bool {
    // The kernel looks at every server here, at those without weight too, which never have fewer than none.
    let has_more = |(server, load): (&ServerView, crate::director::ServerLoad)| load.active > server.weight;
    selection.server(place).is_some_and(has_more)
        && selection
            .servers()
            .iter()
            .zip(selection.loads())
            .any(|(server, load)| u64::from(load.active) * 2 < u64::from(server.weight))
}

/// Where each server stands in the plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Vec<(ServerId, usize)>);

impl Places {
    pub(super) fn of(servers: &[ServerView]) -> Self {
        let mut places: Vec<_> =
            servers.iter().enumerate().map(|(place, server)| (server.id, place)).collect();
        places.sort_unstable();
        Self(places)
    }

    pub(super) fn find(&self, id: ServerId) -> Option<usize> {
        let found = self.0.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        self.0.get(found).map(|(_, place)| *place)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Held for Places {
    fn held(&self) -> usize {
        self.0.held()
    }
}
