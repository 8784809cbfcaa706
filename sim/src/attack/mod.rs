//! Attacks on the engine, in virtual time: each is a program that knows the source code and tries to do harm, beside
//! honest traffic that must not notice.
//!
//! ```text
//! attacker, clients --> interface 0 --> engine --> interface 1 + n --> real server n
//! ```
//!
//! * [`forged`] segments and errors in the name of others, by someone who knows addresses and ports but no numbers
//! * [`syn_flood`] connections that nobody means to open
//! * [`hash`] tuples chosen so that they meet in one place
//! * [`fragments`] parts of datagrams that have no first part
//!
//! In: a few numbers and a seed. Out: a report with what was promised and whether it held. The same numbers give the
//! same report on every machine. Nothing here is asked of the machine: who wants to know how much memory the process
//! has gives a function for it.

pub mod forged;
pub mod fragments;
pub mod hash;
pub mod syn_flood;

use std::net::Ipv4Addr;

use evenkeel_engine::plan::{
    Binding, Builtin, DirectorPlan, InterfacePlan, Layer, Mode as PlanMode, Plan, Prefix, RoutePlan,
    SchedulerPlan, ServerPlan, SourceNat, Timeouts,
};
use evenkeel_engine::wire::{HashKey, Protocol};
use evenkeel_engine::{Engine, Guests, Instant, InterfaceId, PlanError, step};

use crate::device::SimDevice;
use crate::packet::{End, Packet};
use crate::random::Stream;

/// Where clients and attackers are.
const OUTSIDE: InterfaceId = InterfaceId(0);
/// The service that is attacked.
const VIP: End = End { address: Ipv4Addr::new(10, 0, 0, 3), port: 80 };
/// Whom real servers see with source NAT.
const MAPPED: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The port of real servers that need not have the one of the VIP.
const SERVER_PORT: u16 = 8080;
/// The most real servers of an attacked service: one interface each, one address each in a /24.
const SERVERS_MAX: u16 = 200;
/// Timer calls that one pass of time causes at most; each takes care of up to 1,024 flows.
const TIMER_STEPS_MAX: usize = 1 << 20;

/// How packets reach the real servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The destination is translated.
    #[default]
    Nat,
    /// Source and destination are translated.
    FullNat,
    /// Nothing is translated, and answers do not come by.
    Gateway,
}

impl Mode {
    /// The name that users know.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::FullNat => "full-nat",
            Self::Gateway => "gateway",
        }
    }
}

/// Resident memory of this process in bytes, where that is known.
pub type Memory<'a> = dyn FnMut() -> Option<u64> + 'a;

/// Why an attack could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AttackError {
    /// The engine refuses the plan, because a number is out of its range.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// A number is out of its range.
    #[error("{name} is {value}; it is {range}")]
    OutOfRange {
        /// Which one.
        name: &'static str,
        /// What it is.
        value: u64,
        /// What it may be.
        range: &'static str,
    },
}

fn in_range(
    name: &'static str,
    value: u64,
    least: u64,
    most: u64,
    range: &'static str,
) -> Result<(), AttackError> {
    if (least..=most).contains(&value) { Ok(()) } else { Err(AttackError::OutOfRange { name, value, range }) }
}

/// A service with `servers` real servers, each behind an interface of its own. Timeouts are those of the RFCs, so that
/// no flow ends of itself while an attack lasts.
fn plan(mode: Mode, protocol: Protocol, scheduler: Builtin, servers: u16, seed: u64) -> Plan {
    let mut plan = Plan::empty();
    let mut secret = Stream::new(seed, "forwarder", "hash key");
    plan.hash_key = HashKey([secret.bits(), secret.bits()]);
    plan.seed = seed;
    plan.timeouts = Timeouts::rfc();
    plan.interfaces.push(InterfacePlan::new("outside", Layer::Ip));
    let everywhere = Prefix { address: Ipv4Addr::UNSPECIFIED.into(), length: 0 };
    plan.routes.push(RoutePlan { destination: everywhere, gateway: None, interface: OUTSIDE });
    let port = if mode == Mode::Gateway { VIP.port } else { SERVER_PORT };
    let mut members = Vec::new();
    for number in 0..servers.min(SERVERS_MAX) {
        let interface = server_interface(number);
        plan.interfaces.push(InterfacePlan::new(&format!("server{number}"), Layer::Ip));
        let address = server_address(number).into();
        plan.routes.push(RoutePlan { destination: Prefix::host(address), gateway: None, interface });
        members.push(ServerPlan::new(&format!("server{number}"), address, port, 1));
    }
    let bind = Binding::of(VIP.address.into(), VIP.port, protocol);
    let mut director = DirectorPlan::new("attacked", bind, scheduler, members);
    director.scheduler = SchedulerPlan::Builtin(scheduler);
    director.mode = match mode {
        Mode::Nat => PlanMode::Nat { sources: Vec::new() },
        Mode::FullNat => PlanMode::Nat { sources: vec![SourceNat::to(MAPPED.into(), 1024..=65_535)] },
        Mode::Gateway => PlanMode::Gateway,
    };
    plan.directors.push(director);
    plan
}

fn server_address(number: u16) -> Ipv4Addr {
    let last = u8::try_from(number.min(SERVERS_MAX) + 20).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 0, 3, last)
}

const fn server_interface(number: u16) -> InterfaceId {
    InterfaceId(number + 1)
}

/// The real server behind an interface.
const fn server_of(interface: InterfaceId) -> Option<u16> {
    interface.0.checked_sub(1)
}

/// The address and port of an honest client. No two of the first 2^24 are the same, and none is an attacker's.
fn honest(number: u32) -> End {
    let [_, high, middle, low] = (number / 16).to_be_bytes();
    let port = 10_000 + u16::try_from(number % 16).unwrap_or(0);
    End { address: Ipv4Addr::new(16 + high % 16, middle, low, 7), port }
}

/// Which honest client has this address and port.
fn honest_number(end: End) -> Option<u32> {
    let [first, middle, low, last] = end.address.octets();
    let high = first.checked_sub(16).filter(|high| *high < 16 && last == 7)?;
    let port = end.port.checked_sub(10_000).filter(|port| *port < 16)?;
    Some(u32::from_be_bytes([0, high, middle, low]) * 16 + u32::from(port))
}

/// An address that an attacker writes into a packet: any that can be a sender, but none of an honest client or of ours.
fn stranger(random: &mut Stream) -> End {
    // 32.0.0.0 to 126.255.255.255, without the first and last of each /24.
    let bits = random.bits().to_be_bytes();
    let [first, second, third, fourth, high, low, ..] = bits;
    let address = Ipv4Addr::new(32 + first % 95, second, third, 1 + fourth % 254);
    End { address, port: u16::from_be_bytes([high, low]).max(1) }
}

/// An engine, its device, and the time.
struct Bench {
    engine: Engine,
    device: SimDevice,
    now: Instant,
}

impl Bench {
    fn new(plan: Plan) -> Result<Self, PlanError> {
        let engine = Engine::new(plan, Guests::default(), Instant::ZERO)?;
        Ok(Self { engine, device: SimDevice::default(), now: Instant::ZERO })
    }

    /// A buffer to build a packet in.
    fn buffer(&mut self) -> Packet {
        self.device.buffer()
    }

    /// Lets a packet come in; [`Bench::run`] has the engine look at it. Whoever puts more than the device's queue
    /// holds between two runs loses the rest.
    fn put(&mut self, interface: InterfaceId, packet: Packet) {
        let _ = self.device.put(interface, packet);
    }

    /// Has the engine look at everything that came in.
    fn run(&mut self) {
        loop {
            step(&mut self.engine, &mut self.device, self.now);
            while self.engine.poll_event().is_some() {}
            if !self.device.has_waiting() {
                break;
            }
        }
    }

    /// What left, in order.
    fn take(&mut self) -> Option<(InterfaceId, Packet)> {
        self.device.take()
    }

    fn recycle(&mut self, packet: Packet) {
        self.device.recycle(packet);
    }

    /// Lets one packet come in and gives what left of it; anything else that left is gone.
    fn one(&mut self, interface: InterfaceId, packet: Packet) -> Option<(InterfaceId, Packet)> {
        self.put(interface, packet);
        self.run();
        let first = self.take();
        while let Some((_, packet)) = self.take() {
            self.recycle(packet);
        }
        first
    }

    /// Lets time pass up to `at`; every timer of the engine acts at its own time. What leaves meanwhile is gone.
    fn pass_until(&mut self, at: Instant) {
        for _ in 0..TIMER_STEPS_MAX {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= at) else { break };
            self.now = self.now.max(due);
            self.run();
        }
        self.now = self.now.max(at);
        self.run();
        while let Some((_, packet)) = self.take() {
            self.recycle(packet);
        }
    }

    /// Drops so far, by the name of their reason.
    fn drops(&self) -> Vec<(&'static str, u64)> {
        let drops = self.engine.counters().drops().filter(|(_, count)| *count > 0);
        drops.map(|(reason, count)| (reason.name(), count)).collect()
    }
}

/// `part` of `whole` in millionths, rounded down; a whole of nothing counts as all.
const fn millionths(part: u64, whole: u64) -> u64 {
    match (part as u128 * 1_000_000).checked_div(whole as u128) {
        #[allow(clippy::cast_possible_truncation, reason = "a part is at most the whole")]
        Some(millionths) => millionths as u64,
        None => 1_000_000,
    }
}

/// Millionths as per cent with two places.
fn per_cent(millionths: u64) -> String {
    format!("{}.{:02} %", millionths / 10_000, millionths % 10_000 / 100)
}

/// A count with its thousands set apart.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn honest_clients_differ_from_each_other_and_from_strangers() {
        let mut seen: Vec<End> = (0..5_000).map(honest).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 5_000);
        assert!((0..5_000).all(|number| honest_number(honest(number)) == Some(number)));
        assert!(seen.iter().all(|end| (16..32).contains(&end.address.octets()[0])));
        let mut random = Stream::new(1, "attacker", "test");
        for _ in 0..1000 {
            let end = stranger(&mut random);
            assert!((32..127).contains(&end.address.octets()[0]) && end.port > 0, "{end:?}");
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            (grouped(0), grouped(999), grouped(1_234_567)),
            ("0".into(), "999".into(), "1,234,567".into())
        );
        assert_eq!(
            (per_cent(999_999), millionths(1, 3), millionths(0, 0)),
            ("99.99 %".into(), 333_333, 1_000_000)
        );
    }
}
