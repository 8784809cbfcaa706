//! Good files, and the plans that they are.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use std::path::Path;
use std::time::Duration;

use evenkeel_config::{ForwarderConfig, Io, Loaded, Plan, Setup, load, parse, parse_in};
use evenkeel_engine::InterfaceId;
use evenkeel_engine::plan::{
    Builtin, Condition, FlowAction, GuestPlan, Layer, Mode, PolicyPlan, Prefix, SchedulerPlan, Test,
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
    let names: Vec<_> = plan.directors.iter().map(|one| (one.name.as_str(), one.protocol)).collect();
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
    assert_eq!(routes, [prefix("10.1.0.0", 16), prefix("10.99.0.0", 24), prefix("0.0.0.0", 0)]);
    let text = format!("{text}[[route]]\nto = '0.0.0.0/0'\nvia = '10.99.0.2'\ninterface = 'tun0'\n");
    let plan = loaded(&text).plan;
    let defaults: Vec<_> = plan.routes.iter().filter(|route| route.destination.length == 0).collect();
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
    assert_eq!((director.address, director.port), ("10.0.0.3".parse().unwrap(), 80));
    assert_eq!(director.scheduler, SchedulerPlan::Builtin(Builtin::SourceHashing));
    let Mode::Nat { source: Some(source) } = &director.mode else { panic!("{:?}", director.mode) };
    assert_eq!((source.address, source.ports.clone()), ("10.0.0.3".parse().unwrap(), 2000..=3000));
    let servers: Vec<_> =
        director.servers.iter().map(|one| (one.name.as_str(), one.port, one.weight)).collect();
    assert_eq!(servers, [("s1", 8080, 0), ("s0", 81, 65535)]);
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
    let [PolicyPlan::Rules(flows), PolicyPlan::Guest { name, permit_on_fault, .. }] = &plan.policies[..]
    else {
        panic!("{:?}", plan.policies)
    };
    assert_eq!((name.as_str(), *permit_on_fault), ("guard", false));
    assert_eq!((&flows[0].action, &flows[1].action), (&FlowAction::Director(1), &FlowAction::Skip));
    let rules = &flows[0].rules;
    assert_eq!((rules[0].is_match, rules[1].is_match), (false, true));
    let condition = |is_negated, test| Condition { is_negated, test };
    assert_eq!(rules[0].conditions, [condition(false, Test::Source(prefix("192.0.2.7", 32)))]);
    let expected = [
        condition(false, Test::Interface(InterfaceId(0))),
        condition(false, Test::Protocol(Protocol::TCP)),
        condition(false, Test::DestinationPort(1..=9)),
        condition(true, Test::SourcePort(7..=7)),
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
