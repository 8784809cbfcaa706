//! Configurations of other systems become ours, and what is not kept is said.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "tests"
)]

use std::fmt::Write;

use evenkeel_config::import::{System, import};
use evenkeel_config::{Code, Diagnostics, Plan, parse};
use evenkeel_engine::plan::{Mode, PolicyPlan};
use evenkeel_engine::{Engine, Guests, Instant};
use proptest::prelude::*;

/// Imports, checks and starts.
fn run(system: System, text: &str) -> (Plan, Diagnostics) {
    let (toml, found) = import(system, text, "text").unwrap_or_else(|found| panic!("{found}"));
    let plan = parse(&toml, "imported.toml").unwrap_or_else(|found| panic!("{found}\n{toml}")).plan;
    Engine::new(plan.clone(), Guests::default(), Instant::ZERO)
        .unwrap_or_else(|error| panic!("{error}\n{toml}"));
    (plan, found)
}

/// The places and words of what is not kept.
fn notes(found: &Diagnostics) -> Vec<(usize, &str)> {
    found.iter().map(|one| (one.place().map_or(0, |(start, _)| start.line), one.message())).collect()
}

const ALOHA: &str = "\
flow ssh permit
  ignore not src 192.168.0.0/24
  match proto tcp dst 192.168.0.1 dstport 22
flow dns permit
  match proto udp dst 192.168.0.1 dstport 53
flow ping permit
  match proto icmp dst 192.168.0.1 icmptype 0
  ignore not src 192.168.0.0/24
  match proto icmp dst 192.168.0.1
flow mail director maildirect
  match proto tcp dst 192.168.0.2 dstport 110
  match proto tcp dst 192.168.0.2 dstport 143
  match proto tcp dst 192.168.0.2 dstport 25
service network eth1
  ip address 192.168.161.10/255.255.255.0
  ip route default 192.168.161.1 table 200
outflow return-eth1 table 200 match proto tcp src 192.168.161.0/24 srcport 80
flow alltherest deny
  match
director maildirect
  balance leastconn
  mode nat
  server mail1 192.168.161.20 weight 10 check
director exchange 10.0.0.9:443 TCP
  balance roundrobin
  mode gateway
  check interval 10 timeout 2
  option tcpcheck
  server ex1 10.0.0.13:443 weight 10 check
  server ex2 10.0.0.14:443 weight 10 check
director web 10.0.0.3:8000 UDP
  balance leastconn
  mode nat
  server web1 10.0.0.20:8000 weight 10 check
";

#[test]
fn the_flows_and_directors_of_aloha_are_kept() {
    let (plan, found) = run(System::Aloha, ALOHA);
    let [PolicyPlan::Rules(flows)] = plan.policies.as_slice() else { panic!("{:?}", plan.policies) };
    let names: Vec<_> = flows.iter().map(|flow| (flow.name.as_str(), flow.rules.len())).collect();
    assert_eq!(names, [("ssh", 2), ("dns", 1), ("ping", 3), ("mail", 3), ("alltherest", 1)]);
    assert_eq!((plan.outflows.len(), plan.tables[0].id), (1, 200));
    assert!(plan.handling.routes_replies);
    let directors: Vec<_> = plan.directors.iter().map(|one| (one.name.as_str(), one.servers.len())).collect();
    assert_eq!(directors, [("maildirect", 1), ("exchange", 2), ("web", 1)]);
    assert_eq!(plan.directors[1].mode, Mode::Gateway);
    assert!(found.iter().all(|one| one.code() == Code::NotKept));
    assert_eq!(notes(&found).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [23, 27, 28, 29, 30, 34]);
    let wrong = import(System::Aloha, "flow ssh permit\n  mtach\n", "text").unwrap_err();
    assert!(wrong.has_errors());
}

const IPVS: &str = "\
-A -t 10.9.9.9:80 -s mh -p 120 -M 255.255.255.0 -b mh-fallback,mh-port
-a -t 10.9.9.9:80 -r 10.0.3.20:80 -i -w 5 --tun-type gue --tun-port 6080 --tun-csum
-a -t 10.9.9.9:80 -r 10.0.3.21:80 -m -w 5
-A -f 7 -s wlc
-a -f 7 -r 10.0.3.22:0 -g -w 1
-A -t [fd00::9]:443 -s rr
-a -t [fd00::9]:443 -r [fd00::20]:8443 -m -w 0
-A -u 10.9.9.9:53 -s sed pe sip ops
-a -u 10.9.9.9:53 -r 10.0.3.23:5353 -g -w 3 -x 100 -y 80
-A --sctp-service 10.9.9.9:9 -s rr
-a --sctp-service 10.9.9.9:9 -r 10.0.3.24:9 -m -w 1
";

#[test]
fn the_services_of_ipvs_are_kept() {
    let (plan, found) = run(System::Ipvsadm, IPVS);
    let names: Vec<_> = plan.directors.iter().map(|one| (one.name.as_str(), one.servers.len())).collect();
    assert_eq!(names, [("tcp-10-9-9-9-80", 1), ("fwm-7", 1), ("tcp-fd00--9-443", 1), ("udp-10-9-9-9-53", 1)]);
    let [mh, fwm, six, dns] = plan.directors.as_slice() else { panic!("{:?}", plan.directors) };
    let persistence = mh.persistence.unwrap();
    assert_eq!((persistence.timeout.as_secs(), persistence.length_v4), (120, 24));
    assert!(matches!(&mh.mode, Mode::Tunnel { .. }) && fwm.binds.is_empty() && fwm.mode == Mode::Gateway);
    assert_eq!((six.servers[0].port, six.servers[0].weight), (8443, 0));
    assert!(dns.is_one_packet);
    assert_eq!((dns.servers[0].port, dns.servers[0].flows_upper, dns.servers[0].flows_lower), (0, 100, 80));
    let lines: Vec<_> = notes(&found).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [3, 4, 8, 10], "{found}");
    assert!(import(System::Ipvsadm, "hello\n", "text").is_err());
}

/// Every service of the recording, as `ipvsadm -S -n` prints it.
#[test]
fn each_service_of_the_recording_is_kept() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/goldens/ipvs_scheduling.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: {path} is not here");
        return;
    };
    let recorded: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut save = String::new();
    let mut services = Vec::new();
    for (number, service) in recorded.values().enumerate() {
        let Some(scheduler) = service["sched"].as_str() else { continue };
        let kind = if service["proto"] == "UDP" { "-u" } else { "-t" };
        let place = format!("10.9.{}.{}:80", number / 250, number % 250 + 1);
        let flags = service["flags"].as_str().map(|flags| format!(" -b {flags}")).unwrap_or_default();
        writeln!(save, "-A {kind} {place} -s {scheduler}{flags}").unwrap();
        let servers = service["dests"].as_array().unwrap();
        for server in servers {
            let (last, weight) = (&server[0], &server[1]);
            writeln!(save, "-a {kind} {place} -r 10.0.3.{last}:80 -m -w {weight}").unwrap();
        }
        services.push((scheduler.to_owned(), servers.len()));
    }
    assert!(services.len() > 10, "{services:?}");
    let (plan, found) = run(System::Ipvsadm, &save);
    assert!(found.is_empty(), "{found}");
    let kept: Vec<_> = plan.directors.iter().map(|one| (one.scheduler_name(), one.servers.len())).collect();
    assert_eq!(kept, services);
}

trait Named {
    fn scheduler_name(&self) -> String;
}

impl Named for evenkeel_engine::plan::DirectorPlan {
    fn scheduler_name(&self) -> String {
        let tuned = self.scheduler.native().unwrap();
        tuned.kind.name().to_owned()
    }
}

const KEEPALIVED: &str = "\
global_defs {
  router_id LB1
}
! what is balanced
virtual_server 10.9.9.9 80 {
  delay_loop 6
  lb_algo wrr
  lb_kind DR
  persistence_timeout 50
  persistence_granularity 255.255.255.0
  protocol TCP
  sorry_server 10.0.3.99 80
  real_server 10.0.3.20 80 {
    weight 3
    uthreshold 100
    TCP_CHECK {
      connect_timeout 3
    }
  }
  real_server 10.0.3.21 80 { weight 1 }
}
virtual_server_group two {
  10.9.9.10 53
  10.9.9.11 53
}
virtual_server group two {
  lvs_sched sh
  lvs_method NAT
  sh-port
  protocol UDP
  real_server fd00::20 53 {
  }
  real_server 10.0.3.22 5353 {
    weight 2
  }
}
virtual_server fwmark 3 {
  lvs_sched mh
  lvs_method TUN type gre
  real_server 10.0.3.23 80 {
  }
}
vrrp_instance VI_1 {
  state MASTER
}
";

#[test]
fn the_virtual_servers_of_keepalived_are_kept() {
    let text = KEEPALIVED.replace("  real_server fd00::20 53 {\n  }\n", "");
    let (plan, found) = run(System::Keepalived, &text);
    let names: Vec<_> = plan.directors.iter().map(|one| (one.name.as_str(), one.servers.len())).collect();
    assert_eq!(names, [("tcp-10-9-9-9-80", 2), ("two", 1), ("fwm-3", 1)]);
    assert_eq!((plan.directors[0].servers[0].weight, plan.directors[0].servers[0].flows_upper), (3, 100));
    assert_eq!(plan.directors[1].binds.len(), 2);
    assert!(matches!(plan.directors[2].mode, Mode::Tunnel { .. }));
    let words: Vec<_> = notes(&found).into_iter().map(|(_, words)| words.to_owned()).collect();
    for word in
        ["`global_defs`", "`delay_loop`", "`sorry_server`", "`TCP_CHECK`", "mark 3", "`vrrp_instance`"]
    {
        assert!(words.iter().any(|words| words.contains(word)), "{word} in {words:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_imported_or_refused(text in "\\PC{0,80}", words in prop::collection::vec(prop::sample::select(vec![
        "-A", "-a", "-t", "-u", "-f", "-r", "10.9.9.9:80", "[fd00::1]:1", "-s", "rr", "-p", "-w", "7", "-b", "-i", "--tun-port", "\n",
        "virtual_server", "{", "}", "real_server", "weight", "group", "fwmark", "protocol", "TCP", "!", "10.0.0.1", "80",
    ]), 0..40)) {
        for text in [text, words.join(" ")] {
            for system in [System::Aloha, System::Ipvsadm, System::Keepalived] {
                let _ = import(system, &text, "text");
            }
        }
    }
}
