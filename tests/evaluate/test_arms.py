"""Every arm answers every row in order, and a killed run ends where an uninterrupted one does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.built import LABELS, class_rows, make_dataset, make_row
from tunesmith.core.canonical import canonical_json, read_json, read_lines, write_atomic
from tunesmith.core.errors import DataError, InputError, ReceiptError, Stopped
from tunesmith.core.nouns import Answer, Message, Row
from tunesmith.core.stage import Exec, Workspace
from tunesmith.evaluate import arms
from tunesmith.evaluate.arms import answer, lead, reply_in_chunks
from tunesmith.evaluate.stages import AnswerInputs, ArmSpec

SYSTEM = "Give the topic.\n\nThe possible answers:\n- business\n- politics\n- sports"


def spec(arm: str, **changes: Any) -> ArmSpec:
    values: dict[str, Any] = {
        "arm": arm,
        "kind": "classify",
        "split": "test",
        "system": SYSTEM,
        "few_shot_counts": (1, 2),
        "few_shot_draws": 1,
        "few_shot_rows": 6,
        "precision": "fp32",
        "max_new_tokens": 6,
        "max_tokens": 0,
        "probabilities": True,
        "metric": "macro_f1",
        "seed": 0,
    }
    return ArmSpec(**{**values, **changes})


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "dataset", class_rows(60, 1), class_rows(18, 2), class_rows(12, 3))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [make_row(f"The ball is round. The game lasts {i} minutes. Nobody won.", f"ball game {i}") for i in range(9)]
    return make_dataset(tmp_path / "texts", rows[:4], rows[4:6], rows[6:], kind="summarize", labels=())


def run(
    arm: ArmSpec, root: Path, dataset: Path, base: Path | None = None, checkpoint: Path | None = None, **exec_: Any
):
    work = Workspace(root=root, exec=Exec(**exec_))
    folder = answer(arm, AnswerInputs(dataset=dataset, base=base, checkpoint=checkpoint), work).answers
    return read_json(folder / "answers.json"), list(read_lines(folder / "answers.jsonl"))


def without_time(answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in a.items() if k != "seconds"} for a in answers]


@pytest.mark.parametrize("arm", ["majority", "tfidf", "zero_shot", "few_shot"])
def test_a_classifying_arm_answers_every_row_in_order_with_a_label(
    arm: str, dataset: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    base = tiny_llama if arm.endswith("shot") else None
    head, answers = run(spec(arm), tmp_path / "w", dataset, base)
    rows = list(read_lines(dataset / "test.jsonl", Row))
    assert [a["id"] for a in answers] == [r.id for r in rows]
    assert all(a["text"] in LABELS and sum(a["probabilities"]) == pytest.approx(1, abs=1e-6) for a in answers)
    assert (head["arm"], head["split"], head["labels"]) == (arm, "test", list(LABELS))
    assert head["seal"] == read_json(dataset / "dataset.json")["seal"]
    assert head["prompt_tokens"] == sum(a["prompt_tokens"] for a in answers)
    assert (head["renderer"] is not None) == (base is not None)


def test_tfidf_learns_and_records_what_validation_chose(dataset: Path, tmp_path: Path) -> None:
    head, answers = run(spec("tfidf"), tmp_path / "w", dataset)
    rows = list(read_lines(dataset / "test.jsonl", Row))
    assert head["choice"]["C"] > 0
    assert [a["text"] for a in answers] == [r.target for r in rows]  # the words give it away


def test_the_few_shot_arm_records_its_choice_and_shows_its_examples(
    dataset: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    bare, _ = run(spec("zero_shot"), tmp_path / "a", dataset, tiny_llama)
    head, _ = run(spec("few_shot"), tmp_path / "b", dataset, tiny_llama)
    choice = head["choice"]
    assert choice["count"] in (1, 2) and len(choice["ids"]) == choice["count"] and choice["validation_rows"] == 6
    assert {i for c in choice["candidates"] for i in c["ids"]} <= {
        r.id for r in read_lines(dataset / "train.jsonl", Row)
    }
    assert head["prompt_tokens"] > bare["prompt_tokens"]


@pytest.mark.parametrize("arm", ["zero_shot", "few_shot", "lead"])
def test_a_writing_arm_answers_every_row(arm: str, texts: Path, tiny_llama: Path, tmp_path: Path) -> None:
    made = spec(arm, kind="summarize", metric="rouge1", system="Summarize.", few_shot_counts=(1,))
    head, answers = run(made, tmp_path / "w", texts, None if arm == "lead" else tiny_llama)
    assert len(answers) == 3 and head["labels"] == []
    if arm == "lead":
        assert answers[0]["text"] == "The ball is round. The game lasts 6 minutes."
    else:
        assert all(1 <= a["answer_tokens"] <= 6 and a["finish"] in ("stop", "length") for a in answers)


def make_checkpoint(folder: Path, base: Path, system: str, *, change: bool) -> Path:
    import torch

    from tunesmith.model.load import load_base
    from tunesmith.model.methods.catalog import save, wrap
    from tunesmith.model.methods.spec import MethodSpec, method_json
    from tunesmith.text.render import Renderer

    method = MethodSpec(kind="lora", rank=2, alpha=4.0, dropout=0.0, targets="all-linear")
    model = wrap(load_base(base, dtype="fp32"), method, seed=0)
    if change:
        generator = torch.Generator().manual_seed(0)
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.data.normal_(0, 0.5, generator=generator)
    folder.mkdir()
    save(model, method, folder, base="tiny")
    write_atomic(folder / "checkpoint.json", canonical_json({"method": method_json(method), "base": "tiny"}))
    write_atomic(folder / "renderer.json", canonical_json(Renderer.load(base, system=system).describe()))
    return folder


def test_the_tuned_arm_uses_its_checkpoint_and_its_own_prompt(dataset: Path, tiny_llama: Path, tmp_path: Path) -> None:
    bare = without_time(run(spec("zero_shot"), tmp_path / "a", dataset, tiny_llama)[1])
    same = make_checkpoint(tmp_path / "same", tiny_llama, SYSTEM, change=False)
    other = make_checkpoint(tmp_path / "other", tiny_llama, SYSTEM, change=True)
    untouched = without_time(run(spec("tuned"), tmp_path / "b", dataset, tiny_llama, same)[1])
    changed = without_time(run(spec("tuned"), tmp_path / "c", dataset, tiny_llama, other)[1])
    for a, b in zip(bare, untouched, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-5)
    assert max(abs(x["logprob"] - y["logprob"]) for x, y in zip(bare, changed, strict=True)) > 1e-2
    with pytest.raises(ReceiptError):
        run(spec("tuned", system="Another prompt."), tmp_path / "d", dataset, tiny_llama, same)


class Killed(Exception):
    pass


def test_a_killed_arm_resumes_to_the_same_answers(
    dataset: Path, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after every chunk in turn, of the choice and of the answers, with the model started anew each time."""
    monkeypatch.setattr(arms, "CHUNK", 4)
    whole_head, whole = run(spec("few_shot"), tmp_path / "whole", dataset, tiny_llama)
    from tunesmith.model.answer import LanguageModel

    real, calls = LanguageModel.choose, [0]

    def dies_on_second_call(self: Any, *args: Any, **more: Any) -> list[Answer]:
        calls[0] += 1
        if calls[0] == 2:
            raise Killed
        return real(self, *args, **more)

    monkeypatch.setattr(LanguageModel, "choose", dies_on_second_call)
    deaths = 0
    while True:
        calls[0] = 0
        try:
            head, answers = run(spec("few_shot"), tmp_path / "broken", dataset, tiny_llama)
            break
        except Killed:
            deaths += 1
            assert deaths < 20
    assert deaths == 6  # seven chunks: two candidates of two, then three
    assert without_time(answers) == without_time(whole)
    assert head["choice"] == whole_head["choice"]


def in_chunks(rows: Sequence[Row], work: Workspace, reply: Any) -> list[Answer]:
    prompts = [row.messages for row in rows]
    return reply_in_chunks(rows, prompts, reply, work.state / "answers.jsonl", work, "test")


def echo(prompts: Sequence[Sequence[Message]], tools: object = ()) -> list[Answer]:
    return [Answer(text=p[-1].content, probabilities=(0.1, 0.9)) for p in prompts]


@pytest.mark.parametrize("damage", ["torn", "foreign", "partial chunk", "garbage"])
def test_a_damaged_state_file_costs_work_and_never_an_answer(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arms, "CHUNK", 3)
    rows = class_rows(10, 1)
    work = Workspace(root=tmp_path)
    want = in_chunks(rows, work, echo)
    state = work.state / "answers.jsonl"
    lines = state.read_bytes().splitlines(keepends=True)
    broken = {
        "torn": b"".join(lines[:4]) + lines[4][:20],
        "foreign": b"".join([*lines[:4], lines[9], *lines[5:]]),
        "partial chunk": b"".join(lines[:5]),
        "garbage": b"".join(lines[:4]) + b"\xff\x00{}\n" + b"".join(lines[5:]),
    }[damage]
    state.write_bytes(broken)
    asked: list[int] = []

    def count(prompts: Sequence[Sequence[Message]], tools: object = ()) -> list[Answer]:
        asked.append(len(prompts))
        return echo(prompts)

    assert in_chunks(rows, work, count) == want
    assert asked == [3, 3, 1]  # the first chunk is kept, the rest is answered in the same chunks
    assert in_chunks(rows, work, count) == want and asked == [3, 3, 1]


def test_a_stop_signal_is_obeyed_between_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "CHUNK", 3)
    work = Workspace(root=tmp_path)

    def stops(prompts: Sequence[Sequence[Message]], tools: object = ()) -> list[Answer]:
        work.stop.set()
        return echo(prompts)

    with pytest.raises(Stopped):
        in_chunks(class_rows(10, 1), work, stops)
    assert len((work.state / "answers.jsonl").read_bytes().splitlines()) == 3


def test_how_many_tokens_a_batch_holds_does_not_change_the_answers(
    dataset: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    few = run(spec("zero_shot"), tmp_path / "a", dataset, tiny_llama, micro_batch_tokens=64)[1]
    many = run(spec("zero_shot"), tmp_path / "b", dataset, tiny_llama, micro_batch_tokens=8192)[1]
    assert [a["text"] for a in few] == [a["text"] for a in many]
    for a, b in zip(few, many, strict=True):
        assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-5)


def test_without_probabilities_the_answers_are_the_same(dataset: Path, tiny_llama: Path, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "tuned", tiny_llama, SYSTEM, change=True)
    whole = run(spec("tuned"), tmp_path / "a", dataset, tiny_llama, checkpoint)[1]
    quick = run(spec("tuned", probabilities=False), tmp_path / "b", dataset, tiny_llama, checkpoint)[1]
    assert [a["text"] for a in quick] == [a["text"] for a in whole]
    assert all(a["probabilities"] is None and a["confidence"] is None for a in quick)


@pytest.mark.parametrize(
    "arm, changes, message",
    [
        ("majority", {"kind": "summarize"}, "prepared for a classify task, not summarize"),
        ("lead", {}, "quotes the first sentences of a text"),
        ("zero_shot", {}, "needs a base model"),
        ("tuned", {}, "needs a checkpoint"),
    ],
)
def test_an_arm_that_does_not_fit_is_refused(
    arm: str, changes: dict[str, Any], message: str, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(spec(arm, **changes), tmp_path / "w", dataset)


def test_an_empty_split_and_an_arm_that_cannot_predict_texts_are_refused(tmp_path: Path) -> None:
    empty = make_dataset(tmp_path / "d", class_rows(6, 1), [], [], kind="domain", labels=())
    with pytest.raises(InputError) as e:
        run(spec("lead", kind="domain"), tmp_path / "w", empty)
    assert "the test split has no rows" in str(e.value) and "only a language model can" in str(e.value)


def test_a_prompt_longer_than_the_model_is_refused_with_file_and_line(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [*class_rows(2, 1), make_row("zq " * 600, "sports", line=77)]
    dataset = make_dataset(tmp_path / "d", class_rows(6, 2), class_rows(6, 3), rows)
    with pytest.raises(DataError, match=r"rows\.csv:77: the prompt has \d+ tokens .* the model reads 512") as e:
        run(spec("zero_shot"), tmp_path / "w", dataset, tiny_llama)
    assert len(e.value.problems) == 1


def test_the_lead_of_an_empty_or_one_sentence_text_is_itself() -> None:
    assert lead((Message(role="user", content="Only one"),)).text == "Only one"
    assert lead((Message(role="user", content=""),)).text == ""
    assert lead((Message(role="system", content="a. b. c."),)).text == ""


def test_the_inputs_may_be_read_only_links(dataset: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for file in dataset.iterdir():
        (linked / file.name).symlink_to(file)
    assert without_time(run(spec("majority"), tmp_path / "a", linked)[1]) == without_time(
        run(spec("majority"), tmp_path / "b", dataset)[1]
    )
    shutil.rmtree(linked)
    assert dataset.exists()


def test_virtual_tokens_are_no_room_for_prompts(tmp_path: Path) -> None:
    from tunesmith.core.canonical import canonical_json
    from tunesmith.evaluate.arms import room_of
    from tunesmith.model.methods.spec import MethodSpec, method_json

    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512}')
    prefix = MethodSpec(kind="prefix", rank=1, alpha=1.0, dropout=0.0, targets="all-linear", virtual_tokens=20)
    (tmp_path / "checkpoint.json").write_bytes(canonical_json({"method": method_json(prefix)}))
    assert room_of(tmp_path, None) == 512
    assert room_of(tmp_path, tmp_path) == 492
