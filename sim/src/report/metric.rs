//! The names that an expectation may use, and what each means.

use std::collections::BTreeMap;

use evenkeel_engine::DropReason;

use super::{ExpectationReport, Outcome};
use crate::checker::BreakCause;
use crate::kernel::KernelDrop;
use crate::record::data::Mode;
use crate::scenario::{Expectation, Expected};

/// Every metric with a fixed name: the name and its meaning.
pub const NAMES: &[(&str, &str)] = &[
    ("flows.started", "flows that clients opened"),
    ("flows.completed", "flows in which the client got every answer and the connection closed as it should"),
    ("flows.broken", "flows that ended otherwise, or saw an answer that was not theirs"),
    ("flows.bypassed", "flows that a real server answered although no director had given them to it"),
    ("flows.unfinished", "flows that were still open when the run ended"),
    ("packets.sent", "packets that hosts sent, retransmissions included"),
    ("packets.received", "packets that hosts received"),
    ("packets.lost", "packets that links lost or whose queues were full"),
    ("packets.retransmitted", "segments and datagrams that hosts sent again"),
    ("packets.stray", "packets that reached a host that had no use for them"),
    ("drops.total", "packets that forwarders dropped, for all reasons"),
    ("guest.calls", "calls into components"),
    ("guest.faults", "calls of components that failed"),
    ("guest.fallbacks", "flows that a native fallback decided"),
    (
        "share.deviation",
        "the largest distance of a server's share of flows from its share of weight, in percentage points",
    ),
    ("conserved", "1 when every packet that came into an engine has had exactly one end, else 0"),
    ("pcc.broken", "broken flows that a load balancer could have kept"),
    ("pcc.unavoidable", "broken flows whose real server was away"),
    ("latency.mean", "the mean time from a request to its answer after the warm-up, in milliseconds"),
    ("latency.p50", "what half of these times did not exceed, in milliseconds"),
    ("latency.p99", "what 99 % of these times did not exceed, in milliseconds"),
    ("latency.max", "the longest of these times, in milliseconds"),
    ("findings", "sentences of the checker: what was seen on the wires that should not be"),
    ("packets.bad", "packets that reached a machine with a wrong checksum or length"),
    ("arp.conflicts", "claims of an address that another station had claimed before"),
    ("vip.bypassed", "packets for a VIP that reached a real server past every forwarder"),
    (
        "answers.foreign",
        "answers to a client from an address that it had not called, of a real server that is not removed",
    ),
    ("answers.strayed", "answers that reached another forwarder than the requests"),
    ("service.out", "new flows that reached a real server which was drained or down at the forwarder"),
    ("service.denied", "flows that reached a real server although a rule of the forwarder denies them"),
    ("tuples.shared", "tuples that two flows had at once at a real server"),
    ("tuples.early", "tuples that were used again while the real server waited (TIME-WAIT)"),
    ("scheduler.changes", "how often the timeline gave a director another scheduler"),
    ("forwarder.restarts", "how often forwarders began anew"),
    ("wire_hash", "the hash of every packet that a machine received, as 16 hexadecimal digits"),
    ("decision_hash", "the hash of every decision of a director, as 16 hexadecimal digits"),
];

/// Whether there is such a metric; `drops.REASON`, `kernels.REASON`, `breaks.CAUSE` and `share.DIRECTOR.SERVER` (in percent) are as well.
#[must_use]
pub fn is_known(name: &str) -> bool {
    if NAMES.iter().any(|(known, _)| *known == name) {
        return true;
    }
    if let Some(reason) = name.strip_prefix("drops.") {
        return DropReason::ALL.iter().any(|known| known.name() == reason);
    }
    if let Some(reason) = name.strip_prefix("kernels.") {
        return KernelDrop::ALL.iter().any(|known| known.name() == reason);
    }
    if let Some(cause) = name.strip_prefix("breaks.") {
        return BreakCause::ALL.iter().any(|known| known.key() == cause);
    }
    name.strip_prefix("share.").and_then(|rest| rest.split_once('.')).is_some()
}

/// Holds a run against expectations.
pub(super) fn judge(expectations: &[Expectation], outcome: &Outcome) -> Vec<ExpectationReport> {
    let judged = expectations.iter().map(|expectation| {
        let found = value(&expectation.metric, outcome);
        let is_met = found.as_ref().is_some_and(|found| holds(expectation, found));
        ExpectationReport { metric: expectation.metric.clone(), wanted: words(expectation), found, is_met }
    });
    judged.collect()
}

fn holds(expectation: &Expectation, found: &Expected) -> bool {
    let is_equal = expectation.equals.as_ref().is_none_or(|wanted| wanted == found);
    let is_within = match found {
        Expected::Number(number) => {
            expectation.min.is_none_or(|min| *number >= min)
                && expectation.max.is_none_or(|max| *number <= max)
        }
        Expected::Text(_) => expectation.min.is_none() && expectation.max.is_none(),
    };
    is_equal && is_within
}

fn words(expectation: &Expectation) -> String {
    let min = expectation.min.map(|min| format!("at least {min}"));
    let max = expectation.max.map(|max| format!("at most {max}"));
    let equals = expectation.equals.as_ref().map(|equals| format!("equal to {equals}"));
    let parts: Vec<String> = [min, max, equals].into_iter().flatten().collect();
    parts.join(" and ")
}

/// The value of a metric in a run.
fn value(name: &str, outcome: &Outcome) -> Option<Expected> {
    if outcome.mode == Mode::Flow && is_about_packets(name) {
        return None;
    }
    let text = |text: &String| Some(Expected::Text(text.clone()));
    let (flows, packets) = (&outcome.flows, &outcome.packets);
    let guests = || outcome.forwarders.iter().flat_map(|forwarder| &forwarder.guests);
    let count = match name {
        "flows.started" => flows.started,
        "flows.completed" => flows.completed,
        "flows.broken" => flows.broken,
        "flows.bypassed" => bypassed(outcome),
        "flows.unfinished" => flows.unfinished,
        "packets.sent" => packets.sent,
        "packets.received" => packets.received,
        "packets.lost" => packets.lost(),
        "packets.retransmitted" => packets.retransmitted,
        "packets.stray" => packets.stray,
        "drops.total" => outcome.forwarders.iter().flat_map(|forwarder| forwarder.dropped.values()).sum(),
        "guest.calls" => guests().map(|guest| guest.calls).sum(),
        "guest.faults" => guests().map(|guest| guest.faults).sum(),
        "guest.fallbacks" => guests().map(|guest| guest.fallbacks).sum(),
        "pcc.broken" => flows.broken.saturating_sub(outcome.unavoidable),
        "pcc.unavoidable" => outcome.unavoidable,
        "latency.mean" => return Some(milliseconds(outcome.latency.mean_ns)),
        "latency.p50" => return Some(milliseconds(outcome.latency.p50_ns)),
        "latency.p99" => return Some(milliseconds(outcome.latency.p99_ns)),
        "latency.max" => return Some(milliseconds(outcome.latency.max_ns)),
        "findings" => outcome.checks.sentences.len() as u64,
        "packets.bad" => outcome.checks.counts.bad_packets,
        "arp.conflicts" => outcome.checks.counts.arp_conflicts,
        "vip.bypassed" => outcome.checks.counts.vip_bypassed,
        "answers.foreign" => outcome.checks.counts.foreign_answers,
        "answers.strayed" => outcome.checks.counts.strayed_answers,
        "service.out" => outcome.checks.counts.out_of_service,
        "service.denied" => outcome.checks.counts.denied,
        "tuples.shared" => outcome.checks.counts.tuples_shared,
        "tuples.early" => outcome.checks.counts.tuples_early,
        "scheduler.changes" => outcome.forwarders.iter().map(|forwarder| forwarder.scheduler_changes).sum(),
        "forwarder.restarts" => outcome.forwarders.iter().map(|forwarder| forwarder.restarts).sum(),
        "conserved" => u64::from(outcome.is_conserved),
        "share.deviation" => return Some(Expected::Number(outcome.share_deviation)),
        "wire_hash" => return text(&outcome.wire_hash),
        "decision_hash" => return text(&outcome.decision_hash),
        _ => return member(name, outcome),
    };
    Some(number(count))
}

/// Whether a metric is about what a run without packets has not.
pub(crate) fn is_about_packets(name: &str) -> bool {
    const KINDS: [&str; 6] = ["packets.", "drops.", "kernels.", "arp.", "vip.", "answers."];
    KINDS.iter().any(|kind| name.starts_with(kind)) || name == "findings" || name == "wire_hash"
}

/// The metrics of one reason or one server.
fn member(name: &str, outcome: &Outcome) -> Option<Expected> {
    if let Some(reason) = name.strip_prefix("drops.") {
        let of = |forwarder: &super::ForwarderReport| forwarder.dropped.get(reason).copied().unwrap_or(0);
        return Some(number(outcome.forwarders.iter().map(of).sum()));
    }
    if let Some(reason) = name.strip_prefix("kernels.") {
        return Some(number(outcome.packets.dropped_by_kernels.get(reason).copied().unwrap_or(0)));
    }
    if let Some(cause) = name.strip_prefix("breaks.") {
        let breaks = outcome.checks.breaks.iter();
        return Some(number(breaks.filter(|(known, _)| known.key() == cause).map(|(_, count)| count).sum()));
    }
    let (director, server) = name.strip_prefix("share.")?.split_once('.')?;
    let found = outcome.servers.iter().find(|row| row.director == director && row.server == server)?;
    Some(Expected::Number(found.flows_percent))
}

fn milliseconds(nanoseconds: u64) -> Expected {
    #[allow(clippy::cast_precision_loss, reason = "times far below 2^53 nanoseconds, for reading")]
    Expected::Number(nanoseconds as f64 / 1e6)
}

/// Answered flows of each real server beyond those that the forwarders gave it, all together.
fn bypassed(outcome: &Outcome) -> u64 {
    let mut servers: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for row in &outcome.servers {
        // Every forwarder's row has the same count of answers, as clients saw them.
        let (answered, given) = servers.entry((&row.service, &row.address)).or_default();
        *answered = row.answered.max(*answered);
        *given += row.flows;
    }
    servers.values().map(|(answered, given)| answered.saturating_sub(*given)).sum()
}

fn number(count: u64) -> Expected {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^53")]
    Expected::Number(count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expectation(min: Option<f64>, max: Option<f64>, equals: Option<Expected>) -> Expectation {
        Expectation { metric: "flows.broken".to_owned(), min, max, equals }
    }

    #[test]
    fn bounds_include_their_ends() {
        let holds = |min, max, found| holds(&expectation(min, max, None), &Expected::Number(found));
        assert!(holds(Some(1.0), Some(2.0), 1.0) && holds(Some(1.0), Some(2.0), 2.0));
        assert!(!holds(Some(1.0), None, 0.9) && !holds(None, Some(2.0), 2.1));
    }

    #[test]
    fn a_text_has_no_bounds() {
        let text = Expected::Text("00ff".to_owned());
        assert!(holds(&expectation(None, None, Some(text.clone())), &text));
        assert!(!holds(&expectation(None, None, Some(text)), &Expected::Text("0100".to_owned())));
        assert!(!holds(&expectation(Some(0.0), None, None), &Expected::Text("1".to_owned())));
    }

    #[test]
    fn members_are_known_by_their_form() {
        assert!(is_known("drops.no_server") && is_known("share.web.s1") && is_known("share.deviation"));
        assert!(!is_known("drops.nonsense") && !is_known("flows") && !is_known("share"));
    }
}
