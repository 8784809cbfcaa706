//! The simulator's outcome and the lab's side by side.
//!
//! In: both outcomes of one scenario. Out: each real server with its share in both, and what differs.
//! Never judges more than the shares and the broken flows: times and packets differ by their nature.

use std::fmt;

use serde::Serialize;

use crate::outcome::Outcome;
use crate::table::aligned;

/// Shares that lie farther apart than this, in percentage points, are called different.
pub const TOLERANCE_POINTS: f64 = 2.0;

/// Two outcomes of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Each real server, in the simulator's order.
    pub servers: Vec<ServerComparison>,
    /// The largest difference of a share, in percentage points.
    pub largest_difference: f64,
    /// Flows that broke in the simulator.
    pub broken_sim: u64,
    /// Flows that broke in the lab.
    pub broken_lab: u64,
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

/// Puts both outcomes side by side.
#[must_use]
pub fn compare(sim: &evenkeel_sim::Outcome, lab: &Outcome) -> Comparison {
    let mut servers = Vec::new();
    let mut largest_difference = 0.0_f64;
    for ours in &sim.servers {
        let key = (&ours.forwarder, &ours.director, &ours.server);
        let theirs = lab.servers.iter().find(|one| (&one.forwarder, &one.director, &one.server) == key);
        let difference = theirs.map_or(100.0, |theirs| (theirs.flows_percent - ours.flows_percent).abs());
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
    let broken_lab = lab.broken.values().sum();
    Comparison { servers, largest_difference, broken_sim: sim.flows.broken, broken_lab }
}

impl Comparison {
    /// Whether every share agrees within [`TOLERANCE_POINTS`] and no flow broke in either.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.largest_difference <= TOLERANCE_POINTS && self.broken_sim == 0 && self.broken_lab == 0
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
        let verdict = if self.largest_difference <= TOLERANCE_POINTS { "agree" } else { "DIFFER" };
        writeln!(f, "shares {verdict}: the largest difference is {:.2} points", self.largest_difference)?;
        writeln!(f, "broken flows: {} in the simulator, {} in the lab", self.broken_sim, self.broken_lab)
    }
}
