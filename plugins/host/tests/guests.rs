//! Every bundled guest as a component, and the guests that have a native twin against it.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use crate::common::{self, Director, Guard, MODES, flows, servers};
use evenkeel_engine::Duration;
use evenkeel_engine::director::builtin::maglev_table;
use evenkeel_engine::director::{FlowClosed, FlowEvent, NewFlow, Selection, ServerLoad, Wishes, builtin};
use evenkeel_engine::plan::{Builtin, OnFault};
use evenkeel_engine::policy::PolicyVerdict;
use evenkeel_plugin_host::Mode;

#[test]
fn every_bundled_component_is_a_scheduler_or_a_policy() {
    for name in evenkeel_plugins_bundled::names() {
        let guest = common::guest(&format!("bundled:{name}"), "");
        let scheduler = common::load_plan(&common::plan_of(guest.clone()), Mode::Epoch);
        let policy = common::load_plan(&common::policy_plan(guest, OnFault::Permit), Mode::Epoch);
        assert_ne!(scheduler.is_ok(), policy.is_ok(), "{name}");
    }
}

#[test]
fn round_robin_shares_by_weight_in_every_batch_size() {
    for mode in MODES {
        for batch in [1, 7, 32, 64] {
            let mut director = Director::new("bundled:round-robin", "", mode, &[4, 2, 1]);
            let count = 7 * batch * 10;
            assert_eq!(
                director.shares(count, batch),
                [40 * batch, 20 * batch, 10 * batch],
                "{mode:?} {batch}"
            );
            assert_eq!(director.stats().decided, u64::from(count));
            assert_eq!((director.stats().faults, director.stats().fallbacks), (0, 0));
        }
    }
}

#[test]
fn least_connections_sees_loads_and_its_own_batch() {
    for mode in MODES {
        let mut director = Director::new("bundled:least-connections", "", mode, &[1, 1, 2]);
        director.loads = vec![
            ServerLoad { active: 5, inactive: 0 },
            ServerLoad { active: 0, inactive: 0 },
            ServerLoad { active: 0, inactive: 0 },
        ];
        assert_eq!(director.shares(6, 6), [0, 2, 4]);
        assert_eq!(director.stats().fallbacks, 0);
    }
}

/// What the native scheduler picks for the same flows.
fn native(kind: Builtin, weights: &[u32], down: Option<usize>, count: u32) -> Vec<Option<u16>> {
    let mut servers = servers(weights);
    if let Some(down) = down {
        servers[down].is_up = false;
    }
    let mut scheduler = builtin(kind);
    scheduler.update(&servers, common::at(0));
    let flows = flows(0, count);
    let mut loads = vec![ServerLoad::default(); servers.len()];
    let mut answers = vec![None; flows.len()];
    scheduler.pick(&mut Selection::new(&flows, &servers, &mut loads, &mut answers), common::at(0));
    answers
}

#[test]
fn maglev_guests_pick_what_the_native_maglev_picks() {
    let sixteen: Vec<u32> = (0..16).map(|server| server * server % 7).collect();
    let farms: [&[u32]; 4] = [&[1], &[4, 2, 1], &[0, 5, 65_535, 1], &sixteen];
    for weights in farms {
        for component in ["bundled:maglev", "bundled:maglev-pick"] {
            let mut director = Director::new(component, "", Mode::Fuel, weights);
            assert_eq!(director.pick(1_000), native(Builtin::Maglev, weights, None, 1_000), "{component}");
            let down = weights.len() - 1;
            director.servers[down].is_up = false;
            director.update();
            director.next_flow = 0;
            assert_eq!(
                director.pick(64),
                native(Builtin::Maglev, weights, Some(down), 64),
                "{component} down"
            );
            assert_eq!(director.stats().faults, 0);
        }
    }
}

#[test]
fn the_table_of_the_maglev_guest_is_the_native_one_entry_for_entry() {
    for weights in [&[4, 2, 1][..], &[1, 100, 3, 0, 7]] {
        let views = servers(weights);
        let mut director = Director::new("bundled:maglev", "size = 4099", Mode::Fuel, weights);
        let table = maglev_table(&views, 4_099);
        let flows: Vec<NewFlow> = (0..4_099).map(|hash| NewFlow { hash, ..flows(0, 1)[0] }).collect();
        let mut answers = vec![None; flows.len()];
        let mut selection = Selection::new(&flows, &views, &mut director.loads, &mut answers);
        director.scheduler.pick(&mut selection, director.now);
        let table: Vec<Option<u16>> = table.into_iter().map(Some).collect();
        assert_eq!(answers, table);
    }
}

#[test]
fn a_table_guest_is_called_once_per_change_and_never_per_flow() {
    let mut director = Director::new("bundled:maglev", "", Mode::Epoch, &[1, 2]);
    let calls = director.stats().calls;
    assert_eq!(calls, 2, "configure and build");
    director.shares(6_400, 64);
    assert_eq!(director.stats().calls, calls);
    assert_eq!(director.stats().decided, 6_400);
}

#[test]
fn rate_guard_lets_the_burst_pass_and_denies_the_rest() {
    for mode in MODES {
        let mut guard =
            Guard::new("bundled:rate-guard", "flows_per_second = 10\nburst = 3", mode, OnFault::Permit);
        let verdicts = guard.decide(&[1, 1, 1, 1, 2]);
        use PolicyVerdict::{Deny, Skip};
        assert_eq!(verdicts, [Skip, Skip, Skip, Deny, Skip]);
        assert_eq!(guard.decide(&[1]), [Deny]);
        guard.now = common::at(1_100);
        assert_eq!(guard.decide(&[1]), [Skip]);
        assert_eq!(guard.decide(&[1]), [Deny]);
        assert_eq!(guard.policy.stats().faults, 0);
    }
}

#[test]
fn only_guests_that_ask_hear_of_flows_and_of_time() {
    let events = [FlowEvent::Closed(FlowClosed { hash: 1, ..FlowClosed::default() }); 64];
    let mut quiet = Director::new("bundled:round-robin", "", Mode::Fuel, &[1]);
    assert_eq!(quiet.scheduler.wishes(), Wishes::default());
    let calls = quiet.stats().calls;
    quiet.hear(&events);
    quiet.scheduler.tick(quiet.now);
    assert_eq!(quiet.scheduler.poll_probe(quiet.now), None);
    assert_eq!(quiet.stats().calls, calls);

    let mut curious = Director::new("bundled:misbehave", "", Mode::Fuel, &[1]);
    let wishes = curious.scheduler.wishes();
    assert!(wishes.opened && wishes.answered && wishes.closed && wishes.probes);
    assert_eq!(wishes.tick, Some(Duration::from_millis(1)));
    let calls = curious.stats().calls;
    curious.hear(&events);
    curious.scheduler.tick(curious.now);
    assert_eq!(curious.stats().calls, calls + 2, "64 events at once, and a tick");
    assert_eq!(curious.scheduler.poll_probe(curious.now), None, "nobody has been picked since");
    curious.pick(1);
    assert_eq!(curious.scheduler.poll_probe(curious.now), Some(0), "the others do not exist");
    assert_eq!(curious.scheduler.poll_probe(curious.now), None);
    assert_eq!(curious.stats().faults, 0);
}

#[test]
fn the_same_calls_give_the_same_answers_for_the_same_fuel() {
    let run = |component: &str| {
        let mut director = Director::new(component, "", Mode::Fuel, &[4, 2, 1, 9]);
        let mut picks = Vec::new();
        for batch in [1, 2, 32, 64, 5] {
            picks.extend(director.pick(batch));
            director.wait(10);
        }
        (picks, format!("{:?}", director.scheduler))
    };
    for component in
        ["bundled:round-robin", "bundled:least-connections", "bundled:maglev", "bundled:maglev-pick"]
    {
        let (first, second) = (run(component), run(component));
        assert_eq!(first, second, "{component}");
        let fuel =
            first.1.split("fuel: ").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap();
        assert!(fuel.parse::<u64>().unwrap() > 1_000, "{component} used {fuel}");
    }
}

#[test]
fn canonical_not_a_numbers_make_a_float_guest_repeatable() {
    let mut director = Director::new("bundled:misbehave", "kind = \"float\"", Mode::Fuel, &[1]);
    director.pick(1);
    assert_eq!(director.stats().decided, 1, "the canonical not-a-number is positive");
}
