//! Captures through the engine: nothing is lost uncounted, connections keep their servers, what breaks is named.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "tests"
)]

use crate::replay_support::*;
use evenkeel_engine::{Duration, Guests};
use evenkeel_sim::capture::Reader;
use evenkeel_sim::replay::{MAPPINGS_MAX, Options, Outcome, ReplayError, Sides, replay};
use proptest::prelude::*;

const VIP: End<'_> = ("10.0.0.3", 80);
const CLIENT: End<'_> = ("192.0.2.1", 40_000);

/// One TUN, one director in the given mode with what else is said of it, two servers.
fn one_nic(director: &str) -> evenkeel_engine::Plan {
    plan(&format!(
        "[interface.tun0]\nkind = \"tun\"\naddress = [\"10.99.0.1/24\"]\n\n[director.web]\n{director}\n\
         scheduler = \"rr\"\n\n\
         [[director.web.server]]\nname = \"s1\"\naddress = \"10.0.3.20:80\"\n\n\
         [[director.web.server]]\nname = \"s2\"\naddress = \"10.0.3.21:80\"\n"
    ))
}

/// The address of the one server that was given a flow.
fn chosen(outcome: &Outcome) -> String {
    let server = outcome.servers.iter().find(|server| server.flows > 0).unwrap();
    server.address.split(':').next().unwrap().to_owned()
}

#[test]
fn both_directions_go_through_the_engine() {
    let outcome = run(&pcap(&connections(14, VIP)), two_nics(), &options(&[], Sides::Both), None);
    let connections = outcome.connections;
    assert_eq!((connections.seen, connections.tcp, connections.served), (14, 14, 14));
    assert_eq!((connections.broken, connections.refused), (0, 0));
    assert_eq!((outcome.fed, outcome.forwarded, outcome.simulated), (126, 126, 0));
    let web = outcome.servers.iter().filter(|server| server.flows > 0);
    let flows: Vec<_> = web.map(|server| server.flows).collect();
    assert_eq!(flows, [8, 4, 2], "by weight");
    for server in &outcome.servers {
        assert_eq!((server.packets_to, server.packets_from), (server.flows * 6, server.flows * 3));
    }
    assert_eq!((outcome.time.backwards, outcome.time.shortened), (0, 0));
    assert_eq!(outcome.time.elapsed_ns, (13 * 2_000 + 8 * 100) * 1_000);
}

#[test]
fn simulated_servers_answer_clients() {
    let file = pcap(&connections(14, VIP));
    let outcome = run(&file, two_nics(), &options(&[], Sides::Clients), None);
    assert_eq!(outcome.skipped.get("from_server"), Some(&(14 * 3)));
    assert_eq!((outcome.connections.served, outcome.connections.broken), (14, 0));
    // The SYN, the request and the FIN are answered, and the response is sent.
    assert_eq!(outcome.simulated, 14 * 4);
    for server in &outcome.servers {
        assert_eq!((server.packets_to, server.packets_from), (server.flows * 6, server.flows * 4));
        // 40 for each header, the response of 500 bytes.
        assert_eq!(server.bytes_from, server.flows * (4 * 40 + 500));
    }
    let dropped: u64 = outcome.dropped.values().sum();
    assert_eq!(dropped, 0);
}

#[test]
fn ends_are_mapped_and_loopback_addresses_leave_loopback() {
    let taken = connection(0, ("127.0.0.1", 40_000), ("127.0.0.1", 7_000));
    let map = ["127.0.0.1:7000=10.0.0.3:80"];
    let mut out = Vec::new();
    let outcome = run(&pcap(&taken), two_nics(), &options(&map, Sides::Both), Some(&mut out));
    assert_eq!((outcome.connections.served, outcome.connections.broken), (1, 0));
    assert_eq!(outcome.checksums.repaired, 0, "right checksums stay right");
    // To the client everything comes from the VIP.
    let mut reader = Reader::new(&out[..]).unwrap();
    let mut seen = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        let ends: Vec<String> = [12, 16]
            .into_iter()
            .map(|at| record.bytes[at..at + 4].iter().map(u8::to_string).collect::<Vec<_>>().join("."))
            .collect();
        seen.push((record.interface, ends.join(" > ")));
    }
    let expected = [
        (0, "198.18.0.1 > 10.0.0.3"),
        (1, "198.18.0.1 > 10.0.3.20"),
        (1, "10.0.3.20 > 198.18.0.1"),
        (0, "10.0.0.3 > 198.18.0.1"),
    ];
    for (interface, ends) in expected {
        let ends = ends.replace("10.0.3.20", &chosen(&outcome));
        assert!(seen.contains(&(interface, ends.clone())), "{ends}: {seen:?}");
    }
    assert_eq!(seen.len(), 18);
}

#[test]
fn without_a_mapping_the_words_say_which_one_would_help() {
    let file = pcap(&connections(3, ("203.0.113.7", 7_000)));
    let outcome = run(&file, two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.connections.served, outcome.connections.refused), (0, 3));
    let hint = "no packet reached a director; --map 203.0.113.7:7000=10.0.0.3:80 would lead 3 of 3 there";
    assert_eq!(outcome.hint.as_deref(), Some(hint));
    assert!(outcome.to_text().contains(hint));
    let outcome = run(&file, two_nics(), &options(&["203.0.113.7:7000=10.0.0.3:80"], Sides::Both), None);
    assert_eq!((outcome.connections.served, outcome.hint), (3, None));
}

#[test]
fn a_connection_that_loses_a_later_packet_is_broken_and_named() {
    let mut taken = connections(30, VIP);
    for number in 0..25 {
        // The request's time to live ends at the forwarder.
        let packet = number * 9 + 3;
        let address = format!("192.0.2.{}", number + 1);
        let mut body = [40_000u16.to_be_bytes(), 80u16.to_be_bytes()].concat();
        body.extend([0, 0, 0, 101, 0, 0, 3, 133, 0x50, ACK, 0x20, 0, 0, 0, 0, 0]);
        taken[packet].1 = frame(&address, VIP.0, 6, 1, body);
    }
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.connections.broken, outcome.broken.len()), (25, 25));
    assert_eq!(outcome.dropped.get("ttl_exceeded"), Some(&25));
    assert_eq!(outcome.broken[1].packet, 13);
    assert_eq!(outcome.broken[1].cause, "dropped: ttl_exceeded");
    assert_eq!(outcome.broken[1].tuple, "tcp 192.0.2.2:40000 > 10.0.0.3:80");
    let text = outcome.to_text();
    assert_eq!(text.matches("BROKEN connection ").count(), 20);
    assert!(text.contains("... and 5 more, all of them in the JSON"), "{text}");
}

#[test]
fn a_connection_that_moves_is_broken() {
    // A datagram every 400 s: each finds that its flow has ended, and the scheduler takes the next server.
    let client = ("192.0.2.9", 5_000);
    let taken: Vec<Taken> =
        (0..3).map(|number| (number * 400_000_000, udp(client, ("10.0.0.3", 53), 20))).collect();
    let outcome = run(&pcap(&taken), one_nic("bind = \"10.0.0.3:53/udp\""), &options(&[], Sides::Both), None);
    assert_eq!(outcome.flows_opened, 3);
    assert_eq!(outcome.broken.len(), 1);
    assert_eq!((outcome.broken[0].packet, &outcome.broken[0].cause[..10]), (2, "moved from"));
}

#[test]
fn a_connection_that_is_over_breaks_no_more_and_its_ports_are_free() {
    let mut taken = connection(0, CLIENT, VIP);
    // Long after both have closed a segment comes that nobody waits for.
    taken.push((300_000_000, tcp(CLIENT, VIP, (152, 1402), ACK, 0)));
    taken.extend(connection(301_000_000, CLIENT, VIP));
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!(outcome.dropped.get("no_flow"), Some(&1));
    assert_eq!((outcome.connections.seen, outcome.connections.served, outcome.broken.len()), (2, 2, 0));
}

#[test]
fn ports_that_are_used_again_make_new_connections_with_simulated_servers_too() {
    let taken: Vec<Taken> = (0..5).flat_map(|number| connection(number * 1_000_000, CLIENT, VIP)).collect();
    for sides in [Sides::Both, Sides::Clients] {
        let outcome = run(&pcap(&taken), two_nics(), &options(&[], sides), None);
        let connections = outcome.connections;
        assert_eq!((connections.seen, connections.served, connections.broken), (5, 5, 0));
        assert_eq!(outcome.flows_opened, 5);
    }
}

#[test]
fn a_syn_says_who_the_client_is_whatever_was_seen_before() {
    // The end of a connection that the other side had opened, then one between the same ends.
    let mut taken = vec![(0, tcp(VIP, CLIENT, (5, 5), ACK, 10))];
    taken.extend(connection(1_000_000, CLIENT, VIP));
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    let connections = outcome.connections;
    assert_eq!((connections.seen, connections.served, connections.broken), (1, 1, 0), "the VIP is served");
    let mut taken = vec![(0, tcp(CLIENT, VIP, (5, 5), ACK, 10))];
    taken.extend(connection(1_000_000, VIP, CLIENT));
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.connections.seen, outcome.connections.refused), (2, 2));
}

#[test]
fn a_capture_that_begins_in_the_middle_is_refused_as_on_a_forwarder() {
    let taken = connection(0, CLIENT, VIP).split_off(2);
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.connections.refused, outcome.connections.broken), (1, 0));
    // The client's four segments; the server has nobody to answer to.
    assert_eq!(outcome.dropped.get("no_flow"), Some(&5));
    assert_eq!(outcome.skipped.get("answer_without_flow"), Some(&2));
    assert_eq!(outcome.born, 5, "each is told by a reset");
}

#[test]
fn time_that_steps_back_stands_still_and_long_gaps_are_shortened() {
    let mut taken = connection(1_000_000_000, CLIENT, VIP);
    taken[4].0 = 5;
    taken[6].0 += 3_600_000_000 * 24 * 365;
    let year = options(&[], Sides::Both);
    let outcome = run(&pcap(&taken), two_nics(), &year, None);
    // Behind the step back, all the time since comes as one gap; behind the year, time steps back.
    assert_eq!((outcome.time.backwards, outcome.time.shortened), (2, 1));
    let short = Options { max_gap: Duration::from_millis(1), ..year };
    let outcome = run(&pcap(&taken), two_nics(), &short, None);
    assert_eq!((outcome.time.backwards, outcome.time.shortened), (2, 2));
    assert!(outcome.time.elapsed_ns < 10_000_000, "{}", outcome.time.elapsed_ns);
    assert_eq!(outcome.broken.len(), 0, "{}", outcome.to_text());
}

/// The same frame as hardware gets it: the sum of the pseudo header in the place of the checksum.
fn offloaded(mut frame: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(frame.len() - 34).unwrap();
    let addresses: u32 = frame[26..34].chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
    let mut sum = addresses + 6 + length;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[50..52].copy_from_slice(&u16::try_from(sum).unwrap().to_be_bytes());
    frame
}

#[test]
fn wrong_checksums_are_counted_and_repaired_unless_they_are_to_stay() {
    let mut taken = connection(0, CLIENT, VIP);
    for number in [0, 2, 3, 5] {
        taken[number].1 = offloaded(taken[number].1.clone());
    }
    taken[6].1[50] ^= 0x55;
    taken[8].1[24] ^= 0x55;
    let file = pcap(&taken);
    let mut out = Vec::new();
    let outcome = run(&file, two_nics(), &options(&[], Sides::Both), Some(&mut out));
    let checksums = outcome.checksums;
    assert_eq!((checksums.offloaded, checksums.wrong, checksums.headers, checksums.repaired), (4, 1, 1, 6));
    assert_eq!((outcome.connections.served, outcome.broken.len()), (1, 0));
    assert_eq!(wrong_sums(&out), 0);
    let keeps = Options { keeps_checksums: true, ..options(&[], Sides::Both) };
    let mut out = Vec::new();
    let outcome = run(&file, two_nics(), &keeps, Some(&mut out));
    assert_eq!((outcome.checksums.offloaded, outcome.checksums.repaired), (4, 0));
    assert_eq!(outcome.dropped.get("bad_checksum"), Some(&1), "the header");
    // Five with a wrong sum of TCP, as they came in and as they went out.
    assert_eq!(wrong_sums(&out), 10);
}

/// TCP segments of a written file whose checksum is wrong.
fn wrong_sums(file: &[u8]) -> usize {
    let mut reader = Reader::new(file).unwrap();
    let mut wrong = 0;
    while let Some(record) = reader.next().unwrap() {
        let body = &record.bytes[20..];
        let pseudo =
            [&record.bytes[12..20], &[0, 6], &u16::try_from(body.len()).unwrap().to_be_bytes()].concat();
        let words = [&pseudo[..], body, if body.len() % 2 == 1 { &[0] } else { &[] }].concat();
        let mut sum: u32 = words.chunks(2).map(|two| u32::from(two[0]) << 8 | u32::from(two[1])).sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        wrong += usize::from(sum != 0xffff);
    }
    wrong
}

#[test]
fn what_is_not_for_an_engine_is_skipped_by_reason() {
    let mut taken = connection(0, CLIENT, VIP);
    taken.push((1_000, [&[2; 12][..], &[8, 6], &[0; 28]].concat()));
    taken.push((1_000, [&[2; 12][..], &[0x88, 0xcc], &[0; 28]].concat()));
    taken.push((1_000, vec![2; 9]));
    // A tag is taken off.
    let mut tagged = udp(CLIENT, ("10.0.0.9", 5), 3);
    tagged.splice(12..12, [0x81, 0, 0, 9]);
    taken.push((1_000, tagged));
    let mut file = pcap(&taken);
    // The last packet was longer on the wire.
    let cut = udp(CLIENT, VIP, 30);
    file.extend([0; 8]);
    file.extend([40, 0, 0, 0, 72, 0, 0, 0]);
    file.extend(&cut[..40]);
    let outcome = run(&file, two_nics(), &options(&[], Sides::Both), None);
    let skipped: Vec<_> = outcome.skipped.iter().map(|(reason, count)| (*reason, *count)).collect();
    assert_eq!(skipped, [("arp", 1), ("cut", 1), ("not_ip", 1), ("short", 1)]);
    assert_eq!((outcome.tagged, outcome.dropped.get("no_director")), (1, Some(&1)));
    assert_eq!((outcome.read, outcome.fed), (14, 10));
}

#[test]
fn packets_that_contradict_themselves_go_in_and_the_engine_says_why() {
    let good = udp(CLIENT, VIP, 3);
    let mut taken = vec![];
    for (at, value) in [(14, 0x4f), (14, 0x44), (17, 255), (14, 0x65)] {
        let mut bad = good.clone();
        bad[at] = value;
        taken.push((0, bad));
    }
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.fed, outcome.unreadable), (4, 4));
    let dropped: u64 = outcome.dropped.values().sum();
    assert_eq!(dropped, 4, "{:?}", outcome.dropped);
}

#[test]
fn answers_go_past_a_forwarder_in_gateway_mode() {
    for sides in [Sides::Both, Sides::Clients] {
        let plan = one_nic("bind = \"10.0.0.3:80/tcp\"\nmode = \"gateway\"");
        let outcome = run(&pcap(&connections(4, VIP)), plan, &options(&[], sides), None);
        assert_eq!((outcome.connections.served, outcome.broken.len(), outcome.simulated), (4, 0, 0));
        let reason = if sides == Sides::Both { "answer_past_forwarder" } else { "from_server" };
        assert_eq!(outcome.skipped.get(reason), Some(&12));
        let flows: Vec<_> = outcome.servers.iter().map(|server| server.flows).collect();
        assert_eq!(flows, [2, 2]);
    }
}

#[test]
fn with_source_nat_answers_go_to_the_address_of_the_forwarder() {
    for sides in [Sides::Both, Sides::Clients] {
        let plan = one_nic("bind = \"10.0.0.3:80/tcp\"\nsnat = { address = \"10.0.3.2\" }");
        let outcome = run(&pcap(&connections(4, VIP)), plan, &options(&[], sides), None);
        assert_eq!((outcome.connections.served, outcome.broken.len()), (4, 0));
        let dropped: u64 = outcome.dropped.values().sum();
        assert_eq!(dropped, 0, "{}", outcome.to_text());
        assert!(outcome.servers.iter().all(|server| server.packets_from > 0));
    }
}

#[test]
fn datagrams_that_are_scheduled_alone_move_without_breaking() {
    let plan = one_nic("bind = \"10.0.0.3:53/udp\"\none_packet = true");
    let (client, vip) = (("192.0.2.9", 5_000), ("10.0.0.3", 53));
    let taken: Vec<Taken> = (0..6)
        .flat_map(|number| [(number * 10, udp(client, vip, 20)), (number * 10 + 5, udp(vip, client, 30))])
        .collect();
    let outcome = run(&pcap(&taken), plan.clone(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.forwarded, outcome.broken.len(), outcome.connections.served), (12, 0, 1));
    let flows: Vec<_> = outcome.servers.iter().map(|server| server.flows).collect();
    assert_eq!(flows, [3, 3]);
    let outcome = run(&pcap(&taken), plan, &options(&[], Sides::Clients), None);
    assert_eq!((outcome.forwarded, outcome.simulated), (12, 6));
}

#[test]
fn errors_are_translated_in_both_directions() {
    let server = |from: &str, about: &[u8]| {
        let body = [&[3, 4, 0, 0, 0, 0, 5, 0x78], &about[14..14 + 28]].concat();
        frame(from, "192.0.2.1", 1, 64, body)
    };
    let request = tcp(CLIENT, VIP, (101, 901), ACK, 50);
    let response = tcp(VIP, CLIENT, (901, 151), ACK, 500);
    let mut taken = connection(0, CLIENT, VIP);
    // A router on the way to the server, and the server itself, about the request.
    taken.insert(4, (350, server("203.0.113.1", &request)));
    taken.insert(5, (350, server(VIP.0, &request)));
    // A router on the way to the client about the response.
    let body = [&[3, 4, 0, 0, 0, 0, 5, 0x78], &response[14..14 + 28]].concat();
    taken.insert(7, (450, frame("203.0.113.9", VIP.0, 1, 64, body)));
    // Another that ends at the forwarder, which breaks nothing.
    let body = [&[3, 4, 0, 0, 0, 0, 5, 0x78], &request[14..14 + 28]].concat();
    taken.insert(8, (450, frame("203.0.113.1", "192.0.2.1", 1, 1, body)));
    // And one about a connection that nobody knows.
    let strange = tcp(("192.0.2.77", 1), VIP, (1, 1), ACK, 9);
    taken.push((900, server("203.0.113.1", &strange)));
    let mut out = Vec::new();
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), Some(&mut out));
    assert_eq!((outcome.errors, outcome.dropped.get("ttl_exceeded")), (5, Some(&1)));
    assert_eq!((outcome.forwarded, outcome.dropped.get("icmp_unhandled")), (12, Some(&1)));
    assert_eq!(outcome.broken.len(), 0);
    // The quoted destination of the one about the response is the real server, as it knows itself.
    let mut reader = Reader::new(&out[..]).unwrap();
    let mut quoted = Vec::new();
    while let Some(record) = reader.next().unwrap() {
        if record.bytes[9] == 1 {
            quoted.push((record.interface, record.bytes[12..20].to_vec(), record.bytes[40..48].to_vec()));
        }
    }
    let last = chosen(&outcome).rsplit('.').next().unwrap().parse().unwrap();
    let (client, vip, real, router) = ([192, 0, 2, 1], [10, 0, 0, 3], [10, 0, 3, last], [203, 0, 113, 1]);
    let expected = [
        (1, [router, client].concat(), [client, real].concat()),
        (1, [real, client].concat(), [client, real].concat()),
        (0, [[203, 0, 113, 9], vip].concat(), [vip, client].concat()),
    ];
    for wanted in expected {
        assert!(quoted.contains(&wanted), "{wanted:?} is not in {quoted:?}");
    }
    let skipped = run(&pcap(&taken), two_nics(), &options(&[], Sides::Clients), None);
    assert_eq!(
        skipped.skipped.get("from_server"),
        Some(&6),
        "three of the errors come from the server's side"
    );
}

#[test]
fn fragments_follow_their_first_whatever_the_order() {
    // A datagram of 24 bytes in three parts, from the client and from the server.
    let parts = |(from, from_port): End<'_>, (to, to_port): End<'_>| {
        let whole = udp((from, from_port), (to, to_port), 24);
        let body = whole[34..].to_vec();
        [(0x2000, 0..16), (0x2002, 16..24), (0x0003, 24..32)]
            .map(|(cut, range): (u16, std::ops::Range<usize>)| packet(from, to, 17, 64, cut, &body[range]))
    };
    let (client, vip) = (("192.0.2.9", 5_000), ("10.0.0.3", 53));
    for (order, waited) in [([0, 1, 2], 0), ([2, 0, 1], 2), ([2, 1, 0], 4)] {
        let mut taken = Vec::new();
        for (number, parts) in (0..).zip([parts(client, vip), parts(vip, client)]) {
            taken.extend(order.map(|part| (number * 100, parts[part].clone())));
        }
        let plan = one_nic("bind = \"10.0.0.3:53/udp\"");
        let outcome = run(&pcap(&taken), plan, &options(&[], Sides::Both), None);
        assert_eq!((outcome.fragments, outcome.forwarded, outcome.fed), (6, 6, 6), "{order:?} {waited}");
        assert_eq!((outcome.connections.seen, outcome.broken.len()), (1, 0));
    }
    // One that never gets its first stays outside.
    let taken = [(0, parts(client, vip)[1].clone())];
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!(outcome.skipped.get("fragment_without_first"), Some(&1));
}

#[test]
fn pings_are_answered_by_the_forwarder_or_forwarded() {
    let echo = |from: &str, to: &str, kind: u8| frame(from, to, 1, 64, vec![kind, 0, 0, 0, 0, 9, 0, 1, 1, 2]);
    let taken = [(0, echo("192.0.2.1", VIP.0, 8)), (10, echo(VIP.0, "192.0.2.1", 0))];
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.answered, outcome.skipped.get("answer_without_flow")), (1, Some(&1)));
    let forwards = || one_nic("bind = \"10.0.0.3:*\"\nping = \"forward\"");
    let outcome = run(&pcap(&taken), forwards(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.forwarded, outcome.connections.icmp, outcome.connections.served), (2, 1, 1));
    let outcome = run(&pcap(&taken), forwards(), &options(&[], Sides::Clients), None);
    assert_eq!((outcome.forwarded, outcome.simulated), (2, 1));
}

#[test]
fn segments_longer_than_any_link_pass_as_they_were_captured() {
    let mut taken = connection(0, CLIENT, VIP);
    taken[4].1 = tcp(VIP, CLIENT, (901, 151), ACK, 30_000);
    for number in [5, 6] {
        let flags = if number == 5 { ACK } else { FIN | ACK };
        taken[number].1 = tcp(CLIENT, VIP, (151, 30_901), flags, 0);
    }
    taken[7].1 = tcp(VIP, CLIENT, (30_901, 152), FIN | ACK, 0);
    taken[8].1 = tcp(CLIENT, VIP, (152, 30_902), ACK, 0);
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Both), None);
    assert_eq!((outcome.super_packets, outcome.forwarded, outcome.broken.len()), (1, 9, 0));
    let outcome = run(&pcap(&taken), two_nics(), &options(&[], Sides::Clients), None);
    // 30,000 bytes are 21 segments; SYN, request and FIN are answered.
    assert_eq!((outcome.simulated, outcome.broken.len()), (24, 0));
}

#[test]
fn on_ethernet_neighbours_answer() {
    let text = "[interface.eth0]\nkind = \"ethernet\"\nmac = \"02:00:00:00:00:01\"\naddress = [\"10.0.0.1/24\", \"fc00::1/64\"]\n\n\
         [interface.eth1]\nkind = \"ethernet\"\nmac = \"02:00:00:00:00:02\"\naddress = [\"10.0.3.1/24\", \"fc00:3::1/64\"]\n\n\
         [[route]]\nto = \"0.0.0.0/0\"\nvia = \"10.0.0.254\"\ninterface = \"eth0\"\n\n\
         [[route]]\nto = \"::/0\"\nvia = \"fc00::fe\"\ninterface = \"eth0\"\n\n\
         [director.web]\nbind = \"10.0.0.3:80/tcp\"\n\n[[director.web.server]]\nname = \"s1\"\naddress = \"10.0.3.20:80\"\n\n\
         [director.six]\nbind = \"[fc00::3]:80/tcp\"\n\n[[director.six.server]]\nname = \"s1\"\naddress = \"[fc00:3::20]:80\"\n";
    for (client, vip) in [(CLIENT, VIP), (("2001:db8::9", 40_000), ("fc00::3", 80))] {
        for sides in [Sides::Both, Sides::Clients] {
            let mut out = Vec::new();
            let taken = connection(0, client, vip);
            let outcome = run(&pcap(&taken), plan(text), &options(&[], sides), Some(&mut out));
            assert_eq!((outcome.connections.served, outcome.broken.len()), (1, 0), "{}", outcome.to_text());
            assert!(outcome.consumed >= 2, "two neighbours have answered: {}", outcome.to_text());
            assert_eq!((outcome.waiting, outcome.dropped.len()), (0, 0), "{}", outcome.to_text());
            // Besides the neighbours: the SYN, which had to wait for one, the request, the response and the FIN.
            let answers = if sides == Sides::Both { 0 } else { 4 };
            assert_eq!(outcome.simulated - outcome.consumed, answers, "{}", outcome.to_text());
        }
    }
}

#[test]
fn a_replay_depends_on_nothing_but_its_input() {
    let file = pcap(&connections(40, VIP));
    for sides in [Sides::Both, Sides::Clients] {
        let options = options(&[], sides);
        let first = run(&file, two_nics(), &options, None);
        assert_eq!(first, run(&file, two_nics(), &options, None));
        let mut out = Vec::new();
        assert_eq!(first, run(&file, two_nics(), &options, Some(&mut out)), "whether it is written down");
        assert!(!out.is_empty());
        let other = run(&file, two_nics(), &Options { max_gap: Duration::ZERO, ..options.clone() }, None);
        assert_ne!(first.wire_hash, other.wire_hash, "times count");
        let mut changed = connections(40, VIP);
        changed[30].1 = tcp(("192.0.2.4", 40_000), VIP, (101, 901), ACK, 51);
        let changed = run(&pcap(&changed), two_nics(), &options, None);
        assert_ne!(first.wire_hash, changed.wire_hash, "bytes count");
        assert_eq!(first.decision_hash, changed.decision_hash, "but decide nothing here");
    }
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let file = pcap(&connections(1, VIP));
    let refused = |file: &[u8], plan, options: &Options| {
        let mut reader = Reader::new(file).unwrap();
        replay(&mut reader, plan, Guests::default(), options, None).unwrap_err()
    };
    let both = options(&[], Sides::Both);
    let error = refused(&file, evenkeel_engine::Plan::empty(), &both);
    assert!(matches!(error, ReplayError::NoInterface), "{error}");
    let mapping = "192.0.2.1=192.0.2.2".parse().unwrap();
    let many = Options { mappings: vec![mapping; MAPPINGS_MAX + 1], ..both.clone() };
    assert_eq!(refused(&file, two_nics(), &many).to_string(), "65 mappings; 64 is the most");
    let mut damaged = file.clone();
    damaged[24 + 8..24 + 12].fill(0xff);
    let error = refused(&damaged, two_nics(), &both).to_string();
    assert!(error.starts_with("byte 24, packet 1: a packet of 4294967295 bytes is claimed"), "{error}");
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is full"))
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut reader = Reader::new(&file[..]).unwrap();
    let error = replay(&mut reader, two_nics(), Guests::default(), &both, Some(&mut Full)).unwrap_err();
    assert_eq!(error.to_string(), "the disk is full");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Packets that were changed in some bytes, in any order and at any times.
    #[test]
    fn whatever_is_captured_is_counted_and_repeats(
        order in proptest::collection::vec((any::<proptest::sample::Index>(), 0u64..100_000_000), 1..120),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<proptest::sample::Index>(), any::<u8>()), 0..40),
        is_both: bool,
    ) {
        let mut all = connections(5, VIP);
        let (client, names) = (("192.0.2.9", 5_000), ("10.0.0.3", 53));
        all.extend([(0, udp(client, names, 9)), (0, udp(names, client, 99))]);
        all.extend(connection(0, ("2001:db8::9", 40_000), ("fc00::3", 80)));
        all.push((0, frame("192.0.2.1", VIP.0, 1, 64, vec![8, 0, 0, 0, 0, 9, 0, 1, 1, 2])));
        let body = [&[3, 4, 0, 0, 0, 0, 5, 0x78], &all[3].1[14..42]].concat();
        all.push((0, frame("203.0.113.1", "192.0.2.1", 1, 64, body)));
        all.push((0, packet("192.0.2.9", "10.0.0.3", 17, 64, 0x2000, &[0x13, 0x88, 0, 80, 0, 40, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8])));
        all.push((0, packet("192.0.2.9", "10.0.0.3", 17, 64, 0x0002, &[9; 24])));
        let mut taken: Vec<Taken> =
            order.iter().map(|(which, at)| (*at, all[which.index(all.len())].1.clone())).collect();
        for (which, at, value) in changes {
            let which = which.index(taken.len());
            let at = at.index(taken[which].1.len());
            taken[which].1[at] = value;
        }
        let file = pcap(&taken);
        let options = options(&[], if is_both { Sides::Both } else { Sides::Clients });
        let mut out = Vec::new();
        let first = run(&file, two_nics(), &options, Some(&mut out));
        prop_assert_eq!(&first, &run(&file, two_nics(), &options, None));
        let mut reader = Reader::new(&out[..]).unwrap();
        while reader.next().unwrap().is_some() {}
        prop_assert!(reader.warnings().is_empty());
        prop_assert!(reader.packets() >= first.fed + first.forwarded);
    }
}
