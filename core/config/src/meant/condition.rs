//! The conditions of a rule.

use std::ops::Range;
use std::sync::Arc;

use evenkeel_engine::InterfaceId;
use evenkeel_engine::plan::{AddressSet, ByteSet, Condition, PortSet, Prefix, Test};
use evenkeel_engine::wire::Protocol;

use super::Meaning;
use super::flow::Way;
use super::set::Elements;
use crate::addresses;
use crate::diagnostic::Code;
use crate::forms::{self, quote};
use crate::matching;
use crate::written::{
    At, Conditions, Dscp, FlagsText, IcmpType, InterfaceNameText, LimitText, Negated, NetworksText, NumberOr,
    OneOrMany, Ports, ProtocolText,
};

/// What plain and negated conditions have in common.
struct Tests<'a> {
    iface: Option<&'a At<InterfaceNameText>>,
    proto: Option<&'a At<ProtocolText>>,
    src: Option<&'a At<OneOrMany<NetworksText>>>,
    dst: Option<&'a At<OneOrMany<NetworksText>>>,
    srcport: Option<&'a At<OneOrMany<Ports>>>,
    dstport: Option<&'a At<OneOrMany<Ports>>>,
    icmptype: Option<&'a At<OneOrMany<IcmpType>>>,
    tcpflags: Option<&'a At<FlagsText>>,
    dscp: Option<&'a At<OneOrMany<Dscp>>>,
    limit: Option<&'a At<LimitText>>,
}

macro_rules! tests_of {
    ($from:expr) => {
        Tests {
            iface: $from.iface.as_ref(),
            proto: $from.proto.as_ref(),
            src: $from.src.as_ref(),
            dst: $from.dst.as_ref(),
            srcport: $from.srcport.as_ref(),
            dstport: $from.dstport.as_ref(),
            icmptype: $from.icmptype.as_ref(),
            tcpflags: $from.tcpflags.as_ref(),
            dscp: $from.dscp.as_ref(),
            limit: $from.limit.as_ref(),
        }
    };
}

impl Meaning<'_> {
    pub(super) fn conditions(&mut self, written: &Conditions, way: Way) -> Vec<Condition> {
        let none = Negated::default();
        let negated = written.not.as_ref().map_or(&none, |not| &not.value);
        let (plain, negated) = (tests_of!(written), tests_of!(negated));
        let mut conditions = Vec::new();
        for (tests, is_negated) in [(&plain, false), (&negated, true)] {
            self.tests(tests, &mut |test| conditions.push(Condition { is_negated, test }));
            if way == Way::Out {
                self.once_only(tests);
            }
        }
        self.fits_protocol(&plain, &negated);
        self.fits_family(&plain);
        conditions
    }

    fn tests(&mut self, written: &Tests<'_>, take: &mut dyn FnMut(Test)) {
        if let Some(at) = written.iface
            && let Some(index) = self.resolve(Code::UnknownInterface, "interface", &at.value.0, &at.span)
            && let Ok(number) = u16::try_from(index)
        {
            take(Test::Interface(InterfaceId(number)));
        }
        if let Some(at) = written.proto
            && let Some(protocol) = self.text(&at.span, forms::rule_protocol(&at.value.0))
        {
            take(Test::Protocol(protocol));
        }
        if let Some(set) = written.src.and_then(|at| self.addresses(at)) {
            take(Test::Source(set));
        }
        if let Some(set) = written.dst.and_then(|at| self.addresses(at)) {
            take(Test::Destination(set));
        }
        if let Some(set) = written.srcport.and_then(|at| self.port_set(at)) {
            take(Test::SourcePort(set));
        }
        if let Some(set) = written.dstport.and_then(|at| self.port_set(at)) {
            take(Test::DestinationPort(set));
        }
        if let Some(at) = written.icmptype {
            let kinds =
                OneOrMany::each(Some(at)).into_iter().filter_map(|(_, kind)| u8::try_from(kind.0).ok());
            take(Test::IcmpKind(ByteSet::of(&kinds.collect::<Vec<_>>())));
        }
        if let Some(at) = written.tcpflags
            && let Some((mask, set)) = self.text(&at.span, matching::flags(&at.value.0))
        {
            take(Test::Flags { mask, set });
        }
        if let Some(at) = written.dscp {
            let points = OneOrMany::each(Some(at)).into_iter().filter_map(|(span, point)| match point {
                NumberOr::Number(number) => u8::try_from(*number).ok(),
                NumberOr::Text(text) => self.text(span, matching::dscp(&text.0)),
            });
            let points: Vec<u8> = points.collect();
            take(Test::Dscp(ByteSet::of(&points)));
        }
        if let Some(at) = written.limit
            && let Some(limit) = self.text(&at.span, matching::limit(&at.value.0))
        {
            take(Test::Limit(limit));
        }
    }

    /// Networks and sets of them as one set. That of a single named set is shared.
    fn addresses(&mut self, written: &At<OneOrMany<NetworksText>>) -> Option<Arc<AddressSet>> {
        let list = OneOrMany::each(Some(written));
        if let [(span, NetworksText(text))] = list.as_slice()
            && let Some(name) = text.strip_prefix('@')
        {
            let Elements::Addresses(_, set) = self.set(name, span, "addresses")? else { return None };
            return Some(Arc::clone(set));
        }
        let mut networks: Vec<Prefix> = Vec::new();
        let mut is_right = true;
        for (span, NetworksText(text)) in list {
            if let Some(name) = text.strip_prefix('@') {
                match self.set(name, span, "addresses") {
                    Some(Elements::Addresses(more, _)) => networks.extend(more),
                    Some(Elements::Ports(..)) | None => is_right = false,
                }
            } else {
                let network = self.text(span, addresses::network(text));
                is_right &= network.is_some();
                networks.extend(network);
            }
        }
        is_right.then(|| Arc::new(AddressSet::of(&networks)))
    }

    fn port_set(&mut self, written: &At<OneOrMany<Ports>>) -> Option<Arc<PortSet>> {
        let mut ranges = Vec::new();
        let mut is_right = true;
        for (span, ports) in OneOrMany::each(Some(written)) {
            match ports {
                NumberOr::Number(port) => ranges.extend(u16::try_from(*port).ok().map(|port| port..=port)),
                NumberOr::Text(text) => {
                    if let Some(name) = text.0.strip_prefix('@') {
                        match self.set(name, span, "ports") {
                            Some(Elements::Ports(more)) => ranges.extend(more.iter().cloned()),
                            Some(Elements::Addresses(..)) | None => is_right = false,
                        }
                    } else {
                        let range = self.text(span, addresses::rule_ports(&text.0));
                        is_right &= range.is_some();
                        ranges.extend(range);
                    }
                }
            }
        }
        is_right.then(|| Arc::new(PortSet::of(&ranges)))
    }

    /// Reports what an outflow can not look at: it decides once, before packets of both directions have been seen.
    fn once_only(&mut self, written: &Tests<'_>) {
        let dscp = written.dscp.map(|at| (&at.span, "dscp"));
        let limit = written.limit.map(|at| (&at.span, "limit"));
        for (span, word) in [dscp, limit].into_iter().flatten() {
            let message =
                format!("an outflow has no `{word}`: it decides once for all packets of a direction");
            let diagnostic = self.diagnostic(Code::Conflict, span, message);
            self.found.push(diagnostic.help("write the condition in a flow"));
        }
    }

    /// Reports conditions on ports, ICMP types and flags in a rule that names no protocol that has them.
    fn fits_protocol(&mut self, plain: &Tests<'_>, negated: &Tests<'_>) {
        let named = plain.proto.and_then(|at| forms::rule_protocol(&at.value.0).ok());
        if plain.proto.is_some() && named.is_none() {
            return;
        }
        type Place<'a> = Option<&'a Range<usize>>;
        fn place<T>(at: Option<&At<T>>) -> Place<'_> {
            at.map(|at| &at.span)
        }
        let of = |tests: &Tests<'_>| -> [Option<Range<usize>>; 4] {
            [place(tests.srcport), place(tests.dstport), place(tests.icmptype), place(tests.tcpflags)]
                .map(|place| place.cloned())
        };
        let kinds: [(&str, &str, &[Protocol]); 4] = [
            ("ports", "tcp` or `proto udp", &[Protocol::TCP, Protocol::UDP]),
            ("ports", "tcp` or `proto udp", &[Protocol::TCP, Protocol::UDP]),
            ("types of messages", "icmp` or `proto icmpv6", &[Protocol::ICMP, Protocol::ICMPV6]),
            ("flags", "tcp", &[Protocol::TCP]),
        ];
        for (places, (what, words, protocols)) in of(plain).into_iter().zip(of(negated)).zip(kinds) {
            let Some(span) = places.0.or(places.1) else { continue };
            let message = match named {
                None => format!("{what} belong to a protocol, and this rule names none"),
                Some(named) if !protocols.contains(&named) => {
                    format!("{what} are not in packets of {named}, which this rule names")
                }
                Some(_) => continue,
            };
            let diagnostic = self.diagnostic(Code::PortWithoutProtocol, &span, message);
            let as_table = self.source.line_before(span.start).trim_end().ends_with('=');
            let help = if as_table {
                format!("add `proto = \"{}\"` beside it", words.replace("` or `proto ", "\"` or `proto = \""))
            } else {
                format!("add `proto {words}` to the rule")
            };
            self.found.push(diagnostic.help(help));
            return;
        }
    }

    /// Warns of a rule for which packets would have to be of two families.
    fn fits_family(&mut self, plain: &Tests<'_>) {
        let family = |at: Option<&At<OneOrMany<NetworksText>>>| -> Option<bool> {
            let mut families = OneOrMany::each(at).into_iter().map(|(_, text)| text.0.contains(':'));
            let first = families.next()?;
            let has_sets = OneOrMany::each(at).iter().any(|(_, text)| text.0.starts_with('@'));
            (!has_sets && families.all(|other| other == first)).then_some(first)
        };
        let (Some(source), Some(destination), Some(at)) = (family(plain.src), family(plain.dst), plain.dst)
        else {
            return;
        };
        if source != destination {
            let name = |is_six: bool| if is_six { "IPv6" } else { "IPv4" };
            let (from, to) = (name(source), name(destination));
            let message = format!("no packet meets this rule: `src` is of {from}, and `dst` of {to}");
            let diagnostic = self.diagnostic(Code::NeverHolds, &at.span, message);
            self.found.push(diagnostic.help("write two rules, one for each family"));
        }
    }

    /// The set of this name; an unknown one, or one of another kind, is reported.
    fn set(&mut self, name: &str, span: &Range<usize>, kind: &str) -> Option<&Elements> {
        let known = self.sets.get(name).map(Elements::kind);
        if known == Some(kind) {
            return self.sets.get(name);
        }
        let message = match known {
            Some(other) => format!("the set {} is of {other}, and {kind} are wanted", quote(name)),
            None => format!("no set is named {}", quote(name)),
        };
        let diagnostic = self.diagnostic(Code::UnknownSet, span, message);
        let near = forms::nearest(name, self.sets.keys().map(String::as_str));
        self.found.push(match near.filter(|_| known.is_none()) {
            Some(near) => {
                let text = self.as_there(span, &format!("@{near}"));
                diagnostic.repair(span, text, format!("did you mean `@{near}`?"))
            }
            None => {
                diagnostic.help("declare `[set.NAME]`, or in a text of rules `set NAME` and its elements")
            }
        });
        None
    }
}
