//! What the guest left open, answered by the native fallback.

use evenkeel_engine::Instant;
use evenkeel_engine::director::{NewFlow, Scheduler, Selection, ServerLoad};

/// Room for a question about the open flows alone, kept between calls.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    places: Vec<usize>,
    flows: Vec<NewFlow>,
    loads: Vec<ServerLoad>,
    answers: Vec<Option<u16>>,
}

impl Rest {
    /// Lets the fallback answer the flows that have no server; gives their number.
    ///
    /// A fallback that takes turns must not lose one to a flow that has a server already, so it sees only the
    /// open flows; the loads hold those that the guest placed.
    pub(crate) fn answer(
        &mut self,
        fallback: &mut dyn Scheduler,
        selection: &mut Selection<'_>,
        is_all_open: bool,
        now: Instant,
    ) -> u64 {
        if is_all_open {
            fallback.pick(selection, now);
            let answered = (0..selection.flows().len()).filter(|flow| selection.answer(*flow).is_some());
            return u64::try_from(answered.count()).unwrap_or(u64::MAX);
        }
        let Self { places, flows, loads, answers } = self;
        places.clear();
        places.extend((0..selection.flows().len()).filter(|flow| selection.answer(*flow).is_none()));
        flows.clear();
        flows.extend(places.iter().filter_map(|place| selection.flows().get(*place).copied()));
        loads.clear();
        loads.extend_from_slice(selection.loads());
        answers.clear();
        answers.resize(flows.len(), None);
        fallback.pick(&mut Selection::new(flows, selection.servers(), loads, answers), now);
        let mut answered = 0;
        for (place, answer) in places.iter().zip(answers) {
            if answer.is_some_and(|server| selection.assign(*place, usize::from(server))) {
                answered += 1;
            }
        }
        answered
    }
}
