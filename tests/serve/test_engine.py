"""What a row gets depends on its own prompt, parameters and seed alone."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from tests.serve.bundles import make_bundle
from tunesmith.core.nouns import Message
from tunesmith.model.answer import LanguageModel
from tunesmith.model.forward import Network
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.engine import Engine
from tunesmith.serve.scheduler import Event, Failed, Finished, Job, Overloaded, Piece, Sampling
from tunesmith.serve.slots import Prefix, Slots
from tunesmith.serve.voices import batching_is_exact, common_prefix

WORDS = [
    "fracture",
    "of",
    "shaft",
    "left",
    "tibia",
    "neoplasms",
    "ball",
    "rund",
    "aktie",
    "fiel",
    "fox",
    "dog",
    "lazy",
    "0123",
    "injury",
]


def texts(n: int, seed: int) -> list[str]:
    """Ragged: one to forty words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.choice([1, 2, 5, 11, 40]))) for _ in range(n)]


class Asked:
    """One job and what came back."""

    def __init__(self, bundle: LoadedBundle, text: str, *, mode: str = "generate", **wishes: object) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        messages = (Message(role="user", content=text),)
        self.job = Job(
            mode=mode,  # type: ignore[arg-type]
            prompt=tuple(bundle.renderer.prompt(messages)),
            messages=messages,
            sampling=Sampling(**{"max_new_tokens": 16, **wishes}),  # type: ignore[arg-type]
            emit=self.events.put,
        )

    def text(self) -> str:
        out = ""
        while True:
            event = self.events.get(timeout=30)
            if isinstance(event, Piece):
                out += event.text
            elif isinstance(event, Finished):
                self.end = event
                return out
            else:
                raise AssertionError(event)


@pytest.fixture
def engine(chat_bundle: LoadedBundle) -> Callable[..., Engine]:
    started: list[Engine] = []

    def make(bundle: LoadedBundle = chat_bundle, **options: int) -> Engine:
        settings = {"max_batch": 8, "max_queue": 64, "cache_columns": 1 << 15, "batch_tokens": 4096} | options
        made = Engine(bundle, **settings)
        made.start()
        started.append(made)
        return made

    yield make
    for e in started:
        e.stop(drain_s=10)


def answers(engine: Engine, asked: Sequence[Asked]) -> list[str]:
    engine.scheduler.submit([a.job for a in asked])
    return [a.text() for a in asked]


def test_greedy_batched_is_greedy_solo(engine: Callable[..., Engine], chat_bundle: LoadedBundle) -> None:
    """Forty ragged requests that join and leave at different steps, against one at a time and LanguageModel."""
    asked = texts(40, seed=3)
    rng = random.Random(4)
    lengths = [rng.randint(1, 30) for _ in asked]
    alone = engine(max_batch=1)
    want = [answers(alone, [Asked(chat_bundle, t, max_new_tokens=n)])[0] for t, n in zip(asked, lengths, strict=True)]
    got = answers(engine(), [Asked(chat_bundle, t, max_new_tokens=n) for t, n in zip(asked, lengths, strict=True)])
    assert got == want
    assert len(set(want)) > 20
    model = LanguageModel(chat_bundle.model, chat_bundle.renderer)
    for text, n, served in list(zip(asked, lengths, want, strict=True))[:12]:
        evaluated = model.generate([[Message(role="user", content=text)]], max_new_tokens=n, batch_tokens=4096)
        assert served == evaluated[0].text


def test_sampling_with_a_seed_does_not_see_its_neighbours(
    engine: Callable[..., Engine], chat_bundle: LoadedBundle
) -> None:
    def one() -> Asked:
        return Asked(chat_bundle, "the quick brown fox", temperature=1.2, top_p=0.9, seed=7, max_new_tokens=20)

    alone = answers(engine(max_batch=1), [one()])[0]
    crowd = [Asked(chat_bundle, t, temperature=1.0, seed=i, max_new_tokens=5 + i) for i, t in enumerate(texts(10, 5))]
    served = engine()
    assert answers(served, [*crowd[:4], one(), *crowd[4:]])[4] == alone
    assert answers(served, [one(), one()]) == [alone, alone]


def test_labels_in_a_crowd_are_the_labels_alone(engine: Callable[..., Engine], classify_bundle: LoadedBundle) -> None:
    asked = texts(20, seed=9)
    model = LanguageModel(classify_bundle.model, classify_bundle.renderer)
    want = [
        model.choose([[Message(role="user", content=t)]], classify_bundle.labels, batch_tokens=4096)[0] for t in asked
    ]
    jobs = [Asked(classify_bundle, t, mode="label") for t in asked]
    assert answers(engine(classify_bundle), jobs) == [a.text for a in want]
    assert [j.end.confidence for j in jobs] == pytest.approx([a.confidence for a in want], abs=1e-5)


@pytest.mark.parametrize(
    "family, overrides",
    [
        ("gpt2", {}),
        ("qwen2", {}),
        ("mistral", {"sliding_window": 8}),
        ("gemma3_text", {"sliding_window": 8, "num_hidden_layers": 6}),
    ],
)
def test_other_families_batch_exactly(tmp_path: Path, family: str, overrides: dict[str, object]) -> None:
    """Absolute positions, biases and sliding windows narrower than the prompts, against plain transformers."""
    bundle = LoadedBundle.load(*make_bundle(tmp_path, family=family, **overrides))
    network = Network(bundle.model)
    with torch.no_grad():
        prefix = Prefix(network, common_prefix(bundle))
        assert len(prefix.ids) > 20 and batching_is_exact(network, [prefix])
        slots = Slots(network, prefix)
        prompts = [bundle.renderer.prompt([Message(role="user", content=t)]) for t in texts(4, seed=1)]
        rows = [list(p) for p in prompts]
        logits = slots.join(prompts)
        for step in range(4):
            for i, row in enumerate(rows):
                full = bundle.model(input_ids=torch.tensor([row])).logits[0, -1]
                assert torch.allclose(logits[i], full, atol=2e-4), (family, step, i)
            tokens = [int(x.argmax()) for x in logits]
            for row, token in zip(rows, tokens, strict=True):
                row.append(token)
            logits = slots.step(tokens)


def test_a_model_that_batches_wrongly_is_served_one_at_a_time(
    chat_bundle: LoadedBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shifted(Network):
        def __call__(self, ids_BT, *, positions_BT, mask, cache, at):  # type: ignore[no-untyped-def]
            return super().__call__(
                ids_BT,
                positions_BT=positions_BT.max(0, keepdim=True)[0].expand_as(positions_BT),
                mask=mask,
                cache=cache,
                at=at,
            )

    network = Shifted(chat_bundle.model)
    with torch.no_grad():
        assert not batching_is_exact(network, [Prefix(network, ())])
    monkeypatch.setattr("tunesmith.serve.voices.batching_is_exact", lambda *_: False)
    engine = Engine(chat_bundle, max_batch=4, max_queue=8, cache_columns=1 << 15, batch_tokens=4096)
    engine.start()
    jobs = [Asked(chat_bundle, t, max_new_tokens=30) for t in texts(3, 2)]
    engine.scheduler.submit([j.job for j in jobs])
    most = 0
    while not all(j.events.qsize() and isinstance(j.events.queue[-1], Finished) for j in jobs):
        most = max(most, engine.scheduler.running)
        time.sleep(0.001)
    assert most == 1
    assert engine.stop(drain_s=10)


def test_the_block_is_as_narrow_as_its_longest_row(chat_bundle: LoadedBundle) -> None:
    network = Network(chat_bundle.model)
    with torch.no_grad():
        slots = Slots(network, Prefix(network, ()))
        slots.join([range(3, 90), range(3, 10), range(3, 6)])
        slots.step([1, 1, 1])
        slots.keep([1, 2])
        assert slots.lengths == [8, 4]
        assert slots._cache.columns == 8
        slots.keep([])
        assert slots.lengths == [] and slots._cache.columns == 0


def test_a_full_queue_is_said_at_once_and_nothing_of_the_request_is_kept(
    engine: Callable[..., Engine], chat_bundle: LoadedBundle
) -> None:
    served = engine(max_batch=2, max_queue=3)
    long = [Asked(chat_bundle, t, max_new_tokens=300) for t in texts(2, 1)]
    served.scheduler.submit([a.job for a in long])
    while served.scheduler.running < 2:
        time.sleep(0.001)
    served.scheduler.submit([Asked(chat_bundle, "x", max_new_tokens=300).job for _ in range(3)])
    with pytest.raises(Overloaded) as refused:
        served.scheduler.submit([Asked(chat_bundle, "x").job for _ in range(1)])
    assert 1 <= refused.value.retry_after_s <= 60
    assert served.scheduler.waiting == 3


def test_an_abort_gives_its_place_back_within_a_second(
    engine: Callable[..., Engine], chat_bundle: LoadedBundle
) -> None:
    served = engine(max_batch=1)
    hog = Asked(chat_bundle, "lazy dog", max_new_tokens=400)
    served.scheduler.submit([hog.job])
    hog.events.get(timeout=10)  # it runs
    quick = Asked(chat_bundle, "fox", max_new_tokens=1)
    served.scheduler.submit([quick.job])
    started = time.monotonic()
    served.scheduler.cancel([hog.job])
    quick.text()
    assert time.monotonic() - started < 1.0
    assert served.scheduler.waiting == 0


def test_a_failure_ends_its_requests_and_not_the_server(
    engine: Callable[..., Engine], chat_bundle: LoadedBundle
) -> None:
    served = engine()
    broken = Asked(chat_bundle, "fox")
    broken.job.prompt = (10**9,)  # no such row in the embedding
    served.scheduler.submit([broken.job])
    event = broken.events.get(timeout=10)
    assert event == Failed("the model failed on this request", status=500)
    assert answers(served, [Asked(chat_bundle, "fox")])[0]
    assert served.stop(drain_s=5) and served.scheduler.running == 0


def test_time_is_limited_in_the_queue_and_in_the_batch(
    engine: Callable[..., Engine], chat_bundle: LoadedBundle
) -> None:
    served = engine(max_batch=1)
    running, waiting = (Asked(chat_bundle, "lazy dog", max_new_tokens=450) for _ in range(2))
    running.job.deadline = waiting.job.deadline = time.monotonic() + 0.15
    served.scheduler.submit([running.job, waiting.job])
    for asked in (running, waiting):
        while isinstance(event := asked.events.get(timeout=10), Piece):
            pass
        assert event == Failed("the request took too long", status=504)


def test_stop_finishes_what_runs_and_what_waits(chat_bundle: LoadedBundle) -> None:
    served = Engine(chat_bundle, max_batch=2, max_queue=8, cache_columns=1 << 15, batch_tokens=4096)
    served.start()
    jobs = [Asked(chat_bundle, t, max_new_tokens=40) for t in texts(5, 6)]
    served.scheduler.submit([j.job for j in jobs])
    done = threading.Thread(target=lambda: served.stop(drain_s=20))
    done.start()
    assert all(j.text() for j in jobs)
    done.join(5)
    assert not served.alive


def test_a_wide_job_waits_until_the_block_has_room_and_then_runs(
    engine: Callable[..., Engine], chat_bundle: LoadedBundle
) -> None:
    served = engine(cache_columns=256)
    jobs = [Asked(chat_bundle, t, max_new_tokens=100) for t in texts(6, 8)]
    most = 0
    served.scheduler.submit([j.job for j in jobs])
    while served.scheduler.running or served.scheduler.waiting:
        most = max(most, served.scheduler.running)
        time.sleep(0.001)
    assert most == 1  # two rows of more than 128 columns never fit
    assert all(j.text() for j in jobs)
