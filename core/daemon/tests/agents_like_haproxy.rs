//! The same lines to a real HAProxy and to our engine: weight, state and bound come out alike, line by line. Where they differ,
//! the table says so, with both outcomes. Skipped where there is no HAProxy.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr, reason = "tests")]

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use evenkeel_engine::agent::AgentMode;
use evenkeel_engine::plan::{AgentPlan, Binding, Builtin, DirectorPlan, ServerPlan};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Engine, Guests, Instant, Plan};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;
use tokio::sync::Mutex;

/// A test that waits for longer than this waits for ever.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose turn it is to ask a HAProxy.
static TURN: Mutex<()> = Mutex::const_new(());

/// The weight and the bound of each server before anybody says anything.
const WEIGHT: u32 = 40;
const BOUND: u32 = 7;

/// What has become of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    weight: u32,
    mode: AgentMode,
    is_down: bool,
    bound: u32,
}

/// As it was at first.
const FIRST: State = State { weight: WEIGHT, mode: AgentMode::Ready, is_down: false, bound: BOUND };

const fn weighing(weight: u32) -> State {
    State { weight, ..FIRST }
}

const fn down() -> State {
    State { is_down: true, ..FIRST }
}

/// Lines that mean the same to both, each one for a server of its own, and what they mean.
const ALIKE: [(&str, State); 44] = [
    ("75%\n", weighing(30)),
    ("300%\n", weighing(120)),
    ("0%\n", weighing(0)),
    ("  50%  \n", weighing(20)),
    ("50% 25%\n", weighing(10)),
    ("banana 50%\n", weighing(20)),
    ("50%\r\nmaint\n", weighing(20)),
    ("50.5%\n", FIRST),
    ("-5%\n", FIRST),
    ("+50%\n", FIRST),
    ("50 %\n", FIRST),
    ("50%x\n", FIRST),
    ("%\n", FIRST),
    ("75\n", FIRST),
    ("\n", FIRST),
    ("\r\n", FIRST),
    (" \t,\n", FIRST),
    ("drain\n", State { mode: AgentMode::Drain, ..FIRST }),
    ("Drain\n", State { mode: AgentMode::Drain, ..FIRST }),
    ("50%,drain\n", State { mode: AgentMode::Drain, ..weighing(20) }),
    ("50%\tmaint\n", State { mode: AgentMode::Maint, ..weighing(20) }),
    ("maint\n", State { mode: AgentMode::Maint, ..FIRST }),
    ("ready\n", FIRST),
    ("ready drain\n", State { mode: AgentMode::Drain, ..FIRST }),
    ("drain ready\n", FIRST),
    ("drain #why 50%\n", State { mode: AgentMode::Drain, ..FIRST }),
    ("ready#x drain\n", State { mode: AgentMode::Drain, ..FIRST }),
    ("#drain\n", FIRST),
    ("up\n", FIRST),
    ("down\n", down()),
    ("DOWN\n", down()),
    ("fail\n", down()),
    ("stopped\n", down()),
    ("stop\n", FIRST),
    ("downward\n", FIRST),
    ("down #disk is full\n", down()),
    ("down ,#a up\n", down()),
    ("up down\n", down()),
    ("down up\n", FIRST),
    ("down 10%\n", State { is_down: true, ..weighing(4) }),
    ("maxconn:30\n", State { bound: 30, ..FIRST }),
    ("maxconn:0\n", State { bound: 0, ..FIRST }),
    ("maxconn:x\n", FIRST),
    ("maxconn:5%\n", FIRST),
];

/// Lines that do not: the line, what HAProxy 2.6 makes of it, what we do, and why.
const UNLIKE: [(&str, State, State, &str); 9] = [
    ("1%\n", weighing(0), weighing(1), "a little is not nothing: rounded down it would drain"),
    ("1000000%\n", weighing(256), weighing(65_535), "weights go further here"),
    ("down#disk\n", FIRST, down(), "the manual says that a reason may follow, and does not ask for a blank"),
    ("failed\n", FIRST, down(), "a word that people write"),
    ("weight:20\n", FIRST, weighing(20), "a form that other programs have"),
    ("weight:50%\n", FIRST, weighing(20), "the same"),
    ("50%", FIRST, weighing(20), "the end of the stream ends a line, too"),
    (
        "maxconn:9 maxconn:\n",
        FIRST,
        State { bound: 9, ..FIRST },
        "a word that means nothing hides none that does",
    ),
    ("maxconn:-1\n", State { bound: u32::MAX, ..FIRST }, FIRST, "there is no such bound"),
];

/// Our engine, and what it makes of lines.
struct Ours {
    engine: Engine,
    now: Instant,
}

impl Ours {
    fn new() -> Self {
        let server =
            ServerPlan { flows_upper: BOUND, ..ServerPlan::new("s", [127, 0, 0, 1].into(), 80, WEIGHT) };
        let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
        let mut director = DirectorPlan::new("web", bind, Builtin::WeightedRoundRobin, vec![server]);
        director.agent_check = Some(AgentPlan::at(8888));
        let plan = Plan { directors: vec![director], ..Plan::empty() };
        Self { engine: Engine::new(plan, Guests::default(), Instant::ZERO).unwrap(), now: Instant::ZERO }
    }

    fn hear(&mut self, line: &str) -> State {
        self.engine.handle_timeout(self.now);
        let check = self.engine.poll_agent_check(self.now).unwrap();
        assert!(self.engine.agent_answered(&check.reply(line.as_bytes()), self.now));
        self.now = self.now.after(Duration::from_secs(2));
        let server = self.engine.directors().remove(0).servers.remove(0);
        let agent = server.agent.unwrap();
        // What drain leaves of a weight is nothing; HAProxy shows what it was.
        let weight = match agent.mode {
            AgentMode::Drain => agent.weight.map_or(WEIGHT, |own| own.of(WEIGHT)),
            AgentMode::Ready | AgentMode::Maint => server.effective_weight,
        };
        let bound = agent.flows_max.unwrap_or(BOUND);
        State { weight, mode: agent.mode, is_down: agent.down.is_some(), bound }
    }
}

/// A HAProxy that asks an agent for each of its servers.
struct Haproxy {
    folder: PathBuf,
    _process: tokio::process::Child,
}

impl Haproxy {
    async fn start(name: &str, agents: &[TcpListener]) -> Self {
        let folder = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let place = |name: &str| folder.join(name).display().to_string();
        let mut text = format!(
            "global\n stats socket {} level admin\ndefaults\n mode tcp\n timeout connect 60s\n timeout client 60s\n \
             timeout server 60s\n timeout check 5s\nlisten b\n bind unix@{}\n balance roundrobin\n",
            place("stats"),
            place("service"),
        );
        for (number, agent) in agents.iter().enumerate() {
            let port = agent.local_addr().unwrap().port();
            text.push_str(&format!(
                " server s{number} 127.0.0.1:9 weight {WEIGHT} maxconn {BOUND} agent-check agent-port {port} agent-inter 20ms\n"
            ));
        }
        std::fs::write(folder.join("haproxy.cfg"), text).unwrap();
        let program = || {
            let mut command = Command::new("haproxy");
            command.args(["-db", "-f", &place("haproxy.cfg")]).stdout(Stdio::null()).stderr(Stdio::null());
            command.kill_on_drop(true);
            command
        };
        assert!(program().arg("-c").status().await.unwrap().success(), "the configuration");
        Self { _process: program().spawn().unwrap(), folder }
    }

    async fn ask(folder: &Path, command: &str) -> String {
        // One at a time: its socket has room for a few.
        let _turn = TURN.lock().await;
        let mut stream = UnixStream::connect(folder.join("stats")).await.unwrap();
        stream.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    /// The state of server `number`, by the names of the columns.
    async fn state(folder: &Path, number: usize) -> State {
        let name = format!("s{number}");
        let text = Self::ask(folder, "show servers state").await;
        let mut lines = text.lines().skip(1);
        let head: Vec<&str> = lines.next().unwrap().split_whitespace().skip(1).collect();
        let row: Vec<&str> = lines
            .map(|line| line.split_whitespace().collect())
            .find(|row: &Vec<&str>| row.contains(&name.as_str()))
            .unwrap();
        let field = |wanted: &str| -> u32 {
            row[head.iter().position(|one| *one == wanted).unwrap()].parse().unwrap()
        };
        let text = Self::ask(folder, "show stat").await;
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap().trim_start_matches("# ").split(',').collect();
        let row: Vec<&str> = lines
            .map(|line| line.split(',').collect())
            .find(|row: &Vec<&str>| row.contains(&name.as_str()))
            .unwrap();
        let bound = row[head.iter().position(|one| *one == "slim").unwrap()];
        // Bits of the administrative state: 1 for maintenance, 8 for drain (management manual, `show servers state`).
        let admin = field("srv_admin_state");
        let mode = match (admin & 1, admin & 8) {
            (1, _) => AgentMode::Maint,
            (_, 8) => AgentMode::Drain,
            _ => AgentMode::Ready,
        };
        State {
            weight: field("srv_uweight"),
            mode,
            is_down: field("srv_op_state") == 0,
            bound: if bound.is_empty() { 0 } else { bound.parse().unwrap() },
        }
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        // Files of this process in the folder for such files.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// What HAProxy makes of each of `lines`, said to it by the agent of server `number` one after the other: when it asks again, it
/// has taken in the last one.
async fn theirs(agent: &TcpListener, folder: &Path, number: usize, lines: &[String]) -> Vec<State> {
    let mut states = Vec::new();
    for step in 0..=lines.len() {
        let (mut stream, _) = agent.accept().await.unwrap();
        if step > 0 {
            states.push(Haproxy::state(folder, number).await);
        }
        if let Some(line) = lines.get(step) {
            stream.write_all(line.as_bytes()).await.unwrap();
        }
    }
    states
}

/// Whether the state of a server in maintenance says whether it works: HAProxy shows it as down then, whatever its agent says.
fn is_same(theirs: State, ours: State) -> bool {
    let hidden = theirs.mode == AgentMode::Maint;
    theirs == State { is_down: if hidden { theirs.is_down } else { ours.is_down }, ..ours }
}

fn is_missing() -> bool {
    let found = std::process::Command::new("haproxy").arg("-v").stdout(Stdio::null()).status();
    let is_missing = !found.is_ok_and(|status| status.success());
    if is_missing {
        eprintln!("SKIPPED: no haproxy here, so nothing is compared with it");
    }
    is_missing
}

/// Has a HAProxy hear `lines`, a list for each server, and gives what it makes of each.
async fn compare(name: &str, lines: &[Vec<String>]) -> Vec<Vec<State>> {
    let mut agents = Vec::new();
    for _ in lines {
        agents.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
    }
    let haproxy = Haproxy::start(name, &agents).await;
    let mut all = Vec::new();
    let asking = agents.into_iter().enumerate().zip(lines.to_vec()).map(|((number, agent), lines)| {
        let folder = haproxy.folder.clone();
        tokio::task::spawn(async move { theirs(&agent, &folder, number, &lines).await })
    });
    for asked in asking.collect::<Vec<_>>() {
        all.push(tokio::time::timeout(PATIENCE, asked).await.unwrap().unwrap());
    }
    all
}

#[tokio::test]
async fn every_line_of_the_table_means_what_it_means_to_haproxy() {
    if is_missing() {
        return;
    }
    let alike = ALIKE.iter().map(|(line, state)| (*line, *state, *state));
    let table: Vec<_> =
        alike.chain(UNLIKE.iter().map(|(line, theirs, ours, _)| (*line, *theirs, *ours))).collect();
    let lines: Vec<Vec<String>> = table.iter().map(|(line, ..)| vec![(*line).to_owned()]).collect();
    let found = compare("table", &lines).await;
    for ((line, theirs, ours), found) in table.into_iter().zip(found) {
        assert!(is_same(found[0], theirs), "HAProxy and {line:?}: {:?} is not {theirs:?}", found[0]);
        let heard = Ours::new().hear(line);
        assert_eq!(heard, ours, "{line:?}");
    }
}

/// A number below `most`, by xorshift.
fn draw(state: &mut u64, most: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % most
}

/// A line of words that mean the same to both.
fn line(state: &mut u64) -> String {
    let words = [
        "ready", "drain", "maint", "up", "down", "fail", "stopped", "Up", "DRAIN", "banana", "50",
        "maxcon:5", "%",
    ];
    let mut text = String::new();
    for _ in 0..draw(state, 5) {
        text.push_str(match draw(state, 5) {
            0 => ", ",
            1 => "\t",
            _ => " ",
        });
        match draw(state, 10) {
            // Neither rounded to nothing nor beyond 256.
            0..=2 => text.push_str(&format!("{}%", 3 + draw(state, 600))),
            3 => text.push_str(&format!("maxconn:{}", draw(state, 1_000))),
            4 => text.push_str("0%"),
            _ => text.push_str(words[usize::try_from(draw(state, words.len() as u64)).unwrap()]),
        }
    }
    if draw(state, 4) == 0 {
        text.push_str(" #because ready, 7% of it");
    }
    text.push('\n');
    text
}

#[tokio::test]
async fn lines_one_after_the_other_lead_to_the_same_states() {
    if is_missing() {
        return;
    }
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let lines: Vec<Vec<String>> = (0..24).map(|_| (0..24).map(|_| line(&mut state)).collect()).collect();
    let found = compare("lines", &lines).await;
    for (lines, found) in lines.iter().zip(found) {
        let mut engine = Ours::new();
        for (place, (line, theirs)) in lines.iter().zip(found).enumerate() {
            let ours = engine.hear(line);
            assert!(
                is_same(theirs, ours),
                "after {:#?}:\nHAProxy {theirs:?}\nours    {ours:?}",
                &lines[..=place]
            );
        }
    }
}
