"""A domain task goes from documents to a gated model: bits per byte before and after, on its own and on general text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.small import WORDS, make_project
from tunesmith.api import Project
from tunesmith.core.canonical import read_json, read_lines

PROJECT = """\
task: {{kind: domain}}
documents: {{files: [manual.md], min_words: 3}}
data: {{split: {{max_deviation: 0.9, near: 0}}}}
model: {model}
train:
  recipe: auto
  method: {{kind: lora, rank: 4}}
  lr: 1e-2
  epochs: 2
  max_tokens: 64
  precision: fp32
  validate_times: 2
  general: [general.jsonl]
evaluate: {{resamples: 200}}
goals:
  - beats: [zero_shot]
"""


def make(folder: Path, model: Path) -> Project:
    folder.mkdir()
    sections = []
    for i in range(60):
        words = WORDS[list(WORDS)[i % 3]]
        sections.append(
            f"# Topic {i}\n\nThe {words[i % 8]} of the {words[(i + 3) % 8]} number {i} is the {words[(i + 5) % 8]}.\n"
        )
    (folder / "manual.md").write_text("\n".join(sections), encoding="utf-8")
    general = [{"text": f"The weather of day {i} was mild and the streets were quiet."} for i in range(40)]
    (folder / "general.jsonl").write_text("".join(json.dumps(g) + "\n" for g in general), encoding="utf-8")
    (folder / "tunesmith.yaml").write_text(PROJECT.format(model=model), encoding="utf-8")
    return Project.open(folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    return make(tmp_path_factory.mktemp("domain") / "lore", tiny_llama)


def test_from_documents_to_a_verdict_in_bits_per_byte(project: Project) -> None:
    result = project.run()
    names = [s.name for s in result.steps]
    assert names[:6] == ["documents", "corpus", "check", "clean", "prepare", "general check"]
    report = read_json(
        project.ledger.path(project.ledger.run(result.steps[names.index("evaluate")].run).outputs["report"])
        / "report.json"
    )
    before, after = (report["arms"][arm]["metrics"]["bits_per_byte"]["value"] for arm in ("zero_shot", "tuned"))
    assert after < before
    assert Path(result.report).read_text(encoding="utf-8").count("bits_per_byte") > 0
    train = project.ledger.run(result.steps[names.index("train")].run)
    log = list(read_lines(project.ledger.path(train.outputs["metrics"]) / "metrics.jsonl"))
    assert any("general" in key for line in log for key in line)


def test_running_again_repeats_nothing(project: Project) -> None:
    assert all(s.reused for s in project.run().steps)


@pytest.mark.parametrize(
    ("key", "value"),
    [("mixture", "{general: 0.3}"), ("max_loss_rise", "0.5"), ("past_budget", "replay"), ("replay_share", "0.4")],
)
def test_settings_of_the_recipe_reach_it(project: Project, key: str, value: str) -> None:
    from tunesmith.flows.run import walk
    from tunesmith.flows.steps import domain_step

    journey = walk(project.context, "prepare")
    changed = Project.open(project.root, [f"train.{key}={value}"])
    journey_changed = walk(changed.context, "prepare")
    assert domain_step(journey)[0] != domain_step(journey_changed)[0]


def test_instructions_are_trained_on_top_of_the_domain(project: Project, tmp_path: Path, tiny_llama: Path) -> None:
    project.train()
    folder = make_project(tmp_path / "news", tiny_llama, **{"rank: 4}": f"rank: 4}}, start: {project.root}"})
    second = Project.open(folder)
    result = second.run()
    assert (second.ledger.path(result.bundle) / "start" / "adapter_model.safetensors").is_file()
    assert second.ask("ball goal team match coach", model="latest").text in WORDS
    alone = Project.open(folder, ["train.start=null"]).run()
    assert alone.bundle != result.bundle
