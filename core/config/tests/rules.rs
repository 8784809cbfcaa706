//! The text language of rules: its examples, its mistakes, and the way to tables and back.
#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "tests")]

use evenkeel_config::{Code, Loaded, Severity, parse, rules};
use evenkeel_engine::plan::{FlowAction, Plan, PolicyPlan};
use evenkeel_engine::policy::linear;
use evenkeel_engine::policy::{PolicyFlow, PolicyVerdict};
use evenkeel_engine::wire::{Address, FiveTuple, Protocol};
use evenkeel_engine::{InterfaceId, wire::tcp::Flags};
use proptest::prelude::*;

/// A configuration with two interfaces and a director that only flows lead to, around rules as text.
fn around(rules: &str) -> String {
    format!(
        "[interface.eth0]\nkind = 'ethernet'\naddress = ['192.168.0.254/24']\n\
         [interface.eth1]\nkind = 'ethernet'\n\
         [[route]]\nto = '0.0.0.0/0'\nvia = '192.168.0.1'\n\
         [director.maildirect]\nserver = [{{ name = 's', address = '10.0.0.20' }}]\n\
         [director.web]\nbind = '192.168.0.9:80/tcp'\nserver = [{{ name = 's', address = '10.0.0.20:80' }}]\n\
         [policy]\nrules = '''\n{rules}'''\n"
    )
}

fn loaded(rules: &str) -> Loaded {
    parse(&around(rules), "test.toml").unwrap_or_else(|found| panic!("{found}"))
}

fn flows(plan: &Plan) -> &[evenkeel_engine::plan::FlowPlan] {
    match plan.policies.as_slice() {
        [PolicyPlan::Rules(flows)] => flows,
        other => panic!("{other:?}"),
    }
}

fn packet(protocol: Protocol, source: &str, destination: &str, port: u16) -> PolicyFlow {
    let address = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
    let (source, destination) = (address(source), address(destination));
    let tuple = FiveTuple { source, destination, source_port: 40_000, destination_port: port, protocol };
    PolicyFlow { dscp: Some(0), ..PolicyFlow::new(0, tuple, InterfaceId(0)) }
}

fn verdict(plan: &Plan, packet: &PolicyFlow) -> PolicyVerdict {
    linear::evaluate(flows(plan), packet).unwrap()
}

const TCP: Protocol = Protocol::TCP;
const UDP: Protocol = Protocol::UDP;
const ICMP: Protocol = Protocol::ICMP;

#[test]
fn ssh_is_permitted_from_the_own_network_only() {
    let plan = loaded(
        "flow ssh permit\n  ignore not src 192.168.0.0/24\n  match proto tcp dst 192.168.0.1 dstport 22\n",
    )
    .plan;
    let ask = |source, destination, port| verdict(&plan, &packet(TCP, source, destination, port));
    assert_eq!(ask("192.168.0.7", "192.168.0.1", 22), PolicyVerdict::Permit);
    assert_eq!(ask("192.168.1.7", "192.168.0.1", 22), PolicyVerdict::Skip);
    assert_eq!(ask("192.168.0.7", "192.168.0.2", 22), PolicyVerdict::Skip);
    assert_eq!(ask("192.168.0.7", "192.168.0.1", 23), PolicyVerdict::Skip);
    assert_eq!(verdict(&plan, &packet(UDP, "192.168.0.7", "192.168.0.1", 22)), PolicyVerdict::Skip);
}

#[test]
fn dns_is_permitted_by_udp() {
    let plan = loaded("flow dns permit\n  match proto udp dst 192.168.0.1 dstport 53\n").plan;
    assert_eq!(verdict(&plan, &packet(UDP, "8.8.8.8", "192.168.0.1", 53)), PolicyVerdict::Permit);
    assert_eq!(verdict(&plan, &packet(TCP, "8.8.8.8", "192.168.0.1", 53)), PolicyVerdict::Skip);
    assert_eq!(verdict(&plan, &packet(UDP, "8.8.8.8", "192.168.0.1", 54)), PolicyVerdict::Skip);
}

#[test]
fn echo_replies_come_from_anywhere_and_other_messages_from_the_own_network() {
    let plan = loaded(
        "flow ping permit\n  match proto icmp dst 192.168.0.1 icmptype 0\n  ignore not src 192.168.0.0/24\n  \
         match proto icmp dst 192.168.0.1\n",
    )
    .plan;
    let ask = |source, destination, icmp_kind| {
        verdict(&plan, &PolicyFlow { icmp_kind, ..packet(ICMP, source, destination, 0) })
    };
    assert_eq!(ask("8.8.8.8", "192.168.0.1", 0), PolicyVerdict::Permit);
    assert_eq!(ask("8.8.8.8", "192.168.0.1", 8), PolicyVerdict::Skip);
    assert_eq!(ask("192.168.0.7", "192.168.0.1", 8), PolicyVerdict::Permit);
    assert_eq!(ask("192.168.0.7", "192.168.0.2", 8), PolicyVerdict::Skip);
    assert_eq!(ask("8.8.8.8", "192.168.0.2", 0), PolicyVerdict::Skip);
}

#[test]
fn mail_of_three_ports_goes_to_one_director() {
    let plan = loaded(
        "flow mail director maildirect\n  match proto tcp dst 192.168.0.2 dstport 110\n  \
         match proto tcp dst 192.168.0.2 dstport 143\n  match proto tcp dst 192.168.0.2 dstport 25\n",
    )
    .plan;
    for port in [110, 143, 25] {
        assert_eq!(verdict(&plan, &packet(TCP, "8.8.8.8", "192.168.0.2", port)), PolicyVerdict::Director(0));
    }
    assert_eq!(verdict(&plan, &packet(TCP, "8.8.8.8", "192.168.0.2", 111)), PolicyVerdict::Skip);
    assert_eq!(verdict(&plan, &packet(UDP, "8.8.8.8", "192.168.0.2", 25)), PolicyVerdict::Skip);
}

/// The network of the second interface as its service is set up, and the outflow, each on one line as the manual has it.
#[test]
fn answers_return_by_the_table_of_their_network() {
    const SERVICE: &str = "service network eth1\n  ip address 192.168.161.10/255.255.255.0\n  \
                           ip route default 192.168.161.1 table 200\n";
    let by_source = "outflow return-eth1 table 200 match proto tcp src 192.168.161.0/24 srcport 80\n";
    let plan = loaded(&format!("{SERVICE}{by_source}")).plan;
    assert_eq!((plan.tables[0].id, plan.tables[0].routes[0].interface), (200, InterfaceId(1)));
    assert_eq!(plan.tables[0].routes[0].gateway, Some("192.168.161.1".parse().unwrap()));
    assert_eq!(plan.interfaces[1].addresses[0].length, 24);
    let ask = |plan: &Plan, source: &str, port, interface| {
        let mut reply = packet(TCP, source, "8.8.8.8", 40_000);
        (reply.tuple.source_port, reply.interface) = (port, InterfaceId(interface));
        reply.flags = Flags(0x12);
        linear::evaluate(&plan.outflows, &reply).unwrap()
    };
    assert_eq!(ask(&plan, "192.168.161.9", 80, 0), PolicyVerdict::Table(0));
    assert_eq!(ask(&plan, "192.168.161.9", 81, 0), PolicyVerdict::Skip);
    assert_eq!(ask(&plan, "192.168.162.9", 80, 0), PolicyVerdict::Skip);
    let plan = loaded(&format!("{SERVICE}outflow return-eth1 table 200 match iface eth1\n")).plan;
    assert_eq!(ask(&plan, "192.168.162.9", 80, 1), PolicyVerdict::Table(0));
    assert_eq!(ask(&plan, "192.168.161.9", 80, 0), PolicyVerdict::Skip);
}

#[test]
fn all_the_rest_is_denied() {
    let plan = loaded("flow dns permit\nmatch proto udp dstport 53\nflow alltherest deny\nmatch\n").plan;
    assert_eq!(verdict(&plan, &packet(TCP, "8.8.8.8", "192.168.0.1", 1)), PolicyVerdict::Deny);
    assert_eq!(verdict(&plan, &packet(UDP, "8.8.8.8", "192.168.0.1", 53)), PolicyVerdict::Permit);
}

/// A text with one mistake: its code, line and column within the text, a part of the help.
type Mistake = (&'static str, Code, (usize, usize), &'static str);

const MISTAKES: &[Mistake] = &[
    ("flow abcdefghijklmnopqrstuvwxyz12 permit match", Code::BadName, (1, 6), "27"),
    ("flow a director wib match", Code::UnknownDirector, (1, 8), "`web`"),
    ("outflow a director web match", Code::Conflict, (1, 11), "`table ID`"),
    ("flow a permit\n match dstport 80", Code::PortWithoutProtocol, (2, 16), "`proto tcp`"),
    ("flow a permit match not proto tcp dstport 80", Code::PortWithoutProtocol, (1, 43), "`proto udp`"),
    ("flow a permit match proto icmp dstport 80", Code::PortWithoutProtocol, (1, 40), "`proto tcp`"),
    ("flow a permit match proto udp icmptype 8", Code::PortWithoutProtocol, (1, 40), "`proto icmp`"),
    ("flow a permit match proto udp tcpflags syn", Code::PortWithoutProtocol, (1, 40), "`proto tcp`"),
    ("flow a permit match proto tcp dstport 90:80", Code::BadPortRange, (1, 39), "lower port first"),
    ("flow a permit match src 10.0.0.0/33", Code::BadNetwork, (1, 25), "0 to 32"),
    ("flow a permit match src 10.0.0.0/255.0.255.0", Code::BadNetmask, (1, 25), "255.255.255.0"),
    ("flow a permit", Code::EmptyFlow, (1, 6), "a line `match`"),
    ("flow", Code::BadWord, (1, 1), "write `flow NAME permit`"),
    ("flwo a permit match", Code::BadWord, (1, 1), "did you mean `flow`?"),
    ("flow a permitt match", Code::BadWord, (1, 8), "`permit`, `deny`, `skip`, `director`, `table`"),
    ("flow a permit mtach proto tcp", Code::BadWord, (1, 15), "`match`, `ignore`"),
    ("flow a permit match prto tcp", Code::BadWord, (1, 21), "did you mean `proto`?"),
    ("flow a permit match proto tcq", Code::UnknownProtocol, (1, 27), "tcp"),
    ("flow a permit match proto", Code::BadWord, (1, 21), "`proto tcp`"),
    ("flow a permit match src 10.0.0.1 src 10.0.0.2", Code::DuplicateName, (1, 34), "commas"),
    ("flow a permit match iface eth7", Code::UnknownInterface, (1, 27), "eth"),
    ("flow a permit match src @nowhere", Code::UnknownSet, (1, 25), "set.NAME"),
    ("set p 80 443\nflow a permit match src @p", Code::UnknownSet, (2, 25), "set.NAME"),
    ("flow a table 7 match", Code::UnknownTable, (1, 8), "table = 7"),
    ("flow a component guard match", Code::UnknownComponent, (1, 8), "policy.component"),
    ("flow a component\n match", Code::BadWord, (1, 8), "`component NAME`"),
    ("outflow a component guard match", Code::Conflict, (1, 11), "make it a flow"),
    ("flow a permit match limit 9/d", Code::BadCondition, (1, 27), "per src"),
    ("flow a permit match proto icmp icmptype 256", Code::BadCondition, (1, 41), "0 to 255"),
    ("flow a permit match dscp best", Code::BadCondition, (1, 26), "`ef`"),
    ("outflow a permit match limit 9/s", Code::Conflict, (1, 30), "in a flow"),
    ("flow a permit match comment \"open", Code::BadWord, (1, 29), "double quote"),
    ("flow a permit match\nflow a deny match", Code::DuplicateName, (2, 6), "another name"),
    ("service network eth7\n ip address 10.0.0.1/24", Code::UnknownInterface, (1, 17), "eth"),
    ("director x 10.0.0.9:80 TCP\n balance leastcon", Code::BadWord, (2, 10), "did you mean `leastconn`?"),
    ("director x 10.0.0.9:80 SCTP", Code::BadWord, (1, 24), "`TCP`, `UDP`"),
];

#[test]
fn each_mistake_is_shown_where_it_is_with_what_is_allowed() {
    // The rules begin on the line behind the three quotes.
    let before = around("").lines().count() - 1;
    for (text, code, (line, column), help) in MISTAKES {
        let found = parse(&around(text), "test.toml").map(|loaded| loaded.plan).expect_err(text);
        let errors: Vec<_> = found.iter().filter(|one| one.severity() == Severity::Error).collect();
        let [first, ..] = errors.as_slice() else { panic!("{text}: {found}") };
        let (start, _) = first.place().unwrap();
        assert_eq!(
            (first.code(), start.line - before, start.column),
            (*code, *line, *column),
            "{text}:\n{found}"
        );
        assert!(first.to_string().contains(help), "{text}: no {help:?} in\n{first}");
    }
}

#[test]
fn much_garbage_is_refused_soon() {
    let mut state = 1_u64;
    let garbage: String = (0..3 << 20)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b' ' + u8::try_from(state >> 58).unwrap())
        })
        .collect();
    for text in [garbage.clone(), "flow ".repeat(500_000), "match ".repeat(500_000), "\n\"".repeat(500_000)] {
        assert!(rules::format(&text, "garbage").is_err());
    }
    let large = parse(&around(&garbage.repeat(4)), "large.toml").unwrap_err();
    assert_eq!(large.iter().next().unwrap().code(), Code::TooLarge);
}

#[test]
fn hidden_rules_are_shown_with_what_hides_them() {
    let warnings = |rules: &str| {
        let loaded = loaded(rules);
        let found = loaded.warnings.iter().map(|one| (one.code(), one.message().to_owned()));
        found
            .filter(|(code, _)| *code != Code::UnusedDirector && *code != Code::NoDefaultRoute)
            .collect::<Vec<_>>()
    };
    let hidden = warnings(
        "flow wide deny\n match src 10.0.0.0/8\nflow narrow permit\n match proto tcp src 10.1.0.0/16 dstport 22\n match\n",
    );
    assert_eq!(hidden.len(), 1);
    assert_eq!(hidden[0].0, Code::ShadowedRule);
    assert!(hidden[0].1.contains("rule 1 of the flow `narrow`") && hidden[0].1.contains("rule 1 of `wide`"));
    for silent in [
        "flow wide deny\n ignore src 10.1.0.0/24\n match src 10.0.0.0/8\nflow narrow permit\n match src 10.1.0.0/16\n",
        "flow some deny\n match limit 9/s\nflow rest permit\n match\n",
        "flow off skip\n match\nflow rest permit\n match\n",
        "flow tcp deny\n match proto tcp\nflow rest permit\n match\n",
    ] {
        assert_eq!(warnings(silent), [], "{silent}");
    }
    for (dead, code) in [
        ("flow a permit\n ignore src 10.0.0.0/8\n match src 10.1.0.0/16\n", Code::ShadowedRule),
        ("flow a permit\n match src 10.0.0.0/8 not src 10.0.0.0/7\n", Code::NeverHolds),
        (
            "flow a permit\n match src 10.0.0.0/9,10.128.0.0/9\nflow b permit\n match src 10.0.0.0/8\n",
            Code::ShadowedRule,
        ),
        ("flow a permit\n match\n ignore src 10.0.0.0/8\n", Code::ShadowedRule),
    ] {
        assert_eq!(warnings(dead).iter().map(|(code, _)| *code).collect::<Vec<_>>(), [code], "{dead}");
    }
    let unused =
        loaded("flow all deny\n match\nflow mail director maildirect\n match proto tcp dstport 25\n");
    let unused: Vec<_> = unused.warnings.iter().filter(|one| one.code() == Code::UnusedDirector).collect();
    assert!(unused.len() == 2 && unused[0].message().contains("maildirect"), "{unused:?}");
    assert!(unused[1].message().contains("`web` gets no packets: rule 1 of `all` takes all"), "{unused:?}");
}

#[test]
fn rules_that_hide_another_together_are_named() {
    let hidden = |rules: &str| {
        let loaded = loaded(rules);
        let found = loaded.warnings.iter().filter(|one| one.code() == Code::ShadowedRule);
        found.map(|one| one.message().to_owned()).collect::<Vec<_>>()
    };
    let rest = "flow rest director maildirect\n match proto tcp src 10.0.0.0/8\n";
    let halves =
        format!("flow a deny\n match src 10.0.0.0/9\nflow b permit\n match src 10.128.0.0/9\n{rest}");
    let words = "rule 1 of the flow `rest` decides about no packet: rule 1 of `a` and rule 1 of `b` together take them all";
    assert!(hidden(&halves).len() == 1 && hidden(&halves)[0].starts_with(words), "{:?}", hidden(&halves));
    let cut =
        "flow a deny\n match src 10.0.0.0/8 not dst 10.0.0.1\nflow b permit\n match proto tcp dst 10.0.0.1\n";
    assert_eq!(hidden(&format!("{cut}{rest}")).len(), 1);
    let own = "flow a permit\n ignore proto tcp dstport 1:99\n match proto tcp dstport 100:200\n \
               match proto tcp dstport 50:150\n";
    assert!(
        hidden(own)[0].contains("rule 3 of the flow `a`")
            && hidden(own)[0].contains("rule 1 of `a` and rule 2")
    );
    for silent in [
        // A packet is left between them, a limit may hold or not, a flow is left by what it ignores.
        "flow a deny\n match src 10.0.0.0/9\nflow b permit\n match src 10.128.0.0/10\n",
        "flow a deny\n match src 10.0.0.0/9\nflow b permit\n match src 10.128.0.0/9 limit 9/s\n",
        "flow a deny\n ignore dst 10.0.0.9\n match src 10.0.0.0/9\nflow b permit\n match src 10.128.0.0/9\n",
        "flow a deny\n match src 10.0.0.0/9\nflow b skip\n match src 10.128.0.0/9\n",
    ] {
        assert_eq!(hidden(&format!("{silent}{rest}")), [] as [&str; 0], "{silent}");
    }
}

#[test]
fn directors_that_no_flow_lets_packets_to_are_shown() {
    let shut = |rules: &str, policy: &str| {
        let text = around(rules).replace("[policy]\n", &format!("[policy]\n{policy}\n"));
        let loaded = parse(&text, "shut.toml").unwrap_or_else(|found| panic!("{found}"));
        let found = loaded.warnings.iter().filter(|one| one.code() == Code::UnusedDirector);
        let web = found.map(|one| one.message().to_owned()).find(|one| one.contains("`web`"));
        web.unwrap_or_default()
    };
    let deny = "default = 'deny'";
    assert!(shut("flow a permit\n match proto udp\n", deny).contains("`policy.default` denies them"));
    let elsewhere = "flow a director maildirect\n match proto tcp\n";
    assert!(shut(elsewhere, "").contains("rule 1 of `a` takes all of those that are for it"));
    let both = "flow a deny\n match src 0.0.0.0/1\nflow b deny\n match src 128.0.0.0/1\n\
                flow c deny\n match src ::/0\n";
    assert!(shut(both, "").contains("together take all"), "{}", shut(both, ""));
    for (open, policy) in [
        ("flow a permit\n match proto tcp src 10.0.0.7\n", deny),
        ("flow a director web\n match proto udp\nflow b deny\n match\n", ""),
        ("flow a deny\n match limit 9/s\n", ""),
        ("flow a deny\n ignore src 10.0.0.7\n match\n", ""),
        ("flow a deny\n match src 0.0.0.0/1\n", ""),
    ] {
        assert_eq!(shut(open, policy), "", "{open}");
    }
    // A component may lead to any director.
    let component = "[[policy.component]]\nname = 'g'\ncomponent = 'bundled:geo-prefix'\n";
    let text = around("flow a deny\n match src 10.0.0.7\nflow b component g\n match\nflow c deny\n match\n");
    let loaded = parse(&(text + component), "guest.toml").unwrap_or_else(|found| panic!("{found}"));
    assert!(!loaded.warnings.iter().any(|one| one.code() == Code::UnusedDirector), "{}", loaded.warnings);
}

#[test]
fn directors_of_a_text_are_directors() {
    let text = "director exchange 10.0.0.9:443 TCP\n  balance roundrobin\n  mode gateway\n  \
                check interval 10 timeout 2\n  option tcpcheck\n  \
                server ex1 10.0.0.13:443 weight 10 check\n  server ex2 10.0.0.14:443 weight 10 check\n\
                director sticky 10.0.0.8:53 udp\n  option persistence timeout 60 netmask 255.255.255.0\n  \
                server s 10.0.0.13\ndirector fed\n  server s 10.0.0.15\n\
                flow feed director fed\n  match proto udp dstport 5000:5999\n";
    let loaded = loaded(text);
    let names: Vec<_> = loaded.plan.directors.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["maildirect", "web", "exchange", "sticky", "fed"]);
    let exchange = &loaded.plan.directors[2];
    assert_eq!(exchange.binds[0].to_string(), "10.0.0.9:443/tcp");
    assert_eq!((exchange.servers.len(), exchange.servers[0].weight), (2, 10));
    let persistence = loaded.plan.directors[3].persistence.unwrap();
    assert_eq!((persistence.timeout.as_secs(), persistence.length_v4), (60, 24));
    assert_eq!(flows(&loaded.plan)[0].action, FlowAction::Director(4));
    let not_kept = loaded.warnings.iter().filter(|one| one.code() == Code::NotKept).count();
    assert_eq!(not_kept, 4, "two lines and two servers speak of checks:\n{}", loaded.warnings);
}

#[test]
fn sets_come_from_lines_tables_and_files() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("rules-of-sets");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("bots.txt"), "198.51.100.0/24 # seen\n203.0.113.9\n\n2001:db8::/32\n")
        .unwrap();
    std::fs::write(
        folder.join("more.rules"),
        "set web 80 443\n  8000:8999\nset bots file bots.txt\nflow bots deny\n  match src @bots,@office\n\
         flow web permit\n  match proto tcp dstport @web,25\n",
    )
    .unwrap();
    let text = around("")
        .replace("rules = '''\n'''", "file = 'more.rules'\n[set.office]\naddresses = '192.0.2.0/24'");
    let path = folder.join("evenkeel.toml");
    std::fs::write(&path, &text).unwrap();
    let plan = evenkeel_config::load(&path).unwrap_or_else(|found| panic!("{found}")).plan;
    for source in ["198.51.100.200", "203.0.113.9", "192.0.2.1"] {
        assert_eq!(verdict(&plan, &packet(UDP, source, "10.0.0.1", 1)), PolicyVerdict::Deny, "{source}");
    }
    assert_eq!(verdict(&plan, &packet(UDP, "203.0.113.8", "10.0.0.1", 1)), PolicyVerdict::Skip);
    for (port, expected) in
        [(25, PolicyVerdict::Permit), (8_500, PolicyVerdict::Permit), (9_000, PolicyVerdict::Skip)]
    {
        assert_eq!(verdict(&plan, &packet(TCP, "8.8.8.8", "10.0.0.1", port)), expected, "{port}");
    }
    // A mistake in a file is shown there; a text alone reads none.
    std::fs::write(folder.join("bots.txt"), "198.51.100.0/24\n203.0.113.900\n").unwrap();
    let found = evenkeel_config::load(&path).unwrap_err();
    let first = found.iter().next().unwrap();
    assert!(first.file().ends_with("bots.txt"), "{found}");
    assert_eq!(first.place().unwrap().0.line, 2);
    let found = parse(&text, "alone.toml").unwrap_err();
    assert_eq!(found.iter().map(|one| one.code()).collect::<Vec<_>>(), [Code::Unreadable]);
}

#[test]
fn a_text_is_printed_in_one_form_with_its_comments() {
    let text = "# Who may come in.\nflow ssh permit ignore not src 192.168.0.0/24 # the office\n  \
                match   proto tcp dstport 22 comment \"a \\\"b\\\"\"\n\n\n# The rest.\nflow rest deny match\n# End\n";
    let printed = "# Who may come in.\n# the office\nflow ssh permit\n  ignore not src 192.168.0.0/24\n  \
                   match proto tcp dstport 22 comment \"a \\\"b\\\"\"\n\n# The rest.\nflow rest deny\n  match\n\n# End\n";
    assert_eq!(rules::format(text, "t").unwrap(), printed);
    assert_eq!(rules::format(printed, "t").unwrap(), printed);
    let (tables, _) = rules::to_tables(text, "t").unwrap();
    assert!(tables.contains("# The rest.\n[[flow]]\nname = \"rest\"\npolicy = \"deny\""), "{tables}");
}

#[test]
fn what_needs_quotes_keeps_them() {
    for text in
        ["set names\n  a \",\" b\n", "flow f permit\n  match src \"a,b\"\n", "set names\n  a \"\" \"#\"\n"]
    {
        assert_eq!(rules::format(text, "t").unwrap(), text);
    }
    for policy in ["table \"a # b\"", "director \"a b\"", "table 200"] {
        let text = format!("flow f {policy}\n  match\n");
        assert_eq!(rules::format(&text, "t").unwrap(), text);
    }
    let flags = "flow f permit\n  match proto tcp tcpflags syn/syn,ack\n";
    assert_eq!(rules::format(flags, "t").unwrap(), flags);
}

#[test]
fn lines_of_a_set_are_measured_as_they_are_printed() {
    // A control character of two bytes is printed as a space.
    for count in 1..60 {
        let text = format!("set names\n  {}", "\"a\u{87},b\" c\n".repeat(count));
        let printed = rules::format(&text, "t").unwrap();
        assert_eq!(rules::format(&printed, "t").unwrap(), printed);
        assert!(printed.lines().all(|line| line.len() <= 99), "{printed}");
    }
}

/// A rule in words, of conditions that all parts of the language have.
fn rule() -> impl Strategy<Value = String> {
    let pick = |words: &'static [&'static str]| prop::sample::select(words.to_vec());
    let addresses =
        pick(&["10.0.0.0/8", "192.0.2.7", "fc00::/7", "10.0.0.0/8,192.0.2.7", "@net", "@net,10.0.0.1"]);
    let ports = pick(&["80", "80:90", "80,443", "@web", "1:2,@web"]);
    let named = [
        prop::option::of(pick(&["iface eth0", "not iface eth1", "iface eth0 not iface eth1"])).boxed(),
        prop::option::of(
            (pick(&["src", "not src", "dst", "not dst"]), addresses)
                .prop_map(|(name, value)| format!("{name} {value}")),
        )
        .prop_map(|text| text.map(|text| &*text.leak()))
        .boxed(),
        prop::option::of(
            (pick(&["proto tcp srcport", "proto udp dstport", "proto tcp not dstport"]), ports)
                .prop_map(|(name, value)| format!("{name} {value}")),
        )
        .prop_map(|text| text.map(|text| &*text.leak()))
        .boxed(),
        prop::option::of(pick(&[
            "dscp ef,46",
            "not dscp 7",
            "limit 9/s",
            "not limit 1000/m burst 5 per src/24",
        ]))
        .boxed(),
        prop::option::of(pick(&["comment \"why not\"", "comment \"a \\\\ \\\"b\\\" # c\""])).boxed(),
    ];
    (prop::bool::ANY, named).prop_map(|(is_match, conditions)| {
        let kind = if is_match { "match" } else { "ignore" };
        [Some(kind)].into_iter().chain(conditions).flatten().collect::<Vec<_>>().join(" ")
    })
}

fn sheet() -> impl Strategy<Value = String> {
    let policy = prop::sample::select(vec!["", " permit", " deny", " skip", " director web", " table 200"]);
    let flow = (policy, prop::collection::vec(rule(), 1..5));
    prop::collection::vec(flow, 1..6).prop_map(|flows| {
        let mut text = String::from(
            "service network eth1\n  ip route default 192.168.161.1 table 200\nset net 10.1.0.0/16 2001:db8::/32\nset web 80 443 8000:8999\n",
        );
        for (number, (policy, rules)) in flows.iter().enumerate() {
            text.push_str(&format!("flow f{number}{policy}\n  {}\n", rules.join("\n  ")));
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn text_and_tables_say_the_same(text in sheet()) {
        let printed = rules::format(&text, "t").unwrap();
        prop_assert_eq!(&rules::format(&printed, "t").unwrap(), &printed, "printing again changes nothing");
        let (tables, _) = rules::to_tables(&text, "t").unwrap();
        let plain = around("").replace("[policy]\nrules = '''\n'''\n", "");
        let by_tables = parse(&format!("{plain}\n{tables}"), "tables.toml").unwrap_or_else(|found| panic!("{found}\n{tables}")).plan;
        prop_assert_eq!(&by_tables, &loaded(&text).plan);
        prop_assert_eq!(&by_tables, &loaded(&printed).plan);
        let back = rules::of_tables(&format!("{plain}\n{tables}"), "tables.toml").unwrap();
        let (again, _) = rules::to_tables(&back, "back").unwrap();
        let without_routes = |text: &str| text[text.find("[set").unwrap()..].to_owned();
        prop_assert_eq!(without_routes(&again), without_routes(&tables));
    }

    #[test]
    fn any_text_is_read_without_panic(text in "\\PC{0,200}", words in prop::collection::vec(
        prop::sample::select(vec![
            "flow", "outflow", "director", "set", "service", "network", "ip", "route", "match", "ignore", "not", "src", "proto",
            "tcp", "dstport", "80", "limit", "9/s", "per", "burst", "comment", "\"x", "\"", "#", "\n", "server", "option",
            "persistence", "netmask", "balance", "weight", "@a", ",", "table", "permit", "é",
        ]), 0..60))
    {
        for text in [text, words.join(" ")] {
            let _ = rules::format(&text, "t");
            let _ = parse(&around(&text), "t");
            if let Ok(printed) = rules::format(&text, "t") {
                prop_assert_eq!(rules::format(&printed, "t").unwrap(), printed);
            }
        }
    }
}
