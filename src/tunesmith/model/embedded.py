"""Models that travel inside a Python package as a GGUF file, converted once to fp32 safetensors.

Read with the `gguf` package and written here, not through transformers: the bytes depend on no version
of transformers, so their hashes can be pinned, and its conversion leaves out the pre-tokenizer that
splits numbers into digits.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import file_id
from tunesmith.core.errors import MissingExtra, ModelError
from tunesmith.model.cache import Progress

LLAMA_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # GGUF's token type for special tokens


def packaged_file(package: str, file: str, sha256: str, fix: str) -> Path:
    """The GGUF inside an installed package, found without importing it and verified by hash."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra(f"the package that carries this model, {package}, is not installed", fix=fix)
    path = Path(next(iter(spec.submodule_search_locations))) / file
    if not path.is_file():
        raise ModelError("is missing from the installed package", where=str(path), fix=fix)
    found = file_id(path)
    if found != sha256:
        raise ModelError(
            f"has SHA-256 {found[:16]}…, not {sha256[:16]}… as the catalogue says: damaged or another version",
            where=str(path),
            fix=fix,
        )
    return path


def convert_llama(source: Path, target: Path, progress: Progress, fix: str) -> None:
    """A Llama-family GGUF with a byte-level BPE tokenizer → a Hugging Face folder, fp32."""
    try:
        from gguf import GGUFReader
        from gguf.quants import dequantize
    except ImportError as e:
        raise MissingExtra("converting the embedded model needs the package gguf", fix=fix) from e
    import numpy as np
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    facts: dict[str, Any] = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    heads, kv_heads = facts["llama.attention.head_count"], facts["llama.attention.head_count_kv"]
    tensors: dict[str, Any] = {}
    for i, tensor in enumerate(reader.tensors):
        progress(i, len(reader.tensors), "converting the embedded model")
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        name = hf_name(tensor.name)
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            weight = unpermute(weight, heads if name.endswith("q_proj.weight") else kv_heads)
        tensors[name] = np.ascontiguousarray(weight)
    progress(len(reader.tensors), len(reader.tensors), "writing the converted model")
    save_file(dict(sorted(tensors.items())), target / "model.safetensors", metadata={"format": "pt"})
    write_json(target / "config.json", llama_config(facts))
    write_json(target / "tokenizer.json", bpe_tokenizer(facts))
    write_json(target / "tokenizer_config.json", tokenizer_config(facts))
    special = {k: facts[f"tokenizer.ggml.{k}_token_id"] for k in ("bos", "eos")}
    write_json(
        target / "generation_config.json",
        {"bos_token_id": special["bos"], "eos_token_id": special["eos"], "pad_token_id": special["eos"]},
    )
    (target / "chat_template.jinja").write_text(facts["tokenizer.chat_template"], encoding="utf-8")


def hf_name(name: str) -> str:
    """blk.3.attn_q.weight → model.layers.3.self_attn.q_proj.weight"""
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{LLAMA_NAMES[part]}.{kind}"


def unpermute(weight: Any, heads: int) -> Any:
    """GGUF interleaves the two halves of a head's rotary dimensions; transformers keeps them apart."""
    rows = weight.shape[0]
    return weight.reshape(heads, rows // heads // 2, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def llama_config(facts: dict[str, Any]) -> dict[str, Any]:
    theta = float(facts["llama.rope.freq_base"])
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "dtype": "float32",
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "hidden_act": "silu",
        "hidden_size": facts["llama.embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": facts["llama.feed_forward_length"],
        "max_position_embeddings": facts["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        # GGUF holds the float32 nearest to the published value
        "rms_norm_eps": float(f"{facts['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"},
        "rope_theta": theta,  # what transformers 4 reads
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": facts["llama.vocab_size"],
    }


def bpe_tokenizer(facts: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json of a byte-level BPE. "smollm" splits numbers into digits first, as llama.cpp does for it."""
    if facts["tokenizer.ggml.pre"] != "smollm":
        raise ModelError(f"the pre-tokenizer {facts['tokenizer.ggml.pre']!r} of this GGUF file is not known here")
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    kinds: list[int] = facts["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t, **plain} for i, t in enumerate(tokens) if kinds[i] == CONTROL],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {t: i for i, t in enumerate(tokens)},
            "merges": [m.split(" ") for m in facts["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    names = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    special = {f"{ours}_token": tokens[facts[f"tokenizer.ggml.{theirs}_token_id"]] for ours, theirs in names.items()}
    return {
        "clean_up_tokenization_spaces": False,
        "model_max_length": facts["llama.context_length"],
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
    }


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
