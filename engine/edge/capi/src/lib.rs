//! A C interface to language models. The header is `include/foretrain_edge.h`.
//!
//! Invariants: no panic crosses into C; null pointers and text that is no UTF-8 are errors, told by
//! [`foretrain_last_error`]; a model may be used by several threads at a time, a context by one.
#![allow(unsafe_code, reason = "C hands over pointers; each function says what they must point to")]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use foretrain_edge::{ChatPrompt, Context, Finish, GenerateOptions, Message, Model, with_threads};

/// An open language model.
#[derive(Debug)]
pub struct ForetrainModel {
    model: Model,
}

/// What a model has read and written last, for going on from. One thread at a time may use it.
#[derive(Debug)]
pub struct ForetrainContext {
    /// Borrows from a [`ForetrainModel`], which C keeps open for as long.
    context: Context<'static>,
    cached_tokens: usize,
}

/// How to continue a text. `foretrain_default_options` fills it in.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ForetrainOptions {
    /// Most new tokens.
    pub max_tokens: usize,
    /// 0 always takes the likeliest token.
    pub temperature: f32,
    /// Consider only this many of the likeliest tokens; 0 considers all.
    pub top_k: usize,
    /// Consider only the likeliest tokens that together have this probability; 1 considers all.
    pub top_p: f32,
    /// Consider only tokens at least this many times as likely as the likeliest; 0 considers all.
    pub min_p: f32,
    /// Makes the last 64 tokens less likely; 1 changes nothing.
    pub repeat_penalty: f32,
    /// The same seed gives the same text.
    pub seed: u64,
    /// Threads; 0 takes one per core.
    pub num_threads: usize,
    /// Texts that the answer ends before: as many as `num_stops`, in UTF-8. May be null when that is 0.
    pub stops: *const *const c_char,
    /// Number of `stops`.
    pub num_stops: usize,
}

/// One message of a conversation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ForetrainMessage {
    /// "system", "user" or "assistant".
    pub role: *const c_char,
    /// What was said, in UTF-8.
    pub content: *const c_char,
}

/// Why a text ended, or that it failed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForetrainStatus {
    /// The model said that it is over, or a stop text came.
    Stop = 0,
    /// As many tokens as asked for.
    Length = 1,
    /// The callback returned false.
    Cancelled = 2,
    /// See `foretrain_last_error`.
    Failed = -1,
}

/// Gets a piece of new text: `len` bytes of UTF-8 and a zero behind them, valid during the call. Returns false to end the
/// text. It must not unwind or jump out.
pub type ForetrainOnText =
    Option<unsafe extern "C" fn(text: *const c_char, len: usize, user_data: *mut c_void) -> bool>;

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Runs `call`; its error, or its panic, becomes the thread's last error and `failed`.
fn guarded<T>(failed: T, call: impl FnOnce() -> Result<T, String>) -> T {
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(format!("a failure inside the library: {text}"))
    });
    result.unwrap_or_else(|message| {
        let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
        LAST_ERROR.with_borrow_mut(|last| *last = message);
        failed
    })
}

/// The text at `pointer`, which is null or ends with a zero.
unsafe fn text<'a>(pointer: *const c_char, what: &str) -> Result<&'a str, String> {
    if pointer.is_null() {
        return Err(format!("{what}: expected a text, found a null pointer"));
    }
    // SAFETY: not null; the caller's contract says that it ends with a zero and stays as it is during the call.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_str().map_err(|error| format!("{what}: expected UTF-8, found {error}"))
}

/// The items at `pointer`.
unsafe fn items<'a, T>(pointer: *const T, count: usize, what: &str) -> Result<&'a [T], String> {
    match (pointer.is_null(), count) {
        (_, 0) => Ok(&[]),
        (true, _) => Err(format!("{what}: expected {count}, found a null pointer")),
        // SAFETY: not null; the caller's contract says that there are `count` of them during the call.
        (false, _) => Ok(unsafe { std::slice::from_raw_parts(pointer, count) }),
    }
}

/// What went wrong in this thread's last call that failed; an empty text before any. Valid until its next call that fails.
#[unsafe(no_mangle)]
pub extern "C" fn foretrain_last_error() -> *const c_char {
    LAST_ERROR.with_borrow(|last| last.as_ptr())
}

/// The usual options.
#[unsafe(no_mangle)]
pub extern "C" fn foretrain_default_options() -> ForetrainOptions {
    let GenerateOptions { max_tokens, temperature, top_k, top_p, min_p, repeat_penalty, seed, .. } =
        GenerateOptions::default();
    ForetrainOptions {
        max_tokens,
        temperature,
        top_k,
        top_p,
        min_p,
        repeat_penalty,
        seed,
        num_threads: 0,
        stops: std::ptr::null(),
        num_stops: 0,
    }
}

/// Opens the language model at `path` (UTF-8): a package's folder or a GGUF file. Null when that fails.
///
/// # Safety
/// `path` is null or a text that ends with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_open(path: *const c_char) -> *mut ForetrainModel {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract.
        let path = unsafe { text(path, "path") }?;
        let model = Model::open(Path::new(path)).map_err(|error| error.to_string())?;
        Ok(Box::into_raw(Box::new(ForetrainModel { model })))
    })
}

/// Closes `model`; null is fine.
///
/// # Safety
/// `model` is null or came from `foretrain_open`, is not in use and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_close(model: *mut ForetrainModel) {
    guarded((), || {
        if !model.is_null() {
            // SAFETY: it came out of a box in `foretrain_open`, and comes back once.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// Longest token sequence of `model`; 0 for null.
///
/// # Safety
/// `model` is null or came from `foretrain_open` and is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_max_tokens(model: *const ForetrainModel) -> usize {
    // SAFETY: the caller's contract.
    guarded(0, || Ok(unsafe { model.as_ref() }.map_or(0, |model| model.model.max_positions())))
}

/// The tokens of `text` as a prompt. Writes the first `capacity` of them to `tokens` (which may be null when that is 0) and
/// returns how many there are; -1 when that fails.
///
/// # Safety
/// `model` is null or open; `text` is null or ends with a zero; `tokens` has room for `capacity` numbers.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_tokens(
    model: *const ForetrainModel,
    text: *const c_char,
    tokens: *mut u32,
    capacity: usize,
) -> i64 {
    guarded(-1, || {
        // SAFETY: the caller's contract.
        let (model, prompt) = unsafe { (open_model(model)?, self::text(text, "text")?) };
        let found = model.prompt_tokens(prompt).map_err(|error| error.to_string())?;
        if capacity > 0 {
            if tokens.is_null() {
                return Err(format!("tokens: expected room for {capacity}, found a null pointer"));
            }
            let count = found.len().min(capacity);
            // SAFETY: not null, and has room for `capacity` by the caller's contract.
            unsafe { std::ptr::copy_nonoverlapping(found.as_ptr(), tokens, count) };
        }
        i64::try_from(found.len()).map_err(|error| error.to_string())
    })
}

/// A context of `model` without text. Null when that fails.
///
/// # Safety
/// `model` is null or open, and stays open until the context is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_context_new(model: *const ForetrainModel) -> *mut ForetrainContext {
    guarded(std::ptr::null_mut(), || {
        // SAFETY: the caller's contract, which lets the borrow last as long as the context does.
        let model: &'static Model = unsafe { open_model(model) }?;
        Ok(Box::into_raw(Box::new(ForetrainContext { context: model.context(), cached_tokens: 0 })))
    })
}

/// Frees `context`; null is fine.
///
/// # Safety
/// `context` is null or came from `foretrain_context_new`, is not in use and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_context_free(context: *mut ForetrainContext) {
    guarded((), || {
        if !context.is_null() {
            // SAFETY: it came out of a box in `foretrain_context_new`, and comes back once.
            drop(unsafe { Box::from_raw(context) });
        }
        Ok(())
    });
}

/// How many tokens of the last prompt `context` held already, so that they were not read again; 0 for null.
///
/// # Safety
/// `context` is null or came from `foretrain_context_new`, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_context_cached_tokens(context: *const ForetrainContext) -> usize {
    // SAFETY: the caller's contract.
    guarded(0, || Ok(unsafe { context.as_ref() }.map_or(0, |context| context.cached_tokens)))
}

/// Continues `prompt` (UTF-8), the whole text, as `foretrain_generate` does. What starts as the context's last text did is
/// not read again.
///
/// # Safety
/// As for `foretrain_generate`; `context` is null or came from `foretrain_context_new`, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_context_generate(
    context: *mut ForetrainContext,
    prompt: *const c_char,
    options: *const ForetrainOptions,
    on_text: ForetrainOnText,
    user_data: *mut c_void,
) -> ForetrainStatus {
    guarded(ForetrainStatus::Failed, || {
        // SAFETY: the caller's contract.
        let (context, prompt) = unsafe { (open_context(context)?, text(prompt, "prompt")?) };
        // SAFETY: the caller's contract.
        unsafe { context.answer(prompt, options, &[], on_text, user_data) }
    })
}

/// Answers a conversation, all of its messages, as `foretrain_chat` does. What starts as the context's last text did is not
/// read again: of a conversation that goes on, only what is new.
///
/// # Safety
/// As for `foretrain_chat`; `context` is null or came from `foretrain_context_new`, and no other thread uses it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_context_chat(
    context: *mut ForetrainContext,
    messages: *const ForetrainMessage,
    num_messages: usize,
    options: *const ForetrainOptions,
    on_text: ForetrainOnText,
    user_data: *mut c_void,
) -> ForetrainStatus {
    guarded(ForetrainStatus::Failed, || {
        // SAFETY: the caller's contract.
        let context = unsafe { open_context(context) }?;
        // SAFETY: the caller's contract.
        let prompt = unsafe { conversation(context.context.model(), messages, num_messages) }?;
        // SAFETY: the caller's contract.
        unsafe { context.answer(&prompt.text, options, &prompt.stop, on_text, user_data) }
    })
}

/// Continues `prompt` (UTF-8) and hands out each piece of new text.
///
/// # Safety
/// `model` is null or open; `prompt` is null or ends with a zero; `options` is null (for the usual ones) or points to
/// options whose `stops` are as many texts as they say; `on_text` may be called with `user_data` on this thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_generate(
    model: *const ForetrainModel,
    prompt: *const c_char,
    options: *const ForetrainOptions,
    on_text: ForetrainOnText,
    user_data: *mut c_void,
) -> ForetrainStatus {
    guarded(ForetrainStatus::Failed, || {
        // SAFETY: the caller's contract.
        let (model, prompt) = unsafe { (open_model(model)?, text(prompt, "prompt")?) };
        // SAFETY: the caller's contract.
        unsafe { answer(&mut model.context(), prompt, options, &[], on_text, user_data) }.map(|(status, _)| status)
    })
}

/// Answers a conversation of `num_messages` messages, by the model's chat template or the plain form, and hands out each
/// piece of the answer.
///
/// # Safety
/// As for `foretrain_generate`; `messages` are as many as `num_messages` says, with texts that end with a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn foretrain_chat(
    model: *const ForetrainModel,
    messages: *const ForetrainMessage,
    num_messages: usize,
    options: *const ForetrainOptions,
    on_text: ForetrainOnText,
    user_data: *mut c_void,
) -> ForetrainStatus {
    guarded(ForetrainStatus::Failed, || {
        // SAFETY: the caller's contract.
        let model = unsafe { open_model(model) }?;
        // SAFETY: the caller's contract.
        let prompt = unsafe { conversation(model, messages, num_messages) }?;
        let mut context = model.context();
        // SAFETY: the caller's contract.
        unsafe { answer(&mut context, &prompt.text, options, &prompt.stop, on_text, user_data) }
            .map(|(status, _)| status)
    })
}

/// The prompt of a conversation.
unsafe fn conversation(
    model: &Model,
    messages: *const ForetrainMessage,
    num_messages: usize,
) -> Result<ChatPrompt, String> {
    // SAFETY: the caller's contract.
    let messages = unsafe { items(messages, num_messages, "messages") }?;
    // SAFETY: the caller's contract.
    let message = |message: &ForetrainMessage| unsafe {
        Ok(Message::new(text(message.role, "role")?, text(message.content, "content")?))
    };
    let messages = messages.iter().map(message).collect::<Result<Vec<_>, String>>()?;
    model.chat_prompt(&messages).map_err(|error| error.to_string())
}

unsafe fn open_context<'a>(context: *mut ForetrainContext) -> Result<&'a mut ForetrainContext, String> {
    // SAFETY: null, or open and used by this thread alone, by the caller's contract.
    unsafe { context.as_mut() }.ok_or_else(|| "context: expected one, found a null pointer".to_owned())
}

impl ForetrainContext {
    unsafe fn answer(
        &mut self,
        prompt: &str,
        options: *const ForetrainOptions,
        stops: &[String],
        on_text: ForetrainOnText,
        user_data: *mut c_void,
    ) -> Result<ForetrainStatus, String> {
        self.cached_tokens = 0;
        // SAFETY: the caller's contract.
        let (status, cached_tokens) = unsafe { answer(&mut self.context, prompt, options, stops, on_text, user_data) }?;
        self.cached_tokens = cached_tokens;
        Ok(status)
    }
}

unsafe fn open_model<'a>(model: *const ForetrainModel) -> Result<&'a Model, String> {
    // SAFETY: null or open, by the caller's contract.
    let model = unsafe { model.as_ref() };
    model.map(|model| &model.model).ok_or_else(|| "model: expected an open one, found a null pointer".to_owned())
}

/// Why the text ended, and how many tokens of the prompt `context` held already.
unsafe fn answer(
    context: &mut Context<'_>,
    prompt: &str,
    options: *const ForetrainOptions,
    stops: &[String],
    on_text: ForetrainOnText,
    user_data: *mut c_void,
) -> Result<(ForetrainStatus, usize), String> {
    // SAFETY: null or options, by the caller's contract.
    let given = unsafe { options.as_ref() }.copied().unwrap_or_else(|| foretrain_default_options());
    let on_text = on_text.ok_or("on_text: expected a function, found a null pointer")?;
    // SAFETY: as many as they say, by the caller's contract.
    let texts = unsafe { items(given.stops, given.num_stops, "stops") }?;
    // SAFETY: texts, by the caller's contract.
    let own = texts.iter().map(|&stop| unsafe { text(stop, "stops") }.map(str::to_owned));
    let options = GenerateOptions {
        max_tokens: given.max_tokens,
        temperature: given.temperature,
        top_k: given.top_k,
        top_p: given.top_p,
        min_p: given.min_p,
        repeat_penalty: given.repeat_penalty,
        seed: given.seed,
        stop: own.chain(stops.iter().cloned().map(Ok)).collect::<Result<_, String>>()?,
        ..GenerateOptions::default()
    };
    let num_threads = match given.num_threads {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        threads => threads,
    };
    let mut piece_bytes = Vec::new();
    let generated = with_threads(num_threads, || {
        let prompt = context.model().prompt_tokens(prompt)?;
        context.generate(prompt, &options, &mut |piece| {
            if piece.is_empty() {
                return true;
            }
            piece_bytes.clear();
            piece_bytes.extend_from_slice(piece.as_bytes());
            piece_bytes.push(0);
            // SAFETY: the text ends with a zero; the caller's contract says that it may be called.
            unsafe { on_text(piece_bytes.as_ptr().cast(), piece.len(), user_data) }
        })
    });
    let generated = generated.map_err(|error| error.to_string())?;
    let status = match generated.finish {
        Finish::Stop => ForetrainStatus::Stop,
        Finish::Length => ForetrainStatus::Length,
        Finish::Cancelled => ForetrainStatus::Cancelled,
    };
    Ok((status, generated.cached_tokens))
}
