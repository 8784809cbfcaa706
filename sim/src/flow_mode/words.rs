//! What happens, in words, for the marks of a report.

use super::forwarder::Forwarder;
use super::machine::Machine;
use super::world::Act;
use crate::work::Speed;

/// A change in words.
pub(super) fn words(act: &Act, machines: &[Machine], forwarders: &[Forwarder]) -> String {
    let machine = |place: usize| machines.get(place).map_or("", |machine| &machine.name);
    let forwarder = |place: usize| forwarders.get(place).map_or("", |forwarder| &forwarder.name);
    match act {
        Act::Weight(place, weight) => format!("{} has weight {weight}", machine(*place)),
        Act::Remove(place, true) => format!("{} leaves the plan", machine(*place)),
        Act::Remove(place, false) => format!("{} is back in the plan", machine(*place)),
        Act::Stop(place) => format!("{} stops", machine(*place)),
        Act::Start(place) => format!("{} starts", machine(*place)),
        Act::Speed(place, Speed::HUNG) => format!("{} hangs", machine(*place)),
        Act::Speed(place, speed) => format!("{} works at {} %", machine(*place), speed.percent()),
        Act::Forwarder(place, false) | Act::Power(place, false) => format!("{} stops", forwarder(*place)),
        Act::Forwarder(place, true) | Act::Power(place, true) => format!("{} starts", forwarder(*place)),
        Act::Routes(router, ways) => format!("router {router} has {} ways", ways.len()),
        Act::ServerWeight { forwarder: place, server, weight, .. } => {
            format!("{server} has weight {weight} at {}", forwarder(*place))
        }
    }
}
