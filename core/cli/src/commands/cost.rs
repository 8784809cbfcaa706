//! What a decision costs by the clock: schedulers without a forwarder, round by round in turn.
//!
//! In: directors without packets, with a scheduler each. Out: nanoseconds for each new flow. They are those of this
//! machine at this time, and nothing that repeats may depend on them.

use std::time::{Duration, Instant};

use evenkeel_engine::director::NewFlow;
use evenkeel_plugin_host::suite::farm::Farm;

/// Flows of one round, so that tables are looked up all over.
pub(super) const FLOWS: u32 = 4_096;

/// How long and how often is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The most rounds.
    pub(super) rounds: usize,
    /// The most time, after which the rounds so far must do.
    pub(super) limit: Duration,
}

/// The nanoseconds of each for one of `flows`, in batches: those of its best round, since whatever else a machine does only
/// adds to them. Rounds of all go in turn, so that a machine that is slower for a while is so for each of them.
pub(super) fn best(farms: &mut [&mut Farm], flows: &[NewFlow], batch: usize, patience: Patience) -> Vec<f64> {
    let began = Instant::now();
    let mut best = vec![Duration::MAX; farms.len()];
    for _ in 0..patience.rounds {
        for (farm, best) in farms.iter_mut().zip(&mut best) {
            farm.rest();
            let start = Instant::now();
            std::hint::black_box(farm.pick(flows, batch));
            *best = start.elapsed().min(*best);
        }
        if began.elapsed() > patience.limit {
            break;
        }
    }
    let count = flows.len().max(1) as f64;
    best.into_iter().map(|best| best.as_secs_f64() * 1e9 / count).collect()
}
