//! Every way in which a guest can fail: the flow still gets a server, the fault is counted and named, and the
//! breaker opens and closes.

#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::common::{self, Director, Guard, MODES, guest, load_plan, policy_plan};
use evenkeel_engine::plan::{Limit, LimitKey, OnFault};
use evenkeel_engine::policy::{PolicyAnswer, PolicyFlow, PolicyVerdict};
use evenkeel_engine::{Duration, InterfaceId};
use evenkeel_plugin_host::Mode;

/// Kind of fault, words that its reason has, calls of 8 flows that fail until the breaker opens.
const FAULTS: &[(&str, &str)] = &[
    ("loop", "longer than its budget of 100ms"),
    ("memory", "more memory than its limit of 16777216 bytes"),
    ("stack", "its stack is used up"),
    ("missing", "it picked server 60000, and there are 3, counted from 0"),
    ("unusable", "it picked server 2, which is down or drained"),
    ("short", "it answered 7 of 8 flows"),
    ("long", "it answered 9 of 8 flows"),
];

fn director(kind: &str, mode: Mode) -> Director {
    Director::new("bundled:misbehave", &format!("kind = \"{kind}\""), mode, &[1, 1, 0])
}

#[test]
fn every_fault_is_counted_and_named_and_no_flow_is_lost() {
    for mode in MODES {
        for (kind, reason) in FAULTS {
            let mut director = director(kind, mode);
            let answers = director.pick(8);
            assert!(answers.iter().all(Option::is_some), "{kind} in {mode:?}: {answers:?}");
            let stats = director.stats();
            assert_eq!(stats.faults, 1, "{kind}");
            assert_eq!(stats.decided + stats.fallbacks, 8, "{kind}");
            assert!(stats.fallbacks > 0, "{kind}");
            let fault = director.fault();
            assert_eq!((fault.component.as_str(), fault.call), ("bundled:misbehave", "pick"), "{kind}");
            assert!(fault.reason.contains(reason), "{kind}: {}", fault.reason);
            assert_eq!(director.scheduler.take_fault(), None, "{kind}: told once");
        }
    }
}

#[test]
fn a_single_flow_fails_alike() {
    for (kind, _) in FAULTS {
        let mut director = director(kind, Mode::Fuel);
        assert!(director.pick(1)[0].is_some(), "{kind}");
        assert_eq!(director.stats().faults, u64::from(*kind != "long"), "{kind}");
    }
}

#[test]
fn a_trap_on_every_second_call_loses_nothing_and_says_what_the_guest_said() {
    for mode in MODES {
        let mut director = director("trap", mode);
        for call in 0_u64..10 {
            assert!(director.pick(8).iter().all(Option::is_some), "call {call} in {mode:?}");
            assert_eq!(director.stats().faults, call.div_ceil(2), "call {call}");
            director.wait(1_500);
        }
        let fault = director.fault();
        let words = "misbehave was told to panic in call 2";
        assert!(fault.reason.contains(words) && fault.reason.contains("component.rs:"), "{}", fault.reason);
        assert!(fault.reason.contains("evenkeel_guest_misbehave"), "a backtrace: {}", fault.reason);
        assert_eq!(director.stats().decided, 40);
        assert_eq!(director.stats().fallbacks, 40);
    }
}

#[test]
fn flows_that_the_guest_answered_keep_their_server_and_the_fallback_sees_the_rest() {
    let mut director = director("missing", Mode::Fuel);
    let answers = director.pick(8);
    let guests: Vec<_> = answers.iter().skip(1).step_by(2).collect();
    assert_eq!(guests, [&Some(0); 4], "the guest's own");
    let rest: Vec<u16> = answers.iter().step_by(2).map(|answer| answer.unwrap()).collect();
    assert_eq!(rest.iter().filter(|server| **server == 0).count(), 2, "round robin over the rest: {rest:?}");
    assert_eq!((director.stats().decided, director.stats().fallbacks), (4, 4));
    let placed: u32 = director.loads.iter().map(|load| load.active).sum();
    assert_eq!(placed, 8);
}

#[test]
fn no_answer_is_no_fault() {
    let mut director = director("silent", Mode::Fuel);
    assert!(director.pick(8).iter().all(Option::is_some));
    let stats = director.stats();
    assert_eq!((stats.faults, stats.decided, stats.fallbacks), (0, 0, 8));
}

#[test]
fn the_breaker_opens_after_eight_faults_and_closes_when_the_guest_recovers() {
    for mode in MODES {
        let options = "kind = \"loop\"\nuntil_ns = 4500000000";
        let mut director = Director::new("bundled:misbehave", options, mode, &[1, 1]);
        let configured = director.stats().calls;
        for _ in 0..20 {
            assert!(director.pick(4).iter().all(Option::is_some));
        }
        let stats = director.stats();
        assert_eq!(stats.faults, 8, "the breaker is open and the guest is not called");
        assert_eq!(stats.fallbacks, 80);
        assert_eq!(stats.calls, configured + 8 + 7 * 2, "each new instance is configured and updated");
        director.wait(1_000);
        director.pick(4);
        assert_eq!(director.stats().faults, 9, "one trial at 2 s, which fails");
        director.pick(4);
        assert_eq!(director.stats().faults, 9, "and opens it again");
        director.wait(1_999);
        director.pick(4);
        assert_eq!((director.stats().faults, director.stats().decided), (9, 0));
        director.wait(1_001);
        assert_eq!(director.pick(4), [Some(0); 4], "a trial at 5 s, which goes well");
        assert_eq!(director.pick(4), [Some(0); 4]);
        assert_eq!((director.stats().faults, director.stats().decided), (9, 8));
    }
}

#[test]
fn a_fault_in_update_opens_the_breaker_at_once() {
    let mut director = director("update", Mode::Fuel);
    let fault = director.fault();
    assert_eq!(fault.call, "update");
    assert!(fault.reason.contains("told to panic in update"), "{}", fault.reason);
    let calls = director.stats().calls;
    assert!(director.pick(4).iter().all(Option::is_some));
    assert_eq!(director.stats().calls, calls);
}

#[test]
fn a_server_list_that_changed_while_the_breaker_was_open_is_known_afterwards() {
    let options = "kind = \"loop\"\nuntil_ns = 1500000000";
    let mut director = Director::new("bundled:misbehave", options, Mode::Fuel, &[1, 1]);
    for _ in 0..8 {
        director.pick(1);
    }
    director.servers[0].is_up = false;
    director.update();
    director.wait(1_000);
    assert_eq!(director.pick(4), [Some(1); 4]);
    assert_eq!(director.stats().decided, 4);
}

#[test]
fn without_a_usable_server_nobody_is_asked() {
    let mut director = director("loop", Mode::Fuel);
    for server in &mut director.servers {
        server.is_up = false;
    }
    director.update();
    let calls = director.stats().calls;
    assert_eq!(director.pick(4), [None; 4]);
    assert_eq!(director.stats().calls, calls);
}

#[test]
fn chatter_is_held_back_and_costs_only_its_time() {
    let mut plan = guest("bundled:misbehave", "kind = \"chatter\"");
    plan.call_budget = Duration::from_millis(500);
    let mut director = Director::with(plan, Mode::Fuel, &[1]);
    assert_eq!(director.pick(4), [Some(0); 4]);
    assert_eq!(director.stats().faults, 0);
}

#[test]
fn a_budget_of_fuel_is_exact() {
    let faults = |nanoseconds| {
        let mut plan = guest("bundled:round-robin", "");
        plan.call_budget = Duration::from_nanos(nanoseconds);
        let mut director = Director::with(plan, Mode::Fuel, &[1, 1, 1]);
        director.pick(32);
        director.stats().faults
    };
    // The least budget that is enough, to the nanosecond.
    let (mut short, mut enough) = (1_000, 1_000_000);
    while enough - short > 1 {
        let middle = u64::midpoint(short, enough);
        if faults(middle) == 0 { enough = middle } else { short = middle }
    }
    for _ in 0..3 {
        assert_eq!((faults(short), faults(enough)), (1, 0), "at {short} and {enough} ns");
    }
}

#[test]
fn a_policy_that_fails_says_what_the_configuration_says() {
    for mode in MODES {
        for (on_fault, verdict) in [
            (OnFault::Permit, PolicyVerdict::Permit),
            (OnFault::Deny, PolicyVerdict::Deny),
            (OnFault::Native, PolicyVerdict::Skip),
        ] {
            for kind in ["loop", "memory", "stack", "short", "long"] {
                let options = format!("kind = \"{kind}\"");
                let mut guard = Guard::new("bundled:misbehave", &options, mode, on_fault);
                assert_eq!(guard.decide(&[1, 2, 3]), [verdict; 3], "{kind}");
                assert_eq!(guard.policy.stats().faults, 1, "{kind}");
                assert_eq!(guard.policy.stats().fallbacks, 3, "{kind}");
                let fault = guard.policy.take_fault().unwrap();
                assert_eq!((fault.component.as_str(), fault.call), ("bundled:misbehave", "decide"));
            }
        }
    }
}

#[test]
fn a_verdict_for_a_director_that_does_not_exist_is_refused_alone() {
    let mut guard = Guard::new("bundled:misbehave", "kind = \"missing\"", Mode::Fuel, OnFault::Deny);
    use PolicyVerdict::{Deny, Skip};
    assert_eq!(guard.decide(&[1, 2, 3]), [Deny, Skip, Deny]);
    let fault = guard.policy.take_fault().unwrap();
    assert_eq!(fault.reason, "it chose director 60000, and there are 1, counted from 0");
    assert_eq!(guard.policy.stats().decided, 1);
}

#[test]
fn a_table_or_a_limit_that_does_not_exist_is_refused() {
    let cases = [
        ("table", "it chose routing table 7, and there are 0, counted from 0"),
        ("limit", "it named limit 1, and it wished 1, counted from 0"),
    ];
    for (kind, reason) in cases {
        let options = format!("kind = \"{kind}\"");
        let mut guard = Guard::new("bundled:misbehave", &options, Mode::Fuel, OnFault::Deny);
        assert_eq!(guard.decide(&[1, 2]), [PolicyVerdict::Deny; 2], "{kind}");
        assert_eq!(guard.policy.take_fault().unwrap().reason, reason);
        assert_eq!(guard.policy.stats().fallbacks, 2);
    }
}

#[test]
fn wishes_that_can_not_be_are_told_when_the_policy_is_loaded() {
    let plan = policy_plan(guest("bundled:misbehave", "kind = \"wish\""), OnFault::Permit);
    let [error] = &load_plan(&plan, Mode::Fuel).unwrap_err()[..] else { panic!("one error") };
    let reason = "its wishes can not be: limit number 0, limit: 0 is outside of 1 to 1000000000";
    assert_eq!(error.reason, reason);
}

#[test]
fn wishes_and_limits_of_a_policy_reach_the_engine() {
    let guard = Guard::new("bundled:misbehave", "kind = \"packets\"", Mode::Fuel, OnFault::Permit);
    let wishes = guard.policy.wishes();
    assert!(wishes.packets);
    let key = LimitKey::Source(32, 64);
    assert_eq!(wishes.limits, [Limit { count: 5, period: Duration::from_secs(1), burst: 2, key }]);
    let mut guard = Guard::new("bundled:misbehave", "kind = \"limited\"", Mode::Fuel, OnFault::Permit);
    assert!(!guard.policy.wishes().packets);
    let flow = PolicyFlow::new(1, common::tuple(1), InterfaceId(0));
    let answer = PolicyAnswer { verdict: PolicyVerdict::Permit, limit: Some(0) };
    assert_eq!(guard.answer(&[flow, flow, flow]), [answer; 3], "the engine meters, not the host");
}

#[test]
fn the_breaker_of_a_policy_opens_too() {
    let mut guard = Guard::new("bundled:misbehave", "kind = \"loop\"", Mode::Fuel, OnFault::Permit);
    for _ in 0..20 {
        assert_eq!(guard.decide(&[1]), [PolicyVerdict::Permit]);
    }
    assert_eq!(guard.policy.stats().faults, 8);
}
