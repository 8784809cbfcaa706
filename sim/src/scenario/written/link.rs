//! Links as written.

use evenkeel_config::document::{At, TextOrTable};
use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{BitRateText, CountOrTable, DurationText, PatternText, ShareOrTable, SizeText};

/// Declares tables that hold the quality of a direction, with keys of their own beside.
macro_rules! qualities {
    ($($(#[doc = $doc:literal])+ $name:ident {
        $($(#[$own:meta])+ $key:ident: $type:ty,)*
    })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$own])+ pub(crate) $key: Option<At<$type>>,)*
            /// How long a packet is under way: a duration, or a law.
            #[schemars(extend("default" = "10us"))]
            pub(crate) delay: Option<At<TextOrTable<DurationText, Delay>>>,
            /// A further delay, drawn evenly from nothing to this for each packet.
            #[schemars(extend("default" = "0s"))]
            pub(crate) jitter: Option<At<DurationText>>,
            /// Whether no packet arrives before the one that was sent before it, however their delays are drawn.
            #[schemars(extend("default" = false))]
            pub(crate) in_order: Option<At<bool>>,
            /// Bits a second.
            #[schemars(extend("default" = "10Gbit"))]
            pub(crate) rate: Option<At<BitRateText>>,
            /// Packets that may wait for the rate; or a table.
            #[schemars(extend("default" = 1000))]
            pub(crate) queue: Option<At<CountOrTable<Queue>>>,
            /// The share of packets that get lost, from 0 to 1; or a table for losses that come in bursts.
            #[schemars(extend("default" = 0))]
            pub(crate) loss: Option<At<ShareOrTable<Loss>>>,
            /// The share of packets that others overtake, from 0 to 1, by 1 ms; or a table.
            #[schemars(extend("default" = 0))]
            pub(crate) reorder: Option<At<ShareOrTable<Reorder>>>,
            /// The share of packets that arrive twice.
            #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0))]
            pub(crate) duplicate: Option<At<f64>>,
            /// The share of packets of which one bit arrives changed.
            #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0))]
            pub(crate) corrupt: Option<At<f64>>,
            /// The largest IP packet that is carried, in bytes. Interfaces of machines have a limit of 1,500 themselves.
            #[schemars(range(min = 68, max = 65_535), extend("default" = 9216))]
            pub(crate) mtu: Option<At<i64>>,
        }
    )+};
}

qualities! {
    /// How packets travel between machines and a segment. The keys hold for both directions; `up` and `down` say what
    /// is different in one.
    Link {
        /// The machines at one end (a pattern), and the segment at the other.
        #[schemars(required)]
        ends: Vec<At<PatternText>>,
        /// What is different from the machine to the segment. The keys above hold for what it does not say.
        up: QualityKeys,
        /// What is different from the segment to the machine. The keys above hold for what it does not say.
        down: QualityKeys,
    }
    /// The quality of a direction.
    QualityKeys {}
}

impl Link {
    /// The keys that hold for both directions.
    pub(crate) fn both(&self) -> QualityKeys {
        QualityKeys {
            delay: self.delay.clone(),
            jitter: self.jitter.clone(),
            in_order: self.in_order.clone(),
            rate: self.rate.clone(),
            queue: self.queue.clone(),
            loss: self.loss.clone(),
            reorder: self.reorder.clone(),
            duplicate: self.duplicate.clone(),
            corrupt: self.corrupt.clone(),
            mtu: self.mtu.clone(),
        }
    }
}

/// How delays are distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DelayLaw {
    /// Evenly between two times.
    Uniform,
    /// The normal distribution.
    Normal,
    /// The log-normal distribution.
    Lognormal,
    /// A fixed part and an exponential one.
    Exponential,
    /// The Pareto distribution.
    Pareto,
}

/// How long packets are under way.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Delay {
    /// `uniform`, evenly from `low` to `high`; `normal`, with `mean` and `deviation`, cut off at zero; `lognormal`, with
    /// `mean` and `deviation`; `exponential`, with `mean`, on top of `low`; or `pareto`, from `low` to `high` with `shape`.
    #[schemars(required)]
    pub(crate) law: Option<At<DelayLaw>>,
    /// The mean; with `exponential`, of the part on top of `low`.
    pub(crate) mean: Option<At<DurationText>>,
    /// The standard deviation.
    pub(crate) deviation: Option<At<DurationText>>,
    /// The shortest delay.
    pub(crate) low: Option<At<DurationText>>,
    /// The longest delay.
    pub(crate) high: Option<At<DurationText>>,
    /// With `pareto`, the exponent of the tail.
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub(crate) shape: Option<At<f64>>,
}

/// Losses that come in bursts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LossModel {
    /// Two states, of which one loses more.
    GilbertElliott,
}

/// Losses that come in bursts.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Loss {
    /// `gilbert-elliott`: the link is good or bad, and may change before each packet.
    #[schemars(required)]
    pub(crate) model: Option<At<LossModel>>,
    /// The chance to turn from good to bad.
    #[schemars(required, range(min = 0.0, max = 1.0))]
    pub(crate) p: Option<At<f64>>,
    /// The chance to turn from bad to good.
    #[schemars(required, range(min = 0.0, max = 1.0))]
    pub(crate) r: Option<At<f64>>,
    /// The share of packets that get lost while it is good.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0))]
    pub(crate) good: Option<At<f64>>,
    /// The share of packets that get lost while it is bad.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 1))]
    pub(crate) bad: Option<At<f64>>,
}

/// Packets that others overtake.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reorder {
    /// The share of packets.
    #[schemars(required, range(min = 0.0, max = 1.0))]
    pub(crate) share: Option<At<f64>>,
    /// How much later they arrive.
    #[schemars(extend("default" = "1ms"))]
    pub(crate) by: Option<At<DurationText>>,
}

/// The kind of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum QueueKind {
    /// Drops what finds it full.
    DropTail,
    /// Random early detection.
    Red,
}

/// What waits for the rate.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Queue {
    /// `drop-tail` drops what finds it full; `red` (random early detection) drops before, and the more the longer the
    /// queue has been of late.
    #[schemars(required)]
    pub(crate) kind: Option<At<QueueKind>>,
    /// The most packets that wait.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1000))]
    pub(crate) packets: Option<At<i64>>,
    /// With `drop-tail`, the most bytes that wait, instead of `packets`.
    pub(crate) bytes: Option<At<SizeText>>,
    /// With `red`, the average length, in packets, from which on packets are picked.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 50))]
    pub(crate) low: Option<At<i64>>,
    /// With `red`, the average length, in packets, from which on every packet is picked.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 150))]
    pub(crate) high: Option<At<i64>>,
    /// With `red`, the share that is picked just below `high`.
    #[schemars(range(min = 0.0, max = 1.0), extend("default" = 0.1))]
    pub(crate) share: Option<At<f64>>,
    /// With `red`, the weight of a new sample in the average.
    #[schemars(range(min = 0.000001, max = 1.0), extend("default" = 0.002))]
    pub(crate) weight: Option<At<f64>>,
    /// With `red`, whether a picked packet whose sender knows ECN is marked instead of dropped.
    #[schemars(extend("default" = false))]
    pub(crate) ecn: Option<At<bool>>,
}
