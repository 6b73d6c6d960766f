"""Tiny real models for tests: a trained byte-level BPE tokenizer, a ChatML template, random weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CORPUS = [
    "system user assistant tool",
    "Fracture of shaft of left tibia. Diseases of the circulatory system. Neoplasms. Injury, poisoning.",
    "You are an expert. Answer with one label only: sports, business, politik, wirtschaft.",
    "Der Ball ist rund und das Spiel dauert neunzig Minuten. Die Aktie fiel um drei Prozent.",
    "the quick brown fox jumps over the lazy dog 0123456789 ()[]{}<>|_-+=*&^%$#@!?",
] * 4


def make_tokenizer(folder: Path, vocab: int = 512) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    core.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)


def make_tiny(folder: Path, family: str = "llama", *, seed: int = 0, **overrides: object) -> Path:
    """A model folder in the Hugging Face layout, some 100 kB, fp32 safetensors. Tied embeddings, like SmolLM2."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder)
    size = len(AutoTokenizer.from_pretrained(folder))
    shape: dict[str, object] = {
        "vocab_size": size,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }
    if family == "gpt2":
        shape = {
            "vocab_size": size,
            "n_embd": 48,
            "n_layer": 3,
            "n_head": 6,
            "n_positions": 512,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
        }
    if family in ("gemma", "gemma2", "gemma3_text", "qwen3"):
        shape["head_dim"] = 8
    shape.update(overrides)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **shape), dtype=torch.float32)
    model.save_pretrained(folder)
    return folder


def move(parameters: Mapping[str, Any]) -> None:
    """Seeded noise on every trained weight, in place of a training."""
    import torch

    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.05, generator=generator))
