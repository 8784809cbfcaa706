//! The built-in schedulers, one file each.
//!
//! ```text
//! in turn      rr wrr                        random   p2c twos
//! by load      lc wlc sed nq fo ovf jsq jiq  hashing  sh dh mh maglev modulo
//! by locality  lblc lblcr
//! ```
//!
//! Where they carry a name of IPVS they decide as Linux 6.1 does, its order of servers included: the kernel puts
//! a new server at the head of its list, so the walk goes from the last server of the plan to the first.
//!
//! What they share: [`ipvs`] (the kernel's list and costs), [`draw`] (random numbers), [`shares`] (random servers by
//! weight), [`key`] (what of a flow is hashed), [`destinations`] (the caches of `lblc`).

mod destination_hashing;
mod destinations;
mod draw;
mod failover;
mod idle_queue;
mod ipvs;
mod key;
mod least_connections;
mod locality;
mod locality_replicated;
mod maglev;
mod maglev_hashing;
mod modulo;
mod never_queue;
mod overflow;
mod power_of_choices;
mod random_twos;
mod round_robin;
mod shares;
mod shortest_expected_delay;
mod shortest_queue;
mod source_hashing;
mod weighted_least_connections;
mod weighted_round_robin;

use alloc::boxed::Box;

use super::Scheduler;
use crate::plan::{Builtin, Tuned};

pub use destinations::EXPIRATION;
pub use draw::seed_of;
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
    }
}

#[cfg(test)]
mod tests;
