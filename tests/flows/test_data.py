"""What happens to the rows is on the record, can be taken back, and makes a version that can be compared."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from tests.small import make_project, write_rows
from tunesmith.api import Project
from tunesmith.core.errors import InputError
from tunesmith.flows.label import open_room
from tunesmith.flows.look import look

SETTINGS = {
    "data: {files: [rows.csv]": "data: {files: [rows.csv], dedup: {enabled: true, near: 0.6, keep: first}",
}


def add_rows(path: Path, rows: list[tuple[str, str, str]]) -> None:
    with open(path, "a", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows(rows)


COPIES = [
    ("the rain and the storm came to the town on monday night", "weather", "a"),
    ("the rain and the storm came to the town on monday night again", "weather", "b"),
    ("caf\u200be and  bank profit for the market this year 77", "business", "c"),
]


@pytest.fixture
def project(tmp_path: Path, tiny_llama: Path) -> Project:
    folder = make_project(tmp_path / "news", tiny_llama, **SETTINGS)
    add_rows(folder / "rows.csv", COPIES)
    return Project.open(folder)


def test_every_row_that_left_or_changed_is_listed_with_its_reason(project: Project) -> None:
    done = project.data.split()
    assert done.facts["left_out"]["near_duplicate"] >= 1
    removed = project.data.removed()
    by_step = {(r.step, r.reason) for r in removed}
    assert ("dedup", "near_duplicate") in by_step
    changed = [r for r in removed if r.step == "clean.control"]
    assert [(r.before, r.after) for r in changed] == [("caf\u200be and  bank profit for the market this year 77", "cafe and  bank profit for the market this year 77")]  # fmt: skip
    only = list(project.data.removed("near_duplicate"))
    assert {r.reason for r in only} == {"near_duplicate"}
    with pytest.raises(InputError, match="no row has this reason"):
        project.data.removed("nonsense")


def test_a_removal_is_taken_back_and_the_versions_say_so(project: Project) -> None:
    project.data.split()
    gone = next(r for r in project.data.removed("near_duplicate") if "monday" in r.before)
    project.data.restore(gone.key)
    again = Project.open(project.root)
    again.data.split()
    assert [v.name for v in again.data.log()] == ["v1", "v2"]
    diff = again.data.diff("v1", "v2")
    assert [(r["file"], r["line"]) for r in diff.added] == [(gone.file, gone.line)]
    assert not diff.removed and not diff.changed
    assert gone.key not in {r.key for r in again.data.removed()}

    again.data.restore(gone.key, undo=True)
    third = Project.open(project.root)
    third.data.split()
    assert third.data.diff("v1").added == [] and [v.name for v in third.data.log()] == ["v1", "v2"]
    with pytest.raises(InputError, match="no row has this key"):
        third.data.restore("0123456789ab")


def test_a_step_nobody_asked_for_says_how_to_ask(project: Project) -> None:
    with pytest.raises(InputError, match="nothing is asked for") as e:
        project.data.audit()
    assert "data.audit.enabled=true" in str(e.value)


def test_growth_moves_no_sealed_row(project: Project) -> None:
    from tunesmith.core.canonical import read_lines
    from tunesmith.core.nouns import Row

    def test_rows(p: Project) -> set[str]:
        return {r.id for r in read_lines(p.data.split().folder / "test.jsonl", Row)}

    before = test_rows(project)
    with open(project.root / "more.csv", "w", encoding="utf-8") as f:
        f.write("text,label,source\n")
    extra = project.root / "more.csv"
    write_rows(extra, 90, seed=5)
    text = (project.root / "tunesmith.yaml").read_text(encoding="utf-8")
    (project.root / "tunesmith.yaml").write_text(text.replace("[rows.csv]", "[rows.csv, more.csv]"), encoding="utf-8")
    grown = Project.open(project.root)
    after = {r.id for r in read_lines(grown.data.split().folder / "train.jsonl", Row)}
    assert before <= test_rows(grown)
    assert not before & after


def test_the_room_asks_the_most_uncertain_rows_first(project: Project) -> None:
    room = open_room(project.context)
    assert [q["name"] for q in room.queues()] == ["labels"]
    room.owner("anna")
    asked = room.ask("anna", "labels")
    assert asked["items"] and room.queues()[0]["labels"] == ["business", "sports", "weather"]


def test_judgments_become_labels(project: Project) -> None:
    room = open_room(project.context)
    room.owner("anna")
    item = room.ask("anna", "labels")["items"][0]
    draft = {"id": "j1" * 16, "queue": "labels", "item": item["id"], "verb": "label", "value": "sports", "reason": "", "seconds": 2.0}  # fmt: skip
    room.judge("anna", draft)
    judged = Project.open(project.root, ["data.labels.judgments=true", "data.labels.threshold=0.5"])
    done = judged.data.relabel()
    assert done.facts["consensus"]["items"] == 1
    assert judged.data.judgments()[0]["value"] == "sports"


def test_a_folder_is_seen_before_there_is_a_project(tmp_path: Path) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    write_rows(folder / "rows.csv")
    add_rows(folder / "rows.csv", COPIES)
    (folder / "odd.bin").write_bytes(bytes(range(256)))
    found = look(folder)
    assert found.facts["rows"] == 153 and found.facts["classes"].keys() == {"business", "sports", "weather"}
    assert [u["file"] for u in found.facts["unread"]] == ["odd.bin"]
    assert found.facts["duplicates"]["near"]["clusters"] >= 1
    assert "rows.csv" in found.page and "<script" not in found.page
    assert sorted(p.name for p in folder.iterdir()) == ["odd.bin", "rows.csv"]


def test_rows_without_a_label_wait_for_people(tmp_path: Path, tiny_llama: Path) -> None:
    folder = make_project(tmp_path / "news", tiny_llama)
    add_rows(
        folder / "rows.csv", [("a whistle and a penalty in the last minute", "", "x"), ("hail on the hills", "", "y")]
    )
    with pytest.raises(InputError, match="label"):
        Project.open(folder).data.read()
    waiting = Project.open(folder, ["data.unlabelled=keep", "data.labels.threshold=0.5"])
    facts = waiting.data.read().facts
    assert facts["unlabelled"] == 2 and "" not in facts["labels"]
    room = open_room(waiting.context)
    room.owner("anna")
    asked = room.ask("anna", "labels")["items"]
    item = next(i for i in asked if "whistle" in i["text"])  # nobody knows these, so they come first
    room.judge("anna", {"id": "j2" * 16, "queue": "labels", "item": item["id"], "verb": "label", "value": "sports", "reason": "", "seconds": 1.0})  # fmt: skip
    done = Project.open(folder, ["data.unlabelled=keep", "data.labels.threshold=0.5"]).data.relabel()
    assert done.facts["left_out"] == {"unlabelled": 1}


def test_the_model_itself_draws_a_curve_on_request(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make_project(tmp_path / "news", tiny_llama), ["data.split.near=0"])
    found = project.data.curve(sizes=[60, 120])
    assert [p["rows"] for p in found.facts["points"]] == sorted(p["rows"] for p in found.facts["points"])
    assert all(0 <= p["score"] <= 1 for p in found.facts["points"])
    assert "macro_f1 of the model itself" in str(found)
    with pytest.raises(InputError, match="20 rows or more"):
        project.data.curve(sizes=[3])
