"""Bundles from tiny models, in the layout that export writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.tiny import make_tiny
from tunesmith.core.canonical import canonical_json, file_id

LABELS = ("business", "politik", "dreck", "wirtschaft")
SYSTEM = "You are an expert. Answer with one label only: dreck, business, politik, wirtschaft."


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        p.relative_to(folder).as_posix(): {"sha256": file_id(p), "bytes": p.stat().st_size}
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p != folder / "tunesmith.json"
    }


def make_bundle(
    root: Path,
    *,
    kind: str = "chat",
    labels: tuple[str, ...] = (),
    system: str = SYSTEM,
    family: str = "llama",
    temperature: float = 0.0,
    max_new_tokens: int = 24,
    **overrides: object,
) -> tuple[Path, Path]:
    """(bundle folder, base folder): a LoRA adapter with random weights that do change the answers."""
    from tunesmith.model.methods.spec import MethodSpec

    base = make_tiny(root / "base", family, **overrides)
    spec = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
    folder = add_bundle(
        root / "bundle", base, spec, kind=kind, labels=labels, system=system, generation=(max_new_tokens, temperature)
    )
    return folder, base


def add_bundle(
    folder: Path,
    base: Path,
    spec: Any,
    *,
    kind: str = "chat",
    labels: tuple[str, ...] = (),
    system: str = SYSTEM,
    generation: tuple[int, float] = (24, 0.0),
    seed: int = 1,
    start: Path | None = None,
    precision: str = "fp32",
) -> Path:
    """One more adapter of that base, with random weights that change the answers."""
    import torch

    from tunesmith.model.load import load_base
    from tunesmith.model.merging.merge import IDENTITY, identity
    from tunesmith.model.methods import catalog
    from tunesmith.model.methods.spec import method_json
    from tunesmith.text.render import Renderer

    folder.mkdir(parents=True)
    model = catalog.wrap(load_base(base, dtype="fp32"), spec, seed=0)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in catalog.trainable_parameters(model).items():
        if spec.kind != "lora" or "lora_B" in name:
            parameter.data = parameter.data + torch.randn(parameter.shape, generator=generator) * 0.3
    catalog.save(model, spec, folder, base="tiny")
    if start is not None:
        shutil.copytree(start, folder / "start")
    write(folder / "renderer.json", Renderer.load(base, system=system).describe())
    facts = {"method": method_json(spec), "base": "tiny", "best_step": 1, "steps": 1, IDENTITY: identity(base)}
    write(folder / "checkpoint.json", facts)
    write(folder / "verdict.json", {"status": "pass", "goals": [], "advice": []})
    write_manifest(folder, base, kind=kind, labels=labels, system=system, generation=generation, precision=precision)
    return folder


def write_manifest(
    folder: Path,
    base: Path,
    *,
    kind: str,
    labels: tuple[str, ...],
    system: str,
    generation: tuple[int, float],
    precision: str = "fp32",
) -> None:
    write(
        folder / "tunesmith.json",
        {
            "format": 1,
            "name": "tiny",
            "kind": kind,
            "labels": list(labels),
            "system": system,
            "base": {"name": "tiny", "artifact": "0" * 64, "files": entries(base)},
            "precision": precision,
            "generation": {"max_new_tokens": generation[0], "temperature": generation[1]},
            "verdict": {"status": "pass"},
            "files": entries(folder),
        },
    )


def write(path: Path, value: Any) -> None:
    path.write_bytes(json.dumps(json.loads(canonical_json(value)), indent=2).encode())
