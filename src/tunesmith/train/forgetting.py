"""What training makes a model forget: general texts and tasks, scored at every validation, and a budget for it.

    forgetting = Forgetting(probes, budget, work.state)
    forgetting.read(step, model, forward, max_tokens=4096)     values for the metric log
    forgetting.over                                     the last reading is past the budget
    forgetting.replay_from                              the step at which replay began, or None

A probe set is a prepared data set of the user's own: texts, tasks with answers, requests that must be refused. Each
file of it is a probe; its loss is the mean over its trained tokens (for tasks and refusals: of the answers). What is
forgotten is the largest relative rise of a probe's loss over step 0, before training: one file of refusals cannot
hide behind a large one of texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from tunesmith.core.canonical import canonical_json, read_json, write_atomic
from tunesmith.core.errors import DataError, InputError, Problem, require
from tunesmith.core.nouns import Row
from tunesmith.model.answer import LanguageModel
from tunesmith.model.flat_layout import Document
from tunesmith.model.windows import text_windows
from tunesmith.text.render import Renderer
from tunesmith.train.batches import read_rows, render_rows, split
from tunesmith.train.forward import Forward
from tunesmith.train.likeliest import likeliest_labels
from tunesmith.train.validate import chosen_rows

FILE = "forgetting.json"  # beside the training state
MOST_LABELS = 32  # more different answers are no labels
LEAST = 1e-3  # nats a token: a rise over less is no share of anything that matters


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    max_loss_rise: float | None  # relative: 0.05 is five per cent more nats a token; None: scored, and no limit
    past: Literal["stop", "replay"]
    replay_share: float  # of a step's tokens, once replay has begun
    refusals: str = ""  # a pattern of answers that are refusals; "": none are counted

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
        self._renderer = renderer
        self._asked = {file: [r for r in found if r.messages] for file, found in chosen.items()}
        self.documents = {file: probe_documents(found, renderer, max_tokens) for file, found in chosen.items()}
        self.bytes = {file: _text_bytes(found) for file, found in chosen.items()}  # 0 where a file holds tasks

    def losses(self, forward: Forward, *, max_tokens: int) -> dict[str, float]:
        """Nats per trained token of each file, the mean over its rows' tokens."""
        return {
            file: nll_sum(forward, found, max_tokens=max_tokens) / self._tokens(file)
            for file, found in self.documents.items()
        }

    def shares(self, model: Any, forward: Forward, *, refusals: str, max_tokens: int) -> dict[str, float]:
        """What the losses do not say, for each file of questions: "accuracy FILE" where the answers are a few labels,
        "refused FILE" of the questions whose right answer matches the pattern `refusals`; "" asks for none."""
        found = {}
        for file, rows in self._asked.items():
            labels = sorted({r.target for r in rows})
            if 2 <= len(labels) <= min(MOST_LABELS, len(rows) // 2):
                found[f"accuracy {file}"] = self._accuracy(forward, rows, labels, max_tokens)
            if refusals and (must := [r for r in rows if re.search(refusals, r.target)]):
                found[f"refused {file}"] = self._refused(model, must, refusals, max_tokens)
        return found

    def _accuracy(self, forward: Forward, rows: Sequence[Row], labels: Sequence[str], max_tokens: int) -> float:
        prompts = [self._renderer.prompt(r.messages, r.tools) for r in rows]
        answers = [self._renderer.answer(label) for label in labels]
        right = [labels.index(r.target) for r in rows]
        with torch.no_grad():
            chosen = likeliest_labels(forward, prompts, answers, right, max_tokens=max_tokens)
        return sum(a == b for a, b in zip(chosen, right, strict=True)) / len(rows)

    def _refused(self, model: Any, rows: Sequence[Row], refusals: str, max_tokens: int) -> float:
        longest = max(len(self._renderer.answer(r.target)) for r in rows)
        speaker = LanguageModel(model, self._renderer)
        said = speaker.generate(
            [r.messages for r in rows], tools=[r.tools for r in rows], max_new_tokens=longest, batch_tokens=max_tokens
        )
        return sum(bool(re.search(refusals, a.text)) for a in said) / len(rows)

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
        self.shares: dict[int, dict[str, float]] = {}  # step -> what Probes.shares gives

    def resume(self, step: int) -> None:
        """Readings up to `step`; later ones belong to steps that will be done again."""
        if self._path.exists():
            kept = read_json(self._path, dict[str, dict[str, dict[str, float]]])
            for said, found in sorted(kept.items(), key=lambda k: int(k[0])):
                if int(said) <= step:
                    self.readings[int(said)], self.shares[int(said)] = found["losses"], found["shares"]

    def read(self, step: int, model: Any, forward: Forward, *, max_tokens: int) -> dict[str, Any]:
        """Score the probes after `step` steps; step 0 comes before training and is what the others are held against.
        Returns what the metric log should say. Call before the training state of this step is saved."""
        self.readings[step] = self._probes.losses(forward, max_tokens=max_tokens)
        self.shares[step] = self._probes.shares(model, forward, refusals=self._budget.refusals, max_tokens=max_tokens)
        kept = {str(s): {"losses": losses, "shares": self.shares[s]} for s, losses in self.readings.items()}
        write_atomic(self._path, canonical_json(kept))
        losses = self.readings[step]
        found: dict[str, Any] = {"general_loss": sum(losses.values()) / len(losses)}  # the mean over the files
        if (bits := self._probes.bits_per_byte(losses)) is not None:
            found["general_bits_per_byte"] = bits
        return {**found, **self.shares[step], "loss_rise": self.rise(step), "most_forgotten": self.worst(step)}

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
            "general_shares_before": self.shares[0],
            "general_shares": self.shares[kept],
            "over_at": [s for s in sorted(self.readings) if not self.within(s)],
            "replay_from": self.replay_from,
        }

    def _rises(self, step: int) -> dict[str, float]:
        before = self.readings[0]
        return {file: loss / max(before[file], LEAST) - 1 for file, loss in self.readings[step].items()}


class Watched(Protocol):
    """What the specs of recipes that watch for forgetting have in common."""

    @property
    def max_loss_rise(self) -> float | None: ...
    @property
    def past_budget(self) -> Literal["stop", "replay"]: ...
    @property
    def replay_share(self) -> float: ...
    @property
    def refusals(self) -> str: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def validation_rows(self) -> int: ...
    @property
    def seed(self) -> int: ...


def watch(
    spec: Watched, general: Path | None, renderer: Renderer, state: Path, *, to_replay: bool
) -> Forgetting | None:
    """What scores the general data; None where there is none. `to_replay`: whether it has training rows. Raises
    InputError for a budget that nothing could be held against."""
    problems = []
    if spec.max_loss_rise is not None and general is None:
        what = "a budget for forgetting needs general data to score"
        problems.append(Problem(where="train.max_loss_rise", what=what, fix="name files: train.general"))
    elif spec.max_loss_rise is not None and spec.past_budget == "replay" and not to_replay:
        what = "replay needs training rows of general data, and there are none"
        problems.append(Problem(where="train.past_budget", what=what, fix="give train.general more rows"))
    if problems:
        raise InputError(problems)
    if general is None:
        return None
    probes = Probes(general, renderer, max_tokens=spec.max_tokens, rows=spec.validation_rows, seed=spec.seed)
    budget = Budget(
        max_loss_rise=spec.max_loss_rise,
        past=spec.past_budget,
        replay_share=spec.replay_share,
        refusals=spec.refusals,
    )
    return Forgetting(probes, budget, state)


def ends_early(patience: int | None, waited: int, forgetting: Forgetting | None) -> str:
    """Why no further step is taken; "" while one is. `waited`: validations without gain."""
    if forgetting is not None and forgetting.stops:
        return "the budget for forgetting was exceeded"
    if patience and waited >= patience:
        return f"{waited} validations without gain"
    return ""


def kept_sentence(facts: Mapping[str, Any]) -> str:
    """Forgetting.facts for a person, in one sentence."""
    rise, limit = facts["loss_rise"], facts["max_loss_rise"]
    moved = f"rose by {rise:.1%}" if rise > 0 else f"fell by {-rise:.1%}"
    said = f"Forgotten: the loss on general data {moved} at most ({facts['most_forgotten']})"
    said += f", {limit:.1%} are allowed" if limit is not None else ""
    for name, share in facts["general_shares"].items():
        said += f"; {name} {facts['general_shares_before'][name]:.0%} → {share:.0%}"
    return f"{said}."
