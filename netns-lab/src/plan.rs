//! From the scenario to what the conductor builds.
//!
//! In: a checked scenario and what the lab needs to know of each forwarder's configuration. Out: a
//! [`LabPlan`], or what of the scenario the lab can not do. Opens nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_engine::wire::Protocol;
use evenkeel_sim::random::Stream;
use evenkeel_sim::scenario::{
    Arrivals, Extent, Load, Network, Scenario, SegmentKind, Service as ScenarioService, Stack, Sysctl,
};
use evenkeel_sim::wires::{Delay, Discipline, Loss, Quality};
use evenkeel_sim::work::Law;

use crate::LabError;
use crate::orders::{
    ForwardOrder, HostPlan, LabPlan, Leg, LoadOrder, NetworkOrder, Role, Service, Starts, Transport, WirePlan,
};

/// Machines of one lab: each is a process with a network of its own, about 4 MB.
pub const MACHINES_MAX: usize = 256;

/// Flows of one lab: more than a minute's worth at the rate that one client process opens connections.
pub const FLOWS_MAX: u64 = 1_000_000;

/// The longest run of the loads in real time.
pub const DURATION_MAX: Duration = Duration::from_secs(3_600);

/// What building the lab and stopping it may take beyond the loads.
const PATIENCE: Duration = Duration::from_secs(180);

/// A link that is at least as quick as this is a plain veth pair: the kernel's own delay is of this size.
const PLAIN_DELAY_NS_MAX: u64 = 50_000;

/// A rate that no user-space wire reaches is no limit.
const PLAIN_RATE_BITS_MIN: u64 = 10_000_000_000;

/// What the lab needs to know of one forwarder's configuration.
#[derive(Clone, Debug)]
pub(crate) struct ForwarderFile {
    /// The control socket.
    pub(crate) control: PathBuf,
    /// The real servers of all directors.
    pub(crate) real_servers: Vec<ScenarioService>,
}

/// Lays out the lab. `files` are the configurations of the scenario's forwarders, in their order.
///
/// # Errors
///
/// When the scenario is larger or longer than a lab can be.
pub(crate) fn lay_out(
    scenario: &Scenario,
    files: &[ForwarderFile],
    program: &Path,
    seed: u64,
) -> Result<LabPlan, LabError> {
    check_size(scenario)?;
    check_abilities(scenario)?;
    let real_servers: Vec<_> = files.iter().flat_map(|file| file.real_servers.clone()).collect();
    let starts = draw_starts(scenario, seed)?;
    let mut hosts = Vec::new();
    for (machine, host) in scenario.hosts.iter().enumerate() {
        let services = scenario.listeners(machine, &real_servers);
        let role = if scenario.is_client(machine) {
            Role::Client(orders_of(scenario, machine, &starts))
        } else {
            Role::Server(services.iter().filter_map(service).collect())
        };
        let network = network_order(scenario, &host.network, false);
        let legs = legs(scenario, machine, &host.network)?;
        hosts.push(HostPlan { name: host.name.clone(), legs, network, role });
    }
    for (number, (forwarder, file)) in scenario.forwarders.iter().zip(files).enumerate() {
        let config = std::path::absolute(&forwarder.config).unwrap_or_else(|_| forwarder.config.clone());
        let order = ForwardOrder { program: program.to_owned(), config, control: file.control.clone() };
        let network = network_order(scenario, &forwarder.network, true);
        let legs = legs(scenario, scenario.hosts.len() + number, &forwarder.network)?;
        hosts.push(HostPlan { name: forwarder.name.clone(), legs, network, role: Role::Forwarder(order) });
    }
    let duration = scenario.duration;
    Ok(LabPlan {
        program: program.to_owned(),
        segments: u32::try_from(scenario.segments.len()).unwrap_or(u32::MAX),
        hosts,
        seed,
        duration_ms: milliseconds(duration),
        patience_ms: milliseconds(duration + PATIENCE),
    })
}

fn check_size(scenario: &Scenario) -> Result<(), LabError> {
    let machines = scenario.hosts.len() + scenario.forwarders.len();
    if machines > MACHINES_MAX {
        let what = format!("{machines} machines; a lab has at most {MACHINES_MAX}");
        return Err(LabError::TooLarge(what));
    }
    let duration = scenario.duration;
    if duration > DURATION_MAX {
        let (wanted, most) = (duration.as_secs(), DURATION_MAX.as_secs());
        let what = format!("a duration of {wanted} s, which here is real time; a lab runs at most {most} s");
        return Err(LabError::TooLarge(what));
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn service(service: &ScenarioService) -> Option<Service> {
    let address = v4(service.address)?;
    Some(Service { transport: transport(service.protocol), address, port: service.port })
}

fn transport(protocol: Protocol) -> Transport {
    if protocol == Protocol::UDP { Transport::Udp } else { Transport::Tcp }
}

/// Refuses what a lab can not do, by its name in the file.
fn check_abilities(scenario: &Scenario) -> Result<(), LabError> {
    let unable = |what: String| Err(LabError::Unable(what));
    if let Some(router) = scenario.routers.first() {
        return unable(format!("router {}: a lab has hosts and forwarders only", router.name));
    }
    if !scenario.timeline.is_empty() {
        return unable("[[timeline]]: nothing happens in a lab but its loads".to_owned());
    }
    if let Some(segment) = scenario.segments.iter().find(|one| one.kind == SegmentKind::Cable) {
        return unable(format!("segment {}: every segment of a lab is a switch", segment.name));
    }
    for host in &scenario.hosts {
        if host.service.is_some() || host.stack != Stack::Minimal {
            return unable(format!("host {}: its programs and its stack are the machine's own", host.name));
        }
        check_network(&host.name, &host.network, Sysctl::default())?;
    }
    for forwarder in &scenario.forwarders {
        let sysctl = Sysctl { ip_forward: forwarder.network.sysctl.ip_forward, ..Sysctl::default() };
        check_network(&forwarder.name, &forwarder.network, sysctl)?;
    }
    for load in &scenario.loads {
        let is_fixed = |law: &Law| matches!(law, Law::Fixed { .. });
        let exchange = &load.exchange;
        if !is_fixed(&exchange.request) || !is_fixed(&exchange.response) || !exchange.pause.is_zero() {
            return unable(format!("load {}: a lab has messages of one size, and no pauses", load.name));
        }
        if load.deadline.is_some() || v4(load.service.address).is_none() {
            return unable(format!("load {}: a lab has IPv4, and no deadlines", load.name));
        }
    }
    Ok(())
}

fn check_network(name: &str, network: &Network, sysctl: Sysctl) -> Result<(), LabError> {
    let is_plain = network.loopback.is_empty()
        && network.routes.is_empty()
        && network.rules.is_empty()
        && network.masquerade.is_empty()
        && !network.decapsulates
        && network.sysctl == sysctl
        && network.gateways.iter().all(IpAddr::is_ipv4);
    let has_plain_ports = network.attachments.iter().enumerate().all(|(place, attachment)| {
        let [address] = attachment.addresses[..] else { return false };
        address.is_ipv4() && attachment.vlan == 1 && attachment.interface == format!("eth{place}")
    });
    if is_plain && has_plain_ports {
        return Ok(());
    }
    Err(LabError::Unable(format!(
        "{name}: a lab's machines have one IPv4 address at each of eth0, eth1 ..., and a gateway; no further addresses, \
         routes, rules and settings"
    )))
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn network_order(scenario: &Scenario, network: &Network, is_router: bool) -> NetworkOrder {
    let mut addresses = Vec::new();
    for (leg, attachment) in network.attachments.iter().enumerate() {
        let subnets = scenario.segments.get(attachment.segment).map_or(&[][..], |segment| &segment.subnets);
        for address in attachment.addresses.iter().copied() {
            let length =
                subnets.iter().find(|subnet| subnet.contains(address)).map_or(32, |subnet| subnet.length);
            addresses.extend(v4(address).map(|address| (format!("eth{leg}"), address, length)));
        }
    }
    let gateway = network.gateways.iter().copied().find_map(v4);
    let mut settings = BTreeMap::new();
    let mut set = |key: String, value: &str| settings.insert(key, value.to_owned());
    // A new namespace copies these from the machine outside, on which a lab must not depend.
    for scope in ["all", "default"] {
        set(format!("net/ipv4/conf/{scope}/rp_filter"), "0");
    }
    NetworkOrder { addresses, gateway, is_router, settings }
}

fn legs(scenario: &Scenario, machine: usize, network: &Network) -> Result<Vec<Leg>, LabError> {
    let leg = |segment: usize| {
        let (up, down) = scenario.quality(machine, segment);
        let wire = (up == down).then(|| wire(&up)).flatten().ok_or_else(|| {
            let name = scenario.segments.get(segment).map_or("", |segment| &segment.name);
            LabError::Unable(format!(
                "a link to {name}: a lab's links have a delay, jitter, rate, even loss and a queue of packets, the same \
                 both ways"
            ))
        })?;
        Ok(Leg { segment: u32::try_from(segment).unwrap_or(u32::MAX), wire: needed(wire, &up) })
    };
    network.attachments.iter().map(|attachment| leg(attachment.segment)).collect()
}

/// The wire that does what such a link does; none when no wire can.
fn wire(quality: &Quality) -> Option<WirePlan> {
    let (delay, jitter) = match quality.delay {
        Delay::Fixed(delay) => (delay, Duration::ZERO),
        Delay::Uniform { low, high } => (low, high.saturating_sub(low)),
        Delay::Normal { .. } | Delay::LogNormal { .. } | Delay::Exponential { .. } | Delay::Pareto { .. } => {
            return None;
        }
    };
    let loss_ppm = match quality.loss {
        Loss::None => 0,
        Loss::Even { millionths } => millionths,
        Loss::GilbertElliott { .. } => return None,
    };
    let queue_frames = match quality.queue {
        Discipline::Packets { limit } => limit,
        Discipline::Bytes { .. } | Discipline::Red(_) => return None,
    };
    let is_whole = quality.reorder.millionths == 0
        && quality.duplicate_millionths == 0
        && quality.corrupt_millionths == 0;
    let is_limited = (1..PLAIN_RATE_BITS_MIN).contains(&quality.rate_bits);
    is_whole.then(|| WirePlan {
        delay_ns: nanoseconds(delay),
        jitter_ns: nanoseconds(jitter),
        rate_bits: if is_limited { quality.rate_bits } else { 0 },
        loss_ppm,
        queue_frames,
    })
}

/// The wire, or none when a veth pair does the same.
fn needed(wire: WirePlan, quality: &Quality) -> Option<WirePlan> {
    let is_limited = (1..PLAIN_RATE_BITS_MIN).contains(&quality.rate_bits);
    let is_plain = wire.delay_ns + wire.jitter_ns <= PLAIN_DELAY_NS_MAX && !is_limited && wire.loss_ppm == 0;
    (!is_plain).then_some(wire)
}

/// Per load and client, in the order of the scenario.
type StartsOfAll = Vec<Vec<Starts>>;

/// Draws when each flow of each load begins, and deals the flows out to the clients in turn.
fn draw_starts(scenario: &Scenario, seed: u64) -> Result<StartsOfAll, LabError> {
    let mut left = FLOWS_MAX;
    let mut all = Vec::new();
    for load in &scenario.loads {
        let mut random = Stream::new(seed, &load.name, "arrivals");
        let starts = match load.arrivals {
            Arrivals::Poisson { mean_gap } => deal(load, left, || random.exponential(mean_gap)),
            Arrivals::Uniform { gap } => deal(load, left, || gap),
            Arrivals::Closed { outstanding, think } if think.is_zero() => {
                Some(deal_closed(load, outstanding))
            }
            Arrivals::Closed { .. } | Arrivals::OnOff { .. } => {
                let what =
                    format!("load {}: a lab has no arrivals in waves, and no time to think", load.name);
                return Err(LabError::Unable(what));
            }
        };
        let starts = starts.ok_or_else(|| {
            LabError::TooLarge(format!("load {}: a lab opens at most {FLOWS_MAX} flows in all", load.name))
        })?;
        for part in &starts {
            if let Starts::At(times) = part {
                left = left.saturating_sub(u64::try_from(times.len()).unwrap_or(u64::MAX));
            }
        }
        all.push(starts);
    }
    Ok(all)
}

/// The times of an open load, one list per client; `None` when there are more than `most`.
fn deal(load: &Load, most: u64, mut gap: impl FnMut() -> Duration) -> Option<Vec<Starts>> {
    let mut lists: Vec<Vec<u64>> = load.clients.iter().map(|_| Vec::new()).collect();
    let begin = load.start;
    let mut time = begin;
    let mut opened = 0;
    loop {
        let is_over = match load.extent {
            Extent::Flows(flows) => opened >= flows,
            Extent::Duration(duration) => time >= begin + duration,
        };
        if is_over {
            return Some(lists.into_iter().map(Starts::At).collect());
        }
        if opened >= most {
            return None;
        }
        let client = usize::try_from(opened).unwrap_or(usize::MAX) % lists.len().max(1);
        lists.get_mut(client)?.push(microseconds(time));
        opened += 1;
        time += gap();
    }
}

/// A closed load in equal parts, the first clients getting what does not divide.
fn deal_closed(load: &Load, outstanding: u32) -> Vec<Starts> {
    let clients = u64::try_from(load.clients.len()).unwrap_or(u64::MAX).max(1);
    let begin = load.start;
    let part = |whole: u64, position: u64| whole / clients + u64::from(position < whole % clients);
    let (flows, until_us) = match load.extent {
        Extent::Flows(flows) => (Some(flows), None),
        Extent::Duration(duration) => (None, Some(microseconds(begin + duration))),
    };
    (0..clients)
        .map(|position| {
            let open = u32::try_from(part(u64::from(outstanding), position)).unwrap_or(u32::MAX);
            // With fewer flows open than clients, the rest of the clients has nothing to do.
            let flows = if open == 0 {
                Some(0)
            } else {
                closed_flows(flows, clients.min(outstanding.into()), position)
            };
            Starts::Closed { outstanding: open, flows, until_us }
        })
        .collect()
}

fn closed_flows(flows: Option<u64>, clients: u64, position: u64) -> Option<u64> {
    flows.map(|whole| whole / clients + u64::from(position < whole % clients))
}

/// What one client does: its part of every load that names it.
fn orders_of(scenario: &Scenario, machine: usize, starts: &StartsOfAll) -> Vec<LoadOrder> {
    let mut orders = Vec::new();
    for (number, (load, starts)) in scenario.loads.iter().zip(starts).enumerate() {
        for (client, starts) in load.clients.iter().zip(starts) {
            if *client != machine {
                continue;
            }
            let exchange = &load.exchange;
            let Some(address) = v4(load.service.address) else { continue };
            orders.push(LoadOrder {
                load: u32::try_from(number).unwrap_or(u32::MAX),
                transport: transport(load.service.protocol),
                target: SocketAddrV4::new(address, load.service.port),
                start_us: microseconds(load.start),
                starts: starts.clone(),
                rounds: exchange.rounds,
                request_bytes: bytes(&exchange.request),
                response_bytes: bytes(&exchange.response),
                // Apart for each client and load, so that no answer fits the question of another.
                pattern: pattern(machine, number),
            });
        }
    }
    orders
}

/// The size of every message.
fn bytes(law: &Law) -> u32 {
    match law {
        Law::Fixed { value } => u32::try_from(*value).unwrap_or(u32::MAX),
        // Refused before.
        Law::Uniform { .. }
        | Law::Exponential { .. }
        | Law::Lognormal { .. }
        | Law::Bimodal { .. }
        | Law::BoundedPareto { .. }
        | Law::TruncatedNormal { .. }
        | Law::Hyperexponential { .. }
        | Law::Named { .. }
        | Law::Table { .. } => 0,
    }
}

fn pattern(machine: usize, load: usize) -> u32 {
    let [machine, load] = [machine, load].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    machine.rotate_left(24) ^ load.rotate_left(18)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: &str = r#"
[scenario]
name = "test"
duration = "10s"

[segment.left]
subnet = "198.51.100.0/24"

[segment.right]
subnet = "10.0.3.0/24"

[host.client]
count = 3
attach = [{ segment = "left", address = "198.51.100.10+i/24" }]
gateway = "198.51.100.1"

[host.server]
attach = [{ segment = "right", address = "10.0.3.20/24" }]
gateway = "10.0.3.1"

[forwarder.lb]
attach = [{ segment = "left", address = "198.51.100.1/24" }, { segment = "right", address = "10.0.3.1/24" }]
config = "x.toml"

[link.slow]
ends = ["server", "right"]
delay = "2ms"
loss = 0.01

[load.web]
from = "client*"
to = "10.0.0.3:80/tcp"
arrivals = { process = "uniform", rate = "100/s" }
flows = 10
"#;

    fn scenario(text: &str) -> Scenario {
        Scenario::parse(text, Path::new("/scenarios/test.toml")).unwrap()
    }

    fn file() -> ForwarderFile {
        let server = ScenarioService { address: [10, 0, 3, 20].into(), port: 80, protocol: Protocol::TCP };
        ForwarderFile { control: PathBuf::from("/run/x.sock"), real_servers: vec![server] }
    }

    #[test]
    fn every_machine_becomes_a_host_with_its_role() {
        let plan = lay_out(&scenario(SCENARIO), &[file()], Path::new("evenkeel"), 1).unwrap();
        let names: Vec<_> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["client.0", "client.1", "client.2", "server", "lb"]);
        let Role::Server(services) = &plan.hosts[3].role else { panic!("the server serves") };
        assert_eq!(services.len(), 1);
        assert_eq!(services[0].port, 80);
        let Role::Forwarder(order) = &plan.hosts[4].role else { panic!("the forwarder forwards") };
        assert_eq!(order.config, Path::new("/scenarios/x.toml"));
        assert_eq!(plan.hosts[4].legs.len(), 2);
        assert_eq!(plan.hosts[0].network.gateway, Some([198, 51, 100, 1].into()));
    }

    #[test]
    fn only_a_slow_or_lossy_link_becomes_a_wire() {
        let plan = lay_out(&scenario(SCENARIO), &[file()], Path::new("evenkeel"), 1).unwrap();
        assert!(plan.hosts[0].legs[0].wire.is_none());
        let wire = plan.hosts[3].legs[0].wire.unwrap();
        assert_eq!((wire.delay_ns, wire.loss_ppm, wire.rate_bits), (2_000_000, 10_000, 0));
    }

    #[test]
    fn flows_are_dealt_out_in_turn_and_none_is_lost() {
        let starts = draw_starts(&scenario(SCENARIO), 1).unwrap();
        let counts: Vec<_> = starts[0]
            .iter()
            .map(|part| match part {
                Starts::At(times) => times.len(),
                Starts::Closed { .. } => 0,
            })
            .collect();
        assert_eq!(counts, [4, 3, 3]);
        assert_eq!(starts[0][1], Starts::At(vec![10_000, 40_000, 70_000]));
    }

    #[test]
    fn poisson_arrivals_keep_their_rate() {
        let text = SCENARIO.replace("uniform", "poisson").replace("flows = 10", "duration = \"100s\"");
        let starts = draw_starts(&scenario(&text), 7).unwrap();
        let count: u64 = starts[0].iter().map(expected).sum();
        // 10,000 are expected with a standard deviation of 100: five of them are 500.
        assert!((9_500..=10_500).contains(&count), "{count} flows");
    }

    fn expected(part: &Starts) -> u64 {
        match part {
            Starts::At(times) => times.len() as u64,
            Starts::Closed { flows, .. } => flows.unwrap_or(0),
        }
    }

    #[test]
    fn closed_load_is_dealt_out_whole() {
        let closed = "arrivals = { process = \"closed\", outstanding = 2 }";
        let text = SCENARIO.replace("arrivals = { process = \"uniform\", rate = \"100/s\" }", closed);
        let starts = draw_starts(&scenario(&text), 1).unwrap();
        let flows: Vec<_> = starts[0].iter().map(expected).collect();
        assert_eq!(flows, [5, 5, 0], "two flows are open, so two clients work");
    }

    #[test]
    fn scenario_that_is_too_large_is_refused_with_its_number() {
        let text = SCENARIO.replace("count = 3", "count = 240").replace("10+i", "2+i");
        let text =
            text.replace("[host.server]\n", "[host.server]\ncount = 20\n").replace(".20/24", ".20+i/24");
        let error = lay_out(&scenario(&text), &[file()], Path::new("evenkeel"), 1).unwrap_err();
        assert!(error.to_string().contains("261 machines"), "{error}");
        let text = SCENARIO.replace("flows = 10", "flows = 1000001");
        let error = lay_out(&scenario(&text), &[file()], Path::new("evenkeel"), 1).unwrap_err();
        assert!(error.to_string().contains("load web"), "{error}");
    }
}
