//! `evenkeel explain`: what would become of a packet, and why.

use std::fs::File;
use std::path::{Path, PathBuf};

use evenkeel_daemon::control::{self, EXPLAIN_BYTES_MAX};
use evenkeel_daemon::{Mistakes, Prepared, add_next_hops, prepare};
use evenkeel_engine::journal::Step;
use evenkeel_engine::plan::Plan;
use evenkeel_engine::{Duration, Engine, Explanation, Instant, InterfaceId, Memory, MemoryError};
use evenkeel_explain::{Asked, Token, TokenError};
use evenkeel_sim::capture::{Content, Reader, Record, strip};

use super::{ConfigArgument, components, ctl};
use crate::progress::Progress;
use crate::{Failure, output};

/// What would become of a packet, and why
///
/// Each rule that is looked at and why it does or does not match, the flow
/// table, the stick table, the scheduler with its inputs, the packet before
/// and after, next hop and interface. Of a configuration that has just been
/// started, or with --live of the forwarder that runs, with its flows and
/// loads; nothing changes there.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Ask the forwarder that runs with this configuration
    #[arg(long)]
    live: bool,
    /// Ask the forwarder with this control socket
    #[arg(long, value_name = "SOCKET")]
    socket: Option<PathBuf>,
    /// A packet of this capture: pcap or pcapng, also packed with gzip
    #[arg(long, value_name = "FILE", conflicts_with = "words")]
    pcap: Option<PathBuf>,
    /// Which packet of the capture, from 1
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap",
        value_parser = clap::value_parser!(u64).range(1..))]
    packet: u64,
    /// Where the packet of the capture comes in [default: the only interface]
    #[arg(long, value_name = "NAME", requires = "pcap")]
    interface: Option<String>,
    /// Make the decision of this token again: the packet, and what mattered
    /// of the forwarder's state, are in it. The configuration is not
    #[arg(long, value_name = "TOKEN", conflicts_with_all = ["words", "pcap", "live", "socket"])]
    token: Option<String>,
    /// The explanation as JSON
    #[arg(long)]
    json: bool,
    /// The packet
    #[arg(value_name = "PACKET", required_unless_present_any = ["pcap", "token"])]
    words: Vec<String>,
}

const EXAMPLES: &str = "\
A packet is
  tcp|udp ADDRESS:PORT > ADDRESS:PORT [syn ack fin rst psh urg] [in INTERFACE]
  icmp    ADDRESS > ADDRESS [type N] [code N] [id N] [in INTERFACE]
each also with len N (bytes of payload), ttl N, dscp N, df; tcp with seq N and
acked N. A tcp packet without control bits is a syn.

Examples:
  evenkeel explain 'tcp 198.51.100.7:4242 > 10.0.0.3:80 syn in eth0'
  evenkeel explain --live 'icmp 198.51.100.7 > 10.0.0.3 in eth0'
  evenkeel explain --pcap clients.pcapng --packet 17 --interface eth0";

/// How long the engine of a configuration has run when it is asked.
const AGE: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let value = match &arguments.token {
        Some(token) => replayed(arguments, token)?,
        None if arguments.live || arguments.socket.is_some() => live(arguments)?,
        None => fresh(arguments)?,
    };
    if arguments.json {
        return output::answer(&format!("{value:#}\n"));
    }
    output::answer(&evenkeel_explain::text(&value))
}

/// Asks an engine that has just begun. It is thrown away, so its components can be asked as well.
fn fresh(arguments: &Arguments) -> Result<serde_json::Value, Failure> {
    let mut engine = engine(arguments, prepared(arguments)?)?;
    let asked = match &arguments.pcap {
        Some(capture) => {
            let ip = captured(capture, arguments.packet)?;
            let interface = interface_of(arguments, engine.plan())?;
            evenkeel_explain::raw(interface, engine.plan(), ip)
        }
        None => asked(&arguments.words.join(" "), engine.plan())?,
    };
    let plan = engine.plan().clone();
    let now = Instant::ZERO.after(AGE);
    let told = engine.explain(&asked.bytes, asked.interface, now);
    let (told, state) = if told.unknown().is_some() {
        // Nothing is lost when a component of this engine is asked.
        let told = engine.witness(&asked.bytes, asked.interface, now);
        let state = state_as_told(arguments, &told, &asked)?;
        (told, state)
    } else {
        let state = engine.remember(&told);
        (told, state)
    };
    let state = state.map_err(|error| error.to_string());
    let mut value = evenkeel_explain::explanation(&told, &plan);
    evenkeel_explain::seal(&mut value, &plan, state);
    Ok(value)
}

/// What decided where components were asked: what they said, and what another engine looks at that is told the same.
fn state_as_told(
    arguments: &Arguments,
    told: &Explanation,
    asked: &Asked,
) -> Result<Result<Vec<u8>, MemoryError>, Failure> {
    let mut other = engine(arguments, prepared(arguments)?)?;
    if let Err(error) = other.answer_as_told(told) {
        return Ok(Err(error));
    }
    let again = other.explain(&asked.bytes, asked.interface, told.account.at);
    let is_same = (&again.account.end, &again.account.after) == (&told.account.end, &told.account.after);
    Ok(if is_same { other.remember(&again) } else { Err(MemoryError::Component) })
}

/// Reads the configuration and loads its components.
fn prepared(arguments: &Arguments) -> Result<Prepared, Failure> {
    let path = arguments.config.path();
    let _progress = Progress::start(format!("loading {}", path.display()));
    let prepared = prepare(&path, &components(), |written| written.unwrap_or(0));
    let prepared = prepared.and_then(|mut prepared| {
        add_next_hops(&mut prepared.loaded)?;
        Ok(prepared)
    });
    prepared.map_err(|mistakes| wrong(arguments, mistakes))
}

fn engine(arguments: &Arguments, prepared: Prepared) -> Result<Engine, Failure> {
    let engine = prepared.into_engine(Instant::ZERO).map_err(|mistakes| wrong(arguments, mistakes))?;
    Ok(engine.0)
}

fn wrong(arguments: &Arguments, mistakes: Mistakes) -> Failure {
    Failure::Usage(arguments.config.explain(mistakes).render(output::has_colour()))
}

/// Makes the decision of a token again.
fn replayed(arguments: &Arguments, text: &str) -> Result<serde_json::Value, Failure> {
    let refused = |error: TokenError| Failure::Usage(error.to_string());
    let token = Token::read(text).map_err(refused)?;
    let again = |is_as_told: bool| {
        let mut prepared = prepared(arguments)?;
        let memory = token.memory(&prepared.loaded.plan).map_err(refused)?;
        memory.complete(&mut prepared.loaded.plan);
        let mut engine = engine(arguments, prepared)?;
        let recalled = engine.recall(&memory, is_as_told);
        recalled.map_err(|error| Failure::Usage(format!("the token can not be used: {error}")))?;
        let told = engine.explain(&memory.packet, memory.interface, memory.now);
        let mut value = evenkeel_explain::explanation(&told, engine.plan());
        evenkeel_explain::seal(
            &mut value,
            engine.plan(),
            engine.remember(&told).map_err(|error| error.to_string()),
        );
        Ok((value, is_as_remembered(&told, &memory, engine.plan())))
    };
    let (value, is_same) = again(false)?;
    if is_same {
        return Ok(value);
    }
    let (mut value, _) = again(true)?;
    if let Some(map) = value.as_object_mut() {
        map.insert("is_as_told".to_owned(), true.into());
    }
    Ok(value)
}

/// Whether the scheduler and the components that were asked answered as they did then.
fn is_as_remembered(told: &Explanation, memory: &Memory, plan: &Plan) -> bool {
    if told.unknown().is_some() || told.touched.answers != memory.answers {
        return false;
    }
    let picked =
        told.account.steps().find_map(|step| if let Step::Picked(pick) = step { Some(pick) } else { None });
    let Some((director, server)) = memory.pick else { return true };
    let director = plan.directors.get(usize::from(director));
    let server = director.and_then(|director| director.servers.get(usize::from(server)));
    picked.and_then(|pick| pick.server.as_deref()) == server.map(|server| server.name.as_str())
}

fn asked(line: &str, plan: &Plan) -> Result<Asked, Failure> {
    evenkeel_explain::packet(line, plan).map_err(|mistake| Failure::Usage(mistake.to_string()))
}

/// Asks the forwarder that runs.
fn live(arguments: &Arguments) -> Result<serde_json::Value, Failure> {
    let socket = arguments.socket.clone().unwrap_or_else(|| ctl::socket_of(&arguments.config));
    let line = match &arguments.pcap {
        Some(capture) => {
            let ip = captured(capture, arguments.packet)?;
            if ip.len() > EXPLAIN_BYTES_MAX {
                let length = ip.len();
                return Err(Failure::Usage(format!(
                    "packet {} has {length} bytes; a running forwarder can be asked about {EXPLAIN_BYTES_MAX}",
                    arguments.packet
                )));
            }
            let Some(name) = &arguments.interface else {
                return Err(Failure::Usage("--interface NAME says where the packet comes in".to_owned()));
            };
            format!("explain bytes {name} {}", evenkeel_explain::hex(&ip))
        }
        None => format!("explain {}", arguments.words.join(" ")),
    };
    let _progress = Progress::start(format!("asking {}", socket.display()));
    control::request(&socket, &line).map_err(ctl::refused)
}

fn interface_of(arguments: &Arguments, plan: &Plan) -> Result<InterfaceId, Failure> {
    let names: Vec<&str> = plan.interfaces.iter().map(|one| one.name.as_str()).collect();
    let place = match (&arguments.interface, names.as_slice()) {
        (Some(wanted), names) => names.iter().position(|name| name == wanted),
        (None, [_]) => Some(0),
        (None, _) => {
            let names = names.join(", ");
            return Err(Failure::Usage(format!("--interface NAME says where the packet comes in: {names}")));
        }
    };
    let place = place.and_then(|place| u16::try_from(place).ok()).map(InterfaceId);
    place.ok_or_else(|| {
        let wanted = arguments.interface.as_deref().unwrap_or_default();
        Failure::Usage(format!("--interface {wanted}: there are {}", names.join(", ")))
    })
}

/// The IP packet with this number in a capture. What the capture has cut off is zero.
fn captured(path: &Path, wanted: u64) -> Result<Vec<u8>, Failure> {
    let wrong = |reason: String| Failure::Usage(format!("{}: {reason}", path.display()));
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut reader = Reader::new(file).map_err(|error| wrong(error.to_string()))?;
    let mut seen = 0;
    loop {
        let record = reader.next().map_err(|error| wrong(error.to_string()))?;
        let Some(record) = record else {
            return Err(wrong(format!("there is no packet {wanted}; the capture has {seen}")));
        };
        seen = record.number;
        if record.number == wanted {
            return ip_of(&record).ok_or_else(|| wrong(format!("packet {wanted} is no IP packet")));
        }
    }
}

fn ip_of(record: &Record<'_>) -> Option<Vec<u8>> {
    let Content::Ip { bytes, .. } = strip(record.link, record.bytes) else { return None };
    let cut = usize::try_from(record.original_bytes).unwrap_or(0).saturating_sub(record.bytes.len());
    let mut ip = bytes.to_vec();
    ip.resize(ip.len() + cut, 0);
    Some(ip)
}
