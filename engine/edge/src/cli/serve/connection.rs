//! One connection: a request, its answer, and noticing that the client is gone.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foretrain_edge::{Finish, GenerateOptions, Model};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::api::{self, Form, Kind, Question, Usage};
use super::engine::{Job, News};
use super::http::{self, EventStream, Refusal, read_body, read_head};

/// How long a request may take to arrive, from its first byte to its last.
const REQUEST_TIME: Duration = Duration::from_secs(15);
/// How long a client may take to read what was written.
const WRITE_TIME: Duration = Duration::from_secs(15);
/// How often to look whether the client is still there while nothing is to be written.
const LOOK_TIME: Duration = Duration::from_millis(100);
/// The status of a request whose client is gone, which is never sent.
const CLIENT_GONE: u16 = 499;
/// What is read of a request that was refused before it ended, so that the client gets to see why.
const DRAINED_BYTES: u64 = 1 << 20;
/// For how long.
const DRAIN_TIME: Duration = Duration::from_millis(500);

/// What all connections share.
#[derive(Debug)]
pub(super) struct Server<'m> {
    model: &'m Model,
    defaults: GenerateOptions,
    /// SHA-256 of the key that clients must send.
    key_digest: Option<[u8; 32]>,
    /// True when requests must name this machine as their host: a page in a browser here could otherwise reach the server
    /// by a name of its own (DNS rebinding).
    is_local: bool,
    jobs: SyncSender<Job>,
    num_requests: AtomicU64,
    start: u64,
}

impl<'m> Server<'m> {
    pub(super) fn new(
        model: &'m Model,
        defaults: GenerateOptions,
        api_key: Option<&str>,
        is_local: bool,
        jobs: SyncSender<Job>,
    ) -> Self {
        let key_digest = api_key.map(|key| Sha256::digest(key.as_bytes()).into());
        Self { model, defaults, key_digest, is_local, jobs, num_requests: AtomicU64::new(0), start: now() }
    }

    /// Answers the request that comes over `stream`.
    pub(super) fn answer(&self, stream: &TcpStream) {
        let _ = stream.set_write_timeout(Some(WRITE_TIME));
        // Pieces of text are small and should not wait for each other.
        let _ = stream.set_nodelay(true);
        let mut output = stream;
        match self.handle(stream) {
            Ok(()) => {}
            Err(refusal) if refusal.status == CLIENT_GONE => {}
            Err(refusal) => {
                // It may leave meanwhile.
                let _ = http::respond(&mut output, refusal.status, &api::error(&refusal));
                drain(stream);
            }
        }
        let _ = stream.shutdown(Shutdown::Both);
    }

    fn handle(&self, stream: &TcpStream) -> Result<(), Refusal> {
        let mut input = Timed { stream, deadline: Instant::now() + REQUEST_TIME };
        let mut output = stream;
        let Some(mut head) = read_head(&mut input)? else { return Ok(()) };
        self.check_host(head.host.as_deref())?;
        if (head.method.as_str(), head.path.as_str()) == ("GET", "/health") {
            return sent(http::respond(&mut output, 200, &json!({"status": "ok"}).to_string()));
        }
        self.check_key(head.authorization.as_deref())?;
        let kind = match (head.method.as_str(), head.path.as_str()) {
            ("GET", "/v1/models") => {
                return sent(http::respond(&mut output, 200, &api::models(self.model, self.start)));
            }
            ("GET", path) if path.strip_prefix("/v1/models/") == Some(self.model.name()) => {
                let entry = api::model_entry(self.model, self.start).to_string();
                return sent(http::respond(&mut output, 200, &entry));
            }
            ("POST", "/v1/chat/completions") => Kind::Chat,
            ("POST", "/v1/completions") => Kind::Completion,
            (_, "/health" | "/v1/models" | "/v1/chat/completions" | "/v1/completions") => {
                return Err(Refusal::new(405, format!("{} is not for {}", head.path, head.method)));
            }
            _ => return Err(Refusal::new(404, format!("there is no {} here", head.path))),
        };
        // Browsers ask before they send this type to another site than the page's own, and are refused.
        let media = head.content_type.as_deref().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case("application/json") {
            return Err(Refusal::new(415, format!("expected Content-Type application/json, found {media:?}")));
        }
        if head.expects_continue && head.content_length.is_some_and(|length| length <= http::MAX_BODY_BYTES) {
            sent(output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n"))?;
        }
        let body = read_body(&mut head, &mut input)?;
        let number = self.num_requests.fetch_add(1, Ordering::Relaxed);
        let mut question = api::question(kind, &body, self.model, &self.defaults, seed(number))?;
        let prefix = if kind == Kind::Chat { "chatcmpl" } else { "cmpl" };
        let id = format!("{prefix}-{:x}-{number:x}", self.start);
        let warnings = std::mem::take(&mut question.warnings);
        let form = Form { kind, id, created: now(), model: self.model.name().to_owned(), warnings };
        self.reply(stream, question, &form)
    }

    fn check_host(&self, host: Option<&str>) -> Result<(), Refusal> {
        if !self.is_local || self.key_digest.is_some() {
            return Ok(());
        }
        let host = host.unwrap_or_default();
        // With or without a port; version 6 of the protocol has its addresses in brackets.
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => host.split(':').next().unwrap_or_default(),
        };
        let is_own = name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        if is_own { Ok(()) } else { Err(Refusal::new(403, format!("expected Host localhost, found {host:?}"))) }
    }

    fn check_key(&self, authorization: Option<&str>) -> Result<(), Refusal> {
        let Some(expected) = &self.key_digest else { return Ok(()) };
        let scheme_and_key = authorization.and_then(|authorization| authorization.split_once(' '));
        let key = scheme_and_key.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
        let found: [u8; 32] = Sha256::digest(key.unwrap_or_default().as_bytes()).into();
        // Of digests, and all of their bytes: the time tells nothing about the key.
        let difference = expected.iter().zip(found).fold(0, |difference, (a, b)| difference | (a ^ b));
        if key.is_some() && std::hint::black_box(difference) == 0 {
            return Ok(());
        }
        Err(Refusal::new(401, "expected Authorization: Bearer with this server's key"))
    }

    /// Has `question` answered and writes what comes.
    fn reply(&self, stream: &TcpStream, question: Question, form: &Form) -> Result<(), Refusal> {
        let Question { prompt, options, is_streamed, reports_usage, .. } = question;
        let mut usage = Usage { prompt: prompt.len(), ..Usage::default() };
        let (news, received) = mpsc::channel();
        let unwanted = Unwanted::default();
        let job = Job { prompt, options, news, is_unwanted: Arc::clone(&unwanted.0) };
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::new(429, "too many requests are waiting; try again later"),
            TrySendError::Disconnected(_) => Refusal::new(500, "the engine has stopped; restart the server"),
        })?;
        let mut text = String::new();
        let mut events = None;
        let finish = loop {
            match next(stream, &received)? {
                Some(News::Started(cached)) => {
                    usage.cached = cached;
                    if is_streamed {
                        let mut stream = sent(EventStream::start(stream))?;
                        if let Some(opening) = form.opening() {
                            sent(stream.send(&opening))?;
                        }
                        events = Some(stream);
                    }
                }
                Some(News::Text(piece)) => match &mut events {
                    Some(events) => sent(events.send(&form.text(&piece)))?,
                    None => text.push_str(&piece),
                },
                Some(News::Ended(finish, num_tokens)) => {
                    usage.new = num_tokens;
                    break finish;
                }
                Some(News::Failed(message)) => {
                    let refusal = Refusal::new(500, message);
                    let Some(mut events) = events else { return Err(refusal) };
                    // The status is out already; the reader of events gets the error as one.
                    sent(events.send(&api::error(&refusal)))?;
                    return sent(events.end());
                }
                // The client is gone: `unwanted` tells the engine.
                None => return Ok(()),
            }
        };
        match events {
            Some(events) => sent(end(events, form, finish, reports_usage.then_some(usage))),
            None => {
                let mut output = stream;
                sent(http::respond(&mut output, 200, &form.whole(&text, finish, usage)))
            }
        }
    }
}

fn end<W: Write>(mut events: EventStream<W>, form: &Form, finish: Finish, usage: Option<Usage>) -> std::io::Result<()> {
    events.send(&form.ending(finish))?;
    if let Some(usage) = usage {
        events.send(&form.usage(usage))?;
    }
    events.end()
}

/// Says that the answer is not wanted any more, however its connection ends.
#[derive(Debug, Default)]
struct Unwanted(Arc<AtomicBool>);

impl Drop for Unwanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The next news; `None` when the client is gone.
fn next(stream: &TcpStream, received: &Receiver<News>) -> Result<Option<News>, Refusal> {
    loop {
        match received.recv_timeout(LOOK_TIME) {
            Ok(news) => return Ok(Some(news)),
            Err(RecvTimeoutError::Timeout) if is_gone(stream) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Refusal::new(
                    500,
                    "the engine failed at this request; its message is on the server's terminal",
                ));
            }
        }
    }
}

/// True when the client has closed its side: it waits for no answer.
fn is_gone(stream: &TcpStream) -> bool {
    if stream.set_read_timeout(Some(Duration::from_millis(1))).is_err() {
        return true;
    }
    match stream.peek(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted),
    }
}

/// A write that failed means that the client is gone; there is nobody to tell.
fn sent<T>(written: std::io::Result<T>) -> Result<T, Refusal> {
    written.map_err(|error| Refusal::new(CLIENT_GONE, format!("the client is gone: {error}")))
}

/// Reads on for a moment after a refusal: closing a connection with unread bytes would take the answer back.
fn drain(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let timed = Timed { stream, deadline: Instant::now() + DRAIN_TIME };
    let _ = std::io::copy(&mut timed.take(DRAINED_BYTES), &mut std::io::sink());
}

/// Tells a client that there are too many.
pub(super) fn turn_away(stream: &TcpStream) {
    let refusal = Refusal::new(503, "too many connections; try again later");
    let mut output = stream;
    // The one who accepts connections must not wait: the answer fits any send buffer, or is dropped.
    if stream.set_nonblocking(true).is_ok() {
        let _ = http::respond(&mut output, refusal.status, &api::error(&refusal));
    }
}

/// Reads until a deadline, however slowly bytes come.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut stream = self.stream;
        stream.read(buffer)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Another seed for each request.
fn seed(number: u64) -> u64 {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    now().wrapping_mul(1_000_000_007).wrapping_add(nanos).rotate_left(17) ^ number
}
