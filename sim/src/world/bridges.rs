//! Forwarders that pass frames on from port to port join segments as switches do. Two ways between the same two segments
//! are a loop, in which a broadcast goes round for ever.

use evenkeel_engine::plan::Plan;

use super::RunError;
use crate::scenario::Scenario;

/// A segment, and the VLAN of the port.
type Node = (usize, u16);

/// What forwarders join.
#[derive(Debug, Default)]
pub(super) struct Bridges {
    /// Segments that are joined lead, step by step, to the same one.
    towards: Vec<(Node, Node)>,
}

impl Bridges {
    /// Adds the ways that a forwarder opens between segments.
    ///
    /// # Errors
    /// When two of them lead to the same place.
    pub(super) fn add(&mut self, scenario: &Scenario, machine: usize, plan: &Plan) -> Result<(), RunError> {
        let Some((forwarder, _, network)) = scenario.machine(machine) else { return Ok(()) };
        let node = |name: &str| {
            let plugged = network.attachments.iter().find(|it| it.interface == name)?;
            Some((plugged.segment, plugged.vlan))
        };
        for (number, interface) in plan.interfaces.iter().enumerate() {
            let Some(other) = interface.passes_to.filter(|other| {
                // Two ports that pass to each other are one way.
                let back = plan.interfaces.get(other.index()).and_then(|it| it.passes_to);
                back.is_none_or(|back| back.index() != number) || number < other.index()
            }) else {
                continue;
            };
            let other = plan.interfaces.get(other.index()).and_then(|other| node(&other.name));
            let (Some(one), Some(other)) = (node(&interface.name), other) else { continue };
            let (from, to) = (self.end(one), self.end(other));
            if from == to {
                let segment = |(segment, _): Node| {
                    scenario.segments.get(segment).map_or_else(String::new, |segment| segment.name.clone())
                };
                let (forwarder, first, second) = (forwarder.to_owned(), segment(one), segment(other));
                return Err(RunError::SwitchLoop { forwarder, first, second });
            }
            self.towards.push((from, to));
        }
        Ok(())
    }

    fn end(&self, node: Node) -> Node {
        let mut end = node;
        // Each way was added from an end to another one, so that this goes round nowhere.
        while let Some((_, next)) = self.towards.iter().find(|(from, _)| *from == end) {
            end = *next;
        }
        end
    }
}
