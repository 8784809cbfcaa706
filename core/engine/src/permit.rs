//! What policies and outflow rules decide about a flow apart from its director: whether it may still go on, whether a
//! message without a flow may be answered, and by which ways packets leave.

use crate::device::PacketBuffer;
use crate::engine::Engine;
use crate::flow::{Direction, FlowEntry};
use crate::forward::{DEAD_END, MAIN, NextHop};
use crate::journal::Step;
use crate::journal::notes::{decide_aloud, rule_aloud};
use crate::policy::{PolicyFlow, PolicyVerdict};
use crate::time::Instant;
use crate::verdict::DropReason;
use crate::walk::{Subject, Walk};
use crate::wire::tcp::Flags;
use crate::wire::{FiveTuple, Protocol, icmp, icmpv6};

/// What the rules in force say of a flow that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It goes on, by the routing table with this number.
    Permitted(u8),
    /// It ends.
    Denied,
    /// A component or a condition that cannot be looked at again has decided: it goes on as before.
    Unknown,
}

/// What policies see of a packet that may open a flow.
pub(crate) fn asking(packet: &PacketBuffer<'_>, walk: &Walk) -> PolicyFlow {
    let bytes = packet.buffer.get(walk.range.clone()).unwrap_or_default();
    let dscp = match bytes {
        [first, second, ..] if first >> 4 == 4 => second >> 2,
        // The traffic class lies across the two.
        [first, second, ..] => (first & 0x0f) << 2 | second >> 6,
        [] | [_] => 0,
    };
    let known = PolicyFlow::new(walk.hash, walk.tuple, walk.interface);
    let icmp_kind = match walk.protocol {
        Protocol::ICMP | Protocol::ICMPV6 if walk.subject == Subject::Packet => {
            bytes.get(usize::from(walk.layer_4)).copied().unwrap_or(known.icmp_kind)
        }
        _ => known.icmp_kind,
    };
    let flags = if walk.subject.has_ports() { walk.segment.flags } else { known.flags };
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    PolicyFlow { icmp_kind, flags, dscp: Some(dscp), length, ..known }
}

/// The number of the routing table at this place of the plan.
pub(crate) fn table_number(place: u16) -> u8 {
    u8::try_from(place).ok().and_then(|place| place.checked_add(1)).unwrap_or(MAIN)
}

impl Engine {
    /// Whether the policies let a message in that opens no flow: one that is answered here, or is of no use.
    #[cold]
    pub(crate) fn lets_in(&mut self, packet: &PacketBuffer<'_>, walk: &Walk, now: Instant) -> bool {
        if self.chain.is_empty() {
            return self.exit.plan.default_permit;
        }
        let asking = [asking(packet, walk)];
        if let Some(journal) = &mut self.journal {
            let slot = journal.slot();
            decide_aloud(&mut self.chain, journal, &asking, &[slot], now);
        } else {
            self.chain.decide(&asking, now);
        }
        let decided = self.chain.decided().first().map(|decided| decided.verdict);
        self.fetch_policy_faults();
        match decided {
            None | Some(PolicyVerdict::Skip) => self.exit.plan.default_permit,
            Some(PolicyVerdict::Deny) => false,
            Some(PolicyVerdict::Permit | PolicyVerdict::Director(_) | PolicyVerdict::Table(_)) => true,
        }
    }

    /// Turns the faults of policies into events.
    pub(crate) fn fetch_policy_faults(&mut self) {
        while let Some((name, fault)) = self.chain.poll_fault().or_else(|| self.outflow_guests.poll_fault()) {
            self.push_fault(&name, Some(fault));
        }
    }

    /// What the rules in force say of the open flow of `entry`, and the guests that judge its packets.
    pub(crate) fn standing(&self, entry: &FlowEntry) -> (Standing, u8) {
        let tuple = entry.tuple(Direction::Original);
        let review = self.chain.review(&PolicyFlow::new(0, tuple, entry.interface_in()));
        let standing = match review.verdict {
            None => Standing::Unknown,
            Some(PolicyVerdict::Skip) if !self.exit.plan.default_permit => Standing::Denied,
            Some(PolicyVerdict::Deny) => Standing::Denied,
            Some(PolicyVerdict::Skip | PolicyVerdict::Permit | PolicyVerdict::Director(_)) => {
                Standing::Permitted(MAIN)
            }
            Some(PolicyVerdict::Table(place)) => Standing::Permitted(table_number(place)),
        };
        (standing, review.met)
    }

    /// By which ways packets of `entry` leave, to the client and to the real server, where `hop` is what the routes say of
    /// the latter. Outflows see packets as they leave: translated, at the interface that the routes have chosen.
    ///
    /// # Errors
    /// `PolicyDenied` when an outflow denies the packets to the real server. Where one denies the answers alone, their
    /// way is a dead end.
    pub(crate) fn find_ways(
        &mut self,
        entry: &FlowEntry,
        hop: &NextHop,
        opening: Option<Flags>,
        now: Instant,
    ) -> Result<[u8; 2], DropReason> {
        let to_client = self.way_of_replies(entry);
        let to_server = self.exit.ways.to(hop);
        if self.outflows.is_empty() && self.outflow_guests.is_empty() {
            return Ok([to_client, to_server]);
        }
        let one_sided = entry.is_one_sided();
        let leaving =
            if one_sided { entry.tuple(Direction::Original) } else { entry.translated(Direction::Original) };
        let to_server = self.divert(leaving, entry.server, to_server, opening, now);
        if to_server == DEAD_END {
            return Err(DropReason::PolicyDenied);
        }
        if one_sided {
            return Ok([to_client, to_server]);
        }
        let leaving = entry.translated(Direction::Reply);
        let answer = opening.map(|flags| if flags.has(Flags::SYN) { Flags(0x12) } else { Flags::ACK });
        Ok([self.divert(leaving, entry.client, to_client, answer, now), to_server])
    }

    /// What the outflow rules say of a new flow's packets; counts.
    fn decide_outflow(&mut self, asking: &PolicyFlow, now: Instant) -> Option<PolicyVerdict> {
        let Some(journal) = &mut self.journal else {
            return self.outflows.decide_one(asking, now).map(|(verdict, _)| verdict);
        };
        let (verdict, ruling) = rule_aloud(&mut self.outflows, asking, journal.is_thorough(), now);
        journal.note(Step::Outflow { tuple: asking.tuple, interface: asking.interface, ruling });
        verdict
    }

    /// What the components say that are asked where no outflow decides.
    #[cold]
    fn ask_about_leaving(&mut self, asking: &PolicyFlow, now: Instant) -> Option<PolicyVerdict> {
        let asking = core::slice::from_ref(asking);
        if let Some(journal) = &mut self.journal {
            let slot = journal.slot();
            decide_aloud(&mut self.outflow_guests, journal, asking, &[slot], now);
        } else {
            self.outflow_guests.decide(asking, now);
        }
        let decided = self.outflow_guests.decided().first().map(|decided| decided.verdict);
        self.fetch_policy_faults();
        decided
    }

    /// The way of answers when no outflow has another: back by the interface by which the client's packets came, or where
    /// the plan says so, as the routes say.
    fn way_of_replies(&self, entry: &FlowEntry) -> u8 {
        let routes_replies = self.exit.plan.handling.routes_replies;
        let hop = self.exit.routes.find(entry.client).filter(|_| routes_replies);
        hop.map_or_else(|| self.exit.ways.find(entry.interface_in(), MAIN), |hop| self.exit.ways.to(&hop))
    }

    /// The way of packets of `leaving` to `target`, for which the routes have chosen `way`. `opening` are the control bits
    /// of a new flow's first packet; without them the flow is open, and is not counted again.
    fn divert(
        &mut self,
        leaving: FiveTuple,
        target: crate::wire::Address,
        way: u8,
        opening: Option<Flags>,
        now: Instant,
    ) -> u8 {
        let Some(chosen) = self.exit.ways.at(way) else { return way };
        let mut asking = PolicyFlow::new(0, leaving, chosen.interface);
        // The identifier of an answer stands at the other end.
        if leaving.source_port == 0 {
            asking.icmp_kind = match leaving.protocol {
                Protocol::ICMPV6 => icmpv6::kind::ECHO_REPLY,
                _ => icmp::kind::ECHO_REPLY,
            };
        }
        let verdict = match opening {
            Some(flags) => {
                asking.flags = flags;
                self.decide_outflow(&asking, now)
            }
            None => self.outflows.evaluate(&asking),
        };
        let verdict = match (verdict, opening) {
            (None, Some(_)) | (Some(PolicyVerdict::Skip), _) if !self.outflow_guests.is_empty() => {
                self.ask_about_leaving(&asking, now)
            }
            (verdict, _) => verdict,
        };
        match verdict {
            Some(PolicyVerdict::Deny) => DEAD_END,
            Some(PolicyVerdict::Table(place)) => {
                let hop = self.exit.routes.find_in(table_number(place), target);
                hop.map_or(way, |hop| self.exit.ways.to(&hop))
            }
            None | Some(PolicyVerdict::Permit | PolicyVerdict::Director(_) | PolicyVerdict::Skip) => way,
        }
    }
}
