//! `rendezvous`: every server gets a score for the flow, and the highest wins. `weighted-rendezvous`: scores grow with weight.
//!
//! ```text
//! flow 7:   web1 0.31   web2 0.94 <-- wins   web3 0.55    without web2, flow 7 goes to web3, and nobody else moves
//! ```
//!
//! Nothing is built and nothing remembered. A server that goes moves its own flows only, 1/n of all, spread over the others
//! as their weights are; one that comes takes its share from all alike. The order of the plan does not matter. A flow whose
//! server is full goes to the next best. A flow is settled when its winner beats every server that may come
//! back. O(servers) per flow. Sources: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM ToN 1998;
//! for weights, Mosko, draft-mosko-icnrg-hrw, and Schindelhauer and Schomaker, "Weighted Distributed Hash Tables", SPAA 2005: w / -ln u.

use alloc::boxed::Box;

use core::cmp::Ordering;

use super::draw::mix;
use super::key::Keyed;
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerId, ServerView};
use crate::plan::Options;
use crate::time::Instant;

#[derive(Clone, Debug)]
pub(super) struct Rendezvous {
    keyed: Keyed,
    is_weighted: bool,
}

/// How well a server fits a flow. Without weights the hash itself; with weights a number that grows with it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Score {
    worth: f64,
    hash: u64,
    id: ServerId,
}

impl Score {
    fn order(&self, other: &Self) -> Ordering {
        self.worth.total_cmp(&other.worth).then(self.hash.cmp(&other.hash)).then(self.id.cmp(&other.id))
    }
}

impl Rendezvous {
    pub(super) fn new(options: &Options, seed: u64, is_weighted: bool) -> Self {
        Self { keyed: Keyed::new(options.key, seed), is_weighted }
    }

    fn score(&self, key: u64, server: &ServerView) -> Score {
        let hash = score(key, server.id);
        let worth = if self.is_weighted { f64::from(server.weight) / -libm::log(unit(hash)) } else { 0.0 };
        Score { worth, hash, id: server.id }
    }
}

/// A hash of both.
const fn score(key: u64, id: ServerId) -> u64 {
    mix(key ^ mix(id.0))
}

/// A hash as a number between 0 and 1, neither of them included.
fn unit(hash: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "52 bits and a half fit a float")]
    let numerator = (hash >> 12) as f64 + 0.5;
    numerator / 4_503_599_627_370_496.0
}

impl Scheduler for Rendezvous {
    fn name(&self) -> &'static str {
        if self.is_weighted { "weighted-rendezvous" } else { "rendezvous" }
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, flow: &NewFlow) -> PickInputs {
        self.keyed.inputs(flow)
    }

    fn update(&mut self, _servers: &[ServerView], _now: Instant) {}

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let key = self.keyed.hash(new);
            let mut best: Option<(usize, Score)> = None;
            let mut best_absent: Option<Score> = None;
            for (place, server) in selection.servers().iter().enumerate() {
                // A server without weight may come back with any; without weights that is one.
                let server = ServerView { weight: server.weight.max(1), ..*server };
                let score = self.score(key, &server);
                let is_usable = selection.servers().get(place).is_some_and(ServerView::is_usable);
                if !is_usable {
                    if best_absent.is_none_or(|best| score.order(&best).is_gt()) {
                        best_absent = Some(score);
                    }
                } else if best.is_none_or(|(_, best)| score.order(&best).is_gt()) {
                    best = Some((place, score));
                }
            }
            let Some((server, best)) = best else { return };
            selection.assign(flow, server);
            if best_absent.is_none_or(|absent| best.order(&absent).is_gt()) {
                selection.mark_settled(flow);
            }
        }
    }
}
