"""A project with two new tokens, from the file to an answer over HTTP."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from openai import OpenAI
from safetensors.torch import load_file

from tests.flows.test_serve import Server
from tests.small import make_project, write_rows
from tunesmith.api import Project
from tunesmith.core.errors import InputError, ModelError
from tunesmith.serve.adapters import read_members
from tunesmith.text.tokenizer import Tokenizer

TOKENS = ["<ICD>", "[OPS]"]


def with_tokens(folder: Path, model: Path) -> Path:
    said = "train: {new_tokens: ['<ICD>', '[OPS]'], recipe: sft,"
    arms = "evaluate: {arms: [majority],"
    make_project(folder, model, n=90, **{"train: {recipe: sft,": said, "evaluate: {": f"{arms} "})
    write_rows(folder / "rows.csv", 90)
    rows = list(csv.reader((folder / "rows.csv").read_text(encoding="utf-8").splitlines()))
    for i, row in enumerate(rows[1:]):
        row[0] = f"{TOKENS[i % 2]} {row[0]}"
    with open(folder / "rows.csv", "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    project = Project.open(with_tokens(tmp_path_factory.mktemp("new") / "codes", tiny_llama))
    project.bundle()
    return project


def test_a_run_goes_through_to_a_bundle_that_answers(project: Project, tiny_llama: Path) -> None:
    bundle = project.ledger.path(project.runs("bundle")[0].outputs["bundle"])
    assert sorted(load_file(bundle / "new_tokens.safetensors")) == ["embedding"]
    first = Tokenizer.load(tiny_llama).vocab_size
    assert json.loads((bundle / "checkpoint.json").read_text())["new_tokens"] == {"<ICD>": first, "[OPS]": first + 1}
    assert "<ICD>|" in str(project.tokens("rows.csv:2"))
    said = project.ask("<ICD> ball goal team match coach", model="latest")
    server = Server(project.root)
    try:
        client = OpenAI(base_url=server.url, api_key="none")
        messages = [{"role": "user", "content": "<ICD> ball goal team match coach"}]
        got = client.chat.completions.create(model="latest", messages=messages)  # type: ignore[arg-type]
        assert got.choices[0].message.content == said.text
        assert got.usage is not None
    finally:
        assert server.stop() == 0


def test_merged_it_is_whole_with_the_grown_tokenizer(project: Project) -> None:
    made = project.runs("sft")[0].outputs["checkpoint"]
    merged = project.ledger.path(project.merge(made).outputs["checkpoint"])
    assert len(Tokenizer.load(merged).encode("<ICD>")) == 1
    assert "new_tokens" in json.loads((merged / "checkpoint.json").read_text())
    assert not (merged / "new_tokens.safetensors").exists()


def test_it_shares_no_base_with_other_adapters(project: Project) -> None:
    bundle = project.ledger.path(project.runs("bundle")[0].outputs["bundle"])
    base = project.ledger.path(json.loads((bundle / "tunesmith.json").read_text())["base"]["artifact"])
    with pytest.raises(ModelError, match="has 2 new tokens, whose rows are part of the base"):
        read_members({"codes": (bundle, base)})


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ("[fox]", "'fox' is one token already"),
        ("['<|im_end|>']", "is one token already"),
        ("[<a>, <a>]", "is there 2 times"),
        ("['  ']", "nothing but white space"),
    ],
)
def test_refused_before_anything_is_answered_or_trained(
    tmp_path: Path, tiny_llama: Path, said: str, match: str
) -> None:
    project = Project.open(make_project(tmp_path / "p", tiny_llama), [f"train.new_tokens={said}"])
    with pytest.raises(InputError, match=match):
        project.run()
    assert {r.stage for r in project.runs()} <= {"check", "prepare", "split", "dedup", "audit", "clean"}
