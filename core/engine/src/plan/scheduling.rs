//! Who picks the real servers, as a plan says it: the built-in schedulers, their options, and components.
//!
//! A built-in scheduler takes some of the [`Options`] and refuses the others; [`Builtin::settings`] says which, and
//! [`Tuned::check`] whether their values make sense.

use alloc::string::String;
use core::ops::RangeInclusive;

use crate::time::Duration;

/// Who picks the real server.
#[derive(Clone, Debug, PartialEq)]
pub enum SchedulerPlan {
    /// A scheduler of the engine, with its defaults.
    Builtin(Builtin),
    /// A scheduler of the engine, with options of its own.
    Tuned(Tuned),
    /// A component; found under the director's name among the [`Guests`](crate::Guests).
    Guest(GuestPlan),
}

impl SchedulerPlan {
    /// The built-in scheduler and its options, if it is one.
    #[must_use]
    pub fn native(&self) -> Option<Tuned> {
        match self {
            Self::Builtin(kind) => Some(Tuned::from(*kind)),
            Self::Tuned(tuned) => Some(*tuned),
            Self::Guest(_) => None,
        }
    }
}

macro_rules! builtins {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal [$($setting:ident)*],)+) => {
        /// The schedulers that are built into the engine.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Builtin {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Builtin {
            /// Every built-in scheduler.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name that configuration files use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The options that it takes.
            #[must_use]
            pub const fn settings(self) -> &'static [Setting] {
                match self {
                    $(Self::$variant => &[$(Setting::$setting,)*],)+
                }
            }
        }
    };
}

builtins! {
    /// Round robin.
    RoundRobin = "rr" [],
    /// Weighted round robin.
    WeightedRoundRobin = "wrr" [],
    /// Least connections.
    LeastConnections = "lc" [],
    /// Weighted least connections.
    WeightedLeastConnections = "wlc" [],
    /// Source hashing.
    SourceHashing = "sh" [Key Fallback],
    /// Maglev hashing over the flow hash.
    Maglev = "maglev" [Key TableSize Weights],
    /// Locality-based least connections.
    Locality = "lblc" [Expiration],
    /// Locality-based least connections with replication.
    LocalityReplicated = "lblcr" [Expiration],
    /// Destination hashing.
    DestinationHashing = "dh" [],
    /// Shortest expected delay.
    ShortestExpectedDelay = "sed" [],
    /// Never queue.
    NeverQueue = "nq" [],
    /// Weighted failover.
    Failover = "fo" [],
    /// Overflow.
    Overflow = "ovf" [],
    /// Maglev hashing over the client's address, as in IPVS.
    MaglevHashing = "mh" [Key Fallback TableSize],
    /// Weighted random twos choice, as in IPVS.
    RandomTwos = "twos" [],
    /// Power of d choices.
    PowerOfChoices = "p2c" [Choices],
    /// Join the shortest queue.
    JoinShortestQueue = "jsq" [],
    /// Join an idle queue.
    JoinIdleQueue = "jiq" [],
    /// The flow's hash modulo the number of servers.
    Modulo = "modulo" [Key],
    /// The client's address chooses, as in HAProxy.
    Source = "source" [HashType Avalanche BalanceFactor],
    /// Least connections, as in HAProxy.
    Leastconn = "leastconn" [],
    /// The first server that is not full.
    First = "first" [],
    /// Servers drawn from a ring, the least busy of them, as in HAProxy.
    Random = "random" [Choices],
    /// Round robin over a fixed map, as in HAProxy.
    StaticRoundRobin = "static-rr" [],
    /// Smooth weighted round robin.
    SmoothRoundRobin = "swrr" [],
    /// Highest random weight, the same for every server.
    Rendezvous = "rendezvous" [Key],
    /// Highest random weight, by weight.
    WeightedRendezvous = "weighted-rendezvous" [Key],
    /// A ring of points.
    Ring = "ring" [Key Points],
    /// A ring of points where nobody takes more than a share.
    Bounded = "bounded" [Key Points BalanceFactor],
    /// Jump consistent hash.
    Jump = "jump" [Key],
    /// `AnchorHash`.
    Anchor = "anchor" [Key Capacity],
    /// `DxHash`.
    Dx = "dx" [Key Capacity],
    /// Multi-probe consistent hashing.
    MultiProbe = "multi-probe" [Key Probes],
    /// The least expected delay, by the times of first answers.
    PeakEwma = "peak-ewma" [Choices Decay],
    /// Least request, as in Envoy.
    LeastRequest = "least-request" [Choices Bias],
    /// Probing for the fastest that is not hot.
    Prequal = "prequal" [Pool ProbeAge ProbeRate ProbeSource HotQuantile],
}

/// A built-in scheduler with options of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuned {
    /// Which one.
    pub kind: Builtin,
    /// What was said of it. What was not has the scheduler's default.
    pub options: Options,
}

impl From<Builtin> for Tuned {
    fn from(kind: Builtin) -> Self {
        Self { kind, options: Options::default() }
    }
}

/// What of a flow a hashing scheduler looks at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FlowKey {
    /// Addresses, ports and protocol: the keyed hash of the flow.
    #[default]
    FiveTuple,
    /// The client's address, or its network.
    Source {
        /// Bits of an IPv4 client's address that count (0 to 32).
        length_v4: u8,
        /// Bits of an IPv6 client's address that count (0 to 128).
        length_v6: u8,
    },
    /// The client's address and port.
    SourcePort,
    /// The address that the client called.
    Destination,
}

impl FlowKey {
    /// The client's whole address.
    pub const SOURCE: Self = Self::Source { length_v4: 32, length_v6: 128 };
}

/// How a Maglev table follows weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TableWeights {
    /// In each round a server's weight is added to its score, and it claims when the score reaches the largest weight.
    #[default]
    Cumulative,
    /// Each time it is its turn, a server claims as many slots as its weight has units of the greatest common divisor.
    Turns,
    /// Every server has the same share.
    Equal,
}

/// What the hash of `source` is looked up in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashType {
    /// A map with an entry for each unit of weight.
    #[default]
    MapBased,
    /// A ring with 16 points for each unit of weight.
    Consistent,
}

/// Who answers the probes of `prequal`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProbeSource {
    /// This forwarder, by what it sees of its flows.
    #[default]
    Flows,
    /// The real servers; the driver asks them.
    Servers,
}

macro_rules! options {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ty => $variant:ident = $name:literal,)+) => {
        /// What can be said of a built-in scheduler. What is `None` has the scheduler's default.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct Options {
            $($(#[doc = $doc])+ pub $field: Option<$kind>,)+
        }

        /// The name of an option.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Setting {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Setting {
            /// Every option.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The key that configuration files use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl Options {
            /// The options that something was said about.
            pub fn given(&self) -> impl Iterator<Item = Setting> {
                [$(self.$field.is_some().then_some(Setting::$variant),)+].into_iter().flatten()
            }
        }
    };
}

options! {
    /// What of a flow is hashed.
    key: FlowKey => Key = "key",
    /// Whether a flow whose server takes nothing is handed on to another one, instead of being refused.
    fallback: bool => Fallback = "fallback",
    /// Entries of the lookup table.
    table_size: u32 => TableSize = "table_size",
    /// How the lookup table follows weights.
    weights: TableWeights => Weights = "weights",
    /// How long a server that was added to a destination, or a destination that nobody calls, is remembered.
    expiration: Duration => Expiration = "expiration",
    /// How many servers are compared for each flow.
    choices: u32 => Choices = "choices",
    /// What a hash is looked up in.
    hash_type: HashType => HashType = "hash_type",
    /// Whether the bits of an address are spread before they choose.
    avalanche: bool => Avalanche = "avalanche",
    /// The most flows of a server, in hundredths of its share.
    balance_factor: u32 => BalanceFactor = "balance_factor",
    /// Points of the heaviest server on the ring.
    points: u32 => Points = "points",
    /// The most servers that there will ever be.
    capacity: u32 => Capacity = "capacity",
    /// How often a flow is hashed.
    probes: u32 => Probes = "probes",
    /// The time in which an estimate sinks to the e-th part.
    decay: Duration => Decay = "decay",
    /// How much flows take from a weight: the exponent, in hundredths.
    bias: u32 => Bias = "bias",
    /// The most answers that are kept.
    pool: u32 => Pool = "pool",
    /// How old an answer may be.
    probe_age: Duration => ProbeAge = "probe_age",
    /// Probes for each flow, in hundredths.
    probe_rate: u32 => ProbeRate = "probe_rate",
    /// Who answers probes.
    probe_source: ProbeSource => ProbeSource = "probe_source",
    /// The share of the pool, in hundredths, that has at most as much to do as a server that is not hot.
    hot_quantile: u32 => HotQuantile = "hot_quantile",
}

/// Nanoseconds of a second.
const SECOND: u64 = 1_000_000_000;

/// The sizes of table that `mh` knows.
pub const HASHING_TABLE_SIZES: [u32; 10] =
    [251, 509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521, 131_071];

/// The largest Maglev table: 10 MB, 100 entries for each of 50,000 servers. Envoy has the same bound.
pub const TABLE_SIZE_MAX: u32 = 5_000_011;

/// Why options can not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// The scheduler has no such option.
    #[error("the scheduler `{}` has no option `{}`", kind.name(), setting.name())]
    Unknown {
        /// The scheduler.
        kind: Builtin,
        /// The option.
        setting: Setting,
    },
    /// The value is outside of its range.
    #[error("`{}` of the scheduler `{}` is {value}, outside of {least} to {most}", setting.name(), kind.name())]
    OutOfRange {
        /// The scheduler.
        kind: Builtin,
        /// The option.
        setting: Setting,
        /// What was said.
        value: u64,
        /// The least that is possible.
        least: u64,
        /// The most that is possible.
        most: u64,
    },
    /// The table's size is none of those that are possible.
    #[error("`table_size` of the scheduler `{}` is {value}; the next that is possible is {near}", kind.name())]
    TableSize {
        /// The scheduler.
        kind: Builtin,
        /// What was said.
        value: u32,
        /// A possible size close to it.
        near: u32,
    },
    /// A bound needs a ring.
    #[error("`balance_factor` of the scheduler `{}` needs `hash_type = \"consistent\"`", kind.name())]
    NoRing {
        /// The scheduler.
        kind: Builtin,
    },
    /// The scheduler can not hash this.
    #[error("the scheduler `{}` hashes the source address, or that and the source port", kind.name())]
    Key {
        /// The scheduler.
        kind: Builtin,
    },
}

impl OptionError {
    /// The option that it is about.
    #[must_use]
    pub const fn setting(&self) -> Setting {
        match self {
            Self::Unknown { setting, .. } | Self::OutOfRange { setting, .. } => *setting,
            Self::TableSize { .. } => Setting::TableSize,
            Self::Key { .. } => Setting::Key,
            Self::NoRing { .. } => Setting::BalanceFactor,
        }
    }
}

impl Setting {
    /// The range of a number or, in nanoseconds, of a duration.
    #[must_use]
    pub const fn range(self) -> Option<RangeInclusive<u64>> {
        match self {
            Self::Key
            | Self::Fallback
            | Self::Weights
            | Self::HashType
            | Self::Avalanche
            | Self::ProbeSource => None,
            Self::TableSize => Some(2..=TABLE_SIZE_MAX as u64),
            Self::Expiration => Some(SECOND..=30 * 86_400 * SECOND),
            Self::Choices => Some(1..=16),
            // Below, flows would be refused though servers are idle; above, nothing is bounded.
            Self::BalanceFactor => Some(101..=100_000),
            Self::Points => Some(1..=65_536),
            Self::Capacity => Some(1..=1 << 20),
            Self::Probes => Some(1..=256),
            Self::Decay => Some(SECOND / 1000..=3600 * SECOND),
            Self::Bias => Some(0..=1000),
            Self::Pool => Some(2..=256),
            Self::ProbeAge => Some(SECOND / 1000..=60 * SECOND),
            Self::ProbeRate => Some(1..=1600),
            Self::HotQuantile => Some(0..=100),
        }
    }
}

impl Tuned {
    /// Whether the scheduler has these options and their values make sense.
    ///
    /// # Errors
    /// When it lacks one, or a value is out of its range.
    pub fn check(&self) -> Result<(), OptionError> {
        let Self { kind, options } = *self;
        let taken = kind.settings();
        if let Some(setting) = options.given().find(|setting| !taken.contains(setting)) {
            return Err(OptionError::Unknown { kind, setting });
        }
        for setting in options.given() {
            if let (Some(value), Some(range)) = (options.amount(setting), setting.range())
                && !range.contains(&value)
            {
                let (least, most) = (*range.start(), *range.end());
                return Err(OptionError::OutOfRange { kind, setting, value, least, most });
            }
        }
        let hashes_source = matches!(kind, Builtin::SourceHashing | Builtin::MaglevHashing);
        let is_fit = matches!(options.key, None | Some(FlowKey::SOURCE | FlowKey::SourcePort));
        if hashes_source && !is_fit {
            return Err(OptionError::Key { kind });
        }
        // Only on a ring does a flow have another server to go to.
        if kind == Builtin::Source
            && options.balance_factor.is_some()
            && options.hash_type != Some(HashType::Consistent)
        {
            return Err(OptionError::NoRing { kind });
        }
        match options.table_size.map(|value| (value, near_size(kind, value))) {
            Some((value, near)) if value != near => Err(OptionError::TableSize { kind, value, near }),
            _ => Ok(()),
        }
    }
}

impl Options {
    /// The number, or the nanoseconds, that stand in an option.
    fn amount(&self, setting: Setting) -> Option<u64> {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        match setting {
            Setting::Key
            | Setting::Fallback
            | Setting::Weights
            | Setting::HashType
            | Setting::Avalanche
            | Setting::ProbeSource => None,
            Setting::TableSize => self.table_size.map(u64::from),
            Setting::Expiration => self.expiration.map(nanoseconds),
            Setting::Choices => self.choices.map(u64::from),
            Setting::BalanceFactor => self.balance_factor.map(u64::from),
            Setting::Points => self.points.map(u64::from),
            Setting::Capacity => self.capacity.map(u64::from),
            Setting::Probes => self.probes.map(u64::from),
            Setting::Decay => self.decay.map(nanoseconds),
            Setting::Bias => self.bias.map(u64::from),
            Setting::Pool => self.pool.map(u64::from),
            Setting::ProbeAge => self.probe_age.map(nanoseconds),
            Setting::ProbeRate => self.probe_rate.map(u64::from),
            Setting::HotQuantile => self.hot_quantile.map(u64::from),
        }
    }
}

/// The possible size of a table that is closest to `value`, which is in range.
fn near_size(kind: Builtin, value: u32) -> u32 {
    if kind == Builtin::MaglevHashing {
        let sizes = HASHING_TABLE_SIZES.into_iter();
        return sizes.min_by_key(|size| size.abs_diff(value)).unwrap_or(value);
    }
    // There is a prime between any number and its double, and 5,000,011 is one.
    (value..=TABLE_SIZE_MAX).find(|size| is_prime(*size)).unwrap_or(TABLE_SIZE_MAX)
}

fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..).take_while(|n: &u32| n.saturating_mul(*n) <= number).all(|n| !number.is_multiple_of(n))
}

/// How a real server that is new, or comes back, gets to its share of flows, whatever the scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStart {
    /// After this long its whole weight counts (10 ms to 1 day).
    pub time: Duration,
    /// What counts of its weight at first, in hundredths (1 to 100).
    pub least: u32,
    /// How what counts grows with time t of `time` T: (t / T)^(100 / aggression). 100 is even; with more it grows
    /// faster at first (1 to 10,000).
    pub aggression: u32,
}

impl SlowStart {
    /// Even growth from a tenth, as in Envoy.
    #[must_use]
    pub const fn of(time: Duration) -> Self {
        Self { time, least: 10, aggression: 100 }
    }
}

/// What a host needs to run a component; the engine only keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct GuestPlan {
    /// A bundled component's name (`bundled:maglev`), or the path of a file.
    pub component: String,
    /// The text of the guest's own options, given to it as it is.
    pub options: String,
    /// The most time that one call may take. The simulator counts instructions instead.
    pub call_budget: Duration,
    /// The most linear memory that the guest may have, in bytes.
    pub memory_limit_bytes: u64,
    /// The native scheduler that answers when the guest does not.
    pub fallback: Builtin,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Builtin, options: Options) -> Result<(), OptionError> {
        Tuned { kind, options }.check()
    }

    #[test]
    fn a_scheduler_without_options_is_always_right() {
        for kind in Builtin::ALL {
            assert_eq!(Tuned::from(*kind).check(), Ok(()));
            assert_eq!(SchedulerPlan::Builtin(*kind).native(), Some(Tuned::from(*kind)));
        }
    }

    #[test]
    fn an_option_that_a_scheduler_lacks_is_refused() {
        for kind in Builtin::ALL {
            let options = Options { choices: Some(2), ..Options::default() };
            let expected = match kind.settings().contains(&Setting::Choices) {
                true => Ok(()),
                false => Err(OptionError::Unknown { kind: *kind, setting: Setting::Choices }),
            };
            assert_eq!(check(*kind, options), expected);
        }
    }

    #[test]
    fn values_have_a_range_and_tables_are_prime() {
        let of = |size| Options { table_size: Some(size), ..Options::default() };
        for size in [2, 251, 65_537, TABLE_SIZE_MAX] {
            assert_eq!(check(Builtin::Maglev, of(size)), Ok(()), "{size}");
        }
        let near = |kind, size| match check(kind, of(size)) {
            Err(error @ OptionError::TableSize { near, .. }) => {
                assert_eq!(error.setting(), Setting::TableSize);
                Some(near)
            }
            _ => None,
        };
        assert_eq!(near(Builtin::Maglev, 65_536), Some(65_537));
        assert_eq!(near(Builtin::Maglev, TABLE_SIZE_MAX - 1), Some(TABLE_SIZE_MAX));
        assert_eq!(near(Builtin::MaglevHashing, 8_192), Some(8_191));
        assert_eq!(near(Builtin::MaglevHashing, 2), Some(251));
        for size in HASHING_TABLE_SIZES {
            assert_eq!(check(Builtin::MaglevHashing, of(size)), Ok(()));
        }
        for size in [0, 1, TABLE_SIZE_MAX + 1, u32::MAX] {
            assert!(
                matches!(check(Builtin::Maglev, of(size)), Err(OptionError::OutOfRange { .. })),
                "{size}"
            );
        }
        let long = Options { decay: Some(Duration::from_secs(3601)), ..Options::default() };
        assert!(matches!(check(Builtin::PeakEwma, long), Err(OptionError::OutOfRange { .. })));
    }

    #[test]
    fn a_bound_needs_a_ring_and_the_kernel_hashes_sources_alone() {
        let bounded = Options { balance_factor: Some(150), ..Options::default() };
        assert_eq!(check(Builtin::Bounded, bounded), Ok(()));
        assert_eq!(check(Builtin::Source, bounded), Err(OptionError::NoRing { kind: Builtin::Source }));
        let ring = Options { hash_type: Some(HashType::Consistent), ..bounded };
        assert_eq!(check(Builtin::Source, ring), Ok(()));
        for kind in [Builtin::SourceHashing, Builtin::MaglevHashing] {
            let of = |key| check(kind, Options { key: Some(key), ..Options::default() });
            assert_eq!((of(FlowKey::SOURCE), of(FlowKey::SourcePort)), (Ok(()), Ok(())));
            let network = FlowKey::Source { length_v4: 24, length_v6: 128 };
            for key in [FlowKey::FiveTuple, FlowKey::Destination, network] {
                assert_eq!(of(key), Err(OptionError::Key { kind }));
            }
        }
    }
}
