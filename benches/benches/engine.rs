//! What a packet costs in the engine, for people: `cargo bench -p evenkeel-benches --bench engine`.
#![allow(missing_docs, clippy::unwrap_used, reason = "benchmarks")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use evenkeel_benches::fixture::{established, packet, plan};
use evenkeel_engine::director::{
    NewFlow, Selection, ServerId, ServerLoad, ServerView, builtin, builtin::maglev_table,
};
use evenkeel_engine::flow::{Direction, FlowEntry, FlowState, FlowTable};
use evenkeel_engine::nat::{Scope, rewrite};
use evenkeel_engine::plan::Builtin;
use evenkeel_engine::wire::{Address, FiveTuple, HashKey, Protocol, ip, ipv4};
use evenkeel_engine::{Engine, Guests, Instant, step};

fn tuple(client: u32) -> FiveTuple {
    let [_, a, b, c] = client.to_be_bytes();
    FiveTuple {
        source: Address::v4([100, a, b, c]),
        destination: Address::v4([10, 0, 0, 3]),
        source_port: 40_000,
        destination_port: 53,
        protocol: Protocol::UDP,
    }
}

fn entry(client: u32) -> FlowEntry {
    let FiveTuple { source, destination, source_port, destination_port, .. } = tuple(client);
    let mut entry = FlowEntry {
        client: source,
        service: destination,
        server: Address::v4([10, 0, 3, 1]),
        mapped: source,
        client_port: source_port,
        service_port: destination_port,
        server_port: 8080,
        mapped_port: source_port,
        expires: Instant::from_nanos(300_000_000_000),
        ..FlowEntry::new(FlowState::Udp, 1)
    };
    entry.set_deltas();
    entry
}

fn parts(c: &mut Criterion) {
    let mut bytes = packet(7);
    c.bench_function("parse an IPv4 packet of 64 bytes", |b| {
        b.iter(|| ipv4::Packet::split(black_box(&mut bytes)).map(|packet| packet.payload.len()));
    });
    c.bench_function("hash a five-tuple", |b| {
        let (tuple, key) = (tuple(7), HashKey([1, 2]));
        b.iter(|| black_box(&tuple).hash(key));
    });
    c.bench_function("rewrite a packet (destination NAT)", |b| {
        let entry = entry(7);
        let scope = Scope { has_ports: true, needs_checksum: false, protocol: Protocol::UDP };
        let mut bytes = packet(7);
        b.iter(|| {
            let mut ip = ip::Packet::reopen(black_box(&mut bytes), 20).unwrap();
            rewrite(&mut ip, &entry, Direction::Original, scope);
        });
    });
    for flows in [1_u32 << 10, 1 << 20] {
        let mut table = FlowTable::new(flows, 1, HashKey([1, 2]));
        let tuples: Vec<_> = (0..flows).map(|n| (tuple(n), tuple(n).hash(HashKey([1, 2])))).collect();
        for (client, (_, hash)) in (0..flows).zip(&tuples) {
            table.insert(entry(client), *hash).unwrap();
        }
        let mut next = 0;
        c.bench_function(&format!("look one of {flows} flows up"), |b| {
            b.iter(|| {
                next = (next + 648_055) % tuples.len();
                tuples.get(next).and_then(|(tuple, hash)| table.find(*hash, tuple))
            });
        });
    }
}

fn schedulers(c: &mut Criterion) {
    let servers: Vec<_> = (1..=16_u8)
        .map(|n| ServerView {
            id: ServerId(u64::from(n)),
            address: [10, 0, 3, n].into(),
            port: 80,
            weight: 1,
            is_up: true,
            is_full: false,
        })
        .collect();
    let flows: Vec<_> =
        (0..32).map(|n| NewFlow { hash: tuple(n).hash(HashKey([1, 2])), tuple: tuple(n) }).collect();
    let mut group = c.benchmark_group("schedule 32 flows over 16 servers");
    group.throughput(Throughput::Elements(32));
    for kind in Builtin::ALL {
        let mut scheduler = builtin(*kind);
        scheduler.update(&servers, Instant::ZERO);
        let mut loads = vec![ServerLoad::default(); servers.len()];
        group.bench_function(kind.name(), |b| {
            b.iter(|| {
                let mut answers = [None; 32];
                scheduler
                    .pick(&mut Selection::new(&flows, &servers, &mut loads, &mut answers), Instant::ZERO);
                answers
            });
        });
    }
    group.finish();
    let many: Vec<_> =
        (0..1000).map(|n| ServerView { id: ServerId(n), ..*servers.first().unwrap() }).collect();
    c.bench_function("build a Maglev table of 65537 entries for 1000 servers", |b| {
        b.iter(|| maglev_table(&many, 65_537));
    });
}

fn whole(c: &mut Criterion) {
    for (name, flows) in [("1 k", 1_u32 << 10), ("1 M", 1 << 20)] {
        for batch in [1, 64] {
            let (mut engine, mut device) = established(flows, batch).unwrap();
            let mut group = c.benchmark_group(format!("engine, known flow, {name} flows"));
            group.throughput(Throughput::Elements(batch as u64));
            group.bench_function(format!("batch of {batch}"), |b| {
                b.iter(|| step(&mut engine, &mut device, Instant::ZERO));
            });
            group.finish();
            assert_eq!(engine.counters().flows_opened, u64::from(flows), "every flow was known");
            assert_eq!(engine.counters().dropped_total(), 0);
        }
    }
    let mut group = c.benchmark_group("engine, new flow");
    group.throughput(Throughput::Elements(64));
    group.bench_function("batch of 64, round robin", |b| {
        b.iter_batched(
            || {
                let engine =
                    Engine::new(plan(64, 16, Builtin::RoundRobin), Guests::default(), Instant::ZERO).unwrap();
                (engine, evenkeel_benches::fixture::Loop::new(64, 64))
            },
            |(mut engine, mut device)| {
                step(&mut engine, &mut device, Instant::ZERO);
                (engine, device)
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, parts, schedulers, whole);
criterion_main!(benches);
