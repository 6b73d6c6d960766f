"""Memory by part, and which methods fit where: an 8B model from its shapes alone."""

from __future__ import annotations

import platform
from dataclasses import replace
from typing import Any

import pytest

from tunesmith.core.stage import Exec
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import machine, ranking
from tunesmith.train.cost.memory import Load, Memory, load_of, memory
from tunesmith.train.cost.skeleton import Skeleton, skeleton_of
from tunesmith.train.cost.work import flops_per_token

LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
DATASET = {
    "counts": {"train": 800, "validation": 100, "test": 100},
    "tokens": {"total": 400_000, "longest": 900, "answer": {"mean": 20, "longest": 60}},
}
LORA, FULL = ranking.LORA, ranking.FULL


@pytest.fixture(scope="module")
def llama() -> Skeleton:
    return skeleton_of(LLAMA_8B)


def counted(
    skeleton: Skeleton, method: MethodSpec = LORA, optimizer: str = "adamw", exec: Exec | None = None
) -> Memory:
    exec = exec or Exec(micro_batch_tokens=4096)
    load = load_of(DATASET, global_batch=16, micro_batch_tokens=exec.micro_batch_tokens)
    values: dict[str, Any] = {"precision": "bf16", "device": "cuda", "checkpointing": exec.gradient_checkpointing}
    return memory(LLAMA_8B, skeleton, method, load, optimizer=optimizer, **values)


def test_an_8b_model_has_8_billion_weights(llama: Skeleton) -> None:
    assert llama.count == 8_030_261_248  # as its model card says
    found = counted(llama)
    assert found.parts["weights"] == pytest.approx(2 * 8.03e9, rel=0.02)
    assert found.parts["gradients"] == 4 * 41_943_040  # rank 16 on all linear layers
    assert found.parts["optimizer"] == 8 * 41_943_040
    assert found.low < found.total < found.high


def test_full_fine_tuning_holds_16_bytes_a_weight_and_other_optimizers_less(llama: Skeleton) -> None:
    adamw, eight, factor = (counted(llama, FULL, o) for o in ("adamw", "adamw_8bit", "adafactor"))
    held = sum(adamw.parts[p] for p in ("gradients", "optimizer"))
    assert held == 12 * llama.count and adamw.parts["weights"] >= 4 * llama.count
    assert adamw.total > eight.total > factor.total


def test_gradients_take_the_place_of_activations_unless_a_second_micro_batch_meets_them(llama: Skeleton) -> None:
    values: dict[str, Any] = {"precision": "bf16", "device": "cuda", "optimizer": "adamw"}
    several = load_of(DATASET, global_batch=16, micro_batch_tokens=1000)
    one = load_of(DATASET, global_batch=1, micro_batch_tokens=1000)
    assert one.whole_step and not several.whole_step and one.rows == several.rows == 1
    apart, shared = (memory(LLAMA_8B, llama, FULL, load, **values) for load in (several, one))
    assert apart.parts["gradients"] == 4 * llama.count
    assert shared.parts["gradients"] == 4 * llama.count - shared.parts["activations"] > 0


def test_bf16_weights_take_the_plain_path_and_a_copy_of_one_while_it_is_stepped(llama: Skeleton) -> None:
    load = Load(rows=1, tokens=64, answers=8, all_rows=1, all_tokens=64)
    values: dict[str, Any] = {"precision": "bf16", "optimizer": "adamw", "trained_in": "bf16"}
    chance, copies = (memory(LLAMA_8B, llama, FULL, load, master=m, **values) for m in ("stochastic", "fp32"))
    assert chance.path == copies.path == "plain"
    assert chance.parts["weights"] == copies.parts["weights"] == 2 * llama.count
    largest = 128256 * 4096
    assert chance.parts["optimizer"] == 8 * llama.count + 4 * largest
    assert copies.parts["optimizer"] == 12 * llama.count


def test_an_optimizer_that_widens_a_weight_is_counted_for_the_largest(llama: Skeleton) -> None:
    adamw, factor = (counted(llama, FULL, o).parts["optimizer"] for o in ("adamw", "adafactor"))
    largest = 128256 * 4096
    assert adamw == 8 * llama.count
    assert factor == pytest.approx(0.1 * llama.count + 8 * largest)
    assert counted(llama, LORA, "adafactor").parts["optimizer"] < largest


def test_holes_are_those_of_glibc_between_the_inputs_that_checkpointing_keeps(llama: Skeleton) -> None:
    load = Load(rows=1, tokens=512, answers=8, all_rows=1, all_tokens=512)
    values: dict[str, Any] = {"precision": "fp32", "optimizer": "adamw"}
    plain = memory(LLAMA_8B, llama, replace(LORA, dropout=0.1), load, **values)
    assert plain.path == "plain" and plain.parts["holes"] == 0
    twice, other = (memory(LLAMA_8B, llama, LORA, load, checkpointing=True, glibc=g, **values) for g in (True, False))
    assert other.parts["holes"] == 0 and other.total < twice.total
    assert 0 < twice.parts["holes"] < plain.parts["activations"]
    assert "holes" not in memory(LLAMA_8B, llama, LORA, load, checkpointing=True, device="cuda", **values).parts


def test_another_allocator_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    assert machine.heap_is_glibc() == (platform.libc_ver()[0] == "glibc")
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/libtcmalloc_minimal.so.4")
    assert not machine.heap_is_glibc()


def test_a_quantized_base_takes_about_half_a_byte_a_weight(llama: Skeleton) -> None:
    four = counted(llama, replace(LORA, kind="qlora", bits=4, double_quant=True))
    assert four.parts["weights"] < 0.45 * counted(llama).parts["weights"]


def test_activations_grow_with_the_micro_batch_and_shrink_with_checkpointing(llama: Skeleton) -> None:
    small = counted(llama, exec=Exec(micro_batch_tokens=1024))
    large = counted(llama, exec=Exec(micro_batch_tokens=4096))
    assert large.parts["activations"] == pytest.approx(4 * small.parts["activations"], rel=0.01)
    twice = counted(llama, exec=Exec(micro_batch_tokens=4096, gradient_checkpointing=True))
    assert twice.path == "plain" and twice.parts["activations"] < 0.3 * large.parts["activations"]


def test_an_example_longer_than_the_micro_batch_is_alone_in_it() -> None:
    load = load_of(DATASET, global_batch=16, micro_batch_tokens=100, virtual_tokens=20)
    assert (load.rows, load.tokens) == (1, 920)
    assert load_of(DATASET, global_batch=16, micro_batch_tokens=10**6).rows == 16


def options(llama: Skeleton, gib: float) -> dict[str, ranking.Option]:
    found = ranking.options(
        llama, device="x", limit_bytes=gib * 2**30, count=lambda m, o, e: counted(llama, m, o, e), cost=lambda m: None,
        exec=Exec(micro_batch_tokens=4096),
    )  # fmt: skip
    assert [o.fits for o in found] == sorted((o.fits for o in found), key=[True, None, False].index)
    return {o.method: o for o in found}


def test_what_fits_on_which_gpu(llama: Skeleton) -> None:
    small, large = options(llama, 24), options(llama, 400)
    assert not small["full, adamw"].fits and large["full, adamw"].fits
    assert "optimizer" in small["full, adamw"].why or "weights" in small["full, adamw"].why
    assert small["full, adamw"].would_fit.startswith("train.method.kind") or not small["full, adamw"].would_fit
    assert not small["lora"].fits and small["lora"].would_fit  # activations of 4,096 tokens and 15 GiB of weights
    assert (
        "checkpointing" in small["lora"].would_fit
        or "micro" in small["lora"].would_fit
        or "qlora" in small["lora"].would_fit
    )
    assert all(o.why for o in small.values() if not o.fits)
    assert next(iter(large)).startswith("full")  # quality first


def test_the_arithmetic_of_a_token(llama: Skeleton) -> None:
    load = Load(rows=1, tokens=512, answers=512, all_rows=1, all_tokens=512)
    full = flops_per_token(llama, FULL, load, checkpointing=False)
    lora = flops_per_token(llama, LORA, load, checkpointing=False)
    assert full == pytest.approx(6 * 7.5e9, rel=0.1)  # 6 operations a weight and token, embeddings not multiplied
    assert lora == pytest.approx(full * 2 / 3, rel=0.05)
    assert flops_per_token(llama, LORA, load, checkpointing=True) == pytest.approx(lora * 1.5, rel=0.05)
