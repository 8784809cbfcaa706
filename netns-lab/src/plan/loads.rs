//! When each flow of each load begins, and what each client is told of it.

use std::net::SocketAddr;
use std::time::Duration;

use evenkeel_sim::random::Stream;
use evenkeel_sim::scenario::{Arrivals, Extent, Load, Scenario};

use super::{FLOWS_MAX, microseconds, transport};
use crate::LabError;
use crate::orders::{LoadOrder, Starts};

/// The loads of each host, by its number in the scenario.
///
/// # Errors
///
/// When more flows are opened than a lab can.
pub(super) fn orders(scenario: &Scenario, seed: u64) -> Result<Vec<Vec<LoadOrder>>, LabError> {
    let mut orders: Vec<Vec<LoadOrder>> = scenario.hosts.iter().map(|_| Vec::new()).collect();
    let starts = draw_starts(scenario, seed)?;
    for (number, (load, starts)) in scenario.loads.iter().zip(starts).enumerate() {
        for (client, starts) in load.clients.iter().zip(starts) {
            let Some((host, place)) = scenario.hosts.get(*client).zip(orders.get_mut(*client)) else {
                continue;
            };
            let exchange = &load.exchange;
            place.push(LoadOrder {
                load: u32::try_from(number).unwrap_or(u32::MAX),
                transport: transport(load.service.protocol),
                target: SocketAddr::new(load.service.address, load.service.port),
                start_us: microseconds(load.start),
                starts,
                rounds: exchange.rounds,
                request: exchange.request.clone(),
                response: exchange.response.clone(),
                pause_us: microseconds(exchange.pause),
                deadline_us: load.deadline.map(microseconds),
                seed,
                name: format!("{} of {}", load.name, host.name),
                // Apart for each client and load, so that no answer fits the question of another.
                pattern: pattern(*client, number),
            });
        }
    }
    Ok(orders)
}

fn pattern(machine: usize, load: usize) -> u32 {
    let [machine, load] = [machine, load].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    machine.rotate_left(24) ^ load.rotate_left(18)
}

/// Per load and client, in the order of the scenario.
type StartsOfAll = Vec<Vec<Starts>>;

/// Draws when each flow of each load begins, and deals the flows out to the clients in turn.
fn draw_starts(scenario: &Scenario, seed: u64) -> Result<StartsOfAll, LabError> {
    let mut left = FLOWS_MAX;
    let mut all = Vec::new();
    for load in &scenario.loads {
        let mut random = Stream::new(seed, &load.name, "arrivals");
        let starts = match load.arrivals {
            Arrivals::Poisson { mean_gap } => deal(load, left, |_| random.exponential(mean_gap)),
            Arrivals::Uniform { gap } => deal(load, left, |_| gap),
            Arrivals::OnOff { mean_gap, on, off } => {
                let phases = Stream::new(seed, &load.name, "phases");
                let mut waves = Waves { random, phases, end: load.start, is_on: false, mean_gap, on, off };
                deal(load, left, |now| waves.gap(now))
            }
            Arrivals::Closed { outstanding, think } => Some(deal_closed(load, outstanding, think)),
        };
        let starts = starts.ok_or_else(|| {
            LabError::TooLarge(format!("load {}: a lab opens at most {FLOWS_MAX} flows in all", load.name))
        })?;
        for part in &starts {
            if let Starts::At(times) = part {
                left = left.saturating_sub(u64::try_from(times.len()).unwrap_or(u64::MAX));
            }
        }
        all.push(starts);
    }
    Ok(all)
}

/// Users who come in waves: gaps count in the time that is on.
#[derive(Debug)]
struct Waves {
    random: Stream,
    phases: Stream,
    /// When the present phase ends.
    end: Duration,
    is_on: bool,
    mean_gap: Duration,
    on: Duration,
    off: Duration,
}

impl Waves {
    fn gap(&mut self, now: Duration) -> Duration {
        let (mut at, mut gap) = (now, self.random.exponential(self.mean_gap));
        loop {
            if self.is_on {
                let left = self.end.saturating_sub(at);
                if gap < left {
                    return (at + gap).saturating_sub(now);
                }
                gap -= left;
            }
            at = self.end.max(at);
            let mean = if self.is_on { self.off } else { self.on };
            // A phase lasts at least a nanosecond, so that this ends.
            self.end = at + self.phases.exponential(mean).max(Duration::from_nanos(1));
            self.is_on = !self.is_on;
        }
    }
}

/// The times of an open load, one list per client; `None` when there are more than `most`. `gap` is asked for the time
/// from the one that it is given to the next flow.
fn deal(load: &Load, most: u64, mut gap: impl FnMut(Duration) -> Duration) -> Option<Vec<Starts>> {
    let mut lists: Vec<Vec<u64>> = load.clients.iter().map(|_| Vec::new()).collect();
    let begin = load.start;
    // Nobody comes before the first wave.
    let mut time = if matches!(load.arrivals, Arrivals::OnOff { .. }) { begin + gap(begin) } else { begin };
    let mut opened = 0;
    loop {
        let is_over = match load.extent {
            Extent::Flows(flows) => opened >= flows,
            Extent::Duration(duration) => time >= begin + duration,
        };
        if is_over {
            return Some(lists.into_iter().map(Starts::At).collect());
        }
        if opened >= most {
            return None;
        }
        let client = usize::try_from(opened).unwrap_or(usize::MAX) % lists.len().max(1);
        lists.get_mut(client)?.push(microseconds(time));
        opened += 1;
        time += gap(time);
    }
}

/// A closed load in equal parts, the first clients getting what does not divide.
fn deal_closed(load: &Load, outstanding: u32, think: Duration) -> Vec<Starts> {
    let clients = u64::try_from(load.clients.len()).unwrap_or(u64::MAX).max(1);
    let begin = load.start;
    let part = |whole: u64, clients: u64, position: u64| {
        whole / clients + u64::from(position < whole.checked_rem(clients).unwrap_or(0))
    };
    let (flows, until_us) = match load.extent {
        Extent::Flows(flows) => (Some(flows), None),
        Extent::Duration(duration) => (None, Some(microseconds(begin + duration))),
    };
    // With fewer flows open than clients, the rest of the clients has nothing to do.
    let busy = clients.min(outstanding.into()).max(1);
    (0..clients)
        .map(|position| {
            let open = u32::try_from(part(u64::from(outstanding), clients, position)).unwrap_or(u32::MAX);
            let flows = if open == 0 { Some(0) } else { flows.map(|whole| part(whole, busy, position)) };
            Starts::Closed { outstanding: open, think_us: microseconds(think), flows, until_us }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{SCENARIO, scenario};
    use super::*;

    #[test]
    fn flows_are_dealt_out_in_turn_and_none_is_lost() {
        let starts = draw_starts(&scenario(SCENARIO), 1).unwrap();
        let counts: Vec<_> = starts[0]
            .iter()
            .map(|part| match part {
                Starts::At(times) => times.len(),
                Starts::Closed { .. } => 0,
            })
            .collect();
        assert_eq!(counts, [4, 3, 3]);
        assert_eq!(starts[0][1], Starts::At(vec![10_000, 40_000, 70_000]));
    }

    #[test]
    fn poisson_arrivals_keep_their_rate() {
        let text = SCENARIO.replace("uniform", "poisson").replace("flows = 10", "duration = \"100s\"");
        let starts = draw_starts(&scenario(&text), 7).unwrap();
        let count: u64 = starts[0].iter().map(expected).sum();
        // 10,000 are expected with a standard deviation of 100: five of them are 500.
        assert!((9_500..=10_500).contains(&count), "{count} flows");
    }

    fn expected(part: &Starts) -> u64 {
        match part {
            Starts::At(times) => times.len() as u64,
            Starts::Closed { flows, .. } => flows.unwrap_or(0),
        }
    }

    #[test]
    fn closed_load_is_dealt_out_whole() {
        let closed = "arrivals = { process = \"closed\", outstanding = 2 }";
        let text = SCENARIO.replace("arrivals = { process = \"uniform\", rate = \"100/s\" }", closed);
        let starts = draw_starts(&scenario(&text), 1).unwrap();
        let flows: Vec<_> = starts[0].iter().map(expected).collect();
        assert_eq!(flows, [5, 5, 0], "two flows are open, so two clients work");
    }

    #[test]
    fn waves_keep_the_rate_of_their_time_that_is_on() {
        let waves = "arrivals = { process = \"on-off\", rate = \"100/s\", on = \"1s\", off = \"3s\" }";
        let text = SCENARIO
            .replace("arrivals = { process = \"uniform\", rate = \"100/s\" }", waves)
            .replace("flows = 10", "duration = \"1000s\"");
        let starts = draw_starts(&scenario(&text), 7).unwrap();
        let count: u64 = starts[0].iter().map(expected).sum();
        // A quarter of 1,000 s is on: 25,000 flows; 250 waves of an exponential length make a deviation of about 2,300.
        assert!((16_000..=34_000).contains(&count), "{count} flows");
    }
}
