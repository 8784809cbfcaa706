//! What the processes of a lab say to each other: one JSON object a line.
//!
//! The runner hands the conductor a [`LabPlan`] and hears [`Note`]s; the conductor gives each host
//! [`Order`]s and hears [`Answer`]s. The end of the input means: stop. A peer that says anything else is
//! a bug of ours and ends the run with an error that names it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use evenkeel_sim::scenario::ServiceModel;
use evenkeel_sim::wires::Quality;
use evenkeel_sim::work::{AgentModel, Law};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The longest line that is read. A plan of the largest scenario stays far below.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Everything that the conductor builds and runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabPlan {
    /// The binary that every process of the lab is started from.
    pub(crate) program: PathBuf,
    /// How many bridges there are: one for each segment, and for each VLAN of it.
    pub(crate) bridges: u32,
    /// Clients, real servers, routers and forwarders.
    pub(crate) hosts: Vec<HostPlan>,
    /// The seed of the wires' delays and losses.
    pub(crate) seed: u64,
    /// What happens while the loads run, in the order of time.
    pub(crate) timeline: Vec<Due>,
    /// How long the loads may run, in milliseconds.
    pub(crate) duration_ms: u64,
    /// How long the whole run may take, in milliseconds.
    pub(crate) patience_ms: u64,
}

/// Something that happens while the loads run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Due {
    /// When, in microseconds after the start of the loads.
    pub(crate) at_us: u64,
    /// What.
    pub(crate) deed: Deed,
}

/// What the conductor does at some time of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Deed {
    /// Tells the host of this number an order, which is answered by [`Answer::Done`].
    Tell(usize, Order),
    /// Takes the link of a host's leg away, or gives it back.
    Link {
        /// The number of the host.
        host: usize,
        /// The number of its leg.
        leg: usize,
        /// Whether there is a link from now on.
        is_up: bool,
    },
    /// Changes what the wire of a host's leg does.
    Wire {
        /// The number of the host.
        host: usize,
        /// The number of its leg.
        leg: usize,
        /// What it does from now on.
        wire: WirePlan,
    },
}

/// One host: a process in a network of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct HostPlan {
    /// The name, as the scenario says it.
    pub(crate) name: String,
    /// Its links to segments.
    pub(crate) legs: Vec<Leg>,
    /// How its network is set up.
    pub(crate) network: NetworkOrder,
    /// What it does.
    pub(crate) role: Role,
}

/// A link of a host to a segment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Leg {
    /// Which bridge it is plugged into.
    pub(crate) bridge: u32,
    /// What the host calls it.
    pub(crate) interface: String,
    /// A user-space wire in between; without one the link is a plain veth pair.
    pub(crate) wire: Option<WirePlan>,
}

/// What a user-space wire does to each frame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct WirePlan {
    /// From the host.
    pub(crate) up: Quality,
    /// To the host.
    pub(crate) down: Quality,
}

/// What a host does once its network is there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Role {
    /// Opens flows.
    Client(Vec<LoadOrder>),
    /// Answers on these sockets.
    Server(ServeOrder),
    /// Sends packets on.
    Router,
    /// Runs the forwarder.
    Forwarder(ForwardOrder),
}

/// What a host is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Set up the network of your namespace.
    Network(NetworkOrder),
    /// Answer on these sockets.
    Serve(ServeOrder),
    /// Start the forwarder and wait until it answers.
    Forward(ForwardOrder),
    /// Open these flows, for at most so many milliseconds. Answered at once; [`Answer::Flows`] follows when they have
    /// ended, whatever is ordered in between.
    Load(Vec<LoadOrder>, u64),
    /// Carry out these commands of `ip`.
    Ip(Vec<String>),
    /// Lose power: every connection is gone without a word, and the forwarder with all that it knew.
    PowerOff,
    /// Begin anew.
    PowerOn,
    /// Have your agent say this from now on; without it, nothing.
    Agent(Option<AgentModel>),
    /// Stop to answer, or go on.
    Hang(bool),
    /// Work slower by this factor, in thousandths.
    Slow(u32),
    /// Tell the forwarder: the words behind `evenkeel ctl`.
    Control(Vec<String>),
    /// Say what this host counted; answered by [`Answer::Counted`].
    Count,
    /// Say what the forwarder's control socket says; answered by [`Answer::Stats`].
    Ask,
    /// Stop the forwarder with SIGTERM and say how it ended; answered by [`Answer::Stopped`].
    StopForwarder,
}

/// What a host says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The namespace is there, or the order was carried out.
    Done,
    /// So many flows more have ended.
    Progress(u64),
    /// All flows have ended.
    Flows(Vec<LoadResult>),
    /// The loads could not be run.
    LoadsFailed(String),
    /// What the host counted.
    Counted(Counted),
    /// What the forwarder's control socket says, as it says it.
    Stats(serde_json::Value),
    /// The forwarder ended; `None` when it had to be killed.
    Stopped(Option<i32>),
    /// The order could not be carried out.
    Failed(String),
}

/// Addresses, routes and settings of a host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NetworkOrder {
    /// Settings of `/proc/sys`, by path and value, which come first. Those that this kernel does not have are passed over
    /// where their value is what it would do without them.
    pub(crate) settings: Vec<(String, String)>,
    /// Commands of `ip` that give addresses and bring interfaces up.
    pub(crate) links: Vec<String>,
    /// Commands of `ip` that set routes; carried out again when a link comes back, with which the kernel forgets them.
    pub(crate) routes: Vec<String>,
    /// Commands of `ip` that set rules.
    pub(crate) rules: Vec<String>,
    /// What `nft` is told.
    pub(crate) nft: Vec<String>,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One socket that a host answers on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Service {
    /// TCP or UDP.
    pub(crate) transport: Transport,
    /// The host's address.
    pub(crate) address: IpAddr,
    /// The port.
    pub(crate) port: u16,
}

/// What a server does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServeOrder {
    /// The sockets.
    pub(crate) services: Vec<Service>,
    /// The server's own address, which it names in answers from an address that it shares with others.
    pub(crate) own: Option<IpAddr>,
    /// The addresses that it shares with others.
    pub(crate) shared: Vec<IpAddr>,
    /// How it works; at once where nothing is given.
    pub(crate) work: Option<ServiceModel>,
    /// The seed of its service times.
    pub(crate) seed: u64,
    /// The name that its random numbers go by.
    pub(crate) name: String,
    /// Where forwarders ask its agent.
    pub(crate) agents: Vec<SocketAddr>,
    /// What its agent says; without it, nothing.
    pub(crate) agent: Option<AgentModel>,
}

/// How the forwarder is started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ForwardOrder {
    /// The binary.
    pub(crate) program: PathBuf,
    /// The production configuration.
    pub(crate) config: PathBuf,
    /// Its control socket.
    pub(crate) control: PathBuf,
}

/// The flows of one load that one client opens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadOrder {
    /// The load's number in the scenario.
    pub(crate) load: u32,
    /// TCP or UDP.
    pub(crate) transport: Transport,
    /// Where to.
    pub(crate) target: SocketAddr,
    /// When the first flow may begin, in microseconds after the start.
    pub(crate) start_us: u64,
    /// When flows begin.
    pub(crate) starts: Starts,
    /// Requests in one flow, one after the other.
    pub(crate) rounds: u32,
    /// Bytes of one request.
    pub(crate) request: Law,
    /// Bytes of one response.
    pub(crate) response: Law,
    /// The mean of the exponential pause between an answer and the next request, in microseconds.
    pub(crate) pause_us: u64,
    /// How long a flow may last before it counts as broken, in microseconds.
    pub(crate) deadline_us: Option<u64>,
    /// The seed of sizes and pauses.
    pub(crate) seed: u64,
    /// The name that its random numbers go by.
    pub(crate) name: String,
    /// The pattern of the first request; the next one has the next.
    pub(crate) pattern: u32,
}

impl LoadOrder {
    /// How many flows will be opened; zero when nobody knows before.
    pub(crate) fn expected_flows(&self) -> u64 {
        match &self.starts {
            Starts::At(times) => u64::try_from(times.len()).unwrap_or(u64::MAX),
            Starts::Closed { flows, .. } => flows.unwrap_or(0),
        }
    }
}

/// When the flows of a [`LoadOrder`] begin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Starts {
    /// At these times, in microseconds after the start; ascending.
    At(Vec<u64>),
    /// A new flow begins when one of `outstanding` ends.
    Closed {
        /// Flows that are open at any time.
        outstanding: u32,
        /// The mean of the exponential time between the end of a flow and the next, in microseconds.
        think_us: u64,
        /// How many are opened in all, if that ends the load.
        flows: Option<u64>,
        /// When no more are opened, if that ends the load; in microseconds after the start.
        until_us: Option<u64>,
    },
}

/// What became of the flows of one [`LoadOrder`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LoadResult {
    /// The load's number in the scenario.
    pub(crate) load: u32,
    /// Flows that were begun.
    pub(crate) started: u64,
    /// Completed flows by the identity of the server that answered.
    pub(crate) flows: BTreeMap<u32, u64>,
    /// Flows that broke, by cause.
    pub(crate) broken: BTreeMap<Cause, u64>,
    /// Flows that were still open at the scenario's end.
    pub(crate) unfinished: u64,
    /// Datagrams that were sent again.
    pub(crate) resent: u64,
}

/// Why a flow broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The connection was refused, or the port was reported closed.
    Refused,
    /// No answer to the SYN within the limit.
    ConnectTimeout,
    /// The network said that the destination can not be reached.
    Unreachable,
    /// A reset in the middle.
    Reset,
    /// The other side closed before its reply was complete.
    ClosedEarly,
    /// No complete reply within the limit.
    ReplyTimeout,
    /// The flow lasted longer than its load allows.
    Deadline,
    /// The close of the other side did not arrive within the limit.
    CloseTimeout,
    /// A later reply came from another real server.
    ServerChanged,
    /// A reply that does not carry what it must.
    WrongAnswer,
    /// This client ran out of ports, descriptors or memory.
    LocalResources,
}

impl Cause {
    /// The name in tables and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unreachable => "unreachable",
            Self::Reset => "reset",
            Self::ClosedEarly => "closed_early",
            Self::ReplyTimeout => "reply_timeout",
            Self::Deadline => "deadline",
            Self::CloseTimeout => "close_timeout",
            Self::ServerChanged => "server_changed",
            Self::WrongAnswer => "wrong_answer",
            Self::LocalResources => "local_resources",
        }
    }

    /// The cause in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Refused => "the connection was refused",
            Self::ConnectTimeout => "the other side did not answer the SYN",
            Self::Unreachable => "the network said that nobody is there",
            Self::Reset => "the connection was reset",
            Self::ClosedEarly => "the connection was closed before the answer was complete",
            Self::ReplyTimeout => "the other side stopped to answer",
            Self::Deadline => "the flow lasted longer than its load allows",
            Self::CloseTimeout => "the other side did not close",
            Self::ServerChanged => "another real server answered than before",
            Self::WrongAnswer => "the answer was not the one that belongs to the question",
            Self::LocalResources => "the client ran out of ports, descriptors or memory",
        }
    }
}

/// What a host's kernel and services counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Flows by socket: accepted connections, or distinct UDP senders.
    pub(crate) flows: Vec<(Service, u64)>,
    /// TCP segments and UDP datagrams that the kernel took in.
    pub(crate) packets_in: u64,
    /// TCP segments and UDP datagrams that it sent.
    pub(crate) packets_out: u64,
    /// TCP segments that it sent again.
    pub(crate) retransmitted: u64,
    /// Packets for which there was no use: segments that were bad or answered with a reset, datagrams to
    /// closed ports.
    pub(crate) stray: u64,
    /// Packets from a source that the kernel's reverse path filter did not believe.
    pub(crate) martian_source: u64,
}

/// What the conductor tells the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Note {
    /// The head of the process namespace, by its number outside. Said by the process that made it.
    Inside(u32),
    /// What is being done now.
    Stage(String),
    /// So many of so many flows have ended.
    Progress { done: u64, total: u64 },
    /// The run ended and this was counted.
    Finished(Box<Findings>),
    /// The run could not be carried out.
    Failed(String),
}

/// Everything that a run counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Per client and load.
    pub(crate) loads: Vec<LoadResult>,
    /// Per client and server host, by name.
    pub(crate) hosts: BTreeMap<String, Counted>,
    /// Per router and forwarder, by name: what its kernel counted.
    pub(crate) others: BTreeMap<String, Counted>,
    /// Per forwarder host, by name: what its control socket says.
    pub(crate) stats: BTreeMap<String, serde_json::Value>,
    /// Per forwarder host: its exit code after SIGTERM, `None` when it had to be killed.
    pub(crate) exits: BTreeMap<String, Option<i32>>,
    /// Frames that the user-space wires lost on purpose.
    pub(crate) frames_lost: u64,
    /// From the first flow's start to the last flow's end, in milliseconds.
    pub(crate) elapsed_ms: u64,
}

/// Writes one line.
///
/// # Errors
///
/// When the reader is gone.
pub(crate) async fn say<T: Serialize + Sync>(
    to: &mut (impl AsyncWrite + Unpin + Send),
    what: &T,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line).await?;
    to.flush().await
}

/// Reads one line; `None` at the end of the input.
///
/// # Errors
///
/// When the line is no such object, or the reader fails.
pub(crate) async fn hear<T: DeserializeOwned>(
    from: &mut (impl AsyncBufRead + Unpin + Send),
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let read = from.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if read == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&line).map(Some).map_err(|error| {
        let shown: String = String::from_utf8_lossy(&line).chars().take(200).collect();
        io::Error::new(io::ErrorKind::InvalidData, format!("unexpected line {shown:?}: {error}"))
    })
}
