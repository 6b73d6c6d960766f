"""How good the model is on validation rows: the loss, and the goal's own metric on what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Row
from tunesmith.metrics.catalog import METRICS, score
from tunesmith.model.answer import LanguageModel
from tunesmith.model.flat_layout import Document, shared_prefix
from tunesmith.text.render import Renderer
from tunesmith.train.batches import read_rows, render_rows, shuffled, split
from tunesmith.train.forward import Forward
from tunesmith.train.likeliest import likeliest_labels
from tunesmith.train.stages import SftSpec
from tunesmith.train.state import Judgment

RISE = 0.05  # of the validation loss above its lowest, from which on it is called overfitting
ORDER = -1  # the "epoch" whose order chooses validation rows; training uses 0, 1, ...


def validation_steps(steps: int, times: int) -> set[int]:
    """After which steps to validate: `times` evenly spaced, the last step always."""
    return {max(1, round(steps * i / times)) for i in range(1, times + 1)}


def validate_after(spec: SftSpec, steps: int) -> set[int]:
    """After which of `steps` optimizer steps to validate; the last one always."""
    if spec.validate_every_steps is not None:
        every = float(spec.validate_every_steps)
    elif spec.validate_every_epochs is not None:
        every = max(1.0, steps * spec.validate_every_epochs / spec.epochs)
    else:
        return validation_steps(steps, spec.validate_times)
    return {round(every * i) for i in range(1, int(steps / every) + 1)} & set(range(1, steps + 1)) | {steps}


def overfitting(judgments: Sequence[Judgment]) -> str:
    """A plain sentence where the validation loss rose after its lowest while the training loss went on falling;
    "" where it did not. A rise of less than a twentieth says nothing."""
    if len(judgments) < 2:
        return ""
    best, last = min(judgments, key=lambda j: j.validation_loss), judgments[-1]
    before, after = best.training_loss, last.training_loss
    rose = last.validation_loss > best.validation_loss * (1 + RISE)
    if not rose or before is None or after is None or after >= before:
        return ""
    return (
        f"Overfitting: from step {best.step} to step {last.step} the training loss fell from {before:.3g} to {after:.3g}"
        f" while the validation loss rose from {best.validation_loss:.3g} to {last.validation_loss:.3g}:"
        " the model was learning its training rows by heart."
    )


def chosen_rows(rows: Sequence[Row], limit: int, seed: int) -> list[Row]:
    """At most `limit` rows, the same at every validation."""
    return [rows[i] for i in shuffled(rows, seed, ORDER)[:limit]]


class Validation:
    """The rows and labels that every validation of a training uses."""

    def __init__(self, spec: SftSpec, dataset: Path, renderer: Renderer):
        self._spec, self._renderer = spec, renderer
        self._rows = chosen_rows(read_rows(dataset / "validation.jsonl"), spec.validation_rows, spec.seed)
        if not self._rows:
            raise DataError(
                "no validation rows, so the best checkpoint could not be chosen",
                where="validation.jsonl",
                fix="--set data.split.validation=0.1",
            )
        self.documents: Sequence[Document] = render_rows(self._rows, renderer, spec.max_tokens)
        self._labels: list[str] = read_json(dataset / "dataset.json")["labels"]
        self.metric: str = spec.metric
        self.higher_is_better = not spec.metric or METRICS[spec.metric].higher_is_better

    def run(self, model: Any, forward: Forward, max_tokens: int) -> dict[str, float]:
        """{"validation_loss": nats a token, <metric>: value}; `max_tokens` bounds one forward pass."""
        outcome = {"validation_loss": mean_nll(forward, self.documents, max_tokens=max_tokens)}
        if metric := self._spec.metric:
            answers = self._chosen(model, forward, max_tokens) if self._labels else self._written(model, max_tokens)
            outcome[metric] = score(metric, [r.target for r in self._rows], answers, labels=self._labels)
        return outcome

    def _chosen(self, model: Any, forward: Forward, max_tokens: int) -> list[str]:
        prompts = [self._renderer.prompt(r.messages, r.tools) for r in self._rows]
        labels = [self._renderer.answer(label) for label in self._labels]
        guesses = [self._labels.index(r.target) for r in self._rows]

        def score_rest(places: list[int]) -> list[int]:
            rows = [self._rows[i] for i in places]
            answers = LanguageModel(model, self._renderer).choose(
                [r.messages for r in rows],
                self._labels,
                tools=[r.tools for r in rows],
                batch_tokens=max_tokens,
                probabilities=False,
            )
            return [self._labels.index(a.text) for a in answers]

        with torch.no_grad():
            best = likeliest_labels(forward, prompts, labels, guesses, max_tokens=max_tokens, score_rest=score_rest)
        return [self._labels[k] for k in best]

    def _written(self, model: Any, max_tokens: int) -> list[str]:
        prompts, limit = [r.messages for r in self._rows], self._spec.max_new_tokens
        speaker = LanguageModel(model, self._renderer)
        tools = [r.tools for r in self._rows]
        answers = speaker.generate(prompts, tools=tools, max_new_tokens=limit, batch_tokens=max_tokens)
        return [a.text for a in answers]


def mean_nll(forward: Forward, documents: Sequence[Document], *, max_tokens: int) -> float:
    """Negative log-likelihood per supervised token, in nats."""
    shared = shared_prefix(documents) if forward.shares_prefix else 0
    total = 0.0
    with torch.no_grad():
        for micro in split(documents, max_tokens, shared=shared):
            total += forward.nll_sum(micro, step=None).item()
    return total / sum(d.supervised for d in documents)
