//! RFC 5508, NAT for ICMP, as far as it applies to a load balancer, and what RFC 6888 asks of one that shares its
//! resources. The names of the checks are those of the table in `docs/src/robustness.md`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::rfc_support::*;
use evenkeel_sim::packet::{Flags, adds_up};

const ECHO: (u8, u8) = (8, 0);
const REPLY: (u8, u8) = (0, 0);

#[test]
fn i1_a_query_is_remembered_for_a_minute() {
    let mut pipe = Pipe::new(forwarded_pings());
    let there = pipe.wan(0, &icmp((CLIENT.address, VIP), ECHO, [0, 7, 0, 1], b"there?")).packet();
    assert_eq!((kind(&there), addresses(&there)), (ECHO, (CLIENT.address, S1)));
    let back = pipe.lan(59 * SECOND, &icmp((S1, CLIENT.address), REPLY, [0, 7, 0, 1], b"there?")).packet();
    assert_eq!(
        (kind(&back), addresses(&back), &back[24..]),
        (REPLY, (VIP, CLIENT.address), &b"\0\x07\0\x01there?"[..])
    );
    assert_eq!(pipe.flows(118 * SECOND), 1);
    assert_eq!(pipe.flows(121 * SECOND), 0);
}

#[test]
fn i2_queries_of_two_clients_with_one_identifier_do_not_mix() {
    let mut plan = full_nat(1024..=65_535);
    plan.directors.truncate(1);
    plan.directors[0].ping = evenkeel_engine::plan::Ping::Forward;
    plan.directors[0].servers.remove(0);
    let mut pipe = Pipe::new(plan);
    let mut seen = Vec::new();
    for last in 1..=3 {
        let there = pipe.wan(1, &icmp((client(last).address, VIP), ECHO, [9, 9, 0, 1], b"?")).packet();
        assert_eq!(addresses(&there), (OWN, S1));
        seen.push([there[24], there[25]]);
    }
    assert!(seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2], "{seen:?}");
    for (identifier, last) in seen.iter().zip(1..) {
        let rest = [identifier[0], identifier[1], 0, 1];
        let back = pipe.lan(2, &icmp((S1, OWN), REPLY, rest, b"?")).packet();
        assert_eq!((addresses(&back).1, &back[24..26]), (client(last).address, &[9, 9][..]));
    }
}

#[test]
fn i3_an_error_that_does_not_add_up_is_dropped_and_what_it_quotes_is_read_with_care() {
    let mut pipe = Pipe::new(plan());
    let there = pipe.wan(1, &udp((CLIENT, DNS), b"what is it?")).packet();
    let error = |quote: &[u8]| icmp((S1, CLIENT.address), (3, 3), [0; 4], quote);
    let mut wrong = error(&there[..28]);
    wrong[22] ^= 1;
    pipe.lan(2, &wrong).is_silent("bad_checksum");
    let mut wrong = there[..28].to_vec();
    wrong[10] ^= 1;
    pipe.lan(2, &error(&wrong)).is_silent("bad_checksum");
    pipe.lan(2, &error(&there[..27])).is_silent("truncated");
    // The checksum of the quoted datagram is nobody's business: it may have been cut.
    let mut other = there[..28].to_vec();
    other[26] ^= 0x55;
    pipe.lan(2, &error(&other)).packet();
    // Options of the quoted header are stepped over.
    let options = with_options(&there, &[7, 7, 4, 0, 0, 0, 0, 0]);
    let told = pipe.lan(2, &error(&options[..36])).packet();
    assert_eq!(addresses(&told), (VIP, CLIENT.address));
    assert_eq!(told[28 + 28..28 + 32], [0x9c, 0x40, 0, 53], "the ports behind them are the client's again");
    assert!(adds_up(&told[28..28 + 28]), "the quoted header adds up");
}

#[test]
fn i4_extensions_behind_the_quote_are_left_alone() {
    let mut pipe = Pipe::new(plan());
    let there = pipe.wan(1, &udp((CLIENT, DNS), &[7; 200])).packet();
    // RFC 4884: 128 bytes are quoted, the length stands in the sixth byte in units of four, an extension follows.
    let extension = [0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0x40, 1, 0xff];
    let body = [&there[..128], &extension[..]].concat();
    let told = pipe.lan(2, &icmp((ROUTER, CLIENT.address), (11, 0), [0, 32, 0, 0], &body)).packet();
    assert_eq!((kind(&told), told[25]), ((11, 0), 32));
    assert_eq!(told[28 + 128..], extension);
    assert_eq!(told[28 + 28..28 + 128], [7; 100]);
}

#[test]
fn i6_an_error_about_nobodys_packet_is_dropped_in_silence() {
    let mut pipe = Pipe::new(plan());
    pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet();
    let stranger = udp((client(77), DNS), b"?");
    pipe.wan(2, &icmp((ROUTER, VIP), (3, 3), [0; 4], &stranger[..28])).is_silent("icmp_unhandled");
    pipe.lan(2, &icmp((ROUTER, client(77).address), (3, 3), [0; 4], &stranger[..28]))
        .is_silent("icmp_unhandled");
}

#[test]
fn i7_an_answer_without_a_question_is_dropped_in_silence() {
    let mut pipe = Pipe::new(forwarded_pings());
    pipe.lan(1, &icmp((S1, CLIENT.address), REPLY, [0, 7, 0, 1], b"!")).is_silent("icmp_unhandled");
}

#[test]
fn i8_errors_from_inside_bear_the_address_of_the_service() {
    let mut pipe = Pipe::new(plan());
    let there = pipe.wan(1, &udp((CLIENT, DNS), b"?")).packet();
    for from in [S1, ROUTER] {
        let told = pipe.lan(2, &icmp((from, CLIENT.address), (3, 3), [0; 4], &there[..28])).packet();
        assert_eq!(addresses(&told), (VIP, CLIENT.address));
    }
}

#[test]
fn i9_whoever_can_have_no_flow_is_told_so_where_the_plan_says_it() {
    let mut plan = plan();
    plan.handling.tells_exhausted = true;
    plan.limits.flows_max = 2;
    plan.limits.flows_per_client = 2;
    let mut pipe = Pipe::new(plan);
    for last in 1..=2 {
        let (from, server) = ends(&pipe.wan(1, &udp((client(last), DNS), b"?")).packet());
        pipe.lan(1, &udp((server, from), b"!")).packet();
    }
    let told = pipe.wan(2, &udp((client(3), DNS), b"?")).told("flow_table_full");
    assert_eq!((kind(&told), addresses(&told)), ((3, 13), (VIP, client(3).address)));
    assert_eq!(pipe.flows(2), 2);
}

#[test]
fn c1_a_client_has_as_many_flows_as_it_may_and_takes_nobody_elses() {
    let mut plan = plan();
    plan.limits.flows_per_client = 3;
    plan.handling.tells_exhausted = true;
    let mut pipe = Pipe::new(plan);
    let from = |port| (evenkeel_sim::packet::End { port, ..CLIENT }, DNS);
    for port in 1..=3 {
        pipe.wan(1, &udp(from(port), b"?")).packet();
    }
    assert_eq!(kind(&pipe.wan(1, &udp(from(4), b"?")).told("client_limit")), (3, 13));
    pipe.wan(1, &udp((client(11), DNS), b"?")).packet();
    // Those that it has go on.
    pipe.wan(2, &udp(from(1), b"?")).packet();
    assert_eq!(pipe.flows(2), 4);
}

#[test]
fn c2_no_answered_flow_gives_way_to_a_new_one() {
    let mut plan = plan();
    plan.limits.flows_max = 3;
    plan.limits.half_open_max = 2;
    let mut pipe = Pipe::new(plan);
    let back = pipe.connect(1, CLIENT);
    for last in 20..60 {
        pipe.wan(2, &tcp((client(last), WEB), Flags::SYN, 1, 0, b"")).packet();
    }
    assert_eq!(pipe.flows(3), 3, "one and two half-open ones");
    let there = pipe.wan(3, &tcp((CLIENT, WEB), Flags::ACK, 1001, 2001, b"still here")).packet();
    assert_eq!(ends(&there), (back.1, back.0));
}

#[test]
fn c3_a_port_is_free_again_only_when_its_connection_is_over() {
    let mut plan = full_nat(5000..=5000);
    plan.directors[1].servers.truncate(1);
    let mut pipe = Pipe::new(plan);
    pipe.connect(0, CLIENT);
    pipe.wan(1, &tcp((CLIENT, WEB), Flags::RST, 1001, 0, b"")).packet();
    let next = tcp((client(11), WEB), Flags::SYN, 1, 0, b"");
    pipe.wan(230 * SECOND, &next).is_silent("ports_exhausted");
    pipe.wan(245 * SECOND, &next).packet();
}
