//! Weighted round robin, smooth: servers take turns, and a server of weight 4 is met four times as often as one
//! of weight 1, spread over the round instead of four times in a row.
//!
//! Each pick, every usable server gains credit by its weight; the one with the most credit is picked (the first
//! of equals) and pays the sum of all weights. No options.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec::Vec;

use evenkeel_plugin_sdk::{ConfigureError, Flow, Instant, Load, Options, Scheduler, Server, Setup};

#[derive(Debug, Default)]
struct RoundRobin {
    turns: Vec<Turn>,
    total: i64,
}

#[derive(Debug)]
struct Turn {
    server: usize,
    id: u64,
    weight: i64,
    credit: i64,
}

impl Scheduler for RoundRobin {
    fn configure(_: &Setup, _: &mut Options) -> Result<Self, ConfigureError> {
        Ok(Self::default())
    }

    /// Servers that stay keep their credit, so that a change elsewhere does not restart the round.
    fn update(&mut self, servers: &[Server], _: Instant) {
        let credit = |id| self.turns.iter().find(|turn| turn.id == id).map_or(0, |turn| turn.credit);
        let turn = |(server, view): (usize, &Server)| {
            let weight = i64::from(view.weight);
            Turn { server, id: view.id, weight, credit: credit(view.id) }
        };
        self.turns = servers.iter().enumerate().filter(|(_, server)| server.is_usable()).map(turn).collect();
        self.total = self.turns.iter().map(|turn| turn.weight).sum();
    }

    fn pick(&mut self, _: &Flow, _: &[Load], _: Instant) -> Option<usize> {
        let mut best: Option<&mut Turn> = None;
        for turn in &mut self.turns {
            turn.credit += turn.weight;
            if best.as_ref().is_none_or(|best| turn.credit > best.credit) {
                best = Some(turn);
            }
        }
        let best = best?;
        best.credit -= self.total;
        Some(best.server)
    }
}

evenkeel_plugin_sdk::export_scheduler!(RoundRobin);

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
mod tests {
    use super::*;
    use evenkeel_plugin_sdk::kit::SchedulerKit;

    #[test]
    fn a_round_spreads_the_weights() {
        let mut kit = SchedulerKit::<RoundRobin>::new("").unwrap();
        kit.servers(&[4, 2, 1]);
        let round = [0, 1, 0, 2, 0, 1, 0].map(Some);
        assert_eq!(kit.pick(7), round);
        assert_eq!(kit.pick(7), round);
        assert_eq!(kit.shares(700), [400, 200, 100]);
    }

    #[test]
    fn servers_that_are_down_or_drained_are_passed_over() {
        let mut kit = SchedulerKit::<RoundRobin>::new("").unwrap();
        kit.servers(&[1, 1, 0, 1]);
        kit.set_up(1, false);
        assert_eq!(kit.shares(100), [50, 0, 0, 50]);
        kit.set_weight(2, 2);
        assert_eq!(kit.shares(100), [25, 0, 50, 25]);
    }

    #[test]
    fn without_a_usable_server_the_fallback_chooses() {
        let mut kit = SchedulerKit::<RoundRobin>::new("").unwrap();
        kit.servers(&[0]);
        assert_eq!(kit.pick(2), [None, None]);
    }

    #[test]
    fn options_are_refused() {
        assert_eq!(
            SchedulerKit::<RoundRobin>::new("size = 3").unwrap_err(),
            ConfigureError::UnknownOption("size".into())
        );
    }
}
