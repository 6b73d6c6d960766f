"""What cannot be had is refused before any time is spent, everything at once."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import Any

import pytest

from tests.train.data import FULL, SPEC
from tunesmith.core.errors import InputError
from tunesmith.core.settings import ExecSettings, TrainSettings
from tunesmith.core.stage import EngineName
from tunesmith.launch.check import check, engine, isolated, refuse_spec

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def problems(said: dict[str, Any], train: dict[str, Any] | None = None) -> dict[str, str]:
    with pytest.raises(InputError) as found:
        check(ExecSettings(**said), TrainSettings(**(train or {})))
    assert all(p.fix for p in found.value.problems)
    return {p.where: p.what for p in found.value.problems}


def test_one_process_is_fine() -> None:
    check(ExecSettings(), TrainSettings())
    assert engine(ExecSettings()) == "single" and engine(ExecSettings(processes=2)) == "ddp"


def test_an_engine_with_one_process() -> None:
    assert "there is one" in problems({"engine": "fsdp2"})["exec.engine"]
    assert "2 are asked for" in problems({"engine": "single", "processes": 2})["exec.engine"]


def test_more_ranks_than_devices() -> None:
    assert f"{CORES + 1} ranks" in problems({"processes": CORES + 1})["exec.processes"]


def test_machines_that_cannot_meet() -> None:
    said = problems({"nodes": 2, "node_rank": 2})
    assert "counted from 0" in said["exec.node_rank"] and "place to meet" in said["exec.rendezvous"]
    assert "no HOST:PORT" in problems({"nodes": 2, "rendezvous": "here"})["exec.rendezvous"]
    check(ExecSettings(nodes=2, rendezvous="127.0.0.1:29500"), TrainSettings())


def test_what_cannot_be_split() -> None:
    sharded: dict[str, Any] = {"nodes": 2, "rendezvous": "127.0.0.1:29500", "engine": "fsdp2"}
    said = problems(sharded, {"optimizer": "muon", "method": {"kind": "qlora"}})
    assert "muon" in said["train.optimizer"] and "quantized" in said["train.method.kind"]
    check(ExecSettings(**{**sharded, "engine": "ddp"}), TrainSettings(optimizer="muon"))


def test_one_device_for_several_ranks() -> None:
    said = problems({"processes": 2, "device": "cuda:1"})
    assert "2 ranks need one each" in said["exec.device"]


def test_a_split_optimizer_is_not_moved_besides() -> None:
    there: dict[str, Any] = {"nodes": 2, "rendezvous": "127.0.0.1:29500", "offload_optimizer": True}
    for name in ("fsdp2", "zero3"):
        assert "split" in problems({**there, "engine": name})["exec.offload_optimizer"]
    check(ExecSettings(**{**there, "engine": "ddp"}), TrainSettings())


def test_bf16_copies_and_bf16_adapters_that_engines_do_not_take() -> None:
    there: dict[str, Any] = {"nodes": 2, "rendezvous": "127.0.0.1:29500"}
    for name in ("fsdp2", "zero2", "zero3"):
        said = problems({**there, "engine": name}, {"weights": "bf16", "method": {"kind": "full"}})
        assert "not split" in said["train.weights"]
    for name in ("zero2", "zero3"):
        assert "takes fp32" in problems({**there, "engine": name}, {"precision": "bf16"})["train.precision"]


@pytest.mark.parametrize("chosen", ["zero2", "zero3"])
def test_bf16_that_was_measured_is_refused_before_a_rank_starts(chosen: EngineName) -> None:
    with pytest.raises(InputError, match="takes fp32 weights"):
        refuse_spec(chosen, replace(SPEC, precision="bf16"))
    refuse_spec(chosen, SPEC)
    refuse_spec(chosen, replace(SPEC, precision="bf16", method=FULL))
    refuse_spec("fsdp2", replace(SPEC, precision="bf16"))


def test_cores_count_where_the_cpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert "CUDA devices" in problems({"processes": CORES + 1})["exec.processes"]
    assert "cores" in problems({"processes": CORES + 1, "device": "cpu"})["exec.processes"]


def test_zero_without_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else found(name))
    assert "not installed" in problems({"nodes": 2, "rendezvous": "a:1", "engine": "zero3"})["exec.engine"]


def test_a_process_of_its_own_when_memory_is_short() -> None:
    assert not isolated(ExecSettings(), lambda: 400, 1000 << 20)
    assert isolated(ExecSettings(), lambda: 600, 1000 << 20)
    assert isolated(ExecSettings(processes=2), lambda: 0, 1 << 40)
    assert not isolated(ExecSettings(isolate=False), lambda: 600, 0)
