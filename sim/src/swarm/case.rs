//! One case of a swarm as data, and as the files that anybody can run.
//!
//! A case says no more than what its files say: what is drawn, shrunk and judged is what is written. Times are whole
//! milliseconds.

use std::fmt::Write as _;

/// How packets reach the real servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Destination NAT between two networks; the forwarder is the gateway of both.
    Nat,
    /// Source and destination NAT in the network of the real servers, behind a router.
    Snat,
    /// Direct server return in the network of the real servers, behind a router.
    Gateway,
}

/// A machine of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// The client with this number.
    Client(u32),
    /// The real server with this number.
    Server(u32),
    /// The forwarder.
    Forwarder,
}

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// TCP, or UDP.
    pub is_tcp: bool,
    /// Flows.
    pub flows: u32,
    /// The mean gap between two flows; in a closed loop, as many flows as this at any time.
    pub arrivals: Arrivals,
    /// Requests of one flow.
    pub rounds: u32,
    /// The mean pause between an answer and the next request.
    pub pause_ms: u32,
    /// Bytes of a response.
    pub response_bytes: u32,
}

/// When flows open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// So many a second, in exponential gaps.
    Poisson(u32),
    /// So many at any time.
    Closed(u32),
}

/// What a cable does to frames, in thousandths of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Noise {
    /// Lost.
    pub loss: u32,
    /// Overtaken by others.
    pub reorder: u32,
    /// Arriving twice.
    pub duplicate: u32,
    /// Arriving with a changed bit.
    pub corrupt: u32,
}

/// What happens to a machine or a forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A machine loses power; the forwarder loses its flows.
    Stop(Machine),
    /// The programs of a real server hang.
    Hang(u32),
    /// The programs of a real server are so many times slower.
    Slow(u32, u32),
    /// A machine is cut off.
    Cut(Machine),
    /// The cable of a machine becomes bad.
    Noise(Machine, Noise),
    /// A real server gets another weight.
    Weight(u32, u32),
    /// The forwarder reads its configuration, or the other one, in which the last real server is missing.
    Reload {
        /// The other one.
        is_other: bool,
    },
    /// The clock of the forwarder jumps ahead by this many milliseconds.
    Jump(u32),
}

/// What happens when, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at_ms: u32,
    /// When it is over; 0 where it has no end of its own.
    pub for_ms: u32,
    /// What it is.
    pub what: What,
}

/// One case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The seed of everything random in the run; also its name.
    pub seed: u64,
    /// How packets reach the real servers.
    pub shape: Shape,
    /// Clients.
    pub clients: u32,
    /// The weights of the real servers.
    pub weights: Vec<u32>,
    /// The name of the scheduler; `trap` and the like stand for a component that fails like that.
    pub scheduler: &'static str,
    /// Microseconds of a request on a server; 0 for at once.
    pub service_us: u32,
    /// Microseconds from a machine to its switch.
    pub delay_us: u32,
    /// Places of the flow table; 0 for the default.
    pub flows_max: u32,
    /// What the cables of clients do.
    pub noise: Noise,
    /// The loads.
    pub loads: Vec<Traffic>,
    /// What happens besides.
    pub faults: Vec<Fault>,
}

/// The kinds of the component that fails (`bundled:misbehave`).
pub(super) const FAILING: [&str; 6] = ["trap", "missing", "unusable", "short", "silent", "update"];
/// How long a client waits for an answer.
pub const DEADLINE_MS: u32 = 60_000;
/// The longest that a case runs in virtual time: a hundred flows one after the other, each to its deadline, and more.
const DURATION: &str = "3h";
/// The address of the first client, server and the VIP.
const CLIENT_FIRST: u32 = 10;
const SERVER_FIRST: u32 = 20;

/// A file of a case: its name and its text.
pub type File = (String, String);

impl Case {
    /// What its files are called.
    #[must_use]
    pub fn name(&self) -> String {
        format!("swarm-{}", self.seed)
    }

    /// The scenario, the configuration of its forwarder, and the one that is read later, where there is one.
    #[must_use]
    pub fn files(&self) -> Vec<File> {
        self.files_expecting(&[])
    }

    /// The same, with a scenario that expects something besides: metric and the most that it may be.
    #[must_use]
    pub fn files_expecting(&self, expectations: &[(&str, u64)]) -> Vec<File> {
        let name = self.name();
        let mut files = vec![
            (format!("{name}.toml"), self.scenario(expectations)),
            (self.main_name(), self.configuration(self.weights.len())),
        ];
        if self.faults.iter().any(|fault| matches!(fault.what, What::Reload { is_other: true })) {
            files.push((self.other_name(), self.configuration(self.weights.len().saturating_sub(1).max(1))));
        }
        files
    }

    /// The name of the configuration.
    #[must_use]
    pub fn main_name(&self) -> String {
        format!("{}-evenkeel.toml", self.name())
    }

    /// The name of the configuration that is read later.
    #[must_use]
    pub fn other_name(&self) -> String {
        format!("{}-other.toml", self.name())
    }

    /// The address of a client.
    #[must_use]
    pub fn client(number: u32) -> String {
        format!("198.51.100.{}", CLIENT_FIRST + number)
    }

    /// The address of a real server.
    #[must_use]
    pub fn server(number: u32) -> String {
        format!("10.0.3.{}", SERVER_FIRST + number)
    }

    fn scenario(&self, expectations: &[(&str, u64)]) -> String {
        let mut text = String::new();
        let name = self.name();
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "scenario = {{ name = \"{name}\", duration = \"{DURATION}\", seed = {} }}",
            self.seed
        );
        let _ = writeln!(text, "segment.clients = {{ subnet = \"198.51.100.0/24\" }}");
        let _ = writeln!(text, "segment.servers = {{ subnet = \"10.0.3.0/24\" }}");
        let _ = self.machines(&mut text);
        let _ = self.cables(&mut text);
        for (number, load) in self.loads.iter().enumerate() {
            let _ = self.load(number, load, &mut text);
        }
        let _ = self.timeline(&mut text);
        if !expectations.is_empty() {
            let one = |(metric, max): &(&str, u64)| format!("{{ metric = \"{metric}\", max = {max} }}");
            let all: Vec<_> = expectations.iter().map(one).collect();
            let _ = writeln!(text, "expect = [{}]", all.join(", "));
        }
        text
    }

    fn machines(&self, text: &mut String) -> std::fmt::Result {
        let (clients, servers) = (self.clients, self.weights.len());
        writeln!(
            text,
            "host.client = {{ count = {clients}, attach = [{{ segment = \"clients\", address = \
             \"198.51.100.{CLIENT_FIRST}+i/24\" }}], gateway = \"198.51.100.1\" }}"
        )?;
        let service = match self.service_us {
            0 => String::new(),
            us => {
                format!(", service = {{ time = {{ law = \"exponential\", mean = \"{us}us\" }}, cores = 2 }}")
            }
        };
        let more = match self.shape {
            Shape::Nat | Shape::Snat => "",
            Shape::Gateway => ", loopback = \"10.0.0.3\", sysctl = { arp_ignore = 1, arp_announce = 2 }",
        };
        writeln!(
            text,
            "host.server = {{ count = {servers}, attach = [{{ segment = \"servers\", address = \
             \"10.0.3.{SERVER_FIRST}+i/24\" }}], gateway = \"10.0.3.1\"{more}{service} }}"
        )?;
        let plug = |segment: &str, address: &str| {
            format!("{{ segment = \"{segment}\", address = \"{address}/24\" }}")
        };
        let both = format!("[{}, {}]", plug("clients", "198.51.100.1"), plug("servers", "10.0.3.1"));
        let config = self.main_name();
        if self.shape == Shape::Nat {
            return writeln!(text, "forwarder.lb = {{ config = \"{config}\", attach = {both} }}");
        }
        let routes = "routes = [{ to = \"10.0.0.0/24\", via = \"10.0.3.2\" }]";
        writeln!(text, "router.edge = {{ attach = {both}, {routes} }}")?;
        let attach = plug("servers", "10.0.3.2");
        writeln!(
            text,
            "forwarder.lb = {{ config = \"{config}\", attach = [{attach}], gateway = \"10.0.3.1\" }}"
        )
    }

    fn cables(&self, text: &mut String) -> std::fmt::Result {
        let noise = self.noise.keys();
        let noise = if noise.is_empty() { noise } else { format!(", {noise}") };
        writeln!(
            text,
            "link.access = {{ ends = [\"client*\", \"clients\"], delay = \"{}us\"{noise} }}",
            self.delay_us.max(1)
        )
    }

    fn load(&self, number: usize, load: &Traffic, text: &mut String) -> std::fmt::Result {
        let (port, protocol) = if load.is_tcp { (80, "tcp") } else { (53, "udp") };
        let arrivals = match load.arrivals {
            Arrivals::Poisson(rate) => format!("{{ process = \"poisson\", rate = \"{}/s\" }}", rate.max(1)),
            Arrivals::Closed(outstanding) => {
                format!("{{ process = \"closed\", outstanding = {} }}", outstanding.max(1))
            }
        };
        let rounds = if load.rounds > 1 { format!(", rounds = {}", load.rounds) } else { String::new() };
        let pause =
            if load.pause_ms > 0 { format!(", pause = \"{}ms\"", load.pause_ms) } else { String::new() };
        writeln!(
            text,
            "load.l{number} = {{ from = \"client*\", to = \"10.0.0.3:{port}/{protocol}\", arrivals = {arrivals}, flows = \
             {}, response = {{ size = \"{}B\" }}{rounds}{pause}, deadline = \"{DEADLINE_MS}ms\" }}",
            load.flows.max(1),
            load.response_bytes.max(16)
        )
    }

    fn timeline(&self, text: &mut String) -> std::fmt::Result {
        if self.faults.is_empty() {
            return Ok(());
        }
        writeln!(text, "timeline = [")?;
        for fault in &self.faults {
            let what = self.happening(fault.what);
            let during = match (fault.for_ms, fault.what) {
                (0, _) | (_, What::Reload { .. } | What::Jump(_)) => String::new(),
                (length, _) => format!(", for = \"{length}ms\""),
            };
            writeln!(text, "  {{ at = \"{}ms\", {what}{during} }},", fault.at_ms)?;
        }
        writeln!(text, "]")
    }

    fn happening(&self, what: What) -> String {
        let target = |machine: Machine| match machine {
            Machine::Client(number) => format!("target = \"client.{number}\""),
            Machine::Server(number) => format!("target = \"server.{number}\""),
            Machine::Forwarder => "target = \"lb\"".to_owned(),
        };
        let segment = |machine: Machine| match machine {
            Machine::Client(_) => "clients",
            Machine::Server(_) | Machine::Forwarder => "servers",
        };
        match what {
            What::Stop(machine) => format!("do = \"stop\", {}", target(machine)),
            What::Hang(server) => format!("do = \"hang\", {}", target(Machine::Server(server))),
            What::Slow(server, factor) => {
                format!("do = \"slow\", {}, factor = {}", target(Machine::Server(server)), factor.max(1))
            }
            What::Cut(machine) => {
                format!("do = \"link.down\", {}, segment = \"{}\"", target(machine), segment(machine))
            }
            What::Noise(machine, noise) => {
                let (target, segment) = (target(machine), segment(machine));
                format!("do = \"link.set\", {target}, segment = \"{segment}\", both = {{ {} }}", noise.keys())
            }
            What::Weight(server, weight) => format!(
                "do = \"weight\", target = \"lb\", director = \"web\", server = \"s{server}\", weight = {weight}"
            ),
            What::Reload { is_other: false } => "do = \"reload\", target = \"lb\"".to_owned(),
            What::Reload { is_other: true } => {
                format!("do = \"reload\", target = \"lb\", config = \"{}\"", self.other_name())
            }
            What::Jump(by) => format!("do = \"clock.jump\", target = \"lb\", by = \"{}ms\"", by.max(1)),
        }
    }

    fn configuration(&self, servers: usize) -> String {
        let mut text = String::new();
        if self.flows_max > 0 {
            let _ = writeln!(text, "limits = {{ flows = {0}, half_open = {0} }}", self.flows_max);
        }
        let _ = writeln!(text, "interface.tun0 = {{ kind = \"tun\" }}");
        let scheduler = if FAILING.contains(&self.scheduler) {
            let kind = self.scheduler;
            format!(
                "{{ component = \"bundled:misbehave\", fallback = \"rr\", options = {{ kind = \"{kind}\" }} }}"
            )
        } else {
            format!("\"{}\"", self.scheduler)
        };
        let mode = match self.shape {
            Shape::Nat => "mode = \"nat\"",
            Shape::Snat => "mode = \"nat\"\nsnat = [{ address = \"10.0.3.3\" }]",
            Shape::Gateway => "mode = \"gateway\"",
        };
        for (name, port, protocol) in [("web", 80, "tcp"), ("names", 53, "udp")] {
            let _ = writeln!(text, "[director.{name}]\nbind = \"10.0.0.3:{port}/{protocol}\"\n{mode}");
            let _ = writeln!(text, "scheduler = {scheduler}\nserver = [");
            for (number, weight) in (0..).zip(self.weights.iter().take(servers)) {
                let address = Self::server(number);
                let _ = writeln!(
                    text,
                    "  {{ name = \"s{number}\", address = \"{address}:{port}\", weight = {weight} }},"
                );
            }
            let _ = writeln!(text, "]");
        }
        text
    }
}

impl Noise {
    /// Whether there is any.
    #[must_use]
    pub const fn is_none(&self) -> bool {
        self.loss == 0 && self.reorder == 0 && self.duplicate == 0 && self.corrupt == 0
    }

    /// As keys of a link.
    fn keys(&self) -> String {
        let all = [
            ("loss", self.loss),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("corrupt", self.corrupt),
        ];
        let some = all.iter().filter(|(_, thousandths)| *thousandths > 0);
        some.map(|(key, thousandths)| format!("{key} = 0.{thousandths:03}")).collect::<Vec<_>>().join(", ")
    }
}
