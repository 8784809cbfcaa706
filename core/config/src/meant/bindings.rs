//! What directors are bound to: all of it, since no two may be bound to the same.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};

use evenkeel_engine::plan::{Binding, Prefix};
use evenkeel_engine::wire::Protocol;

use super::Meaning;
use crate::addresses;
use crate::diagnostic::Code;
use crate::forms::quote;
use crate::written::{self, At, Named, OneOrMany};

/// The most bindings of one director; they are looked through for a new flow that a rule sends to it.
const BINDS_MAX: usize = 1_024;

/// The most bindings to a network, to several ports or to both protocols, all directors together; they are looked
/// through one by one for a new flow.
const WIDE_MAX: usize = 1_024;

/// One binding: what, whose, and where it is written.
#[derive(Debug)]
pub(super) struct Bound {
    pub(super) binding: Binding,
    pub(super) director: String,
    pub(super) place: Range<usize>,
}

/// A binding as a key: address, length of its prefix, protocol, first and last port.
type What = (IpAddr, u8, Option<Protocol>, u16, u16);

fn what(binding: &Binding) -> What {
    let Binding { network: Prefix { address, length }, ports, protocol } = binding;
    (*address, *length, *protocol, *ports.start(), *ports.end())
}

/// Whether it is for one address, one port and one protocol.
fn is_exact(binding: &Binding) -> bool {
    binding.network.is_host() && binding.port().is_some() && binding.protocol.is_some()
}

/// Whether two sets of protocols have one in common.
fn share_protocol(one: Option<Protocol>, other: Option<Protocol>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// The ports that two ranges have in common.
fn common(one: &RangeInclusive<u16>, other: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
    let (first, last) = (*one.start().max(other.start()), *one.end().min(other.end()));
    (first <= last).then_some(first..=last)
}

/// Every binding of the file.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    all: Vec<Bound>,
    /// The first binding to each.
    first: BTreeMap<What, usize>,
    /// Those that are not exact, in the order of the file.
    wide: Vec<usize>,
    /// Those of them to one address, by it.
    wide_at: BTreeMap<IpAddr, Vec<usize>>,
    /// The bindings of each director.
    of: BTreeMap<String, Vec<usize>>,
}

impl Bindings {
    /// What the director is bound to.
    pub(super) fn of(&self, director: &str) -> impl Iterator<Item = &Bound> + Clone {
        self.of.get(director).into_iter().flatten().filter_map(|place| self.all.get(*place))
    }

    /// The first binding to this very address that shares one of these ports and the protocol.
    pub(super) fn meeting(
        &self,
        address: IpAddr,
        ports: &RangeInclusive<u16>,
        protocol: Option<Protocol>,
    ) -> Option<&Bound> {
        let length = Prefix::host(address).length;
        let protocols = match protocol {
            Some(protocol) => vec![protocol],
            None => vec![Protocol::TCP, Protocol::UDP],
        };
        let exact = protocols.into_iter().find_map(|protocol| {
            let key = |port: u16| (address, length, Some(protocol), port, port);
            self.first.range(key(*ports.start())..=key(*ports.end())).next().map(|(_, place)| *place)
        });
        let wide = || {
            let wide = self.wide_at.get(&address).into_iter().flatten();
            wide.copied().find(|place| {
                self.all.get(*place).is_some_and(|bound| {
                    let binding = &bound.binding;
                    share_protocol(binding.protocol, protocol) && common(&binding.ports, ports).is_some()
                })
            })
        };
        self.all.get(exact.or_else(wide)?)
    }

    /// Enters a binding; the first to the same, when there is one.
    fn insert(&mut self, bound: Bound) -> Option<&Bound> {
        let (place, key) = (self.all.len(), what(&bound.binding));
        self.of.entry(bound.director.clone()).or_default().push(place);
        let first = self.first.get(&key).copied();
        if first.is_none() {
            self.first.insert(key, place);
            if !is_exact(&bound.binding) {
                self.wide.push(place);
                if bound.binding.network.is_host() {
                    self.wide_at.entry(bound.binding.network.address).or_default().push(place);
                }
            }
        }
        self.all.push(bound);
        first.and_then(|first| self.all.get(first))
    }

    /// Pairs of wide bindings of two directors to the same addresses, each of which has ports that the other lacks, with
    /// the ports that they share. The first of a pair is the one that gets those.
    fn crossing(&self) -> impl Iterator<Item = (&Bound, &Bound, RangeInclusive<u16>)> {
        let wide = || self.wide.iter().take(WIDE_MAX).filter_map(|place| self.all.get(*place));
        let pairs = wide()
            .enumerate()
            .flat_map(move |(index, one)| wide().skip(index + 1).map(move |other| (one, other)));
        pairs.filter_map(|(one, other)| {
            let (first, second) = (&one.binding, &other.binding);
            let is_same = first.network == second.network && share_protocol(first.protocol, second.protocol);
            if !is_same || one.director == other.director {
                return None;
            }
            let both = common(&first.ports, &second.ports)?;
            if both == first.ports || both == second.ports {
                return None;
            }
            let is_first = first.ports.len() <= second.ports.len();
            Some(if is_first { (one, other, both) } else { (other, one, both) })
        })
    }
}

impl Meaning<'_> {
    /// What every director is bound to. Reports what is bound twice.
    pub(super) fn bindings(&mut self, tables: &[(At<String>, At<written::Director>)]) -> Bindings {
        let mut bindings = Bindings::default();
        for (name, table) in tables {
            if let Some(written) = &table.value.bind {
                self.binds(&name.value, written, &mut bindings);
            }
        }
        if let Some(bound) = bindings.wide.get(WIDE_MAX).and_then(|place| bindings.all.get(*place)) {
            let message = format!(
                "there are {} bindings to networks, to several ports or to both protocols; {WIDE_MAX} is the most",
                bindings.wide.len()
            );
            let diagnostic = self.diagnostic(Code::TooMany, &bound.place, message);
            let diagnostic = diagnostic.label("the first that is too many");
            self.found.push(diagnostic.help("bind to larger networks, or to single ports"));
        }
        for (winner, other, ports) in bindings.crossing() {
            if self.found.is_full() {
                break;
            }
            self.crossing(winner, other, &ports);
        }
        bindings
    }

    fn binds(&mut self, name: &str, written: &At<OneOrMany<written::BindText>>, bindings: &mut Bindings) {
        self.places.insert("director", name, "bind", &written.span);
        if let OneOrMany::Many(list) = &written.value {
            self.bounded(list, BINDS_MAX, "bindings of one director");
        }
        for (span, text) in OneOrMany::each(Some(written)) {
            let Some(binding) = self.text(span, addresses::bind(&text.0)) else { continue };
            let shown = binding.to_string();
            let bound = Bound { binding, director: name.to_owned(), place: span.clone() };
            let Some(first) = bindings.insert(bound) else { continue };
            let message = if first.director == name {
                format!("the director {} is bound to {} twice", quote(name), quote(&shown))
            } else {
                let first = quote(&first.director);
                format!("the directors {first} and {} are both bound to {}", quote(name), quote(&shown))
            };
            let help = if first.director == name {
                "take one of them out"
            } else {
                "give one of them another address, port or protocol, or put their real servers together"
            };
            let diagnostic = self
                .diagnostic(Code::DuplicateBinding, span, message)
                .label("again here")
                .also(&first.place, "first here")
                .help(help);
            self.found.push(diagnostic);
        }
    }

    fn crossing(&mut self, winner: &Bound, other: &Bound, ports: &RangeInclusive<u16>) {
        let (first, second) =
            if winner.place.start < other.place.start { (winner, other) } else { (other, winner) };
        let message = format!(
            "the directors {} and {} are both bound to the ports {}-{} of these addresses: {} gets them",
            quote(&first.director),
            quote(&second.director),
            ports.start(),
            ports.end(),
            quote(&winner.director)
        );
        let diagnostic = self
            .diagnostic(Code::OverlappingBindings, &second.place, message)
            .also(&first.place, "and here")
            .help("let one of the ranges end where the other begins");
        self.found.push(diagnostic);
    }

    /// Warns of directors that are bound to nothing and to which no flow rule leads. In a file with errors a binding may
    /// be one of those, and nothing is said.
    pub(super) fn unused_directors(&mut self, file: &written::File) {
        if self.found.has_errors() {
            return;
        }
        let flows = file.flow.iter().flat_map(|at| &at.value).map(|flow| &flow.value);
        let leading = |is_dead: bool| -> std::collections::BTreeSet<String> {
            let name = |flow: &written::Flow| flow.name.as_ref().map(|name| name.value.0.clone());
            let flows = flows
                .clone()
                .filter(|flow| name(flow).is_some_and(|name| self.dead_flows.contains(&name)) == is_dead);
            let policies = flows.filter_map(|flow| flow.policy.as_ref());
            policies
                .filter_map(|policy| policy.value.0.strip_prefix("director "))
                .map(|to| to.trim().to_owned())
                .collect()
        };
        let (led, led_by_dead) = (leading(false), leading(true));
        let components = file.policy.as_ref().and_then(|policy| policy.value.component.as_ref());
        if components.is_some_and(|components| !components.value.is_empty()) {
            // A component may lead to any director.
            return;
        }
        for (name, table) in Named::entries(file.director.as_ref().map(|at| &at.value)) {
            let is_bound = !OneOrMany::each(table.value.bind.as_ref()).is_empty();
            if is_bound || led.contains(name.value.as_str()) {
                continue;
            }
            let reason = if led_by_dead.contains(&name.value) {
                "no rule of the flows that lead to it decides about any packet"
            } else {
                "it is bound to nothing"
            };
            let message = format!("the director {} gets no packets: {reason}", quote(&name.value));
            let diagnostic = self.diagnostic(Code::UnusedDirector, &name.span, message);
            let help = format!(
                "add `bind = \"10.0.0.3:80/tcp\"`, or a flow with `policy = \"director {}\"`",
                name.value
            );
            self.found.push(diagnostic.help(help));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bindings(list: &[(&str, &str)]) -> Bindings {
        let mut bindings = Bindings::default();
        for (director, text) in list {
            let binding = addresses::bind(text).unwrap();
            bindings.insert(Bound { binding, director: (*director).to_owned(), place: 0..0 });
        }
        bindings
    }

    /// Against a look at every binding.
    #[test]
    fn meeting_finds_what_a_look_at_all_finds() {
        let texts = [
            "10.0.0.3:80/tcp",
            "10.0.0.3:443/udp",
            "10.0.0.3:1000-2000/tcp",
            "10.0.0.4:*",
            "10.0.0.5:*/udp",
            "[fc00::3]:80/tcp",
            "10.0.0.0/24:9000/tcp",
        ];
        let list: Vec<_> = texts.iter().map(|text| ("d", *text)).collect();
        let bindings = bindings(&list);
        let addresses = ["10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "fc00::3"];
        let ranges = [1..=65_535, 80..=80, 81..=442, 443..=443, 1500..=1600, 2000..=3000, 9000..=9000];
        let protocols = [None, Some(Protocol::TCP), Some(Protocol::UDP)];
        for (address, ports, protocol) in addresses
            .iter()
            .flat_map(|address| ranges.iter().map(move |ports| (*address, ports.clone())))
            .flat_map(|(address, ports)| protocols.map(|protocol| (address, ports.clone(), protocol)))
        {
            let address: IpAddr = address.parse().unwrap();
            let expected = bindings.all.iter().any(|bound| {
                bound.binding.network == Prefix::host(address)
                    && share_protocol(bound.binding.protocol, protocol)
                    && bound.binding.ports.clone().any(|port| ports.contains(&port))
            });
            let found = bindings.meeting(address, &ports, protocol);
            assert_eq!(found.is_some(), expected, "{address} {ports:?} {protocol:?}");
        }
    }

    #[test]
    fn ranges_cross_when_each_has_ports_of_its_own() {
        let crossing = |list: &[(&str, &str)]| {
            let bindings = bindings(list);
            let pairs = bindings.crossing().map(|(winner, _, ports)| (winner.director.clone(), ports));
            pairs.collect::<Vec<_>>()
        };
        let one = crossing(&[("a", "10.0.0.3:100-200/tcp"), ("b", "10.0.0.3:150-240/tcp")]);
        assert_eq!(one, [("b".to_owned(), 150..=200)]);
        let tie = crossing(&[("a", "10.0.0.3:100-200/tcp"), ("b", "10.0.0.3:150-250/tcp")]);
        assert_eq!(tie, [("a".to_owned(), 150..=200)]);
        for clear in [
            [("a", "10.0.0.3:100-200/tcp"), ("b", "10.0.0.3:150-160/tcp")],
            [("a", "10.0.0.3:100-200/tcp"), ("b", "10.0.0.3:150-250/udp")],
            [("a", "10.0.0.3:100-200/tcp"), ("b", "10.0.0.4:150-250/tcp")],
            [("a", "10.0.0.3:100-200/tcp"), ("a", "10.0.0.3:150-250/tcp")],
            [("a", "10.0.0.3:*"), ("b", "10.0.0.3:150-250/tcp")],
            [("a", "10.0.0.0/24:100-200/tcp"), ("b", "10.0.0.3:150-250/tcp")],
        ] {
            assert!(crossing(&clear).is_empty(), "{clear:?}");
        }
    }
}
