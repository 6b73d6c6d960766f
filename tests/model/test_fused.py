"""The fused forward gives the plain scores, on models it is meant for, and is not used where it would not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.sharp import sharp_model
from tests.model.test_scoring import SEQUENCES, TRIE, liked_trie, one_by_one, softmax, some_prompts
from tunesmith.model import fused, routes
from tunesmith.model.forward import Network
from tunesmith.model.fused import FusedNetwork, log_probabilities, refusal
from tunesmith.model.plain import score_in_full
from tunesmith.model.scoring import Counts, score_labels


@pytest.mark.parametrize("rides", [True, False])
@pytest.mark.parametrize("family", fused.FAMILIES)
def test_fused_equals_each_label_in_full_one_by_one(
    family: str, rides: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = sharp_model(tmp_path / family, family)
    assert refusal(model) == ""
    prompts = some_prompts()
    want = one_by_one(model, prompts)
    assert want.std() > 3, "the test would not see a leak between nearly equal scores"
    network = FusedNetwork(model)
    network.rides = network.rides and rides
    with network.evaluating():
        for batch_tokens, run, tokens in ((10, 48, 2048), (250, 3, 40), (5000, 7, 2048)):
            monkeypatch.setattr(fused, "RUN", run)
            monkeypatch.setattr(fused, "TOKENS", tokens)
            got = score_labels(network, prompts, TRIE, batch_tokens=batch_tokens, tolerance=0.0)
            assert np.abs(got - want).max() < 1e-4
        assert isinstance(routes.fastest(Network(model)), FusedNetwork)


@pytest.mark.parametrize("tolerance", [1e-2, 1e-6, None])
def test_what_is_left_out_moves_no_probability_by_more_than_stated(tmp_path: Path, tolerance: float | None) -> None:
    """None: the winner alone is wanted."""
    model = sharp_model(tmp_path / "m", logits=8)
    network, counts, all_ = FusedNetwork(model), Counts(), Counts()
    for seed in range(4):
        prompts = some_prompts(seed)
        trie = liked_trie(model, prompts)
        least = len(trie.labels) if tolerance is None else tolerance
        with network.evaluating():
            exact = score_labels(network, prompts, trie, batch_tokens=400, tolerance=0.0, counts=all_)
            quick = score_labels(network, prompts, trie, batch_tokens=400, tolerance=least, counts=counts)
        assert (quick.argmax(1) == exact.argmax(1)).all()
        if tolerance is not None:
            assert np.abs(softmax(quick) - softmax(exact)).sum(axis=1).max() < 2 * tolerance
    assert counts.nodes < 0.9 * all_.nodes, "too little was left out to test anything"


def test_bf16_is_as_near_to_fp32_as_the_plain_forward(tmp_path: Path) -> None:
    model, prompts = sharp_model(tmp_path / "m", num_hidden_layers=2), some_prompts()
    want = one_by_one(model, prompts)
    model.to(torch.bfloat16)
    plain, network = Network(model), FusedNetwork(model)
    with network.evaluating():
        off = np.abs(score_in_full(plain, prompts, SEQUENCES, batch_tokens=900) - want).mean()
        mine = np.abs(score_labels(network, prompts, TRIE, batch_tokens=900, tolerance=0.0) - want).mean()
    assert 0 < mine < 1.5 * off


@pytest.mark.parametrize("scale", [1.0, 40.0, -300.0])
def test_normaliser_neither_overflows_nor_underflows(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(5, 16, generator=generator) * scale
    head = torch.rand(1300, 16, generator=generator)
    places, tokens = torch.tensor([0, 4, 4, 2, 1]), torch.tensor([1299, 0, 511, 512, 513])
    want = (hidden.double() @ head.double().T).log_softmax(-1)[places, tokens]
    assert float((log_probabilities(hidden, head, places, tokens) - want).abs().max()) < 1e-3 * max(1, abs(scale) / 40)


def test_a_model_that_computes_something_else_goes_the_plain_way(tmp_path: Path) -> None:
    """A hook that the fused forward would pass by is noticed on this very model."""
    model = sharp_model(tmp_path / "m")
    model.model.layers[1].mlp.register_forward_hook(lambda module, inputs, output: output * 0.5)
    network = Network(model)
    with network.evaluating():
        assert refusal(model) == ""
        assert routes.fastest(network) is network
        got = routes.label_scores(network, some_prompts(), TRIE, batch_tokens=500, tolerance=0.0)
    assert np.abs(got - one_by_one(model, some_prompts())).max() < 1e-4


@pytest.mark.parametrize("family", ["gemma", "gpt2"])
def test_other_families_are_refused(family: str, tmp_path: Path) -> None:
    assert family in refusal(sharp_model(tmp_path / family, family))


def test_weights_that_change_are_followed(tmp_path: Path) -> None:
    model, prompts = sharp_model(tmp_path / "m"), some_prompts()
    with Network(model).evaluating():
        network = routes.fastest(Network(model))
        assert isinstance(network, FusedNetwork)
        before = score_labels(network, prompts, TRIE, batch_tokens=500, tolerance=0.0)
        for parameter in model.parameters():
            parameter.mul_(1.1)
        after = score_labels(network, prompts, TRIE, batch_tokens=500, tolerance=0.0)
    assert np.abs(after - before).max() > 0.1
    assert np.abs(after - one_by_one(model, prompts)).max() < 1e-4
