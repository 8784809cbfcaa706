//! What the built-in schedulers promise, each against its definition.

extern crate std;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::director::{NewFlow, Selection, ServerId, ServerLoad, ServerView};
use crate::plan::Builtin;
use crate::time::Instant;
use crate::wire::{Address, FiveTuple, Protocol};
use proptest::prelude::*;

mod hashing;
mod loads;

fn servers(weights: &[u32]) -> Vec<ServerView> {
    let server = |(place, weight): (usize, &u32)| ServerView {
        id: ServerId(1000 + place as u64),
        address: [192, 168, 100, u8::try_from(place + 1).unwrap()].into(),
        port: 80,
        weight: *weight,
        is_up: true,
        is_full: false,
    };
    weights.iter().enumerate().map(server).collect()
}

fn flows(count: u32, protocol: Protocol) -> Vec<NewFlow> {
    let flow = |n: u32| NewFlow {
        hash: u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        tuple: FiveTuple {
            source: Address::v4((0x0a00_0000 + n).to_be_bytes()),
            destination: Address::v4([10, 9, 9, 9]),
            source_port: 40_000,
            destination_port: 80,
            protocol,
        },
    };
    (1..=count).map(flow).collect()
}

/// Picks for all flows, in batches of `batch`, counting loads as the engine does.
fn picks(
    scheduler: &mut dyn Scheduler,
    servers: &[ServerView],
    flows: &[NewFlow],
    batch: usize,
) -> Vec<Option<u16>> {
    let mut loads = vec![ServerLoad::default(); servers.len()];
    let mut all = Vec::new();
    for flows in flows.chunks(batch) {
        let mut answers = vec![None; flows.len()];
        scheduler.pick(&mut Selection::new(flows, servers, &mut loads, &mut answers), Instant::ZERO);
        all.extend(answers);
    }
    all
}

fn fresh(kind: Builtin, servers: &[ServerView]) -> Box<dyn Scheduler> {
    let mut scheduler = builtin(kind);
    scheduler.update(servers, Instant::ZERO);
    scheduler
}

fn counts(picks: &[Option<u16>]) -> BTreeMap<Option<u16>, usize> {
    let mut counts = BTreeMap::new();
    picks.iter().for_each(|pick| *counts.entry(*pick).or_default() += 1);
    counts
}

#[test]
fn round_robin_walks_from_the_last_server_of_the_plan() {
    let servers = servers(&[1, 1, 0, 1]);
    let picks = picks(&mut *fresh(Builtin::RoundRobin, &servers), &servers, &flows(6, Protocol::TCP), 4);
    assert_eq!(picks, [3, 1, 0, 3, 1, 0].map(Some));
}

#[test]
fn round_robin_keeps_its_turn_when_a_server_leaves() {
    let all = servers(&[1, 1, 1, 1]);
    let mut scheduler = fresh(Builtin::RoundRobin, &all);
    assert_eq!(picks(&mut *scheduler, &all, &flows(2, Protocol::TCP), 1), [3, 2].map(Some));
    let fewer: Vec<_> = all.iter().enumerate().filter(|(n, _)| *n != 2).map(|(_, server)| *server).collect();
    scheduler.update(&fewer, Instant::ZERO);
    assert_eq!(picks(&mut *scheduler, &fewer, &flows(2, Protocol::TCP), 1), [1, 0].map(Some));
}

#[test]
fn weighted_round_robin_starts_on_the_lowest_pass_and_keeps_the_shares() {
    let servers = servers(&[4, 2, 1]);
    let picks =
        picks(&mut *fresh(Builtin::WeightedRoundRobin, &servers), &servers, &flows(10, Protocol::TCP), 3);
    assert_eq!(picks, [2, 1, 0, 0, 0, 1, 0, 2, 1, 0].map(Some));
}

#[test]
fn least_connections_fills_up_evenly_and_udp_counts_less_than_tcp() {
    let servers = servers(&[1, 9, 0, 1]);
    let picks =
        picks(&mut *fresh(Builtin::LeastConnections, &servers), &servers, &flows(9, Protocol::TCP), 4);
    assert_eq!(counts(&picks), BTreeMap::from([(Some(0), 3), (Some(1), 3), (Some(3), 3)]));
    let mut loads = [ServerLoad { active: 1, inactive: 0 }, ServerLoad { active: 0, inactive: 256 }];
    let mut answers = [None];
    let two = &servers[..2];
    let flow = flows(1, Protocol::TCP);
    builtin(Builtin::LeastConnections)
        .pick(&mut Selection::new(&flow, two, &mut loads, &mut answers), Instant::ZERO);
    assert_eq!(answers, [Some(1)]);
    assert_eq!(loads[1], ServerLoad { active: 1, inactive: 256 });
}

#[test]
fn source_hashing_depends_on_the_address_alone_and_avoids_a_drained_server() {
    let mut all = servers(&[1, 1, 1]);
    let many = flows(300, Protocol::UDP);
    let before = picks(&mut *fresh(Builtin::SourceHashing, &all), &all, &many, 64);
    let mut moved: Vec<NewFlow> = many.clone();
    moved.iter_mut().for_each(|flow| (flow.tuple.source_port, flow.hash) = (1, 1));
    assert_eq!(picks(&mut *fresh(Builtin::SourceHashing, &all), &all, &moved, 1), before);
    all[1].weight = 0;
    let after = picks(&mut *fresh(Builtin::SourceHashing, &all), &all, &many, 64);
    for (before, after) in before.iter().zip(&after) {
        assert!(after.is_some() && *after != Some(1));
        assert!(*before == Some(1) || before == after, "who was elsewhere stays");
    }
}

#[test]
fn maglev_is_balanced_and_does_not_depend_on_the_order_of_the_plan() {
    let all = servers(&[1; 10]);
    let table = maglev_table(&all, 65_537);
    let mut slots = [0; 10];
    table.iter().for_each(|server| slots[usize::from(*server)] += 1);
    assert!(slots.iter().all(|count| (6553..=6554).contains(count)), "{slots:?}");
    let reversed: Vec<_> = all.iter().rev().copied().collect();
    let other = maglev_table(&reversed, 65_537);
    assert!(table.iter().zip(&other).all(|(a, b)| all[usize::from(*a)].id == reversed[usize::from(*b)].id));
}

#[test]
fn maglev_moves_little_when_a_server_leaves() {
    let all = servers(&[1; 10]);
    let (before, after) = (maglev_table(&all, 65_537), maglev_table(&all[..9], 65_537));
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    assert!((6553..=7200).contains(&moved), "{moved} of 65537 entries changed; the floor is 6554");
}

#[test]
fn maglev_follows_the_weights() {
    let table = maglev_table(&servers(&[4, 2, 1, 0]), 65_537);
    let share = |server: u16| table.iter().filter(|other| **other == server).count() as f64 / 65_537.0;
    for (server, ideal) in [(0, 4.0 / 7.0), (1, 2.0 / 7.0), (2, 1.0 / 7.0), (3, 0.0)] {
        assert!((share(server) - ideal).abs() < 0.001, "{server}: {}", share(server));
    }
}

proptest! {
    #[test]
    fn nobody_picks_a_server_without_weight_and_everybody_picks_one_if_there_is_any(
        weights in proptest::collection::vec(0_u32..5, 0..9), batch in 1_usize..9,
    ) {
        let servers = servers(&weights);
        for kind in Builtin::ALL {
            let picks = picks(&mut *fresh(*kind, &servers), &servers, &flows(40, Protocol::TCP), batch);
            for pick in picks {
                let usable = pick.map(|server| servers[usize::from(server)].is_usable());
                // These refuse by definition: a bucket whose server takes nothing, servers with as many as their weight.
                let may_refuse = matches!(kind, Builtin::DestinationHashing | Builtin::Overflow) && pick.is_none();
                let wanted = weights.iter().any(|weight| *weight > 0).then_some(true);
                prop_assert!(may_refuse || usable == wanted, "{}: {usable:?}", kind.name());
            }
        }
    }

    #[test]
    fn the_size_of_a_batch_changes_nothing(weights in proptest::collection::vec(0_u32..5, 1..9), batch in 2_usize..40) {
        let servers = servers(&weights);
        for kind in Builtin::ALL {
            let flows = flows(40, Protocol::UDP);
            let single = picks(&mut *fresh(*kind, &servers), &servers, &flows, 1);
            prop_assert_eq!(picks(&mut *fresh(*kind, &servers), &servers, &flows, batch), single, "{}", kind.name());
        }
    }

    #[test]
    fn shares_follow_weights_in_every_whole_turn(weights in proptest::collection::vec(1_u32..7, 1..6)) {
        let servers = servers(&weights);
        let total: u32 = weights.iter().sum();
        let mut scheduler = fresh(Builtin::WeightedRoundRobin, &servers);
        // The first turn begins in its middle; after it every turn of as many flows as there is weight is exact.
        picks(&mut *scheduler, &servers, &flows(total, Protocol::TCP), 8);
        let turn = counts(&picks(&mut *scheduler, &servers, &flows(total * 3, Protocol::TCP), 8));
        for (server, weight) in weights.iter().enumerate() {
            prop_assert_eq!(turn[&Some(u16::try_from(server).unwrap())], 3 * *weight as usize);
        }
    }
}
