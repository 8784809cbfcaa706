//! From the scenario as written to the scenario as meant: names become indices, texts become values, and
//! whatever contradicts itself is told with its place.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Range;
use std::path::Path;

use evenkeel_engine::Duration;
use evenkeel_engine::wire::Protocol;
use toml::Spanned;

use super::error::{Collector, ScenarioErrors, nearest};
use super::{
    Arrivals, Attachment, DURATION_MAX, Exchange, Expectation, Expected, Extent, FLOWS_MAX, Forwarder,
    HOSTS_MAX, Host, Link, Load, Quality, Scenario, Segment, quantity, written,
};
use crate::payload::{DATAGRAM_MAX_BYTES, HEAD_BYTES, MESSAGE_MAX_BYTES};
use crate::report::metric;

/// The longest name: what the kernel's names of interfaces and the rules' names of flows leave room for.
const NAME_MAX: usize = 27;
/// Bytes of a request and a response where the file gives none.
const SIZE_DEFAULT: u32 = 64;
/// The most exchanges in one flow.
const ROUNDS_MAX: u32 = 100_000;
/// The most flows that a closed loop keeps open.
const OUTSTANDING_MAX: u32 = 1_000_000;

/// The checked scenario, or everything that is wrong with it.
pub(super) fn check(file: &written::File, text: &str, path: &Path) -> Result<Scenario, ScenarioErrors> {
    let mut checker = Checker { errors: Collector::new(text, path), owners: BTreeMap::new() };
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let segments = checker.segments(&file.segment);
    let hosts = checker.hosts(&file.host, &segments);
    let forwarders = checker.forwarders(&file.forwarder, &segments, folder);
    checker.gateways(file, &segments);
    let links = checker.links(&file.link, &segments, &hosts, &forwarders);
    let loads = checker.loads(&file.load, &hosts);
    let expectations = checker.expectations(&file.expect);
    checker.name(&file.scenario.name, "scenario");
    let duration = checker.duration(&file.scenario.duration, Duration::from_nanos(1)..=DURATION_MAX);
    if loads.is_empty() && checker.errors.is_empty() {
        checker.errors.add(0..0, "no [load.NAME]: nothing would happen");
    }
    if !checker.errors.is_empty() {
        return Err(checker.errors.finish());
    }
    Ok(Scenario {
        name: file.scenario.name.get_ref().clone(),
        path: path.to_owned(),
        duration: duration.unwrap_or(DURATION_MAX),
        seed: file.scenario.seed.unwrap_or(1),
        segments,
        hosts,
        forwarders,
        links,
        loads,
        expectations,
    })
}

struct Checker<'a> {
    errors: Collector<'a>,
    /// Who has which address.
    owners: BTreeMap<Ipv4Addr, String>,
}

impl Checker<'_> {
    /// Takes the value, or notes "expected WHAT, found TEXT" at its place.
    fn value<T>(&mut self, text: &Spanned<String>, parse: fn(&str) -> Result<T, &'static str>) -> Option<T> {
        match parse(text.get_ref()) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.errors.add(text.span(), format!("\"{}\" is not {expected}", text.get_ref()));
                None
            }
        }
    }

    fn duration(
        &mut self,
        text: &Spanned<String>,
        range: std::ops::RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let value = self.value(text, quantity::duration)?;
        if range.contains(&value) {
            return Some(value);
        }
        let (low, high) = range.into_inner();
        self.errors.add(text.span(), format!("\"{}\" is outside of {low:?} to {high:?}", text.get_ref()));
        None
    }

    fn name(&mut self, name: &Spanned<String>, kind: &str) {
        let text = name.get_ref();
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if text.is_empty() || text.len() > NAME_MAX || !text.bytes().all(is_allowed) {
            let rule = format!("names have 1 to {NAME_MAX} letters, digits, \"-\" and \"_\"");
            self.errors.add(name.span(), format!("{kind} name \"{text}\": {rule}"));
        }
    }

    fn unknown<'n>(
        &mut self,
        span: Range<usize>,
        what: &str,
        name: &str,
        known: impl Iterator<Item = &'n str>,
    ) {
        let help = nearest(name, known).map(|near| format!("did you mean \"{near}\"?"));
        self.errors.add_with_help(span, format!("no {what} \"{name}\""), help);
    }

    fn segments(&mut self, written: &written::Named<written::Segment>) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::new();
        for (name, segment) in written {
            self.name(name, "segment");
            let span = segment.subnet.span();
            let Some(subnet) = self.value(&segment.subnet, quantity::counted_address) else { continue };
            if subnet.counts || !(8..=30).contains(&subnet.prefix_length) {
                self.errors.add(span, "a subnet is a network such as \"10.0.0.0/24\", of length 8 to 30");
                continue;
            }
            let segment = Segment {
                name: name.get_ref().clone(),
                network: subnet.first,
                prefix_length: subnet.prefix_length,
            };
            if subnet.first.to_bits() & host_mask(subnet.prefix_length) != 0 {
                let network = Ipv4Addr::from_bits(subnet.first.to_bits() & !host_mask(subnet.prefix_length));
                let help = format!("the network is {network}/{}", subnet.prefix_length);
                self.errors.add_with_help(span, "the subnet has host bits", Some(help));
                continue;
            }
            let overlaps =
                |other: &&Segment| other.contains(segment.network) || segment.contains(other.network);
            if let Some(other) = segments.iter().find(overlaps) {
                let message = format!("segments {} and {} overlap", other.name, segment.name);
                self.errors.add(span.clone(), message);
            }
            segments.push(segment);
        }
        segments
    }

    /// The attachment of machine `number` of its group; notes what is wrong with it.
    fn attachment(
        &mut self,
        written: &written::Attach,
        segments: &[Segment],
        machine: &str,
        number: Option<u32>,
    ) -> Option<Attachment> {
        let wanted = written.segment.get_ref();
        let Some(index) = segments.iter().position(|segment| segment.name == *wanted) else {
            let known = segments.iter().map(|segment| segment.name.as_str());
            self.unknown(written.segment.span(), "segment", wanted, known);
            return None;
        };
        let segment = segments.get(index)?;
        let span = written.address.span();
        let counted = self.value(&written.address, quantity::counted_address)?;
        if counted.counts != number.is_some() && (counted.counts || number != Some(0)) {
            let message =
                if counted.counts { "\"+i\" needs a count" } else { "several hosts need \"+i\" here" };
            self.errors.add(span, format!("{machine}: {message}"));
            return None;
        }
        let bits = counted.first.to_bits().checked_add(number.unwrap_or(0));
        let address = bits.map(Ipv4Addr::from_bits).filter(|address| is_usable(segment, *address));
        let Some(address) = address else {
            let message = format!(
                "the address of {machine} is no host of {wanted} ({}/{})",
                segment.network, segment.prefix_length
            );
            self.errors.add(span, message);
            return None;
        };
        if counted.prefix_length != segment.prefix_length {
            let message =
                format!("/{} here, but {wanted} is a /{}", counted.prefix_length, segment.prefix_length);
            self.errors.add(span, message);
            return None;
        }
        if let Some(owner) = self.owners.insert(address, machine.to_owned()) {
            self.errors.add(span, format!("{owner} and {machine} both have the address {address}"));
            return None;
        }
        Some(Attachment { segment: index, address })
    }

    fn attachments(
        &mut self,
        written: &Spanned<Vec<written::Attach>>,
        segments: &[Segment],
        machine: &str,
        number: Option<u32>,
    ) -> Vec<Attachment> {
        if written.get_ref().is_empty() {
            self.errors.add(written.span(), format!("{machine} is attached to nothing"));
        }
        let mut attachments: Vec<Attachment> = Vec::new();
        for attach in written.get_ref() {
            let Some(attachment) = self.attachment(attach, segments, machine, number) else { break };
            if attachments.iter().any(|other| other.segment == attachment.segment) {
                self.errors.add(attach.segment.span(), format!("{machine} is attached there twice"));
            }
            attachments.push(attachment);
        }
        attachments
    }

    fn hosts(&mut self, written: &written::Named<written::Host>, segments: &[Segment]) -> Vec<Host> {
        let mut hosts = Vec::new();
        for (group, host) in written {
            self.name(group, "host");
            let count = host.count.as_ref().map_or(1, |count| *count.get_ref());
            let room = HOSTS_MAX.saturating_sub(hosts.len());
            let Some(count) =
                u32::try_from(count).ok().filter(|n| *n > 0 && usize::try_from(*n).is_ok_and(|n| n <= room))
            else {
                let span = host.count.as_ref().map_or(0..0, Spanned::span);
                self.errors.add(span, format!("count {count} is outside of 1 to {HOSTS_MAX} hosts in all"));
                continue;
            };
            let gateway = host.gateway.as_ref().and_then(|gateway| gateway.get_ref().parse().ok());
            for number in 0..count {
                let number = host.count.as_ref().map(|_| number);
                let group = group.get_ref().clone();
                let name = number.map_or_else(|| group.clone(), |number| format!("{group}.{number}"));
                let attachments = self.attachments(&host.attach, segments, &name, number);
                if attachments.len() < host.attach.get_ref().len() {
                    break;
                }
                hosts.push(Host { name, group, attachments, gateway });
            }
        }
        hosts
    }

    fn forwarders(
        &mut self,
        written: &written::Named<written::Forwarder>,
        segments: &[Segment],
        folder: &Path,
    ) -> Vec<Forwarder> {
        let mut forwarders = Vec::new();
        for (name, forwarder) in written {
            self.name(name, "forwarder");
            let config = forwarder.config.get_ref();
            if config.is_empty() {
                self.errors.add(forwarder.config.span(), "the path of the configuration file is empty");
            }
            let name = name.get_ref().clone();
            let attachments = self.attachments(&forwarder.attach, segments, &name, None);
            let gateway = forwarder.gateway.as_ref().and_then(|gateway| gateway.get_ref().parse().ok());
            forwarders.push(Forwarder { name, attachments, gateway, config: folder.join(config) });
        }
        forwarders
    }

    /// Gateways are addresses of machines on a segment of those who use them.
    fn gateways(&mut self, file: &written::File, segments: &[Segment]) {
        let hosts = file.host.iter().map(|(name, host)| (name, &host.gateway, &host.attach));
        let forwarders = file.forwarder.iter().map(|(name, host)| (name, &host.gateway, &host.attach));
        for (name, gateway, attach) in hosts.chain(forwarders) {
            let Some(gateway) = gateway else { continue };
            let name = name.get_ref();
            let Ok(address) = gateway.get_ref().parse::<Ipv4Addr>() else {
                let message = format!("\"{}\" is not an IPv4 address", gateway.get_ref());
                self.errors.add(gateway.span(), message);
                continue;
            };
            let is_attached = |segment: &Segment| {
                attach.get_ref().iter().any(|attach| *attach.segment.get_ref() == segment.name)
            };
            if !segments.iter().any(|segment| is_attached(segment) && segment.contains(address)) {
                let message = format!("gateway {address} is on no segment of {name}");
                self.errors.add(gateway.span(), message);
            } else if !self.owners.contains_key(&address) {
                self.errors.add(gateway.span(), format!("nobody has the gateway's address {address}"));
            }
        }
    }

    fn links(
        &mut self,
        written: &written::Named<written::Link>,
        segments: &[Segment],
        hosts: &[Host],
        forwarders: &[Forwarder],
    ) -> Vec<Link> {
        let mut links = Vec::new();
        for (name, link) in written {
            self.name(name, "link");
            let quality = self.quality(link);
            let [machines, segment] = link.ends.get_ref().as_slice() else {
                self.errors.add(link.ends.span(), "ends are two: machines (\"client*\") and a segment");
                continue;
            };
            let Some(index) = segments.iter().position(|other| other.name == *segment.get_ref()) else {
                let known = segments.iter().map(|segment| segment.name.as_str());
                self.unknown(segment.span(), "segment", segment.get_ref(), known);
                continue;
            };
            let names = hosts.iter().map(|host| (&host.name, &host.group, &host.attachments));
            let names =
                names.chain(forwarders.iter().map(|node| (&node.name, &node.name, &node.attachments)));
            let fits = names.enumerate().filter(|(_, (name, group, attachments))| {
                matches(machines.get_ref(), name, group) && attachments.iter().any(|at| at.segment == index)
            });
            let found: Vec<usize> = fits.map(|(machine, _)| machine).collect();
            if found.is_empty() {
                let message = format!("no machine \"{}\" on {}", machines.get_ref(), segment.get_ref());
                self.errors.add(machines.span(), message);
            }
            links.push(Link { name: name.get_ref().clone(), machines: found, segment: index, quality });
        }
        links
    }

    fn quality(&mut self, link: &written::Link) -> Quality {
        let mut quality = Quality::default();
        let range = Duration::ZERO..=Duration::from_secs(60);
        if let Some(delay) = link.delay.as_ref().and_then(|text| self.duration(text, range.clone())) {
            quality.delay = delay;
        }
        if let Some(jitter) = link.jitter.as_ref().and_then(|text| self.duration(text, range)) {
            quality.jitter = jitter;
        }
        if let Some(rate) = link.rate.as_ref().and_then(|text| self.value(text, quantity::bits)) {
            quality.rate_bits = rate;
        }
        if let Some(queue) = &link.queue {
            quality.queue_packets = *queue.get_ref();
        }
        if let Some(loss) = &link.loss {
            match millionths(*loss.get_ref()) {
                Some(millionths) => quality.loss_millionths = millionths,
                None => self.errors.add(loss.span(), format!("loss {} is outside of 0 to 1", loss.get_ref())),
            }
        }
        quality
    }

    fn loads(&mut self, written: &written::Named<written::Load>, hosts: &[Host]) -> Vec<Load> {
        let mut loads = Vec::new();
        for (name, load) in written {
            self.name(name, "load");
            let pattern = load.from.get_ref();
            let fits = |(_, host): &(usize, &Host)| matches(pattern, &host.name, &host.group);
            let clients: Vec<usize> = hosts.iter().enumerate().filter(fits).map(|(index, _)| index).collect();
            if clients.is_empty() {
                let known = hosts.iter().map(|host| host.group.as_str());
                self.unknown(load.from.span(), "host", pattern, known);
            }
            let service = self.value(&load.to, quantity::service);
            let arrivals = self.arrivals(&load.arrivals);
            let day = Duration::ZERO..=DURATION_MAX;
            let start =
                load.start.as_ref().map_or(Some(Duration::ZERO), |text| self.duration(text, day.clone()));
            let extent = self.extent(name, load);
            let is_udp = service.is_some_and(|service| service.protocol == Protocol::UDP);
            let exchange = self.exchange(load, is_udp);
            if let (Some(service), Some(arrivals), Some(start), Some(extent)) =
                (service, arrivals, start, extent)
            {
                let name = name.get_ref().clone();
                loads.push(Load { name, clients, service, arrivals, start, extent, exchange });
            }
        }
        loads
    }

    fn extent(&mut self, name: &Spanned<String>, load: &written::Load) -> Option<Extent> {
        match (&load.flows, &load.duration) {
            (Some(flows), None) if (1..=FLOWS_MAX).contains(flows.get_ref()) => {
                Some(Extent::Flows(*flows.get_ref()))
            }
            (Some(flows), None) => {
                let message = format!("flows {} is outside of 1 to {FLOWS_MAX}", flows.get_ref());
                self.errors.add(flows.span(), message);
                None
            }
            (None, Some(text)) => {
                self.duration(text, Duration::from_nanos(1)..=DURATION_MAX).map(Extent::Duration)
            }
            (Some(_), Some(text)) => {
                self.errors.add(text.span(), "flows or duration, not both");
                None
            }
            (None, None) => {
                self.errors.add(name.span(), format!("load {} needs flows or duration", name.get_ref()));
                None
            }
        }
    }

    fn arrivals(&mut self, written: &Spanned<written::Arrivals>) -> Option<Arrivals> {
        let arrivals = written.get_ref();
        let process = arrivals.process.get_ref().as_str();
        let is_closed = match process {
            "poisson" | "uniform" => false,
            "closed" => true,
            _ => {
                let known = ["poisson", "uniform", "closed"];
                self.unknown(arrivals.process.span(), "arrival process", process, known.into_iter());
                return None;
            }
        };
        match (&arrivals.rate, &arrivals.outstanding) {
            (Some(rate), None) if !is_closed => {
                let gap = self.value(rate, quantity::gap)?;
                Some(if process == "poisson" {
                    Arrivals::Poisson { mean_gap: gap }
                } else {
                    Arrivals::Uniform { gap }
                })
            }
            (None, Some(count)) if is_closed => {
                if (1..=OUTSTANDING_MAX).contains(count.get_ref()) {
                    return Some(Arrivals::Closed { outstanding: *count.get_ref() });
                }
                let message = format!("outstanding {} is outside of 1 to {OUTSTANDING_MAX}", count.get_ref());
                self.errors.add(count.span(), message);
                None
            }
            (..) => {
                let needs = if is_closed { "outstanding, and no rate" } else { "rate, and no outstanding" };
                self.errors.add(written.span(), format!("process \"{process}\" needs {needs}"));
                None
            }
        }
    }

    fn exchange(&mut self, load: &written::Load, is_udp: bool) -> Exchange {
        let max = if is_udp { DATAGRAM_MAX_BYTES } else { MESSAGE_MAX_BYTES };
        let mut size = |message: &Option<written::Message>| {
            let Some(message) = message else { return SIZE_DEFAULT };
            let Some(bytes) = self.value(&message.size, quantity::bytes) else { return SIZE_DEFAULT };
            if !(HEAD_BYTES..=max).contains(&bytes) {
                let message_text = format!("{bytes} bytes are outside of {HEAD_BYTES} to {max}");
                self.errors.add(message.size.span(), message_text);
            }
            bytes
        };
        let (request_bytes, response_bytes) = (size(&load.request), size(&load.response));
        let rounds = load.rounds.as_ref().map_or(1, |rounds| *rounds.get_ref());
        if !(1..=ROUNDS_MAX).contains(&rounds) {
            let span = load.rounds.as_ref().map_or(0..0, Spanned::span);
            self.errors.add(span, format!("rounds {rounds} is outside of 1 to {ROUNDS_MAX}"));
        }
        Exchange { request_bytes, response_bytes, rounds }
    }

    fn expectations(&mut self, written: &[Spanned<written::Expect>]) -> Vec<Expectation> {
        let mut expectations = Vec::new();
        for spanned in written {
            let expect = spanned.get_ref();
            let name = expect.metric.get_ref();
            if !metric::is_known(name) {
                self.unknown(
                    expect.metric.span(),
                    "metric",
                    name,
                    metric::NAMES.iter().map(|(name, _)| *name),
                );
            }
            if expect.min.is_none() && expect.max.is_none() && expect.equals.is_none() {
                self.errors.add(spanned.span(), "an expectation needs min, max or equals");
            }
            let equals = match expect.equals.as_ref().map(|value| (value.span(), value.get_ref())) {
                None => None,
                Some((_, toml::Value::String(text))) => Some(Expected::Text(text.clone())),
                Some((_, toml::Value::Float(number))) => Some(Expected::Number(*number)),
                Some((span, toml::Value::Integer(number))) => match i32::try_from(*number) {
                    Ok(number) => Some(Expected::Number(f64::from(number))),
                    Err(_) => {
                        self.errors
                            .add(span, format!("{number} is too large; write it with a decimal point"));
                        None
                    }
                },
                Some((span, _)) => {
                    self.errors.add(span, "equals is a number or a text");
                    None
                }
            };
            expectations.push(Expectation { metric: name.clone(), min: expect.min, max: expect.max, equals });
        }
        expectations
    }
}

/// The bits of an address that name the host.
const fn host_mask(prefix_length: u8) -> u32 {
    u32::MAX >> prefix_length
}

/// In the segment, and neither its network nor its broadcast address.
const fn is_usable(segment: &Segment, address: Ipv4Addr) -> bool {
    let host = address.to_bits() & host_mask(segment.prefix_length);
    segment.contains(address) && host != 0 && host != host_mask(segment.prefix_length)
}

/// A pattern is a name, a group's name, or either with one "*" at its end.
fn matches(pattern: &str, name: &str, group: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name || pattern == group, |start| name.starts_with(start))
}

/// A share of 0 to 1 in millionths, rounded down.
fn millionths(share: f64) -> Option<u32> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the range is checked first; a product of one float and a constant is the same everywhere"
    )]
    (0.0..=1.0).contains(&share).then_some((share * 1_000_000.0) as u32)
}
