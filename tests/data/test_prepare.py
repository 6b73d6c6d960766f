"""The stage prepare: rows divided, counted with the model's own tokenizer, none cut, the test set sealed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.data.making import Checked, Prepared, jsonl, run_check, run_prepare, table, two_classes
from tunesmith.core.canonical import file_id
from tunesmith.core.errors import DataError, InputError
from tunesmith.text.render import Renderer

ROWS = two_classes(200)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Checked:
    return run_check(tmp_path_factory.mktemp("checked"), {"rows.tsv": table(ROWS)})


def lines(got: Prepared) -> dict[str, list[int]]:
    return {name: [row.line for row in rows] for name, rows in got.splits.items()}


def test_every_row_is_in_one_split_in_file_order_and_the_test_set_is_sealed(
    tmp_path: Path, checked: Checked, tiny_llama: Path
) -> None:
    got = run_prepare(tmp_path, checked.folder, tiny_llama)
    found = lines(got)
    assert sorted(line for part in found.values() for line in part) == list(range(2, 202))
    assert all(part == sorted(part) and part for part in found.values())
    rows = [row for part in got.splits.values() for row in part]
    assert sorted(rows, key=lambda r: r.line) == checked.rows  # unchanged
    facts = got.facts
    assert facts["counts"] == {name: len(part) for name, part in found.items()}
    assert facts["seal"] == file_id(got.folder / "test.jsonl")
    assert facts["labels"] == ["even", "odd"] and facts["not_judged"] == {} and facts["left_out"] == {}
    assert facts["class_counts"]["odd"]["test"] == sum(r.target == "odd" for r in got.splits["test"])
    split = facts["split"]
    assert split["by"] == "row" and split["asked"] == {"train": 0.8, "validation": 0.1, "test": 0.1}
    assert split["deviation"] == pytest.approx(max(abs(split["shares"][n] - split["asked"][n]) for n in found))


def test_tokens_are_those_of_the_renderer_with_the_system_prompt(
    tmp_path: Path, checked: Checked, tiny_llama: Path
) -> None:
    got = run_prepare(tmp_path, checked.folder, tiny_llama, system="A longer system prompt.")
    renderer = Renderer.load(tiny_llama, system="A longer system prompt.")
    prompts = [len(renderer.prompt(r.messages)) for r in checked.rows]
    answers = [len(renderer.answer(r.target)) for r in checked.rows]
    tokens = got.facts["tokens"]
    assert tokens["total"] == sum(prompts) + sum(answers)
    assert tokens["longest"] == max(p + a for p, a in zip(prompts, answers, strict=True))
    assert tokens["prompt"]["max"] == max(prompts) and tokens["answer"]["max"] == max(answers)
    assert tokens["answer"]["mean"] == pytest.approx(sum(answers) / 200, abs=1e-3)
    assert got.facts["system"] == "A longer system prompt."


def test_a_conversation_counts_only_its_last_turn_as_the_answer(tmp_path: Path, tiny_llama: Path) -> None:
    turns = [("user", "one"), ("assistant", "two two two"), ("user", "three"), ("assistant", "four")]
    records = [{"messages": [{"role": r, "content": f"{c} {i}"} for r, c in turns]} for i in range(60)]
    checked = run_check(tmp_path / "c", {"r.jsonl": jsonl(records)}, kind="chat")
    got = run_prepare(tmp_path / "p", checked.folder, tiny_llama, kind="chat")
    renderer = Renderer.load(tiny_llama, system="Answer.")
    assert got.facts["tokens"]["answer"]["max"] == max(len(renderer.answer(f"four {i}")) for i in range(60))
    assert got.facts["labels"] == [] and got.facts["class_counts"] == {}


def test_plain_text_is_all_answer(tmp_path: Path, tiny_llama: Path) -> None:
    records = [{"text": f"plain text {i}"} for i in range(60)]
    checked = run_check(tmp_path / "c", {"r.jsonl": jsonl(records)}, kind="domain")
    got = run_prepare(tmp_path / "p", checked.folder, tiny_llama, kind="domain", system="")
    assert got.splits["train"][0].messages == () and got.splits["train"][0].target.startswith("plain text")
    assert got.facts["tokens"]["answer"]["max"] == got.facts["tokens"]["longest"]


def test_growth_moves_no_old_row(tmp_path: Path, checked: Checked, tiny_llama: Path) -> None:
    before = run_prepare(tmp_path / "1", checked.folder, tiny_llama)
    more = [(f"new text {i}", "odd") for i in range(80)]
    grown = run_check(tmp_path / "c", {"rows.tsv": table([*more[:40], *ROWS, *more[40:]])})
    after = run_prepare(tmp_path / "2", grown.folder, tiny_llama)
    for name, rows in before.splits.items():
        assert {r.id for r in rows} <= {r.id for r in after.splits[name]}


def test_no_group_straddles_a_split(tmp_path: Path, tiny_llama: Path) -> None:
    rows = [(text, label, f"g{i // 3}") for i, (text, label) in enumerate(two_classes(300))]
    body = table(rows, header=("text", "label", "topic"))
    checked = run_check(tmp_path / "c", {"rows.tsv": body}, group="topic")
    got = run_prepare(tmp_path / "p", checked.folder, tiny_llama)
    parts = [{r.group for r in part} for part in got.splits.values()]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert got.facts["split"]["by"] == "group" and got.facts["split"]["groups"] == 100


def test_the_same_input_gives_the_same_bytes(tmp_path: Path, checked: Checked, tiny_llama: Path) -> None:
    first, second = (run_prepare(tmp_path / n, checked.folder, tiny_llama, limit=100) for n in "12")
    for path in first.folder.iterdir():
        assert path.read_bytes() == (second.folder / path.name).read_bytes()
    assert {p.name for p in first.folder.iterdir()} == {
        "train.jsonl", "validation.jsonl", "test.jsonl", "left_out.jsonl", "dataset.json", "check.json"}  # fmt: skip


def test_a_limit_is_a_nested_subset_that_stays_on_its_side(tmp_path: Path, checked: Checked, tiny_llama: Path) -> None:
    whole = run_prepare(tmp_path / "w", checked.folder, tiny_llama)
    small = run_prepare(tmp_path / "s", checked.folder, tiny_llama, limit=40)
    large = run_prepare(tmp_path / "l", checked.folder, tiny_llama, limit=100)
    for name in whole.splits:
        assert set(lines(small)[name]) <= set(lines(large)[name]) <= set(lines(whole)[name])
    assert sum(small.facts["counts"].values()) == 40 and small.facts["limit"] == 40
    assert small.facts["left_out"] == {"limit": 160} and len(small.left_out) == 160
    assert small.left_out[0].detail == "outside the subset of 40 rows"


SMALL = [*ROWS, ("one", "rare"), ("two", "rare"), ("three", "scarce")]


def test_small_classes_are_refused_together_with_what_would_help(tmp_path: Path, tiny_llama: Path) -> None:
    checked = run_check(tmp_path / "c", {"rows.tsv": table(SMALL)}, min_class_rows=10)
    with pytest.raises(DataError) as caught:
        run_prepare(
            tmp_path / "p", checked.folder, tiny_llama, min_class_rows=10, labels=("odd", "even", "rare", "none")
        )
    said = str(caught.value)
    for says in (
        "data: the class 'rare' has 2 rows, fewer than 10: too few to split and to judge\n  fix:   add 8 rows",
        "the class 'scarce' has 1 row, fewer than 10",
        "the class 'none' has 0 rows, fewer than 10",
        "3 of 5 classes are too small",
        "--set data.small_classes=keep",
    ):
        assert says in said


def test_small_classes_that_are_kept_stay_in_the_data_and_are_not_judged(tmp_path: Path, tiny_llama: Path) -> None:
    checked = run_check(tmp_path / "c", {"rows.tsv": table(SMALL)}, min_class_rows=10)
    got = run_prepare(tmp_path / "p", checked.folder, tiny_llama, min_class_rows=10, small_classes="keep")
    assert sum(got.facts["class_counts"]["rare"].values()) == 2
    assert got.facts["not_judged"] == {"rare": "2 rows, fewer than 10", "scarce": "1 row, fewer than 10"}
    assert got.facts["labels"] == ["even", "odd", "rare", "scarce"]


def test_a_class_without_test_rows_is_not_judged(tmp_path: Path, checked: Checked, tiny_llama: Path) -> None:
    rows = [*ROWS, *[(f"third kind {i}", "third") for i in range(3)]]
    found = run_check(tmp_path / "c", {"rows.tsv": table(rows)})
    got = run_prepare(tmp_path / "p", found.folder, tiny_llama, salt="2")
    table_ = got.facts["class_counts"]["third"]
    assert table_["test"] == 0, "this salt puts none of the three into the test set"
    assert got.facts["not_judged"] == {"third": "no rows in the test set"}


def test_rows_that_are_too_long_are_refused_together_and_never_cut(tmp_path: Path, tiny_llama: Path) -> None:
    rows = [*ROWS, ("long " * 300, "odd"), ("longer " * 400, "even")]
    checked = run_check(tmp_path / "c", {"rows.tsv": table(rows)})
    with pytest.raises(DataError) as caught:
        run_prepare(tmp_path / "p", checked.folder, tiny_llama, max_tokens=200)
    said = str(caught.value)
    assert re.search(r"rows\.tsv:202: [\d,]+ tokens \(prompt [\d,]+, answer \d+\), 200 at most", said)
    assert "rows.tsv:203: " in said and "2 of 202 rows cannot be used: 2 over_long" in said
    assert "--set data.over_long=leave_out" in said
    enough = re.search(r"--set train\.max_tokens=(\d+) takes the longest", said)
    assert enough
    whole = run_prepare(tmp_path / "w", checked.folder, tiny_llama, max_tokens=int(enough[1]))
    assert whole.facts["tokens"]["longest"] == int(enough[1])  # exactly enough
    with pytest.raises(DataError, match="1 of 202 rows cannot be used: 1 over_long"):
        run_prepare(tmp_path / "1", checked.folder, tiny_llama, max_tokens=int(enough[1]) - 1)
    got = run_prepare(tmp_path / "l", checked.folder, tiny_llama, max_tokens=200, over_long="leave_out")
    assert got.facts["left_out"] == {"over_long": 2} and [g.line for g in got.left_out] == [202, 203]
    assert got.facts["tokens"]["longest"] <= 200


def test_what_check_left_out_is_carried_on(tmp_path: Path, tiny_llama: Path) -> None:
    checked = run_check(tmp_path / "c", {"rows.tsv": table([*ROWS, ROWS[0], ("x", "")])}, bad_rows="leave_out")
    got = run_prepare(tmp_path / "p", checked.folder, tiny_llama)
    assert got.facts["left_out"] == {"duplicate": 1, "no_label": 1}
    assert got.left_out == checked.left_out


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"train": 0.7}, "data.split: the shares are train 0.7, validation 0.1, test 0.1, in all 0.9"),
    (
        {"max_tokens": 16, "over_long": "leave_out"},
        "no row is left in train and validation and test: 200 rows are left",
    ),
]


@pytest.mark.parametrize("changes, says", REFUSED)
def test_a_data_set_that_cannot_be_used_is_refused(
    tmp_path: Path, checked: Checked, tiny_llama: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError) as caught:
        run_prepare(tmp_path, checked.folder, tiny_llama, **changes)
    assert says in str(caught.value)


def test_a_conversation_that_the_template_refuses_is_named(tmp_path: Path, tiny_llama: Path) -> None:
    base = shutil.copytree(tiny_llama, tmp_path / "base")
    strict = (
        "{% for m in messages %}{% if m.role == 'system' and 'odd' in m.content %}{{ raise_exception('no such prompt') }}"
        "{% endif %}{{'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    (base / "chat_template.jinja").write_text(strict)
    records = [
        {"messages": [{"role": "system", "content": "odd" if i == 7 else "fine"}, {"role": "user", "content": f"ask {i}"},
                      {"role": "assistant", "content": f"say {i}"}]}
        for i in range(60)
    ]  # fmt: skip
    checked = run_check(tmp_path / "c", {"r.jsonl": jsonl(records)}, kind="chat")
    with pytest.raises(DataError) as caught:
        run_prepare(tmp_path / "p", checked.folder, base, kind="chat")
    assert "r.jsonl:8: " in str(caught.value) and "1 of 60 rows cannot be used: 1 template" in str(caught.value)


def test_near_copies_and_what_earlier_steps_recorded_reach_the_data_set(tmp_path: Path, tiny_llama: Path) -> None:
    words = " ".join(f"w{i}" for i in range(20))
    rows = [(f"text{i} stands{i} alone{i}", "odd" if i % 2 else "even") for i in range(150)]
    rows += [(f"{words} x{i} {words} end{i % 30}", "odd" if i % 2 else "even") for i in range(6)]
    checked = run_check(tmp_path / "c", {"rows.tsv": table(rows)})
    (checked.folder / "changes.jsonl").write_bytes(b"")
    (checked.folder / "clean.json").write_bytes(b"{}\n")
    got = run_prepare(tmp_path / "p", checked.folder, tiny_llama, near=0.7, limit=100)
    assert {"changes.jsonl", "clean.json", "check.json"} <= {p.name for p in got.folder.iterdir()}
    near, leak = got.facts["split"]["near"], got.facts["split"]["naive_leak"]
    assert (near["threshold"], near["components"], near["largest"], near["left_out"]) == (0.7, 1, 6, 0)
    assert set(leak) == {"test_rows", "with_twin", "share", "pairs"}
    assert sum(got.facts["counts"].values()) == 100 and got.facts["left_out"] == {"limit": 56}
    copies = {name for name, part in got.splits.items() for r in part if r.line > 151}
    assert len(copies) == 1
    grown = run_check(tmp_path / "g", {"rows.tsv": table([*rows, ("quite new", "odd")])})
    after = run_prepare(tmp_path / "a", grown.folder, tiny_llama, near=0.7, salt="other", previous=got.folder)
    for name, part in got.splits.items():
        assert {r.id for r in part} <= {r.id for r in after.splits[name]}
