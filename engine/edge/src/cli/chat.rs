//! `chat`: a conversation on the terminal.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Args;
use foretrain_edge::{Context, Finish, GenerateOptions, Message, Model, with_threads};

use super::model_arguments::{ModelArguments, SamplingArguments};
use super::report::{in_words, warn};

const HELP: &str = "\
/reset  forget the conversation
/help   show this
/quit   end (as Ctrl-D does)
Ctrl-C stops an answer; while none is being made, it ends the program.";

/// Arguments of `chat`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  foretrain-edge chat --gguf model-TQ2_0.gguf --system \"Answer in one sentence.\"

A model without a chat template is spoken to in a plain form: the system's text, then lines that start with \"User:\" and
\"Assistant:\".")]
pub(super) struct ChatArguments {
    #[command(flatten)]
    model: ModelArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Most new tokens of an answer.
    #[arg(long, default_value_t = 512)]
    max_tokens: usize,
}

pub(super) fn run(arguments: &ChatArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let signals = Signals::listen()?;
    with_threads(arguments.model.num_threads(), || {
        let model = arguments.model.open()?;
        let options = arguments.sampling.options(arguments.max_tokens);
        options.check()?;
        let system = arguments.system.as_ref().map(|text| Message::new("system", text));
        if let Some(unknown) = arguments.system.as_ref().map(|text| model.unknown(text)).transpose()?
            && !unknown.is_empty()
        {
            warn(format_args!("--system: {unknown}"));
        }
        let of_form = model.unknown_of_plain_form()?;
        if !of_form.is_empty() {
            warn(format_args!("the plain form of a conversation: {of_form}"));
        }
        let mut conversation = Conversation { model: &model, context: model.context(), system, turns: Vec::new() };
        talk(&mut conversation, &options, &signals, &mut std::io::stdin().lock(), out)
    })
}

/// What Ctrl-C means.
struct Signals {
    is_answering: Arc<AtomicBool>,
    shall_stop: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let signals = Self { is_answering: Arc::default(), shall_stop: Arc::default() };
        let (is_answering, shall_stop) = (Arc::clone(&signals.is_answering), Arc::clone(&signals.shall_stop));
        let on_signal = move || {
            // A second time, the first has not helped.
            if !is_answering.load(Ordering::SeqCst) || shall_stop.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        };
        ctrlc::set_handler(on_signal).context("listening for Ctrl-C")?;
        Ok(signals)
    }
}

/// Reads lines from `input` and answers them, until it ends.
fn talk(
    conversation: &mut Conversation<'_>,
    options: &GenerateOptions,
    signals: &Signals,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let Conversation { model, .. } = conversation;
    let form = if model.has_chat_template() { "its own chat template" } else { "the plain form: User, Assistant" };
    writeln!(out, "{}, {} tokens at most, {form}. /help tells more.", model.name(), model.max_positions())?;
    let mut line = Vec::new();
    loop {
        write!(out, "\n> ")?;
        out.flush()?;
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            writeln!(out)?;
            return Ok(());
        }
        // Terminals of other encodings: what is no UTF-8 becomes U+FFFD.
        let line = String::from_utf8_lossy(&line);
        match line.trim() {
            "" => {}
            "/quit" | "/exit" => return Ok(()),
            "/help" => writeln!(out, "{HELP}")?,
            "/reset" => {
                conversation.turns.clear();
                writeln!(out, "[the conversation is forgotten]")?;
            }
            command if command.starts_with('/') && !command.contains(char::is_whitespace) => {
                writeln!(out, "[{command} is no command; /help lists them]")?;
            }
            question => {
                signals.shall_stop.store(false, Ordering::SeqCst);
                signals.is_answering.store(true, Ordering::SeqCst);
                let answered = conversation.answer(question, options, &signals.shall_stop, out);
                signals.is_answering.store(false, Ordering::SeqCst);
                answered?;
            }
        }
    }
}

struct Conversation<'m> {
    model: &'m Model,
    context: Context<'m>,
    system: Option<Message>,
    /// Questions and answers by turns.
    turns: Vec<Message>,
}

impl Conversation<'_> {
    /// Answers `question` and remembers both; a question that cannot be answered is told and forgotten.
    fn answer(
        &mut self,
        question: &str,
        options: &GenerateOptions,
        shall_stop: &AtomicBool,
        out: &mut impl Write,
    ) -> anyhow::Result<()> {
        self.turns.push(Message::new("user", question));
        let mut options = options.clone();
        let (tokens, room) = match self.prompt(&mut options, out) {
            Ok(found) => found,
            Err(error) => {
                self.turns.pop();
                writeln!(out, "[{}]", in_words(&error))?;
                return Ok(());
            }
        };
        options.max_tokens = options.max_tokens.min(room);
        let unknown = self.model.unknown(question)?;
        if !unknown.is_empty() {
            writeln!(out, "[{unknown}]")?;
        }
        let mut written = Ok(());
        // Templates and models put blanks before an answer; they belong to neither.
        let mut has_begun = false;
        let generated = self.context.generate(tokens, &options, &mut |piece| {
            let piece = if has_begun { piece } else { piece.trim_start() };
            has_begun |= !piece.is_empty();
            written = write!(out, "{piece}").and_then(|()| out.flush());
            written.is_ok() && !shall_stop.load(Ordering::SeqCst)
        })?;
        written?;
        writeln!(out)?;
        match generated.finish {
            Finish::Stop => {}
            Finish::Length => writeln!(out, "[ended after {} tokens]", generated.num_tokens)?,
            Finish::Cancelled => writeln!(out, "[stopped]")?,
        }
        self.turns.push(Message::new("assistant", generated.text.trim()));
        Ok(())
    }

    /// The tokens of the conversation and how many may follow. Drops the oldest turns, and says so, while it leaves less
    /// than a quarter of the model's positions for the answer, or than the answer may have.
    fn prompt(&mut self, options: &mut GenerateOptions, out: &mut impl Write) -> anyhow::Result<(Vec<u32>, usize)> {
        let most = self.model.max_positions();
        let wanted = options.max_tokens.min(most / 4).max(1);
        let mut num_dropped = 0;
        let (tokens, stop) = loop {
            let messages: Vec<Message> = self.system.iter().chain(&self.turns).cloned().collect();
            let prompt = self.model.chat_prompt(&messages)?;
            let tokens = self.model.prompt_tokens(&prompt.text)?;
            if tokens.len() + wanted <= most || self.turns.len() < 3 {
                break (tokens, prompt.stop);
            }
            // A question and its answer.
            self.turns.drain(..2);
            num_dropped += 2;
        };
        if num_dropped > 0 {
            writeln!(out, "[the oldest {num_dropped} messages no longer fit and are dropped]")?;
        }
        let room = most.saturating_sub(tokens.len());
        anyhow::ensure!(
            room > 0,
            "expected a question that leaves room within {most} tokens, found one of {}; ask a shorter one",
            tokens.len()
        );
        options.stop.extend(stop);
        Ok((tokens, room))
    }
}
