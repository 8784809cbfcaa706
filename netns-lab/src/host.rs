//! The process of one host: a network namespace, its addresses, and what the host does.
//!
//! In: orders on the standard input, one a line. Out: one answer to each on the standard output. It ends
//! with its input. Never opens a socket outside its own namespace.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::time::interval;

use crate::client;
use crate::forwarder::{self, Forwarder};
use crate::network::{self, Network};
use crate::orders::{Answer, Counted, ForwardOrder, LoadOrder, LoadResult, NetworkOrder, Order, hear, say};
use crate::sandbox;
use crate::server::Services;

/// Pause between two words about ended flows: often enough for a bar on a terminal.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// The head of the process namespace, which starts every host.
const CONDUCTOR_PID: u32 = 1;

/// Lives as one host until the input ends.
///
/// # Errors
///
/// When the namespace can not be made or the pipes fail. An order that fails is answered instead.
pub(crate) fn run(has_mounts: bool) -> io::Result<()> {
    sandbox::die_with(Some(CONDUCTOR_PID))?;
    raise_descriptor_limit();
    sandbox::own_network(has_mounts)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve_orders())
}

/// The soft limit on descriptors is often 1,024, less than a load needs. Where the hard limit is no
/// higher, flows beyond it count as [`Cause::LocalResources`](crate::Cause::LocalResources).
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// The pipes to the process that started this one.
pub(crate) fn pipes() -> io::Result<(BufReader<pipe::Receiver>, pipe::Sender)> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    Ok((BufReader::new(pipe::Receiver::from_owned_fd(input)?), pipe::Sender::from_owned_fd(output)?))
}

async fn serve_orders() -> io::Result<()> {
    let (mut input, mut output) = pipes()?;
    let mut host = Host::default();
    // The first answer says that the namespace is there.
    say(&mut output, &Answer::Done).await?;
    while let Some(order) = hear(&mut input).await? {
        let answer = host.carry_out(order, &mut output).await;
        say(&mut output, &answer.unwrap_or_else(|error| Answer::Failed(error.to_string()))).await?;
    }
    Ok(())
}

/// What runs in this host.
#[derive(Debug, Default)]
struct Host {
    services: Services,
    forwarder: Option<Forwarder>,
}

impl Host {
    async fn carry_out(&mut self, order: Order, output: &mut pipe::Sender) -> io::Result<Answer> {
        match order {
            Order::Network(order) => set_up(&order).await.map(|()| Answer::Done),
            Order::Serve(orders) => self.services.open(&orders).await.map(|()| Answer::Done),
            Order::Forward(order) => self.start_forwarder(order).await.map(|()| Answer::Done),
            Order::Load(orders, duration_ms) => {
                run_load(orders, Duration::from_millis(duration_ms), output).await.map(Answer::Flows)
            }
            Order::Count => count(&self.services).map(Answer::Counted),
            Order::Ask => match &self.forwarder {
                Some(forwarder) => forwarder.stats().await.map(Answer::Stats),
                None => Err(io::Error::other("no forwarder runs here")),
            },
            Order::StopForwarder => match self.forwarder.take() {
                Some(forwarder) => forwarder.stop().await.map(Answer::Stopped),
                None => Err(io::Error::other("no forwarder runs here")),
            },
        }
    }

    async fn start_forwarder(&mut self, order: ForwardOrder) -> io::Result<()> {
        forwarder::prepare_control(&order)?;
        self.forwarder = Some(Forwarder::start(order).await?);
        Ok(())
    }
}

async fn set_up(order: &NetworkOrder) -> io::Result<()> {
    // Only IPv4 is under test; without this each interface sends router solicitations of its own accord.
    for scope in ["all", "default"] {
        let setting = format!("net/ipv6/conf/{scope}/disable_ipv6");
        if network::has(&setting) {
            network::set(&setting, "1")?;
        }
    }
    let links = Network::open()?;
    links.bring_up("lo", None).await?;
    for (interface, address, length) in &order.addresses {
        links.add_address(interface, *address, *length).await?;
        if interface != "lo" {
            links.bring_up(interface, None).await?;
        }
    }
    if let Some(gateway) = order.gateway {
        links.add_route(Ipv4Addr::UNSPECIFIED, 0, gateway).await?;
    }
    if order.is_router {
        network::set("net/ipv4/ip_forward", "1")?;
    }
    for (setting, value) in &order.settings {
        network::set(setting, value)?;
    }
    Ok(())
}

/// Runs the loads and tells about ended flows in between.
async fn run_load(
    orders: Vec<LoadOrder>,
    duration: Duration,
    output: &mut pipe::Sender,
) -> io::Result<Vec<LoadResult>> {
    let ended = Arc::new(AtomicU64::new(0));
    let mut load = tokio::spawn(client::run(orders, duration, Arc::clone(&ended)));
    let mut ticks = interval(PROGRESS_PAUSE);
    loop {
        tokio::select! {
            results = &mut load => return results.map_err(io::Error::other),
            _ = ticks.tick() => {
                let count = ended.swap(0, Ordering::Relaxed);
                if count > 0 {
                    say(output, &Answer::Progress(count)).await?;
                }
            }
        }
    }
}

fn count(services: &Services) -> io::Result<Counted> {
    let snmp = fs::read_to_string("/proc/self/net/snmp")?;
    let kernel = |protocol: &str, names: &[&str]| -> u64 {
        names.iter().map(|name| kernel_counter(&snmp, protocol, name)).sum()
    };
    Ok(Counted {
        flows: services.flows(),
        packets_in: kernel("Tcp:", &["InSegs"]) + kernel("Udp:", &["InDatagrams"]),
        // The kernel counts a segment that is sent again, or a reset, apart from the others.
        packets_out: kernel("Tcp:", &["OutSegs", "RetransSegs"]) + kernel("Udp:", &["OutDatagrams"]),
        retransmitted: kernel("Tcp:", &["RetransSegs"]),
        // A segment that belongs to no connection is answered with a reset.
        stray: kernel("Tcp:", &["InErrs", "OutRsts"]) + kernel("Udp:", &["NoPorts", "InErrors"]),
    })
}

/// One value of `/proc/net/snmp`, which has for each protocol a line of names and a line of values; zero
/// when it is not there.
fn kernel_counter(snmp: &str, protocol: &str, name: &str) -> u64 {
    let mut lines = snmp.lines().filter_map(|line| line.strip_prefix(protocol));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else { return 0 };
    let position = names.split_whitespace().position(|field| field == name);
    let field = position.and_then(|position| values.split_whitespace().nth(position));
    field.and_then(|field| field.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_counters_are_found_by_protocol_and_name() {
        let snmp = "Ip: Forwarding InReceives\nIp: 1 99\n\
                    Tcp: RtoMin MaxConn InSegs OutSegs\nTcp: 200 -1 30 20\n\
                    Udp: InDatagrams NoPorts OutDatagrams\nUdp: 5 0 4\n";
        assert_eq!(kernel_counter(snmp, "Tcp:", "InSegs"), 30);
        assert_eq!(kernel_counter(snmp, "Udp:", "OutDatagrams"), 4);
        assert_eq!(kernel_counter(snmp, "Udp:", "InSegs"), 0);
        assert_eq!(kernel_counter("", "Udp:", "InSegs"), 0);
    }
}
