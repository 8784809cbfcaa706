//! What a configuration file means: the plan, the program's own settings, and where things stand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use evenkeel_engine::{Plan, PlanError};
use schemars::JsonSchema;

use crate::diagnostic::{Code, Diagnostic, Diagnostics};
use crate::seed;
use crate::source::Source;

/// Who sets up addresses, routes and rules of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Setup {
    /// The forwarder, which takes them down again at exit.
    #[default]
    Auto,
    /// The operator.
    Manual,
}

/// How devices are driven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Io {
    /// `io_uring` where the system allows it, else `epoll`.
    #[default]
    Auto,
    /// `io_uring`, or not at all.
    IoUring,
    /// `epoll` with plain reads and writes.
    Epoll,
}

/// What concerns the program and not the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwarderConfig {
    /// Who sets up addresses, routes and rules of the system.
    pub setup: Setup,
    /// The unix socket of `evenkeel ctl`.
    pub control: PathBuf,
    /// How devices are driven.
    pub io: Io,
    /// The port at which real servers answer schedulers that ask them how they are.
    pub probe_port: u16,
    /// The seed of everything random; `None` when the file leaves it to be drawn, see [`Loaded::with_seed`].
    pub seed: Option<u64>,
}

/// The port of real servers' answers when the file names none.
pub(crate) const PROBE_PORT_DEFAULT: u16 = 7791;

/// The socket of `evenkeel ctl` when the file names none.
pub(crate) const CONTROL_DEFAULT: &str = "/run/evenkeel/evenkeel.sock";

impl Default for ForwarderConfig {
    fn default() -> Self {
        let (setup, io) = (Setup::default(), Io::default());
        Self {
            setup,
            control: PathBuf::from(CONTROL_DEFAULT),
            io,
            probe_port: PROBE_PORT_DEFAULT,
            seed: None,
        }
    }
}

/// Something in the file that a later error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A key of the table `forwarder`, or the table when there is no such key.
    Forwarder(&'a str),
    /// An interface and a key of it; the interface itself when there is no such key.
    Interface(&'a str, &'a str),
    /// A director and a key of it (`scheduler` is the component's name when there is one); the director itself
    /// when there is no such key.
    Director(&'a str, &'a str),
    /// A real server: the name of the director, then its own.
    Server(&'a str, &'a str),
    /// A policy component and a key of it; the component's table when there is no such key.
    Policy(&'a str, &'a str),
    /// A flow.
    Flow(&'a str),
}

/// Where things stand, by kind, name and key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Places(BTreeMap<(&'static str, String, String), Range<usize>>);

impl Places {
    pub(crate) fn insert(&mut self, kind: &'static str, name: &str, key: &str, span: &Range<usize>) {
        self.0.insert((kind, name.to_owned(), key.to_owned()), span.clone());
    }

    pub(crate) fn find(&self, kind: &'static str, name: &str, key: &str) -> Option<&Range<usize>> {
        let find = |key: &str| self.0.get(&(kind, name.to_owned(), key.to_owned()));
        find(key).or_else(|| find(""))
    }
}

/// A configuration without errors.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the engine runs by. Its hash key and seed are zero until there is a seed: see [`Loaded::with_seed`].
    pub plan: Plan,
    /// What the program runs by.
    pub forwarder: ForwarderConfig,
    /// What is probably not meant; never an error.
    pub warnings: Diagnostics,
    /// The folder that relative paths start from.
    pub base: PathBuf,
    pub(crate) source: Arc<Source>,
    pub(crate) places: Places,
}

impl Loaded {
    /// The same with this seed: the plan's hash key and seed derive from it, and equal seeds give equal plans.
    ///
    /// A caller draws one when [`ForwarderConfig::seed`] is `None`; a scenario sets its own in any case.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.forwarder.seed = Some(seed);
        self.plan.hash_key = seed::hash_key(seed);
        self.plan.seed = seed::guest_seed(seed);
        self
    }

    /// The name of the file, as messages show it.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.source.name
    }

    /// The folder that relative paths start from.
    #[must_use]
    pub fn base_dir(&self) -> &Path {
        &self.base
    }

    fn place(&self, subject: Subject<'_>) -> Option<&Range<usize>> {
        match subject {
            Subject::Forwarder(key) => self.places.find("forwarder", "", key),
            Subject::Interface(name, key) => self.places.find("interface", name, key),
            Subject::Director(name, key) => self.places.find("director", name, key),
            Subject::Server(director, name) => self.places.find("server", director, name),
            Subject::Policy(name, key) => self.places.find("policy", name, key),
            Subject::Flow(name) => self.places.find("flow", name, ""),
        }
    }

    fn diagnostic(&self, code: Code, subject: Subject<'_>, message: String) -> Diagnostic {
        match self.place(subject) {
            Some(span) => Diagnostic::new(&self.source, code, span, message),
            None => Diagnostic::without_place(&self.source, code, message),
        }
    }

    /// An error that was found later, at the place of what it is about: a component that can not be read, an
    /// interface that can not be made.
    #[must_use]
    pub fn diagnostic_at(&self, subject: Subject<'_>, message: &str, help: &str) -> Diagnostic {
        let code = match subject {
            Subject::Director(_, "scheduler") | Subject::Policy(_, _) => Code::Component,
            Subject::Forwarder(_)
            | Subject::Interface(_, _)
            | Subject::Director(_, _)
            | Subject::Server(_, _)
            | Subject::Flow(_) => Code::Refused,
        };
        let diagnostic = self.diagnostic(code, subject, message.to_owned());
        if help.is_empty() { diagnostic } else { diagnostic.help(help) }
    }

    /// An error about a component that a host could not load, at the place where the file names it.
    ///
    /// `name` is the director or policy that uses it; a director and a policy may have the same name, and then
    /// the component tells which is meant.
    #[must_use]
    pub fn component_error(&self, name: &str, component: &str, reason: &str) -> Diagnostic {
        let message = format!("the component {component} can not be used: {reason}");
        let (subject, kind) = if self.uses_policy(name, component) {
            (Subject::Policy(name, "component"), "policy")
        } else {
            (Subject::Director(name, "scheduler"), "scheduler")
        };
        let help = format!("name a {kind} component: `bundled:NAME`, or the path of a file beside this one");
        self.diagnostic_at(subject, &message, &help)
    }

    fn uses_policy(&self, wanted: &str, component: &str) -> bool {
        use evenkeel_engine::plan::{PolicyGuestPlan, PolicyPlan, SchedulerPlan};
        let by_director = self.plan.directors.iter().any(|director| match &director.scheduler {
            SchedulerPlan::Guest(guest) => director.name == wanted && guest.component == component,
            SchedulerPlan::Builtin(_) | SchedulerPlan::Tuned(_) => false,
        });
        let is_it = |policy: &PolicyGuestPlan| policy.name == wanted && policy.guest.component == component;
        let by_policy = self.plan.policies.iter().any(|policy| match policy {
            PolicyPlan::Guest(policy) => is_it(policy),
            PolicyPlan::Rules(_) => false,
        });
        let by_policy = by_policy || self.plan.outflow_guests.iter().any(is_it);
        by_policy && !by_director
    }

    /// Why the engine refused the plan, at the place of the director when it is about one.
    #[must_use]
    pub fn refused(&self, error: &PlanError) -> Diagnostic {
        let message = error.to_string();
        let about = self
            .plan
            .directors
            .iter()
            .find(|director| message.split([' ', ':', ',', '/']).any(|word| word == director.name));
        let subject = about.map_or(Subject::Forwarder(""), |director| Subject::Director(&director.name, ""));
        self.diagnostic(Code::Refused, subject, format!("the engine refuses the plan: {message}"))
    }
}
