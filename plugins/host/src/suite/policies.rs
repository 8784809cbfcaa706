//! The conformance suite of policies: what every policy must do, and what is good to know of one.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use evenkeel_engine::policy::{Moment, Policy, PolicyAnswer, PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::tcp::Flags;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol};
use evenkeel_engine::{Duration, Instant, InterfaceId};

use super::Subject;
use super::checks::Finding;
use crate::Mode;
use crate::load::Host;

/// The most flows that one call is about, as the forwarder has it.
const BATCH_MAX: usize = evenkeel_engine::device::BATCH_MAX;
/// Flows that look different in every way that a policy can see.
const VARIED: u32 = 1_000;
/// Sources of a flood.
const FLOOD: u32 = 20_000;

type Check = fn(&mut Bench<'_>) -> Result<Finding, String>;

/// Runs the whole suite.
pub(super) fn examine(subject: &Subject) -> Result<Vec<Finding>, String> {
    let mut bench = Bench { subject, host: subject.host(Mode::Fuel) };
    bench.fresh()?;
    let checks: [Check; 6] = [deterministic, verdicts, sizes, batches, packets, flood];
    checks.into_iter().map(|check| check(&mut bench)).collect()
}

/// Makes new instances.
struct Bench<'a> {
    subject: &'a Subject,
    host: Host,
}

impl Bench<'_> {
    fn fresh(&mut self) -> Result<Asked, String> {
        let policy = self.subject.policy(&mut self.host)?;
        Ok(Asked { policy, now: Instant::ZERO.after(Duration::from_secs(1)) })
    }
}

/// A policy at work.
struct Asked {
    policy: Box<dyn Policy>,
    now: Instant,
}

impl Asked {
    /// Asks about `flows` in batches.
    fn decide(&mut self, flows: &[PolicyFlow], batch: usize) -> Vec<PolicyAnswer> {
        let mut all = vec![PolicyAnswer::SKIP; flows.len()];
        for (flows, answers) in flows.chunks(batch).zip(all.chunks_mut(batch)) {
            self.policy.decide(flows, answers, self.now);
        }
        all
    }

    /// What went wrong, if anything did.
    fn fault(&mut self) -> Option<String> {
        let faults = self.policy.stats().faults;
        let fault = self.policy.take_fault();
        (faults > 0).then(|| match fault {
            Some(fault) => format!("{faults} faults, the last one in {}: {}", fault.call, fault.reason),
            None => format!("{faults} faults"),
        })
    }
}

/// The flow `number`: protocols, families, interfaces, flags and code points change at different paces.
fn flow(number: u32) -> PolicyFlow {
    let protocols = [Protocol::TCP, Protocol::UDP, Protocol::ICMP];
    let pick = |of: usize, pace: u32| usize::try_from(number / pace).unwrap_or(0) % of;
    let protocol = protocols.get(pick(3, 1)).copied().unwrap_or(Protocol::TCP);
    let is_six = pick(5, 7) == 0;
    let (source, destination) = if is_six {
        let address =
            |host: u32| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8_u128 << 96 | u128::from(host)));
        (Address::from(address(number)), Address::from(address(3)))
    } else {
        let source = Ipv4Addr::from_bits(0xc612_0001_u32.saturating_add(number / 3));
        (Address::from(source), Address::v4([10, 0, 0, 3]))
    };
    let protocol = if is_six && protocol == Protocol::ICMP { Protocol::ICMPV6 } else { protocol };
    let ports = [80_u16, 443, 53, 22, 8_080];
    let destination_port = ports.get(pick(5, 3)).copied().unwrap_or(80);
    let tuple = FiveTuple { source, destination, source_port: 40_000, destination_port, protocol };
    let interface = InterfaceId(u16::from(pick(2, 2) == 1));
    let flow = PolicyFlow::new(tuple.hash(HashKey([1, 2])), tuple, interface);
    PolicyFlow { dscp: Some(u8::try_from(number % 64).unwrap_or(0)), length: 60, ..flow }
}

/// The scripted flows from number `first` on: of all protocols and both families, to a few ports.
#[must_use]
pub fn flows(first: u32, count: u32) -> Vec<PolicyFlow> {
    (first..first.saturating_add(count)).map(flow).collect()
}

/// The same questions twice, each time a new instance.
fn deterministic(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "deterministic";
    let mut run = || -> Result<_, String> {
        let mut asked = bench.fresh()?;
        let first = asked.decide(&flows(0, VARIED), 7);
        asked.now = asked.now.after(Duration::from_secs(3));
        let second = asked.decide(&flows(0, VARIED), 32);
        Ok((first, second, asked.policy.stats()))
    };
    let (one, other) = (run()?, run()?);
    if one == other {
        let each = one.2.fuel / u64::from(2 * VARIED);
        let told = format!("two runs agree, {each} instructions for each flow");
        return Ok(Finding::passed(NAME, told));
    }
    let pairs = one.0.iter().zip(&other.0).chain(one.1.iter().zip(&other.1));
    let differ = pairs.filter(|(one, other)| one != other).count();
    let told = format!("{differ} of {} answers differ between two runs with the same seed", 2 * VARIED);
    Ok(Finding::failed(NAME, told))
}

/// Whether its answers are answers, and which.
fn verdicts(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "verdicts";
    let mut asked = bench.fresh()?;
    let answers = asked.decide(&flows(0, VARIED), 32);
    if let Some(fault) = asked.fault() {
        return Ok(Finding::failed(NAME, fault));
    }
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for answer in &answers {
        let word = match answer.verdict {
            PolicyVerdict::Permit => "permit",
            PolicyVerdict::Deny => "deny",
            PolicyVerdict::Director(_) => "a director",
            PolicyVerdict::Table(_) => "a routing table",
            PolicyVerdict::Skip => "skip",
        };
        *counts.entry(word).or_default() += 1;
    }
    let shown: Vec<String> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    let within = answers.iter().filter(|answer| answer.limit.is_some()).count();
    let limits = asked.policy.wishes().limits.len();
    let told = format!(
        "of {VARIED} flows: {}; {within} within a limit, of {limits} that it wishes",
        shown.join(", ")
    );
    Ok(Finding::passed(NAME, told))
}

/// One flow, a full batch, a thousand flows, and none for a long time.
fn sizes(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "0, 1, 1000 flows";
    let mut asked = bench.fresh()?;
    asked.decide(&[], BATCH_MAX);
    asked.decide(&flows(0, 1), BATCH_MAX);
    asked.decide(&flows(1, VARIED), BATCH_MAX);
    asked.now = asked.now.after(Duration::from_secs(86_400 * 365));
    asked.decide(&flows(0, 1), BATCH_MAX);
    Ok(match asked.fault() {
        Some(fault) => Finding::failed(NAME, fault),
        None => Finding::passed(NAME, format!("alone and by {BATCH_MAX}, and again after a year")),
    })
}

/// One by one as in batches.
fn batches(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "batches";
    let all = flows(0, 640);
    let mut run = |batch| -> Result<_, String> {
        let mut asked = bench.fresh()?;
        let answers = asked.decide(&all, batch);
        Ok((answers, asked.fault()))
    };
    let (one, large) = (run(1)?, run(BATCH_MAX)?);
    if let Some(fault) = one.1.or(large.1) {
        return Ok(Finding::failed(NAME, fault));
    }
    let differ = one.0.iter().zip(&large.0).filter(|(one, large)| one != large).count();
    Ok(if differ == 0 {
        Finding::passed(NAME, format!("flows one by one are decided as in batches of {BATCH_MAX}"))
    } else {
        Finding::noted(
            NAME,
            format!("{differ} of 640 flows are decided otherwise one by one than in batches"),
        )
    })
}

/// Later packets of flows, whether it wants them or the configuration does.
fn packets(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "packets";
    let mut asked = bench.fresh()?;
    let wants = asked.policy.wishes().packets;
    let later = |moment| {
        move |flow: PolicyFlow| {
            let flags = if flow.tuple.protocol == Protocol::TCP { Flags::ACK } else { flow.flags };
            PolicyFlow { moment, flags, length: 1_500, ..flow }
        }
    };
    let first = asked.decide(&flows(0, 64), 32);
    let from_client: Vec<_> = flows(0, 64).into_iter().map(later(Moment::FromClient)).collect();
    let from_server: Vec<_> = flows(0, 64).into_iter().map(later(Moment::FromServer)).collect();
    let told = [asked.decide(&from_client, 32), asked.decide(&from_server, 32)];
    if let Some(fault) = asked.fault() {
        return Ok(Finding::failed(NAME, fault));
    }
    let is_denied = |answer: &&PolicyAnswer| answer.verdict == PolicyVerdict::Deny;
    let denied = told.iter().flatten().filter(is_denied).count();
    let before = first.iter().filter(is_denied).count();
    let wish = if wants { "it wants to judge every packet" } else { "it judges flows" };
    Ok(Finding::noted(NAME, format!("{wish}; of 64 flows it denies {before}, of 128 later packets {denied}")))
}

/// More sources than it can know, within its budget and memory.
fn flood(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "20000 sources";
    let mut asked = bench.fresh()?;
    let before = asked.policy.stats().fuel;
    for first in (0..FLOOD).step_by(1_000) {
        asked.decide(&flows(first * 3, 1_000), BATCH_MAX);
        asked.now = asked.now.after(Duration::from_millis(1));
    }
    if let Some(fault) = asked.fault() {
        return Ok(Finding::failed(NAME, fault));
    }
    let stats = asked.policy.stats();
    let each = (stats.fuel - before) / u64::from(FLOOD);
    let memory = stats.memory_bytes >> 10;
    Ok(Finding::passed(NAME, format!("no fault, {each} instructions for each flow, {memory} KiB of memory")))
}
