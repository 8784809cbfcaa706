//! What a decision costs by the clock: schedulers without a forwarder, round by round in turn.
//!
//! In: directors without packets, with a scheduler each. Out: nanoseconds for each new flow. They are those of this
//! machine at this time, and nothing that repeats may depend on them.

use std::time::{Duration, Instant};

use evenkeel_engine::director::{NewFlow, ServerView};
use evenkeel_plugin_host::suite::farm::Farm;

/// Flows of one round, so that tables are looked up all over.
pub(super) const FLOWS: u32 = 4_096;

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The most rounds; the median of them is told.
    pub(super) rounds: usize,
    /// The most time, after which the rounds so far must do.
    pub(super) limit: Duration,
}

/// One scheduler and the servers that it begins each round with.
pub(super) struct Runner<'a> {
    pub(super) farm: &'a mut Farm,
    pub(super) servers: &'a [ServerView],
}

/// The median nanoseconds of each for one of `flows`, in batches. The rounds of all go in turn: a machine that is slower for
/// a while is so for each of them.
pub(super) fn medians(
    runners: &mut [Runner<'_>],
    flows: &[NewFlow],
    batch: usize,
    patience: Patience,
) -> Vec<f64> {
    let began = Instant::now();
    let count = flows.len().max(1) as f64;
    let mut rounds = vec![Vec::with_capacity(patience.rounds); runners.len()];
    for _ in 0..patience.rounds {
        for (runner, rounds) in runners.iter_mut().zip(&mut rounds) {
            runner.farm.change(runner.servers.to_vec());
            let start = Instant::now();
            std::hint::black_box(runner.farm.pick(flows, batch));
            rounds.push(start.elapsed().as_secs_f64() * 1e9 / count);
        }
        if began.elapsed() > patience.limit {
            break;
        }
    }
    let median = |mut rounds: Vec<f64>| {
        rounds.sort_by(f64::total_cmp);
        rounds.get(rounds.len() / 2).copied().unwrap_or(f64::NAN)
    };
    rounds.into_iter().map(median).collect()
}
