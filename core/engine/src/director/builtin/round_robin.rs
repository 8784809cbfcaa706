//! `rr`: each server in turn, weights ignored except 0.
//!
//! The walk goes on behind the server that was picked last, also when servers have come or gone in between. One step
//! for a flow, up to as many as there are servers where some take nothing. Source: IPVS, Linux 6.1.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::held;
use super::ipvs::{List, Step};
use crate::director::state::{Reader, Writer};
use crate::director::{Scheduler, Selection, ServerId, ServerView};
use crate::time::Instant;

#[derive(Clone, Debug, Default)]
pub(super) struct RoundRobin {
    list: List,
    /// One behind the place of the last pick in the kernel's list; 0 is its head.
    cursor: usize,
}

impl Scheduler for RoundRobin {
    fn name(&self) -> &'static str {
        "rr"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.list])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        let cursor = &mut self.cursor;
        self.list.follow(servers, |step, _| match step {
            // The turn stays with the last pick, or goes back to the one before it.
            Step::Remove(place) if place < *cursor => *cursor -= 1,
            Step::Add(..) if *cursor > 0 => *cursor += 1,
            Step::Remove(_) | Step::Add(..) | Step::Edit(..) => {}
            Step::Sort => *cursor = 0,
        });
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        let count = selection.servers().len();
        for flow in 0..selection.flows().len() {
            let mut place = self.cursor;
            for _ in 0..count {
                place = if place < count { place } else { 0 };
                if selection.assign(flow, count - 1 - place) {
                    self.cursor = place + 1;
                    break;
                }
                place += 1;
            }
        }
    }

    fn save(&mut self, _now: Instant) -> Option<Vec<u8>> {
        let mut state = Writer::new(self.name());
        state.numbers(&[self.cursor as u64]);
        self.list.servers.iter().for_each(|(id, _)| state.numbers(&[id.0]));
        Some(state.finish())
    }

    fn restore(&mut self, state: &[u8], _now: Instant) -> bool {
        let Some(mut state) = Reader::new(state, self.name()) else { return false };
        let Some(cursor) = state.number().and_then(|cursor| usize::try_from(cursor).ok()) else {
            return false;
        };
        let servers: Vec<_> = core::iter::from_fn(|| state.number()).map(|id| (ServerId(id), 0)).collect();
        let is_whole = state.is_over() && cursor <= servers.len();
        if is_whole {
            (self.list.servers, self.cursor) = (servers, cursor);
        }
        is_whole
    }
}
