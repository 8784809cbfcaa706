//! Instructions of a scheduler's answers for new flows, native and as a component: `make bench-instructions`.
//!
//! Components run as on a forwarder, with the clock of budgets in its own thread, whose instructions do not count.
//! Their compiler asks the processor what it can do, so a machine of another kind may have other counts.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "benchmarks and what their macros make"
)]

#[path = "../tests/common/mod.rs"]
mod common;
mod farm;

use std::hint::black_box;

use evenkeel_engine::director::{Scheduler, builtin};
use evenkeel_engine::plan::Builtin;
use evenkeel_plugin_host::Mode;
use farm::Farm;
use gungraun::{library_benchmark, library_benchmark_group, main};

/// Calls in one measurement, each with other flows.
const CALLS: usize = 16;

/// What happens once has happened: the instance is made, its tables are filled, its buffers have grown.
fn warm(scheduler: Box<dyn Scheduler>) -> Farm {
    let mut farm = Farm::new(scheduler, 32);
    farm.pick();
    assert_eq!(farm.scheduler.stats().faults, 0);
    farm
}

fn native(kind: Builtin) -> Farm {
    warm(builtin(kind))
}

fn component(name: &str) -> Farm {
    warm(farm::component(name, Mode::Epoch))
}

// 512 new flows in 16 calls of 32.
#[library_benchmark]
#[bench::native_maglev(native(Builtin::Maglev))]
#[bench::table_maglev(component("bundled:maglev"))]
#[bench::hash_maglev(component("bundled:maglev-pick"))]
#[bench::round_robin(component("bundled:round-robin"))]
#[bench::least_connections(component("bundled:least-connections"))]
fn pick_32(mut farm: Farm) -> Farm {
    for _ in 0..CALLS {
        black_box(farm.pick());
    }
    farm
}

library_benchmark_group!(name = components, benchmarks = [pick_32]);
main!(library_benchmark_groups = components);
