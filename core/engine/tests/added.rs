//! A real server that is added under load: whoever schedules, no flow that is open moves, and none is lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use crate::support::*;
use evenkeel_engine::plan::{Builtin, SchedulerPlan};
use evenkeel_engine::wire::{FiveTuple, Protocol};
use evenkeel_engine::{Engine, Guests};

/// Flows that are open when the server comes.
const FLOWS: u16 = 200;

fn served_by(engine: &Engine, port: u16) -> Option<String> {
    let Ends { source, destination } = call(port);
    let tuple = FiveTuple {
        source: source.0.into(),
        destination: destination.0.into(),
        source_port: source.1,
        destination_port: destination.1,
        protocol: Protocol::TCP,
    };
    engine.flow(&tuple).map(|flow| flow.server.to_owned())
}

#[test]
fn a_server_that_is_added_moves_no_flow_whoever_schedules() {
    for kind in Builtin::ALL {
        let name = kind.name();
        let mut plan = plan();
        plan.directors[0].scheduler = SchedulerPlan::Builtin(*kind);
        // To one of them (ovf), a weight is how many flows a server takes.
        plan.directors[0].servers.iter_mut().for_each(|server| server.weight = u32::from(FLOWS));
        let mut engine = engine(plan.clone());
        for port in 1_000..1_000 + FLOWS {
            one(&mut engine, tcp(call(port), "S", b""), at(1));
        }
        let before: Vec<_> = (1_000..1_000 + FLOWS)
            .map(|port| served_by(&engine, port).unwrap_or_else(|| panic!("{name}: {port}")))
            .collect();
        let added = |last: u8| server(&format!("s{}", last - 19), last, u32::from(FLOWS));
        for last in [22, 23, 24] {
            // In front of the others, where it takes the place of one in the list.
            plan.directors[0].servers.insert(0, added(last));
            engine.apply(plan.clone(), Guests::default(), at(u64::from(last))).unwrap();
            let data: Vec<_> = (1_000..1_000 + FLOWS).map(|port| tcp(call(port), "A", b"data")).collect();
            let out = exchange(&mut engine, &data, at(u64::from(last)));
            assert_eq!(out.len(), data.len(), "{name}: {:?}", dropped(&engine));
        }
        let after: Vec<_> = (1_000..1_000 + FLOWS)
            .map(|port| served_by(&engine, port).unwrap_or_else(|| panic!("{name}: {port}")))
            .collect();
        assert_eq!(before, after, "{name}");
        assert_eq!(engine.flow_count(), usize::from(FLOWS), "{name}");
    }
}
