//! What an engine decided about a packet, in words.

use evenkeel_engine::plan::Layer;
use evenkeel_engine::{Engine, Instant, InterfaceId, Verdict};

use super::summary::Summary;
use crate::device::Decided;

/// A decision in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// What the packet was.
    pub(super) before: Summary,
    /// What left instead, where something did.
    pub(super) after: Option<Summary>,
    /// The interface that it came in by.
    pub(super) interface: String,
    /// Flow, director, real server, and what was done.
    pub(super) words: String,
}

/// The packet of an interface of the plan, in words.
fn read(engine: &Engine, interface: InterfaceId, bytes: &[u8]) -> Summary {
    match engine.plan().interfaces.get(interface.index()).map(|it| it.layer) {
        Some(Layer::Ip) => Summary::of_packet(bytes),
        Some(Layer::Ethernet(_)) | None => Summary::of_frame(bytes),
    }
}

/// Whether the flow of a packet is in the flow table.
pub(crate) fn is_known(engine: &Engine, interface: InterfaceId, bytes: &[u8], now: Instant) -> bool {
    let summary = read(engine, interface, bytes);
    let flow = summary.tuples.first().and_then(|tuple| engine.flow(tuple));
    flow.is_some_and(|flow| flow.entry.expires > now)
}

impl Decision {
    /// Of what has just been decided; the engine still has the flow.
    pub(super) fn of(decided: &Decided, engine: &Engine) -> Self {
        let plan = |interface: InterfaceId| engine.plan().interfaces.get(interface.index());
        let name = |interface| plan(interface).map_or("", |it| it.name.as_str());
        let before = read(engine, decided.interface, &decided.before);
        let after = decided.out.as_ref().map(|(interface, bytes)| read(engine, *interface, bytes));
        let mut words = String::new();
        if let Some(tuple) = before.tuples.first() {
            words = format!("flow: {tuple}; ");
            if let Some(flow) = engine.flow(tuple) {
                let entry = flow.entry;
                let known = if decided.is_known { "known" } else { "new" };
                words += &format!(
                    "{known}, {}; director: {}; real server: {} {}:{}; ",
                    entry.state.name(),
                    flow.director,
                    flow.server,
                    entry.server,
                    entry.server_port
                );
            } else {
                words += "no entry in the flow table; ";
            }
        }
        words += &match (decided.end, &decided.out) {
            (None | Some(Verdict::Forward(_)), Some((out, _))) => format!("forwarded by {}", name(*out)),
            (Some(Verdict::Replace(out)), _) => format!("cut to pieces, by {}", name(out)),
            (Some(Verdict::Hold), _) => "kept until a neighbour answers or a first fragment comes".to_owned(),
            (Some(Verdict::Answer(out)), _) => format!("answered by {}", name(out)),
            (Some(Verdict::Consume), _) => "for the forwarder itself".to_owned(),
            (Some(Verdict::Drop(reason)), _) => format!("dropped: {}", reason.name()),
            (None | Some(Verdict::Forward(_)), None) => "not told".to_owned(),
        };
        Self { before, after, interface: name(decided.interface).to_owned(), words }
    }
}
