//! What a run says at the end: a table, the goals with what was reached, and the same as JSON.
//!
//! A goal is a ratio of medians of one run. Absolute figures depend on the machine and its other load.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::forwarders::Forwarder;
use crate::measure::{Measure, Sample};

/// Everything that was measured: the samples of each round.
pub(crate) type Samples = BTreeMap<(Forwarder, Measure), Vec<Sample>>;

/// The result of a run, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Kernel release.
    kernel: String,
    /// Processors that the run could use.
    processors: usize,
    /// Whether the veth interfaces merge packets (GRO), which changes the picture.
    has_veth_gro: bool,
    /// Rounds that the medians are of.
    rounds: usize,
    /// Length of a window in seconds.
    window_seconds: f64,
    /// Medians, by forwarder and measure.
    medians: BTreeMap<&'static str, BTreeMap<&'static str, Sample>>,
    /// Every sample, by forwarder and measure, in the order of the rounds.
    samples: BTreeMap<&'static str, BTreeMap<&'static str, Vec<Sample>>>,
    /// The goals, as far as both sides were measured.
    goals: Vec<Goal>,
}

/// One promise and what came of it.
#[derive(Debug, Serialize)]
pub(crate) struct Goal {
    /// What is compared with what.
    what: String,
    /// The ratio of the medians.
    ratio: f64,
    /// The bound.
    bound: f64,
    /// Whether the ratio must be at least the bound; else at most.
    is_minimum: bool,
    /// Whether the bound holds.
    is_met: bool,
}

/// What a goal compares.
#[derive(Clone, Copy, Debug)]
enum Figure {
    Rate,
    Cpu,
    P50,
    P99,
}

/// The goals of the first cut: (who, against whom, traffic, figure, at least?, bound). Those of `udp` are
/// looked at for [`Measure::UdpWindow`] too.
const GOALS: [(Forwarder, Forwarder, Measure, Figure, bool, f64); 11] = [
    (Forwarder::Evenkeel, Forwarder::Nft, Measure::Tcp1, Figure::Rate, true, 0.6),
    (Forwarder::Evenkeel, Forwarder::Haproxy, Measure::Tcp1, Figure::Rate, true, 1.5),
    (Forwarder::Evenkeel, Forwarder::Haproxy, Measure::Tcp1, Figure::Cpu, false, 0.75),
    (Forwarder::Evenkeel, Forwarder::Plain, Measure::Udp, Figure::Rate, true, 0.9),
    (Forwarder::Evenkeel, Forwarder::Nginx, Measure::Udp, Figure::Rate, true, 1.2),
    (Forwarder::Evenkeel, Forwarder::Nginx, Measure::Udp, Figure::Cpu, false, 0.8),
    (Forwarder::Evenkeel, Forwarder::Nft, Measure::Udp, Figure::Rate, true, 0.8),
    (Forwarder::Evenkeel, Forwarder::Nft, Measure::Udp, Figure::Cpu, false, 1.7),
    (Forwarder::Evenkeel, Forwarder::Nft, Measure::Latency, Figure::P50, false, 3.0),
    (Forwarder::Evenkeel, Forwarder::Nft, Measure::Latency, Figure::P99, false, 4.0),
    (Forwarder::Evenkeel, Forwarder::BareUring, Measure::Udp, Figure::Cpu, false, 1.15),
];

impl Figure {
    const fn of(self, sample: &Sample) -> f64 {
        match self {
            Self::Rate => sample.rate,
            Self::Cpu => sample.cpu,
            Self::P50 => sample.p50_us,
            Self::P99 => sample.p99_us,
        }
    }

    const fn name(self, measure: Measure) -> &'static str {
        match (self, measure) {
            (Self::Rate, Measure::Udp | Measure::UdpWindow | Measure::UdpMixed) => "packets/s",
            (Self::Rate, Measure::Connections) => "connections/s",
            (Self::Rate, _) => "bytes/s",
            (Self::Cpu, Measure::Udp | Measure::UdpWindow | Measure::UdpMixed) => "CPU per packet",
            (Self::Cpu, Measure::Connections) => "CPU per connection",
            (Self::Cpu, _) => "CPU per byte",
            (Self::P50, _) => "p50",
            (Self::P99, _) => "p99",
        }
    }
}

impl Report {
    /// Draws the result from what was measured.
    pub(crate) fn new(samples: &Samples, rounds: usize, window_seconds: f64, has_veth_gro: bool) -> Self {
        let kernel =
            std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        let mut by_name: BTreeMap<_, BTreeMap<_, Vec<Sample>>> = BTreeMap::new();
        let mut medians: BTreeMap<_, BTreeMap<_, Sample>> = BTreeMap::new();
        for ((forwarder, measure), samples) in samples {
            by_name.entry(forwarder.name()).or_default().insert(measure.name(), samples.clone());
            medians.entry(forwarder.name()).or_default().insert(measure.name(), median(samples));
        }
        let goals = goals(samples);
        Self { kernel, processors, has_veth_gro, rounds, window_seconds, medians, samples: by_name, goals }
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "medians of {} rounds of {} s; kernel {}, {} processors, GRO on veth {}\n\n",
            self.rounds,
            self.window_seconds,
            self.kernel,
            self.processors,
            if self.has_veth_gro { "on" } else { "off" }
        );
        text += "forwarder       | UDP kpps  us/pkt | window kpps us/pkt | mixed kpps us/pkt | TCP1 Gb/s  s/GB | TCP8 Gb/s  s/GB | conn k/s us each |  p50 us   p99 us | other load\n";
        for forwarder in Forwarder::ALL {
            let Some(medians) = self.medians.get(forwarder.name()) else { continue };
            let of = |measure: Measure| medians.get(measure.name());
            let cells = |measure, left: usize, right: usize| {
                of(measure).map_or_else(
                    || format!("{:>left$} {:>right$}", "-", "-"),
                    |sample| match measure {
                        Measure::Udp | Measure::UdpWindow | Measure::UdpMixed => {
                            format!("{:>left$.0} {:>right$.2}", sample.rate, sample.cpu)
                        }
                        Measure::Connections => format!("{:>left$.1} {:>right$.1}", sample.rate, sample.cpu),
                        Measure::Tcp1 | Measure::Tcp8 => {
                            format!("{:>left$.2} {:>right$.2}", sample.rate, sample.cpu)
                        }
                        Measure::Latency => format!("{:>left$.1} {:>right$.1}", sample.p50_us, sample.p99_us),
                    },
                )
            };
            let other = medians.values().map(|sample| sample.other_load).fold(0.0, f64::max);
            let [udp, window] = [cells(Measure::Udp, 8, 7), cells(Measure::UdpWindow, 11, 6)];
            let [mixed, tcp1] = [cells(Measure::UdpMixed, 10, 6), cells(Measure::Tcp1, 9, 5)];
            let connections = cells(Measure::Connections, 8, 7);
            let [tcp8, latency] = [cells(Measure::Tcp8, 9, 5), cells(Measure::Latency, 7, 8)];
            let name = forwarder.name();
            let _ = writeln!(
                text,
                "{name:<15} | {udp} | {window} | {mixed} | {tcp1} | {tcp8} | {connections} | {latency} | {other:>6.2}"
            );
        }
        text.push('\n');
        for Goal { what, ratio, bound, is_minimum, is_met } in &self.goals {
            let (sign, word) =
                (if *is_minimum { ">=" } else { "<=" }, if *is_met { "met" } else { "MISSED" });
            let _ = writeln!(text, "{what:<52} {ratio:>6.2}   goal {sign} {bound:<5} {word}");
        }
        text
    }

    /// Whether every goal that could be looked at is met.
    pub(crate) fn is_met(&self) -> bool {
        self.goals.iter().all(|goal| goal.is_met)
    }
}

fn goals(samples: &Samples) -> Vec<Goal> {
    let mut goals = Vec::new();
    let windowed = GOALS.into_iter().filter(|goal| goal.2 == Measure::Udp).map(|mut goal| {
        goal.2 = Measure::UdpWindow;
        goal
    });
    for (who, whom, measure, figure, is_minimum, bound) in GOALS.into_iter().chain(windowed) {
        let value = |forwarder| {
            let samples = samples.get(&(forwarder, measure))?;
            Some(figure.of(&median(samples))).filter(|value| *value > 0.0)
        };
        let (Some(ours), Some(theirs)) = (value(who), value(whom)) else { continue };
        let ratio = ours / theirs;
        let is_met = if is_minimum { ratio >= bound } else { ratio <= bound };
        let what =
            format!("{} {}: {} against {}", measure.name(), figure.name(measure), who.name(), whom.name());
        goals.push(Goal { what, ratio, bound, is_minimum, is_met });
    }
    goals
}

/// The median of each figure by itself.
fn median(samples: &[Sample]) -> Sample {
    let of = |figure: fn(&Sample) -> f64| {
        let mut values: Vec<f64> = samples.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get(values.len().saturating_sub(1) / 2), values.get(values.len() / 2));
        low.zip(high).map_or(0.0, |(low, high)| f64::midpoint(*low, *high))
    };
    Sample {
        rate: of(|sample| sample.rate),
        cpu: of(|sample| sample.cpu),
        cpu_of_machine: of(|sample| sample.cpu_of_machine),
        other_load: of(|sample| sample.other_load),
        p50_us: of(|sample| sample.p50_us),
        p99_us: of(|sample| sample.p99_us),
        lost: of(|sample| sample.lost),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(rate: f64) -> Sample {
        Sample { rate, cpu: 1.0 / rate, ..Sample::default() }
    }

    #[test]
    fn the_median_is_the_middle_or_between_the_two_middle_ones() {
        let of = |rates: &[f64]| median(&rates.iter().copied().map(rate).collect::<Vec<_>>()).rate;
        assert!((of(&[3.0, 100.0, 1.0]) - 3.0).abs() < 1e-9);
        assert!((of(&[4.0, 1.0, 2.0, 100.0]) - 3.0).abs() < 1e-9);
        assert!(of(&[]).abs() < 1e-9);
    }

    #[test]
    fn a_goal_is_a_ratio_of_medians_and_is_left_out_where_one_side_is_missing() {
        let mut samples = Samples::new();
        samples.insert((Forwarder::Evenkeel, Measure::Tcp1), vec![rate(7.0), rate(8.0), rate(9.0)]);
        samples.insert((Forwarder::Nft, Measure::Tcp1), vec![rate(10.0)]);
        let report = Report::new(&samples, 3, 1.0, false);
        assert_eq!(report.goals.len(), 1);
        assert!((report.goals[0].ratio - 0.8).abs() < 1e-9);
        assert!(report.is_met());
        samples.insert((Forwarder::Haproxy, Measure::Tcp1), vec![rate(7.0)]);
        let report = Report::new(&samples, 3, 1.0, false);
        assert_eq!(report.goals.len(), 3);
        assert!(!report.is_met());
        assert!(report.table().contains("MISSED"));
    }
}
