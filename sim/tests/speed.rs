//! How fast the simulator is: prints figures, asserts nothing but that the runs are right. Run with
//! `cargo test --release -p evenkeel-sim --test speed -- --ignored --nocapture`.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::cast_precision_loss, reason = "a measurement")]

mod support;

use evenkeel_sim::{Options, Outcome, Queue, run};
use support::{native_equipment, scenario};

const TOPOLOGY: &str = r#"
scenario = { name = "speed", duration = "1h" }
segment.clients.subnet = "198.51.100.0/24"
segment.servers.subnet = "10.0.3.0/24"
host.client = { count = 10, attach = [{ segment = "clients", address = "198.51.100.10+i/24" }], gateway = "198.51.100.1" }
host.server = { count = 3, attach = [{ segment = "servers", address = "10.0.3.20+i/24" }], gateway = "10.0.3.1" }
[forwarder.lb]
attach = [{ segment = "clients", address = "198.51.100.1/24" }, { segment = "servers", address = "10.0.3.1/24" }]
config = "demo-evenkeel.toml"
"#;

/// Time that this thread has spent on a processor, so that neighbours on the machine do not count.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9
}

fn measure(name: &str, load: &str, queue: Queue) {
    let scenario = scenario(&format!("{TOPOLOGY}\n{load}"));
    let equipment = native_equipment(&scenario, 1);
    let begin = cpu_seconds();
    let outcome: Outcome =
        run(&scenario, equipment, Options { queue, is_unchecked: true, ..Options::default() }).unwrap();
    let seconds = cpu_seconds() - begin;
    assert_eq!(outcome.flows.broken, 0, "{}", outcome.to_text());
    let hosts: u64 = outcome.hosts.iter().map(|host| host.counts.received).sum();
    let rate = |count: u64| count as f64 / seconds / 1e6;
    println!(
        "{name} {queue:?}: {seconds:.2} CPU s; {:.2} M end-to-end packets/s, {:.3} M flows/s, {:.2} M events/s",
        rate(hosts),
        rate(outcome.flows.completed),
        rate(outcome.events),
    );
}

#[test]
#[ignore = "a measurement: run it alone and optimised"]
fn packets_and_connections_a_second() {
    for queue in [Queue::Wheel, Queue::Heap] {
        let closed = "arrivals = { process = \"closed\", outstanding = 80 }";
        measure(
            "udp 64 B, 80 outstanding, 1000 rounds",
            &format!(
                "[load.udp]\nfrom = \"client*\"\nto = \"10.0.0.3:53/udp\"\n{closed}\nflows = 1000\nrounds = 1000"
            ),
            queue,
        );
        measure(
            "tcp 1 kB -> 10 kB",
            &format!(
                "[load.tcp]\nfrom = \"client*\"\nto = \"10.0.0.3:80/tcp\"\n{closed}\nflows = 50000\nrequest = {{ size = \"1kB\" }}\nresponse = {{ size = \"10kB\" }}"
            ),
            queue,
        );
    }
}
