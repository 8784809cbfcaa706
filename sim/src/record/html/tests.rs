//! Pages of the example, of nothing, and of hostile names.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::super::example;
use super::*;

#[test]
fn pages_for_looking() {
    let Ok(folder) = std::env::var("PICTURES") else { return };
    let write = |name: &str, page: String| std::fs::write(format!("{folder}/{name}.html"), page).unwrap();
    write("run", run_page(&example::record(1, "maglev", 6)));
    write("run-many", run_page(&example::record(1, "hash", 1_000)));
    write("run-one", run_page(&example::record(1, "hash", 1)));
    write("run-none", run_page(&RunRecord::default()));
    let mut comparison = Comparison::new("Schedulers", "0.1.0");
    let mut sweep = Comparison::new("Schedulers over the rate", "0.1.0");
    for scheduler in ["round-robin", "maglev", "least-connections", "hash"] {
        for seed in 1..=5 {
            comparison.add(&example::record(seed, scheduler, 6));
            for rate in [500, 1_000, 1_500, 2_000] {
                sweep.add(&example::busy(seed, scheduler, 6, rate));
            }
        }
    }
    write("compare", comparison_page(&comparison));
    write("sweep", comparison_page(&sweep));
}
