"""What cannot be had is refused before any time is spent, everything at once."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import pytest

from tunesmith.core.errors import InputError
from tunesmith.core.settings import ExecSettings, TrainSettings
from tunesmith.launch.check import check, engine, isolated

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
    sharded = {"nodes": 2, "rendezvous": "127.0.0.1:29500", "engine": "fsdp2"}
    said = problems(sharded, {"optimizer": "muon", "method": {"kind": "qlora"}})
    assert "muon" in said["train.optimizer"] and "quantized" in said["train.method.kind"]
    check(ExecSettings(**{**sharded, "engine": "ddp"}), TrainSettings(optimizer="muon"))


def test_zero_without_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "deepspeed" else found(name))
    assert "not installed" in problems({"nodes": 2, "rendezvous": "a:1", "engine": "zero3"})["exec.engine"]


def test_a_process_of_its_own_when_memory_is_short() -> None:
    assert not isolated(ExecSettings(), lambda: 400, 1000 << 20)
    assert isolated(ExecSettings(), lambda: 600, 1000 << 20)
    assert isolated(ExecSettings(processes=2), lambda: 0, 1 << 40)
    assert not isolated(ExecSettings(isolate=False), lambda: 600, 0)
