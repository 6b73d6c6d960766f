"""Several bundles on one base: one batch, each row as its bundle answers alone; changed while the server answers."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.serve.bundles import LABELS, add_bundle, write
from tests.serve.conftest import Start
from tests.serve.test_engine import Asked, texts
from tests.tiny import make_tiny
from tunesmith.core.errors import InputError, ModelError
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.model.several import Several
from tunesmith.serve import running as server_of
from tunesmith.serve.adapters import load_together
from tunesmith.serve.ask import ask
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.engine import Engine
from tunesmith.serve.scheduler import Overloaded

LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
PREFIX = replace(LORA, kind="prefix", virtual_tokens=5)
HOULSBY = replace(LORA, kind="bottleneck", placement="houlsby", activation="silu")
OTHER_LABELS = ("sports", "spiel", "the quick brown fox", "spiel dauert", "neunzig")
SHORT = "Answer with one label only."
TASKS: dict[str, dict[str, Any]] = {
    "tickets": {"kind": "classify", "labels": LABELS},
    "news": {"kind": "classify", "labels": OTHER_LABELS, "system": SHORT},
    "summaries": {"kind": "summarize", "system": "You are an expert.", "generation": (12, 0.0)},
    "chat": {"kind": "chat", "system": "", "generation": (8, 0.0)},
}
METHODS: dict[str, list[MethodSpec]] = {
    "lora": [LORA, replace(LORA, rank=2), replace(LORA, targets=("q_proj", "v_proj")), PREFIX],
    "bottleneck": [HOULSBY, replace(HOULSBY, placement="pfeiffer"), PREFIX, HOULSBY],
    "ia3": [replace(LORA, kind="ia3"), PREFIX, replace(LORA, kind="ia3"), replace(LORA, kind="prompt", virtual_tokens=3)],
    "dora": [LORA, replace(LORA, dora=True), replace(LORA, rank=2), PREFIX],
}  # fmt: skip

Places = dict[str, tuple[Path, Path]]


def made(root: Path, base: Path, specs: Sequence[MethodSpec]) -> Places:
    folders = {}
    for i, ((name, task), spec) in enumerate(zip(TASKS.items(), specs, strict=True)):
        folders[name] = (add_bundle(root / name, base, spec, seed=i + 1, **task), base)
    return folders


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("several") / "base")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Places:
    return made(tmp_path_factory.mktemp("lora"), base, METHODS["lora"])


def running(bundles: Sequence[LoadedBundle]) -> Engine:
    engine = Engine(bundles, max_batch=8, max_queue=64, cache_columns=1 << 15, batch_tokens=4096)
    engine.start()
    return engine


def asked(bundle: LoadedBundle, text: str, **wishes: Any) -> Asked:
    mode = "label" if bundle.scores_labels else "generate"
    one = Asked(bundle, text, mode=mode, **{"max_new_tokens": bundle.settings.max_new_tokens, **wishes})
    one.job.bundle = bundle
    return one


@pytest.mark.parametrize("method", METHODS)
def test_one_batch_gives_each_what_it_gets_alone(
    method: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classifications, a summary and a chat: texts and labels are the same as of each bundle by itself, merged
    where that is how it is served alone."""
    places = made(tmp_path, base, METHODS[method])
    bundles = load_together(places)
    batches: list[set[str | None]] = []
    mixed = Several.mixed
    monkeypatch.setattr(Several, "mixed", lambda self, names: (batches.append(set(names)), mixed(self, names))[1])
    engine = running(list(bundles.values()))
    batches.clear()
    questions = [(name, text) for text in texts(3, seed=4) for name in bundles]
    together = [asked(bundles[name], text) for name, text in questions]
    engine.scheduler.submit([a.job for a in together])
    got = [(a.text(), a.end) for a in together]
    assert engine.stop(drain_s=10)
    assert any(len(b) > 1 for b in batches)
    for name in bundles:
        alone_bundle = LoadedBundle.load(*places[name])
        alone = running([alone_bundle])
        for (whose, text), (said, end) in zip(questions, got, strict=True):
            if whose != name:
                continue
            one = asked(alone_bundle, text)
            alone.scheduler.submit([one.job])
            assert one.text() == said == ask(alone_bundle, text).text
            assert end.confidence == pytest.approx(one.end.confidence, abs=1e-4)
            assert dict(end.label_probabilities) == pytest.approx(dict(one.end.label_probabilities), abs=1e-4)
        assert alone.stop(drain_s=10)
    assert len({said for said, _ in got}) >= len(bundles)


def test_label_log_probabilities_and_plain_prompts_are_each_its_own(places: Places) -> None:
    bundles = load_together(places)
    engine = running(list(bundles.values()))
    jobs = [asked(bundles[n], "Der Ball ist rund", top_logprobs=2, max_new_tokens=8) for n in bundles]
    engine.scheduler.submit([a.job for a in jobs])
    found = [_pieces(a) for a in jobs]
    engine.stop(drain_s=10)
    for name, got in zip(bundles, found, strict=True):
        alone_bundle = LoadedBundle.load(*places[name])
        alone = running([alone_bundle])
        one = asked(alone_bundle, "Der Ball ist rund", top_logprobs=2, max_new_tokens=8)
        alone.scheduler.submit([one.job])
        want = _pieces(one)
        alone.stop(drain_s=10)
        assert [t for t, _ in got] == [t for t, _ in want]
        assert [v for _, v in got] == pytest.approx([v for _, v in want], abs=1e-4)


def _pieces(one: Asked) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    while True:
        event = one.events.get(timeout=30)
        if not hasattr(event, "logprobs"):
            return found
        found += [(t.token, t.logprob) for t in event.logprobs]


def test_sampling_draws_the_same_in_a_mixed_batch(places: Places) -> None:
    bundles = load_together(places)
    wishes = {"temperature": 1.1, "top_p": 0.9, "seed": 5, "max_new_tokens": 12}
    engine = running(list(bundles.values()))

    def answers(names: Sequence[str]) -> list[str]:
        jobs = [asked(bundles[n], "the quick brown fox", **wishes) for n in names]
        engine.scheduler.submit([j.job for j in jobs])
        return [j.text() for j in jobs]

    alone = [answers([n])[0] for n in bundles]
    assert answers(list(bundles)) == alone
    engine.stop(drain_s=10)


def test_what_cannot_share_a_base_is_refused_before_loading(
    base: Path, places: Places, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Several, "__init__", lambda *a, **k: pytest.fail("the base was loaded"))
    a = places["tickets"]
    other = make_tiny(tmp_path / "other", seed=9)
    foreign = (add_bundle(tmp_path / "foreign", other, LORA), other)
    with pytest.raises(ModelError, match=r"foreign: was trained on another base than a: .*safetensors.*another hash"):
        load_together({"a": a, "foreign": foreign})
    bottleneck = (add_bundle(tmp_path / "bottleneck", base, HOULSBY), base)
    with pytest.raises(ModelError, match="b is bottleneck, a is lora: layers of one base"):
        load_together({"a": a, "b": bottleneck})
    bf16 = (add_bundle(tmp_path / "bf16", base, LORA, precision="bf16"), base)
    with pytest.raises(ModelError, match="evaluated in bf16, and a in fp32"):
        load_together({"a": a, "b": bf16})
    started = (add_bundle(tmp_path / "started", base, LORA, start=a[0]), base)
    with pytest.raises(ModelError, match=r"on top of another checkpoint \(start\), and a on the base itself"):
        load_together({"a": a, "b": started})
    whole = (add_bundle(tmp_path / "whole", base, replace(LORA, kind="full")), base)
    with pytest.raises(ModelError, match="is full: it holds weights of its own"):
        load_together({"a": a, "b": whole})
    strange = add_bundle(tmp_path / "strange", base, LORA, system="Say it.")
    manifest = json.loads((strange / "tunesmith.json").read_text())
    write(strange / "tunesmith.json", manifest | {"system": "Say something else."})
    with pytest.raises(ModelError, match="strange"):
        load_together({"a": a, "b": (strange, base)})
    with pytest.raises(ModelError) as both:  # all at once
        load_together({"a": a, "b": foreign, "c": bf16})
    assert len(both.value.problems) == 2


def test_a_shared_start_is_merged_once(base: Path, tmp_path: Path) -> None:
    start = add_bundle(tmp_path / "domain", base, LORA, seed=8)
    places = {
        n: (add_bundle(tmp_path / n, base, LORA, seed=i, start=start, **TASKS[n]), base)
        for i, n in enumerate(("tickets", "summaries"))
    }
    bundles = load_together(places)
    engine = running(list(bundles.values()))
    jobs = [asked(b, "Die Aktie fiel") for b in bundles.values()]
    engine.scheduler.submit([j.job for j in jobs])
    got = [j.text() for j in jobs]
    engine.stop(drain_s=10)
    for place, said in zip(places.values(), got, strict=True):
        alone_bundle = LoadedBundle.load(*place)
        alone = running([alone_bundle])
        one = asked(alone_bundle, "Die Aktie fiel")
        alone.scheduler.submit([one.job])
        assert one.text() == said
        alone.stop(drain_s=10)


# over HTTP


@pytest.fixture
def served(start: Start, places: Places, tmp_path: Path) -> Iterator[tuple[Any, server_of.Running]]:
    bundles = load_together({n: places[n] for n in ("tickets", "summaries")})
    live = start(bundles, token="a-token-for-clients-only", bring=lambda place: (Path(place), places["news"][1]))
    yield live, server_of.Running(url=live.base, token=live.app.state.admin)


def said(live: Any, model: str, text: str = "Der Ball ist rund") -> str:
    client = live.client("a-token-for-clients-only")
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
    return str(answer.choices[0].message.content)


def test_adapters_are_added_replaced_and_removed_while_it_answers(
    served: tuple[Any, server_of.Running], places: Places
) -> None:
    live, server = served
    client = live.client("a-token-for-clients-only")
    assert {"tickets", "tickets:generate", "summaries"} == {m.id for m in client.models.list()}
    before = {n: said(live, n) for n in ("tickets", "summaries")}
    assert before["tickets"] in LABELS
    added = server_of.ask(server, "PUT", "news", {"source": str(places["news"][0])})
    assert added["kind"] == "classify" and said(live, "news") in OTHER_LABELS
    assert {n: said(live, n) for n in before} == before

    stream = client.chat.completions.create(
        model="summaries",
        messages=[{"role": "user", "content": "fox"}],
        max_tokens=150,
        temperature=1.5,
        seed=1,
        stream=True,
    )
    first = next(iter(stream))
    server_of.ask(server, "PUT", "summaries", {"source": str(places["chat"][0])})
    old = next(t for t in server_of.ask(server, "GET")["data"] if t["name"] == "summaries")
    several = next(s for s in live.app.state.served.values()).bundle.several
    assert len(several.names) == 4  # the replaced one still answers
    assert said(live, "summaries") != before["summaries"]
    rest = [first, *stream]
    assert rest[-1].choices[0].finish_reason in ("stop", "length")
    deadline = time.monotonic() + 10
    while len(several.names) != 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    aborted = [t for t in live.traces if t["model"] == "summaries"]
    assert {t["bundle"] for t in aborted} == {LoadedBundle.load(*places["summaries"]).id, old["bundle"]}
    assert len({t["bundle"] for t in aborted}) == 2

    server_of.ask(server, "DELETE", "news")
    assert "news" not in {m.id for m in client.models.list()}
    page = urllib.request.Request(f"{live.base}/metrics", headers={"Authorization": "Bearer a-token-for-clients-only"})
    assert 'model="news"' in urllib.request.urlopen(page).read().decode()


def test_a_refused_adapter_changes_nothing(
    served: tuple[Any, server_of.Running], places: Places, tmp_path: Path
) -> None:
    live, server = served
    before = said(live, "summaries")
    bottleneck = add_bundle(tmp_path / "b", places["news"][1], HOULSBY)
    for source, why in ((str(bottleneck), "already holds lora"), (str(tmp_path / "none"), "not a bundle")):
        with pytest.raises(InputError, match=why):
            server_of.ask(server, "PUT", "summaries", {"source": source})
    with pytest.raises(InputError, match="is no adapter here"):
        server_of.ask(server, "DELETE", "nobody")
    with pytest.raises(InputError, match="is no name for a model"):
        server_of.ask(server, "PUT", "a b", {"source": str(places["news"][0])})
    assert said(live, "summaries") == before
    server_of.ask(server, "DELETE", "tickets")
    with pytest.raises(InputError, match="the last adapter"):
        server_of.ask(server, "DELETE", "summaries")


@pytest.mark.parametrize("token", [None, "a-token-for-clients-only", "wrong"])
def test_only_the_owner_changes_adapters(served: tuple[Any, server_of.Running], token: str | None) -> None:
    live, _ = served
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    for method, path in (("GET", ""), ("PUT", "/x"), ("DELETE", "/tickets")):
        request = urllib.request.Request(f"{live.base}/adapters{path}", method=method, headers=headers)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 401


def test_where_the_server_is_can_be_read_by_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / server_of.FILE
    with pytest.raises(InputError, match="no server of this project is running"):
        server_of.find(file)
    with server_of.announced(file, "http://127.0.0.1:1", "secret"):
        assert file.stat().st_mode & 0o777 == 0o600
        assert server_of.find(file).token == "secret"
        with pytest.raises(InputError, match="does not answer"):
            server_of.ask(server_of.find(file), "GET")
    assert not file.exists()


def test_turns_are_fair_where_adapters_cannot_be_mixed(base: Path, tmp_path: Path) -> None:
    """DoRA rows run apart; who waits for a turn gets one although the other task never stops asking."""
    dora = replace(LORA, dora=True)
    names = ("summaries", "chat")
    places = {n: (add_bundle(tmp_path / n, base, dora, seed=i, **TASKS[n]), base) for i, n in enumerate(names)}
    bundles = load_together(places)
    engine = running(list(bundles.values()))
    stop = threading.Event()

    def keep_asking() -> None:
        while not stop.is_set():
            one = asked(bundles["chat"], "fox", max_new_tokens=8)
            with contextlib.suppress(Overloaded):
                engine.scheduler.submit([one.job])
            time.sleep(0.02)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        time.sleep(0.1)
        waiting = asked(bundles["summaries"], "fox", max_new_tokens=5)
        engine.scheduler.submit([waiting.job])
        answer = waiting.text()
        assert thread.is_alive()  # and so the other task was still asking
    finally:
        stop.set()
        thread.join()
    assert engine.stop(drain_s=20)
    alone = LoadedBundle.load(*places["summaries"])
    engine = running([alone])
    one = asked(alone, "fox", max_new_tokens=5)
    engine.scheduler.submit([one.job])
    assert answer == one.text()
    assert engine.stop(drain_s=10)


def test_whoever_changes_adapters_waits_for_no_model_library() -> None:
    code = "import sys, tunesmith.api, tunesmith.serve.running; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
