"""Put together what ships, and write down the hash of every file in it.

The bundle keeps the checkpoint's own files, so that `PeftModel.from_pretrained(base, bundle)` (an
adapter) or `AutoModelForCausalLM.from_pretrained(bundle)` (full weights) work without Tunesmith.
The manifest, `tunesmith.json`, is written last: a folder without it is not a bundle.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, file_id, read_json, write_atomic
from tunesmith.core.stage import Workspace
from tunesmith.export.card import model_card
from tunesmith.export.stages import BundleInputs, BundleOutputs, BundleSpec

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
)
MANIFEST = "tunesmith.json"


def bundle(spec: BundleSpec, inputs: BundleInputs, work: Workspace) -> BundleOutputs:
    """A folder with weights or adapter, tokenizer, renderer, generation settings, card, verdict, manifest."""
    folder = work.scratch / "bundle"
    folder.mkdir()
    for source in sorted(p for p in inputs.checkpoint.rglob("*") if p.is_file()):
        target = folder / source.relative_to(inputs.checkpoint)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for name in TOKENIZER_FILES:
        if (inputs.base / name).exists() and not (folder / name).exists():
            shutil.copyfile(inputs.base / name, folder / name)
    shutil.copyfile(inputs.verdict / "verdict.json", folder / "verdict.json")

    renderer = read_json(folder / "renderer.json")
    dataset = read_json(inputs.dataset / "dataset.json")
    report = read_json(inputs.report / "report.json")
    verdict = read_json(inputs.verdict / "verdict.json")
    checkpoint = read_json(folder / "checkpoint.json")
    write_atomic(folder / "generation_config.json", pretty(generation_settings(spec, renderer)))
    card = model_card(spec, dataset, report, verdict, checkpoint)
    write_atomic(folder / "README.md", card.encode("utf-8"))
    write_atomic(folder / MANIFEST, pretty(manifest(spec, folder, dataset, verdict)))
    work.summarize(files=len(list(folder.iterdir())), verdict=verdict["status"])
    return BundleOutputs(bundle=folder)


def generation_settings(spec: BundleSpec, renderer: dict[str, Any]) -> dict[str, Any]:
    """In transformers' own format: greedy, ending at the stop token that training taught."""
    return {
        "do_sample": False,
        "eos_token_id": renderer["stop_id"],
        "max_new_tokens": spec.max_new_tokens,
    }


def manifest(spec: BundleSpec, folder: Path, dataset: dict[str, Any], verdict: dict[str, Any]) -> dict[str, Any]:
    files = {
        p.relative_to(folder).as_posix(): {"sha256": file_id(p), "bytes": p.stat().st_size}
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p != folder / MANIFEST  # a start that is a bundle has one of its own
    }
    return {
        "format": 1,
        "name": spec.name,
        "kind": spec.kind,
        "labels": dataset["labels"],
        "system": spec.system,
        "base": {"name": spec.base_name, "artifact": spec.base_artifact, "files": spec.base_files},
        "precision": spec.precision,
        "generation": {"max_new_tokens": spec.max_new_tokens, "temperature": 0.0},
        "verdict": {"status": verdict["status"]},
        "files": files,
    }


def pretty(value: Any) -> bytes:
    """Canonical content, laid out for people."""
    return json.dumps(json.loads(canonical_json(value)), indent=2, sort_keys=True, ensure_ascii=False).encode() + b"\n"
