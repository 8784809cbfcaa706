//! The built-in schedulers, one file each.
//!
//! Where they carry a name of IPVS they decide as Linux 6.1 does, its order of servers included: the kernel puts
//! a new server at the head of its list, so the walk goes from the last server of the plan to the first.

mod least_connections;
mod maglev;
mod round_robin;
mod source_hashing;
mod weighted_least_connections;
mod weighted_round_robin;

use alloc::boxed::Box;

use super::Scheduler;
use crate::plan::Builtin;

pub use maglev::{DEFAULT_TABLE_SIZE, table as maglev_table};

/// A new scheduler of this kind. Give it its servers before the first pick.
#[must_use]
pub fn builtin(kind: Builtin) -> Box<dyn Scheduler> {
    match kind {
        Builtin::RoundRobin => Box::new(round_robin::RoundRobin::default()),
        Builtin::WeightedRoundRobin => Box::new(weighted_round_robin::WeightedRoundRobin::default()),
        Builtin::LeastConnections => Box::new(least_connections::LeastConnections),
        Builtin::WeightedLeastConnections => Box::new(weighted_least_connections::WeightedLeastConnections),
        Builtin::SourceHashing => Box::new(source_hashing::SourceHashing::default()),
        Builtin::Maglev => Box::new(maglev::Maglev::default()),
    }
}

/// What a connection costs its server, in inactive entries: `ip_vs_dest_conn_overhead` of Linux 6.1 counts an active
/// one 256 times and then once more among all.
fn overhead(load: super::ServerLoad) -> u64 {
    257 * u64::from(load.active) + u64::from(load.inactive)
}

#[cfg(test)]
mod tests;
