//! From the scenario as written to the scenario as meant: names become numbers, texts become values, and whatever
//! contradicts itself is noted with its place.
//!
//! Every part is looked at even when another has mistakes, so that all of them are told together.

mod addresses;
mod expect;
mod flow;
mod laws;
mod links;
mod machines;
mod next_hops;
mod quality;
mod roster;
mod routes;
mod timeline;
mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};

use evenkeel_config::document::{At, Named, nearest, quote};
use evenkeel_engine::Duration;

pub(super) use laws::{LAWS, TIMES};
pub(super) use timeline::rules;

use super::error::Collector;
use super::written::{self, DurationText};
use super::{DURATION_MAX, Mode, Scenario, Segment, SegmentKind, quantity};

/// The longest name: what the kernel's names of interfaces and the rules' names of flows leave room for.
const NAME_MAX: usize = 27;
/// The longest name of a scenario itself: outputs and files are named by it, and no kernel ever sees it.
const TITLE_MAX: usize = 63;
/// The most tables of one kind (segments, host groups, routers, forwarders, links, loads, happenings): what keeps the
/// matching of patterns with names short, and more than a topology that is written by hand has.
const TABLES_MAX: usize = 1_024;
/// The most addresses, interfaces, routes, rules and members of loads, links and happenings, all machines together: 16
/// for each of the most hosts. A file of a megabyte can name many more.
const PARTS_MAX: usize = 16 * super::HOSTS_MAX;

/// Gives the text of a file that a scenario names, or says why not.
pub(super) type Files<'a> = dyn FnMut(&Path) -> Result<String, String> + 'a;

/// The checked scenario. What it is worth when errors were noted is up to the caller.
pub(super) fn check(
    file: &written::File,
    path: &Path,
    errors: &mut Collector<'_>,
    files: &mut Files<'_>,
) -> Scenario {
    let folder = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
    let mut checker =
        Checker { errors, files, folder, owners: BTreeMap::new(), names: BTreeMap::new(), parts: 0 };
    let about = file.scenario.as_ref().map(|at| &at.value);
    let duration = checker.about(about);
    let mut scenario = Scenario {
        name: about.and_then(|about| about.name.as_ref()).map_or_else(String::new, |name| name.value.clone()),
        path: path.to_owned(),
        duration,
        warmup: about.map_or(Duration::ZERO, |about| checker.warmup(about.warmup.as_ref(), duration)),
        mode: match about.and_then(|about| about.mode.as_ref()).map(|at| at.value) {
            None | Some(written::Mode::Packet) => Mode::Packet,
            Some(written::Mode::Flow) => Mode::Flow,
        },
        seed: about
            .and_then(|about| about.seed.as_ref())
            .map_or(1, |seed| u64::try_from(seed.value).unwrap_or(1)),
        segments: checker.segments(file.segment.as_ref()),
        hosts: Vec::new(),
        routers: Vec::new(),
        forwarders: Vec::new(),
        links: Vec::new(),
        loads: Vec::new(),
        timeline: Vec::new(),
        captures: Vec::new(),
        captured_machines: Vec::new(),
        expectations: Vec::new(),
    };
    scenario.hosts = checker.hosts(file.host.as_ref(), &scenario.segments);
    scenario.routers = checker.routers(file.router.as_ref(), &scenario.segments);
    scenario.forwarders = checker.forwarders(file.forwarder.as_ref(), &scenario.segments);
    checker.overlaps(file, &scenario);
    checker.cables(file, &scenario);
    checker.next_hops(file, &scenario);
    let roster = roster::Roster::of(&scenario);
    scenario.links = checker.links(file.link.as_ref(), &scenario, &roster);
    scenario.loads = checker.loads(file, &scenario, &roster);
    checker.circles(file, &scenario);
    scenario.timeline = checker.timeline(file.timeline.as_ref(), &scenario, &roster);
    scenario.captures = checker.captures(file.capture.as_ref(), &scenario.segments);
    scenario.captured_machines = checker.captured_machines(file.capture.as_ref(), &roster);
    checker.sweep(file.sweep.as_ref());
    scenario.expectations = checker.expectations(file.expect.as_ref());
    if scenario.mode == Mode::Flow {
        checker.without_packets(file);
    }
    scenario
}

struct Checker<'a, 'e> {
    errors: &'a mut Collector<'e>,
    files: &'a mut Files<'a>,
    /// The folder that paths start from.
    folder: PathBuf,
    /// Who has which address on a segment.
    owners: BTreeMap<IpAddr, String>,
    /// The kind of the group, router or forwarder of each name.
    names: BTreeMap<String, &'static str>,
    /// How many of [`PARTS_MAX`] are used.
    parts: usize,
}

impl Checker<'_, '_> {
    /// Takes the value of a text, or notes that it is not what it should be.
    fn value<T>(
        &mut self,
        span: &Range<usize>,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, &'static str>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.errors.add(span.clone(), format!("{} is not {expected}", quote(text)));
                None
            }
        }
    }

    /// The duration, within a range.
    fn duration(&mut self, text: &At<DurationText>, range: RangeInclusive<Duration>) -> Option<Duration> {
        let value = self.value(&text.span, &text.value.0, quantity::duration)?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = range.into_inner();
        let message = format!("{} is outside of {low:?} to {high:?}", quote(&text.value.0));
        self.errors.add(text.span.clone(), message);
        None
    }

    /// The duration, or a default where there is none.
    fn duration_or(
        &mut self,
        text: Option<&At<DurationText>>,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        text.and_then(|text| self.duration(text, range)).unwrap_or(default)
    }

    fn name(&mut self, span: &Range<usize>, text: &str, kind: &str) {
        self.name_within(NAME_MAX, (span, text), kind);
    }

    fn name_within(&mut self, most: usize, (span, text): (&Range<usize>, &str), kind: &str) {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > most || !text.bytes().all(is_allowed) {
            let rule = format!("names have 1 to {most} letters, digits, `-` and `_`");
            self.errors.add(span.clone(), format!("{kind} name {}: {rule}", quote(text)));
        }
    }

    /// Notes a name that nothing has, and the one that was probably meant.
    fn unknown<'n>(
        &mut self,
        span: &Range<usize>,
        what: &str,
        name: &str,
        known: impl IntoIterator<Item = &'n str>,
    ) {
        let help = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        self.errors.add_with_help(span.clone(), format!("no {what} {}", quote(name)), help);
    }

    /// The number of the segment of this name.
    fn segment(&mut self, name: &At<String>, segments: &[Segment]) -> Option<usize> {
        let found = segments.iter().position(|segment| segment.name == name.value);
        if found.is_none() {
            let known = segments.iter().map(|segment| segment.name.as_str());
            self.unknown(&name.span, "segment", &name.value, known);
        }
        found
    }

    /// Takes so many parts from the budget of the file; notes when it is used up.
    fn take_parts(&mut self, span: &Range<usize>, count: usize) -> bool {
        let before = self.parts;
        self.parts = before.saturating_add(count);
        if before <= PARTS_MAX && self.parts > PARTS_MAX {
            let message = format!(
                "with this the file has more than {PARTS_MAX} addresses, interfaces, routes, rules and members of loads and links"
            );
            self.errors.add_with_help(span.clone(), message, Some("make the groups smaller".to_owned()));
        }
        self.parts <= PARTS_MAX
    }

    /// The entries by name, at most [`TABLES_MAX`]; every name is looked at.
    fn sorted<'w, T>(&mut self, named: Option<&'w At<Named<T>>>, kind: &str) -> Vec<&'w (At<String>, At<T>)> {
        let mut entries: Vec<_> = self.in_order_of_file(named, kind);
        entries.sort_by(|one, other| one.0.value.cmp(&other.0.value));
        entries
    }

    fn in_order_of_file<'w, T>(
        &mut self,
        named: Option<&'w At<Named<T>>>,
        kind: &str,
    ) -> Vec<&'w (At<String>, At<T>)> {
        let entries = Named::entries(named.map(|at| &at.value));
        self.too_many(entries.get(TABLES_MAX).map(|(name, _)| &name.span), kind);
        for (name, _) in entries.iter().take(TABLES_MAX) {
            self.name(&name.span, &name.value, kind);
        }
        entries.iter().take(TABLES_MAX).collect()
    }

    fn too_many(&mut self, first: Option<&Range<usize>>, kind: &str) {
        if let Some(span) = first {
            let message = format!("more than {TABLES_MAX} tables of the kind {kind}");
            self.errors.add_with_help(span.clone(), message, Some("use groups and patterns".to_owned()));
        }
    }

    fn about(&mut self, about: Option<&written::About>) -> Duration {
        let Some(about) = about else { return DURATION_MAX };
        if let Some(name) = &about.name {
            self.name_within(TITLE_MAX, (&name.span, &name.value), "scenario");
        }
        self.duration_or(about.duration.as_ref(), Duration::from_nanos(1)..=DURATION_MAX, DURATION_MAX)
    }

    fn warmup(&mut self, warmup: Option<&At<DurationText>>, duration: Duration) -> Duration {
        let Some(text) = warmup else { return Duration::ZERO };
        let warmup = self.duration(text, Duration::ZERO..=DURATION_MAX).unwrap_or_default();
        if warmup >= duration {
            self.errors
                .add(text.span.clone(), "the warm-up takes the whole run, and nothing would be counted");
        }
        warmup
    }

    /// A time of the run.
    fn moment(&mut self, text: &At<DurationText>, end: Duration) -> Option<Duration> {
        let moment = self.duration(text, Duration::ZERO..=DURATION_MAX)?;
        if moment <= end {
            return Some(moment);
        }
        let message = format!("{} is after the end of the run ({end:?})", quote(&text.value.0));
        self.errors.add_with_help(
            text.span.clone(),
            message,
            Some("make `scenario.duration` longer".to_owned()),
        );
        None
    }

    /// Cables have two ends.
    fn cables(&mut self, file: &written::File, scenario: &Scenario) {
        let mut ends = vec![0_usize; scenario.segments.len()];
        for machine in (0..scenario.machine_count()).filter_map(|number| scenario.machine(number)) {
            for attachment in &machine.2.attachments {
                if let Some(count) = ends.get_mut(attachment.segment) {
                    *count += 1;
                }
            }
        }
        for (name, _) in Named::entries(file.segment.as_ref().map(|at| &at.value)) {
            let found = scenario.segments.iter().zip(&ends).find(|(segment, _)| segment.name == name.value);
            if let Some((segment, count)) = found
                && segment.kind == SegmentKind::Cable
                && *count != 2
            {
                let message = format!("the cable {} has {count} ends, and a cable has 2", name.value);
                let help = Some("make it a switch, or attach exactly two machines".to_owned());
                self.errors.add_with_help(name.span.clone(), message, help);
            }
        }
    }
}
