//! Makes a failing case small: parts are taken away, and numbers halved, as long as it fails in the same way.
//!
//! Faults go in ever smaller bunches (delta debugging), then every other part is tried by itself, again and again until
//! nothing more can go. Each step is one run, and runs have a bound.

use super::case::{Arrivals, Case, Fault, Machine, Noise, Shape, What};

/// Runs of one shrinking: enough for some rounds over all parts of the largest case.
pub const TRIES_MAX: u32 = 2_000;

/// Shrinks `case`, which `fails`; gives the smallest case that was found, and how many were tried.
pub fn shrink(case: &Case, fails: &mut dyn FnMut(&Case) -> bool) -> (Case, u32) {
    let mut shrinking = Shrinking { best: case.clone(), tries: 0, fails };
    loop {
        let before = shrinking.best.clone();
        shrinking.bunches();
        shrinking.parts();
        if shrinking.best == before || shrinking.tries >= TRIES_MAX {
            return (shrinking.best, shrinking.tries);
        }
    }
}

struct Shrinking<'a> {
    best: Case,
    tries: u32,
    fails: &'a mut dyn FnMut(&Case) -> bool,
}

impl Shrinking<'_> {
    /// Takes `candidate` where it still fails.
    fn try_one(&mut self, mut candidate: Case) -> bool {
        candidate.tidy();
        if candidate == self.best || self.tries >= TRIES_MAX {
            return false;
        }
        self.tries += 1;
        let is_failing = (self.fails)(&candidate);
        if is_failing {
            self.best = candidate;
        }
        is_failing
    }

    /// Faults, first half of them at once, then quarters, and so on.
    fn bunches(&mut self) {
        let mut size = self.best.faults.len();
        while size > 0 {
            let mut from = 0;
            while from < self.best.faults.len() {
                let mut candidate = self.best.clone();
                let to = (from + size).min(candidate.faults.len());
                candidate.faults.drain(from..to);
                if !self.try_one(candidate) {
                    from += size;
                }
            }
            size /= 2;
        }
    }

    /// Everything else, one change at a time.
    fn parts(&mut self) {
        for load in (0..self.best.loads.len()).rev().filter(|load| *load > 0) {
            self.change(|case| {
                let _ = (load < case.loads.len()).then(|| case.loads.remove(load));
            });
        }
        self.change(|case| case.noise = Noise::default());
        self.change(|case| case.flows_max = 0);
        self.change(|case| case.shape = Shape::Nat);
        self.change(|case| case.scheduler = "rr");
        self.change(|case| case.service_us = 0);
        self.change(|case| case.delay_us = 1_000);
        while self.best.clients > 1 && self.change(|case| case.clients -= 1) {}
        while self.best.weights.len() > 1 && self.change(|case| case.weights.truncate(case.weights.len() - 1))
        {
        }
        for place in 0..self.best.weights.len() {
            self.change(|case| case.weights.iter_mut().skip(place).take(1).for_each(|weight| *weight = 1));
        }
        for place in 0..self.best.loads.len() {
            self.load(place);
        }
        for place in 0..self.best.faults.len() {
            self.fault(place);
        }
    }

    fn load(&mut self, place: usize) {
        let flows = |case: &Case| case.loads.get(place).map_or(0, |load| load.flows);
        while flows(&self.best) > 1 && self.change_load(place, |load| load.flows /= 2) {}
        while flows(&self.best) > 1 && self.change_load(place, |load| load.flows -= 1) {}
        self.change_load(place, |load| load.rounds = 1);
        self.change_load(place, |load| load.rounds = 2);
        self.change_load(place, |load| load.pause_ms = 0);
        self.change_load(place, |load| load.response_bytes = 64);
        self.change_load(place, |load| load.arrivals = Arrivals::Poisson(100));
    }

    fn fault(&mut self, place: usize) {
        let at = |case: &Case| case.faults.get(place).map_or(0, |fault| fault.at_ms);
        while at(&self.best) > 1 && self.change_fault(place, |fault| fault.at_ms /= 2) {}
        self.change_fault(place, |fault| fault.for_ms = 0);
        self.change_fault(place, |fault| fault.for_ms /= 2);
        self.change_fault(place, |fault| match &mut fault.what {
            What::Noise(_, noise) => noise.corrupt = 0,
            What::Weight(_, weight) => *weight = 0,
            What::Jump(by) => *by /= 2,
            What::Slow(_, factor) => *factor = 2,
            What::Stop(_) | What::Hang(_) | What::Cut(_) | What::Reload { .. } => {}
        });
    }

    fn change(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.try_one(candidate)
    }

    fn change_load(&mut self, place: usize, change: impl FnOnce(&mut super::case::Traffic)) -> bool {
        self.change(|case| case.loads.iter_mut().skip(place).take(1).for_each(change_once(change)))
    }

    fn change_fault(&mut self, place: usize, change: impl FnOnce(&mut Fault)) -> bool {
        self.change(|case| case.faults.iter_mut().skip(place).take(1).for_each(change_once(change)))
    }
}

/// A change that is made at most once, for iterators of at most one.
fn change_once<T>(change: impl FnOnce(&mut T)) -> impl FnMut(&mut T) {
    let mut change = Some(change);
    move |it| {
        if let Some(change) = change.take() {
            change(it);
        }
    }
}

impl Case {
    /// Takes out what concerns machines that are gone.
    fn tidy(&mut self) {
        let servers = u32::try_from(self.weights.len()).unwrap_or(u32::MAX);
        let clients = self.clients;
        let is_there = |machine: Machine| match machine {
            Machine::Client(client) => client < clients,
            Machine::Server(server) => server < servers,
            Machine::Forwarder => true,
        };
        self.faults.retain(|fault| match fault.what {
            What::Stop(machine) | What::Cut(machine) | What::Noise(machine, _) => is_there(machine),
            What::Hang(server) | What::Slow(server, _) | What::Weight(server, _) => server < servers,
            What::Reload { is_other } => !is_other || servers > 1,
            What::Jump(_) => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_failure_does_not_need_goes() {
        for seed in 0..50 {
            let mut case = Case::draw(seed);
            let needed = Fault { at_ms: 77, for_ms: 9, what: What::Weight(1, 0) };
            case.faults.insert(case.faults.len() / 2, needed);
            let (small, tries) = shrink(&case, &mut |case| {
                case.faults.iter().any(|fault| matches!(fault.what, What::Weight(1, _)))
                    && case.loads[0].flows > 3
            });
            assert!(tries < TRIES_MAX);
            assert_eq!(
                (small.faults.len(), small.loads.len(), small.clients, small.weights.len()),
                (1, 1, 1, 2)
            );
            assert_eq!((small.loads[0].flows, small.faults[0].at_ms), (4, 1));
        }
    }

    #[test]
    fn shrinking_ends_whatever_fails() {
        let (small, tries) = shrink(&Case::draw(3), &mut |_| true);
        assert!(small.faults.is_empty() && tries < TRIES_MAX);
        assert_eq!(shrink(&Case::draw(3), &mut |_| false).0, Case::draw(3));
    }
}
