//! The head of a lab's process namespace: builds the segments, starts the hosts, runs the scenario.
//!
//! In: a [`LabPlan`] on the standard input. Out: [`Note`]s on the standard output. It ends when its work
//! is done or its input ends; the kernel then ends every process inside, and with the last of them the
//! namespaces, the links, and the devices. Nothing is taken down by hand, so nothing can be forgotten.

use std::collections::BTreeMap;
use std::io;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::CHILD;
use crate::host::pipes;
use crate::network::{self, Network};
use crate::orders::{
    Answer, Deed, Due, Findings, HostPlan, LabPlan, Leg, LoadResult, Note, Order, Role, hear, say,
};
use crate::sandbox;
use crate::wire::{self, Lost, Running};

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
    let lab = Arc::new(Lab::build(&plan).await?);
    stage("real servers").await?;
    for host in &lab.hosts {
        if let Role::Server(order) = host.plan.role.clone() {
            host.expect_done(Order::Serve(order)).await?;
        }
    }
    stage("forwarder").await?;
    for host in &lab.hosts {
        if let Role::Forwarder(order) = host.plan.role.clone() {
            host.expect_done(Order::Forward(order)).await?;
        }
    }
    stage("flows").await?;
    let began = Instant::now();
    let timeline = tokio::spawn(Arc::clone(&lab).follow(plan.timeline, began));
    let loads = lab.run_loads(plan.duration_ms, &notes).await?;
    let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    // What would happen after the last flow does not happen any more; what failed before ends the run.
    if timeline.is_finished() {
        timeline.await.map_err(io::Error::other)??;
    } else {
        timeline.abort();
        let _ = timeline.await;
    }
    stage("counters").await?;
    let mut findings = Findings { loads, elapsed_ms, ..Findings::default() };
    for host in &lab.hosts {
        host.report(&mut findings).await?;
    }
    findings.frames_lost = lab.lost.count();
    Ok(findings)
}

/// Everything that runs.
#[derive(Debug)]
struct Lab {
    network: Network,
    hosts: Vec<HostProcess>,
    /// What the near end of each leg is called, by host and leg.
    ports: BTreeMap<(usize, usize), String>,
    /// The wires, by host and leg.
    wires: BTreeMap<(usize, usize), Running>,
    lost: Lost,
}

impl Lab {
    /// Starts the hosts and joins them by their segments.
    async fn build(plan: &LabPlan) -> io::Result<Self> {
        let network = Network::open()?;
        let (hosts, ports, wires) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let mut lab = Self { network, hosts, ports, wires, lost: Lost::default() };
        // The cables' own ends are no stations: their kernel has nothing to say on a segment.
        for scope in ["default", "all"].map(|scope| format!("net/ipv6/conf/{scope}/disable_ipv6")) {
            if network::has(&scope) {
                network::set(&scope, "1")?;
            }
        }
        for number in 0..plan.bridges {
            lab.network.add_bridge(&bridge(number)).await?;
        }
        for (number, host) in plan.hosts.iter().enumerate() {
            let process = HostProcess::start(plan, host).await?;
            for (place, leg) in host.legs.iter().enumerate() {
                lab.plug((number, place), leg, process.pid, (plan.seed, &host.name)).await?;
            }
            process.expect_done(Order::Network(host.network.clone())).await?;
            lab.hosts.push(process);
        }
        Ok(lab)
    }

    /// Joins the host with process `pid` to its segment.
    async fn plug(
        &mut self,
        at: (usize, usize),
        leg: &Leg,
        pid: u32,
        (seed, name): (u64, &str),
    ) -> io::Result<()> {
        let port = self.ports.len();
        let outer = format!("port{port}");
        match &leg.wire {
            None => self.network.add_pair(&outer, &leg.interface, pid).await?,
            Some(wire) => {
                let far = format!("wire{port}");
                // As the simulator calls it, so that both draw the same.
                let name = format!("{name}@{}", leg.interface);
                let running = wire::start([&outer, &far], wire, (seed, &name), &self.lost)?;
                self.wires.insert(at, running);
                self.network.hand_over(&far, &leg.interface, pid).await?;
            }
        }
        self.network.join_bridge(&outer, &bridge(leg.bridge)).await?;
        self.ports.insert(at, outer);
        Ok(())
    }

    /// Does each deed at its time.
    async fn follow(self: Arc<Self>, timeline: Vec<Due>, began: Instant) -> io::Result<()> {
        for due in timeline {
            sleep_until(began + Duration::from_micros(due.at_us)).await;
            self.act(due.deed).await?;
        }
        Ok(())
    }

    async fn act(&self, deed: Deed) -> io::Result<()> {
        match deed {
            Deed::Tell(host, order) => match self.hosts.get(host) {
                Some(host) => host.expect_done(order).await,
                None => Err(io::Error::other(format!("there is no host {host}"))),
            },
            Deed::Link { host, leg, is_up } => match self.ports.get(&(host, leg)) {
                Some(port) => self.network.set_up(port, is_up).await,
                None => Err(io::Error::other(format!("host {host} has no leg {leg}"))),
            },
            Deed::Wire { host, leg, wire } => {
                if let Some(running) = self.wires.get(&(host, leg)) {
                    running.change(&wire);
                }
                Ok(())
            }
        }
    }

    /// Runs the loads of all clients side by side; what became of the flows.
    async fn run_loads(
        self: &Arc<Self>,
        duration_ms: u64,
        notes: &mpsc::Sender<Note>,
    ) -> io::Result<Vec<LoadResult>> {
        let mut running = JoinSet::new();
        let (ended, mut endings) = mpsc::channel(NOTES_QUEUE);
        let mut total = 0_u64;
        for (number, host) in self.hosts.iter().enumerate() {
            if let Role::Client(loads) = host.plan.role.clone() {
                total += loads.iter().map(|load| load.expected_flows()).sum::<u64>();
                let (lab, ended) = (Arc::clone(self), ended.clone());
                running.spawn(async move {
                    let Some(host) = lab.hosts.get(number) else { return Ok(Vec::new()) };
                    host.load(Order::Load(loads, duration_ms), ended).await
                });
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
            results.extend(finished?);
        }
        Ok(results)
    }
}

fn bridge(number: u32) -> String {
    format!("segment{number}")
}

/// A host's process, seen from here.
#[derive(Debug)]
struct HostProcess {
    plan: HostPlan,
    pid: u32,
    /// Orders go one after the other: each answer is awaited before the next order.
    orders: Mutex<Orders>,
    /// What the host says of its loads, whatever it is ordered in between.
    tidings: Mutex<mpsc::Receiver<Answer>>,
    /// Kept because the process is killed when this is dropped.
    _child: Child,
}

#[derive(Debug)]
struct Orders {
    input: ChildStdin,
    answers: mpsc::Receiver<Answer>,
}

/// Reads what a host says, and parts what it says of its loads from its answers to orders. It ends with the host's
/// output, or when nobody listens any more.
async fn part(
    mut output: BufReader<ChildStdout>,
    answers: mpsc::Sender<Answer>,
    tidings: mpsc::Sender<Answer>,
) {
    loop {
        let said = match hear::<Answer>(&mut output).await {
            Ok(Some(said)) => said,
            Ok(None) => return,
            Err(error) => Answer::Failed(error.to_string()),
        };
        let is_heard = match said {
            Answer::Progress(_) | Answer::Flows(_) | Answer::LoadsFailed(_) => {
                tidings.send(said).await.is_ok()
            }
            Answer::Done | Answer::Counted(_) | Answer::Stats(_) | Answer::Stopped(_) | Answer::Failed(_) => {
                answers.send(said).await.is_ok()
            }
        };
        if !is_heard {
            return;
        }
    }
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
        let (answers_in, mut answers) = mpsc::channel(NOTES_QUEUE);
        let (tidings_in, tidings) = mpsc::channel(NOTES_QUEUE);
        tokio::spawn(part(BufReader::new(output), answers_in, tidings_in));
        let first = timeout(ORDER_LIMIT, answers.recv()).await.ok().flatten();
        let orders = Mutex::new(Orders { input, answers });
        let host = Self { plan: plan.clone(), pid, orders, tidings: Mutex::new(tidings), _child: child };
        host.must_be_done(first.ok_or_else(|| host.error("ended at its start"))?)?;
        Ok(host)
    }

    async fn ask(&self, order: Order) -> io::Result<Answer> {
        let mut orders = self.orders.lock().await;
        say(&mut orders.input, &order).await?;
        let heard = timeout(ORDER_LIMIT, orders.answers.recv()).await;
        heard.map_err(|_| self.error("does not answer"))?.ok_or_else(|| self.error("ended by itself"))
    }

    async fn expect_done(&self, order: Order) -> io::Result<()> {
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
    async fn load(&self, order: Order, ended: mpsc::Sender<u64>) -> io::Result<Vec<LoadResult>> {
        self.expect_done(order).await?;
        let mut tidings = self.tidings.lock().await;
        loop {
            // Flows have limits of their own; the run as a whole has its patience.
            match tidings.recv().await.ok_or_else(|| self.error("ended by itself"))? {
                Answer::Progress(count) => ended.send(count).await.map_err(io::Error::other)?,
                Answer::Flows(results) => return Ok(results),
                other => return Err(self.unexpected(other)),
            }
        }
    }

    /// Adds what this host counted; a forwarder is stopped.
    async fn report(&self, findings: &mut Findings) -> io::Result<()> {
        let name = self.plan.name.clone();
        let place = match self.plan.role {
            Role::Client(_) | Role::Server(_) => &mut findings.hosts,
            Role::Router | Role::Forwarder(_) => &mut findings.others,
        };
        match self.ask(Order::Count).await? {
            Answer::Counted(counted) => place.insert(name.clone(), counted),
            other => return Err(self.unexpected(other)),
        };
        if !matches!(self.plan.role, Role::Forwarder(_)) {
            return Ok(());
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
            Answer::Failed(reason) | Answer::LoadsFailed(reason) => self.error(&reason),
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
