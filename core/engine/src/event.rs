//! What happened in the engine that an operator may want to know; text is the driver's business.

use alloc::string::String;

use crate::director::Fault;

/// The most events that wait to be fetched; further ones are counted as lost. Events follow faults and
/// changes, never single packets, so a driver that looks now and then misses none.
pub const EVENTS_MAX: usize = 256;

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A new plan is in force.
    PlanApplied {
        /// Its generation, counted from 1.
        generation: u64,
    },
    /// A scheduler's or policy's component failed; the fallback has decided.
    GuestFault {
        /// The director or policy.
        name: String,
        /// What went wrong.
        fault: Fault,
    },
    /// A director's scheduler has been replaced by hand.
    SchedulerChanged {
        /// The director.
        director: String,
        /// Who schedules now.
        scheduler: String,
    },
    /// A scheduler that was on trial has had too many faults, and the one before it schedules again.
    SchedulerRolledBack {
        /// The director.
        director: String,
        /// Who had to go.
        from: String,
        /// Who schedules again.
        to: String,
    },
    /// A real server's agent has changed what new flows its server takes.
    AgentChanged {
        /// The director.
        director: String,
        /// The real server.
        server: String,
        /// What it says now: `ready`, `drain`, `maint`, or `down` and why.
        state: String,
    },
    /// The flow table has become full: new flows are dropped until entries expire.
    FlowTableFull {
        /// The bound that was reached.
        flows_max: u32,
    },
    /// A director has no port left for source NAT towards a real server.
    PortsExhausted {
        /// The director.
        director: String,
        /// The real server.
        server: String,
    },
}
