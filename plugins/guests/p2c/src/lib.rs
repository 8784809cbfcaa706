//! A few servers at random, by weight, and of these the one with the least to do: the twin of the built-in `p2c`, decision
//! for decision under the same seed.
//!
//! Option `choices`: how many are compared, 1 to 16 (default 2). The state is that of the built-in one.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::random::{Draw, Shares};
use evenkeel_plugin_sdk::{
    ConfigureError, Flow, Instant, Load, Options, Scheduler, Server, Setup, State, StateWriter, Wishes,
};

/// The name of the state's form.
const FORM: &str = "p2c";

#[derive(Debug)]
struct PowerOfChoices {
    choices: usize,
    draw: Draw,
    shares: Shares,
    weights: Vec<u64>,
}

impl Scheduler for PowerOfChoices {
    fn configure(setup: &Setup, options: &mut Options) -> Result<Self, ConfigureError> {
        let choices = usize::try_from(options.integer("choices", 2, 1..=16)?).unwrap_or(2);
        Ok(Self { choices, draw: Draw::new(setup.seed), shares: Shares::default(), weights: Vec::new() })
    }

    fn wishes(&self) -> Wishes {
        Wishes { loads: true, ..Wishes::NONE }
    }

    fn update(&mut self, servers: &[Server], _: Instant) {
        self.shares = Shares::of(servers);
        self.weights = servers.iter().map(|server| u64::from(server.weight)).collect();
    }

    fn pick(&mut self, flow: &Flow, loads: &[Load], _: Instant) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        for place in self.shares.draw_different(&mut self.draw, self.choices) {
            let (load, weight) = (loads.get(place)?, *self.weights.get(place)?);
            let length = load.outstanding(flow.protocol) + 1;
            if best.is_none_or(|(_, least, its)| least * weight > length * its) {
                best = Some((place, length, weight));
            }
        }
        best.map(|(place, _, _)| place)
    }

    fn save(&mut self, _: Instant) -> Vec<u8> {
        let mut state = StateWriter::new(FORM);
        state.number(self.draw.place());
        state.finish()
    }

    fn restore(&mut self, state: &[u8], _: Instant) -> bool {
        let place = State::read(state, FORM).and_then(|mut state| state.number());
        self.draw = place.map_or(self.draw, Draw::new);
        place.is_some()
    }
}

evenkeel_plugin_sdk::export_scheduler!(PowerOfChoices);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    #[test]
    fn the_longest_queue_stays_close_to_the_shortest() {
        let mut kit = SchedulerKit::<PowerOfChoices>::new("").unwrap();
        kit.servers(&[1; 10]);
        let shares = kit.shares(10_000);
        assert!(shares.iter().all(|share| share.abs_diff(1_000) < 10), "{shares:?}");
    }

    #[test]
    fn a_new_instance_goes_on_in_the_stream() {
        let mut one = SchedulerKit::<PowerOfChoices>::new("choices = 3").unwrap();
        let mut other = SchedulerKit::<PowerOfChoices>::new("choices = 3").unwrap();
        for kit in [&mut one, &mut other] {
            kit.servers(&[5, 1, 9, 2]);
            kit.pick(100);
        }
        assert!(one.replace());
        assert_eq!(one.pick(200), other.pick(200));
    }
}
