//! The built-in schedulers, one file each.
//!
//! ```text
//! in turn      rr wrr static-rr swrr
//! by order     fo ovf first
//! by load      lc wlc sed nq leastconn jsq jiq least-request
//! at random    random twos p2c
//! by delay     peak-ewma prequal
//! by hash      sh dh mh source modulo maglev rendezvous weighted-rendezvous ring bounded jump anchor dx multi-probe
//! by locality  lblc lblcr
//! ```
//!
//! Where they carry a name of IPVS they decide as Linux 6.1 does, its order of servers included: the kernel puts
//! a new server at the head of its list, so the walk goes from the last server of the plan to the first.
//!
//! What they share: [`ipvs`] (the kernel's list and costs), [`haproxy`] (its hash, map and ring), [`draw`] (random
//! numbers), [`shares`] (random servers by weight), [`key`] (what of a flow is hashed), [`slots`] (numbered buckets),
//! [`destinations`] (the caches of `lblc`), [`held`] (how much memory they keep).

mod anchor;
mod destination_hashing;
mod destinations;
mod draw;
mod dx;
mod failover;
mod first;
mod haproxy;
mod held;
mod idle_queue;
mod ipvs;
mod jump;
mod key;
mod least_connections;
mod least_request;
mod leastconn;
mod locality;
mod locality_replicated;
mod maglev;
mod maglev_hashing;
mod modulo;
mod multi_probe;
mod never_queue;
mod overflow;
mod peak_ewma;
mod power_of_choices;
mod prequal;
mod random;
mod random_twos;
mod rendezvous;
mod ring;
mod round_robin;
mod shares;
mod shortest_expected_delay;
mod shortest_queue;
mod slots;
mod smooth_round_robin;
mod source;
mod source_hashing;
mod static_round_robin;
mod weighted_least_connections;
mod weighted_round_robin;

use alloc::boxed::Box;

use super::Scheduler;
use crate::plan::{Builtin, Tuned};

pub use destinations::EXPIRATION;
pub use draw::{drawn_between, seed_of};
pub use maglev::{DEFAULT_TABLE_SIZE, table as maglev_table, weighted_table as weighted_maglev_table};

/// A new scheduler of this kind with its defaults, drawing from seed 0. Give it its servers before the first pick.
#[must_use]
pub fn builtin(kind: Builtin) -> Box<dyn Scheduler> {
    native(&Tuned::from(kind), 0)
}

/// A new scheduler with these options, which have been [checked](Tuned::check). It draws from `seed` where it
/// draws at all; [`seed_of`] gives the one of a director. Give it its servers before the first pick.
#[must_use]
pub fn native(tuned: &Tuned, seed: u64) -> Box<dyn Scheduler> {
    let Tuned { kind, options } = tuned;
    match kind {
        Builtin::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        Builtin::WeightedRoundRobin => Box::new(weighted_round_robin::WeightedRoundRobin::default()),
        Builtin::LeastConnections => Box::new(least_connections::LeastConnections),
        Builtin::WeightedLeastConnections => Box::new(weighted_least_connections::WeightedLeastConnections),
        Builtin::SourceHashing => Box::new(source_hashing::SourceHashing::new(options)),
        Builtin::Maglev => Box::new(maglev::Maglev::new(options, seed)),
        Builtin::Locality => Box::new(locality::Locality::new(options)),
        Builtin::LocalityReplicated => Box::new(locality_replicated::LocalityReplicated::new(options)),
        Builtin::DestinationHashing => Box::new(destination_hashing::DestinationHashing),
        Builtin::ShortestExpectedDelay => Box::new(shortest_expected_delay::ShortestExpectedDelay),
        Builtin::NeverQueue => Box::new(never_queue::NeverQueue),
        Builtin::Failover => Box::new(failover::Failover),
        Builtin::Overflow => Box::new(overflow::Overflow),
        Builtin::MaglevHashing => Box::new(maglev_hashing::MaglevHashing::new(options)),
        Builtin::RandomTwos => Box::new(random_twos::RandomTwos::new(seed)),
        Builtin::PowerOfChoices => Box::new(power_of_choices::PowerOfChoices::new(options, seed)),
        Builtin::JoinShortestQueue => Box::new(shortest_queue::ShortestQueue::new(seed)),
        Builtin::JoinIdleQueue => Box::new(idle_queue::IdleQueue::new(seed)),
        Builtin::Modulo => Box::new(modulo::Modulo::new(options, seed)),
        Builtin::Source => Box::new(source::Source::new(options)),
        Builtin::Leastconn => Box::new(leastconn::Leastconn::default()),
        Builtin::First => Box::new(first::First),
        Builtin::Random => Box::new(random::Random::new(options, seed)),
        Builtin::StaticRoundRobin => Box::new(static_round_robin::StaticRoundRobin::default()),
        Builtin::SmoothRoundRobin => Box::new(smooth_round_robin::SmoothRoundRobin::default()),
        Builtin::Rendezvous => Box::new(rendezvous::Rendezvous::new(options, seed, false)),
        Builtin::WeightedRendezvous => Box::new(rendezvous::Rendezvous::new(options, seed, true)),
        Builtin::Ring => Box::new(ring::Ring::new(options, seed)),
        Builtin::Bounded => Box::new(ring::Ring::bounded(options, seed)),
        Builtin::Jump => Box::new(jump::Jump::new(options, seed)),
        Builtin::Anchor => Box::new(anchor::AnchorHash::new(options, seed)),
        Builtin::Dx => Box::new(dx::DxHash::new(options, seed)),
        Builtin::MultiProbe => Box::new(multi_probe::MultiProbe::new(options, seed)),
        Builtin::PeakEwma => Box::new(peak_ewma::PeakEwma::new(options, seed)),
        Builtin::LeastRequest => Box::new(least_request::LeastRequest::new(options, seed)),
        Builtin::Prequal => Box::new(prequal::Prequal::new(options, seed)),
    }
}

#[cfg(test)]
mod tests;
