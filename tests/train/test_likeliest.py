"""The label read best-bound-first is the label that scoring every one of them finds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train import data
from tunesmith.model.answer import LanguageModel
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.text.render import Renderer
from tunesmith.train import likeliest
from tunesmith.train.forward import FlatForward, PlainForward

LABELS = [
    "sports",
    "sport",
    "sports and play",
    "politik",
    "politik prozent",
    "the quick brown fox",
    "the quick",
    "ball",
]


@pytest.mark.parametrize("path", ["flat", "plain"])
def test_it_is_the_answer_of_choose_whatever_the_guess(
    sharp_llama: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One label begins with the words of another, so bounds and ends are both in play."""
    model = methods.wrap(load_base(sharp_llama, dtype="fp32"), data.LORA, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in methods.trainable_parameters(model).items():
            if "lora_B" in name:
                p.normal_(0, 0.1, generator=generator)
    renderer = Renderer.load(sharp_llama, system="Give the label.")
    rows = data.make_rows(40, seed=5)
    want = [a.text for a in LanguageModel(model, renderer).choose([r.messages for r in rows], LABELS, batch_tokens=999)]
    assert len(set(want)) > 1  # not the same answer to everything

    forward = (
        FlatForward(model, "fp32") if path == "flat" else PlainForward(model, precision="fp32", autocast=False, seed=0)
    )
    reads = 0
    logits = forward.logits

    def counted(documents):
        nonlocal reads
        reads += len(documents)
        return logits(documents)

    monkeypatch.setattr(forward, "logits", counted)
    prompts = [renderer.prompt(r.messages) for r in rows]
    labels = [renderer.answer(label) for label in LABELS]
    right = [LABELS.index(w) for w in want]
    for guesses in (right, [0] * 40, [(k + 3) % len(LABELS) for k in right]):
        reads = 0
        with torch.no_grad():
            best = likeliest.likeliest_labels(forward, prompts, labels, guesses, max_tokens=300)
        assert [LABELS[k] for k in best] == want
        assert 40 <= reads < 40 * len(LABELS)


def test_a_model_that_knows_nothing_is_not_asked_label_by_label(
    sharp_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many reads the open ones are scored at once: the same labels, fewer reads."""
    monkeypatch.setattr(likeliest, "ROUNDS", 1)
    model = load_base(sharp_llama, dtype="fp32")
    renderer = Renderer.load(sharp_llama, system="Give the label.")
    rows = data.make_rows(40, seed=6)
    messages = [r.messages for r in rows]
    speaker = LanguageModel(model, renderer)
    want = [LABELS.index(a.text) for a in speaker.choose(messages, LABELS, batch_tokens=999)]
    left: list[int] = []

    def score_rest(places: list[int]) -> list[int]:
        left.extend(places)
        answers = speaker.choose([messages[i] for i in places], LABELS, batch_tokens=999, probabilities=False)
        return [LABELS.index(a.text) for a in answers]

    prompts = [renderer.prompt(m) for m in messages]
    labels = [renderer.answer(label) for label in LABELS]
    forward = PlainForward(model, precision="fp32", autocast=False, seed=0)
    with torch.no_grad():
        best = likeliest.likeliest_labels(forward, prompts, labels, [0] * 40, max_tokens=300, score_rest=score_rest)
    assert best == want
    assert 0 < len(left) == len(set(left))
