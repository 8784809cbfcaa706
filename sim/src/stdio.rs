//! The engine at the end of a pipe: one JSON object a line in, one a line out, in virtual time.
//!
//! In: packets, the time, and lines of `evenkeel ctl`. Out: the packets that left and what was dropped. A bad
//! line is answered with what is wrong with it, and the next one is read: nothing that can be written into
//! the pipe ends the session but its end. It reads no clock and opens nothing.
//!
//! The form is described in `docs/src/reference/sim-stdio.md`.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};

use evenkeel_engine::plan::{Layer, Plan};
use evenkeel_engine::verdict::InterfaceId;
use evenkeel_engine::wire::ethernet::MacAddress;
use evenkeel_engine::{Counters, Engine, Guests, Instant, PlanError, step};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::device::SimDevice;
use crate::packet::Packet;

/// The longest line that is read, in bytes, without its end: eight times the largest packet in hexadecimal.
pub const LINE_MAX_BYTES: usize = 1 << 20;
/// The largest packet or frame, in bytes: an IPv6 header, what its length field can say, and an Ethernet header.
pub const PACKET_MAX_BYTES: usize = 40 + 65_535 + 14;
/// Timer steps that one line causes at most, so that a far "t" over many timers ends. Each step takes care of
/// up to 1,024 flows; a full table of 16 million flows needs 16,384.
const TIMER_STEPS_MAX: usize = 1 << 20;

/// Carries out one line of `evenkeel ctl` at a virtual time; an error is a text for the user.
pub type Command<'a> = dyn FnMut(&mut Engine, &str, Instant) -> Result<Value, String> + 'a;

/// Why a session ended before its input did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StdioError {
    /// The engine refuses the plan.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The input could not be read or the output not be written.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Answers every line of `input` with one line on `output`, until the input ends.
///
/// Lines of `evenkeel ctl` go to `command`, so that they mean the same here and on a running forwarder.
///
/// # Errors
/// When the engine refuses the plan, or input or output fail.
pub fn serve(
    plan: Plan,
    guests: Guests,
    input: impl Read,
    mut output: impl Write,
    command: &mut Command<'_>,
) -> Result<(), StdioError> {
    let mut session = Session::new(plan, guests)?;
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut line = Vec::new();
    for number in 1u64.. {
        let answer = match read_line(&mut input, &mut line)? {
            Line::End => break,
            Line::TooLong => Answer::refusal(format!("the line is longer than {LINE_MAX_BYTES} bytes")),
            Line::Whole => session.answer(&line, command),
        };
        let answer = Answer { line: answer.error.is_some().then_some(number), ..answer };
        serde_json::to_writer(&mut output, &answer).map_err(io::Error::from)?;
        output.write_all(b"\n")?;
        // Whoever waits for an answer gets it; whoever writes ahead is not slowed down.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    output.flush()?;
    Ok(())
}

enum Line {
    Whole,
    TooLong,
    End,
}

/// Reads one line, without its end, into `line`. Of a line that is too long nothing is kept.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let mut is_too_long = false;
    let mut has_begun = false;
    loop {
        let available = match input.fill_buf() {
            Ok(available) => available,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if available.is_empty() && !has_begun {
            return Ok(Line::End);
        }
        has_begun = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = available.get(..end.unwrap_or(available.len())).unwrap_or(&[]);
        is_too_long |= line.len() + part.len() > LINE_MAX_BYTES;
        if is_too_long {
            line.clear();
        } else {
            line.extend_from_slice(part);
        }
        let is_over = end.is_some() || available.is_empty();
        let used = part.len() + usize::from(end.is_some());
        input.consume(used);
        if is_over {
            return Ok(if is_too_long { Line::TooLong } else { Line::Whole });
        }
    }
}

/// A line as it may be written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    t: Option<u64>,
    #[serde(rename = "in")]
    interface: Option<String>,
    ip: Option<String>,
    eth: Option<String>,
    cmd: Option<String>,
}

/// What a line asks for besides letting time pass.
enum Wish {
    Time,
    Packet { interface: InterfaceId, bytes: Vec<u8> },
    Command(String),
}

#[derive(Debug, Default, Serialize)]
struct Answer {
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<Value>,
    /// Missing where the line could not be done at all.
    #[serde(flatten)]
    effect: Option<Effect>,
}

#[derive(Debug, Serialize)]
struct Effect {
    out: Vec<(String, String)>,
    drops: BTreeMap<&'static str, u64>,
}

impl Answer {
    fn refusal(error: String) -> Self {
        Self { error: Some(error), ..Self::default() }
    }
}

/// An engine, its device and the time.
struct Session {
    engine: Engine,
    device: SimDevice,
    now: Instant,
    told: Counters,
}

impl Session {
    fn new(mut plan: Plan, guests: Guests) -> Result<Self, PlanError> {
        // Nothing is plugged in: an interface without a MAC address gets one by its number, counted from 1.
        plan.fill_in_macs(|number| {
            let [.., high, low] = number.saturating_add(1).to_be_bytes();
            MacAddress([2, 0, 0, 0, high, low])
        });
        let engine = Engine::new(plan, guests, Instant::ZERO)?;
        let told = engine.counters().clone();
        Ok(Self { engine, device: SimDevice::default(), now: Instant::ZERO, told })
    }

    /// Does what a line says. A line that cannot be understood changes nothing.
    fn answer(&mut self, line: &[u8], command: &mut Command<'_>) -> Answer {
        let (at, wish) = match self.understand(line) {
            Ok(understood) => understood,
            Err(error) => return Answer::refusal(error),
        };
        let mut out = Vec::new();
        let mut answer = Answer::default();
        self.pass_time(at, &mut out);
        match wish {
            Wish::Time => {}
            Wish::Packet { interface, bytes } => {
                let packet = Packet::copied_into(self.device.buffer(), &bytes);
                // The queue is empty between lines, so it takes one packet.
                let _ = self.device.put(interface, packet);
                self.step(&mut out);
            }
            Wish::Command(line) => {
                match command(&mut self.engine, &line, self.now) {
                    Ok(reply) => answer.reply = Some(reply),
                    Err(error) => answer.error = Some(error),
                }
                self.step(&mut out);
            }
        }
        answer.effect = Some(Effect { out, drops: self.drops() });
        answer
    }

    fn understand(&self, line: &[u8]) -> Result<(Instant, Wish), String> {
        // A list would pass for an object that leaves out its keys.
        if line.trim_ascii_start().first().is_some_and(|byte| *byte != b'{') {
            return Err("a line is one JSON object".to_owned());
        }
        let request: Request = serde_json::from_slice(line).map_err(|error| words(&error))?;
        Ok((self.time(request.t)?, self.wish(request)?))
    }

    fn time(&self, t: Option<u64>) -> Result<Instant, String> {
        let at = t.map_or(self.now, Instant::from_nanos);
        if at == Instant::NEVER {
            return Err(format!("\"t\" is at most {}", u64::MAX - 1));
        }
        if at < self.now {
            return Err(format!("\"t\" is {}, but it is {} already", at.as_nanos(), self.now.as_nanos()));
        }
        Ok(at)
    }

    fn wish(&self, request: Request) -> Result<Wish, String> {
        let Request { t, interface, ip, eth, cmd } = request;
        let (name, digits, is_frame) = match (interface, ip, eth, cmd) {
            (None, None, None, None) if t.is_some() => return Ok(Wish::Time),
            (None, None, None, None) => {
                return Err("the object is empty; see \"t\", \"in\", \"cmd\"".to_owned());
            }
            (None, None, None, Some(line)) => return Ok(Wish::Command(line)),
            (_, _, _, Some(_)) => return Err("\"cmd\" stands alone or beside \"t\"".to_owned()),
            (Some(name), Some(digits), None, None) => (name, digits, false),
            (Some(name), None, Some(digits), None) => (name, digits, true),
            (_, Some(_), Some(_), None) => return Err("\"ip\" or \"eth\", not both".to_owned()),
            (Some(_), None, None, None) => return Err("\"in\" needs \"ip\" or \"eth\"".to_owned()),
            (None, _, _, None) => return Err("a packet needs \"in\", the interface".to_owned()),
        };
        let interfaces = &self.engine.plan().interfaces;
        let Some(index) = interfaces.iter().position(|interface| interface.name == name) else {
            let known: Vec<_> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
            return Err(format!("no interface \"{name}\"; there are: {}", known.join(", ")));
        };
        let carries_frames = interfaces.get(index).is_some_and(|one| matches!(one.layer, Layer::Ethernet(_)));
        if carries_frames != is_frame {
            let (carries, key) = if carries_frames { ("frames", "eth") } else { ("IP packets", "ip") };
            return Err(format!("interface \"{name}\" carries {carries}: use \"{key}\""));
        }
        let interface = InterfaceId(u16::try_from(index).map_err(|_| "too many interfaces".to_owned())?);
        let bytes = decode(&digits)?;
        if bytes.len() > PACKET_MAX_BYTES {
            return Err(format!("{} bytes; a packet has at most {PACKET_MAX_BYTES}", bytes.len()));
        }
        Ok(Wish::Packet { interface, bytes })
    }

    /// Lets time pass up to `at`: every timer of the engine acts at its own time.
    fn pass_time(&mut self, at: Instant, out: &mut Vec<(String, String)>) {
        for _ in 0..TIMER_STEPS_MAX {
            let Some(due) = self.engine.poll_timeout().filter(|due| *due <= at) else { break };
            self.now = self.now.max(due);
            self.step(out);
        }
        self.now = at;
        self.step(out);
    }

    /// Runs the engine's loop until nothing waits, and collects what left.
    fn step(&mut self, out: &mut Vec<(String, String)>) {
        loop {
            step(&mut self.engine, &mut self.device, self.now);
            while let Some((interface, packet)) = self.device.take() {
                let name = self.engine.plan().interfaces.get(interface.index());
                let name = name.map_or_else(String::new, |interface| interface.name.clone());
                out.push((name, encode(packet.bytes())));
                self.device.recycle(packet);
            }
            while self.engine.poll_event().is_some() {}
            if !self.device.has_waiting() {
                break;
            }
        }
    }

    /// What was dropped since the last answer.
    fn drops(&mut self) -> BTreeMap<&'static str, u64> {
        let counters = self.engine.counters();
        let new = counters.drops().map(|(reason, count)| (reason.name(), count - self.told.dropped(reason)));
        let drops = new.filter(|(_, count)| *count > 0).collect();
        self.told = counters.clone();
        drops
    }
}

/// The words of a JSON error; the line in it is always the first, so only the column is kept.
fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    format!("{text} at column {}", error.column())
}

pub(crate) fn decode(digits: &str) -> Result<Vec<u8>, String> {
    let value = |digit: &u8| char::from(*digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return Err("an odd number of hexadecimal digits".to_owned());
    }
    let byte = |[high, low]: &[u8; 2]| Some(value(high)? << 4 | value(low)?);
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    bytes.ok_or_else(|| "something that is no hexadecimal digit".to_owned())
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_there_and_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&bytes)), Ok(bytes.clone()));
        assert_eq!(decode(&encode(&bytes).to_uppercase()), Ok(bytes));
        assert_eq!(decode(""), Ok(Vec::new()));
        for wrong in ["0", "0x10", "zz", "é0", "+1"] {
            assert!(decode(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn lines_are_cut_at_their_ends_and_at_the_bound() {
        let mut text = b"one\n\n".to_vec();
        text.extend(vec![b'x'; LINE_MAX_BYTES]);
        text.push(b'\n');
        text.extend(vec![b'x'; LINE_MAX_BYTES + 1]);
        text.extend(b"\nlast");
        let mut input = BufReader::with_capacity(1000, &text[..]);
        let mut line = Vec::new();
        let mut lengths = Vec::new();
        loop {
            match read_line(&mut input, &mut line).unwrap() {
                Line::Whole => lengths.push(Some(line.len())),
                Line::TooLong => lengths.push(None),
                Line::End => break,
            }
        }
        assert_eq!(lengths, [Some(3), Some(0), Some(LINE_MAX_BYTES), None, Some(4)]);
    }
}
