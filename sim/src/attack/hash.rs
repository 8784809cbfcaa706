//! Tuples chosen so that they meet in one place, by someone who has the source code and the configuration, and not the
//! key of the flow hash.
//!
//! The attacker runs the same engine with a key of their own, keeps the tuples that all go to one real server there,
//! or that all begin at one place of the index, and sends those. Beside it the same number of random tuples: what the
//! attack gains is the difference.
//!
//! How long a probe of the index gets is counted on a model of it: linear probing over the same hash, at the same load.

use std::fmt::Write;
use std::net::Ipv4Addr;

use evenkeel_engine::plan::Builtin;
use evenkeel_engine::wire::{FiveTuple, HashKey, Protocol};
use serde::Serialize;

use super::{AttackError, Bench, Mode, OUTSIDE, VIP, grouped, in_range, plan, server_of, stranger};
use crate::packet::{End, Header, build};
use crate::random::Stream;

/// The key that the attacker guesses: that of a forwarder which draws none.
const GUESS: HashKey = HashKey([0, 0]);
/// The most that one real server may get beyond its fair share, in millionths of that.
const SHARE_MOST: u64 = 1_050_000;
/// The most that the longest probe may be beyond that of random tuples, as a factor.
const PROBE_MOST: u64 = 2;
/// Tuples are tried this often for each that is chosen, at most.
const TRIES_MOST: u64 = 400;
/// Upper bits of the hash that the attacker makes the same for all: the tuples begin in a 32nd of the index.
const PLACE_BITS: u32 = 5;

/// What is chosen for what.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Tuples that are chosen (1,000 to 10,000,000).
    pub tuples: u32,
    /// Real servers (2 to 100).
    pub servers: u16,
    /// The seed of everything random, the secret key among it.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { tuples: 1_000_000, servers: 10, seed: 1 }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Tuples of each kind.
    pub tuples: u32,
    /// Real servers.
    pub servers: u16,
    /// One row for each way of choosing.
    pub rows: Vec<Row>,
}

/// How one kind of tuples was spread.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// How they were chosen.
    pub chosen: &'static str,
    /// What the busiest real server gets of them under the attacker's key, in millionths of the fair share.
    pub share_guessed: u64,
    /// What the busiest real server gets of them under the secret key, in millionths of the fair share.
    pub share: u64,
    /// The longest probe of an index with these tuples under the attacker's key.
    pub probe_guessed: u64,
    /// The longest probe under the secret key.
    pub probe: u64,
}

impl Report {
    /// Whether no choice of tuples gains anything.
    #[must_use]
    pub fn is_as_expected(&self) -> bool {
        let random = self.rows.first().map_or(0, |row| row.probe);
        let is_spread = |row: &Row| row.share <= SHARE_MOST && row.probe <= random * PROBE_MOST;
        !self.rows.is_empty() && self.rows.iter().all(is_spread)
    }

    /// The report for people.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!(
            "{} tuples of each kind, {} real servers, maglev, seed {}\n\
             the busiest real server, in fair shares, and the longest probe of the index:\n\n\
             {:<40}{:>22}{:>22}\n",
            grouped(self.tuples.into()),
            self.servers,
            self.seed,
            "tuples",
            "with the key guessed",
            "with the real key"
        );
        for Row { chosen, share_guessed, share, probe_guessed, probe } in &self.rows {
            let shares =
                |millionths: u64| format!("{}.{:03}", millionths / 1_000_000, millionths % 1_000_000 / 1_000);
            let (guessed, real) = (shares(*share_guessed), shares(*share));
            let _ = writeln!(text, "{chosen:<40}{guessed:>12}{probe_guessed:>10}{real:>12}{probe:>10}");
        }
        text.push_str(
            "\npromised with the real key: at most 1.050 fair shares, and twice the probe of random tuples\n",
        );
        text
    }
}

/// Runs the attack.
///
/// # Errors
/// When a number is out of its range.
pub fn run(options: &Options) -> Result<Report, AttackError> {
    in_range("tuples", options.tuples.into(), 1_000, 10_000_000, "1,000 to 10,000,000")?;
    in_range("servers", options.servers.into(), 2, 100, "2 to 100")?;
    let mut guessed = Service::new(options, Some(GUESS))?;
    let mut real = Service::new(options, None)?;
    let mut random = Stream::new(options.seed, "attacker", "tuples");
    let count = options.tuples as usize;
    let mut rows = Vec::new();
    let mut judge = |chosen: &'static str, clients: &[End]| {
        rows.push(Row {
            chosen,
            share_guessed: guessed.worst_share(clients),
            share: real.worst_share(clients),
            probe_guessed: longest_probe(clients, guessed.key),
            probe: longest_probe(clients, real.key),
        });
    };
    let any: Vec<End> = (0..count).map(|_| stranger(&mut random)).collect();
    judge("random", &any);
    let in_order = (0..options.tuples).map(|number| {
        let [_, second, third, fourth] = (number / 60_000 + 1).to_be_bytes();
        let port = u16::try_from(number % 60_000).unwrap_or(0) + 1_024;
        End { address: Ipv4Addr::new(40, second, third, fourth), port }
    });
    judge("one address after the other, every port", &in_order.collect::<Vec<_>>());
    let mut scout = Service::new(options, Some(GUESS))?;
    let same_server = choose(&mut random, count, |client| scout.server(client) == Some(0));
    judge("all for one server, by the guessed key", &same_server);
    let same_place = choose(&mut random, count, |client| tuple(client).hash(GUESS) >> (64 - PLACE_BITS) == 0);
    judge("all in one place, by the guessed key", &same_place);
    Ok(Report { seed: options.seed, tuples: options.tuples, servers: options.servers, rows })
}

/// Tries tuples until `count` of them are as wanted, or too many have been tried.
fn choose(random: &mut Stream, count: usize, mut is_wanted: impl FnMut(End) -> bool) -> Vec<End> {
    let mut chosen = Vec::with_capacity(count);
    for _ in 0..count as u64 * TRIES_MOST {
        if chosen.len() == count {
            break;
        }
        let client = stranger(random);
        if is_wanted(client) {
            chosen.push(client);
        }
    }
    chosen
}

const fn tuple(client: End) -> FiveTuple {
    use evenkeel_engine::wire::Address;
    FiveTuple {
        source: Address::v4(client.address.octets()),
        destination: Address::v4(VIP.address.octets()),
        source_port: client.port,
        destination_port: VIP.port,
        protocol: Protocol::UDP,
    }
}

/// An engine that schedules each datagram on its own.
struct Service {
    bench: Bench,
    key: HashKey,
    servers: u16,
}

impl Service {
    fn new(options: &Options, key: Option<HashKey>) -> Result<Self, AttackError> {
        let mut plan = plan(Mode::Nat, Protocol::UDP, Builtin::Maglev, options.servers, options.seed);
        plan.hash_key = key.unwrap_or(plan.hash_key);
        for director in &mut plan.directors {
            director.is_one_packet = true;
        }
        let key = plan.hash_key;
        Ok(Self { bench: Bench::new(plan)?, key, servers: options.servers })
    }

    /// The real server that a datagram of `client` goes to.
    fn server(&mut self, client: End) -> Option<u16> {
        let packet = build(self.bench.buffer(), (client, VIP), Header::Udp, 0, |_| ());
        let (interface, packet) = self.bench.one(OUTSIDE, packet)?;
        self.bench.recycle(packet);
        server_of(interface)
    }

    /// What the busiest real server gets, in millionths of the fair share.
    fn worst_share(&mut self, clients: &[End]) -> u64 {
        let mut counts = vec![0u64; usize::from(self.servers)];
        for client in clients {
            let server = self.server(*client).map(usize::from);
            if let Some(count) = server.and_then(|server| counts.get_mut(server)) {
                *count += 1;
            }
        }
        let worst = counts.into_iter().max().unwrap_or(0);
        let all = clients.len().max(1) as u64;
        worst * u64::from(self.servers) * 1_000_000 / all
    }
}

/// The longest probe of a table with linear probing that holds these tuples at a load between a third and two thirds,
/// as the engine's index does.
fn longest_probe(clients: &[End], key: HashKey) -> u64 {
    let bits = (clients.len().max(2) * 3 / 2 + 1).next_power_of_two().trailing_zeros();
    // For each place, how far a free one may be at least: found by following these, and made longer on the way.
    let mut jumps = vec![0u32; 1 << bits];
    let mask = jumps.len() - 1;
    let mut longest = 0;
    for client in clients {
        let home = usize::try_from(tuple(*client).hash(key) >> (64 - bits)).unwrap_or(0) & mask;
        let mut distance = 0u64;
        let mut at = home;
        let mut passed = [home; 64];
        let mut turns = 0;
        // At most two thirds are taken, so there is a free place.
        while let Some(jump) = jumps.get(at).copied().filter(|jump| *jump > 0) {
            if let Some(place) = passed.get_mut(turns) {
                *place = at;
            }
            turns += 1;
            distance += u64::from(jump);
            at = (at + jump as usize) & mask;
        }
        if let Some(free) = jumps.get_mut(at) {
            *free = 1;
        }
        for place in passed.iter().take(turns) {
            let farther = at.wrapping_sub(*place) & mask;
            if let Some(jump) = jumps.get_mut(*place) {
                *jump = u32::try_from(farther + 1).unwrap_or(1);
            }
        }
        longest = longest.max(distance + 1);
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tuples_that_are_chosen_without_the_key_are_spread_and_with_it_are_not() {
        let options = Options { tuples: 20_000, servers: 4, seed: 1 };
        let report = run(&options).unwrap();
        assert!(report.is_as_expected(), "{}", report.to_text());
        assert_eq!(report.rows.len(), 4);
        // Under the key that they were chosen for, they all meet: the choice was a good one.
        assert_eq!(report.rows[2].share_guessed, 4_000_000);
        assert!(report.rows[3].probe_guessed > 10_000, "{}", report.to_text());
        assert_eq!(run(&options).unwrap(), report);
    }

    #[test]
    fn a_row_beyond_the_promise_is_told() {
        let row = Row { chosen: "x", share_guessed: 1, share: 1_000_000, probe_guessed: 1, probe: 20 };
        let of = |row: &Row| Report { seed: 1, tuples: 1, servers: 2, rows: vec![row.clone(), row.clone()] };
        assert!(of(&row).is_as_expected());
        assert!(!of(&Row { share: 1_050_001, ..row.clone() }).is_as_expected());
        let mut report = of(&row);
        report.rows[1].probe = 41;
        assert!(!report.is_as_expected());
    }
}
