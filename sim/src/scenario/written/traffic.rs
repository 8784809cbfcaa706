//! Loads as written, and laws of durations and sizes.

use evenkeel_config::document::{At, OneOrMany};
use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{DurationText, FlowRateText, PatternText, ServiceText, SizeText};

/// Declares a table that holds a law of values of one unit, with keys of its own beside.
macro_rules! laws {
    ($($(#[doc = $doc:literal])+ $name:ident of $value:ty, $named:literal, $table:literal {
        $($(#[$own:meta])+ $key:ident: $type:ty,)*
    })+) => {$(
        $(#[doc = $doc])+
        #[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct $name {
            $($(#[$own])+ pub(crate) $key: Option<At<$type>>,)*
            #[doc = $named]
            #[schemars(extend("x-form" = "[law](#laws)"))]
            pub(crate) law: Option<At<String>>,
            /// The mean.
            pub(crate) mean: Option<At<$value>>,
            /// The standard deviation divided by the mean.
            #[schemars(range(min = 0.0, max = 1000.0))]
            pub(crate) cv: Option<At<f64>>,
            /// The standard deviation.
            pub(crate) deviation: Option<At<$value>>,
            /// The least value.
            pub(crate) low: Option<At<$value>>,
            /// The greatest value.
            pub(crate) high: Option<At<$value>>,
            /// The exponent of the tail; near 1 the few largest carry most of the sum.
            #[schemars(range(min = 0.001, max = 1000.0))]
            pub(crate) shape: Option<At<f64>>,
            /// The small value.
            pub(crate) small: Option<At<$value>>,
            /// The large value.
            pub(crate) large: Option<At<$value>>,
            /// The share of large values.
            #[schemars(range(min = 0.0, max = 1.0))]
            pub(crate) share_large: Option<At<f64>>,
            #[doc = $table]
            #[schemars(extend("x-form" = "path"))]
            pub(crate) cdf: Option<At<String>>,
        }

        impl $name {
            /// The keys of the law that are there, with their places.
            pub(crate) fn law_keys(&self) -> Vec<(&'static str, std::ops::Range<usize>)> {
                let mut keys = Vec::new();
                let mut add = |key, place: Option<std::ops::Range<usize>>| {
                    keys.extend(place.map(|place| (key, place)));
                };
                add("mean", self.mean.as_ref().map(|at| at.span.clone()));
                add("cv", self.cv.as_ref().map(|at| at.span.clone()));
                add("deviation", self.deviation.as_ref().map(|at| at.span.clone()));
                add("low", self.low.as_ref().map(|at| at.span.clone()));
                add("high", self.high.as_ref().map(|at| at.span.clone()));
                add("shape", self.shape.as_ref().map(|at| at.span.clone()));
                add("small", self.small.as_ref().map(|at| at.span.clone()));
                add("large", self.large.as_ref().map(|at| at.span.clone()));
                add("share_large", self.share_large.as_ref().map(|at| at.span.clone()));
                keys
            }
        }
    )+};
}

laws! {
    /// A law of durations.
    DurationLaw of DurationText,
        "The law.",
        "Instead of `law`: a file with a value in seconds and a percentage in each line, relative to this file."
    {}
    /// The size of messages: `size`, `law` or `cdf`.
    SizeLaw of SizeText,
        "The law.",
        "Instead of `law`: a file with a value in bytes and a percentage in each line, relative to this file."
    {
        /// Always this size: from 16B to 1472B for UDP, to 16MiB for TCP.
        #[schemars(extend("default" = "64B"))]
        size: SizeText,
    }
}

/// Flows from some hosts to one service.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Load {
    /// The hosts that open flows, in turn.
    #[schemars(required)]
    pub(crate) from: Option<At<OneOrMany<PatternText>>>,
    /// The service: a VIP, or a host's own address.
    #[schemars(required)]
    pub(crate) to: Option<At<ServiceText>>,
    /// When flows are opened.
    #[schemars(required)]
    pub(crate) arrivals: Option<At<Arrivals>>,
    /// When the first flow may open.
    #[schemars(extend("default" = "0s"))]
    pub(crate) start: Option<At<DurationText>>,
    /// It ends after so many flows; this, or `duration`.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub(crate) flows: Option<At<i64>>,
    /// It opens no more flows after this time since its start; this, or `flows`.
    pub(crate) duration: Option<At<DurationText>>,
    /// The size of a request.
    pub(crate) request: Option<At<SizeLaw>>,
    /// The size of a response.
    pub(crate) response: Option<At<SizeLaw>>,
    /// Requests of one flow, one after the other.
    #[schemars(range(min = 1, max = 100_000), extend("default" = 1))]
    pub(crate) rounds: Option<At<i64>>,
    /// The mean of the exponential pause between an answer and the next request of the flow.
    #[schemars(extend("default" = "0s"))]
    pub(crate) pause: Option<At<DurationText>>,
    /// How long a client waits for an answer before the flow counts as broken. Without it, until TCP gives up, or
    /// until a datagram has been asked again three times.
    pub(crate) deadline: Option<At<DurationText>>,
}

/// When flows are opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Process {
    /// Exponential gaps.
    Poisson,
    /// Even gaps.
    Uniform,
    /// Exponential gaps while on.
    OnOff,
    /// A fixed number of flows.
    Closed,
}

/// When flows are opened.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Arrivals {
    /// The [process](#arrivals): `poisson`, `uniform`, `on-off` or `closed`.
    #[schemars(required)]
    pub(crate) process: Option<At<Process>>,
    /// Flows a second of the whole load, over all its clients; with `on-off`, while it is on.
    pub(crate) rate: Option<At<FlowRateText>>,
    /// With `on-off`, the mean time on.
    pub(crate) on: Option<At<DurationText>>,
    /// With `on-off`, the mean time off.
    pub(crate) off: Option<At<DurationText>>,
    /// With `closed`, the flows that are open together, over all clients.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) outstanding: Option<At<i64>>,
    /// With `closed`, the mean of the exponential time between the end of a flow and the next.
    #[schemars(extend("default" = "0s"))]
    pub(crate) think: Option<At<DurationText>>,
}
