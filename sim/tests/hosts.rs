//! Hosts talk to each other without a forwarder: what they send arrives, survives a bad link, and is counted.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use evenkeel_sim::{Cause, Options, Queue, run};
use support::{back_to_back, run_native, scenario};

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
