//! What a recording says of the kernel besides decisions of schedulers, where this engine has an equal of it.

use std::net::{IpAddr, Ipv4Addr};

use evenkeel_engine::plan::{Builtin, Handling, Persistence, Timeouts, Tuned};
use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, PlanError};
use serde_json::Value;

use super::super::RecordingError;
use super::super::report::Report;
use super::service::{Change, Dest, Service, Setup};
use super::{decide, hold};

/// Clients of the little stories.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1));
const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 0, 2));

/// Compares a fact, or counts it as not applicable.
///
/// # Errors
/// When the engine refuses the service that it is about.
pub(super) fn compare(name: &str, value: &Value, report: &mut Report) -> Result<(), RecordingError> {
    let refused = |error: PlanError| RecordingError::Plan { case: name.to_owned(), error };
    let ending = name.chars().last();
    match name {
        "timeouts" => timeouts(value, report),
        "sysctl_defaults" => defaults(value, report),
        "ops_True" => one_packet(value, report).map_err(refused)?,
        _ if name.starts_with("persist_quiesce_eqt") => {
            quiesced(value, ending == Some('1'), report).map_err(refused)?;
        }
        _ if name.starts_with("deleted_dest_expire_nodest") => {
            deleted(value, ending == Some('1'), report).map_err(refused)?;
        }
        _ => report.skip("what ipvsadm prints"),
    }
    Ok(())
}

/// `Timeout (tcp tcpfin udp): 900 120 300`: ours by default.
fn timeouts(value: &Value, report: &mut Report) {
    let text = value.as_str().unwrap_or_default();
    let numbers: Vec<&str> = text.rsplit(':').next().unwrap_or_default().split_whitespace().collect();
    let ours = Timeouts::default();
    let ours = [("tcp", ours.tcp_established), ("tcpfin", ours.tcp_fin_wait), ("udp", ours.udp)];
    for ((name, ours), recorded) in ours.iter().zip(numbers) {
        hold(report, name, "seconds", recorded, &ours.as_secs().to_string());
    }
}

/// The switches that this engine has too, and how they stand by default.
fn defaults(value: &Value, report: &mut Report) {
    let ours = Handling::default();
    for (name, ours) in [
        ("expire_nodest_conn", u64::from(ours.expires_nodest)),
        ("expire_quiescent_template", u64::from(ours.expires_quiescent)),
        ("lblc_expiration", evenkeel_engine::director::builtin::EXPIRATION.as_secs()),
        ("lblcr_expiration", evenkeel_engine::director::builtin::EXPIRATION.as_secs()),
    ] {
        if let Some(recorded) = value.get(name).and_then(Value::as_str) {
            hold(report, name, "value", recorded, &ours.to_string());
        }
    }
    let others = value.as_object().map_or(0, serde_json::Map::len).saturating_sub(4);
    report.note(format!("{others} others have no equal here"));
}

fn round_robin(servers: u32) -> Setup {
    Setup {
        protocol: Protocol::UDP,
        is_v4: true,
        tuned: Tuned::from(Builtin::RoundRobin),
        is_one_packet: false,
        persistence: None,
        handling: Handling::default(),
        dests: (1..=servers).map(|number| Dest::new(number, 1)).collect(),
    }
}

fn recorded(value: &Value, key: &str) -> Option<Option<u32>> {
    let pick = value.get(key)?;
    Some(pick.as_u64().and_then(|number| u32::try_from(number).ok()))
}

/// A client that sticks to a server whose weight becomes 0.
fn quiesced(value: &Value, expires: bool, report: &mut Report) -> Result<(), PlanError> {
    let persistence = Persistence { timeout: Duration::from_secs(300), length_v4: 32, length_v6: 128 };
    let handling = Handling { expires_quiescent: expires, ..Handling::default() };
    let mut service = Service::new(Setup { persistence: Some(persistence), handling, ..round_robin(3) })?;
    let first = service.call((CLIENT, 31_000));
    service.take(&Change::Weight(first.unwrap_or(0), 0))?;
    let same = service.call((CLIENT, 31_001));
    let other = service.call((OTHER, 31_000));
    let existing = service.call((CLIENT, 31_000));
    for (key, ours) in [
        ("first", first),
        ("after_quiesce_same_client_new_port", same),
        ("other_client", other),
        ("existing_conn", existing),
    ] {
        if let Some(recorded) = recorded(value, key) {
            decide(report, key, recorded, ours);
        }
    }
    Ok(())
}

/// A flow whose server is taken out, and comes back: who stands in the table after each further packet.
fn deleted(value: &Value, expires: bool, report: &mut Report) -> Result<(), PlanError> {
    let handling = Handling { expires_nodest: expires, ..Handling::default() };
    let mut service = Service::new(Setup { handling, ..round_robin(3) })?;
    let client = (CLIENT, 20_000);
    let first = service.call(client);
    let server = first.unwrap_or(0);
    service.take(&Change::Remove(server))?;
    let next = service.call(client);
    let third = service.call(client);
    service.wait(Duration::from_millis(1400));
    let later = service.call(client);
    service.take(&Change::Add(Dest::new(server, 1)))?;
    let back = service.call(client);
    let all = [
        ("first", first),
        ("next_pkt", next),
        ("third", third),
        ("after_1_4s", later),
        ("after_readd", back),
    ];
    for (key, ours) in all {
        if let Some(recorded) = recorded(value, key) {
            decide(report, key, recorded, ours);
        }
    }
    Ok(())
}

/// Datagrams that are scheduled one by one, by `rr`: what each server was sent, in `ipvsadm --stats`' words.
fn one_packet(value: &Value, report: &mut Report) -> Result<(), PlanError> {
    let text = value.get("stats").and_then(Value::as_str).unwrap_or_default();
    let mut rows: Vec<(u32, [u64; 3])> = Vec::new();
    for line in text.lines().filter_map(|line| line.trim().strip_prefix("-> 192.168.100.")) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = words.first().and_then(|end| end.split(':').next()).and_then(|text| text.parse().ok());
        let column = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok());
        if let (Some(number), Some(flows), Some(packets), Some(bytes)) =
            (number, column(1), column(2), column(4))
        {
            rows.push((number, [flows, packets, bytes]));
        }
    }
    let servers = rows.iter().map(|(number, _)| *number).max().unwrap_or(0);
    let mut service = Service::new(Setup { is_one_packet: true, ..round_robin(servers.min(254)) })?;
    let total: u64 = rows.iter().map(|(_, [_, packets, _])| *packets).sum();
    // A recording of more packets than this is none of a handful by hand.
    for _ in 0..total.min(10_000) {
        service.call((CLIENT, 20_000));
    }
    let counts = service.counts();
    for (number, recorded) in rows {
        let ours =
            counts.iter().find(|(server, _)| *server == number).map(|(_, ours)| *ours).unwrap_or_default();
        let at = format!("server {number}");
        for (field, (recorded, ours)) in ["flows", "packets", "bytes"].iter().zip(recorded.iter().zip(ours)) {
            hold(report, &at, field, &recorded.to_string(), &ours.to_string());
        }
    }
    Ok(())
}
