"""The stage clean: what it changes, that all of it is on the record, and that a second cleaning changes nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tunesmith.data.clean.clean as stage
from tests.data.clean.making import Cleaned, clean_spec, examples, row, run_clean
from tunesmith.core.errors import DataError, InputError, Stopped
from tunesmith.core.stage import Workspace
from tunesmith.data.clean.catalogue import LOSSLESS, NAMES, STEPS, check_steps
from tunesmith.data.clean.patterns import Hopeless, Replacement
from tunesmith.data.clean.stages import CLEAN, CleanInputs, Replace

ALL = tuple(step.name for step in STEPS)


def test_every_change_is_recorded_under_the_step_that_made_it(tmp_path: Path) -> None:
    got = run_clean(tmp_path, [row(1, "a\u200bb  \r\nc"), row(2, "fine")], clean_spec("control", "whitespace"))
    assert got.texts == ["ab\nc", "fine"]
    assert [(c.line, c.step, c.field, c.before, c.after) for c in got.changes] == [
        (1, "clean.control", "messages[0].content", "a\u200bb  \r\nc", "ab  \r\nc"),
        (1, "clean.whitespace", "messages[0].content", "ab  \r\nc", "ab\nc"),
    ]
    assert got.facts["changed"] == {"clean.control": 1, "clean.whitespace": 1}
    assert got.steps["control"]["rows"] == 1 and got.steps["control"]["characters_removed"] == 1
    assert got.steps["whitespace"]["samples"] == [
        {"file": "rows.jsonl", "line": 1, "field": "messages[0].content", "before": "ab  \r\nc", "after": "ab\nc"}
    ]
    assert got.rows[0].id == got.rows[0].example.id != got.rows[0].group  # the key it was read with
    assert [g.reason for g in got.left_out] == ["ragged"]  # of the step before


def test_steps_run_in_the_order_of_the_spec(tmp_path: Path) -> None:
    rows = [row(1, "&lt;p&gt;x&lt;/p&gt;")]
    assert run_clean(tmp_path / "1", rows, clean_spec("html", "unescape")).texts == ["<p>x</p>"]
    assert run_clean(tmp_path / "2", rows, clean_spec("unescape", "html")).texts == ["x"]


def test_at_most_five_samples_of_a_step_each_about_the_change(tmp_path: Path) -> None:
    rows = [row(i, "x" * 500 + "\u200b" + "y" * 500) for i in range(1, 9)]
    step = run_clean(tmp_path, rows, clean_spec("control")).steps["control"]
    assert step["rows"] == 8 and [s["line"] for s in step["samples"]] == [1, 2, 3, 4, 5]
    assert step["samples"][0]["before"] == "…" + "x" * 60 + "\u200b" + "y" * 59 + "…"


# What is cleaned


def test_the_target_is_cleaned_only_if_asked_and_a_label_never(tmp_path: Path) -> None:
    rows = [row(1, "in  \nx", target="out  \ny")]
    assert run_clean(tmp_path / "1", rows, clean_spec("whitespace")).rows[0].target == "out  \ny"
    asked = clean_spec("whitespace", fields=("target",))
    got = run_clean(tmp_path / "2", rows, asked)
    assert (got.texts, got.rows[0].target) == (["in  \nx"], "out\ny")
    classify = clean_spec("whitespace", fields=("input", "target"), kind="classify")
    got = run_clean(tmp_path / "3", rows, classify)
    assert (got.texts, got.rows[0].target) == (["in\nx"], "out  \ny")


def test_the_rejected_answer_is_cleaned_with_the_target(tmp_path: Path) -> None:
    pair = msgspec.structs.replace(row(1, "in", target="good  \nx"), rejected="bad  \ny")
    got = run_clean(tmp_path / "1", [pair], clean_spec("whitespace", fields=("input", "target")))
    assert (got.rows[0].target, got.rows[0].rejected) == ("good\nx", "bad\ny")
    assert [c.field for c in got.changes] == ["target", "rejected"] and got.steps["whitespace"]["texts"] == 2
    key = got.changes[1].key
    got = run_clean(tmp_path / "2", [pair], clean_spec("whitespace", fields=("target",), restored=(key,)))
    assert (got.rows[0].rejected, got.facts["restored"]) == ("bad  \ny", [key])


def test_the_text_of_a_domain_row_is_its_input(tmp_path: Path) -> None:
    got = run_clean(tmp_path, [row(1, target="a \r\nb")], clean_spec("whitespace", kind="domain"))
    assert got.rows[0].target == "a\nb" and got.changes[0].field == "target"


def test_what_a_tool_answered_is_left_alone(tmp_path: Path) -> None:
    turns = row(1, "be nice \n.", "hi \n.", '{"a": 1} \n', roles=("system", "user", "tool"))
    got = run_clean(tmp_path, [turns], clean_spec("whitespace"))
    assert [m.content for m in got.rows[0].messages] == ["be nice\n.", "hi\n.", '{"a": 1} \n']


# Rows that a step empties


def test_an_emptied_row_is_left_out_with_the_step_that_emptied_it(tmp_path: Path) -> None:
    rows = [row(1, "<script>x</script>"), row(2, "<p>text</p>"), row(3, "   ")]
    got = run_clean(tmp_path, rows, clean_spec("html", "whitespace"))
    gone = got.left_out[1]
    assert (gone.line, gone.reason, gone.step) == (1, "emptied", "clean")
    assert gone.detail == "messages[0].content is empty after html" and gone.text == "<script>x</script>"
    assert [r.line for r in got.rows] == [2, 3]  # the third was empty before
    assert {c.line for c in got.changes} == {2, 3}  # no change of a row that is not there
    assert got.facts["read"] == got.facts["kept"] + sum(got.facts["left_out"].values())


def test_a_row_that_a_person_restored_is_kept_as_it_was(tmp_path: Path) -> None:
    rows = [row(1, "<script>x</script>"), row(2, "text")]
    key = run_clean(tmp_path / "1", rows, clean_spec("html")).left_out[1].key
    got = run_clean(tmp_path / "2", rows, clean_spec("html", restored=(key,)))
    assert got.texts == ["<script>x</script>", "text"] and got.facts["restored"] == [key]


def test_a_change_that_a_person_restored_is_not_made_and_later_steps_see_that(tmp_path: Path) -> None:
    rows = [row(1, "a\u200b \nb"), row(2, "c\u200b")]
    key = run_clean(tmp_path / "1", rows, clean_spec("control", "whitespace")).changes[0].key
    got = run_clean(tmp_path / "2", rows, clean_spec("control", "whitespace", restored=(key,)))
    assert got.texts == ["a\u200b\nb", "c"]
    assert [(c.line, c.step) for c in got.changes] == [(1, "clean.whitespace"), (2, "clean.control")]
    assert got.facts["restored"] == [key] and got.steps["control"]["rows"] == 1


# Patterns


def test_a_pattern_replaces_and_is_recorded_by_its_number(tmp_path: Path) -> None:
    steps = (Replace(pattern=r"#(\d+)", by=r"ticket \1"), "whitespace", Replace(pattern="colour", by="color"))
    got = run_clean(tmp_path, [row(1, "see #12: colour ")], clean_spec(*steps))
    assert got.texts == ["see ticket 12: color"]
    assert [c.step for c in got.changes] == ["clean.replace_1", "clean.whitespace", "clean.replace_2"]


BAD: list[tuple[tuple[object, ...], str]] = [
    (("whitspace",), "data.clean[0]: 'whitspace' is not a cleaning step; did you mean 'whitespace'?"),
    (("html", "html"), "data.clean[1]: 'html' is named twice"),
    ((Replace(pattern="(a", by=""),), "data.clean[0]: the pattern '(a' cannot be read: missing )"),
    ((Replace(pattern="a*", by="-"),), "the pattern 'a*' matches the empty text"),
    ((Replace(pattern="(a)", by=r"\2"),), r"the replacement '\\2' cannot be read: invalid group reference"),
]


@pytest.mark.parametrize("steps, says", BAD, ids=[b[1][:40] for b in BAD])
def test_steps_that_cannot_be_used_are_refused_before_reading(steps: tuple[object, ...], says: str) -> None:
    with pytest.raises(InputError) as caught:
        check_steps(steps)  # type: ignore[arg-type]
    assert says in str(caught.value)


def test_all_bad_steps_are_named_at_once() -> None:
    with pytest.raises(InputError) as caught:
        check_steps(("nope", Replace(pattern="(", by=""), "html"))
    assert len(caught.value.problems) == 2


def test_a_pattern_that_feeds_on_itself_is_an_error_that_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:2: messages\[0\].content: replace_1: .*after 8 rounds"):
        run_clean(tmp_path, [row(1, "dog"), row(2, "cat")], clean_spec(Replace(pattern="cat", by="catalog")))


HANGS = r"^(?:(a+)(?=(a*))\1*)+\2c$"


def test_a_pattern_that_would_hang_is_stopped_and_named() -> None:
    hopeless = Replacement(Replace(pattern=HANGS, by=""), timeout_s=0.3)
    with pytest.raises(Hopeless, match=r"takes more than 0.3 s on this text of 41 characters"):
        hopeless(["a" * 40 + "b"])


# Laws

ANY = st.lists(
    st.sampled_from([*"ab<>&;/p \n\t\r\"'`-_:|.", "\u200b", "\u200d", "\u200c", "\u00ad", "\u202e", "\u00a0", "é", "e\u0301", "Ã", "¼", "😀", "م", "\u0915", "\u200f", "\ufeff", "“"])
    | st.sampled_from(["<p>", "</p>", "<br>", "<b>", "</b>", "<!--", "-->", "<script>", "</script>", "&lt;", "&amp;", "&nbsp;", "On 1 wrote:\n", "> ", "\n> ", "-- \n", "From: a@b\n", "To: c\n", "Subject: d\n", "\n\n", "Begin forwarded message:\n", "-----Original Message-----\n", "________\nx mailing list\n", "Received: x\n", "```\n"]),
    max_size=40,
).map("".join)  # fmt: skip
EACH = [name for name, step in NAMES.items() if step.idempotent and name != "boilerplate"]


@pytest.mark.parametrize("name", EACH)
@settings(max_examples=250, deadline=None)
@given(text=ANY)
def test_each_step_is_idempotent(name: str, text: str) -> None:
    step = NAMES[name].resolve()
    once = step([text])
    assert step(once) == once


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY, min_size=1, max_size=8), size=st.integers(1, 4))
def test_rows_in_are_rows_out_and_left_out_and_batches_do_not_matter(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], size: int
) -> None:
    root = tmp_path_factory.mktemp("c")
    folder = examples(root / "examples", [row(i, text) for i, text in enumerate(texts, 1)])
    spec = clean_spec(*ALL, Replace(pattern="ab", by="a"), boilerplate_rows=2)
    first = run_clean(root / "1", folder, spec)
    before, stage.BATCH = stage.BATCH, size
    try:
        second = run_clean(root / "2", folder, spec)
    finally:
        stage.BATCH = before
    for file in sorted(p.name for p in first.folder.iterdir()):
        assert (first.folder / file).read_bytes() == (second.folder / file).read_bytes()
    emptied = [g.line for g in first.left_out if g.reason == "emptied"]
    assert sorted([r.line for r in first.rows] + emptied) == list(range(1, len(texts) + 1))
    _replay(texts, first)


def _replay(texts: list[str], got: Cleaned) -> None:
    """The changes lead from what was read to what is kept, each from where the one before it ended."""
    now = dict(enumerate(texts, 1))
    for change in got.changes:
        assert now[change.line] == change.before != change.after
        now[change.line] = change.after
    assert all(now[r.line] == r.messages[0].content for r in got.rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(ANY, min_size=1, max_size=6), name=st.sampled_from([*EACH, "boilerplate"]))
def test_cleaning_what_was_cleaned_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], name: str
) -> None:
    root = tmp_path_factory.mktemp("c")
    spec = clean_spec(name, boilerplate_rows=2, boilerplate_share=0.5)
    once = run_clean(root / "1", [row(i, t) for i, t in enumerate(texts, 1)], spec)
    if once.rows:
        twice = run_clean(root / "2", once.folder, spec)
        assert twice.texts == once.texts and twice.facts["changed"] == {} and twice.facts["left_out"] == {}


def test_a_stop_is_heeded(tmp_path: Path) -> None:
    folder = examples(tmp_path / "examples", [row(i, f"text {i}") for i in range(1, 2_102)])
    work = Workspace(root=tmp_path / "work")
    work.stop.set()
    with pytest.raises(Stopped):
        stage.clean(clean_spec("whitespace"), CleanInputs(examples=folder), work)


def test_the_stage_is_named_and_planning_loads_none_of_it() -> None:
    assert CLEAN.resolve() is stage.clean
    assert LOSSLESS == ("control", "unicode", "whitespace")
    assert not [f for f in CLEAN.spec.__dataclass_fields__.values() if f.default is not f.default_factory]
    assert all(step.resolve()([]) == [] for step in STEPS if step.name != "boilerplate")
