"""The command line over the real thing: a tiny model, from the raw file to an answer."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.small import make_project
from tunesmith.cli.app import run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    folder = make_project(tmp_path_factory.mktemp("cli") / "news", tiny_llama)
    code = run(["run", "--project", str(folder), "--json"])
    assert code in (0, 1, 3)
    return folder


def printed(project: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int | None = 0) -> Any:
    capsys.readouterr()
    got = run([*arguments, "--project", str(project), "--json"])
    out = capsys.readouterr().out
    assert code is None or got == code, out
    return json.loads(out)


def test_a_second_run_repeats_nothing_and_exits_with_the_verdict(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = printed(project, capsys, "run", code=None)
    assert all(step["reused"] for step in again["steps"])
    code = {"pass": 0, "fail": 1, "unproven": 3}[again["verdict"]["status"]]
    assert run(["gate", "--project", str(project)]) == code


def test_the_report_as_json_has_the_verdict_the_goals_and_the_arms(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = printed(project, capsys, "report")
    assert Path(report["path"]).is_file()
    assert report["verdict"] in ("pass", "fail", "unproven")
    assert report["goals"][0]["goal"] == "macro_f1 >= 0.1"
    assert set(report["arms"]) == {"tuned", "majority", "tfidf", "zero_shot", "few_shot"}
    assert set(report["arms"]["tuned"]["macro_f1"]) == {"value", "low", "high"}


def test_the_model_answers(project: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    bundle = printed(project, capsys, "runs", "--stage", "bundle")[0]["outputs"]["bundle"]
    answer = printed(project, capsys, "ask", "ball goal team", "--model", bundle[:12])
    assert answer["text"] in ("sports", "business", "weather")
    out = tmp_path / "answers.csv"
    predicted = printed(project, capsys, "predict", str(project / "rows.csv"), "--out", str(out), "--model", bundle)
    assert predicted["rows"] == 150
    with open(out, newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert {r["label"] for r in rows} <= {"sports", "business", "weather"}
    assert all(0 <= float(r["confidence"]) <= 1 for r in rows)


def test_what_was_done_can_be_looked_up(project: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    runs = printed(project, capsys, "runs")
    assert runs[0]["stage"] == "bundle"
    trained = next(r for r in runs if r["stage"] == "sft")
    assert printed(project, capsys, "show", trained["id"][:12])["run"]["key"] == trained["key"]
    lineage = printed(project, capsys, "lineage", trained["outputs"]["checkpoint"])
    assert "rows.csv" in lineage["sources"]
    tokens = printed(project, capsys, "tokens", "rows.csv:2")["tokens"]
    assert any(t["trained"] for t in tokens)
    assert not all(t["trained"] for t in tokens)
    differences = printed(project, capsys, "diff", runs[0]["id"], runs[1]["id"])["differences"]
    assert any(d["field"] == "outputs.bundle" for d in differences)
    assert printed(project, capsys, "doctor")["findings"] == []
    backup = printed(project, capsys, "backup", str(tmp_path / "copy"))
    assert backup["objects"] > 0
    assert (tmp_path / "copy" / "ledger.db").is_file()


def test_plan_says_what_a_changed_rate_repeats(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = printed(project, capsys, "plan", "--set", "train.lr=3e-3")
    cached = {s["name"] for s in plan["steps"] if s["cached"]}
    assert {"check", "prepare", "answer tfidf"} <= cached
    assert not {"train", "answer tuned", "gate"} & cached


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["show", "ffffffffffff"], "no run, artifact or alias has this id"),
        (["ask", "x", "--model", "nope"], "no alias or bundle has this name"),
        (["tokens", "rows.csv"], "is not FILE:LINE"),
        (["tokens", "rows.csv:9999"], "no row of the data set starts there"),
        (["run", "--limit", "5"], "data.limit is 5; it must be at least 20"),
        (["predict", "nope.csv", "--out", "o.csv"], "nope.csv"),
    ],
)
def test_a_wrong_name_is_a_message(
    project: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--project", str(project)]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert "Traceback" not in said


def test_a_stopped_training_is_resumed_by_the_same_command(project: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tunesmith",
        "train",
        "--project",
        str(project),
        "--set",
        "train.epochs=6",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("train · "):  # the first step is done
            break
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130, out
    error = json.loads(out)["error"][0]
    assert "saved" in error["what"]
    assert error["fix"] == "run the same command again to go on"

    again = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["status"] == "finished"
    first = re.search(r"^train · (\d+)/", again.stderr, re.MULTILINE)
    assert first is not None
    assert int(first[1]) > 1  # it did not begin anew
