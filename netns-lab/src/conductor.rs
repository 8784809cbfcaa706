//! The head of a lab's process namespace: builds the segments, starts the hosts, runs the scenario.
//!
//! In: a [`LabPlan`] on the standard input. Out: [`Note`]s on the standard output. It ends when its work
//! is done or its input ends; the kernel then ends every process inside, and with the last of them the
//! namespaces, the links, and the devices. Nothing is taken down by hand, so nothing can be forgotten.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::CHILD;
use crate::host::pipes;
use crate::network::Network;
use crate::orders::{Answer, Findings, HostPlan, LabPlan, Leg, LoadResult, Note, Order, Role, hear, say};
use crate::sandbox;
use crate::wire::{self, Lost};

/// How long a host may take for an order that is no load.
const ORDER_LIMIT: Duration = Duration::from_secs(75);

/// Notes that may wait for the pipe to the runner.
const NOTES_QUEUE: usize = 1_024;

/// Builds the lab, runs it, and says what was found.
///
/// # Errors
///
/// When the pipes fail. What fails inside the lab is said in a note instead.
pub(crate) fn run() -> io::Result<()> {
    sandbox::die_with(None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut input, mut output) = pipes()?;
        let Some(plan) = hear::<LabPlan>(&mut input).await? else { return Ok(()) };
        let patience = Duration::from_millis(plan.patience_ms);
        let (notes, mut heard) = mpsc::channel(NOTES_QUEUE);
        let conduct = tokio::spawn(timeout(patience, conduct(plan, notes)));
        let tell = async {
            while let Some(note) = heard.recv().await {
                say(&mut output, &note).await?;
            }
            let note = match conduct.await {
                Ok(Ok(Ok(findings))) => Note::Finished(Box::new(findings)),
                Ok(Ok(Err(error))) => Note::Failed(error.to_string()),
                Ok(Err(_)) => Note::Failed(format!("the run did not end within {} s", patience.as_secs())),
                Err(error) => Note::Failed(error.to_string()),
            };
            say(&mut output, &note).await
        };
        let mut rest = [0; 1];
        tokio::select! {
            told = tell => told,
            // Nothing more is said by the runner: whatever comes now is the end of the input.
            _ = input.read(&mut rest) => Ok(()),
        }
    })
}

async fn conduct(plan: LabPlan, notes: mpsc::Sender<Note>) -> io::Result<Findings> {
    let stage = async |text: &str| notes.send(Note::Stage(text.to_owned())).await.map_err(io::Error::other);
    stage("namespaces and links").await?;
    let lost = Lost::default();
    let mut hosts = build(&plan, &lost).await?;
    stage("real servers").await?;
    for host in &mut hosts {
        if let Role::Server(sockets) = host.plan.role.clone() {
            host.expect_done(Order::Serve(sockets)).await?;
        }
    }
    stage("forwarder").await?;
    for host in &mut hosts {
        if let Role::Forwarder(order) = host.plan.role.clone() {
            host.expect_done(Order::Forward(order)).await?;
        }
    }
    stage("flows").await?;
    let began = Instant::now();
    let (mut hosts, loads) = run_loads(hosts, plan.duration_ms, &notes).await?;
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    stage("counters").await?;
    let mut findings = Findings { loads, elapsed_ms, ..Findings::default() };
    for host in &mut hosts {
        host.report(&mut findings).await?;
    }
    findings.frames_lost = lost.count();
    Ok(findings)
}

/// Starts the hosts and joins them by their segments.
async fn build(plan: &LabPlan, lost: &Lost) -> io::Result<Vec<HostProcess>> {
    let network = Network::open()?;
    for segment in 0..plan.segments {
        network.add_bridge(&bridge(segment)).await?;
    }
    let mut hosts = Vec::new();
    let mut port = 0_u32;
    for host in &plan.hosts {
        let mut process = HostProcess::start(plan, host).await?;
        for (position, leg) in host.legs.iter().enumerate() {
            plug(&network, leg, port, &format!("eth{position}"), process.pid, (plan.seed, lost)).await?;
            port += 1;
        }
        process.expect_done(Order::Network(host.network.clone())).await?;
        hosts.push(process);
    }
    Ok(hosts)
}

fn bridge(segment: u32) -> String {
    format!("segment{segment}")
}

/// Joins the host with process `pid` to its segment.
async fn plug(
    network: &Network,
    leg: &Leg,
    port: u32,
    inner: &str,
    pid: u32,
    (seed, lost): (u64, &Lost),
) -> io::Result<()> {
    let outer = format!("port{port}");
    match leg.wire {
        None => network.add_pair(&outer, inner, pid).await?,
        Some(wire) => {
            let far = format!("wire{port}");
            let seed = seed.wrapping_add(u64::from(port));
            wire::start([&outer, &far], wire, seed, lost)?;
            network.hand_over(&far, inner, pid).await?;
        }
    }
    network.join_bridge(&outer, &bridge(leg.segment)).await
}

/// Runs the loads of all clients side by side; gives the hosts back with what became of the flows.
async fn run_loads(
    hosts: Vec<HostProcess>,
    duration_ms: u64,
    notes: &mpsc::Sender<Note>,
) -> io::Result<(Vec<HostProcess>, Vec<LoadResult>)> {
    let mut others = Vec::new();
    let mut running = JoinSet::new();
    let (ended, mut endings) = mpsc::channel(NOTES_QUEUE);
    let mut total = 0_u64;
    for host in hosts {
        if let Role::Client(loads) = host.plan.role.clone() {
            total += loads.iter().map(|load| load.expected_flows()).sum::<u64>();
            running.spawn(host.load(Order::Load(loads, duration_ms), ended.clone()));
        } else {
            others.push(host);
        }
    }
    drop(ended);
    let mut done = 0_u64;
    while let Some(count) = endings.recv().await {
        done += count;
        notes.send(Note::Progress { done, total }).await.map_err(io::Error::other)?;
    }
    let mut results = Vec::new();
    for finished in running.join_all().await {
        let (host, loads) = finished?;
        others.push(host);
        results.extend(loads);
    }
    Ok((others, results))
}

/// A host's process, seen from here.
#[derive(Debug)]
struct HostProcess {
    plan: HostPlan,
    pid: u32,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Kept because the process is killed when this is dropped.
    _child: Child,
}

#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "an answer to another order is a fault whichever it is; `unexpected` names every case"
)]
impl HostProcess {
    /// Starts the process and waits until its namespace is there.
    async fn start(lab: &LabPlan, plan: &HostPlan) -> io::Result<Self> {
        let has_mounts = matches!(plan.role, Role::Forwarder(_));
        let mut child = Command::new(&lab.program)
            .args([CHILD, if has_mounts { "host-with-mounts" } else { "host" }])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(pid), Some(input), Some(output)) = (child.id(), child.stdin.take(), child.stdout.take())
        else {
            return Err(io::Error::other(format!("host {}: ended at its start", plan.name)));
        };
        let output = BufReader::new(output);
        let mut host = Self { plan: plan.clone(), pid, input, output, _child: child };
        let answer = host.hear().await?;
        host.must_be_done(answer)?;
        Ok(host)
    }

    async fn hear(&mut self) -> io::Result<Answer> {
        let heard = timeout(ORDER_LIMIT, hear(&mut self.output)).await;
        let heard = heard.map_err(|_| self.error("does not answer"))?;
        heard.map_err(|error| self.error(&error.to_string()))?.ok_or_else(|| self.error("ended by itself"))
    }

    async fn ask(&mut self, order: Order) -> io::Result<Answer> {
        say(&mut self.input, &order).await?;
        self.hear().await
    }

    async fn expect_done(&mut self, order: Order) -> io::Result<()> {
        let answer = self.ask(order).await?;
        self.must_be_done(answer)
    }

    fn must_be_done(&self, answer: Answer) -> io::Result<()> {
        match answer {
            Answer::Done => Ok(()),
            other => Err(self.unexpected(other)),
        }
    }

    /// Runs the loads; says how many flows have ended as they end.
    async fn load(mut self, order: Order, ended: mpsc::Sender<u64>) -> io::Result<(Self, Vec<LoadResult>)> {
        say(&mut self.input, &order).await?;
        loop {
            // Flows have limits of their own; the run as a whole has its patience.
            let answer = hear(&mut self.output).await.map_err(|error| self.error(&error.to_string()))?;
            match answer.ok_or_else(|| self.error("ended by itself"))? {
                Answer::Progress(count) => ended.send(count).await.map_err(io::Error::other)?,
                Answer::Flows(results) => return Ok((self, results)),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// Adds what this host counted; a forwarder is stopped.
    async fn report(&mut self, findings: &mut Findings) -> io::Result<()> {
        let name = self.plan.name.clone();
        if !matches!(self.plan.role, Role::Forwarder(_)) {
            return match self.ask(Order::Count).await? {
                Answer::Counted(counted) => {
                    findings.hosts.insert(name, counted);
                    Ok(())
                }
                other => Err(self.unexpected(other)),
            };
        }
        match self.ask(Order::Ask).await? {
            Answer::Stats(stats) => findings.stats.insert(name.clone(), stats),
            other => return Err(self.unexpected(other)),
        };
        match self.ask(Order::StopForwarder).await? {
            Answer::Stopped(code) => findings.exits.insert(name, code),
            other => return Err(self.unexpected(other)),
        };
        Ok(())
    }

    fn unexpected(&self, answer: Answer) -> io::Error {
        match answer {
            Answer::Failed(reason) => self.error(&reason),
            Answer::Done
            | Answer::Progress(_)
            | Answer::Flows(_)
            | Answer::Counted(_)
            | Answer::Stats(_)
            | Answer::Stopped(_) => self.error(&format!("unexpected answer {answer:?}")),
        }
    }

    fn error(&self, what: &str) -> io::Error {
        io::Error::other(format!("host {}: {what}", self.plan.name))
    }
}
