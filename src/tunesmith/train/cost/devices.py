"""The GPUs a plan can be made for, from the package's dated file and the user's own. Loads no torch."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

from tunesmith.core import strict_yaml
from tunesmith.core.errors import InputError, Problem

TOP = ("date", "currency", "source", "gpus")
NUMBERS = ("memory_gib", "bf16_tflops", "fp32_tflops", "bandwidth_gb_s", "watts", "price")
EMPTY = ("bf16_tflops", "fp32_tflops", "price")  # may be null
NEEDED = ("memory_gib", "bandwidth_gb_s", "watts", "price")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    name: str
    memory_gib: float
    bf16_tflops: float | None  # dense; None: it has no bf16 units, so training is in fp32
    fp32_tflops: float | None
    bandwidth_gb_s: float
    watts: float
    price: float | None  # an hour; None: none is known
    price_source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What the files say, with where and when the prices are from."""

    date: str
    currency: str
    source: str
    gpus: dict[str, Gpu]

    def find(self, names: Sequence[str]) -> list[Gpu]:
        """By name, whatever its case and dashes. Raises InputError with the nearest names, for all that are unknown."""
        by_key = {_key(n): g for n, g in self.gpus.items()}
        problems = []
        for name in names:
            if _key(name) not in by_key:
                near = difflib.get_close_matches(_key(name), list(by_key), n=3, cutoff=0.4)
                near += [k for k in by_key if _key(name) in k and k not in near]
                hint = f"did you mean {', '.join(by_key[k].name for k in near[:3])}? " if near else ""
                fix = f"{hint}known are {', '.join(self.gpus)}; plan.prices may add others"
                problems.append(Problem(where=f"--gpu {name}", what="is not a GPU that is known here", fix=fix))
        if problems:
            raise InputError(problems)
        return [by_key[_key(n)] for n in names]


def read_prices(own: Path | None = None) -> Prices:
    """The package's file, with the user's on top of it: a GPU that both name takes what the user says.

    Raises InputError with every problem of the user's file, by line.
    """
    packaged = files("tunesmith.train.cost").joinpath("gpus.yaml").read_bytes()
    found = _read(packaged, "gpus.yaml", None)
    if own is None:
        return found
    try:
        data = own.read_bytes()
    except OSError as e:
        raise InputError(f"cannot be read: {e.strerror}", where=f"plan.prices: {own}", fix="check the path") from e
    return _read(data, str(own), found)


def _key(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _read(data: bytes, file: str, under: Prices | None) -> Prices:
    node, problems = strict_yaml.read(data, file)
    if node is None or not isinstance(node.value, dict):
        raise InputError(problems or [Problem(where=file, what="holds no mapping", fix="give date: and gpus:")])
    top = node.value
    for key, value in top.items():
        if key not in TOP:
            problems.append(_problem(value, f"{key} is not known here", f"known are {', '.join(TOP)}"))
    said = {k: top[k].value for k in TOP[:3] if k in top}
    for key, text in said.items():
        if not isinstance(text, str):
            problems.append(
                _problem(top[key], f"{key} must be a text", f'{key}: "2026-05-07"' if key == "date" else "")
            )
    if "date" not in top:
        problems.append(Problem(where=file, what="date is missing: prices change", fix='date: "2026-05-07"'))
    gpus = dict(under.gpus) if under else {}
    listed = top.get("gpus")
    if listed is None or not isinstance(listed.value, dict):
        problems.append(Problem(where=file, what="gpus is missing", fix="gpus: {L4: {price: 0.80}}"))
    else:
        for name, entry in listed.value.items():
            gpu = _gpu(name, entry, gpus, str(said.get("date", "")), problems)
            if gpu is not None:
                gpus[gpu.name] = gpu
    if problems:
        raise InputError(problems)
    return Prices(
        date=str(said["date"]),
        currency=str(said.get("currency", under.currency if under else "USD")),
        source=str(said.get("source", file)),
        gpus=gpus,
    )


def _gpu(name: str, entry: strict_yaml.Node, known: dict[str, Gpu], date: str, problems: list[Problem]) -> Gpu | None:
    """The GPU as one that is known already with these values changed, or a new one."""
    if not isinstance(entry.value, dict):
        problems.append(_problem(entry, f"{name} needs values", f"{name}: {{price: 0.80}}"))
        return None
    before, count = next((g for n, g in known.items() if _key(n) == _key(name)), None), len(problems)
    values = {k: n.value for k, n in entry.value.items()}
    for key, node in entry.value.items():
        if key in NUMBERS:
            empty = node.value is None and key in EMPTY
            is_number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
            if not empty and not (is_number and node.value > 0):
                problems.append(_problem(node, f"{name}: {key} is {node.value!r}, not a number above 0"))
        elif key != "price_source":
            near = difflib.get_close_matches(key, (*NUMBERS, "price_source"), n=1)
            fix = f"did you mean {near[0]}?" if near else f"known are {', '.join(NUMBERS)}"
            problems.append(_problem(node, f"{name}: {key} is not known here", fix))
    if before is None:
        missing = [k for k in NEEDED if k not in values]
        if values.get("bf16_tflops") is None and values.get("fp32_tflops") is None:
            missing.append("bf16_tflops")
        if missing:
            problems.append(_problem(entry, f"{name} is new here and lacks {', '.join(missing)}"))
    if len(problems) > count:
        return None
    numbers = {k: None if values[k] is None else float(values[k]) for k in NUMBERS if k in values}
    source = str(values.get("price_source", f"your file, {date}"))
    if before is not None:
        return replace(before, **numbers, **({"price_source": source} if "price" in values else {}))  # type: ignore[arg-type]
    empty_rates = {"bf16_tflops": None, "fp32_tflops": None}
    return Gpu(name=name, price_source=source, **(empty_rates | numbers))  # type: ignore[arg-type]


def _problem(node: strict_yaml.Node, what: str, fix: str = "") -> Problem:
    return Problem(where=str(node.key or node.place), what=what, fix=fix)
