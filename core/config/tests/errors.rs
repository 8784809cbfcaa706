//! Every kind of mistake: found, at the right line and column, with the right advice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

use evenkeel_config::{Code, Diagnostic, Diagnostics, Severity, load, parse};

/// An interface and a director that are right; cases follow it, so that their first line is line 9.
const GOOD: &str = r#"[interface.tun0]
kind = "tun"
[director.web]
bind = "10.0.0.3:80/tcp"
[[director.web.server]]
name = "s1"
address = "10.0.3.20:80"

"#;

/// A case: the code, the line and column, a part of the help, and the text.
type Case = (Code, (usize, usize), &'static str, &'static str);

fn found(text: &str) -> Diagnostics {
    match parse(text, "evenkeel.toml") {
        Ok(loaded) => loaded.warnings,
        Err(found) => found,
    }
}

fn line_and_column(diagnostic: &Diagnostic) -> (usize, usize) {
    diagnostic.place().map_or((0, 0), |(start, _)| (start.line, start.column))
}

/// What is wrong with what was found for `text`; nothing when it is right.
fn mismatch(text: &str, code: Code, place: (usize, usize), help: &str) -> Option<String> {
    let found = found(text);
    let rendered = found.render(false);
    let [only] = found.iter().collect::<Vec<_>>()[..] else {
        return Some(format!("exactly one of {} in\n{text}\n{rendered}", code.name()));
    };
    let actual = (only.code(), line_and_column(only));
    if actual != (code, place) {
        return Some(format!("{:?} is not {:?}\n{text}\n{rendered}", actual, (code, place)));
    }
    let is_advised = only.help_text().unwrap_or("").contains(help) || rendered.contains(help);
    let is_right = is_advised && rendered.contains(&format!("[{}]", code.name()));
    (!is_right).then(|| format!("{help:?} is missing in\n{rendered}"))
}

fn check(cases: &[Case], wrap: fn(&str) -> String) {
    let wrong: Vec<_> = cases
        .iter()
        .filter_map(|(code, place, help, text)| mismatch(&wrap(text), *code, *place, help))
        .collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n---\n"));
}

/// Cases that follow `GOOD`.
const AFTER_GOOD: &[Case] = &[
    (Code::UnknownKey, (9, 2), "did you mean `forwarder`?", "[forwader]"),
    (Code::UnknownKey, (10, 1), "did you mean `setup`?", "[forwarder]\nsetpu = 'auto'"),
    (Code::UnknownKey, (10, 1), "the keys here are `control`, `io`", "[forwarder]\ncolour = 'red'"),
    (Code::UnknownValue, (10, 9), "did you mean `manual`?", "[forwarder]\nsetup = 'manuel'"),
    (Code::UnknownValue, (10, 6), "`auto`, `io_uring`, `epoll`", "[forwarder]\nio = 'dpdk'"),
    (Code::WrongType, (10, 8), "without quotes", "[forwarder]\nseed = '7'"),
    (Code::OutOfRange, (10, 8), "from 0 to 9223372036854775807", "[forwarder]\nseed = -1"),
    (Code::OutOfRange, (10, 8), "from 0", "[forwarder]\nseed = 99999999999999999999999999999999999999999"),
    (Code::OutOfRange, (10, 11), "/run/evenkeel/evenkeel.sock", "[forwarder]\ncontrol = ''"),
    (Code::OutOfRange, (10, 9), "from 1 to 16777216", "[limits]\nflows = 0"),
    (Code::OutOfRange, (10, 22), "from 0 to 1000000", "[limits]\nanswers_per_second = 1000001"),
    (Code::WrongType, (10, 9), "write an integer", "[limits]\nflows = 1.5"),
    (Code::OutOfRange, (10, 13), "from 1 to 65535", "[limits]\nhalf_open = 0"),
    (Code::OutOfRange, (11, 13), "from 1 to 100, or more `flows`", "[limits]\nflows = 100\nhalf_open = 101"),
    (Code::OutOfRange, (10, 14), "from 1 to 16777216", "[limits]\npersistent = 0"),
    (Code::UnknownValue, (10, 11), "`ipvs`, `rfc`", "[timeouts]\nprofile = 'linux'"),
    (Code::BadDuration, (10, 8), "\"60s\"", "[timeouts]\nicmp = '60'"),
    (Code::UnknownKey, (10, 1), "did you mean `tcp_close_wait`?", "[timeouts]\ntcp_closewait = '60s'"),
    (Code::OutOfRange, (10, 7), "from 88 to 65535", "[handling]\nmss = 87"),
    (Code::WrongType, (10, 7), "write true or false", "[handling]\ncut = 'yes'"),
    (Code::UnknownKey, (10, 1), "did you mean `expire_nodest`?", "[handling]\nexpire_no_dest = true"),
    (Code::BadDuration, (10, 7), "whole number", "[timeouts]\nudp = '900'"),
    (Code::BadDuration, (10, 7), "`900s` or `500ms`", "[timeouts]\nudp = 'soon'"),
    (Code::OutOfRange, (10, 7), "from 10ms to 30d", "[timeouts]\nudp = '31d'"),
    (Code::WrongType, (10, 7), "write it in quotes", "[timeouts]\nudp = 300"),
    (
        Code::MissingKey,
        (9, 1),
        "add `kind = \"tun\"`",
        "[interface.tun1]\n[[route]]\nto='0.0.0.0/0'\ninterface='tun0'",
    ),
    (
        Code::UnknownInterface,
        (11, 13),
        "did you mean `tun0`?",
        "[[route]]\nto = '0.0.0.0/0'\ninterface = 'tun9'",
    ),
    (Code::BadNetwork, (10, 6), "write the network", "[[route]]\nto = '10.0.0.1/8'\ninterface = 'tun0'"),
    (
        Code::BadAddress,
        (11, 7),
        "four numbers",
        "[[route]]\nto = '0.0.0.0/0'\nvia = 'router'\ninterface = 'tun0'",
    ),
    (
        Code::FamilyMismatch,
        (11, 7),
        "the IPv4 address of the router",
        "[[route]]\nto = '0.0.0.0/0'\nvia = 'fe80::1'\ninterface = 'tun0'",
    ),
    (Code::BadNetwork, (10, 6), "from 0 to 128", "[[route]]\nto = '2001:db8::/129'\ninterface = 'tun0'"),
    (Code::BadNetwork, (10, 6), "\"2001:db8::/32\"", "[[route]]\nto = '2001:db8::1/32'\ninterface = 'tun0'"),
    (Code::WrongType, (9, 1), "double brackets", "[route]\nto = '0.0.0.0/0'\ninterface = 'tun0'"),
    (
        Code::DuplicateBinding,
        (10, 8),
        "another address",
        "[director.web2]\nbind = '10.0.0.3:80/tcp'\nserver = [{ name = 'a', address = '10.0.3.1:80' }]",
    ),
    (
        Code::DuplicateBinding,
        (10, 28),
        "another address",
        "[director.web2]\nbind = ['10.0.0.3:81/tcp', '10.0.0.3:80-80/tcp']\nserver = [{ name = 'a', address = '10.0.3.1' }]",
    ),
    (
        Code::OverlappingBindings,
        (13, 8),
        "where the other begins",
        "[director.a]\nbind = '10.0.0.5:10-20/tcp'\nserver = [{ name = 'a', address = '10.0.3.1' }]\n\
         [director.b]\nbind = '10.0.0.5:15-25/tcp'\nserver = [{ name = 'a', address = '10.0.3.1' }]",
    ),
    (
        Code::UnknownComponent,
        (11, 10),
        "policy.component",
        "[[flow]]\nname = 'f'\npolicy = 'component guard'\nrule = [{ match = {} }]",
    ),
    (
        Code::UnusedDirector,
        (9, 11),
        "policy = \"director api\"",
        "[director.api]\nserver = [{ name = 'a', address = '10.0.3.1' }]",
    ),
    (
        Code::UnusedDirector,
        (9, 11),
        "bind = \"10.0.0.3:80/tcp\"",
        "[director.api]\nbind = []\nserver = [{ name = 'a', address = '10.0.3.1' }]",
    ),
    (
        Code::FamilyMismatch,
        (14, 73),
        "a director of its own",
        "[[flow]]\nname = 'f'\npolicy = 'director api'\nrule = [{ match = {} }]\n\
         [director.api]\nserver = [{ name = 'a', address = '10.0.3.1' }, { name = 'b', address = 'fc00::1' }]",
    ),
    (Code::NoServers, (9, 11), "[[director.api.server]]", "[director.api]\nbind = '10.0.0.4:80/tcp'"),
    (
        Code::AllDrained,
        (9, 11),
        "weight",
        "[director.api]\nbind = '10.0.0.4:80/tcp'\nserver = [{ name = 'a', address = '10.0.3.1:80', weight = 0 }]",
    ),
    (
        Code::BadName,
        (9, 11),
        "1 to 27 letters",
        "[director.\"a b\"]\nbind = '10.0.0.4:80/tcp'\nserver = [{ name = 'a', address = '10.0.3.1:80' }]",
    ),
    (
        Code::DuplicateName,
        (12, 1),
        "take out one",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:80'\nname = 's3'",
    ),
    (
        Code::DuplicateName,
        (10, 8),
        "another name",
        "[[director.web.server]]\nname = 's1'\naddress = '10.0.3.21:80'",
    ),
    (
        Code::DuplicateServer,
        (11, 11),
        "sum of their weights",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.20:80'",
    ),
    (
        Code::ServerIsDirector,
        (11, 11),
        "real server itself",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.0.3:80'",
    ),
    (
        Code::OutOfRange,
        (12, 10),
        "from 0 to 65535",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:80'\nweight = 65536",
    ),
    (
        Code::OutOfRange,
        (12, 10),
        "from 0 to 65535",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:80'\nweight = -1",
    ),
    (
        Code::BadPort,
        (11, 11),
        "from 1 to 65535",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:0'",
    ),
    (
        Code::BadAddress,
        (11, 11),
        "10.0.3.20:80",
        "[[director.web.server]]\nname = 's2'\naddress = '[fc00::1]80'",
    ),
    (
        Code::BadAddress,
        (11, 11),
        "`[fc00::21:80]` for an address without a port",
        "[[director.web.server]]\nname = 's2'\naddress = 'fc00::21:80'",
    ),
    (
        Code::DuplicateServer,
        (11, 11),
        "sum of their weights",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.20'",
    ),
    (
        Code::FamilyMismatch,
        (11, 11),
        "which carries one in the other",
        "[[director.web.server]]\nname = 's2'\naddress = '[fc00::1]:80'",
    ),
    (
        Code::Conflict,
        (13, 13),
        "from 0 to 10",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:80'\nmax_flows = 10\nmin_flows = 11",
    ),
    (
        Code::Conflict,
        (12, 13),
        "add `max_flows`",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:80'\nmin_flows = 1",
    ),
    (
        Code::OutOfRange,
        (12, 13),
        "from 0 to 16777216",
        "[[director.web.server]]\nname = 's2'\naddress = '10.0.3.21:80'\nmax_flows = 16777217",
    ),
    (Code::MissingKey, (9, 1), "add `address = \"10.0.3.20:80\"`", "[[director.web.server]]\nname = 's2'"),
    (Code::UnknownKey, (9, 2), "the keys here are", "[polizei]\ndefault = 'deny'"),
    (Code::UnknownValue, (10, 11), "`permit`, `deny`", "[policy]\ndefault = 'drop'"),
    (Code::BadComponent, (11, 13), "bundled:NAME", "[[policy.component]]\nname = 'p'\ncomponent = ''"),
    (
        Code::BadComponent,
        (11, 13),
        "bundled:NAME",
        "[[policy.component]]\nname = 'p'\ncomponent = 'bundled:../x'",
    ),
    (
        Code::BadSize,
        (12, 10),
        "`16MiB`",
        "[[policy.component]]\nname = 'p'\ncomponent = 'bundled:x'\nmemory = '16MB'",
    ),
    (
        Code::OutOfRange,
        (12, 10),
        "from 64KiB to 1GiB",
        "[[policy.component]]\nname = 'p'\ncomponent = 'bundled:x'\nmemory = '2GiB'",
    ),
    (
        Code::OutOfRange,
        (12, 10),
        "from 10us to 1s",
        "[[policy.component]]\nname = 'p'\ncomponent = 'bundled:x'\nbudget = '1us'",
    ),
    (
        Code::DuplicateName,
        (13, 8),
        "another name",
        "[[policy.component]]\nname = 'p'\ncomponent = 'bundled:x'\n[[flow]]\nname = 'p'\nrule = [{ match = {} }]",
    ),
    (Code::EmptyFlow, (10, 8), "match = {}", "[[flow]]\nname = 'q'"),
    (
        Code::BadName,
        (10, 8),
        "1 to 27",
        "[[flow]]\nname = 'abcdefghijklmnopqrstuvwxyz12'\nrule = [{ match = {} }]",
    ),
    (
        Code::UnknownDirector,
        (11, 10),
        "did you mean `web`?",
        "[[flow]]\nname = 'q'\npolicy = 'director wep'\nrule = [{ match = {} }]",
    ),
    (
        Code::UnknownValue,
        (11, 10),
        "director NAME",
        "[[flow]]\nname = 'q'\npolicy = 'web'\nrule = [{ match = {} }]",
    ),
    (Code::BadRule, (11, 10), "match", "[[flow]]\nname = 'q'\nrule = [ {} ]"),
    (Code::BadWord, (10, 12), "did you mean `flow`?", "[policy]\nrules = '''flwo a match'''"),
    (
        Code::ShadowedRule,
        (10, 30),
        "more conditions first",
        "[policy]\nrules = '''flow a deny match match'''\n",
    ),
    (Code::NotKept, (10, 20), "service network", "[policy]\nrules = '''service lvs'''\n"),
    (Code::UnknownSet, (11, 28), "[set.NAME]", "[[flow]]\nname = 'q'\nrule = [ { match = { src = '@x' } } ]"),
    (
        Code::UnknownTable,
        (11, 10),
        "table = 7",
        "[[outflow]]\nname = 'q'\npolicy = 'table 7'\nrule = [ { match = {} } ]",
    ),
    (Code::BadCondition, (11, 30), "per src", "[[flow]]\nname = 'q'\nrule = [ { match = { limit = '9' } } ]"),
    (Code::BadRule, (11, 10), "match", "[[flow]]\nname = 'q'\nrule = [ { match = {}, ignore = {} } ]"),
    (
        Code::UnknownInterface,
        (11, 29),
        "did you mean `tun0`?",
        "[[flow]]\nname = 'q'\nrule = [{ match = { iface = 'tun1' } }]",
    ),
    (
        Code::UnknownProtocol,
        (11, 29),
        "`tcp` or `udp`",
        "[[flow]]\nname = 'q'\nrule = [{ match = { proto = 'sctp' } }]",
    ),
    (
        Code::PortWithoutProtocol,
        (11, 31),
        "proto = \"tcp\"",
        "[[flow]]\nname = 'q'\nrule = [{ match = { dstport = 22 } }]",
    ),
    (
        Code::PortWithoutProtocol,
        (11, 47),
        "proto = \"tcp\"",
        "[[flow]]\nname = 'q'\nrule = [{ match = { proto = 'icmp', srcport = 22 } }]",
    ),
    (
        Code::NeverHolds,
        (11, 50),
        "one for each family",
        "[[flow]]\nname = 'q'\nrule = [{ match = { src = '2001:db8::/32', dst = '10.0.0.3' } }]",
    ),
    (
        Code::BadPortRange,
        (11, 46),
        "lower port first",
        "[[flow]]\nname = 'q'\nrule = [{ match = { proto = 'tcp', dstport = '9-8' } }]",
    ),
    (
        Code::OutOfRange,
        (11, 46),
        "from 1 to 65535",
        "[[flow]]\nname = 'q'\nrule = [{ match = { proto = 'tcp', dstport = 65536 } }]",
    ),
    (
        Code::BadNetwork,
        (11, 35),
        "192.0.2.0/24",
        "[[flow]]\nname = 'q'\nrule = [{ match = { not = { src = '192.0.2.0/64' } } }]",
    ),
];

/// Cases that are a whole file.
const WHOLE: &[Case] = &[
    (
        Code::MissingKey,
        (1, 1),
        "a table `[interface.NAME]`",
        "director = { w = { bind = '10.0.0.3:80/tcp', server = [{ name = 'a', address = '10.0.3.1:80' }] } }",
    ),
    (
        Code::WrongType,
        (1, 13),
        "write a table",
        "interface = 5\ndirector = { w = { bind = '10.0.0.3:80/tcp', server = [{ name = 'a', address = '10.0.3.1:80' }] } }",
    ),
    (Code::Syntax, (1, 16), "https://toml.io", "[interface.tun0"),
    (Code::Syntax, (1, 5), "KEY = VALUE", "kind\n"),
    (Code::DuplicateName, (2, 3), "take out one", "[a]\n[ a ]"),
];

/// Cases within a director, on line 4 and 5 of the file.
const DIRECTOR: &[Case] = &[
    (Code::BadBind, (4, 8), "ADDRESS:PORT/PROTOCOL", "bind = '10.0.0.3:80'"),
    (Code::BadBind, (4, 8), "ADDRESS:PORT/PROTOCOL", "bind = '10.0.0.3/tcp'"),
    (Code::BadPort, (4, 8), "from 1 to 65535", "bind = '10.0.0.3:0/tcp'"),
    (Code::BadAddress, (4, 8), "four numbers", "bind = '10.0.0:80/tcp'"),
    (Code::UnknownProtocol, (4, 8), "`tcp` or `udp`", "bind = '10.0.0.3:80/sctp'"),
    (Code::BadBind, (4, 8), "\"[fd00::3]:80/tcp\"", "bind = 'fd00::3:80/tcp'"),
    (Code::BadBind, (4, 28), "ADDRESS:*", "bind = ['10.0.0.3:80/tcp', '10.0.0.3']"),
    (Code::BadPortRange, (4, 8), "\"10.0.0.3:80-90/tcp\"", "bind = '10.0.0.3:90-80/tcp'"),
    (Code::BadNetwork, (4, 8), "\"10.0.0.0/24:80/tcp\"", "bind = '10.0.0.3/24:80/tcp'"),
    (Code::BadNetwork, (4, 8), "from 0 to 32", "bind = '10.0.0.0/33:80/tcp'"),
    (
        Code::DuplicateBinding,
        (4, 28),
        "take one of them out",
        "bind = ['10.0.0.3:80/tcp', '10.0.0.3:80/tcp']",
    ),
    (Code::WrongType, (4, 8), "write it in quotes", "bind = 80"),
    (Code::WrongType, (4, 28), "write it in quotes", "bind = ['10.0.0.3:80/tcp', 81]"),
    (Code::FamilyMismatch, (7, 11), "tunnel", "bind = '[fc00::3]:80/tcp'"),
    (Code::FamilyMismatch, (7, 11), "tunnel", "bind = ['10.0.0.3:80/tcp', '[fc00::3]:80/tcp']"),
    (Code::ServerIsDirector, (7, 11), "itself", "bind = '10.0.3.20:*'"),
    (Code::UnknownScheduler, (5, 13), "did you mean `wrr`?", "bind = '10.0.0.3:80/tcp'\nscheduler = 'wrrr'"),
    (
        Code::UnknownScheduler,
        (5, 13),
        "write one of `rr`, `wrr`, `lc`, `wlc`, `sh`, `maglev`, `lblc`",
        "bind = '10.0.0.3:80/tcp'\nscheduler = 'the best one'",
    ),
    (
        Code::UnknownScheduler,
        (5, 13),
        "did you mean `weighted-rendezvous`?",
        "bind = '10.0.0.3:80/tcp'\nscheduler = 'weighted_rendezvous'",
    ),
    (
        Code::UnknownScheduler,
        (5, 22),
        "did you mean `jsq`?",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'shortest-queue' }",
    ),
    (
        Code::UnknownKey,
        (5, 41),
        "it has none; this one belongs to `maglev`, `mh`",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'rr', table_size = 251 }",
    ),
    (
        Code::UnknownKey,
        (5, 37),
        "it has `choices`; this one belongs to `sh`, `maglev`, `mh`",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'p2c',   key = 'source' }",
    ),
    (
        Code::UnknownKey,
        (5, 40),
        "components have this one",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'wlc',   budget = '1ms' }",
    ),
    (
        Code::UnknownKey,
        (5, 28),
        "did you mean `table_size`?",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'mh', tablesize = 251 }",
    ),
    (
        Code::OutOfRange,
        (5, 45),
        "8191",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'mh',     table_size = 8192 }",
    ),
    (
        Code::OutOfRange,
        (5, 49),
        "65537",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'maglev',     table_size = 65536 }",
    ),
    (
        Code::OutOfRange,
        (5, 39),
        "from 1 to 16",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'p2c', choices = 0 }",
    ),
    (
        Code::OutOfRange,
        (5, 43),
        "from 1s to 30d",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'lblc', expiration = '1ms' }",
    ),
    (
        Code::UnknownValue,
        (5, 34),
        "did you mean `source-port`?",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'sh', key = 'source_port' }",
    ),
    (
        Code::Conflict,
        (5, 34),
        "key = \"source-port\"",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'sh', key = 'destination' }",
    ),
    (
        Code::Conflict,
        (5, 40),
        "add `key = \"source\"`",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'ring', netmask = 24 }",
    ),
    (
        Code::BadNetmask,
        (5, 56),
        "255.255.255.0",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'ring', key = 'source', netmask = '255.0.255.0' }",
    ),
    (
        Code::Conflict,
        (5, 49),
        "hash_type = \"consistent\"",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'source', balance_factor = 150 }",
    ),
    (
        Code::Conflict,
        (5, 40),
        "take out `name` or `component`",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'rr', component = 'bundled:maglev' }",
    ),
    (
        Code::Conflict,
        (5, 51),
        "in the table `options`",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { component = 'bundled:maglev', key = 'source' }",
    ),
    (
        Code::WrongType,
        (5, 56),
        "\"wlc\"",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { component = 'bundled:maglev', fallback = true }",
    ),
    (
        Code::WrongType,
        (5, 39),
        "true",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { name = 'mh', fallback = 'wlc' }",
    ),
    (Code::OutOfRange, (5, 14), "from 10ms to 1d", "bind = '10.0.0.3:80/tcp'\nslow_start = '9ms'"),
    (Code::MissingKey, (5, 14), "`time = \"900s\"`", "bind = '10.0.0.3:80/tcp'\nslow_start = { least = 5 }"),
    (
        Code::OutOfRange,
        (5, 37),
        "from 1 to 100",
        "bind = '10.0.0.3:80/tcp'\nslow_start = { time = '9s', least = 0 }",
    ),
    (
        Code::UnknownScheduler,
        (5, 13),
        "write a table",
        "bind = '10.0.0.3:80/tcp'\nscheduler = 'bundled:maglev'",
    ),
    (
        Code::UnknownScheduler,
        (5, 51),
        "did you mean `lc`?",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { component = 'bundled:x', fallback = 'least-connections' }",
    ),
    (Code::MissingKey, (5, 13), "bundled:maglev", "bind = '10.0.0.3:80/tcp'\nscheduler = { budget = '1ms' }"),
    (
        Code::UnknownKey,
        (5, 15),
        "did you mean `component`?",
        "bind = '10.0.0.3:80/tcp'\nscheduler = { compnent = 'x' }",
    ),
    (Code::WrongType, (5, 13), "in quotes", "bind = '10.0.0.3:80/tcp'\nscheduler = 7"),
    (Code::UnknownMode, (5, 8), "\"gateway\"", "bind = '10.0.0.3:80/tcp'\nmode = 'dsr'"),
    (Code::UnknownMode, (5, 8), "`nat`, `gateway`, `tunnel`", "bind = '10.0.0.3:80/tcp'\nmode = 'bridge'"),
    (Code::PortUnchanged, (8, 11), "\"10.0.3.20\"", "bind = '10.0.0.3:81/tcp'\nmode = 'gateway'"),
    (
        Code::PortUnchanged,
        (9, 11),
        "leave the port out",
        "bind = '10.0.0.3:*'\nmode = 'tunnel'\ntunnel.source = '10.0.0.1'",
    ),
    (Code::FamilyMismatch, (8, 11), "tunnel", "bind = '[fc00::3]:80/tcp'\nmode = 'gateway'"),
    (Code::NoTunnelSource, (8, 11), "add `source`", "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'"),
    (
        Code::NoTunnelSource,
        (9, 11),
        "none of IPv4",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel.source = 'fc00::1'",
    ),
    (Code::Conflict, (5, 10), "mode = \"tunnel\"", "bind = '10.0.0.3:80/tcp'\ntunnel = { ttl = 9 }"),
    (
        Code::Conflict,
        (6, 8),
        "mode = \"nat\"",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\nsnat = { address = '10.99.0.1' }\ntunnel.source = '10.0.0.1'",
    ),
    (
        Code::Conflict,
        (6, 23),
        "encapsulation = \"gue\"",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = {     port = 6080, source = '10.0.0.1' }",
    ),
    (
        Code::Conflict,
        (6, 47),
        "an outer packet of `gre` has no port",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = { encapsulation = 'gre',      port = 6080, source = '10.0.0.1' }",
    ),
    (
        Code::Conflict,
        (6, 23),
        "\"gre\"",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = { checksum = true, source = '10.0.0.1' }",
    ),
    (
        Code::Conflict,
        (6, 35),
        "one address for each family",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = { source = ['10.0.0.1',  '10.0.0.2'] }",
    ),
    (
        Code::BadAddress,
        (6, 22),
        "of one host",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = { source =  '::' }",
    ),
    (
        Code::OutOfRange,
        (6, 18),
        "from 1 to 255",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = { ttl = 256 }",
    ),
    (
        Code::UnknownValue,
        (6, 28),
        "did you mean `ipip`?",
        "bind = '10.0.0.3:80/tcp'\nmode = 'tunnel'\ntunnel = { encapsulation = 'ip-ip' }",
    ),
    (Code::OutOfRange, (5, 15), "from 10ms to 30d", "bind = '10.0.0.3:80/tcp'\npersistence = '0s'"),
    (Code::OutOfRange, (5, 27), "from 0 to 32", "bind = '10.0.0.3:80/tcp'\npersistence = { netmask = 33 }"),
    (
        Code::OutOfRange,
        (5, 28),
        "from 0 to 128",
        "bind = '10.0.0.3:80/tcp'\npersistence = { netmask6 = 129 }",
    ),
    (
        Code::BadNetmask,
        (5, 27),
        "\"255.255.255.0\"",
        "bind = '10.0.0.3:80/tcp'\npersistence = { netmask = '24' }",
    ),
    (
        Code::BadNetmask,
        (5, 27),
        "255.255.255.0",
        "bind = '10.0.0.3:80/tcp'\npersistence = { netmask = '255.0.255.0' }",
    ),
    (Code::WrongType, (5, 15), "a string or a table", "bind = '10.0.0.3:80/tcp'\npersistence = 300"),
    (Code::UnknownValue, (5, 14), "did you mean `pick`?", "bind = '10.0.0.3:80/tcp'\nmid_stream = 'pik'"),
    (
        Code::UnknownValue,
        (5, 8),
        "`when_usable`, `always`, `forward`",
        "bind = '10.0.0.3:80/tcp'\nping = 'no'",
    ),
    (
        Code::Conflict,
        (5, 14),
        "take out `snat` or `one_packet`",
        "bind = '10.0.0.3:80/udp'\none_packet = true\nsnat = { address = '10.99.0.1' }",
    ),
    (Code::Conflict, (5, 14), "take out `one_packet`", "bind = '10.0.0.3:80/tcp'\none_packet = true"),
    (
        Code::Conflict,
        (5, 14),
        "one address and one port",
        "bind = ['10.0.0.3:80/udp', '10.0.0.3:81/udp']\none_packet = true",
    ),
    (Code::Conflict, (5, 14), "one address and one port", "bind = '10.0.0.3:*'\none_packet = true"),
    (Code::Conflict, (5, 14), "one address and one port", "bind = '10.0.0.0/24:80/udp'\none_packet = true"),
    (
        Code::UnknownInterface,
        (5, 43),
        "did you mean `tun0`?",
        "bind = '10.0.0.3:80/tcp'\nsnat = { address = '10.99.0.1',      in = 'tun1' }",
    ),
    (
        Code::UnknownInterface,
        (5, 41),
        "did you mean `tun0`?",
        "bind = '10.0.0.3:80/tcp'\nsnat = [{ address = '10.99.0.1',  out = 'tum0' }]",
    ),
    (
        Code::FamilyMismatch,
        (5, 20),
        "write an IPv4 address",
        "bind = '10.0.0.3:8080/tcp'\nsnat = { address = 'fd00::1' }",
    ),
    (
        Code::ShadowedSnat,
        (5, 36),
        "more conditions first",
        "bind = '10.0.0.3:80/tcp'\nsnat = [{ address = '10.99.0.1' }, { address = '10.99.0.2', in = 'tun0' }]",
    ),
    (
        Code::SnatOverlap,
        (5, 40),
        "leave its ports out",
        "bind = '10.0.0.3:8080-8090/tcp'\nsnat = { address = '10.0.0.3', ports = '8085-9000' }",
    ),
    (
        Code::SnatOverlap,
        (5, 8),
        "an address that no director is bound to",
        "bind = '10.0.0.3:*'\nsnat = { address = '10.0.0.3' }",
    ),
    (
        Code::SnatOverlap,
        (5, 40),
        "leave its port out",
        "bind = '10.0.0.3:8080/tcp'\nsnat = { address = '10.0.0.3', ports = '8000-9000' }",
    ),
    (
        Code::SnatOverlap,
        (5, 8),
        "add `ports = \"8081-65535\"`",
        "bind = '10.0.0.3:8080/tcp'\nsnat = { address = '10.0.0.3' }",
    ),
    (
        Code::BadPortRange,
        (5, 41),
        "lower port first",
        "bind = '10.0.0.3:80/tcp'\nsnat = { address = '10.99.0.1', ports = '9-8' }",
    ),
];

/// Cases within an interface, from line 2 on.
const INTERFACE: &[Case] = &[
    (Code::UnknownKey, (3, 7), "take out `mac`", "kind = 'tun'\nmac = '02:00:00:00:00:01'"),
    (Code::BadMac, (3, 7), "six bytes", "kind = 'ethernet'\nmac = '02-00'"),
    (Code::UnknownValue, (2, 8), "`tun`, `ethernet`", "kind = 'xdp'"),
    (Code::OutOfRange, (3, 7), "from 68 to 65535", "kind = 'tun'\nmtu = 67"),
    (Code::WrongType, (3, 11), "a list, even of one", "kind = 'tun'\naddress = '10.99.0.1/24'"),
    (Code::BadNetwork, (3, 12), "10.99.0.1/24", "kind = 'tun'\naddress = ['10.99.0.1']"),
    (Code::BadNetwork, (3, 12), "from 0 to 32", "kind = 'tun'\naddress = ['10.99.0.1/33']"),
    (Code::BadNetwork, (3, 12), "fc00::1/64", "kind = 'tun'\naddress = ['fc00::1']"),
    (Code::BadNetwork, (3, 12), "from 0 to 128", "kind = 'tun'\naddress = ['fc00::1/129']"),
    (Code::BadAddress, (3, 12), "of one host", "kind = 'tun'\naddress = ['ff02::1/64']"),
    (Code::Conflict, (3, 11), "another interface", "kind = 'tun'\npass_to = 'tun0'"),
    (Code::UnknownInterface, (3, 11), "are `tun0`", "kind = 'tun'\npass_to = 'eth1'"),
    (
        Code::Conflict,
        (3, 11),
        "the same kind",
        "kind = 'tun'\npass_to = 'e'\n[interface.e]\nkind = 'ethernet'\nmac = '02:00:00:00:00:01'\n\
         [[route]]\nto = '0.0.0.0/0'\ninterface = 'e'",
    ),
];

const SERVER: &str = "\n[[director.web.server]]\nname = 's1'\naddress = '10.0.3.20:80'\n";

fn in_director(text: &str) -> String {
    format!("[interface.tun0]\nkind = 'tun'\n[director.web]\n{text}{SERVER}")
}

fn in_interface(text: &str) -> String {
    format!("[interface.tun0]\n{text}\n[director.web]\nbind = '10.0.0.3:80/tcp'{SERVER}")
}

fn after_good(text: &str) -> String {
    format!("{GOOD}{text}")
}

#[test]
fn mistakes_beside_a_good_director_are_found_where_they_are() {
    check(AFTER_GOOD, after_good);
}

#[test]
fn mistakes_of_the_whole_file_are_found_where_they_are() {
    check(WHOLE, str::to_owned);
}

#[test]
fn mistakes_within_a_director_are_found_where_they_are() {
    check(DIRECTOR, in_director);
}

#[test]
fn mistakes_within_an_interface_are_found_where_they_are() {
    check(INTERFACE, in_interface);
}

/// Every code is reached: by a case above, or by a test below.
#[test]
fn every_code_has_a_case() {
    let below = [
        Code::Unreadable,
        Code::TooLarge,
        Code::NotUtf8,
        Code::TooMany,
        Code::Component,
        Code::Refused,
        Code::NoServices,
        Code::NoDirectors,
        Code::NoDefaultRoute,
    ];
    let cases = [AFTER_GOOD, WHOLE, DIRECTOR, INTERFACE].concat();
    for code in Code::ALL {
        let is_there = cases.iter().any(|(of_case, ..)| of_case == code) || below.contains(code);
        assert!(is_there, "{} has no case", code.name());
    }
}

#[test]
fn a_file_that_is_not_there_is_reported_without_a_place() {
    let found = load("does/not/exist.toml".as_ref()).unwrap_err();
    let only = found.iter().next().unwrap();
    assert_eq!((only.code(), only.place()), (Code::Unreadable, None));
    assert!(only.message().contains("does/not/exist.toml"), "{found}");
    let found = load("/".as_ref()).unwrap_err();
    assert_eq!(found.iter().next().unwrap().code(), Code::Unreadable);
}

#[test]
fn a_file_that_is_too_large_is_refused_unread() {
    let found = found(&"#".repeat(evenkeel_config::FILE_BYTES_MAX + 1));
    assert_eq!(found.iter().next().unwrap().code(), Code::TooLarge);
    let found = load("/dev/zero".as_ref()).unwrap_err();
    assert_eq!(found.iter().next().unwrap().code(), Code::TooLarge);
}

#[test]
fn a_file_that_is_not_utf8_is_refused_at_the_byte() {
    let path = std::env::temp_dir().join(format!("evenkeel-config-{}.toml", std::process::id()));
    std::fs::write(&path, b"[interface.tun0]\nkind = \"\xff\"\n").unwrap();
    let found = load(&path).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    let only = found.iter().next().unwrap();
    assert_eq!((only.code(), line_and_column(only)), (Code::NotUtf8, (2, 9)), "{found}");
    assert!(only.message().contains("byte 25 is 0xff"), "{found}");
}

#[test]
fn what_there_is_too_much_of_is_reported_at_the_first_that_is_too_many() {
    let routes = "[[route]]\nto = '0.0.0.0/0'\ninterface = 'tun0'\n".repeat(1_025);
    let found = found(&format!("{GOOD}{routes}"));
    let only = found.iter().next().unwrap();
    assert_eq!((only.code(), line_and_column(only)), (Code::TooMany, (9 + 3 * 1_024, 1)), "{found}");
    assert!(only.message().contains("1025 routes; 1024"), "{found}");
}

#[test]
fn every_bound_is_held() {
    let interfaces: String = (0..65).map(|n| format!("[interface.i{n}]\nkind = 'tun'\n")).collect();
    let many = |number: usize, item: &str| item.repeat(number);
    let policy = "component = 'bundled:p'\n";
    let components: String =
        (0..17).map(|n| format!("[[policy.component]]\nname = 'p{n}'\n{policy}")).collect();
    let flows: String = (0..131_073).map(|n| format!("flow f{n} match\n")).collect();
    let flows = format!("[policy]\nrules = '''{flows}'''\n");
    let rules = format!("[policy]\nrules = '''flow f {}'''\n", many(131_073, " match"));
    let addresses = format!("[interface.b]\nkind = 'tun'\naddress = [{}]\n", many(257, "'10.9.0.1/24',"));
    for text in [interfaces, components, flows, rules, addresses] {
        let found = found(&format!("{GOOD}{text}"));
        let errors: Vec<_> = found.iter().filter(|one| one.severity() == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{found}");
        assert_eq!(errors[0].code(), Code::TooMany, "{found}");
    }
}

#[test]
fn warnings_leave_the_plan_usable() {
    let loaded = parse("[interface.tun0]\nkind = 'tun'", "evenkeel.toml").unwrap();
    let codes: Vec<_> = loaded.warnings.iter().map(Diagnostic::code).collect();
    assert_eq!(codes, [Code::NoDirectors]);
    assert!(!loaded.warnings.has_errors());
    let text = format!("{GOOD}[interface.b]\nkind = 'tun'");
    let loaded = parse(&text, "evenkeel.toml").unwrap();
    let only = loaded.warnings.iter().next().unwrap();
    assert_eq!((only.code(), only.severity()), (Code::NoDefaultRoute, Severity::Warning));
    assert_eq!(line_and_column(only), (1, 12));
}

#[test]
fn a_duplicate_points_at_both_places() {
    let found = found(&format!("{GOOD}[director.two]\nbind = '10.0.0.3:80/tcp'\n"));
    let duplicate = found.iter().find(|one| one.code() == Code::DuplicateBinding).unwrap();
    let json = duplicate.to_json();
    assert_eq!((&json["line"], &json["column"]), (&10.into(), &8.into()), "{json}");
    assert_eq!((&json["also"][0]["line"], &json["also"][0]["column"]), (&4.into(), &8.into()), "{json}");
}

#[test]
fn all_mistakes_are_reported_together_in_the_order_of_the_file() {
    let text = "[forwader]\n[interface.tun0]\nkind = 'tin'\nmtoo = 9\n\
                [director.web]\nbind = '10.0.0.3:0/tcp'\nscheduler = 'rrr'\n\
                [[director.web.server]]\nname = 's 1'\naddress = '10.0.3.20:80'\nweight = 70000\n\
                [[flow]]\nname = 'f'\npolicy = 'director wob'\nrule = [{ match = { proto = 'tcpp' } }]\n";
    let found = found(text);
    let all: Vec<_> = found.iter().map(|one| (one.code(), line_and_column(one).0)).collect();
    let expected = [
        (Code::UnknownKey, 1),
        (Code::UnknownValue, 3),
        (Code::UnknownKey, 4),
        (Code::BadPort, 6),
        (Code::UnknownScheduler, 7),
        (Code::BadName, 9),
        (Code::OutOfRange, 11),
        (Code::UnknownDirector, 14),
        (Code::UnknownProtocol, 15),
    ];
    assert_eq!(all, expected, "{found}");
}
