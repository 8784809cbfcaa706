//! Every kind of mistake: found, at the right line and column, with the right advice.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails says where")]

#[path = "errors/cases.rs"]
mod cases;

use cases::{AFTER_GOOD, DIRECTOR, INTERFACE, WHOLE};
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
