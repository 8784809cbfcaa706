//! Scenario files that are wrong: each mistake is told with line and column, and what was probably meant.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;

use evenkeel_sim::Scenario;
use evenkeel_sim::scenario::{Arrivals, Expected, Extent, ScenarioErrors};

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
    assert_eq!(scenario.hosts[1].attachments[0].address.to_string(), "10.0.0.11");
    assert_eq!(scenario.forwarders[0].config, Path::new("dir/evenkeel.toml"));
    assert_eq!(scenario.seed, 1);
    assert_eq!(scenario.loads[0].clients, [0, 1]);
    assert_eq!(scenario.loads[0].extent, Extent::Flows(10));
    assert!(
        matches!(scenario.loads[0].arrivals, Arrivals::Poisson { mean_gap } if mean_gap.as_millis() == 10)
    );
    assert_eq!(scenario.quality(0, 0).loss_millionths, 10_000);
    assert_eq!(scenario.quality(2, 0).loss_millionths, 0);
    assert!(scenario.is_client(0) && !scenario.is_client(2));
    assert_eq!(scenario.expectations[0].max, Some(0.0));
}

#[test]
fn each_mistake_has_its_place_and_its_words() {
    let cases: &[(&str, &str, &str)] = &[
        (
            "count = 2",
            "cuont = 2",
            "9:1: unknown field `cuont`, expected one of `count`, `attach`, `gateway`; did you mean \"count\"?",
        ),
        ("count = 2", "count = 0", "9:9: count 0 is outside"),
        ("count = 2", "count = 70000", "9:9: count 70000 is outside"),
        ("count = 2", "count = 250", "10:40: the address of client.245 is no host of lan"),
        ("count = 2", "count = \"two\"", "9:9: invalid type: string"),
        ("count = 2\n", "", "9:40: client: \"+i\" needs a count"),
        ("10.0.0.10+i/24", "10.0.0.10/24", "10:40: client.1: several hosts need \"+i\""),
        ("10.0.0.10+i/24", "10.0.0.10+i/25", "10:40: /25 here, but lan is a /24"),
        ("10.0.0.2/24", "10.0.0.11/24", "14:40: client.1 and server both have the address 10.0.0.11"),
        ("10.0.0.2/24", "10.0.0.255/24", "14:40: the address of server is no host"),
        (
            "\"lan\", address = \"10.0.0.2",
            "\"lam\", address = \"10.0.0.2",
            "14:23: no segment \"lam\"; did you mean \"lan\"?",
        ),
        (
            "attach = [{ segment = \"lan\", address = \"10.0.0.2/24\" }]",
            "attach = []",
            "14:10: server is attached to nothing",
        ),
        ("10.0.0.0/24", "10.0.0.7/24", "6:10: the subnet has host bits; the network is 10.0.0.0/24"),
        ("10.0.0.0/24", "10.0.0.0/31", "6:10: a subnet is a network"),
        ("gateway = \"10.0.0.1\"", "gateway = \"10.0.0.99\"", "11:11: nobody has the gateway's address"),
        (
            "gateway = \"10.0.0.1\"",
            "gateway = \"10.9.0.1\"",
            "11:11: gateway 10.9.0.1 is on no segment of client",
        ),
        ("gateway = \"10.0.0.1\"", "gateway = \"router\"", "11:11: \"router\" is not an IPv4 address"),
        ("config = \"evenkeel.toml\"", "config = \"\"", "18:10: the path of the configuration file is empty"),
        ("ends = [\"client*\", \"lan\"]", "ends = [\"lan\"]", "21:8: ends are two"),
        ("ends = [\"client*\", \"lan\"]", "ends = [\"x*\", \"lan\"]", "21:9: no machine \"x*\" on lan"),
        ("delay = \"1ms\"", "delay = \"1 fortnight\"", "22:9: \"1 fortnight\" is not a duration"),
        ("delay = \"1ms\"", "delay = \"2m\"", "22:9: \"2m\" is outside"),
        ("loss = 0.01", "loss = 1.5", "23:8: loss 1.5 is outside of 0 to 1"),
        ("from = \"client*\"", "from = \"clients\"", "26:8: no host \"clients\"; did you mean \"client\"?"),
        ("10.0.0.3:80/tcp", "10.0.0.3:80", "27:6: \"10.0.0.3:80\" is not a service"),
        (
            "process = \"poisson\"",
            "process = \"poison\"",
            "28:24: no arrival process \"poison\"; did you mean \"poisson\"?",
        ),
        ("rate = \"100/s\"", "outstanding = 5", "28:12: process \"poisson\" needs rate"),
        ("flows = 10", "flows = 10\nduration = \"1s\"", "30:12: flows or duration, not both"),
        ("flows = 10", "", "25:7: load web needs flows or duration"),
        ("flows = 10", "flows = 0", "29:9: flows 0 is outside"),
        ("flows = 10", "flows = 10\nrequest = { size = \"8B\" }", "30:20: 8 bytes are outside"),
        ("flows = 10", "flows = 10\nrounds = 0", "30:10: rounds 0 is outside"),
        ("flows.broken", "flow.broken", "32:10: no metric \"flow.broken\"; did you mean \"flows.broken\"?"),
        ("max = 0", "", "31:1: an expectation needs min, max or equals"),
        ("max = 0", "equals = [1]", "33:10: equals is a number or a text"),
        ("duration = \"10s\"", "duration = \"0s\"", "3:12: \"0s\" is outside"),
        ("duration = \"10s\"", "duration = \"30d\"", "3:12: \"30d\" is outside"),
        ("name = \"good\"", "name = \"a/b\"", "2:8: scenario name \"a/b\": names have"),
        ("name = \"good\"", "name = \"", "2:"),
        ("[host.server]", "[host.client]", "13:"),
    ];
    for (from, to, wanted) in cases {
        let found = broken(from, to);
        assert!(found.starts_with(wanted), "{to}\n wanted {wanted}\n found  {found}");
    }
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
    assert!(parse(&text).unwrap_err().to_string().contains("segments lan and wide overlap"));
    let text = &GOOD[..GOOD.find("[load.web]").unwrap()];
    assert!(parse(text).unwrap_err().to_string().contains("nothing would happen"));
}

#[test]
fn files_that_cannot_be_read_are_told_as_such() {
    let errors = Scenario::load(Path::new("/nonexistent/x.toml")).unwrap_err();
    assert!(errors.to_string().starts_with("/nonexistent/x.toml:1:1: not readable"), "{errors}");
    assert!(parse("").unwrap_err().to_string().contains("missing field `scenario`"));
    for junk in ["\u{0}", "[[[[", "a = 1e999", "é = 1", "scenario = 5"] {
        assert!(parse(junk).is_err(), "{junk}");
    }
}

#[test]
fn expectations_take_numbers_and_texts() {
    let scenario = parse(&GOOD.replace("max = 0", "equals = 3")).unwrap();
    assert_eq!(scenario.expectations[0].equals, Some(Expected::Number(3.0)));
    let scenario =
        parse(&GOOD.replace("flows.broken", "wire_hash").replace("max = 0", "equals = \"ff\"")).unwrap();
    assert_eq!(scenario.expectations[0].equals, Some(Expected::Text("ff".to_owned())));
}
