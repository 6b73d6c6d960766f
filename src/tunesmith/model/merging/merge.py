"""A checkpoint into its base: one folder of plain weights, merged in fp32 and cast once.

`identity` says which base that must be.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import content_id, file_id, read_json
from tunesmith.core.errors import ModelError, Problem
from tunesmith.model.load import load_tuned
from tunesmith.model.methods import full
from tunesmith.model.methods.spec import METHODS, MethodSpec, new_tokens_of, read_method
from tunesmith.model.safety import scan

IDENTITY = "base_weights"  # the key in checkpoint.json
BESIDE_WEIGHTS = (".json", ".jinja", ".txt", ".model")


def identity(base: Path) -> str:
    """Of a model's weights and configuration, by the bytes of their files."""
    files = [base / "config.json", *sorted(base.glob("*.safetensors"))]
    return content_id({f.name: file_id(f) for f in files})


def refuse_other_base(base: Path, *checkpoints: Path) -> None:
    """Raises ModelError where a checkpoint names the base it was trained on and `base` has other bytes.

    Checkpoints written before the base was named are held to their tensors' names and shapes alone.
    """
    own, problems = "", []
    for checkpoint in checkpoints:
        facts: dict[str, Any] = read_json(checkpoint / "checkpoint.json")
        wanted = facts.get(IDENTITY)
        if wanted is None:
            continue
        own = own or identity(base)
        if wanted != own:
            what = f"was trained on other weights than {base.name}: {facts.get('base', 'its base')}, {wanted[:12]}"
            fix = "give the base model it was trained on; its update means nothing on another"
            problems.append(Problem(where=str(checkpoint), what=what, fix=fix))
    if problems:
        raise ModelError(problems)


def refuse_unmergeable(spec: MethodSpec, where: str) -> None:
    """Bottlenecks, prefixes and prompts are no change of the base's weights, so nothing can be exported as one."""
    if not METHODS[spec.kind].mergeable:
        raise ModelError(
            f"{spec.kind} is no change of the base's weights, so it cannot be merged, nor written as GGUF or GPTQ: "
            "those formats hold one set of plain weights",
            where=where,
            fix="serve the adapter beside its base, or train with kind: lora",
        )


def merge_checkpoint(base: Path, checkpoint: Path, out: Path, *, dtype: str) -> None:
    """Write a model folder that loads without the adapter. `out` must not exist.

    Agreement, held by tests: fp32 within 2e-6 of the trained model's logits on tiny models; bf16 is the fp32 result
    rounded once. Raises ModelError for another base, and for methods and layers that cannot be merged.
    """
    spec = read_method(checkpoint)
    refuse_unmergeable(spec, str(checkpoint))
    refuse_other_base(base, checkpoint)
    scan(base, follow_links=True)
    model = load_tuned(base, checkpoint, dtype=dtype)
    out.mkdir(parents=True)
    full.save(model, spec, out, base="")
    if new_tokens_of(checkpoint):
        shutil.copyfile(checkpoint / "tokenizer.json", out / "tokenizer.json")
    copy_beside(base, out)


def copy_beside(source: Path, out: Path) -> None:
    """Tokenizer, chat template and generation settings, where `out` has none of its own."""
    for file in sorted(source.iterdir()):
        skipped = file.name.endswith(".index.json") or file.name in ("checkpoint.json", "renderer.json")
        if file.suffix in BESIDE_WEIGHTS and not skipped and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
