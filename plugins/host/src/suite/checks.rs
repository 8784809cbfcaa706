//! The conformance suite: what every scheduler must do, and what is good to know of one.

use evenkeel_engine::director::{Scheduler, ServerView};

use super::Subject;
use super::farm::{Farm, flows, server, servers};
use crate::Mode;
use crate::load::Host;

/// How far a share may be from its weight, in hundredths of all flows.
const EPSILON_PERCENT: f64 = 2.0;
/// Flows of a measurement of shares: the noise of random choices is a third of a percent.
const FLOWS: u32 = 14_000;
/// Flows of a measurement of movement.
const MOVED_OF: u32 = 4_000;
/// A scheduler of this many servers is a large one.
const MANY: u32 = 1_000;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does what it must.
    Passed,
    /// It does not.
    Failed,
    /// Good to know, and right or wrong by what the scheduler is for.
    Noted,
}

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// In words, with figures.
    pub told: String,
}

impl Finding {
    pub(super) fn passed(name: &'static str, told: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Passed, told: told.into() }
    }

    pub(super) fn failed(name: &'static str, told: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Failed, told: told.into() }
    }

    pub(super) fn noted(name: &'static str, told: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Noted, told: told.into() }
    }
}

/// One of the checks.
type Check = fn(&mut Bench<'_>) -> Result<Finding, String>;

/// Runs the whole suite of schedulers.
pub(super) fn examine(subject: &Subject) -> Result<Vec<Finding>, String> {
    let mut bench = Bench { subject, host: subject.host(Mode::Fuel) };
    bench.fresh(&[1])?;
    let checks: [Check; 10] =
        [deterministic, answers, weights, drained, alone, many, batches, order, disruption, snapshot];
    checks.into_iter().map(|check| check(&mut bench)).collect()
}

/// Makes new instances.
struct Bench<'a> {
    subject: &'a Subject,
    host: Host,
}

impl Bench<'_> {
    fn scheduler(&mut self) -> Result<Box<dyn Scheduler>, String> {
        self.subject.scheduler(&mut self.host)
    }

    fn fresh(&mut self, weights: &[u32]) -> Result<Farm, String> {
        self.with(servers(weights))
    }

    fn with(&mut self, servers: Vec<ServerView>) -> Result<Farm, String> {
        Ok(Farm::new(self.scheduler()?, servers))
    }
}

/// What went wrong in a farm's guest, if anything did.
fn fault(farm: &mut Farm) -> Option<String> {
    let faults = farm.scheduler.stats().faults;
    let fault = farm.scheduler.take_fault();
    (faults > 0).then(|| match fault {
        Some(fault) => format!("{faults} faults, the last one in {}: {}", fault.call, fault.reason),
        None => format!("{faults} faults"),
    })
}

/// Flows per server.
fn shares(picked: &[Option<u16>], count: usize) -> Vec<u32> {
    let mut shares = vec![0_u32; count];
    for server in picked.iter().flatten() {
        if let Some(share) = shares.get_mut(usize::from(*server)) {
            *share += 1;
        }
    }
    shares
}

fn percent(part: usize, whole: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "thousands of flows")]
    let percent = part as f64 * 100.0 / whole.max(1) as f64;
    percent
}

/// The same questions twice, each time a new instance.
fn deterministic(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "deterministic";
    let mut run = || -> Result<_, String> {
        let mut farm = bench.fresh(&[4, 2, 1, 9])?;
        let flows = flows(0, 1_000);
        let picked = farm.pick(&flows, 7);
        let ended = flows.get(..500).unwrap_or_default();
        farm.close(ended, &picked);
        farm.change(servers(&[4, 0, 1, 9, 3]));
        let again = farm.pick(&flows, 32);
        Ok((picked, again, farm.scheduler.stats()))
    };
    let (first, second) = (run()?, run()?);
    if first == second {
        let calls = first.2.calls.max(1);
        let told = format!("two runs agree, {} instructions for each call", first.2.fuel / calls);
        return Ok(Finding::passed(NAME, told));
    }
    let differ = first.0.iter().zip(&second.0).chain(first.1.iter().zip(&second.1));
    let differ = differ.filter(|(one, other)| one != other).count();
    Ok(Finding::failed(NAME, format!("{differ} of 2000 answers differ between two runs with the same seed")))
}

/// Whether the guest answers, or leaves flows to the fallback.
fn answers(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "answers";
    let mut farm = bench.fresh(&[1; 8])?;
    let flows = flows(0, 2_000);
    farm.pick(&flows, 32);
    if let Some(fault) = fault(&mut farm) {
        return Ok(Finding::failed(NAME, fault));
    }
    let stats = farm.scheduler.stats();
    let told = format!("decided {} of 2000 flows, left {} to the fallback", stats.decided, stats.fallbacks);
    Ok(if stats.decided > 0 { Finding::passed(NAME, told) } else { Finding::failed(NAME, told) })
}

/// Shares by weight.
fn weights(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "weights";
    let all = [4_u32, 2, 1];
    let mut farm = bench.fresh(&all)?;
    let picked = farm.pick(&flows(0, FLOWS), 32);
    if let Some(fault) = fault(&mut farm) {
        return Ok(Finding::failed(NAME, fault));
    }
    let shares: Vec<f64> = shares(&picked, all.len())
        .into_iter()
        .map(|share| f64::from(share) * 100.0 / f64::from(FLOWS))
        .collect();
    let off = |wanted: &dyn Fn(u32) -> f64| {
        let off = shares.iter().zip(all).map(|(share, weight)| (share - wanted(weight)).abs());
        off.fold(0.0, f64::max)
    };
    let by_weight = off(&|weight| f64::from(weight) * 100.0 / 7.0);
    let equal = off(&|_| 100.0 / 3.0);
    let shown: Vec<String> = shares.iter().map(|share| format!("{share:.1}")).collect();
    let shown = format!("weights 4, 2, 1 got {} %", shown.join(", "));
    Ok(if by_weight <= EPSILON_PERCENT {
        Finding::passed(NAME, format!("{shown}: at most {by_weight:.2} points off"))
    } else if equal <= EPSILON_PERCENT {
        Finding::noted(NAME, format!("{shown}: weights other than 0 do not count"))
    } else {
        Finding::noted(NAME, format!("{shown}: {by_weight:.1} points off the weights"))
    })
}

/// Servers that take no new flow get none.
fn drained(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "weight 0 and down";
    let mut farm = bench.fresh(&[1; 6])?;
    farm.pick(&flows(0, 200), 32);
    let mut all = servers(&[1, 0, 1, 0, 1, 1]);
    if let Some(server) = all.get_mut(4) {
        server.is_up = false;
    }
    farm.change(all);
    farm.pick(&flows(200, 2_000), 32);
    farm.pick(&flows(3_000, 50), 1);
    if let Some(fault) = fault(&mut farm) {
        return Ok(Finding::failed(NAME, fault));
    }
    farm.change(servers(&[0; 6]));
    let none = farm.pick(&flows(4_000, 10), 4);
    if none.iter().any(Option::is_some) || fault(&mut farm).is_some() {
        return Ok(Finding::failed(NAME, "a flow was given away where no server may take one"));
    }
    farm.change(servers(&[1; 6]));
    let back = farm.pick(&flows(5_000, 60), 4);
    if back.iter().any(Option::is_none) || fault(&mut farm).is_some() {
        return Ok(Finding::failed(NAME, "flows have no server though all are back"));
    }
    Ok(Finding::passed(NAME, "never chosen for a new flow, and chosen again when they are back"))
}

/// One server, and none.
fn alone(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "0 and 1 servers";
    let mut farm = bench.fresh(&[])?;
    let none = farm.pick(&flows(0, 10), 4);
    farm.change(servers(&[3]));
    let one = farm.pick(&flows(10, 100), 8);
    if let Some(fault) = fault(&mut farm) {
        return Ok(Finding::failed(NAME, fault));
    }
    let is_right = none.iter().all(Option::is_none) && one.iter().all(|server| *server == Some(0));
    Ok(if is_right {
        Finding::passed(NAME, "no server gets no flow, and one gets all of them")
    } else {
        Finding::failed(NAME, "one server did not get all flows")
    })
}

/// A thousand servers within the budget and the memory.
fn many(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "1000 servers";
    let mut farm = bench.with((0..MANY).map(|number| server(number, 1 + number % 5)).collect())?;
    let before = farm.scheduler.stats();
    farm.pick(&flows(0, 3_200), 32);
    if let Some(fault) = fault(&mut farm) {
        return Ok(Finding::failed(NAME, fault));
    }
    let stats = farm.scheduler.stats();
    let each = (stats.fuel - before.fuel) / 3_200;
    Ok(Finding::passed(
        NAME,
        format!("no fault, {each} instructions for each flow, {} KiB of memory", stats.memory_bytes >> 10),
    ))
}

/// One by one as in batches.
fn batches(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "batches";
    let flows = flows(0, 640);
    let mut run = |batch| -> Result<_, String> {
        let mut farm = bench.fresh(&[4, 2, 1, 1])?;
        let picked = farm.pick(&flows, batch);
        Ok((picked, fault(&mut farm)))
    };
    let (one, large) = (run(1)?, run(64)?);
    if let Some(fault) = one.1.or(large.1) {
        return Ok(Finding::failed(NAME, fault));
    }
    let differ = one.0.iter().zip(&large.0).filter(|(one, large)| one != large).count();
    Ok(if differ == 0 {
        Finding::passed(NAME, "flows one by one go where they go in batches of 64")
    } else {
        Finding::noted(NAME, format!("{differ} of 640 flows go elsewhere in batches of 64 than one by one"))
    })
}

/// Whether the order of the configuration matters.
fn order(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "order";
    let flows = flows(0, MOVED_OF);
    let straight = servers(&[4, 2, 1, 1, 3]);
    let reversed: Vec<ServerView> = straight.iter().rev().copied().collect();
    let (one, other) = (bench.with(straight)?.identities(&flows), bench.with(reversed)?.identities(&flows));
    let moved = one.iter().zip(&other).filter(|(one, other)| one != other).count();
    Ok(if moved == 0 {
        Finding::noted(NAME, "two forwarders with their servers in another order agree")
    } else {
        let part = percent(moved, flows.len());
        Finding::noted(
            NAME,
            format!("{part:.1} % of flows go elsewhere when servers are listed in another order"),
        )
    })
}

/// How many flows would move when a server comes or goes.
fn disruption(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "disruption";
    let flows = flows(0, MOVED_OF);
    let all = servers(&[1; 10]);
    let fewer: Vec<ServerView> = all.iter().enumerate().filter(|(n, _)| *n != 4).map(|(_, s)| *s).collect();
    let gone = all.get(4).map(|server| server.id);
    let (with, without) = (bench.with(all)?.identities(&flows), bench.with(fewer)?.identities(&flows));
    let stayed = with.iter().zip(&without).filter(|(with, _)| **with != gone);
    let (mut moved, mut of) = (0, 0);
    for (with, without) in stayed {
        of += 1;
        moved += usize::from(with != without);
    }
    let part = percent(moved, of);
    Ok(Finding::noted(
        NAME,
        format!("{part:.1} % of the flows of nine servers would move when a tenth goes (0 % is the least)"),
    ))
}

/// Whether a new instance goes on where the old one stopped.
fn snapshot(bench: &mut Bench<'_>) -> Result<Finding, String> {
    const NAME: &str = "snapshot";
    let first = flows(0, 500);
    let mut run = |is_replaced: bool| -> Result<_, String> {
        let mut farm = bench.fresh(&[4, 2, 1, 1])?;
        let picked = farm.pick(&first, 16);
        farm.close(first.get(..250).unwrap_or_default(), &picked);
        let now = farm.now();
        let state = farm.scheduler.save(now);
        let mut is_restored = false;
        if is_replaced {
            let mut new = bench.scheduler()?;
            is_restored = state.as_ref().is_some_and(|state| new.restore(state, now));
            farm.replace(new);
        }
        let picked = farm.pick(&flows(500, 500), 16);
        Ok((picked, state.map(|state| state.len()), is_restored, fault(&mut farm)))
    };
    let ((on, ..), (anew, state, is_restored, fault)) = (run(false)?, run(true)?);
    if let Some(fault) = fault {
        return Ok(Finding::failed(NAME, fault));
    }
    let agrees = on == anew;
    Ok(match (state, is_restored) {
        (Some(bytes), true) if agrees => {
            Finding::passed(NAME, format!("{bytes} bytes, and a new instance goes on as the old one would"))
        }
        (Some(bytes), true) => {
            Finding::failed(NAME, format!("{bytes} bytes, but a new instance decides otherwise"))
        }
        (Some(bytes), false) => {
            Finding::failed(NAME, format!("it saves {bytes} bytes that it does not take back"))
        }
        (None, _) if agrees => Finding::noted(NAME, "it remembers nothing, and a reload changes nothing"),
        (None, _) => Finding::noted(NAME, "it saves nothing: it begins anew with each reload"),
    })
}
