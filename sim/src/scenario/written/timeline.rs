//! The timeline as written.

use evenkeel_config::document::{At, OneOrMany, TextOrTable};
use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{AgentText, DestinationText, DurationText, FlowRateText, PatternText};
use super::link::QualityKeys;
use super::machine::{RouteAction, Via};

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum Do {
    /// A machine loses power: its state and what is on its way to it are gone. A forwarder loses its flows.
    #[serde(rename = "stop")]
    Stop,
    /// A machine that has stopped comes back.
    #[serde(rename = "start")]
    Start,
    /// The programs of a host stop to answer; its kernel goes on.
    #[serde(rename = "hang")]
    Hang,
    /// The programs of a host take `factor` times as long for each request.
    #[serde(rename = "slow")]
    Slow,
    /// The agents of hosts say something else from now on.
    #[serde(rename = "agent")]
    Agent,
    /// The weight of a real server changes, as `evenkeel ctl weight` does it.
    #[serde(rename = "weight")]
    Weight,
    /// A director gets another scheduler, as `evenkeel ctl director DIRECTOR scheduler NAME` gives it; flows keep their servers.
    #[serde(rename = "scheduler")]
    Scheduler,
    /// A forwarder reads a configuration, as `evenkeel ctl reload` makes it.
    #[serde(rename = "reload")]
    Reload,
    /// A machine loses its link to a segment.
    #[serde(rename = "link.down")]
    LinkDown,
    /// A machine gets its link to a segment back.
    #[serde(rename = "link.up")]
    LinkUp,
    /// The link between a machine and a segment gets another quality.
    #[serde(rename = "link.set")]
    LinkSet,
    /// A machine gets a route, in place of one to the same network in the same table.
    #[serde(rename = "route.set")]
    RouteSet,
    /// A machine loses its route to a network.
    #[serde(rename = "route.delete")]
    RouteDelete,
    /// The clock of a forwarder jumps ahead, and its timers are due that much sooner.
    #[serde(rename = "clock.jump")]
    ClockJump,
}

impl Do {
    /// Every action.
    pub(crate) const ALL: [Self; 14] = [
        Self::Stop,
        Self::Start,
        Self::Hang,
        Self::Slow,
        Self::Agent,
        Self::Weight,
        Self::Scheduler,
        Self::Reload,
        Self::LinkDown,
        Self::LinkUp,
        Self::LinkSet,
        Self::RouteSet,
        Self::RouteDelete,
        Self::ClockJump,
    ];
}

/// One thing that happens: when (`at`, `every` or `within`), what (`do`), and to whom.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeline {
    /// Once, at this time.
    pub(crate) at: Option<At<DurationText>>,
    /// Again and again: the gap, or a table for gaps that are drawn.
    pub(crate) every: Option<At<TextOrTable<DurationText, Every>>>,
    /// With `every`, when it begins. Without it after the first gap.
    pub(crate) start: Option<At<DurationText>>,
    /// At `count` moments that are drawn evenly from the span between these two times.
    #[schemars(length(min = 2, max = 2))]
    pub(crate) within: Option<At<Vec<At<DurationText>>>>,
    /// How often: with `within`, by default once; with `every`, by default to the end.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) count: Option<At<i64>>,
    /// What happens; see [the actions](#actions).
    #[schemars(required)]
    pub(crate) r#do: Option<At<Do>>,
    /// To which machines. Where several fit, one of them is drawn each time.
    pub(crate) target: Option<At<OneOrMany<PatternText>>>,
    /// After this time it is as before.
    pub(crate) r#for: Option<At<DurationText>>,
    /// With `slow`, how many times longer requests take.
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    pub(crate) factor: Option<At<f64>>,
    /// With `agent`, the line.
    pub(crate) says: Option<At<AgentText>>,
    /// With `weight` and `scheduler`, the director.
    #[schemars(extend("x-form" = "name"))]
    pub(crate) director: Option<At<String>>,
    /// With `weight`, the real server; of several one is drawn each time.
    pub(crate) server: Option<At<OneOrMany<String>>>,
    /// With `weight`, the new weight.
    #[schemars(range(min = 0, max = 65_535))]
    pub(crate) weight: Option<At<i64>>,
    /// With `scheduler`, the new one: a built-in one by its name, `bundled:NAME`, or the file of a component, relative to the
    /// configuration. Those of a list take turns.
    pub(crate) scheduler: Option<At<OneOrMany<String>>>,
    /// With `reload`, the file, relative to this one. Without it the same file as at the start.
    #[schemars(extend("x-form" = "path"))]
    pub(crate) config: Option<At<String>>,
    /// With `link.down`, `link.up` and `link.set`, the segment.
    #[schemars(extend("x-form" = "name"))]
    pub(crate) segment: Option<At<String>>,
    /// With `link.set`, the quality in both directions; the same keys as in `[link.NAME]`.
    pub(crate) both: Option<At<QualityKeys>>,
    /// With `link.set`, what is different from the machine to the segment.
    pub(crate) up: Option<At<QualityKeys>>,
    /// With `link.set`, what is different from the segment to the machine.
    pub(crate) down: Option<At<QualityKeys>>,
    /// With `route.set` and `route.delete`, the network.
    pub(crate) to: Option<At<DestinationText>>,
    /// With `route.set`, the router, or a list of several among which flows are dealt out.
    pub(crate) via: Option<At<OneOrMany<Via>>>,
    /// With `route.set`, instead of `via`: `blackhole` or `unreachable`.
    pub(crate) action: Option<At<RouteAction>>,
    /// With `route.set` and `route.delete`, the routing table.
    #[schemars(range(min = 1, max = 4_294_967_295_i64), extend("default" = 254))]
    pub(crate) table: Option<At<i64>>,
    /// With `clock.jump`, how far.
    pub(crate) by: Option<At<DurationText>>,
}

/// Gaps that are drawn.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Every {
    /// `poisson` for exponential gaps, `uniform` for even ones.
    #[schemars(required)]
    pub(crate) process: Option<At<Renewal>>,
    /// How often on average.
    #[schemars(required)]
    pub(crate) rate: Option<At<FlowRateText>>,
}

/// The law of gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Renewal {
    /// Exponential.
    Poisson,
    /// Even.
    Uniform,
}
