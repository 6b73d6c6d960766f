"""Several templates and system prompts in one training, one of them serves."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from tests.small import make_project
from tests.train import data
from tunesmith.api import Project
from tunesmith.cli.app import run
from tunesmith.core.errors import DataError, ReceiptError
from tunesmith.core.nouns import Message
from tunesmith.text.render import Renderer
from tunesmith.train.batches import render_rows
from tunesmith.train.pool import Pool, wordings

SERVING = ("serving", "Which label has this? {text}")
TEMPLATES = (SERVING, ("plain", "{text}"), ("source", "{text} (from {source})"))
SYSTEMS = (("serving", "Be brief."), ("other", "Answer with one word."))


def rows_of(n: int) -> list:
    return [msgspec.structs.replace(r, fields={"source": f"s{i}"}) for i, r in enumerate(data.make_rows(n, seed=1))]


def test_every_row_is_seen_in_drawn_wordings_the_same_on_every_run(tiny_llama: Path) -> None:
    rows = rows_of(30)
    every = wordings(rows, tiny_llama, templates=TEMPLATES, systems=SYSTEMS, max_tokens=256)
    assert [len(w) for w in every] == [6] * 30
    pool, again = (Pool(rows, every, [], seed=4) for _ in range(2))
    numbers = list(range(30))
    taken = Counter()
    for epoch in range(4):
        assert pool.batch(numbers, epoch) == again.batch(numbers, epoch)
        assert (
            pool.batch(numbers, epoch).documents == pool.batch(numbers[::-1], epoch).documents[::-1]
        )  # a batch's order changes no draw
        taken.update(every[i].index(d) for i, d in enumerate(pool.batch(numbers, epoch).documents))
    assert len(taken) == 6 and min(taken.values()) > 4
    assert pool.batch(numbers, 0) != pool.batch(numbers, 1)
    assert Pool(rows, every, [], seed=5).batch(numbers, 0) != pool.batch(numbers, 0)


def test_the_first_wording_is_what_the_serving_renderer_writes(tiny_llama: Path) -> None:
    rows = rows_of(5)
    every = wordings(rows, tiny_llama, templates=TEMPLATES, systems=SYSTEMS, max_tokens=256)
    renderer = Renderer.load(tiny_llama, system="Be brief.", user=SERVING[1])
    assert [w[0] for w in every] == render_rows(rows, renderer, 256)
    text = renderer.tokenizer.decode(list(every[0][2].ids))
    assert "(from s0)" in text and "Be brief." in text


def test_turns_of_the_assistant_keep_their_words(tiny_llama: Path) -> None:
    renderer = Renderer.load(tiny_llama, user="Q: {text}")
    turns = [Message(role=r, content=c) for r, c in (("user", "a"), ("assistant", "b"), ("user", "c {text}"))]
    text = renderer.tokenizer.decode(renderer.prompt(turns))
    assert "Q: a" in text and "Q: c {text}" in text and "Q: b" not in text


def test_the_receipt_refuses_another_wording(tiny_llama: Path) -> None:
    told = Renderer.load(tiny_llama, user="Q: {text}").describe()
    assert told["user"] == "Q: {text}" and "user" not in Renderer.load(tiny_llama).describe()
    Renderer.load(tiny_llama, user="Q: {text}").check(told, where="x")
    with pytest.raises(ReceiptError, match=r"worded 'Q: \{text\}'"):
        Renderer.load(tiny_llama).check(told, where="x")


def test_a_row_without_the_field_and_a_wording_that_is_too_long_are_named(tiny_llama: Path) -> None:
    rows = [*rows_of(1), *data.make_rows(1, seed=2)]
    with pytest.raises(DataError, match=r"rows\.csv:2.*template source names the field 'source'"):
        wordings(rows, tiny_llama, templates=TEMPLATES, systems=SYSTEMS, max_tokens=256)
    long = (SERVING, ("long", "word " * 200 + "{text}"))
    with pytest.raises(DataError, match=r"\(template long, system serving\)"):
        wordings(rows_of(1), tiny_llama, templates=long, systems=SYSTEMS[:1], max_tokens=128)


def test_a_project_trains_in_several_wordings_and_serves_one(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wording = "rank: 4}, templates: {bare: '{text}', where: '{text} ({source})'}, systems: {short: Label it.}"
    said = {
        "rank: 4}": wording,
        "label: label, ": "label: label, template: 'Label: {text}', ",
        "files: [rows.csv]": "files: [rows.csv], keep: [source]",
    }
    folder = make_project(tmp_path / "news", tiny_llama, n=90, **said)
    project = Project.open(folder)
    result = project.run()
    receipt = json.loads((project.ledger.path(result.bundle) / "renderer.json").read_text())
    assert receipt["user"] == "Label: {text}"
    assert project.ask("ball goal team", model="latest").text
    for wrong, words in (
        ("train.templates={a: '{txt}'}", "did you mean {text}?"),
        ("task.template='{source} {text}'", "a request has no field but {text}"),
        ("train.systems={a: ' '}", "train.systems.a is empty"),
    ):
        assert run(["train", "--project", str(folder), "--set", wrong]) == 2
        assert words in capsys.readouterr().err
