//! What the agent of a host says when a forwarder asks it.
//!
//! Like the questions of schedulers (see [`super::Recent`]), those to agents are messages of the control plane, past the
//! simulated network: a host without power, or with programs that hang, says nothing.

use evenkeel_engine::Duration;
use serde::{Deserialize, Serialize};

use super::PROBE_WAY;

/// How long a question is under way: the handshake, and what the forwarder sends with the end of it.
pub const AGENT_WAY: Duration = PROBE_WAY.saturating_mul(3);

/// What an agent says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentModel {
    /// The line, or its beginning.
    pub says: String,
    /// With this many requests the host is as busy as it may be: the line ends with how much of that is left, from 100 % down
    /// to 1 %.
    pub full: Option<u32>,
}

impl AgentModel {
    /// Its line while the host has `held` requests.
    #[must_use]
    pub fn line(&self, held: u32) -> String {
        let Some(full) = self.full else { return format!("{}\n", self.says) };
        let left = u64::from(full.saturating_sub(held)) * 100 / u64::from(full.max(1));
        format!("{} {}%\n", self.says, left.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_what_is_written_or_follows_the_load() {
        let fixed = AgentModel { says: "drain".to_owned(), full: None };
        assert_eq!(fixed.line(99), "drain\n");
        let busy = AgentModel { says: "up".to_owned(), full: Some(40) };
        let lines = [0, 10, 39, 40, 1_000].map(|held| busy.line(held));
        assert_eq!(lines, ["up 100%\n", "up 75%\n", "up 2%\n", "up 1%\n", "up 1%\n"]);
    }
}
