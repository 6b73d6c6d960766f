"""Everything that training touches is on the model's device: run on a second device that refuses the CPU's tensors,
with the CPU's own kernels inside, so that the weights come out the same but for rounding (attention's math is chosen by
device)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.pretend import DEVICE, pretending
from tests.train import data, domain_data
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Message
from tunesmith.core.stage import Exec
from tunesmith.model import device as devices
from tunesmith.model import flat
from tunesmith.model.answer import LanguageModel
from tunesmith.model.device import device_of, refuse_precision
from tunesmith.model.load import load_base
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.text_scores import score_texts
from tunesmith.text.render import Renderer

SHORT = {"epochs": 1.0, "validate_times": 1}
METHODS = {
    "lora": data.LORA,
    "dropout": replace(data.LORA, dropout=0.3),
    "full": data.FULL,
    "bottleneck": MethodSpec(kind="bottleneck", rank=4, alpha=8.0, dropout=0.1, targets="all-linear", reduction=8.0, placement="pfeiffer", activation="relu"),
    "ia3": MethodSpec(kind="ia3", rank=4, alpha=8.0, dropout=0.0, targets="all-linear"),
    "prefix": MethodSpec(kind="prefix", rank=4, alpha=8.0, dropout=0.0, targets="all-linear", virtual_tokens=3),
    "prompt": MethodSpec(kind="prompt", rank=4, alpha=8.0, dropout=0.0, targets="all-linear", virtual_tokens=3),
}  # fmt: skip


@pytest.fixture
def no_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flat, "refusal", lambda model, longest: "on the pretended device")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_on_another_device(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, no_flat: None, name: str
) -> None:
    changes = {"method": METHODS[name], "metric": "macro_f1", **SHORT}
    want = data.train(tmp_path / "cpu", dataset, tiny_llama, **changes)
    with pretending(monkeypatch):
        got = data.train(tmp_path / "away", dataset, tiny_llama, **changes)
    assert data.losses(got) == pytest.approx(data.losses(want), abs=1e-4)
    assert data.max_difference(got, want) < 1e-4


@pytest.mark.parametrize(
    "exec",
    [
        {"offload_optimizer": True},
        {"activation_offload": True},
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": "selective"},
    ],
    ids=str,
)
def test_saving_memory_on_another_device_changes_nothing(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, no_flat: None, exec: dict
) -> None:
    from tunesmith.train import kernels

    monkeypatch.setattr(kernels, "LEAST_BYTES", 1)
    changes = {"method": data.FULL, "lr": 1e-3, "metric": "", **SHORT}
    want = data.train(tmp_path / "cpu", dataset, tiny_llama, **changes)
    with pretending(monkeypatch):
        got = data.train(tmp_path / "away", dataset, tiny_llama, exec=Exec(threads=1, **exec), **changes)
    assert data.max_difference(got, want) < 1e-5


def test_the_optimizer_s_memory_is_on_the_cpu_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from tunesmith.train.optimizers.catalog import make
    from tunesmith.train.optimizers.masters import Masters, optimizer_for

    with pretending(monkeypatch):
        p = torch.nn.Parameter(torch.ones(3, 4, device=DEVICE))
        held = optimizer_for(
            lambda ps: make("adamw", ps, weight_decay=0.0), {"w": p}, master="fp32", seed=0, offload=True
        )
        assert isinstance(held, Masters)
        p.grad = torch.ones(3, 4, device=DEVICE)
        for group in held.param_groups:
            group["lr"] = 0.1
        held.step()
        assert p.device == DEVICE and float(p.detach().sum()) < 12
        assert {t.device.type for s in held.parts[0].state.values() for t in s.values()} == {"cpu"}


def test_domain_adaptation_trains_on_another_device(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, no_flat: None
) -> None:
    texts = domain_data.make_texts(
        tmp_path / "texts", domain_data.text_rows(12, seed=1), domain_data.text_rows(4, seed=2)
    )
    want = domain_data.adapt(tmp_path / "cpu", texts, tiny_llama)
    with pretending(monkeypatch):
        got = domain_data.adapt(tmp_path / "away", texts, tiny_llama)
    assert data.losses(got) == pytest.approx(data.losses(want), abs=1e-4)
    assert data.max_difference(got, want) < 1e-4


def test_answers_and_scores_on_another_device(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    renderer = Renderer.load(tiny_llama, system="Answer.")
    prompts = [[Message(role="user", content=t)] for t in ("the quick fox", "ball", "the lazy dog jumps over")]

    def everything(device: str) -> list:
        model = load_base(tiny_llama, dtype="fp32", device=device)
        speaker = LanguageModel(model, renderer)
        chosen = speaker.choose(prompts, ["sports", "business", "politik"], batch_tokens=64)
        said = speaker.generate(prompts, max_new_tokens=4, batch_tokens=64)
        drawn = speaker.generate(prompts, max_new_tokens=4, temperature=1.0, top_p=0.9, seed=3, batch_tokens=64)
        nats = score_texts(model, renderer.tokenizer, ["the quick brown fox", "ball"], max_tokens=32, batch_tokens=64)
        return [(a.text, a.logprob) for a in (*chosen, *said, *drawn)] + [(n.tokens, n.nats) for n in nats]

    want = everything("cpu")
    with pretending(monkeypatch):
        got = everything("meta")
    assert [g[0] for g in got] == [w[0] for w in want]
    assert [g[1] for g in got] == pytest.approx([w[1] for w in want], abs=1e-4)


def test_a_gpu_that_is_not_there_is_refused_with_the_reason() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert device_of("auto").type == device_of("cpu").type == "cpu"
    with pytest.raises(InputError, match=r"torch sees no GPU here[\s\S]*exec.device=cpu"):
        device_of("cuda:1")


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    turing = torch.device("cuda", 0)
    refuse_precision(turing, "fp32")
    with pytest.raises(InputError, match=r"Tesla T4 has no bf16 units[\s\S]*train.precision=fp32"):
        refuse_precision(turing, "bf16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    refuse_precision(turing, "bf16")
    assert devices.has_bf16(torch.device("cpu"))


def test_the_flat_path_is_for_the_cpu(tiny_llama: Path) -> None:
    model = load_base(tiny_llama, dtype="fp32").to("meta")
    assert flat.refusal(model, 10) == "on meta the plain path with fused attention is used"


@pytest.mark.parametrize(("free", "want"), [(10_000_000, 512), (50_000_000, 32_768), (10**12, 1 << 17), (1_000, 300)])
def test_the_largest_micro_batch_is_read_off_two_measured_ones(free: int, want: int) -> None:
    from tunesmith.train.device_memory import largest_micro_batch

    asked = []

    def peak_of(tokens: int) -> int:
        asked.append(tokens)
        return 8_000_000 + 1_000 * tokens

    assert largest_micro_batch(peak_of, free=free, longest=300) == want
    assert asked == [512, 2048]
