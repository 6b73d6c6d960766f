"""Domain adaptation: continued pre-training on texts, every token of them predicted.

Texts are packed with their borders respected: each has its own attention and positions, as if it were alone. The
flat forward lays them one after another; other architectures take one text a row. Read the loop in `domain` first;
windows are made in model/windows.py, what is forgotten is scored in train/forgetting.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import DataError, InputError, Problem
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.model.device import facts
from tunesmith.model.flat_layout import Document
from tunesmith.model.windows import refuse_beyond_context, text_windows
from tunesmith.text.render import Renderer
from tunesmith.train import optim, state
from tunesmith.train.batches import read_rows
from tunesmith.train.cost import machine
from tunesmith.train.domain_stages import DomainInputs, DomainOutputs, DomainSpec
from tunesmith.train.forgetting import Forgetting, ends_early, kept_sentence, nll_sum, probe_documents, watch
from tunesmith.train.forward import Forward
from tunesmith.train.judge import Judge
from tunesmith.train.keeper import Keeper
from tunesmith.train.learner import Learner, at_start, begin
from tunesmith.train.packing import TokenSchedule
from tunesmith.train.replay import REPLAY, Item, Mixture, Stream, more_of, source_of
from tunesmith.train.retention import Retention
from tunesmith.train.validate import chosen_rows, validation_steps


def domain(spec: DomainSpec, inputs: DomainInputs, work: Workspace) -> DomainOutputs:
    world = begin(work.exec)
    refuse_beyond_context(read_json(inputs.base / "config.json", dict[str, Any]), spec.max_tokens)
    renderer = Renderer.load(inputs.base, system="", new_tokens=spec.new_tokens)
    texts = Texts(spec, inputs, renderer)
    mixture = Mixture(texts.items, shares=dict(spec.mixture), seed=spec.seed)
    budget = spec.global_batch * spec.max_tokens
    schedule = TokenSchedule(mixture.epoch, texts.sizes, epochs=spec.epochs, budget=budget)
    steps = schedule.steps
    validations = validation_steps(steps, spec.validate_times)
    validation = Validation(spec, inputs.dataset, renderer)
    forgetting = watch(spec, inputs.general, renderer, work.state, to_replay=texts.has_general)

    work.progress(0, steps, "load")
    learner = at_start(spec, inputs.base, texts.documents, work.exec, world=world)
    keeper = Keeper(work, learner, Retention(keep=spec.keep, last=spec.keep_last, higher_is_better=False))
    judge = Judge(
        work=work, learner=learner, keeper=keeper, validation=validation, forgetting=forgetting, steps=steps
    )  # fmt: skip

    at = keeper.resume()
    begun = at.best is not None  # step 0, the untrained model, is the first candidate
    work.keep_log_until(lambda line: begun and line["step"] <= at.step)
    if forgetting is not None:
        forgetting.resume(at.step if begun else -1)
    if not begun:
        at = judge(at)
        keeper.save(at)
    while at.step < steps and not ends_early(spec.patience, at.waited, forgetting):
        started = time.perf_counter()
        chosen = schedule.batch(at.step) + texts.replayed(spec, forgetting, schedule.tokens, at.step)
        batch = [texts.documents[i] for i in chosen]
        loss, at = learner.learn(work, at, batch)
        norm = learner.clip()
        optim.refuse_non_finite(at.step, loss, norm, [texts.where(i) for i in chosen])
        lr = learner.step(at.step, steps)
        tokens = sum(len(d.ids) for d in batch)
        seconds = at.seconds + time.perf_counter() - started
        at = replace(at, step=at.step + 1, tokens=at.tokens + tokens, seconds=seconds)
        if at.step % work.exec.log_every == 0 or at.step == steps:
            work.log(step=at.step, loss=loss, lr=lr, grad_norm=norm, tokens=tokens)
        work.progress(at.step, steps, "train", loss=loss, rate=at.tokens / seconds, best=at.best)
        if at.step in validations:
            at = judge(at)
        keeper.save_when_due(at, validated=at.step in validations)

    work.summarize(**summary(spec, at, learner, mixture, forgetting, steps), **keeper.facts(at))
    checkpoint, kept = keeper.checkpoints(at, inputs.base, texts.documents, renderer=renderer, steps=steps)
    return DomainOutputs(checkpoint=checkpoint, kept=kept)


class Texts:
    """Every window that training may take: of the domain's texts, and behind them of the general rows for replay."""

    def __init__(self, spec: DomainSpec, inputs: DomainInputs, renderer: Renderer):
        kind = read_json(inputs.dataset / "dataset.json")["kind"]
        if kind != "domain":
            raise InputError(
                Problem(
                    where="task.kind",
                    what=f"the data set was prepared for a {kind} task, and domain adaptation takes texts",
                    fix="task.kind: domain, or train.recipe: sft",
                )
            )
        rows, names = read_rows(inputs.dataset / "train.jsonl"), [name for name, _ in spec.mixture]
        self.documents: list[Document] = []
        self.items: list[Item] = []  # of what the epochs take
        self._rows: list[Row] = []  # of each window
        self._add(rows, renderer, spec.max_tokens, lambda row: source_of(row.file, names))
        mixed = REPLAY in names
        self._first_general = len(self.documents)
        general = [] if inputs.general is None else read_rows(inputs.general / "train.jsonl")
        self._add(general, renderer, spec.max_tokens, lambda row: REPLAY)
        replay = range(self._first_general, len(self.documents))
        self._stream = Stream(self.items, replay, spec.seed)
        if not mixed:  # replayed, if ever, on top of the epochs
            self.items = self.items[: self._first_general]
        self.sizes = [len(d.ids) for d in self.documents]

    def _add(self, rows: Sequence[Row], renderer: Renderer, max_tokens: int, source: Any) -> None:
        plain = [r for r in rows if not r.messages]
        windows = text_windows(
            renderer.tokenizer,
            [r.target for r in plain],
            size=max_tokens,
            keys=[r.id for r in plain],
            weights=[r.weight for r in plain],
            end=True,
        )
        found = [(row, w) for row, of_text in zip(plain, windows, strict=True) for w in of_text if any(w.trained)]
        asked = [r for r in rows if r.messages]
        for row in asked:
            found += [(row, d) for d in probe_documents([row], renderer, max_tokens)]
        for row, document in found:
            self._rows.append(row)
            self.documents.append(document)
            size = len(document.ids)
            self.items.append(Item(key=document.key, file=row.file, line=row.line, source=source(row), size=size))

    @property
    def has_general(self) -> bool:
        return self._first_general < len(self.documents)

    def where(self, window: int) -> str:
        return f"{self._rows[window].file}:{self._rows[window].line}"

    def replayed(
        self, spec: DomainSpec, forgetting: Forgetting | None, step_tokens: Sequence[int], step: int
    ) -> list[int]:
        """Windows of general data that step `step` takes on top of its own: `replay_share` of all its tokens."""
        first = forgetting.replay_from if forgetting is not None else None
        return more_of(self._stream, spec.replay_share, step_tokens, first, step)


class Validation:
    """Texts of the domain that were held out, in windows: what every validation of a training scores."""

    def __init__(self, spec: DomainSpec, dataset: Path, renderer: Renderer):
        rows = chosen_rows(read_rows(dataset / "validation.jsonl"), spec.validation_rows, spec.seed)
        self.documents: Sequence[Document] = probe_documents(rows, renderer, spec.max_tokens)
        if not self.documents:
            raise DataError(
                "no validation texts, so the best checkpoint could not be chosen",
                where="validation.jsonl",
                fix="--set data.split.validation=0.1",
            )
        self._bytes = sum(len(r.target.encode()) for r in rows)
        self._tokens = sum(d.supervised for d in self.documents)
        self.metric: str = spec.metric
        self.higher_is_better = False

    def run(self, model: Any, forward: Forward, max_tokens: int) -> dict[str, float]:
        """{"validation_loss": nats a token, "bits_per_byte", "perplexity"}, as evaluation would measure them."""
        nats = nll_sum(forward, self.documents, max_tokens=max_tokens)
        loss = nats / self._tokens
        return {
            "validation_loss": loss,
            "bits_per_byte": nats / math.log(2) / self._bytes,
            "perplexity": math.exp(min(loss, 700.0)),
        }


def summary(
    spec: DomainSpec,
    at: state.Position,
    learner: Learner,
    mixture: Mixture,
    forgetting: Forgetting | None,
    steps: int,
) -> dict[str, Any]:
    forward = learner.forward
    found: dict[str, Any] = {
        "optimizer": spec.optimizer,
        "steps": at.step,
        "steps_planned": steps,
        "stopped_early": ends_early(spec.patience, at.waited, forgetting) if at.step < steps else "",
        "tokens": at.tokens,
        "tokens_per_s": round(at.tokens / at.seconds, 1) if at.seconds else 0.0,
        "seconds": round(at.seconds, 3),
        "best_step": at.best_step,
        "best": at.best,
        "validation_loss": at.best_loss,
        "path": f"{forward.path}: {forward.why}" if forward.why else forward.path,
        "precision": spec.precision,
        "trained_weights": learner.world.count(learner.parameters),
        "peak_mib": machine.peak_mib(),
        **facts(forward.device),
    }
    if spec.mixture:
        found["mixture"] = mixture.facts()
    if forgetting is not None:
        found["forgetting"] = forgetting.facts(at.best_step)
        found["notes"] = [kept_sentence(found["forgetting"])]
    return found
