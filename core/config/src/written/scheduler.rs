//! The value `scheduler` of a director, and how its servers start, as written.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{At, BuiltinText, ComponentText, DurationText, Netmask, Options, SizeText, TextOrTable};

/// The name of a built-in scheduler, or a table.
pub(crate) type Scheduler = TextOrTable<BuiltinText, SchedulerTable>;

/// A built-in scheduler with options of its own, by its `name`; or a `component` that schedules. What each built-in scheduler
/// does, and which of the options it takes, is on its page in the chapter Schedulers; any other is an error.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchedulerTable {
    /// Which built-in scheduler.
    pub(crate) name: Option<At<BuiltinText>>,
    /// What of a flow is hashed: `five-tuple`, addresses, ports and protocol; `source`, the client's address, or with
    /// `netmask` its network; `source-port`, the client's address and port; `destination`, the address that the client
    /// called. `sh` and `mh` hash `source`, or `source-port`.
    #[schemars(extend("default" = "five-tuple"))]
    pub(crate) key: Option<At<Key>>,
    /// With `key = "source"`: the part of an IPv4 client's address that counts. A mask, or its length in bits.
    #[schemars(extend("default" = 32))]
    pub(crate) netmask: Option<At<Netmask>>,
    /// The same for IPv6, in bits.
    #[schemars(range(min = 0, max = 128), extend("default" = 128))]
    pub(crate) netmask6: Option<At<i64>>,
    /// Entries of the lookup table of `maglev`, a prime, 100 for each real server or more; or of `mh`: 251, 509, 1021, 2039, 4093 (its
    /// default), 8191, 16381, 32749, 65521 or 131071.
    #[schemars(range(min = 2, max = 5_000_011), extend("default" = 65_537))]
    pub(crate) table_size: Option<At<i64>>,
    /// How the table of `maglev` follows weights: `cumulative`, a slot each time a server's weights have added up to the
    /// heaviest's; `turns`, as many slots at once as it has weight; `equal`, not at all.
    #[schemars(extend("default" = "cumulative"))]
    pub(crate) weights: Option<At<Weights>>,
    /// In what `source` looks a hash up: `map-based`, a map with an entry for each unit of weight; `consistent`, a ring
    /// with 16 points for each.
    #[schemars(extend("default" = "map-based"))]
    pub(crate) hash_type: Option<At<HashType>>,
    /// Whether `source` spreads the bits of an address first. Without the key, with `consistent` only.
    pub(crate) avalanche: Option<At<bool>>,
    /// The most flows that a real server gets, in hundredths of its share of all flows: 150 for one and a half times its share.
    /// Without the key 125 for `bounded`, and no bound for `source`.
    #[schemars(range(min = 101, max = 100_000), extend("default" = 125))]
    pub(crate) balance_factor: Option<At<i64>>,
    /// Points of the heaviest real server on the ring.
    #[schemars(range(min = 1, max = 65_536), extend("default" = 160))]
    pub(crate) points: Option<At<i64>>,
    /// The most real servers that there will ever be. Without the key there is room for four times as many as there are.
    #[schemars(range(min = 1, max = 1_048_576))]
    pub(crate) capacity: Option<At<i64>>,
    /// How often `multi-probe` hashes a flow.
    #[schemars(range(min = 1, max = 256), extend("default" = 21))]
    pub(crate) probes: Option<At<i64>>,
    /// How many real servers are compared for each flow.
    #[schemars(range(min = 1, max = 16), extend("default" = 2))]
    pub(crate) choices: Option<At<i64>>,
    /// The time in which what `peak-ewma` knows of a real server sinks to the e-th part, from 1ms to 1h.
    #[schemars(extend("default" = "10s"))]
    pub(crate) decay: Option<At<DurationText>>,
    /// By how much flows lower a real server's weight in `least-request`: the exponent of (flows + 1), in hundredths.
    #[schemars(range(min = 0, max = 1000), extend("default" = 100))]
    pub(crate) bias: Option<At<i64>>,
    /// How long `lblc` remembers an address that nobody calls, and `lblcr` a real server that was added for one; from 1s to 30d.
    #[schemars(extend("default" = "1d"))]
    pub(crate) expiration: Option<At<DurationText>>,
    /// The most answers to probes that `prequal` keeps.
    #[schemars(range(min = 2, max = 256), extend("default" = 16))]
    pub(crate) pool: Option<At<i64>>,
    /// How old an answer to a probe may be, from 1ms to 60s.
    #[schemars(extend("default" = "1s"))]
    pub(crate) probe_age: Option<At<DurationText>>,
    /// Probes for each flow, in hundredths.
    #[schemars(range(min = 1, max = 1600), extend("default" = 300))]
    pub(crate) probe_rate: Option<At<i64>>,
    /// Who answers probes: `flows`, this forwarder by what it sees of its own flows; or `servers`, the real servers
    /// themselves, by a datagram to `forwarder.probe_port`.
    #[schemars(extend("default" = "flows"))]
    pub(crate) probe_source: Option<At<ProbeSource>>,
    /// A real server is hot when it has more in flight than this share of the answers, in hundredths.
    #[schemars(range(min = 0, max = 100), extend("default" = 84))]
    pub(crate) hot_quantile: Option<At<i64>>,
    /// Which component.
    pub(crate) component: Option<At<ComponentText>>,
    /// Of a component: the built-in scheduler that answers, in the same call, when the component does not. Of `sh` and
    /// `mh`: whether a flow whose real server takes nothing goes on to another one (`true`) or is refused, as IPVS does
    /// without the flag `sh-fallback` or `mh-fallback`.
    #[schemars(extend("default" = "wlc"))]
    pub(crate) fallback: Option<At<Fallback>>,
    /// The most time that one call of a component may take, from 10us to 1s. The simulator counts instructions instead.
    #[schemars(extend("default" = "200us"))]
    pub(crate) budget: Option<At<DurationText>>,
    /// The most linear memory that a component may have, from 64KiB to 1GiB.
    #[schemars(extend("default" = "16MiB"))]
    pub(crate) memory: Option<At<SizeText>>,
    /// The component's own options, given to it as TOML text of at most 65536 bytes.
    #[schemars(extend("x-form" = "table"))]
    pub(crate) options: Option<At<Options>>,
}

/// What of a flow is hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Key {
    /// Addresses, ports and protocol.
    FiveTuple,
    /// The client's address.
    Source,
    /// The client's address and port.
    SourcePort,
    /// The address that the client called.
    Destination,
}

/// How a table follows weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Weights {
    /// By what has added up.
    Cumulative,
    /// Many at once.
    Turns,
    /// Not at all.
    Equal,
}

/// In what a hash is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum HashType {
    /// A map.
    MapBased,
    /// A ring.
    Consistent,
}

/// Who answers probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProbeSource {
    /// The forwarder.
    Flows,
    /// The real servers.
    Servers,
}

/// A scheduler that steps in, or whether somebody does.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Fallback {
    /// Whether somebody does.
    Switch(bool),
    /// Which scheduler.
    Name(BuiltinText),
}

impl JsonSchema for Fallback {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Fallback".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [generator.subschema_for::<BuiltinText>(), { "type": "boolean" }]
        })
    }
}

/// After how long a server's whole weight counts, or also how it gets there.
pub(crate) type SlowStart = TextOrTable<DurationText, SlowStartTable>;

/// How a real server that is new comes to its share.
#[derive(Clone, Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SlowStartTable {
    /// After how long its whole weight counts, from 10ms to 1d.
    #[schemars(required)]
    pub(crate) time: Option<At<DurationText>>,
    /// What counts of its weight at first, in hundredths.
    #[schemars(range(min = 1, max = 100), extend("default" = 10))]
    pub(crate) least: Option<At<i64>>,
    /// How what counts grows: the time that has passed, as a part of `time`, to the power of 100 / `aggression`. 100 is even growth;
    /// with more it is faster at first.
    #[schemars(range(min = 1, max = 10_000), extend("default" = 100))]
    pub(crate) aggression: Option<At<i64>>,
}
