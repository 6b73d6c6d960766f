"""The laws of the house that a machine can check (imports are import-linter's part, see pyproject.toml)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "tunesmith"
FILES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted(p.parent for p in SOURCE.rglob("__init__.py") if p.parent != SOURCE)

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "marshal", "shelve", "cloudpickle", "joblib"}
FORBIDDEN_CALLS = {"eval", "exec", "torch.load", "os.system", "os.popen", "numpy.load", "np.load"}


def name_of(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_pickle_no_eval_no_shell_no_remote_code(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert not {a.name.split(".")[0] for a in node.names} & FORBIDDEN_IMPORTS
        if isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in FORBIDDEN_IMPORTS
        if isinstance(node, ast.Call):
            assert name_of(node.func) not in FORBIDDEN_CALLS, f"{file.name}:{node.lineno}"
            for keyword in node.keywords:
                value = keyword.value
                is_true = isinstance(value, ast.Constant) and value.value is True
                assert not (keyword.arg in ("shell", "trust_remote_code") and is_true), f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_no_error_is_swallowed_whole(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or name_of(node.type) in ("Exception", "BaseException")
            assert not (broad and all(isinstance(n, ast.Pass) for n in node.body)), f"{file.name}:{node.lineno}"


@pytest.mark.parametrize("room", ROOMS, ids=lambda p: str(p.relative_to(SOURCE)))
def test_each_room_says_what_it_is_and_imports_nothing(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), room
    if room.name not in ("cli", "methods"):
        assert not [
            n
            for n in tree.body
            if isinstance(n, ast.Import | ast.ImportFrom) and getattr(n, "module", "") != "__future__"
        ]


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_files_stay_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 500


def test_specs_have_no_defaults() -> None:
    """A default lives in one place: core/settings.py."""
    import dataclasses

    from tunesmith.data.stages import CHECK, PREPARE
    from tunesmith.evaluate.stages import ANSWER, EVALUATE, GATE
    from tunesmith.export.stages import BUNDLE, MERGE
    from tunesmith.train.stages import SFT

    for stage in (CHECK, PREPARE, ANSWER, EVALUATE, GATE, BUNDLE, MERGE, SFT):
        for field in dataclasses.fields(stage.spec):
            assert field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING, field.name


HEAVY = ("torch", "transformers", "peft", "sklearn", "fastapi", "datasets", "pandas")


@pytest.mark.parametrize(
    "module",
    ["tunesmith", "tunesmith.api", "tunesmith.flows.run", "tunesmith.flows.plan", "tunesmith.data.stages",
     "tunesmith.train.stages", "tunesmith.train.precision", "tunesmith.train.cost.counting", "tunesmith.train.cost.memory",
     "tunesmith.evaluate.stages", "tunesmith.export.stages", "tunesmith.text.render"],
)  # fmt: skip
def test_planning_loads_no_torch(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
