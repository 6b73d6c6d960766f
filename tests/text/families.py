"""Small tokenizers of the kinds that model families use, with their special tokens and a chat template each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.tiny import CORPUS

TEMPLATES = Path(__file__).parent.parent / "golden" / "templates"


@dataclass(frozen=True, kw_only=True)
class Family:
    template: str | None
    kind: str  # "byte level" (GPT-2, Llama 3, Qwen), "prefixed" (Llama 2, Phi 3), "unprefixed" (Gemma)
    specials: tuple[str, ...]
    bos: str | None
    eos: str
    pad: str | None = None
    eats_space: tuple[str, ...] = ()  # special tokens that swallow the white space after them
    extra: dict[str, Any] = field(default_factory=dict)  # of tokenizer_config.json


_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_LLAMA3 = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_PHI3 = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

FAMILIES = {
    "chatml": Family(
        template="chatml", kind="byte level", specials=_CHATML, bos=None, eos="<|im_end|>", pad=_CHATML[0]
    ),
    "chatml_own_system": Family(
        template="chatml_own_system", kind="byte level", specials=_CHATML, bos="<|im_start|>", eos="<|im_end|>"
    ),
    "llama2": Family(template="llama2", kind="prefixed", specials=(), bos="<s>", eos="</s>"),
    "llama3": Family(
        template="llama3", kind="byte level", specials=_LLAMA3, bos="<|begin_of_text|>", eos="<|end_of_text|>"
    ),
    "llama31": Family(
        template="llama31", kind="byte level", specials=_LLAMA3, bos="<|begin_of_text|>", eos="<|eot_id|>"
    ),
    "mistral_v1": Family(template="mistral_v1", kind="prefixed", specials=(), bos="<s>", eos="</s>"),
    "mistral_tekken": Family(
        template="mistral_tekken",
        kind="byte level",
        specials=("<s>", "</s>", "[INST]", "[/INST]"),
        bos="<s>",
        eos="</s>",
    ),
    "gemma": Family(
        template="gemma",
        kind="unprefixed",
        specials=("<start_of_turn>", "<end_of_turn>"),
        bos="<s>",
        eos="</s>",
        pad="<unk>",
    ),
    "phi3": Family(
        template="phi3",
        kind="prefixed",
        specials=("<|endoftext|>", *_PHI3),
        bos="<s>",
        eos="<|endoftext|>",
        eats_space=_PHI3,
    ),
    "phi4": Family(
        template="phi4",
        kind="byte level",
        specials=("<|endoftext|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
        bos="<|endoftext|>",
        eos="<|im_end|>",
    ),
    "zephyr": Family(template="zephyr", kind="prefixed", specials=(), bos="<s>", eos="</s>"),
    "thinking": Family(template="thinking", kind="byte level", specials=_CHATML, bos=None, eos="<|im_end|>"),
    "opens_with_thought": Family(
        template="opens_with_thought",
        kind="byte level",
        specials=("<|begin|>", "<|end|>", "<|User|>", "<|Assistant|>"),
        bos="<|begin|>",
        eos="<|end|>",
    ),
    "plain": Family(template=None, kind="byte level", specials=("<|endoftext|>",), bos=None, eos="<|endoftext|>"),
    "plain_prefixed": Family(template=None, kind="prefixed", specials=(), bos="<s>", eos="</s>"),
}


def make_family(folder: Path, name: str, *, template: str | None = None) -> Path:
    """A folder with tokenizer.json, tokenizer_config.json and chat_template.jinja; `template` replaces the family's."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    core = json.loads(_byte_level() if family.kind == "byte level" else _sentence_piece(family.kind == "prefixed"))
    vocabulary = core["model"]["vocab"]
    known = {token["content"] for token in core["added_tokens"]}
    for text in family.specials:
        if text in known:
            continue
        id = vocabulary.setdefault(text, len(vocabulary))
        core["added_tokens"].append(
            {
                "id": id,
                "content": text,
                "special": True,
                "normalized": False,
                "lstrip": False,
                "rstrip": text in family.eats_space,
                "single_word": False,
            }
        )
    (folder / "tokenizer.json").write_text(json.dumps(core), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": family.eos, **family.extra}
    for key, value in (("bos_token", family.bos), ("pad_token", family.pad)):
        if value:
            config[key] = value
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if template is None and family.template is not None:
        template = (TEMPLATES / f"{family.template}.jinja").read_text(encoding="utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@lru_cache
def _byte_level() -> str:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    # Llama 3's rule for runs of line ends, which lets text merge across a template's border
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    corpus = [*CORPUS, "\n\nassistant\n\nuser\n\n Hello you there\n\n\n", "Hi there. Hello you.\n\n"] * 2
    core.train_from_iterator(
        corpus,
        trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False),
    )
    return str(core.to_str())


@lru_cache
def _sentence_piece(prefixed: bool) -> str:
    """Byte fallback, spaces as ▁; prefixed: a space before every piece of text, as Llama 2 has it."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    core.train_from_iterator(
        [*CORPUS, "INST SYS Hello you. Hi there."] * 3,
        trainers.BpeTrainer(vocab_size=900, special_tokens=special, show_progress=False),
    )
    core.pre_tokenizer = None
    steps = [normalizers.Prepend("▁")] if prefixed else []
    core.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    strip = [decoders.Strip(" ", 1, 0)] if prefixed else []
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    value = json.loads(core.to_str())
    value["added_tokens"] = [t for t in value["added_tokens"] if t["id"] < 3]  # bytes are not special
    return json.dumps(value)
