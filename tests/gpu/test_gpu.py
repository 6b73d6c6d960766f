"""What only a GPU can show: the same weights as on the CPU, its kernels, resuming, and running out of memory.

All of it runs unchanged where torch sees a GPU: pytest tests/gpu -rs.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import make_tiny
from tests.train import data
from tests.train.test_devices import METHODS
from tunesmith.core.errors import Stopped
from tunesmith.core.nouns import Message
from tunesmith.core.stage import Exec
from tunesmith.model.answer import LanguageModel
from tunesmith.model.load import load_base
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.text.render import Renderer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here"),
]
ON_GPU = Exec(micro_batch_tokens=4096, device="cuda")
SHORT: dict[str, Any] = {"epochs": 2.0, "validate_times": 1, "metric": ""}
WIDE = {"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}  # heads of 32, as flash asks


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("gpu") / "llama", **WIDE)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.make_dataset(tmp_path_factory.mktemp("gpu-data"))


def both(tmp_path: Path, rows: Path, base: Path, exec: Exec = ON_GPU, **changes: Any):
    on_cpu = data.train(tmp_path / "cpu", rows, base, exec=Exec(device="cpu", threads=1), **SHORT | changes)
    on_gpu = data.train(tmp_path / "gpu", rows, base, exec=exec, **SHORT | changes)
    assert on_gpu.summary["gpu"] and not on_gpu.summary["tf32"]
    return on_cpu, on_gpu


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_on_the_gpu_what_it_learns_on_the_cpu(
    tmp_path: Path, rows: Path, base: Path, name: str
) -> None:
    on_cpu, on_gpu = both(tmp_path, rows, base, method=METHODS[name])
    assert data.losses(on_gpu) == pytest.approx(data.losses(on_cpu), abs=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
def test_qlora_learns_on_the_gpu(tmp_path: Path, rows: Path, base: Path, bits: int) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra quant is not installed")
    method = MethodSpec(
        kind="qlora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear", bits=bits, double_quant=bits == 4
    )
    on_cpu, on_gpu = both(tmp_path, rows, base, method=method)
    assert data.losses(on_gpu) == pytest.approx(data.losses(on_cpu), abs=0.05)


def test_bf16_stays_beside_fp32(tmp_path: Path, rows: Path, base: Path) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("this GPU has no bf16 units")
    for method in (data.LORA, data.FULL):
        root = tmp_path / method.kind
        fp32 = data.train(root / "fp32", rows, base, exec=ON_GPU, method=method, **SHORT)
        bf16 = data.train(root / "bf16", rows, base, exec=ON_GPU, method=method, **SHORT | {"precision": "bf16"})
        assert data.losses(bf16) == pytest.approx(data.losses(fp32), abs=0.1)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flash", "flex"])
def test_attention_changes_nothing(tmp_path: Path, rows: Path, base: Path, attention: Any) -> None:
    changes = SHORT | {"precision": "bf16"}
    want = data.train(tmp_path / "auto", rows, base, exec=ON_GPU, **changes)
    got = data.train(tmp_path / attention, rows, base, exec=replace(ON_GPU, attention=attention), **changes)
    assert attention in got.summary["path"]
    assert data.losses(got) == pytest.approx(data.losses(want), abs=0.1)


def test_packed_rows_change_nothing(tmp_path: Path, rows: Path, base: Path) -> None:
    want = data.train(tmp_path / "padded", rows, base, exec=ON_GPU, **SHORT)
    got = data.train(tmp_path / "packed", rows, base, exec=replace(ON_GPU, packing=True), **SHORT)
    assert got.summary["path"].startswith("packed")
    assert data.losses(got) == pytest.approx(data.losses(want), abs=1e-3)


def test_flash_varlen_packs(tmp_path: Path, rows: Path, base: Path) -> None:
    if find_spec("flash_attn") is None:
        pytest.skip("the flash-attn package is not installed")
    changes = SHORT | {"precision": "bf16"}
    want = data.train(tmp_path / "padded", rows, base, exec=ON_GPU, **changes)
    exec = replace(ON_GPU, packing=True, attention="flash")
    got = data.train(tmp_path / "packed", rows, base, exec=exec, **changes)
    assert got.summary["path"].startswith("packed")
    assert data.losses(got) == pytest.approx(data.losses(want), abs=0.1)


@pytest.mark.parametrize(
    "exec",
    [
        {"gradient_checkpointing": True},
        {"gradient_checkpointing": "selective"},
        {"activation_offload": True},
        {"offload_optimizer": True},
        {"compile": True},
    ],
    ids=str,
)
def test_exec_changes_nothing(
    tmp_path: Path, rows: Path, base: Path, exec: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunesmith.train import kernels

    monkeypatch.setattr(kernels, "LEAST_BYTES", 1)
    changes = SHORT | {"method": data.FULL, "lr": 1e-3}
    want = data.train(tmp_path / "plain", rows, base, exec=ON_GPU, **changes)
    got = data.train(tmp_path / "other", rows, base, exec=replace(ON_GPU, **exec), **changes)
    assert data.losses(got) == pytest.approx(data.losses(want), abs=1e-3)
    if "compile" in exec:
        assert got.summary["path"].endswith("; compiled")


def test_liger_changes_nothing(tmp_path: Path, rows: Path, base: Path) -> None:
    pytest.importorskip("liger_kernel", reason="the extra liger is not installed")
    want = data.train(tmp_path / "none", rows, base, exec=replace(ON_GPU, kernels="none"), **SHORT)
    got = data.train(tmp_path / "liger", rows, base, exec=replace(ON_GPU, kernels="liger"), **SHORT)
    assert "with Liger's kernels" in got.summary["path"]
    assert data.losses(got) == pytest.approx(data.losses(want), abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"method": data.FULL, "precision": "bf16", "weights": "bf16", "master": "stochastic", "lr": 1e-3},
        {"optimizer": "adamw_8bit"},
    ],
    ids=["lora", "bf16 stochastic", "8 bits"],
)
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    tmp_path: Path, rows: Path, base: Path, changes: dict
) -> None:
    if "optimizer" in changes:
        pytest.importorskip("bitsandbytes", reason="the extra quant is not installed")
    torch.use_deterministic_algorithms(True, warn_only=True)
    stop = threading.Event()

    def progress(done: float, total: float, label: str, **facts: object) -> None:
        if label == "train" and done == 3:
            stop.set()

    try:
        whole = data.train(tmp_path / "whole", rows, base, exec=ON_GPU, **SHORT | changes)
        with pytest.raises(Stopped):
            data.train(tmp_path / "cut", rows, base, exec=ON_GPU, stop=stop, progress=progress, **SHORT | changes)
        resumed = data.train(tmp_path / "cut", rows, base, exec=ON_GPU, **SHORT | changes)
    finally:
        torch.use_deterministic_algorithms(False)
    assert data.losses(resumed) == pytest.approx(data.losses(whole), abs=1e-5)


def test_paged_moments_change_nothing(tmp_path: Path, rows: Path, base: Path) -> None:
    pytest.importorskip("bitsandbytes", reason="the extra quant is not installed")
    changes = SHORT | {"optimizer": "adamw_8bit"}
    want = data.train(tmp_path / "plain", rows, base, exec=ON_GPU, **changes)
    got = data.train(tmp_path / "paged", rows, base, exec=replace(ON_GPU, offload_optimizer=True), **changes)
    assert data.losses(got) == pytest.approx(data.losses(want), abs=1e-4)


def test_out_of_memory_halves_the_micro_batch_and_goes_on(
    tmp_path: Path, rows: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real refusal by the driver, of a tensor larger than the GPU, where a micro-batch has more than two documents."""
    from tunesmith.train.forward import PlainForward

    inner = PlainForward.nll_sum

    def nll_sum(self: Any, documents: Any, *, step: int | None) -> Any:
        if len(documents) > 2:
            torch.empty(1 << 46, device="cuda")
        return inner(self, documents, step=step)

    monkeypatch.setattr(PlainForward, "nll_sum", nll_sum)
    work = data.train(tmp_path, rows, base, exec=ON_GPU, **SHORT)
    assert any("Memory ran out" in note for note in work.summary["notes"])


def test_the_micro_batch_is_measured(base: Path) -> None:
    from tunesmith.train.device_memory import cuda_micro_batch

    found = cuda_micro_batch(base, 64, data.LORA, "fp32", torch.device("cuda", 0))
    assert found >= 4096


def test_answers_on_the_gpu_are_those_on_the_cpu(base: Path) -> None:
    renderer = Renderer.load(base, system="Answer.")
    prompts = [[Message(role="user", content=t)] for t in ("the quick fox", "ball", "the lazy dog jumps over")]
    said = []
    for device in ("cpu", "cuda"):
        speaker = LanguageModel(load_base(base, dtype="fp32", device=device), renderer)
        chosen = speaker.choose(prompts, ["sports", "business"], batch_tokens=64)
        said.append([a.logprob for a in (*chosen, *speaker.generate(prompts, max_new_tokens=4, batch_tokens=64))])
    assert said[1] == pytest.approx(said[0], abs=1e-3)
