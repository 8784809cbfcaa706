//! The exports. See the crate's documentation for what each kind does.

use alloc::string::String;
use alloc::vec::Vec;
use core::hint::black_box;

use evenkeel_plugin_sdk::bindings::policy as policy_world;
use evenkeel_plugin_sdk::bindings::scheduler as scheduler_world;
use evenkeel_plugin_sdk::{
    Answer, Arrival, ConfigureError, Decision, Flow, FlowEvent, Limit, Load, Moment, NO_ANSWER, Options,
    PolicySetup, PolicyWishes, ProbeAnswer, Server, Setup, Verdict, glue, log,
};

/// More memory than any instance may have, in steps that an allocator must ask the host for.
const STEP_BYTES: usize = 1 << 20;

static STATE: glue::Slot<State> = glue::Slot::new();

struct State {
    kind: String,
    /// Whether it misbehaves where it is told something, and not where it is asked.
    is_in_feedback: bool,
    until_ns: u64,
    calls: u64,
    servers: Vec<Server>,
}

struct Component;

/// Reads the options and, for one kind, breaks at once.
fn configure(setup: &Setup) -> Result<(), ConfigureError> {
    let mut options = Options::parse(&setup.options)?;
    let kind = options.text("kind", "none")?;
    let is_in_feedback = options.text("where", "answers")? == "feedback";
    let until_ns = options.integer("until_ns", u64::MAX, 0..=u64::MAX)?;
    options.finish()?;
    assert!(kind != "configure", "misbehave was told to panic in configure");
    STATE.fill(State { kind, is_in_feedback, until_ns, calls: 0, servers: Vec::new() });
    Ok(())
}

/// The kind that holds for this call, after everything that does not end in an answer has happened.
fn begin(now: u64) -> (String, Option<u32>, Option<u32>) {
    begin_in(false, now)
}

/// It has been told something.
fn hear(now: u64) {
    begin_in(true, now);
}

fn begin_in(is_feedback: bool, now: u64) -> (String, Option<u32>, Option<u32>) {
    let (kind, calls, usable, unusable) = STATE.with(|state| {
        let is_meant = state.is_in_feedback == is_feedback;
        state.calls += u64::from(is_meant);
        let is_on = is_meant && now < state.until_ns;
        let kind = if is_on { state.kind.clone() } else { String::from("none") };
        let find = |usable| state.servers.iter().position(|server| server.is_usable() == usable);
        let index = |usable| find(usable).and_then(|index| u32::try_from(index).ok());
        (kind, state.calls, index(true), index(false))
    });
    match kind.as_str() {
        "trap" => assert!(calls % 2 == 1, "misbehave was told to panic in call {calls}"),
        "loop" => {
            let mut turns = 0_u64;
            loop {
                turns = black_box(turns.wrapping_add(1));
            }
        }
        "memory" => loop {
            black_box(Vec::<u8>::with_capacity(STEP_BYTES)).leak();
        },
        "stack" => {
            black_box(deeper(black_box(0)));
        }
        "chatter" => {
            for number in 0..1_000 {
                log::info(format_args!("message {number} of call {calls}"));
            }
        }
        _ => {}
    }
    (kind, usable, unusable)
}

/// Takes some of the stack with every level.
#[expect(unconditional_recursion, reason = "the stack is meant to end")]
fn deeper(level: u64) -> u64 {
    deeper(black_box(level) + 1) + level
}

/// A server that the bits of a computed not-a-number choose: the same on every machine only where those bits are.
fn by_float(now: u64, usable: Option<u32>) -> u32 {
    let zero = black_box(now as f64 * 0.0);
    let (one, other) = (black_box(zero) / zero, black_box(-zero) / zero);
    let bits = one.to_bits() | other.to_bits();
    if bits >> 63 == 0 { usable.unwrap_or(NO_ANSWER) } else { NO_ANSWER }
}

fn pick(count: usize, now: u64) -> Vec<u32> {
    let (kind, usable, unusable) = begin(now);
    let usual = usable.unwrap_or(NO_ANSWER);
    let answer = match kind.as_str() {
        "missing" => {
            return (0..count).map(|number| if number % 2 == 0 { 60_000 } else { usual }).collect();
        }
        "short" => return alloc::vec![usual; count.saturating_sub(1)],
        "long" => return alloc::vec![usual; count + 1],
        "unusable" => unusable.unwrap_or(usual),
        "silent" | "deny" => NO_ANSWER,
        "float" => by_float(now, usable),
        _ => usual,
    };
    alloc::vec![answer; count]
}

impl scheduler_world::exports::evenkeel::plugin::schedule::Guest for Component {
    fn configure(setup: Setup) -> Result<glue::PickWishes, ConfigureError> {
        configure(&setup)?;
        Ok(glue::PickWishes { loads: false })
    }
    fn update(servers: Vec<Server>, now: u64) {
        let is_broken = STATE.with(|state| {
            state.servers = servers;
            state.kind == "update" && now < state.until_ns
        });
        assert!(!is_broken, "misbehave was told to panic in update");
    }
    fn pick(flows: Vec<Flow>, _: Vec<Load>, now: u64) -> Vec<u32> {
        pick(flows.len(), now)
    }
    fn pick_one(_: Flow, now: u64) -> u32 {
        pick(1, now).first().copied().unwrap_or(60_000)
    }
}

impl scheduler_world::exports::evenkeel::plugin::feedback::Guest for Component {
    fn listen() -> glue::Hearing {
        glue::Hearing { opened: true, answered: true, closed: true, tick: 1_000_000, probes: true }
    }
    fn hear(_: Vec<FlowEvent>, now: u64) {
        hear(now);
    }
    fn tick(now: u64) {
        hear(now);
    }
    /// Servers that are not there among the others.
    fn poll_probes(now: u64) -> Vec<u32> {
        hear(now);
        alloc::vec![0, 60_000, u32::MAX]
    }
    fn probe_answered(_: ProbeAnswer, now: u64) {
        hear(now);
    }
}

impl scheduler_world::exports::evenkeel::plugin::snapshot::Guest for Component {
    /// A state that nobody knows.
    fn save(now: u64) -> Vec<u8> {
        begin(now);
        alloc::vec![b'?'; 100]
    }
    fn restore(_: Vec<u8>, now: u64) -> bool {
        begin(now);
        false
    }
}

fn decide(arrivals: &[Arrival], now: u64) -> Vec<Answer> {
    let (kind, _, _) = begin(now);
    let count = arrivals.len();
    let usual = Decision::from(Verdict::Skip).answer();
    match kind.as_str() {
        "missing" => {
            let answer = |number| if number % 2 == 0 { Answer { verdict: 60_000, ..usual } } else { usual };
            (0..count).map(answer).collect()
        }
        "table" => alloc::vec![Answer { verdict: 65_536 + 7, ..usual }; count],
        "limit" => alloc::vec![Answer { limit: 1, ..usual }; count],
        "short" => alloc::vec![usual; count.saturating_sub(1)],
        "long" => alloc::vec![usual; count + 1],
        "deny" => alloc::vec![Decision::from(Verdict::Deny).answer(); count],
        "packets" => {
            let deny = |arrival: &Arrival| arrival.moment != Moment::First && arrival.tcp_flags == 0;
            let answer = |arrival| if deny(arrival) { Verdict::Deny } else { Verdict::Skip };
            arrivals.iter().map(|arrival| Decision::from(answer(arrival)).answer()).collect()
        }
        "limited" => alloc::vec![Verdict::Permit.within(0).answer(); count],
        _ => alloc::vec![usual; count],
    }
}

impl policy_world::exports::evenkeel::plugin::decide::Guest for Component {
    fn configure(setup: PolicySetup) -> Result<PolicyWishes, ConfigureError> {
        configure(&setup.common)?;
        let kind = STATE.with(|state| state.kind.clone());
        let count = if kind == "wish" { 0 } else { 5 };
        let limits = alloc::vec![Limit::per_second(count, 2).for_each_source(32, 64)];
        Ok(PolicyWishes { packets: kind == "packets", limits })
    }
    fn decide(arrivals: Vec<Arrival>, now: u64) -> Vec<Answer> {
        decide(&arrivals, now)
    }
    fn decide_one(arrival: Arrival, now: u64) -> Answer {
        let none = Answer { verdict: 60_000, limit: u32::MAX };
        decide(&[arrival], now).first().copied().unwrap_or(none)
    }
}

scheduler_world::export_scheduler_world!(Component with_types_in evenkeel_plugin_sdk::bindings::scheduler);
policy_world::export_policy_world!(Component with_types_in evenkeel_plugin_sdk::bindings::policy);
evenkeel_plugin_sdk::export_runtime!();
