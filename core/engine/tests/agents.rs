//! Agents in a whole engine: when they are asked, what their words do to new flows, and that their line can be anything.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use crate::support::*;
use evenkeel_engine::agent::{AgentHealth, AgentMode, AgentWeight, LINE_BYTES_MAX, Said, first_line, parse};
use evenkeel_engine::director::AGENT_CHECKS_MAX;
use evenkeel_engine::plan::{AgentPlan, Builtin, Persistence, SchedulerPlan, SlowStart};
use evenkeel_engine::{
    AgentCheck, Duration, Engine, Event, Guests, Instant, Memory, Plan, PlanError, ServerStatus,
};
use proptest::prelude::*;

const SECOND: u64 = 1_000;

/// Two servers of weight 100, asked every 2 s.
fn agents() -> Plan {
    let mut plan = plan();
    for director in &mut plan.directors {
        director.scheduler = SchedulerPlan::Builtin(Builtin::WeightedRoundRobin);
        director.servers.iter_mut().for_each(|server| server.weight = 100);
    }
    plan.directors[0].agent_check = Some(AgentPlan::at(8888));
    plan
}

/// The questions that are due at `now`.
fn due(engine: &mut Engine, now: Instant) -> Vec<AgentCheck> {
    engine.handle_timeout(now);
    std::iter::from_fn(|| engine.poll_agent_check(now)).collect()
}

fn status(engine: &Engine, server: usize) -> ServerStatus {
    engine.directors()[0].servers[server].clone()
}

/// An engine whose agents answer whenever they are asked.
struct Lab {
    engine: Engine,
    now: u64,
    port: u16,
}

impl Lab {
    fn new(plan: Plan) -> Self {
        Self { engine: engine(plan), now: 0, port: 1_000 }
    }

    /// Goes on for two seconds, in which every agent says its line: both say it once.
    fn say(&mut self, lines: [&str; 2]) {
        for _ in 0..4 {
            self.now += 500;
            for check in due(&mut self.engine, at(self.now)) {
                let line = if check.address.to_string().ends_with(".20") { lines[0] } else { lines[1] };
                assert!(self.engine.agent_answered(&check.reply(line.as_bytes()), at(self.now)));
            }
        }
    }

    /// Flows that each of the servers gets of 100 new ones.
    fn shares(&mut self) -> (u64, u64) {
        let before = (status(&self.engine, 0).flows, status(&self.engine, 1).flows);
        for _ in 0..100 {
            self.port += 1;
            exchange(&mut self.engine, &[tcp(call(self.port), "S", b"")], at(self.now));
        }
        (status(&self.engine, 0).flows - before.0, status(&self.engine, 1).flows - before.1)
    }

    fn events(&mut self) -> Vec<String> {
        let all = std::iter::from_fn(|| self.engine.poll_event());
        let news = all.filter_map(|event| {
            let Event::AgentChanged { director, server, state } = event else { return None };
            Some(format!("{director}/{server} {state}"))
        });
        news.collect()
    }
}

#[test]
fn agents_are_asked_in_turn_once_in_an_interval() {
    let mut engine = engine(agents());
    let mut asked = Vec::new();
    let mut now = Instant::ZERO;
    while now < at(6 * SECOND) {
        for check in due(&mut engine, now) {
            assert_eq!((check.director, check.port, check.send.as_str()), (0, 8888, ""));
            asked.push((now.as_nanos() / 1_000_000, check.address.to_string()));
            assert!(engine.agent_answered(&check.reply(b"up\n"), now));
        }
        now = engine.poll_timeout().unwrap();
    }
    let (a, b) = ("10.0.3.20".to_owned(), "10.0.3.21".to_owned());
    let expected: Vec<_> =
        [0, 1_000, 2_000, 3_000, 4_000, 5_000].into_iter().zip([&a, &b, &a, &b, &a, &b]).collect();
    assert_eq!(asked, expected.into_iter().map(|(at, who)| (at, who.clone())).collect::<Vec<_>>());
    let counters = engine.counters();
    assert_eq!((counters.agent_checks, counters.agent_answers, counters.agent_failures), (6, 6, 0));
}

#[test]
fn a_weight_shifts_shares_and_silence_leaves_them() {
    let mut lab = Lab::new(agents());
    assert_eq!(lab.shares(), (50, 50));
    lab.say(["100%\n", "25%\n"]);
    assert_eq!(lab.shares(), (80, 20));
    for nothing in ["", "\n", "\r\n", "banana\n", "up\n", "  \t,\n"] {
        lab.say(["", nothing]);
        assert_eq!(lab.shares(), (80, 20), "{nothing:?}");
    }
    lab.say(["", "weight:300\n"]);
    assert_eq!((lab.shares(), status(&lab.engine, 1).effective_weight), ((25, 75), 300));
    lab.say(["", "weight:50% weight:100%"]);
    assert_eq!(lab.shares(), (50, 50));
    assert_eq!(status(&lab.engine, 1).agent.unwrap().bad_words, 1, "banana");
    assert!(lab.events().is_empty(), "weights are no news");
}

#[test]
fn an_agent_drains_and_holds_out_its_server_and_only_the_agent_undoes_it() {
    let mut lab = Lab::new(agents());
    lab.say(["", "drain"]);
    assert_eq!(lab.shares(), (100, 0));
    assert!(status(&lab.engine, 1).is_up, "drained, as by weight 0");
    lab.say(["", "100%"]);
    assert_eq!(lab.shares(), (100, 0), "a weight is no mode");
    lab.say(["", "ready"]);
    assert_eq!(lab.shares(), (50, 50));
    lab.say(["", "down #disk is full, again"]);
    assert_eq!(lab.shares(), (100, 0));
    lab.say(["", "ready 100%"]);
    assert_eq!(lab.shares(), (100, 0), "ready is not up");
    let server = status(&lab.engine, 1);
    assert_eq!((server.is_up, server.weight, server.effective_weight), (false, 100, 100));
    assert_eq!(server.agent.unwrap().down.as_deref(), Some("disk is full, again"));
    lab.engine.set_weight("web", "s2", 200, at(lab.now)).unwrap();
    assert_eq!(lab.shares(), (100, 0), "an operator does not undo it");
    lab.engine.set_weight("web", "s2", 100, at(lab.now)).unwrap();
    lab.say(["maint", "maint up"]);
    assert_eq!(lab.shares(), (0, 0));
    lab.say(["ready", "ready"]);
    assert_eq!(lab.shares(), (50, 50));
    let expected = [
        "web/s2 drain",
        "web/s2 ready",
        "web/s2 down: disk is full, again",
        "web/s1 maint",
        "web/s2 maint",
        "web/s1 ready",
        "web/s2 ready",
    ];
    let mut events = lab.events();
    events[3..5].sort_unstable();
    events[5..7].sort_unstable();
    assert_eq!(events, expected);
}

#[test]
fn an_operator_and_an_agent_both_have_a_say() {
    let mut lab = Lab::new(agents());
    lab.engine.set_weight("web", "s2", 0, at(0)).unwrap();
    lab.say(["", "200%"]);
    assert_eq!(lab.shares(), (100, 0), "the operator drains");
    lab.say(["", "weight:7"]);
    assert_eq!(lab.shares(), (100, 0));
    lab.engine.set_weight("web", "s2", 50, at(lab.now)).unwrap();
    lab.say(["", "50%"]);
    assert_eq!(status(&lab.engine, 1).effective_weight, 25, "half of what the operator has it");
    assert_eq!(lab.shares(), (80, 20));
}

#[test]
fn clients_that_stick_stay_with_a_drained_server_and_leave_one_that_is_held_out() {
    let mut plan = agents();
    let timeout = Duration::from_secs(300);
    plan.directors[0].persistence = Some(Persistence { timeout, length_v4: 32, length_v6: 128 });
    let mut lab = Lab::new(plan);
    assert!([(100, 0), (0, 100)].contains(&lab.shares()));
    let theirs = usize::from(status(&lab.engine, 1).flows > 0);
    let say = |lab: &mut Lab, line| lab.say(if theirs == 0 { [line, ""] } else { ["", line] });
    let stays = |lab: &mut Lab| {
        let (first, second) = lab.shares();
        [first, second][theirs] == 100
    };
    say(&mut lab, "drain");
    assert!(stays(&mut lab));
    say(&mut lab, "ready down");
    assert!(!stays(&mut lab));
}

#[test]
fn a_bound_on_flows_comes_and_goes_by_the_agents_word() {
    let mut lab = Lab::new(agents());
    lab.say(["", "maxconn:30"]);
    assert_eq!(lab.shares(), (70, 30));
    assert!(!status(&lab.engine, 1).is_up, "full");
    lab.say(["", "down maxconn:40"]);
    assert_eq!(lab.shares(), (100, 0), "room, and out");
    lab.say(["", "up"]);
    assert_eq!(lab.shares(), (90, 10));
    lab.say(["", "maxconn:0"]);
    assert_eq!(lab.shares(), (50, 50));
}

#[test]
fn a_server_that_comes_back_starts_slowly() {
    let mut plan = agents();
    plan.directors[0].slow_start = Some(SlowStart::of(Duration::from_secs(100)));
    let mut lab = Lab::new(plan);
    lab.say(["", "down"]);
    assert_eq!(lab.shares(), (100, 0));
    lab.say(["", "up"]);
    assert!(lab.shares().1 <= 10);
    assert_eq!(status(&lab.engine, 1).effective_weight, 100, "what it comes to");
}

#[test]
fn who_does_not_answer_is_asked_again_and_a_late_answer_counts_no_more() {
    let mut engine = engine(agents());
    let first = due(&mut engine, at(0)).remove(0);
    assert_eq!(engine.poll_timeout(), Some(at(1_000)), "the other one, and the end of patience");
    assert_eq!(due(&mut engine, at(999)).len(), 0);
    assert_eq!(due(&mut engine, at(1_000)).len(), 1);
    assert_eq!(engine.counters().agent_failures, 1);
    assert!(!engine.agent_answered(&first.reply(b"drain\n"), at(1_001)), "late");
    let second = due(&mut engine, at(2_000)).remove(0);
    assert_eq!((second.server, second.address), (first.server, first.address));
    assert!(!engine.agent_answered(&first.reply(b"drain\n"), at(2_001)), "another question");
    assert!(!engine.agent_answered(&AgentCheck { director: 9, ..second.clone() }.reply(b"drain"), at(2_001)));
    assert!(engine.agent_answered(&second.reply(b"50%\n"), at(2_001)));
    assert!(!engine.agent_answered(&second.reply(b"drain\n"), at(2_002)), "twice");
    let server = status(&engine, 0);
    let agent = server.agent.unwrap();
    assert_eq!((server.effective_weight, agent.mode), (50, AgentMode::Ready));
    assert_eq!((agent.checks, agent.answers, agent.failures), (2, 1, 1));
    assert_eq!(agent.last, Some((at(2_001), "50%".to_owned())));
}

#[test]
fn a_driver_that_carries_nothing_is_not_called_without_end() {
    let mut engine = engine(agents());
    let mut now = Instant::ZERO;
    let mut calls = 0;
    while now < at(60 * SECOND) {
        engine.handle_timeout(now);
        now = engine.poll_timeout().unwrap().max(now);
        calls += 1;
    }
    assert!(calls <= 130, "{calls}");
    let counters = engine.counters();
    assert_eq!((counters.agent_checks, counters.agent_answers), (60, 0));
    assert!(counters.agent_failures >= 58);
    assert_eq!(due(&mut engine, now).len(), 1, "what is too late is not asked");
}

#[test]
fn of_many_servers_that_hang_a_bounded_number_is_asked_and_each_comes_to_its_turn() {
    let mut plan = agents();
    let servers = (0..1_000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        let address = [10, 1, high, low].into();
        evenkeel_engine::plan::ServerPlan::new(&format!("s{number}"), address, 80, 1)
    });
    plan.directors[0].servers = servers.collect();
    let mut engine = engine(plan);
    let mut asked: BTreeMap<_, u32> = BTreeMap::new();
    let mut open = 0;
    let mut now = Instant::ZERO;
    while now < at(20 * SECOND) {
        let failed = engine.counters().agent_failures;
        engine.handle_timeout(now);
        open -= usize::try_from(engine.counters().agent_failures - failed).unwrap();
        while let Some(check) = engine.poll_agent_check(now) {
            *asked.entry(check.server).or_default() += 1;
            open += 1;
        }
        assert!(open <= AGENT_CHECKS_MAX);
        now = engine.poll_timeout().unwrap();
    }
    assert_eq!(asked.len(), 1_000);
    assert!(asked.values().max().unwrap() - asked.values().min().unwrap() <= 1, "in turn");
}

#[test]
fn a_reload_keeps_what_agents_said_of_servers_that_stay() {
    let mut lab = Lab::new(agents());
    lab.say(["50%", "down #x"]);
    let mut plan = agents();
    plan.directors[0].servers.push(server("s3", 22, 100));
    plan.directors[0].servers[0].weight = 80;
    lab.engine.apply(plan.clone(), Guests::default(), at(lab.now)).unwrap();
    assert_eq!(status(&lab.engine, 0).effective_weight, 40);
    assert!(!status(&lab.engine, 1).is_up);
    assert_eq!(status(&lab.engine, 2).agent.unwrap().last, None);
    // A server that has no agent any more is what the plan says, and so is one that was away.
    plan.directors[0].servers[1].agent_port = Some(0);
    let gone = plan.directors[0].servers.remove(0);
    lab.engine.apply(plan.clone(), Guests::default(), at(lab.now)).unwrap();
    assert!(status(&lab.engine, 0).is_up && status(&lab.engine, 0).agent.is_none());
    plan.directors[0].servers.insert(0, gone);
    lab.engine.apply(plan.clone(), Guests::default(), at(lab.now)).unwrap();
    assert_eq!(status(&lab.engine, 0).effective_weight, 80);
    lab.say(["drain", ""]);
    assert_eq!(status(&lab.engine, 0).effective_weight, 0);
    plan.directors[0].agent_check = None;
    lab.engine.apply(plan, Guests::default(), at(lab.now)).unwrap();
    let server = status(&lab.engine, 0);
    assert_eq!((server.effective_weight, server.agent), (80, None));
    assert_eq!(due(&mut lab.engine, at(lab.now + 10 * SECOND)), []);
}

#[test]
fn a_director_that_goes_is_not_asked_and_comes_back_as_new() {
    let mut lab = Lab::new(agents());
    lab.shares();
    lab.say(["drain", ""]);
    let open = loop {
        lab.now += 500;
        if let Some(check) = due(&mut lab.engine, at(lab.now)).pop() {
            break check;
        }
    };
    let mut without = agents();
    without.directors.remove(0);
    lab.engine.apply(without, Guests::default(), at(lab.now)).unwrap();
    assert!(!lab.engine.agent_answered(&open.reply(b"maint\n"), at(lab.now)));
    assert_eq!(due(&mut lab.engine, at(lab.now + 10 * SECOND)), []);
    lab.engine.apply(agents(), Guests::default(), at(lab.now + 10 * SECOND)).unwrap();
    let server = &lab.engine.directors()[0].servers[0];
    assert_eq!((server.effective_weight, server.is_up), (100, true));
}

#[test]
fn what_is_explained_is_decided_again_elsewhere_with_what_agents_have_said() {
    let lines = ["", "down", "drain", "50%", "maxconn:20", "maxconn:0", "maxconn:90 maint", "0%"];
    let mut ends = std::collections::BTreeSet::new();
    for (first, second) in lines.into_iter().flat_map(|one| lines.map(|other| (one, other))) {
        for bound in [0, 40] {
            let mut plan = agents();
            plan.directors[0].servers.iter_mut().for_each(|server| server.flows_upper = bound);
            let mut lab = Lab::new(plan);
            lab.say([first, second]);
            lab.shares();
            let told = lab.engine.explain(&tcp(call(50_000), "S", b""), TUN, at(lab.now));
            let memory = Memory::read(&lab.engine.remember(&told).unwrap()).unwrap();
            let mut plan = lab.engine.plan().clone();
            memory.complete(&mut plan);
            let mut engine = engine(plan);
            // With the pick as it was told: wrr begins anew where weights are others than those of the plan.
            engine.recall(&memory, true).unwrap();
            let again = engine.explain(&memory.packet, memory.interface, memory.now).account;
            let (live, again) = ((told.account.end, &told.account.after), (again.end, &again.after));
            assert_eq!(again, live, "{first} {second} {bound}");
            ends.insert(format!("{:?}", told.account.end));
        }
    }
    assert!(ends.len() > 1, "some go on, and some have nowhere to: {ends:?}");
}

#[test]
fn a_port_of_its_own_and_a_text_first() {
    let mut plan = agents();
    plan.directors[0].agent_check.as_mut().unwrap().send = "web\n".to_owned();
    plan.directors[0].servers[1].agent_port = Some(9);
    let mut engine = engine(plan);
    let mut all = due(&mut engine, at(0));
    all.extend(due(&mut engine, at(1_000)));
    let shown: Vec<_> = all.iter().map(|check| (check.port, check.send.as_str())).collect();
    assert_eq!(shown, [(8888, "web\n"), (9, "web\n")]);
}

#[test]
fn a_plan_with_an_impossible_rhythm_is_refused() {
    let refused = |change: fn(&mut AgentPlan)| {
        let mut plan = agents();
        change(plan.directors[0].agent_check.as_mut().unwrap());
        matches!(Engine::new(plan, Guests::default(), Instant::ZERO), Err(PlanError::OutOfRange { .. }))
    };
    assert!(refused(|agents| agents.port = 0));
    assert!(refused(|agents| agents.interval = Duration::from_millis(49)));
    assert!(refused(|agents| agents.interval = Duration::from_secs(3_601)));
    assert!(refused(|agents| agents.timeout = Duration::from_millis(2_001)));
    assert!(refused(|agents| agents.timeout = Duration::from_millis(9)));
    assert!(refused(|agents| agents.send = "x".repeat(1_025)));
    assert!(!refused(|agents| agents.send = "x".repeat(1_024)));
}

#[test]
fn a_line_ends_where_it_does_and_an_endless_one_says_nothing() {
    assert_eq!(first_line(b"50%\r\nready\n"), Some(&b"50%"[..]));
    assert_eq!(first_line(b"50%"), Some(&b"50%"[..]), "the end of the connection ends it too");
    assert_eq!((first_line(b""), first_line(b"\n50%")), (None, None));
    let mut long = vec![b'a'; LINE_BYTES_MAX];
    assert!(first_line(&long).is_some());
    long.push(b'a');
    assert_eq!(first_line(&long), None);
    long[LINE_BYTES_MAX] = b'\n';
    assert!(first_line(&long).is_some());
}

#[test]
fn words_mean_what_the_manual_says() {
    let said = |line: &str| parse(line.as_bytes());
    let weight = |line: &str| said(line).weight;
    assert_eq!(weight("75%"), Some(AgentWeight::Percent(75)));
    assert_eq!(weight("0%,\t300%"), Some(AgentWeight::Percent(300)));
    assert_eq!(weight("weight:5 Weight:7%"), Some(AgentWeight::Percent(7)));
    assert_eq!(weight("99999999999%"), Some(AgentWeight::Percent(u32::MAX)));
    for bad in ["75", "%", "-5%", "+5%", "5.5%", "5%x", "weight:", "weight:x", "weight:%", "maxconn:", "stop"]
    {
        assert_eq!(said(bad), Said { bad_words: 1, ..Said::default() }, "{bad}");
    }
    assert_eq!(said("MAXCONN:30").flows_max, Some(30));
    assert_eq!(said("ready drain").mode, Some(AgentMode::Drain));
    let down = |reason: &str| Some(AgentHealth::Down(reason.to_owned()));
    assert_eq!(said("Down").health, down("Down"));
    assert_eq!(said("fail #a, b\tc").health, down("a, b c"));
    assert_eq!(said("stopped#why not").health, down("why not"));
    assert_eq!(said("down drain # up").health, down("up"));
    assert_eq!(said("down up #x").health, Some(AgentHealth::Up));
    assert_eq!(said("up down").health, down("down"));
    assert_eq!(said("down #\u{1b}[31m\u{e9}").health, down("?[31m??"));
    assert_eq!(said("50% #drain").mode, None, "a comment");
    assert_eq!(said("ready#x").bad_words, 1);
    assert_eq!(AgentWeight::Percent(1).of(1), 1, "little is not nothing");
    assert_eq!(AgentWeight::Percent(u32::MAX).of(65_535), 65_535);
    assert_eq!([AgentWeight::Percent(150).of(3), AgentWeight::Absolute(70_000).of(1)], [4, 65_535]);
}

/// The same, slowly: every word by itself, as text.
fn model(line: &str) -> Said {
    let mut said = Said::default();
    let mut down = None;
    let mut reason = String::new();
    let mut words: Vec<String> = vec![String::new()];
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        let last = words.last().unwrap().to_lowercase();
        let may = last.is_empty() || ["down", "fail", "failed", "stopped"].contains(&last.as_str());
        if letter == '#' && may {
            reason = letters.map(|one| if one == '\t' { ' ' } else { one }).collect::<String>();
            break;
        } else if " \t,".contains(letter) {
            words.push(String::new());
        } else {
            words.last_mut().unwrap().push(letter);
        }
    }
    for word in words.iter().filter(|word| !word.is_empty()) {
        let lower = word.to_lowercase();
        let number = |text: &str| {
            let is_number = !text.is_empty() && text.chars().all(|one| one.is_ascii_digit());
            is_number.then(|| {
                text.parse::<u128>().ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX)
            })
        };
        let (name, value) = lower.split_once(':').unwrap_or(("-", lower.as_str()));
        let percent = value.strip_suffix('%').and_then(number);
        match (name, value, percent, number(value)) {
            ("-", "ready", ..) => said.mode = Some(AgentMode::Ready),
            ("-", "drain", ..) => said.mode = Some(AgentMode::Drain),
            ("-", "maint", ..) => said.mode = Some(AgentMode::Maint),
            ("-", "up", ..) => (said.health, down) = (Some(AgentHealth::Up), None),
            ("-", "down" | "fail" | "failed" | "stopped", ..) => down = Some(word.clone()),
            ("-" | "weight", _, Some(percent), _) => said.weight = Some(AgentWeight::Percent(percent)),
            ("weight", _, _, Some(own)) => said.weight = Some(AgentWeight::Absolute(own)),
            ("maxconn", _, _, Some(own)) => said.flows_max = Some(own),
            _ => said.bad_words += 1,
        }
    }
    if let Some(word) = down {
        let reason = reason.trim().to_owned();
        said.health = Some(AgentHealth::Down(if reason.is_empty() { word } else { reason }));
    }
    said
}

fn lines() -> impl Strategy<Value = String> {
    let words = [
        "75%",
        "300%",
        "weight:5",
        "weight:50%",
        "weight:",
        "maxconn:12",
        "maxconn:x",
        "ready",
        "drain",
        "MAINT",
        "up",
        "down",
        "Fail",
        "failed",
        "stopped",
        "stop",
        "#why",
        "down#x",
        "ready#x",
        "#",
        ":",
        "%",
        "up:",
        "é",
        "00007%",
        "88888888888888888888%",
        "weight:weight:1",
        "a",
        "down:#",
    ];
    let word = prop_oneof![
        4 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => "[ -~]{0,6}".prop_map(|text: String| text),
    ];
    let part = (word, proptest::sample::select(vec![" ", "\t", ",", ", ", "", "  "]));
    proptest::collection::vec(part, 0..9)
        .prop_map(|parts| parts.into_iter().map(|(word, space)| format!("{word}{space}")).collect())
        .prop_filter("bad text is shown as question marks", |line: &String| {
            line.is_ascii() || !line.contains('#')
        })
}

proptest! {
    #[test]
    fn the_parser_is_the_model(line in lines()) {
        prop_assert_eq!(parse(line.as_bytes()), model(&line));
    }

    #[test]
    fn any_bytes_are_a_line_and_a_longer_life(answers in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..20)) {
        let mut lab = Lab::new(agents());
        for answer in answers {
            lab.now += 1_000;
            for check in due(&mut lab.engine, at(lab.now)) {
                prop_assert!(lab.engine.agent_answered(&check.reply(&answer), at(lab.now)));
            }
            let server = status(&lab.engine, 0);
            prop_assert!(server.effective_weight <= 65_535);
        }
        let counters = lab.engine.counters();
        prop_assert_eq!(counters.agent_checks, counters.agent_answers + counters.agent_failures);
    }
}
