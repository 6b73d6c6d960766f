"""Generated text depends on its own prompt, seed and place, never on what else is in the batch."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from tests.model.sharp import STOP, Numbers, message, sharp_model
from tunesmith.core.errors import InputError
from tunesmith.model.answer import LanguageModel

FAMILIES = ["llama", "gpt2", "qwen2", "gemma2"]


def some_prompts(count: int = 7, shared: int = 15) -> list[list[int]]:
    rng = random.Random(1)
    start = [rng.randrange(3, 300) for _ in range(shared)]
    return [start + [rng.randrange(3, 300) for _ in range(rng.randrange(1, 30))] for _ in range(count)]


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return sharp_model(tmp_path_factory.mktemp("sharp"))


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_batched_is_greedy_alone_is_transformers(family: str, tmp_path: Path) -> None:
    model = sharp_model(tmp_path / family, family)
    prompts = some_prompts()
    ours = LanguageModel(model, Numbers())
    batched = ours.generate([message(p) for p in prompts], max_new_tokens=10, batch_tokens=10_000)
    for prompt, answer in zip(prompts, batched, strict=True):
        alone = ours.generate([message(prompt)], max_new_tokens=10, batch_tokens=10_000)[0]
        theirs = model.generate(torch.tensor([prompt]), max_new_tokens=10, do_sample=False, eos_token_id=STOP)
        assert answer.text == alone.text == Numbers().decode(theirs[0, len(prompt) :].tolist())
        assert answer.logprob == pytest.approx(alone.logprob, abs=1e-4)


def test_logprob_and_confidence_are_those_of_the_tokens(sharp: torch.nn.Module) -> None:
    prompt = some_prompts()[0]
    for temperature in (0.0, 1.5):
        answer = LanguageModel(sharp, Numbers()).generate(
            [message(prompt)], max_new_tokens=6, temperature=temperature, batch_tokens=1000
        )[0]
        ids = [int(n) for n in answer.text.split()]
        with torch.no_grad():
            logprobs = sharp(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        want = sum(float(logprobs[len(prompt) + k - 1, t]) for k, t in enumerate(ids))
        assert (answer.finish, answer.answer_tokens) == ("length", 6)
        assert answer.logprob == pytest.approx(want, abs=1e-4)
        assert answer.confidence == pytest.approx(math.exp(want / 6), rel=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 60, 150, 10_000])
def test_sampled_text_does_not_depend_on_the_layout(sharp: torch.nn.Module, batch_tokens: int) -> None:
    prompts = [message(p) for p in some_prompts()]
    model = LanguageModel(sharp, Numbers())

    def texts(n: int, tokens: int, seed: int = 3) -> list[str]:
        found = model.generate(
            prompts[:n], max_new_tokens=8, temperature=1.0, top_p=0.9, seed=seed, batch_tokens=tokens
        )
        return [a.text for a in found]

    want = texts(7, 400)
    assert texts(7, batch_tokens) == want
    assert texts(3, batch_tokens) == want[:3]
    assert texts(7, batch_tokens, seed=4) != want


def test_equal_prompts_in_other_places_draw_differently(sharp: torch.nn.Module) -> None:
    prompt = message(some_prompts()[0])
    found = LanguageModel(sharp, Numbers()).generate([prompt] * 6, max_new_tokens=8, temperature=1.5, batch_tokens=1000)
    assert len({a.text for a in found}) > 1


def test_stops_at_the_stop_token_and_others_go_on(tmp_path: Path) -> None:
    model = sharp_model(tmp_path / "m")
    prompts = some_prompts()
    plain = LanguageModel(model, Numbers()).generate([message(p) for p in prompts], max_new_tokens=9, batch_tokens=9999)
    first = [int(n) for n in plain[0].text.split()]

    class StopsEarly(Numbers):
        stop_ids = frozenset({STOP, first[3]})

    found = LanguageModel(model, StopsEarly()).generate(
        [message(p) for p in prompts], max_new_tokens=9, batch_tokens=9999
    )
    for before, after in zip(plain, found, strict=True):
        ids = [int(n) for n in before.text.split()]
        if first[3] in ids:
            end = ids.index(first[3]) + 1
            assert (after.finish, after.answer_tokens) == ("stop", end)
            assert after.text == Numbers().decode(ids[:end])
        else:
            assert (after.finish, after.text) == ("length", before.text)
    assert found[0].finish == "stop"


def test_stop_strings_end_the_text_and_are_left_out(sharp: torch.nn.Module) -> None:
    model, prompts = LanguageModel(sharp, Numbers()), [message(p) for p in some_prompts()]
    whole = model.generate(prompts, max_new_tokens=9, batch_tokens=9999)[0].text
    words = whole.split()
    stop = " ".join(words[3:5])
    answer = model.generate(prompts, max_new_tokens=9, stop=["never", stop], batch_tokens=9999)[0]
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish == "stop"


def test_models_without_our_cache_generate_too(tmp_path: Path) -> None:
    model = sharp_model(tmp_path / "m", "mamba", hidden_size=32, num_hidden_layers=2, state_size=8)
    prompts = some_prompts(count=3)
    found = LanguageModel(model, Numbers()).generate([message(p) for p in prompts], max_new_tokens=4, batch_tokens=999)
    for prompt, answer in zip(prompts, found, strict=True):
        ids = list(prompt)
        for _ in range(4):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        assert answer.text == Numbers().decode(ids[len(prompt) :])


def test_sliding_window_is_respected(tmp_path: Path) -> None:
    model = sharp_model(tmp_path / "m", "mistral", sliding_window=16)
    prompt = some_prompts()[0]
    answer = LanguageModel(model, Numbers()).generate([message(prompt)], max_new_tokens=6, batch_tokens=999)[0]
    ids = list(prompt)
    for _ in range(6):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    assert answer.text == Numbers().decode(ids[len(prompt) :])


def test_no_room_for_the_answer_is_refused(sharp: torch.nn.Module) -> None:
    model = LanguageModel(sharp, Numbers())
    with pytest.raises(InputError, match=r"prompt 1: has 500 tokens and its answer up to 13, more than the 512"):
        model.generate([message([5] * 500)], max_new_tokens=13, batch_tokens=100)
    with pytest.raises(InputError, match="max_new_tokens"):
        model.generate([message([5])], max_new_tokens=0, batch_tokens=100)
    assert model.generate([], max_new_tokens=1, batch_tokens=100) == []


def test_mode_and_random_state_stay(sharp: torch.nn.Module) -> None:
    sharp.train()
    state = torch.get_rng_state()
    LanguageModel(sharp, Numbers()).generate([message([5, 6])], max_new_tokens=3, temperature=1.0, batch_tokens=99)
    assert sharp.training
    assert torch.equal(torch.get_rng_state(), state)
    sharp.eval()
