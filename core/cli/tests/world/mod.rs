//! Network namespaces with echo servers, and the forwarder as a process in one of them: three in a row, or hosts on
//! segments.
//!
//! Namespaces have names of their own and go when [`World`] is dropped. No test waits by the clock: echo
//! sockets have a deadline, and the forwarder's log says when it is ready.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr,
    reason = "test support: a panic is a failed test"
)]

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::net::{AddressFamily, RecvFlags, SocketType, recv, socket};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use tun_tap::{Iface, Mode};

/// The longest that an answer or a line of the log may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// One world at a time: two forwarders that compile and two cores make deadlines meaningless.
static ONE: Mutex<()> = Mutex::new(());
static NUMBER: AtomicU32 = AtomicU32::new(0);

thread_local! {
    static HELD: std::cell::RefCell<(u32, Option<MutexGuard<'static, ()>>)> = const { std::cell::RefCell::new((0, None)) };
}

/// The namespaces of client, forwarder and servers.
pub(crate) struct World {
    prefix: String,
    hosts: Vec<&'static str>,
    pub(crate) folder: PathBuf,
}

impl World {
    /// Builds it, or says why not.
    pub(crate) fn new() -> Option<Self> {
        let world = Self::with_hosts(&["c", "f", "s"])?;
        let (client, server) = (world.namespace("c"), world.namespace("s"));
        world.sh_in("f", &format!("ip link add clients type veth peer name eth0 netns {client}"));
        world.sh_in("f", &format!("ip link add servers type veth peer name eth0 netns {server}"));
        world.sh_in("f", "ip address add 198.51.100.1/24 dev clients; ip link set clients up");
        world.sh_in("f", "ip address add 10.0.3.1/24 dev servers; ip link set servers up");
        world.sh_in("c", "ip address add 198.51.100.10/24 dev eth0; ip link set eth0 up");
        world.sh_in("c", "ip route add default via 198.51.100.1");
        world.sh_in("s", "ip address add 10.0.3.20/24 dev eth0; ip address add 10.0.3.21/24 dev eth0");
        world.sh_in("s", "ip link set eth0 up; ip route add default via 10.0.3.1");
        world.sh_in(
            "f",
            "ip address add fd98::1/64 dev clients nodad; ip address add fd03::1/64 dev servers nodad",
        );
        world.sh_in("c", "ip address add fd98::10/64 dev eth0 nodad; ip -6 route add default via fd98::1");
        world.sh_in(
            "s",
            "ip address add fd03::20/64 dev eth0 nodad; ip address add fd03::21/64 dev eth0 nodad",
        );
        world.sh_in("s", "ip -6 route add default via fd03::1");
        for address in ["10.0.3.20", "10.0.3.21", "fd03::20", "fd03::21"] {
            world.serve(address, 8080, 5353);
        }
        Some(world)
    }

    /// Builds hosts on segments, each a bridge of a host of its own: `c` is the client, `f` the forwarder, `s` and others
    /// are real servers. On each segment a host has an interface with the segment's name, up and without addresses.
    pub(crate) fn on_segments(segments: &[(&str, &[&'static str])]) -> Option<Self> {
        let mut hosts: Vec<&'static str> =
            segments.iter().flat_map(|(_, hosts)| hosts.iter().copied()).collect();
        hosts.push("net");
        hosts.sort_unstable();
        hosts.dedup();
        let world = Self::with_hosts(&hosts)?;
        for (segment, hosts) in segments {
            world.sh_in(
                "net",
                &format!("ip link add {segment} type bridge mcast_snooping 0; ip link set {segment} up"),
            );
            for host in *hosts {
                let (namespace, port) = (world.namespace(host), format!("{segment}-{host}"));
                world.sh_in(
                    "net",
                    &format!("ip link add {port} type veth peer name {segment} netns {namespace}"),
                );
                world.sh_in("net", &format!("ip link set {port} master {segment} up"));
                world.sh_in(host, &format!("ip link set {segment} up"));
            }
        }
        Some(world)
    }

    /// Namespaces of these names with nothing in them.
    fn with_hosts(hosts: &[&'static str]) -> Option<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("ek{}x{number}", std::process::id());
        if let Err(reason) = possible(&prefix) {
            eprintln!("SKIPPED: {reason}");
            return None;
        }
        hold();
        sweep();
        let folder = std::env::temp_dir().join(format!("evenkeel-{prefix}"));
        std::fs::create_dir_all(&folder).unwrap();
        let world = Self { prefix, hosts: hosts.to_vec(), folder };
        for name in hosts {
            sh(&format!("ip netns add {}", world.namespace(name)));
            world.sh_in(name, "ip link set lo up");
        }
        Some(world)
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Runs a script on a host.
    pub(crate) fn sh_in(&self, name: &str, script: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.namespace(name), "sh", "-ec", script])
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a script on the forwarder's machine.
    pub(crate) fn forwarder_sh(&self, script: &str) -> String {
        self.sh_in("f", script)
    }

    /// Everything that a forwarder may change there.
    pub(crate) fn state(&self) -> String {
        self.forwarder_sh(
            "ip -o link show | sed 's/^[0-9]*: //; s/@[^:]*//' | grep -v ^lo | cut -d' ' -f1,4,5; ip -o address show | grep -v fe80: | sed 's/^[0-9]*: //'; \
             ip rule show; ip -4 route show table all | sort; sysctl net.ipv4.ip_forward; \
             ip -6 rule show; ip -6 route show table main | grep -v ^fe80: | sort; sysctl net.ipv6.conf.all.forwarding; \
             sysctl -a 2>/dev/null | grep -E 'ipv4.conf.*[.]rp_filter|neigh.*[.]proxy_delay|[.]proxy_ndp'; ip neigh show proxy",
        )
    }

    /// Runs `work` on a thread in a namespace, as the network is a thread's own.
    pub(crate) fn inside<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let path = Path::new("/run/netns").join(self.namespace(name));
        let enter = move || {
            let file = File::open(path).unwrap();
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::spawn(enter).join().unwrap()
    }

    /// Echo servers at an address of the servers' machine that put it and their client's in front. They live as long as
    /// the test.
    pub(crate) fn serve(&self, address: &'static str, tcp_port: u16, udp_port: u16) {
        self.serve_on("s", address, address, tcp_port, udp_port);
    }

    /// The same on another machine, which calls itself `name` there.
    pub(crate) fn serve_on(
        &self,
        host: &str,
        name: &'static str,
        address: &'static str,
        tcp_port: u16,
        udp_port: u16,
    ) {
        self.inside(host, move || {
            let listener = TcpListener::bind((address, tcp_port)).unwrap();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    std::thread::spawn(move || echo_tcp(stream, name));
                }
            });
            let socket = UdpSocket::bind((address, udp_port)).unwrap();
            std::thread::spawn(move || echo_udp(&socket, name));
        });
    }

    /// A cable from the servers' machine to the client's, for answers that do not come back through the forwarder.
    /// The servers' machine has `vip` as well, and says so to nobody.
    pub(crate) fn answer_directly_as(&self, vip: &str) {
        let (client, server) = (self.namespace("c"), self.namespace("s"));
        sh(&format!("ip link add direct netns {client} type veth peer name direct netns {server}"));
        self.sh_in("c", "ip address add 192.0.2.1/30 dev direct; ip link set direct up");
        self.sh_in("c", "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.direct.rp_filter=0");
        self.sh_in("c", "sysctl -qw net.ipv4.conf.eth0.rp_filter=0");
        self.sh_in("s", "ip address add 192.0.2.2/30 dev direct; ip link set direct up");
        self.sh_in("s", "ip route add 198.51.100.0/24 via 192.0.2.1");
        self.sh_in("s", "sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0");
        self.sh_in("s", "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
        self.sh_in("s", &format!("ip address add {vip}/32 dev lo"));
    }

    /// Has the servers' machine take packets out of tunnels, whatever tunnels its kernel knows: packets of `protocol`
    /// lose their outer header and `shim` bytes, and come in again by an interface of their own.
    pub(crate) fn end_tunnel(&self, protocol: u32, shim: usize) {
        self.inside("s", move || {
            let inside = Iface::without_packet_info("end", Mode::Tun).unwrap();
            let protocol = rustix::net::Protocol::from_raw(NonZeroU32::new(protocol).unwrap());
            let outside = socket(AddressFamily::INET, SocketType::RAW, Some(protocol)).unwrap();
            std::thread::spawn(move || {
                let mut bytes = [0; 65_536];
                while let Ok((count, _)) = recv(&outside, &mut bytes, RecvFlags::empty()) {
                    let header = usize::from(bytes[0] & 15) * 4;
                    if let Some(packet) = bytes.get(header + shim..count) {
                        let _ = inside.send(packet);
                    }
                }
            });
        });
        self.sh_in("s", "ip link set end up; sysctl -qw net.ipv4.conf.end.rp_filter=0");
    }

    /// Connects from the client's machine.
    pub(crate) fn tcp_connect(&self, to: &str) -> Connection {
        let to: SocketAddr = to.parse().unwrap();
        let stream = self.inside("c", move || TcpStream::connect_timeout(&to, DEADLINE).unwrap());
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Connection(BufReader::new(stream))
    }

    /// One line there and back; the server's address and the client's as the server sees it.
    pub(crate) fn tcp_echo(&self, to: &str, text: &str) -> (String, String) {
        self.tcp_connect(to).echo(text)
    }

    /// One datagram there and back.
    pub(crate) fn udp_echo(&self, to: &str, text: &str) -> (String, String) {
        let to: SocketAddr = to.parse().unwrap();
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.inside("c", move || UdpSocket::bind(own).unwrap());
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.send(text.as_bytes()).unwrap();
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).unwrap();
        parts(std::str::from_utf8(&bytes[..count]).unwrap(), text)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.hosts {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(name)]).output();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
        HELD.with_borrow_mut(|(count, guard)| {
            *count -= 1;
            if *count == 0 {
                guard.take();
            }
        });
    }
}

/// Removes what tests left that were killed: namespaces whose name says of a process that is no more, with whatever still
/// runs in them. Once is enough: who is killed later is seen to by the next program.
fn sweep() {
    static SWEPT: std::sync::Once = std::sync::Once::new();
    SWEPT.call_once(|| {
        let Ok(entries) = std::fs::read_dir("/run/netns") else { return };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            let owner = name.strip_prefix("ek").and_then(|rest| rest.split_once('x'));
            let Some(owner) = owner.and_then(|(owner, _)| owner.parse::<u32>().ok()) else { continue };
            if !Path::new(&format!("/proc/{owner}")).exists() {
                sh(&format!(
                    "ip netns pids {name} | xargs -r kill -9 || true; ip netns delete {name} || true"
                ));
            }
        }
    });
}

/// Takes the only place; a test with two worlds takes it once.
fn hold() {
    HELD.with_borrow_mut(|(count, guard)| {
        if *count == 0 {
            *guard = Some(ONE.lock().unwrap_or_else(PoisonError::into_inner));
        }
        *count += 1;
    });
}

fn possible(prefix: &str) -> Result<(), String> {
    let tun = File::options().read(true).write(true).open("/dev/net/tun");
    tun.map_err(|error| format!("/dev/net/tun: {error}"))?;
    let name = format!("{prefix}p");
    let made = Command::new("ip").args(["netns", "add", &name]).output();
    let made = made.map_err(|error| format!("ip: {error}"))?;
    let _ = Command::new("ip").args(["netns", "del", &name]).output();
    if made.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&made.stderr).into_owned()) }
}

fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn echo_tcp(stream: TcpStream, own: &str) {
    let peer = stream.peer_addr().unwrap().ip();
    let mut writer = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if writeln!(writer, "{own} {peer} {line}").is_err() {
            return;
        }
    }
}

fn echo_udp(socket: &UdpSocket, own: &str) {
    let mut bytes = [0; 256];
    while let Ok((count, peer)) = socket.recv_from(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
        let _ = socket.send_to(format!("{own} {} {text}", peer.ip()).as_bytes(), peer);
    }
}

fn parts(answer: &str, sent: &str) -> (String, String) {
    let mut words = answer.trim_end().splitn(3, ' ');
    let (server, peer) = (words.next().unwrap().to_owned(), words.next().unwrap().to_owned());
    assert_eq!(words.next(), Some(sent));
    (server, peer)
}

/// A connection through the VIP that stays open.
pub(crate) struct Connection(BufReader<TcpStream>);

impl Connection {
    /// One line there and back.
    pub(crate) fn echo(&mut self, text: &str) -> (String, String) {
        writeln!(self.0.get_mut(), "{text}").unwrap();
        let mut answer = String::new();
        self.0.read_line(&mut answer).unwrap();
        parts(&answer, text)
    }
}

/// `evenkeel run` on the forwarder's machine. Killed when dropped.
pub(crate) struct Forwarder {
    child: Child,
    config: PathBuf,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
}

impl Forwarder {
    /// Starts it and waits until it forwards.
    pub(crate) fn start(world: &World, config: &str) -> Self {
        let mut forwarder = Self::spawn(world, config);
        forwarder.wait_for_log("forwarding");
        forwarder
    }

    /// Starts it.
    pub(crate) fn spawn(world: &World, config: &str) -> Self {
        let path = world.folder.join("evenkeel.toml");
        std::fs::write(&path, config).unwrap();
        Self::run(world, path)
    }

    /// Another one with the same configuration.
    pub(crate) fn spawn_again(&self, world: &World) -> Self {
        Self::run(world, self.config.clone())
    }

    fn run(world: &World, config: PathBuf) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &world.namespace("f"), env!("CARGO_BIN_EXE_evenkeel"), "run", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let log = Arc::new(Mutex::new(String::new()));
        let (errors, kept) = (BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                kept.lock().unwrap().push_str(&format!("{line}\n"));
                let _ = sender.send(line);
            }
        });
        Self { child, config, lines, log }
    }

    /// Waits for a line of the log with these words.
    pub(crate) fn wait_for_log(&mut self, words: &str) {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) if line.contains(words) => return,
                Ok(_) => {}
                Err(_) => panic!("no {words:?} in the log: {}", self.log()),
            }
        }
    }

    /// Everything that it has said.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.config.parent().unwrap().join("run/evenkeel.sock")
    }

    pub(crate) fn write_config(&self, text: &str) {
        std::fs::write(&self.config, text).unwrap();
    }

    pub(crate) fn ctl(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command.args(["ctl", "--socket"]).arg(self.socket()).args(words).output().unwrap()
    }

    /// A file beside the configuration.
    pub(crate) fn write_file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.config.parent().unwrap().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn stats(&self) -> Value {
        let output = self.ctl(&["stats", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `evenkeel routes` prints.
    pub(crate) fn routes(&self, world: &World) -> String {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &world.namespace("f"), env!("CARGO_BIN_EXE_evenkeel")]);
        let output = command.args(["routes", "--config"]).arg(&self.config).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its exit code, once its log has ended.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        while let Ok(_line) = self.lines.recv_timeout(DEADLINE) {}
        if self.child.try_wait().unwrap().is_none() {
            // Its end of the pipe is closed, so it ends now or never.
            let _ = self.child.wait();
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
