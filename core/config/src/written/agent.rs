//! The table `agent_check` of a director, as written.

use schemars::JsonSchema;

use super::{At, DurationText};

/// How the programs on real servers are asked that say their own weight and state.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentCheck {
    /// The TCP port of the real servers where their agents answer.
    #[schemars(required, range(min = 1, max = 65_535))]
    pub(crate) port: Option<At<i64>>,
    /// How often each is asked, from 50ms to 1h.
    #[schemars(extend("default" = "2s"))]
    pub(crate) interval: Option<At<DurationText>>,
    /// How long its line is waited for, from the connection on: from 10ms to `interval`. Without the key 1s, or `interval`
    /// where that is less.
    pub(crate) timeout: Option<At<DurationText>>,
    /// What it is sent first, as it stands: at most 1024 bytes. Without the key, nothing.
    pub(crate) send: Option<At<String>>,
}
