//! Draws a case from a seed: topology, load and faults, each from a stream of its own.

use super::case::{Arrivals, Case, FAILING, Fault, Machine, Noise, Shape, Traffic, What};
use crate::random::Stream;

/// Schedulers that a case may have: those that need no options and leave no server out while it may be used.
const SCHEDULERS: [&str; 12] =
    ["rr", "wrr", "lc", "wlc", "sh", "maglev", "p2c", "sed", "nq", "mh", "twos", "lblc"];
/// The most faults of a case.
const FAULTS_MAX: u64 = 8;
/// When the last fault begins.
const FAULTS_MS: u64 = 4_000;
/// The longest that a fault lasts.
const FAULT_MS: u64 = 3_000;
/// One of so many cases has a component that fails: loading one costs more than the whole case.
const FAILING_ONE_IN: u64 = 100;

/// Whole numbers of one purpose.
struct Dice(Stream);

impl Dice {
    /// From `low` to `high`, both included.
    fn of(&mut self, low: u32, high: u32) -> u32 {
        let span = u64::from(high.saturating_sub(low)) + 1;
        low.saturating_add(u32::try_from(self.0.below(span)).unwrap_or(0))
    }

    /// Once in so many.
    fn once_in(&mut self, times: u64) -> bool {
        self.0.below(times) == 0
    }

    fn pick<T: Copy>(&mut self, of: &[T], otherwise: T) -> T {
        let place = self.0.below(u64::try_from(of.len()).unwrap_or(1));
        usize::try_from(place).ok().and_then(|place| of.get(place)).copied().unwrap_or(otherwise)
    }
}

impl Case {
    /// The case of a seed.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let dice = |purpose| Dice(Stream::new(seed, "swarm", purpose));
        let mut topology = dice("topology");
        let shape = topology.pick(&[Shape::Nat, Shape::Nat, Shape::Snat, Shape::Gateway], Shape::Nat);
        let clients = topology.of(1, 4);
        let weights = (0..topology.of(2, 5)).map(|_| topology.of(1, 4)).collect();
        let mut scheduler = topology.pick(&SCHEDULERS, "rr");
        if topology.once_in(FAILING_ONE_IN) {
            scheduler = topology.pick(&FAILING, "trap");
        }
        let service_us = if topology.once_in(3) { 0 } else { topology.of(50, 5_000) };
        let delay_us = topology.of(1, 20_000);
        let flows_max = if topology.once_in(8) { topology.of(8, 64) } else { 0 };
        let mut quality = dice("noise");
        let noise = if quality.once_in(4) { noise(&mut quality, 20) } else { Noise::default() };
        let mut traffic = dice("traffic");
        let loads = (0..traffic.of(1, 2)).map(|number| load(&mut traffic, number)).collect();
        let mut case = Self {
            seed,
            shape,
            clients,
            weights,
            scheduler,
            service_us,
            delay_us,
            flows_max,
            noise,
            loads,
            faults: Vec::new(),
        };
        let mut dice = dice("faults");
        let count = dice.0.below(FAULTS_MAX + 1);
        for _ in 0..count {
            let fault = fault(&mut dice, &case);
            case.faults.push(fault);
        }
        if dice.once_in(6) {
            clog(&mut dice, &mut case);
        }
        case.faults.sort_by_key(|fault| fault.at_ms);
        case
    }
}

fn load(dice: &mut Dice, number: u32) -> Traffic {
    // The first load is TCP: connections are what can break.
    let is_tcp = number == 0 || dice.once_in(3);
    let arrivals =
        if dice.once_in(3) { Arrivals::Closed(dice.of(1, 16)) } else { Arrivals::Poisson(dice.of(20, 100)) };
    let rounds = dice.of(1, 4);
    Traffic {
        is_tcp,
        flows: dice.of(20, 100),
        arrivals,
        rounds,
        pause_ms: if rounds > 1 { dice.of(0, 300) } else { 0 },
        response_bytes: if is_tcp { dice.of(64, 20_000) } else { dice.of(64, 1_200) },
    }
}

fn noise(dice: &mut Dice, most: u32) -> Noise {
    let share = |dice: &mut Dice| if dice.once_in(2) { dice.of(1, most) } else { 0 };
    let (loss, reorder, duplicate) = (share(dice), share(dice), share(dice));
    let corrupt = if dice.once_in(4) { dice.of(1, most.min(10)) } else { 0 };
    let drawn = Noise { loss, reorder, duplicate, corrupt };
    if drawn.is_none() { Noise { reorder: 1, ..drawn } } else { drawn }
}

fn machine(dice: &mut Dice, case: &Case) -> Machine {
    match dice.of(0, 9) {
        0 | 1 => Machine::Client(dice.of(0, case.clients - 1)),
        2 => Machine::Forwarder,
        _ => Machine::Server(server(dice, case)),
    }
}

fn server(dice: &mut Dice, case: &Case) -> u32 {
    let last = u32::try_from(case.weights.len()).unwrap_or(1).saturating_sub(1);
    dice.of(0, last)
}

fn fault(dice: &mut Dice, case: &Case) -> Fault {
    let what = match dice.of(0, 15) {
        0..=2 => What::Stop(machine(dice, case)),
        3 => What::Hang(server(dice, case)),
        4 => What::Slow(server(dice, case), dice.of(2, 20)),
        5 | 6 => What::Cut(machine(dice, case)),
        7 | 8 => {
            let machine = machine(dice, case);
            What::Noise(machine, noise(dice, 100))
        }
        // The first server always has a weight, so that somebody may be picked.
        9..=12 => match server(dice, case) {
            0 => What::Weight(0, dice.of(1, 8)),
            number => What::Weight(number, dice.of(0, 8)),
        },
        13 | 14 => What::Reload { is_other: dice.once_in(2) },
        _ => What::Jump(dice.pick(&[1, 1_000, 60_000, 3_600_000], 1)),
    };
    let at_ms = u32::try_from(dice.0.below(FAULTS_MS)).unwrap_or(0);
    let for_ms = u32::try_from(dice.0.below(FAULT_MS)).unwrap_or(0) + 1;
    Fault { at_ms, for_ms, what }
}

/// Cuts servers off one after the other, and lets them come back in another order.
fn clog(dice: &mut Dice, case: &mut Case) {
    let start = u32::try_from(dice.0.below(FAULTS_MS)).unwrap_or(0);
    let mut gone = 0;
    for number in 0..u32::try_from(case.weights.len()).unwrap_or(0) {
        let what = What::Cut(Machine::Server(number));
        case.faults.push(Fault { at_ms: start + gone, for_ms: dice.of(100, 2_000), what });
        gone += dice.of(1, 300);
    }
}
