//! What a cable does to frames, as numbers. Shares are in millionths, so that they are exact.

use evenkeel_engine::Duration;

use serde::{Deserialize, Serialize};

use crate::random::Stream;

/// What one direction of a cable does to frames.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// Bits per second; zero means without limit, and then nothing ever waits. Default 10 Gbit/s.
    pub rate_bits: u64,
    /// How long a frame is under way once it has left. Default 10 us.
    pub delay: Delay,
    /// Whether a frame arrives no earlier than the one before it, however their delays are drawn. Default no.
    pub keeps_order: bool,
    /// What happens to frames that have to wait. Default 1,000 packets, the last one is dropped.
    pub queue: Discipline,
    /// Which frames get lost. Default none.
    pub loss: Loss,
    /// Which frames come later than they should. Default none.
    pub reorder: Reorder,
    /// The share of frames that arrive twice, in millionths. Default 0.
    pub duplicate_millionths: u32,
    /// The share of frames of which one bit arrives changed, in millionths. Default 0.
    pub corrupt_millionths: u32,
    /// The most bytes behind the Ethernet header and its tags. Default 9,216: what switches carry; machines have limits of
    /// their own.
    pub mtu_bytes: u32,
    /// Bytes that a frame takes on the cable besides its own. Default 0; 24 is Ethernet with preamble, check sequence and gap.
    pub overhead_bytes: u32,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            rate_bits: 10_000_000_000,
            delay: Delay::Fixed(Duration::from_micros(10)),
            keeps_order: false,
            queue: Discipline::Packets { limit: 1_000 },
            loss: Loss::None,
            reorder: Reorder::default(),
            duplicate_millionths: 0,
            corrupt_millionths: 0,
            mtu_bytes: 9_216,
            overhead_bytes: 0,
        }
    }
}

/// How long frames are under way. A draw below zero counts as zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Delay {
    /// Always this long.
    Fixed(Duration),
    /// Evenly between two times, both included.
    Uniform {
        /// The shortest.
        low: Duration,
        /// The longest.
        high: Duration,
    },
    /// The normal distribution, cut off at zero.
    Normal {
        /// The mean, before the cut.
        mean: Duration,
        /// The standard deviation, before the cut.
        deviation: Duration,
    },
    /// The log-normal distribution.
    LogNormal {
        /// The mean of the delay itself, not of its logarithm.
        mean: Duration,
        /// The standard deviation of the delay itself.
        deviation: Duration,
    },
    /// A fixed part and an exponentially distributed one.
    Exponential {
        /// The fixed part.
        low: Duration,
        /// The mean of the other part, which is at most 40 times as long.
        mean: Duration,
    },
    /// The Pareto distribution: few frames take very long.
    Pareto {
        /// The shortest.
        low: Duration,
        /// The longest: longer draws count as this one.
        high: Duration,
        /// The shape, in thousandths: the share of frames that take longer than x is (low / x)^shape.
        shape_thousandths: u32,
    },
}

impl Delay {
    /// The delay of the next frame.
    pub(super) fn draw(self, stream: &mut Stream) -> Duration {
        match self {
            Self::Fixed(delay) => delay,
            Self::Uniform { low, high } => {
                let span = nanoseconds(high.saturating_sub(low));
                low + Duration::from_nanos(stream.below(span.saturating_add(1)))
            }
            Self::Normal { mean, deviation } => {
                of_float(normal(stream).mul_add(to_float(deviation), to_float(mean)))
            }
            Self::LogNormal { mean, deviation } => {
                if mean.is_zero() {
                    return Duration::ZERO;
                }
                let relative = to_float(deviation) / to_float(mean);
                let variance = libm::log(relative.mul_add(relative, 1.0));
                let exponent = normal(stream).mul_add(libm::sqrt(variance), -variance / 2.0);
                of_float(to_float(mean) * libm::exp(exponent))
            }
            Self::Exponential { low, mean } => low + stream.exponential(mean),
            Self::Pareto { low, high, shape_thousandths } => {
                let exponent = -1_000.0 / f64::from(shape_thousandths.max(1));
                of_float(to_float(low) * libm::pow(stream.unit(), exponent)).min(high)
            }
        }
    }
}

/// How frames wait for a limited rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Discipline {
    /// Up to this many frames wait, besides the one that is being sent; the next is dropped.
    Packets {
        /// The most that wait.
        limit: u32,
    },
    /// Frames of up to this many bytes wait, besides the one that is being sent; one that does not fit is dropped.
    Bytes {
        /// The most that wait.
        limit: u64,
    },
    /// Random early detection.
    Red(Red),
}

/// Random early detection (Floyd and Jacobson, 1993): the longer the queue has been of late, the more frames are
/// dropped, or marked.
///
/// The average is `avg += weight * (queue - avg)` at each arrival, and decays over idle time as if frames of 1,000
/// bytes had passed. Between `low` and `high` a frame is picked with the probability `p / (1 - count * p)`, where `p`
/// grows evenly up to `share_millionths` and `count` is the number of frames since the last one that was picked; from
/// `high` on every frame is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Red {
    /// The average queue from which frames are picked, in packets.
    pub low: u32,
    /// The average queue from which every frame is picked, in packets.
    pub high: u32,
    /// The most frames that wait, besides the one that is being sent; the next is dropped.
    pub limit: u32,
    /// The share that is picked just below `high`, in millionths.
    pub share_millionths: u32,
    /// The weight of a new sample, in millionths. 2,000 is usual; 1,000,000 looks at the queue as it is.
    pub weight_millionths: u32,
    /// Whether a picked frame is marked instead (RFC 3168) where its sender can take that. At or above `high` too, as
    /// Linux does without `harddrop`.
    pub marks: bool,
}

/// Which frames get lost. They have taken their time on the cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// None.
    None,
    /// Each frame on its own.
    Even {
        /// The share, in millionths.
        millionths: u32,
    },
    /// In bursts (Gilbert, 1960; Elliott, 1963): the cable is good or bad, and may change before each frame.
    GilbertElliott {
        /// From good to bad, in millionths.
        to_bad_millionths: u32,
        /// From bad to good, in millionths.
        to_good_millionths: u32,
        /// Lost while good, in millionths.
        good_millionths: u32,
        /// Lost while bad, in millionths.
        bad_millionths: u32,
    },
}

/// Which frames come later than they should, so that others overtake them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reorder {
    /// The share, in millionths.
    pub millionths: u32,
    /// How much later.
    pub extra: Duration,
}

/// A draw of the normal distribution with mean 0 and deviation 1 (Box and Muller, 1958). Two numbers are drawn for each,
/// so that the n-th delay of a cable is the same whatever came before.
fn normal(stream: &mut Stream) -> f64 {
    let radius = libm::sqrt(-2.0 * libm::log(stream.unit()));
    radius * libm::cos(core::f64::consts::TAU * stream.unit())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[allow(clippy::cast_precision_loss, reason = "a delay of more than 2^53 ns, 104 days, may be rounded")]
fn to_float(duration: Duration) -> f64 {
    nanoseconds(duration) as f64
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "such a cast saturates, and what is below zero becomes zero"
)]
fn of_float(nanoseconds: f64) -> Duration {
    Duration::from_nanos(libm::round(nanoseconds) as u64)
}
