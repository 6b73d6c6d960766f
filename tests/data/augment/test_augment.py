"""The stage augment: copies are marked, judged and repeatable, and no other split moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.data.making import jsonl, run_check, run_prepare
from tunesmith.core.canonical import file_id, read_json, read_lines, write_lines
from tunesmith.core.errors import InputError, Stopped
from tunesmith.core.nouns import LeftOut, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.data.augment.augment import augment, augment_words
from tunesmith.data.augment.stages import AUGMENT, AugmentInputs, AugmentSpec, NoiseSpec, ParaphraseSpec

SPORTS = ["goal", "match", "keeper", "referee", "stadium", "striker", "penalty", "league"]
POLITICS = ["minister", "parliament", "election", "budget", "treaty", "senator", "coalition", "campaign"]
CALLS: list[str] = []
FAIL_AFTER: list[int] = []


def connect(**settings: Any) -> Any:
    """A teacher of this test: it turns the words round."""

    def ask(messages: list[dict[str, str]]) -> str:
        if FAIL_AFTER and len(CALLS) >= FAIL_AFTER[0]:
            raise Stopped("the teacher is gone")
        CALLS.append(messages[1]["content"])
        text = messages[1]["content"]
        if settings["mode"] == "echo":
            return text
        if settings["mode"] == "numbers":
            return text + " 99"
        return " ".join(reversed(text.split()))

    return ask


def spec(**changes: Any) -> AugmentSpec:
    usual: dict[str, Any] = {
        "kind": "classify",
        "labels": (),
        "balance": "off",
        "balance_most": 10.0,
        "noise": (),
        "paraphrase": None,
        "near": 0.8,
        "ablation": 0,
        "seed": 0,
        "max_tokens": 512,
        "system": "Answer.",
    }
    return AugmentSpec(**{**usual, **changes})


def noise(kind: str, share: float = 1.0, rate: float = 0.3) -> NoiseSpec:
    return NoiseSpec(kind=kind, share=share, rate=rate)  # type: ignore[arg-type]


def records(n: int = 120) -> list[dict[str, str]]:
    """Every sixth row is politics; texts of one class share words, no two are near twins."""
    found = []
    for i in range(n):
        label, words = ("politics", POLITICS) if i % 6 == 0 else ("sports", SPORTS)
        a, b, c = words[i % 8], words[(i * 3 + i // 8) % 8], words[(i * 5 + i // 16 + 1) % 8]
        found.append(
            {"text": f"The {a} number {i} met the {b} before Lunch, and then a {c} came {i * 7}.", "label": label}
        )
    return found


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    root = tmp_path_factory.mktemp("augment")
    examples = run_check(root / "check", {"news.jsonl": jsonl(records())}).folder
    return run_prepare(root / "prepare", examples, tiny_llama, max_deviation=0.5).folder


class Augmented:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = read_json(folder / "augment.json")
        self.dataset = read_json(folder / "dataset.json")
        self.train: list[Row] = list(read_lines(folder / "train.jsonl", Row))
        self.refused: list[LeftOut] = list(read_lines(folder / "augment_refused.jsonl", LeftOut))

    @property
    def copies(self) -> list[Row]:
        return [r for r in self.train if r.origin]


def run(root: Path, dataset: Path, base: Path, **changes: Any) -> Augmented:
    inputs = AugmentInputs(dataset=dataset, base=base)
    return Augmented(augment(spec(**changes), inputs, Workspace(root=root)).dataset)


def test_the_stage_is_found_by_its_name() -> None:
    assert AUGMENT.resolve() is augment


def test_copies_are_marked_and_the_other_splits_and_the_seal_stay(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    got = run(tmp_path / "a", dataset, tiny_llama, noise=(noise("typos"), noise("case"), noise("format", 0.5)))
    before = list(read_lines(dataset / "train.jsonl", Row))
    assert got.train[: len(before)] == before
    assert {r.origin for r in got.copies} == {"augment.typos", "augment.case", "augment.format"}
    by_line = {r.line: r for r in before}
    for copy in got.copies:
        source = by_line[copy.line]
        assert (copy.target, copy.group, copy.file) == (source.target, source.group, source.file)
        assert copy.messages != source.messages
        assert copy.id == copy.example.id != source.id
        assert str(source.line * 7 - 7) in copy.messages[-1].content.replace(".", " ").split()  # numbers stay
    for name in ("validation.jsonl", "test.jsonl", "left_out.jsonl"):
        assert (got.folder / name).read_bytes() == (dataset / name).read_bytes()
    assert got.dataset["seal"] == file_id(got.folder / "test.jsonl")
    assert got.dataset["counts"]["train"] == len(got.train) == got.facts["rows_after"]
    assert sum(c["train"] for c in got.dataset["class_counts"].values()) == len(got.train)
    accounted = sum(got.facts["added"].values()) + len(got.refused)
    typos_and_case, half = 2 * len(before), accounted - 2 * len(before)
    assert typos_and_case + half == accounted
    assert 0.3 * len(before) < half < 0.7 * len(before)


def test_facts_of_tokens_are_those_of_the_rows(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    from tunesmith.text.render import Renderer

    got = run(tmp_path / "a", dataset, tiny_llama, noise=(noise("typos"),), balance="sample")
    renderer = Renderer.load(tiny_llama, system="Answer.")
    rows = [*got.train, *(r for s in ("validation", "test") for r in read_lines(dataset / f"{s}.jsonl", Row))]
    sizes = [len(renderer.render(r.messages, r.target).ids) for r in rows]
    assert (got.dataset["tokens"]["total"], got.dataset["tokens"]["longest"]) == (sum(sizes), max(sizes))
    plain = run(tmp_path / "b", dataset, tiny_llama)
    assert plain.dataset["tokens"] == read_json(dataset / "dataset.json")["tokens"]


def test_a_copy_depends_on_its_row_and_the_seed_and_on_nothing_else(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    usual: dict[str, Any] = {"noise": (noise("typos", 0.7), noise("case", 0.7))}
    one = run(tmp_path / "a", dataset, tiny_llama, **usual)
    again = run(tmp_path / "b", dataset, tiny_llama, **usual)
    assert (one.folder / "train.jsonl").read_bytes() == (again.folder / "train.jsonl").read_bytes()
    other = run(tmp_path / "c", dataset, tiny_llama, **usual, seed=1)
    assert {r.id for r in other.copies} != {r.id for r in one.copies}
    turned = tmp_path / "turned"
    turned.mkdir()
    for path in dataset.iterdir():
        (turned / path.name).write_bytes(path.read_bytes())
    rows = list(read_lines(dataset / "train.jsonl", Row))
    write_lines(turned / "train.jsonl", [*reversed(rows[:40]), *rows[50:]])
    fewer = run(tmp_path / "d", turned, tiny_llama, **usual)
    lines = {r.line for r in rows[40:50]}
    assert {r.id for r in fewer.copies} == {r.id for r in one.copies if r.line not in lines}


def test_copies_near_a_test_or_validation_row_are_refused_also_where_a_typo_would_hide_it(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    leaky = tmp_path / "leaky"
    leaky.mkdir()
    for path in dataset.iterdir():
        (leaky / path.name).write_bytes(path.read_bytes())
    rows = list(read_lines(dataset / "train.jsonl", Row))
    for place, split in ((0, "test"), (1, "validation")):
        twin = next(iter(read_lines(dataset / f"{split}.jsonl", Row)))
        near = (Message(role="user", content=twin.messages[-1].content + " indeed"),)
        row = msgspec.structs.replace(rows[place], messages=near)
        rows[place] = msgspec.structs.replace(row, id=row.example.id)
    write_lines(leaky / "train.jsonl", rows)
    got = run(tmp_path / "a", leaky, tiny_llama, noise=(noise("typos", rate=1.0),))
    assert [(g.reason, g.line, g.step) for g in got.refused] == [
        ("near_test", rows[0].line, "augment"),
        ("near_validation", rows[1].line, "augment"),
    ]
    assert {r.line for r in got.copies} == {r.line for r in rows[2:]}


def test_weights_balance_the_classes_and_keep_the_mean(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    got = run(tmp_path / "a", dataset, tiny_llama, balance="weights")
    total = {label: sum(r.weight for r in got.train if r.target == label) for label in ("sports", "politics")}
    assert total["sports"] == pytest.approx(total["politics"], rel=1e-6)
    assert sum(r.weight for r in got.train) == pytest.approx(len(got.train), rel=1e-6)
    capped = run(tmp_path / "b", dataset, tiny_llama, balance="weights", balance_most=2.0)
    weight = {r.target: r.weight for r in capped.train}
    assert weight["politics"] / weight["sports"] == pytest.approx(2.0, rel=1e-6)


def test_sampling_repeats_rows_of_rare_classes_evenly(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    got = run(tmp_path / "a", dataset, tiny_llama, balance="sample")
    counts = got.dataset["class_counts"]
    assert counts["politics"]["train"] == counts["sports"]["train"]
    assert len({r.id for r in got.train}) == len(got.train)
    times: dict[int, int] = {}
    for r in got.copies:
        assert (r.origin, r.target) == ("augment.sample", "politics")
        times[r.line] = times.get(r.line, 0) + 1
    assert max(times.values()) - min(times.values()) <= 1


def paraphrase(mode: str, **changes: Any) -> ParaphraseSpec:
    usual: dict[str, Any] = {
        "how": "paraphrase",
        "share": 1.0,
        "copies": 1,
        "language": "German",
        "ask": "tests.data.augment.test_augment:connect",
        "teacher": {"mode": mode},
    }
    return ParaphraseSpec(**{**usual, **changes})


def test_paraphrases_join_and_those_that_lose_the_meaning_do_not(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    CALLS.clear()
    got = run(tmp_path / "a", dataset, tiny_llama, paraphrase=paraphrase("turn"))
    before = read_json(dataset / "dataset.json")["counts"]["train"]
    assert got.facts["added"] == {"augment.paraphrase": before}
    assert got.facts["asked"] == len(CALLS) == before
    for mode, reason in (("echo", "unchanged"), ("numbers", "numbers")):
        none = run(tmp_path / mode, dataset, tiny_llama, paraphrase=paraphrase(mode))
        assert none.facts["refused"] == {"augment.paraphrase": {reason: before}}
        assert len(none.refused) == before
    back = run(tmp_path / "b", dataset, tiny_llama, paraphrase=paraphrase("turn", how="back_translation", share=0.5))
    assert set(back.facts["refused"]) | set(back.facts["added"]) == {"augment.back_translation"}
    assert 0.3 * before < back.facts["asked"] / 2 < 0.7 * before


def test_interrupted_paraphrasing_resumes_and_pays_for_nothing_twice(
    tmp_path: Path, dataset: Path, tiny_llama: Path
) -> None:
    CALLS.clear()
    FAIL_AFTER[:] = [20]
    try:
        with pytest.raises(Stopped):
            run(tmp_path / "a", dataset, tiny_llama, paraphrase=paraphrase("turn"))
    finally:
        FAIL_AFTER.clear()
    asked = tmp_path / "a" / "state" / "asked.jsonl"
    asked.write_bytes(asked.read_bytes() + b'["torn by a ki')
    resumed = run(tmp_path / "a", dataset, tiny_llama, paraphrase=paraphrase("turn"))
    assert len(CALLS) == len(set(CALLS)) == resumed.facts["rows_before"]
    whole = run(tmp_path / "b", dataset, tiny_llama, paraphrase=paraphrase("turn"))
    for name in ("train.jsonl", "augment.json", "dataset.json"):
        assert (whole.folder / name).read_bytes() == (resumed.folder / name).read_bytes()


def test_copies_too_long_for_the_model_are_refused(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    longest = read_json(dataset / "dataset.json")["tokens"]["longest"]
    got = run(tmp_path / "a", dataset, tiny_llama, noise=(noise("typos", rate=1.0),), max_tokens=longest)
    assert got.dataset["tokens"]["longest"] == longest
    assert got.facts["refused"]["augment.typos"]["over_long"] == len(got.refused)


def test_the_effect_on_validation_is_measured(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    got = run(tmp_path / "a", dataset, tiny_llama, noise=(noise("typos"),), balance="weights", ablation=1000)
    found = got.facts["ablation"]
    assert found["train_rows"]["with"] == len(got.train)
    f = found["macro_f1"]
    assert f["with"] - f["without"] == pytest.approx(f["difference"]["value"], abs=1e-5)
    assert f["difference"]["low"] <= f["difference"]["value"] <= f["difference"]["high"]
    assert "compare the two reports" in augment_words(got.facts)


def test_a_spec_that_cannot_be_done_is_refused_whole(tmp_path: Path, dataset: Path, tiny_llama: Path) -> None:
    with pytest.raises(InputError) as e:
        run(
            tmp_path, dataset, tiny_llama, kind="domain", balance="weights", noise=(noise("typos", 2.0, 0.0),), near=0.0
        )
    assert len(e.value.problems) == 5
    with pytest.raises(InputError, match="no function to ask"):
        run(tmp_path / "a", dataset, tiny_llama, paraphrase=paraphrase("turn", ask="nowhere"))
