//! What a world feeds while it runs.
//!
//! In: flows that open and break, requests that complete, what servers and tables hold, and marks, each with its
//! time; times never go back. A flow that carries one request completes with it. Out: the parts of a
//! [`RunRecord`] that come from them. A call on the way of a flow adds to counters and allocates nothing, apart
//! from buckets that a histogram meets for the first time.
//!
//! ```text
//! interval    0    1    2   ...  255     full: neighbours are joined, and intervals are twice as long
//! server 0    c    c    c         c
//! server 1    c    c    c         c      c = requests, bytes, most active flows, due by weight
//! ```

use evenkeel_engine::{Duration, Instant};

use super::balance::Balance;
use super::batches::Batches;
use super::data::{
    BalanceSeries, Broken, Flows, LoadRecord, Mark, RunRecord, Series, ServerRecord, ServerSeries,
    TableSeries,
};
use super::histogram::Histogram;
use super::number::count;

/// The most intervals: as many as a plot has room for.
pub const INTERVALS_MAX: usize = 256;
/// Below this many intervals a series says nothing, so that a world of very many servers still has them.
pub const INTERVALS_MIN: usize = 16;
/// The most cells of all servers together (32 bytes each), as long as there are [`INTERVALS_MIN`] intervals.
pub const CELLS_MAX: usize = 1 << 18;
/// The most windows in which balance is told.
pub const WINDOWS_MAX: usize = 64;
/// Requests of a window for each server: with fewer, chance alone makes servers look uneven.
pub const WINDOW_REQUESTS: u64 = 32;
/// The most marks that are kept.
pub const MARKS_MAX: usize = 4_096;
/// The most findings that are kept; the first ones say most.
pub const FINDINGS_MAX: usize = 100;
/// How often levels are asked for, for each interval.
const SAMPLES: u64 = 4;
/// Requests that a weight promises are counted in fractions of this many bits.
const DUE_BITS: u32 = 16;
/// The first length of an interval, unless the world says otherwise.
pub const INTERVAL_FIRST: Duration = Duration::from_millis(1);

/// What there is to record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The real servers; calls name them by their place here.
    pub servers: Vec<ServerSetup>,
    /// The loads.
    pub loads: Vec<String>,
    /// The causes for which flows break: key and words.
    pub causes: Vec<(String, String)>,
    /// Tables of forwarders.
    pub tables: Vec<TableSetup>,
    /// The first length of an interval; [`INTERVAL_FIRST`] where it is zero.
    pub interval: Duration,
    /// The time in the beginning that latencies and balance leave out.
    pub warmup: Duration,
}

/// A real server in the beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSetup {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its weight.
    pub weight: u32,
}

/// A table with entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableSetup {
    /// Whose table, and which.
    pub name: String,
    /// Its places; 0 where it has no bound.
    pub capacity: u64,
}

/// A request that was answered as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// The load that asked.
    pub load: usize,
    /// The server that answered, where that is known.
    pub server: Option<usize>,
    /// How long it took.
    pub latency: Duration,
    /// Bytes of it and its answer.
    pub bytes: u64,
}

/// A flow that broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenFlow {
    /// The load that opened it.
    pub load: usize,
    /// The server that it had, where that is known.
    pub server: Option<usize>,
    /// The cause, by its place in [`Setup::causes`].
    pub cause: usize,
    /// Whether no load balancer could have kept it.
    pub is_unavoidable: bool,
}

/// One server in one interval.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    requests: u64,
    bytes: u64,
    /// Requests that its weight promises, in 2^-16 (see [`DUE_BITS`]).
    due: u64,
    active: u32,
}

/// Everything in one interval that is no server's.
#[derive(Clone, Debug, Default)]
struct Row {
    started: u64,
    completed: u64,
    broken: u64,
    unavoidable: u64,
    latency: Histogram<4>,
    /// Most entries, and evictions, by table.
    tables: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Default)]
struct Load {
    started: u64,
    completed: u64,
    broken: u64,
    latency: Histogram,
}

#[derive(Clone, Copy, Debug, Default)]
struct Server {
    weight: u32,
    active: u32,
    active_max: u32,
    requests: u64,
    bytes: u64,
    broken: u64,
    /// Requests after the warm-up, and what its weight promised of all of them.
    steady_requests: u64,
    steady_due: u64,
}

/// Takes down what happens.
#[derive(Clone, Debug)]
pub struct Recorder {
    setup: Setup,
    warmup: Instant,
    interval: Duration,
    /// When the open interval ends.
    end: Instant,
    /// When levels are to be asked for again.
    due: Instant,
    intervals_max: usize,
    rows: Vec<Row>,
    cells: Vec<Cell>,
    /// Requests of servers in the open interval, all and those after the warm-up.
    row_requests: (u64, u64),
    servers: Vec<Server>,
    loads: Vec<Load>,
    causes: Vec<(u64, u64)>,
    /// Entries now, and evictions so far.
    tables: Vec<(u64, u64)>,
    batches: Batches,
    marks: Vec<Mark>,
    marks_left_out: u64,
    findings: Vec<String>,
    findings_left_out: u64,
}

impl Recorder {
    /// A recorder for a run that begins now.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        let interval = if setup.interval.is_zero() { INTERVAL_FIRST } else { setup.interval };
        let fitting = CELLS_MAX.checked_div(setup.servers.len()).unwrap_or(INTERVALS_MAX);
        // Even, so that joining neighbours leaves no half.
        let intervals_max = fitting.clamp(INTERVALS_MIN, INTERVALS_MAX) & !1;
        let mut recorder = Self {
            warmup: Instant::ZERO.after(setup.warmup),
            interval,
            end: Instant::ZERO.after(interval),
            due: Instant::ZERO,
            intervals_max,
            rows: Vec::with_capacity(intervals_max),
            cells: Vec::with_capacity(intervals_max * setup.servers.len()),
            row_requests: (0, 0),
            servers: setup
                .servers
                .iter()
                .map(|one| Server { weight: one.weight, ..Server::default() })
                .collect(),
            loads: vec![Load::default(); setup.loads.len()],
            causes: vec![(0, 0); setup.causes.len()],
            tables: vec![(0, 0); setup.tables.len()],
            batches: Batches::default(),
            marks: Vec::new(),
            marks_left_out: 0,
            findings: Vec::new(),
            findings_left_out: 0,
            setup,
        };
        recorder.open_row();
        recorder
    }

    // Commands on the way of a flow.

    /// A client opened a flow.
    pub fn started(&mut self, now: Instant, load: usize) {
        self.advance(now);
        if let Some(row) = self.rows.last_mut() {
            row.started += 1;
        }
        if let Some(load) = self.loads.get_mut(load) {
            load.started += 1;
        }
    }

    /// A request was answered as it should.
    pub fn completed(&mut self, now: Instant, flow: Completed) {
        self.advance(now);
        let latency = u64::try_from(flow.latency.as_nanos()).unwrap_or(u64::MAX);
        let is_steady = now >= self.warmup;
        if let Some(row) = self.rows.last_mut() {
            row.completed += 1;
            row.latency.record(latency);
        }
        if let Some(load) = self.loads.get_mut(flow.load) {
            load.completed += 1;
            if is_steady {
                load.latency.record(latency);
                self.batches.record(latency);
            }
        }
        let Some(index) = flow.server else { return };
        let Some(server) = self.servers.get_mut(index) else { return };
        server.requests += 1;
        server.bytes = server.bytes.saturating_add(flow.bytes);
        server.steady_requests += u64::from(is_steady);
        self.row_requests.0 += 1;
        self.row_requests.1 += u64::from(is_steady);
        let first = self.cells.len() - self.servers.len();
        if let Some(cell) = self.cells.get_mut(first + index) {
            cell.requests += 1;
            cell.bytes = cell.bytes.saturating_add(flow.bytes);
        }
    }

    /// A flow broke.
    pub fn broken(&mut self, now: Instant, flow: BrokenFlow) {
        self.advance(now);
        let unavoidable = u64::from(flow.is_unavoidable);
        if let Some(row) = self.rows.last_mut() {
            row.broken += 1;
            row.unavoidable += unavoidable;
        }
        if let Some(load) = self.loads.get_mut(flow.load) {
            load.broken += 1;
        }
        if let Some((count, of_these)) = self.causes.get_mut(flow.cause) {
            *count += 1;
            *of_these += unavoidable;
        }
        if let Some(server) = flow.server.and_then(|index| self.servers.get_mut(index)) {
            server.broken += 1;
        }
    }

    // Commands that set levels; a level stays until it is set again.

    /// Whether it is time to set the levels of servers and tables, where the world does not set them whenever
    /// they change. It says so once for each time.
    pub fn is_sample_due(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        let step = Duration::from_nanos(nanoseconds(self.interval).div_euclid(SAMPLES).max(1));
        self.due = now.after(step);
        true
    }

    /// A server has so many flows.
    pub fn active(&mut self, now: Instant, server: usize, flows: u32) {
        self.advance(now);
        let Some(state) = self.servers.get_mut(server) else { return };
        state.active = flows;
        state.active_max = state.active_max.max(flows);
        let first = self.cells.len() - self.servers.len();
        if let Some(cell) = self.cells.get_mut(first + server) {
            cell.active = cell.active.max(flows);
        }
    }

    /// A server has this weight; 0 when it takes no flows.
    pub fn weighed(&mut self, now: Instant, server: usize, weight: u32) {
        self.advance(now);
        if let Some(state) = self.servers.get_mut(server) {
            state.weight = weight;
        }
    }

    /// A table has so many entries and has evicted so many since the run began.
    pub fn held(&mut self, now: Instant, table: usize, entries: u64, evicted: u64) {
        self.advance(now);
        let Some(state) = self.tables.get_mut(table) else { return };
        let further = evicted.saturating_sub(state.1);
        *state = (entries, evicted.max(state.1));
        if let Some((most, sum)) = self.rows.last_mut().and_then(|row| row.tables.get_mut(table)) {
            *most = (*most).max(entries);
            *sum += further;
        }
    }

    // Commands now and then.

    /// The scenario did something.
    pub fn mark(&mut self, now: Instant, words: impl Into<String>) {
        self.advance(now);
        if self.marks.len() < MARKS_MAX {
            self.marks.push(Mark { at_ns: now.as_nanos(), words: words.into() });
        } else {
            self.marks_left_out += 1;
        }
    }

    /// A checker found something wrong; a whole sentence.
    pub fn finding(&mut self, sentence: impl Into<String>) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(sentence.into());
        } else {
            self.findings_left_out += 1;
        }
    }

    /// The run is over: writes what was taken down into `record`.
    pub fn finish(mut self, now: Instant, record: &mut RunRecord) {
        self.advance(now);
        self.close_row();
        record.elapsed_ns = now.as_nanos();
        record.warmup_ns = self.warmup.as_nanos();
        record.flows = self.flows();
        record.balance = Balance::of(self.servers.iter().map(|one| (one.steady_requests, one.steady_due)));
        record.series = self.series();
        record.servers = self.server_records();
        record.latency = Histogram::new();
        self.loads.iter().for_each(|load| record.latency.merge(&load.latency));
        let loads = self.setup.loads.into_iter().zip(self.loads);
        record.loads = loads.map(|(name, load)| load.record(name)).collect();
        record.batches = self.batches.closed();
        record.timeline = self.marks;
        record.findings = self.findings;
        for (left_out, what) in [(self.marks_left_out, "marks"), (self.findings_left_out, "findings")] {
            if left_out > 0 {
                record.notes.push(format!("{left_out} further {what} are left out."));
            }
        }
    }

    // Intervals.

    /// Goes on to the interval of `now`.
    fn advance(&mut self, now: Instant) {
        while now >= self.end && self.end < Instant::NEVER {
            self.close_row();
            if self.rows.len() >= self.intervals_max {
                self.widen();
            }
            self.end = self.end.after(self.interval);
            self.open_row();
        }
    }

    /// A new interval begins with the levels of the one before.
    fn open_row(&mut self) {
        let tables = self.tables.iter().map(|(entries, _)| (*entries, 0)).collect();
        self.rows.push(Row { tables, ..Row::default() });
        let cells = self.servers.iter().map(|one| Cell { active: one.active, ..Cell::default() });
        self.cells.extend(cells);
    }

    /// An interval is over: what it had to share is shared out by the weights.
    fn close_row(&mut self) {
        let weights: u64 = self.servers.iter().map(|server| u64::from(server.weight)).sum();
        let first = self.cells.len() - self.servers.len();
        let cells = self.cells.get_mut(first..).unwrap_or(&mut []);
        let share = |requests: u64, weight: u32| {
            let share =
                ((u128::from(requests) * u128::from(weight)) << DUE_BITS).checked_div(u128::from(weights));
            share.and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
        };
        let (all, steady) = std::mem::take(&mut self.row_requests);
        for (cell, server) in cells.iter_mut().zip(&mut self.servers) {
            cell.due = cell.due.saturating_add(share(all, server.weight));
            server.steady_due = server.steady_due.saturating_add(share(steady, server.weight));
        }
    }

    /// Joins neighbours, so that intervals are twice as long and half as many.
    fn widen(&mut self) {
        let servers = self.servers.len();
        let half = self.rows.len() / 2;
        for pair in 0..half {
            for server in 0..servers {
                let place = |row: usize| row * servers + server;
                let (left, right) = (self.cell(place(2 * pair)), self.cell(place(2 * pair + 1)));
                if let Some(cell) = self.cells.get_mut(place(pair)) {
                    *cell = left.joined(right);
                }
            }
        }
        self.cells.truncate(half * servers);
        let mut rows = std::mem::take(&mut self.rows).into_iter();
        while let Some(mut row) = rows.next() {
            if let Some(next) = rows.next() {
                row.join(&next);
            }
            self.rows.push(row);
        }
        self.interval *= 2;
    }

    fn cell(&self, place: usize) -> Cell {
        self.cells.get(place).copied().unwrap_or_default()
    }

    // What comes out.

    fn flows(&self) -> Flows {
        let mut flows = Flows::default();
        for load in &self.loads {
            flows.started += load.started;
            flows.completed += load.completed;
            flows.broken += load.broken;
        }
        flows.unfinished = flows.started.saturating_sub(flows.completed + flows.broken);
        let causes = self.setup.causes.iter().zip(&self.causes).filter(|(_, (count, _))| *count > 0);
        for ((cause, words), (count, unavoidable)) in causes {
            flows.unavoidable += unavoidable;
            flows.causes.push(Broken {
                cause: cause.clone(),
                words: words.clone(),
                count: *count,
                unavoidable: *unavoidable,
            });
        }
        flows
    }

    fn server_records(&self) -> Vec<ServerRecord> {
        let servers = self.setup.servers.iter().zip(&self.servers);
        let records = servers.map(|(setup, server)| ServerRecord {
            name: setup.name.clone(),
            address: setup.address.clone(),
            weight: server.weight,
            requests: server.requests,
            bytes: server.bytes,
            broken: server.broken,
            active_max: server.active_max,
        });
        records.collect()
    }

    fn series(&self) -> Series {
        let mut series = Series { interval_ns: nanoseconds(self.interval), ..Series::default() };
        for row in &self.rows {
            series.started.push(row.started);
            series.completed.push(row.completed);
            series.broken.push(row.broken);
            series.unavoidable.push(row.unavoidable);
            series.p50_ns.push(row.latency.quantile(500_000).unwrap_or(0));
            series.p99_ns.push(row.latency.quantile(990_000).unwrap_or(0));
            series.max_ns.push(row.latency.max().unwrap_or(0));
        }
        for index in 0..self.servers.len() {
            let cells = self.cells.iter().skip(index).step_by(self.servers.len());
            series.servers.push(ServerSeries {
                requests: cells.clone().map(|cell| cell.requests).collect(),
                active: cells.clone().map(|cell| cell.active).collect(),
                bytes: cells.map(|cell| cell.bytes).collect(),
            });
        }
        for (index, table) in self.setup.tables.iter().enumerate() {
            let of = |row: &Row| row.tables.get(index).copied().unwrap_or_default();
            series.tables.push(TableSeries {
                name: table.name.clone(),
                capacity: table.capacity,
                entries: self.rows.iter().map(|row| of(row).0).collect(),
                evicted: self.rows.iter().map(|row| of(row).1).collect(),
            });
        }
        series.balance = self.balance_series();
        series
    }

    /// Windows are as long as it takes for a server to have [`WINDOW_REQUESTS`] requests, as far as there are
    /// so many, and no more than [`WINDOWS_MAX`].
    fn balance_series(&self) -> BalanceSeries {
        let servers = self.servers.len();
        let Some(rows) = (servers > 0).then_some(self.rows.len()) else { return BalanceSeries::default() };
        let requests: u64 = self.servers.iter().map(|server| server.requests).sum();
        let wanted = count(servers).saturating_mul(WINDOW_REQUESTS);
        let windows = usize::try_from(requests.checked_div(wanted).unwrap_or(0)).unwrap_or(usize::MAX);
        let length = rows.div_ceil(windows.clamp(1, WINDOWS_MAX));
        let mut windows = Vec::new();
        let mut rest = &self.cells[..];
        while !rest.is_empty() {
            // What is left in the end and shorter than half a window belongs to the last one.
            let whole = length * servers;
            let taken = if rest.len() < whole + whole / 2 { rest.len() } else { whole };
            let (cells, further) = rest.split_at(taken);
            rest = further;
            let mut sums = vec![(0u64, 0u64); servers];
            for row in cells.chunks(servers) {
                for (sum, cell) in sums.iter_mut().zip(row) {
                    sum.0 = sum.0.saturating_add(cell.requests);
                    sum.1 = sum.1.saturating_add(cell.due);
                }
            }
            windows.push(Balance::of(sums.into_iter()));
        }
        BalanceSeries { intervals: count(length), windows }
    }
}

impl Cell {
    /// Two intervals as one.
    fn joined(self, next: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(next.requests),
            bytes: self.bytes.saturating_add(next.bytes),
            due: self.due.saturating_add(next.due),
            active: self.active.max(next.active),
        }
    }
}

impl Row {
    /// Two intervals as one.
    fn join(&mut self, next: &Self) {
        self.started += next.started;
        self.completed += next.completed;
        self.broken += next.broken;
        self.unavoidable += next.unavoidable;
        self.latency.merge(&next.latency);
        for ((most, evicted), next) in self.tables.iter_mut().zip(&next.tables) {
            *most = (*most).max(next.0);
            *evicted += next.1;
        }
    }
}

impl Load {
    fn record(self, name: String) -> LoadRecord {
        let Self { started, completed, broken, latency } = self;
        LoadRecord { name, started, completed, broken, latency }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    fn setup(servers: usize) -> Setup {
        let server = |index| ServerSetup { name: format!("s{index}"), weight: 1, ..ServerSetup::default() };
        Setup {
            servers: (0..servers).map(server).collect(),
            loads: vec!["web".to_owned()],
            causes: vec![("reset".to_owned(), "it was reset".to_owned())],
            tables: vec![TableSetup { name: "lb flows".to_owned(), capacity: 10 }],
            ..Setup::default()
        }
    }

    fn completed(server: usize, latency_us: u64) -> Completed {
        Completed { load: 0, server: Some(server), latency: Duration::from_micros(latency_us), bytes: 100 }
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_nanos(milliseconds * 1_000_000)
    }

    fn finished(recorder: Recorder, milliseconds: u64) -> RunRecord {
        let mut record = RunRecord::default();
        recorder.finish(at(milliseconds), &mut record);
        record
    }

    #[test]
    fn every_flow_is_found_again_in_totals_and_series() {
        let mut recorder = Recorder::new(setup(2));
        for time in 0..100 {
            recorder.started(at(time), 0);
            let server = usize::from(time % 4 == 0);
            if time % 10 == 9 {
                let flow = BrokenFlow { load: 0, server: Some(server), cause: 0, is_unavoidable: time > 50 };
                recorder.broken(at(time), flow);
            } else {
                recorder.completed(at(time), completed(server, time));
            }
        }
        recorder.started(at(99), 0);
        let record = finished(recorder, 99);
        let flows = &record.flows;
        assert_eq!((flows.started, flows.completed, flows.broken, flows.unfinished), (101, 90, 10, 1));
        assert_eq!((flows.unavoidable, flows.causes.len(), flows.causes[0].count), (5, 1, 10));
        assert_eq!((record.latency.count(), record.latency.max()), (90, Some(98_000)));
        let series = &record.series;
        assert_eq!((series.interval_ns, series.started.len()), (1_000_000, 100));
        assert_eq!(series.started.iter().sum::<u64>(), 101);
        assert_eq!(series.unavoidable.iter().sum::<u64>(), 5);
        for (server, series) in record.servers.iter().zip(&series.servers) {
            assert_eq!(series.requests.iter().sum::<u64>(), server.requests);
            assert_eq!(series.bytes.iter().sum::<u64>(), server.bytes);
        }
        assert_eq!(record.servers.iter().map(|server| server.requests).sum::<u64>(), 90);
    }

    #[test]
    fn intervals_grow_and_lose_nothing() {
        for servers in [1, 3, 5_000] {
            let mut recorder = Recorder::new(setup(servers));
            for time in (0..3_000).map(|turn| turn * 7) {
                recorder.completed(at(time), completed(0, 1));
                recorder.active(at(time), servers - 1, u32::try_from(time / 7).unwrap());
            }
            let record = finished(recorder, 21_000);
            let series = &record.series;
            let length = series.completed.len();
            assert!((INTERVALS_MIN / 2..=INTERVALS_MAX).contains(&length), "{length}");
            assert_eq!(21_000_000_000 / series.interval_ns, count(length) - 1);
            assert_eq!(series.completed.iter().sum::<u64>(), 3_000);
            assert_eq!(series.servers[0].requests.iter().sum::<u64>(), 3_000);
            let active = &series.servers[servers - 1].active;
            assert!(active.is_sorted() && active.last() == Some(&2_999), "{active:?}");
        }
    }

    #[test]
    fn a_level_stays_until_it_is_set_again() {
        let mut recorder = Recorder::new(setup(1));
        recorder.active(at(0), 0, 5);
        recorder.active(at(0), 0, 2);
        recorder.held(at(0), 0, 7, 3);
        recorder.active(at(3), 0, 4);
        recorder.held(at(3), 0, 1, 5);
        let record = finished(recorder, 4);
        assert_eq!(record.series.servers[0].active, [5, 2, 2, 4, 4]);
        assert_eq!(record.series.tables[0].entries, [7, 7, 7, 7, 1]);
        assert_eq!(record.series.tables[0].evicted, [3, 0, 0, 2, 0]);
        assert_eq!(record.servers[0].active_max, 5);
    }

    #[test]
    fn the_time_far_away_is_reached() {
        let mut recorder = Recorder::new(setup(1));
        recorder.completed(Instant::NEVER, completed(0, 1));
        let mut record = RunRecord::default();
        recorder.finish(Instant::NEVER, &mut record);
        assert_eq!(record.series.completed.iter().sum::<u64>(), 1);
        assert!(record.series.completed.len() <= INTERVALS_MAX);
    }

    #[test]
    fn the_warm_up_is_in_the_series_but_not_in_the_latencies() {
        let mut recorder = Recorder::new(Setup { warmup: Duration::from_millis(5), ..setup(2) });
        for time in 0..10 {
            recorder.completed(at(time), completed(usize::from(time >= 5), time));
        }
        let record = finished(recorder, 10);
        assert_eq!((record.latency.count(), record.latency.min()), (5, Some(5_000)));
        assert_eq!(record.series.completed.iter().sum::<u64>(), 10);
        let balance = record.balance.unwrap();
        assert_eq!((balance.max_over_mean, balance.jain), (2_000_000, 500_000));
    }

    #[test]
    fn balance_regards_weights_as_they_were() {
        let mut recorder = Recorder::new(setup(2));
        recorder.weighed(at(0), 0, 3);
        for time in 0..400 {
            recorder.completed(at(time), completed(usize::from(time % 4 == 3), 1));
        }
        recorder.weighed(at(400), 0, 0);
        for time in 400..800 {
            recorder.completed(at(time), completed(1, 1));
        }
        let record = finished(recorder, 799);
        let windows = &record.series.balance.windows;
        assert!(windows.len() > 4, "{windows:?}");
        for window in windows.iter().flatten() {
            assert!(window.max_over_mean < 1_150_000, "{window:?}");
        }
    }

    #[test]
    fn levels_are_asked_for_a_few_times_in_an_interval() {
        let mut recorder = Recorder::new(setup(1));
        let due = (0..100_000).filter(|turn| recorder.is_sample_due(Instant::from_nanos(turn * 100)));
        assert_eq!(due.count(), 40);
    }

    #[test]
    fn marks_and_findings_are_bounded_and_counted() {
        let mut recorder = Recorder::new(setup(0));
        for turn in 0..MARKS_MAX + 2 {
            recorder.mark(at(1), format!("mark {turn}"));
            recorder.finding("Something is wrong.");
        }
        let record = finished(recorder, 2);
        assert_eq!((record.timeline.len(), record.findings.len()), (MARKS_MAX, FINDINGS_MAX));
        assert_eq!(record.notes[0], "2 further marks are left out.");
    }

    #[test]
    fn what_is_not_there_is_not_counted() {
        let mut recorder = Recorder::new(Setup::default());
        recorder.started(at(1), 3);
        recorder.completed(at(1), completed(9, 1));
        recorder.broken(at(1), BrokenFlow { load: 9, server: Some(9), cause: 9, is_unavoidable: true });
        recorder.active(at(1), 9, 9);
        recorder.held(at(1), 9, 9, 9);
        let record = finished(recorder, 2);
        assert_eq!((record.flows, record.latency.count()), (Flows::default(), 0));
        assert_eq!(record.balance, None);
    }
}
