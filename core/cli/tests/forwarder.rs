//! The real forwarder between real network namespaces: packets, control socket, reload, and what it leaves.
//!
//! ```text
//! client 198.51.100.10 -- 198.51.100.1 forwarder 10.0.3.1 -- 10.0.3.20 and .21 real servers
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

const NAT: &str = r#"
[forwarder]
control = "run/evenkeel.sock"
io = "IO"
seed = 1

[interface.tun0]
kind = "tun"
address = ["10.99.0.1/24"]

[director.web]
bind = "10.0.0.3:80/tcp"
mode = "nat"
scheduler = "rr"
[[director.web.server]]
name = "s1"
address = "10.0.3.20:8080"
[[director.web.server]]
name = "s2"
address = "10.0.3.21:8080"

[director.echo]
bind = "10.0.0.3:53/udp"
mode = "nat"
scheduler = "rr"
[[director.echo.server]]
name = "s1"
address = "10.0.3.20:5353"
"#;

/// The same with source NAT for both directors.
fn full_nat() -> String {
    let nat = NAT.replace("IO", "auto");
    nat.replace("mode = \"nat\"", "mode = \"nat\"\nsnat = { address = \"10.99.0.7\" }")
}

/// The same with the VIP in the clients' network and the address of source NAT in the real servers'.
fn in_networks() -> String {
    full_nat().replace("10.0.0.3", "198.51.100.3").replace("10.99.0.7", "10.0.3.7")
}

#[test]
fn tcp_and_udp_pass_and_nothing_is_left_behind() {
    for io in ["auto", "epoll"] {
        let Some(world) = World::new() else { return };
        let before = world.state();
        let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", io));
        assert_ne!(world.state(), before, "nothing was set up");

        let mut last = String::new();
        for number in 0..4 {
            let (server, peer) = world.tcp_echo("10.0.0.3:80", &format!("hello {number}"));
            assert_ne!(server, last, "they take turns");
            assert_eq!(peer, "198.51.100.10", "the real server sees the client");
            last = server;
        }
        assert_eq!(world.udp_echo("10.0.0.3:53", "ask").1, "198.51.100.10");

        let stats = forwarder.stats();
        assert_eq!(stats["flows"]["opened"], 5, "{stats:#}");
        // The kernel looks for IPv6 routers and groups on a new interface.
        let drops: Vec<&String> = stats["drops"].as_object().unwrap().keys().collect();
        assert!(drops.iter().all(|reason| *reason == "icmp_unhandled"), "{stats:#}");
        assert_eq!(stats["directors"][0]["servers"][1]["flows"], 2, "{stats:#}");
        if io == "epoll" {
            assert_eq!(stats["io"], "epoll");
        }
        assert!(stats["device"]["packets_read"].as_u64().unwrap() > 20, "{stats:#}");

        forwarder.terminate();
        assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
        assert_eq!(world.state(), before);
        assert!(!forwarder.socket().exists());
    }
}

#[test]
fn with_source_nat_the_real_server_sees_the_forwarder() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let mut forwarder = Forwarder::start(&world, &full_nat());
    assert_eq!(world.tcp_echo("10.0.0.3:80", "hello").1, "10.99.0.7");
    assert_eq!(world.udp_echo("10.0.0.3:53", "ask").1, "10.99.0.7");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn strict_reverse_path_filters_do_not_stop_it() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("sysctl -qw net.ipv4.conf.all.rp_filter=1");
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    world.tcp_echo("10.0.0.3:80", "hello");
    world.udp_echo("10.0.0.3:53", "ask");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn a_broken_configuration_leaves_the_old_plan_and_open_connections_alone() {
    let Some(world) = World::new() else { return };
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    let mut connection = world.tcp_connect("10.0.0.3:80");
    connection.echo("before");
    let state = world.state();

    let broken = [
        (NAT.replace("weight", "x").replace("\"rr\"", "\"fastest\""), "fastest"),
        (NAT.replace("10.0.0.3:53/udp", "10.0.0.3:80/tcp"), "10.0.0.3:80/tcp"),
        (NAT.replace("tun0", "tun9"), "tun9"),
        ("this is not TOML".to_owned(), "TOML"),
        (String::from("\u{0}"), "evenkeel.toml"),
        // The VIP is the machine's own address: packets would never reach the forwarder.
        (NAT.replace("10.0.0.3:80", "10.0.3.1:80"), "ip address del 10.0.3.1/24"),
    ];
    for (text, expected) in broken {
        forwarder.write_config(&text.replace("IO", "auto"));
        let output = forwarder.ctl(&["reload"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{expected}: {error}");
        assert!(error.contains(expected), "{expected}: {error}");
        connection.echo("between");
        assert_eq!(world.state(), state, "{expected}");
    }
    world.tcp_echo("10.0.0.3:80", "still");
    assert_eq!(forwarder.stats()["generation"], 1);
    forwarder.hang_up();
    forwarder.wait_for_log("not reloaded");
    connection.echo("after");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn a_reload_applies_the_difference_and_keeps_connections() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let config = NAT.replace("IO", "auto");
    let mut forwarder = Forwarder::start(&world, &config);
    let first = world.state();
    let mut connection = world.tcp_connect("10.0.0.3:80");
    connection.echo("before");

    let more = config.clone()
        + r#"
[director.late]
bind = "10.0.0.9:80/tcp"
mode = "nat"
scheduler = "rr"
[[director.late.server]]
name = "s2"
address = "10.0.3.21:8080"
"#;
    forwarder.write_config(&more);
    let output = forwarder.ctl(&["reload", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["generation"], 2);
    assert_eq!(world.tcp_echo("10.0.0.9:80", "new").0, "10.0.3.21");
    connection.echo("between");
    assert!(world.state().contains("10.0.0.9 dev tun0"), "{}", world.state());

    forwarder.write_config(&config);
    forwarder.hang_up();
    forwarder.wait_for_log("reloaded");
    connection.echo("after");
    assert_eq!(world.state(), first);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn a_weight_of_zero_drains_a_server() {
    let Some(world) = World::new() else { return };
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    let output = forwarder.ctl(&["weight", "web", "s1", "0"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for _ in 0..3 {
        assert_eq!(world.tcp_echo("10.0.0.3:80", "hello").0, "10.0.3.21");
    }
    let output = forwarder.ctl(&["weight", "web", "s9", "1"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no real server s9"));
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn printed_commands_make_what_the_forwarder_makes() {
    let Some(world) = World::new() else { return };
    let Some(by_hand) = World::new() else { return };
    for config in [NAT.replace("IO", "auto"), full_nat(), in_networks()] {
        let mut forwarder = Forwarder::start(&world, &config);
        let script = forwarder.routes(&world);
        by_hand.forwarder_sh("ip tuntap add dev tun0 mode tun");
        by_hand.forwarder_sh(&script);
        // Nobody has opened this TUN, so it has no carrier.
        assert_eq!(by_hand.state().replace(" linkdown", ""), world.state().replace(" linkdown", ""));
        forwarder.terminate();
        assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
        by_hand.forwarder_sh("ip link del tun0; ip rule flush; ip rule add priority 32766 lookup main");
        by_hand.forwarder_sh("ip rule add priority 32767 lookup default; ip neigh flush proxy");
    }
}

#[test]
fn neighbours_find_services_in_their_own_network() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("ip neigh add proxy 198.51.100.9 dev clients");
    world.forwarder_sh("sysctl -qw net.ipv4.ip_forward=1");
    let before = world.state();
    let mut forwarder = Forwarder::start(&world, &in_networks());
    let state = world.state();
    assert!(state.contains("198.51.100.3 dev clients proxy"), "{state}");
    assert!(state.contains("10.0.3.7 dev servers proxy"), "{state}");
    assert_eq!(world.tcp_echo("198.51.100.3:80", "hello").1, "10.0.3.7");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn neighbours_find_every_address_of_a_small_network_of_vips() {
    let Some(world) = World::new() else { return };
    let before = world.state();
    let mut forwarder =
        Forwarder::start(&world, &in_networks().replace("198.51.100.3:80", "198.51.100.64/29:80"));
    for vip in ["198.51.100.64:80", "198.51.100.71:80"] {
        assert_eq!(world.tcp_echo(vip, "hello").1, "10.0.3.7");
    }
    assert!(!world.state().contains("198.51.100.72 dev clients proxy"), "{}", world.state());
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn what_was_there_already_stays() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("ip rule add priority 1000 iif tun0 lookup main");
    world.forwarder_sh("sysctl -qw net.ipv4.ip_forward=1");
    let before = world.state();
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    world.tcp_echo("10.0.0.3:80", "hello");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn what_a_killed_forwarder_left_is_taken_over_and_removed() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("sysctl -qw net.ipv4.ip_forward=1");
    let before = world.state();
    let mut killed = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    killed.kill();
    assert_ne!(world.state(), before, "the kernel removes the rules by itself");
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    world.tcp_echo("10.0.0.3:80", "hello");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn a_failed_start_leaves_nothing_behind() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("ip route add 10.0.0.3/32 via 10.0.3.20");
    let before = world.state();
    let mut forwarder = Forwarder::spawn(&world, &NAT.replace("IO", "auto"));
    assert_eq!(forwarder.wait(), Some(1), "{}", forwarder.log());
    assert!(forwarder.log().contains("10.0.0.3/32 leads to"), "{}", forwarder.log());
    assert_eq!(world.state(), before);
    assert!(!forwarder.socket().exists());
}

#[test]
fn manual_setup_changes_nothing_and_says_what_is_missing() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("ip tuntap add dev tun0 mode tun; ip link set tun0 up");
    let before = world.state();
    let config = NAT.replace("IO", "auto").replace("seed = 1", "seed = 1\nsetup = \"manual\"");
    let mut forwarder = Forwarder::start(&world, &config);
    let log = forwarder.log();
    assert!(log.contains("missing: ip route add 10.0.0.3/32 dev tun0"), "{log}");
    assert!(log.contains("missing: ip rule add priority 1001 from 10.0.3.20 ipproto tcp"), "{log}");
    assert_eq!(world.state().replace(" linkdown", ""), before.replace(" linkdown", ""));
    world.forwarder_sh(&forwarder.routes(&world));
    world.tcp_echo("10.0.0.3:80", "hello");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert!(world.state().contains("10.0.0.3 dev tun0"), "what the operator made stays");
}

#[test]
fn a_second_forwarder_with_the_same_socket_is_refused() {
    let Some(world) = World::new() else { return };
    let mut first = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    let state = world.state();
    let mut second = first.spawn_again(&world);
    assert_eq!(second.wait(), Some(1), "{}", second.log());
    assert!(second.log().contains("another evenkeel"), "{}", second.log());
    assert_eq!(world.state(), state);
    world.tcp_echo("10.0.0.3:80", "hello");
    first.terminate();
    assert_eq!(first.wait(), Some(0), "{}", first.log());
}

#[test]
fn the_forwarder_ends_with_an_error_when_its_interface_is_deleted() {
    let Some(world) = World::new() else { return };
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    world.forwarder_sh("ip link del tun0");
    assert_eq!(forwarder.wait(), Some(1), "{}", forwarder.log());
    assert!(forwarder.log().contains("tun0"), "{}", forwarder.log());
    assert!(!world.state().contains("lookup 7790"), "{}", world.state());
    assert!(!forwarder.socket().exists());
}

#[test]
fn without_rights_it_says_what_it_needs_in_one_sentence() {
    use std::os::unix::process::CommandExt;

    let Some(world) = World::new() else { return };
    let path = world.folder.join("evenkeel.toml");
    std::fs::write(&path, NAT.replace("IO", "auto")).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    // Nobody, to whom /dev/net/tun may be open, but not to make an interface.
    let output = command.args(["run", "--config"]).arg(path).uid(65_534).gid(65_534).output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: the binary lies where nobody else may run it");
        return;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap();
    assert!(last.starts_with("evenkeel: ") && last.contains("run as root"), "{errors}");
}

#[test]
fn an_mtu_that_a_reload_changed_is_put_back() {
    let Some(world) = World::new() else { return };
    world.forwarder_sh("ip tuntap add dev tun0 mode tun");
    let before = world.state();
    assert!(before.contains("tun0: 1500"), "{before}");
    let config = NAT.replace("IO", "auto");
    let mut forwarder = Forwarder::start(&world, &config);
    forwarder.write_config(&config.replace("kind = \"tun\"", "kind = \"tun\"\nmtu = 1400"));
    let output = forwarder.ctl(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(world.state().contains("tun0: 1400"), "{}", world.state());
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert_eq!(world.state(), before);
}

#[test]
fn a_component_that_fails_loses_no_connection_and_is_named_in_events_and_stats() {
    for kind in ["trap", "missing", "loop", "memory"] {
        let Some(world) = World::new() else { return };
        let component = format!(
            "{{ component = \"bundled:misbehave\", fallback = \"rr\", options = {{ kind = \"{kind}\" }} }}"
        );
        let config = NAT.replace("IO", "auto").replacen("\"rr\"", &component, 1);
        let mut forwarder = Forwarder::start(&world, &config);
        for number in 0..6 {
            world.tcp_echo("10.0.0.3:80", &format!("hello {number}"));
        }
        let stats = forwarder.stats();
        let guest = &stats["directors"][0]["guest"];
        assert!(guest["faults"].as_u64().unwrap() > 0, "{kind}: {guest}");
        assert!(guest["fallbacks"].as_u64().unwrap() > 0, "{kind}: {guest}");
        let output = forwarder.ctl(&["events"]);
        let events = String::from_utf8(output.stdout).unwrap();
        let fault = events.lines().find(|line| line.contains("guest_fault"));
        let fault = fault.unwrap_or_else(|| panic!("{kind}: {events}"));
        for word in ["web", "bundled:misbehave", "pick"] {
            assert!(fault.contains(word), "{kind}: {fault}");
        }
        assert!(forwarder.log().contains("a component failed"), "{kind}: {}", forwarder.log());
        forwarder.terminate();
        assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    }
}

#[test]
fn a_reload_swaps_the_component_under_an_open_connection() {
    let Some(world) = World::new() else { return };
    let with = |name: &str| {
        let component = format!("{{ component = \"bundled:{name}\", fallback = \"rr\" }}");
        NAT.replace("IO", "auto").replacen("\"rr\"", &component, 1)
    };
    let mut forwarder = Forwarder::start(&world, &with("round-robin"));
    let mut connection = world.tcp_connect("10.0.0.3:80");
    let first = connection.echo("before");
    forwarder.write_config(&with("least-connections"));
    let output = forwarder.ctl(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(connection.echo("after"), first);
    assert_eq!(forwarder.stats()["directors"][0]["scheduler"], "bundled:least-connections");
    world.tcp_echo("10.0.0.3:80", "new");

    // A component that is no scheduler is refused with its place, and the swap does not happen.
    forwarder.write_config(&with("rate-guard"));
    let output = forwarder.ctl(&["reload"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("evenkeel.toml:") && error.contains("bundled:rate-guard"), "{error}");
    assert_eq!(connection.echo("still"), first);
    assert_eq!(forwarder.stats()["generation"], 2);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

/// Runs `evenkeel ctl director web scheduler NAME`, which has to succeed.
fn change_scheduler(forwarder: &Forwarder, name: &str) {
    let output = forwarder.ctl(&["director", "web", "scheduler", name]);
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_schedules_a_running_director_beside_a_shadow_and_nothing_else_changes() {
    let Some(world) = World::new() else { return };
    let config = NAT.replace("IO", "auto").replacen("\"rr\"", "\"rr\"\nshadow = \"bundled:rr\"", 1);
    let mut forwarder = Forwarder::start(&world, &config);
    let mut connection = world.tcp_connect("10.0.0.3:80");
    let first = connection.echo("before");
    for number in 0..5 {
        world.tcp_echo("10.0.0.3:80", &format!("hello {number}"));
    }
    let shadow = &forwarder.stats()["directors"][0]["shadow"];
    assert_eq!(shadow["scheduler"], "bundled:rr");
    assert_eq!([&shadow["asked"], &shadow["agreed"], &shadow["unanswered"]], [6, 6, 0], "{shadow}");
    assert_eq!(shadow["imbalance_thousandths"], 1_000, "{shadow}");
    assert_eq!(shadow["imbalance_would_be_thousandths"], 1_000, "{shadow}");
    assert_eq!(shadow["guest"]["calls"].as_u64().map(|calls| calls >= 6), Some(true), "{shadow}");

    // By its name beside the configuration, and by its whole path.
    let component = evenkeel_plugins_bundled::component("maglev").unwrap();
    let file = forwarder.write_file("maglev.wasm", component);
    for name in ["maglev.wasm", file.to_str().unwrap()] {
        change_scheduler(&forwarder, name);
        let director = &forwarder.stats()["directors"][0];
        assert_eq!(director["scheduler"], name);
        assert_eq!(director["shadow"]["scheduler"], "bundled:rr", "who looks on stays");
        assert_eq!(connection.echo("after"), first);
        world.tcp_echo("10.0.0.3:80", "new");
    }
    let output = forwarder.ctl(&["director", "web", "scheduler", "absent.wasm"]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && error.contains("absent.wasm"), "{error}");
    assert_eq!(connection.echo("still"), first);
    assert_eq!(forwarder.stats()["scheduler_changes"], 2);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn a_scheduler_that_fails_on_trial_goes_and_the_one_before_it_is_back() {
    let Some(world) = World::new() else { return };
    let config = NAT.replace("IO", "auto");
    let mut forwarder = Forwarder::start(&world, &config);
    let mut connection = world.tcp_connect("10.0.0.3:80");
    let first = connection.echo("before");
    let failing =
        "{ component = \"bundled:misbehave\", fallback = \"rr\", options = { kind = \"missing\" } }";
    forwarder.write_config(&config.replacen("\"rr\"", failing, 1));
    let output = forwarder.ctl(&["reload"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(forwarder.stats()["directors"][0]["scheduler"], "bundled:misbehave");
    // Each connection is served, by the fallback where it has to be.
    for number in 0..24 {
        world.tcp_echo("10.0.0.3:80", &format!("hello {number}"));
    }
    assert_eq!(forwarder.stats()["directors"][0]["scheduler"], "rr");
    let output = forwarder.ctl(&["events"]);
    let events = String::from_utf8(output.stdout).unwrap();
    let back = events.lines().find(|line| line.contains("scheduler_rolled_back"));
    let back = back.unwrap_or_else(|| panic!("{events}"));
    assert!(back.contains("web") && back.contains("bundled:misbehave"), "{back}");
    assert_eq!(connection.echo("after"), first);
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
}

#[test]
fn a_crowd_at_the_control_socket_does_not_disturb_packets_or_the_stop() {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    let Some(world) = World::new() else { return };
    let mut forwarder = Forwarder::start(&world, &NAT.replace("IO", "auto"));
    let mut connection = world.tcp_connect("10.0.0.3:80");
    let mut crowd = Vec::new();
    for number in 0..200 {
        // Some are silent, some write garbage without end, some never read; most are sent away.
        let Ok(mut stream) = UnixStream::connect(forwarder.socket()) else { continue };
        let bytes: &[u8] = [&b""[..], &[0xff; 8192], b"stats\nstats\nstats\n", b"reload"][number % 4];
        let _ = stream.write_all(bytes);
        crowd.push(stream);
    }
    assert_eq!(connection.echo("during").1, "198.51.100.10");
    drop(crowd.split_off(8));
    // Those who left make room as soon as the forwarder has seen them go.
    let output = loop {
        let output = forwarder.ctl(&["stats"]);
        if !String::from_utf8_lossy(&output.stderr).contains("too many clients") {
            break output;
        }
    };
    assert!(String::from_utf8_lossy(&output.stdout).contains("plan 1,"), "no half line is a command");
    forwarder.terminate();
    assert_eq!(forwarder.wait(), Some(0), "{}", forwarder.log());
    assert!(!forwarder.socket().exists());
}
