//! IPv6, and the ways to a real server other than NAT, between real network namespaces.
//!
//! ```text
//! client 198.51.100.10 -- forwarder -- 10.0.3.20 and .21 real servers
//!        fd98::10                      fd03::20 and ::21
//!        192.0.2.1 ------------------- 192.0.2.2, for answers that go to the client directly
//! ```
//!
//! Needs root, `ip` and /dev/net/tun. Where those are missing each test says so and passes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

use crate::world::{Forwarder, World};
use serde_json::Value;

const HEAD: &str = r#"
[forwarder]
control = "run/evenkeel.sock"
seed = 1

[interface.tun0]
kind = "tun"
address = ["10.99.0.1/24", "fd99::1/64"]
"#;

const V6: &str = r#"
[director.web]
bind = "[fd00::3]:80/tcp"
mode = "nat"
scheduler = "rr"
[[director.web.server]]
name = "s1"
address = "[fd03::20]:8080"
[[director.web.server]]
name = "s2"
address = "[fd03::21]:8080"

[director.echo]
bind = "[fd00:1::]/64:53/udp"
mode = "nat"
scheduler = "rr"
[[director.echo.server]]
name = "s1"
address = "[fd03::20]:5353"
"#;

const DIRECT: &str = r#"
[director.web]
bind = "10.0.0.3:80/tcp"
mode = "MODE"
scheduler = "rr"
[[director.web.server]]
name = "s1"
address = "10.0.3.20"

[director.echo]
bind = "10.0.0.3:53/udp"
mode = "MODE"
scheduler = "rr"
[[director.echo.server]]
name = "s1"
address = "10.0.3.20"
"#;

/// What the director's only real server has got, and what has come back from it.
fn packets(stats: &Value, director: usize) -> (u64, u64) {
    let server = &stats["directors"][director]["servers"][0];
    (server["packets_to"].as_u64().unwrap(), server["packets_from"].as_u64().unwrap())
}

fn stop(mut forwarder: Forwarder, world: &World, before: &str) {
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn ipv6_passes_and_real_servers_see_the_client() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let forwarder = Forwarder::start(&world, &format!("{HEAD}{V6}"));
    let mut seen = Vec::new();
    for number in 0..2 {
        let (server, peer) = world.tcp_echo("[fd00::3]:80", &format!("hello {number}"));
        assert_eq!(peer, "fd98::10");
        seen.push(server);
    }
    seen.sort();
    assert_eq!(seen, ["fd03::20", "fd03::21"], "they take turns");
    // Every address of the network is a VIP.
    for vip in ["[fd00:1::1]:53", "[fd00:1::ffff:1]:53"] {
        assert_eq!(world.udp_echo(vip, "ask").1, "fd98::10");
    }
    let stats = forwarder.stats();
    assert_eq!(stats["flows"]["opened"], 4, "{stats:#}");
    assert_eq!(stats["directors"][1]["binds"][0], "[fd00:1::]/64:53/udp", "{stats:#}");
    stop(forwarder, &world, &before);
}

#[test]
fn ipv6_with_source_nat_passes_and_real_servers_see_the_forwarder() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let nat = V6.replace("mode = \"nat\"", "mode = \"nat\"\nsnat = { address = \"fd99::7\" }");
    let forwarder = Forwarder::start(&world, &format!("{HEAD}{nat}"));
    assert_eq!(world.tcp_echo("[fd00::3]:80", "hello").1, "fd99::7");
    assert_eq!(world.udp_echo("[fd00:1::5]:53", "ask").1, "fd99::7");
    stop(forwarder, &world, &before);
}

#[test]
fn neighbour_discovery_is_answered_for_services_in_networks_of_the_machine() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("ip -6 neigh add proxy fd98::9 dev clients");
    let before = world.state();
    let near = V6
        .replace("fd00::3", "fd98::3")
        .replace("[fd00:1::]/64", "[fd98::1:0]/125")
        .replace("mode = \"nat\"", "mode = \"nat\"\nsnat = { address = \"fd03::7\" }");
    let forwarder = Forwarder::start(&world, &format!("{HEAD}{near}"));
    let state = world.state();
    for expected in ["fd98::3 dev clients proxy", "fd98::1:7 dev clients proxy", "fd03::7 dev servers proxy"]
    {
        assert!(state.contains(expected), "{expected}: {state}");
    }
    assert_eq!(world.tcp_echo("[fd98::3]:80", "hello").1, "fd03::7");
    // Every address of a small network is answered for.
    for vip in ["[fd98::1:0]:53", "[fd98::1:7]:53"] {
        assert_eq!(world.udp_echo(vip, "ask").1, "fd03::7");
    }
    assert!(!forwarder.log().contains("nobody answers"), "{}", forwarder.log());
    stop(forwarder, &world, &before);
}

#[test]
fn a_network_of_vips_that_is_too_large_to_be_answered_for_is_told() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let large = V6.replace("[fd00:1::]/64", "[fd98::1:0]/112");
    let forwarder = Forwarder::start(&world, &format!("{HEAD}{large}"));
    let sentence = "director echo: the VIP fd98::1:0/112 is a part of the network on clients";
    assert!(forwarder.log().contains(sentence), "{}", forwarder.log());
    assert!(forwarder.routes(&world).contains(&format!("# {sentence}")), "{}", forwarder.routes(&world));
    stop(forwarder, &world, &before);
}

#[test]
fn in_gateway_mode_answers_go_to_the_client_directly() {
    let Some(world) = World::new() else { return };
    world.answer_directly_as("10.0.0.3");
    world.serve("10.0.0.3", 80, 53);
    let before = world.state();
    let forwarder = Forwarder::start(&world, &format!("{HEAD}{}", DIRECT.replace("MODE", "gateway")));
    assert!(world.state().contains("tun0-g1"), "{}", world.state());
    let answer = ("10.0.0.3".to_owned(), "198.51.100.10".to_owned());
    assert_eq!(world.tcp_echo("10.0.0.3:80", "hello"), answer);
    assert_eq!(world.udp_echo("10.0.0.3:53", "ask"), answer);
    let stats = forwarder.stats();
    let (to, from) = packets(&stats, 0);
    assert!(to >= 3 && from == 0, "answers do not come by: {stats:#}");
    assert_eq!(packets(&stats, 1), (1, 0), "{stats:#}");
    assert!(forwarder.routes(&world).contains("ip route add default via 10.0.3.20 table 7901"));
    stop(forwarder, &world, &before);
}

#[test]
fn in_a_tunnel_packets_reach_the_real_server_unchanged() {
    // The number of the outer packet's protocol, and what stands behind its IP header.
    for (encapsulation, protocol, shim) in [("ipip", 4, 0), ("gre", 47, 4), ("gue", 17, 12)] {
        let Some(world) = World::new() else { return };
        world.answer_directly_as("10.0.0.3");
        world.end_tunnel(protocol, shim);
        world.serve("10.0.0.3", 80, 53);
        let before = world.state();
        let mode = format!("tunnel\"\ntunnel = {{ encapsulation = \"{encapsulation}\" }} #");
        let config = DIRECT.replace("MODE\"", &mode);
        let forwarder = Forwarder::start(&world, &format!("{HEAD}{config}"));
        assert!(forwarder.log().contains("without offloads"), "{}", forwarder.log());
        let answer = ("10.0.0.3".to_owned(), "198.51.100.10".to_owned());
        assert_eq!(world.tcp_echo("10.0.0.3:80", "hello"), answer);
        // More than fits: the client is told, or the packet is cut.
        let long = "x".repeat(4000);
        let mut connection = world.tcp_connect("10.0.0.3:80");
        assert_eq!(connection.echo(&long), answer);
        assert_eq!(world.udp_echo("10.0.0.3:53", "ask"), answer);
        let stats = forwarder.stats();
        let (to, from) = packets(&stats, 0);
        assert!(to >= 6 && from == 0, "{stats:#}");
        stop(forwarder, &world, &before);
    }
}
