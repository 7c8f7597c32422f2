//! OpenAI's requests and responses as JSON. Source: OpenAI's API reference, "Chat" and "Completions (legacy)"; the sampling
//! options that it lacks have llama.cpp's names.

use foretrain_edge::{Finish, GenerateOptions, Message, Model, Unknown};
use serde::Deserialize;
use serde_json::{Value, json};

use super::http::Refusal;

/// Messages of a conversation at most.
const MAX_MESSAGES: usize = 1024;
/// Tokens of a completion that names no number, as OpenAI's.
const USUAL_COMPLETION: usize = 16;

/// Which of the two interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Completion,
}

/// What both kinds of request may say. What is missing or null has its default; what is unknown is ignored, but what would
/// change the answer and is not built here is refused.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Body {
    messages: Option<Vec<ChatMessage>>,
    prompt: Option<Prompt>,
    max_tokens: Option<u64>,
    max_completion_tokens: Option<u64>,
    temperature: Option<f32>,
    top_k: Option<u64>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u64>,
    best_of: Option<u64>,
    echo: Option<bool>,
    suffix: Option<String>,
    logprobs: Option<Value>,
    logit_bias: Option<Value>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    tools: Option<Value>,
    functions: Option<Value>,
    response_format: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: String,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

#[derive(Debug, Deserialize)]
struct ContentPart {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: bool,
}

/// A request in our terms.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) prompt: Vec<u32>,
    pub(super) options: GenerateOptions,
    pub(super) is_streamed: bool,
    pub(super) reports_usage: bool,
    /// What there is to know about the answer that comes all the same.
    pub(super) warnings: Vec<String>,
}

/// The question that `body` asks. `seed`: for requests that name none.
pub(super) fn question(
    kind: Kind,
    body: &[u8],
    model: &Model,
    defaults: &GenerateOptions,
    seed: u64,
) -> Result<Question, Refusal> {
    let body: Body = serde_json::from_slice(body).map_err(|error| refuse(format!("reading the JSON body: {error}")))?;
    check_supported(&body)?;
    let in_words = |error: foretrain_edge::EdgeError| refuse(error.to_string());
    let mut stop = match &body.stop {
        Some(Stop::One(text)) => vec![text.clone()],
        Some(Stop::Several(texts)) => texts.clone(),
        None => defaults.stop.clone(),
    };
    let mut unknown = Unknown::default();
    let mut look_through = |text: &str| model.unknown(text).map(|found| unknown.merge(&found)).map_err(in_words);
    let prompt = match kind {
        Kind::Chat => {
            let messages = messages(body.messages)?;
            // What a template puts around them is the model's own.
            messages.iter().try_for_each(|message| look_through(&message.content))?;
            let prompt = model.chat_prompt(&messages).map_err(in_words)?;
            stop.extend(prompt.stop);
            model.prompt_tokens(&prompt.text).map_err(in_words)?
        }
        Kind::Completion => match body.prompt {
            Some(Prompt::Text(text)) => {
                look_through(&text)?;
                model.prompt_tokens(&text).map_err(in_words)?
            }
            Some(Prompt::Texts(texts)) => match <[String; 1]>::try_from(texts) {
                Ok([text]) => {
                    look_through(&text)?;
                    model.prompt_tokens(&text).map_err(in_words)?
                }
                Err(texts) => return Err(refuse(format!("prompt: expected one text, found {}", texts.len()))),
            },
            Some(Prompt::Tokens(tokens)) => tokens,
            None => return Err(refuse("prompt: expected a text, found none")),
        },
    };
    let most = model.max_positions();
    if prompt.is_empty() || prompt.len() >= most {
        let expected = format!("a prompt of 1 to {} tokens, which leaves room for an answer", most.saturating_sub(1));
        return Err(refuse(format!("expected {expected}, found {}", prompt.len())));
    }
    if let Some(bad) = prompt.iter().find(|&&token| token as usize >= model.vocab_size()) {
        return Err(refuse(format!("prompt: expected tokens below {}, found token {bad}", model.vocab_size())));
    }
    let room = most - prompt.len();
    let usual = if kind == Kind::Chat { room } else { USUAL_COMPLETION };
    let wanted = body.max_completion_tokens.or(body.max_tokens);
    let wanted = wanted.map_or(usual, |wanted| usize::try_from(wanted).unwrap_or(usize::MAX));
    let options = GenerateOptions {
        max_tokens: wanted.min(room),
        temperature: body.temperature.unwrap_or(defaults.temperature),
        top_k: body.top_k.map_or(defaults.top_k, |top_k| usize::try_from(top_k).unwrap_or(usize::MAX)),
        top_p: body.top_p.unwrap_or(defaults.top_p),
        min_p: body.min_p.unwrap_or(defaults.min_p),
        repeat_penalty: body.repeat_penalty.unwrap_or(defaults.repeat_penalty),
        repeat_last: defaults.repeat_last,
        seed: body.seed.map_or(seed, i64::cast_unsigned),
        stop,
    };
    options.check().map_err(in_words)?;
    let reports_usage = body.stream_options.is_some_and(|options| options.include_usage);
    let mut warnings = Vec::new();
    if !unknown.is_empty() {
        warnings.push(unknown.to_string());
    }
    if kind == Kind::Chat {
        let of_form = model.unknown_of_plain_form().map_err(in_words)?;
        if !of_form.is_empty() {
            warnings.push(format!("the plain form of a conversation: {of_form}"));
        }
    }
    Ok(Question { prompt, options, is_streamed: body.stream.unwrap_or(false), reports_usage, warnings })
}

fn refuse(message: impl Into<String>) -> Refusal {
    Refusal::new(400, message)
}

fn check_supported(body: &Body) -> Result<(), Refusal> {
    let is_nothing = |value: &Option<Value>| match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Number(_) | Value::String(_) | Value::Bool(true)) => false,
    };
    let format = body.response_format.as_ref().and_then(|format| format.get("type")).and_then(Value::as_str);
    for (name, is_fine) in [
        ("n", body.n.is_none_or(|n| n == 1)),
        ("best_of", body.best_of.is_none_or(|n| n == 1)),
        ("echo", body.echo != Some(true)),
        ("suffix", body.suffix.as_deref().unwrap_or_default().is_empty()),
        ("logprobs", is_nothing(&body.logprobs)),
        ("logit_bias", is_nothing(&body.logit_bias)),
        ("presence_penalty", body.presence_penalty.unwrap_or(0.0) == 0.0),
        ("frequency_penalty", body.frequency_penalty.unwrap_or(0.0) == 0.0),
        ("tools", is_nothing(&body.tools)),
        ("functions", is_nothing(&body.functions)),
        ("response_format", matches!(format, None | Some("text"))),
    ] {
        if !is_fine {
            return Err(refuse(format!("{name}: expected its default, found something that this server does not do")));
        }
    }
    Ok(())
}

fn messages(messages: Option<Vec<ChatMessage>>) -> Result<Vec<Message>, Refusal> {
    let messages = messages.unwrap_or_default();
    if !(1..=MAX_MESSAGES).contains(&messages.len()) {
        return Err(refuse(format!("messages: expected 1 to {MAX_MESSAGES}, found {}", messages.len())));
    }
    let message = |ChatMessage { role, content }: ChatMessage| {
        let content = match content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => {
                if let Some(part) = parts.iter().find(|part| part.kind != "text") {
                    return Err(refuse(format!("messages: expected parts of type \"text\", found {:?}", part.kind)));
                }
                parts.into_iter().map(|part| part.text).collect()
            }
            None => String::new(),
        };
        Ok(Message::new(&role, content))
    };
    messages.into_iter().map(message).collect()
}

/// An error in OpenAI's form.
pub(super) fn error(refusal: &Refusal) -> String {
    let (kind, code) = match refusal.status {
        401 => ("invalid_request_error", json!("invalid_api_key")),
        429 => ("rate_limit_error", json!("rate_limit_exceeded")),
        500.. => ("server_error", Value::Null),
        _ => ("invalid_request_error", Value::Null),
    };
    json!({"error": {"message": refusal.message, "type": kind, "param": null, "code": code}}).to_string()
}

/// The models there are: this one.
pub(super) fn models(model: &Model, created: u64) -> String {
    json!({"object": "list", "data": [model_entry(model, created)]}).to_string()
}

/// One model.
pub(super) fn model_entry(model: &Model, created: u64) -> Value {
    json!({"id": model.name(), "object": "model", "created": created, "owned_by": "foretrain-edge"})
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: usize,
    pub(super) cached: usize,
    pub(super) new: usize,
}

impl Usage {
    fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt, "completion_tokens": self.new, "total_tokens": self.prompt + self.new,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        })
    }
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Stop | Finish::Cancelled => "stop",
    }
}

/// What all of a request's responses have in common.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) kind: Kind,
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
    /// A field of ours, at the end of an answer, where there are any.
    pub(super) warnings: Vec<String>,
}

impl Form {
    /// A whole answer.
    pub(super) fn whole(&self, text: &str, finish: Finish, usage: Usage) -> String {
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": reason(finish)});
        match self.kind {
            Kind::Chat => choice["message"] = json!({"role": "assistant", "content": text}),
            Kind::Completion => choice["text"] = json!(text),
        }
        let object = if self.kind == Kind::Chat { "chat.completion" } else { "text_completion" };
        let mut answer = self.object(object, json!([choice]));
        answer["usage"] = usage.json();
        self.with_warnings(answer).to_string()
    }

    /// The first piece of a streamed answer: who speaks. Completions have none.
    pub(super) fn opening(&self) -> Option<String> {
        let delta = json!({"role": "assistant", "content": ""});
        (self.kind == Kind::Chat).then(|| self.piece(delta, Value::Null))
    }

    /// More text.
    pub(super) fn text(&self, text: &str) -> String {
        match self.kind {
            Kind::Chat => self.piece(json!({"content": text}), Value::Null),
            Kind::Completion => self.piece(json!(text), Value::Null),
        }
    }

    /// Why it ended.
    pub(super) fn ending(&self, finish: Finish) -> String {
        let nothing = if self.kind == Kind::Chat { json!({}) } else { json!("") };
        self.with_warnings(self.piece_json(nothing, json!(reason(finish)))).to_string()
    }

    fn with_warnings(&self, mut answer: Value) -> Value {
        if !self.warnings.is_empty() {
            answer["warnings"] = json!(self.warnings);
        }
        answer
    }

    /// The tokens, after the end.
    pub(super) fn usage(&self, usage: Usage) -> String {
        let mut piece = self.object(self.piece_object(), json!([]));
        piece["usage"] = usage.json();
        piece.to_string()
    }

    fn piece(&self, content: Value, finish: Value) -> String {
        self.piece_json(content, finish).to_string()
    }

    fn piece_json(&self, content: Value, finish: Value) -> Value {
        let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": finish});
        choice[if self.kind == Kind::Chat { "delta" } else { "text" }] = content;
        self.object(self.piece_object(), json!([choice]))
    }

    fn piece_object(&self) -> &'static str {
        if self.kind == Kind::Chat { "chat.completion.chunk" } else { "text_completion" }
    }

    fn object(&self, object: &str, choices: Value) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": choices})
    }
}
