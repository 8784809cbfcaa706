//! Looks at a run from outside: captures, traces of single steps, and the links of a chain of hashes.
//!
//! ```text
//! frames, decisions, happenings -> Watch -+-> Captures  pcapng files with comments
//!                                         +-> Steps     lines for people
//!                                         +-> Window    links of a chain, to compare two runs by
//! ```
//! It draws no number, sends nothing and is asked nothing: a run is the same with and without it, hash by hash. Without
//! one a run pays a branch for each frame.

mod capture;
mod decision;
mod filter;
mod steps;
mod summary;
mod window;

use std::net::IpAddr;

use evenkeel_engine::{Engine, Instant};

pub use capture::{Captures, FILES_MAX, Open};
pub use filter::Filter;
pub use steps::{STEPS_MAX, Steps};
pub use window::{ChainKind, LinkSeen, Window};

use crate::capture::Way;
use crate::device::Decided;
use crate::host::{Answer, Cause, Ending};
use crate::scenario::Scenario;
use decision::Decision;
pub(crate) use decision::is_known;
use summary::Summary;

/// Who looks.
#[derive(Debug, Default)]
pub struct Watch {
    /// Files of what travels.
    pub captures: Option<Captures>,
    /// Lines of what happens.
    pub steps: Option<Steps>,
    /// Links of a chain.
    pub window: Option<Window>,
    /// Flows that broke, the first ones.
    pub broken: Option<Vec<BrokenSeen>>,
    names: Names,
}

/// A flow that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenSeen {
    /// Its load.
    pub load: usize,
    /// Its number in the load, from 0.
    pub number: u64,
    /// The machine that opened it.
    pub client: usize,
    /// Who had answered it, if somebody had.
    pub server: Option<IpAddr>,
    /// When it was opened.
    pub opened: Instant,
    /// When it broke.
    pub ended: Instant,
    /// Why, as its client saw it.
    pub cause: Cause,
}

/// Broken flows that are kept: more than a person reads, and than a swarm needs.
const BROKEN_MAX: usize = 10_000;

/// A frame at an interface of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSeen<'a> {
    pub(crate) now: Instant,
    pub(crate) machine: usize,
    pub(crate) interface: usize,
    pub(crate) way: Way,
    /// What copies of the packet share.
    pub(crate) id: u64,
    pub(crate) bytes: &'a [u8],
}

impl Watch {
    /// Several at once, or none.
    #[must_use]
    pub fn new(captures: Option<Captures>, steps: Option<Steps>, window: Option<Window>) -> Self {
        Self { captures, steps, window, broken: None, names: Names::default() }
    }

    /// Whether there is anybody at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.captures.is_none() && self.steps.is_none() && self.window.is_none() && self.broken.is_none()
    }

    /// The run begins.
    pub(crate) fn begin(&mut self, scenario: &Scenario) {
        self.names = Names::of(scenario);
    }

    /// Whether all has been seen that was to be seen.
    pub(crate) fn is_over(&self) -> bool {
        self.window.as_ref().is_some_and(Window::is_over)
    }

    /// Whether somebody wants to know what engines and kernels do.
    pub(crate) const fn is_curious(&self) -> bool {
        self.captures.is_some() || self.steps.is_some()
    }

    /// A frame reaches a machine, or leaves one.
    pub(crate) fn frame(&mut self, seen: &FrameSeen<'_>) {
        let Self { captures, steps, names, .. } = self;
        if !(seen.way == Way::Out || names.hears(seen.machine, seen.interface, seen.bytes)) {
            return;
        }
        if let Some(captures) = captures {
            captures.frame(seen, names.segment(seen.machine, seen.interface));
        }
        if let Some(steps) = steps {
            steps.frame(seen, names);
        }
    }

    /// A frame has been linked into the chain of the wire.
    pub(crate) fn wire_link(&mut self, link: (u64, u64), seen: &FrameSeen<'_>) {
        let Self { window: Some(window), names, .. } = self else { return };
        window.link(ChainKind::Wire, link, || {
            let (machine, interface) =
                (names.machine(seen.machine), names.interface(seen.machine, seen.interface));
            format!("{} {machine} {interface} {}", time(seen.now), Summary::of_frame(seen.bytes).words)
        });
    }

    /// The end of a flow has been linked into the chain of decisions.
    pub(crate) fn ending_link(&mut self, now: Instant, link: (u64, u64), (load, ending): (&str, &Ending)) {
        let Some(window) = &mut self.window else { return };
        window.link(ChainKind::Decisions, link, || format!("{} {}", time(now), ended(load, ending)));
    }

    /// An answer or a broken flow has been linked into the chain of answers.
    pub(crate) fn answer_link(&mut self, now: Instant, link: (u64, u64), words: impl FnOnce() -> String) {
        let Some(window) = &mut self.window else { return };
        window.link(ChainKind::Answers, link, || format!("{} {}", time(now), words()));
    }

    /// An engine has decided about a packet.
    pub(crate) fn decided(&mut self, now: Instant, machine: usize, decided: &Decided, engine: &Engine) {
        let Self { captures, steps, names, .. } = self;
        if captures.is_none() && steps.is_none() {
            return;
        }
        let decision = Decision::of(decided, engine);
        if let Some(captures) = captures {
            captures.say(decided.id, &decision.words);
        }
        if let Some(steps) = steps {
            steps.decided(now, names.machine(machine), decided.id, &decision);
        }
    }

    /// A machine's kernel did something with a packet, as far as can be told from outside.
    pub(crate) fn kernel(&mut self, now: Instant, machine: usize, (id, frame): (u64, &[u8]), words: &str) {
        let Self { captures, steps, names, .. } = self;
        let name = names.machine(machine);
        if let Some(captures) = captures {
            captures.say(id, &format!("{name}: {words}"));
        }
        if let Some(steps) = steps {
            steps.kernel(now, name, (id, frame), words);
        }
    }

    /// A flow of a client has ended.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        machine: usize,
        load: &str,
        (ending, server): (&Ending, Option<IpAddr>),
    ) {
        if let (Some(broken), Some(cause)) = (&mut self.broken, ending.broken)
            && broken.len() < BROKEN_MAX
        {
            let Ending { load, number, opened, .. } = *ending;
            broken.push(BrokenSeen { load, number, client: machine, server, opened, ended: now, cause });
        }
        let Self { steps: Some(steps), names, .. } = self else { return };
        steps.about(now, names.machine(machine), "flow", format_args!("{}", ended(load, ending)));
    }

    /// The scenario did something.
    pub(crate) fn happened(&mut self, now: Instant, words: &str) {
        if let Some(steps) = &mut self.steps {
            steps.happened(now, words);
        }
    }
}

/// The end of a flow in words.
pub(crate) fn ended(load: &str, ending: &Ending) -> String {
    let how = ending.broken.map_or("completed", |cause| cause.words());
    let server = ending.server.map_or_else(|| "nobody".to_owned(), |word| format!("{word:08x}"));
    format!("flow {} of {load}, answered by {server}: {how}", ending.number)
}

/// An answer in words.
pub(crate) fn answered(load: &str, answer: &Answer) -> String {
    let nanos = answer.latency.as_nanos();
    format!("an answer to {load} from {:08x} after {nanos} ns, {} bytes", answer.server, answer.bytes)
}

/// A moment, in seconds.
fn time(now: Instant) -> String {
    format!("{}.{:09} s", now.as_nanos() / 1_000_000_000, now.as_nanos() % 1_000_000_000)
}

/// What machines and interfaces are called, and where they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    machines: Vec<(String, Vec<Plugged>)>,
    /// From this one on they are forwarders, whose engines may take frames for anybody.
    forwarders: usize,
}

#[derive(Clone, Debug)]
struct Plugged {
    name: String,
    segment: usize,
    station: [u8; 6],
}

impl Names {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let machines = (0..scenario.machine_count()).filter_map(|number| {
            let (name, _, network) = scenario.machine(number)?;
            let plugged = network.attachments.iter().enumerate().map(|(place, attachment)| Plugged {
                name: attachment.interface.clone(),
                segment: attachment.segment,
                station: crate::world::station(number, place).0,
            });
            Some((name.to_owned(), plugged.collect()))
        });
        let forwarders = scenario.machine_count() - scenario.forwarders.len();
        Self { machines: machines.collect(), forwarders }
    }

    fn machine(&self, number: usize) -> &str {
        self.machines.get(number).map_or("", |(name, _)| name)
    }

    fn interface(&self, machine: usize, interface: usize) -> &str {
        self.plugged(machine, interface).map_or("", |plugged| &plugged.name)
    }

    fn segment(&self, machine: usize, interface: usize) -> Option<usize> {
        self.plugged(machine, interface).map(|plugged| plugged.segment)
    }

    /// Whether a frame is for this interface, and not only flooded to it.
    fn hears(&self, machine: usize, interface: usize, frame: &[u8]) -> bool {
        if machine >= self.forwarders {
            return true;
        }
        let station = self.plugged(machine, interface).map(|plugged| plugged.station);
        frame.first_chunk::<6>().is_none_or(|to| to[0] & 1 == 1 || Some(*to) == station)
    }

    /// Machine, interface and segment of every attachment.
    fn interfaces(&self) -> impl Iterator<Item = (usize, usize, usize)> + '_ {
        self.machines.iter().enumerate().flat_map(|(machine, (_, plugged))| {
            plugged.iter().enumerate().map(move |(place, plugged)| (machine, place, plugged.segment))
        })
    }

    fn plugged(&self, machine: usize, interface: usize) -> Option<&Plugged> {
        self.machines.get(machine).and_then(|(_, plugged)| plugged.get(interface))
    }
}
