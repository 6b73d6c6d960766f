"""Which layers an adapter goes on, from the names in the project file; every name that cannot be is refused."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from tunesmith.core.errors import InputError, Problem


def linear_layers(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Name → every linear layer but the output head, quantized ones included."""
    head = model.get_output_embeddings()
    return {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D) and m is not head}


def target_names(model: PreTrainedModel, targets: str | tuple[str, ...]) -> list[str]:
    """Last parts of module names. "all-linear" is every linear layer but the output head.

    Raises InputError for a target that the model lacks, that is not linear, or that is tied to another weight.
    """
    head = model.get_output_embeddings()
    body = linear_layers(model)
    if targets == "all-linear":
        return sorted({n.rsplit(".", 1)[-1] for n in body})
    names = [targets] if isinstance(targets, str) else list(targets)
    tied = {id(m) for m in (head, model.get_input_embeddings())} if model.config.tie_word_embeddings else set()
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear | Conv1D)}
    known = sorted({n.rsplit(".", 1)[-1] for n in linear})
    problems = []
    for name in names:
        hits = [m for n, m in model.named_modules() if n == name or n.endswith(f".{name}")]
        if not hits:
            what, fix = "no module of this model has this name", f"{_near(name, known)}it has {', '.join(known)}"
        elif any(id(m) in tied for m in hits):
            what = "is tied to the other embedding: a merged update would change both and give a silently wrong model"
            fix = "leave it out, or use all-linear"
        elif not all(isinstance(m, nn.Linear | Conv1D) for m in hits):
            what, fix = "is not a linear layer", f"use some of {', '.join(known)}"
        else:
            continue
        problems.append(Problem(where=f"train.method.targets: {name}", what=what, fix=fix))
    if problems:
        raise InputError(problems)
    return sorted(names)


def fits(pattern: str, name: str) -> bool:
    """A shell pattern for a module's or parameter's whole name or for its last parts."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")


def refuse_unmatched(field: str, patterns: Sequence[str], names: Sequence[str]) -> None:
    """Raises InputError naming every pattern that fits none of `names`."""
    known = sorted({part for n in names for part in n.split(".") if not part.isdecimal()})
    problems = [
        Problem(
            where=f"train.method.{field}: {p}",
            what="fits nothing here",
            fix=f"{_near(p, known)}a full name is for example {names[0]}",
        )
        for p in patterns
        if not any(fits(p, n) for n in names)
    ]
    if problems:
        raise InputError(problems)


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}? " if near else ""
