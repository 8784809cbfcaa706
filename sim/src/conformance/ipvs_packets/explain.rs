//! Whether a difference between a recorded frame and ours is masked by the format, meant, or neither; decided by what both
//! say and by what came in.

use std::collections::BTreeSet;

use super::topology::Topology;
use super::{Renamed, Sent, is_own_mac};
use crate::conformance::differ::{FieldDifference, compare};
use crate::conformance::frame::{Parsed, mend};
use crate::conformance::intended;
use crate::conformance::report::Report;

/// The time to live with which Linux sends.
const OWN_TTL: u32 = 64;
/// The first port from which the engine sends GUE.
const FIRST_GUE_PORT: u32 = 49_152;

/// What is known when a pair is judged.
pub(super) struct Explained<'a> {
    pub(super) topology: &'a Topology,
    /// The frames that came in.
    pub(super) fed: &'a [Vec<u8>],
    pub(super) renamed: &'a Renamed,
}

/// What a pair came to.
pub(super) enum Verdict {
    /// Nothing differs behind the masks.
    Same,
    /// These fields differ, which falls under these rules; under none when it is not meant.
    Differs(Vec<&'static str>, Vec<FieldDifference>),
}

/// Why a field may differ.
enum Reason {
    Mask(&'static str),
    Rule(&'static str),
    /// It is a sum over others that may.
    Derived,
}

impl Explained<'_> {
    /// Compares a recorded frame with ours.
    pub(super) fn pair(&self, recorded: &[u8], ours: &[u8], report: &mut Report) -> Verdict {
        let finished = finish_gue(recorded, report);
        let recorded = finished.as_deref().unwrap_or(recorded);
        let (theirs, mine) = (Parsed::frame(recorded), Parsed::frame(ours));
        let differences = compare(&theirs, &mine);
        let mut rules = BTreeSet::new();
        let mut masks = BTreeSet::new();
        let mut has_cause = false;
        let mut left = Vec::new();
        let mut is_explained = true;
        for difference in differences {
            match self.reason(&difference.field, &theirs, &mine) {
                Some(Reason::Mask(mask)) => {
                    masks.insert(mask);
                    has_cause = true;
                }
                Some(Reason::Rule(rule)) => {
                    rules.insert(rule);
                    has_cause = true;
                    left.push(difference);
                }
                Some(Reason::Derived) => {}
                None => {
                    is_explained = false;
                    left.push(difference);
                }
            }
        }
        // Sums alone never differ: where nothing else does, one of them is wrong.
        if !has_cause {
            left = compare(&theirs, &mine);
            is_explained = left.is_empty();
        }
        if is_explained {
            masks.into_iter().for_each(|mask| report.mask(mask));
        }
        if left.is_empty() {
            return Verdict::Same;
        }
        Verdict::Differs(if is_explained { rules.into_iter().collect() } else { Vec::new() }, left)
    }

    /// The rules under which a frame that we did not send falls.
    pub(super) fn missing(&self, recorded: &[u8]) -> Vec<&'static str> {
        let frame = Parsed::frame(recorded);
        let is_question = frame.number("arp.operation") == Some(1);
        let is_to_one =
            frame.get("eth.destination").is_some_and(|to| to.first().is_some_and(|first| first & 1 == 0));
        let is_own = frame.get("eth.source").is_some_and(is_own_mac);
        if is_question && is_to_one && is_own { vec![intended::NEIGHBOUR_PROBE] } else { Vec::new() }
    }

    /// The rules under which a frame falls that only we sent, after those in `before`.
    pub(super) fn besides(&self, ours: &[u8], before: &[Sent]) -> Vec<&'static str> {
        let target = |frame: &Parsed<'_>| match frame.number("arp.operation") {
            Some(1) => frame.get("arp.target").map(<[u8]>::to_vec),
            _ => None,
        };
        let Some(asked) = target(&Parsed::frame(ours)) else { return Vec::new() };
        // Asked once more for a neighbour that has spoken.
        let is_repeated =
            before.iter().any(|sent| target(&Parsed::frame(&sent.bytes)).as_ref() == Some(&asked));
        let is_known = self.fed.iter().any(|fed| Parsed::frame(fed).get("arp.sender") == Some(&asked[..]));
        if is_repeated && is_known { vec![intended::NEIGHBOUR_PROBE] } else { Vec::new() }
    }

    fn reason(&self, field: &str, theirs: &Parsed<'_>, mine: &Parsed<'_>) -> Option<Reason> {
        let rule = |rule| Some(Reason::Rule(rule));
        match field {
            "ip.identification" if self.is_born_there(theirs) => {
                Some(Reason::Mask("identification of own packets"))
            }
            "ip.fragment" if self.is_born_there(theirs) => {
                let is_whole = theirs.number(field) == Some(0) && mine.number(field) == Some(0x4000);
                is_whole.then_some(Reason::Rule(intended::OWN_PACKETS_WHOLE))
            }
            "ip.identification" if self.is_tunnel_that_may_be_cut(theirs) => {
                rule(intended::TUNNEL_IDENTIFICATION)
            }
            "udp.source_port" if theirs.field("gue.header").is_some() => {
                let is_dynamic = mine.ports("").0 >= FIRST_GUE_PORT;
                is_dynamic.then_some(Reason::Rule(intended::GUE_SOURCE_PORT))
            }
            "udp.source_port" | "tcp.source_port" => {
                self.is_chosen(theirs, mine).then_some(Reason::Rule(intended::MAPPED_PORT))
            }
            "udp.checksum" if self.came_without_checksum(theirs, mine) => {
                rule(intended::UDP_WITHOUT_CHECKSUM)
            }
            "icmp.quote.udp.checksum" | "icmp.quote.tcp.checksum"
                if self.is_quote_left(field, theirs, mine) =>
            {
                rule(intended::QUOTED_CHECKSUM)
            }
            _ if field.ends_with(".checksum") => {
                let are_right = is_right(theirs, field) && is_right(mine, field);
                are_right.then_some(Reason::Derived)
            }
            _ => None,
        }
    }

    /// Whether the recorded kernel made the packet: it comes from its own address with a fresh time to live, and is a
    /// message of its own kind.
    fn is_born_there(&self, frame: &Parsed<'_>) -> bool {
        let is_own = frame.addresses("").is_some_and(|(from, _)| self.topology.is_own(from));
        let is_message = matches!(frame.number("icmp.type"), Some(0 | 3 | 11 | 12));
        let is_reset = frame.number("tcp.flags").is_some_and(|flags| flags & 4 != 0);
        is_own && frame.number("ip.ttl") == Some(OWN_TTL) && (is_message || is_reset)
    }

    fn is_tunnel_that_may_be_cut(&self, frame: &Parsed<'_>) -> bool {
        let may_be_cut = frame.number("ip.fragment").is_some_and(|fragment| fragment & 0x4000 == 0);
        self.topology.is_tunnel() && frame.field("inner.ip.ttl").is_some() && may_be_cut
    }

    /// Whether the engine chose the source port of a packet to a real server, where the recorded kernel chose one too.
    fn is_chosen(&self, theirs: &Parsed<'_>, mine: &Parsed<'_>) -> bool {
        let Some((from, server)) = theirs.addresses("") else { return false };
        let Some(protocol) = theirs.protocol("") else { return false };
        let (theirs_port, mine_port) = (theirs.ports("").0, mine.ports("").0);
        let is_known = self.renamed.get(&(protocol, server.to_vec(), theirs_port)) == Some(&mine_port);
        let is_in_range = self
            .topology
            .snat_ports
            .as_ref()
            .is_some_and(|range| u16::try_from(mine_port).is_ok_and(|port| range.contains(&port)));
        // The recorded kernel kept a client's own port where it could; then so must we.
        let own = self.cause(theirs).map(|cause| Parsed::frame(cause).ports("").0);
        self.topology.is_own(from) && is_known && is_in_range && own != Some(theirs_port)
    }

    /// The frame of which a translated one was made: same protocol and identification, for the service or from a server.
    fn cause(&self, sent: &Parsed<'_>) -> Option<&[u8]> {
        let same = |name: &str, other: &Parsed<'_>| sent.get(name) == other.get(name);
        self.fed.iter().map(Vec::as_slice).find(|fed| {
            let other = Parsed::frame(fed);
            let names = ["ip.identification", "ip.protocol", "ip.fragment", "payload"];
            names.iter().all(|name| same(name, &other))
        })
    }

    /// Whether a datagram came without a checksum, left the recorded director with a right one, and ours without.
    fn came_without_checksum(&self, theirs: &Parsed<'_>, mine: &Parsed<'_>) -> bool {
        let cause = self.cause(theirs).map(Parsed::frame);
        self.topology.is_nat()
            && cause.is_some_and(|cause| cause.number("udp.checksum") == Some(0))
            && mine.number("udp.checksum") == Some(0)
            && theirs.number("udp.checksum") != Some(0)
            && is_right(theirs, "udp.checksum")
    }

    /// Whether the recorded director left the checksum of a quoted packet as it came, or did not follow its own changes to
    /// the quote, while ours changed by what the quote changed.
    fn is_quote_left(&self, field: &str, theirs: &Parsed<'_>, mine: &Parsed<'_>) -> bool {
        let same_error = |fed: &&Vec<u8>| {
            let other = Parsed::frame(fed);
            let names = ["icmp.type", "icmp.code", "icmp.quote.ip.identification", "icmp.quote.ip.protocol"];
            names.iter().all(|name| other.get(name).is_some() && other.get(name) == theirs.get(name))
        };
        let Some(cause) = self.fed.iter().find(same_error) else { return false };
        let cause = Parsed::frame(cause);
        let Some(old) = cause.get(field).and_then(|sum| <[u8; 2]>::try_from(sum).ok()) else { return false };
        let covered = |frame: &Parsed<'_>| {
            let mut covered = Vec::new();
            for name in ["ip.source", "ip.destination", "udp.source_port", "udp.destination_port"] {
                covered.extend(frame.get(&format!("icmp.quote.{name}")).unwrap_or_default());
            }
            for name in ["tcp.source_port", "tcp.destination_port"] {
                covered.extend(frame.get(&format!("icmp.quote.{name}")).unwrap_or_default());
            }
            covered
        };
        let right = mend(old, &covered(&cause), &covered(mine));
        let is_mended = mine.get(field) == Some(&right[..]) || is_right_for_sure(mine, field);
        is_mended && covered(theirs) == covered(mine)
    }
}

/// Whether a checksum is right, as far as all that it covers is there.
fn is_right(frame: &Parsed<'_>, field: &str) -> bool {
    frame.field(field).is_some_and(|field| field.is_right != Some(false))
}

fn is_right_for_sure(frame: &Parsed<'_>, field: &str) -> bool {
    frame.field(field).is_some_and(|field| field.is_right == Some(true))
}

/// A recorded GUE frame whose outer total length was not final yet: with the length that its UDP header gives.
fn finish_gue(recorded: &[u8], report: &mut Report) -> Option<Vec<u8>> {
    let parsed = Parsed::frame(recorded);
    // The unfinished length hides the tunnel's end, not its beginning.
    let is_gue = parsed.field("gue.header").is_some();
    let (length, total) = (parsed.number("udp.length")?, parsed.number("ip.total_length")?);
    let right = length.checked_add(20)?;
    if !is_gue || right == total {
        return None;
    }
    let (at, sum_at) = (parsed.field("ip.total_length")?.at.clone(), parsed.field("ip.checksum")?.at.clone());
    let mut finished = recorded.to_vec();
    let (old, new) = (parsed.get("ip.total_length")?, u16::try_from(right).ok()?.to_be_bytes());
    let sum = <[u8; 2]>::try_from(parsed.get("ip.checksum")?).ok()?;
    finished.get_mut(at)?.copy_from_slice(&new);
    // The sum may be that of the final header already.
    if !is_right_for_sure(&Parsed::frame(&finished), "ip.checksum") {
        finished.get_mut(sum_at)?.copy_from_slice(&mend(sum, old, &new));
    }
    report.mask("outer length of GUE frames");
    Some(finished)
}
