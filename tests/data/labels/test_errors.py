"""Flipped labels are found, ranked as cleanlab ranks them; nothing is changed by a suspicion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.labels.debian import packages
from tests.data.labels.test_label import judgment, run
from tests.data.making import jsonl, run_check
from tunesmith.core.canonical import read_lines, write_lines
from tunesmith.core.nouns import Example, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.labels.errors import label_errors, suspects
from tunesmith.data.labels.label import label_words

WORDS = {
    "sports": ["goal", "match", "keeper", "referee", "striker", "penalty", "league", "stadium"],
    "politics": ["minister", "budget", "treaty", "senator", "election", "coalition", "campaign", "law"],
    "weather": ["rain", "storm", "cloud", "sunny", "wind", "snow", "frost", "thunder"],
}


def records(n: int, flipped: set[int], seed: int = 0) -> list[dict[str, str]]:
    generator = np.random.default_rng(seed)
    labels = sorted(WORDS)
    found = []
    for i in range(n):
        label = labels[i % 3]
        text = f"{' '.join(generator.choice(WORDS[label], 4))} report {i}"
        found.append({"text": text, "label": labels[(i + 1) % 3] if i in flipped else label})
    return found


def test_flipped_labels_come_first_and_no_row_changes(tmp_path: Path) -> None:
    flipped = set(range(4, 150, 13))
    examples = run_check(tmp_path / "check", {"n.jsonl": jsonl(records(150, flipped))}).folder
    got = run(tmp_path / "a", examples, errors=len(flipped))
    assert (got.folder / "rows.jsonl").read_bytes() == (examples / "rows.jsonl").read_bytes()
    listed = list(read_lines(got.folder / "label_errors.jsonl"))
    assert {e["line"] - 1 for e in listed} == flipped
    assert [e["score"] for e in listed] == sorted(e["score"] for e in listed)
    labels = sorted(WORDS)
    for e in listed:
        assert e["suggested"] == labels[(e["line"] - 1) % 3] != e["given"]
    facts = got.facts["errors"]
    assert (facts["listed"], facts["looked_at"], facts["not_looked_at"]) == (len(flipped), 150, 0)
    assert "labels to look at first" in label_words(got.facts)


def test_rows_that_people_decided_are_not_suggested_again_and_a_suggestion_names_the_row_as_judgments_do(
    tmp_path: Path,
) -> None:
    flipped = {4, 17, 30, 43}
    data = records(120, flipped)
    for r in data:
        r["label"] = r["label"].replace("sports", "Sports")
    examples = run_check(tmp_path / "check", {"n.jsonl": jsonl(data)}).folder
    usual: dict[str, Any] = {"variants": {"Sports": "sports"}, "errors": 4}
    first = run(tmp_path / "a", examples, **usual)
    listed = list(read_lines(first.folder / "label_errors.jsonl"))
    assert {e["line"] - 1 for e in listed} == flipped
    said = [judgment(n, e["row"], "ann", "label", e["given"]) for n, e in enumerate(listed[:2])]
    said += [judgment(9, listed[2]["row"], "ann", "label", listed[2]["suggested"])]
    second = run(tmp_path / "b", examples, said, **usual)
    again = {e["row"] for e in read_lines(second.folder / "label_errors.jsonl")}
    assert not again & {e["row"] for e in listed[:3]}
    assert listed[3]["row"] in again
    assert second.facts["consensus"]["in_no_row"] == 0
    assert second.facts["errors"]["decided_by_people"] >= 2


def test_above_the_limit_whole_groups_are_looked_at_and_the_rest_is_counted(tmp_path: Path) -> None:
    data = [{**r, "author": f"a{i // 4}"} for i, r in enumerate(records(120, set()))]
    examples = run_check(
        tmp_path / "check", {"n.jsonl": jsonl(data)}, text="text", label="label", group="author"
    ).folder
    facts = run(tmp_path / "a", examples, errors=5, errors_rows=60).facts["errors"]
    assert (facts["looked_at"], facts["not_looked_at"]) == (60, 60)
    assert "60 rows were not looked at" in facts["words"]


def test_a_class_in_one_group_only_cannot_be_judged(tmp_path: Path) -> None:
    data = [{**r, "author": f"a{i}"} for i, r in enumerate(records(90, set()))]
    data += [{"text": f"odd thing {i}", "label": "odd", "author": "one"} for i in range(3)]
    examples = run_check(
        tmp_path / "check", {"n.jsonl": jsonl(data)}, text="text", label="label", group="author"
    ).folder
    got = run(tmp_path / "a", examples, errors=50)
    assert got.facts["errors"]["not_judged"] == 3
    assert "odd" not in {e["given"] for e in read_lines(got.folder / "label_errors.jsonl")}


def test_the_ranking_is_cleanlabs() -> None:
    rank = pytest.importorskip("cleanlab.rank", reason="cleanlab is the oracle of this test")
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.ones(5), 200)
    y = generator.integers(0, 5, 200)
    order, scores = suspects(y, probabilities, np.ones(200, dtype=bool))
    want = rank.get_label_quality_scores(y, probabilities, method="self_confidence")
    assert np.array_equal(scores, want)
    assert order.tolist() == np.argsort(want, kind="stable").tolist()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_the_first_300_suspects_among_debians_packages_85_in_100_are_flipped(tmp_path: Path) -> None:
    """63,440 rows, 58 sections, 8 % of them replaced by another one at random."""
    rows, sections = [], sorted({section for _, section, _ in packages()})
    generator = np.random.default_rng(0)
    flipped = set()
    for n, (text, section, source) in enumerate(packages(), 1):
        if generator.random() < 0.08:
            flipped.add(n)
            section = [s for s in sections if s != section][generator.integers(0, len(sections) - 1)]
        example = Example(messages=(Message(role="user", content=text),), target=section)
        rows.append(Row(id=example.id, messages=example.messages, target=section, file="debian", line=n, group=source))
    write_lines(tmp_path / "rows.jsonl", rows)
    found, facts = label_errors(
        tmp_path / "rows.jsonl",
        count=300,
        most_rows=100_000,
        folds=3,
        seed=0,
        decided=(),
        came_in_as={},
        work=Workspace(root=tmp_path / "work"),
    )
    assert facts["looked_at"] == len(rows) > 60_000
    precision = sum(f["line"] in flipped for f in found) / len(found)
    print(f"{len(rows)} rows, {len(flipped)} flipped, precision at {len(found)}: {precision:.3f}")
    assert len(found) == 300
    assert precision >= 0.85
