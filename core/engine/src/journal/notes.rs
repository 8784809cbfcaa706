//! What the engine writes into its journal. All of it looks and changes nothing; the callers are on the walk.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::{
    Candidate, Change, FINDINGS_MAX, Journal, Known, Pick, PolicyTold, Review, Route, Ruling, Settlement,
    Step, Stick, Study, Way,
};
use crate::device::{Device, PacketBuffer};
use crate::director::builtin::drawn_between;
use crate::director::{Director, NewFlow, PickInputs, sticky};
use crate::engine::Engine;
use crate::exit::Wrap;
use crate::flow::{Direction, FlowEntry, FlowId, FlowState, Traits};
use crate::plan::Layer;
use crate::policy::chain::{Chain, RULES, Stage};
use crate::policy::rules::Rules;
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};
use crate::walk::{Subject, Walk};
use crate::wire::FiveTuple;

/// Draws that are shown at most. No built-in scheduler draws more for one flow.
const DRAWS_MAX: usize = 256;

/// How far a packet of a known flow had come before it was sent on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    pub(crate) state: FlowState,
    pub(crate) tuple: FiveTuple,
}

impl Engine {
    /// Begins the accounts of a batch.
    #[cold]
    pub(crate) fn begin_accounts(&mut self, packets: usize) {
        if let Some(journal) = &mut self.journal {
            journal.begin(packets);
        }
    }

    /// Begins the account of the packet in `slot`.
    #[cold]
    pub(crate) fn begin_account(&mut self, slot: usize, packet: &PacketBuffer<'_>, now: Instant) {
        if let Some(journal) = &mut self.journal {
            let bytes = packet.buffer.get(packet.range.clone()).unwrap_or_default();
            journal.arrive(slot, packet.interface, bytes, now);
        }
    }

    /// From here on notes are about the packet in `slot`.
    #[cold]
    pub(crate) fn turn_to(&mut self, slot: usize) {
        if let Some(journal) = &mut self.journal {
            journal.turn(slot);
        }
    }

    /// Keeps what is to leave in place of the packet in `slot`.
    #[cold]
    pub(crate) fn keep_after<D: Device>(&mut self, device: &mut D, slot: usize, walk: &Walk) {
        let Some(journal) = &mut self.journal else { return };
        if let Some(Verdict::Forward(_) | Verdict::Answer(_)) = walk.end {
            let packet = device.packet(slot);
            journal.leave(slot, packet.buffer.get(walk.range.clone()).unwrap_or_default());
        }
    }

    /// Ends the account of the packet in `slot`, if there is a journal.
    pub(crate) fn end_account(&mut self, slot: usize, end: Verdict) {
        if let Some(journal) = &mut self.journal {
            journal.end(slot, end);
        }
    }

    /// Notes what the headers of a packet said that has not ended by them.
    #[cold]
    pub(crate) fn note_read(&mut self, walk: &Walk) {
        let Some(journal) = &mut self.journal else { return };
        if walk.end.is_none() {
            let is_error = walk.subject == Subject::Error;
            let has_flags = walk.subject.has_ports() && walk.protocol == crate::wire::Protocol::TCP;
            let step = Step::Read {
                tuple: if is_error { walk.tuple.reversed() } else { walk.tuple },
                flags: has_flags.then_some(walk.segment.flags),
                is_fragment: matches!(walk.subject, Subject::FirstFragment | Subject::LaterFragment),
                is_error,
            };
            journal.note(step);
        }
        journal.sift();
    }

    /// Notes what the flow table said.
    #[cold]
    pub(crate) fn note_lookup(&mut self, walk: &Walk, now: Instant) {
        let known = walk.found.and_then(|(id, direction)| self.known(id, direction, now));
        let Some(journal) = &mut self.journal else { return };
        journal.touch_tuple(walk.tuple);
        // A new flow's packet asks again whether one before it in the batch has opened the flow.
        if known.is_some() || !journal.has_missed() {
            journal.note(Step::Looked(known));
        }
    }

    fn known(&self, id: FlowId, direction: Direction, now: Instant) -> Option<Known> {
        let entry = self.flows.entry(id)?;
        let (director, server) = self.parties_of(entry);
        let is_over = entry.expires <= now;
        Some(Known {
            direction,
            state: entry.state,
            director,
            server,
            original: entry.tuple(Direction::Original),
            reply: (!entry.is_one_sided()).then(|| entry.tuple(Direction::Reply)),
            lives: (!is_over).then(|| entry.expires.since(now)),
            packets: [Direction::Original, Direction::Reply].map(|way| entry.tally(way).packets()),
            is_half_open: entry.traits.has(Traits::HALF_OPEN),
            is_old: entry.generation != self.generation,
        })
    }

    /// The names of the director and the real server of a flow.
    fn parties_of(&self, entry: &FlowEntry) -> (String, String) {
        let Some(director) = self.directors.at(entry.director) else { return (String::new(), String::new()) };
        let own = director.server(entry.server_slot).filter(|server| server.address == entry.server);
        // A datagram that is scheduled on its own has no place.
        let is_its = |server: &&crate::director::Server| {
            server.address == entry.server && (server.port == 0 || server.port == entry.server_port)
        };
        let server = own.or_else(|| director.members().find(is_its));
        (director.name.clone(), server.map_or_else(String::new, |server| server.name.clone()))
    }

    /// Notes that a flow was over when its packet came.
    #[cold]
    pub(crate) fn note_lapse(&mut self) {
        self.note(|_| Step::Lapsed);
    }

    /// Notes what the plan in force said of an older flow.
    #[cold]
    pub(crate) fn note_review(&mut self, review: Review) {
        self.note(|_| Step::Reviewed(review));
    }

    /// Notes how a packet of the flow `id` was sent on.
    #[cold]
    pub(crate) fn note_sent(
        &mut self,
        id: FlowId,
        direction: Direction,
        before: Before,
        walk: &Walk,
        refused: Option<DropReason>,
    ) {
        let Some(entry) = self.flows.entry(id).cloned() else { return };
        let states = (walk.subject != Subject::Error).then_some((before.state, entry.state));
        self.note_carried(&entry, direction, states, (before.tuple, walk), refused);
    }

    /// Notes how a packet of `entry` was sent on, which came as the tuple says.
    #[cold]
    pub(crate) fn note_carried(
        &mut self,
        entry: &FlowEntry,
        direction: Direction,
        states: Option<(FlowState, FlowState)>,
        (tuple, walk): (FiveTuple, &Walk),
        refused: Option<DropReason>,
    ) {
        if self.journal.is_none() {
            return;
        }
        let (director, server) = self.parties_of(entry);
        let is_error = walk.subject == Subject::Error;
        let change = self.change_of(entry, direction, tuple, walk);
        let way = self.way_of(entry, direction, is_error);
        let settlement = Settlement { director, server, direction, states, change, way, refused };
        self.note(|_| Step::Carried(settlement));
    }

    fn change_of(&self, entry: &FlowEntry, direction: Direction, tuple: FiveTuple, walk: &Walk) -> Change {
        if entry.is_one_sided() {
            let mode = self.directors.at(entry.director).map(|director| &director.mode);
            let way = self.exit.ways.at(entry.way(Direction::Original));
            let out = way.and_then(|way| self.exit.plan.interfaces.get(way.interface.index()));
            let wrap = mode.zip(out).map(|(mode, out)| Wrap::new(mode, entry, walk.hash, out));
            return match wrap {
                Some(Ok(Some(wrap))) => wrap.change(),
                Some(Ok(None) | Err(_)) | None => Change::Unchanged,
            };
        }
        if walk.subject == Subject::Error {
            return Change::Quoted;
        }
        Change::Translated { before: tuple, after: entry.translated(direction) }
    }

    fn way_of(&self, entry: &FlowEntry, direction: Direction, is_error: bool) -> Option<Way> {
        let direction = if entry.is_one_sided() { Direction::Original } else { direction };
        let number = entry.way(direction);
        let way = self.exit.ways.at(number)?;
        let target = match direction {
            Direction::Original => entry.server,
            Direction::Reply if is_error => entry.client,
            Direction::Reply => entry.translated(direction).destination,
        };
        let next_hop = self.exit.ways.next_hop(number, target);
        let link = match way.layer {
            Layer::Ip => Route::Unneeded,
            Layer::Ethernet(_) => {
                self.exit.neighbours.mac(way.interface, next_hop).map_or(Route::Asked, Route::Known)
            }
        };
        let (interface, table, mtu_bytes) = (way.interface, way.table, way.mtu_bytes);
        Some(Way { interface, table, next_hop, link, mtu_bytes })
    }

    /// Writes a note, if there is a journal.
    pub(crate) fn note(&mut self, step: impl FnOnce(&Journal) -> Step) {
        if let Some(journal) = &mut self.journal {
            let step = step(journal);
            journal.note(step);
        }
    }
}

/// Has `chain` decide as [`Chain::decide`] does, and says of the flow of each of `slots` how every link came to it.
pub(crate) fn decide_aloud(
    chain: &mut Chain,
    journal: &mut Journal,
    flows: &[PolicyFlow],
    slots: &[usize],
    now: Instant,
) {
    chain.begin(flows.len());
    journal.turn(slots.first().copied().unwrap_or(0));
    for number in 0..chain.stages().len() {
        touch_policy(journal, chain, number, flows);
        let studies: Vec<Option<(usize, Option<Study>)>> = flows
            .iter()
            .enumerate()
            .map(|(place, flow)| study_of(chain, number, (place, flow), journal, now))
            .collect();
        chain.step(number, flows, now);
        note_stage(chain, journal, number, studies, (flows, slots));
    }
}

/// Has the guests of `chain` judge packets as [`Chain::judge`] does, and says what each came to.
pub(crate) fn judge_aloud(
    chain: &mut Chain,
    journal: &mut Journal,
    packets: &[PolicyFlow],
    (met, slots): (&[u8], &[usize]),
    now: Instant,
) {
    chain.begin_judging(met.iter().copied());
    journal.turn(slots.first().copied().unwrap_or(0));
    for number in 0..chain.stages().len() {
        if !chain.judge_step(number, packets, now) {
            continue;
        }
        touch_policy(journal, chain, number, packets);
        let asked = chain.asked().iter().map(|place| Some((*place, None))).collect();
        note_stage(chain, journal, number, asked, (packets, slots));
    }
}

/// Keeps in mind that the link at `number` of `chain` is asked, and about whom first.
fn touch_policy(journal: &mut Journal, chain: &Chain, number: usize, flows: &[PolicyFlow]) {
    journal.touch(|touched| {
        let (places, asked) = if chain.is_about_leaving() {
            (&mut touched.outflow_guests, &mut touched.asked_leaving)
        } else {
            (&mut touched.policies, &mut touched.asked)
        };
        places.insert(number);
        *asked = flows.first().map(|flow| (flow.tuple.source, flow.tuple.destination));
    });
}

/// How rules of the link at `number` come to what they say of a flow that nobody before it has decided.
fn study_of(
    chain: &Chain,
    number: usize,
    (place, flow): (usize, &PolicyFlow),
    journal: &Journal,
    now: Instant,
) -> Option<(usize, Option<Study>)> {
    chain.decided().get(place).filter(|decided| decided.verdict == PolicyVerdict::Skip)?;
    let rules = chain.stages().get(number)?.rules();
    Some((place, rules.map(|rules| study(rules, flow, journal.is_thorough(), now))))
}

/// Notes what the link at `number`, which was asked last, has said of `flows`.
fn note_stage(
    chain: &Chain,
    journal: &mut Journal,
    number: usize,
    studies: Vec<Option<(usize, Option<Study>)>>,
    (flows, slots): (&[PolicyFlow], &[usize]),
) {
    let Some(stage) = chain.stages().get(number) else { return };
    let took = journal.share(studies.iter().flatten().count());
    for (place, study) in studies.into_iter().flatten() {
        let (Some(decided), Some(slot)) = (chain.decided().get(place), slots.get(place)) else { continue };
        let (name, is_unknown) = match stage {
            Stage::Rules(_) => (RULES, false),
            Stage::Guest(guest) => (guest.name(), guest.is_absent() && chain.asked().contains(&place)),
        };
        let verdict = decided.verdict;
        if let (Stage::Guest(_), Some(flow), true) = (stage, flows.get(place), chain.asked().contains(&place))
        {
            let (is_leaving, place) = (chain.is_about_leaving(), u16::try_from(number).unwrap_or(u16::MAX));
            let answer = PolicyTold { is_leaving, place, tuple: flow.tuple, verdict };
            journal.touch(|touched| touched.answers.push(answer));
        }
        let ruling = Ruling { verdict, study, is_unknown };
        journal.note_at(*slot, Step::Policy { place: number, name: String::from(name), ruling }, took);
    }
}

/// What rules say of one flow, counted as always, and how they came to it.
pub(crate) fn rule_aloud(
    rules: &mut Rules,
    flow: &PolicyFlow,
    is_thorough: bool,
    now: Instant,
) -> (Option<PolicyVerdict>, Ruling) {
    let study = study(rules, flow, is_thorough, now);
    let decided = rules.decide_one(flow, now).map(|(verdict, _)| verdict);
    let verdict = decided.unwrap_or(PolicyVerdict::Skip);
    (decided, Ruling { verdict, study: Some(study), is_unknown: false })
}

/// How rules come to their verdict about `flow`. Counts nothing.
pub(crate) fn study(rules: &Rules, flow: &PolicyFlow, is_thorough: bool, now: Instant) -> Study {
    let (mut findings, mut left_out) = (Vec::new(), 0);
    let decision = rules.explain(flow, now, |finding| {
        if !is_thorough {
            findings.clear();
        }
        if findings.len() < FINDINGS_MAX {
            findings.push(finding);
        } else {
            left_out += 1;
        }
    });
    Study { findings, left_out, decision }
}

/// A question to a scheduler, before it is asked.
#[derive(Debug)]
pub(crate) struct Question {
    inputs: Vec<PickInputs>,
    candidates: Vec<Candidate>,
}

impl Question {
    /// What `director` would be asked about `flows`.
    pub(crate) fn of(director: &Director, flows: &[NewFlow], is_thorough: bool) -> Self {
        let inputs = flows.iter().map(|flow| director.scheduler().inputs(flow)).collect();
        let names = director.members();
        let candidate = |(server, (view, load)): (&crate::director::Server, _)| {
            let (view, load): (&crate::director::ServerView, &crate::director::ServerLoad) = (view, load);
            Candidate {
                name: server.name.clone(),
                weight: view.weight,
                load: *load,
                is_up: view.is_up,
                is_full: view.is_full,
            }
        };
        let candidates = names.zip(director.candidates()).map(candidate);
        Self { inputs, candidates: if is_thorough { candidates.collect() } else { Vec::new() } }
    }

    /// What has been answered for the flow at `place` of the question.
    pub(crate) fn answered(
        &self,
        director: &Director,
        flow: &NewFlow,
        place: usize,
        answer: Option<u16>,
    ) -> Pick {
        let inputs = self.inputs.get(place).copied().unwrap_or_default();
        let after = director.scheduler().inputs(flow);
        let draws = match (inputs.stream, after.stream, self.inputs.len()) {
            (Some(from), Some(to), 1) => drawn_between(from, to, DRAWS_MAX),
            // Nobody tells the draws for several flows apart.
            _ => Vec::new(),
        };
        Pick {
            director: director.name.clone(),
            scheduler: director.scheduler().name().to_string(),
            inputs,
            draws,
            asked: self.inputs.len(),
            candidates: self.candidates.clone(),
            server: answer.and_then(|view| director.viewed(view)).map(|server| server.name.clone()),
            is_unknown: director.has_absent_scheduler(),
        }
    }
}

/// What was found of a client at `director`, and whether that is of use.
pub(crate) fn stick(director: &Director, key: &sticky::Key, slot: Option<u16>, is_used: bool) -> Step {
    let server = slot.and_then(|slot| director.server(slot)).map(|server| server.name.clone());
    Step::Stuck(Stick { director: director.name.clone(), client: key.1, server, is_used })
}
