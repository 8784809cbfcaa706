//! V12 to V17 and V19 to V21: what hashes move, and how evenly they spread.

use std::net::IpAddr;

use evenkeel_engine::Instant;
use evenkeel_engine::director::builtin::{maglev_table, native};
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView};
use evenkeel_engine::plan::{Builtin, Options, Tuned};
use evenkeel_engine::wire::FiveTuple;
use evenkeel_sim::flow_mode::{Connections, Setup};
use evenkeel_sim::random::Stream;
use evenkeel_sim::work::{Arrivals, Law, QueueSpec};

use crate::exact;
use crate::flow_support::{load, machines, plan, rip, run_with, setup};
use crate::row::{Effort, Row};

/// Servers whose identities come from a seed.
fn servers(count: usize, seed: u64) -> Vec<ServerView> {
    let mut stream = Stream::new(seed, "truth", "servers");
    let server = |number| {
        let (id, address): (_, IpAddr) = (ServerId(stream.bits()), rip(number));
        ServerView { id, address, port: 80, weight: 1, is_up: true, is_full: false }
    };
    (0..count).map(server).collect()
}

/// The identity of the server that each hash is given.
fn picks(scheduler: &mut dyn Scheduler, servers: &[ServerView], hashes: &[u64]) -> Vec<ServerId> {
    scheduler.update(servers, Instant::ZERO);
    let mut loads = vec![ServerLoad::default(); servers.len()];
    let flow = |hash: &u64| NewFlow { hash: *hash, tuple: FiveTuple::default() };
    let flows: Vec<NewFlow> = hashes.iter().map(flow).collect();
    let mut answers = vec![None; flows.len()];
    scheduler.pick(&mut Selection::new(&flows, servers, &mut loads, &mut answers), Instant::ZERO);
    answers.into_iter().map(|answer| servers[usize::from(answer.unwrap())].id).collect()
}

fn hashes(count: u64, seed: u64) -> Vec<u64> {
    let mut stream = Stream::new(seed, "truth", "hashes");
    (0..count).map(|_| stream.bits()).collect()
}

fn share_moved(before: &[ServerId], after: &[ServerId]) -> f64 {
    before.iter().zip(after).filter(|(before, after)| before != after).count() as f64 / before.len() as f64
}

pub fn v12(effort: Effort) -> Vec<Row> {
    let keys = effort.choose(20_000, 1_000_000);
    let moved = |from: usize, to: usize| -> Vec<f64> {
        let one = |seed| {
            let (servers, hashes) = (servers(11, seed), hashes(keys, seed));
            let mut scheduler = evenkeel_engine::director::builtin(Builtin::Modulo);
            let before = picks(&mut *scheduler, &servers[..from], &hashes);
            share_moved(&before, &picks(&mut *scheduler, &servers[..to], &hashes))
        };
        (1..=6).map(one).collect()
    };
    let tolerance = effort.choose(0.01, 0.001);
    vec![
        Row::of_seeds("V12", "modulo, 10 to 9 servers: flows that move", &moved(10, 9), 0.9, tolerance),
        Row::of_seeds(
            "V12",
            "modulo, 10 to 11 servers: flows that move",
            &moved(10, 11),
            10.0 / 11.0,
            tolerance,
        ),
    ]
}

/// Flows that move when one of 10 servers leaves, or an 11th comes; and among them those that need not have moved.
pub fn v13(effort: Effort) -> Vec<Row> {
    let keys = effort.choose(20_000, 1_000_000);
    let mut rows = Vec::new();
    for (name, kind) in [("rendezvous", Builtin::Rendezvous), ("AnchorHash", Builtin::Anchor)] {
        let run = |seed, from: usize, to: usize| {
            let (servers, hashes) = (servers(11, seed), hashes(keys, seed));
            let mut scheduler = evenkeel_engine::director::builtin(kind);
            let before = picks(&mut *scheduler, &servers[..from], &hashes);
            let after = picks(&mut *scheduler, &servers[..to], &hashes);
            // Whoever had one that stays, and has not one that has come, has moved in vain.
            let (kept, new) = (&servers[..from.min(to)], servers.get(from..to).unwrap_or_default());
            let is_in = |servers: &[ServerView], id: &ServerId| servers.iter().any(|server| server.id == *id);
            let in_vain = before
                .iter()
                .zip(&after)
                .filter(|(one, other)| one != other && is_in(kept, one) && !is_in(new, other))
                .count();
            (share_moved(&before, &after), in_vain as f64)
        };
        let tolerance = effort.choose(0.03, 0.01);
        for (from, to, exact) in [(10, 9, 0.1), (10, 11, 1.0 / 11.0)] {
            let (moved, in_vain): (Vec<f64>, Vec<f64>) = (1..=6).map(|seed| run(seed, from, to)).unzip();
            let case = format!("{name}, {from} to {to} servers: flows that move");
            rows.push(Row::of_seeds("V13", case, &moved, exact, tolerance));
            let case = format!("{name}, {from} to {to} servers: flows that move between servers that stay");
            rows.push(Row::of_seeds("V13", case, &in_vain, 0.0, 0.0));
        }
    }
    rows
}

/// How uneven arcs of a ring are: the deviation of a server's share by the mean share. A share of v of n v points has
/// Beta's law with the parameters v and v (n - 1), hence sqrt((n - 1) / (n v + 1)), which is 1 / sqrt(v) for many.
pub fn v19(effort: Effort) -> Vec<Row> {
    const SERVERS: usize = 100;
    let keys = effort.choose(100_000, 1_000_000);
    let row = |points: &u32| {
        let deviation = |seed| {
            let servers = servers(SERVERS, seed);
            let options = Options { points: Some(*points), ..Options::default() };
            let mut ring = native(&Tuned { kind: Builtin::Ring, options }, seed);
            let mut counts = std::collections::BTreeMap::new();
            for id in picks(&mut *ring, &servers, &hashes(keys, seed)) {
                *counts.entry(id).or_insert(0_u64) += 1;
            }
            let mean = keys as f64 / SERVERS as f64;
            let of = |server: &ServerView| counts.get(&server.id).copied().unwrap_or(0) as f64 / mean - 1.0;
            let square = servers.iter().map(|server| of(server) * of(server)).sum::<f64>() / SERVERS as f64;
            // What the flows add by chance, being a sample of the arcs.
            (square - 1.0 / mean).max(0.0)
        };
        let squares: Vec<f64> = (1..=effort.choose(6, 20)).map(deviation).collect();
        let deviations: Vec<f64> = squares.iter().map(|square| libm::sqrt(*square)).collect();
        let (n, v) = (SERVERS as f64, f64::from(*points));
        let case = format!("ring with {points} points, 100 servers: deviation of a share by the mean share");
        let exact = libm::sqrt((n - 1.0) / (n * v + 1.0));
        Row::of_seeds("V19", case, &deviations, exact, effort.choose(0.12, 0.05))
    };
    effort.choose(&[10, 160][..], &[10, 100, 160, 1_000]).iter().map(row).collect()
}

/// Consistent hashing with bounded loads: no server has more than ceil(c m / n) of m flows at any time, as long as none
/// ends; with ends, no server is given a flow beyond. Counts of flows for which that is not so.
pub fn v21(effort: Effort) -> Vec<Row> {
    const SERVERS: usize = 20;
    const FACTOR: u64 = 125;
    let flows = effort.choose(2_000, 50_000);
    let bound = |all: u64| (FACTOR * all).div_ceil(100 * SERVERS as u64);
    let beyond = |seed: u64, ends: bool| {
        let servers = servers(SERVERS, seed);
        let options = Options { balance_factor: Some(125), ..Options::default() };
        let mut bounded = native(&Tuned { kind: Builtin::Bounded, options }, seed);
        bounded.update(&servers, Instant::ZERO);
        let mut loads = vec![ServerLoad::default(); SERVERS];
        let mut draws = Stream::new(seed, "truth", "bounded");
        let mut open: Vec<usize> = Vec::new();
        let mut beyond = 0;
        for _ in 0..flows {
            if ends && !open.is_empty() && draws.below(5) < 2 {
                let gone = open.swap_remove(draws.below(open.len() as u64) as usize);
                loads[gone].inactive -= 1;
                continue;
            }
            // Few keys are asked for often.
            let few = 1 + draws.below(64);
            let hash = draws.below(few).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let flow = [NewFlow { hash, tuple: FiveTuple::default() }];
            let mut answer = [None];
            let mut selection = Selection::new(&flow, &servers, &mut loads, &mut answer);
            bounded.pick(&mut selection, Instant::ZERO);
            let server = usize::from(answer[0].unwrap());
            open.push(server);
            let most = if ends {
                u64::from(loads[server].inactive)
            } else {
                loads.iter().map(|load| u64::from(load.inactive)).max().unwrap()
            };
            beyond += u64::from(most > bound(open.len() as u64));
        }
        beyond as f64
    };
    let rows = [
        ("no flow ends: times that a server has more than its bound", false),
        ("flows end: flows that a server gets beyond its bound", true),
    ];
    rows.into_iter()
        .map(|(case, ends)| {
            let seeds: Vec<f64> = (1..=6).map(|seed| beyond(seed, ends)).collect();
            Row::of_seeds("V21", format!("bounded loads, factor 1.25, {case}"), &seeds, 0.0, 0.0)
        })
        .collect()
}

/// Entries of a table that change when servers leave: of all of them, and of those of servers that stay.
fn changed(count: usize, removed: usize, size: u32, seed: u64) -> (f64, f64) {
    let mut servers = servers(count, seed);
    let before = maglev_table(&servers, size);
    servers.iter_mut().take(removed).for_each(|server| server.is_up = false);
    let after = maglev_table(&servers, size);
    let both = || before.iter().zip(&after).filter(|(before, after)| before != after);
    let stays = |before: &&u16| usize::from(**before) >= removed;
    let survivors = both().filter(|(before, _)| stays(before)).count();
    let all_survivors = before.iter().filter(stays).count();
    (both().count() as f64 / f64::from(size), survivors as f64 / all_survivors as f64)
}

const SIZE: u32 = 65_537;
const LARGE_SIZE: u32 = 655_373;

pub fn v14(effort: Effort) -> Vec<Row> {
    // How much of the table moves when one of N leaves, as an independent program with another hash has it; the least
    // that is possible is 1 / N.
    let cases = [(10, 0.1017), (50, 0.0242), (100, 0.0157), (500, 0.0110)];
    let row = |(count, oracle): (usize, f64)| {
        let shares: Vec<f64> =
            (1..=effort.choose(4, 20)).map(|seed| changed(count, 1, SIZE, seed).0).collect();
        let least = shares.iter().copied().fold(1.0, f64::min);
        // Shares of servers differ by one entry.
        assert!(least >= (SIZE / u32::try_from(count).unwrap()) as f64 / f64::from(SIZE), "{least}");
        let case = format!("maglev, 65,537 entries, 1 of {count} leaves: entries that change");
        Row::of_seeds("V14", case, &shares, oracle, effort.choose(0.12, 0.06))
    };
    cases.into_iter().map(row).collect()
}

fn maglev_of_a_thousand(
    effort: Effort,
    id: &'static str,
    size: u32,
    seeds: u64,
    cases: &[(usize, f64, f64)],
) -> Vec<Row> {
    let mut rows = Vec::new();
    for (removed, all_of, survivors_of) in cases {
        let (all, survivors): (Vec<f64>, Vec<f64>) =
            (1..=seeds).map(|seed| changed(1_000, *removed, size, seed)).unzip();
        let name = format!("maglev, {size} entries, {removed} of 1,000 leave");
        let tolerance = effort.choose(0.15, 0.08);
        rows.push(Row::of_seeds(id, format!("{name}: entries that change"), &all, *all_of, tolerance));
        rows.push(Row::of_seeds(
            id,
            format!("{name}: of the entries of servers that stay"),
            &survivors,
            *survivors_of,
            tolerance,
        ));
    }
    rows
}

pub fn v15(effort: Effort) -> Vec<Row> {
    let quick = [(1, 0.0068, 0.0058), (10, 0.0332, 0.0234)];
    let long = [
        (1, 0.0068, 0.0058),
        (5, 0.0233, 0.0183),
        (10, 0.0332, 0.0234),
        (20, 0.0465, 0.0270),
        (50, 0.0824, 0.0341),
        (100, 0.135, 0.039),
    ];
    maglev_of_a_thousand(effort, "V15", SIZE, effort.choose(3, 20), effort.choose(&quick[..], &long[..]))
}

pub fn v16(effort: Effort) -> Vec<Row> {
    let long = [(1, 0.0043, 0.0033), (10, 0.0158, 0.0058), (50, 0.0592, 0.0096), (100, 0.1106, 0.0118)];
    effort.choose(Vec::new(), maglev_of_a_thousand(effort, "V16", LARGE_SIZE, 10, &long))
}

pub fn v17(effort: Effort) -> Vec<Row> {
    let sizes = effort.choose(&[SIZE][..], &[SIZE, LARGE_SIZE]);
    let row = |size: &u32| {
        let worst = |seed| {
            let table = maglev_table(&servers(1_000, seed), *size);
            let mut counts = vec![0u32; 1_000];
            table.iter().for_each(|place| counts[usize::from(*place)] += 1);
            let least = *counts.iter().min().unwrap();
            let most = *counts.iter().max().unwrap();
            assert_eq!((least, most), (size / 1_000, size.div_ceil(1_000)), "seed {seed}");
            f64::from(most) * 1_000.0 / f64::from(*size)
        };
        let worst = (1..=effort.choose(3, 20)).map(worst).fold(0.0, f64::max);
        let exact = f64::from(size.div_ceil(1_000)) * 1_000.0 / f64::from(*size);
        let case = format!("maglev, {size} entries, 1,000 servers: greatest share by mean share");
        Row::of("V17", case, worst, exact, 1e-9)
    };
    sizes.iter().map(row).collect()
}

/// Balls in bins: requests of fresh five-tuples, spread by their keyed hash.
pub fn v20(effort: Effort) -> Vec<Row> {
    let quick: &[(u64, usize, u64, f64)] =
        &[(1_000, 10, 40, 0.03), (10_000, 100, 24, 0.03), (100_000, 100, 6, 0.03)];
    let long: &[(u64, usize, u64, f64)] = &[
        (1_000, 10, 1_000, 0.005),
        (10_000, 100, 200, 0.008),
        (100_000, 100, 50, 0.008),
        (1_000_000, 1_000, 8, 0.008),
    ];
    let row = |(balls, bins, seeds, tolerance): &(u64, usize, u64, f64)| {
        let greatest = |seed| {
            let arrivals = Arrivals::Uniform { per_second: 1_000_000.0 };
            let load = load(arrivals, Law::Fixed { value: 0 }, *balls);
            let setup = setup(seed, machines(*bins, QueueSpec::default()), load);
            let setup = Setup { connections: Connections::Stateless, ..setup };
            let mut plan = plan(Builtin::Modulo, *bins);
            plan.hash_key.0[0] = seed;
            let outcome = run_with(&setup, plan);
            let most = outcome.machines.iter().map(|machine| machine.requests).max().unwrap();
            most as f64 * *bins as f64 / *balls as f64
        };
        let seeds: Vec<f64> = (1..=*seeds).map(greatest).collect();
        let exact = exact::balls_in_bins(u32::try_from(*balls).unwrap(), u32::try_from(*bins).unwrap());
        let case = format!("{balls} flows over {bins} servers by hash: greatest count by mean count");
        Row::of_seeds("V20", case, &seeds, exact, *tolerance)
    };
    effort.choose(quick, long).iter().map(row).collect()
}
