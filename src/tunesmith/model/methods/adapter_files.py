"""An adapter's two files in PEFT's layout, written to equal bytes for equal weights and read strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tunesmith.core.errors import ModelError, Problem
from tunesmith.model.safety import scan

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# What may differ between two configs that mean the same adapter: where it came from, what wrote it, how it
# began; and the names of its layers, which the names of its tensors check one by one.
FACTS = {
    "auto_mapping",
    "base_model_name_or_path",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "peft_version",
    "revision",
    "target_modules",
    "task_type",
}


def write(folder: Path, state: Mapping[str, Tensor], config: Any, *, base: str) -> None:
    """adapter_model.safetensors and adapter_config.json, as PEFT reads them. `config` is a PeftConfig."""
    save_file(
        {n: t.detach().cpu().contiguous() for n, t in sorted(state.items())},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    write_config(folder, config.to_dict(), base=base)


def write_config(folder: Path, config: dict[str, Any], *, base: str) -> None:
    values = config | {"base_model_name_or_path": base, "inference_mode": True}
    values["peft_type"] = str(getattr(values["peft_type"], "value", values["peft_type"]))
    for key in ("target_modules", "feedforward_modules"):
        if values.get(key) and not isinstance(values[key], str):  # a pattern
            values[key] = sorted(values[key])
    body = json.dumps(values, indent=2, sort_keys=True, default=_plain)
    (folder / CONFIG).write_text(body + "\n", encoding="utf-8")


def read(checkpoint: Path, own: Mapping[str, Tensor], config: Any) -> dict[str, Tensor]:
    """The saved tensors. `own` and `config` are of an adapter just made from checkpoint.json's method.

    Raises ModelError for unsafe files, a config that means another adapter, and any tensor that is missing,
    left over or of another shape.
    """
    scan(checkpoint, follow_links=True, adapter=True)
    _check_config(checkpoint / CONFIG, config)
    state: dict[str, Tensor] = load_file(checkpoint / WEIGHTS)
    wrong = sorted(set(own) ^ set(state)) or sorted(n for n in own if own[n].shape != state[n].shape)
    if wrong:
        raise ModelError(
            f"{len(wrong)} tensors do not fit the base model, first {wrong[0]}",
            where=str(checkpoint / WEIGHTS),
            fix="load it on the model it was trained on",
        )
    return state


def _check_config(path: Path, config: Any) -> None:
    """Refuse an adapter_config.json that means another adapter than the one we would build."""
    found: dict[str, Any] = json.loads(path.read_bytes())
    want = json.loads(json.dumps(config.to_dict(), default=_plain))
    problems = [
        Problem(
            where=f"{path}: {key}",
            what=f"is {value!r}, but checkpoint.json says {want.get(key)!r}",
            fix="restore both files as they were written, or train the adapter here",
        )
        for key, value in sorted(found.items())
        if key not in FACTS and _ordered(value) != _ordered(want.get(key))
    ]
    if problems:
        raise ModelError(problems)


def _ordered(value: Any) -> Any:
    """Lists of names come from sets; PEFT writes nothing as null, {} or []."""
    return (sorted(value, key=str) if isinstance(value, list) else value) or None


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(getattr(value, "value", value))
