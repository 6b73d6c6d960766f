"""The flat path's loss and every trained weight's gradient are the plain path's, for each method that it takes."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import make_tiny
from tests.train import data
from tunesmith.model import flat
from tunesmith.model.flat_layout import Document
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.text.render import Renderer
from tunesmith.train.batches import render_rows
from tunesmith.train.forward import FlatForward, PlainForward, choose_forward

LORA, FULL = data.LORA, data.FULL
METHODS = {
    "full": FULL,
    "last_layer": replace(FULL, train_layers="last:1"),
    "down_alone": replace(FULL, train_layers=("*.1.mlp.down_proj.*", "*.1.self_attn.o_proj.*")),
    "one_of_three": replace(FULL, train_layers=("*.0.self_attn.k_proj.*", "*.1.mlp.up_proj.*")),
    "norms_and_words": replace(FULL, train_layers=("*norm*", "*embed_tokens*")),
    "lora": LORA,
    "some_layers": replace(LORA, targets=("q_proj", "down_proj")),
    "rslora": replace(LORA, rslora=True),
    "ranks": replace(LORA, ranks=(("down_proj", 8), ("layers.0.*", 2))),
    "pissa": replace(LORA, init="pissa"),
    "olora": replace(LORA, init="olora"),
    "dora": replace(LORA, dora=True),
    "nf4": replace(LORA, kind="qlora", bits=4, double_quant=True),
    "int8": replace(LORA, kind="qlora", bits=8),
    "int8_dora": replace(LORA, kind="qlora", bits=8, dora=True),
}


def documents(base: Path, count: int = 6) -> list[Document]:
    rows = data.make_rows(count, seed=3)
    return render_rows(rows, Renderer.load(base, system="Give the label."), 128)


def made(base: Path, method: MethodSpec, dtype: str = "fp32"):
    if method.kind == "qlora":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    model = methods.wrap(load_base(base, dtype=dtype), method, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in methods.trainable_parameters(model).items():
            if "lora_" in name:
                p += 0.05 * torch.randn(p.shape, generator=generator)
    return model


def gradients(forward, model, docs: list[Document]) -> tuple[float, dict[str, torch.Tensor]]:
    loss = forward.nll_sum(docs, step=0)
    loss.backward()
    found = {n: p.grad for n, p in methods.trainable_parameters(model).items()}
    model.zero_grad(set_to_none=True)
    return loss.item(), found


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    untied = {"tie_word_embeddings": False}
    return {
        "llama": make_tiny(root / "llama", num_hidden_layers=2),
        "qwen2": make_tiny(root / "qwen2", "qwen2", num_hidden_layers=2, **untied),  # biases, a head of its own
        "qwen3": make_tiny(root / "qwen3", "qwen3", num_hidden_layers=2),  # norms of heads
    }


@pytest.mark.parametrize(
    ("family", "name"),
    [("llama", n) for n in METHODS] + [(f, n) for f in ("qwen2", "qwen3") for n in ("full", "dora", "one_of_three")],
)
def test_gradients(bases: dict[str, Path], family: str, name: str) -> None:
    model, docs = made(bases[family], METHODS[name]), documents(bases[family])
    assert flat.refusal(model, 128) == ""
    plain = PlainForward(model, precision="fp32", autocast=False, seed=0)
    loss, want = gradients(plain, model, docs)
    got_loss, got = gradients(FlatForward(model, "fp32"), model, docs)
    assert got_loss == pytest.approx(loss, rel=1e-5)
    assert len(want) > 1
    for key, gradient in want.items():
        assert gradient.abs().max() > 0, key
        assert got[key].dtype == torch.float32
        torch.testing.assert_close(got[key], gradient, rtol=1e-4, atol=1e-5, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("name", ["full", "dora", "nf4"])
def test_gradients_in_bf16_are_near_those_in_fp32(bases: dict[str, Path], name: str) -> None:
    """Also that the weights which the optimizer changes are the ones that the next forward reads."""
    found = {}
    for precision in ("fp32", "bf16"):
        dtype = "fp32" if name == "full" else precision
        model, docs = made(bases["llama"], METHODS[name], dtype), documents(bases["llama"])
        forward = choose_forward(model, docs, precision, full=name == "full", seed=0)
        assert forward.path == "flat", forward.why
        losses = []
        for _ in range(3):
            loss = forward.nll_sum(docs, step=0) / sum(d.supervised for d in docs)
            loss.backward()
            losses.append(loss.item())
            with torch.no_grad():
                for p in methods.trainable_parameters(model).values():
                    p -= 0.2 * p.grad
            found[precision] = {n: p.grad.clone() for n, p in methods.trainable_parameters(model).items()}
            model.zero_grad(set_to_none=True)
        found[precision, "losses"] = losses
    assert found["fp32", "losses"][-1] < found["fp32", "losses"][0] - 0.05
    assert found["bf16", "losses"] == pytest.approx(found["fp32", "losses"], abs=0.06)
    for key, want in found["fp32"].items():
        off = (found["bf16"][key] - want).norm() / want.norm()
        assert off < 0.1, (key, float(off))


def test_nothing_below_the_lowest_trained_layer_is_kept(bases: dict[str, Path]) -> None:
    model, docs = made(bases["llama"], METHODS["last_layer"]), documents(bases["llama"])
    loss = FlatForward(model, "fp32").nll_sum(docs, step=0)
    halves, node = 0, loss.grad_fn
    while node is not None:
        halves += type(node).__name__ in ("AttentionBackward", "MlpBackward")
        node = next((n for n, _ in node.next_functions if n is not None and "Accumulate" not in type(n).__name__), None)
    assert halves == 2  # of four in two layers


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_weights_file_is_not_kept_in_memory_beside_the_fused_weights(bases: dict[str, Path], name: str) -> None:
    file = str((bases["llama"] / "model.safetensors").resolve())
    model = made(bases["llama"], METHODS[name])
    mapped = file in Path("/proc/self/maps").read_text(encoding="utf-8")
    kept = FlatForward(model, "fp32")
    gc.collect()
    assert mapped and kept.path == "flat"  # else there is nothing to let go
    assert file not in Path("/proc/self/maps").read_text(encoding="utf-8")
