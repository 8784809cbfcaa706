//! The whole engine under a stream of hostile input: state is kept across packets, time passes, plans change.
//!
//! The input is a program. Each step takes bytes off its front: a few packets as they are or well-formed, of few
//! hosts and ports, with some bytes changed; time; a changed weight; another plan. After each step everything that came
//! in must have ended once or wait, and everything that left must be a packet that a host would take.
//!
//! [`world`] is the plans, [`packets`] what is sent, [`device`] what it is sent through, [`audit`] what is asked of
//! what leaves.

mod audit;
mod device;
mod packets;
pub mod text;
mod world;

use evenkeel_engine::{Duration, Engine, Guests, Instant, step};

use audit::Auditor;
use device::Once;
use packets::Maker;

/// Steps of one input: enough to fill and drain the small tables of these plans many times.
const STEPS_MAX: usize = 512;

/// The most packets of one batch.
const PACKETS_MAX: usize = 24;

/// Calls of the timers after which everything is over: each takes out up to 1,024 flows, of which there are fewer.
const TIMER_CALLS: usize = 4;

/// Runs the program in `data`. Panics when the engine breaks a promise.
///
/// Without Maglev, whose table takes longer to build than all else together: a fuzzer would do little else.
///
/// # Panics
/// When a packet is not accounted for, one that leaves is malformed, or something stays behind at the end.
pub fn run(data: &[u8]) {
    run_in(data, false);
}

/// As [`run`], with Maglev among the schedulers.
///
/// # Panics
/// As [`run`].
pub fn run_with_tables(data: &[u8]) {
    run_in(data, true);
}

fn run_in(data: &[u8], has_tables: bool) {
    let mut maker = Maker::new(Input { data });
    let plan = world::plan(maker.input.features(), has_tables);
    let mut engine = match Engine::new(plan, Guests::default(), Instant::ZERO) {
        Ok(engine) => engine,
        Err(error) => panic!("every plan of this world is sound: {error}"),
    };
    let mut now = Instant::ZERO;
    let mut device = Once::default();
    let mut auditor = Auditor::default();
    for _ in 0..STEPS_MAX {
        if maker.input.data.is_empty() {
            break;
        }
        match maker.input.byte() % 16 {
            0 => now = now.after(Duration::from_millis(u64::from(maker.input.word()) * 20)),
            1 => set_weight(&mut engine, &mut maker.input, now),
            2 => {
                let plan = world::plan(maker.input.features(), has_tables);
                let changed = engine.apply(plan, Guests::default(), now);
                assert!(changed.is_ok(), "{changed:?}");
            }
            3 => engine.announce(),
            count => {
                let most = PACKETS_MAX.min(device.len() + usize::from(count));
                while device.len() < most && maker.make(&mut device) {}
            }
        }
        step(&mut engine, &mut device, now);
        auditor.audit(&device, engine.plan());
        device.clear();
        check(&mut engine);
    }
    drain(&mut engine, now);
}

/// Changes the weight of a real server that is there in every plan.
fn set_weight(engine: &mut Engine, input: &mut Input<'_>, now: Instant) {
    let kind = input.byte();
    let director = world::DIRECTORS.get(usize::from(kind >> 2) % world::DIRECTORS.len()).copied();
    let server = world::SERVERS.get(usize::from(kind & 3) % world::SERVERS.len()).copied();
    let (director, server) = (director.unwrap_or_default(), server.unwrap_or_default());
    let changed = engine.set_weight(director, server, u32::from(input.byte()), now);
    assert!(changed.is_ok(), "every director has these servers: {changed:?}");
}

/// What is so after each step.
fn check(engine: &mut Engine) {
    let counters = engine.counters();
    assert!(counters.is_conserved(), "{counters:?}");
    let open = counters.flows_opened - counters.flows_closed;
    assert_eq!(open, engine.flow_count() as u64, "flows are counted as they come and go");
    let limits = engine.plan().limits;
    let half_open = engine.half_open_count();
    assert!(half_open <= usize::from(limits.half_open_max), "{half_open} of {}", limits.half_open_max);
    let flows = engine.flow_count() - half_open;
    // An answered flow leaves the ring even when the flow table is full, so that the two bounds hold together.
    assert!(flows <= limits.flows_max as usize + usize::from(limits.half_open_max), "{flows}");
    assert!(engine.sticky_count() <= limits.persistent_max as usize, "clients that stick are bounded");
    while engine.poll_event().is_some() {}
}

/// Lets all flows end and checks that nothing of them is left.
fn drain(engine: &mut Engine, now: Instant) {
    let mut end = now;
    let mut device = Once::default();
    for _ in 0..TIMER_CALLS {
        end = end.after(Duration::from_secs(10_000));
        step(engine, &mut device, end);
    }
    assert_eq!((engine.flow_count(), engine.ports_held()), (0, 0), "everything ends");
    assert_eq!((engine.half_open_count(), engine.sticky_count()), (0, 0), "nothing waits and nobody sticks");
    let counters = engine.counters();
    assert!(counters.waiting == 0 && counters.is_conserved(), "{counters:?}");
    for director in engine.directors() {
        let is_idle = |server: &evenkeel_engine::ServerStatus| (server.active, server.inactive) == (0, 0);
        assert!(director.servers.iter().all(is_idle), "{director:?}");
    }
}

/// A program that is eaten from its front; zeros follow its end.
pub(crate) struct Input<'a> {
    data: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.data.split_first() else { return 0 };
        self.data = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn long(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    /// What chooses a plan: 48 bits.
    fn features(&mut self) -> u64 {
        u64::from(self.long()) << 16 | u64::from(self.word())
    }

    fn take(&mut self, count: usize) -> Vec<u8> {
        let (head, tail) = self.data.split_at(count.min(self.data.len()));
        self.data = tail;
        head.to_vec()
    }
}
