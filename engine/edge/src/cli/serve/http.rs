//! As much of HTTP/1.1 as is needed: one request per connection, its body of a known length.
//! Source: RFC 9112.

use std::io::{Error, ErrorKind, Read, Write};

/// Longest request line and headers together, in bytes.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Longest body, in bytes: more text than any model here has positions for.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// A request without its body.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) content_type: Option<String>,
    pub(super) content_length: Option<usize>,
    /// The client waits for a word before it sends the body.
    pub(super) expects_continue: bool,
    /// What was read beyond the head.
    pub(super) rest: Vec<u8>,
}

/// A request that is refused: an HTTP status, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

/// Reads the head of a request; `None` when the client left without one.
pub(super) fn read_head(input: &mut impl Read) -> Result<Option<Head>, Refusal> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 2048];
    loop {
        let count = input.read(&mut buffer).map_err(|error| lost(&error))?;
        if count == 0 {
            return if bytes.is_empty() {
                Ok(None)
            } else {
                Err(Refusal::new(400, "the request ended within its head"))
            };
        }
        // The end may lie across two readings.
        let searched = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        let end = bytes.get(searched..).unwrap_or_default().windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(at) = end {
            let rest = bytes.split_off(searched + at + 4);
            if bytes.len() <= MAX_HEAD_BYTES {
                let head = parse_head(&bytes)?;
                return Ok(Some(Head { rest, ..head }));
            }
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(Refusal::new(431, format!("expected at most {MAX_HEAD_BYTES} bytes of headers, found more")));
        }
    }
}

fn lost(error: &Error) -> Refusal {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Refusal::new(408, "the request took too long to arrive"),
        _ => Refusal::new(400, format!("the request broke off: {error}")),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, Refusal> {
    let refuse = |message: &str| Refusal::new(400, message);
    let text = std::str::from_utf8(bytes).map_err(|_| refuse("expected headers in ASCII, found other bytes"))?;
    let mut lines = text.split("\r\n").take_while(|line| !line.is_empty());
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(refuse("expected a request line of method, path and version"));
    };
    if !["HTTP/1.1", "HTTP/1.0"].contains(&version) {
        return Err(Refusal::new(505, "expected HTTP/1.1"));
    }
    if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) || !target.starts_with('/') {
        return Err(refuse("expected a method in capitals and a path that starts with /"));
    }
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let mut head = Head { method: method.to_owned(), path: path.to_owned(), ..Head::default() };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| refuse("expected headers as \"Name: value\""))?;
        // A blank before the colon, or a line that continues the one before: both serve to smuggle requests.
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(refuse("expected header names without blanks"));
        }
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "host" => head.host = Some(value.to_owned()),
            "authorization" => head.authorization = Some(value.to_owned()),
            "content-type" => head.content_type = Some(value.to_owned()),
            "expect" => head.expects_continue = value.eq_ignore_ascii_case("100-continue"),
            "transfer-encoding" => {
                return Err(Refusal::new(501, "expected a body with a Content-Length, found Transfer-Encoding"));
            }
            "content-length" => {
                let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let length = value.parse().ok().filter(|_| is_number);
                if !is_number || head.content_length.is_some_and(|other| Some(other) != length) {
                    return Err(refuse("expected one Content-Length, a number"));
                }
                // A number too large to count is too large to take.
                head.content_length = Some(length.unwrap_or(usize::MAX));
            }
            _ => {}
        }
    }
    Ok(head)
}

/// Reads the body that `head` announces; memory grows with what arrives, not with what is announced.
pub(super) fn read_body(head: &mut Head, input: &mut impl Read) -> Result<Vec<u8>, Refusal> {
    let Some(length) = head.content_length else {
        return Err(Refusal::new(411, "expected a body with a Content-Length, found none"));
    };
    if length > MAX_BODY_BYTES {
        return Err(Refusal::new(413, format!("expected a body of at most {MAX_BODY_BYTES} bytes, found {length}")));
    }
    let mut body = std::mem::take(&mut head.rest);
    body.truncate(length);
    let missing = length - body.len();
    input.take(missing as u64).read_to_end(&mut body).map_err(|error| lost(&error))?;
    if body.len() < length {
        return Err(Refusal::new(400, "the request ended within its body"));
    }
    Ok(body)
}

/// Writes a whole response, after which the connection closes.
pub(super) fn respond(output: &mut impl Write, status: u16, body: &str) -> std::io::Result<()> {
    let more = match status {
        401 => "WWW-Authenticate: Bearer\r\n",
        405 => "Allow: GET, POST\r\n",
        429 | 503 => "Retry-After: 1\r\n",
        _ => "",
    };
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        reason(status),
        body.len()
    );
    // In one piece, so that it is one packet.
    output.write_all((head + body).as_bytes())?;
    output.flush()
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        411 => "Length Required",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// A response of server-sent events, each as a chunk.
/// Source: WHATWG HTML, "Server-sent events".
pub(super) struct EventStream<W> {
    output: W,
}

impl<W: Write> EventStream<W> {
    /// Writes the head.
    pub(super) fn start(mut output: W) -> std::io::Result<Self> {
        output.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
              Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        )?;
        output.flush()?;
        Ok(Self { output })
    }

    /// Writes an event of `data`, which has no line breaks (JSON has none).
    pub(super) fn send(&mut self, data: &str) -> std::io::Result<()> {
        let event = format!("data: {data}\n\n");
        self.output.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes())?;
        self.output.flush()
    }

    /// Says that it is over.
    pub(super) fn end(mut self) -> std::io::Result<()> {
        self.send("[DONE]")?;
        self.output.write_all(b"0\r\n\r\n")?;
        self.output.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives `bytes` in pieces of `step`.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(self.0.len()).min(buffer.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn read(text: &str, step: usize) -> Result<(Head, Vec<u8>), Refusal> {
        let mut input = Pieces(text.as_bytes(), step);
        let mut head = read_head(&mut input)?.unwrap();
        let body = read_body(&mut head, &mut input)?;
        Ok((head, body))
    }

    #[test]
    fn a_request_is_read_however_it_is_cut() {
        let text = "POST /v1/completions?x=1 HTTP/1.1\r\nHost: localhost:80\r\ncontent-length: 5\r\nAUTHORIZATION: Bearer k \
                    \r\nContent-Type: application/json\r\nExpect: 100-continue\r\n\r\nhello and more";
        for step in [1, 3, 7, 4096] {
            let (head, body) = read(text, step).unwrap();
            assert_eq!((head.method.as_str(), head.path.as_str()), ("POST", "/v1/completions"));
            assert_eq!((head.host.as_deref(), head.authorization.as_deref()), (Some("localhost:80"), Some("Bearer k")));
            assert_eq!((head.content_type.as_deref(), head.expects_continue), (Some("application/json"), true));
            assert_eq!(body, b"hello");
        }
        assert_eq!(read_head(&mut Pieces(b"", 1)), Ok(None));
    }

    #[track_caller]
    fn check(text: &str, status: u16) {
        assert_eq!(read(text, 4096).unwrap_err().status, status, "{text:.80}");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        check("GET", 400);
        check("GET /\r\n\r\n", 400);
        check("get / HTTP/1.1\r\n\r\n", 400);
        check("GET nowhere HTTP/1.1\r\n\r\n", 400);
        check("GET / HTTP/2\r\n\r\n", 505);
        check("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400);
        check("GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400);
        check("GET / HTTP/1.1\r\nA: b\r\n folded: c\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\n\r\n", 411);
        check("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501);
        check("POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400);
        check("POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413);
        check("POST / HTTP/1.1\r\nContent-Length: 1048577\r\n\r\n", 413);
        check("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nshort", 400);
        check(&format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(20 << 10)), 431);
        check(&"x".repeat(40 << 10), 431);
    }

    #[test]
    fn events_are_chunks() {
        let mut output = Vec::new();
        let mut events = EventStream::start(&mut output).unwrap();
        events.send("{\"a\":1}").unwrap();
        events.end().unwrap();
        let text = String::from_utf8(output).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        assert_eq!(body, "f\r\ndata: {\"a\":1}\n\n\r\ne\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), step in 1_usize..50) {
            let mut input = Pieces(&bytes, step);
            if let Ok(Some(mut head)) = read_head(&mut input) {
                let _ = read_body(&mut head, &mut input);
            }
        }

        #[test]
        fn no_headers_cause_a_panic(text in "(GET|POST) /[a-z?]{0,5} HTTP/1.1\r\n([A-Za-z-]{0,9}[: ]{0,2}[ -~]{0,9}\r\n){0,4}\r\n.{0,9}") {
            let mut input = Pieces(text.as_bytes(), 5);
            if let Ok(Some(mut head)) = read_head(&mut input) {
                let _ = read_body(&mut head, &mut input);
            }
        }
    }
}
