//! Conversations as text that a model was trained to continue.
//!
//! A model may bring a Jinja template, as transformers and llama.cpp keep it. One without gets the plain form of
//! [`PLAIN_FORM`]. A template is a program of whoever made the model: its steps are limited, its access is to the messages
//! alone, its text must stay within [`MAX_RENDERED_BYTES`].

mod template;

use serde::{Deserialize, Serialize};

use crate::EdgeError;

/// The form for models without a template: each message after its speaker's name, the system's text first by itself, and
/// `Assistant:` to go on from. An answer ends where the user would speak again.
pub const PLAIN_FORM: &str = "SYSTEM TEXT\n\nUser: QUESTION\nAssistant: ANSWER\nUser: QUESTION\nAssistant:";
/// What the plain form adds to any conversation.
pub(crate) const PLAIN_WORDS: &str = "User: Assistant:";
/// Where an answer in the plain form ends.
const PLAIN_STOP: &str = "\nUser:";
/// Longest text of a conversation.
pub(crate) const MAX_RENDERED_BYTES: usize = 16 << 20;
/// Longest template.
const MAX_TEMPLATE_BYTES: usize = 256 << 10;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    #[must_use]
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// A conversation to go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPrompt {
    /// Its text; tokens that mean more than text are spelled in it.
    pub text: String,
    /// Strings that end the answer, besides the model's own token for it.
    pub stop: Vec<String>,
}

/// What a model says about conversations.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ChatFormat {
    /// A Jinja template.
    pub(crate) template: Option<String>,
    /// The token that starts a text, as text.
    pub(crate) start: String,
    /// The token that ends one, as text.
    pub(crate) end: String,
}

impl ChatFormat {
    /// The text of `messages`, with which an assistant's message begins.
    ///
    /// Errors: [`EdgeError::Input`] for a conversation that the template refuses, roles that the plain form does not know,
    /// and a template that fails or is too long.
    pub(crate) fn prompt(&self, messages: &[Message]) -> Result<ChatPrompt, EdgeError> {
        let tried = "composing a conversation";
        match &self.template {
            Some(template) if template.len() > MAX_TEMPLATE_BYTES => {
                let expected = format!("a chat template of at most {MAX_TEMPLATE_BYTES} bytes");
                Err(EdgeError::input(tried, expected, template.len().to_string()))
            }
            Some(template) => {
                let text = template::render(template, messages, &self.start, &self.end);
                let text =
                    text.map_err(|found| EdgeError::input(tried, "messages that the chat template takes", found))?;
                Ok(ChatPrompt { text, stop: Vec::new() })
            }
            None => Ok(ChatPrompt { text: plain(messages)?, stop: vec![PLAIN_STOP.to_owned()] }),
        }
    }
}

fn plain(messages: &[Message]) -> Result<String, EdgeError> {
    let mut text = String::new();
    for Message { role, content } in messages {
        match role.as_str() {
            "system" | "developer" => text.extend([content.as_str(), "\n\n"]),
            "user" => text.extend(["User: ", content.as_str(), "\n"]),
            "assistant" => text.extend(["Assistant: ", content.as_str(), "\n"]),
            other => {
                let expected = "roles \"system\", \"user\" and \"assistant\"";
                return Err(EdgeError::input("composing a conversation", expected, format!("{other:?}")));
            }
        }
    }
    text.push_str("Assistant:");
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Qwen's and many others' form.
    const CHATML: &str = "{% for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message.content.strip() + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}";

    fn talk() -> Vec<Message> {
        vec![
            Message::new("system", "Be kind."),
            Message::new("user", "Hi"),
            Message::new("assistant", "Hello!"),
            Message::new("user", " Who? "),
        ]
    }

    fn with(template: &str) -> ChatFormat {
        ChatFormat { template: Some(template.to_owned()), start: "<s>".to_owned(), end: "</s>".to_owned() }
    }

    #[test]
    fn the_plain_form_names_speakers() {
        let prompt = ChatFormat::default().prompt(&talk()).unwrap();
        assert_eq!(prompt.text, "Be kind.\n\nUser: Hi\nAssistant: Hello!\nUser:  Who? \nAssistant:");
        assert_eq!(prompt.stop, ["\nUser:"]);
        let stranger = ChatFormat::default().prompt(&[Message::new("tool", "x")]);
        assert!(stranger.unwrap_err().to_string().contains("tool"));
    }

    #[test]
    fn templates_make_what_their_models_know() {
        let text = |template: &str| with(template).prompt(&talk()).unwrap().text;
        assert_eq!(
            text(CHATML),
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n"
        );
        // As Llama 2: the system's text goes into the first question; slices, tests, namespaces, start and end tokens.
        let llama2 = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
            {% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% endif %}\
            {% for message in loop_messages %}{% if loop.index0 == 0 and system_message is defined %}\
            {% set content = '<<SYS>>' + system_message + '<</SYS>>' + message['content'] %}{% else %}\
            {% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
            {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}{{ ' ' + content + ' ' + eos_token }}\
            {% endif %}{% endfor %}";
        assert_eq!(text(llama2), "<s>[INST] <<SYS>>Be kind.<</SYS>>Hi [/INST] Hello! </s><s>[INST] Who? [/INST]");
        let namespace = "{% set ns = namespace(n=0) %}{% for m in messages if m.role != 'system' %}\
            {% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ messages[0] | tojson }}";
        assert_eq!(text(namespace), "3{\"role\": \"system\", \"content\": \"Be kind.\"}");
        // Blocks leave no lines of their own.
        assert_eq!(text("{% if true %}\n  {% set x = 1 %}\n{{ x }}\n{% endif %}\n"), "1\n");
    }

    #[test]
    fn a_template_that_refuses_or_fails_is_an_error_in_its_words() {
        let error = |template: &str| with(template).prompt(&talk()).unwrap_err().to_string();
        assert!(error("{{ raise_exception('roles must alternate') }}").contains("roles must alternate"));
        assert!(error("{% for %}").contains("chat template"));
        assert!(
            error("{% for a in range(10000) %}{% for b in range(10000) %}x{% endfor %}{% endfor %}").contains("fuel")
        );
        assert!(error(&"x".repeat(300 << 10)).contains("at most"));
    }
}
