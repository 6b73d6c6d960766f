"""Every `tunesmith` command in the documents is run, on a small project with a tiny model."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

from tests.docs.blocks import ROOT
from tests.small import make_project
from tunesmith.api import Project
from tunesmith.cli.app import run, tunesmith
from tunesmith.launch.check import check

DOCUMENTS = sorted(
    str(p.relative_to(ROOT))
    for p in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if p.name != "cli.md" and p.parent.name != "tutorials"  # run as a whole by test_tutorial.py
)
COMMAND = re.compile(r"^\s*(?:\$ )?(tunesmith [a-z][^#`\n]*?)\s*(?:#.*)?$", re.M)
# serve waits for requests, adapters speaks to a server, init and tasks are about other projects: options are checked
WAITS = ("serve", "adapters", "init", "tasks")


def commands() -> list[tuple[str, str]]:
    found = [(d, c) for d in DOCUMENTS for c in COMMAND.findall((ROOT / d).read_text(encoding="utf-8"))]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    folder = make_project(
        tmp_path_factory.mktemp("docs") / "news", tiny_llama, n=120, **{"macro_f1 >= 0.10": "macro_f1 >= 0.01"}
    )
    (folder / "FOLDER").mkdir()
    (folder / "FOLDER" / "rows.csv").write_bytes((folder / "rows.csv").read_bytes())
    (folder / "new.csv").write_text("text\nball goal team\nstock bank profit\n", encoding="utf-8")
    project = Project.open(folder)
    assert project.run().prod
    return project


def test_the_documents_show_commands() -> None:
    assert len(commands()) > 15


@pytest.mark.parametrize(("document", "command"), commands())
def test_the_command_works(
    document: str, command: str, project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(project.root)
    words = shlex.split(command)[1:]
    words = [re.sub(r"^[0-9a-f]{6,}$", project._bundle_id("prod")[:12], w) for w in words]
    if words[:2] == ["data", "label"]:  # waits for people
        with tunesmith.make_context("tunesmith", list(words)) as context:
            group = tunesmith.get_command(context, "data")
            assert isinstance(group, click.Group)
            verb = group.get_command(context, "label")
            assert verb is not None
            verb.make_context("label", words[2:], parent=context).close()
        return
    if words[0] in WAITS:
        with tunesmith.make_context("tunesmith", list(words)) as context:
            verb = tunesmith.get_command(context, words[0])
            assert verb is not None
            verb.make_context(words[0], words[1:], parent=context).close()
        return
    if any(w.startswith("exec.nodes=") for w in words):  # waits for other machines: the settings are checked
        said = [w for before, w in pairwise(words) if before == "--set"]
        check(Project.open(project.root, said).context.settings.exec, project.context.settings.train)
        return
    if words[0] == "run" and "--limit" in words:
        words[words.index("--limit") + 1] = "60"
    if words[0] == "backup":
        words[1] = str(tmp_path / "backup")
    assert run(words) in (0, 1, 3) if words[0] in ("run", "gate") else run(words) == 0
