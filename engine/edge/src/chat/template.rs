//! Jinja templates as transformers renders them.
//! Source: transformers, `utils/chat_template_utils.py` (blocks trimmed, `raise_exception`, Python's methods of strings).

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use super::{MAX_RENDERED_BYTES, Message};

/// Instructions that a template may take: those in use take some hundred per message.
const MAX_STEPS: u64 = 2_000_000;

/// The text that `template` makes of `messages`. Errors: what went wrong, in words.
pub(super) fn render(template: &str, messages: &[Message], start: &str, end: &str) -> Result<String, String> {
    let in_words = |error: Error| format!("{error:#}");
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(in_words)?);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    let template = environment.template_from_str(template).map_err(in_words)?;
    let message = |message: &Message| context! { role => message.role.as_str(), content => message.content.as_str() };
    let messages: Vec<Value> = messages.iter().map(message).collect();
    let text = template.render(context! {
        messages => messages, add_generation_prompt => true, bos_token => start, eos_token => end,
    });
    let text = text.map_err(in_words)?;
    if text.len() > MAX_RENDERED_BYTES {
        return Err(format!("a text of {} bytes", text.len()));
    }
    Ok(text)
}
