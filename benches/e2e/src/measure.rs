//! What is measured, and how: a window of time over running traffic, its packets or bytes, and the CPU
//! time that all of it took.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV4;
use std::process::Child;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::Failure;
use crate::forwarders::Forwarder;
use crate::lab::{Counting, Host, Lab, this_program};
use crate::traffic::{RoundTrips, TCP_DOOR, TCP_SINK, UDP_ECHO, UDP_SINK};

/// Time for connections and sessions to open and windows to grow.
const WARM_UP: Duration = Duration::from_millis(400);
/// How long the machine has to be quiet before a window.
const QUIET_WINDOW: Duration = Duration::from_millis(300);
/// Cores that may be in use by others on a quiet machine; what is less can not be told from the ticks.
const QUIET_LOAD: f64 = 0.15;
/// Pings per second when latency is measured.
const PINGS_PER_SECOND: u64 = 10_000;

/// One kind of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Measure {
    /// Small datagrams, as fast as the sender can: more than some forwarders can take.
    Udp,
    /// Small datagrams, at most 256 under way: no more than can pass, and nothing is lost.
    UdpWindow,
    /// Small datagrams, at most 256 under way, each of another flow than those before it.
    UdpMixed,
    /// One TCP stream, as much as passes.
    Tcp1,
    /// Eight TCP streams.
    Tcp8,
    /// TCP connections that are opened and closed at once, 32 at a time.
    Connections,
    /// 10,000 pings a second.
    Latency,
}

impl Measure {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 7] = [
        Self::Udp,
        Self::UdpWindow,
        Self::UdpMixed,
        Self::Tcp1,
        Self::Tcp8,
        Self::Connections,
        Self::Latency,
    ];

    /// The name in results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::UdpWindow => "udp-window",
            Self::UdpMixed => "udp-mixed",
            Self::Tcp1 => "tcp1",
            Self::Tcp8 => "tcp8",
            Self::Connections => "connections",
            Self::Latency => "latency",
        }
    }
}

/// What one window gave. What does not apply is zero.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Sample {
    /// Thousands of packets (udp) or connections a second, or gigabits a second of payload (tcp).
    pub(crate) rate: f64,
    /// CPU time of the run's processes and of softirq threads: microseconds a packet (udp) or connection,
    /// seconds a gigabyte (tcp).
    pub(crate) cpu: f64,
    /// The same of the whole machine, whatever else it does.
    pub(crate) cpu_of_machine: f64,
    /// Cores that something other than the run was using.
    pub(crate) other_load: f64,
    /// Half of the round trips took no longer, in microseconds.
    pub(crate) p50_us: f64,
    /// 99 of 100 round trips took no longer, in microseconds.
    pub(crate) p99_us: f64,
    /// Share of pings without an answer.
    pub(crate) lost: f64,
}

/// Measures `forwarder`, which runs, over `window`.
///
/// # Errors
///
/// When the traffic's programs die or `/proc` can not be read.
pub(crate) fn measure(
    lab: &mut Lab,
    forwarder: Forwarder,
    measure: Measure,
    window: Duration,
) -> Result<Sample, Failure> {
    let to = |port| SocketAddrV4::new(forwarder.address(), port).to_string();
    match measure {
        Measure::Udp | Measure::UdpWindow | Measure::UdpMixed => {
            let client = lab.namespace(Host::Client);
            let (is_mixed, to) = (measure == Measure::UdpMixed, to(UDP_SINK));
            let mut arguments = vec!["flood", "--client", &client, "--to", &to];
            arguments.extend((measure != Measure::Udp).then_some("--window"));
            arguments.extend(is_mixed.then_some("--mixed"));
            let mut flood = Counting::spawn(lab.command(Host::Server, &this_program()?, &arguments))?;
            let (count, cpu, seconds) = over(lab, window, |_| flood.count())?;
            Ok(cpu.sample(count / seconds / 1e3, count / 1e6, seconds))
        }
        Measure::Connections => {
            let arguments = ["connect", "--to", &to(TCP_DOOR)];
            let mut client = Counting::spawn(lab.command(Host::Client, &this_program()?, &arguments))?;
            let (count, cpu, seconds) = over(lab, window, |_| client.count())?;
            Ok(cpu.sample(count / seconds / 1e3, count / 1e6, seconds))
        }
        Measure::Tcp1 | Measure::Tcp8 => {
            let streams = if measure == Measure::Tcp1 { "1" } else { "8" };
            let arguments = ["stream", "--to", &to(TCP_SINK), "--streams", streams];
            let _client = Killed(lab.command(Host::Client, &this_program()?, &arguments).spawn()?);
            let (count, cpu, seconds) = over(lab, window, |lab| lab.server().count())?;
            Ok(cpu.sample(count * 8.0 / seconds / 1e9, count / 1e9, seconds))
        }
        Measure::Latency => {
            let (rate, seconds) = (PINGS_PER_SECOND.to_string(), window.as_secs_f64().to_string());
            let arguments = ["ping", "--to", &to(UDP_ECHO), "--rate", &rate, "--seconds", &seconds];
            let said = lab.run(Host::Client, &this_program()?, &arguments)?;
            let RoundTrips { p50_us, p99_us, lost } = serde_json::from_str(&said)?;
            Ok(Sample { p50_us, p99_us, lost, ..Sample::default() })
        }
    }
}

/// Looks at running traffic over a window: what `count` has grown by, the CPU time, and the true length.
fn over(
    lab: &mut Lab,
    window: Duration,
    mut count: impl FnMut(&mut Lab) -> Result<u64, Failure>,
) -> Result<(f64, CpuTime, f64), Failure> {
    std::thread::sleep(WARM_UP);
    let (start, cpu, before) = (Instant::now(), CpuClock::read(lab)?, count(lab)?);
    std::thread::sleep(window);
    let (seconds, passed) = (start.elapsed().as_secs_f64(), count(lab)?.saturating_sub(before));
    let cpu = CpuClock::read(lab)?.since(&cpu);
    if passed == 0 {
        return Err("nothing has arrived".into());
    }
    Ok((passed as f64, cpu, seconds))
}

/// A process that does not outlive this value.
#[derive(Debug)]
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// CPU time used so far.
#[derive(Debug)]
struct CpuClock {
    /// Nanoseconds of each thread of the run, and of the softirq threads.
    threads_ns: BTreeMap<u32, u64>,
    /// Ticks of 10 ms that the machine was not idle.
    machine_ticks: u64,
}

/// CPU time of a window, in seconds.
#[derive(Clone, Copy, Debug)]
struct CpuTime {
    run: f64,
    machine: f64,
}

impl CpuTime {
    fn sample(self, rate: f64, units: f64, seconds: f64) -> Sample {
        Sample {
            rate,
            cpu: self.run / units,
            cpu_of_machine: self.machine / units,
            other_load: ((self.machine - self.run) / seconds).max(0.0),
            ..Sample::default()
        }
    }
}

impl CpuClock {
    fn read(lab: &Lab) -> Result<Self, Failure> {
        let mut threads_ns = BTreeMap::new();
        for process in lab.processes()?.into_iter().chain(softirq_threads()?) {
            let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
            for task in tasks.flatten() {
                let thread = task.file_name().to_str().and_then(|name| name.parse().ok());
                let times = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let spent = times.split_whitespace().next().and_then(|number| number.parse().ok());
                if let (Some(thread), Some(spent)) = (thread, spent) {
                    threads_ns.insert(thread, spent);
                }
            }
        }
        let table = fs::read_to_string("/proc/stat")?;
        let machine_ticks = busy_ticks(&table).ok_or("/proc/stat has no line of all processors")?;
        Ok(Self { threads_ns, machine_ticks })
    }

    /// What was used since `earlier`. Threads that came later count from their start.
    fn since(&self, earlier: &Self) -> CpuTime {
        let used = |(thread, now): (&u32, &u64)| {
            now.saturating_sub(earlier.threads_ns.get(thread).copied().unwrap_or(0))
        };
        let run_ns: u64 = self.threads_ns.iter().map(used).sum();
        let ticks = self.machine_ticks.saturating_sub(earlier.machine_ticks);
        CpuTime { run: run_ns as f64 / 1e9, machine: ticks as f64 / 100.0 }
    }
}

/// Waits until the machine does little besides, at most for `patience`; for none, not at all.
///
/// # Errors
///
/// When `/proc` can not be read.
pub(crate) fn wait_for_quiet(lab: &Lab, patience: Duration) -> Result<(), Failure> {
    let end = Instant::now() + patience;
    while Instant::now() < end {
        let (start, before) = (Instant::now(), CpuClock::read(lab)?);
        std::thread::sleep(QUIET_WINDOW);
        let used = CpuClock::read(lab)?.since(&before);
        if (used.machine - used.run) / start.elapsed().as_secs_f64() < QUIET_LOAD {
            return Ok(());
        }
    }
    Ok(())
}

/// The ticks of all processors: user, nice, system, and interrupts; idle, waiting and stolen ones not.
fn busy_ticks(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupt, softirq, ..] = ticks[..] else { return None };
    Some(user + nice + system + interrupt + softirq)
}

/// The kernel's threads that work off network packets when there are too many.
fn softirq_threads() -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with("ksoftirqd/") {
            found.push(process);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let table = "cpu  1 2 4 1000 2000 8 16 4000 0 0\ncpu0 9 9 9 9 9 9 9 9 9 9\n";
        assert_eq!(busy_ticks(table), Some(31));
        assert_eq!(busy_ticks("cpu 1 2\n"), None);
        assert_eq!(busy_ticks(""), None);
    }

    #[test]
    fn cpu_time_counts_threads_that_came_in_the_window() {
        let clock = |threads: &[(u32, u64)], machine_ticks| CpuClock {
            threads_ns: threads.iter().copied().collect(),
            machine_ticks,
        };
        let before = clock(&[(1, 1_000_000_000), (2, 5)], 100);
        let after = clock(&[(1, 1_500_000_000), (3, 250_000_000)], 200);
        let used = after.since(&before);
        assert!((used.run - 0.75).abs() < 1e-9);
        assert!((used.machine - 1.0).abs() < 1e-9);
        let sample = used.sample(3.0, 0.5, 2.0);
        assert!((sample.cpu - 1.5).abs() < 1e-9);
        assert!((sample.other_load - 0.125).abs() < 1e-9);
    }
}
