"""Domain adaptation: every token trained once, texts apart, resumable to the bit, and judged by bits per byte."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.train import data
from tests.train.domain_data import adapt, asked_rows, make_texts, text_rows
from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import DataError, InputError, Stopped
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Exec
from tunesmith.model.load import load_base, load_tuned
from tunesmith.model.text_scores import score_texts
from tunesmith.model.windows import borders, text_windows
from tunesmith.text.render import Renderer
from tunesmith.train import forward
from tunesmith.train.forward import PlainForward
from tunesmith.train.packing import TokenSchedule


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_texts(
        tmp_path_factory.mktemp("texts"), text_rows(20, seed=1), text_rows(8, seed=2, file="held-out.jsonl")
    )


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Other words in another order, and requests that are refused."""
    other = ["fracture", "neoplasms", "injury", "poisoning", "expert", "answer", "label", "circulatory"]
    return make_texts(
        tmp_path_factory.mktemp("general"),
        text_rows(12, seed=3, file="general.jsonl", words=other),
        [*text_rows(4, seed=4, file="general.jsonl", words=other), *asked_rows(3)],
    )


@given(length=st.integers(1, 300), size=st.integers(2, 70))
def test_every_token_but_the_first_is_predicted_in_exactly_one_window(length: int, size: int) -> None:
    found = borders(length, size)
    predicted = [t for first, end in found for t in range(first + 1, end)]
    assert predicted == list(range(1, length))
    assert all(end - first <= size for first, end in found)


def test_windows_of_a_text_hold_its_tokens_and_the_end(tiny_llama: Path) -> None:
    tokenizer = Renderer.load(tiny_llama, system="").tokenizer
    text = "the quick brown fox jumps over the lazy dog " * 8
    (windows,) = text_windows(tokenizer, [text], size=16, keys=["k"], weights=[1.0], end=True)
    trained = [i for w in windows for i, t in zip(w.ids, w.trained, strict=True) if t]
    assert trained == [*tokenizer.encode(text), tokenizer.eos_id]
    assert [int(w.key.split(":")[1]) for w in windows] == [15 * i for i in range(len(windows))]
    for before, after in itertools.pairwise(windows):
        assert after.ids[0] == before.ids[-1] and not after.trained[0]


def test_a_text_is_trained_as_if_it_were_alone(tmp_path: Path, tiny_llama: Path) -> None:
    """Packed in one step, six texts give the mean of their tokens' losses, each scored by itself."""
    rows = text_rows(6, seed=5)
    one = make_texts(tmp_path / "one", rows, rows)
    work = adapt(tmp_path / "work", one, tiny_llama, epochs=1.0, global_batch=64, validate_times=1)
    model = load_base(tiny_llama, dtype="fp32")
    tokenizer = Renderer.load(tiny_llama, system="").tokenizer
    windows = text_windows(
        tokenizer, [r.target for r in rows], size=64, keys=[r.id for r in rows], weights=[1.0] * 6, end=True
    )
    flat = [w for of_text in windows for w in of_text]
    forward = PlainForward(model, precision="fp32", autocast=False, seed=0)
    with torch.no_grad():
        nats = sum(forward.nll_sum([w], step=None).item() for w in flat)
    (line,) = [x for x in data.log(work) if "loss" in x]
    assert line["loss"] == pytest.approx(nats / sum(w.supervised for w in flat), rel=1e-5)
    assert line["tokens"] == sum(len(w.ids) for w in flat)


def test_it_learns_the_texts_and_validates_as_evaluation_measures(
    tmp_path: Path, texts: Path, sharp_llama: Path
) -> None:
    work = adapt(tmp_path / "work", texts, sharp_llama, epochs=10.0, lr=1e-2, validate_times=4)
    validations = {x["step"]: x for x in data.log(work) if "bits_per_byte" in x}
    assert validations[0]["bits_per_byte"] > 1.5 * work.summary["best"]
    folder = work.scratch / "checkpoint"
    facts = json.loads((folder / "checkpoint.json").read_text())
    assert facts["metric"] == "bits_per_byte" and facts["best_step"] == work.summary["best_step"] > 0
    rows = text_rows(8, seed=2, file="held-out.jsonl")
    tokenizer = Renderer.load(sharp_llama, system="").tokenizer
    scores = score_texts(
        load_tuned(sharp_llama, folder, dtype="fp32"),
        tokenizer,
        [r.target for r in rows],
        max_tokens=64,
        batch_tokens=64,
    )
    bytes_ = sum(len(r.target.encode()) for r in rows)
    assert sum(s.nats for s in scores) / math.log(2) / bytes_ == pytest.approx(facts["best"], rel=1e-5)


def test_the_forward_that_packs_and_the_one_that_does_not_agree(
    tmp_path: Path, texts: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flat = adapt(tmp_path / "flat", texts, tiny_llama)
    monkeypatch.setattr("tunesmith.model.flat.refusal", lambda model, longest: "switched off")
    plain = adapt(tmp_path / "plain", texts, tiny_llama)
    assert flat.summary["path"] == "flat" and plain.summary["path"] == "plain: switched off"
    assert data.max_difference(flat, plain) < 1e-4
    assert data.losses(flat) == pytest.approx(data.losses(plain), rel=1e-4)


@pytest.mark.parametrize("family", ["gpt2", "gemma"])
def test_other_families_take_one_text_a_row(tmp_path: Path, texts: Path, family: str) -> None:
    from tests.tiny import make_tiny

    base = make_tiny(tmp_path / family, family)
    work = adapt(tmp_path / "work", texts, base, lr=1e-2, epochs=3.0)
    assert work.summary["path"].startswith("plain")
    assert work.summary["best"] < next(x["bits_per_byte"] for x in data.log(work) if x["step"] == 0)


def test_micro_batches_do_not_change_the_weights(tmp_path: Path, texts: Path, tiny_llama: Path) -> None:
    one = adapt(tmp_path / "one", texts, tiny_llama, exec=Exec(micro_batch_tokens=64, threads=1))
    all_ = adapt(tmp_path / "all", texts, tiny_llama, exec=Exec(micro_batch_tokens=100_000, threads=1))
    assert data.max_difference(one, all_) < 1e-5


def test_a_validation_that_memory_does_not_hold_takes_smaller_batches(
    tmp_path: Path, texts: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = adapt(tmp_path / "whole", texts, tiny_llama)
    real, refused = forward.FlatForward.nll_sum, []

    def tight(self: object, documents: list, *, step: int | None) -> torch.Tensor:
        if step is None and sum(len(d.ids) for d in documents) > 100:
            refused.append(documents)
            raise torch.OutOfMemoryError("made up")
        return real(self, documents, step=step)

    monkeypatch.setattr(forward.FlatForward, "nll_sum", tight)
    work = adapt(tmp_path / "tight", texts, tiny_llama)
    assert refused and work.summary["best"] == pytest.approx(whole.summary["best"], abs=1e-5)


def test_the_order_of_rows_in_the_files_changes_nothing(tmp_path: Path, general: Path, tiny_llama: Path) -> None:
    train, validation = text_rows(14, seed=1), text_rows(6, seed=2)
    turned_general = make_texts(
        tmp_path / "general",
        list(read_lines(general / "train.jsonl", Row))[::-1],
        list(read_lines(general / "validation.jsonl", Row))[::-1],
    )
    a = make_texts(tmp_path / "a", train, validation)
    b = make_texts(tmp_path / "b", train[::-1], validation[::-1])
    mixture = (("general", 0.2),)
    one = adapt(tmp_path / "one", a, tiny_llama, general=general, mixture=mixture, validation_rows=4)
    other = adapt(tmp_path / "other", b, tiny_llama, general=turned_general, mixture=mixture, validation_rows=4)
    assert data.weights(one).keys() == data.weights(other).keys()
    assert data.max_difference(one, other) < 1e-6
    assert data.losses(one) == pytest.approx(data.losses(other), rel=1e-6)


@pytest.mark.parametrize("replay", [False, True], ids=["texts alone", "with replay"])
def test_a_run_that_was_stopped_anywhere_ends_bit_for_bit_as_if_it_was_not(
    tmp_path: Path, texts: Path, general: Path, tiny_llama: Path, replay: bool
) -> None:
    changes = {"validate_times": 4, "max_loss_rise": 1e-4, "past_budget": "replay", "lr": 2e-2} if replay else {}
    given_general = general if replay else None
    whole = adapt(tmp_path / "whole", texts, tiny_llama, general=given_general, **changes)
    steps = whole.summary["steps"]
    if replay:
        assert whole.summary["forgetting"]["replay_from"] is not None
    for after_steps in range(1, steps, 3):
        stop = _StopAfter(after_steps)
        root = tmp_path / f"stopped-{after_steps}"
        with pytest.raises(Stopped):
            adapt(root, texts, tiny_llama, general=given_general, stop=stop, progress=stop.progress, **changes)
        resumed = adapt(root, texts, tiny_llama, general=given_general, **changes)
        assert data.files(resumed) == data.files(whole)


def test_a_kill_before_the_first_state_starts_anew(tmp_path: Path, texts: Path, tiny_llama: Path) -> None:
    whole = adapt(tmp_path / "whole", texts, tiny_llama)

    def die(done: float, total: float, label: str, **facts: object) -> None:
        if label == "train":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        adapt(tmp_path / "cut", texts, tiny_llama, progress=die)
    (tmp_path / "cut" / "state" / "training.safetensors").unlink()
    resumed = adapt(tmp_path / "cut", texts, tiny_llama)
    assert data.files(resumed) == data.files(whole)


class _StopAfter:
    """Asks for a stop once a step has been done."""

    def __init__(self, steps: int):
        import threading

        self._event, self._steps = threading.Event(), steps

    def progress(self, done: float, total: float, label: str, **facts: object) -> None:
        if label == "train" and done >= self._steps:
            self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()


def test_training_that_only_makes_it_worse_keeps_the_base(tmp_path: Path, texts: Path, tiny_llama: Path) -> None:
    """At a rate that throws the weights about, an untrained model's even guess is the best there is."""
    work = adapt(tmp_path / "work", texts, tiny_llama, method=data.FULL, lr=3.0, warmup=0.0, schedule="constant")
    assert work.summary["best_step"] == 0
    assert len({x["bits_per_byte"] for x in data.log(work) if "bits_per_byte" in x}) == 3
    ids = torch.tensor([[5, 9, 60, 80]])
    with torch.no_grad():
        ours = load_tuned(tiny_llama, work.scratch / "checkpoint", dtype="fp32")(ids).logits
        base = load_base(tiny_llama, dtype="fp32")(ids).logits
    assert torch.allclose(ours, base, atol=1e-5)


def test_what_cannot_be_trained_is_refused(tmp_path: Path, texts: Path, tiny_llama: Path) -> None:
    with pytest.raises(InputError, match="prepared for a chat task"):
        adapt(tmp_path / "a", make_texts(tmp_path / "chat", [], [], kind="chat"), tiny_llama)
    with pytest.raises(InputError, match="1000 tokens in a window, and the model reads 512"):
        adapt(tmp_path / "b", texts, tiny_llama, max_tokens=1000)
    with pytest.raises(DataError, match="no validation texts"):
        adapt(tmp_path / "c", make_texts(tmp_path / "none", text_rows(3, seed=0), []), tiny_llama)
    with pytest.raises(InputError, match="nothing to train on"):
        adapt(tmp_path / "d", make_texts(tmp_path / "empty", [], text_rows(3, seed=0)), tiny_llama)
    with pytest.raises(InputError, match=r"train\.epochs"):
        adapt(tmp_path / "e", texts, tiny_llama, epochs=0.0)


def test_a_step_holds_no_more_tokens_than_it_may_and_an_epoch_every_window() -> None:
    sizes = [3, 9, 4, 4, 5, 1, 30, 2]
    orders = {0: [4, 1, 0, 2, 3, 6, 5, 7], 1: [7, 6, 5, 4, 3, 2, 1, 0]}
    schedule = TokenSchedule(lambda e: list(orders[e]), sizes, epochs=2.0, budget=12)
    batches = [schedule.batch(s) for s in range(schedule.steps)]
    assert [i for b in batches for i in b] == orders[0] + orders[1]
    assert all(sum(sizes[i] for i in b) <= 12 or len(b) == 1 for b in batches)
    assert [sum(sizes[i] for i in b) for b in batches] == schedule.tokens
    half = TokenSchedule(lambda e: list(orders[e]), sizes, epochs=0.5, budget=12)
    taken = [i for s in range(half.steps) for i in half.batch(s)]
    assert taken == [4, 1, 0, 2, 3, 6]  # 29 tokens are the half, and the sixth window passes it
