//! Schedulers that look at loads, at delays, or at chance.

use super::*;
use crate::director::{FlowAnswered, FlowClosed, FlowEnd, ProbeAnswer};
use crate::plan::{Options, ProbeSource, Tuned};
use crate::time::Duration;

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

/// One flow to servers with these loads; who gets it.
fn one(
    scheduler: &mut dyn Scheduler,
    servers: &[ServerView],
    loads: &mut [ServerLoad],
    now: Instant,
) -> Option<u16> {
    let mut answer = [None];
    let flow = flows(1, Protocol::TCP);
    scheduler.pick(&mut Selection::new(&flow, servers, loads, &mut answer), now);
    answer[0]
}

fn loads(active: &[u32]) -> Vec<ServerLoad> {
    active.iter().map(|active| ServerLoad { active: *active, inactive: 0 }).collect()
}

/// How often each server gets a flow when all find these loads.
fn histogram(tuned: Tuned, servers: &[ServerView], active: &[u32], count: u32) -> Vec<u32> {
    let mut scheduler = native(&tuned, 3);
    scheduler.update(servers, Instant::ZERO);
    let mut all = vec![0; servers.len()];
    for _ in 0..count {
        if let Some(server) = one(&mut *scheduler, servers, &mut loads(active), Instant::ZERO) {
            all[usize::from(server)] += 1;
        }
    }
    all
}

#[test]
fn smooth_round_robin_spreads_turns_as_far_apart_as_they_can_be() {
    let servers = servers(&[5, 1, 1]);
    let picks =
        picks(&mut *fresh(Builtin::SmoothRoundRobin, &servers), &servers, &flows(14, Protocol::TCP), 3);
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0].map(Some));
}

#[test]
fn static_round_robin_walks_its_map() {
    let servers = servers(&[2, 4, 2]);
    let picks =
        picks(&mut *fresh(Builtin::StaticRoundRobin, &servers), &servers, &flows(8, Protocol::TCP), 3);
    assert_eq!(counts(&picks), BTreeMap::from([(Some(0), 2), (Some(1), 4), (Some(2), 2)]));
    assert_eq!(picks[..4], picks[4..]);
}

#[test]
fn the_shortest_queue_is_joined_and_equals_share() {
    let equal = servers(&[1; 4]);
    let all = histogram(Tuned::from(Builtin::JoinShortestQueue), &equal, &[3, 1, 1, 2], 10_000);
    assert_eq!((all[0], all[3]), (0, 0));
    assert!((4_700..5_300).contains(&all[1]), "{all:?}");
    // (flows + 1) / weight: 4/4, 2/1, 9/8.
    let all = histogram(Tuned::from(Builtin::JoinShortestQueue), &servers(&[4, 1, 8]), &[3, 1, 8], 10);
    assert_eq!(all, [10, 0, 0]);
}

#[test]
fn an_idle_server_is_joined_and_else_any() {
    let all = histogram(Tuned::from(Builtin::JoinIdleQueue), &servers(&[1, 1, 3, 1]), &[7, 0, 0, 1], 10_000);
    assert_eq!((all[0], all[3]), (0, 0));
    assert!((7_200..7_800).contains(&all[2]), "by weight: {all:?}");
    let all = histogram(Tuned::from(Builtin::JoinIdleQueue), &servers(&[1, 2, 1]), &[9, 1, 1], 10_000);
    assert!((4_700..5_300).contains(&all[1]) && all[0] > 2_200, "{all:?}");
}

#[test]
fn idle_is_what_has_no_open_connection_or_for_datagrams_no_entry() {
    let servers = servers(&[1, 1]);
    let mut scheduler = fresh(Builtin::JoinIdleQueue, &servers);
    let mut both = [ServerLoad { active: 0, inactive: 9 }, ServerLoad { active: 1, inactive: 0 }];
    for _ in 0..20 {
        both[0].active = 0;
        assert_eq!(
            one(&mut *scheduler, &servers, &mut both, Instant::ZERO),
            Some(0),
            "those nine are closing"
        );
    }
    let udp = flows(1, Protocol::UDP);
    let mut answer = [None];
    let mut both = [ServerLoad { active: 0, inactive: 9 }, ServerLoad::default()];
    scheduler.pick(&mut Selection::new(&udp, &servers, &mut both, &mut answer), Instant::ZERO);
    assert_eq!(answer, [Some(1)]);
}

#[test]
fn of_d_choices_the_least_busy_wins() {
    let all = servers(&[1; 4]);
    let of = |choices| {
        let options = Options { choices: Some(choices), ..Options::default() };
        histogram(Tuned { kind: Builtin::PowerOfChoices, options }, &all, &[0, 1, 2, 3], 60_000)
    };
    // With d different ones of 4, the least busy one is there in d of 4 cases, the next in the rest, ...
    for (choices, expected) in [
        (1, [15_000, 15_000, 15_000, 15_000]),
        (2, [30_000, 20_000, 10_000, 0]),
        (3, [45_000, 15_000, 0, 0]),
        (4, [60_000, 0, 0, 0]),
    ] {
        let actual = of(choices);
        let is_close = actual.iter().zip(expected).all(|(actual, expected)| actual.abs_diff(expected) < 900);
        assert!(is_close, "{choices}: {actual:?}");
    }
}

#[test]
fn two_choices_make_the_longest_queue_far_shorter_than_one() {
    let all = servers(&[1; 200]);
    let longest = |choices| {
        let options = Options { choices: Some(choices), ..Options::default() };
        let mut scheduler = native(&Tuned { kind: Builtin::PowerOfChoices, options }, 5);
        scheduler.update(&all, Instant::ZERO);
        let picks = picks(&mut *scheduler, &all, &flows(200, Protocol::TCP), 1);
        counts(&picks).into_values().max().unwrap()
    };
    let (one, two) = (longest(1), longest(2));
    assert!(one >= 4 && two <= 3, "{one} {two}");
}

#[test]
fn twos_draws_by_weight_with_one_chance_more_for_the_head_of_the_list() {
    // One draw alone decides where the loads leave no choice: the second is never better than the first.
    let all = histogram(Tuned::from(Builtin::RandomTwos), &servers(&[1, 2, 1]), &[0, 0, 0], 100_000);
    // Of five values the head, which is the last server of the plan, has two.
    for (actual, chances) in all.iter().zip([1.0, 2.0, 2.0]) {
        assert!((f64::from(*actual) / 100_000.0 - chances / 5.0).abs() < 0.006, "{all:?}");
    }
    // Twice as many connections at the same weight: only two draws of it choose it.
    let all = histogram(Tuned::from(Builtin::RandomTwos), &servers(&[1, 1]), &[1, 2], 90_000);
    assert!((f64::from(all[1]) / 90_000.0 - 4.0 / 9.0).abs() < 0.01, "{all:?}");
}

#[test]
fn random_with_one_choice_follows_weights_and_ties_go_to_the_quieter() {
    let one_choice = Options { choices: Some(1), ..Options::default() };
    let tuned = Tuned { kind: Builtin::Random, options: one_choice };
    let all = histogram(tuned, &servers(&[100, 200, 100]), &[0, 0, 0], 40_000);
    assert!((19_000..21_000).contains(&all[1]), "{all:?}");
    let all = histogram(Tuned::from(Builtin::Random), &servers(&[100, 100]), &[5, 0], 4_000);
    assert!((900..1_100).contains(&all[0]), "only where both draws meet it: {all:?}");
    // With the same load and no weight between them, the rate of the last second evens out what chance does.
    let all = histogram(Tuned::from(Builtin::Random), &servers(&[100, 100, 100]), &[0, 0, 0], 3_000);
    assert!(all.iter().all(|count| (980..=1_020).contains(count)), "{all:?}");
}

/// HAProxy's tree as a list: places in order of their key, and of their coming.
fn slow_leastconn(queue: &mut Vec<(u64, usize)>, weights: &[u32], loads: &[ServerLoad]) -> Option<usize> {
    for (server, load) in loads.iter().enumerate() {
        let flows = u64::from(load.active);
        let key = if flows == 0 {
            0
        } else {
            ((flows + 1) * 4096).checked_div(u64::from(weights[server]) * 16).unwrap_or(u64::MAX)
        };
        let known = queue.iter().position(|(_, other)| *other == server).unwrap();
        if queue[known].0 != key {
            queue.remove(known);
            let place = queue.iter().position(|(other, _)| *other > key).unwrap_or(queue.len());
            queue.insert(place, (key, server));
        }
    }
    queue.iter().map(|(_, server)| *server).find(|server| weights[*server] > 0)
}

proptest! {
    #[test]
    fn leastconn_is_haproxys_queue(
        weights in proptest::collection::vec(0_u32..5, 1..8),
        ends in proptest::collection::vec(proptest::option::of(any::<prop::sample::Index>()), 1..120),
    ) {
        let all = servers(&weights);
        let mut scheduler = fresh(Builtin::Leastconn, &all);
        let mut loads = loads(&vec![0; weights.len()]);
        let mut queue: Vec<(u64, usize)> = (0..weights.len()).map(|server| (0, server)).collect();
        let mut open: Vec<usize> = Vec::new();
        for end in ends {
            if let Some(end) = end.filter(|_| !open.is_empty()) {
                let server = open.remove(end.index(open.len()));
                loads[server].active -= 1;
            }
            let wanted = slow_leastconn(&mut queue, &weights, &loads);
            let ours = one(&mut *scheduler, &all, &mut loads, Instant::ZERO).map(usize::from);
            prop_assert_eq!(ours, wanted);
            open.extend(ours);
        }
    }

    #[test]
    fn every_whole_turn_of_swrr_is_exact(weights in proptest::collection::vec(0_u32..9, 1..8)) {
        let servers = servers(&weights);
        let total: u32 = weights.iter().sum();
        for kind in [Builtin::SmoothRoundRobin, Builtin::StaticRoundRobin] {
            let counts = counts(&picks(&mut *fresh(kind, &servers), &servers, &flows(total * 2, Protocol::TCP), 8));
            for (server, weight) in (0..).zip(&weights) {
                prop_assert_eq!(counts.get(&Some(server)).copied().unwrap_or(0), 2 * *weight as usize, "{:?}", kind);
            }
        }
    }

    #[test]
    fn haproxys_bound_holds_at_every_moment(weights in proptest::collection::vec(1_u32..6, 1..8), factor in 101_u32..250) {
        let all = servers(&weights);
        let options = Options {
            hash_type: Some(crate::plan::HashType::Consistent),
            balance_factor: Some(factor),
            ..Options::default()
        };
        let mut scheduler = native(&Tuned { kind: Builtin::Source, options }, 0);
        scheduler.update(&all, Instant::ZERO);
        let mut loads = loads(&vec![0; weights.len()]);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight) * 16).sum();
        for (flow, served) in flows(120, Protocol::TCP).into_iter().zip(0_u64..) {
            let mut answer = [None];
            scheduler.pick(&mut Selection::new(&[flow], &all, &mut loads, &mut answer), Instant::ZERO);
            let server = usize::from(answer[0].unwrap());
            let slots = ((served + 1) * u64::from(factor)).div_ceil(100);
            let weight = u64::from(weights[server]) * 16;
            let before: u64 = weights[..server].iter().map(|weight| u64::from(*weight) * 16).sum();
            let rest = slots % total;
            let room = weight * (slots / total) + (before + weight) * rest / total - before * rest / total;
            prop_assert!(u64::from(loads[server].active) <= room.max(1), "{} of {}", loads[server].active, room);
        }
    }
}

#[test]
fn the_first_server_takes_all_until_it_is_full() {
    let mut all = servers(&[1, 5, 1]);
    let mut scheduler = fresh(Builtin::First, &all);
    assert_eq!(one(&mut *scheduler, &all, &mut loads(&[9, 0, 0]), Instant::ZERO), Some(0));
    (all[0].is_up, all[0].is_full) = (false, true);
    scheduler.update(&all, Instant::ZERO);
    assert_eq!(one(&mut *scheduler, &all, &mut loads(&[9, 0, 0]), Instant::ZERO), Some(1));
}

#[test]
fn a_server_that_is_full_changes_nothing_for_the_others() {
    let all = servers(&[2; 8]);
    let mut full = all.clone();
    (full[3].is_up, full[3].is_full) = (false, true);
    let flows = flows(400, Protocol::TCP);
    for kind in [
        Builtin::Maglev,
        Builtin::MaglevHashing,
        Builtin::SourceHashing,
        Builtin::Source,
        Builtin::Rendezvous,
        Builtin::Ring,
        Builtin::Anchor,
        Builtin::Dx,
        Builtin::Jump,
        Builtin::MultiProbe,
        Builtin::Modulo,
    ] {
        let mut scheduler = fresh(kind, &all);
        let before = picks(&mut *scheduler, &all, &flows, 64);
        scheduler.update(&full, Instant::ZERO);
        for (before, during) in before.iter().zip(picks(&mut *scheduler, &full, &flows, 64)) {
            assert!(during.is_some() && during != Some(3), "{kind:?}");
            assert!(*before == Some(3) || *before == during, "{kind:?}");
        }
    }
}

#[test]
fn least_request_takes_the_fewer_of_two_or_lowers_weights_by_flows() {
    let even = histogram(Tuned::from(Builtin::LeastRequest), &servers(&[7; 3]), &[0, 1, 2], 30_000);
    assert!(even[2] == 0 && (19_000..21_000).contains(&even[0]), "{even:?}");
    let bias = |bias| Tuned {
        kind: Builtin::LeastRequest,
        options: Options { bias: Some(bias), ..Options::default() },
    };
    // Without bias plain round robin by weight; with 100 hundredths weight / (flows + 1): 4/4, 2/1.
    assert_eq!(histogram(bias(0), &servers(&[4, 2]), &[3, 0], 600), [400, 200]);
    let biased = histogram(bias(100), &servers(&[4, 2]), &[3, 0], 600);
    assert!(biased[0].abs_diff(200) <= 1, "{biased:?}");
    let twice = histogram(bias(200), &servers(&[4, 2]), &[1, 0], 600);
    assert!(twice[0].abs_diff(200) <= 1, "4 / 2^2 against 2: {twice:?}");
}

#[test]
fn least_request_keeps_its_shares_for_ever() {
    // A server of weight 1 among heavy ones, for so long that time begins again many times.
    let servers = servers(&[1, 2]);
    let tuned =
        Tuned { kind: Builtin::LeastRequest, options: Options { bias: Some(1000), ..Options::default() } };
    let mut scheduler = native(&tuned, 3);
    scheduler.update(&servers, Instant::ZERO);
    let mut all = [0_u32; 2];
    for _ in 0..30_000 {
        // 3^10 and 2^10 in the way of the weights: a step of 29,000 each time.
        let server = one(&mut *scheduler, &servers, &mut loads(&[2, 2]), Instant::ZERO).unwrap();
        all[usize::from(server)] += 1;
    }
    assert!(all[0].abs_diff(10_000) <= 2, "{all:?}");
}

fn answered(server: u16, milliseconds: u64) -> FlowAnswered {
    FlowAnswered { server, after: Duration::from_millis(milliseconds) }
}

#[test]
fn peak_ewma_prefers_the_faster_and_forgets_slowly() {
    let servers = servers(&[1, 1]);
    let mut scheduler = fresh(Builtin::PeakEwma, &servers);
    let ask = |scheduler: &mut dyn Scheduler, active: [u32; 2], now| {
        one(scheduler, &servers, &mut loads(&active), now)
    };
    scheduler.flows_answered(&[answered(0, 10), answered(1, 40)], at(0));
    assert_eq!(ask(&mut *scheduler, [0, 0], at(0)), Some(0));
    assert_eq!(ask(&mut *scheduler, [2, 0], at(0)), Some(0), "30 against 40");
    assert_eq!(ask(&mut *scheduler, [4, 0], at(0)), Some(1), "50 against 40");
    // It jumps up at once, and follows shorter times by and by: after 10 s by 1 - 1/e.
    scheduler.flows_answered(&[answered(0, 400)], at(0));
    assert_eq!(ask(&mut *scheduler, [0, 0], at(0)), Some(1));
    scheduler.flows_answered(&[answered(0, 10)], at(10_000));
    // 10 + 390 / e = 153 against 40 / e = 15.
    assert_eq!(ask(&mut *scheduler, [0, 8], at(10_000)), Some(1));
    assert_eq!(ask(&mut *scheduler, [0, 10], at(10_000)), Some(0));
}

#[test]
fn peak_ewma_tries_the_unknown_once_and_a_refusal_costs() {
    let servers = servers(&[1, 1]);
    let mut scheduler = fresh(Builtin::PeakEwma, &servers);
    scheduler.flows_answered(&[answered(0, 1)], at(0));
    assert_eq!(one(&mut *scheduler, &servers, &mut loads(&[0, 0]), at(0)), Some(1), "never tried");
    assert_eq!(one(&mut *scheduler, &servers, &mut loads(&[50, 1]), at(0)), Some(0), "it has one to answer");
    let refused = FlowClosed { server: 1, end: FlowEnd::Reset, packets_to: 1, ..FlowClosed::default() };
    scheduler.flows_closed(&[refused], at(1));
    assert_eq!(
        one(&mut *scheduler, &servers, &mut loads(&[50, 0]), at(1)),
        Some(0),
        "fast to refuse is not fast"
    );
    let unanswered = FlowClosed { server: 0, end: FlowEnd::Unanswered, ..FlowClosed::default() };
    scheduler.flows_closed(&[unanswered], at(2));
    assert_eq!(one(&mut *scheduler, &servers, &mut loads(&[5, 0]), at(2)), Some(1));
}

fn prequal(options: Options) -> Box<dyn Scheduler> {
    let options = Options { probe_source: Some(ProbeSource::Servers), ..options };
    native(&Tuned { kind: Builtin::Prequal, options }, 9)
}

fn tell(scheduler: &mut dyn Scheduler, server: u16, in_flight: u32, milliseconds: u64, now: Instant) {
    let answer = ProbeAnswer { server, in_flight, latency: Duration::from_millis(milliseconds) };
    scheduler.probe_answered(answer, now);
}

#[test]
fn prequal_takes_the_fastest_that_is_not_hot_and_else_the_least_busy() {
    let servers = servers(&[1; 20]);
    let mut scheduler = prequal(Options { hot_quantile: Some(75), ..Options::default() });
    scheduler.update(&servers, Instant::ZERO);
    for (server, in_flight, latency) in [(1, 2, 30), (2, 9, 1), (3, 3, 20), (4, 1, 25)] {
        tell(&mut *scheduler, server, in_flight, latency, at(0));
    }
    // Three of the four have at most 3 in flight: 2 is hot, though the fastest.
    assert_eq!(one(&mut *scheduler, &servers, &mut loads(&[0; 20]), at(0)), Some(3));
    let mut scheduler = prequal(Options { hot_quantile: Some(0), ..Options::default() });
    scheduler.update(&servers, Instant::ZERO);
    for (server, in_flight, latency) in [(1, 5, 30), (2, 9, 1), (3, 5, 20)] {
        tell(&mut *scheduler, server, in_flight, latency, at(0));
    }
    assert_eq!(
        one(&mut *scheduler, &servers, &mut loads(&[0; 20]), at(0)),
        Some(3),
        "not hotter than the least"
    );
}

#[test]
fn prequal_forgets_old_answers_and_those_of_servers_that_went() {
    let servers = servers(&[1; 20]);
    let mut scheduler =
        prequal(Options { probe_age: Some(Duration::from_millis(100)), ..Options::default() });
    scheduler.update(&servers, Instant::ZERO);
    (1..4).for_each(|server| tell(&mut *scheduler, server, 0, 1, at(0)));
    let mut seen = std::collections::BTreeSet::new();
    (0..200).for_each(|_| {
        seen.extend(one(&mut *scheduler, &servers, &mut loads(&[0; 20]), at(101)));
    });
    assert!(seen.len() > 15, "all at random: {seen:?}");
    (1..4).for_each(|server| tell(&mut *scheduler, server, 0, u64::from(server), at(200)));
    let mut fewer = servers.clone();
    fewer.remove(1);
    scheduler.update(&fewer, at(200));
    // The fastest is gone; the next one stands one place further ahead.
    assert_eq!(one(&mut *scheduler, &fewer, &mut loads(&[0; 19]), at(200)), Some(1));
    // An answer of one that may not be picked is left out.
    fewer[5].is_up = false;
    scheduler.update(&fewer, at(200));
    tell(&mut *scheduler, 5, 0, 0, at(200));
    assert_ne!(one(&mut *scheduler, &fewer, &mut loads(&[0; 19]), at(200)), Some(5));
}

#[test]
fn prequal_uses_an_answer_a_few_times_and_counts_what_it_sends() {
    let servers = servers(&[1; 100]);
    // (1 + 1) / ((1 - 16/100) * 3 - 1) = 1.3 uses in the mean.
    let mut scheduler = prequal(Options::default());
    scheduler.update(&servers, Instant::ZERO);
    let mut uses = 0;
    for _ in 0..2_000 {
        for server in 0..3 {
            tell(&mut *scheduler, server + 1, 0, 1, at(0));
        }
        // Answers of server 0 are the best there are until they are used up.
        tell(&mut *scheduler, 0, 0, 0, at(0));
        for _ in 0..8 {
            uses += u32::from(one(&mut *scheduler, &servers, &mut loads(&[0; 100]), at(0)) == Some(0));
        }
    }
    let mean = f64::from(uses) / 2_000.0;
    assert!((1.0..1.45).contains(&mean), "{mean}");
}

#[test]
fn prequal_by_its_own_flows_finds_the_fast_ones() {
    let servers = servers(&[1; 10]);
    let mut scheduler = fresh(Builtin::Prequal, &servers);
    assert!(scheduler.wants_answers() && scheduler.poll_probe(at(0)).is_none() && !scheduler.sends_probes());
    let all: Vec<_> = (0..10).map(|server| answered(server, if server == 4 { 1 } else { 20 })).collect();
    scheduler.flows_answered(&all, at(0));
    let mut counts = [0_u32; 10];
    for _ in 0..2_000 {
        let server = one(&mut *scheduler, &servers, &mut loads(&[0; 10]), at(0)).unwrap();
        counts[usize::from(server)] += 1;
    }
    assert!(counts[4] > 500, "{counts:?}");
}

#[test]
fn chance_depends_on_the_seed_alone() {
    let all = servers(&[1; 9]);
    let many = flows(200, Protocol::TCP);
    let of = |kind, seed| {
        let mut scheduler = native(&Tuned::from(kind), seed);
        scheduler.update(&all, Instant::ZERO);
        picks(&mut *scheduler, &all, &many, 8)
    };
    for kind in Builtin::ALL {
        assert_eq!(of(*kind, 1), of(*kind, 1), "{kind:?}");
    }
    for kind in [
        Builtin::RandomTwos,
        Builtin::PowerOfChoices,
        Builtin::JoinShortestQueue,
        Builtin::JoinIdleQueue,
        Builtin::Random,
        Builtin::PeakEwma,
        Builtin::LeastRequest,
        Builtin::Prequal,
    ] {
        assert_ne!(of(kind, 1), of(kind, 2), "{kind:?}");
    }
}

#[test]
fn every_scheduler_bears_no_server_one_and_a_thousand() {
    let many = flows(200, Protocol::TCP);
    for kind in Builtin::ALL {
        for count in [0, 1, 1_000] {
            let all = servers_of(count);
            let mut scheduler = fresh(*kind, &all);
            let answers = picks(&mut *scheduler, &all, &many, 64);
            let is_answered = answers.iter().any(Option::is_some);
            assert_eq!(is_answered, count > 0, "{kind:?} {count}");
            // And what is left of them.
            scheduler.update(&all[..count / 2], Instant::ZERO);
            picks(&mut *scheduler, &all[..count / 2], &many, 64);
            scheduler.update(&all, Instant::ZERO);
            picks(&mut *scheduler, &all, &many[..1], 1);
        }
    }
}

/// More servers than [`servers`] has addresses for.
fn servers_of(count: usize) -> Vec<ServerView> {
    let number = |n: usize| u8::try_from(n % 256).unwrap();
    let server = |n: usize| ServerView {
        id: ServerId(draw::seed_of(n as u64, "server")),
        address: [10, 1, number(n / 256), number(n)].into(),
        port: 80,
        weight: 1,
        is_up: true,
        is_full: false,
    };
    (0..count).map(server).collect()
}
