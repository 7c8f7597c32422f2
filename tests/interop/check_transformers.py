"""transformers: loads our folders, answers as our runtime does, and what it saves again we read again."""

import shutil

import numpy as np

from models import BITNET, FOLDER_TARGET, HELD_OUT_TOKENS, TEXTS
from ours import perplexity

NAME = "transformers"
LOGITS_TOLERANCE = 1e-4
# Both round inputs to 8 bits by token; where a sum differs in its last bit, an input may round to its neighbor.
PERPLEXITY_TOLERANCE = 0.01


def check(table, ours, texts, models):
    """Every folder of ours, and the way back."""
    try:
        import torch
        import transformers  # noqa: F401
    except (ImportError, OSError) as error:
        table.not_checked(NAME, str(error))
        return
    torch.set_grad_enabled(False)
    for model in models:
        for scheme, package in model.folders.items():
            try:
                compare(table, ours, texts, model, scheme, package)
            except Exception as error:  # noqa: BLE001
                table.failed(NAME, model.name, scheme, "loads and answers", error)
        if "f32" not in model.folders:
            continue
        try:
            way_back(table, ours, texts, model)
        except Exception as error:  # noqa: BLE001
            table.failed(NAME, model.name, "f32", "saved in shards, read by us", error)


def load(package, scheme):
    """The model in 32 bits, whatever it is stored in; BitNet folders as they are, because their floats cannot be widened."""
    import torch
    from transformers import AutoModelForCausalLM

    dtype = "auto" if scheme == BITNET else torch.float32
    return AutoModelForCausalLM.from_pretrained(package, dtype=dtype, attn_implementation="eager").eval()


def logits_of(model, tokens):
    """After each token."""
    import torch

    return model(torch.tensor([tokens])).logits[0].float().numpy()


def compare(table, ours, texts, model, scheme, package):
    """One folder."""
    from transformers import AutoTokenizer, GenerationConfig

    tokens, our_logits = ours.tokens_of(package, texts.held_out, HELD_OUT_TOKENS)
    logits = logits_of(load(package, scheme), tokens)
    distance = float(np.abs(logits - our_logits).max())
    if scheme == BITNET:
        mine, theirs = perplexity(tokens, our_logits), perplexity(tokens, logits)
        note = f"{theirs:.4f} there, {mine:.4f} here; logits within {distance:.2g}"
        table.within(NAME, model.name, "BitNet", "perplexity, relative", abs(theirs / mine - 1), PERPLEXITY_TOLERANCE, note)
        return
    table.within(NAME, model.name, scheme, f"logits of {len(tokens)} tokens", distance, LOGITS_TOLERANCE)
    if scheme != "f32":
        return
    tokenizer = AutoTokenizer.from_pretrained(package)
    for number, (text, path) in enumerate(zip(TEXTS, texts.odd)):
        expected, _ = ours.tokens_of(package, path, HELD_OUT_TOKENS)
        found = tokenizer(text, add_special_tokens=False).input_ids[:HELD_OUT_TOKENS]
        table.equal(NAME, model.name, scheme, f"tokens of text {number}", found == expected)
        round_trip = tokenizer.decode(tokenizer(text, add_special_tokens=False).input_ids)
        table.equal(NAME, model.name, scheme, f"text {number} there and back", round_trip == text)
    generation = GenerationConfig.from_pretrained(package)
    table.equal(NAME, model.name, scheme, "generation config", generation.top_k == 40 and generation.do_sample)


def way_back(table, ours, texts, model):
    """Saved by transformers in shards, read by us, exported once more."""
    saved = ours.work / "saved" / model.name
    shutil.rmtree(saved, ignore_errors=True)
    load(model.folders["f32"], "f32").save_pretrained(saved, max_shard_size="200KB")
    shutil.copy(model.folders["f32"] / "tokenizer.json", saved)
    shards = len(list(saved.glob("*.safetensors")))
    output = ours.work / "packages" / f"{model.name}-again"
    ours.export(saved, FOLDER_TARGET, "f32", output, "transformers", data=texts.train)
    tokens, before = ours.tokens_of(model.folders["f32"], texts.held_out, HELD_OUT_TOKENS)
    _, after = ours.tokens_of(output, texts.held_out, HELD_OUT_TOKENS)
    note = f"{shards} shards"
    table.equal(NAME, model.name, "f32", "saved in shards, read by us", np.array_equal(before, after), note)
