"""Weights made of other weights, as a checkpoint that is evaluated, gated and bundled like a trained one.

whole    one adapter, with the start it stands on, into plain weights of the base's shape
others   several LoRA adapters of one base, or several whole models of one architecture, into one of their kind
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import InputError, ModelError, Problem
from tunesmith.core.stage import Workspace
from tunesmith.export.stages import MergeInputs, MergeOutputs, MergeSpec
from tunesmith.model.merging.adapters import combine_adapters
from tunesmith.model.merging.arithmetic import Recipe
from tunesmith.model.merging.merge import merge_checkpoint, refuse_other_base, refuse_unmergeable
from tunesmith.model.merging.models import combine_models
from tunesmith.model.methods.spec import MethodSpec, method_json, new_tokens_of, read_method

ADAPTERS = ("lora", "qlora")


def merge(spec: MergeSpec, inputs: MergeInputs, work: Workspace) -> MergeOutputs:
    """Raises InputError for what cannot be merged or combined, before any weight is read."""
    checkpoints = [inputs.checkpoints[k] for k in sorted(inputs.checkpoints, key=int)]
    refuse(spec, checkpoints)
    refuse_other_base(inputs.base, *(c for c in checkpoints if read_method(c).kind != "full"))
    out = work.scratch / "checkpoint"
    work.progress(0, 1, f"merge: {spec.how}")
    facts: dict[str, Any] = {}
    if spec.how == "whole":
        merge_checkpoint(inputs.base, checkpoints[0], out, dtype=spec.precision)
        _describe(out, spec, checkpoints)
    elif read_method(checkpoints[0]).kind == "full":
        delta = spec.how in ("ties", "dare")  # of what training added to the base
        combine_models(checkpoints, out, recipe(spec), base=inputs.base if delta else None)
        _describe(out, spec, checkpoints)
    else:
        combined = combine_adapters(checkpoints, out, recipe(spec), rank=spec.rank, renderer_of=spec.prompts_of)
        facts = asdict(combined)
    work.summarize(how=spec.how, of=len(checkpoints), **facts)
    return MergeOutputs(checkpoint=out)


def recipe(spec: MergeSpec) -> Recipe:
    """In the words of model/merging. `average` of weights 1/n and `svd` are both sums; svd is cut to a rank."""
    if spec.how == "ties":
        return Recipe(method="ties", weights=spec.weights, keep=spec.density)
    if spec.how == "dare":
        return Recipe(method="dare", weights=spec.weights, drop=1 - spec.density, seed=spec.seed)
    return Recipe(method="slerp" if spec.how == "slerp" else "linear", weights=spec.weights)


def refuse(spec: MergeSpec, checkpoints: Sequence[Path]) -> None:
    """Everything that can be said from the checkpoints' few facts. Raises InputError with all of it."""
    methods = [read_method(c) for c in checkpoints]
    problems: list[Problem] = []

    def problem(where: str, what: str, fix: str = "") -> None:
        problems.append(Problem(where=where, what=what, fix=fix))

    for method, folder in zip(methods, checkpoints, strict=True):
        try:
            refuse_unmergeable(method, str(folder))
        except ModelError as e:
            problems += e.problems
    kinds = sorted({m.kind for m in methods})
    if spec.how == "whole":
        if len(checkpoints) != 1:
            problem(
                "checkpoints", f"are {len(checkpoints)}: one is merged into its base", "--how average combines several"
            )
        elif kinds == ["full"]:
            problem(str(checkpoints[0]), "is whole already", "use it as it is")
    elif not problems:
        if len(checkpoints) < 2:
            problem("checkpoints", "is one: there is nothing to combine it with", "give two, or --how whole")
        if len(spec.weights) != len(checkpoints):
            problem("weights", f"are {len(spec.weights)} for {len(checkpoints)} checkpoints", "one for each")
        if len(kinds) > 1:
            problem(
                "checkpoints",
                f"are {' and '.join(kinds)}: only one kind goes together",
                "merge each with --how whole first",
            )
        elif kinds == ["full"]:
            if spec.how == "svd":
                problem("how", "svd cuts adapters to a rank, and these are whole models", "--how average")
        elif kinds[0] not in ADAPTERS:
            problem(
                "checkpoints", f"are {kinds[0]}: only LoRA adapters are updates that add up", "--how whole for each"
            )
        elif spec.how == "slerp":
            problem("how", "slerp joins whole models, and these are adapters", "merge each with --how whole first")
        elif spec.how == "svd" and not spec.rank:
            problem("rank", "is what svd cuts to, and none is given", "--rank 16")
        if kinds == ["full"] and spec.prompts_of is None and _renderers(checkpoints) > 1:
            problem(
                "checkpoints",
                "were trained with different prompts (renderer.json)",
                "--prompts-of 1: those of the first",
            )
    if spec.prompts_of is not None and not 0 <= spec.prompts_of < len(checkpoints):
        problem("prompts_of", f"there is no checkpoint {spec.prompts_of + 1}", f"1 to {len(checkpoints)}")
    if problems:
        raise InputError(problems)


def _renderers(checkpoints: Sequence[Path]) -> int:
    return len({(c / "renderer.json").read_bytes() for c in checkpoints if (c / "renderer.json").is_file()})


def _describe(out: Path, spec: MergeSpec, checkpoints: Sequence[Path]) -> None:
    """What makes a folder of weights a checkpoint: its method, what it was made of, and its renderer."""
    whose = checkpoints[spec.prompts_of or 0]
    of = [{k: v for k, v in read_json(c / "checkpoint.json").items() if k in ("method", "base")} for c in checkpoints]
    method = MethodSpec(kind="full", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")
    facts: dict[str, Any] = {
        "method": method_json(method),
        "base": spec.base,
        "merged": {"how": spec.how, "weights": spec.weights, "density": spec.density, "seed": spec.seed, "of": of},
    }
    if tokens := new_tokens_of(whose):
        facts["new_tokens"] = tokens
    write_atomic(out / "checkpoint.json", canonical_json(facts) + b"\n")
    if (whose / "renderer.json").is_file():
        write_atomic(out / "renderer.json", (whose / "renderer.json").read_bytes())
