//! Carries the engine's questions to agents of real servers, and their lines back: one TCP connection each.
//!
//! In: questions from the data path. Out: answers to it, an empty one where nobody could be asked or said anything in time.
//! Runs beside the data path, on the thread of the control plane. What a line means is the engine's business.
//!
//! ```text
//! connect to ADDRESS:PORT -> send what is to be sent -> read to the end of the line, the stream or the bound -> close
//! ```
//!
//! A real server that accepts and never answers, or answers without end, costs one socket until its time is over.

use std::io;
use std::net::SocketAddr;

use evenkeel_engine::AgentCheck;
use evenkeel_engine::agent::LINE_BYTES_MAX;
use evenkeel_engine::director::AGENT_CHECKS_MAX;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::data_path::Replies;

/// The most questions that wait between data path and here: as many as the engine has open at once.
pub(crate) const WAITING_MAX: usize = AGENT_CHECKS_MAX;

/// One byte more than a line may have, so that the engine sees that there is more.
const ANSWER_BYTES_MAX: usize = LINE_BYTES_MAX + 1;

/// Carries questions until the data path has ended.
pub(crate) async fn run(mut checks: mpsc::Receiver<AgentCheck>, replies: Replies) {
    let mut asking = JoinSet::new();
    loop {
        tokio::select! {
            check = checks.recv(), if asking.len() < AGENT_CHECKS_MAX => match check {
                Some(check) => {
                    let replies = replies.clone();
                    asking.spawn_local(async move {
                        let line = ask(&check).await;
                        replies.agent_said(check, line);
                    });
                }
                // Those on their way are dropped, and their sockets with them.
                None => return,
            },
            Some(_) = asking.join_next() => {}
        }
    }
}

/// What the agent says until its time is over; nothing where it can not be reached.
async fn ask(check: &AgentCheck) -> Vec<u8> {
    let mut answer = Vec::new();
    // What came before the time was over is no line: its end is missing.
    match tokio::time::timeout(check.timeout, exchange(check, &mut answer)).await {
        Ok(Ok(())) => answer,
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

async fn exchange(check: &AgentCheck, answer: &mut Vec<u8>) -> io::Result<()> {
    let mut stream = TcpStream::connect(SocketAddr::new(check.address, check.port)).await?;
    if !check.send.is_empty() {
        stream.write_all(check.send.as_bytes()).await?;
    }
    let mut chunk = [0; 256];
    loop {
        let room = ANSWER_BYTES_MAX - answer.len();
        let place = chunk.len().min(room);
        let Some(place) = chunk.get_mut(..place) else { return Ok(()) };
        let length = stream.read(place).await?;
        let read = place.get(..length).unwrap_or_default();
        answer.extend_from_slice(read);
        let is_over = length == 0 || answer.len() == ANSWER_BYTES_MAX;
        if is_over || read.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    use evenkeel_engine::agent::{AgentMode, AgentReply};
    use evenkeel_engine::plan::{AgentPlan, Binding, Builtin, DirectorPlan, ServerPlan};
    use evenkeel_engine::wire::Protocol;
    use evenkeel_engine::{Engine, Guests, Instant, Plan, ServerStatus};
    use tokio::net::TcpListener;

    use super::*;
    use crate::data_path::Heard;

    /// A forwarder's engine, its carrier, and the time.
    struct Forwarder {
        engine: Engine,
        questions: mpsc::Sender<AgentCheck>,
        inbox: Receiver<Heard>,
        now: Instant,
        /// Questions without an answer.
        open: usize,
    }

    impl Forwarder {
        /// Servers at 127.0.0.1, told apart by their service's port, whose agents listen at `ports`.
        fn new(ports: &[u16], timeout: Duration) -> Self {
            let server = |(number, port): (u16, &u16)| ServerPlan {
                agent_port: Some(*port),
                ..ServerPlan::new(&format!("s{number}"), Ipv4Addr::LOCALHOST.into(), number, 100)
            };
            let servers = (1..).zip(ports).map(server).collect();
            let bind = Binding::of([10, 0, 0, 3].into(), 80, Protocol::TCP);
            let mut director = DirectorPlan::new("web", bind, Builtin::WeightedRoundRobin, servers);
            let interval = Duration::from_secs(2);
            director.agent_check = Some(AgentPlan { port: 1, interval, timeout, send: "web\n".to_owned() });
            let plan = Plan { directors: vec![director], ..Plan::empty() };
            let engine = Engine::new(plan, Guests::default(), Instant::ZERO).unwrap();
            let (questions, checks) = mpsc::channel(WAITING_MAX);
            let (replies, inbox) = Replies::for_tests();
            tokio::task::spawn_local(run(checks, replies));
            Self { engine, questions, inbox, now: Instant::ZERO, open: 0 }
        }

        /// An interval goes by in the engine, in which every agent is asked and its answer waited for.
        async fn round(&mut self) {
            let until = self.now.after(Duration::from_secs(2));
            while let Some(next) = self.engine.poll_timeout().filter(|next| *next < until) {
                self.now = next.max(self.now);
                self.ask(|_| ());
                self.await_answers().await;
            }
            self.now = until;
        }

        /// Asks all agents that are due.
        fn ask(&mut self, change: impl Fn(&mut AgentCheck)) {
            self.engine.handle_timeout(self.now);
            while let Some(mut check) = self.engine.poll_agent_check(self.now) {
                change(&mut check);
                self.questions.try_send(check).unwrap();
                self.open += 1;
            }
        }

        async fn await_answers(&mut self) {
            while self.open > 0 {
                match self.inbox.try_recv() {
                    Ok(answer) => {
                        assert!(answer.take_in(&mut self.engine, self.now));
                        self.open -= 1;
                    }
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        }

        fn server(&self, number: usize) -> ServerStatus {
            self.engine.directors().remove(0).servers.remove(number)
        }
    }

    /// An agent that says each of `lines` in turn, the last one from then on.
    async fn agent(lines: &'static [&'static [u8]]) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::task::spawn_local(async move {
            let mut lines = lines.iter().copied();
            let mut line = lines.next().unwrap();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut question = [0; 4];
                stream.read_exact(&mut question).await.unwrap();
                assert_eq!(&question, b"web\n");
                stream.write_all(line).await.unwrap();
                line = lines.next().unwrap_or(line);
            }
        });
        port
    }

    /// Runs a test where tasks that stay on their thread can run.
    async fn locally(test: impl Future<Output = ()>) {
        tokio::task::LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn agents_say_weight_and_state_over_tcp() {
        locally(async {
            let lines: &[&[u8]] = &[b"50%\n", b"drain\r\n", b"ready down #disk is full\n", b"up 100%", b""];
            let port = agent(lines).await;
            let mut forwarder = Forwarder::new(&[port], Duration::from_secs(2));
            forwarder.round().await;
            assert_eq!(forwarder.server(0).effective_weight, 50);
            forwarder.round().await;
            let server = forwarder.server(0);
            assert_eq!((server.effective_weight, server.agent.unwrap().mode), (0, AgentMode::Drain));
            forwarder.round().await;
            let server = forwarder.server(0);
            assert!(!server.is_up);
            assert_eq!(server.agent.unwrap().down.as_deref(), Some("disk is full"));
            forwarder.round().await;
            assert!(forwarder.server(0).is_up, "the end of the stream ends the line");
            forwarder.round().await;
            let server = forwarder.server(0);
            assert_eq!(
                (server.is_up, server.effective_weight),
                (true, 100),
                "who says nothing changes nothing"
            );
            let counters = forwarder.engine.counters();
            assert_eq!((counters.agent_checks, counters.agent_answers, counters.agent_failures), (5, 4, 1));
        })
        .await;
    }

    #[tokio::test]
    async fn an_endless_line_a_closed_port_and_a_closed_stream_change_nothing() {
        locally(async {
            let endless = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let closing = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let ports = [&endless, &closing, &gone].map(|one| one.local_addr().unwrap().port());
            drop(gone);
            let writer = tokio::task::spawn_local(async move {
                let (mut stream, _) = endless.accept().await.unwrap();
                let mut written = 0_u64;
                // Ends when the other side has had enough.
                while stream.write_all(&[b'a'; 4096]).await.is_ok() {
                    written += 4096;
                }
                written
            });
            tokio::task::spawn_local(async move { while closing.accept().await.is_ok() {} });
            let mut forwarder = Forwarder::new(&ports, Duration::from_secs(2));
            forwarder.round().await;
            assert!(writer.await.unwrap() > 0, "the connection was closed on the endless one");
            for number in 0..3 {
                let server = forwarder.server(number);
                assert_eq!((server.is_up, server.effective_weight), (true, 100));
                let agent = server.agent.unwrap();
                assert_eq!((agent.checks, agent.failures, agent.last), (1, 1, None));
            }
        })
        .await;
    }

    #[tokio::test]
    async fn agents_that_hang_cost_a_socket_each_until_their_time_is_over() {
        locally(async {
            // It accepts by the backlog alone, and never says anything.
            let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let port = silent.local_addr().unwrap().port();
            let answering = agent(&[b"25%\n"]).await;
            let mut ports = vec![port; 20];
            ports.push(answering);
            let mut forwarder = Forwarder::new(&ports, Duration::from_secs(2));
            for _ in 0..2 {
                forwarder.now = forwarder.now.after(Duration::from_secs(2));
                forwarder.ask(|check| {
                    if check.port == port {
                        check.timeout = Duration::from_millis(20);
                    }
                });
                forwarder.await_answers().await;
            }
            assert_eq!(forwarder.server(20).effective_weight, 25);
            for number in 0..20 {
                let agent = forwarder.server(number).agent.unwrap();
                assert_eq!((agent.checks, agent.failures), (2, 2));
            }
            let mut closed = 0;
            for _ in 0..40 {
                let (mut stream, _) = silent.accept().await.unwrap();
                let mut text = Vec::new();
                // Ends with the stream: the other side holds none of them open.
                stream.read_to_end(&mut text).await.unwrap();
                assert_eq!(text, b"web\n");
                closed += 1;
            }
            assert_eq!(closed, 40);
        })
        .await;
    }

    #[test]
    fn an_answer_is_handed_back_with_its_question() {
        let (replies, inbox) = Replies::for_tests();
        let check = AgentCheck {
            director: 3,
            server: evenkeel_engine::director::ServerId(7),
            number: 9,
            address: IpAddr::from([127, 0, 0, 1]),
            port: 1,
            timeout: Duration::from_secs(1),
            send: String::new(),
        };
        replies.agent_said(check.clone(), b"up\n".to_vec());
        let Heard::Agent(asked, line) = inbox.try_recv().unwrap() else { panic!() };
        let reply: AgentReply<'_> = asked.reply(&line);
        assert_eq!(reply, check.reply(b"up\n"));
    }
}
