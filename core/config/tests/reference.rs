//! The page of the book is the one that the types give, and its example is true.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use std::path::PathBuf;

use evenkeel_config::{Plan, parse, reference, schema};

fn committed() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/src/reference/configuration.md")
}

#[test]
fn the_reference_page_is_up_to_date() {
    let page = reference::page();
    if std::env::var_os("EVENKEEL_WRITE_DOCS").is_some() {
        std::fs::write(committed(), &page).unwrap();
    }
    let committed = std::fs::read_to_string(committed()).unwrap_or_default();
    assert!(
        committed == page,
        "run EVENKEEL_WRITE_DOCS=1 cargo test -p evenkeel-config --test all reference, and look at the difference"
    );
}

/// Every path of keys in a schema, with `*` for a name of the user's choice.
fn paths(schema: &serde_json::Value, path: &str, all: &mut Vec<String>) {
    for (key, below) in schema.get("properties").and_then(|all| all.as_object()).into_iter().flatten() {
        let path = format!("{path}.{key}");
        paths(below, &path, all);
        all.push(path);
    }
    for key in ["items", "additionalProperties"] {
        schema.get(key).into_iter().for_each(|below| paths(below, path, all));
    }
    for below in schema.get("anyOf").and_then(|all| all.as_array()).into_iter().flatten() {
        paths(below, path, all);
    }
}

#[test]
fn the_example_has_every_key() {
    let mut all = Vec::new();
    paths(schema(), "", &mut all);
    assert!(all.len() > 60, "{all:?}");
    for path in all {
        let key = path.rsplit('.').next().unwrap();
        let is_there = reference::EXAMPLE.lines().any(|line| {
            let header = line.trim_matches(['[', ']']);
            line.starts_with('[') && header.split('.').any(|part| part == key)
                || line.split([' ', '{', ',']).any(|word| word == key)
        });
        assert!(is_there, "{path} is missing in the example");
    }
}

#[test]
fn the_example_is_accepted_without_a_warning() {
    let loaded = parse(reference::EXAMPLE, "example.toml").unwrap_or_else(|found| panic!("{found}"));
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

/// The documented defaults, set one by one, change nothing.
#[test]
fn the_documented_defaults_are_the_real_ones() {
    let sections = [
        ("forwarder", "[forwarder]"),
        ("limits", "[limits]"),
        ("timeouts", "[timeouts]"),
        ("handling", "[handling]"),
        ("policy", "[policy]"),
    ];
    let rest = "[interface.tun0]\nkind = 'tun'\n[director.web]\nbind = '10.0.0.3:80/tcp'\n\
                server = [{ name = 's1', address = '10.0.3.20:80' }]\n";
    let bare = parse(rest, "bare.toml").unwrap();
    let mut tried = 0;
    for (name, header) in sections {
        let properties = &schema()["properties"][name]["properties"];
        for (key, property) in properties.as_object().unwrap() {
            let Some(default) = property.get("default") else { continue };
            tried += 1;
            let text = format!("{header}\n{key} = {default}\n{rest}");
            let loaded = parse(&text, "default.toml").unwrap_or_else(|found| panic!("{found}"));
            assert_eq!(loaded.plan, bare.plan, "{name}.{key}");
            assert_eq!(loaded.forwarder, bare.forwarder, "{name}.{key}");
        }
    }
    assert_eq!(tried, 27, "a section or a default was added: try it here");
}

fn plan(text: &str) -> Plan {
    parse(text, "plan.toml").unwrap_or_else(|found| panic!("{found}")).plan
}

/// Interfaces, directors and components that say only what they must.
const SHORT: &str = "[interface.tun0]\nkind = 'tun'\naddress = ['10.99.0.1/24']\n\
         [director.a]\nbind = '10.0.0.3:80/tcp'\nsnat = { address = '10.99.0.1' }\n\
         server = [{ name = 's', address = '10.0.3.20:80' }]\n\
         [director.b]\nbind = '10.0.0.3:81/tcp'\nscheduler = { component = 'bundled:maglev' }\n\
         persistence = {}\nserver = [{ name = 's', address = '10.0.3.20:80' }]\n\
         [director.c]\nbind = '10.0.0.3:82/tcp'\nmode = 'tunnel'\n\
         server = [{ name = 's', address = '10.0.3.20' }]\n\
         [director.d]\nbind = '10.0.0.3:83/tcp'\nmode = 'tunnel'\ntunnel = { encapsulation = 'gue' }\n\
         server = [{ name = 's', address = '10.0.3.20' }]\n\
         [[policy.component]]\nname = 'g'\ncomponent = 'bundled:rate-guard'\n\
         [[flow]]\nname = 'f'\nrule = [{ match = {} }]\n";

#[test]
fn the_documented_defaults_of_interfaces_directors_and_components_are_the_real_ones() {
    let short = plan(SHORT);
    let director = &schema()["properties"]["director"]["additionalProperties"]["properties"];
    let default = |schema: &serde_json::Value, key: &str| {
        assert!(!schema[key]["default"].is_null(), "{key} has no default in {schema}");
        schema[key]["default"].to_string()
    };
    let component = &director["scheduler"]["anyOf"][1]["properties"];
    let policy = &schema()["properties"]["policy"]["properties"]["component"]["items"]["properties"];
    let interface = &schema()["properties"]["interface"]["additionalProperties"]["properties"];
    let server = &director["server"]["items"]["properties"];
    let flow = &schema()["properties"]["flow"]["items"]["properties"];
    let tunnel = &director["tunnel"]["properties"];
    let stickiness = &director["persistence"]["anyOf"][1]["properties"];
    let answers = format!(
        "mid_stream = {}\nping = {}\none_packet = {}\n",
        default(director, "mid_stream"),
        default(director, "ping"),
        default(director, "one_packet")
    );
    let long = plan(&format!(
        "[interface.tun0]\nkind = 'tun'\naddress = ['10.99.0.1/24']\nmtu = {}\n\
         [director.a]\nbind = '10.0.0.3:80/tcp'\nmode = {}\nscheduler = {}\n{answers}\
         snat = {{ address = '10.99.0.1', ports = {} }}\n\
         server = [{{ name = 's', address = '10.0.3.20:80', weight = {}, max_flows = {}, min_flows = {} }}]\n\
         [director.b]\nbind = '10.0.0.3:81/tcp'\nmode = 'nat'\n\
         scheduler = {{ component = 'bundled:maglev', fallback = {}, budget = {}, memory = {} }}\n\
         persistence = {{ timeout = {}, netmask = {}, netmask6 = {} }}\n\
         server = [{{ name = 's', address = '10.0.3.20:80' }}]\n\
         [director.c]\nbind = '10.0.0.3:82/tcp'\nmode = 'tunnel'\n\
         tunnel = {{ encapsulation = {}, checksum = {} }}\n\
         server = [{{ name = 's', address = '10.0.3.20' }}]\n\
         [director.d]\nbind = '10.0.0.3:83/tcp'\nmode = 'tunnel'\n\
         tunnel = {{ encapsulation = 'gue', port = {} }}\n\
         server = [{{ name = 's', address = '10.0.3.20' }}]\n\
         [[policy.component]]\nname = 'g'\ncomponent = 'bundled:rate-guard'\n\
         on_fault = {}\nbudget = {}\nmemory = {}\n\
         [[flow]]\nname = 'f'\npolicy = {}\nrule = [{{ match = {{}} }}]\n",
        default(interface, "mtu"),
        default(director, "mode"),
        default(director, "scheduler"),
        default(&director["snat"]["anyOf"][0]["properties"], "ports"),
        default(server, "weight"),
        default(server, "max_flows"),
        default(server, "min_flows"),
        default(component, "fallback"),
        default(component, "budget"),
        default(component, "memory"),
        default(stickiness, "timeout"),
        default(stickiness, "netmask"),
        default(stickiness, "netmask6"),
        default(tunnel, "encapsulation"),
        default(tunnel, "checksum"),
        default(tunnel, "port"),
        default(policy, "on_fault"),
        default(policy, "budget"),
        default(policy, "memory"),
        default(flow, "policy"),
    ));
    assert_eq!(short, long);
}
