//! Repeated measurements on a machine that others work on as well.

/// Speeds in rounds of one measurement: whoever shares a core or its caches only ever makes them less, so the best is the
/// program's own, and the median tells how much was taken from it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rounds {
    pub(crate) best: f64,
    pub(crate) median: f64,
}

impl Rounds {
    pub(crate) fn of(speeds: impl IntoIterator<Item = f64>) -> Self {
        let mut speeds: Vec<f64> = speeds.into_iter().collect();
        speeds.sort_by(f64::total_cmp);
        Self { best: *speeds.last().unwrap(), median: *speeds.get(speeds.len() / 2).unwrap() }
    }
}
