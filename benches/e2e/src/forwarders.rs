//! The forwarders that are compared, and how each is started and stopped in its namespace.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::lab::{Host, Lab, SERVER, VIP, this_program};
use crate::measure::Measure;
use crate::traffic::{TCP_DOOR, TCP_SINK, UDP_ECHO, UDP_SINK};

/// How long a forwarder may take until packets pass.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// How long a forwarder may take to stop after SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The scheduler in `evenkeel.toml` that is a component.
const COMPONENT: &str = "{ component = \"bundled:round-robin\", fallback = \"rr\" }";

/// What stands between client and server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Forwarder {
    /// The kernel routes and translates nothing: the floor under everything.
    Route,
    /// The kernel translates: nftables DNAT with conntrack.
    Nft,
    /// A TUN without offloads in a plain loop of read and write that only rewrites.
    Plain,
    /// The device of `evenkeel-io` over io_uring, that only rewrites.
    BareUring,
    /// The device of `evenkeel-io` over epoll, that only rewrites.
    BareEpoll,
    /// `evenkeel run`, with a WASM scheduler.
    Evenkeel,
    /// The same with a scheduler of the engine instead of a component.
    EvenkeelNative,
    /// `evenkeel run` with the WASM scheduler over epoll.
    EvenkeelEpoll,
    /// HAProxy, for TCP.
    Haproxy,
    /// nginx with its stream module, for UDP.
    Nginx,
}

impl Forwarder {
    /// All of them, in the order of the table.
    pub(crate) const ALL: [Self; 10] = [
        Self::Route,
        Self::Nft,
        Self::Plain,
        Self::BareUring,
        Self::BareEpoll,
        Self::Evenkeel,
        Self::EvenkeelNative,
        Self::EvenkeelEpoll,
        Self::Haproxy,
        Self::Nginx,
    ];

    /// The name in tables and results.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Nft => "nft",
            Self::Plain => "plain",
            Self::BareUring => "bare-uring",
            Self::BareEpoll => "bare-epoll",
            Self::Evenkeel => "evenkeel",
            Self::EvenkeelNative => "evenkeel-native",
            Self::EvenkeelEpoll => "evenkeel-epoll",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    /// Whether it forwards what `measure` sends.
    pub(crate) const fn can(self, measure: Measure) -> bool {
        let is_tcp = matches!(measure, Measure::Tcp1 | Measure::Tcp8 | Measure::Connections);
        match self {
            Self::Haproxy => is_tcp,
            Self::Nginx => !is_tcp,
            Self::Route
            | Self::Nft
            | Self::Plain
            | Self::BareUring
            | Self::BareEpoll
            | Self::Evenkeel
            | Self::EvenkeelNative
            | Self::EvenkeelEpoll => true,
        }
    }

    /// The address that clients turn to.
    pub(crate) const fn address(self) -> Ipv4Addr {
        if matches!(self, Self::Route) { SERVER } else { VIP }
    }

    /// Starts it and waits until packets pass.
    ///
    /// # Errors
    ///
    /// When it can not be started, or nothing passes in time; what it has said is in the error.
    pub(crate) fn start(self, lab: &Lab, evenkeel: Option<&Path>) -> Result<Running, Failure> {
        let mut running = Running { child: None, undo: Vec::new(), log: lab.folder.join(self.name()) };
        let started = self.start_in(lab, evenkeel, &mut running).and_then(|()| self.wait(lab));
        if let Err(error) = started {
            let said = fs::read_to_string(&running.log).unwrap_or_default();
            running.stop(lab);
            return Err(format!("{}: {error}\n{}", self.name(), said.trim()).into());
        }
        Ok(running)
    }

    fn start_in(self, lab: &Lab, evenkeel: Option<&Path>, running: &mut Running) -> Result<(), Failure> {
        let (vip, server) = (VIP.to_string(), SERVER.to_string());
        let own = this_program()?;
        let bare = |way| ["bare", "--way", way, "--vip", &vip, "--server", &server];
        match self {
            Self::Route => Ok(()),
            Self::Nft => start_nft(lab, running),
            Self::Plain => start_tun(lab, running, &own, &bare("plain")),
            Self::BareUring => start_tun(lab, running, &own, &bare("io-uring")),
            Self::BareEpoll => start_tun(lab, running, &own, &bare("epoll")),
            Self::Evenkeel => start_evenkeel(lab, running, evenkeel, "auto", COMPONENT),
            Self::EvenkeelNative => start_evenkeel(lab, running, evenkeel, "auto", "\"rr\""),
            Self::EvenkeelEpoll => start_evenkeel(lab, running, evenkeel, "epoll", COMPONENT),
            Self::Haproxy => start_haproxy(lab, running),
            Self::Nginx => start_nginx(lab, running),
        }
    }

    /// Waits until the client reaches the server through it.
    fn wait(self, lab: &Lab) -> Result<(), Failure> {
        let own = this_program()?;
        let seconds = START_PATIENCE.as_secs().to_string();
        for (measure, port, protocol) in
            [(Measure::Tcp1, TCP_SINK, "tcp"), (Measure::Latency, UDP_ECHO, "udp")]
        {
            if self.can(measure) {
                let to = SocketAddrV4::new(self.address(), port).to_string();
                let arguments = ["probe", "--to", &to, "--protocol", protocol, "--seconds", &seconds];
                lab.run(Host::Client, &own, &arguments)?;
            }
        }
        Ok(())
    }
}

/// A forwarder that runs, and what takes it away again.
#[derive(Debug)]
pub(crate) struct Running {
    child: Option<Child>,
    undo: Vec<Vec<String>>,
    /// Where it writes what it has to say.
    log: PathBuf,
}

impl Running {
    /// Stops it and takes back what was set up for it.
    pub(crate) fn stop(mut self, lab: &Lab) {
        if let Some(mut child) = self.child.take() {
            stop_child(&mut child);
            wait_for_no_tun(lab);
        }
        for command in self.undo.iter().rev() {
            if let Some((program, arguments)) = command.split_first() {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                // What is not there any more needs no removal: routes go with their interface.
                let _ = lab.run(Host::Forwarder, program, &arguments);
            }
        }
    }

    /// Starts `program` on the forwarder's host, its words going to the log.
    fn spawn(&mut self, lab: &Lab, program: &str, arguments: &[&str]) -> Result<(), Failure> {
        let log = File::create(&self.log)?;
        let mut command = lab.command(Host::Forwarder, program, arguments);
        self.child = Some(command.stdout(log.try_clone()?).stderr(Stdio::from(log)).spawn()?);
        Ok(())
    }

    /// Runs a command on the forwarder's host, and remembers the one that undoes it.
    fn set(&mut self, lab: &Lab, command: &str, undo: &str) -> Result<(), Failure> {
        let words: Vec<&str> = command.split_whitespace().collect();
        if let Some((program, arguments)) = words.split_first() {
            lab.run(Host::Forwarder, program, arguments)?;
        }
        if !undo.is_empty() {
            self.undo.push(undo.split_whitespace().map(str::to_owned).collect());
        }
        Ok(())
    }
}

/// Ends a process as an operator would; kills it if it does not go.
fn stop_child(child: &mut Child) {
    let _ = std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    let end = Instant::now() + STOP_PATIENCE;
    while Instant::now() < end {
        if matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = child.kill();
    let _ = child.wait();
}

fn start_nft(lab: &Lab, running: &mut Running) -> Result<(), Failure> {
    let path = lab.folder.join("nft.conf");
    let rules = format!(
        "table ip bench {{\n  chain pre {{\n    type nat hook prerouting priority -100\n    \
         ip daddr {VIP} dnat to {SERVER}\n  }}\n}}\n"
    );
    fs::write(&path, rules)?;
    running.set(lab, &format!("nft -f {}", path.display()), "nft delete table ip bench")
}

/// A TUN program, and the routes and rules that bring both directions to it.
fn start_tun(lab: &Lab, running: &mut Running, program: &str, arguments: &[&str]) -> Result<(), Failure> {
    running.spawn(lab, program, arguments)?;
    wait_for_tun(lab)?;
    running.set(lab, &format!("ip route add {VIP}/32 dev tun0"), "")?;
    running.set(lab, "ip rule add pref 100 iif tun0 lookup main", "ip rule del pref 100")?;
    running.set(lab, "ip route add default dev tun0 table 100", "ip route flush table 100")?;
    for (protocol, port) in [("tcp", TCP_SINK), ("tcp", TCP_DOOR), ("udp", UDP_SINK), ("udp", UDP_ECHO)] {
        let rule = format!("pref 200 from {SERVER} ipproto {protocol} sport {port} lookup 100");
        running.set(lab, &format!("ip rule add {rule}"), &format!("ip rule del {rule}"))?;
    }
    Ok(())
}

fn wait_for_tun(lab: &Lab) -> Result<(), Failure> {
    let end = Instant::now() + START_PATIENCE;
    loop {
        match lab.run(Host::Forwarder, "ip", &["link", "show", "tun0", "up"]) {
            Ok(said) if !said.is_empty() => return Ok(()),
            Ok(_) | Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(20)),
            Ok(_) => return Err("tun0 does not come up".into()),
            Err(error) => return Err(error),
        }
    }
}

/// The kernel takes an interface away a moment after the last process that held it by io_uring.
fn wait_for_no_tun(lab: &Lab) {
    let end = Instant::now() + STOP_PATIENCE;
    while Instant::now() < end && lab.run(Host::Forwarder, "ip", &["link", "show", "tun0"]).is_ok() {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn start_evenkeel(
    lab: &Lab,
    running: &mut Running,
    binary: Option<&Path>,
    io: &str,
    scheduler: &str,
) -> Result<(), Failure> {
    let binary = binary.ok_or("--evenkeel names no binary")?;
    let path = lab.folder.join("evenkeel.toml");
    let control = lab.folder.join("control.sock");
    let mut config = format!(
        "[forwarder]\nsetup = \"auto\"\ncontrol = \"{}\"\nio = \"{io}\"\nseed = 1\n\n\
         [interface.tun0]\nkind = \"tun\"\nmtu = 1500\n",
        control.display()
    );
    for (name, protocol, port) in [
        ("tcp", "tcp", TCP_SINK),
        ("door", "tcp", TCP_DOOR),
        ("udp", "udp", UDP_SINK),
        ("echo", "udp", UDP_ECHO),
    ] {
        config += &format!(
            "\n[director.{name}]\nbind = \"{VIP}:{port}/{protocol}\"\nmode = \"nat\"\n\
             scheduler = {scheduler}\n\n\
             [[director.{name}.server]]\nname = \"s1\"\naddress = \"{SERVER}:{port}\"\n"
        );
    }
    fs::write(&path, config)?;
    let (binary, path) = (binary.display().to_string(), path.display().to_string());
    running.spawn(lab, &binary, &["run", "--config", &path])
}

fn start_haproxy(lab: &Lab, running: &mut Running) -> Result<(), Failure> {
    let path = lab.folder.join("haproxy.conf");
    let config = format!(
        "global\n    maxconn 4000\ndefaults\n    mode tcp\n    timeout connect 5s\n    timeout client 60s\n    \
         timeout server 60s\nlisten bench\n    bind {VIP}:{TCP_SINK}\n    server s1 {SERVER}:{TCP_SINK}\n\
         listen door\n    bind {VIP}:{TCP_DOOR}\n    server s1 {SERVER}:{TCP_DOOR}\n"
    );
    fs::write(&path, config)?;
    running.set(
        lab,
        &format!("ip address add {VIP}/32 dev lo"),
        &format!("ip address del {VIP}/32 dev lo"),
    )?;
    running.spawn(lab, "haproxy", &["-db", "-f", &path.display().to_string()])
}

fn start_nginx(lab: &Lab, running: &mut Running) -> Result<(), Failure> {
    let path = lab.folder.join("nginx.conf");
    let service = |port| {
        format!("    server {{ listen {VIP}:{port} udp; proxy_pass {SERVER}:{port}; proxy_timeout 10s; }}\n")
    };
    let config = format!(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\nuser root;\nworker_processes auto;\n\
         pid {}/nginx.pid;\ndaemon off;\nerror_log stderr;\nevents {{ worker_connections 4096; }}\n\
         stream {{\n{}{}}}\n",
        lab.folder.display(),
        service(UDP_SINK),
        service(UDP_ECHO)
    );
    fs::write(&path, config)?;
    running.set(
        lab,
        &format!("ip address add {VIP}/32 dev lo"),
        &format!("ip address del {VIP}/32 dev lo"),
    )?;
    running.spawn(lab, "nginx", &["-c", &path.display().to_string()])
}
