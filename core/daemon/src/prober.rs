//! Carries schedulers' questions to real servers, and their answers back: one datagram each way.
//!
//! In: probes from the data path. Out: replies to it. Runs beside the data path, on the thread of the control plane; a
//! question that finds no room, and an answer that comes late, from elsewhere or in another form, is left out, which does
//! no harm.
//!
//! ```text
//! to ADDRESS:probe_port   evenkeel-probe 1 NONCE
//! back from there         evenkeel-probe 1 NONCE IN_FLIGHT LATENCY_US
//! ```
//! `NONCE` has 16 hexadecimal digits. `IN_FLIGHT` are the requests that the real server works on, `LATENCY_US` how long its
//! recent ones took while it had about as many.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use evenkeel_engine::{Probe, ProbeReply};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use crate::data_path::Replies;
use crate::prepare::draw_seed;

/// The most questions that wait between data path and prober; those of some batches of new flows.
pub(crate) const WAITING_MAX: usize = 256;

/// The most questions without an answer yet: 40,000 a second with the patience below.
const ASKED_MAX: usize = 4_096;

/// How long an answer is waited for. A scheduler that chooses among fresh answers has no use for older ones.
const PATIENCE: Duration = Duration::from_millis(100);

/// The longest answer: two words, three numbers, and the spaces between them.
const ANSWER_BYTES_MAX: usize = 128;

/// How both forms begin.
const WORD: &str = "evenkeel-probe";

/// The version of the form.
const VERSION: &str = "1";

/// A question that was asked.
#[derive(Debug)]
struct Asked {
    probe: Probe,
    at: Instant,
}

/// The questions that have no answer yet.
#[derive(Debug, Default)]
struct Open {
    by_nonce: BTreeMap<u64, Asked>,
    /// In the order in which they were asked.
    order: VecDeque<(Instant, u64)>,
}

/// Carries probes until the data path has ended. `port` is where real servers answer.
pub(crate) async fn run(mut probes: mpsc::Receiver<Probe>, replies: Replies, port: u16) {
    // Sockets are opened with the first question: most forwarders never have one.
    let Some(first) = probes.recv().await else { return };
    let mut prober = match Prober::open(replies, port).await {
        Ok(prober) => prober,
        Err(error) => {
            tracing::warn!(%error, "real servers can not be probed; schedulers decide without");
            return;
        }
    };
    prober.ask(first).await;
    let mut buffers = [[0; ANSWER_BYTES_MAX]; 2];
    loop {
        let [buffer_v4, buffer_v6] = &mut buffers;
        tokio::select! {
            probe = probes.recv() => match probe {
                Some(probe) => prober.ask(probe).await,
                None => return,
            },
            heard = prober.v4.recv_from(buffer_v4) => prober.hear(heard, buffer_v4),
            heard = hear_v6(prober.v6.as_ref(), buffer_v6) => prober.hear(heard, buffer_v6),
        }
    }
}

/// What comes over IPv6, where the machine has it.
async fn hear_v6(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

struct Prober {
    v4: UdpSocket,
    v6: Option<UdpSocket>,
    port: u16,
    open: Open,
    replies: Replies,
    /// Who does not see the questions can not guess the next number.
    nonce: u64,
    step: u64,
}

impl Prober {
    async fn open(replies: Replies, port: u16) -> io::Result<Self> {
        let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
        // A machine may have no IPv6 at all.
        let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).await.ok();
        let (nonce, step) = (draw_seed()?, draw_seed()? | 1);
        Ok(Self { v4, v6, port, open: Open::default(), replies, nonce, step })
    }

    async fn ask(&mut self, probe: Probe) {
        let now = Instant::now();
        self.open.forget(now);
        if self.open.by_nonce.len() >= ASKED_MAX {
            return;
        }
        self.nonce = self.nonce.wrapping_add(self.step);
        let socket = match probe.address {
            IpAddr::V4(_) => Some(&self.v4),
            IpAddr::V6(_) => self.v6.as_ref(),
        };
        let Some(socket) = socket else { return };
        let question = format!("{WORD} {VERSION} {:016x}\n", self.nonce);
        if socket.send_to(question.as_bytes(), (probe.address, self.port)).await.is_ok() {
            self.open.add(self.nonce, probe, now);
        }
    }

    /// Takes in what came. Errors are those of earlier questions, such as a port that nobody listens at.
    fn hear(&mut self, heard: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
        let Ok((length, from)) = heard else { return };
        let text = buffer.get(..length).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let Some((nonce, in_flight, latency)) = text.and_then(parsed) else { return };
        if let Some(reply) = self.open.answered(nonce, from.ip(), in_flight, latency, Instant::now()) {
            self.replies.hand_over(reply);
        }
    }
}

impl Open {
    fn add(&mut self, nonce: u64, probe: Probe, now: Instant) {
        self.by_nonce.insert(nonce, Asked { probe, at: now });
        self.order.push_back((now, nonce));
    }

    /// Lets go of those that nobody waits for any more.
    fn forget(&mut self, now: Instant) {
        while let Some((at, nonce)) = self.order.front().copied() {
            if now.duration_since(at) <= PATIENCE && self.by_nonce.contains_key(&nonce) {
                break;
            }
            self.order.pop_front();
            self.by_nonce.remove(&nonce);
        }
    }

    /// The reply that an answer is, where the question was asked of this address, lately.
    fn answered(
        &mut self,
        nonce: u64,
        from: IpAddr,
        in_flight: u32,
        latency: Duration,
        now: Instant,
    ) -> Option<ProbeReply> {
        let asked = self.by_nonce.get(&nonce)?;
        if asked.probe.address != from || now.duration_since(asked.at) > PATIENCE {
            return None;
        }
        let Asked { probe, .. } = self.by_nonce.remove(&nonce)?;
        Some(ProbeReply { director: probe.director, server: probe.server, in_flight, latency })
    }
}

/// The numbers of an answer.
fn parsed(text: &str) -> Option<(u64, u32, Duration)> {
    let mut words = text.split_ascii_whitespace();
    if (words.next()?, words.next()?) != (WORD, VERSION) {
        return None;
    }
    let nonce = words.next().filter(|word| word.len() == 16)?;
    let nonce = u64::from_str_radix(nonce, 16).ok()?;
    let in_flight = words.next()?.parse().ok()?;
    let latency = Duration::from_micros(words.next()?.parse().ok()?);
    words.next().is_none().then_some((nonce, in_flight, latency))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use evenkeel_engine::director::ServerId;

    use super::*;
    use crate::data_path::Heard;

    fn probe(last: u8) -> Probe {
        Probe { director: 3, server: ServerId(7), address: [127, 0, 0, last].into(), port: 80 }
    }

    #[test]
    fn an_answer_has_one_form() {
        let good = "evenkeel-probe 1 00000000000000ff 12 3500\n";
        assert_eq!(parsed(good), Some((255, 12, Duration::from_micros(3_500))));
        for bad in [
            "",
            "evenkeel-probe",
            "evenkeel-probe 2 00000000000000ff 12 3500",
            "evenkeel-probe 1 ff 12 3500",
            "evenkeel-probe 1 00000000000000ff 12",
            "evenkeel-probe 1 00000000000000ff -1 3500",
            "evenkeel-probe 1 00000000000000ff 4294967296 3500",
            "evenkeel-probe 1 00000000000000ff 12 3500 more",
            "evenkeel-probe 1 +0000000000000ff 12 x",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_counts_once_from_whom_it_was_asked_of_and_in_time() {
        let (mut open, begin) = (Open::default(), Instant::now());
        let answer = |open: &mut Open, nonce, last, after: Duration| {
            let from = IpAddr::from([127, 0, 0, last]);
            open.answered(nonce, from, 5, Duration::from_micros(9), begin + after).is_some()
        };
        open.add(1, probe(1), begin);
        open.add(2, probe(1), begin);
        assert!(!answer(&mut open, 3, 1, Duration::ZERO), "never asked");
        assert!(!answer(&mut open, 1, 2, Duration::ZERO), "somebody else");
        assert!(answer(&mut open, 1, 1, PATIENCE));
        assert!(!answer(&mut open, 1, 1, PATIENCE), "once");
        assert!(!answer(&mut open, 2, 1, PATIENCE + Duration::from_micros(1)), "late");
        open.forget(begin + PATIENCE + Duration::from_micros(1));
        assert!(open.by_nonce.is_empty() && open.order.is_empty(), "nothing is kept of what is over");
    }

    #[tokio::test]
    async fn questions_reach_real_servers_and_their_answers_the_data_path() {
        let agent = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let port = agent.local_addr().unwrap().port();
        let (questions, probes) = mpsc::channel(WAITING_MAX);
        let (replies, inbox) = Replies::for_tests();
        let prober = tokio::task::spawn(run(probes, replies, port));
        for in_flight in [4_u32, 5] {
            questions.send(probe(1)).await.unwrap();
            let mut buffer = [0; 64];
            let (length, from) = agent.recv_from(&mut buffer).await.unwrap();
            let question = std::str::from_utf8(buffer.get(..length).unwrap()).unwrap().trim_end();
            assert!(question.starts_with("evenkeel-probe 1 "), "{question}");
            let answer = format!("{question} {in_flight} 1500\n");
            agent.send_to(b"no answer at all", from).await.unwrap();
            agent.send_to(answer.as_bytes(), from).await.unwrap();
            let reply = loop {
                match inbox.try_recv() {
                    Ok(reply) => break reply,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            let latency = Duration::from_micros(1_500);
            let Heard::Probe(reply) = reply else { panic!("{reply:?}") };
            assert_eq!(reply, ProbeReply { director: 3, server: ServerId(7), in_flight, latency });
        }
        drop(questions);
        prober.await.unwrap();
    }
}
