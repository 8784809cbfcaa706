//! What links do to packets.

use evenkeel_config::document::{At, TextOrTable};
use evenkeel_engine::Duration;

use super::Checker;
use crate::scenario::quantity;
use crate::scenario::written::{
    self, CountOrTable, DelayLaw, DurationText, LossModel, QualityKeys, QueueKind, ShareOrTable,
};
use crate::wires::{Delay, Discipline, Loss, Quality, Red, Reorder};

/// The longest delay of a link: nothing on Earth takes a minute.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// How much later a packet arrives that others overtake, where only their share is given.
const REORDER_DEFAULT: Duration = Duration::from_millis(1);
/// The averages between which packets are picked early, in packets, and how many may wait.
const RED_DEFAULT: Red = Red {
    low: 50,
    high: 150,
    limit: 1_000,
    share_millionths: 100_000,
    weight_millionths: 2_000,
    marks: false,
};

impl Checker<'_, '_> {
    /// The quality of one direction: what holds for both, and what is different in this one.
    pub(super) fn quality(&mut self, both: &QualityKeys, own: Option<&QualityKeys>) -> Quality {
        let mut quality = Quality::default();
        // What is wrong for both directions is told once for each; the same error twice is told once.
        for keys in std::iter::once(both).chain(own) {
            self.delays(keys, &mut quality);
            if let Some(at) = &keys.in_order {
                quality.keeps_order = at.value;
            }
            if let Some(rate) =
                keys.rate.as_ref().and_then(|at| self.value(&at.span, &at.value.0, quantity::bits))
            {
                quality.rate_bits = rate;
            }
            if let Some(queue) = keys.queue.as_ref().and_then(|at| self.queue(at)) {
                quality.queue = queue;
            }
            if let Some(loss) = &keys.loss {
                quality.loss = losses(&loss.value);
            }
            if let Some(reorder) = keys.reorder.as_ref() {
                quality.reorder = self.reorder(&reorder.value);
            }
            if let Some(share) = &keys.duplicate {
                quality.duplicate_millionths = millionths(share.value);
            }
            if let Some(share) = &keys.corrupt {
                quality.corrupt_millionths = millionths(share.value);
            }
            if let Some(mtu) = keys.mtu.as_ref().and_then(|at| u32::try_from(at.value).ok()) {
                quality.mtu_bytes = mtu;
            }
        }
        quality
    }

    fn delays(&mut self, keys: &QualityKeys, quality: &mut Quality) {
        match keys.delay.as_ref().map(|at| (&at.span, &at.value)) {
            None => {}
            Some((span, TextOrTable::Text(text))) => {
                let text = At { span: span.clone(), value: text.clone() };
                quality.delay = Delay::Fixed(self.delay_of(&text).unwrap_or_default());
            }
            Some((span, TextOrTable::Table(law))) => {
                quality.delay = self.delay_law(span, law).unwrap_or(quality.delay);
            }
        }
        let Some(jitter) = &keys.jitter else { return };
        let Some(further) = self.delay_of(jitter) else { return };
        match quality.delay {
            Delay::Fixed(low) => quality.delay = Delay::Uniform { low, high: low + further },
            // In one direction there may be another jitter than in both.
            Delay::Uniform { low, .. } if keys.delay.is_none() => {
                quality.delay = Delay::Uniform { low, high: low + further };
            }
            Delay::Uniform { .. }
            | Delay::Normal { .. }
            | Delay::LogNormal { .. }
            | Delay::Exponential { .. }
            | Delay::Pareto { .. } => {
                let help = Some("leave `jitter` out: the law says how delays vary".to_owned());
                self.errors.add_with_help(jitter.span.clone(), "`jitter` beside a law", help);
            }
        }
    }

    fn delay_of(&mut self, text: &At<DurationText>) -> Option<Duration> {
        self.duration(text, Duration::ZERO..=DELAY_MAX)
    }

    fn delay_law(&mut self, span: &std::ops::Range<usize>, written: &written::Delay) -> Option<Delay> {
        let law = written.law.as_ref()?;
        let (name, needed, may): (&str, &[&str], &[&str]) = match law.value {
            DelayLaw::Uniform => ("uniform", &["low", "high"], &[]),
            DelayLaw::Normal => ("normal", &["mean", "deviation"], &[]),
            DelayLaw::Lognormal => ("lognormal", &["mean", "deviation"], &[]),
            DelayLaw::Exponential => ("exponential", &["mean"], &["low"]),
            DelayLaw::Pareto => ("pareto", &["low", "high", "shape"], &[]),
        };
        let keys = [
            ("mean", written.mean.as_ref().map(|at| &at.span)),
            ("deviation", written.deviation.as_ref().map(|at| &at.span)),
            ("low", written.low.as_ref().map(|at| &at.span)),
            ("high", written.high.as_ref().map(|at| &at.span)),
            ("shape", written.shape.as_ref().map(|at| &at.span)),
        ];
        let keys: Vec<_> = keys.into_iter().filter_map(|(key, place)| Some((key, place?.clone()))).collect();
        if !self.keys_of("law", name, span, &keys, needed, may) {
            return None;
        }
        let mut time =
            |at: &Option<At<DurationText>>| at.as_ref().map_or(Some(Duration::ZERO), |at| self.delay_of(at));
        let (mean, deviation) = (time(&written.mean)?, time(&written.deviation)?);
        let (low, high) = (time(&written.low)?, time(&written.high)?);
        if needed.contains(&"high") && low > high {
            let place = written.low.as_ref().map_or(span, |at| &at.span).clone();
            self.errors.add(place, format!("`low` ({low:?}) is above `high` ({high:?})"));
            return None;
        }
        Some(match law.value {
            DelayLaw::Uniform => Delay::Uniform { low, high },
            DelayLaw::Normal => Delay::Normal { mean, deviation },
            DelayLaw::Lognormal => Delay::LogNormal { mean, deviation },
            DelayLaw::Exponential => Delay::Exponential { low, mean },
            DelayLaw::Pareto => {
                let shape_thousandths = written.shape.as_ref().map_or(1_000, |at| thousandths(at.value));
                Delay::Pareto { low, high, shape_thousandths }
            }
        })
    }

    /// Notes keys that a choice needs and has not, and those that it has and does not take; whether all is right.
    pub(super) fn keys_of(
        &mut self,
        what: &str,
        choice: &str,
        span: &std::ops::Range<usize>,
        keys: &[(&'static str, std::ops::Range<usize>)],
        needed: &[&str],
        may: &[&str],
    ) -> bool {
        let mut is_right = true;
        for key in needed.iter().filter(|key| !keys.iter().any(|(given, _)| given == *key)) {
            self.errors.add_missing(span.clone(), format!("{what} `{choice}` needs `{key}`"));
            is_right = false;
        }
        for (key, place) in keys.iter().filter(|(key, _)| !needed.contains(key) && !may.contains(key)) {
            let takes: Vec<_> = needed.iter().chain(may).map(|key| format!("`{key}`")).collect();
            let takes = if takes.is_empty() { "no further keys".to_owned() } else { takes.join(", ") };
            let message = format!("{what} `{choice}` takes no `{key}`");
            self.errors.add_with_help(place.clone(), message, Some(format!("it takes {takes}")));
            is_right = false;
        }
        is_right
    }

    fn queue(&mut self, written: &At<CountOrTable<written::Queue>>) -> Option<Discipline> {
        let packets = |count: i64| u32::try_from(count).unwrap_or(1);
        let table = match &written.value {
            CountOrTable::Number(count) => return Some(Discipline::Packets { limit: packets(*count) }),
            CountOrTable::Table(table) => table,
        };
        let keys = [
            ("packets", table.packets.as_ref().map(|at| &at.span)),
            ("bytes", table.bytes.as_ref().map(|at| &at.span)),
            ("low", table.low.as_ref().map(|at| &at.span)),
            ("high", table.high.as_ref().map(|at| &at.span)),
            ("share", table.share.as_ref().map(|at| &at.span)),
            ("weight", table.weight.as_ref().map(|at| &at.span)),
            ("ecn", table.ecn.as_ref().map(|at| &at.span)),
        ];
        let keys: Vec<_> = keys.into_iter().filter_map(|(key, place)| Some((key, place?.clone()))).collect();
        let count = |at: &Option<At<i64>>, default| at.as_ref().map_or(default, |at| packets(at.value));
        match table.kind.as_ref()?.value {
            QueueKind::DropTail => {
                self.keys_of("queue", "drop-tail", &written.span, &keys, &[], &["packets", "bytes"]);
                let Some(bytes) = &table.bytes else {
                    return Some(Discipline::Packets { limit: count(&table.packets, RED_DEFAULT.limit) });
                };
                if table.packets.is_some() {
                    self.errors.add(bytes.span.clone(), "`packets` or `bytes`, not both");
                }
                let limit = self.value(&bytes.span, &bytes.value.0, quantity::bytes)?;
                Some(Discipline::Bytes { limit: limit.into() })
            }
            QueueKind::Red => {
                let may = ["packets", "low", "high", "share", "weight", "ecn"];
                self.keys_of("queue", "red", &written.span, &keys, &[], &may);
                let share =
                    |at: &Option<At<f64>>, default| at.as_ref().map_or(default, |at| millionths(at.value));
                let red = Red {
                    low: count(&table.low, RED_DEFAULT.low),
                    high: count(&table.high, RED_DEFAULT.high),
                    limit: count(&table.packets, RED_DEFAULT.limit),
                    share_millionths: share(&table.share, RED_DEFAULT.share_millionths),
                    weight_millionths: share(&table.weight, RED_DEFAULT.weight_millionths),
                    marks: table.ecn.as_ref().is_some_and(|at| at.value),
                };
                if red.low >= red.high || red.high > red.limit {
                    let message =
                        format!("low {}, high {} and packets {} do not ascend", red.low, red.high, red.limit);
                    self.errors.add(written.span.clone(), message);
                }
                Some(Discipline::Red(red))
            }
        }
    }

    fn reorder(&mut self, written: &ShareOrTable<written::Reorder>) -> Reorder {
        match written {
            ShareOrTable::Number(share) => Reorder { millionths: millionths(*share), extra: REORDER_DEFAULT },
            ShareOrTable::Table(table) => Reorder {
                millionths: table.share.as_ref().map_or(0, |at| millionths(at.value)),
                extra: self.duration_or(table.by.as_ref(), Duration::ZERO..=DELAY_MAX, REORDER_DEFAULT),
            },
        }
    }
}

fn losses(written: &ShareOrTable<written::Loss>) -> Loss {
    let share = |at: &Option<At<f64>>, default| at.as_ref().map_or(default, |at| millionths(at.value));
    match written {
        ShareOrTable::Number(share) if millionths(*share) == 0 => Loss::None,
        ShareOrTable::Number(share) => Loss::Even { millionths: millionths(*share) },
        ShareOrTable::Table(table) => match table.model.as_ref().map(|at| at.value) {
            Some(LossModel::GilbertElliott) => Loss::GilbertElliott {
                to_bad_millionths: share(&table.p, 0),
                to_good_millionths: share(&table.r, 0),
                good_millionths: share(&table.good, 0),
                bad_millionths: share(&table.bad, 1_000_000),
            },
            None => Loss::None,
        },
    }
}

/// A share of 0 to 1 in millionths, rounded; beyond it, the end that is nearer.
fn millionths(share: f64) -> u32 {
    scaled(share, 1_000_000.0)
}

/// A number in thousandths, rounded.
pub(super) fn thousandths(number: f64) -> u32 {
    scaled(number, 1_000.0)
}

fn scaled(number: f64, parts: f64) -> u32 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "such a cast saturates; a product of one float and a constant is the same everywhere"
    )]
    {
        libm::round(number * parts) as u32
    }
}
