"""Ways of computing layers that are offered, refused, held against the plain one, and undone where they differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.train import data
from tunesmith.core.errors import InputError
from tunesmith.core.stage import Exec
from tunesmith.model.load import load_base
from tunesmith.train import forward as forwards
from tunesmith.train import kernels

SHORT: dict[str, Any] = {"epochs": 1.0, "validate_times": 1, "metric": "", "method": data.FULL, "lr": 1e-3}
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "exec",
    [
        {"attention": "eager"},
        {"attention": "sdpa"},
        {"attention": "flash"},
        {"gradient_checkpointing": "selective"},
        {"activation_offload": True, "offload_optimizer": True},
    ],
    ids=str,
)
def test_exec_does_not_change_the_weights(tmp_path: Path, dataset: Path, tiny_llama: Path, exec: dict) -> None:
    want = data.train(tmp_path / "plain", dataset, tiny_llama, **SHORT)
    got = data.train(tmp_path / "other", dataset, tiny_llama, exec=Exec(threads=1, **exec), **SHORT)
    assert data.max_difference(got, want) < 1e-5
    if "attention" in exec:
        assert got.summary["path"] == f"plain: exec.attention: {exec['attention']}"


@pytest.mark.slow
def test_compiled_layers_do_not_change_the_weights(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    """Slow: a C++ compiler runs."""
    want = data.train(tmp_path / "plain", dataset, tiny_llama, **SHORT)
    got = data.train(tmp_path / "compiled", dataset, tiny_llama, exec=Exec(threads=1, compile=True), **SHORT)
    assert got.summary["path"] == "plain: exec.compile; compiled"
    assert data.max_difference(got, want) < 1e-4


def test_layers_that_do_not_compile_are_computed_plainly(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(function: Any, **_: Any) -> Any:
        def fail(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no compiler here")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    got = data.train(tmp_path / "got", dataset, tiny_llama, exec=Exec(threads=1, compile=True), **SHORT)
    assert got.summary["path"] == "plain: exec.compile; not compiled: no compiler here"


@pytest.mark.parametrize(
    ("exec", "said"),
    [
        ({"attention": "flex"}, "flex attention has no backward on a CPU"),
        ({"kernels": "liger"}, "Liger's kernels are written for GPUs"),
    ],
)
def test_what_a_cpu_cannot_is_refused(tmp_path: Path, dataset: Path, tiny_llama: Path, exec: dict, said: str) -> None:
    method = {"method": replace(data.LORA, dropout=0.1)}  # off the flat path, which needs none of this
    with pytest.raises(InputError, match=said):
        data.train(tmp_path, dataset, tiny_llama, exec=Exec(threads=1, **exec), **SHORT | method)


def test_flash_on_a_gpu_is_refused_in_fp32(tiny_llama: Path) -> None:
    with pytest.raises(InputError, match="computes in bf16 alone"):
        kernels.use_attention(load_base(tiny_llama, dtype="fp32"), "flash", torch.device("cuda", 0), "fp32")


def norm(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float, casting: str, in_place: bool) -> Any:
    assert (offset, casting, in_place) == (0.0, "llama", False)
    return weight * (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def swiglu(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.silu(gate) * up


def test_fused_kernels_stand_in_for_norms_and_gates_and_leave_no_trace(tiny_llama: Path) -> None:
    """With functions of Liger's signatures: the kernels themselves need a GPU."""
    model = load_base(tiny_llama, dtype="fp32")
    ids = torch.arange(3, 20)[None]
    calls: list[str] = []
    functions = SimpleNamespace(
        liger_rms_norm=lambda *a: (calls.append("norm"), norm(*a))[1],
        liger_swiglu=lambda *a: (calls.append("gate"), swiglu(*a))[1],
    )
    want = model(input_ids=ids).logits
    undo = kernels.use_liger(model, CPU, functions=functions)
    assert float((model(input_ids=ids).logits - want).abs().max().detach()) < 1e-5
    layers = model.config.num_hidden_layers
    assert (calls.count("norm"), calls.count("gate")) == (2 * layers + 1, layers)
    undo()
    calls.clear()
    assert torch.equal(model(input_ids=ids).logits, want)
    assert not calls


@pytest.mark.parametrize("said", ["auto", "liger"])
def test_kernels_that_differ_are_not_used(
    tmp_path: Path, dataset: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    wrong = SimpleNamespace(liger_rms_norm=norm, liger_swiglu=lambda gate, up: gate * up)
    use = kernels.use_liger
    monkeypatch.setattr(forwards, "has_liger", lambda device: True)
    monkeypatch.setattr(forwards, "use_liger", lambda model, device: use(model, device, functions=wrong))
    exec = Exec(threads=1, attention="sdpa", kernels=said)
    if said == "liger":
        with pytest.raises(InputError, match="Liger's kernels differ here"):
            data.train(tmp_path / "got", dataset, tiny_llama, exec=exec, **SHORT)
        return
    want = data.train(tmp_path / "want", dataset, tiny_llama, exec=Exec(threads=1, attention="sdpa"), **SHORT)
    got = data.train(tmp_path / "got", dataset, tiny_llama, exec=exec, **SHORT)
    assert "without Liger" in got.summary["path"]
    assert data.files(got) == data.files(want)
