//! The second step: what the file means.
//!
//! What comes in: a file [as written](crate::written), of the right shape. What goes out: a plan. Texts are
//! parsed, names resolved, defaults filled in; every mistake is reported and the rest is still looked at. A
//! plan that comes with errors has holes and is never used.

mod agent;
mod bindings;
mod component;
mod condition;
mod director;
mod flow;
mod mode;
mod network;
mod product;
mod reach;
mod scheduler;
mod server;
mod set;
mod shadow;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Range, RangeInclusive};
use std::path::Path;
use std::sync::Arc;

use evenkeel_engine::Plan;
use evenkeel_engine::plan::{Builtin, GuestPlan, Handling, Limits, Timeouts};
use evenkeel_engine::time::Duration;

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::forms::{self, Flaw, nearest, quote};
use crate::loaded::{ForwarderConfig, Loaded, Places};
use crate::source::Source;
use crate::written::{self, At, DurationText, Named, Options, Profile, SizeText};

/// How long flows may be kept. Below, a round trip would end them; above, a forgotten entry is for ever.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(30 * 86_400);

/// How long one call of a component may take. Below, no component could answer; above, packets would be lost.
const BUDGETS: RangeInclusive<Duration> = Duration::from_micros(10)..=Duration::from_secs(1);

/// The time that one call of a component may take when the file does not say.
pub(crate) const BUDGET_DEFAULT: Duration = Duration::from_micros(200);

/// How much memory a component may have: from one page of WebAssembly to a quarter of what it can address.
const MEMORIES: RangeInclusive<u64> = 64 << 10..=1 << 30;

/// The memory that a component may have when the file does not say.
pub(crate) const MEMORY_DEFAULT: u64 = 16 << 20;

/// The longest options of a component, in bytes of TOML; the bound that components are promised.
const OPTIONS_BYTES_MAX: usize = 65_536;

/// The scheduler when the file names none, and the fallback of a component.
const SCHEDULER_DEFAULT: Builtin = Builtin::WeightedLeastConnections;

/// Understands a file.
pub(crate) fn understand(
    source: &Arc<Source>,
    base: &Path,
    file: &written::File,
    found: &mut Diagnostics,
) -> Loaded {
    let interfaces = names(file.interface.as_ref());
    let directors = names(file.director.as_ref());
    let interface_tables = Named::entries(file.interface.as_ref().map(|tables| &tables.value));
    let places = Places::default();
    let tables = network::table_numbers(file);
    let (sets, dead_flows) = (BTreeMap::new(), BTreeSet::new());
    let mut meaning = Meaning {
        source,
        base,
        found,
        places,
        interfaces,
        interface_tables,
        directors,
        tables,
        sets,
        dead_flows,
    };
    let forwarder = meaning.forwarder(file.forwarder.as_ref());
    let mut plan = Plan::empty();
    plan.limits = meaning.limits(file.limits.as_ref());
    plan.timeouts = meaning.timeouts(file.timeouts.as_ref());
    plan.handling = handling(file.handling.as_ref());
    plan.interfaces = meaning.interfaces(file);
    meaning.all_sets(file);
    (plan.routes, plan.tables) = meaning.routes(file, &plan.interfaces);
    plan.directors = meaning.directors(file);
    meaning.policies(file, &mut plan);
    meaning.default_routes(file, &plan);
    meaning.ways_to_servers(&plan);
    meaning.unused_directors(file);
    let places = meaning.places;
    let (source, base, warnings) = (Arc::clone(source), base.to_owned(), Diagnostics::default());
    let seed = forwarder.seed;
    let loaded = Loaded { plan, forwarder, warnings, base, source, places };
    match seed {
        Some(seed) => loaded.with_seed(seed),
        None => loaded,
    }
}

/// Names, each with its place in the order of the file.
type Names<'a> = BTreeMap<&'a str, usize>;

/// The names of a table of tables.
fn names<T>(tables: Option<&At<Named<T>>>) -> Names<'_> {
    let entries = Named::entries(tables.map(|tables| &tables.value));
    entries.iter().enumerate().map(|(index, (name, _))| (name.value.as_str(), index)).collect()
}

/// The entries of a list; none when it is not there.
fn entries<T>(list: Option<&At<Vec<At<T>>>>) -> &[At<T>] {
    list.map_or(&[], |list| &list.value)
}

/// A number that the shape has checked.
fn number<N: TryFrom<i64>>(at: Option<&At<i64>>, default: N) -> N {
    at.and_then(|at| N::try_from(at.value).ok()).unwrap_or(default)
}

/// A switch.
fn flag(at: Option<&At<bool>>, default: bool) -> bool {
    at.map_or(default, |at| at.value)
}

fn handling(written: Option<&At<written::Handling>>) -> Handling {
    let default = Handling::default();
    let Some(written) = written.map(|at| &at.value) else { return default };
    Handling {
        cuts: flag(written.cut.as_ref(), default.cuts),
        mss_bytes: written.mss.as_ref().and_then(|at| u16::try_from(at.value).ok()),
        fills_udp_checksum: flag(written.fill_udp_checksum.as_ref(), default.fills_udp_checksum),
        verifies_checksums: flag(written.verify_checksums.as_ref(), default.verifies_checksums),
        expires_nodest: flag(written.expire_nodest.as_ref(), default.expires_nodest),
        expires_quiescent: flag(written.expire_quiescent.as_ref(), default.expires_quiescent),
        tells_exhausted: flag(written.tell_exhausted.as_ref(), default.tells_exhausted),
        routes_replies: flag(written.route_replies.as_ref(), default.routes_replies),
    }
}

/// What the whole file is needed for, and what has been found.
struct Meaning<'a> {
    source: &'a Arc<Source>,
    base: &'a Path,
    found: &'a mut Diagnostics,
    places: Places,
    /// The interfaces by name, each with the engine's number.
    interfaces: Names<'a>,
    /// The tables of the interfaces, in the same order.
    interface_tables: &'a [(At<String>, At<written::Interface>)],
    /// The directors by name, each with the engine's number.
    directors: Names<'a>,
    /// The numbers of the routing tables, each at the engine's place.
    tables: Vec<u32>,
    sets: BTreeMap<String, set::Elements>,
    /// Flows of which no rule decides about anything.
    dead_flows: BTreeSet<String>,
}

impl<'a> Meaning<'a> {
    fn diagnostic(&self, code: Code, span: &Range<usize>, message: impl Into<String>) -> Diagnostic {
        Diagnostic::new(self.source, code, span, message.into())
    }

    /// Reports a flaw of the text at `span`. A text in its stead is put in quotes where the old one has them.
    fn flaw(&mut self, span: &Range<usize>, flaw: Flaw) {
        let diagnostic = Diagnostic::new(self.source, flaw.code, span, flaw.message);
        let is_quoted = self.source.slice(span).starts_with(['"', '\'']);
        self.found.push(match flaw.instead {
            Some(text) if is_quoted => diagnostic.repair(span, format!("\"{text}\""), flaw.help),
            Some(text) => diagnostic.repair(span, text, flaw.help),
            None => diagnostic.help(flaw.help),
        });
    }

    /// Parses a text; what is wrong with it is reported.
    fn text<T>(&mut self, span: &Range<usize>, parsed: Result<T, Flaw>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(flaw) => {
                self.flaw(span, flaw);
                None
            }
        }
    }

    /// Reports `name` at `span` when another has it already. `kinds` are all that share the names.
    fn unique(
        &mut self,
        seen: &mut BTreeMap<String, Range<usize>>,
        kinds: &str,
        name: &str,
        span: &Range<usize>,
    ) {
        let Some(other) = seen.get(name) else {
            seen.insert(name.to_owned(), span.clone());
            return;
        };
        let (first, again) = if other.start < span.start { (other, span) } else { (span, other) };
        let message = format!("two {kinds} are named {}", quote(name));
        let diagnostic = self
            .diagnostic(Code::DuplicateName, again, message)
            .label("again here")
            .also(first, "first here")
            .help("give one of them another name");
        self.found.push(diagnostic);
    }

    /// Reports when there are more than the forwarder can hold, at the first that is too many.
    fn bounded<T>(&mut self, list: &[At<T>], most: usize, what: &str) {
        if let Some(beyond) = list.get(most) {
            let message = format!("there are {} {what}; {most} is the most", list.len());
            let diagnostic = self.diagnostic(Code::TooMany, &beyond.span, message);
            self.found
                .push(diagnostic.label("the first that is too many").help(format!("take out some {what}")));
        }
    }

    /// The place of a name among `names`; an unknown one is reported.
    fn resolve(&mut self, code: Code, kind: &str, name: &str, span: &Range<usize>) -> Option<usize> {
        let names = if code == Code::UnknownInterface { &self.interfaces } else { &self.directors };
        if let Some(index) = names.get(name) {
            return Some(*index);
        }
        let message = format!("no {kind} is named {}", quote(name));
        let diagnostic = self.diagnostic(code, span, message);
        // Beyond the bound nobody reads the advice, and to look for it takes time.
        let near = if self.found.is_full() { None } else { nearest(name, names.keys().copied()) };
        let diagnostic = match near {
            Some(near) => {
                let text = self.source.slice(span).replace(name, near);
                diagnostic.repair(span, text, format!("did you mean `{near}`?"))
            }
            None if names.is_empty() => diagnostic.help(format!("declare `[{kind}.NAME]`")),
            None => {
                let names: Vec<_> = names.keys().take(10).map(|name| quote(name)).collect();
                diagnostic.help(format!("the {kind}s of this file are {}", names.join(", ")))
            }
        };
        self.found.push(diagnostic);
        None
    }

    fn forwarder(&mut self, written: Option<&At<written::Forwarder>>) -> ForwarderConfig {
        let mut config = ForwarderConfig::default();
        let Some(At { span, value }) = written else { return config };
        self.places.insert("forwarder", "", "", span);
        if let Some(setup) = &value.setup {
            self.places.insert("forwarder", "", "setup", &setup.span);
            config.setup = setup.value;
        }
        if let Some(io) = &value.io {
            self.places.insert("forwarder", "", "io", &io.span);
            config.io = io.value;
        }
        if let Some(control) = &value.control {
            self.places.insert("forwarder", "", "control", &control.span);
            config.control = self.base.join(&control.value);
            self.control(control);
        }
        if let Some(port) = value.probe_port.as_ref().and_then(|port| u16::try_from(port.value).ok()) {
            config.probe_port = port;
        }
        config.seed = value.seed.as_ref().and_then(|seed| u64::try_from(seed.value).ok());
        config
    }

    /// Reports a path that no unix socket can have.
    fn control(&mut self, written: &At<String>) {
        /// The kernel's limit for the path of a unix socket, without the zero at its end.
        const LENGTH_MAX: usize = 107;
        let reason = if written.value.is_empty() {
            "the path of the control socket is empty".to_owned()
        } else if written.value.contains('\0') {
            "the path of the control socket has a zero byte".to_owned()
        } else if written.value.len() > LENGTH_MAX {
            format!(
                "the path of the control socket has {} bytes; {LENGTH_MAX} is the most",
                written.value.len()
            )
        } else {
            return;
        };
        let diagnostic = self.diagnostic(Code::OutOfRange, &written.span, reason);
        self.found.push(
            diagnostic.help("write the path of a file that may be made, as in `/run/evenkeel/evenkeel.sock`"),
        );
    }

    fn limits(&mut self, written: Option<&At<written::Limits>>) -> Limits {
        let default = Limits::default();
        let Some(written) = written.map(|at| &at.value) else { return default };
        let flows_max = number(written.flows.as_ref(), default.flows_max);
        let most = u16::try_from(flows_max).unwrap_or(u16::MAX).min(default.half_open_max);
        let half_open_max = number(written.half_open.as_ref(), most);
        if let Some(at) = written.half_open.as_ref().filter(|_| half_open_max > most) {
            let message = format!("there can be {half_open_max} half-open flows, and only {flows_max} flows");
            let mut diagnostic = self.diagnostic(Code::OutOfRange, &at.span, message);
            if let Some(flows) = &written.flows {
                diagnostic = diagnostic.also(&flows.span, "flows here");
            }
            self.found.push(diagnostic.help(format!("write a number from 1 to {most}, or more `flows`")));
        }
        Limits {
            flows_max,
            half_open_max,
            flows_per_client: number(written.flows_per_client.as_ref(), default.flows_per_client),
            persistent_max: number(written.persistent.as_ref(), default.persistent_max),
            answers_per_second: number(written.answers_per_second.as_ref(), default.answers_per_second),
        }
    }

    fn timeouts(&mut self, written: Option<&At<written::Timeouts>>) -> Timeouts {
        let Some(written) = written.map(|at| &at.value) else { return Timeouts::default() };
        let mut timeouts = match written.profile.as_ref().map(|at| at.value) {
            None | Some(Profile::Ipvs) => Timeouts::default(),
            Some(Profile::Rfc) => Timeouts::rfc(),
        };
        let texts = [
            (&mut timeouts.tcp_established, &written.tcp_established),
            (&mut timeouts.tcp_syn_sent, &written.tcp_syn_sent),
            (&mut timeouts.tcp_syn_received, &written.tcp_syn_received),
            (&mut timeouts.tcp_close_wait, &written.tcp_close_wait),
            (&mut timeouts.tcp_fin_wait, &written.tcp_fin_wait),
            (&mut timeouts.tcp_time_wait, &written.tcp_time_wait),
            (&mut timeouts.tcp_close, &written.tcp_close),
            (&mut timeouts.udp, &written.udp),
            (&mut timeouts.icmp, &written.icmp),
        ];
        for (timeout, text) in texts {
            *timeout = self.duration(text.as_ref(), &TIMEOUTS, *timeout);
        }
        timeouts
    }

    fn duration(
        &mut self,
        written: Option<&At<DurationText>>,
        range: &RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(At { span, value }) = written else { return default };
        self.text(span, forms::duration(&value.0, range)).unwrap_or(default)
    }

    /// What a host needs to run a component.
    fn guest(&mut self, written: &GuestText<'_>) -> Option<GuestPlan> {
        let component = self.component(written.component?)?;
        let call_budget = self.duration(written.budget, &BUDGETS, BUDGET_DEFAULT);
        let memory_limit_bytes = match written.memory {
            Some(At { span, value }) => self.text(span, forms::size(&value.0, &MEMORIES)),
            None => Some(MEMORY_DEFAULT),
        };
        let fallback = match written.fallback {
            Some(At { span, value }) => self.text(span, forms::builtin(&value.0)),
            None => Some(SCHEDULER_DEFAULT),
        };
        let options = self.options(written.options)?;
        let (memory_limit_bytes, fallback) = (memory_limit_bytes?, fallback?);
        Some(GuestPlan { component, options, call_budget, memory_limit_bytes, fallback })
    }

    /// The component as the host finds it: a bundled one by its name, a file by its path from anywhere.
    fn component(&mut self, written: &At<written::ComponentText>) -> Option<String> {
        let text = written.value.0.as_str();
        let (reason, help) = match text.strip_prefix("bundled:") {
            Some(name) if forms::name(name).is_ok() => return Some(text.to_owned()),
            Some(name) => {
                (format!("{} can not be the name of a component", quote(name)), "write `bundled:NAME`")
            }
            None if text.is_empty() || text.contains('\0') => {
                ("a component needs a name".to_owned(), "write `bundled:NAME` or the path of a file")
            }
            None => return Some(self.base.join(text).display().to_string()),
        };
        let diagnostic = self.diagnostic(Code::BadComponent, &written.span, reason);
        self.found.push(diagnostic.help(help));
        None
    }

    /// The options of a component as TOML text, keys sorted by name; empty when there are none.
    fn options(&mut self, written: Option<&At<Options>>) -> Option<String> {
        let Some(At { span, value }) = written else { return Some(String::new()) };
        match toml::to_string(&value.0) {
            Ok(text) if text.len() > OPTIONS_BYTES_MAX => {
                let length = text.len();
                let message =
                    format!("the options have {length} bytes as text; {OPTIONS_BYTES_MAX} is the most");
                let diagnostic = self.diagnostic(Code::OutOfRange, span, message);
                self.found.push(diagnostic.help("give the component fewer options"));
                None
            }
            Ok(text) => Some(text),
            Err(error) => {
                let diagnostic = self.diagnostic(Code::WrongType, span, error.to_string());
                self.found.push(diagnostic);
                None
            }
        }
    }
}

/// What the tables of schedulers and policies say about their component.
struct GuestText<'a> {
    component: Option<&'a At<written::ComponentText>>,
    fallback: Option<&'a At<written::BuiltinText>>,
    budget: Option<&'a At<DurationText>>,
    memory: Option<&'a At<SizeText>>,
    options: Option<&'a At<Options>>,
}
