"""Bottleneck adapters through the recipe: they learn, and neither a stop nor the micro-batch changes what they learn."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.model.test_bottleneck import PLACEMENTS, every_placement
from tests.tiny import make_tiny
from tests.train import data
from tunesmith.core.errors import Stopped
from tunesmith.core.nouns import Message
from tunesmith.core.stage import Exec
from tunesmith.model.answer import LanguageModel
from tunesmith.model.forward import Network
from tunesmith.model.load import load_base
from tunesmith.model.methods import catalog as methods
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.plain import score_in_full
from tunesmith.text.render import Renderer

EXEC = Exec(micro_batch_tokens=300, threads=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data.make_dataset(tmp_path_factory.mktemp("dataset"))


@every_placement
def test_it_learns_on_the_plain_path(spec: MethodSpec, tmp_path: Path, dataset: Path) -> None:
    # weights so wide that an adapter can move the logits by many nats
    base = make_tiny(tmp_path / "base", initializer_range=0.5, tie_word_embeddings=False)
    work = data.train(tmp_path / "run", dataset, base, exec=EXEC, method=spec, epochs=6.0, lr=2e-2)
    losses = data.losses(work)
    assert losses[-1] < 0.5 * losses[0]
    assert work.summary["path"].startswith("plain")


@every_placement
def test_stopped_at_each_step_and_resumed_is_the_same_to_the_byte(
    spec: MethodSpec, tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    method = replace(spec, dropout=0.2)
    whole = data.train(tmp_path / "whole", dataset, tiny_llama, exec=EXEC, method=method)
    for step in range(1, 6):
        stop = threading.Event()

        def progress(
            done: float, total: float, label: str, step: int = step, stop: threading.Event = stop, **_: object
        ):
            if (done, label) == (step, "train"):
                stop.set()

        with pytest.raises(Stopped):
            data.train(tmp_path / "parts", dataset, tiny_llama, exec=EXEC, stop=stop, progress=progress, method=method)
    parts = data.train(tmp_path / "parts", dataset, tiny_llama, exec=EXEC, method=method)
    assert data.files(parts) == data.files(whole)


@pytest.mark.parametrize("family", ["llama", "opt"])
def test_dropout_is_keyed_by_example(family: str, tmp_path: Path, dataset: Path) -> None:
    """Also where a model flattens rows and tokens, as OPT does before its feed-forward."""
    base = make_tiny(
        tmp_path / "base", family, **({"ffn_dim": 96, "word_embed_proj_dim": 48} if family == "opt" else {})
    )
    method = replace(PLACEMENTS["houlsby"], dropout=0.3)

    def weights(name: str, micro_batch_tokens: int, method: MethodSpec = method) -> dict[str, torch.Tensor]:
        exec = Exec(micro_batch_tokens=micro_batch_tokens, threads=1)
        return data.weights(data.train(tmp_path / name, dataset, base, exec=exec, method=method, epochs=1.0))

    want, got = weights("large", 4096), weights("small", 100)
    without = weights("without", 4096, replace(method, dropout=0.0))
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-5)
    assert any(float((without[n] - want[n]).abs().max()) > 1e-4 for n in want)


@every_placement
def test_labels_are_scored_with_the_adapter(spec: MethodSpec, tiny_llama: Path) -> None:
    """The fused scoring reads a layer's weights, which inside a wrapper are the base's; and it is proved once for
    each model in memory, here while the adapter is still a change of nothing."""
    model = methods.wrap(load_base(tiny_llama, dtype="fp32"), spec, seed=0).eval()
    renderer = Renderer.load(tiny_llama, system="Give the label of the text.")
    prompt = (Message(role="user", content="the quick brown fox"),)
    speaker = LanguageModel(model, renderer)
    start = speaker.choose([prompt], data.LABELS, batch_tokens=512, exact=True)[0]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in methods.trainable_parameters(model).values():
            parameter.add_(torch.empty_like(parameter).normal_(std=0.2, generator=generator))
    answer = speaker.choose([prompt], data.LABELS, batch_tokens=512, exact=True)[0]
    network, ids = Network(model), renderer.prompt(prompt)
    with network.evaluating():
        scores = score_in_full(network, [ids], [renderer.answer(x) for x in data.LABELS], batch_tokens=512)
    want = torch.from_numpy(scores)[0].softmax(0)
    assert answer.probabilities is not None
    assert start.probabilities is not None
    got = torch.tensor(answer.probabilities, dtype=torch.float64)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert float((got - torch.tensor(start.probabilities)).abs().max()) > 1e-3
