//! Questions about packets: what would become of one, and which are to be told about as they pass.
//!
//! ```text
//! explain PACKET                   the words of a packet; the answer is one account
//! explain bytes INTERFACE HEX      a packet as it would come in there
//! trace COUNT BYTES [FILTER]       one answer for each packet, until the client leaves or COUNT (0: no end) have come
//! ```

use evenkeel_engine::journal::{Account, Wish};
use evenkeel_engine::plan::Plan;
use evenkeel_engine::{Engine, Instant, InterfaceId};
use evenkeel_explain::Asked;
use serde_json::{Value, json};

/// The longest packet that fits a line of the control socket as hexadecimal digits.
pub const BYTES_MAX: usize = 1_900;

/// The word that begins a trace.
pub const TRACE: &str = "trace";

/// What a trace tells of.
#[derive(Debug)]
pub(crate) enum Traced {
    /// A packet's way, and how many so far were not told about, since nobody fetched what was there.
    Packet(Box<Account>, u64),
    /// It is over; so many packets in all were not told about.
    End {
        /// How many.
        lost: u64,
    },
}

/// Answers a line that begins with `explain`.
///
/// # Errors
/// With the place of what is wrong with the packet.
pub(crate) fn explain(engine: &Engine, line: &str, now: Instant) -> Result<Value, String> {
    let rest = line.trim_start().strip_prefix("explain").unwrap_or_default().trim();
    let asked = match rest.strip_prefix("bytes ") {
        Some(rest) => raw(rest, engine.plan())?,
        None => evenkeel_explain::packet(rest, engine.plan()).map_err(|mistake| mistake.to_string())?,
    };
    let told = engine.explain(&asked.bytes, asked.interface, now);
    let mut value = evenkeel_explain::explanation(&told, engine.plan());
    match engine.remember(&told) {
        Ok(state) => super::insert(&mut value, STATE, evenkeel_explain::hex(&state)),
        Err(error) => super::insert(&mut value, "no_token", error.to_string()),
    }
    Ok(value)
}

/// The key under which the state of a decision waits to become a token.
const STATE: &str = "state";

/// Makes a token of the state in an answer: beside the data path, for it takes a look at the whole plan.
pub(crate) fn seal(value: &mut Value, plan: &Plan) {
    let state = value.as_object_mut().and_then(|map| map.remove(STATE));
    let state = state.as_ref().and_then(Value::as_str).and_then(evenkeel_explain::unhex);
    if let Some(state) = state {
        evenkeel_explain::seal(value, plan, Ok(state));
    }
}

/// `INTERFACE HEX`, an IP packet.
fn raw(words: &str, plan: &Plan) -> Result<Asked, String> {
    let form = || "usage: explain bytes INTERFACE HEX".to_owned();
    let (name, digits) = words.trim().split_once(' ').ok_or_else(form)?;
    let place = plan.interfaces.iter().position(|one| one.name == name);
    let place = place.and_then(|place| u16::try_from(place).ok());
    let interface = InterfaceId(place.ok_or_else(|| format!("there is no interface {name}"))?);
    let bytes = evenkeel_explain::unhex(digits.trim()).ok_or_else(form)?;
    Ok(evenkeel_explain::raw(interface, plan, bytes))
}

/// What a line that begins with `trace` wishes to be told.
///
/// # Errors
/// With the place of what is wrong with the filter.
pub(crate) fn wish(line: &str, plan: &Plan) -> Result<Wish, String> {
    let usage = || "usage: trace COUNT BYTES [FILTER]".to_owned();
    let mut words = line.trim().splitn(4, ' ').skip(1);
    let mut number = || words.next().and_then(|word| word.parse::<u32>().ok()).ok_or_else(usage);
    let (count, bytes) = (number()?, number()?);
    let filter = words.next().unwrap_or_default();
    let filter = evenkeel_explain::filter(filter, plan).map_err(|mistake| mistake.to_string())?;
    Ok(Wish {
        filter,
        count: (count > 0).then_some(u64::from(count)),
        snap_bytes: usize::try_from(bytes).unwrap_or(usize::MAX).min(1 << 16),
        is_thorough: false,
    })
}

/// What is told of, for the client.
pub(crate) fn shown(traced: &Traced, plan: &Plan) -> Value {
    match traced {
        Traced::Packet(account, lost) => {
            json!({ "packet": evenkeel_explain::account(account, plan), "lost": lost })
        }
        Traced::End { lost } => json!({ "end": { "lost": lost } }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_engine::Guests;
    use evenkeel_engine::plan::{Binding, Builtin, DirectorPlan, InterfacePlan, Layer, ServerPlan};
    use evenkeel_engine::wire::Protocol;

    fn engine() -> Engine {
        let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
        let server = ServerPlan::new("s1", [10, 0, 3, 20].into(), 8080, 4);
        let mut plan = Plan::empty();
        plan.interfaces.push(InterfacePlan::new("tun0", Layer::Ip));
        plan.directors.push(DirectorPlan::new("web", bind, Builtin::WeightedRoundRobin, vec![server]));
        Engine::new(plan, Guests::default(), Instant::ZERO).unwrap()
    }

    #[test]
    fn a_packet_in_words_and_as_bytes_is_the_same_packet() {
        let engine = engine();
        let ask = |line: &str| explain(&engine, line, Instant::ZERO);
        let told = ask("explain tcp 192.0.2.1:1 > 10.0.0.3:80 syn in tun0").unwrap();
        assert_eq!(told["steps"][3]["director"], "web");
        assert_eq!(told["end"]["reason"], "no_route");
        let bytes = told["before"].as_str().unwrap();
        assert_eq!(ask(&format!("explain bytes tun0 {bytes}")).unwrap(), told);
        for (line, says) in [
            ("explain bytes tun9 45", "no interface tun9"),
            ("explain bytes tun0 4", "usage: explain bytes"),
            ("explain bytes tun0", "usage: explain bytes"),
            ("explain tcp 192.0.2.1 > 10.0.0.3:80", "column 5: the source needs a port"),
        ] {
            assert!(ask(line).unwrap_err().contains(says), "{line}");
        }
        assert_eq!(engine.counters().packets_in, 0);
    }

    #[test]
    fn a_trace_is_wished_for_in_one_line() {
        let engine = engine();
        let all = wish("trace 0 128", engine.plan()).unwrap();
        assert_eq!((all.count, all.snap_bytes, all.is_thorough), (None, 128, false));
        assert_eq!(wish("trace 20 128 director web", engine.plan()).unwrap().count, Some(20));
        for (line, says) in
            [("trace", "usage"), ("trace x 1", "usage"), ("trace 1 1 colour red", "colour is no condition")]
        {
            assert!(wish(line, engine.plan()).unwrap_err().contains(says), "{line}");
        }
    }
}
