"""What training makes a model forget: general texts and tasks, scored at every validation, and a budget for it.

    forgetting = Forgetting(probes, budget, work.state)
    forgetting.read(step, forward, max_tokens=4096)     values for the metric log
    forgetting.over                                     the last reading is past the budget
    forgetting.replay_from                              the step at which replay began, or None

A probe set is a prepared data set of the user's own: texts, tasks with answers, requests that must be refused. Each
file of it is a probe; its loss is the mean over its trained tokens (for tasks and refusals: of the answers). What is
forgotten is the largest relative rise of a probe's loss over step 0, before training: one file of refusals cannot
hide behind a large one of texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import DataError, require
from tunesmith.core.nouns import Row
from tunesmith.model.flat_layout import Document
from tunesmith.model.windows import text_windows
from tunesmith.text.render import Renderer
from tunesmith.train.batches import read_rows, render_rows, split
from tunesmith.train.forward import Forward
from tunesmith.train.validate import chosen_rows

FILE = "forgetting.json"  # beside the training state
LEAST = 1e-3  # nats a token: a rise over less is no share of anything that matters


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    max_loss_rise: float | None  # relative: 0.05 is five per cent more nats a token; None: scored, and no limit
    past: Literal["stop", "replay"]
    replay_share: float  # of a step's tokens, once replay has begun

    def __post_init__(self) -> None:
        if self.max_loss_rise is not None:
            require(self.max_loss_rise > 0, "max_loss_rise", self.max_loss_rise, "above 0")
        require(self.past in ("stop", "replay"), "past_budget", self.past, "stop or replay")
        require(0 < self.replay_share < 1, "replay_share", self.replay_share, "between 0 and 1")


class Probes:
    """The rows that are scored, by file: the same at every validation."""

    def __init__(self, dataset: Path, renderer: Renderer, *, max_tokens: int, rows: int, seed: int):
        """`dataset`: a prepared data set whose validation rows are the probes, at most `rows` of each file."""
        by_file: dict[str, list[Row]] = {}
        for row in read_rows(dataset / "validation.jsonl"):
            by_file.setdefault(row.file, []).append(row)
        if not by_file:
            raise DataError(
                "the general data has no validation rows to score", where="train.general", fix="give it more rows"
            )
        chosen = {file: chosen_rows(found, rows, seed) for file, found in sorted(by_file.items())}
        self.documents = {file: probe_documents(found, renderer, max_tokens) for file, found in chosen.items()}
        self.bytes = {file: _text_bytes(found) for file, found in chosen.items()}  # 0 where a file holds tasks

    def losses(self, forward: Forward, *, max_tokens: int) -> dict[str, float]:
        """Nats per trained token of each file, the mean over its rows' tokens."""
        return {
            file: nll_sum(forward, found, max_tokens=max_tokens) / self._tokens(file)
            for file, found in self.documents.items()
        }

    def bits_per_byte(self, losses: Mapping[str, float]) -> float | None:
        """Of the files of texts together; None where there are none."""
        texts = [file for file, size in self.bytes.items() if size]
        if not texts:
            return None
        nats = sum(losses[file] * self._tokens(file) for file in texts)
        return nats / math.log(2) / sum(self.bytes[file] for file in texts)

    def _tokens(self, file: str) -> float:
        return sum(d.supervised for d in self.documents[file])


def probe_documents(rows: Sequence[Row], renderer: Renderer, max_tokens: int) -> list[Document]:
    """Texts in windows; conversations whole, with their answers trained. Weights are 1: a probe is no training row."""
    plain = [r for r in rows if not r.messages]
    asked = [r for r in rows if r.messages]
    windows = text_windows(
        renderer.tokenizer,
        [r.target for r in plain],
        size=max_tokens,
        keys=[r.id for r in plain],
        weights=[1.0] * len(plain),
        end=False,
    )
    documents = [w for of_text in windows for w in of_text if any(w.trained)]
    if asked:
        documents += render_rows(asked, renderer, max_tokens)
    return documents


def _text_bytes(rows: Sequence[Row]) -> int:
    return 0 if any(r.messages for r in rows) else sum(len(r.target.encode()) for r in rows)


def nll_sum(forward: Forward, documents: Sequence[Document], *, max_tokens: int) -> float:
    """Nats over all trained tokens; `max_tokens` of one forward pass change nothing but rounding."""
    total = 0.0
    with torch.no_grad():
        for micro in split(documents, max_tokens):
            total += forward.nll_sum(micro, step=None).item()
    return total


class Forgetting:
    """Every reading so far. It is kept beside the training state, so that a resumed run knows what step 0 was."""

    def __init__(self, probes: Probes, budget: Budget, state: Path):
        self._probes, self._budget, self._path = probes, budget, state / FILE
        self.readings: dict[int, dict[str, float]] = {}  # step -> file -> nats a token

    def resume(self, step: int) -> None:
        """Readings up to `step`; later ones belong to steps that will be done again."""
        if self._path.exists():
            kept: Mapping[str, dict[str, float]] = read_json(self._path, dict[str, dict[str, float]])
            self.readings = {
                int(s): losses for s, losses in sorted(kept.items(), key=lambda k: int(k[0])) if int(s) <= step
            }

    def read(self, step: int, forward: Forward, *, max_tokens: int) -> dict[str, Any]:
        """Score the probes after `step` steps; step 0 comes before training and is what the others are held against.
        Returns what the metric log should say. Call before the training state of this step is saved."""
        self.readings[step] = self._probes.losses(forward, max_tokens=max_tokens)
        write_atomic(self._path, canonical_json({str(s): losses for s, losses in self.readings.items()}))
        losses = self.readings[step]
        found: dict[str, Any] = {"general_loss": sum(losses.values()) / len(losses)}  # the mean over the files
        if (bits := self._probes.bits_per_byte(losses)) is not None:
            found["general_bits_per_byte"] = bits
        return {**found, "loss_rise": self.rise(step), "most_forgotten": self.worst(step)}

    def rise(self, step: int) -> float:
        """The largest relative rise of a probe's loss since step 0; negative where all fell."""
        return max(self._rises(step).values())

    def worst(self, step: int) -> str:
        """The file that it is of."""
        rises = self._rises(step)
        return max(rises, key=lambda file: rises[file])

    def within(self, step: int) -> bool:
        return self._budget.max_loss_rise is None or self.rise(step) <= self._budget.max_loss_rise

    @property
    def over(self) -> bool:
        return bool(self.readings) and not self.within(max(self.readings))

    @property
    def stops(self) -> bool:
        return self.over and self._budget.past == "stop"

    @property
    def replay_from(self) -> int | None:
        """The first step whose reading was past the budget, where that means replay."""
        past = [s for s in sorted(self.readings) if not self.within(s)]
        return past[0] if past and self._budget.past == "replay" else None

    def facts(self, kept: int) -> dict[str, Any]:
        """For the record of a run whose weights of step `kept` were kept."""
        return {
            "max_loss_rise": self._budget.max_loss_rise,
            "past_budget": self._budget.past,
            "loss_rise": self.rise(kept),
            "most_forgotten": self.worst(kept),
            "general_loss_before": self.readings[0],
            "general_loss": self.readings[kept],
            "over_at": [s for s in sorted(self.readings) if not self.within(s)],
            "replay_from": self.replay_from,
        }

    def _rises(self, step: int) -> dict[str, float]:
        before = self.readings[0]
        return {file: loss / max(before[file], LEAST) - 1 for file, loss in self.readings[step].items()}
