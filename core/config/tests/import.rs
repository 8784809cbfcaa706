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
    let (toml, found) = import(system, text, "text", None).unwrap_or_else(|found| panic!("{found}"));
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
    let wrong = import(System::Aloha, "flow ssh permit\n  mtach\n", "text", None).unwrap_err();
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
    assert!(import(System::Ipvsadm, "hello\n", "text", None).is_err());
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
        let extra = service["extra"].as_array().into_iter().flatten();
        let extra: String = extra.map(|word| format!(" {}", word.as_str().unwrap())).collect();
        writeln!(save, "-A {kind} {place} -s {scheduler}{extra}{flags}").unwrap();
        let servers = service["dests"].as_array().unwrap();
        for server in servers {
            let (last, weight) = (&server[0], &server[1]);
            let bound = server.get(3).map(|most| format!(" -x {most}")).unwrap_or_default();
            writeln!(save, "-a {kind} {place} -r 10.0.3.{last}:80 -m -w {weight}{bound}").unwrap();
        }
        services.push((scheduler.to_owned(), servers.len()));
    }
    assert!(services.len() > 10, "{services:?}");
    let (plan, found) = run(System::Ipvsadm, &save);
    assert!(found.is_empty(), "{found}");
    let kept: Vec<_> = plan.directors.iter().map(|one| (one.scheduler_name(), one.servers.len())).collect();
    assert_eq!(kept, services);
    let exported = evenkeel_config::export::ipvsadm(&plan);
    assert_eq!((exported.text, exported.not_kept), (save, vec![]));
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
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_imported_or_refused(text in "\\PC{0,80}", words in prop::collection::vec(prop::sample::select(vec![
        "-A", "-a", "-t", "-u", "-f", "-r", "10.9.9.9:80", "[fd00::1]:1", "-s", "rr", "-p", "-w", "7", "-b", "-i", "--tun-port", "\n",
        "virtual_server", "{", "}", "real_server", "weight", "group", "fwmark", "protocol", "TCP", "!", "10.0.0.1", "80",
        "\nbackend", "\nfrontend", "\nlisten", "b", "\nserver", "10.0.0.2:80", "\nbind", "*:80,10.0.0.1:81", "\ndefault_backend",
        "\nstick on src\nstick-table type ip expire 1m", "size", "99g", "-p", "-M", "99999999",
    ]), 0..40)) {
        for text in [text, words.join(" ")] {
            for system in [System::Aloha, System::Ipvsadm, System::Keepalived, System::Haproxy] {
                if let Ok((toml, _)) = import(system, &text, "text", None) {
                    prop_assert!(parse(&toml, "imported.toml").is_ok(), "{text}\n{toml}\n{}", parse(&toml, "imported.toml").unwrap_err());
                }
            }
        }
    }

    /// What IPVS has, comes back as it was.
    #[test]
    fn an_export_says_what_was_imported(services in prop::collection::vec(saved_service(), 1..6)) {
        let mut known = std::collections::BTreeSet::new();
        let text: String = services
            .iter()
            .filter(|(target, _)| known.insert(target.clone()))
            .map(|(_, text)| text.as_str())
            .collect();
        let (toml, found) = import(System::Ipvsadm, &text, "text", None).unwrap();
        let not_kept = notes(&found).into_iter().filter(|(_, words)| !words.contains("what sets the mark"));
        prop_assert_eq!(not_kept.collect::<Vec<_>>(), vec![], "{}", text);
        let plan = parse(&toml, "imported.toml").unwrap().plan;
        let exported = evenkeel_config::export::ipvsadm(&plan);
        prop_assert_eq!(exported.not_kept, Vec::<String>::new(), "{}", text);
        prop_assert_eq!(exported.text, text);
    }
}

/// A service as `ipvsadm --save --numeric` prints it, and whom it is about.
fn saved_service() -> impl Strategy<Value = (String, String)> {
    let target = prop_oneof![
        (1_u8..5, 1_u16..4).prop_map(|(host, port)| format!("-t 10.9.9.{host}:{port}")),
        (1_u8..5, 1_u16..4).prop_map(|(host, port)| format!("-u 10.9.9.{host}:{port}")),
        (1_u32..9).prop_map(|mark| format!("-f {mark}")),
    ];
    let scheduler = prop::sample::select(vec![
        "rr",
        "wlc",
        "lblcr",
        "sh",
        "sh -b sh-fallback",
        "mh -b mh-fallback,mh-port",
        "sh -b sh-port",
        "twos",
    ]);
    let sticks = prop::sample::select(vec!["", " -p 300", " -p 60 -M 255.255.255.0"]);
    let way = prop::sample::select(vec![
        ("-m", ""),
        ("-g", ""),
        ("-i", ""),
        ("-i", " --tun-type gre --tun-csum"),
        ("-i", " --tun-type gue --tun-port 6080 --tun-nocsum"),
    ]);
    let servers = prop::collection::btree_map(1_u8..250, (0_u32..65_536, 1_u16..9), 0..5);
    (target, scheduler, sticks, way, servers).prop_map(
        |(target, scheduler, sticks, (way, tunnel), servers)| {
            let port = target.rsplit_once(':').map_or("0", |(_, port)| port);
            let (scheduler, flags) =
                scheduler.split_once(' ').map_or((scheduler, ""), |(name, flags)| (name, flags));
            let flags = if flags.is_empty() { String::new() } else { format!(" {flags}") };
            let mut text = format!("-A {target} -s {scheduler}{sticks}{flags}\n");
            for (host, (weight, own)) in servers {
                let own = if way == "-m" && port != "0" { own.to_string() } else { port.to_owned() };
                text.push_str(&format!("-a {target} -r 10.0.3.{host}:{own} {way} -w {weight}{tunnel}\n"));
            }
            (target, text)
        },
    )
}

/// The file of the walk through HAProxy, with addresses where it has placeholders; `peers` is whom its table names.
fn haproxy(peers: &str) -> String {
    format!(
        "\
global
    maxconn     50000                     #maximum connections
defaults
    mode                    tcp                 #the mode of transport protocol
    option                  dontlognull
    timeout client          60m
    timeout server          50m
frontend stats                  #name of the frontend
    bind *:8080
    mode http
    stats enable
frontend haproxy_frontend
    bind *:80,10.0.0.9:8000-8010
    default_backend haproxy_backend
    option tcplog
backend haproxy_backend
    mode tcp
    balance source
    hash-type consistent
    stick-table type ip size 20k expire 8h peers {peers}
    stick on src
    server one 10.0.3.20:80 check port 80 maxconn 5000
    server two 10.0.3.21:80 check port 80 weight 3
    server three 10.0.3.22:80 backup
    server four web.example:80
backend nobody
    server one 10.0.3.20:80
peers hapeers
    peer a 10.0.0.1:1024
"
    )
}

#[test]
fn the_connections_of_haproxy_are_kept() {
    let text = haproxy("haproxy-cluster");
    let any = Some([10, 0, 0, 3].into());
    let (toml, found) = import(System::Haproxy, &text, "text", any).unwrap();
    let plan = parse(&toml, "imported.toml").unwrap_or_else(|found| panic!("{found}\n{toml}")).plan;
    Engine::new(plan.clone(), Guests::default(), Instant::ZERO).unwrap();
    let [director] = plan.directors.as_slice() else { panic!("{toml}") };
    let binds: Vec<String> = director.binds.iter().map(ToString::to_string).collect();
    assert_eq!(
        (director.name.as_str(), binds),
        ("haproxy_backend", vec!["10.0.0.3:80/tcp".into(), "10.0.0.9:8000-8010/tcp".into()])
    );
    assert_eq!(director.scheduler_name(), "source");
    assert!(toml.contains("hash_type = \"consistent\""), "{toml}");
    assert_eq!(director.persistence.unwrap().timeout.as_secs(), 8 * 3600);
    assert_eq!((plan.limits.persistent_max, plan.timeouts.tcp_established.as_secs()), (20_480, 3_000));
    let servers: Vec<_> =
        director.servers.iter().map(|one| (one.name.as_str(), one.weight, one.flows_upper)).collect();
    assert_eq!(servers, [("one", 1, 5000), ("two", 3, 0)]);
    let told = found.to_string();
    for words in [
        "there is no section `peers haproxy-cluster`",
        "did you mean `hapeers`?",
        "`stats` leads to no server",
        "`option dontlognull` is not kept",
        "the checks of `one` are not kept",
        "clients do not wait",
        "`backup` is not kept",
        "`web.example:80` is no IP address",
        "no `default_backend` leads to `nobody`",
        "the section `global` is passed over",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let (_, found) = import(System::Haproxy, &haproxy("hapeers"), "text", any).unwrap();
    assert!(!found.to_string().contains("no section"), "{found}");
    // Without an address for `*` the director has the others, and the text says what is missing.
    let (_, found) = import(System::Haproxy, &text, "text", None).unwrap();
    assert!(found.to_string().contains("say with `--address`"), "{found}");
}

#[test]
fn the_agents_of_haproxy_are_asked_here_too() {
    let text = "\
backend web
    server one 10.0.3.20:80 weight 100 agent-check agent-port 8888 agent-inter 5s agent-send \"web\\n\"
    server two 10.0.3.21:80 agent-check agent-inter 5s agent-port 9999 agent-send web\\n
    server three 10.0.3.22:80
    server four 10.0.3.23:80 agent-check agent-port 8888 agent-inter 1s
    server five 10.0.3.24:80 agent-check agent-port 8888 no-agent-check
    server six 10.0.3.25:80 agent-check agent-port 8888 agent-addr 10.0.3.9 agent-send \"a b\" agent-inter 5s
frontend f
    bind 10.0.0.3:80
    default_backend web
";
    let (toml, found) = import(System::Haproxy, text, "text", None).unwrap();
    let plan = parse(&toml, "imported.toml").unwrap_or_else(|found| panic!("{found}\n{toml}")).plan;
    let director = &plan.directors[0];
    let agents = director.agent_check.clone().unwrap();
    let seconds = std::time::Duration::from_secs(5);
    assert_eq!((agents.port, agents.interval, agents.timeout), (8888, seconds, seconds), "{toml}");
    assert_eq!(agents.send, "web\n");
    let ports: Vec<_> = director.servers.iter().map(|server| server.agent_port).collect();
    assert_eq!(ports, [None, Some(9999), Some(0), None, Some(0), None], "{toml}");
    let told = found.to_string();
    for words in ["another `agent-inter` or `agent-send`", "`agent-addr` is not kept", "its end is not here"]
    {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert!(!told.contains("checks of"), "{told}");
}

/// The walk through HAProxy as it was published: its parts in turn, and its whole at the end.
#[test]
fn the_published_walk_through_haproxy_is_kept() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/seeds/004_1261ee53062a733a.txt");
    let Ok(page) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: {path} is not here");
        return;
    };
    let blocks: Vec<&str> =
        page.split("```yaml").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    let (whole, parts) = blocks.split_last().unwrap();
    for (text, is_wrong) in [(parts.concat(), true), ((*whole).to_owned(), false)] {
        // Placeholders of names and addresses.
        let text = text.replace("<backend server name1>", "one").replace("<backend server name2>", "two");
        let text = text
            .replace("<IP of backend server1>", "10.0.3.20")
            .replace("<IP of backend server2>", "10.0.3.21");
        let (toml, found) = import(System::Haproxy, &text, "text", Some([10, 0, 0, 3].into())).unwrap();
        let plan = parse(&toml, "imported.toml").unwrap_or_else(|found| panic!("{found}\n{toml}")).plan;
        Engine::new(plan.clone(), Guests::default(), Instant::ZERO).unwrap();
        let [director] = plan.directors.as_slice() else { panic!("{toml}") };
        assert_eq!((director.name.as_str(), director.servers.len()), ("haproxy_backend", 2));
        assert_eq!(director.scheduler_name(), "source");
        assert_eq!(director.persistence.unwrap().timeout.as_secs(), 8 * 3600);
        assert_eq!(found.to_string().contains("did you mean `hapeers`?"), is_wrong, "{found}");
    }
}

#[test]
fn what_ipvs_has_no_words_for_is_told_when_it_is_exported() {
    let toml = "\
[interface.tun0]
kind = \"tun\"
address = [\"10.99.0.1/24\"]
[director.web]
bind = [\"10.0.0.3:80/tcp\", \"10.0.0.0/24:81/tcp\", \"[fd00::3]:*\"]
mode = \"tunnel\"
scheduler = \"p2c\"
persistence = { timeout = \"1500ms\", netmask6 = 64 }
server = [{ name = \"s1\", address = \"10.0.3.20\", weight = 2, max_flows = 9, min_flows = 3 }]
[[flow]]
name = \"all\"
policy = \"permit\"
rule = [{ match = {} }]
";
    let exported = evenkeel_config::export::ipvsadm(&parse(toml, "evenkeel.toml").unwrap().plan);
    let server = "-r 10.0.3.20:80 -i -w 2 -x 9 -y 3\n";
    let any = server.replace(":80", ":0");
    let text = format!(
        "-A -t 10.0.0.3:80 -s wlc -p 2\n-a -t 10.0.0.3:80 {server}-A -t [fd00::3]:0 -s wlc -p 2 -M 64\n\
         -a -t [fd00::3]:0 {any}-A -u [fd00::3]:0 -s wlc -p 2 -M 64\n-a -u [fd00::3]:0 {any}"
    );
    assert_eq!(exported.text, text);
    let told = exported.not_kept.join("\n");
    for words in ["1 flows", "10.0.0.0/24:81/tcp", "`p2c`, is none of IPVS", "several services"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(exported.not_kept.len(), 4, "{told}");
}
