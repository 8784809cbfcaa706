//! `p2c`: `choices` servers at random, by weight, and of these the one with the least to do.
//!
//! Two choices are enough to make the longest queue exponentially shorter than one does: ln ln n / ln 2 instead of
//! ln n / ln ln n. What a server has to do is (flows + 1) / weight: open TCP connections, or all entries of
//! other protocols. The servers compared differ, where there are as many; the one that was drawn first wins among equals. O(choices *
//! ln servers) per flow. Sources: Azar, Broder, Karlin, Upfal, "Balanced Allocations", STOC 1994; Mitzenmacher, "The Power of
//! Two Choices in Randomized Load Balancing", IEEE TPDS 2001.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::draw::Draw;
use super::held;
use super::shares::Shares;
use crate::director::state::{Reader, Writer};
use crate::director::{NewFlow, PickInputs, Scheduler, Selection, ServerView};
use crate::plan::Options;
use crate::time::Instant;
use crate::wire::Protocol;

/// How many servers are compared when the plan does not say.
pub(super) const CHOICES: u32 = 2;

/// The most servers that are compared.
pub(super) const CHOICES_MAX: usize = 16;

/// Draws for one choice at most: where weights differ much the same server is drawn again and again.
const DRAWS_MAX: usize = 4;

#[derive(Clone, Debug)]
pub(super) struct PowerOfChoices {
    choices: usize,
    draw: Draw,
    shares: Shares,
}

impl PowerOfChoices {
    pub(super) fn new(options: &Options, seed: u64) -> Self {
        let choices = options.choices.unwrap_or(CHOICES) as usize;
        Self { choices, draw: Draw::new(seed), shares: Shares::default() }
    }
}

/// Up to `choices` different servers, drawn by weight; all of them where there are no more.
pub(super) fn candidates(shares: &Shares, draw: &mut Draw, choices: usize) -> ([usize; CHOICES_MAX], usize) {
    let mut drawn = [usize::MAX; CHOICES_MAX];
    let mut count = 0;
    let wanted = choices.min(shares.len()).min(CHOICES_MAX);
    for _ in 0..wanted * DRAWS_MAX {
        if count == wanted {
            break;
        }
        let Some(place) = shares.draw(draw) else { break };
        if drawn.iter().take(count).all(|other| *other != place)
            && let Some(free) = drawn.get_mut(count)
        {
            *free = place;
            count += 1;
        }
    }
    (drawn, count)
}

/// What is to be done before a new flow by `protocol` would be, itself included, and the weight to divide it by.
pub(super) fn queue(selection: &Selection<'_>, place: usize, protocol: Protocol) -> Option<(u64, u64)> {
    let (server, load) = selection.server(place)?;
    server.is_usable().then(|| (load.outstanding(protocol) + 1, u64::from(server.weight)))
}

/// The first of `places` with the shortest queue for its weight.
pub(super) fn shortest(
    selection: &Selection<'_>,
    places: impl Iterator<Item = usize>,
    protocol: Protocol,
) -> Option<usize> {
    let mut best: Option<(usize, u64, u64)> = None;
    for place in places {
        let Some((length, weight)) = queue(selection, place, protocol) else { continue };
        if best.is_none_or(|(_, least, its)| least.saturating_mul(weight) > length.saturating_mul(its)) {
            best = Some((place, length, weight));
        }
    }
    best.map(|(place, _, _)| place)
}

impl Scheduler for PowerOfChoices {
    fn name(&self) -> &'static str {
        "p2c"
    }

    fn fork(&self) -> Option<Box<dyn Scheduler>> {
        Some(Box::new(self.clone()))
    }

    fn inputs(&self, _flow: &NewFlow) -> PickInputs {
        PickInputs::drawn(self.draw.place())
    }

    fn memory_bytes(&self) -> u64 {
        held::total(self, &[&self.shares])
    }

    fn update(&mut self, servers: &[ServerView], _now: Instant) {
        self.shares = Shares::of(servers);
    }

    fn pick(&mut self, selection: &mut Selection<'_>, _now: Instant) {
        for (flow, new) in selection.flows().iter().enumerate() {
            let (drawn, count) = candidates(&self.shares, &mut self.draw, self.choices);
            if let Some(server) = shortest(selection, drawn.into_iter().take(count), new.tuple.protocol) {
                selection.assign(flow, server);
            }
        }
    }

    fn save(&mut self, _now: Instant) -> Option<Vec<u8>> {
        let mut state = Writer::new(self.name());
        state.numbers(&[self.draw.place()]);
        Some(state.finish())
    }

    fn restore(&mut self, state: &[u8], _now: Instant) -> bool {
        let place = Reader::new(state, self.name()).and_then(|mut state| state.number());
        if let Some(place) = place {
            self.draw = Draw::new(place);
        }
        place.is_some()
    }
}
