//! The hashes: who moves when servers come and go, how even they are, what does not matter to them. Numbers called V are those of
//! the literature, as `docs/src/schedulers/overview.md` cites them.

use super::*;
use crate::plan::{FlowKey, Options, TableWeights, Tuned};

/// Hashes that move the flows of a server that leaves and no others, and that give a server that comes only what it takes.
const MINIMAL: [Builtin; 6] = [
    Builtin::Rendezvous,
    Builtin::WeightedRendezvous,
    Builtin::Ring,
    Builtin::Anchor,
    Builtin::Dx,
    Builtin::MultiProbe,
];

/// Hashes of which a server has the same share as every other one of its weight, but for chance.
const EVEN: [Builtin; 5] =
    [Builtin::Rendezvous, Builtin::WeightedRendezvous, Builtin::Anchor, Builtin::Dx, Builtin::Jump];

fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}

/// Who gets each flow, by identity, after all of `stages` have been shown in turn.
fn owners(kind: Builtin, stages: &[Vec<ServerView>], flows: &[NewFlow]) -> Vec<Option<ServerId>> {
    let mut scheduler = native(&Tuned::from(kind), 7);
    stages.iter().for_each(|servers| scheduler.update(servers, Instant::ZERO));
    let servers = stages.last().unwrap();
    let picks = picks(&mut *scheduler, servers, flows, 64);
    picks.into_iter().map(|pick| pick.map(|at| servers[usize::from(at)].id)).collect()
}

fn without(servers: &[ServerView], place: usize) -> Vec<ServerView> {
    servers.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, server)| *server).collect()
}

#[test]
fn v12_modulo_moves_nearly_everything() {
    let (flows, all) = (flows(100_000, Protocol::TCP), servers(&[1; 11]));
    let of = |count: usize| owners(Builtin::Modulo, &[all[..count].to_vec()], &flows);
    let (nine, ten, eleven) = (of(9), of(10), of(11));
    let moved = |a: &[_], b: &[_]| share(a.iter().zip(b).filter(|(a, b)| a != b).count(), flows.len());
    assert!((moved(&ten, &nine) - 0.9).abs() < 0.005, "{}", moved(&ten, &nine));
    assert!((moved(&ten, &eleven) - 0.9091).abs() < 0.005, "{}", moved(&ten, &eleven));
}

#[test]
fn v13_no_survivor_moves_and_the_share_that_moves_is_that_of_the_server() {
    let (flows, all) = (flows(100_000, Protocol::TCP), servers(&[1; 10]));
    for kind in MINIMAL {
        let before = owners(kind, std::slice::from_ref(&all), &flows);
        for gone in [0, 4, 9] {
            let after = owners(kind, &[all.clone(), without(&all, gone)], &flows);
            let mut moved = 0;
            for (before, after) in before.iter().zip(&after) {
                let was_there = *before == Some(all[gone].id);
                moved += usize::from(was_there);
                assert!(was_there || before == after, "{kind:?}: a survivor moved");
                assert!(after.is_some() && *after != Some(all[gone].id), "{kind:?}");
            }
            // A ring is less even: 1/sqrt(160) of a share either way; so is a single circle, by its 1.05.
            let slack = if EVEN.contains(&kind) { 0.004 } else { 0.025 };
            assert!((share(moved, flows.len()) - 0.1).abs() < slack, "{kind:?}: {moved}");
        }
    }
}

#[test]
fn v13_a_server_that_comes_takes_its_share_from_all_and_nobody_else_does() {
    let (flows, all) = (flows(100_000, Protocol::TCP), servers(&[1; 11]));
    for kind in MINIMAL.into_iter().chain([Builtin::Jump]) {
        let before = owners(kind, &[all[..10].to_vec()], &flows);
        let after = owners(kind, &[all[..10].to_vec(), all.clone()], &flows);
        let mut moved = 0;
        for (before, after) in before.iter().zip(&after) {
            moved += usize::from(before != after);
            assert!(before == after || *after == Some(all[10].id), "{kind:?}: it went elsewhere");
        }
        let slack = if EVEN.contains(&kind) { 0.004 } else { 0.025 };
        assert!((share(moved, flows.len()) - 1.0 / 11.0).abs() < slack, "{kind:?}: {moved}");
    }
}

#[test]
fn a_server_that_goes_down_and_comes_back_finds_its_flows_again() {
    let (flows, all) = (flows(20_000, Protocol::TCP), servers(&[3; 12]));
    let mut down = all.clone();
    down[5].is_up = false;
    for kind in MINIMAL.into_iter().chain([Builtin::Jump, Builtin::Maglev, Builtin::Bounded]) {
        let before = owners(kind, std::slice::from_ref(&all), &flows[..1]);
        let again = owners(kind, &[all.clone(), down.clone(), all.clone()], &flows[..1]);
        assert_eq!(before, again, "{kind:?}");
    }
    for kind in MINIMAL.into_iter().chain([Builtin::Jump, Builtin::Maglev]) {
        let before = owners(kind, std::slice::from_ref(&all), &flows);
        let during = owners(kind, &[all.clone(), down.clone()], &flows);
        let again = owners(kind, &[all.clone(), down.clone(), all.clone()], &flows);
        assert_eq!(before, again, "{kind:?}");
        let stayed = before.iter().zip(&during).filter(|(a, b)| a == b).count();
        // A Maglev table moves some survivors as well.
        let least = if kind == Builtin::Maglev { 17_000 } else { 18_000 };
        assert!(stayed > least, "{kind:?}: {stayed}");
    }
}

/// Entries of the table that differ, and those among them whose server is still there.
fn changed(count: usize, gone: usize, size: u32) -> (f64, f64) {
    let all = servers_in_order(count);
    let (before, after) = (maglev_table(&all, size), maglev_table(&all[gone..], size));
    let both = before.iter().zip(&after).map(|(a, b)| (usize::from(*a), usize::from(*b) + gone));
    let (mut changed, mut moved) = (0, 0);
    for (before, after) in both {
        changed += usize::from(before != after);
        moved += usize::from(before != after && before >= gone);
    }
    (share(changed, before.len()), share(moved, before.len()))
}

/// More servers than [`servers`] has addresses for.
fn servers_in_order(count: usize) -> Vec<ServerView> {
    let one = servers(&[1])[0];
    (0..count as u64).map(|n| ServerView { id: ServerId(draw::seed_of(n, "server")), ..one }).collect()
}

fn close(actual: f64, expected: f64, slack: f64) {
    assert!((actual / expected - 1.0).abs() < slack, "{actual} instead of {expected}");
}

#[test]
fn v14_maglev_moves_little_more_than_it_must() {
    // Chance decides over a tenth of these; the table depends on the identities.
    for (count, expected) in [(10, 0.1017), (50, 0.0242), (100, 0.0157), (500, 0.0110)] {
        close(changed(count, 1, 65_537).0, expected, 0.25);
        assert!(changed(count, 1, 65_537).0 >= 1.0 / count as f64 - 1.0 / 65_537.0);
    }
}

#[test]
fn v15_maglev_of_a_thousand_servers_moves_survivors_as_in_the_paper() {
    for (gone, all, survivors) in [(1, 0.0068, 0.0058), (10, 0.0332, 0.0234), (100, 0.135, 0.039)] {
        let (changed, moved) = changed(1000, gone, 65_537);
        let slack = if gone == 1 { 0.35 } else { 0.1 };
        close(changed, all, slack);
        close(moved, survivors, slack);
    }
}

#[test]
fn v16_a_larger_table_moves_fewer_survivors() {
    let (changed, moved) = changed(1000, 10, 655_373);
    close(changed, 0.0158, 0.1);
    close(moved, 0.0058, 0.15);
}

#[test]
fn v17_maglev_shares_differ_by_one_slot() {
    for (count, size) in [(1000, 65_537), (1000, 655_373), (3, 251), (250, 251)] {
        let table = maglev_table(&servers_in_order(count), size);
        let mut slots = vec![0_u32; count];
        table.iter().for_each(|server| slots[usize::from(*server)] += 1);
        let each = size / count as u32;
        assert!(slots.iter().all(|slots| (each..=each + 1).contains(slots)), "{count} {size}");
    }
}

#[test]
fn v18_a_maglev_table_needs_less_room_to_spare_than_hashing_alone() {
    // What the busiest of 1,000 servers has above its share, of as many keys as the table has entries.
    let all = servers_in_order(1000);
    let over = |kind| {
        let picks = picks(&mut *fresh(kind, &all), &all, &flows(65_537, Protocol::TCP), 64);
        let most = counts(&picks).into_values().max().unwrap();
        most as f64 / 65.537 - 1.0
    };
    let (rendezvous, ring) = (over(Builtin::Rendezvous), over(Builtin::Ring));
    assert!((0.30..0.55).contains(&rendezvous), "{rendezvous}");
    assert!(ring > rendezvous * 0.8, "{ring} {rendezvous}");
}

#[test]
fn shares_follow_weights() {
    let weights = [4, 2, 1, 0, 3];
    let all = servers(&weights);
    let many = flows(60_000, Protocol::UDP);
    for (kind, options, slack) in [
        (Builtin::Maglev, Options::default(), 0.01),
        (Builtin::Maglev, Options { weights: Some(TableWeights::Turns), ..Options::default() }, 0.01),
        (Builtin::WeightedRendezvous, Options::default(), 0.01),
        (Builtin::Ring, Options { points: Some(5_000), ..Options::default() }, 0.03),
        (Builtin::Bounded, Options { points: Some(5_000), ..Options::default() }, 0.03),
        (Builtin::SourceHashing, Options::default(), 0.03),
        (Builtin::Source, Options::default(), 0.01),
    ] {
        let mut scheduler = native(&Tuned { kind, options }, 7);
        scheduler.update(&all, Instant::ZERO);
        let counts = counts(&picks(&mut *scheduler, &all, &many, 64));
        for (place, weight) in (0..).zip(weights) {
            let share = share(counts.get(&Some(place)).copied().unwrap_or(0), many.len());
            assert!(
                (share - f64::from(weight) / 10.0).abs() < slack,
                "{kind:?} {options:?}: {place} {share}"
            );
        }
    }
}

#[test]
fn maglev_without_weights_is_equal_and_with_turns_it_is_another_table() {
    let all = servers(&[9, 3, 1, 0]);
    let table = |weights| weighted_maglev_table(&all, 65_537, weights);
    let slots = |table: &[u16], server| table.iter().filter(|other| **other == server).count();
    let equal = table(TableWeights::Equal);
    assert!((0..3).all(|server| (21_845..=21_846).contains(&slots(&equal, server))));
    let (turns, cumulative) = (table(TableWeights::Turns), table(TableWeights::Cumulative));
    assert_ne!(turns, cumulative);
    for server in 0..3 {
        assert!(slots(&turns, server).abs_diff(slots(&cumulative, server)) <= 9);
    }
    assert_eq!(slots(&turns, 3), 0);
}

#[test]
fn the_key_decides_what_counts() {
    let all = servers(&[1; 20]);
    let of = |kind, key, flows: &[NewFlow]| {
        let options = Options { key: Some(key), ..Options::default() };
        let mut scheduler = native(&Tuned { kind, options }, 7);
        scheduler.update(&all, Instant::ZERO);
        picks(&mut *scheduler, &all, flows, 64)
    };
    let many = flows(300, Protocol::TCP);
    let mut other_ports = many.clone();
    for flow in &mut other_ports {
        flow.tuple.source_port += 1;
        flow.hash ^= 0x1234_5678_9abc_def0;
    }
    let mut neighbours = many.clone();
    for (flow, number) in neighbours.iter_mut().zip(0..) {
        let [a, b, c, _] = flow.tuple.source.v4_bytes();
        flow.tuple.source = Address::v4([a, b, c, number]);
        flow.hash ^= 0x1234_5678_9abc_def0;
    }
    let network = FlowKey::Source { length_v4: 24, length_v6: 64 };
    for kind in MINIMAL.into_iter().chain([Builtin::Maglev, Builtin::Modulo, Builtin::Jump]) {
        assert_eq!(of(kind, FlowKey::SOURCE, &many), of(kind, FlowKey::SOURCE, &other_ports), "{kind:?}");
        assert_ne!(
            of(kind, FlowKey::FiveTuple, &many),
            of(kind, FlowKey::FiveTuple, &other_ports),
            "{kind:?}"
        );
        assert_ne!(
            of(kind, FlowKey::SourcePort, &many),
            of(kind, FlowKey::SourcePort, &other_ports),
            "{kind:?}"
        );
        assert_eq!(of(kind, network, &many), of(kind, network, &neighbours), "{kind:?}");
        assert_eq!(counts(&of(kind, FlowKey::Destination, &many)).len(), 1, "{kind:?}");
    }
}

#[test]
fn jump_is_that_of_its_paper() {
    // The loop as it is published, with floats.
    let published = |mut key: u64, count: i64| {
        let (mut bucket, mut next) = (-1_i64, 0_i64);
        while next < count {
            bucket = next;
            key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
            next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
        }
        bucket
    };
    let mut draw = draw::Draw::new(1);
    for count in [1, 2, 3, 10, 1000, 65_535] {
        for _ in 0..2_000 {
            let key = draw.bits();
            assert_eq!(jump::bucket(key, count) as i64, published(key, count as i64), "{key} {count}");
        }
    }
}

/// The flows of `all` that are settled, with their servers.
fn settled(
    scheduler: &mut dyn Scheduler,
    servers: &[ServerView],
    flows: &[NewFlow],
) -> Vec<Option<ServerId>> {
    let mut loads = vec![ServerLoad::default(); servers.len()];
    let (mut answers, mut marks) = (vec![None; flows.len()], vec![false; flows.len()]);
    let selection = Selection::new(flows, servers, &mut loads, &mut answers);
    scheduler.pick(&mut selection.with_settled(&mut marks), Instant::ZERO);
    let both = answers.into_iter().zip(marks);
    both.map(|(answer, mark)| answer.filter(|_| mark).map(|at| servers[usize::from(at)].id)).collect()
}

const TRACKING: [Builtin; 5] =
    [Builtin::Rendezvous, Builtin::WeightedRendezvous, Builtin::Anchor, Builtin::Dx, Builtin::Jump];

#[test]
fn few_flows_have_to_be_tracked_as_in_jet() {
    let all = servers(&[1; 110]);
    let mut some_down = all.clone();
    some_down[100..].iter_mut().for_each(|server| server.is_up = false);
    for kind in TRACKING {
        let mut scheduler = native(&Tuned::from(kind), 7);
        scheduler.update(&all, Instant::ZERO);
        scheduler.update(&some_down, Instant::ZERO);
        let flows = flows(20_000, Protocol::TCP);
        let unsettled = settled(&mut *scheduler, &some_down, &flows).iter().filter(|id| id.is_none()).count();
        // Those whose server would be one of the ten: 10 of 110. Jump also loses those of a bucket that is down.
        let share = share(unsettled, flows.len());
        assert!((share - 10.0 / 110.0).abs() < 0.012, "{kind:?}: {share}");
    }
}

proptest! {
    #[test]
    fn a_settled_flow_stays_whoever_comes_back(down in proptest::collection::vec(any::<bool>(), 1..20), back in any::<u32>()) {
        let all = servers(&vec![1; down.len()]);
        let at = |is_down: &dyn Fn(usize) -> bool| {
            let mut servers = all.clone();
            servers.iter_mut().enumerate().for_each(|(place, server)| server.is_up = !is_down(place));
            servers
        };
        let before = at(&|place| down[place]);
        let after = at(&|place| down[place] && back >> place & 1 == 0);
        let flows = flows(200, Protocol::TCP);
        for kind in TRACKING {
            let mut scheduler = native(&Tuned::from(kind), 7);
            scheduler.update(&all, Instant::ZERO);
            scheduler.update(&before, Instant::ZERO);
            let settled = settled(&mut *scheduler, &before, &flows);
            scheduler.update(&after, Instant::ZERO);
            let later = picks(&mut *scheduler, &after, &flows, 64);
            for (settled, later) in settled.iter().zip(later) {
                let later = later.map(|at| after[usize::from(at)].id);
                prop_assert!(settled.is_none() || *settled == later, "{:?}", kind);
            }
        }
    }

    #[test]
    fn the_order_of_the_plan_does_not_matter_to_these(
        weights in proptest::collection::vec(0_u32..5, 1..9), turn in any::<prop::sample::Index>(),
    ) {
        let all = servers(&weights);
        let mut turned = all.clone();
        turned.rotate_left(turn.index(all.len()));
        turned.reverse();
        let flows = flows(100, Protocol::TCP);
        // AnchorHash and DxHash give buckets in the order of identities to those that come at once.
        for kind in MINIMAL.into_iter().chain([Builtin::Maglev, Builtin::Bounded]) {
            let flows = if kind == Builtin::Bounded { &flows[..1] } else { &flows[..] };
            prop_assert_eq!(owners(kind, std::slice::from_ref(&all), flows), owners(kind, std::slice::from_ref(&turned), flows), "{:?}", kind);
        }
    }

    #[test]
    fn servers_come_and_go_and_only_their_own_flows_move(steps in proptest::collection::vec(0_usize..16, 1..30)) {
        let all = servers(&[1; 16]);
        let flows = flows(120, Protocol::TCP);
        for kind in MINIMAL {
            let mut here = vec![true; 16];
            let of = |here: &[bool]| -> Vec<ServerView> {
                all.iter().zip(here).filter(|(_, here)| **here).map(|(server, _)| *server).collect()
            };
            let mut scheduler = native(&Tuned::from(kind), 7);
            scheduler.update(&of(&here), Instant::ZERO);
            let mut ask = |servers: &[ServerView]| -> Vec<Option<ServerId>> {
                scheduler.update(servers, Instant::ZERO);
                let picks = picks(&mut *scheduler, servers, &flows, 64);
                picks.into_iter().map(|pick| pick.map(|at| servers[usize::from(at)].id)).collect()
            };
            let mut before = ask(&of(&here));
            for step in &steps {
                here[*step] = !here[*step];
                let after = ask(&of(&here));
                for (before, after) in before.iter().zip(&after) {
                    let its = Some(all[*step].id);
                    let moved = before != after;
                    prop_assert!(!moved || *before == its || *after == its || before.is_none() || after.is_none(), "{:?}", kind);
                }
                before = after;
            }
        }
    }

    #[test]
    fn v21_nobody_gets_more_than_its_bounded_share(
        weights in proptest::collection::vec(0_u32..6, 1..12), factor in 101_u32..300,
        ends in proptest::collection::vec(any::<prop::sample::Index>(), 0..80),
    ) {
        let all = servers(&weights);
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let flows = flows(160, Protocol::TCP);
        let options = Options { balance_factor: Some(factor), ..Options::default() };
        let mut scheduler = native(&Tuned { kind: Builtin::Bounded, options }, 7);
        scheduler.update(&all, Instant::ZERO);
        let mut loads = vec![ServerLoad::default(); all.len()];
        let mut open = Vec::new();
        for (number, flow) in flows.iter().enumerate() {
            let before: u64 = loads.iter().map(|load| u64::from(load.active)).sum();
            let mut answer = [None];
            scheduler.pick(&mut Selection::new(&[*flow], &all, &mut loads, &mut answer), Instant::ZERO);
            let [Some(server)] = answer else {
                prop_assert_eq!(sum, 0);
                continue;
            };
            let weight = u64::from(weights[usize::from(server)]);
            let cap = (u64::from(factor) * (before + 1) * weight).div_ceil(100 * sum);
            prop_assert!(u64::from(loads[usize::from(server)].active) <= cap, "above {}", cap);
            open.push(server);
            if let (Some(end), true) = (ends.get(number), number % 2 == 0) {
                let server = open.swap_remove(end.index(open.len()));
                loads[usize::from(server)].active -= 1;
            }
        }
    }
}
