//! From the scenario to what the conductor builds.
//!
//! In: a checked scenario and what the lab needs to know of each forwarder's configuration. Out: a
//! [`LabPlan`], or what of the scenario the lab can not do. Opens nothing.

mod loads;
mod network;
mod timeline;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use evenkeel_engine::plan::DirectorPlan;
use evenkeel_engine::wire::Protocol;
use evenkeel_sim::scenario::{Action, Host, Mode, Network, Scenario, Service as ScenarioService, Stack};
use evenkeel_sim::wires::{Delay, Loss, Quality};

use crate::LabError;
use crate::orders::{ForwardOrder, HostPlan, LabPlan, Leg, Role, ServeOrder, Service, Transport, WirePlan};

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

/// The longest packet of a plain interface.
const PLAIN_MTU_BYTES: u32 = 1_500;

/// What the lab needs to know of one forwarder's configuration.
#[derive(Clone, Debug)]
pub(crate) struct ForwarderFile {
    /// The control socket.
    pub(crate) control: PathBuf,
    /// The real servers of all directors, as sockets.
    pub(crate) real_servers: Vec<ScenarioService>,
    /// The directors.
    pub(crate) directors: Vec<DirectorPlan>,
}

/// Lays out the lab. `files` are the configurations of the scenario's forwarders, in their order.
///
/// # Errors
///
/// When the scenario is larger or longer than a lab can be, or has what a kernel can not do.
pub(crate) fn lay_out(
    scenario: &Scenario,
    files: &[ForwarderFile],
    program: &Path,
    seed: u64,
) -> Result<LabPlan, LabError> {
    check_size(scenario)?;
    check_abilities(scenario)?;
    let real_servers: Vec<_> = files.iter().flat_map(|file| file.real_servers.clone()).collect();
    let bridges = Bridges::of(scenario);
    let has_v6 = network::has_v6(scenario);
    let mut orders = loads::orders(scenario, seed)?;
    let mut hosts = Vec::new();
    for machine in 0..scenario.machine_count() {
        let Some((name, _, network)) = scenario.machine(machine) else { continue };
        let role = match scenario.hosts.get(machine) {
            Some(_) if scenario.is_client(machine) => {
                Role::Client(orders.get_mut(machine).map(std::mem::take).unwrap_or_default())
            }
            Some(host) => Role::Server(ServeOrder {
                services: scenario.listeners(machine, &real_servers).iter().map(service).collect(),
                own: own_addresses(network).next(),
                shared: network.loopback.clone(),
                work: host.service.clone(),
                seed,
                name: name.to_owned(),
                agents: agents(files, network),
                agent: host.agent.clone(),
            }),
            None => match forwarder_number(scenario, machine) {
                None => Role::Router,
                Some(number) => Role::Forwarder(forward_order(scenario, number, files, program)?),
            },
        };
        let sends_on = !matches!(role, Role::Client(_) | Role::Server(_)) || network.sysctl.ip_forward;
        hosts.push(HostPlan {
            name: name.to_owned(),
            legs: legs(scenario, machine, network, &bridges),
            network: network::order(scenario, network, sends_on, has_v6),
            role,
        });
    }
    let timeline = timeline::lay_out(scenario, files, &hosts, seed)?;
    Ok(LabPlan {
        program: program.to_owned(),
        bridges: bridges.count(),
        hosts,
        seed,
        timeline,
        duration_ms: milliseconds(scenario.duration),
        patience_ms: milliseconds(scenario.duration + PATIENCE),
    })
}

/// Where forwarders ask the agent of a machine.
fn agents(files: &[ForwarderFile], network: &Network) -> Vec<SocketAddr> {
    let own: Vec<IpAddr> = own_addresses(network).chain(network.loopback.iter().copied()).collect();
    let mut all = BTreeSet::new();
    for director in files.iter().flat_map(|file| &file.directors) {
        let Some(agents) = &director.agent_check else { continue };
        let here = director.servers.iter().filter(|server| own.contains(&server.address));
        let asked = here
            .filter_map(|server| Some(SocketAddr::new(server.address, agents.port_of(server.agent_port)?)));
        all.extend(asked);
    }
    all.into_iter().collect()
}

/// The number of a machine among the forwarders.
fn forwarder_number(scenario: &Scenario, machine: usize) -> Option<usize> {
    machine.checked_sub(scenario.hosts.len() + scenario.routers.len())
}

fn forward_order(
    scenario: &Scenario,
    number: usize,
    files: &[ForwarderFile],
    program: &Path,
) -> Result<ForwardOrder, LabError> {
    let (Some(forwarder), Some(file)) = (scenario.forwarders.get(number), files.get(number)) else {
        return Err(LabError::Failed("a forwarder has no configuration".to_owned()));
    };
    let config = std::path::absolute(&forwarder.config).unwrap_or_else(|_| forwarder.config.clone());
    Ok(ForwardOrder { program: program.to_owned(), config, control: file.control.clone() })
}

fn own_addresses(network: &Network) -> impl Iterator<Item = IpAddr> {
    network.attachments.iter().flat_map(|attachment| attachment.addresses.iter().copied())
}

fn check_size(scenario: &Scenario) -> Result<(), LabError> {
    let machines = scenario.machine_count();
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

/// Refuses what a lab can not do, by its name in the file.
fn check_abilities(scenario: &Scenario) -> Result<(), LabError> {
    let unable = |what: String| Err(LabError::Unable(what));
    if scenario.mode == Mode::Flow {
        return unable(
            "mode = \"flow\" is without packets, and a lab has nothing else; leave it out".to_owned(),
        );
    }
    if let Some(host) = scenario.hosts.iter().find(|host| host.stack != Stack::Minimal) {
        return unable(format!("host {}: its stack is the kernel's own, not {:?}", host.name, host.stack));
    }
    let follows = |host: &&Host| host.agent.as_ref().is_some_and(|agent| agent.full.is_some());
    if let Some(host) = scenario.hosts.iter().find(follows) {
        return unable(format!("host {}: the agents of a lab say a line, without `full`", host.name));
    }
    for machine in 0..scenario.machine_count() {
        let Some((name, _, network)) = scenario.machine(machine) else { continue };
        network::check(name, network)?;
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

fn service(service: &ScenarioService) -> Service {
    Service { transport: transport(service.protocol), address: service.address, port: service.port }
}

fn transport(protocol: Protocol) -> Transport {
    if protocol == Protocol::UDP { Transport::Udp } else { Transport::Tcp }
}

/// A bridge for each segment, and for each VLAN of it: its ports are untagged, so that a VLAN is a switch of its own.
#[derive(Debug)]
struct Bridges(Vec<(usize, u16)>);

impl Bridges {
    fn of(scenario: &Scenario) -> Self {
        let mut all = Vec::new();
        for machine in 0..scenario.machine_count() {
            let Some((_, _, network)) = scenario.machine(machine) else { continue };
            all.extend(network.attachments.iter().map(|one| (one.segment, one.vlan)));
        }
        all.sort_unstable();
        all.dedup();
        Self(all)
    }

    fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    fn number(&self, segment: usize, vlan: u16) -> u32 {
        let place = self.0.binary_search(&(segment, vlan)).unwrap_or(0);
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

fn legs(scenario: &Scenario, machine: usize, network: &Network, bridges: &Bridges) -> Vec<Leg> {
    let legs = network.attachments.iter().map(|attachment| {
        let (up, down) = scenario.quality(machine, attachment.segment);
        let is_changed = is_changed(scenario, machine, attachment.segment);
        Leg {
            bridge: bridges.number(attachment.segment, attachment.vlan),
            interface: attachment.interface.clone(),
            wire: (is_changed || is_felt(&up) || is_felt(&down)).then_some(WirePlan { up, down }),
        }
    });
    legs.collect()
}

/// Whether the timeline changes what lies between a machine and a segment.
fn is_changed(scenario: &Scenario, machine: usize, wanted: usize) -> bool {
    scenario.timeline.iter().any(|one| {
        matches!(&one.action, Action::LinkSet { targets, segment, .. }
            if *segment == wanted && targets.contains(&machine))
    })
}

/// Whether a link does anything that a veth pair does not.
fn is_felt(quality: &Quality) -> bool {
    let Delay::Fixed(delay) = quality.delay else { return true };
    nanoseconds(delay) > PLAIN_DELAY_NS_MAX
        || (1..PLAIN_RATE_BITS_MIN).contains(&quality.rate_bits)
        || quality.loss != Loss::None
        || quality.reorder.millionths > 0
        || quality.duplicate_millionths > 0
        || quality.corrupt_millionths > 0
        || quality.mtu_bytes < PLAIN_MTU_BYTES
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(super) const SCENARIO: &str = r#"
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

    pub(super) fn scenario(text: &str) -> Scenario {
        Scenario::parse(text, Path::new("/scenarios/test.toml")).unwrap()
    }

    pub(super) fn file() -> ForwarderFile {
        let server = ScenarioService { address: [10, 0, 3, 20].into(), port: 80, protocol: Protocol::TCP };
        ForwarderFile {
            control: PathBuf::from("/run/x.sock"),
            real_servers: vec![server],
            directors: Vec::new(),
        }
    }

    #[test]
    fn every_machine_becomes_a_host_with_its_role() {
        let plan = lay_out(&scenario(SCENARIO), &[file()], Path::new("evenkeel"), 1).unwrap();
        let names: Vec<_> = plan.hosts.iter().map(|host| host.name.as_str()).collect();
        assert_eq!(names, ["client.0", "client.1", "client.2", "server", "lb"]);
        let Role::Server(order) = &plan.hosts[3].role else { panic!("the server serves") };
        assert_eq!(order.services.len(), 1);
        assert_eq!(order.services[0].port, 80);
        let Role::Forwarder(order) = &plan.hosts[4].role else { panic!("the forwarder forwards") };
        assert_eq!(order.config, Path::new("/scenarios/x.toml"));
        assert_eq!(plan.hosts[4].legs.len(), 2);
        assert_eq!(plan.hosts[0].network.routes, ["-4 route replace default via 198.51.100.1"]);
    }

    #[test]
    fn only_a_slow_or_lossy_link_becomes_a_wire() {
        let plan = lay_out(&scenario(SCENARIO), &[file()], Path::new("evenkeel"), 1).unwrap();
        assert!(plan.hosts[0].legs[0].wire.is_none());
        let wire = plan.hosts[3].legs[0].wire.unwrap();
        assert_eq!(wire.up.delay, Delay::Fixed(Duration::from_millis(2)));
        assert_eq!(wire.down.loss, Loss::Even { millionths: 10_000 });
    }

    #[test]
    fn what_is_without_packets_is_refused() {
        let text = SCENARIO.replace("duration = \"10s\"", "duration = \"10s\"\nmode = \"flow\"");
        let text = text.replace("delay = \"2ms\"\nloss = 0.01", "delay = \"2ms\"");
        let error = lay_out(&scenario(&text), &[file()], Path::new("evenkeel"), 1).unwrap_err();
        assert!(error.to_string().starts_with("mode = \"flow\" is without packets"), "{error}");
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
