"""`auto` values, resolved before anything is hashed and remembered as facts.

A timing can come out differently tomorrow; a model must not be retrained for that. So the first
answer on this kind of machine is noted in the ledger and used from then on.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, cast

from tunesmith.core.canonical import content_id
from tunesmith.flows.context import Context
from tunesmith.model.catalog import LocalModel

Precision = Literal["fp32", "bf16"]


def machine() -> dict[str, str]:
    """What a timing depends on."""
    return {"cpu": cpu_name(), "torch": version("torch"), "platform": platform.machine()}


def gpu_name(asked: str) -> str:
    """Of the GPU that `exec.device` stands for; "" for the CPU. Loads torch only where a driver is installed."""
    if asked == "cpu" or (asked == "auto" and not Path("/proc/driver/nvidia/version").exists()):
        return ""
    import torch

    from tunesmith.model.device import device_of

    device = device_of(asked)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else ""


def cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def remembered(context: Context, what: str, question: dict[str, Any], measure: Any) -> Any:
    """The noted answer to `question`, or `measure()` noted now."""
    value = known(context, what, question)
    if value is None:
        value, question = measure(), _on(context, question)
        key = content_id({"what": what, **question, **machine()})
        context.ledger.note("resolved", {"key": key, "what": what, "value": value, **question, **machine()})
    return value


def known(context: Context, what: str, question: dict[str, Any]) -> Any:
    """The noted answer, or None."""
    key = content_id({"what": what, **_on(context, question), **machine()})
    return next((note["value"] for note in context.ledger.notes("resolved") if note["key"] == key), None)


def _on(context: Context, question: dict[str, Any]) -> dict[str, Any]:
    """The question, and the GPU that answers it where there is one."""
    gpu = gpu_name(context.settings.exec.device)
    return question | ({"gpu": gpu} if gpu else {})


def precision(context: Context, base: LocalModel, dataset: dict[str, Any]) -> Precision:
    """As asked, or the faster of fp32 and bf16 by a three-step timing on this machine."""
    asked = context.settings.train.precision
    if asked != "auto":
        return asked
    if context.settings.train.weights == "bf16":
        return "bf16"

    def measure() -> Precision:
        if gpu_name(context.settings.exec.device):
            from tunesmith.model.device import device_of, has_bf16

            return "bf16" if has_bf16(device_of(context.settings.exec.device)) else "fp32"
        from tunesmith.train.precision import resolve_precision

        context.progress(0, 1, "timing fp32 against bf16")
        return resolve_precision(base.folder, typical_tokens(dataset))

    question = {"base": base.artifact.id, "tokens": round_up(typical_tokens(dataset))}
    return cast(Precision, remembered(context, "precision", question, measure))


def answer_precision(context: Context, base: LocalModel, dataset: dict[str, Any]) -> Precision:
    """As asked, or the precision that training uses: a model is judged as it was made."""
    asked = context.settings.evaluate.precision
    return precision(context, base, dataset) if asked == "auto" else asked


def micro_batch_tokens(context: Context, base: LocalModel, dataset: dict[str, Any]) -> int:
    def measure() -> int:
        settings = context.settings
        if gpu_name(settings.exec.device):
            from tunesmith.flows.steps import method_spec
            from tunesmith.model.device import device_of
            from tunesmith.train.device_memory import cuda_micro_batch

            context.progress(0, 1, "measuring the GPU's memory")
            return cuda_micro_batch(
                base.folder,
                dataset["tokens"]["longest"],
                method_spec(settings.train.method),
                precision(context, base, dataset),
                device_of(settings.exec.device),
                checkpointing=settings.exec.gradient_checkpointing,
            )
        from tunesmith.train.precision import resolve_micro_batch_tokens

        return resolve_micro_batch_tokens(base.folder, dataset["tokens"]["longest"], context.settings.train.method.kind)

    question = {
        "base": base.artifact.id,
        "longest": round_up(dataset["tokens"]["longest"]),
        "method": context.settings.train.method.kind,
    }
    return cast(int, remembered(context, "micro_batch_tokens", question, measure))


def typical_tokens(dataset: dict[str, Any]) -> int:
    tokens = dataset["tokens"]
    return round(tokens["prompt"]["mean"] + tokens["answer"]["mean"])


def round_up(tokens: int) -> int:
    """To the next power of two: a row more must not ask a new question."""
    return 1 << max(4, (tokens - 1).bit_length())
