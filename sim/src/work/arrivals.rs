//! When requests come: laws that a file can hold, and processes made of them.
//!
//! Open processes come whatever the servers do: [`ArrivalProcess`] gives one time after the other. In a closed
//! loop each of so many users waits for the answer, thinks, and asks again: whoever runs it opens a request
//! for each user at the start, and the next one a [`Closed::think`] after each end.

use serde::{Deserialize, Serialize};

use super::law::{Law, LawError, Sampler};
use super::number::{exponential, real, whole};
use crate::random::Stream;

/// Parts of a nanosecond in which gaps are added up, so that rounding does not change a rate: 2^20.
const PARTS_BITS: u32 = 20;
/// The most states of a modulated process.
const STATES_MAX: usize = 64;
/// Changes of state without an arrival before a modulated process counts as one that has ended.
const SILENCE_MAX: u32 = 1 << 20;

/// When requests come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "process", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Arrivals {
    /// Independent users: exponential gaps.
    Poisson {
        /// Requests a second.
        per_second: f64,
    },
    /// One after the other, evenly spaced.
    Uniform {
        /// Requests a second.
        per_second: f64,
    },
    /// Independent gaps by any law, in nanoseconds.
    Renewal {
        /// The law of gaps.
        gap: Law,
    },
    /// Poisson bursts with silence in between, both of exponential length.
    OnOff {
        /// Requests a second within a burst.
        per_second: f64,
        /// Nanoseconds of a burst, on average.
        on: u64,
        /// Nanoseconds of silence, on average.
        off: u64,
    },
    /// A Poisson process whose rate changes: it goes through the states in turn, and stays in each for an
    /// exponential time.
    Modulated {
        /// The states.
        states: Vec<State>,
    },
    /// A fixed number of users, each with one request at a time.
    Closed {
        /// Users.
        users: u32,
        /// Nanoseconds from an answer to the next request.
        think: Law,
    },
}

/// One state of a modulated process.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Requests a second.
    pub per_second: f64,
    /// Nanoseconds in this state, on average (above 0).
    pub stay: u64,
}

/// An open process at work.
#[derive(Clone, Debug)]
pub struct ArrivalProcess {
    kind: Kind,
    /// The last time, in parts of a nanosecond.
    now: u128,
}

#[derive(Clone, Debug)]
enum Kind {
    /// The mean gap, in parts.
    Poisson(f64),
    /// The gap, in parts.
    Uniform(u64),
    Renewal(Sampler),
    Modulated {
        states: Vec<Phase>,
        current: usize,
        until: Option<u128>,
    },
}

#[derive(Clone, Copy, Debug)]
struct Phase {
    /// The mean gap in parts; none where nothing comes.
    gap: Option<f64>,
    stay: f64,
}

/// A closed loop.
#[derive(Clone, Debug)]
pub struct Closed {
    /// How many users there are.
    pub users: u32,
    /// Nanoseconds from an answer to the next request.
    pub think: Sampler,
}

/// Either kind of arrivals, ready to run.
#[derive(Clone, Debug)]
pub enum Running {
    /// Comes whatever the servers do.
    Open(ArrivalProcess),
    /// Waits for answers.
    Closed(Closed),
}

impl Arrivals {
    /// The process at work, from `start` nanoseconds on.
    ///
    /// # Errors
    /// When a parameter is out of its range.
    pub fn start(&self, start: u64) -> Result<Running, LawError> {
        let kind = match self {
            Self::Poisson { per_second } => Kind::Poisson(gap("poisson", *per_second)?),
            Self::Uniform { per_second } => Kind::Uniform(whole(gap("uniform", *per_second)?).max(1)),
            Self::Renewal { gap } => Kind::Renewal(gap.sampler()?),
            Self::OnOff { per_second, on, off } => {
                let burst =
                    Phase { gap: Some(gap("on-off", *per_second)?), stay: stay("on-off", "on", *on)? };
                let silence = Phase { gap: None, stay: stay("on-off", "off", *off)? };
                Kind::Modulated { states: vec![burst, silence], current: 0, until: None }
            }
            Self::Modulated { states } => {
                Kind::Modulated { states: phases(states)?, current: 0, until: None }
            }
            Self::Closed { users, think } => {
                if *users == 0 {
                    return Err(out_of("closed", "users", 0.0, "1 or more"));
                }
                return Ok(Running::Closed(Closed { users: *users, think: think.sampler()? }));
            }
        };
        Ok(Running::Open(ArrivalProcess { kind, now: u128::from(start) << PARTS_BITS }))
    }
}

impl ArrivalProcess {
    /// The time of the next request in nanoseconds; none when time has ended.
    #[inline]
    pub fn next(&mut self, stream: &mut Stream) -> Option<u64> {
        // The usual one first, without what the others save and bring back.
        if let Kind::Poisson(mean) = self.kind {
            self.now += u128::from(whole(exponential(stream) * mean));
            return u64::try_from(self.now >> PARTS_BITS).ok();
        }
        self.next_any(stream)
    }

    #[inline(never)]
    fn next_any(&mut self, stream: &mut Stream) -> Option<u64> {
        match &mut self.kind {
            Kind::Poisson(mean) => self.now += u128::from(whole(exponential(stream) * *mean)),
            Kind::Uniform(gap) => self.now += u128::from(*gap),
            Kind::Renewal(law) => self.now += u128::from(law.draw(stream)) << PARTS_BITS,
            Kind::Modulated { states, current, until } => {
                self.now = modulated(states, current, until, self.now, stream)?;
            }
        }
        u64::try_from(self.now >> PARTS_BITS).ok()
    }
}

/// The next arrival after `now`. A gap that would outlast its state is drawn again from where the next begins: it
/// has no memory.
fn modulated(
    states: &[Phase],
    current: &mut usize,
    until: &mut Option<u128>,
    mut now: u128,
    stream: &mut Stream,
) -> Option<u128> {
    for _ in 0..SILENCE_MAX {
        let phase = states.get(*current)?;
        let end = *until.get_or_insert_with(|| now + u128::from(whole(exponential(stream) * phase.stay)));
        let next = phase.gap.map(|gap| now + u128::from(whole(exponential(stream) * gap)));
        if let Some(next) = next.filter(|next| *next < end) {
            return Some(next);
        }
        now = end;
        *until = None;
        *current = (*current + 1) % states.len();
        if now >> PARTS_BITS > u128::from(u64::MAX) {
            return None;
        }
    }
    None
}

fn phases(states: &[State]) -> Result<Vec<Phase>, LawError> {
    if states.is_empty() || states.len() > STATES_MAX {
        let count = u32::try_from(states.len()).unwrap_or(u32::MAX);
        return Err(out_of("modulated", "number of states", f64::from(count), "from 1 to 64"));
    }
    if !states.iter().any(|state| state.per_second > 0.0) {
        return Err(out_of("modulated", "per_second of every state", 0.0, "above 0 in some state"));
    }
    let phase = |state: &State| {
        let gap = if state.per_second == 0.0 { None } else { Some(gap("modulated", state.per_second)?) };
        Ok(Phase { gap, stay: stay("modulated", "stay", state.stay)? })
    };
    states.iter().map(phase).collect()
}

/// The mean gap of a rate, in parts of a nanosecond.
fn gap(law: &'static str, per_second: f64) -> Result<f64, LawError> {
    if per_second.is_finite() && per_second > 0.0 && per_second <= 1e9 {
        return Ok(1e9 / per_second * real(1 << PARTS_BITS));
    }
    Err(out_of(law, "per_second", per_second, "above 0 and at most 10^9"))
}

fn stay(law: &'static str, parameter: &'static str, nanoseconds: u64) -> Result<f64, LawError> {
    if nanoseconds == 0 {
        return Err(out_of(law, parameter, 0.0, "above 0"));
    }
    Ok(real(nanoseconds) * real(1 << PARTS_BITS))
}

const fn out_of(law: &'static str, parameter: &'static str, value: f64, range: &'static str) -> LawError {
    LawError::Parameter { law, parameter, value, range }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn open(arrivals: &Arrivals) -> ArrivalProcess {
        match arrivals.start(0).unwrap() {
            Running::Open(process) => process,
            Running::Closed(_) => panic!("an open process"),
        }
    }

    fn times(arrivals: &Arrivals, count: usize) -> Vec<u64> {
        let mut process = open(arrivals);
        let mut stream = Stream::new(11, "users", "arrivals");
        (0..count).map(|_| process.next(&mut stream).unwrap()).collect()
    }

    fn rate(arrivals: &Arrivals, count: usize) -> f64 {
        let times = times(arrivals, count);
        real(count as u64) / real(*times.last().unwrap()) * 1e9
    }

    #[test]
    fn every_open_process_has_its_rate_and_goes_forward() {
        let states = vec![
            State { per_second: 10_000.0, stay: SECOND / 100 },
            State { per_second: 0.0, stay: SECOND / 200 },
            State { per_second: 1_000.0, stay: SECOND / 50 },
        ];
        let cases = [
            (Arrivals::Poisson { per_second: 5_000.0 }, 5_000.0),
            (Arrivals::Uniform { per_second: 3.0 }, 3.0),
            (Arrivals::Renewal { gap: Law::Uniform { low: 0, high: 2_000 } }, 1_000_000.0),
            (Arrivals::OnOff { per_second: 10_000.0, on: SECOND / 50, off: SECOND * 3 / 50 }, 2_500.0),
            (Arrivals::Modulated { states }, (100.0 + 20.0) / 0.035),
        ];
        for (arrivals, wanted) in cases {
            let rate = rate(&arrivals, 40_000);
            assert!((rate / wanted - 1.0).abs() < 0.05, "{arrivals:?}: {rate}");
            assert!(times(&arrivals, 1_000).is_sorted());
        }
    }

    #[test]
    fn fast_processes_keep_their_rate_to_a_part_in_a_thousand() {
        // Gaps of 33.3 nanoseconds: rounding each one would cost a hundredth.
        let rate = rate(&Arrivals::Uniform { per_second: 3e7 }, 100_000);
        assert!((rate / 3e7 - 1.0).abs() < 1e-6, "{rate}");
    }

    #[test]
    fn bursts_are_burstier_than_poisson() {
        let variance = |arrivals: &Arrivals| {
            // Arrivals by windows of a tenth of a second: variance by mean, which is 1 for Poisson.
            let mut counts = [0u32; 200];
            let mut process = open(arrivals);
            let mut stream = Stream::new(1, "users", "arrivals");
            while let Some(time) = process.next(&mut stream) {
                let Some(count) = counts.get_mut(usize::try_from(time / (SECOND / 10)).unwrap()) else {
                    break;
                };
                *count += 1;
            }
            let mean = counts.iter().sum::<u32>() as f64 / 200.0;
            let square = |count: &u32| (f64::from(*count) - mean) * (f64::from(*count) - mean);
            counts.iter().map(square).sum::<f64>() / 200.0 / mean
        };
        let calm = variance(&Arrivals::Poisson { per_second: 1_000.0 });
        let bursts = variance(&Arrivals::OnOff { per_second: 2_000.0, on: SECOND / 10, off: SECOND / 10 });
        assert!((0.7..1.4).contains(&calm), "{calm}");
        assert!(bursts > 10.0, "{bursts}");
    }

    #[test]
    fn a_process_begins_at_its_start() {
        let Running::Open(mut process) = (Arrivals::Uniform { per_second: 1.0 }).start(5 * SECOND).unwrap()
        else {
            panic!("an open process");
        };
        assert_eq!(process.next(&mut Stream::new(1, "", "")), Some(6 * SECOND));
    }

    #[test]
    fn time_ends() {
        let far = Arrivals::Renewal { gap: Law::Fixed { value: u64::MAX } };
        let mut process = open(&far);
        let mut stream = Stream::new(1, "", "");
        assert_eq!((process.next(&mut stream), process.next(&mut stream)), (Some(u64::MAX), None));
    }

    #[test]
    fn a_closed_loop_has_users_that_think() {
        let closed = Arrivals::Closed { users: 3, think: Law::Fixed { value: 7 } };
        let Running::Closed(closed) = closed.start(0).unwrap() else { panic!("a closed loop") };
        assert_eq!((closed.users, closed.think.draw(&mut Stream::new(1, "", ""))), (3, 7));
    }

    #[test]
    fn parameters_out_of_range_are_named() {
        let error = |arrivals: Arrivals| arrivals.start(0).unwrap_err().to_string();
        let cases = [
            (Arrivals::Poisson { per_second: 0.0 }, "poisson: per_second is 0"),
            (Arrivals::Uniform { per_second: f64::NAN }, "uniform: per_second is NaN"),
            (Arrivals::Poisson { per_second: 2e9 }, "at most 10^9"),
            (Arrivals::OnOff { per_second: 1.0, on: 0, off: 1 }, "on-off: on is 0"),
            (Arrivals::Modulated { states: Vec::new() }, "number of states is 0"),
            (Arrivals::Modulated { states: vec![State { per_second: 0.0, stay: 1 }] }, "in some state"),
            (Arrivals::Modulated { states: vec![State { per_second: 1.0, stay: 0 }] }, "stay is 0"),
            (Arrivals::Closed { users: 0, think: Law::Fixed { value: 1 } }, "users is 0"),
        ];
        for (arrivals, words) in cases {
            let error = error(arrivals);
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn arrivals_are_read_as_files_write_them() {
        let read: Arrivals =
            toml::from_str("process = \"on-off\"\nper_second = 5.0\non = 1\noff = 2").unwrap();
        assert_eq!(read, Arrivals::OnOff { per_second: 5.0, on: 1, off: 2 });
    }
}
