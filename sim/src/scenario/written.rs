//! The scenario file as written: one type per table, with the place of every value.
//!
//! In: a text. Out: [`File`], still in the user's words, and a note of everything that has not the shape that the
//! types give. The doc comments are the reference page and the descriptions of the JSON schema.

mod forms;
mod link;
mod machine;
mod timeline;
mod traffic;

use std::sync::LazyLock;

use evenkeel_config::document::{self, At, Named, OneOrMany, Source};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

pub(super) use forms::{
    AddressText, AgentText, CountOrTable, DestinationText, DurationText, FORMS, LoneAddressText, NetworkText,
    NumberOrText, PatternText, Ports, ShareOrTable, SizeText,
};
pub(super) use link::{Delay, DelayLaw, Link, Loss, LossModel, QualityKeys, Queue, QueueKind, Reorder};
pub(super) use machine::{
    Agent, Attach, Discipline, Ecmp, Forwarder, Host, NetworkKeys, Protocol, Route, RouteAction, Router,
    Rule, Service, Stack, Sysctl, Via,
};
pub(super) use timeline::{Do, Renewal, Timeline};
pub(super) use traffic::{Arrivals, DurationLaw, Load, Process, SizeLaw};

use super::error::Collector;

/// The whole file.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// The run itself.
    #[schemars(required)]
    pub(super) scenario: Option<At<About>>,
    /// The networks, each under its name. Everyone on a segment reaches everyone else there without a router.
    pub(super) segment: Option<At<Named<Segment>>>,
    /// The machines that talk, each group under its name: clients where a load names them, else servers.
    pub(super) host: Option<At<Named<Host>>>,
    /// The machines that only send packets on, each under its name.
    pub(super) router: Option<At<Named<Router>>>,
    /// The machines that run Evenkeel, each under its name.
    pub(super) forwarder: Option<At<Named<Forwarder>>>,
    /// How packets travel between machines and a segment, each under a name of its own. Where several fit, the last
    /// one in the file counts, and where none does the defaults.
    pub(super) link: Option<At<Named<Link>>>,
    /// The traffic, each under its name.
    pub(super) load: Option<At<Named<Load>>>,
    /// What happens besides traffic.
    pub(super) timeline: Option<At<Vec<At<Timeline>>>>,
    /// What a capture of the run holds.
    pub(super) capture: Option<At<Capture>>,
    /// What differs between the runs of a study (`evenkeel sim compare`): keys of this file with dots between their
    /// parts, each with its values. Every combination is a point; a single run takes what stands in the file.
    pub(super) sweep: Option<At<Named<Vec<NumberOrText>>>>,
    /// What must come out; the command ends with exit code 1 when one is missed.
    pub(super) expect: Option<At<Vec<At<Expect>>>>,
}

/// How a run is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    /// Packet by packet, through every stack.
    Packet,
    /// Request by request: the forwarders decide as ever, and nothing travels.
    Flow,
}

/// The run itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    /// What it is called; outputs carry the name.
    #[schemars(required, extend("x-form" = "name"))]
    pub(super) name: Option<At<String>>,
    /// The longest that it runs, in virtual time, up to `1d`. It ends sooner when every load is done.
    #[schemars(required)]
    pub(super) duration: Option<At<DurationText>>,
    /// The time from which on latencies and shares over time are counted.
    #[schemars(extend("default" = "0s"))]
    pub(super) warmup: Option<At<DurationText>>,
    /// How it is computed: `packet`, packet by packet through every stack; or `flow`, request by request, where the
    /// forwarders decide as ever and nothing travels.
    #[schemars(extend("default" = "packet"))]
    pub(super) mode: Option<At<Mode>>,
    /// Where everything random comes from, unless the command line names another.
    #[schemars(range(min = 0, max = 9_223_372_036_854_775_807_i64), extend("default" = 1))]
    pub(super) seed: Option<At<i64>>,
}

/// What a segment is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum SegmentKind {
    /// A switch that learns where stations are.
    Switch,
    /// A cable between two machines.
    Cable,
}

/// A network.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Segment {
    /// Its network, or one of each family. Segments do not overlap.
    #[schemars(required)]
    pub(super) subnet: Option<At<OneOrMany<NetworkText>>>,
    /// What joins its machines: a `switch` that learns where stations are, or a `cable` between exactly two.
    #[schemars(extend("default" = "switch"))]
    pub(super) kind: Option<At<SegmentKind>>,
}

/// What a capture of the run holds.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Capture {
    /// The segments whose frames it holds, as they reach a machine, each in a file of its own; names, or beginnings of
    /// names with `*` behind.
    pub(super) segments: Option<At<OneOrMany<PatternText>>>,
    /// The machines whose frames it holds, in and out, each in a file of its own; names, or beginnings of names with `*`
    /// behind.
    pub(super) machines: Option<At<OneOrMany<PatternText>>>,
}

/// What must come out.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Expect {
    /// The [metric](#metrics).
    #[schemars(required, extend("x-form" = "metric"))]
    pub(super) metric: Option<At<String>>,
    /// The least that it may be.
    pub(super) min: Option<At<f64>>,
    /// The most that it may be.
    pub(super) max: Option<At<f64>>,
    /// Exactly what it must be; hashes as 16 hexadecimal digits.
    pub(super) equals: Option<At<NumberOrText>>,
}

/// Made once; the types do not change while the program runs.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| document::schema_of::<File>("scenario.toml"));

/// The JSON schema (draft 2020-12) of scenario files. `x-form` names the form of a text as the reference page does.
#[must_use]
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// Reads the text and notes what does not fit; nothing is returned for a text that is not TOML.
pub(super) fn parse(source: &Source, errors: &mut Collector<'_>) -> Option<File> {
    document::read(source, schema(), &mut |misfit| {
        errors.add_misfit(misfit.span.unwrap_or(0..0), misfit.message, misfit.help);
    })
}
