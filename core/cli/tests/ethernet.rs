//! The real forwarder on Ethernet interfaces, between kernels on real segments.
//!
//! ```text
//! clients: c 198.51.100.10 -- f .1        servers: f 10.0.3.1 -- s .20, t .21
//!            fd98::10           ::1                  fd03::1       ::20   ::21
//! ```
//!
//! The forwarder's machine has none of these addresses: they are the engine's. Its kernel has others on the same
//! interfaces and forwards, so that a test fails where it does anything with what is not its own. Needs root, `ip` and /dev/net/tun. Where those are
//! missing each test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "tests"
)]

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::num::NonZeroU32;
use std::process::Command;
use std::time::Duration;

use crate::world::{Forwarder, World};
use evenkeel_engine::InterfaceId;
use evenkeel_engine::device::Device;
use evenkeel_engine::wire::checksum;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_io::{Ethernet, EthernetOptions, IoChoice, KernelDevice};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};

const HEAD: &str = r#"
[forwarder]
control = "run/evenkeel.sock"
seed = 1
io = "IO"
"#;

/// Two arms: clients on one interface, real servers on the other.
const TWO_ARMS: &str = r#"
[interface.clients]
kind = "ethernet"
address = ["198.51.100.1/24", "fd98::1/64"]

[interface.servers]
kind = "ethernet"
address = ["10.0.3.1/24", "fd03::1/64"]

[[route]]
to = "0.0.0.0/0"
via = "198.51.100.254"
interface = "clients"
[[route]]
to = "::/0"
via = "fd98::fe"
interface = "clients"
"#;

/// One arm: everything on one segment.
const ONE_ARM: &str = r#"
[interface.lan]
kind = "ethernet"
address = ["10.0.3.1/24", "fd03::1/64"]
"#;

const DIRECTORS: &str = r#"
[director.web]
bind = "VIP4:80/tcp"
mode = "nat"
scheduler = "rr"
[[director.web.server]]
name = "s1"
address = "10.0.3.20:8080"
[[director.web.server]]
name = "s2"
address = "10.0.3.21:8080"

[director.echo]
bind = "VIP4:53/udp"
mode = "nat"
scheduler = "rr"
[[director.echo.server]]
name = "s1"
address = "10.0.3.20:5353"

[director.web6]
bind = "[VIP6]:80/tcp"
mode = "nat"
scheduler = "rr"
[[director.web6.server]]
name = "s1"
address = "[fd03::20]:8080"
[[director.web6.server]]
name = "s2"
address = "[fd03::21]:8080"

[director.echo6]
bind = "[VIP6]:53/udp"
mode = "nat"
scheduler = "rr"
[[director.echo6.server]]
name = "s1"
address = "[fd03::20]:5353"
"#;

fn directors(v4: &str, v6: &str) -> String {
    DIRECTORS.replace("VIP4", v4).replace("VIP6", v6)
}

fn config(interfaces: &str, directors: &str) -> String {
    format!("{}{interfaces}{directors}", HEAD.replace("IO", "auto"))
}

/// The forwarder's kernel has an address of its own on each of these interfaces, forwards what it is asked to, and answers
/// strangers as a router would.
fn forwards(world: &World, addresses: &[(&str, &str, &str)]) {
    world.forwarder_sh("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
    for (interface, v4, v6) in addresses {
        world.forwarder_sh(&format!("ip address add {v4}/24 dev {interface}"));
        world.forwarder_sh(&format!("ip address add {v6}/64 dev {interface} nodad"));
    }
}

/// That it has done neither.
fn assert_kernel_is_quiet(world: &World) {
    let counted = world.forwarder_sh("cat /proc/net/snmp /proc/net/snmp6");
    let snmp = |protocol: &str, name: &str| -> u64 {
        let mut lines = counted.lines().filter_map(|line| line.strip_prefix(protocol));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split_whitespace().position(|field| field == name).unwrap();
        values.split_whitespace().nth(place).unwrap().parse().unwrap()
    };
    assert_eq!(snmp("Ip:", "ForwDatagrams"), 0, "the kernel has forwarded");
    assert_eq!(snmp("Icmp:", "OutMsgs"), 0, "the kernel has sent errors");
    assert_eq!(snmp("Tcp:", "OutRsts"), 0, "the kernel has reset connections");
    let forwarded = counted.lines().find_map(|line| line.strip_prefix("Ip6OutForwDatagrams")).unwrap();
    assert_eq!(forwarded.trim(), "0", "the kernel has forwarded IPv6");
    let unreachable = counted.lines().find_map(|line| line.strip_prefix("Icmp6OutDestUnreachs")).unwrap();
    assert_eq!(unreachable.trim(), "0", "the kernel has sent errors about IPv6");
}

fn server_addresses(world: &World) {
    for (host, last) in [("s", "20"), ("t", "21")] {
        let link = world.sh_in(host, "ip -o link show | grep -v lo: | cut -d: -f2 | cut -d@ -f1");
        let link = link.trim();
        world.sh_in(host, &format!("ip address add 10.0.3.{last}/24 dev {link}"));
        world.sh_in(host, &format!("ip address add fd03::{last}/64 dev {link} nodad"));
    }
    world.serve_on("s", "10.0.3.20", "10.0.3.20", 8080, 5353);
    world.serve_on("s", "fd03::20", "fd03::20", 8080, 5353);
    world.serve_on("t", "10.0.3.21", "10.0.3.21", 8080, 5353);
    world.serve_on("t", "fd03::21", "fd03::21", 8080, 5353);
}

/// Clients behind one interface of the forwarder, real servers behind the other, whose router it is.
fn two_arms() -> Option<World> {
    let world = World::on_segments(&[("clients", &["c", "f"]), ("servers", &["f", "s", "t"])])?;
    world.sh_in("c", "ip address add 198.51.100.10/24 dev clients; ip route add default via 198.51.100.1");
    world.sh_in("c", "ip address add fd98::10/64 dev clients nodad; ip -6 route add default via fd98::1");
    server_addresses(&world);
    for host in ["s", "t"] {
        world.sh_in(host, "ip route add default via 10.0.3.1; ip -6 route add default via fd03::1");
    }
    forwards(&world, &[("clients", "198.51.100.9", "fd98::9"), ("servers", "10.0.3.9", "fd03::9")]);
    Some(world)
}

/// Everybody on one segment.
fn one_arm() -> Option<World> {
    let world = World::on_segments(&[("lan", &["c", "f", "s", "t"])])?;
    world.sh_in("c", "ip address add 10.0.3.10/24 dev lan; ip address add fd03::10/64 dev lan nodad");
    server_addresses(&world);
    forwards(&world, &[("lan", "10.0.3.9", "fd03::9")]);
    Some(world)
}

fn stop(mut forwarder: Forwarder, world: &World, before: &str) {
    assert_kernel_is_quiet(world);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

/// Who answers two connections and a datagram, and whom the real servers see.
fn assert_balanced(world: &World, vip: &str, peer: &str) {
    let mut seen = Vec::new();
    for number in 0..2 {
        let (server, seen_peer) = world.tcp_echo(&format!("{vip}:80"), &format!("hello {number}"));
        assert_eq!(seen_peer, peer);
        seen.push(server);
    }
    seen.sort();
    let last = |address: &str| address.rsplit(['.', ':']).next().unwrap().to_owned();
    assert_eq!(seen.iter().map(|server| last(server)).collect::<Vec<_>>(), ["20", "21"], "they take turns");
    assert_eq!(world.udp_echo(&format!("{vip}:53"), "ask").1, peer);
}

#[test]
fn nat_between_two_interfaces_of_both_families() {
    for io in ["auto", "epoll"] {
        let Some(world) = two_arms() else { return };
        let before = world.state();
        let text = config(TWO_ARMS, &directors("198.51.100.3", "fd98::3")).replace("auto", io);
        let forwarder = Forwarder::start(&world, &text);
        assert_balanced(&world, "198.51.100.3", "198.51.100.10");
        assert_balanced(&world, "[fd98::3]", "fd98::10");
        let stats = forwarder.stats();
        assert_eq!(stats["flows"]["opened"], 6, "{stats:#}");
        assert_eq!(stats["device"]["kernel_dropped"], 0, "{stats:#}");
        assert_eq!(stats["device"]["write_errors"], 0, "{stats:#}");
        if io == "epoll" {
            assert_eq!(stats["io"], "epoll");
        }
        stop(forwarder, &world, &before);
    }
}

#[test]
fn source_nat_on_one_interface_of_both_families() {
    let Some(world) = one_arm() else { return };
    let before = world.state();
    let nat = directors("10.0.3.3", "fd03::3");
    let (v4, v6) = nat.split_once("[director.web6]").unwrap();
    let with = |text: &str, address: &str| {
        text.replace("mode = \"nat\"", &format!("mode = \"nat\"\nsnat = {{ address = \"{address}\" }}"))
    };
    let nat = format!("{}[director.web6]{}", with(v4, "10.0.3.7"), with(v6, "fd03::7"));
    let forwarder = Forwarder::start(&world, &config(ONE_ARM, &nat));
    assert_balanced(&world, "10.0.3.3", "10.0.3.7");
    assert_balanced(&world, "[fd03::3]", "fd03::7");
    stop(forwarder, &world, &before);
}

/// The MAC addresses of the hosts' interfaces, and what `c` believes to be the one of `address`.
fn mac(world: &World, host: &str, link: &str) -> String {
    let said = world.sh_in(host, &format!("ip -o link show {link}"));
    said.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().to_owned()
}

fn believed(world: &World, address: &str) -> String {
    let said = world.sh_in("c", &format!("ip neigh show {address}"));
    said.split_whitespace().skip_while(|word| *word != "lladdr").nth(1).unwrap_or("nobody").to_owned()
}

/// The VIPs are on `lo` of the real servers, which keep quiet about them.
fn have_vips(world: &World) {
    for (host, name) in [("s", "first"), ("t", "second")] {
        world.sh_in(host, "sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
        world.sh_in(host, "ip address add 10.0.3.3/32 dev lo; ip -6 address add fd03::3/128 dev lo nodad");
        world.serve_on(host, name, "10.0.3.3", 80, 53);
        world.serve_on(host, name, "fd03::3", 80, 53);
    }
}

fn gateway_mode() -> String {
    directors("10.0.3.3", "fd03::3")
        .replace("\"nat\"", "\"gateway\"")
        .replace(":8080", "")
        .replace(":5353", "")
        .replace("[fd03::20]", "fd03::20")
        .replace("[fd03::21]", "fd03::21")
}

#[test]
fn in_gateway_mode_frames_go_to_the_mac_of_the_real_server_which_answers_directly() {
    let Some(world) = one_arm() else { return };
    have_vips(&world);
    let before = world.state();
    let forwarder = Forwarder::start(&world, &config(ONE_ARM, &gateway_mode()));
    for (vip, peer) in [("10.0.3.3", "10.0.3.10"), ("[fd03::3]", "fd03::10")] {
        let mut seen: Vec<String> = Vec::new();
        for number in 0..4 {
            let (server, client) = world.tcp_echo(&format!("{vip}:80"), &format!("hello {number}"));
            assert_eq!(client, peer);
            seen.push(server);
        }
        seen.sort();
        assert_eq!(seen, ["first", "first", "second", "second"], "they take turns");
        assert_eq!(world.udp_echo(&format!("{vip}:53"), "ask"), ("first".to_owned(), peer.to_owned()));
        assert_eq!(believed(&world, vip.trim_matches(['[', ']'])), mac(&world, "f", "lan"));
    }
    let stats = forwarder.stats();
    for director in stats["directors"].as_array().unwrap() {
        for server in director["servers"].as_array().unwrap() {
            assert_eq!(server["packets_from"], 0, "answers do not come by: {stats:#}");
        }
    }
    assert!(stats["directors"][0]["servers"][1]["packets_to"].as_u64().unwrap() >= 6, "{stats:#}");
    stop(forwarder, &world, &before);
}

/// An echo request from the client's machine, and who answers it.
fn ping(world: &World, to: &str) -> IpAddr {
    let address: IpAddr = to.parse().unwrap();
    world.inside("c", move || {
        let (family, protocol, request, reply, head) = match address {
            IpAddr::V4(_) => (AddressFamily::INET, 1, 8, 0, 20),
            IpAddr::V6(_) => (AddressFamily::INET6, 58, 128, 129, 0),
        };
        let protocol = rustix::net::Protocol::from_raw(NonZeroU32::new(protocol).unwrap());
        let socket = socket(family, SocketType::RAW, Some(protocol)).unwrap();
        let limit = Some(Duration::from_secs(60));
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, limit)
            .unwrap();
        let mut message = [request, 0, 0, 0, 0x12, 0x34, 0, 1, b'p', b'i', b'n', b'g'];
        if address.is_ipv4() {
            let sum = checksum::checksum(0, &message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        let to = std::net::SocketAddr::new(address, 0);
        sendto(&socket, &message, SendFlags::empty(), &to).unwrap();
        let mut bytes = [0; 256];
        loop {
            let (count, _) = recv(&socket, &mut bytes, RecvFlags::empty()).expect("an answer in time");
            let said = &bytes[head..count];
            if said.first() == Some(&reply) && said[4..] == message[4..] {
                let from: [u8; 4] = bytes[12..16].try_into().unwrap();
                return if head == 0 { address } else { from.into() };
            }
        }
    })
}

#[test]
fn a_ping_of_the_vip_and_of_the_routers_address_is_answered() {
    let Some(world) = two_arms() else { return };
    let before = world.state();
    let forwarder = Forwarder::start(&world, &config(TWO_ARMS, &directors("198.51.100.3", "fd98::3")));
    for address in ["198.51.100.3", "198.51.100.1", "fd98::3", "fd98::1"] {
        assert_eq!(ping(&world, address), address.parse::<IpAddr>().unwrap());
    }
    stop(forwarder, &world, &before);
}

/// A pattern that does not repeat where a lost or moved packet would not be seen.
fn pattern(bytes: usize) -> Vec<u8> {
    (0_u32..).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).take(bytes).collect()
}

/// Sends so many bytes to the VIP and gets them back; the time that it took.
fn transfer(
    world: &World,
    servers: &'static [(&'static str, &'static str)],
    vip: &str,
    bytes: usize,
) -> Duration {
    for (host, address) in servers {
        world.inside(host, move || {
            let listener = TcpListener::bind((*address, 9000)).unwrap();
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut taken = vec![0; bytes];
                    stream.read_exact(&mut taken).unwrap();
                    stream.write_all(&taken).unwrap();
                }
            });
        });
    }
    let to: std::net::SocketAddr = vip.parse().unwrap();
    let limit = Duration::from_secs(60);
    let mut stream = world.inside("c", move || TcpStream::connect_timeout(&to, limit).unwrap());
    stream.set_read_timeout(Some(limit)).unwrap();
    stream.set_write_timeout(Some(limit)).unwrap();
    let began = std::time::Instant::now();
    let given = pattern(bytes);
    stream.write_all(&given).unwrap();
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back).unwrap();
    assert!(back == given, "every byte comes back as it was sent");
    began.elapsed()
}

const BULK: &str = r#"
[director.bulk]
bind = "198.51.100.3:90/tcp"
mode = "nat"
server = [{ name = "s1", address = "10.0.3.20:9000" }]
[director.bulk6]
bind = "[fd98::3]:90/tcp"
mode = "nat"
server = [{ name = "s1", address = "[fd03::20]:9000" }]
"#;

#[test]
fn large_transfers_pass_as_super_packets_and_byte_for_byte() {
    const BYTES: usize = 40_000_000;
    let Some(world) = two_arms() else { return };
    let before = world.state();
    let forwarder = Forwarder::start(&world, &config(TWO_ARMS, BULK));
    transfer(&world, &[("s", "10.0.3.20"), ("s", "fd03::20")], "198.51.100.3:90", BYTES);
    let mut stream = world.inside("c", || TcpStream::connect("[fd98::3]:90").unwrap());
    let given = pattern(BYTES);
    stream.write_all(&given).unwrap();
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back).unwrap();
    assert!(back == given, "every byte comes back as it was sent");
    let stats = forwarder.stats();
    let count = |key: &str| stats["device"][key].as_u64().unwrap();
    assert_eq!(count("write_errors") + count("refused") + count("short_writes"), 0, "{stats:#}");
    let mean = count("bytes_read") / count("packets_read");
    assert!(mean > 2_000, "frames of {mean} bytes on average are no super-packets: {stats:#}");
    stop(forwarder, &world, &before);
}

#[test]
#[ignore = "a measurement: cargo test -p evenkeel-cli --release --test all ethernet -- --ignored --nocapture"]
fn rate_of_one_connection() {
    const BYTES: usize = 1_000_000_000;
    let Some(world) = two_arms() else { return };
    for io in ["auto", "epoll"] {
        let forwarder = Forwarder::start(&world, &config(TWO_ARMS, BULK).replace("auto", io));
        let servers: &[_] = if io == "auto" { &[("s", "10.0.3.20")] } else { &[] };
        let time = transfer(&world, servers, "198.51.100.3:90", BYTES).as_secs_f64();
        println!("{io}: {:.2} Gbit/s there and back", BYTES as f64 * 16.0 / time / 1e9);
        drop(forwarder);
    }
}

/// Sends frames from `from` and takes in what comes with their addresses at `to`.
fn frames_pass(world: &World, from: (&str, &'static str), to: (&str, &'static str), frames: &[Vec<u8>]) {
    let count = frames.len();
    let open = |link: &str| {
        let options = EthernetOptions { is_promiscuous: true, ..EthernetOptions::new(link) };
        KernelDevice::open(vec![Ethernet::open(&options).unwrap()], IoChoice::Epoll).unwrap()
    };
    let (ready, is_ready) = std::sync::mpsc::channel();
    let (seen, all) = std::sync::mpsc::channel();
    let head = frames[0][..12].to_vec();
    world.inside(to.0, move || {
        std::thread::spawn(move || {
            let mut device = open(to.1);
            ready.send(()).unwrap();
            let mut found = Vec::new();
            while found.len() < count {
                device.wait(Some(Duration::from_secs(60))).unwrap();
                for slot in 0..device.receive() {
                    let packet = device.packet(slot);
                    let frame = packet.buffer[packet.range].to_vec();
                    if frame[..12] == head {
                        found.push(frame);
                    }
                }
                device.flush();
            }
            seen.send(found).unwrap();
        });
    });
    is_ready.recv().unwrap();
    let sent = frames.to_vec();
    world.inside(from.0, move || {
        let mut device = open(from.1);
        for frame in &sent {
            assert!(device.send(InterfaceId(0), frame));
            device.flush();
        }
    });
    let found: Vec<Vec<u8>> = all.recv_timeout(Duration::from_secs(60)).expect("all frames pass");
    assert!(found == frames, "{found:x?}");
}

#[test]
fn between_two_segments_what_is_not_ours_passes_and_the_vip_is_balanced() {
    let Some(world) = World::on_segments(&[("left", &["c", "f"]), ("right", &["f", "s", "t"])]) else {
        return;
    };
    world.sh_in("c", "ip address add 10.0.3.10/24 dev left; ip address add fd03::10/64 dev left nodad");
    server_addresses(&world);
    forwards(&world, &[("left", "10.0.3.9", "fd03::9")]);
    let before = world.state();
    let ports = r#"
[interface.left]
kind = "ethernet"
pass_to = "right"
address = ["10.0.3.1/24", "fd03::1/64"]

[interface.right]
kind = "ethernet"
pass_to = "left"

[[route]]
to = "10.0.3.20/31"
interface = "right"
[[route]]
to = "fd03::20/127"
interface = "right"
"#;
    let mut forwarder = Forwarder::start(&world, &config(ports, &directors("10.0.3.3", "fd03::3")));
    // ARP, neighbour discovery and whatever else the kernels say to each other pass.
    assert_eq!(world.tcp_echo("10.0.3.20:8080", "hello"), ("10.0.3.20".to_owned(), "10.0.3.10".to_owned()));
    assert_eq!(world.tcp_echo("[fd03::21]:8080", "hello"), ("fd03::21".to_owned(), "fd03::10".to_owned()));
    assert_eq!(believed(&world, "10.0.3.20"), mac(&world, "s", "right"));
    assert_eq!(ping(&world, "fd03::20"), "fd03::20".parse::<IpAddr>().unwrap());
    let frame = |types: &[u8]| [&[2, 0, 0, 0, 0, 0x22, 2, 0, 0, 0, 0, 0x11], types, &[0x5a; 60]].concat();
    let kinds = [&[0x88, 0xb5][..], &[0x88, 0x47], &[0x81, 0x00, 0x00, 0x07, 0x88, 0xb5], &[0x00, 0x3c]];
    let frames: Vec<Vec<u8>> = kinds.iter().map(|kind| frame(kind)).collect();
    frames_pass(&world, ("c", "left"), ("t", "right"), &frames);
    frames_pass(&world, ("t", "right"), ("c", "left"), &frames);
    // The servers see the client, and their answers, which go to it directly, are taken on their way.
    assert_balanced(&world, "10.0.3.3", "10.0.3.10");
    assert_balanced(&world, "[fd03::3]", "fd03::10");
    assert_eq!(believed(&world, "10.0.3.3"), mac(&world, "f", "left"));
    let stats = forwarder.stats();
    assert!(stats["packets"]["passed"].as_u64().unwrap() > 20, "{stats:#}");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn a_tun_and_an_ethernet_interface_work_together() {
    let Some(world) = two_arms() else { return };
    // The clients' side is the kernel's, which routes the VIP to the TUN.
    world.forwarder_sh("ip address add 198.51.100.1/24 dev clients");
    let before = world.state();
    let interfaces = r#"
[interface.tun0]
kind = "tun"
address = ["10.99.0.1/24"]

[interface.servers]
kind = "ethernet"
address = ["10.0.3.1/24"]

[[route]]
to = "0.0.0.0/0"
interface = "tun0"
"#;
    let directors = directors("10.0.0.3", "fd98::3");
    let (v4, _) = directors.split_once("[director.web6]").unwrap();
    let mut forwarder = Forwarder::start(&world, &config(interfaces, v4));
    assert_balanced(&world, "10.0.0.3", "198.51.100.10");
    let text = config(interfaces, &format!("{v4}{}", BULK.split_once("[director.bulk6]").unwrap().0))
        .replace("198.51.100.3:90", "10.0.0.3:90");
    forwarder.write_config(&text);
    let output = forwarder.ctl(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    transfer(&world, &[("s", "10.0.3.20")], "10.0.0.3:90", 20_000_000);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn a_link_that_goes_down_and_comes_up_is_used_on_and_announced() {
    let Some(world) = two_arms() else { return };
    let mut forwarder = Forwarder::start(&world, &config(TWO_ARMS, &directors("198.51.100.3", "fd98::3")));
    let mut connection = world.tcp_connect("198.51.100.3:80");
    connection.echo("before");
    world.forwarder_sh("ip link set clients down");
    // Meanwhile the client has forgotten where the VIP is, and been told something wrong.
    world.sh_in("c", "ip neigh replace 198.51.100.3 lladdr 02:00:00:00:00:99 nud stale dev clients");
    world.forwarder_sh("ip link set clients up");
    forwarder.wait_for_log("the link is up");
    connection.echo("after");
    assert_eq!(believed(&world, "198.51.100.3"), mac(&world, "f", "clients"));
    let stats = forwarder.stats();
    assert_eq!(stats["device"]["links_down"], 1, "{stats:#}");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn a_mac_address_of_its_own_is_used_where_one_is_written() {
    let Some(world) = one_arm() else { return };
    have_vips(&world);
    let before = world.state();
    let text = ONE_ARM.replace("kind =", "mac = \"02:00:00:00:07:07\"\nkind =");
    let forwarder = Forwarder::start(&world, &config(&text, &gateway_mode()));
    world.tcp_echo("10.0.3.3:80", "hello");
    assert_eq!(believed(&world, "10.0.3.3"), "02:00:00:00:07:07");
    stop(forwarder, &world, &before);
}

#[test]
fn an_interface_that_is_down_is_brought_up_and_put_back() {
    let Some(world) = one_arm() else { return };
    have_vips(&world);
    world.forwarder_sh("ip link set lan down");
    let before = world.state();
    let forwarder = Forwarder::start(&world, &config(ONE_ARM, &gateway_mode()));
    world.tcp_echo("10.0.3.3:80", "hello");
    assert!(world.state().contains("iif lan blackhole"), "{}", world.state());
    stop(forwarder, &world, &before);
}

#[test]
fn what_a_reload_can_not_change_is_refused_and_the_rest_applies() {
    let Some(world) = one_arm() else { return };
    have_vips(&world);
    let text = config(ONE_ARM, &gateway_mode());
    let mut forwarder = Forwarder::start(&world, &text);
    for (changed, word) in [
        (
            text.replace("kind = \"ethernet\"", "kind = \"tun\""),
            "the interfaces change from lan to lan, lan-g1",
        ),
        (text.replace("kind =", "mac = \"02:00:00:00:00:07\"\nkind ="), "another MAC address"),
        // The engine would answer for an address that the kernel answers for already.
        (text.replace("10.0.3.1/24", "127.0.0.1/8"), "127.0.0.1"),
    ] {
        forwarder.write_config(&changed);
        let output = forwarder.ctl(&["reload"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(word), "{word}: {said}");
        world.tcp_echo("10.0.3.3:80", "still");
    }
    forwarder.write_config(&text.replace("scheduler = \"rr\"", "scheduler = \"sh\""));
    assert!(forwarder.ctl(&["reload"]).status.success());
    world.tcp_echo("10.0.3.3:80", "again");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

/// The exit code and the log of a forwarder that does not start.
fn refused(world: &World, text: &str) -> String {
    let mut forwarder = Forwarder::spawn(world, text);
    assert_eq!(forwarder.wait(), Some(1), "{}", forwarder.log());
    forwarder.log()
}

#[test]
fn what_keeps_a_forwarder_from_starting_is_told_with_what_to_do() {
    let Some(world) = one_arm() else { return };
    let text = config(ONE_ARM, &gateway_mode());
    let before = world.state();
    let said = refused(&world, &text.replace("interface.lan", "interface.lam"));
    assert!(said.contains("there is no interface lam"), "{said}");
    let said = refused(&world, &text.replace("interface.lan", "interface.lo"));
    assert!(said.contains("interface lo is no Ethernet") && said.contains("kind = \"tun\""), "{said}");
    let said = refused(&world, &text.replace("kind =", "mtu = 9000\nkind ="));
    assert!(said.contains("has an MTU of 1500, and 9000 are wanted of it"), "{said}");
    world.forwarder_sh("ip address add 10.0.3.1/24 dev lan");
    let said = refused(&world, &text);
    assert!(said.contains("interface lan: the address 10.0.3.1 is an address of this machine"), "{said}");
    world.forwarder_sh("ip address del 10.0.3.1/24 dev lan");
    assert_eq!(world.state(), before, "nothing is left of the attempts");
    let Ok(_) = Command::new("setpriv").arg("--version").output() else {
        eprintln!("SKIPPED: there is no program setpriv");
        return;
    };
    let path = world.folder.join("evenkeel.toml");
    std::fs::write(&path, &text).unwrap();
    let run = format!(
        "setpriv --bounding-set -net_raw {} run --config {} 2>&1 || true",
        env!("CARGO_BIN_EXE_evenkeel"),
        path.display()
    );
    let said = world.forwarder_sh(&run);
    assert!(said.contains("CAP_NET_RAW") && said.contains("setcap cap_net_admin,cap_net_raw+ep"), "{said}");
}

#[test]
fn setup_by_hand_needs_what_evenkeel_routes_prints() {
    let Some(world) = one_arm() else { return };
    have_vips(&world);
    let text = config(ONE_ARM, &gateway_mode()).replace("seed = 1", "seed = 1\nsetup = \"manual\"");
    world.forwarder_sh("ip link set lan down");
    let mut forwarder = Forwarder::start(&world, &text);
    assert!(forwarder.log().contains("missing: ip link set dev lan up"), "{}", forwarder.log());
    let script = forwarder.routes(&world);
    assert!(!script.contains("tuntap"), "{script}");
    world.forwarder_sh(&script);
    world.tcp_echo("10.0.3.3:80", "hello");
    assert_kernel_is_quiet(&world);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn the_mac_address_is_the_interfaces_own() {
    let Some(world) = one_arm() else { return };
    let own = world.inside("f", || Ethernet::open(&EthernetOptions::new("lan")).unwrap().mac());
    assert_eq!(own.to_string(), mac(&world, "f", "lan"));
    assert_ne!(own, MacAddress::UNSPECIFIED);
}
