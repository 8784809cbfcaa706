//! Loads.

use std::collections::BTreeSet;
use std::ops::Range;

use evenkeel_config::document::{At, OneOrMany};
use evenkeel_engine::Duration;

use super::Checker;
use super::roster::Roster;
use crate::payload::{HEAD_BYTES, MESSAGE_MAX_BYTES, message_max_bytes};
use crate::scenario::written::{self, PatternText, Process, SizeLaw};
use crate::scenario::{Arrivals, DURATION_MAX, Exchange, Extent, Load, Scenario, Service, quantity};
use crate::work::Law;

/// Bytes of a request and a response where the file gives none.
const SIZE_DEFAULT: u64 = 64;
/// The most patterns of one list.
pub(super) const PATTERNS_MAX: usize = 64;
/// The shortest time that something takes which may not take none.
const INSTANT: Duration = Duration::from_nanos(1);

impl Checker<'_, '_> {
    pub(super) fn loads(&mut self, file: &written::File, scenario: &Scenario, roster: &Roster) -> Vec<Load> {
        let mut loads = Vec::new();
        let entries = self.sorted(file.load.as_ref(), "load");
        if entries.is_empty() {
            self.errors.add(0..0, "no `[load.NAME]`: nothing would happen");
        }
        for (name, load) in entries {
            let span = &name.span;
            let load = &load.value;
            let clients = self.clients(load.from.as_ref(), scenario, roster);
            let service =
                load.to.as_ref().and_then(|to| self.value(&to.span, &to.value.0, quantity::service));
            let arrivals = load.arrivals.as_ref().and_then(|arrivals| self.arrivals(arrivals));
            let start = load.start.as_ref().and_then(|start| self.moment(start, scenario.duration));
            let extent = self.extent(name, load);
            let exchange = self.exchange(load, service);
            let deadline =
                load.deadline.as_ref().and_then(|text| self.duration(text, INSTANT..=DURATION_MAX));
            self.family_of_clients(load, &clients, service, scenario);
            let is_room = self.take_parts(span, clients.len());
            if let (Some(service), Some(arrivals), Some(extent), true) = (service, arrivals, extent, is_room)
            {
                let name = name.value.clone();
                let start = start.unwrap_or(Duration::ZERO);
                loads.push(Load { name, clients, service, arrivals, start, extent, exchange, deadline });
            }
        }
        loads
    }

    /// The machines of several patterns, each of them once, in the order of their numbers.
    pub(super) fn machines(
        &mut self,
        patterns: &[(&Range<usize>, &PatternText)],
        roster: &Roster,
    ) -> Vec<usize> {
        if let Some((span, _)) = patterns.get(PATTERNS_MAX) {
            self.errors.add((*span).clone(), format!("a list has at most {PATTERNS_MAX} patterns"));
        }
        let mut all = BTreeSet::new();
        for (span, pattern) in patterns.iter().take(PATTERNS_MAX) {
            let found = roster.matching(&pattern.0);
            if found.is_empty() {
                self.unknown(span, "machine", &pattern.0, roster.names());
            }
            all.extend(found);
        }
        all.into_iter().collect()
    }

    fn clients(
        &mut self,
        written: Option<&At<OneOrMany<PatternText>>>,
        scenario: &Scenario,
        roster: &Roster,
    ) -> Vec<usize> {
        let patterns = OneOrMany::each(written);
        if let (Some(at), true) = (written, patterns.is_empty()) {
            self.errors.add_missing(at.span.clone(), "a load needs clients");
        }
        let machines = self.machines(&patterns, roster);
        let other = machines.iter().find(|number| !roster.is_host(**number));
        if let (Some((name, ..)), Some(at)) = (other.and_then(|number| scenario.machine(*number)), written) {
            self.errors.add(at.span.clone(), format!("{name} is no host, and only hosts open flows"));
        }
        machines.into_iter().filter(|number| roster.is_host(*number)).collect()
    }

    /// Clients have an address of the family of the service.
    fn family_of_clients(
        &mut self,
        load: &written::Load,
        clients: &[usize],
        service: Option<Service>,
        scenario: &Scenario,
    ) {
        let (Some(service), Some(to)) = (service, &load.to) else { return };
        let has_family = |network: &crate::scenario::Network| {
            let own = network.attachments.iter().flat_map(|attachment| &attachment.addresses);
            own.chain(&network.loopback).any(|own| own.is_ipv4() == service.address.is_ipv4())
        };
        let lacking = clients.iter().filter_map(|number| scenario.hosts.get(*number));
        if let Some(host) = lacking.into_iter().find(|host| !has_family(&host.network)) {
            let family = if service.address.is_ipv4() { "IPv4" } else { "IPv6" };
            self.errors
                .add(to.span.clone(), format!("{} has no {family} address to ask {service} from", host.name));
        }
    }

    fn extent(&mut self, name: &At<String>, load: &written::Load) -> Option<Extent> {
        match (&load.flows, &load.duration) {
            (Some(flows), None) => u64::try_from(flows.value).ok().map(Extent::Flows),
            (None, Some(text)) => self.duration(text, INSTANT..=DURATION_MAX).map(Extent::Duration),
            (Some(_), Some(text)) => {
                self.errors.add(text.span.clone(), "`flows` or `duration`, not both");
                None
            }
            (None, None) => {
                let message = format!("load {} needs `flows` or `duration`", name.value);
                self.errors.add_missing(name.span.clone(), message);
                None
            }
        }
    }

    fn arrivals(&mut self, written: &At<written::Arrivals>) -> Option<Arrivals> {
        let arrivals = &written.value;
        let process = arrivals.process.as_ref()?.value;
        let (name, needed, may): (&str, &[&str], &[&str]) = match process {
            Process::Poisson => ("poisson", &["rate"], &[]),
            Process::Uniform => ("uniform", &["rate"], &[]),
            Process::OnOff => ("on-off", &["rate", "on", "off"], &[]),
            Process::Closed => ("closed", &["outstanding"], &["think"]),
        };
        let keys = [
            ("rate", arrivals.rate.as_ref().map(|at| &at.span)),
            ("on", arrivals.on.as_ref().map(|at| &at.span)),
            ("off", arrivals.off.as_ref().map(|at| &at.span)),
            ("outstanding", arrivals.outstanding.as_ref().map(|at| &at.span)),
            ("think", arrivals.think.as_ref().map(|at| &at.span)),
        ];
        let keys: Vec<_> = keys.into_iter().filter_map(|(key, place)| Some((key, place?.clone()))).collect();
        if !self.keys_of("process", name, &written.span, &keys, needed, may) {
            return None;
        }
        let gap = match &arrivals.rate {
            Some(rate) => self.value(&rate.span, &rate.value.0, quantity::gap)?,
            None => Duration::ZERO,
        };
        let mut time = |at: &Option<At<written::DurationText>>| {
            at.as_ref().map_or(Some(Duration::ZERO), |at| self.duration(at, INSTANT..=DURATION_MAX))
        };
        Some(match process {
            Process::Poisson => Arrivals::Poisson { mean_gap: gap },
            Process::Uniform => Arrivals::Uniform { gap },
            Process::OnOff => {
                Arrivals::OnOff { mean_gap: gap, on: time(&arrivals.on)?, off: time(&arrivals.off)? }
            }
            Process::Closed => Arrivals::Closed {
                outstanding: arrivals.outstanding.as_ref().and_then(|at| u32::try_from(at.value).ok())?,
                think: self.duration_or(
                    arrivals.think.as_ref(),
                    Duration::ZERO..=DURATION_MAX,
                    Duration::ZERO,
                ),
            },
        })
    }

    fn exchange(&mut self, load: &written::Load, service: Option<Service>) -> Exchange {
        let max = service.map_or(MESSAGE_MAX_BYTES, |it| message_max_bytes(it.protocol, it.address));
        Exchange {
            request: self.size(load.request.as_ref(), max),
            response: self.size(load.response.as_ref(), max),
            rounds: load.rounds.as_ref().and_then(|at| u32::try_from(at.value).ok()).unwrap_or(1),
            pause: self.duration_or(load.pause.as_ref(), Duration::ZERO..=DURATION_MAX, Duration::ZERO),
        }
    }

    fn size(&mut self, written: Option<&At<SizeLaw>>, max: u32) -> Law {
        let Some(At { span, value }) = written else { return Law::Fixed { value: SIZE_DEFAULT } };
        let Some(size) = &value.size else { return self.size_law(span, value) };
        if value.law.is_some() || value.cdf.is_some() || !value.law_keys().is_empty() {
            let message = "`size` is a law of its own, and takes no other key beside it";
            self.errors.add(size.span.clone(), message);
        }
        let bytes = self.value(&size.span, &size.value.0, quantity::bytes).unwrap_or(HEAD_BYTES);
        if !(HEAD_BYTES..=max).contains(&bytes) {
            let message = format!("{bytes} bytes are outside of {HEAD_BYTES} to {max}");
            self.errors.add(size.span.clone(), message);
        }
        Law::Fixed { value: bytes.into() }
    }
}
