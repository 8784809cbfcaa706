//! Whether what the engine sent for a vector is what Katran sent, masked or meant otherwise, or wrong.

use std::collections::{BTreeMap, BTreeSet};

use evenkeel_engine::verdict::InterfaceId;

use super::Vector;
use super::setup::{FRONT, HOST, OUTER_TTL, Setup};
use crate::conformance::differ::{FieldDifference, compare};
use crate::conformance::frame::{Parsed, mend, sum};
use crate::conformance::intended;

/// Bytes of an Ethernet header.
const LINK_BYTES: usize = 14;
/// Bytes of a header of Generic UDP Encapsulation, variant 0.
const GUE_BYTES: usize = 4;
/// The smallest MTU that a link of IPv6 may have.
const V6_MTU_LEAST: u32 = 1280;
/// Don't fragment, in the first byte of the flags.
const DONT_FRAGMENT: u8 = 0x40;

/// What a vector came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Outcome {
    /// What is wrong; nothing where all is meant.
    pub(super) what: Vec<String>,
    pub(super) rules: BTreeSet<&'static str>,
    pub(super) masks: BTreeSet<&'static str>,
    pub(super) fields: Vec<FieldDifference>,
    pub(super) ours: Option<Vec<u8>>,
}

impl Outcome {
    fn wrong(what: String) -> Self {
        Self { what: vec![what], ..Self::default() }
    }

    fn meant(rule: &'static str) -> Self {
        Self { rules: [rule].into(), ..Self::default() }
    }

    fn note(&mut self, field: &str, recorded: impl ToString, ours: impl ToString) {
        let (recorded, ours) = (Some(recorded.to_string()), Some(ours.to_string()));
        self.fields.push(FieldDifference { field: field.to_owned(), recorded, ours });
    }

    /// Checks that two values are the same.
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, field: &str, recorded: T, ours: T) {
        if recorded != ours {
            self.note(field, format!("{recorded:?}"), format!("{ours:?}"));
            self.what.push(format!("{field} differs"));
        }
    }
}

/// Judges one vector.
pub(super) struct Judge<'a> {
    pub(super) setup: &'a Setup,
    pub(super) vector: &'a Vector,
    pub(super) flows: &'a mut BTreeMap<Vec<u8>, Vec<u8>>,
}

type Sent = [(InterfaceId, Vec<u8>)];

impl Judge<'_> {
    pub(super) fn judge(&mut self, sent: &Sent) -> Outcome {
        let mut outcome = match self.vector.class.as_str() {
            "encap" => self.encap(sent),
            "local-icmp-reply" => self.reply(sent),
            "pass-up-unchanged" => self.passed(sent),
            "drop" => self.dropped(sent),
            other => Outcome::wrong(format!("class {other} is not described")),
        };
        outcome.ours = sent.first().map(|(_, bytes)| bytes.clone());
        outcome
    }

    /// A packet that is too big, but may be cut, is sent again with don't fragment, so that the error can be compared.
    pub(super) fn wants_probe(&self, outcome: &Outcome) -> Option<Vec<u8>> {
        if self.vector.class != "local-icmp-reply" || !outcome.rules.contains(intended::CUTS) {
            return None;
        }
        let mut frame = self.vector.frame.clone();
        let header = frame.get_mut(LINK_BYTES..LINK_BYTES + 20)?;
        let [_, _, _, _, _, _, flags, offset, _, _, c0, c1, ..] = header else { return None };
        let before = [*flags, *offset];
        *flags |= DONT_FRAGMENT;
        [*c0, *c1] = mend([*c0, *c1], &before, &[*flags, *offset]);
        Some(frame)
    }

    /// Adds what came of the packet with don't fragment.
    pub(super) fn judge_probe(&self, before: Outcome, sent: &Sent) -> Outcome {
        let mut outcome = self.reply(sent);
        outcome.rules.extend(before.rules);
        outcome.ours = sent.first().map(|(_, bytes)| bytes.clone());
        outcome
    }

    /// Nothing was sent by Katran.
    fn dropped(&self, sent: &Sent) -> Outcome {
        let came = Parsed::frame(&self.vector.frame);
        let Some((interface, bytes)) = sent.first() else { return Outcome::default() };
        let is_tunnel = interface.0 != FRONT && interface.0 != HOST;
        if is_tunnel && came.field("ip.options").is_some() {
            return Outcome::meant(intended::IP_OPTIONS);
        }
        if is_tunnel && self.may_be_cut(&came) && are_pieces(sent) {
            return Outcome::meant(intended::CUTS);
        }
        let answer = Parsed::frame(bytes);
        let is_refusal = (answer.number("icmp.type"), answer.number("icmp.code")) == (Some(3), Some(3))
            || (answer.number("icmp6.type"), answer.number("icmp6.code")) == (Some(1), Some(4));
        let has_none = self.setup.reals_of(&came, "").is_some_and(|reals| reals.is_empty());
        if is_refusal && has_none && interface.0 == FRONT {
            return Outcome::meant(intended::NO_SERVER_TOLD);
        }
        Outcome::wrong("sent, though Katran drops it".to_owned())
    }

    fn may_be_cut(&self, came: &Parsed<'_>) -> bool {
        came.number("ip.fragment") == Some(0)
    }

    /// The frame went on as it was.
    fn passed(&self, sent: &Sent) -> Outcome {
        let [(interface, bytes)] = sent else {
            return Outcome::wrong(format!("{} frames were sent, and not the one that came", sent.len()));
        };
        let mut outcome = Outcome {
            fields: compare(&Parsed::frame(&self.vector.out), &Parsed::frame(bytes)),
            ..Outcome::default()
        };
        if !outcome.fields.is_empty() {
            outcome.what.push("changed on its way".to_owned());
        }
        outcome.same("interface", HOST, interface.0);
        outcome
    }

    /// An answer to a ping, or an error about a packet that is too big.
    fn reply(&self, sent: &Sent) -> Outcome {
        let recorded = Parsed::frame(&self.vector.out);
        let came = Parsed::frame(&self.vector.frame);
        let is_error = recorded.field("icmp.quote.ip.ttl").is_some()
            || recorded.field("icmp6.quote.ip6.hop_limit").is_some();
        if is_error && sent.is_empty() && self.may_be_cut(&came) && !self.setup.cuts() {
            return Outcome::meant(intended::CUTS);
        }
        let Some((interface, bytes)) = sent.first() else {
            return Outcome::wrong("no answer was sent".to_owned());
        };
        if is_error && interface.0 != FRONT && self.may_be_cut(&came) && are_pieces(sent) {
            return Outcome::meant(intended::CUTS);
        }
        let ours = Parsed::frame(bytes);
        if !is_error {
            let fields = compare(&recorded, &ours);
            let what = fields.iter().map(|field| format!("{} differs", field.field)).collect();
            return Outcome { what, fields, ..Outcome::default() };
        }
        let mut outcome = Outcome::default();
        let name = if recorded.field("icmp.type").is_some() { "icmp" } else { "icmp6" };
        for field in ["type", "code"] {
            let field = format!("{name}.{field}");
            outcome.same(&field, recorded.number(&field), ours.number(&field));
        }
        let mtu = |frame: &Parsed<'_>| frame.number(&format!("{name}.rest")).unwrap_or(0);
        if (name, mtu(&recorded)) == ("icmp6", 0) && mtu(&ours) >= V6_MTU_LEAST {
            outcome.note("mtu", 0, mtu(&ours));
            outcome.rules.insert(intended::ERROR_MTU);
        } else {
            outcome.same("mtu", mtu(&recorded), mtu(&ours));
        }
        for field in
            ["eth.destination", "eth.source", "ip.source", "ip.destination", "ip6.source", "ip6.destination"]
        {
            outcome.same(field, recorded.get(field), ours.get(field));
        }
        for field in ["ip.ttl", "ip6.hop_limit"] {
            outcome.same(field, recorded.number(field), ours.number(field));
        }
        self.class_of_error(&recorded, &ours, &mut outcome);
        self.quote(&recorded, &ours, name, &mut outcome);
        let sums = ours.fields.iter().filter(|field| !field.name.contains("quote"));
        for field in sums.filter(|field| field.is_right == Some(false)) {
            outcome.what.push(format!("{} is wrong", field.name));
        }
        outcome
    }

    fn class_of_error(&self, recorded: &Parsed<'_>, ours: &Parsed<'_>, outcome: &mut Outcome) {
        let class = |frame: &Parsed<'_>| {
            let v6 = frame.number("ip6.class").map(|class| class >> 4 & 0xff);
            frame.number("ip.tos").or(v6)
        };
        let (theirs, mine) = (class(recorded), class(ours));
        if theirs == mine {
            return;
        }
        outcome.note("type of service", shown(theirs), shown(mine));
        if (theirs, mine) == (Some(0), Some(0xc0)) {
            outcome.rules.insert(intended::ERROR_CLASS);
        } else {
            outcome.what.push("the type of service differs".to_owned());
        }
    }

    /// The quote is what came, and as long as recorded, or longer.
    fn quote(&self, recorded: &Parsed<'_>, ours: &Parsed<'_>, name: &str, outcome: &mut Outcome) {
        let quote = |frame: &Parsed<'_>| {
            let start = frame.field(&format!("{name}.rest")).map(|field| field.at.end)?;
            frame.bytes.get(start..).map(<[u8]>::to_vec)
        };
        let (theirs, mine) = (quote(recorded).unwrap_or_default(), quote(ours).unwrap_or_default());
        let came = self.vector.frame.get(LINK_BYTES..).unwrap_or_default();
        let probe = self.wants_probe(&Outcome::meant(intended::CUTS));
        let probe = probe.as_deref().and_then(|probe| probe.get(LINK_BYTES..)).unwrap_or_default();
        let is_start = came.starts_with(&mine) || probe.starts_with(&mine);
        if !is_start {
            outcome.what.push("the quote is not the packet that came".to_owned());
        }
        if theirs.len() != mine.len() {
            outcome.note("quote, bytes", theirs.len(), mine.len());
            outcome.rules.insert(intended::ERROR_QUOTE);
            if mine.len() < theirs.len() {
                outcome.what.push("the quote is shorter".to_owned());
            }
        }
    }

    /// A packet in a tunnel to a real server.
    fn encap(&mut self, sent: &Sent) -> Outcome {
        if sent.is_empty() && is_damaged_error(&Parsed::frame(&self.vector.frame)) {
            return Outcome::meant(intended::ERROR_CHECKSUM);
        }
        let [(interface, bytes)] = sent else {
            return Outcome::wrong(format!("{} packets were sent instead of one", sent.len()));
        };
        if interface.0 == FRONT || interface.0 == HOST {
            return Outcome::wrong("sent, but not to a real server".to_owned());
        }
        let came = self.vector.frame.get(LINK_BYTES..).unwrap_or_default();
        let recorded = self.vector.out.get(LINK_BYTES..).unwrap_or_default();
        let mut outcome = Outcome::default();
        let Some((outer, inner)) = split(bytes, came.len()) else {
            return Outcome::wrong("what was sent is shorter than what came".to_owned());
        };
        let (theirs, mine) = (Parsed::packet(recorded), Parsed::packet(bytes));
        self.inner(came, inner, &mut outcome);
        self.outer(&theirs, &mine, outer, &mut outcome);
        self.real(&mine, &mut outcome);
        outcome
    }

    /// The inner packet is the one that came, a hop later.
    fn inner(&self, came: &[u8], inner: &[u8], outcome: &mut Outcome) {
        let mut expected = came.to_vec();
        match expected.first().map(|first| first >> 4) {
            Some(4) => {
                if let Some([_, _, _, _, _, _, _, _, ttl, protocol, c0, c1, ..]) =
                    expected.first_chunk_mut::<20>()
                {
                    let before = [*ttl, *protocol];
                    *ttl = ttl.saturating_sub(1);
                    [*c0, *c1] = mend([*c0, *c1], &before, &[*ttl, *protocol]);
                }
            }
            Some(6) => {
                if let Some(hops) = expected.get_mut(7) {
                    *hops = hops.saturating_sub(1);
                }
            }
            _ => {}
        }
        outcome.masks.insert(intended::INNER_HOP);
        let fields = compare(&Parsed::packet(&expected), &Parsed::packet(inner));
        if !fields.is_empty() {
            outcome.what.push("the inner packet differs".to_owned());
            outcome.fields.extend(fields);
        }
    }

    fn outer(&self, theirs: &Parsed<'_>, mine: &Parsed<'_>, outer: &[u8], outcome: &mut Outcome) {
        let sources = Setup::own_sources();
        let is_own = mine.addresses("").is_some_and(|(from, _)| sources.contains(from));
        outcome.same("outer source is our own", true, is_own);
        outcome.masks.insert(intended::TUNNEL_SOURCE);
        for field in [
            "ip.version_and_length",
            "ip.tos",
            "ip.fragment",
            "ip.protocol",
            "ip6.next_header",
            "udp.destination_port",
        ] {
            outcome.same(field, theirs.number(field), mine.number(field));
        }
        let class = |frame: &Parsed<'_>| frame.number("ip6.class").map(|class| class >> 4);
        outcome.same("ip6.class", class(theirs), class(mine));
        let hops = mine.number("ip.ttl").or_else(|| mine.number("ip6.hop_limit"));
        outcome.same("outer time to live", Some(u32::from(OUTER_TTL)), hops);
        if mine.field("ip6.class").is_some() {
            outcome.masks.insert(intended::FLOW_LABEL);
        }
        let (id, own_id) = (theirs.number("ip.identification"), mine.number("ip.identification"));
        if id != own_id {
            outcome.note("outer ip.identification", shown(id), shown(own_id));
            outcome.rules.insert(intended::TUNNEL_IDENTIFICATION);
            if mine.number("ip.fragment") != Some(0) {
                outcome.what.push("an identification where nothing may be cut".to_owned());
            }
        }
        if theirs.ports("").1 != 0
            && theirs.field("inner.ip.ttl").is_none()
            && mine.field("gue.header").is_some()
        {
            outcome.note("gue.header", "none", "4 bytes");
            outcome.rules.insert(intended::GUE_HEADER);
            let length = |frame: &Parsed<'_>| {
                frame.number("udp.length").and_then(|length| usize::try_from(length).ok())
            };
            outcome.same("udp.length", length(theirs).map(|length| length + GUE_BYTES), length(mine));
            outcome.masks.insert(intended::GUE_SOURCE_PORT);
        }
        // The sums over the outer headers, and where asked for over all.
        let header = outer.get(..20).filter(|_| mine.field("ip.ttl").is_some());
        if header.is_some_and(|header| sum(&[header]) != 0xffff) {
            outcome.what.push("the outer header's checksum is wrong".to_owned());
        }
        if mine.field("udp.checksum").is_some_and(|field| field.is_right == Some(false)) {
            outcome.what.push("the outer UDP checksum is wrong".to_owned());
        }
    }

    /// It went to one of the service's real servers, and to the same one as the flow's packets before. An error goes where
    /// the flow that it quotes goes.
    fn real(&mut self, mine: &Parsed<'_>, outcome: &mut Outcome) {
        let came = Parsed::frame(&self.vector.frame);
        let Some((_, real)) = mine.addresses("") else { return };
        let quote = ["icmp.quote.", "icmp6.quote."].into_iter().find(|quote| came.addresses(quote).is_some());
        let flow = quote.map_or_else(|| flow_of(&came, "", false), |quote| flow_of(&came, quote, true));
        if quote.is_none() {
            let reals = self.setup.reals_of(&came, "").unwrap_or_default();
            if !reals.iter().any(|known| known == real) {
                outcome.what.push("the real server is none of the service's".to_owned());
            }
        }
        let Some(flow) = flow else { return };
        match self.flows.get(&flow) {
            Some(known) if known != real => {
                outcome.what.push("the flow went to another real server before".to_owned());
            }
            None if quote.is_some() => outcome.what.push("the quoted flow is not known".to_owned()),
            Some(_) => {}
            None => {
                self.flows.insert(flow, real.to_vec());
            }
        }
    }
}

/// Whether a packet is an ICMP error whose checksum is wrong.
fn is_damaged_error(frame: &Parsed<'_>) -> bool {
    ["icmp", "icmp6"].into_iter().any(|name| {
        let is_error = frame.addresses(&format!("{name}.quote.")).is_some();
        let checksum = frame.field(&format!("{name}.checksum"));
        is_error && checksum.is_some_and(|checksum| checksum.is_right == Some(false))
    })
}

/// The flow of a packet as its client sends it.
fn flow_of(frame: &Parsed<'_>, prefix: &str, is_turned: bool) -> Option<Vec<u8>> {
    let (from, to) = frame.addresses(prefix)?;
    let (from_port, to_port) = frame.ports(prefix);
    let ends = [[from, &from_port.to_be_bytes()].concat(), [to, &to_port.to_be_bytes()].concat()];
    let [client, service] = ends;
    let protocol = frame.protocol(prefix)?.to_be_bytes();
    let flow = if is_turned { [service, client] } else { [client, service] };
    Some([&protocol[..], &flow.concat()].concat())
}

/// The outer headers and the inner packet, which is as long as what came.
fn split(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(bytes.len().checked_sub(length)?)
}

/// Whether a packet went out in more than one piece.
fn are_pieces(sent: &Sent) -> bool {
    let inner = |bytes: &[u8]| Parsed::packet(bytes).number("inner.ip.fragment");
    sent.len() > 1
        && sent.iter().all(|(_, bytes)| inner(bytes).is_some_and(|fragment| fragment & 0x3fff != 0))
}

fn shown(value: Option<u32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:#06x}"))
}
