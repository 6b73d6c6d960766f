"""What `init` writes loads back as it was said, whatever the words are."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import yaml as old_yaml  # an independent reader, of YAML 1.1
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.core.nouns import Goal
from tunesmith.core.project_file import load
from tunesmith.core.project_template import SCHEMA, scalar, write_project
from tunesmith.core.settings import json_schema
from tunesmith.core.strict_yaml import read

# text as people type it: any character but controls, line ends and surrogates
TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters="\ufffe\uffff"), min_size=1
)
TRICKY = st.sampled_from(
    ["no", "1e-4", "1_000", "2024-01-01", "null", "~", "a: b", "a #b", "- x", "[x]", "{x", "*x", "&x", "!x", "'", '"',
     " x ", "x ", "%x", "@x", "`x", "|", ">", "?", ":", "yes", "0x1", "007", "=", "<<", "\\", "é", "日本", "\ufeff", "é x"]
)  # fmt: skip


@given(words=TEXT | TRICKY)
@settings(max_examples=300, deadline=None)
def test_any_text_stays_that_text(words: str) -> None:
    node, problems = read(f"a: {scalar(words)}\nb: [{scalar(words)}]\n".encode(), "t.yaml")
    assert not problems
    assert node is not None
    assert node.plain() == {"a": words, "b": [words]}


@given(words=st.from_regex(r"\A[ -~]{1,20}\Z") | TRICKY)
@settings(max_examples=200, deadline=None)
def test_an_old_reader_takes_it_for_the_same_text(words: str) -> None:
    assert old_yaml.safe_load(f"a: {scalar(words)}\n") == {"a": words}


@given(
    text=TEXT | TRICKY, label=TEXT | TRICKY, group=st.none() | TEXT | TRICKY, audience=st.just("") | TEXT | TRICKY,
    tone=st.just("") | TRICKY, model=st.none() | TEXT, slice=TEXT | TRICKY,
)  # fmt: skip
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_written_project_loads_as_it_was_said(
    text: str, label: str, group: str | None, audience: str, tone: str, model: str | None, slice: str
) -> None:
    if label == text or group == text or not slice.strip() or slice != slice.strip():
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "my data.csv").write_text("x\n")
        goals = ["macro_f1 >= 0.7", f"accuracy >= 0.5 @ label={slice}"]
        path = write_project(
            folder, kind="classify", files=["my data.csv"], text=text, label=label, group=group, model=model,
            goals=goals, audience=audience, tone=tone,
        )  # fmt: skip
        project = load(path)
    task = project.task()
    assert (task.text, task.label, task.group, task.audience, task.tone) == (text, label, group, audience, tone)
    assert project.settings.data.files == ["my data.csv"]
    assert project.settings.model == (model or "smollm2-135m-instruct")
    assert project.goals() == (
        Goal(metric="macro_f1", threshold=0.7),
        Goal(metric="accuracy", threshold=0.5, slice=f"label={slice}"),
    )


def test_ten_lines_and_a_schema_for_the_editor(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("t,l\n")
    path = write_project(tmp_path, kind="classify", files=["d.csv"], text="t", label="l", goals=["macro_f1 >= 0.70"])
    lines = path.read_text().splitlines()
    assert lines[0] == f"# yaml-language-server: $schema={SCHEMA}"
    assert json.loads((tmp_path / SCHEMA).read_text()) == json_schema()
    assert len([line for line in lines if not line.startswith("#")]) <= 10
    assert lines[-1] == "  - macro_f1 >= 0.70"


def test_without_a_goal_every_cheaper_arm_must_be_beaten(tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("{}\n")
    summarize = load(write_project(tmp_path, kind="summarize", files=["d.jsonl"]))
    assert summarize.goals() == (Goal(metric="rougeLsum", op="beats", beats=("lead", "zero_shot", "few_shot")),)
    domain = load(write_project(tmp_path, kind="domain", files=["d.jsonl"]))
    assert domain.goals() == (Goal(metric="bits_per_byte", op="beats", beats=("zero_shot",)),)
