//! The simulator reproduces numbers that are known: one test for each row of `docs/src/truth.md`, named after it.
//!
//! `cargo test -p evenkeel-sim --test truth` runs few requests with wide tolerances. `make truth` runs many, optimised,
//! with narrow ones, and writes the page.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    reason = "measurements"
)]

mod choices;
mod exact;
#[path = "../flow_support/mod.rs"]
mod flow_support;
mod hashing;
mod packets;
mod page;
mod queues;
mod row;
mod tables;

use row::{Effort, Row};

/// Every row of the page, in its order. A function may give several.
const ALL: [fn(Effort) -> Vec<Row>; 27] = [
    queues::v1_and_v2,
    queues::v3,
    queues::v4,
    queues::v5,
    queues::v6,
    queues::v7,
    choices::v8,
    choices::v9,
    choices::v10,
    choices::v11,
    hashing::v12,
    hashing::v13,
    hashing::v14,
    hashing::v15,
    hashing::v16,
    hashing::v17,
    hashing::v19,
    hashing::v20,
    hashing::v21,
    tables::v29,
    packets::v29,
    tables::v30,
    packets::v30,
    tables::v31,
    packets::v31,
    tables::v32,
    packets::v32,
];

/// Measures quickly, and holds what comes out against what is exact.
fn quick(rows: fn(Effort) -> Vec<Row>) {
    rows(Effort::Quick).iter().for_each(Row::check);
}

macro_rules! truths {
    ($($name:ident = $rows:path;)*) => {
        $(#[test]
        fn $name() {
            quick($rows);
        })*
    };
}

truths! {
    v1_and_v2_one_server = queues::v1_and_v2;
    v3_many_cores = queues::v3;
    v4_pollaczek_khinchine = queues::v4;
    v5_constant_service = queues::v5;
    v6_shared_cores = queues::v6;
    v7_round_robin = queues::v7;
    v8_power_of_two = choices::v8;
    v9_power_of_three = choices::v9;
    v10_ladder_of_schedulers = choices::v10;
    v11_join_idle_queue = choices::v11;
    v12_modulo = hashing::v12;
    v13_nobody_moves_in_vain = hashing::v13;
    v14_maglev_one_leaves = hashing::v14;
    v15_maglev_many_leave = hashing::v15;
    v17_maglev_balance = hashing::v17;
    v19_ring = hashing::v19;
    v20_balls_in_bins = hashing::v20;
    v21_bounded_loads = hashing::v21;
    v29_several_forwarders = tables::v29;
    v30_syn_flood = tables::v30;
    v31_ports = tables::v31;
    v32_little = tables::v32;
    v29_several_forwarders_in_packet_mode = packets::v29;
    v30_syn_flood_in_packet_mode = packets::v30;
    v31_ports_in_packet_mode = packets::v31;
    v32_little_in_packet_mode = packets::v32;
}

/// Measures everything at full length, and writes the page.
#[test]
#[ignore = "takes minutes and writes the page: run it by `make truth`"]
fn write_the_page() {
    let mut all = Vec::new();
    for rows in ALL {
        for row in rows(Effort::Long) {
            println!("{}", row.line());
            all.push(row);
        }
    }
    page::write(&all);
    all.iter().for_each(Row::check);
}
