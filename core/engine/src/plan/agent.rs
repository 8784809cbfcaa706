//! What is asked of the programs on real servers that say their own weight and state.

use alloc::string::String;

use crate::time::Duration;

/// How a director's agents are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentPlan {
    /// The TCP port where they answer (1 to 65,535).
    pub port: u16,
    /// How often each is asked (50 ms to 1 hour; by default 2 s).
    pub interval: Duration,
    /// How long an answer is waited for, from the connection on (10 ms to `interval`; by default 1 s).
    pub timeout: Duration,
    /// What they are sent first (at most 1,024 bytes; by default nothing).
    pub send: String,
}

impl AgentPlan {
    /// Agents at `port`, with the defaults.
    #[must_use]
    pub const fn at(port: u16) -> Self {
        let (interval, timeout) = (Duration::from_secs(2), Duration::from_secs(1));
        Self { port, interval, timeout, send: String::new() }
    }

    /// Where the agent of a server answers whose own port is `own`, if it has one.
    #[must_use]
    pub fn port_of(&self, own: Option<u16>) -> Option<u16> {
        Some(own.unwrap_or(self.port)).filter(|port| *port > 0)
    }
}
