//! What a director says of its scheduler, and of how its servers start.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use evenkeel_engine::plan::{
    Builtin, FlowKey, HashType, OptionError, Options, ProbeSource, SchedulerPlan, Setting, SlowStart,
    TableWeights, Tuned,
};

use super::{GuestText, Meaning, SCHEDULER_DEFAULT, number};
use crate::addresses;
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::written::{
    self, At, ComponentText, DurationText, Fallback, Netmask, Scheduler, SchedulerTable, TextOrTable,
};

/// How long a slow start may be. Below, it is none; above, it is a weight.
const SLOW_STARTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(86_400);

/// The keys that only components have.
type ForComponents<'a> = [(&'static str, Option<&'a Range<usize>>); 3];

impl Meaning<'_> {
    pub(super) fn scheduler(
        &mut self,
        director: &str,
        written: Option<&At<Scheduler>>,
    ) -> Option<SchedulerPlan> {
        let Some(At { span, value }) = written else {
            return Some(SchedulerPlan::Builtin(SCHEDULER_DEFAULT));
        };
        self.places.insert("director", director, "scheduler", span);
        match value {
            TextOrTable::Text(name) if name.0.starts_with("bundled:") || name.0.ends_with(".wasm") => {
                let message = format!("{} is a component and not a built-in scheduler", quote(&name.0));
                let diagnostic = self.diagnostic(Code::UnknownScheduler, span, message);
                let table = format!("{{ component = {} }}", self.source.slice(span));
                self.found.push(diagnostic.repair(span, table, "write a table"));
                None
            }
            TextOrTable::Text(name) => self.text(span, forms::builtin(&name.0)).map(SchedulerPlan::Builtin),
            TextOrTable::Table(table) => self.scheduler_table(director, span, table),
        }
    }

    /// The second scheduler of a director. A component may stand there by its name alone: nothing depends on it.
    pub(super) fn shadow(
        &mut self,
        director: &str,
        written: Option<&At<Scheduler>>,
    ) -> Option<Option<SchedulerPlan>> {
        let Some(At { span, value }) = written else { return Some(None) };
        match value {
            TextOrTable::Text(name) if name.0.starts_with("bundled:") || name.0.ends_with(".wasm") => {
                let component = At { span: span.clone(), value: ComponentText(name.0.clone()) };
                let table = SchedulerTable { component: Some(component), ..SchedulerTable::default() };
                self.component_scheduler(&table).map(Some)
            }
            TextOrTable::Text(name) => {
                self.text(span, forms::builtin(&name.0)).map(|kind| Some(SchedulerPlan::Builtin(kind)))
            }
            TextOrTable::Table(table) => self.scheduler_table(director, span, table).map(Some),
        }
    }

    fn scheduler_table(
        &mut self,
        director: &str,
        span: &Range<usize>,
        table: &SchedulerTable,
    ) -> Option<SchedulerPlan> {
        match (&table.name, &table.component) {
            (Some(name), None) => {
                self.places.insert("director", director, "scheduler", &name.span);
                let kind = self.text(&name.span, forms::builtin(&name.value.0))?;
                self.tuned(kind, table).map(SchedulerPlan::Tuned)
            }
            (None, Some(component)) => {
                self.places.insert("director", director, "scheduler", &component.span);
                self.component_scheduler(table)
            }
            (Some(name), Some(component)) => {
                let message = "a scheduler is either built in or a component";
                let diagnostic = self.diagnostic(Code::Conflict, &component.span, message);
                let diagnostic = diagnostic.also(&name.span, "a built-in one here");
                self.found.push(diagnostic.help("take out `name` or `component`"));
                None
            }
            (None, None) => {
                // A misspelt key is one mistake, which has been reported.
                if !self.found.iter().any(|one| one.code() == Code::UnknownKey && one.is_within(span)) {
                    let message = "the table of a scheduler needs the key `name` or the key `component`";
                    let diagnostic = self.diagnostic(Code::MissingKey, span, message);
                    let help =
                        "add `name = \"rr\"` for a built-in scheduler, or `component = \"bundled:maglev\"`";
                    self.found.push(diagnostic.help(help));
                }
                None
            }
        }
    }

    fn component_scheduler(&mut self, table: &SchedulerTable) -> Option<SchedulerPlan> {
        let unfit = settings(table).into_iter().find_map(|(setting, span)| {
            span.filter(|_| setting != Setting::Fallback).map(|span| (setting, span))
        });
        if let Some((setting, span)) = unfit {
            let message = format!("{} is an option of built-in schedulers", quote(setting.name()));
            let diagnostic = self.diagnostic(Code::Conflict, span, message);
            self.found.push(diagnostic.help("give a component its options in the table `options`"));
        }
        let fallback = match &table.fallback {
            Some(At { span, value: Fallback::Switch(_) }) => {
                let message = "the `fallback` of a component is a built-in scheduler";
                let diagnostic = self.diagnostic(Code::WrongType, span, message);
                self.found.push(diagnostic.repair(span, "\"wlc\"", "name the one that answers instead"));
                None
            }
            Some(At { span, value: Fallback::Name(name) }) => {
                Some(At { span: span.clone(), value: name.clone() })
            }
            None => None,
        };
        let text = GuestText {
            component: table.component.as_ref(),
            fallback: fallback.as_ref(),
            budget: table.budget.as_ref(),
            memory: table.memory.as_ref(),
            options: table.options.as_ref(),
        };
        self.guest(&text).map(SchedulerPlan::Guest)
    }

    /// A built-in scheduler with its options.
    fn tuned(&mut self, kind: Builtin, table: &SchedulerTable) -> Option<Tuned> {
        let is_unfit = self.foreign_options(kind, table);
        let options = self.builtin_options(kind, table);
        let tuned = Tuned { kind, options: options.filter(|_| !is_unfit)? };
        let Err(error) = tuned.check() else { return Some(tuned) };
        let all = settings(table);
        let span = all.iter().find_map(|(setting, span)| span.filter(|_| *setting == error.setting()));
        let span = span.cloned().unwrap_or(0..0);
        let is_range = matches!(error, OptionError::OutOfRange { .. } | OptionError::TableSize { .. });
        let code = if is_range { Code::OutOfRange } else { Code::Conflict };
        let diagnostic = self.diagnostic(code, &span, error.to_string());
        self.found.push(if let OptionError::TableSize { near, .. } = &error {
            diagnostic.repair(&span, near.to_string(), "write a size that is possible")
        } else if let OptionError::NoRing { .. } = &error {
            diagnostic.help("add `hash_type = \"consistent\"`")
        } else if let OptionError::Key { .. } = &error {
            diagnostic.help("write `key = \"source\"` without a netmask, or `key = \"source-port\"`")
        } else {
            diagnostic.help("write a value in that range")
        });
        None
    }

    /// Reports options that the scheduler does not have. Returns whether there are any.
    fn foreign_options(&mut self, kind: Builtin, table: &SchedulerTable) -> bool {
        let taken = kind.settings();
        let mut foreign: Vec<(&str, Range<usize>, Vec<&str>)> = Vec::new();
        for (setting, span) in settings(table) {
            if let Some(span) = span.filter(|_| !taken.contains(&setting)) {
                let others = Builtin::ALL.iter().filter(|other| other.settings().contains(&setting));
                foreign.push((setting.name(), span.clone(), others.map(|other| other.name()).collect()));
            }
        }
        let components: ForComponents<'_> = [
            ("budget", table.budget.as_ref().map(|at| &at.span)),
            ("memory", table.memory.as_ref().map(|at| &at.span)),
            ("options", table.options.as_ref().map(|at| &at.span)),
        ];
        for (name, span) in components {
            foreign.extend(span.map(|span| (name, span.clone(), Vec::new())));
        }
        let names =
            |names: &[&str]| names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        for (name, span, others) in &foreign {
            let message = format!("the scheduler `{}` has no option `{name}`", kind.name());
            let own: Vec<&str> = taken.iter().map(|setting| setting.name()).collect();
            let own =
                if own.is_empty() { "it has none".to_owned() } else { format!("it has {}", names(&own)) };
            let others = match others.as_slice() {
                [] => "components have this one".to_owned(),
                others => format!("this one belongs to {}", names(others)),
            };
            let diagnostic = self.diagnostic(Code::UnknownKey, span, message);
            self.found.push(diagnostic.help(format!("{own}; {others}")));
        }
        !foreign.is_empty()
    }

    fn builtin_options(&mut self, kind: Builtin, table: &SchedulerTable) -> Option<Options> {
        let key = self.key(kind, table);
        let fallback = match &table.fallback {
            Some(At { value: Fallback::Switch(switch), .. }) => Some(Some(*switch)),
            Some(At { span, value: Fallback::Name(_) }) if kind.settings().contains(&Setting::Fallback) => {
                let message = format!("the `fallback` of `{}` is `true` or `false`", kind.name());
                let diagnostic = self.diagnostic(Code::WrongType, span, message);
                self.found.push(diagnostic.repair(span, "true", "write one of them"));
                None
            }
            Some(_) | None => Some(None),
        };
        let expiration = self.option_time(Setting::Expiration, table.expiration.as_ref());
        let decay = self.option_time(Setting::Decay, table.decay.as_ref());
        let probe_age = self.option_time(Setting::ProbeAge, table.probe_age.as_ref());
        // Numbers have been checked against their ranges by the shape.
        let whole = |at: &Option<At<i64>>| at.as_ref().and_then(|at| u32::try_from(at.value).ok());
        Some(Options {
            key: key?,
            fallback: fallback?,
            table_size: whole(&table.table_size),
            weights: table.weights.as_ref().map(|at| match at.value {
                written::Weights::Cumulative => TableWeights::Cumulative,
                written::Weights::Turns => TableWeights::Turns,
                written::Weights::Equal => TableWeights::Equal,
            }),
            expiration: expiration?,
            choices: whole(&table.choices),
            hash_type: table.hash_type.as_ref().map(|at| match at.value {
                written::HashType::MapBased => HashType::MapBased,
                written::HashType::Consistent => HashType::Consistent,
            }),
            avalanche: table.avalanche.as_ref().map(|at| at.value),
            balance_factor: whole(&table.balance_factor),
            points: whole(&table.points),
            capacity: whole(&table.capacity),
            probes: whole(&table.probes),
            decay: decay?,
            bias: whole(&table.bias),
            pool: whole(&table.pool),
            probe_age: probe_age?,
            probe_rate: whole(&table.probe_rate),
            probe_source: table.probe_source.as_ref().map(|at| match at.value {
                written::ProbeSource::Flows => ProbeSource::Flows,
                written::ProbeSource::Servers => ProbeSource::Servers,
            }),
            hot_quantile: whole(&table.hot_quantile),
        })
    }

    /// What of a flow is hashed; none where the file has it wrong.
    fn key(&mut self, kind: Builtin, table: &SchedulerTable) -> Option<Option<FlowKey>> {
        let key = table.key.as_ref().map(|at| at.value);
        let mask = table.netmask.as_ref().map(|at| &at.span);
        let mask = mask.or_else(|| table.netmask6.as_ref().map(|at| &at.span));
        let is_source = key == Some(written::Key::Source);
        if let Some(span) = mask.filter(|_| !is_source && kind.settings().contains(&Setting::Key)) {
            let message = "a netmask is about `key = \"source\"`";
            let diagnostic = self.diagnostic(Code::Conflict, span, message);
            let diagnostic = match &table.key {
                Some(key) => diagnostic.also(&key.span, "another key here"),
                None => diagnostic,
            };
            self.found.push(diagnostic.help("add `key = \"source\"`, or take the netmask out"));
            return None;
        }
        let Some(key) = key else { return Some(None) };
        Some(Some(match key {
            written::Key::FiveTuple => FlowKey::FiveTuple,
            written::Key::SourcePort => FlowKey::SourcePort,
            written::Key::Destination => FlowKey::Destination,
            written::Key::Source => {
                let length_v4 = match &table.netmask {
                    None => Some(32),
                    Some(At { value: Netmask::Length(length), .. }) => u8::try_from(*length).ok(),
                    Some(At { span, value: Netmask::Mask(text) }) => {
                        self.text(span, addresses::netmask(&text.0))
                    }
                };
                let length_v6 = number(table.netmask6.as_ref(), 128);
                FlowKey::Source { length_v4: length_v4?, length_v6 }
            }
        }))
    }

    /// A duration within the option's range.
    fn option_time(
        &mut self,
        setting: Setting,
        written: Option<&At<DurationText>>,
    ) -> Option<Option<Duration>> {
        let Some(At { span, value }) = written else { return Some(None) };
        let range = setting.range().unwrap_or(0..=u64::MAX);
        let range = Duration::from_nanos(*range.start())..=Duration::from_nanos(*range.end());
        self.text(span, forms::duration(&value.0, &range)).map(Some)
    }

    pub(super) fn slow_start(&mut self, written: Option<&At<written::SlowStart>>) -> Option<SlowStart> {
        let At { span, value } = written?;
        match value {
            TextOrTable::Text(text) => {
                self.text(span, forms::duration(&text.0, &SLOW_STARTS)).map(SlowStart::of)
            }
            TextOrTable::Table(table) => {
                let At { span, value } = table.time.as_ref()?;
                let default = SlowStart::of(self.text(span, forms::duration(&value.0, &SLOW_STARTS))?);
                Some(SlowStart {
                    least: number(table.least.as_ref(), default.least),
                    aggression: number(table.aggression.as_ref(), default.aggression),
                    ..default
                })
            }
        }
    }
}

/// Where each option stands, if it does.
fn settings(table: &SchedulerTable) -> Vec<(Setting, Option<&Range<usize>>)> {
    fn span<T>(at: &Option<At<T>>) -> Option<&Range<usize>> {
        at.as_ref().map(|at| &at.span)
    }
    let mask = span(&table.netmask).or_else(|| span(&table.netmask6));
    let place = |setting: Setting| match setting {
        Setting::Key => span(&table.key).or(mask),
        Setting::Fallback => span(&table.fallback),
        Setting::TableSize => span(&table.table_size),
        Setting::Weights => span(&table.weights),
        Setting::Expiration => span(&table.expiration),
        Setting::Choices => span(&table.choices),
        Setting::HashType => span(&table.hash_type),
        Setting::Avalanche => span(&table.avalanche),
        Setting::BalanceFactor => span(&table.balance_factor),
        Setting::Points => span(&table.points),
        Setting::Capacity => span(&table.capacity),
        Setting::Probes => span(&table.probes),
        Setting::Decay => span(&table.decay),
        Setting::Bias => span(&table.bias),
        Setting::Pool => span(&table.pool),
        Setting::ProbeAge => span(&table.probe_age),
        Setting::ProbeRate => span(&table.probe_rate),
        Setting::ProbeSource => span(&table.probe_source),
        Setting::HotQuantile => span(&table.hot_quantile),
    };
    Setting::ALL.iter().map(|setting| (*setting, place(*setting))).collect()
}
