//! Good files, and the plans that they are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use evenkeel_config::{ForwarderConfig, Io, Loaded, Plan, Setup, load, parse, parse_in};
use evenkeel_engine::InterfaceId;
use evenkeel_engine::forward::tunnel::Encapsulation;
use evenkeel_engine::plan::{
    ANY_PORT, AgentPlan, Binding, Builtin, Condition, FlowAction, FlowKey, GuestPlan, Handling, Layer,
    MidStream, Mode, OnFault, Options, Persistence, Ping, PolicyPlan, Prefix, SchedulerPlan, Setting,
    SlowStart, SourceNat, TableWeights, Test, Timeouts, Tuned,
};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::wire::ethernet::MacAddress;

const SERVER: &str = "server = [{ name = 's1', address = '10.0.3.20:80' }]\n";

fn loaded(text: &str) -> Loaded {
    parse(text, "evenkeel.toml").unwrap_or_else(|found| panic!("{found}"))
}

fn prefix(address: &str, length: u8) -> Prefix {
    Prefix { address: address.parse().unwrap(), length }
}

#[test]
fn the_smallest_file_has_the_defaults_of_the_engine() {
    let plan = loaded("[interface.tun0]\nkind = 'tun'\n").plan;
    let empty = Plan::empty();
    assert_eq!(plan.limits, empty.limits);
    assert_eq!(plan.timeouts, empty.timeouts);
    assert_eq!(plan.handling, empty.handling);
    assert!(plan.default_permit && plan.directors.is_empty() && plan.policies.is_empty());
    assert_eq!(
        (plan.interfaces.len(), plan.interfaces[0].layer, plan.interfaces[0].mtu_bytes),
        (1, Layer::Ip, 1500)
    );
}

#[test]
fn the_forwarder_has_its_defaults_when_nothing_is_written() {
    let forwarder = loaded("[interface.tun0]\nkind = 'tun'\n").forwarder;
    assert_eq!(forwarder, ForwarderConfig::default());
    assert_eq!(forwarder.control, Path::new("/run/evenkeel/evenkeel.sock"));
    assert_eq!((forwarder.setup, forwarder.io, forwarder.seed), (Setup::Auto, Io::Auto, None));
}

#[test]
fn what_is_written_of_the_forwarder_limits_and_timeouts_is_taken() {
    let loaded = loaded(
        "[forwarder]\nsetup = 'manual'\ncontrol = '/tmp/x.sock'\nio = 'io_uring'\nseed = 7\n\
         [limits]\nflows = 1000\nanswers_per_second = 0\n\
         [timeouts]\ntcp_established = '2h'\ntcp_syn_sent = '1s'\ntcp_syn_received = '2s'\ntcp_fin_wait = '3s'\n\
         tcp_time_wait = '4s'\ntcp_close = '500ms'\nudp = '5m'\n[interface.tun0]\nkind = 'tun'\n",
    );
    assert_eq!((loaded.forwarder.setup, loaded.forwarder.io), (Setup::Manual, Io::IoUring));
    assert_eq!(loaded.forwarder.control, Path::new("/tmp/x.sock"));
    assert_eq!((loaded.plan.limits.flows_max, loaded.plan.limits.answers_per_second), (1000, 0));
    let timeouts = loaded.plan.timeouts;
    let seconds = Duration::from_secs;
    assert_eq!(timeouts.tcp_established, seconds(7200));
    assert_eq!((timeouts.tcp_syn_sent, timeouts.tcp_syn_received), (seconds(1), seconds(2)));
    assert_eq!((timeouts.tcp_fin_wait, timeouts.tcp_time_wait), (seconds(3), seconds(4)));
    assert_eq!((timeouts.tcp_close, timeouts.udp), (Duration::from_millis(500), seconds(300)));
}

#[test]
fn interfaces_and_directors_keep_the_order_of_the_file() {
    let text = format!(
        "[interface.zz]\nkind = 'tun'\n[director.z]\nbind = '10.0.0.3:80/tcp'\n{SERVER}\
         [interface.aa]\nkind = 'ethernet'\nmac = '02:00:00:00:00:01'\naddress = ['10.0.3.1/24', '10.0.4.1/16']\n\
         [director.a]\nbind = '10.0.0.3:80/udp'\n{SERVER}\
         [[route]]\nto = '0.0.0.0/0'\nvia = '10.0.3.254'\ninterface = 'aa'\n"
    );
    let plan = loaded(&text).plan;
    let names: Vec<_> = plan.interfaces.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["zz", "aa"]);
    assert_eq!(plan.interfaces[1].layer, Layer::Ethernet(MacAddress([2, 0, 0, 0, 0, 1])));
    assert_eq!(plan.interfaces[1].addresses, [prefix("10.0.3.1", 24), prefix("10.0.4.1", 16)]);
    let names: Vec<_> =
        plan.directors.iter().map(|one| (one.name.as_str(), one.binds[0].protocol.unwrap())).collect();
    assert_eq!(names, [("z", Protocol::TCP), ("a", Protocol::UDP)]);
    let routes: Vec<_> =
        plan.routes.iter().map(|one| (one.destination, one.gateway, one.interface)).collect();
    let gateway = Some("10.0.3.254".parse().unwrap());
    let expected = [
        (prefix("0.0.0.0", 0), gateway, InterfaceId(1)),
        (prefix("10.0.3.0", 24), None, InterfaceId(1)),
        (prefix("10.0.0.0", 16), None, InterfaceId(1)),
    ];
    assert_eq!(routes, expected);
}

#[test]
fn one_interface_implies_a_default_route_after_the_written_ones() {
    let text = "[interface.tun0]\nkind = 'tun'\naddress = ['10.99.0.1/24']\n\
                [[route]]\nto = '10.1.0.0/16'\ninterface = 'tun0'\n";
    let routes: Vec<_> = loaded(text).plan.routes.iter().map(|route| route.destination).collect();
    let implied = [prefix("10.99.0.0", 24), prefix("0.0.0.0", 0), prefix("::", 0)];
    assert_eq!(routes, [vec![prefix("10.1.0.0", 16)], implied.to_vec()].concat());
    let text = format!("{text}[[route]]\nto = '0.0.0.0/0'\nvia = '10.99.0.2'\ninterface = 'tun0'\n");
    let plan = loaded(&text).plan;
    let defaults: Vec<_> =
        plan.routes.iter().filter(|route| route.destination == prefix("0.0.0.0", 0)).collect();
    assert_eq!(defaults.len(), 1);
    assert_eq!(defaults[0].gateway, Some("10.99.0.2".parse().unwrap()));
}

#[test]
fn a_director_is_what_is_written() {
    let plan = loaded(
        "[interface.tun0]\nkind = 'tun'\n\
         [director.web]\nbind = '10.0.0.3:80/tcp'\nmode = 'nat'\nscheduler = 'sh'\n\
         snat = { address = '10.0.0.3', ports = '2000-3000' }\n\
         [[director.web.server]]\nname = 's1'\naddress = '10.0.3.20:8080'\nweight = 0\n\
         [[director.web.server]]\nname = 's0'\naddress = '10.0.3.19:81'\nweight = 65535\n",
    )
    .plan;
    let director = &plan.directors[0];
    assert_eq!(director.binds, [Binding::of("10.0.0.3".parse().unwrap(), 80, Protocol::TCP)]);
    assert_eq!(director.scheduler, SchedulerPlan::Builtin(Builtin::SourceHashing));
    let Mode::Nat { sources } = &director.mode else { panic!("{:?}", director.mode) };
    let [source] = &sources[..] else { panic!("{sources:?}") };
    assert_eq!((source.address, source.ports.clone()), ("10.0.0.3".parse().unwrap(), 2000..=3000));
    let servers: Vec<_> =
        director.servers.iter().map(|one| (one.name.as_str(), one.port, one.weight)).collect();
    assert_eq!(servers, [("s1", 8080, 0), ("s0", 81, 65535)]);
}

/// The scheduler of a director whose file says this of it.
fn scheduler(text: &str) -> SchedulerPlan {
    director(&format!("bind = '10.0.0.3:80/tcp'\nscheduler = {text}\n{SERVER}")).scheduler
}

#[test]
fn every_built_in_scheduler_has_a_name_and_takes_its_options() {
    for kind in Builtin::ALL {
        assert_eq!(scheduler(&format!("'{}'", kind.name())), SchedulerPlan::Builtin(*kind));
        let plain = scheduler(&format!("{{ name = '{}' }}", kind.name()));
        assert_eq!(plain, SchedulerPlan::Tuned(Tuned::from(*kind)));
        for setting in kind.settings() {
            let value = match setting {
                Setting::Key => "'source'",
                Setting::Fallback | Setting::Avalanche => "false",
                Setting::TableSize => "251",
                Setting::Weights => "'turns'",
                Setting::Expiration | Setting::Decay | Setting::ProbeAge => "'2s'",
                Setting::HashType => "'consistent'",
                Setting::ProbeSource => "'servers'",
                Setting::BalanceFactor => "150",
                Setting::Choices
                | Setting::Points
                | Setting::Capacity
                | Setting::Probes
                | Setting::Bias
                | Setting::Pool
                | Setting::ProbeRate
                | Setting::HotQuantile => "7",
            };
            // A bound needs a ring.
            let more = if *kind == Builtin::Source && *setting == Setting::BalanceFactor {
                ", hash_type = 'consistent'"
            } else {
                ""
            };
            let text = format!("{{ name = '{}', {} = {value}{more} }}", kind.name(), setting.name());
            let SchedulerPlan::Tuned(tuned) = scheduler(&text) else { panic!("{text}") };
            assert!(tuned.options.given().any(|given| given == *setting), "{text}: {tuned:?}");
            assert_eq!(tuned.options.given().count(), 1 + usize::from(!more.is_empty()), "{text}");
        }
    }
}

#[test]
fn options_of_a_scheduler_are_what_is_written() {
    let options = Options {
        key: Some(FlowKey::Source { length_v4: 24, length_v6: 64 }),
        table_size: Some(1021),
        weights: Some(TableWeights::Equal),
        ..Options::default()
    };
    let text = "{ name = 'maglev', key = 'source', netmask = '255.255.255.0', netmask6 = 64, table_size = 1021, \
                weights = 'equal' }";
    assert_eq!(scheduler(text), SchedulerPlan::Tuned(Tuned { kind: Builtin::Maglev, options }));
    let options =
        Options { key: Some(FlowKey::Destination), balance_factor: Some(200), ..Options::default() };
    let text = "{ name = 'bounded', key = 'destination', balance_factor = 200 }";
    assert_eq!(scheduler(text), SchedulerPlan::Tuned(Tuned { kind: Builtin::Bounded, options }));
    let options = Options { key: Some(FlowKey::SourcePort), fallback: Some(false), ..Options::default() };
    let text = "{ name = 'sh', key = 'source-port', fallback = false }";
    assert_eq!(scheduler(text), SchedulerPlan::Tuned(Tuned { kind: Builtin::SourceHashing, options }));
}

#[test]
fn servers_start_slowly_where_it_is_written() {
    let of = |text: &str| director(&format!("bind = '10.0.0.3:80/tcp'\n{text}\n{SERVER}")).slow_start;
    assert_eq!(of(""), None);
    assert_eq!(of("slow_start = '30s'"), Some(SlowStart::of(Duration::from_secs(30))));
    let plan = SlowStart { time: Duration::from_secs(60), least: 1, aggression: 150 };
    assert_eq!(of("slow_start = { time = '1m', least = 1, aggression = 150 }"), Some(plan));
}

#[test]
fn agents_are_asked_where_it_is_written() {
    let of = |text: &str| director(&format!("bind = '10.0.0.3:80/tcp'\n{text}\n{SERVER}")).agent_check;
    assert_eq!(of(""), None);
    assert_eq!(of("agent_check = { port = 8888 }"), Some(AgentPlan::at(8888)));
    let plan = AgentPlan {
        port: 9,
        interval: Duration::from_millis(500),
        timeout: Duration::from_millis(500),
        send: "web\n".to_owned(),
    };
    assert_eq!(of("agent_check = { port = 9, interval = '500ms', send = \"web\\n\" }"), Some(plan.clone()));
    let plan = AgentPlan { timeout: Duration::from_millis(100), send: String::new(), ..plan };
    assert_eq!(of("agent_check = { port = 9, interval = '500ms', timeout = '100ms' }"), Some(plan));
    let servers = "agent_check = { port = 9 }\nserver = [{ name = 'a', address = '10.0.3.20:80' }, \
                   { name = 'b', address = '10.0.3.21:80', agent_port = 0 }, \
                   { name = 'c', address = '10.0.3.22:80', agent_port = 10 }]\n";
    let servers = director(&format!("bind = '10.0.0.3:80/tcp'\n{servers}")).servers;
    assert_eq!(servers.iter().map(|one| one.agent_port).collect::<Vec<_>>(), [None, Some(0), Some(10)]);
}

#[test]
fn an_agent_is_sent_a_bounded_text() {
    let text = |length: usize| {
        let send = "x".repeat(length);
        format!(
            "[interface.tun0]\nkind = 'tun'\n[director.web]\nbind = '10.0.0.3:80/tcp'\n{SERVER}\
             agent_check = {{ port = 9, send = '{send}' }}\n"
        )
    };
    assert!(parse(&text(1024), "evenkeel.toml").is_ok());
    let found = parse(&text(1025), "evenkeel.toml").unwrap_err().to_string();
    assert!(found.contains("1025 bytes are more than the 1024 that an agent is sent"), "{found}");
}

#[test]
fn a_component_gets_its_bounds_and_its_options_as_toml() {
    let text = format!(
        "[interface.tun0]\nkind = 'tun'\n[director.web]\nbind = '10.0.0.3:80/tcp'\n{SERVER}\
         [director.web.scheduler]\ncomponent = 'mine/x.wasm'\nfallback = 'maglev'\nbudget = '1ms'\nmemory = '1MiB'\n\
         [director.web.scheduler.options]\nb = [1, 2]\na = 'text'\nc.d = 1979-05-27\n"
    );
    let loaded = parse_in(&text, "evenkeel.toml", Path::new("/etc/evenkeel")).unwrap();
    let SchedulerPlan::Guest(guest) = &loaded.plan.directors[0].scheduler else { panic!() };
    let expected = GuestPlan {
        component: "/etc/evenkeel/mine/x.wasm".to_owned(),
        options: "a = \"text\"\nb = [1, 2]\n\n[c]\nd = 1979-05-27\n".to_owned(),
        call_budget: Duration::from_millis(1),
        memory_limit_bytes: 1 << 20,
        fallback: Builtin::Maglev,
    };
    assert_eq!(*guest, expected);
}

#[test]
fn relative_paths_start_from_the_folder_of_the_file() {
    let folder = std::env::temp_dir().join(format!("evenkeel-plans-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("evenkeel.toml");
    let text = format!(
        "[forwarder]\ncontrol = 'x.sock'\n[interface.tun0]\nkind = 'tun'\n[director.web]\nbind = '10.0.0.3:80/tcp'\n\
         scheduler = {{ component = 'x.wasm' }}\n{SERVER}"
    );
    std::fs::write(&path, text).unwrap();
    let loaded = load(&path).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let SchedulerPlan::Guest(guest) = &loaded.plan.directors[0].scheduler else { panic!() };
    assert_eq!(Path::new(&guest.component), folder.join("x.wasm"));
    assert_eq!(loaded.forwarder.control, folder.join("x.sock"));
    assert_eq!(loaded.base_dir(), folder);
    assert_eq!(loaded.file(), path.display().to_string());
}

/// Directors, then flows as text.
fn chained(components: &str, rules: &str) -> String {
    format!(
        "[policy]\nrules = '''\n{rules}'''\n{components}[interface.tun0]\nkind = 'tun'\n\
         [director.a]\nbind = '10.0.0.3:80/tcp'\n{SERVER}"
    )
}

#[test]
fn a_flow_that_asks_a_component_gives_it_its_place() {
    let components = "[[policy.component]]\nname = 'last'\ncomponent = 'bundled:rate-guard'\n\
                      [[policy.component]]\nname = 'geo'\ncomponent = 'bundled:rate-guard'\non_fault = 'native'\n\
                      [[policy.component]]\nname = 'guard'\ncomponent = 'bundled:rate-guard'\nper = 'packet'\n";
    let rules = "flow ssh permit\n match proto tcp dstport 22\nflow ask-geo component geo\n match proto tcp\n\
                 flow dns permit\n match proto udp dstport 53\nflow ask-guard component guard\n match\n\
                 flow rest deny\n match\n";
    let plan = loaded(&chained(components, rules)).plan;
    let names: Vec<_> = plan
        .policies
        .iter()
        .map(|policy| match policy {
            PolicyPlan::Rules(flows) => {
                flows.iter().map(|flow| flow.name.as_str()).collect::<Vec<_>>().join(",")
            }
            PolicyPlan::Guest(guest) => {
                let gate = guest.gate.as_ref().map_or(0, |gate| gate.rules.len());
                format!("{} {gate} {:?} {:?}", guest.name, guest.on_fault, guest.packets)
            }
        })
        .collect();
    let expected =
        ["ssh", "geo 1 Native None", "dns", "guard 0 Permit Some(true)", "rest", "last 0 Permit None"];
    assert_eq!(names, expected);
}

#[test]
fn the_data_of_a_component_is_the_content_of_its_file() {
    let folder = std::env::temp_dir().join(format!("evenkeel-data-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("prefixes.txt"), "192.0.2.0/24 a\n").unwrap();
    let components =
        "[[policy.component]]\nname = 'geo'\ncomponent = 'bundled:rate-guard'\ndata = 'prefixes.txt'\n";
    let path = folder.join("evenkeel.toml");
    std::fs::write(&path, chained(components, "flow f deny\n match src 192.0.2.1\n")).unwrap();
    let loaded = load(&path);
    std::fs::remove_dir_all(&folder).unwrap();
    let plan = loaded.unwrap().plan;
    let [_, PolicyPlan::Guest(geo)] = &plan.policies[..] else { panic!("{:?}", plan.policies) };
    assert_eq!(geo.data, "192.0.2.0/24 a\n");
}

#[test]
fn flows_come_before_components_and_resolve_their_names() {
    let text = format!(
        "[policy]\ndefault = 'deny'\n[[policy.component]]\nname = 'guard'\ncomponent = 'bundled:rate-guard'\n\
         on_fault = 'deny'\n[interface.tun0]\nkind = 'tun'\n[director.a]\nbind = '10.0.0.3:80/tcp'\n{SERVER}\
         [director.b]\nbind = '10.0.0.3:81/tcp'\n{SERVER}\
         [[flow]]\nname = 'f'\npolicy = 'director b'\n\
         rule = [{{ ignore = {{ src = '192.0.2.7' }} }}, {{ match = {{ iface = 'tun0', proto = 'tcp', dstport = '1-9', \
         not = {{ srcport = 7 }} }} }}]\n[[flow]]\nname = 'g'\nrule = [{{ match = {{}} }}]\n"
    );
    let plan = loaded(&text).plan;
    assert!(!plan.default_permit);
    let [PolicyPlan::Rules(flows), PolicyPlan::Guest(guard)] = &plan.policies[..] else {
        panic!("{:?}", plan.policies)
    };
    assert_eq!((guard.name.as_str(), guard.on_fault), ("guard", OnFault::Deny));
    assert_eq!((&guard.gate, guard.packets), (&None, None));
    assert_eq!((&flows[0].action, &flows[1].action), (&FlowAction::Director(1), &FlowAction::Skip));
    let rules = &flows[0].rules;
    assert_eq!((rules[0].is_match, rules[1].is_match), (false, true));
    let condition = |is_negated, test| Condition { is_negated, test };
    assert_eq!(rules[0].conditions, [condition(false, Test::source(prefix("192.0.2.7", 32)))]);
    let expected = [
        condition(false, Test::Interface(InterfaceId(0))),
        condition(false, Test::Protocol(Protocol::TCP)),
        condition(false, Test::destination_port(1..=9)),
        condition(true, Test::source_port(7..=7)),
    ];
    assert_eq!(rules[1].conditions, expected);
    assert!(flows[1].rules[0].conditions.is_empty(), "no condition holds for every packet");
}

#[test]
fn a_seed_decides_the_keys_whether_it_is_written_or_given() {
    let text = "[interface.tun0]\nkind = 'tun'\n";
    let written = loaded(&format!("[forwarder]\nseed = 7\n{text}"));
    let given = loaded(text).with_seed(7);
    assert_eq!(written.plan, given.plan);
    assert_eq!(given.forwarder.seed, Some(7));
    assert_ne!(written.plan.hash_key, loaded(text).plan.hash_key);
    assert_ne!(written.clone().with_seed(8).plan.hash_key, written.plan.hash_key);
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A plan of one director on two Ethernet interfaces with addresses of both families.
fn director(text: &str) -> evenkeel_engine::plan::DirectorPlan {
    let text = format!(
        "[interface.lan]\nkind = 'ethernet'\nmac = '02:00:00:00:00:01'\naddress = ['10.0.3.1/24', 'fc00:3::1/64']\n\
         [interface.wan]\nkind = 'ethernet'\nmac = '02:00:00:00:00:02'\naddress = ['192.0.2.1/24']\n\
         [[route]]\nto = '0.0.0.0/0'\nvia = '192.0.2.254'\ninterface = 'wan'\n\
         [[route]]\nto = '::/0'\nvia = 'fc00:3::fe'\ninterface = 'lan'\n[director.web]\n{text}"
    );
    let loaded = loaded(&text);
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    loaded.plan.directors.into_iter().next().unwrap()
}

#[test]
fn every_form_of_binding_is_taken() {
    let director = director(
        "bind = ['10.0.0.3:80/tcp', '10.0.0.3:*', '10.0.0.3:50000-51000/udp', '10.0.0.0/24:443/tcp']\n\
         server = [{ name = 's', address = '10.0.3.20' }]\n",
    );
    let host = Prefix::host(ip("10.0.0.3"));
    let tcp = Some(Protocol::TCP);
    let expected = [
        Binding::of(ip("10.0.0.3"), 80, Protocol::TCP),
        Binding { network: host, ports: ANY_PORT, protocol: None },
        Binding { network: host, ports: 50_000..=51_000, protocol: Some(Protocol::UDP) },
        Binding { network: prefix("10.0.0.0", 24), ports: 443..=443, protocol: tcp },
    ];
    assert_eq!(director.binds, expected);
    assert_eq!((director.servers[0].address, director.servers[0].port), (ip("10.0.3.20"), 0));
}

#[test]
fn ipv6_stands_wherever_ipv4_does() {
    let director = director(
        "bind = ['[fc00::3]:53/udp', '[fc00:1::]/96:*/tcp']\nsnat = { address = 'fc00:3::1' }\n\
         server = [{ name = 's', address = '[fc00:3::20]:5353' }]\n\
         [[flow]]\nname = 'f'\npolicy = 'deny'\nrule = [{ match = { src = '2001:db8::/32', proto = 'icmpv6' } }]\n",
    );
    let shown: Vec<_> = director.binds.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["[fc00::3]:53/udp", "[fc00:1::]/96:*/tcp"]);
    assert_eq!(director.mode, Mode::Nat { sources: vec![SourceNat::to(ip("fc00:3::1"), 1024..=65_535)] });
    assert_eq!((director.servers[0].address, director.servers[0].port), (ip("fc00:3::20"), 5353));
}

#[test]
fn source_nat_may_have_conditions() {
    let director = director(
        "bind = ['10.0.0.3:80/tcp', '10.0.0.3:50000-51000/udp']\n\
         snat = [{ address = '10.0.3.2', ports = '2000-3000', in = 'wan', out = 'lan', service_ports = '50000-51000' },\n\
         { address = '10.0.3.1', service_ports = '80' }, { address = '10.0.3.3' }]\n\
         server = [{ name = 's', address = '10.0.3.20' }]\n",
    );
    let Mode::Nat { sources } = director.mode else { panic!("{:?}", director.mode) };
    let first = SourceNat {
        interface_in: Some(InterfaceId(1)),
        interface_out: Some(InterfaceId(0)),
        service_ports: 50_000..=51_000,
        ..SourceNat::to(ip("10.0.3.2"), 2000..=3000)
    };
    let second = SourceNat { service_ports: 80..=80, ..SourceNat::to(ip("10.0.3.1"), 1024..=65_535) };
    assert_eq!(sources, [first, second, SourceNat::to(ip("10.0.3.3"), 1024..=65_535)]);
}

#[test]
fn unchanged_packets_go_to_the_port_of_the_vip_or_any() {
    let gateway = |server: &str| {
        director(&format!(
            "bind = '10.0.0.3:80/tcp'\nmode = 'gateway'\nserver = [{{ name = 's', address = '{server}' }}]\n"
        ))
    };
    assert_eq!(gateway("10.0.3.20").mode, Mode::Gateway);
    assert_eq!(gateway("10.0.3.20").servers[0].port, 0);
    assert_eq!(gateway("10.0.3.20:80").servers[0].port, 80);
}

#[test]
fn tunnels_carry_either_family_to_either() {
    let tunnel = |text: &str| {
        let director = director(&format!(
            "bind = ['10.0.0.3:80/tcp', '[fc00::3]:80/tcp']\nmode = 'tunnel'\n{text}\n\
             server = [{{ name = 'a', address = '10.0.3.20' }}, {{ name = 'b', address = 'fc00:3::20' }}]\n"
        ));
        director.mode
    };
    let of = |encapsulation| Mode::Tunnel { encapsulation, sources: Vec::new(), ttl: None };
    assert_eq!(tunnel(""), of(Encapsulation::IpIp));
    assert_eq!(tunnel("tunnel = {}"), of(Encapsulation::IpIp));
    assert_eq!(tunnel("tunnel = { encapsulation = 'gre' }"), of(Encapsulation::Gre { checksum: false }));
    let text = "tunnel = { encapsulation = 'gre', checksum = true }";
    assert_eq!(tunnel(text), of(Encapsulation::Gre { checksum: true }));
    let gue = Encapsulation::Gue { port: 6080, checksum: false };
    assert_eq!(tunnel("tunnel = { encapsulation = 'gue' }"), of(gue));
    let text = "tunnel = { encapsulation = 'gue', checksum = true, port = 5555, source = ['10.0.3.9', 'fc00:3::9'], ttl = 64 }";
    let expected = Mode::Tunnel {
        encapsulation: Encapsulation::Gue { port: 5555, checksum: true },
        sources: vec![ip("10.0.3.9"), ip("fc00:3::9")],
        ttl: Some(64),
    };
    assert_eq!(tunnel(text), expected);
}

#[test]
fn how_a_director_answers_and_clients_stick_is_taken() {
    let with = |text: &str| {
        director(&format!(
            "bind = '10.0.0.3:53/udp'\n{text}\nserver = [{{ name = 's', address = '10.0.3.20:53' }}]\n"
        ))
    };
    let plain = with("");
    assert_eq!(
        (plain.mid_stream, plain.ping, plain.is_one_packet),
        (MidStream::Refuse, Ping::WhenUsable, false)
    );
    assert_eq!(plain.persistence, None);
    let other = with("mid_stream = 'pick'\nping = 'forward'\none_packet = true\npersistence = '60s'");
    assert_eq!((other.mid_stream, other.ping, other.is_one_packet), (MidStream::Pick, Ping::Forward, true));
    let sticky = |seconds, length_v4, length_v6| {
        Some(Persistence { timeout: Duration::from_secs(seconds), length_v4, length_v6 })
    };
    assert_eq!(other.persistence, sticky(60, 32, 128));
    assert_eq!(with("mid_stream = 'drop'\nping = 'always'").mid_stream, MidStream::Drop);
    assert_eq!(with("persistence = {}").persistence, sticky(300, 32, 128));
    let mask = "persistence = { timeout = '1h', netmask = '255.255.255.0', netmask6 = 64 }";
    assert_eq!(with(mask).persistence, sticky(3600, 24, 64));
    assert_eq!(with("persistence = { netmask = 0 }").persistence, sticky(300, 0, 128));
}

#[test]
fn one_packet_takes_what_has_one_name() {
    for bind in ["'10.0.0.3:53/udp'", "['10.0.0.3:53/udp', '10.0.0.3:53/tcp']"] {
        let text = format!(
            "bind = {bind}\none_packet = true\nserver = [{{ name = 's', address = '10.0.3.20:5353' }}]"
        );
        assert!(director(&text).is_one_packet, "{bind}");
    }
    let any = "bind = '10.0.0.3:*'\none_packet = true\nserver = [{ name = 's', address = '10.0.3.20' }]";
    assert!(director(any).is_one_packet, "each port is answered from itself");
    let one_sided = "bind = '10.0.0.0/24:*'\nmode = 'tunnel'\none_packet = true\n\
                     server = [{ name = 's', address = '10.0.3.20' }]";
    assert!(director(one_sided).is_one_packet, "answers do not come by");
}

#[test]
fn real_servers_have_bounds() {
    let director = director(
        "bind = '10.0.0.3:53/udp'\n\
         server = [{ name = 's', address = '10.0.3.20', max_flows = 100, min_flows = 100 }, { name = 't', address = '10.0.3.21' }]\n",
    );
    let bounds: Vec<_> = director.servers.iter().map(|one| (one.flows_upper, one.flows_lower)).collect();
    assert_eq!(bounds, [(100, 100), (0, 0)]);
}

#[test]
fn limits_timeouts_and_handling_are_taken_one_by_one() {
    let plan = |text: &str| loaded(&format!("{text}\n[interface.tun0]\nkind = 'tun'\n")).plan;
    let limits = plan("[limits]\nflows = 1000\nflows_per_client = 9\npersistent = 7").limits;
    assert_eq!((limits.flows_max, limits.half_open_max), (1000, 1000), "at most as many as flows");
    assert_eq!((limits.flows_per_client, limits.persistent_max), (9, 7));
    assert_eq!(plan("[limits]\nflows = 70000").limits.half_open_max, 65_535);
    assert_eq!(plan("[limits]\nhalf_open = 12").limits.half_open_max, 12);
    assert_eq!(plan("[timeouts]\nprofile = 'ipvs'").timeouts, Timeouts::default());
    assert_eq!(plan("[timeouts]\nprofile = 'rfc'").timeouts, Timeouts::rfc());
    let seconds = Duration::from_secs;
    let mixed = plan("[timeouts]\ntcp_close_wait = '5s'\nicmp = '6s'\nprofile = 'rfc'").timeouts;
    assert_eq!(mixed, Timeouts { tcp_close_wait: seconds(5), icmp: seconds(6), ..Timeouts::rfc() });
    let handling = plan(
        "[handling]\ncut = false\nmss = 88\nfill_udp_checksum = true\nverify_checksums = true\n\
         expire_nodest = true\nexpire_quiescent = true\ntell_exhausted = true\nroute_replies = true",
    )
    .handling;
    let expected = Handling {
        cuts: false,
        mss_bytes: Some(88),
        fills_udp_checksum: true,
        verifies_checksums: true,
        expires_nodest: true,
        expires_quiescent: true,
        tells_exhausted: true,
        routes_replies: true,
    };
    assert_eq!(handling, expected);
    let only = plan("[handling]\ntell_exhausted = true").handling;
    assert_eq!(only, Handling { tells_exhausted: true, ..Handling::default() });
}

#[test]
fn interfaces_pass_on_what_is_not_for_the_forwarder() {
    let plan = loaded(
        "[interface.a]\nkind = 'ethernet'\nmac = '02:00:00:00:00:01'\npass_to = 'b'\n\
         [interface.b]\nkind = 'ethernet'\nmac = '02:00:00:00:00:02'\npass_to = 'a'\n\
         address = ['fc00::1/64', '10.0.0.1/8']\n",
    )
    .plan;
    let passes: Vec<_> = plan.interfaces.iter().map(|one| one.passes_to).collect();
    assert_eq!(passes, [Some(InterfaceId(1)), Some(InterfaceId(0))]);
    assert_eq!(plan.interfaces[1].addresses, [prefix("fc00::1", 64), prefix("10.0.0.1", 8)]);
    let networks: Vec<_> = plan.routes.iter().map(|route| route.destination).collect();
    assert_eq!(networks, [prefix("fc00::", 64), prefix("10.0.0.0", 8)]);
}

/// What the configuration lets through, the engine takes.
#[test]
fn the_engine_takes_the_example() {
    let loaded = loaded(evenkeel_config::reference::EXAMPLE);
    let mut plan = loaded.with_seed(1).plan;
    plan.policies.retain(|policy| matches!(policy, PolicyPlan::Rules(_)));
    for director in &mut plan.directors {
        if matches!(director.scheduler, SchedulerPlan::Guest(_)) {
            director.scheduler = SchedulerPlan::Builtin(Builtin::Maglev);
        }
        // Like every component, one that schedules in the shadow comes from outside.
        director.shadow = None;
    }
    let guests = evenkeel_engine::Guests::default();
    let engine = evenkeel_engine::Engine::new(plan, guests, evenkeel_engine::Instant::ZERO);
    assert!(engine.is_ok(), "{:?}", engine.err());
}
