//! What happens during a run besides traffic.

use std::path::PathBuf;

use evenkeel_engine::Duration;

use super::{Route, Subnet};
use crate::random::Stream;
use crate::wires::Quality;
use crate::work::AgentModel;

/// One entry of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// When it happens.
    pub when: When,
    /// What happens.
    pub action: Action,
}

/// When something happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Once, at this time.
    At(Duration),
    /// Again and again from `start` on, with this gap; exponential gaps of this mean where `is_random`.
    Every {
        /// The first time, or with random gaps the time from which on the first gap counts.
        start: Duration,
        /// The gap, or its mean.
        gap: Duration,
        /// Whether gaps are drawn.
        is_random: bool,
        /// The most times.
        count: u32,
    },
    /// `count` times, at moments drawn evenly from this span.
    Within {
        /// The beginning.
        from: Duration,
        /// The end.
        to: Duration,
        /// How often.
        count: u32,
    },
}

impl When {
    /// The moments up to `end`, in the order in which they were drawn. All are drawn at once: a run that ends sooner
    /// leaves the rest alone.
    #[must_use]
    pub fn moments(&self, draw: &mut Stream, end: Duration) -> Vec<Duration> {
        match *self {
            Self::At(at) => vec![at],
            Self::Every { start, gap, is_random, count } => {
                let mut moments = Vec::new();
                let mut at = start;
                for _ in 0..count {
                    if is_random {
                        at = at.saturating_add(draw.exponential(gap));
                    }
                    if at > end {
                        break;
                    }
                    moments.push(at);
                    if !is_random {
                        at = at.saturating_add(gap);
                    }
                }
                moments
            }
            Self::Within { from, to, count } => {
                let span = u64::try_from(to.saturating_sub(from).as_nanos()).unwrap_or(u64::MAX);
                let one = |_| from.saturating_add(Duration::from_nanos(draw.below(span.saturating_add(1))));
                (0..count).map(one).collect()
            }
        }
    }

    /// The random numbers of the timeline's entry `index`: first its moments, then at each moment its targets.
    #[must_use]
    pub fn fate(seed: u64, index: usize) -> Stream {
        Stream::new(seed, &format!("timeline.{index}"), "fate")
    }
}

/// Whose turn it is among those of a list.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn(usize);

impl Turn {
    /// The one whose turn it is; after the last one it is the first one's again. None where there is nobody.
    pub fn next<'t>(&mut self, list: &'t [String]) -> Option<&'t str> {
        let now = list.get(self.0).or_else(|| list.first())?;
        self.0 = (self.0 + 1) % list.len().max(1);
        Some(now)
    }
}

/// What happens. Machines are numbers (see [`super::network`]); of several targets one is drawn each time.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "a timeline has few entries, which stay where they are")]
pub enum Action {
    /// A machine loses power: its state and all that is on its way to it are gone. A forwarder loses its flow table.
    Stop {
        /// The machines.
        targets: Vec<usize>,
        /// When it comes back by itself.
        downtime: Option<Duration>,
    },
    /// A machine that has stopped comes back.
    Start {
        /// The machines.
        targets: Vec<usize>,
    },
    /// The programs of a host stop to answer; its kernel goes on.
    Hang {
        /// The hosts.
        targets: Vec<usize>,
        /// When they go on by themselves.
        downtime: Option<Duration>,
    },
    /// The programs of a host run slower by this factor, in thousandths (1,000 is normal).
    Slow {
        /// The hosts.
        targets: Vec<usize>,
        /// Thousandths of the normal service time.
        factor_thousandths: u32,
        /// When they are normal again.
        downtime: Option<Duration>,
    },
    /// The agents of hosts say something else.
    Agent {
        /// The hosts.
        targets: Vec<usize>,
        /// What they say.
        agent: AgentModel,
        /// When they say again what the scenario gives them.
        downtime: Option<Duration>,
    },
    /// The weight of a real server changes, as `evenkeel ctl weight` does it.
    Weight {
        /// The forwarders, all of which are told.
        forwarders: Vec<usize>,
        /// The director.
        director: String,
        /// The real server; of several one is drawn.
        servers: Vec<String>,
        /// The new weight.
        weight: u32,
        /// When it gets its weight of before.
        downtime: Option<Duration>,
    },
    /// A director gets another scheduler, as `evenkeel ctl director` gives it.
    Scheduler {
        /// The forwarders, all of which are told.
        forwarders: Vec<usize>,
        /// The director.
        director: String,
        /// Names of schedulers, which take turns.
        schedulers: Vec<String>,
    },
    /// A forwarder reads a configuration, as a reload does it.
    Reload {
        /// The forwarders.
        targets: Vec<usize>,
        /// The file; that of the scenario where none is given.
        config: Option<PathBuf>,
    },
    /// The attachments of a machine to a segment lose their link.
    LinkDown {
        /// The machines.
        targets: Vec<usize>,
        /// The segment.
        segment: usize,
        /// When it comes back.
        downtime: Option<Duration>,
    },
    /// They get it back.
    LinkUp {
        /// The machines.
        targets: Vec<usize>,
        /// The segment.
        segment: usize,
    },
    /// The quality of links changes.
    LinkSet {
        /// The machines.
        targets: Vec<usize>,
        /// The segment.
        segment: usize,
        /// From the machine.
        up: Quality,
        /// To the machine.
        down: Quality,
        /// When it is as before.
        downtime: Option<Duration>,
    },
    /// A machine gets a route, in place of one for the same network in the same table.
    RouteSet {
        /// The machines.
        targets: Vec<usize>,
        /// The route.
        route: Route,
    },
    /// A machine loses its route for a network.
    RouteDelete {
        /// The machines.
        targets: Vec<usize>,
        /// The network.
        to: Subnet,
        /// The table.
        table: u32,
    },
    /// The clock of a forwarder jumps ahead; its timers are due that much sooner.
    ClockJump {
        /// The forwarders.
        targets: Vec<usize>,
        /// How far.
        by: Duration,
    },
}

impl Action {
    /// What happens, in a few words.
    #[must_use]
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Stop { .. } => "a machine loses power",
            Self::Start { .. } => "a machine gets power",
            Self::Hang { .. } => "a host's programs hang",
            Self::Slow { .. } => "a host slows down",
            Self::Agent { .. } => "an agent says something else",
            Self::Weight { .. } => "a weight changes",
            Self::Scheduler { .. } => "a scheduler changes",
            Self::Reload { .. } => "a forwarder reloads",
            Self::LinkDown { .. } => "a link goes down",
            Self::LinkUp { .. } => "a link comes up",
            Self::LinkSet { .. } => "a link changes",
            Self::RouteSet { .. } => "a route is set",
            Self::RouteDelete { .. } => "a route is deleted",
            Self::ClockJump { .. } => "a clock jumps",
        }
    }
}
