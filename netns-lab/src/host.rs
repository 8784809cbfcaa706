//! The process of one host: a network namespace, its addresses, and what the host does.
//!
//! In: orders on the standard input, one a line. Out: one answer to each on the standard output. It ends
//! with its input. Never opens a socket outside its own namespace.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::BufReader;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::client;
use crate::forwarder::{self, Forwarder};
use crate::network;
use crate::orders::{Answer, Counted, ForwardOrder, LoadOrder, NetworkOrder, Order, hear, say};
use crate::sandbox;
use crate::server::Services;

/// Pause between two words about ended flows: often enough for a bar on a terminal.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);

/// Answers that may wait for the pipe.
const ANSWERS_QUEUE: usize = 64;

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
    let (tell, mut told) = mpsc::channel::<Answer>(ANSWERS_QUEUE);
    let mut host = Host { tell, services: Services::default(), forwarder: None, forward: None };
    // The first answer says that the namespace is there.
    say(&mut output, &Answer::Done).await?;
    // What is said of loads comes between the answers to orders, and never waits for one.
    let speak = async {
        while let Some(answer) = told.recv().await {
            say(&mut output, &answer).await?;
        }
        Ok::<(), io::Error>(())
    };
    let listen = async {
        while let Some(order) = hear(&mut input).await? {
            let answer = host.carry_out(order).await;
            let answer = answer.unwrap_or_else(|error| Answer::Failed(error.to_string()));
            host.tell.send(answer).await.map_err(io::Error::other)?;
        }
        Ok::<(), io::Error>(())
    };
    tokio::select! {
        ended = listen => ended,
        ended = speak => ended,
    }
}

/// What runs in this host.
#[derive(Debug)]
struct Host {
    tell: mpsc::Sender<Answer>,
    services: Services,
    forwarder: Option<Forwarder>,
    /// How the forwarder was started, so that it can be again.
    forward: Option<ForwardOrder>,
}

impl Host {
    async fn carry_out(&mut self, order: Order) -> io::Result<Answer> {
        match order {
            Order::Network(order) => set_up(&order).await?,
            Order::Ip(commands) => network::ip(&commands).await?,
            Order::Serve(order) => self.services.open(order).await?,
            Order::Forward(order) => {
                forwarder::prepare_control(&order)?;
                self.forward = Some(order.clone());
                self.forwarder = Some(Forwarder::start(order).await?);
            }
            Order::Load(orders, duration_ms) => {
                tokio::spawn(run_load(orders, Duration::from_millis(duration_ms), self.tell.clone()));
            }
            Order::PowerOff => {
                self.services.power_off().await;
                if let Some(forwarder) = self.forwarder.take() {
                    forwarder.kill().await?;
                }
            }
            Order::PowerOn => {
                self.services.power_on().await?;
                if let Some(order) = self.forward.clone().filter(|_| self.forwarder.is_none()) {
                    self.forwarder = Some(Forwarder::start(order).await?);
                }
            }
            Order::Agent(agent) => self.services.say(agent),
            Order::Hang(is_hung) => self.services.hang(is_hung),
            Order::Slow(factor_thousandths) => self.services.slow(factor_thousandths),
            Order::Control(words) => return self.control(&words).await,
            Order::Count => return count(&self.services).map(Answer::Counted),
            Order::Ask => return self.forwarder()?.stats().await.map(Answer::Stats),
            Order::StopForwarder => {
                self.forwarder()?;
                if let Some(forwarder) = self.forwarder.take() {
                    return forwarder.stop().await.map(Answer::Stopped);
                }
            }
        }
        Ok(Answer::Done)
    }

    fn forwarder(&self) -> io::Result<&Forwarder> {
        self.forwarder.as_ref().ok_or_else(|| io::Error::other("no forwarder runs here"))
    }

    /// A forwarder without power is told nothing: it reads its configuration when it begins anew.
    async fn control(&self, words: &[String]) -> io::Result<Answer> {
        if let Some(forwarder) = &self.forwarder {
            forwarder.control(words).await?;
        }
        Ok(Answer::Done)
    }
}

async fn set_up(order: &NetworkOrder) -> io::Result<()> {
    for (setting, value) in &order.settings {
        // A kernel without IPv6, or with fewer switches, does without them what 0 would say.
        if value != "0" || network::has(setting) {
            network::set(setting, value)?;
        }
    }
    network::ip(&order.links).await?;
    network::ip(&order.routes).await?;
    network::ip(&order.rules).await?;
    network::nft(&order.nft).await
}

/// Runs the loads and tells about ended flows in between.
async fn run_load(orders: Vec<LoadOrder>, duration: Duration, tell: mpsc::Sender<Answer>) {
    let ended = Arc::new(AtomicU64::new(0));
    let mut load = tokio::spawn(client::run(orders, duration, Arc::clone(&ended)));
    let mut ticks = interval(PROGRESS_PAUSE);
    loop {
        tokio::select! {
            results = &mut load => {
                let answer = results.map_or_else(|error| Answer::LoadsFailed(error.to_string()), Answer::Flows);
                // Without a listener the run is over.
                let _ = tell.send(answer).await;
                return;
            }
            _ = ticks.tick() => {
                let count = ended.swap(0, Ordering::Relaxed);
                if count > 0 && tell.send(Answer::Progress(count)).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn count(services: &Services) -> io::Result<Counted> {
    let snmp = fs::read_to_string("/proc/self/net/snmp")?;
    let netstat = fs::read_to_string("/proc/self/net/netstat")?;
    let kernel = |protocol: &str, names: &[&str]| -> u64 {
        names.iter().map(|name| kernel_counter(&snmp, protocol, name)).sum()
    };
    Ok(Counted {
        flows: services.flows(),
        // A packet of several segments that has come through a TUN counts as one in, and as its segments out: the kernel
        // does not know how many there are before it cuts it.
        packets_in: kernel("Tcp:", &["InSegs"]) + kernel("Udp:", &["InDatagrams"]),
        // The kernel counts a segment that is sent again, or a reset, apart from the others.
        packets_out: kernel("Tcp:", &["OutSegs", "RetransSegs"]) + kernel("Udp:", &["OutDatagrams"]),
        retransmitted: kernel("Tcp:", &["RetransSegs"]),
        // A segment that belongs to no connection is answered with a reset.
        stray: kernel("Tcp:", &["InErrs", "OutRsts"]) + kernel("Udp:", &["NoPorts", "InErrors"]),
        martian_source: kernel_counter(&netstat, "TcpExt:", "IPReversePathFilter"),
    })
}

/// One value of `/proc/net/snmp` or `netstat`, which has for each protocol a line of names and a line of values; zero
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
