"""The stage label: the user's map, people's judgments, and the record of both."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.making import jsonl, run_check
from tunesmith.core.canonical import read_json, read_lines, write_lines
from tunesmith.core.errors import DataError, InputError
from tunesmith.core.nouns import Change, LeftOut, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.labels.label import label, label_words
from tunesmith.data.labels.stages import LABEL, LabelInputs, LabelSpec

RECORDS = [
    {"text": "a goal in the last minute", "label": "sports"},
    {"text": "the cup final is on sunday", "label": "Sprots"},
    {"text": "the vote was close", "label": "politics"},
    {"text": "the minister resigned", "label": "sports"},
    {"text": "a bill about bills", "label": "politics"},
]


def spec(**changes: Any) -> LabelSpec:
    usual: dict[str, Any] = {
        "kind": "classify",
        "labels": (),
        "variants": {},
        "queues": (),
        "method": "majority",
        "threshold": 0.6,
        "disputed": "leave_out",
        "errors": 0,
        "errors_rows": 1000,
        "folds": 3,
        "seed": 0,
        "restored": (),
    }
    return LabelSpec(**{**usual, **changes})


def judgment(n: int, item: str, annotator: str, verb: str, value: Any = None, queue: str = "labels") -> dict[str, Any]:
    return {
        "id": f"{n:064x}",
        "queue": queue,
        "item": item,
        "annotator": annotator,
        "verb": verb,
        "value": value,
        "reason": "",
        "seconds": 1.0,
        "at": "2026-01-01T00:00:00Z",
    }


class Labelled:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read_json(folder / "label.json")
        self.rows: list[Row] = list(read_lines(folder / "rows.jsonl", Row))
        self.left_out: list[LeftOut] = list(read_lines(folder / "left_out.jsonl", LeftOut))
        self.changes: list[Change] = list(read_lines(folder / "changes.jsonl", Change))

    @property
    def targets(self) -> list[str]:
        return [r.target for r in self.rows]


def run(root: Path, examples: Path, judgments: Iterable[dict[str, Any]] | None = None, **changes: Any) -> Labelled:
    folder = None
    root.mkdir(parents=True, exist_ok=True)
    if judgments is not None:
        folder = root / "judgments"
        folder.mkdir()
        write_lines(folder / "judgments.jsonl", judgments)
    inputs = LabelInputs(examples=examples, judgments=folder)
    return Labelled(label(spec(**changes), inputs, Workspace(root=root / "work")).examples)


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    return run_check(tmp_path / "check", {"news.jsonl": jsonl(RECORDS)}).folder


def ids(examples: Path) -> list[str]:
    return [r.id for r in read_lines(examples / "rows.jsonl", Row)]


def test_the_stage_is_found_by_its_name() -> None:
    assert LABEL.resolve() is label


def test_variants_are_mapped_only_as_the_user_says_and_each_change_is_on_the_record(
    tmp_path: Path, examples: Path
) -> None:
    got = run(tmp_path / "a", examples, variants={"Sprots": "sports", "polit": "politics"})
    assert got.targets == ["sports", "sports", "politics", "sports", "politics"]
    (change,) = got.changes
    assert (change.step, change.field, change.before, change.after) == ("label.variants", "target", "Sprots", "sports")
    assert got.facts["variants"]["mapped"] == [
        {"label": "Sprots", "into": "sports", "rows": 1},
        {"label": "polit", "into": "politics", "rows": 0},
    ]
    assert "is it spelled as in the data?" in label_words(got.facts)
    untouched = run(tmp_path / "b", examples)
    assert untouched.targets == [r["label"] for r in RECORDS]
    assert untouched.facts["variants"]["suggested"] == []  # two rows of sports are no evidence for a slip
    back = run(tmp_path / "c", examples, variants={"Sprots": "sports"}, restored=(change.key,))
    assert back.targets[1] == "Sprots"
    assert back.facts["restored"] == [change.key]


def test_suggestions_come_with_the_line_to_write(tmp_path: Path) -> None:
    records = [{"text": f"match {i}", "label": "Sprots" if i == 7 else "sports"} for i in range(60)]
    records += [{"text": f"vote {i}", "label": "politics"} for i in range(9)]
    examples = run_check(tmp_path / "check", {"news.jsonl": jsonl(records)}).folder
    got = run(tmp_path / "a", examples)
    assert [(s["label"], s["suggested"]) for s in got.facts["variants"]["suggested"]] == [("Sprots", "sports")]
    assert got.targets.count("Sprots") == 1
    assert 'to merge, under data.labels.variants: "Sprots": "sports"' in label_words(got.facts)


def test_a_map_whose_result_depends_on_how_often_it_is_applied_is_refused_whole(tmp_path: Path, examples: Path) -> None:
    with pytest.raises(InputError) as e:
        run(
            tmp_path / "a", examples, variants={"a": "b", "b": "c", "x": "y"}, labels=("sports", "c"), method="majority"
        )
    assert len(e.value.problems) == 3  # the chain, and two labels that are not declared


def test_consensus_corrects_confirms_and_leaves_disputes_out_with_their_votes(tmp_path: Path, examples: Path) -> None:
    id = ids(examples)
    said = [
        *(judgment(n, id[3], who, "label", "politics") for n, who in enumerate("abc")),
        judgment(10, id[0], "a", "label", "sports"),
        judgment(11, id[2], "a", "label", "sports"),
        judgment(12, id[2], "b", "correct", "politics"),
        judgment(13, id[4], "a", "skip"),
    ]
    got = run(tmp_path / "a", examples, said)
    assert got.targets == ["sports", "Sprots", "politics", "politics"]
    assert got.rows[2].line == 4
    (change,) = got.changes
    assert change.step == "label.consensus"
    assert "'politics' 3" in change.why
    (gone,) = got.left_out
    assert (gone.reason, gone.step, gone.line) == ("disputed", "label", 3)
    assert gone.detail == "a tie; votes: 'politics' 1, 'sports' 1"
    counts = got.facts["consensus"]
    assert (counts["confirmed"], counts["corrected"], counts["disputed"], counts["skipped"]) == (1, 1, 1, 1)
    kept = run(tmp_path / "b", examples, said, disputed="keep")
    assert kept.facts["consensus"]["disputed_kept"] == 1
    assert kept.rows[2].target == "politics"
    restored = run(tmp_path / "c", examples, said, restored=(gone.key,))
    assert [r.line for r in restored.rows] == [1, 2, 3, 4, 5]


def test_adjudication_settles_and_undo_takes_back_the_last_word_or_the_one_it_names(
    tmp_path: Path, examples: Path
) -> None:
    id = ids(examples)
    said = [
        judgment(1, id[2], "a", "label", "sports"),
        judgment(2, id[2], "b", "label", "politics"),
        judgment(3, id[2], "chief", "adjudicate", "sports"),
        judgment(4, id[0], "a", "label", "politics"),
        judgment(5, id[0], "a", "undo"),
        judgment(6, id[3], "a", "label", "politics"),
        judgment(7, id[3], "a", "label", "sports"),
        judgment(8, id[3], "a", "undo", f"{7:064x}"),
        judgment(9, id[4], "b", "undo"),  # of nothing
        judgment(10, id[4], "b", "approve"),
        judgment(11, id[4], "b", "label", "sports", queue="other"),
    ]
    got = run(tmp_path / "a", examples, said, queues=("labels",))
    assert got.targets == ["sports", "Sprots", "sports", "politics", "politics"]
    assert [c.step for c in got.changes] == ["label.adjudicated", "label.consensus"]
    facts = got.facts["judgments"]
    assert (facts["undone"], facts["other_verbs"], facts["other_queues"], facts["read"]) == (2, 1, 1, 11)


def test_judgments_find_their_row_before_and_after_the_map_and_those_that_find_none_are_counted(
    tmp_path: Path, examples: Path
) -> None:
    mapped = run(tmp_path / "a", examples, variants={"Sprots": "sports"})
    after, before = mapped.rows[1].id, ids(examples)[1]
    assert after != before
    for n, name in enumerate((before, after)):
        said = [judgment(1, name, "a", "label", "politics"), judgment(2, "f" * 64, "a", "label", "sports")]
        got = run(tmp_path / f"b{n}", examples, said, variants={"Sprots": "sports"})
        assert got.targets[1] == "politics"
        assert got.facts["consensus"]["in_no_row_first"] == ["f" * 64]
        assert [c.step for c in got.changes] == ["label.variants", "label.consensus"]


def test_a_label_that_is_no_text_or_not_declared_is_refused(tmp_path: Path, examples: Path) -> None:
    id = ids(examples)
    with pytest.raises(DataError, match="no text as the label"):
        run(tmp_path / "a", examples, [judgment(1, id[0], "a", "label", 3), judgment(2, id[1], "a", "label", "")])
    with pytest.raises(DataError, match="not among the labels"):
        run(tmp_path / "b", examples, [judgment(1, id[0], "a", "label", "weather")], labels=("sports", "politics"))


def test_a_row_that_becomes_the_same_as_another_is_left_out_as_a_duplicate(tmp_path: Path) -> None:
    records = [{"text": "one goal", "label": "Sprots"}, {"text": "one goal", "label": "sports"}, *RECORDS]
    examples = run_check(tmp_path / "check", {"n.jsonl": jsonl(records)}, kind="instruct", text="text", label="label")
    got = run(tmp_path / "a", examples.folder, kind="instruct", variants={"Sprots": "sports"})
    assert [(g.reason, g.line) for g in got.left_out] == [("duplicate", 2)]
    assert got.facts["read"] == got.facts["kept"] + 1


def test_without_a_question_nothing_changes_and_facts_of_earlier_steps_stay(tmp_path: Path, examples: Path) -> None:
    got = run(tmp_path / "a", examples)
    assert (got.folder / "rows.jsonl").read_bytes() == (examples / "rows.jsonl").read_bytes()
    assert (got.folder / "check.json").read_bytes() == (examples / "check.json").read_bytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from("abc"),
            st.sampled_from(["label", "correct", "adjudicate", "skip", "undo"]),
            st.sampled_from(["sports", "politics", "Sprots"]),
        ),
        max_size=14,
    ),
    policy=st.sampled_from(["keep", "leave_out"]),
    method=st.sampled_from(["majority", "dawid_skene"]),
)
def test_rows_in_are_rows_kept_and_left_out_and_labelling_twice_is_labelling_once(
    tmp_path_factory: pytest.TempPathFactory, words: list[tuple[int, str, str, str]], policy: str, method: str
) -> None:
    root = tmp_path_factory.mktemp("label")
    examples = run_check(root / "check", {"news.jsonl": jsonl(RECORDS)}).folder
    id = ids(examples)
    said = [
        judgment(n, id[i], who, verb, value if verb not in ("skip", "undo") else None)
        for n, (i, who, verb, value) in enumerate(words)
    ]
    usual = {"variants": {"Sprots": "sports"}, "disputed": policy, "method": method}
    once = run(root / "a", examples, said, **usual)
    assert once.facts["read"] == once.facts["kept"] + sum(once.facts["left_out"].values()) == len(RECORDS)
    twice = run(root / "b", once.folder, said, **usual)
    again = run(root / "c", examples, said, **usual)
    assert again.folder.joinpath("label.json").read_bytes() == once.folder.joinpath("label.json").read_bytes()
    assert (twice.folder / "rows.jsonl").read_bytes() == (once.folder / "rows.jsonl").read_bytes()
    assert (twice.folder / "left_out.jsonl").read_bytes() == (once.folder / "left_out.jsonl").read_bytes()
