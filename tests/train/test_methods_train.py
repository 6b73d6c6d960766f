"""Every method through the recipe: it learns, however it is batched, and stops change no byte. Kills: test_killed.py."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.train import data
from tests.train.test_resume import stopping_at
from tunesmith.core.errors import InputError, Stopped
from tunesmith.core.stage import Exec
from tunesmith.model.answer import LanguageModel
from tunesmith.model.load import load_tuned
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.text.render import Renderer

LORA = data.LORA
METHODS = data.small_methods(virtual_tokens=4, projection=16) | {
    "rslora": replace(LORA, rslora=True, dropout=0.1),
    "dora_dropout": replace(LORA, dora=True, dropout=0.1),
    "pissa": replace(LORA, init="pissa", dropout=0.1),
    "olora": replace(LORA, init="olora"),
    "eva": replace(LORA, init="eva"),
    "lora_plus": replace(LORA, b_lr_ratio=4.0),
    "ranks": replace(LORA, ranks=(("down_proj", 8), ("layers.0.*", 2))),
    "last_layers": replace(data.FULL, train_layers="last:2"),
}
RATES = {"ia3": 0.1, "prompt": 0.1, "prefix": 0.1, "last_layers": 2e-3, "p_tuning": 2e-2, "prefix_projection": 2e-2}
TEN_STEPS = 10 / 3  # epochs of 24 rows in batches of 8
SMALL = Exec(micro_batch_tokens=300, threads=1)


def changes(name: str) -> dict[str, object]:
    rate = RATES.get(name, 1e-2)
    return {"method": METHODS[name], "lr": rate, "epochs": TEN_STEPS, "validate_times": 2, "schedule": "constant"}


def some(*quick: str) -> list[object]:
    """Every method; those that are not named only where slow tests run."""
    return [n if n in quick else pytest.param(n, marks=pytest.mark.slow) for n in METHODS]


@pytest.fixture(autouse=True)
def _needs_its_library(request: pytest.FixtureRequest) -> None:
    if getattr(request.node, "callspec", None) and request.node.callspec.params.get("name") in ("nf4", "int8"):
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")


@pytest.mark.parametrize("name", some("pissa", "eva", "dora_dropout", "nf4", "ia3", "prompt", "prefix_projection"))
def test_learns_resumes_to_the_byte_and_answers(name: str, tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, exec=SMALL, **changes(name))
    losses = data.losses(whole)
    assert len(losses) == 10
    assert min(losses[-3:]) < losses[0] - 0.02, losses
    for step in (2, 7):
        stop = threading.Event()
        with pytest.raises(Stopped):
            data.train(
                tmp_path / "parts",
                dataset,
                tiny_llama,
                exec=SMALL,
                stop=stop,
                progress=stopping_at({(step, "train")}, stop),
                **changes(name),
            )
    parts = data.train(tmp_path / "parts", dataset, tiny_llama, exec=SMALL, **changes(name))
    assert data.files(parts) == data.files(whole)

    model = load_tuned(tiny_llama, whole.scratch / "checkpoint", dtype="fp32")
    speaker = LanguageModel(model, Renderer.load(tiny_llama, system=data.SPEC.system))
    rows = data.make_rows(9, seed=2)
    answers = speaker.choose([r.messages for r in rows], data.LABELS, tools=[r.tools for r in rows], batch_tokens=500)
    assert {a.text for a in answers} <= set(data.LABELS)
    assert all(abs(sum(a.scores.values()) - 1) < 1e-6 for a in answers if getattr(a, "scores", None))


@pytest.mark.parametrize("name", some("dora_dropout", "prompt"))
def test_the_micro_batch_changes_no_weight(name: str, tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    one = data.train(tmp_path / "one", dataset, tiny_llama, exec=Exec(micro_batch_tokens=1, threads=1), **changes(name))
    all_ = data.train(tmp_path / "all", dataset, tiny_llama, **changes(name))
    assert data.max_difference(one, all_) < 1e-4
    assert max(abs(a - b) for a, b in zip(data.losses(one), data.losses(all_), strict=True)) < 1e-4


@pytest.mark.parametrize("name", some("nf4", "prefix"))
def test_bf16_follows_fp32(name: str, tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    few = changes(name) | {"epochs": 1.0, "validate_times": 1}
    fp32 = data.losses(data.train(tmp_path / "fp32", dataset, tiny_llama, **few))
    bf16 = data.losses(data.train(tmp_path / "bf16", dataset, tiny_llama, precision="bf16", **few))
    assert max(abs(a - b) for a, b in zip(fp32, bf16, strict=True)) < 0.06


@pytest.mark.parametrize("name", ["prompt", "prefix"])
def test_the_validation_loss_is_that_of_the_reloaded_model(
    name: str, tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    """The rows that are supervised are the right ones, though virtual tokens move them."""
    from tunesmith.train.batches import read_rows, render_rows

    changed = changes(name) | {"validation_rows": 9, "validate_times": 1}
    work = data.train(tmp_path / "run", dataset, tiny_llama, **changed)
    logged = next(line["validation_loss"] for line in data.log(work) if "validation_loss" in line)
    model = LanguageModel(
        load_tuned(tiny_llama, work.scratch / "checkpoint", dtype="fp32"), Renderer.load(tiny_llama, system="")
    ).network.inner
    renderer = Renderer.load(tiny_llama, system=data.SPEC.system)
    total = count = 0.0
    for d in render_rows(read_rows(dataset / "validation.jsonl"), renderer, 128):
        ids = torch.tensor([d.ids])
        with torch.no_grad():
            scores = model(ids, torch.ones_like(ids), torch.arange(len(d.ids))[None]).logits[0].log_softmax(-1)
        for t in range(1, len(d.ids)):
            if d.trained[t]:
                total, count = total - float(scores[t - 1, d.ids[t]]), count + 1
    assert abs(total / count - logged) < 1e-4


def test_too_many_virtual_tokens_are_refused_before_time_is_spent(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    method = MethodSpec(kind="prompt", rank=1, alpha=1.0, dropout=0.0, targets="all-linear", virtual_tokens=500)
    with pytest.raises(InputError, match=r"train.method.virtual_tokens"):
        data.train(tmp_path / "run", dataset, tiny_llama, method=method)
