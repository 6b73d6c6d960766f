"""Any values of a method on any family: it trains as many weights as were counted, or says where, what and how to mend."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.model.methods.kinds import TEXTS
from tests.tiny import make_tiny
from tests.train.cost.test_counting import FAMILIES
from tunesmith.core.errors import TunesmithError
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import METHODS, MethodSpec
from tunesmith.train.cost import counting
from tunesmith.train.cost.skeleton import Skeleton, skeleton_of

Family = Callable[[str], tuple[Path, Any, Skeleton]]
NAMES = ("q_proj", "k_proj", "v_proj", "down_proj", "fc1", "fc2", "c_attn", "c_proj", "query_key_value", "dense",
         "dense_h_to_4h", "dense_4h_to_h", "lm_head", "embed_tokens", "wte", "norm", "q_prj", "0", "", "*")  # fmt: skip
PATTERNS = (
    "*",
    "*.0.*",
    "layers.0.*",
    "h.1.*",
    "*proj",
    "*norm*",
    "ln_*",
    "down_proj",
    "nothing",
    "",
    "[",
    "h.*.mlp.*",
)
names = st.lists(st.sampled_from(NAMES), max_size=3).map(tuple)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(-1, 70),
    "alpha": st.sampled_from((0.0, 1.0, 8.0, 1e-30, float("inf"), float("nan"))),
    "dropout": st.sampled_from((0.0, 0.3, 1.0, -0.1, float("nan"))),
    "targets": st.one_of(st.just("all-linear"), names, st.sampled_from(NAMES)),
    "init": st.sampled_from(("uniform", "pissa", "olora", "eva", "gaussian")),
    "rslora": st.booleans(),
    "dora": st.booleans(),
    "b_lr_ratio": st.sampled_from((1.0, 16.0, 0.0, -1.0, float("nan"), float("inf"))),
    "ranks": st.lists(st.tuples(st.sampled_from(PATTERNS), st.integers(0, 70)), max_size=2).map(tuple),
    "bits": st.sampled_from((0, 4, 8, 3)),
    "double_quant": st.booleans(),
    "virtual_tokens": st.integers(-1, 9),
    "projection": st.integers(-1, 20),
    "placement": st.sampled_from(("houlsby", "pfeiffer", "parallel", "", "serial")),
    "reduction": st.sampled_from((0.0, 2.0, 16.0, 1e4, 0.5, -1.0, float("nan"), float("inf"))),
    "activation": st.sampled_from(("relu", "gelu", "silu", "tanh", "", "exp")),
    "scaling": st.sampled_from((1.0, 4.0, 0.0, -1.0, float("nan"), float("inf"))),
    "train_layers": st.one_of(
        st.sampled_from(("all", "last:1", "last:9", "last:0", "last:", "first:1", "")),
        st.lists(st.sampled_from(PATTERNS), max_size=2).map(tuple),
    ),
}
SENSIBLE = {"kind": "lora", "rank": 4, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear"}
GOOD: dict[str, Any] = {
    "bits": 4, "virtual_tokens": 3, "projection": 8, "placement": "pfeiffer", "activation": "relu",
}  # fmt: skip


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """A sound method with one to three values changed: were all drawn, nearly all would be refused for the first."""
    kind = draw(st.sampled_from(sorted(METHODS)))
    reads = METHODS[kind].values
    found = SENSIBLE | {"kind": kind} | {n: v for n, v in GOOD.items() if n in reads}
    likely = st.sampled_from(reads)
    for name in draw(st.lists(st.one_of(likely, likely, likely, st.sampled_from(sorted(VALUES))), max_size=3)):
        found[name] = draw(VALUES[name])
    return found


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = tmp_path_factory.mktemp("families")

    @lru_cache
    def get(name: str) -> tuple[Path, Any, Skeleton]:
        size = {"n_layer" if name in ("gpt2", "bloom") else "num_hidden_layers": 2}
        base = make_tiny(folder / name, name, **{**FAMILIES[name], **size})
        return base, load_base(base, dtype="fp32"), skeleton_of(json.loads((base / "config.json").read_text()))

    return get


def assert_refused_well(e: TunesmithError) -> None:
    assert e.problems
    for p in e.problems:
        assert p.where and p.what and p.fix, p


def assert_counted_or_refused(said: dict[str, Any], of: tuple[Path, Any, Skeleton]) -> None:
    base, bare, skeleton = of
    try:
        spec = MethodSpec(**said)
    except TunesmithError as e:
        return assert_refused_well(e)
    try:
        model = methods.wrap(copy.deepcopy(bare), spec, seed=0, texts=TEXTS)
    except TunesmithError as e:
        assert_refused_well(e)
        with pytest.raises(TunesmithError):  # plan and check say so too, before a weight is read
            methods.check(base, spec)
        return None
    trained = methods.trainable_parameters(model)
    assert trained
    assert counting.trained_count(skeleton, spec) == sum(p.numel() for p in trained.values())
    checked = methods.check(base, spec)
    assert set(checked) == set(trained) or spec.kind in ("prompt", "p_tuning", "prefix")
    return None


FUZZ = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@settings(max_examples=60, derandomize=True, **FUZZ)
@given(values(), st.sampled_from(("llama", "gpt2", "bloom")))
def test_any_method_is_counted_or_refused(family: Family, said: dict[str, Any], name: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    assert_counted_or_refused(said, family(name))


@pytest.mark.slow
@settings(max_examples=3000, **FUZZ)
@given(values(), st.sampled_from(sorted(FAMILIES)))
def test_any_method_on_any_family_is_counted_or_refused(family: Family, said: dict[str, Any], name: str) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    assert_counted_or_refused(said, family(name))
