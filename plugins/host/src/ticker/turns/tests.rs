//! Every order in which a few callers and the clock can take their steps. A step is one atomic operation, or one
//! use of the permit that `Thread::unpark` leaves for `thread::park`.

use std::collections::BTreeMap;

use super::*;

/// Callers at once, and calls of each: two to meet, a third to come in between.
const CALLERS: usize = 3;
const CALLS_EACH: u8 = 2;

/// What callers and the clock do to each other, as the threads of [`super::super`] use it.
trait Protocol: Clone + Ord + Default {
    fn begin(&mut self) -> bool;
    fn end(&mut self);
    fn stop(&mut self);
    fn step(&mut self) -> Step;
}

/// The code that runs.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Ours {
    word: u32,
    clock: Clock,
}

impl Ours {
    fn with<R>(&mut self, operation: impl FnOnce(&Shared, &mut Clock) -> R) -> R {
        let shared = Shared(AtomicU32::new(self.word));
        let result = operation(&shared, &mut self.clock);
        self.word = shared.0.into_inner();
        result
    }
}

impl Protocol for Ours {
    fn begin(&mut self) -> bool {
        self.with(|shared, _| shared.begin())
    }

    fn end(&mut self) {
        self.with(|shared, _| shared.end());
    }

    fn stop(&mut self) {
        self.with(|shared, _| shared.stop());
    }

    fn step(&mut self) -> Step {
        self.with(|shared, clock| clock.step(shared))
    }
}

/// A clock with a mistake: woken, it takes back the word that it sleeps, and when the call that woke it has ended
/// before it looks, it sleeps on without saying so again.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Forgetful {
    calls: u8,
    says_asleep: bool,
    is_stopped: bool,
    idle: u32,
    is_asleep: bool,
}

impl Protocol for Forgetful {
    fn begin(&mut self) -> bool {
        self.calls += 1;
        self.says_asleep
    }

    fn end(&mut self) {
        self.calls -= 1;
    }

    fn stop(&mut self) {
        self.is_stopped = true;
    }

    fn step(&mut self) -> Step {
        if self.is_stopped {
            return Step::End;
        }
        let is_idle = self.calls == 0;
        if is_idle && (self.is_asleep || self.idle == IDLE_TICKS_MAX) {
            self.says_asleep = !self.is_asleep;
            self.is_asleep = true;
            return Step::Sleep;
        }
        (self.is_asleep, self.says_asleep) = (false, false);
        self.idle = if is_idle { self.idle + 1 } else { 0 };
        Step::Tick
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Caller {
    Idle,
    MustWake,
    Runs,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thread {
    Steps,
    Parked,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Owner {
    Keeps,
    MustWake,
    Waits,
}

/// Where everyone is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct World<P> {
    protocol: P,
    thread: Thread,
    has_permit: bool,
    callers: [(Caller, u8); CALLERS],
    owner: Owner,
}

impl<P: Protocol> World<P> {
    fn new() -> Self {
        let callers = [(Caller::Idle, CALLS_EACH); CALLERS];
        let protocol = P::default();
        Self { protocol, thread: Thread::Steps, has_permit: false, callers, owner: Owner::Keeps }
    }

    fn runs(&self) -> bool {
        self.callers.iter().any(|(caller, _)| *caller == Caller::Runs)
    }

    fn is_quiet(&self) -> bool {
        self.callers.iter().all(|(caller, _)| *caller == Caller::Idle)
    }

    /// What the thread does next, and whether that is a tick. Parked without a permit it does nothing.
    fn thread(&mut self) -> Option<bool> {
        match self.thread {
            Thread::Steps => {
                let step = self.protocol.step();
                self.thread = match step {
                    Step::Tick => Thread::Steps,
                    Step::Sleep => Thread::Parked,
                    Step::End => Thread::Ended,
                };
                Some(step == Step::Tick)
            }
            Thread::Parked if self.has_permit => {
                (self.thread, self.has_permit) = (Thread::Steps, false);
                Some(false)
            }
            Thread::Parked | Thread::Ended => None,
        }
    }

    /// What one caller does next.
    fn caller(&mut self, index: usize) -> Option<()> {
        let (caller, left) = &mut self.callers[index];
        match *caller {
            Caller::Idle if *left == 0 || self.owner != Owner::Keeps => return None,
            Caller::Idle => {
                *left -= 1;
                *caller = if self.protocol.begin() { Caller::MustWake } else { Caller::Runs };
            }
            Caller::MustWake => {
                self.has_permit = true;
                *caller = Caller::Runs;
            }
            Caller::Runs => {
                self.protocol.end();
                *caller = Caller::Idle;
            }
        }
        Some(())
    }

    /// The owner may drop the ticker when no call borrows it.
    fn owner(&mut self) -> Option<()> {
        match self.owner {
            Owner::Keeps if self.is_quiet() => {
                self.protocol.stop();
                self.owner = Owner::MustWake;
            }
            Owner::MustWake => {
                self.has_permit = true;
                self.owner = Owner::Waits;
            }
            Owner::Keeps | Owner::Waits => return None,
        }
        Some(())
    }

    /// Every world that may come next, with who brings it about.
    fn next(&self) -> Vec<(&'static str, Self)> {
        let mut all = Vec::new();
        let mut add = |name, change: &dyn Fn(&mut Self) -> Option<()>| {
            let mut world = self.clone();
            if change(&mut world).is_some() {
                all.push((name, world));
            }
        };
        add("the thread", &|world| world.thread().map(|_| ()));
        // `park` may return without a reason.
        add("the system wakes the thread", &|world| {
            let is_parked = world.thread == Thread::Parked;
            world.thread = if is_parked { Thread::Steps } else { world.thread };
            is_parked.then_some(())
        });
        for (index, name) in ["caller 0", "caller 1", "caller 2"].into_iter().enumerate() {
            add(name, &|world| world.caller(index));
        }
        add("the owner", &|world| world.owner());
        all
    }

    /// What is wrong here: what the thread owes must come when from now on the thread alone takes steps.
    fn wrong(&self) -> Option<&'static str> {
        let mut alone = self.clone();
        let mut moves = std::iter::from_fn(|| alone.thread().map(|is_tick| (is_tick, alone.thread)));
        // Two steps: it wakes, and looks.
        if self.runs() && !moves.by_ref().take(2).any(|(is_tick, _)| is_tick) {
            return Some("a call runs without a tick");
        }
        if self.owner == Owner::Waits
            && self.thread != Thread::Ended
            && !moves.by_ref().take(2).any(|(_, thread)| thread == Thread::Ended)
        {
            return Some("the owner waits for a thread that does not end");
        }
        // It may find a permit of a call that has ended, and then ticks once more for as long.
        let rest = usize::try_from(2 * (IDLE_TICKS_MAX + 2)).unwrap();
        if self.is_quiet() && moves.take(rest + 1).count() > rest {
            return Some("nobody calls and the clock does not sleep");
        }
        None
    }
}

/// Goes through every world; gives their number, or what is wrong in one and who brought it about.
fn explore<P: Protocol>() -> Result<usize, String> {
    let mut worlds = vec![(World::<P>::new(), 0, "the beginning")];
    let mut known = BTreeMap::from([(worlds[0].0.clone(), ())]);
    let mut at = 0;
    while let Some((world, _, _)) = worlds.get(at).cloned() {
        if let Some(wrong) = world.wrong() {
            return Err(story(&worlds, at, wrong));
        }
        for (name, next) in world.next() {
            if known.insert(next.clone(), ()).is_none() {
                worlds.push((next, at, name));
            }
        }
        at += 1;
    }
    Ok(worlds.len())
}

fn story<P>(worlds: &[(World<P>, usize, &'static str)], mut at: usize, wrong: &str) -> String {
    let mut names = Vec::new();
    while at != 0 {
        let (_, before, name) = &worlds[at];
        names.push(*name);
        at = *before;
    }
    names.reverse();
    format!("{wrong}, after: {}", names.join(", "))
}

#[test]
fn in_every_order_a_call_has_ticks_and_an_idle_clock_sleeps() {
    let worlds = explore::<Ours>().unwrap();
    assert!(worlds > 10_000, "{worlds} worlds are not all of them");
}

#[test]
fn the_search_finds_a_clock_that_sleeps_on_without_saying_so() {
    let wrong = explore::<Forgetful>().unwrap_err();
    assert!(wrong.starts_with("a call runs without a tick"), "{wrong}");
    // Asleep and woken for nothing, it looks and sleeps on; then a call wakes nobody.
    assert!(wrong.ends_with("the system wakes the thread, the thread, caller 0"), "{wrong}");
}
