"""docs/reference/ says what the code says, and every example project file holds."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from tunesmith.cli.app import run
from tunesmith.core.project_file import load
from tunesmith.core.setting_errors import setting_keys

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted([*(ROOT / "docs" / "examples").glob("*.yaml"), *(ROOT / "examples").glob("*.yaml")])
SCHEMA = ROOT / "docs" / "reference" / "tunesmith.schema.json"


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    files: dict[str, str] = module.files()
    return files


@pytest.mark.parametrize("name", ["tunesmith.schema.json", "settings.md", "cli.md"])
def test_the_reference_is_what_the_code_says(name: str, generated: dict[str, str]) -> None:
    assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == generated[name], "run `make docs`"


def test_every_setting_is_in_the_reference_with_its_meaning(generated: dict[str, str]) -> None:
    rows = {line.split("`")[1]: line for line in generated["settings.md"].splitlines() if line.startswith("| `")}
    leaves = [k for k in setting_keys() if not any(other.startswith(f"{k}.") for other in setting_keys())]
    for key in leaves:
        assert not rows[key].endswith("|  |"), f"{key} has no description"


def test_the_verb_prints_the_published_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(SCHEMA.read_text(encoding="utf-8"))


def validator() -> Any:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def missing_only(errors: list[Any]) -> bool:
    """A file that extends another may leave out what the other says."""
    return all(e.validator == "required" for e in errors)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_example_validates_and_loads(path: Path, tmp_path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    said = YAML(typ="safe", pure=True).load(text)
    errors = list(validator().iter_errors(said))
    assert missing_only(errors) if "extends" in said else not errors, errors
    (tmp_path / "tunesmith.yaml").write_text(text, encoding="utf-8")
    for other in path.parent.glob("*.yaml"):
        (tmp_path / other.name).write_text(other.read_text(encoding="utf-8"), encoding="utf-8")
    parent = YAML(typ="safe", pure=True).load((tmp_path / said["extends"]).read_text()) if "extends" in said else said
    for name in parent["data"]["files"]:
        (tmp_path / name).write_text("x\n")
    project = load(tmp_path / "tunesmith.yaml")
    assert project.goals()
    assert project.warnings() == ()


@pytest.mark.parametrize(
    "text",
    [
        "train: {learning_rate: 1}", "train: {lr: 0}", "train: {lr: fast}", "task: {kind: x}", "data: {split: 3}",
        "goals: [3]", "goals: [{metrik: x}]", "serve: {port: -1}", "serve: {port: 70000}", "model: 3",
    ],
)  # fmt: skip
def test_an_editor_sees_what_the_loader_refuses(text: str) -> None:
    whole = {"task": {"kind": "chat"}, "data": {"files": ["x.jsonl"]}}
    assert not list(validator().iter_errors(whole))
    assert list(validator().iter_errors({**whole, **YAML(typ="safe", pure=True).load(text)}))
