//! RFC 5382, NAT for TCP, as far as it applies to a load balancer; with RFC 7857, RFC 5961 and RFC 6056 where those
//! change it. The names of the checks are those of the table in `docs/src/robustness.md`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::rfc_support::*;
use evenkeel_sim::packet::{End, Flags, view};

const DATA: Flags = Flags(0x18);
const RST_ACK: Flags = Flags(0x14);

#[test]
fn t1_the_service_is_the_same_end_for_every_client() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    for last in 1..=5 {
        let back = pipe.connect(last.into(), client(last));
        let answer = pipe.lan(last.into(), &tcp(back, DATA, 2001, 1001, b"hello")).packet();
        assert_eq!(ends(&answer), (WEB, client(last)));
    }
}

#[test]
fn t2_both_ends_may_open_at_once() {
    let mut pipe = Pipe::new(plan());
    let (from, server) = ends(&pipe.wan(1, &tcp((CLIENT, WEB), Flags::SYN, 1000, 0, b"")).packet());
    let back = (server, from);
    pipe.lan(2, &tcp(back, Flags::SYN, 2000, 0, b"")).packet();
    pipe.wan(3, &tcp((CLIENT, WEB), SYN_ACK, 1000, 2001, b"")).packet();
    pipe.lan(4, &tcp(back, SYN_ACK, 2000, 1001, b"")).packet();
    pipe.wan(5, &tcp((CLIENT, WEB), DATA, 1001, 2001, b"hello")).packet();
    let answer = pipe.lan(6, &tcp(back, DATA, 2001, 1006, b"hello")).packet();
    assert_eq!(ends(&answer), (WEB, CLIENT));
    assert_eq!(pipe.states(), ["established"]);
}

#[test]
fn t3_a_syn_to_a_mapping_that_nobody_asked_for_is_met_with_silence() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    let (_, mapped) = pipe.connect(1, CLIENT);
    for port in [mapped.port, mapped.port + 1] {
        let to = End { port, ..mapped };
        let answer = pipe.lan(2, &tcp((End { address: S2, port: 999 }, to), Flags::SYN, 5, 0, b""));
        assert!(answer.out.is_empty() && answer.drops.contains_key("no_director"), "{answer:?}");
        let answer = pipe.wan(2, &tcp((client(99), to), Flags::SYN, 5, 0, b""));
        assert!(answer.out.is_empty() && answer.drops.contains_key("no_director"), "{answer:?}");
    }
    assert_eq!(pipe.flows(3), 1);
}

#[test]
fn t4_an_established_connection_lives_for_two_hours_and_four_minutes() {
    let mut pipe = Pipe::new(plan());
    pipe.connect(0, CLIENT);
    assert_eq!(pipe.flows(7_439 * SECOND), 1);
    assert_eq!(pipe.flows(7_442 * SECOND), 0);
}

#[test]
fn t5_one_that_opens_or_closes_lives_for_four_minutes() {
    // Opening, answered, closed by one side, closed by both.
    for step in 0..4 {
        let mut pipe = Pipe::new(plan());
        let (from, server) = ends(&pipe.wan(0, &tcp((CLIENT, WEB), Flags::SYN, 1000, 0, b"")).packet());
        let back = (server, from);
        if step > 0 {
            pipe.lan(0, &tcp(back, SYN_ACK, 2000, 1001, b"")).packet();
        }
        if step > 1 {
            pipe.wan(0, &tcp((CLIENT, WEB), Flags::ACK, 1001, 2001, b"")).packet();
            pipe.wan(0, &tcp((CLIENT, WEB), FIN_ACK, 1001, 2001, b"")).packet();
        }
        if step > 2 {
            pipe.lan(0, &tcp(back, FIN_ACK, 2001, 1002, b"")).packet();
        }
        assert_eq!(pipe.flows(239 * SECOND), 1, "step {step}: {:?}", pipe.states());
        assert_eq!(pipe.flows(242 * SECOND), 0, "step {step}");
    }
}

#[test]
fn t6_a_reset_that_fits_is_translated_and_leaves_the_state_for_four_minutes() {
    for is_client in [true, false] {
        let mut pipe = Pipe::new(plan());
        let back = pipe.connect(0, CLIENT);
        let out = if is_client {
            pipe.wan(1, &tcp((CLIENT, WEB), Flags::RST, 1001, 0, b"")).packet()
        } else {
            pipe.lan(1, &tcp(back, RST_ACK, 2001, 1001, b"")).packet()
        };
        assert_eq!(ends(&out), if is_client { (back.1, back.0) } else { (WEB, CLIENT) });
        assert_eq!(pipe.states(), ["closed"]);
        assert_eq!(pipe.flows(239 * SECOND), 1);
        assert_eq!(pipe.flows(242 * SECOND), 0);
    }
}

#[test]
fn t7_a_reset_that_does_not_fit_goes_on_and_ends_nothing() {
    let mut pipe = Pipe::new(plan());
    let back = pipe.connect(0, CLIENT);
    for number in [0, 77_000_000, 1001 + (1 << 20), 0x8000_0000, u32::MAX] {
        let out = pipe.wan(1, &tcp((CLIENT, WEB), Flags::RST, number, 0, b"")).packet();
        assert_eq!(ends(&out), (back.1, back.0), "the end decides for itself");
        assert_eq!(pipe.states(), ["established"], "{number}");
        pipe.lan(1, &tcp(back, RST_ACK, number.wrapping_add(7777), number ^ (1 << 30), b"")).packet();
        assert_eq!(pipe.states(), ["established"], "{number}");
    }
    // The answer to a challenge has the number that is right.
    pipe.lan(2, &tcp(back, Flags::ACK, 2001, 1001, b"")).packet();
    pipe.wan(2, &tcp((CLIENT, WEB), Flags::RST, 1001, 0, b"")).packet();
    assert_eq!(pipe.states(), ["closed"]);
}

#[test]
fn t8_a_real_server_that_calls_the_service_is_seen_from_outside() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    let caller = End { address: S2, port: 33_000 };
    let (mapped, server) = ends(&pipe.lan(1, &tcp((caller, WEB), Flags::SYN, 1000, 0, b"")).packet());
    assert_eq!((mapped.address, server.address), (OWN, S1));
    let back = pipe.lan(2, &tcp((server, mapped), SYN_ACK, 2000, 1001, b"")).packet();
    assert_eq!(ends(&back), (WEB, caller));
}

#[test]
fn t9_errors_reach_whom_they_concern_with_what_was_sent_put_back() {
    let mut pipe = Pipe::new(full_nat(1024..=65_535));
    let there = pipe.wan(1, &tcp((CLIENT, WEB), Flags::SYN, 1000, 0, b"")).packet();
    let (mapped, server) = ends(&there);
    for code in [0, 1, 3, 4, 13] {
        let rest = [0, 0, 5, 0];
        let told = pipe.lan(2, &icmp((ROUTER, mapped.address), (3, code), rest, &there[..28])).packet();
        assert_eq!((kind(&told), &told[24..28]), ((3, code), &rest[..]), "kept as it was");
        assert_eq!(addresses(&told), (VIP, CLIENT.address), "nobody is named whom the client does not know");
        let quote = view(&told[..]);
        let quote = quote.unwrap();
        assert_eq!((quote.source, quote.destination), (CLIENT.any(), WEB.any()), "as the client sent it");
        assert_eq!(told[28 + 24..28 + 28], 1000_u32.to_be_bytes(), "the number that the client checks");
    }
    let answer = pipe.lan(3, &tcp((server, mapped), SYN_ACK, 2000, 1001, b"")).packet();
    let told = pipe.wan(4, &icmp((ROUTER, VIP), (3, 1), [0; 4], &answer[..28])).packet();
    assert_eq!(addresses(&told), (mapped.address, server.address));
    let quote = view(&told).unwrap();
    assert_eq!((quote.source, quote.destination), (server.any(), mapped.any()), "as the real server sent it");
}

#[test]
fn t10_no_icmp_message_ends_a_connection() {
    let mut pipe = Pipe::new(plan());
    let back = pipe.connect(0, CLIENT);
    let there = pipe.wan(1, &tcp((CLIENT, WEB), DATA, 1001, 2001, b"hello")).packet();
    for kind in [(3, 0), (3, 1), (3, 2), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (12, 0)] {
        pipe.lan(2, &icmp((back.0.address, CLIENT.address), kind, [0; 4], &there[..28])).packet();
        assert_eq!(pipe.states(), ["established"], "{kind:?}");
    }
    // Nor does it keep one alive.
    assert_eq!(pipe.flows(7_445 * SECOND), 0);
}

#[test]
fn t11_errors_and_refused_segments_do_not_refresh() {
    let mut pipe = Pipe::new(plan());
    let (from, server) = ends(&pipe.wan(0, &tcp((CLIENT, WEB), Flags::SYN, 1000, 0, b"")).packet());
    let there = tcp((from, server), Flags::SYN, 1000, 0, b"");
    pipe.lan(200 * SECOND, &icmp((server.address, from.address), (3, 1), [0; 4], &there[..28])).packet();
    let expired = with(tcp((CLIENT, WEB), Flags::SYN, 1000, 0, b""), 8, &[1]);
    assert!(pipe.wan(200 * SECOND, &expired).drops.contains_key("ttl_exceeded"));
    pipe.lan(200 * SECOND, &tcp((server, from), Flags::RST, 77_000, 0, b"")).packet();
    assert_eq!(pipe.flows(239 * SECOND), 1);
    assert_eq!(pipe.flows(242 * SECOND), 0);
}

#[test]
fn t12_a_port_that_is_taken_gives_way_to_one_that_is_hard_to_guess() {
    let mut plan = full_nat(1024..=65_535);
    plan.directors[1].servers.truncate(1);
    let mut pipe = Pipe::new(plan);
    let mut ports = Vec::new();
    for last in 1..=20 {
        let (mapped, _) = ends(&pipe.wan(1, &tcp((client(last), WEB), Flags::SYN, 1, 0, b"")).packet());
        ports.push(mapped.port);
    }
    assert_eq!(ports.remove(0), 40_000);
    let mut sorted = ports.clone();
    sorted.sort_unstable();
    assert_ne!(ports, sorted);
    assert!(sorted.windows(2).all(|two| two[1] > two[0] + 1), "no two follow each other: {sorted:?}");
    assert!(sorted[18] - sorted[0] > 20_000, "spread over the range: {sorted:?}");
}

#[test]
fn t13_what_comes_after_a_reset_is_still_translated() {
    let mut pipe = Pipe::new(plan());
    let back = pipe.connect(0, CLIENT);
    pipe.wan(1, &tcp((CLIENT, WEB), Flags::RST, 1001, 0, b"")).packet();
    let late = pipe.lan(2, &tcp(back, DATA, 2001, 1001, b"on its way")).packet();
    assert_eq!(ends(&late), (WEB, CLIENT));
}
