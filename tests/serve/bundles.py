"""Bundles from tiny models, in the layout that export writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.tiny import make_tiny
from tunesmith.core.canonical import canonical_json, file_id

LABELS = ("business", "politik", "dreck", "wirtschaft")
SYSTEM = "You are an expert. Answer with one label only: dreck, business, politik, wirtschaft."


def entries(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        p.name: {"sha256": file_id(p), "bytes": p.stat().st_size}
        for p in sorted(folder.iterdir())
        if p.name != "tunesmith.json"
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
    import torch

    from tunesmith.model.load import load_base
    from tunesmith.model.methods import catalog
    from tunesmith.model.methods.spec import MethodSpec, method_json
    from tunesmith.text.render import Renderer

    base = make_tiny(root / "base", family, **overrides)
    folder = root / "bundle"
    folder.mkdir()
    spec = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
    model = catalog.wrap(load_base(base, dtype="fp32"), spec, seed=0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in catalog.trainable_parameters(model).items():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    catalog.save(model, spec, folder, base="tiny")
    write(folder / "renderer.json", Renderer.load(base, system=system).describe())
    write(folder / "checkpoint.json", {"method": method_json(spec), "base": "tiny", "best_step": 1, "steps": 1})
    write(folder / "verdict.json", {"status": "pass", "goals": [], "advice": []})
    write_manifest(folder, base, kind=kind, labels=labels, system=system, generation=(max_new_tokens, temperature))
    return folder, base


def write_manifest(
    folder: Path, base: Path, *, kind: str, labels: tuple[str, ...], system: str, generation: tuple[int, float]
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
            "precision": "fp32",
            "generation": {"max_new_tokens": generation[0], "temperature": generation[1]},
            "verdict": {"status": "pass"},
            "files": entries(folder),
        },
    )


def write(path: Path, value: Any) -> None:
    path.write_bytes(json.dumps(json.loads(canonical_json(value)), indent=2).encode())
