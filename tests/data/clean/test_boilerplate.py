"""Boilerplate: what many rows repeat goes, is named with its count, and nothing is found where nothing repeats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.clean.making import clean_spec, examples, row, run_clean
from tunesmith.core.canonical import canonical_json
from tunesmith.data.clean.boilerplate import Counting, hash_of, paragraphs_of

FOOTER = "This message may contain confidential information."


def rows(n: int, text: str = "Question {i}\n\n{footer}") -> list[object]:
    return [row(i, text.format(i=i, footer=FOOTER)) for i in range(1, n + 1)]


def test_a_line_of_many_rows_goes_and_is_named(tmp_path: Path) -> None:
    mixed = [*rows(4), row(5, f"once\n{FOOTER.replace(' ', '  ')}\nmore"), row(6, "no footer at all in this row")]
    got = run_clean(tmp_path, mixed, clean_spec("boilerplate", boilerplate_rows=5))  # type: ignore[arg-type]
    assert got.texts == [*(f"Question {i}" for i in range(1, 5)), "once\nmore", "no footer at all in this row"]
    assert got.facts["boilerplate"] == {
        "unit": "line", "least_rows": 5, "of_rows": 6, "units": 1, "most": [{"text": FOOTER, "rows": 5}],
    }  # fmt: skip
    assert {c.step for c in got.changes} == {"clean.boilerplate"}


def test_below_the_threshold_nothing_goes(tmp_path: Path) -> None:
    got = run_clean(tmp_path, rows(4), clean_spec("boilerplate", boilerplate_rows=5))  # type: ignore[arg-type]
    assert got.changes == [] and got.facts["boilerplate"]["units"] == 0


def test_twice_in_one_row_counts_once(tmp_path: Path) -> None:
    twice = [row(1, f"a\n{FOOTER}\nb\n{FOOTER}"), row(2, f"c\n{FOOTER}")]
    assert run_clean(tmp_path / "1", twice, clean_spec("boilerplate", boilerplate_rows=3)).changes == []
    got = run_clean(tmp_path / "2", twice, clean_spec("boilerplate", boilerplate_rows=2))
    assert got.texts == ["a\nb", "c"]


def test_the_share_is_of_the_rows_that_check_kept(tmp_path: Path) -> None:
    folder = examples(tmp_path / "examples", rows(10))  # type: ignore[arg-type]
    spec = clean_spec("boilerplate", boilerplate_rows=2, boilerplate_share=0.5)
    assert run_clean(tmp_path / "1", folder, spec).facts["boilerplate"]["least_rows"] == 5
    (folder / "check.json").write_bytes(canonical_json({"kept": 30}))
    got = run_clean(tmp_path / "2", folder, spec)
    assert got.facts["boilerplate"]["least_rows"] == 15 and got.changes == []


def test_short_lines_are_never_boilerplate(tmp_path: Path) -> None:
    got = run_clean(tmp_path, [row(i, f"Hello,\n{i}\n}}") for i in range(9)], clean_spec("boilerplate"))
    assert got.changes == []


def test_it_counts_what_the_steps_before_leave(tmp_path: Path) -> None:
    marked = [row(i, f"<p>Question {i}</p><p>{FOOTER[: 10 + i]}<b></b>{FOOTER[10 + i :]}</p>") for i in range(1, 6)]
    got = run_clean(tmp_path / "1", marked, clean_spec("html", "boilerplate"))
    assert got.texts == [f"Question {i}" for i in range(1, 6)]


def test_a_row_that_is_nothing_else_is_left_out(tmp_path: Path) -> None:
    got = run_clean(tmp_path, [*rows(3), row(4, FOOTER)], clean_spec("boilerplate"))  # type: ignore[list-item]
    assert got.left_out[1].detail == "messages[0].content is empty after boilerplate"


def test_paragraphs(tmp_path: Path) -> None:
    shared = "Short one,\nand the other."
    texts = [row(i, f"Intro {i}\n\n{shared}\n\nOutro {i}") for i in range(4)]
    assert run_clean(tmp_path / "1", texts, clean_spec("boilerplate")).changes == []
    got = run_clean(tmp_path / "2", texts, clean_spec("boilerplate", boilerplate_unit="paragraph"))
    assert got.texts == [f"Intro {i}\n\nOutro {i}" for i in range(4)]


@pytest.mark.parametrize("text", ["", "\n", "a", "a\n\nb", "\n\na\n \n\nb\nc\n", " \n\t"])
def test_paragraphs_joined_are_the_text(text: str) -> None:
    assert "\n".join(paragraphs_of(text)) == text


def test_counts_are_exact() -> None:
    counting = Counting("line")
    for i in range(1_000):
        counting.add([f"a line that every row has\nline of every tenth row {i % 10:04d}\nonly this row has it {i:05d}"])
    got = counting.repeated(100)
    assert sorted(got.values()) == [100] * 10 + [1_000]
    assert got[hash_of("a line that  every row has ") or 0] == 1_000
