"""llama.cpp: loads every GGUF file, and answers as our runtime does."""

import numpy as np

from models import HELD_OUT_TOKENS, TEXTS, type_name
from ours import perplexity

NAME = "llama.cpp"
# F32 differs by the order of sums alone.
LOGITS_TOLERANCE = 1e-3
# Both round inputs of quantized matrices to 8 bits, by different groups.
PERPLEXITY_TOLERANCE = 0.005
# Keys and values in full precision, and attention in its plain form.
GGML_F32, NO_FLASH_ATTENTION = 0, 0


def available():
    """A class that opens files, or the reason why there is none."""
    try:
        return PythonLlama.of_source(), None
    except ImportError as error:
        source = error
    try:
        return ReadyMadeLlama.of_wheel(), None
    except (ImportError, OSError) as wheel:
        return None, f"{source}; {wheel}"


class PythonLlama:
    """llama-cpp-python."""

    @classmethod
    def of_source(cls):
        import llama_cpp  # noqa: F401

        return cls

    def __init__(self, path, num_tokens):
        import llama_cpp

        self.llama = llama_cpp.Llama(
            model_path=str(path), n_ctx=num_tokens, n_batch=num_tokens, logits_all=True, verbose=False,
            type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32, flash_attn=False,
        )

    def tokenize(self, text):
        return self.llama.tokenize(text.encode("utf-8"), add_bos=False, special=False)

    def logits(self, tokens):
        self.llama.reset()
        self.llama.eval(tokens)
        return np.array(self.llama.scores[: len(tokens)], dtype=np.float32)


class ReadyMadeLlama:
    """cyllama."""

    @classmethod
    def of_wheel(cls):
        import cyllama.llama.llama_cpp  # noqa: F401

        return cls

    def __init__(self, path, num_tokens):
        import cyllama.llama.llama_cpp as llama_cpp

        class SizedModel(llama_cpp.LlamaModel):
            """Its context asks the model for the vocabulary's size, which version 0.2.18 forgot to give it."""

            @property
            def n_vocab(self):
                return self.get_vocab().n_vocab

        llama_cpp.disable_logging()
        model_parameters = llama_cpp.LlamaModelParams()
        model_parameters.n_gpu_layers = 0
        self.model = SizedModel(path_model=str(path), params=model_parameters, verbose=False)
        parameters = llama_cpp.LlamaContextParams()
        parameters.n_ctx, parameters.n_batch, parameters.n_ubatch = num_tokens, num_tokens, num_tokens
        parameters.type_k, parameters.type_v, parameters.flash_attn_type = GGML_F32, GGML_F32, NO_FLASH_ATTENTION
        self.context = llama_cpp.LlamaContext(model=self.model, params=parameters, verbose=False)
        self.new_batch = lambda: llama_cpp.LlamaBatch(n_tokens=num_tokens, embd=0, n_seq_max=1)

    def tokenize(self, text):
        return list(self.model.get_vocab().tokenize(text, add_special=False, parse_special=False))

    def logits(self, tokens):
        self.context.kv_cache_clear()
        batch = self.new_batch()
        for place, token in enumerate(tokens):
            batch.add(token, place, [0], True)
        self.context.decode(batch)
        return np.array([self.context.get_logits_ith(place) for place in range(len(tokens))], dtype=np.float32)


def check(table, ours, texts, models):
    """Logits in F32, perplexity in every type, and the tokens of odd texts."""
    opener, reason = available()
    if opener is None:
        table.not_checked(NAME, reason)
        return
    for model in models:
        if model.name == "bitnet-relu2":
            # llama.cpp's BitNet has SwiGLU; bitnet.cpp's, which has no package, squares.
            continue
        for scheme, package in model.gguf.items():
            try:
                compare(table, ours, texts, opener, model, scheme, package)
            except Exception as error:  # noqa: BLE001: one bad file must not hide the others
                table.failed(NAME, model.name, type_name(scheme), "loads and answers", error)


def compare(table, ours, texts, opener, model, scheme, package):
    """One file."""
    kind = type_name(scheme)
    tokens, our_logits = ours.tokens_of(package, texts.held_out, HELD_OUT_TOKENS)
    llama = opener(package / "model.gguf", HELD_OUT_TOKENS)
    logits = llama.logits(tokens)
    if scheme == "f32":
        distance = float(np.abs(logits - our_logits).max())
        spread = float(our_logits.std())
        note = f"of logits that spread by {spread:.2f}"
        table.within(NAME, model.name, kind, f"logits of {len(tokens)} tokens", distance, LOGITS_TOLERANCE, note)
        num_others, num_ties = other_greedy_tokens(our_logits, logits)
        note = f"{num_ties} near ties"
        table.within(NAME, model.name, kind, f"other greedy tokens of {len(tokens)} prompts", num_others, 0, note)
        for number, (text, path) in enumerate(zip(TEXTS, texts.odd)):
            expected, _ = ours.tokens_of(package, path, HELD_OUT_TOKENS)
            found = llama.tokenize(text)[:HELD_OUT_TOKENS]
            note = "" if found == expected else f"{found[:12]} instead of {expected[:12]}"
            table.equal(NAME, model.name, kind, f"tokens of text {number}", found == expected, note)
    mine, theirs = perplexity(tokens, our_logits), perplexity(tokens, logits)
    note = f"{theirs:.4f} there, {mine:.4f} here"
    table.within(NAME, model.name, kind, "perplexity, relative", abs(theirs / mine - 1), PERPLEXITY_TOLERANCE, note)


def other_greedy_tokens(ours, theirs):
    """After how many prompts (each start of a text is one) the likeliest token is another, near ties aside; and how many
    of those there are."""
    places = np.arange(len(ours))
    mine, other = ours.argmax(axis=1), theirs.argmax(axis=1)
    is_tie = ours[places, mine] - ours[places, other] <= 2 * LOGITS_TOLERANCE
    return int(((mine != other) & ~is_tie).sum()), int(((mine != other) & is_tie).sum())
