"""What a method may be told: impossible and unread values are refused with the reason, old checkpoints are read."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from tests.model.methods.kinds import LORA, MERGED, QUANTIZED, VIRTUAL
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.methods.spec import METHODS, MethodSpec, method_json, methods_facts, read_method

BASIC = {"rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}


@pytest.mark.parametrize("spec", [LORA, *MERGED.values(), *QUANTIZED.values(), *VIRTUAL.values()], ids=str)
def test_every_spec_survives_its_checkpoint(spec: MethodSpec, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"method": method_json(spec)}))
    assert read_method(tmp_path) == spec


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpoints_from_before_a_field_existed_are_read(kind: str, tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"method": {"kind": kind, **BASIC}}))
    assert read_method(tmp_path) == MethodSpec(kind=kind, **BASIC)  # type: ignore[arg-type]


def test_a_checkpoint_with_values_from_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.json").write_text(json.dumps({"method": {"kind": "lora", **BASIC, "twist": 3}}))
    with pytest.raises(ModelError, match="twist"):
        read_method(tmp_path)


@pytest.mark.parametrize(
    ("values", "where", "fix"),
    [
        ({"kind": "lora", "init": "zero"}, "init", ""),
        ({"kind": "lora", "b_lr_ratio": 0.0}, "b_lr_ratio", "16"),
        ({"kind": "lora", "ranks": (("q_proj", 0),)}, "ranks", ""),
        ({"kind": "lora", "init": "pissa", "dora": True}, "dora", "uniform"),
        ({"kind": "lora", "bits": 4}, "bits", "qlora"),
        ({"kind": "qlora", "bits": 3}, "bits", ""),
        ({"kind": "qlora"}, "bits", ""),
        ({"kind": "qlora", "bits": 8, "double_quant": True}, "double_quant", "bits: 4"),
        ({"kind": "qlora", "bits": 4, "init": "olora"}, "init", "kind: lora"),
        ({"kind": "full", "dora": True}, "dora", "lora, qlora"),
        ({"kind": "full", "train_layers": "first:2"}, "train_layers", "last:4"),
        ({"kind": "full", "train_layers": "last:0"}, "train_layers", "last:4"),
        ({"kind": "full", "train_layers": ()}, "train_layers", "last:4"),
        ({"kind": "lora", "train_layers": "last:2"}, "train_layers", "full"),
        ({"kind": "prompt"}, "virtual_tokens", "20"),
        ({"kind": "prompt", "virtual_tokens": 5, "projection": 8}, "projection", "p_tuning, prefix"),
        ({"kind": "p_tuning", "virtual_tokens": 5}, "projection", "128"),
        ({"kind": "prefix", "virtual_tokens": 0}, "virtual_tokens", "20"),
        ({"kind": "ia3", "rslora": True}, "rslora", "lora, qlora"),
    ],
    ids=str,
)
def test_impossible_values_are_refused(values: dict[str, object], where: str, fix: str) -> None:
    with pytest.raises(InputError) as e:
        MethodSpec(**(BASIC | values))  # type: ignore[arg-type]
    problem = next(p for p in e.value.problems if p.where == f"train.method.{where}")
    assert problem.what
    assert fix in problem.fix


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(InputError) as e:
        MethodSpec(kind="qlora", bits=3, init="pissa", virtual_tokens=4, **BASIC)  # type: ignore[arg-type]
    assert {p.where for p in e.value.problems} == {f"train.method.{f}" for f in ("bits", "init", "virtual_tokens")}


def test_the_facts_are_complete_and_load_no_torch() -> None:
    facts = methods_facts()
    assert [f["name"] for f in facts] == list(METHODS)
    names = {f.name for f in fields(MethodSpec)}
    for fact in facts:
        assert fact["trains"], fact
        assert fact["use"], fact
        assert fact["lr_source"], fact
        assert fact["default_lr"] > 0, fact
        assert fact["servable"] in ("merged", "whole", "beside its base"), fact
        assert fact["mergeable"] == (fact["servable"] != "beside its base"), fact
        assert set(fact["values"]) <= names, fact
    json.dumps(facts)
    code = (
        "import sys; from tunesmith.model.methods.spec import methods_facts as f; f(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
