//! `serve` over real sockets, and `chat` over pipes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Instant;

use foretrain_edge::{GenerateOptions, Model};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::builder::{Scheme, character_tokenizer, write};
use super::language_models::{gpt2, text_files};
use super::program;
use super::talker::write_talker;

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
    _dir: TempDir,
    model: Model,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(positions: u32, arguments: &[&str], key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = write_talker(dir.path(), positions, 1);
        Self::of(dir, &path, arguments, key)
    }

    /// One for the model at `path`, in `dir`.
    fn of(dir: TempDir, path: &Path, arguments: &[&str], key: Option<&str>) -> Self {
        let mut command = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
        command.arg("serve").arg("--gguf").arg(path).args(["--port", "0", "--threads", "1"]).args(arguments);
        command.env_remove("FORETRAIN_API_KEY").stdout(Stdio::piped());
        if let Some(key) = key {
            command.env("FORETRAIN_API_KEY", key);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap().split(',').next().unwrap().to_owned();
        Self { child, address, _dir: dir, model: Model::open(path).unwrap() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(program::deadline())).unwrap();
        stream
    }

    /// Sends `bytes` as they are; status and everything behind the head.
    fn raw(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect();
        // A server that refuses early may not read everything.
        let _ = stream.write_all(bytes);
        response(stream)
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.raw(&request(path, &body.to_string(), ""));
        (status, serde_json::from_str(&body).unwrap())
    }

    /// What the model says to `prompt` by itself.
    fn alone(&self, prompt: &str, max_tokens: usize) -> String {
        let options = GenerateOptions { max_tokens, temperature: 0.0, ..GenerateOptions::default() };
        let tokens = self.model.prompt_tokens(prompt).unwrap();
        self.model.context().generate(tokens, &options, &mut |_| true).unwrap().text
    }
}

fn request(path: &str, body: &str, headers: &str) -> Vec<u8> {
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

fn response(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The data of events in a chunked body.
fn events(body: &str) -> Vec<String> {
    let mut left = body;
    let mut text = String::new();
    loop {
        let (len, rest) = left.split_once("\r\n").unwrap();
        let len = usize::from_str_radix(len, 16).unwrap();
        if len == 0 {
            break;
        }
        text.push_str(&rest[..len]);
        left = rest[len..].strip_prefix("\r\n").unwrap();
    }
    text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
}

#[test]
fn completions_are_those_of_the_library_whole_and_streamed() {
    let server = Server::start(200, &[], None);
    let expected = server.alone("Once upon", 24);
    let asked =
        json!({"model": "any", "prompt": "Once upon", "max_tokens": 24, "temperature": 0, "unknown": {"a": [1]}});
    let (status, answer) = server.post("/v1/completions", &asked);
    assert_eq!((status, answer["object"].as_str()), (200, Some("text_completion")));
    assert_eq!(answer["choices"][0]["text"], expected.as_str());
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let usage = &answer["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"], &usage["total_tokens"]),
        (&json!(10), &json!(24), &json!(34))
    );

    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let (status, body) = server.raw(&request("/v1/completions", &streamed.to_string(), ""));
    let mut events = events(&body);
    assert_eq!((status, events.pop().as_deref()), (200, Some("[DONE]")));
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(text, expected);
    let last = &events[events.len() - 1];
    assert_eq!((&last["choices"], &last["usage"]["prompt_tokens_details"]["cached_tokens"]), (&json!([]), &json!(9)));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "length");

    // The first two characters that come again nowhere before.
    let stop: String = expected.chars().skip(5).take(2).collect();
    let mut stopped = asked.clone();
    stopped["stop"] = json!([stop, "never"]);
    let (_, answer) = server.post("/v1/completions", &stopped);
    assert_eq!(answer["choices"][0]["text"], &expected[..expected.find(&stop).unwrap()]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let tokens = server.model.prompt_tokens("Once upon").unwrap();
    let (_, answer) = server.post("/v1/completions", &json!({"prompt": tokens, "temperature": 0}));
    assert_eq!(answer["usage"]["completion_tokens"], 16);
    assert!(expected.starts_with(answer["choices"][0]["text"].as_str().unwrap().trim_end_matches('\u{fffd}')));
    let seeded = json!({"prompt": "a", "seed": -3, "temperature": 1.5, "top_p": 0.9, "top_k": 50, "min_p": 0.01, "repeat_penalty": 1.1});
    let text = || server.post("/v1/completions", &seeded).1["choices"][0]["text"].clone();
    assert_eq!(text(), text());
}

#[test]
fn chats_go_through_the_template_and_remember() {
    let server = Server::start(300, &[], None);
    let first = json!([{"role": "system", "content": "Be kind"}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]);
    let asked = json!({"messages": first, "max_completion_tokens": 10, "temperature": 0});
    let (status, answer) = server.post("/v1/chat/completions", &asked);
    let expected = server.alone("<s><system>Be kind\n<user>Hi\n<assistant>", 10);
    assert_eq!((status, answer["object"].as_str()), (200, Some("chat.completion")));
    assert_eq!(answer["choices"][0]["message"], json!({"role": "assistant", "content": expected}));
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let (_, body) = server.raw(&request("/v1/chat/completions", &streamed.to_string(), ""));
    let events = events(&body);
    let pieces: Vec<Value> =
        events[..events.len() - 1].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = pieces.iter().filter_map(|piece| piece["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, expected);
    // What was said before is known.
    let mut further = asked;
    further["messages"].as_array_mut().unwrap().push(json!({"role": "user", "content": "And?"}));
    let (_, answer) = server.post("/v1/chat/completions", &further);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 1 + "<system>Be kind\n<user>Hi\n<".len());
    let (status, models) = server.raw(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
    assert!(status == 200 && models.contains("\"talker-1\""), "{models}");
    assert_eq!(server.raw(b"GET /v1/models/talker-1 HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").0, 200);
    assert_eq!(server.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"), (200, "{\"status\":\"ok\"}".to_owned()));
}

#[test]
fn hostile_requests_are_refused_and_harm_nobody() {
    let server = Server::start(100, &[], None);
    let check = |bytes: &[u8], status: u16, says: &str| {
        let (found, body) = server.raw(bytes);
        let json: Value = serde_json::from_str(&body).unwrap();
        let message = json["error"]["message"].as_str().unwrap();
        assert!(found == status && message.contains(says), "{found} {message}, expected {status} {says}");
    };
    let ask = |body: &str| request("/v1/completions", body, "");
    check(&ask("{\"prompt\": "), 400, "JSON");
    check(&ask("[1]"), 400, "JSON");
    check(&ask(&"[".repeat(100_000)), 400, "JSON");
    check(&ask("{}"), 400, "prompt");
    check(&ask("{\"prompt\": [\"a\", \"b\"]}"), 400, "prompt");
    check(&ask("{\"prompt\": [99999]}"), 400, "token 99999");
    check(&ask("{\"prompt\": \"a\", \"n\": 2}"), 400, "n:");
    check(&ask("{\"prompt\": \"a\", \"temperature\": -1}"), 400, "temperature");
    check(&ask("{\"prompt\": \"a\", \"top_p\": 7}"), 400, "top_p");
    check(&ask("{\"prompt\": \"a\", \"max_tokens\": -1}"), 400, "JSON");
    check(&ask("{\"prompt\": \"a\", \"stop\": [\"\"]}"), 400, "stop");
    check(&ask(&json!({"prompt": "a".repeat(500)}).to_string()), 400, "99 tokens");
    let chat = |body: &str| request("/v1/chat/completions", body, "");
    check(&chat("{\"messages\": []}"), 400, "messages");
    check(&chat("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\"}]}]}"), 400, "image_url");
    check(&chat("{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}], \"tools\": [{}]}"), 400, "tools");
    check(b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n", 404, "/nowhere");
    check(b"GET /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "GET");
    check(b"OPTIONS /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 405, "OPTIONS");
    check(b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n", 403, "evil.example");
    check(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
        415,
        "text/plain",
    );
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    check(format!("{head}Content-Length: 99999999999\r\n\r\n").as_bytes(), 413, "99999999999");
    check(format!("{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").as_bytes(), 501, "Transfer-Encoding");
    check(format!("{head}X: {}\r\n\r\n", "y".repeat(100_000)).as_bytes(), 431, "headers");
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "");
    // Clients that leave, and one that says nothing while others are served.
    drop(server.connect());
    let mut half = server.connect();
    half.write_all(b"POST /v1/comp").unwrap();
    let (status, answer) = server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 0}));
    assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!("")));
    // Waits for a word before it sends a body.
    let mut stream = server.connect();
    stream.write_all(format!("{head}Expect: 100-continue\r\nContent-Length: 31\r\n\r\n").as_bytes()).unwrap();
    let mut word = [0; 25];
    stream.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{\"prompt\": \"a\",\"max_tokens\": 1}").unwrap();
    assert_eq!(response(stream).0, 200);
}

#[test]
fn keys_open_and_other_machines_need_one() {
    let server = Server::start(100, &[], Some("sesame"));
    let with =
        |header: &str| server.raw(&request("/v1/completions", "{\"prompt\": \"a\", \"max_tokens\": 1}", header)).0;
    assert_eq!(with("Authorization: Bearer sesame\r\n"), 200);
    for wrong in ["", "Authorization: Bearer sesam\r\n", "Authorization: Basic sesame\r\n", "Authorization: Bearer\r\n"]
    {
        assert_eq!(with(wrong), 401, "{wrong}");
    }
    // Whoever has a key may call the server by any name; its health is no secret.
    assert_eq!(server.raw(b"GET /health HTTP/1.1\r\nHost: board.example\r\n\r\n").0, 200);
    let mut open = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
    open.env_remove("FORETRAIN_API_KEY").args(["serve", "--gguf", "nowhere.gguf", "--host", "0.0.0.0", "--port", "0"]);
    let refused = open.output().unwrap();
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("--api-key"));
}

#[test]
fn many_at_once_get_what_each_would_get_alone() {
    let server = Server::start(200, &["--parallel", "3"], None);
    let prompts = ["a", "Once", "Once upon", "zzz", "Twice", "The end of it", "q"];
    std::thread::scope(|scope| {
        for prompt in prompts {
            let server = &server;
            scope.spawn(move || {
                let asked = json!({"prompt": prompt, "max_tokens": 40, "temperature": 0});
                let (status, answer) = server.post("/v1/completions", &asked);
                assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!(server.alone(prompt, 40))));
            });
        }
    });
}

#[test]
fn a_client_that_leaves_frees_its_place_and_a_full_house_says_so() {
    // More than are made until the server sees that nobody listens.
    let many: u32 = if program::is_emulated() { 1000 } else { 4000 };
    let server = Server::start(many + 2000, &["--parallel", "1", "--queue", "0"], None);
    let long =
        json!({"prompt": "a", "max_tokens": many + 1000, "temperature": 0, "stream": true, "stop": "\u{1}never\u{1}"});
    let short = json!({"prompt": "b", "max_tokens": 1});
    let options = GenerateOptions { max_tokens: many as usize, temperature: 0.0, ..GenerateOptions::default() };
    let mut context = server.model.context();
    context.generate(server.model.prompt_tokens("a").unwrap(), &options, &mut |_| true).unwrap();
    let known = context.tokens().to_vec();
    let mut stream = server.connect();
    stream.write_all(&request("/v1/completions", &long.to_string(), "")).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0);
    }
    let (status, body) = server.post("/v1/completions", &short);
    assert_eq!((status, &body["error"]["type"]), (429, &json!("rate_limit_error")));
    // Leaves after a few tokens; the many that it asked for are not made.
    drop(reader);
    // The first tokens of what it would have got. How many of them the slot knows tells how far it came.
    let known = json!({"prompt": known, "max_tokens": 1});
    let start = Instant::now();
    let answer = loop {
        let (status, answer) = server.post("/v1/completions", &known);
        if status == 200 {
            break answer;
        }
        assert!(start.elapsed() < program::deadline(), "the slot is never free");
    };
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!((2..u64::from(many) - 100).contains(&cached), "{answer}");
}

fn chat(model: &Path, arguments: &[&str], input: &str) -> String {
    let mut command = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
    command.arg("chat").arg("--gguf").arg(model).args(["--temperature", "0", "--threads", "1"]).args(arguments);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_chat_answers_forgets_and_drops_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_talker(dir.path(), 120, 1);
    let text = chat(&path, &["--max-tokens", "6"], "Hi\n/help\n/reset\nHi\n/what\n\n/quit\nnever\n");
    let model = Model::open(&path).unwrap();
    let options = GenerateOptions { max_tokens: 6, temperature: 0.0, ..GenerateOptions::default() };
    let tokens = model.prompt_tokens("<s><user>Hi\n<assistant>").unwrap();
    let answer = model.context().generate(tokens, &options, &mut |_| true).unwrap().text;
    assert_eq!(text.matches(&format!("> {}\n[ended after 6 tokens]", answer.trim_start())).count(), 2, "{text}");
    assert!(text.contains("Ctrl-C") && text.contains("[the conversation is forgotten]"), "{text}");
    assert!(text.contains("/what is no command") && text.contains("its own chat template"), "{text}");
    let text = chat(&path, &["--max-tokens", "20"], &"Tell me more of it\n".repeat(6));
    assert!(text.contains("no longer fit"), "{text}");
    let text = chat(&path, &["--max-tokens", "20"], &format!("{}\nHi\n", "far too long ".repeat(20)));
    assert!(text.contains("ask a shorter one") && text.contains("[ended after 20 tokens]"), "{text}");
}

/// The talker with another tokenizer beside it: a token for each character from space to tilde.
fn write_plain_talker(dir: &Path) -> PathBuf {
    let path = write_talker(dir, 120, 1);
    let characters: String = (' '..='~').collect();
    std::fs::write(dir.join("tokenizer.json"), character_tokenizer(&characters).to_string()).unwrap();
    path
}

#[test]
fn what_the_tokenizer_does_not_know_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = write_plain_talker(dir.path());
    let text = chat(&path, &["--max-tokens", "4"], "Öa ä€\nHi\n");
    let told = "3 characters are unknown to the model's tokenizer (\"Ö\", \"ä\", \"€\")";
    assert!(text.matches("unknown").count() == 1 && text.contains(&format!("> [{told}")), "{text}");

    let server = Server::of(dir, &path, &[], None);
    let asked = json!({"prompt": "Öa ä€", "max_tokens": 2});
    let (status, answer) = server.post("/v1/completions", &asked);
    assert_eq!((status, answer["warnings"].as_array().map(Vec::len)), (200, Some(1)));
    assert!(answer["warnings"][0].as_str().unwrap().starts_with(told), "{answer}");
    let messages = json!([{"role": "system", "content": "Ö"}, {"role": "user", "content": "a ä€"}]);
    let streamed = json!({"messages": messages, "max_tokens": 2, "stream": true});
    let (_, body) = server.raw(&request("/v1/chat/completions", &streamed.to_string(), ""));
    let events = events(&body);
    let last: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert!(last["warnings"][0].as_str().unwrap().starts_with(told), "{last}");
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "a", "max_tokens": 2})).1.get("warnings"), None);
}

#[test]
fn what_the_tokenizer_does_not_know_of_the_plain_form_is_found() {
    let with_template = tempfile::tempdir().unwrap();
    let talker = Model::open(&write_talker(with_template.path(), 120, 1)).unwrap();
    assert!(talker.has_chat_template() && talker.unknown_of_plain_form().unwrap().is_empty());
    // It knows the letters from a to z.
    let dir = write(&text_files(&gpt2(Scheme::F32)));
    let unknown = Model::open(dir.path()).unwrap().unknown_of_plain_form().unwrap();
    assert!(unknown.first.iter().any(|part| part == ":") && unknown.num_characters >= 4, "{unknown}");
}
