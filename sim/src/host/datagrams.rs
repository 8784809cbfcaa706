//! Datagrams: a client's question and its answer.

use std::net::IpAddr;

use evenkeel_engine::wire::Protocol;
use evenkeel_engine::{Duration, Instant};

use super::connection::Kind;
use super::flow::{self, Cause};
use super::work::{Job, Target};
use super::{Host, draw_pause, identity};
use crate::net::Way;
use crate::packet::{self, End, Header};
use crate::payload::{self, Message};

impl Host {
    /// A datagram has come, between ends of IPv4 or of any family.
    pub(super) fn receive_datagram<A: Copy + Into<IpAddr>>(
        &mut self,
        way: &mut Way<'_>,
        ends: (End<A>, End<A>),
        payload: &[u8],
        bytes: &[u8],
    ) {
        let (local, remote) = (ends.0.into_any(), ends.1.into_any());
        if let Some(index) = self.find_at_once(Protocol::UDP, local, remote) {
            return self.receive_answer(way, index, payload);
        }
        if self.listens(Protocol::UDP, local) {
            match flow::read_whole(None, payload) {
                Some(head) if self.work.is_some() => {
                    self.begin_work(
                        way,
                        Job { target: Target::Datagram { local, remote }, head, since: way.now() },
                    );
                }
                Some(head) => {
                    let answer = Message::response_of(&head, identity(&self.own, local.address));
                    self.send_datagram(way, ends, &answer);
                }
                None => self.counts.bad_requests += 1,
            }
            return;
        }
        self.counts.unexpected += 1;
        if let Some(error) = packet::port_unreachable(way.buffer(), bytes) {
            self.send(way, error);
        }
    }

    /// An answer to a datagram of ours.
    fn receive_answer(&mut self, way: &mut Way<'_>, index: usize, payload: &[u8]) {
        let now = way.now();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let Kind::Asker { flow, deadline, .. } = &mut connection.kind else { return };
        let Some(head) = payload::response_head(payload) else {
            let (flow, local) = (**flow, connection.local);
            self.remove(index);
            return self.finish(Some(local), &flow, Some(Cause::WrongAnswer));
        };
        if head.pattern != !flow.head().pattern || connection.resumes != Instant::NEVER {
            // The answer to a question that was asked twice.
            self.counts.unexpected += 1;
            return;
        }
        let verdict = match flow::read_whole(Some(&flow.head()), payload) {
            Some(head) => {
                self.answers.push(flow.answer(head.argument, now));
                flow.answered(head.argument)
            }
            None => Some(Err(Cause::WrongAnswer)),
        };
        match verdict {
            None => {
                *deadline = Instant::NEVER;
                let pause = draw_pause(&mut self.pauses, flow.pause());
                connection.resumes = now.after(pause);
                if pause == Duration::ZERO {
                    self.ask_next(way, index);
                }
                self.arm(way, index);
            }
            Some(result) => {
                let (flow, local) = (**flow, connection.local);
                self.remove(index);
                self.finish(Some(local), &flow, result.err());
            }
        }
    }

    pub(super) fn send_datagram<A: Into<IpAddr>>(
        &mut self,
        way: &mut Way<'_>,
        ends: (End<A>, End<A>),
        message: &Message,
    ) {
        let length = usize::try_from(message.len()).unwrap_or(0).min(packet::MTU_BYTES);
        let packet =
            packet::build_summed(way.buffer(), ends, Header::Udp, length, |place| message.write_whole(place));
        self.send(way, packet);
    }
}
