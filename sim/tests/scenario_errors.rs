//! Scenario files that are wrong: each mistake is told with line and column, and what was probably meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use evenkeel_engine::Duration;
use evenkeel_sim::Scenario;
use evenkeel_sim::scenario::{Arrivals, Expected, Extent, ScenarioErrors};
use evenkeel_sim::wires::{Delay, Loss, Quality};

const GOOD: &str = r#"[scenario]
name = "good"
duration = "10s"

[segment.lan]
subnet = "10.0.0.0/24"

[host.client]
count = 2
attach = [{ segment = "lan", address = "10.0.0.10+i/24" }]
gateway = "10.0.0.1"

[host.server]
attach = [{ segment = "lan", address = "10.0.0.2/24" }]

[forwarder.lb]
attach = [{ segment = "lan", address = "10.0.0.1/24" }]
config = "evenkeel.toml"

[link.slow]
ends = ["client*", "lan"]
delay = "1ms"
loss = 0.01

[load.web]
from = "client*"
to = "10.0.0.3:80/tcp"
arrivals = { process = "poisson", rate = "100/s" }
flows = 10

[[expect]]
metric = "flows.broken"
max = 0
"#;

fn parse(text: &str) -> Result<Scenario, ScenarioErrors> {
    Scenario::parse(text, Path::new("dir/test.toml"))
}

/// The good scenario with one thing replaced; gives the first error as "line:column: message".
fn broken(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    let errors = parse(&GOOD.replacen(from, to, 1)).expect_err(to);
    let text = errors.0[0].to_string();
    text.strip_prefix("dir/test.toml:").unwrap().to_owned()
}

#[test]
fn a_good_scenario_means_what_it_says() {
    let scenario = parse(GOOD).unwrap();
    let names: Vec<_> = scenario.hosts.iter().map(|host| host.name.as_str()).collect();
    assert_eq!(names, ["client.0", "client.1", "server"]);
    assert_eq!(scenario.hosts[1].network.attachments[0].addresses[0].to_string(), "10.0.0.11");
    assert_eq!(scenario.forwarders[0].config, Path::new("dir/evenkeel.toml"));
    assert_eq!(scenario.seed, 1);
    assert_eq!(scenario.loads[0].clients, [0, 1]);
    assert_eq!(scenario.loads[0].extent, Extent::Flows(10));
    assert!(
        matches!(scenario.loads[0].arrivals, Arrivals::Poisson { mean_gap } if mean_gap.as_millis() == 10)
    );
    assert_eq!(scenario.quality(0, 0).0.loss, Loss::Even { millionths: 10_000 });
    assert_eq!(scenario.quality(0, 0).1.delay, Delay::Fixed(Duration::from_millis(1)));
    assert_eq!(scenario.quality(2, 0).0, Quality::default());
    assert!(scenario.is_client(0) && !scenario.is_client(2));
    assert_eq!(scenario.expectations[0].max, Some(0.0));
}

#[test]
fn each_mistake_has_its_place_and_its_words() {
    let cases: &[(&str, &str, &str)] = &[
        ("count = 2", "cuont = 2", "9:1: the key `cuont` is unknown in `host.client`; did you mean `count`?"),
        ("count = 2", "count = 0", "9:9: `host.client.count` is `0`, outside of 1 to 65536"),
        ("count = 2", "count = 70000", "9:9: `host.client.count` is `70000`, outside of 1 to 65536"),
        (
            "count = 2",
            "count = 250",
            "10:40: 10.0.0.255, the address of client.245, is no host of lan (10.0.0.0/24)",
        ),
        ("count = 2", "count = \"two\"", "9:9: `host.client.count` is a string, but takes an integer"),
        (
            "count = 2",
            "count = \"2\"",
            "9:9: `host.client.count` is a string, but takes an integer; write the number without",
        ),
        ("count = 2\n", "", "9:40: client: `+i` needs a `count`"),
        (
            "10.0.0.10+i/24",
            "10.0.0.10/24",
            "10:40: client.1: several hosts have the same address here; write `+i`: `10.0.0.10+i/24`",
        ),
        ("10.0.0.10+i/24", "10.0.0.10+i/25", "10:40: the length is 25 here, but lan is 10.0.0.0/24"),
        ("10.0.0.2/24", "10.0.0.11/24", "14:40: client.1 and server both have the address 10.0.0.11"),
        ("10.0.0.2/24", "10.0.0.255/24", "14:40: 10.0.0.255, the address of server, is no host of lan"),
        ("10.0.0.2/24", "fd00::2/64", "14:40: fd00::2, the address of server, is no host of lan"),
        ("10.0.0.2/24", "10.0.0.2", "14:40: `10.0.0.2` is not an address such as"),
        (
            "\"lan\", address = \"10.0.0.2",
            "\"lam\", address = \"10.0.0.2",
            "14:23: no segment `lam`; did you mean `lan`?",
        ),
        (
            "attach = [{ segment = \"lan\", address = \"10.0.0.2/24\" }]",
            "attach = []",
            "14:10: server is attached to nothing",
        ),
        (
            "attach = [{ segment = \"lan\", address = \"10.0.0.2/24\" }]",
            "attach = { segment = \"lan\" }",
            "14:10: `host.server.attach` is a table, but takes a list; write a list, even of one",
        ),
        (
            "attach = [{ segment = \"lan\", address = \"10.0.0.2/24\" }]",
            "",
            "13:1: the key `attach` is missing",
        ),
        (
            "10.0.0.0/24",
            "10.0.0.7/24",
            "6:10: 10.0.0.7/24 has bits beyond its length; the network is 10.0.0.0/24",
        ),
        ("10.0.0.0/24", "10.0.0.0/32", "6:10: the length of `10.0.0.0/32` is outside of 8 to 31"),
        ("10.0.0.0/24", "10.0.0.0", "6:10: `10.0.0.0` is not a network such as"),
        ("subnet = \"10.0.0.0/24\"", "subnet = []", "6:10: a segment has at least one network"),
        (
            "subnet = \"10.0.0.0/24\"",
            "subnet = [\"10.0.0.0/24\", \"10.1.0.0/24\"]",
            "6:26: a segment has one network of each family",
        ),
        (
            "subnet = \"10.0.0.0/24\"",
            "subnet = \"10.0.0.0/24\"\nkind = \"hub\"",
            "7:8: `segment.lan.kind` can not be `hub`; write one of `switch`, `cable`",
        ),
        (
            "subnet = \"10.0.0.0/24\"",
            "subnet = \"10.0.0.0/24\"\nkind = \"cable\"",
            "5:10: the cable lan has 4 ends, and a cable has 2",
        ),
        (
            "gateway = \"10.0.0.1\"",
            "gateway = \"10.0.0.99\"",
            "11:11: nobody has the gateway's address 10.0.0.99",
        ),
        (
            "gateway = \"10.0.0.1\"",
            "gateway = \"10.0.0.10\"",
            "11:11: gateway 10.0.0.10 is an address of client itself",
        ),
        (
            "gateway = \"10.0.0.1\"",
            "gateway = \"10.9.0.1\"",
            "11:11: gateway 10.9.0.1 is on no segment of client",
        ),
        ("gateway = \"10.0.0.1\"", "gateway = \"router\"", "11:11: `router` is not an address"),
        (
            "gateway = \"10.0.0.1\"",
            "gateway = [\"10.0.0.1\", \"10.0.0.2\"]",
            "11:24: a machine has one gateway of each family; write a route to `default` with several `via`",
        ),
        ("config = \"evenkeel.toml\"", "config = \"\"", "18:10: the path of the configuration file is empty"),
        ("ends = [\"client*\", \"lan\"]", "ends = [\"lan\"]", "21:8: ends are two"),
        ("ends = [\"client*\", \"lan\"]", "ends = [\"x*\", \"lan\"]", "21:9: no machine `x*`"),
        (
            "ends = [\"client*\", \"lan\"]",
            "ends = [\"client*\", \"wan\"]",
            "21:20: no segment `wan`; did you mean `lan`?",
        ),
        ("delay = \"1ms\"", "delay = \"1 fortnight\"", "22:9: `1 fortnight` is not a duration"),
        ("delay = \"1ms\"", "delay = \"2m\"", "22:9: `2m` is outside of 0ns to 60s"),
        (
            "delay = \"1ms\"",
            "delay = 1",
            "22:9: `link.slow.delay` is an integer, but takes a string or a table",
        ),
        ("delay = \"1ms\"", "rate = \"0Gbit\"", "22:8: `0Gbit` is not a rate above zero"),
        ("loss = 0.01", "loss = 1.5", "23:8: `link.slow.loss` is `1.5`, but takes a number from 0 to 1"),
        ("loss = 0.01", "loss = nan", "23:8: `link.slow.loss` is `nan`, but takes a number from 0 to 1"),
        ("from = \"client*\"", "from = \"clients\"", "26:8: no machine `clients`; did you mean `client`?"),
        ("from = \"client*\"", "from = \"lb\"", "26:8: lb is no host, and only hosts open flows"),
        ("from = \"client*\"", "from = []", "26:8: a load needs clients"),
        ("10.0.0.3:80/tcp", "10.0.0.3:80", "27:6: `10.0.0.3:80` is not a service"),
        (
            "10.0.0.3:80/tcp",
            "[fd00::3]:80/tcp",
            "27:6: client.0 has no IPv6 address to ask [fd00::3]:80/tcp from",
        ),
        (
            "process = \"poisson\"",
            "process = \"poison\"",
            "28:24: `load.web.arrivals.process` can not be `poison`; did you mean `poisson`?",
        ),
        ("rate = \"100/s\"", "outstanding = 5", "28:12: process `poisson` needs `rate`"),
        ("rate = \"100/s\"", "rate = \"0/s\"", "28:42: `0/s` is not a rate above zero"),
        ("flows = 10", "flows = 10\nduration = \"1s\"", "30:12: `flows` or `duration`, not both"),
        ("flows = 10", "", "25:7: load web needs `flows` or `duration`"),
        ("flows = 10", "flows = 0", "29:9: `load.web.flows` is `0`, outside of 1 to 10000000"),
        ("flows = 10", "flows = 10\nstart = \"11s\"", "30:9: `11s` is after the end of the run (10s)"),
        (
            "flows = 10",
            "flows = 10\nrequest = { size = \"8B\" }",
            "30:20: 8 bytes are outside of 16 to 16777216",
        ),
        ("flows = 10", "flows = 10\nrounds = 0", "30:10: `load.web.rounds` is `0`, outside of 1 to 100000"),
        ("flows.broken", "flow.broken", "32:10: no metric `flow.broken`; did you mean `flows.broken`?"),
        ("max = 0", "", "31:1: an expectation needs `min`, `max` or `equals`"),
        ("max = 0", "min = 1\nmax = 0", "33:7: `min` (1) is above `max` (0)"),
        (
            "max = 0",
            "equals = [1]",
            "33:10: `expect[1].equals` is a list, but takes a number with a point or a string",
        ),
        ("duration = \"10s\"", "duration = \"0s\"", "3:12: `0s` is outside"),
        ("duration = \"10s\"", "duration = \"30d\"", "3:12: `30d` is outside"),
        (
            "duration = \"10s\"",
            "duration = \"10s\"\nwarmup = \"10s\"",
            "4:10: the warm-up takes the whole run",
        ),
        ("name = \"good\"", "name = \"a/b\"", "2:8: scenario name `a/b`: names have"),
        ("name = \"good\"", "name = \"", "2:"),
        ("[host.server]", "[host.client]", "13:7: the key `client` is there twice"),
        ("[forwarder.lb]", "[forwarder.server]", "16:12: forwarder `server` has the name of a host"),
        (
            "[link.slow]",
            "[lnik.slow]",
            "20:2: the key `lnik` is unknown at the top of the file; did you mean `link`?",
        ),
    ];
    for (from, to, wanted) in cases {
        let found = broken(from, to);
        assert!(found.starts_with(wanted), "{to}\n wanted {wanted}\n found  {found}");
    }
}

/// The good scenario with more text behind it; gives the first error without its file.
fn added(text: &str) -> String {
    let errors = parse(&format!("{GOOD}\n{text}")).expect_err(text);
    errors.0[0].to_string().strip_prefix("dir/test.toml:").unwrap().to_owned()
}

#[test]
fn mistakes_of_routers_and_their_routes() {
    let router = |keys: &str| {
        added(&format!("[router.r]\nattach = [{{ segment = \"lan\", address = \"10.0.0.5/24\" }}]\n{keys}\n"))
    };
    let cases: &[(&str, &str)] = &[
        ("routes = [{ to = \"10.9.0.0/16\" }]", "37:11: a route needs `via` or `action`"),
        (
            "routes = [{ to = \"10.9.0.0/16\", via = \"10.0.0.1\", action = \"blackhole\" }]",
            "37:60: `via` or `action`, not both",
        ),
        (
            "routes = [{ to = \"default\", action = \"blackhole\" }]",
            "37:18: `default` of which family?; write",
        ),
        (
            "routes = [{ to = \"10.9.0.1/16\", via = \"10.0.0.1\" }]",
            "37:18: 10.9.0.1/16 has bits beyond its length",
        ),
        ("routes = [{ to = \"fd00::/64\", via = \"10.0.0.1\" }]", "37:18: fd00::/64 and its router 10.0.0.1"),
        (
            "routes = [{ to = \"10.9.0.0/16\", via = \"10.0.0.77\" }]",
            "37:39: nobody has the router's address 10.0.0.77",
        ),
        (
            "routes = [{ to = \"10.9.0.0/16\", via = \"10.0.0.5\" }]",
            "37:39: router 10.0.0.5 is an address of r itself",
        ),
        ("routes = [{ to = \"10.9.0.0/16\", via = [] }]", "37:39: a route has 1 to 256 routers"),
        (
            "routes = [{ to = \"10.9.0.0/16\", via = [\"10.0.0.1\", { address = \"10.0.0.1\" }] }]",
            "37:64: 10.0.0.1 is there twice; give it a larger `weight`",
        ),
        (
            "routes = [{ to = \"10.9.0.0/16\", via = \"10.0.0.1\" }, { to = \"10.9.0.0/16\", via = \"10.0.0.2\" }]",
            "37:53: a second route to 10.9.0.0/16 in table 254",
        ),
        ("rules = [{ table = 5 }]", "37:10: the key `priority` is missing"),
        (
            "rules = [{ priority = 1, table = 5, iif = \"eth1\" }]",
            "37:43: no interface `eth1`; did you mean `eth0`?",
        ),
        (
            "rules = [{ priority = 1, table = 5, from = \"default\" }]",
            "37:44: `default` is no condition; leave",
        ),
        (
            "rules = [{ priority = 1, table = 5, dport = 80 }]",
            "37:45: ports without a protocol that has them",
        ),
        (
            "rules = [{ priority = 1, table = 5, proto = \"tcp\", dport = \"90-80\" }]",
            "37:60: `90-80` is not a range: it ends before it begins",
        ),
        ("masquerade = \"eth7\"", "37:14: no interface of r `eth7`"),
        (
            "sysctl = { arp_ignor = 1 }",
            "37:12: the key `arp_ignor` is unknown in `router.r.sysctl`; did you mean",
        ),
        ("sysctl = { arp_ignore = 9 }", "37:25: `router.r.sysctl.arp_ignore` is `9`, outside of 0 to 8"),
        ("ecmp = \"hash\"", "37:8: `router.r.ecmp` can not be `hash`"),
        ("loopback = \"10.0.0.9/24\"", "37:12: `10.0.0.9/24` is not a lone address"),
        ("loopback = \"10.0.0.9+i\"", "37:12: r: `+i` needs a `count`"),
    ];
    for (keys, wanted) in cases {
        let found = router(keys);
        assert!(found.starts_with(wanted), "{keys}\n wanted {wanted}\n found  {found}");
    }
}

#[test]
fn mistakes_of_the_timeline() {
    let entry = |keys: &str| added(&format!("[[timeline]]\n{keys}\n"));
    let cases: &[(&str, &str)] = &[
        (
            "at = \"5s\"\ndo = \"host.stop\"\ntarget = \"server\"",
            "37:6: `timeline[1].do` can not be `host.stop`",
        ),
        (
            "at = \"5s\"\ndo = \"stopp\"\ntarget = \"server\"",
            "37:6: `timeline[1].do` can not be `stopp`; did you mean `stop`?",
        ),
        ("do = \"stop\"\ntarget = \"server\"", "35:1: one of `at`, `every` and `within`"),
        (
            "at = \"5s\"\nevery = \"1s\"\ndo = \"stop\"\ntarget = \"server\"",
            "35:1: one of `at`, `every` and `within`",
        ),
        ("at = \"11s\"\ndo = \"stop\"\ntarget = \"server\"", "36:6: `11s` is after the end of the run (10s)"),
        ("at = \"5s\"\ndo = \"stop\"", "35:1: `stop` needs a `target`"),
        (
            "at = \"5s\"\ndo = \"stop\"\ntarget = \"serverr\"",
            "38:10: no machine `serverr`; did you mean `server`?",
        ),
        ("at = \"5s\"\ndo = \"hang\"\ntarget = \"lb\"", "38:10: lb is no host, and `hang` is for those"),
        ("at = \"5s\"\ndo = \"reload\"\ntarget = \"server\"", "38:10: server is no forwarder, and `reload`"),
        ("at = \"5s\"\ndo = \"slow\"\ntarget = \"server\"", "35:1: action `slow` needs `factor`"),
        (
            "at = \"5s\"\ndo = \"stop\"\ntarget = \"server\"\nweight = 5",
            "39:10: action `stop` takes no `weight`; it takes `for`",
        ),
        ("at = \"5s\"\ndo = \"stop\"\ntarget = \"server\"\nfor = \"0s\"", "39:7: `0s` is outside"),
        ("at = \"5s\"\ndo = \"stop\"\ntarget = \"server\"\ncount = 2", "39:9: `at` is once"),
        ("within = [\"2s\"]\ndo = \"stop\"\ntarget = \"server\"", "36:10: `within` is two times"),
        (
            "within = [\"2s\", \"1s\"]\ndo = \"stop\"\ntarget = \"server\"",
            "36:10: `within` ends before it begins",
        ),
        ("within = [\"2s\", \"20s\"]\ndo = \"stop\"\ntarget = \"server\"", "36:17: `20s` is after the end"),
        ("every = \"20s\"\ndo = \"stop\"\ntarget = \"server\"", "36:9: the run ends before it happens first"),
        (
            "every = \"1us\"\ndo = \"stop\"\ntarget = \"server\"",
            "36:9: this would happen more than 1000000 times",
        ),
        (
            "every = { process = \"poisson\" }\ndo = \"stop\"\ntarget = \"server\"",
            "36:9: the key `rate` is missing",
        ),
        ("at = \"5s\"\ndo = \"link.down\"\ntarget = \"server\"", "35:1: action `link.down` needs `segment`"),
        (
            "at = \"5s\"\ndo = \"link.set\"\ntarget = \"server\"\nsegment = \"lan\"\nboth = { rate = \"0bit\" }",
            "40:17: `0bit` is not a rate above zero",
        ),
        (
            "at = \"5s\"\ndo = \"route.set\"\ntarget = \"server\"\nto = \"10.9.0.0/16\"\nvia = \"10.5.0.1\"",
            "40:7: router 10.5.0.1 is on no segment of server",
        ),
        (
            "at = \"5s\"\ndo = \"route.delete\"\ntarget = \"server\"\nto = \"default\"",
            "39:6: `default` of which family?",
        ),
        (
            "at = \"5s\"\ndo = \"weight\"\ndirector = \"web\"\nweight = 1",
            "35:1: action `weight` needs `server`",
        ),
        (
            "at = \"5s\"\ndo = \"weight\"\ndirector = \"a b\"\nserver = \"s1\"\nweight = 1",
            "38:12: director name `a b`",
        ),
    ];
    for (keys, wanted) in cases {
        let found = entry(keys);
        assert!(found.starts_with(wanted), "{keys}\n wanted {wanted}\n found  {found}");
    }
}

#[test]
fn mistakes_of_laws_and_links() {
    let cases: &[(&str, &str)] = &[
        ("response = { law = \"websearc\" }", "no law `websearc`; did you mean `websearch`?"),
        ("response = { law = \"silkroad-upgrade\" }", "`silkroad-upgrade` is a law of durations"),
        ("response = { law = \"exponential\" }", "law `exponential` needs `mean`"),
        (
            "response = { law = \"exponential\", mean = \"5kB\", cv = 1.0 }",
            "law `exponential` takes no `cv`; it takes `mean`",
        ),
        (
            "response = { law = \"uniform\", low = \"2kB\", high = \"1kB\" }",
            "uniform: low is 2000, above high",
        ),
        (
            "response = { law = \"hyperexponential\", mean = \"2kB\", cv = 0.5 }",
            "hyperexponential: cv is 0.5",
        ),
        ("response = { size = \"1kB\", mean = \"1kB\" }", "`size` is a law of its own"),
        ("response = {}", "this needs `law` or `cdf`"),
        ("response = { law = \"websearch\", cdf = \"x.cdf\" }", "`law` or `cdf`, not both"),
        ("response = { cdf = \"x.cdf\" }", "dir/x.cdf is not read from a text without a folder"),
    ];
    for (keys, wanted) in cases {
        let found = broken("flows = 10", &format!("flows = 10\n{keys}"));
        let (_, message) = found.split_once(": ").unwrap();
        assert!(message.starts_with(wanted), "{keys}\n wanted {wanted}\n found  {found}");
    }
    let cases: &[(&str, &str)] = &[
        ("delay = { law = \"exponential\" }", "law `exponential` needs `mean`"),
        (
            "delay = { law = \"normal\", mean = \"1ms\", deviation = \"1ms\", low = \"1ms\" }",
            "law `normal` takes no `low`",
        ),
        ("delay = { law = \"uniform\", low = \"2ms\", high = \"1ms\" }", "`low` (2ms) is above `high` (1ms)"),
        ("delay = { law = \"exponential\", mean = \"2ms\" }\njitter = \"1ms\"", "`jitter` beside a law"),
        ("loss = { p = 0.1, r = 0.5 }", "the key `model` is missing in `link.slow.loss`"),
        ("queue = 0", "`link.slow.queue` is `0`, outside of 1 to 1000000"),
        ("queue = { kind = \"drop-tail\", packets = 5, bytes = \"5kB\" }", "`packets` or `bytes`, not both"),
        ("queue = { kind = \"drop-tail\", low = 5 }", "queue `drop-tail` takes no `low`"),
        ("queue = { kind = \"red\", low = 500 }", "low 500, high 150 and packets 1000 do not ascend"),
        ("mtu = 20", "`link.slow.mtu` is `20`, outside of 68 to 65535"),
        ("up = { rate = 5 }", "`link.slow.up.rate` is an integer, but takes a string; write it in quotes"),
    ];
    for (keys, wanted) in cases {
        let found = broken("delay = \"1ms\"\nloss = 0.01", keys);
        let (_, message) = found.split_once(": ").unwrap();
        assert!(message.starts_with(wanted), "{keys}\n wanted {wanted}\n found  {found}");
    }
}

#[test]
fn packets_that_would_go_in_circles_are_a_mistake() {
    let text = GOOD
        .replace("gateway = \"10.0.0.1\"", "gateway = \"10.0.0.5\"")
        .replace("10.0.0.3:80", "10.9.9.9:80");
    let routers = "[segment.wan]\nsubnet = \"10.1.0.0/30\"\nkind = \"cable\"\n\
        [router.r1]\nattach = [{ segment = \"lan\", address = \"10.0.0.5/24\" }, { segment = \"wan\", address = \"10.1.0.1/30\" }]\n\
        gateway = \"10.1.0.2\"\n\
        [router.r2]\nattach = [{ segment = \"wan\", address = \"10.1.0.2/30\" }]\n\
        gateway = \"10.1.0.1\"\n";
    let errors = parse(&format!("{text}\n{routers}")).unwrap_err();
    let found = errors.to_string();
    assert!(found.contains(": packets to 10.9.9.9 go in circles: r1, r2, r1; give one of them"), "{found}");
    assert_eq!(errors.0.len(), 1);
    // With a way out it is none.
    let out = routers.replace("gateway = \"10.1.0.1\"\n", "loopback = \"10.9.9.9\"\n");
    assert_eq!(parse(&format!("{text}\n{out}")).err(), None);
}

#[test]
fn several_mistakes_are_told_in_the_order_of_the_file() {
    let text = GOOD
        .replace("flows = 10", "flows = 0")
        .replace("loss = 0.01", "loss = -1.0")
        .replace("count = 2", "count = 0");
    let errors = parse(&text).unwrap_err();
    let lines: Vec<usize> = errors.0.iter().map(|error| error.line).collect();
    assert!(
        lines.is_sorted() && lines.contains(&9) && lines.contains(&23) && lines.contains(&29),
        "{errors}"
    );
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json[0]["line"], 9);
}

#[test]
fn overlapping_segments_and_no_load_are_mistakes() {
    let text = GOOD.replace("[host.client]", "[segment.wide]\nsubnet = \"10.0.0.0/16\"\n\n[host.client]");
    assert!(
        parse(&text)
            .unwrap_err()
            .to_string()
            .contains("10.0.0.0/16 overlaps the network of segment lan (10.0.0.0/24)")
    );
    let text = &GOOD[..GOOD.find("[load.web]").unwrap()];
    assert!(parse(text).unwrap_err().to_string().contains("nothing would happen"));
}

#[test]
fn files_that_cannot_be_read_are_told_as_such() {
    let errors = Scenario::load(Path::new("/nonexistent/x.toml")).unwrap_err();
    assert!(
        errors.to_string().starts_with("/nonexistent/x.toml:1:1: /nonexistent/x.toml is not readable"),
        "{errors}"
    );
    assert!(
        parse("").unwrap_err().to_string().contains("the key `scenario` is missing at the top of the file")
    );
    for junk in ["\u{0}", "[[[[", "a = 1e999", "é = 1", "scenario = 5"] {
        assert!(parse(junk).is_err(), "{junk}");
    }
    let errors = Scenario::load(Path::new("nat-two-nic")).unwrap_err().to_string();
    assert!(errors.contains("`evenkeel sim new nat-two-nic` writes"), "{errors}");
}

#[test]
fn expectations_take_numbers_and_texts() {
    let scenario = parse(&GOOD.replace("max = 0", "equals = 3")).unwrap();
    assert_eq!(scenario.expectations[0].equals, Some(Expected::Number(3.0)));
    let scenario =
        parse(&GOOD.replace("flows.broken", "wire_hash").replace("max = 0", "equals = \"ff\"")).unwrap();
    assert_eq!(scenario.expectations[0].equals, Some(Expected::Text("ff".to_owned())));
}

#[test]
fn flow_mode_refuses_what_is_about_packets() {
    let flow = GOOD.replacen("duration = \"10s\"", "duration = \"10s\"\nmode = \"flow\"", 1);
    assert!(parse(&flow).is_ok());
    let cases = [
        (
            "flows = 10",
            "flows = 10\ndeadline = \"1s\"",
            "load web: clients of flow mode wait without a deadline",
        ),
        ("flows.broken", "packets.lost", "flow mode does not measure `packets.lost`"),
        ("[[expect]]", "[capture]\nsegments = \"lan\"\n\n[[expect]]", "flow mode has no frames to capture"),
        (
            "[[expect]]",
            "[[timeline]]\nat = \"1s\"\ndo = \"reload\"\ntarget = \"lb\"\n\n[[expect]]",
            "flow mode has no `reload`",
        ),
    ];
    for (from, to, message) in cases {
        let errors = parse(&flow.replacen(from, to, 1)).expect_err(to);
        let text = errors.0[0].to_string();
        assert!(text.contains(message), "{text}");
        assert!(parse(&GOOD.replacen(from, to, 1)).is_ok(), "packet mode has it: {to}");
    }
}
