"""Each verb opens the project, calls its method once, prints what came back, and exits as it should."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from tunesmith.api import Checked, Project, ReportPage
from tunesmith.cli.app import NAMES, run
from tunesmith.core.nouns import Answer, GoalResult, Interval, Run, Verdict
from tunesmith.flows.compare import Difference, Differences
from tunesmith.ledger.backup import Backup
from tunesmith.ledger.doctor import Finding, Health
from tunesmith.serve.predict import Predicted
from tunesmith.text.view import Token, TokenView

RUN = Run(
    id="a" * 64, key="b" * 64, stage="sft", version=1, spec={"lr": 1e-3}, inputs={}, outputs={"checkpoint": "c" * 64},
    status="finished", started="2026-11-20T10:00:00Z", seconds=12.34, metrics={"loss": 0.5},
)  # fmt: skip
GOAL = GoalResult(
    goal="macro_f1 >= 0.7", metric="macro_f1", status="fail", measured=Interval(value=0.6, low=0.55, high=0.65),
    because="the upper bound is below it", next="more rows",
)  # fmt: skip
VERDICTS = {s: Verdict(status=s, goals=(GOAL,), advice=("tfidf is enough",)) for s in ("pass", "fail", "unproven")}

CALLS: dict[str, tuple[list[str], tuple[Any, ...], dict[str, Any]]] = {  # verb: arguments, what its method gets
    "check": ([], (), {}),
    "plan": (["--gpu", "L4"], (("L4",),), {"probe": True}),
    "matrix": (["--choose", "lora"], (), {"choose": "lora", "look": True, "so_far": False}),
    "run": (["--limit", "50"], (), {"limit": 50}),
    "report": ([], (), {}),
    "prepare": ([], (), {}),
    "baselines": ([], (), {}),
    "train": ([], (), {}),
    "evaluate": (["--checkpoint", "abc"], ("abc",), {}),
    "lr": (["--steps", "20"], (), {"low": 1e-6, "high": 1.0, "steps": 20}),
    "gate": (["--checkpoint", "abc"], ("abc",), {}),
    "bundle": (["--checkpoint", "abc"], ("abc",), {}),
    "merge": (
        ["abc", "def", "--weights", "1,2", "--prompts-of", "2"],
        ("abc", "def"),
        {
            "how": None,
            "weights": [1.0, 2.0],
            "density": 1.0,
            "rank": 0,
            "seed": 0,
            "prompts_of": 1,
            "precision": "fp32",
            "out": None,
        },
    ),
    "serve": (
        ["--port", "0", "--host", "::1", "--adapter", "b=../b"],
        (),
        {"model": None, "host": "::1", "port": 0, "adapters": {"b": "../b"}},
    ),
    "adapters": ([], (), {}),
    "ask": (["why?", "--model", "abc"], ("why?",), {"model": "abc"}),
    "predict": (["in.csv", "--out", "out.csv"], ("in.csv", "out.csv"), {"model": "prod"}),
    "tokens": (["d.csv:2"], ("d.csv:2",), {}),
    "runs": (["--stage", "sft"], (), {"stage": "sft", "limit": 50}),
    "show": (["abc"], ("abc",), {}),
    "diff": (["a", "b"], ("a", "b"), {}),
    "lineage": (["abc"], ("abc",), {}),
    "config": ([], (), {}),
    "forget": (
        ["--text", "Ann", "--yes"],
        (),
        {"rows": (), "places": (), "texts": ("Ann",), "why": "", "dry_run": False},
    ),
    "doctor": ([], (), {}),
    "backup": (["dest"], ("dest",), {}),
}
RESULTS: dict[str, Any] = {
    "check": Checked(
        facts={"read": 3, "kept": 2, "left_out": {"no_label": 1}, "findings": []},
        dataset=None,
        warnings=("one metric",),
    ),
    "plan": "a plan",
    "run": VERDICTS["pass"],
    "report": ReportPage(path=Path("/p/report.html"), facts={"verdict": "pass", "goals": [], "arms": {}}),
    "baselines": [RUN, RUN],
    "gate": VERDICTS["fail"],
    "matrix": VERDICTS["pass"],
    "adapters": [{"name": "b", "bundle": "c" * 64}],
    "serve": None,
    "ask": Answer(text="Injury", confidence=0.93),
    "predict": Predicted(out=Path("out.csv"), rows=10, reused=4, columns=("label", "confidence")),
    "tokens": TokenView(tokens=(Token(id=1, piece="a", trained=False), Token(id=2, piece="b", trained=True))),
    "runs": [RUN],
    "show": {"run": {"id": "a", "spec": {"lr": 1e-3}, "list": [1, 2], "many": [{"x": 1, "y": None}], "none": {}}},
    "diff": Differences(a="a", b="b", differences=(Difference(field="spec.lr", a=1e-3, b=2e-3),)),
    "lineage": {"made_from": []},
    "config": [("train.lr", 1e-3, "tunesmith.yaml:4"), ("goals", ["a >= 1"], "default")],
    "doctor": Health(
        findings=(Finding(severity="damage", where="x", what="changed", fix="restore"),), facts=1, objects=2, bytes=3
    ),
    "backup": Backup(folder=Path("dest"), facts=1, objects=2, bytes=2**20, left_out=("/cache/m",)),
}
CODES = {"gate": 1, "doctor": 2}


class Recorder:
    """In place of an open project: notes the call, gives the noun that the real method gives."""

    def __init__(self) -> None:
        self.opened: list[tuple[Any, ...]] = []
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.results = dict(RESULTS)

    def open(self, path: Any, overrides: Any, *, progress: Any, stop: Any) -> Recorder:
        assert callable(progress)
        assert isinstance(stop, threading.Event)
        self.opened.append((path, tuple(overrides)))
        return self

    def __getattr__(self, name: str) -> Any:
        assert hasattr(Project, name), f"Project has no method {name}"

        def method(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            result = self.results.get(name, RUN)
            if isinstance(result, BaseException):
                raise result
            return result

        return method


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr("tunesmith.api.Project", recorder)
    return recorder


def test_the_table_covers_every_verb() -> None:
    assert set(CALLS) | {"init", "schema", "data", "methods", "tasks"} == set(NAMES)  # those have tests of their own


@pytest.mark.parametrize("verb", CALLS)
def test_a_verb_calls_its_method_once(verb: str, project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, args, kwargs = CALLS[verb]
    code = run([verb, *arguments, "--project", "P", "--set", "train.lr=1", "--set", "data.seed=2"])
    assert project.opened == [("P", ("train.lr=1", "data.seed=2"))]
    assert project.calls == [(verb, args, kwargs)]
    assert code == CODES.get(verb, 0)
    assert capsys.readouterr().out or verb == "serve"


@pytest.mark.parametrize("verb", [v for v in CALLS if v != "serve"])
def test_every_verb_prints_json(verb: str, project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, *CALLS[verb][0], "--json"]) == CODES.get(verb, 0)
    printed = json.loads(capsys.readouterr().out)
    assert printed is not None
    if verb == "report":
        assert printed == {"path": "/p/report.html", "verdict": "pass", "goals": [], "arms": {}}
    if verb == "config":
        assert printed["train.lr"] == {"value": 1e-3, "origin": "tunesmith.yaml:4"}
    if verb == "gate":
        assert printed["status"] == "fail"
        assert printed["goals"][0]["measured"] == {"value": 0.6, "low": 0.55, "high": 0.65}


@pytest.mark.parametrize(("status", "code"), [("pass", 0), ("fail", 1), ("unproven", 3)])
@pytest.mark.parametrize("verb", ["run", "gate"])
def test_the_verdict_is_the_exit_code(verb: str, status: str, code: int, project: Recorder) -> None:
    project.results[verb] = VERDICTS[status]  # type: ignore[index]
    assert run([verb]) == code
    assert run([verb, "--json"]) == code


@pytest.mark.parametrize(
    ("verb", "says"),
    [
        (
            "gate",
            ["FAIL", "✕ macro_f1 >= 0.7  0.600 (0.550 – 0.650): the upper bound is below it", "more rows", "! tfidf"],
        ),
        ("ask", ["Injury\n\nconfidence 0.93"]),
        ("predict", ["10 rows answered into out.csv, 4 of them from before (columns label, confidence)"]),
        ("runs", ["id            stage", "aaaaaaaaaaaa  sft    finished  2026-11-20 10:00:00     12.3  cccccccccccc"]),
        ("train", ["aaaaaaaaaaaa", "loss 0.5"]),
        ("doctor", ["damage: x: changed\n  fix:   restore", "something is damaged: 1 facts, 2 objects"]),
        ("backup", ["1 facts and 2 objects, 1.0 MiB, in dest", "outside the project: /cache/m"]),
        ("config", ["train.lr: 0.001    # tunesmith.yaml:4", 'goals: ["a >= 1"]  # default']),
        ("show", ["run:\n  id: a\n  spec:\n    lr: 0.001", "list: 1, 2", "many:\n    - x: 1\n      y: –"]),
        ("tokens", ["a‹b›", "2 tokens, 1 trained"]),
        ("check", ["3 rows read, 2 usable, 1 left out", "! one metric"]),
        ("report", ["/p/report.html\n"]),
        ("diff", ["spec.lr  0.001  →  0.002"]),
    ],
)
def test_results_read_well(verb: str, says: list[str], project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    run([verb, *CALLS[verb][0]])
    printed = capsys.readouterr().out
    for line in says:
        assert line in printed


def test_ask_reads_standard_input(project: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("a long\nquestion"))
    run(["ask", "-"])
    assert project.calls[0][1] == ("a long\nquestion",)


def test_an_empty_ledger_lists_nothing(project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    project.results["runs"] = []
    assert run(["runs"]) == 0
    assert capsys.readouterr().out == "nothing yet\n"
    assert run(["runs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_what_a_model_says_cannot_drive_the_terminal(project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    project.results["ask"] = Answer(text="\x1b[31mred\x07 \x9b2J \u202egnp.exe\tok\nline")
    run(["ask", "x"])
    assert capsys.readouterr().out == "\\x1b[31mred\\x07 \\x9b2J \\u202egnp.exe\tok\nline\n"


def test_numbers_that_json_lacks_become_null(project: Recorder, capsys: pytest.CaptureFixture[str]) -> None:
    project.results["show"] = {"a": float("nan"), "b": [float("inf"), 1.5]}
    run(["show", "x", "--json"])
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5]}
