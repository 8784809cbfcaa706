//! The language against its plainest cases; that it agrees with the native rules is tested by the plugin host.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use core::net::Ipv4Addr;

use alloc::string::String;
use evenkeel_plugin_sdk::Flow as Asked;
use evenkeel_plugin_sdk::kit::{PolicyKit, flow_from, message};

use super::*;

fn kit(data: &str) -> PolicyKit<FlowManager> {
    PolicyKit::with_data("", data).unwrap()
}

fn from(source: [u8; 4], port: u16) -> Asked {
    Asked { destination_port: port, ..flow_from(Ipv4Addr::from(source), 0) }
}

#[test]
fn flows_and_rules_are_asked_in_order() {
    let text = "# rules\nflow ssh permit\n ignore not src 192.168.0.0/255.255.255.0\n match proto tcp dstport 22\n\
                flow off\n match\nflow web director web match proto tcp dstport 80,8000:8010 match proto udp\n\
                flow by-table table 200\n match proto tcp dstport 443 comment \"the # other way\"\n\
                director web 10.0.0.3:80 TCP\n balance leastconn\nflow rest deny\n match\n";
    let mut kit = kit(text);
    let flows = [
        from([192, 168, 0, 7], 22),
        from([192, 168, 1, 7], 22),
        from([192, 168, 1, 7], 8_005),
        from([192, 168, 1, 7], 443),
    ];
    use Verdict::{Deny, Director, Permit, Table};
    assert_eq!(kit.decide(&flows), [Permit, Deny, Director(0), Table(0)]);
}

#[test]
fn sets_flags_code_points_and_limits_mean_what_they_say() {
    let text = "flow a permit\n match src @office proto tcp tcpflags syn/syn,ack dstport @web dscp ef,af41\n\
                flow b deny\n match limit 2/s per src\nset office 192.0.2.0/25 198.51.100.7\nset web 80 443\n";
    let mut kit = kit(text);
    let plain = Arrival::from(from([192, 0, 2, 1], 443));
    let marked = Arrival { dscp: 34, ..plain };
    assert_eq!(kit.arrive(&marked).verdict, Verdict::Permit);
    let answer = Arrival { tcp_flags: 0x12, ..marked };
    let told: Vec<_> = [plain, answer, plain, plain].iter().map(|it| kit.arrive(it).verdict).collect();
    assert_eq!(told, [Verdict::Deny, Verdict::Deny, Verdict::Skip, Verdict::Skip]);
}

#[test]
fn outflows_are_decided_where_that_is_asked_for() {
    let data = "flow rest deny\n match\noutflow back table 200\n match iface tun1\n";
    let mut kit = PolicyKit::<FlowManager>::with_data("way = \"out\"", data).unwrap();
    let flow = Arrival::from(from([192, 0, 2, 1], 80));
    assert_eq!(kit.arrive(&flow).verdict, Verdict::Skip);
    assert_eq!(kit.arrive(&Arrival { interface: 1, ..flow }).verdict, Verdict::Table(0));
}

#[test]
fn every_mistake_is_told_with_its_line() {
    for (text, reason) in [
        ("flow a permit\n match\nflwo b", "data, line 3: `flwo` begins no rule: write `match` or `ignore`"),
        ("rule", "data, line 1: `rule` begins nothing"),
        ("flow", "data, line 1: something is missing behind `flow`"),
        ("flow a-name-of-more-than-27-characters deny match", "is not a name: 1 to 27 letters"),
        ("flow a deny match\nflow a deny match", "line 2: `a` is there twice"),
        ("flow a deny", "line 1: `a` has no rule"),
        ("flow a director x match", "`x` is no director"),
        ("outflow a director web match", "`director` can not be the policy"),
        ("flow a table 7 match", "`7` is no routing table"),
        ("flow a deny match dstport 80", "`dstport` needs a `proto` that has it"),
        ("flow a deny match proto udp icmptype 8", "`icmptype` needs"),
        ("flow a deny match proto tcp dstport 9:8", "`9:8` is not a port"),
        ("flow a deny match src 10.0.0.0/33", "`10.0.0.0/33` is not a network"),
        ("flow a deny match src @x", "`@x` is no set"),
        ("flow a deny match iface eth9", "`eth9` is no interface"),
        ("flow a deny match limit 9/d", "`9/d` is not a limit"),
        ("flow a deny match src 10.0.0.1 src 10.0.0.2", "`src` stands twice"),
        ("outflow a deny match dscp ef", "`dscp` can not stand in an outflow"),
        ("set a file x.txt", "names a file"),
    ] {
        let error = PolicyKit::<FlowManager>::with_data("", text).unwrap_err();
        assert!(message(&error).contains(reason), "{text}: {}", message(&error));
    }
    let mut state = 1_u64;
    let garbage: String = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'\t' + u8::try_from(state >> 57).unwrap() % 118)
        })
        .collect();
    assert!(PolicyKit::<FlowManager>::with_data("", &garbage).is_err());
}
