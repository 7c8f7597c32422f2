"""Folders of random weights, as transformers saves them: what an import starts from."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    BitNetConfig,
    BitNetForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

VOCABULARY = 768
POSITIONS = 256
END = "<|endoftext|>"
# A tokenizer learns its special tokens first.
ENDS = {"bos_token_id": 0, "eos_token_id": 0}


def write_tokenizer(folder, text):
    """A byte-level BPE in GPT-2's manner, learned from `text`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train([str(text)], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    fast.save_pretrained(folder)
    return tokenizer.get_vocab_size()


def write(folder, text, build):
    """Saves the model that `build` makes for a vocabulary's size, with the tokenizer."""
    size = write_tokenizer(folder, text)
    torch.manual_seed(0)
    build(size).save_pretrained(folder)


def gpt2_256(folder, text):
    """Widths that fill blocks of 256."""
    build = lambda size: GPT2LMHeadModel(
        GPT2Config(vocab_size=size, n_positions=POSITIONS, n_embd=256, n_layer=2, n_head=4, **ENDS)
    )
    write(folder, text, build)


def llama(folder, text, hidden, inner, is_tied):
    """Grouped heads, and another base of the rotary frequencies than the default."""
    build = lambda size: LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            max_position_embeddings=POSITIONS,
            hidden_size=hidden,
            intermediate_size=inner,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            rope_theta=50_000.0,
            tie_word_embeddings=is_tied,
            **ENDS,
        )
    )
    write(folder, text, build)


def bitnet(folder, text):
    """Sub-norms and the squared ReLU, transformers' own."""
    build = lambda size: BitNetForCausalLM(
        BitNetConfig(
            vocab_size=size,
            max_position_embeddings=POSITIONS,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
            **ENDS,
        )
    )
    write(folder, text, build)


# The second Llama's rows fill no block of 256, and some none of 32.
ALL = {
    "gpt2-256": gpt2_256,
    "llama-256": lambda folder, text: llama(folder, text, 256, 512, False),
    "llama-96": lambda folder, text: llama(folder, text, 96, 200, True),
    "bitnet-relu2": bitnet,
}
