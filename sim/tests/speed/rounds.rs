//! Repeated measurements on a machine that others work on as well.

/// Time that this thread has spent on a processor, so that neighbours on the machine do not count. To the nanosecond: what
/// `schedstat` tells of a thread is as old as the last tick, up to four milliseconds.
pub(crate) fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

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
