//! Each server in turn, weights ignored except 0: the twin of the built-in `rr`, decision for decision.
//!
//! The walk goes over the servers from the last of the configuration to the first, and on behind the one that was picked
//! last, also when servers have come or gone in between. No options. The state is that of the built-in one.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::{
    ConfigureError, Flow, Instant, Load, Options, Scheduler, Server, Setup, State, StateWriter,
};

/// The name of the state's form.
const FORM: &str = "rr";

#[derive(Debug, Default)]
struct RoundRobin {
    /// The servers' identities in the order of the walk.
    walk: Vec<u64>,
    /// Whether the server at the same place of the walk may be picked.
    usable: Vec<bool>,
    /// One behind the place of the last pick in the walk; 0 is its head.
    cursor: usize,
}

impl Scheduler for RoundRobin {
    fn configure(_: &Setup, _: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self::default())
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        let wanted: Vec<u64> = servers.iter().rev().map(|server| server.id).collect();
        self.usable = servers.iter().rev().map(Server::is_usable).collect();
        let mut known = wanted.clone();
        known.sort_unstable();
        for place in (0..self.walk.len()).rev() {
            if self.walk.get(place).is_some_and(|id| known.binary_search(id).is_err()) {
                self.walk.remove(place);
                // The turn stays with the last pick, or goes back to the one before it.
                if place < self.cursor {
                    self.cursor -= 1;
                }
            }
        }
        let mut old = self.walk.clone();
        old.sort_unstable();
        for id in wanted.iter().rev().filter(|id| old.binary_search(id).is_err()) {
            self.walk.insert(0, *id);
            if self.cursor > 0 {
                self.cursor += 1;
            }
        }
        if self.walk != wanted {
            self.walk = wanted;
            self.cursor = 0;
        }
    }

    fn pick(&mut self, _: &Flow, _: &[Load], _: Instant) -> Option<usize> {
        let count = self.usable.len();
        let place = (0..count)
            .map(|step| (self.cursor + step) % count)
            .find(|place| self.usable.get(*place) == Some(&true))?;
        self.cursor = place + 1;
        Some(count - 1 - place)
    }

    fn save(&mut self, _: Instant) -> Vec<u8> {
        let mut state = StateWriter::new(FORM);
        state.number(u64::try_from(self.cursor).unwrap_or(0));
        self.walk.iter().for_each(|id| state.number(*id));
        state.finish()
    }

    fn restore(&mut self, state: &[u8], _: Instant) -> bool {
        let Some(mut state) = State::read(state, FORM) else { return false };
        let Some(cursor) = state.number().and_then(|cursor| usize::try_from(cursor).ok()) else {
            return false;
        };
        let walk: Vec<u64> = core::iter::from_fn(|| state.number()).collect();
        let is_whole = state.is_over() && cursor <= walk.len();
        if is_whole {
            (self.walk, self.cursor) = (walk, cursor);
        }
        is_whole
    }
}

evenkeel_plugin_sdk::export_scheduler!(RoundRobin);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    #[test]
    fn servers_take_turns_from_the_last_to_the_first() {
        let mut kit = SchedulerKit::<RoundRobin>::new("").unwrap();
        kit.servers(&[4, 2, 1]);
        assert_eq!(kit.pick(4), [2, 1, 0, 2].map(Some));
        kit.set_up(1, false);
        assert_eq!(kit.pick(3), [0, 2, 0].map(Some));
    }

    #[test]
    fn a_new_instance_goes_on_where_the_old_one_stopped() {
        let mut kit = SchedulerKit::<RoundRobin>::new("").unwrap();
        kit.servers(&[1, 1, 1]);
        assert_eq!(kit.pick(2), [2, 1].map(Some));
        assert!(kit.replace());
        assert_eq!(kit.pick(2), [0, 2].map(Some));
    }
}
