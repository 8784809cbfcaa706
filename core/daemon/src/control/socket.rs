//! The control socket: one line in, one line of JSON out, `{"ok": ...}` or `{"error": "..."}`.
//!
//! In: a path and a function that answers lines. Out: answers to clients of the same user or root. A client
//! can be slow, silent, rude or one of thousands: each has a bound, and none is waited for by another.

use std::fs::{DirBuilder, Permissions};
use std::future::Future;
use std::io::{self, BufRead as _, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// The most clients at once: a handful of people and a collector, with room to spare. Further ones are told
/// so and sent away.
pub const CLIENTS_MAX: usize = 32;

/// The longest line of a command, in bytes, its end included. The longest command has three names of 255.
pub const LINE_BYTES_MAX: usize = 4096;

/// How long a client may be silent between commands, and how long it may take to fetch an answer.
pub const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long `evenkeel ctl` waits: a reload compiles components, each of which takes up to a second.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// The longest answer that `evenkeel ctl` takes, in bytes: 65,535 real servers at 250 bytes each.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 64;

/// Why a control socket could not be opened or asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Another forwarder answers there.
    #[error("{} is in use: another evenkeel runs with it", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is not a socket is there.
    #[error("{} exists and is not a socket; it stays untouched", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The socket can not be made.
    #[error("the control socket {} can not be made: {reason}", path.display())]
    Open {
        /// The socket.
        path: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// Nobody answers.
    #[error("no evenkeel answers at {}: {reason}", path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// The command was refused; the forwarder's own words.
    #[error("{0}")]
    Refused(String),
}

/// What answers a line: boxed, because each line takes its own time.
pub(crate) type Answer = Pin<Box<dyn Future<Output = Result<Reply, String>>>>;

/// The answer to a line.
pub(crate) enum Reply {
    /// One value.
    One(Value),
    /// A value from time to time, until there are no more or the client leaves.
    Many(Pin<Box<dyn Stream<Item = Value>>>),
}

impl From<Value> for Reply {
    fn from(value: Value) -> Self {
        Self::One(value)
    }
}

/// The listening socket; removed from the file system when dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Not another one's socket that has taken the name meanwhile.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Listener {
    /// Looks whether the socket could be made, before anything else is touched. Nothing changes.
    ///
    /// # Errors
    /// When another forwarder answers there, or something else than a socket is there.
    pub(crate) fn check(path: &Path) -> Result<(), ControlError> {
        is_stale(path).map(|_| ())
    }

    /// Makes the socket, of mode 0600, and its directory, of mode 0700, where that is missing. A socket at
    /// which nobody answers is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    /// When another forwarder answers there, or the system refuses.
    pub(crate) fn open(path: &Path) -> Result<Self, ControlError> {
        let failed = |reason: io::Error| ControlError::Open { path: path.to_owned(), reason };
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        make_room(path)?;

        let socket = bind(path).map_err(failed)?;
        let made = || -> io::Result<Self> {
            // Between bind and listen nobody can connect, so the mode is never wider than this.
            std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
            rustix::net::listen(&socket, BACKLOG)?;
            let metadata = std::fs::symlink_metadata(path)?;
            let listener = std::os::unix::net::UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            let listener = UnixListener::from_std(listener)?;
            Ok(Self { listener, path: path.to_owned(), inode: (metadata.dev(), metadata.ino()) })
        };
        made().map_err(|reason| {
            let _ = std::fs::remove_file(path);
            failed(reason)
        })
    }

    /// Accepts clients for ever. Needs a tokio `LocalSet`, as every client is a task of this thread.
    pub(crate) async fn serve(&self, answer: Rc<dyn Fn(String) -> Answer>) {
        let places = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                // Out of file descriptors, say: the next round may have some, and must not spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                refuse(&stream, "too many clients");
                continue;
            };
            let answer = Rc::clone(&answer);
            tokio::task::spawn_local(async move {
                let _place = place;
                client(stream, answer).await;
            });
        }
    }
}

/// Takes away the socket of a forwarder that is gone; refuses to take away anything else.
fn make_room(path: &Path) -> Result<(), ControlError> {
    if is_stale(path)? {
        std::fs::remove_file(path).map_err(|reason| ControlError::Open { path: path.to_owned(), reason })?;
    }
    Ok(())
}

/// Whether a socket is there at which nobody answers.
fn is_stale(path: &Path) -> Result<bool, ControlError> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(false) };
    if !metadata.file_type().is_socket() {
        return Err(ControlError::NotASocket { path: path.to_owned() });
    }
    match BlockingStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(reason) => Err(ControlError::Open { path: path.to_owned(), reason }),
        Ok(_) => Err(ControlError::InUse { path: path.to_owned() }),
    }
}

fn bind(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

/// One client, until it leaves, is silent for too long or breaks a bound.
async fn client(mut stream: UnixStream, answer: Rc<dyn Fn(String) -> Answer>) {
    let own = rustix::process::geteuid().as_raw();
    if !stream.peer_cred().is_ok_and(|peer| peer.uid() == own || peer.uid() == 0) {
        return refuse(&stream, "only root and the user of the forwarder may ask");
    }
    let mut buffer = Vec::with_capacity(256);
    loop {
        let line = match timeout(IDLE_MAX, next_line(&mut stream, &mut buffer)).await {
            Ok(Ok(Some(line))) => line,
            Ok(Ok(None) | Err(_)) => return,
            Err(_) => return refuse(&stream, "no command for too long"),
        };
        let result = match line {
            Line::TooLong => return refuse(&stream, "the line is too long"),
            Line::Unfinished => return refuse(&stream, "the line has no end"),
            Line::Bytes(bytes) => match String::from_utf8(bytes) {
                Ok(line) => answer(line).await,
                Err(_) => Err("the line is not UTF-8".to_owned()),
            },
        };
        let is_there = match result {
            Ok(Reply::One(value)) => send(&mut stream, Ok(value)).await,
            Ok(Reply::Many(values)) => send_many(&mut stream, values).await,
            Err(error) => send(&mut stream, Err(error)).await,
        };
        if !is_there {
            return;
        }
    }
}

/// Sends one answer. Returns whether the client has taken it.
async fn send(stream: &mut UnixStream, result: Result<Value, String>) -> bool {
    let reply = reply(result);
    matches!(timeout(IDLE_MAX, stream.write_all(reply.as_bytes())).await, Ok(Ok(())))
}

/// Sends one answer after the other. A client that says something meanwhile, or leaves, wants no more of them. Returns
/// whether it has taken all.
async fn send_many(stream: &mut UnixStream, mut values: Pin<Box<dyn Stream<Item = Value>>>) -> bool {
    loop {
        let mut word = [0; 1];
        let value = tokio::select! {
            value = values.next() => value,
            _ = stream.read(&mut word) => return false,
        };
        let Some(value) = value else { return true };
        if !send(stream, Ok(value)).await {
            return false;
        }
    }
}

enum Line {
    Bytes(Vec<u8>),
    TooLong,
    /// The client has left within it: half of a command must not be taken for a whole one.
    Unfinished,
}

/// The next line without its end; `None` at the end of the stream.
async fn next_line(stream: &mut UnixStream, buffer: &mut Vec<u8>) -> io::Result<Option<Line>> {
    loop {
        if let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let rest = buffer.split_off(end.saturating_add(1).min(buffer.len()));
            let mut line = std::mem::replace(buffer, rest);
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(Line::Bytes(line)));
        }
        let room = LINE_BYTES_MAX.saturating_sub(buffer.len());
        if room == 0 {
            return Ok(Some(Line::TooLong));
        }
        let mut chunk = [0; 512];
        let length = room.min(chunk.len());
        let count = stream.read(chunk.get_mut(..length).unwrap_or_default()).await?;
        if count == 0 {
            return Ok((!buffer.is_empty()).then_some(Line::Unfinished));
        }
        buffer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

fn reply(result: Result<Value, String>) -> String {
    let value = match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => json!({ "error": error }),
    };
    format!("{value}\n")
}

/// A last word, if it fits into the socket's buffer, which it does unless the client reads nothing.
fn refuse(stream: &UnixStream, reason: &str) {
    let _ = stream.try_write(reply(Err(reason.to_owned())).as_bytes());
}

/// Asks the forwarder at `path` one line, from outside of it, and waits for the answer.
///
/// # Errors
/// When nobody answers, or with the forwarder's own words when it refuses.
pub fn request(path: &Path, line: &str) -> Result<Value, ControlError> {
    let failed = |reason: io::Error| ControlError::NoAnswer { path: path.to_owned(), reason };
    let (stream, written) = ask(path, line, Some(ANSWER_MAX))?;
    // Who is refused may find the connection closed before the line is written, with the reason in it.
    let mut text = String::new();
    let mut reader = io::BufReader::new(stream).take(ANSWER_BYTES_MAX);
    reader.read_line(&mut text).map_err(failed)?;
    if text.is_empty() {
        let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
        return Err(failed(written.err().unwrap_or_else(closed)));
    }
    unpack(path, &text)
}

/// Connects and writes one line; with what came of writing.
fn ask(
    path: &Path,
    line: &str,
    patience: Option<Duration>,
) -> Result<(BlockingStream, io::Result<()>), ControlError> {
    let failed = |reason: io::Error| ControlError::NoAnswer { path: path.to_owned(), reason };
    let mut stream = BlockingStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(patience).map_err(failed)?;
    stream.set_write_timeout(Some(IDLE_MAX)).map_err(failed)?;
    let written = stream.write_all(format!("{}\n", line.replace(['\r', '\n'], " ")).as_bytes());
    Ok((stream, written))
}

/// Asks the forwarder at `path` one line that has many answers, from outside of it, and gives each of them to `each` as it
/// comes, until that says no more.
///
/// # Errors
/// When nobody answers, with the forwarder's own words when it refuses, or when it ends in between.
pub fn stream(path: &Path, line: &str, mut each: impl FnMut(Value) -> bool) -> Result<(), ControlError> {
    let failed = |reason: io::Error| ControlError::NoAnswer { path: path.to_owned(), reason };
    let (stream, written) = ask(path, line, None)?;
    let mut reader = io::BufReader::new(stream);
    let mut text = String::new();
    loop {
        text.clear();
        if (&mut reader).take(ANSWER_BYTES_MAX).read_line(&mut text).map_err(failed)? == 0 {
            let closed = || io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
            return Err(failed(written.err().unwrap_or_else(closed)));
        }
        if !each(unpack(path, &text)?) {
            return Ok(());
        }
    }
}

/// The value of an answer.
fn unpack(path: &Path, text: &str) -> Result<Value, ControlError> {
    let failed = |reason: io::Error| ControlError::NoAnswer { path: path.to_owned(), reason };
    let invalid = |_| failed(io::Error::new(io::ErrorKind::InvalidData, "the answer is not JSON"));
    let mut value: Value = serde_json::from_str(text).map_err(invalid)?;
    match value.get("error").and_then(Value::as_str) {
        Some(error) => Err(ControlError::Refused(error.to_owned())),
        None => Ok(value.get_mut("ok").map(Value::take).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::task::LocalSet;

    use super::*;

    /// A folder of its own for each test, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("evenkeel-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn socket(&self) -> PathBuf {
            self.0.join("deep/er/evenkeel.sock")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn echo() -> Rc<dyn Fn(String) -> Answer> {
        Rc::new(|line| Box::pin(async move { Ok(Value::String(line).into()) }))
    }

    /// Runs `test` beside a server. Virtual time: a time-out passes as soon as everyone waits.
    fn serve<T>(name: &str, answer: Rc<dyn Fn(String) -> Answer>, test: impl AsyncFnOnce(PathBuf) -> T) -> T {
        let folder = Folder::new(name);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let listener = Listener::open(&folder.socket()).unwrap();
            tokio::select! {
                result = test(folder.socket()) => result,
                () = listener.serve(answer) => unreachable!(),
            }
        })
    }

    async fn ask(stream: &mut UnixStream, bytes: &[u8]) -> Value {
        stream.write_all(bytes).await.unwrap();
        answer(stream).await
    }

    async fn answer(stream: &mut UnixStream) -> Value {
        let mut text = Vec::new();
        while text.last() != Some(&b'\n') {
            let byte = stream.read_u8().await.expect("an answer before the end");
            text.push(byte);
        }
        serde_json::from_slice(&text).unwrap()
    }

    async fn is_closed(stream: &mut UnixStream) -> bool {
        matches!(stream.read(&mut [0; 64]).await, Ok(0) | Err(_))
    }

    #[test]
    fn the_socket_is_its_owners_alone_and_vanishes_with_the_listener() {
        let folder = Folder::new("mode");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let listener = Listener::open(&folder.socket()).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&folder.socket()), 0o600);
        assert_eq!(mode(folder.socket().parent().unwrap()), 0o700);
        drop(listener);
        assert!(!folder.socket().exists());
    }

    #[test]
    fn a_dead_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let folder = Folder::new("stale");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _inside = runtime.enter();
        let path = folder.socket();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = Listener::open(&path).unwrap();
        assert!(matches!(Listener::check(&path), Err(ControlError::InUse { .. })));
        assert!(matches!(Listener::open(&path), Err(ControlError::InUse { .. })));
        assert!(path.exists());
        drop(listener);
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Listener::open(&path), Err(ControlError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn one_client_asks_several_lines_in_whatever_pieces() {
        serve("lines", echo(), async |path| {
            let mut stream = UnixStream::connect(path).await.unwrap();
            assert_eq!(ask(&mut stream, b"one\r\n").await, json!({ "ok": "one" }));
            stream.write_all(b"tw").await.unwrap();
            tokio::task::yield_now().await;
            assert_eq!(ask(&mut stream, b"o\nthree\n").await, json!({ "ok": "two" }));
            assert_eq!(answer(&mut stream).await, json!({ "ok": "three" }));
            stream.write_all(b"weight web s1 1").await.unwrap();
            stream.shutdown().await.unwrap();
            assert_eq!(answer(&mut stream).await, json!({ "error": "the line has no end" }));
            assert!(is_closed(&mut stream).await);
        });
    }

    #[test]
    fn a_line_is_bounded_to_the_byte() {
        serve("long", echo(), async |path| {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let mut line = vec![b'x'; LINE_BYTES_MAX - 1];
            line.push(b'\n');
            assert_eq!(ask(&mut stream, &line).await["ok"].as_str().unwrap().len(), LINE_BYTES_MAX - 1);
            line.insert(0, b'x');
            assert_eq!(ask(&mut stream, &line).await, json!({ "error": "the line is too long" }));
            assert!(is_closed(&mut stream).await);
            // An endless line is cut off as well, and the server goes on.
            let mut stream = UnixStream::connect(&path).await.unwrap();
            while stream.write_all(&[b'y'; 1024]).await.is_ok() {}
            let mut stream = UnixStream::connect(&path).await.unwrap();
            assert_eq!(ask(&mut stream, b"still there\n").await, json!({ "ok": "still there" }));
        });
    }

    #[test]
    fn garbage_is_answered_and_the_client_may_go_on() {
        serve("garbage", echo(), async |path| {
            let mut stream = UnixStream::connect(path).await.unwrap();
            let error = json!({ "error": "the line is not UTF-8" });
            assert_eq!(ask(&mut stream, b"\xff\xfe\x00\x80\n").await, error);
            assert_eq!(ask(&mut stream, b"\n").await, json!({ "ok": "" }));
            assert_eq!(ask(&mut stream, b"\0\x1b[2J\n").await, json!({ "ok": "\0\u{1b}[2J" }));
        });
    }

    #[test]
    fn one_client_too_many_is_told_so_and_a_place_is_free_again_later() {
        serve("many", echo(), async |path| {
            let mut clients = Vec::new();
            for number in 0..CLIENTS_MAX {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                let line = format!("{number}\n");
                assert_eq!(ask(&mut stream, line.as_bytes()).await, json!({ "ok": number.to_string() }));
                clients.push(stream);
            }
            let mut late = UnixStream::connect(&path).await.unwrap();
            assert_eq!(answer(&mut late).await, json!({ "error": "too many clients" }));
            assert!(is_closed(&mut late).await);
            clients.pop();
            loop {
                let mut stream = UnixStream::connect(&path).await.unwrap();
                // Who is refused may find the connection closed before it has written.
                let _ = stream.write_all(b"me\n").await;
                if answer(&mut stream).await == json!({ "ok": "me" }) {
                    break;
                }
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_silent_client_is_sent_away() {
        serve("silent", echo(), async |path| {
            let mut stream = UnixStream::connect(path).await.unwrap();
            stream.write_all(b"half a li").await.unwrap();
            let before = tokio::time::Instant::now();
            assert_eq!(answer(&mut stream).await, json!({ "error": "no command for too long" }));
            assert!(is_closed(&mut stream).await);
            assert!(before.elapsed() >= IDLE_MAX);
        });
    }

    #[test]
    fn a_client_that_never_reads_does_not_hold_up_another() {
        let answer: Rc<dyn Fn(String) -> Answer> = Rc::new(|line| {
            let long = if line == "long" { "x".repeat(4 << 20) } else { line };
            Box::pin(async move { Ok(Value::String(long).into()) })
        });
        serve("deaf", answer, async |path| {
            let mut deaf = UnixStream::connect(&path).await.unwrap();
            deaf.write_all(b"long\n").await.unwrap();
            let mut other = UnixStream::connect(&path).await.unwrap();
            assert_eq!(ask(&mut other, b"short\n").await, json!({ "ok": "short" }));
        });
    }

    #[test]
    fn a_command_that_never_ends_does_not_hold_up_another() {
        let answer: Rc<dyn Fn(String) -> Answer> = Rc::new(|line| {
            Box::pin(async move {
                if line == "hang" {
                    pending::<()>().await;
                }
                Err(line)
            })
        });
        serve("hang", answer, async |path| {
            let mut stuck = UnixStream::connect(&path).await.unwrap();
            stuck.write_all(b"hang\n").await.unwrap();
            let mut other = UnixStream::connect(&path).await.unwrap();
            assert_eq!(ask(&mut other, b"no\n").await, json!({ "error": "no" }));
        });
    }

    #[test]
    fn a_request_that_is_refused_or_dropped_says_so() {
        let folder = Folder::new("refused");
        let path = folder.0.join("evenkeel.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            for last_words in ["{\"error\": \"too many clients\"}\n", "", "not JSON\n"] {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(last_words.as_bytes()).unwrap();
            }
        });
        let errors: Vec<String> = (0..3).map(|_| request(&path, "stats").unwrap_err().to_string()).collect();
        server.join().unwrap();
        assert_eq!(errors[0], "too many clients");
        assert!(errors[1].starts_with("no evenkeel answers at "), "{errors:?}");
        assert!(errors[2].contains("not JSON"), "{errors:?}");
    }

    #[test]
    fn a_request_without_a_forwarder_says_where_none_answers() {
        let folder = Folder::new("none");
        let error = request(&folder.socket(), "stats").unwrap_err().to_string();
        assert!(error.starts_with("no evenkeel answers at ") && error.contains("evenkeel.sock"), "{error}");
    }
}
