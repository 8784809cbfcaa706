//! V12, V14 to V17 and V20: what hashes move, and how evenly they spread.

use std::net::IpAddr;

use evenkeel_engine::Instant;
use evenkeel_engine::director::builtin::maglev_table;
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerId, ServerLoad, ServerView};
use evenkeel_engine::plan::Builtin;
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

/// Entries of a table that change when servers leave: all, and those of servers that stay.
fn changed(count: usize, removed: usize, size: u32, seed: u64) -> (f64, f64) {
    let mut servers = servers(count, seed);
    let before = maglev_table(&servers, size);
    servers.iter_mut().take(removed).for_each(|server| server.is_up = false);
    let after = maglev_table(&servers, size);
    let both = || before.iter().zip(&after).filter(|(before, after)| before != after);
    let survivors = both().filter(|(before, _)| usize::from(**before) >= removed).count();
    let size = f64::from(size);
    (both().count() as f64 / size, survivors as f64 / size)
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
            format!("{name}: those of servers that stay"),
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
        &[(1_000, 10, 40, 0.02), (10_000, 100, 12, 0.02), (100_000, 100, 6, 0.02)];
    let long: &[(u64, usize, u64, f64)] = &[
        (1_000, 10, 2_000, 0.003),
        (10_000, 100, 400, 0.004),
        (100_000, 100, 200, 0.004),
        (1_000_000, 1_000, 20, 0.004),
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
