//! Hosts talk to each other without a forwarder: what they send arrives, survives a bad link, and is counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::{back_to_back, run_native, scenario};
use evenkeel_sim::scenario::{Stack, SynPlan};
use evenkeel_sim::{Cause, Options, Outcome, Queue, Scenario, run};

const BIG: &str = "request = { size = \"3kB\" }\nresponse = { size = \"40kB\" }\nrounds = 3";
const BAD_LINK: &str = "loss = 0.02\ndelay = \"1ms\"\njitter = \"2ms\"\nrate = \"100Mbit\"";

#[test]
fn flows_of_both_protocols_complete() {
    for protocol in ["tcp", "udp"] {
        let outcome = run_native(&back_to_back(protocol, 500, "rounds = 2", ""), Options::default());
        assert_eq!(outcome.flows.completed, 500, "{}", outcome.to_text());
        assert_eq!((outcome.flows.broken, outcome.flows.unfinished), (0, 0));
        assert_eq!((outcome.packets.retransmitted, outcome.packets.stray), (0, 0));
        assert_eq!(outcome.packets.sent, outcome.packets.received);
    }
}

#[test]
fn a_udp_flow_takes_two_packets_a_round_and_a_short_tcp_flow_eight() {
    let outcome = run_native(&back_to_back("udp", 100, "rounds = 3", ""), Options::default());
    // Two more are ARP's: the client asks, the server answers, and knows the client from then on.
    assert_eq!(outcome.packets.sent, 602);
    // SYN, SYN-ACK, ACK, request, response, FIN with the acknowledgement, FIN, ACK; the handshake's ACK
    // carries the request.
    let outcome = run_native(&back_to_back("tcp", 100, "", ""), Options::default());
    assert_eq!(outcome.packets.sent, 702, "{}", outcome.to_text());
}

#[test]
fn tcp_survives_loss_reordering_and_a_narrow_link() {
    for seed in 1..=10 {
        let outcome = run_native(
            &back_to_back("tcp", 50, BIG, BAD_LINK),
            Options { seed: Some(seed), ..Options::default() },
        );
        assert_eq!(outcome.flows.completed, 50, "seed {seed}\n{}", outcome.to_text());
        assert!(outcome.packets.retransmitted > 0 && outcome.packets.lost() > 0);
        assert!(outcome.packets.is_conserved());
    }
}

#[test]
fn udp_clients_ask_again_and_give_up_at_last() {
    let lossy = back_to_back("udp", 300, "", "loss = 0.1");
    let outcome = run_native(&lossy, Options::default());
    assert!(outcome.flows.completed >= 295 && outcome.packets.retransmitted > 30, "{}", outcome.to_text());
    // The client's questions for the server's station fit, and nothing else does.
    let narrow = back_to_back("udp", 10, "request = { size = \"200B\" }", "mtu = 68");
    let outcome = run_native(&narrow, Options::default());
    assert_eq!(outcome.flows.causes.get(Cause::TimedOut.key()), Some(&10), "{}", outcome.to_text());
    assert_eq!(outcome.packets.retransmitted, 30);
}

#[test]
fn a_client_whose_neighbour_is_silent_is_told_so_by_its_own_machine() {
    let dead = back_to_back("udp", 10, "", "loss = 1.0");
    let outcome = run_native(&dead, Options::default());
    assert_eq!(outcome.flows.causes.get(Cause::Unreachable.key()), Some(&10), "{}", outcome.to_text());
}

#[test]
fn nobody_at_the_port_is_told_apart_from_nobody_at_all() {
    let text = |to: &str| {
        format!(
            r#"
scenario = {{ name = "closed", duration = "300s" }}
segment.lan.subnet = "10.0.0.0/24"
host.client.attach = [{{ segment = "lan", address = "10.0.0.1/24" }}]
host.other.attach = [{{ segment = "lan", address = "10.0.0.2/24" }}]
load.ask = {{ from = "client", to = "{to}", arrivals = {{ process = "uniform", rate = "10/s" }}, flows = 5 }}
load.other = {{ from = "other", to = "10.0.0.1:9/udp", arrivals = {{ process = "uniform", rate = "10/s" }}, flows = 1 }}
"#
        )
    };
    // 10.0.0.9 is nobody; a load to it makes nobody listen.
    let outcome = run_native(&scenario(&text("10.0.0.9:80/tcp")), Options::default());
    assert_eq!(outcome.flows.causes.get(Cause::TimedOut.key()), Some(&5), "{}", outcome.to_text());
    assert_eq!(outcome.packets.dropped_by_kernels.get("neighbour_failed"), Some(&35));
}

#[test]
fn equal_seeds_give_equal_runs_and_other_seeds_other_ones() {
    let scenario = back_to_back("tcp", 50, BIG, BAD_LINK);
    let run = |seed, queue| {
        run(&scenario, Vec::new(), Options { seed: Some(seed), queue, ..Options::default() }).unwrap()
    };
    let first = run(1, Queue::Wheel);
    assert_eq!(first, run(1, Queue::Wheel));
    assert_eq!(first, run(1, Queue::Heap), "the queue has no influence");
    assert_ne!(first.wire_hash, run(2, Queue::Wheel).wire_hash);
}

#[test]
fn a_further_host_moves_nobody_elses_draws() {
    let with = |extra: &str| {
        let text = format!(
            r#"
scenario = {{ name = "draws", duration = "300s" }}
segment.lan.subnet = "10.0.0.0/24"
host.client = {{ count = 2, attach = [{{ segment = "lan", address = "10.0.0.10+i/24" }}] }}
host.server.attach = [{{ segment = "lan", address = "10.0.0.200/24" }}]
link.bad = {{ ends = ["*", "lan"], loss = 0.01, jitter = "100us" }}
load.ask = {{ from = "client*", to = "10.0.0.200:80/tcp", arrivals = {{ process = "poisson", rate = "100/s" }}, flows = 200 }}
{extra}
"#
        );
        run_native(&scenario(&text), Options::default())
    };
    let alone = with("");
    let joined = with("host.a-newcomer.attach = [{ segment = \"lan\", address = \"10.0.0.7/24\" }]");
    assert_eq!(alone.decision_hash, joined.decision_hash);
    // It hears the questions of the others, which go to everybody.
    assert_eq!(alone.packets.sent, joined.packets.sent);
    assert_eq!(alone.packets.retransmitted, joined.packets.retransmitted);
    assert_eq!(alone.elapsed_ns, joined.elapsed_ns);
}

#[test]
fn a_closed_loop_keeps_its_number_of_flows_open() {
    let text = r#"
scenario = { name = "closed-loop", duration = "300s" }
segment.lan.subnet = "10.0.0.0/24"
host.client = { count = 10, attach = [{ segment = "lan", address = "10.0.0.10+i/24" }] }
host.server.attach = [{ segment = "lan", address = "10.0.0.200/24" }]
load.ask = { from = "client*", to = "10.0.0.200:80/udp", arrivals = { process = "closed", outstanding = 80 }, duration = "10ms" }
"#;
    let outcome = run_native(&scenario(text), Options::default());
    // A round trip takes four hops of 10 us: 80 flows every 41 us or so for 10 ms.
    assert!((18_000..20_000).contains(&outcome.flows.completed), "{}", outcome.to_text());
    assert_eq!(outcome.flows.completed, outcome.flows.started);
}

#[test]
fn a_run_ends_at_its_duration_and_counts_what_is_open() {
    let mut scenario = back_to_back("tcp", 1000, "", "");
    scenario.duration = std::time::Duration::from_secs(1);
    let outcome = run_native(&scenario, Options::default());
    assert_eq!(outcome.elapsed_ns, 1_000_000_000);
    assert!(outcome.flows.started < 200);
    let flows = &outcome.flows;
    assert_eq!(flows.started, flows.completed + flows.broken + flows.unfinished);
}

/// The same with smoltcp on the client, on the server or on both.
fn with_smoltcp(mut scenario: Scenario, hosts: &[&str]) -> Scenario {
    for host in &mut scenario.hosts {
        if hosts.contains(&host.name.as_str()) {
            host.stack = Stack::Smoltcp;
        }
    }
    scenario
}

#[test]
fn hosts_with_smoltcp_do_what_hosts_with_our_own_tcp_do() {
    for hosts in [&["client"][..], &["server"], &["client", "server"]] {
        let quiet = with_smoltcp(back_to_back("tcp", 60, BIG, ""), hosts);
        let outcome = run_native(&quiet, Options::default());
        assert_eq!(outcome.flows.completed, 60, "{hosts:?}\n{}", outcome.to_text());
        assert_eq!((outcome.packets.retransmitted, outcome.packets.stray), (0, 0), "{hosts:?}");
        let noisy = with_smoltcp(back_to_back("tcp", 30, BIG, BAD_LINK), hosts);
        let run = |seed, queue| run_native(&noisy, Options { seed: Some(seed), queue, ..Options::default() });
        let outcome = run(1, Queue::Wheel);
        assert_eq!(outcome.flows.completed, 30, "{hosts:?}\n{}", outcome.to_text());
        assert!(outcome.packets.retransmitted > 0 && outcome.packets.is_conserved(), "{hosts:?}");
        assert_eq!(outcome, run(1, Queue::Heap), "{hosts:?}");
        assert_ne!(outcome.wire_hash, run(2, Queue::Wheel).wire_hash);
    }
}

#[test]
fn deadlines_and_closed_ports_end_flows_of_smoltcp_as_of_our_own() {
    let late = "deadline = \"500ms\"";
    for hosts in [&[][..], &["client", "server"]] {
        let dead = with_smoltcp(back_to_back("tcp", 5, late, "loss = 1.0"), hosts);
        let outcome = run_native(&dead, Options::default());
        assert_eq!(outcome.flows.causes.get("deadline"), Some(&5), "{hosts:?}\n{}", outcome.to_text());
        let mut closed = with_smoltcp(back_to_back("tcp", 5, "", ""), hosts);
        // The client itself has the address, and nothing listens there.
        closed.loads[0].service.address = "10.0.0.9".parse().unwrap();
        closed.duration = std::time::Duration::from_secs(300);
        let outcome = run_native(&closed, Options::default());
        assert_eq!(outcome.flows.causes.get("timed_out"), Some(&5), "{hosts:?}\n{}", outcome.to_text());
    }
}

/// So many connections at once over a way of 100 ms, to a server that keeps eight that are half open; then as many again.
fn burst(outstanding: u32, change: impl Fn(&mut SynPlan)) -> Outcome {
    let flows = outstanding * 2;
    let text = format!(
        r#"
scenario = {{ name = "burst", duration = "300s" }}
segment.lan.subnet = "10.0.0.0/24"
host.client = {{ count = 4, attach = [{{ segment = "lan", address = "10.0.0.10+i/24" }}] }}
host.server = {{ attach = [{{ segment = "lan", address = "10.0.0.200/24" }}], syn_backlog = 8 }}
link.far = {{ ends = ["*", "lan"], delay = "25ms" }}
load.ask = {{ from = "client*", to = "10.0.0.200:80/tcp", arrivals = {{ process = "closed", outstanding = {outstanding} }}, flows = {flows}, response = {{ size = "1kB" }} }}
"#
    );
    let mut scenario = scenario(&text);
    for host in &mut scenario.hosts {
        change(&mut host.syn);
    }
    run_native(&scenario, Options::default())
}

#[test]
fn connections_beyond_the_backlog_come_about_by_cookies() {
    let outcome = burst(200, |_| ());
    assert_eq!(outcome.flows.completed, 400, "{}", outcome.to_text());
    let counts = outcome.hosts.iter().find(|host| host.name == "server").unwrap().counts;
    assert!(counts.cookies_sent >= 192, "{counts:?}");
    assert_eq!((counts.cookies_taken, counts.refused), (counts.cookies_sent, 0));
    assert_eq!(outcome.packets.retransmitted, 0, "nobody waits: {}", outcome.to_text());
}

#[test]
fn without_cookies_connections_beyond_the_backlog_wait_and_come_again() {
    let outcome = burst(24, |syn| syn.cookies = false);
    assert_eq!(outcome.flows.completed, 48, "{}", outcome.to_text());
    let counts = outcome.hosts.iter().find(|host| host.name == "server").unwrap().counts;
    assert!(counts.refused >= 16 && counts.cookies_sent == 0, "{counts:?}");
    assert_eq!(outcome.packets.retransmitted, counts.refused, "{}", outcome.to_text());
    assert!(outcome.elapsed_ns > 1_000_000_000, "a SYN comes again after a second");
}
