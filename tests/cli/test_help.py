"""Help is instant and true: it imports nothing heavy, and says of a verb what the verb says of itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tunesmith import __version__
from tunesmith.cli.app import NAMES, VERBS, run, tunesmith
from tunesmith.cli.verbs.data import VERBS as DATA_VERBS

ROOT = click.Context(tunesmith, info_name="tunesmith")
WORDS = {name: words for verbs in VERBS.values() for name, words in verbs.items()}
HEAVY = (
    "torch",
    "transformers",
    "pydantic",
    "rich",
    "numpy",
    "sklearn",
    "msgspec",
    "ruamel",
    "sqlite3",
    "jinja2",
    "asyncio",
)


def modules_after(code: str) -> set[str]:
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["data", "--help"],
        ["data", "split", "--help"],
        ["serve", "--help"],
        ["nonsense"],
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    heavy = HEAVY if arguments != ["nonsense"] else tuple(h for h in HEAVY if h != "msgspec")
    loaded = modules_after(f"from tunesmith.cli.app import run\nrun({arguments!r})")
    assert "click" in loaded
    assert not loaded & set(heavy)


def test_importing_the_package_imports_nothing_heavy() -> None:
    assert not modules_after("import tunesmith, tunesmith.cli") & {*HEAVY, "click"}


def test_reading_settings_and_runs_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("t,l\n")
    (tmp_path / "tunesmith.yaml").write_text("task: {kind: classify, text: t, label: l}\ndata: {files: [d.csv]}\n")
    for verb in ("config", "runs", "doctor"):
        loaded = modules_after(
            f"from tunesmith.cli.app import run\nassert run([{verb!r}, '--project', {str(tmp_path)!r}]) == 0"
        )
        assert not loaded & {"torch", "transformers", "sklearn"}, verb


DATA = tunesmith.get_command(ROOT, "data")
UNDER = [(("data", name), words) for verbs in DATA_VERBS.values() for name, words in verbs.items()]
EVERY = [*(((name,), WORDS[name]) for name in NAMES if name != "data"), *UNDER]
OWN_OPTIONS = {
    ("data", "look"): {"as_json"},
    ("methods",): {"as_json"},
    ("tasks",): {"projects", "overrides", "as_json"},
}


@pytest.mark.parametrize(("path", "words"), EVERY, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_each_verb_says_it_takes_the_common_options(path: tuple[str, ...], words: str) -> None:
    group = tunesmith if len(path) == 1 else DATA
    assert isinstance(group, click.Group)
    command = group.get_command(ROOT, path[-1])
    assert command is not None
    assert command.name == path[-1]
    if len(path) == 1:
        assert (command.help or "").split("\n")[0] == words
    wanted = OWN_OPTIONS.get(path, {"project", "overrides", "as_json"})
    assert wanted <= {p.name for p in command.params}


def test_each_verb_is_one_file() -> None:
    folder = Path(__file__).parents[2] / "src" / "tunesmith" / "cli" / "verbs"
    assert {p.stem for p in folder.glob("*.py")} - {"__init__"} == set(NAMES)
    assert {p.stem for p in (folder.parent / "data_verbs").glob("*.py")} - {"__init__"} == {
        path[1] for path, _ in UNDER
    }


def test_the_list_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for name, words in WORDS.items():
        assert f" {name} " in printed
        assert words in printed


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"tunesmith {__version__}\n"


def test_python_dash_m_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "tunesmith", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"tunesmith {__version__}\n")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian"], "'trian' is not a verb. Did you mean train?"),
        (["qqqqqq"], "'qqqqqq' is not a verb. `tunesmith --help` lists the verbs."),
        (["run", "--limit", "many"], "'many' is not a valid integer"),
        (["run", "--lmit", "3"], "No such option"),
        (["ask"], "Missing argument 'TEXT'"),
        (["init", "x"], "Missing option '--kind'"),
        (["init", "x", "--kind", "clasify", "--data", "d.csv"], "'clasify' is not one of"),
        (["init", "x", "--kind", "classify", "--data", "d.csv", "--project", "."], "takes neither --project nor --set"),
        (["serve", "--port", "70000"], "70000 is not in the range"),
    ],
)
def test_a_wrong_command_line_says_so(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert "--help" in printed.err
    assert not printed.out


def test_a_wrong_command_line_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--limit", "many", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert "'many' is not a valid integer" in error[0]["what"]


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "The journey:" in capsys.readouterr().out
