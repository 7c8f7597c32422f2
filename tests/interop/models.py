"""Small models, made by our command line: some start from folders that transformers wrote."""

from dataclasses import dataclass, field
from pathlib import Path

HELD_OUT_TOKENS = 200
GGUF_TARGET, FOLDER_TARGET = "cpu-x86-64", "gpu-high"
# Our name of a scheme; the name of its main type in GGUF.
GGUF_TYPES = {
    "f32": "F32",
    "f16": "F16",
    "bf16": "BF16",
    "int8": "Q8_0",
    "int4": "Q4_0",
    "int4-k": "Q4_K",
    "ternary": "TQ2_0",
    "ternary-base3": "TQ1_0",
}
# Ternary matrices with token embedding and head in another type, for models whose rows fill blocks of 256.
TABLE_TYPES = {
    "ternary with Q3_K": ("ternary", "int3-k"),
    "ternary-base3 with Q3_K": ("ternary-base3", "int3-k"),
    "ternary-base3 with Q4_K": ("ternary-base3", "int4-k"),
}
FOLDER_TYPES = ["f32", "bf16", "f16"]
# Ternary in the layout of transformers' BitNet integration, which has linear layers only.
BITNET = "ternary"
# Scripts of several kinds, a character outside the first plane, digits, spaces in a row, line ends.
TEXTS = [
    "Once upon a time, there were 1234 small models; they didn't know much.",
    "Größe, naïveté, señor: Übermut tut selten gut.",
    "Привет, мир! Καλημέρα κόσμε. こんにちは世界。",
    "a  b   c\n\n\td\r\ne \U0001f600 \u200d x",
    "   leading and trailing   ",
]


def type_name(scheme):
    """What a GGUF file is called in the table: its main type, and its tables' where those were asked for."""
    matrices, _, tables = scheme.partition(" with ")
    return f"{GGUF_TYPES[matrices]}, {tables}" if tables else GGUF_TYPES[matrices]


@dataclass
class Model:
    """A model with its packages."""

    name: str
    run: Path
    gguf_types: list = field(default_factory=lambda: list(GGUF_TYPES))
    folder_types: list = field(default_factory=lambda: FOLDER_TYPES)
    table_types: dict = field(default_factory=dict)
    # Files by scheme.
    gguf: dict = field(default_factory=dict)
    folders: dict = field(default_factory=dict)


class Texts:
    """Text to learn from, text held out, and the odd texts one by one."""

    def __init__(self, root, work):
        sources = sorted((root / "docs").glob("*.md")) + [root / "README.md", root / "CHANGELOG.md"]
        train = "\n\n".join(path.read_text(encoding="utf-8") for path in sources)
        held_out = (root / "engine" / "README.md").read_text(encoding="utf-8")
        odd = "\n".join(TEXTS)
        self.train = work / "train.txt"
        self.held_out = work / "held-out.txt"
        # Every character that is asked about must have been seen by a vocabulary of characters.
        self.train.write_text(train + "\n\n" + (odd + "\n") * 20, encoding="utf-8")
        self.held_out.write_text(odd + "\n" + held_out, encoding="utf-8")
        self.odd = []
        for number, text in enumerate(TEXTS):
            path = work / f"text-{number}.txt"
            path.write_bytes(text.encode("utf-8"))
            self.odd.append(path)


def make(ours, texts, has_transformers):
    """Trains each model and exports it in every type."""
    models = [byte_model(ours, texts), bitnet(ours, texts)]
    if has_transformers:
        import seeds

        for name, write in seeds.ALL.items():
            folder = ours.work / "seeds" / name
            write(folder, texts.train)
            tables = TABLE_TYPES if name.endswith("-256") else {}
            models.append(Model(name, fine_tuned(ours, texts, name, folder), table_types=tables))
    for model in models:
        for scheme in model.gguf_types:
            output = ours.work / "packages" / f"{model.name}-{scheme}-gguf"
            model.gguf[scheme] = ours.export(model.run, GGUF_TARGET, scheme, output, "gguf")
        for name, (scheme, tables) in model.table_types.items():
            output = ours.work / "packages" / f"{model.name}-{scheme}-{tables}-gguf"
            # The head of GPT-2 is its token embedding.
            head = ["--head-type", tables] if model.name.startswith("llama") else []
            options = ["--embedding-type", tables, *head]
            model.gguf[name] = ours.export(model.run, GGUF_TARGET, scheme, output, "gguf", options=options)
        for scheme in model.folder_types:
            output = ours.work / "packages" / f"{model.name}-{scheme}"
            model.folders[scheme] = ours.export(model.run, FOLDER_TARGET, scheme, output, "transformers")
        if has_transformers and model.name.startswith(("llama", "bitnet")):
            output = ours.work / "packages" / f"{model.name}-bitnet"
            model.folders[BITNET] = ours.export(model.run, FOLDER_TARGET, BITNET, output, "transformers")
    return models


def byte_model(ours, texts):
    """A GPT-2 of our own on single bytes, from a seed."""
    run = ours.train(
        *("--preset", "shakespeare-gpt2-char", "--data", texts.train, "--tokenizer", "byte", "--tier", "vanilla"),
        *("--steps", 20, "--batch-size", 8, "--name", "gpt2-bytes"),
    )
    return Model("gpt2-bytes", run)


def bitnet(ours, texts):
    """A Llama with sub-norms, as llama.cpp's architecture "bitnet" has it."""
    run = ours.train(
        *("--preset", "shakespeare-gpt2-char", "--model", "bitnet-11m", "--data", texts.train, "--tokenizer", "byte"),
        *("--tier", "vanilla", "--steps", 5, "--batch-size", 4, "--name", "bitnet-11m"),
    )
    # Large for a test: the other types hold a BitNet's tensors as they hold a Llama's.
    return Model("bitnet-11m", run, gguf_types=["f32", "ternary", "ternary-base3"], folder_types=[])


def fine_tuned(ours, texts, name, folder):
    """A model that starts from the weights in `folder`, one epoch long."""
    size, length = 8, 128
    num_tokens = count_tokens(folder, texts.train)
    return ours.train(
        *("--preset", "shakespeare-gpt2-char", "--data", texts.train, "--from", folder, "--tier", "vanilla"),
        *("--optimizer", "adamw", "--learning-rate", 1e-3, "--steps", max(1, num_tokens // (size * length))),
        *("--batch-size", size, "--sequence-length", length, "--name", name),
    )


def count_tokens(folder, path):
    """Tokens of a text by the folder's tokenizer."""
    from tokenizers import Tokenizer

    return len(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(path.read_text(encoding="utf-8")).ids)
