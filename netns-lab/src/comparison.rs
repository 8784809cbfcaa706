//! The simulator's outcome and the lab's side by side.
//!
//! In: both outcomes of one scenario. Out: each real server with its share in both, broken flows and drops by reason, and
//! what differs. Never judges times and numbers of packets: they differ by their nature.

use std::collections::BTreeMap;
use std::fmt;

use evenkeel_sim::table::aligned;
use serde::Serialize;

use crate::outcome::Outcome;

/// Shares that lie farther apart than this, in percentage points, are called different.
pub const TOLERANCE_POINTS: f64 = 2.0;

/// Flows of a real server that may differ whatever share they are: of a director with a handful of flows each is points.
pub const TOLERANCE_FLOWS: u64 = 2;

/// Broken flows may differ by this share of all flows, in percent: a flow that is under way when a machine loses power is
/// broken or not by milliseconds.
pub const TOLERANCE_BROKEN_PERCENT: f64 = 2.0;

/// A reason for drops that one of them has this often, the other must have too. How often is not judged: it depends on
/// how often each side's TCP tries again.
pub const DROPS_MIN: u64 = 10;

/// Two outcomes of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Each real server, in the simulator's order.
    pub servers: Vec<ServerComparison>,
    /// The largest difference of a share, in percentage points, of real servers whose flows differ by more than
    /// [`TOLERANCE_FLOWS`].
    pub largest_difference: f64,
    /// Flows that were begun in the simulator.
    pub started_sim: u64,
    /// Flows that were begun in the lab.
    pub started_lab: u64,
    /// Flows that broke in the simulator.
    pub broken_sim: u64,
    /// Flows that broke in the lab.
    pub broken_lab: u64,
    /// Packets that forwarders dropped, by reason.
    pub drops: BTreeMap<String, DropComparison>,
}

/// How often packets were dropped for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DropComparison {
    /// In the simulator.
    pub sim: u64,
    /// In the lab.
    pub lab: u64,
}

impl DropComparison {
    /// Whether neither has often what the other never has.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        let (sim, lab) = (self.sim, self.lab);
        !(sim == 0 && lab >= DROPS_MIN || lab == 0 && sim >= DROPS_MIN)
    }
}

/// One real server in both.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerComparison {
    /// The director.
    pub director: String,
    /// The real server.
    pub server: String,
    /// Its share of the director's weight, in percent.
    pub weight_percent: f64,
    /// Its flows in the simulator.
    pub sim_flows: u64,
    /// Its share there, in percent.
    pub sim_percent: f64,
    /// Its flows in the lab; none when the lab has no such server.
    pub lab_flows: Option<u64>,
    /// Its share there, in percent.
    pub lab_percent: Option<f64>,
}

/// How far two shares lie apart, given with the flows that they are of, in percentage points.
fn points_apart((ours, our_percent): (u64, f64), (theirs, their_percent): (u64, f64)) -> f64 {
    if ours.abs_diff(theirs) <= TOLERANCE_FLOWS { 0.0 } else { (our_percent - their_percent).abs() }
}

/// Puts both outcomes side by side.
#[must_use]
pub fn compare(sim: &evenkeel_sim::Outcome, lab: &Outcome) -> Comparison {
    let mut servers = Vec::new();
    let mut largest_difference = 0.0_f64;
    for ours in &sim.servers {
        let key = (&ours.forwarder, &ours.director, &ours.server);
        let theirs = lab.servers.iter().find(|one| (&one.forwarder, &one.director, &one.server) == key);
        let difference = theirs.map_or(100.0, |theirs| {
            points_apart((ours.flows, ours.flows_percent), (theirs.flows, theirs.flows_percent))
        });
        largest_difference = largest_difference.max(difference);
        servers.push(ServerComparison {
            director: ours.director.clone(),
            server: ours.server.clone(),
            weight_percent: ours.weight_percent,
            sim_flows: ours.flows,
            sim_percent: ours.flows_percent,
            lab_flows: theirs.map(|theirs| theirs.flows),
            lab_percent: theirs.map(|theirs| theirs.flows_percent),
        });
    }
    let mut drops: BTreeMap<String, DropComparison> = BTreeMap::new();
    for (reason, count) in sim.forwarders.iter().flat_map(|forwarder| &forwarder.dropped) {
        drops.entry((*reason).to_owned()).or_default().sim += count;
    }
    for (reason, count) in &lab.drops {
        drops.entry(reason.clone()).or_default().lab += count;
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of flows")]
    let started_lab = lab.metrics.get("flows.started").copied().unwrap_or(0.0) as u64;
    Comparison {
        servers,
        largest_difference,
        started_sim: sim.flows.started,
        started_lab,
        broken_sim: sim.flows.broken,
        broken_lab: lab.broken.values().sum(),
        drops,
    }
}

impl Comparison {
    /// Whether shares, broken flows and reasons for drops agree within their tolerances.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.shares_agree() && self.broken_agree() && self.drops.values().all(DropComparison::agrees)
    }

    fn shares_agree(&self) -> bool {
        self.largest_difference <= TOLERANCE_POINTS
    }

    fn broken_agree(&self) -> bool {
        let flows = self.started_sim.max(self.started_lab).max(1);
        let apart = self.broken_sim.abs_diff(self.broken_lab);
        apart as f64 * 100.0 <= flows as f64 * TOLERANCE_BROKEN_PERCENT
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["director", "server", "by weight", "sim flows", "sim share", "lab flows", "lab share"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        rows.extend(self.servers.iter().map(|server| {
            let lab_percent = server.lab_percent.map(|percent| format!("{percent:.1} %"));
            vec![
                server.director.clone(),
                server.server.clone(),
                format!("{:.1} %", server.weight_percent),
                server.sim_flows.to_string(),
                format!("{:.1} %", server.sim_percent),
                server.lab_flows.map_or_else(|| "-".to_owned(), |flows| flows.to_string()),
                lab_percent.unwrap_or_else(|| "-".to_owned()),
            ]
        }));
        writeln!(f, "{}", aligned(&rows, 2))?;
        let word = |agrees| if agrees { "agree" } else { "DIFFER" };
        let shares = word(self.shares_agree());
        writeln!(f, "shares {shares}: the largest difference is {:.2} points", self.largest_difference)?;
        let Self { started_sim, started_lab, broken_sim, broken_lab, .. } = self;
        let broken = word(self.broken_agree());
        writeln!(
            f,
            "broken flows {broken}: {broken_sim} of {started_sim} in the simulator, {broken_lab} of {started_lab} in \
             the lab"
        )?;
        for (reason, drops) in &self.drops {
            let DropComparison { sim, lab } = drops;
            writeln!(
                f,
                "drops {}: {reason}: {sim} in the simulator, {lab} in the lab",
                word(drops.agrees())
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(started: u64, broken: (u64, u64), points: f64, drops: (u64, u64)) -> Comparison {
        let drops = DropComparison { sim: drops.0, lab: drops.1 };
        Comparison {
            servers: Vec::new(),
            largest_difference: points,
            started_sim: started,
            started_lab: started,
            broken_sim: broken.0,
            broken_lab: broken.1,
            drops: [("no_server".to_owned(), drops)].into(),
        }
    }

    #[test]
    fn each_tolerance_holds_up_to_its_bound_and_no_further() {
        assert!(both(100, (0, 0), 0.0, (0, 0)).agrees());
        assert!(both(100, (0, 0), 2.0, (0, 0)).agrees());
        assert!(!both(100, (0, 0), 2.01, (0, 0)).agrees(), "shares");
        assert!(both(100, (7, 9), 0.0, (0, 0)).agrees());
        assert!(!both(100, (7, 10), 0.0, (0, 0)).agrees(), "broken flows");
        assert!(!both(0, (1, 0), 0.0, (0, 0)).agrees(), "broken flows of none");
        assert!(both(100, (0, 0), 0.0, (9, 0)).agrees());
        assert!(both(100, (0, 0), 0.0, (1, 900)).agrees(), "how often is not judged");
        assert!(!both(100, (0, 0), 0.0, (0, 10)).agrees(), "drops of the lab alone");
        assert!(!both(100, (0, 0), 0.0, (10, 0)).agrees(), "drops of the simulator alone");
    }

    #[test]
    fn a_flow_or_two_are_no_difference_whatever_share_they_are() {
        assert!(points_apart((1, 50.0), (0, 0.0)).abs() < 1e-9);
        assert!(points_apart((2, 100.0), (0, 0.0)).abs() < 1e-9);
        assert!((points_apart((3, 100.0), (0, 0.0)) - 100.0).abs() < 1e-9);
        assert!((points_apart((150, 50.0), (0, 0.0)) - 50.0).abs() < 1e-9);
    }

    #[test]
    fn what_differs_is_said_in_capitals() {
        let text = both(100, (0, 50), 3.0, (12, 0)).to_string();
        for line in [
            "shares DIFFER: the largest difference is 3.00 points",
            "broken flows DIFFER: 0 of 100 in the simulator, 50 of 100 in the lab",
            "drops DIFFER: no_server: 12 in the simulator, 0 in the lab",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
