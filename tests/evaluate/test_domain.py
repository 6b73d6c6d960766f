"""A domain task from arms to verdict: what the model predicts of texts, in bits per byte."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.evaluate.built import make_dataset
from tests.train.domain_data import adapt, text_rows
from tunesmith.core.canonical import read_json, read_lines
from tunesmith.core.errors import InputError
from tunesmith.core.nouns import Goal, Row, Verdict
from tunesmith.core.stage import Exec, Workspace
from tunesmith.evaluate.arms import answer
from tunesmith.evaluate.gate import gate
from tunesmith.evaluate.power import feasibility
from tunesmith.evaluate.report import evaluate
from tunesmith.evaluate.stages import AnswerInputs, ArmSpec, EvaluateInputs, EvaluateSpec, GateInputs, GateSpec
from tunesmith.model.load import load_base
from tunesmith.model.text_scores import score_texts
from tunesmith.text.render import Renderer

METRICS = ("bits_per_byte", "perplexity")


def arm_spec(arm: str, **changes: Any) -> ArmSpec:
    values: dict[str, Any] = {
        "arm": arm,
        "kind": "domain",
        "split": "test",
        "system": "",
        "few_shot_counts": (),
        "few_shot_draws": 0,
        "few_shot_rows": 0,
        "precision": "fp32",
        "max_new_tokens": 8,
        "max_tokens": 64,
        "probabilities": True,
        "metric": "bits_per_byte",
        "seed": 0,
    }
    return ArmSpec(**{**values, **changes})


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [text_rows(n, seed=seed) for n, seed in ((20, 1), (6, 2), (25, 3))]
    return make_dataset(tmp_path_factory.mktemp("domain") / "dataset", *rows, kind="domain", labels=())


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, texts: Path, tiny_llama: Path) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("answers")
    checkpoint = adapt(root / "train", texts, tiny_llama, lr=2e-2, epochs=6.0).scratch / "checkpoint"
    found = {}
    for arm, trained in (("zero_shot", None), ("tuned", checkpoint)):
        work = Workspace(root=root / arm, exec=Exec())
        found[arm] = answer(
            arm_spec(arm), AnswerInputs(dataset=texts, base=tiny_llama, checkpoint=trained), work
        ).answers
    return found


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, texts: Path, answers: dict[str, Path]) -> Path:
    spec = EvaluateSpec(metrics=METRICS, confidence=0.95, resamples=400, mistakes=3, seed=0)
    work = Workspace(root=tmp_path_factory.mktemp("report"))
    return evaluate(spec, EvaluateInputs(dataset=texts, answers=answers), work).report


def judged(report: Path, root: Path, *goals: Goal) -> Verdict:
    work = Workspace(root=root)
    gate(GateSpec(goals=goals, resamples=400, seed=0), GateInputs(report=report), work)
    return read_json(work.scratch / "verdict" / "verdict.json", Verdict)


def by_hand(base: Path, text: str, window: int) -> tuple[float, int]:
    """Rolling log-likelihood as lm-evaluation-harness defines it: disjoint spans, one token of context each."""
    model, tokenizer = load_base(base, dtype="fp32"), Renderer.load(base, system="").tokenizer
    ids = [*(tokenizer.bos_ids or [tokenizer.eos_id]), *tokenizer.encode(text)]
    nats, first = 0.0, 0
    while first < len(ids) - 1:
        span = torch.tensor([ids[first : first + window]])
        with torch.no_grad():
            log_p = model(span).logits.double().log_softmax(-1)
        nats -= float(log_p[0, :-1].gather(1, span[0, 1:, None]).sum())
        first += window - 1
    return nats, len(ids) - 1


def test_a_text_costs_what_its_tokens_cost_one_after_another(texts: Path, answers: Any, tiny_llama: Path) -> None:
    rows = list(read_lines(texts / "test.jsonl", Row))
    said = list(read_lines(answers["zero_shot"] / "answers.jsonl", dict[str, Any]))
    assert max(a["answer_tokens"] for a in said) > 64  # some are read in windows
    for row, a in list(zip(rows, said, strict=True))[:8]:
        nats, tokens = by_hand(tiny_llama, row.target, 64)
        assert -a["logprob"] == pytest.approx(nats, rel=1e-5) and a["answer_tokens"] == tokens


def test_the_report_holds_both_arms_with_intervals_and_their_difference(report: Path, texts: Path) -> None:
    facts = read_json(report / "report.json", dict[str, Any])
    assert facts["metric_names"] == list(METRICS) and set(facts["arms"]) == {"zero_shot", "tuned"}
    for arm in facts["arms"].values():
        for name in METRICS:
            m = arm["metrics"][name]
            assert m["low"] < m["value"] < m["high"]
    (bits, _) = facts["paired"]
    assert bits["difference"]["high"] < 0 and bits["p_holm"] < 0.05
    rows = list(read_lines(texts / "test.jsonl", Row))
    items = list(read_lines(report / "items.jsonl", dict[str, Any]))
    bytes_ = sum(len(r.target.encode()) for r in rows)
    total = -sum(i["answers"]["tuned"]["logprob"] for i in items) / math.log(2) / bytes_
    assert facts["arms"]["tuned"]["metrics"]["bits_per_byte"]["value"] == pytest.approx(total)
    assert [m["answer"].split()[0] for m in facts["mistakes"]] == ["bits_per_byte"] * 3
    weakest = [float(m["answer"].split()[1]) for m in facts["mistakes"]]
    assert weakest == sorted(weakest, reverse=True)


def test_goals_on_bits_per_byte_gate_the_model(report: Path, tmp_path: Path) -> None:
    value = read_json(report / "report.json", dict[str, Any])["arms"]["tuned"]["metrics"]["bits_per_byte"]["value"]
    passed = judged(
        report,
        tmp_path / "a",
        Goal(metric="bits_per_byte", op="<=", threshold=value * 1.3),
        Goal(metric="bits_per_byte", op="beats", beats=("zero_shot",)),
    )
    assert passed.status == "pass"
    assert "better beyond doubt" in passed.goals[1].because
    failed = judged(report, tmp_path / "b", Goal(metric="perplexity", op="<=", threshold=1.5))
    assert failed.status == "fail" and "has to fall by" in failed.goals[0].next
    close = judged(report, tmp_path / "c", Goal(metric="bits_per_byte", op="<=", threshold=value))
    assert close.status == "unproven"


def test_a_worse_model_fails_to_beat_the_base(texts: Path, answers: Any, tmp_path: Path) -> None:
    """The same answers with the arms changed over."""
    swapped = {}
    for arm, other in (("zero_shot", "tuned"), ("tuned", "zero_shot")):
        folder = tmp_path / arm
        folder.mkdir()
        head = json.loads((answers[other] / "answers.json").read_text())
        (folder / "answers.json").write_text(json.dumps({**head, "arm": arm}))
        (folder / "answers.jsonl").write_bytes((answers[other] / "answers.jsonl").read_bytes())
        swapped[arm] = folder
    spec = EvaluateSpec(metrics=METRICS, confidence=0.95, resamples=400, mistakes=3, seed=0)
    report = evaluate(spec, EvaluateInputs(dataset=texts, answers=swapped), Workspace(root=tmp_path / "w")).report
    verdict = judged(report, tmp_path / "g", Goal(metric="bits_per_byte", op="beats", beats=("zero_shot",)))
    assert verdict.status == "fail" and "worse beyond doubt" in verdict.goals[0].because


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mamba"])
def test_how_texts_are_batched_changes_nothing(tmp_path: Path, family: str) -> None:
    from tests.tiny import make_tiny

    extra = {"sliding_window": 16} if family == "gemma2" else {}
    base = make_tiny(tmp_path / family, family, **extra)
    model, tokenizer = load_base(base, dtype="fp32"), Renderer.load(base, system="").tokenizer
    texts = [r.target for r in text_rows(7, seed=0)]
    one = score_texts(model, tokenizer, texts, max_tokens=48, batch_tokens=1)
    all_ = score_texts(model, tokenizer, texts, max_tokens=48, batch_tokens=10_000)
    for a, b in zip(one, all_, strict=True):
        assert a.nats == pytest.approx(b.nats, rel=1e-4) and a.tokens == b.tokens
    assert one[0].nats == pytest.approx(by_hand(base, texts[0], 48)[0], rel=1e-4)


def test_windows_longer_than_the_model_and_arms_that_cannot_are_refused(
    texts: Path, tiny_llama: Path, tmp_path: Path
) -> None:
    inputs = AnswerInputs(dataset=texts, base=tiny_llama, checkpoint=None)
    with pytest.raises(InputError, match="1000 tokens in a window, and the model reads 512"):
        answer(arm_spec("zero_shot", max_tokens=1000), inputs, Workspace(root=tmp_path / "a"))
    with pytest.raises(InputError, match="only a language model can"):
        answer(arm_spec("few_shot"), inputs, Workspace(root=tmp_path / "b"))


def test_what_a_test_set_of_texts_could_prove_is_said_without_a_forecast() -> None:
    goals = [
        Goal(metric="bits_per_byte", op="<=", threshold=1.0),
        Goal(metric="bits_per_byte", op="beats", beats=("zero_shot",)),
    ]
    said = feasibility(goals, ["a text"] * 30, [str(i) for i in range(30)], kind="domain")
    assert "not forecast" in said[0] and "30 independent items are enough" in said[1]
    few = feasibility(goals[1:], ["a text"] * 3, ["a", "b", "c"], kind="domain")
    assert "cannot be proven" in few[0]


def test_the_report_page_draws_a_domain_report(report: Path, answers: dict[str, Path]) -> None:
    from tests.web.facts import make_facts
    from tunesmith.web.report import report_page

    facts = make_facts()
    log = [
        {"step": 0, "validation_loss": 5.0, "bits_per_byte": 4.1, "perplexity": 148.0},
        {"step": 1, "loss": 4.9, "lr": 1e-3, "grad_norm": 1.0, "tokens": 9},
        {"step": 2, "validation_loss": 4.0, "bits_per_byte": 3.2, "perplexity": 54.0, "loss_rise": 0.1},
    ]
    facts |= {"kind": "domain", "report": read_json(report / "report.json", dict[str, Any]), "threshold": None}
    facts["training"] |= {
        "log": log,
        "metric": "bits_per_byte",
        "best": 3.2,
        "best_step": 2,
        "best_of_run": 2,
        "steps": 2,
    }
    page = report_page(facts)
    arms = facts["report"]["arms"]
    tuned, base = (arms[a]["metrics"]["bits_per_byte"]["value"] for a in ("tuned", "zero_shot"))
    assert f"reaches bits_per_byte {tuned:.3f}" in page
    assert f"the best cheaper approach, zero-shot, reaches {base:.3f}" in page
    assert 'id="classes"' not in page and "Weakest answers" in page
