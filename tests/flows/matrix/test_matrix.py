"""The matrix: ordinary trainings in the ledger, one choice, one look at the test set."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.cli.app import run as cli
from tunesmith.core import project_file
from tunesmith.core.canonical import plain, read_json
from tunesmith.core.errors import InputError, ProjectFileError
from tunesmith.data.stages import SubsetSpec
from tunesmith.flows.context import Context
from tunesmith.flows.matrix.apart import CellFailed
from tunesmith.flows.matrix.cell import CellRuns, measure, prepared, with_rows
from tunesmith.flows.matrix.matrix import FAILED, MatrixResult, matrix
from tunesmith.flows.matrix.plan import cells_with, plan_matrix
from tunesmith.flows.matrix.words import matrix_words

MATRIX = """\
matrix:
  subset: 40
  cells:
    lora: {method: {kind: lora, rank: 4}, lr: 1e-2}
    again: {epochs: 1}
    tokens: {method: {kind: prompt, virtual_tokens: 4}}
  full: [lora, tokens]
"""


def here(context: Context, subset: SubsetSpec | None, say: Callable[..., None]) -> CellRuns:
    """In this process: what apart.py does in another."""
    return measure(with_rows(prepared(context), subset))


def failing(name: str) -> Callable[..., CellRuns]:
    def some(context: Context, subset: SubsetSpec | None, say: Callable[..., None]) -> CellRuns:
        if context.settings.train.method.kind == name:
            raise CellFailed("it did not fit the memory")
        return here(context, subset, say)

    return some


def make(folder: Path, model: Path, text: str = MATRIX) -> Path:
    project = make_project(folder, model)
    file = project / "tunesmith.yaml"
    file.write_text(file.read_text(encoding="utf-8") + text, encoding="utf-8")
    return project


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[Project, MatrixResult]:
    project = Project.open(make(tmp_path_factory.mktemp("matrix") / "news", tiny_llama))
    return project, matrix(project.context, measure=here)


def by_cell(result: MatrixResult) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["name"], c["on"]): c for c in result.facts["cells"]}


def test_each_cell_is_an_ordinary_training_with_its_own_settings(done: tuple[Project, MatrixResult]) -> None:
    project, result = done
    cells = by_cell(result)
    assert set(cells) == {
        ("lora", "subset"),
        ("again", "subset"),
        ("tokens", "subset"),
        ("lora", "all"),
        ("tokens", "all"),
    }
    runs = {key: project.ledger.run(c["train_run"]) for key, c in cells.items()}
    assert {r.stage for r in runs.values()} == {"sft"}
    assert runs["lora", "subset"].spec["lr"] == 1e-2
    assert runs["tokens", "subset"].spec["lr"] == 3e-2, "a cell that names a method takes that method's own rate"
    assert runs["again", "subset"].spec["lr"] == 1e-2 and runs["again", "subset"].spec["epochs"] == 1
    assert runs["again", "subset"].spec["method"]["rank"] == 4, "one that names none takes all of the project's"
    assert {c["rows"] for c in cells.values() if c["on"] == "subset"} == {40}
    for c in cells.values():
        assert c["trained_weights"] > 0 and c["bytes"] > 0 and c["peak_mib"] > 0 and c["tokens_per_s"] > 0
        assert c["score"]["low"] <= c["score"]["value"] <= c["score"]["high"]
    assert cells["lora", "all"]["path"] == "flat" and cells["tokens", "all"]["path"].startswith("plain: ")


def test_the_validation_rows_are_answered_through_the_code_of_the_test_set(done: tuple[Project, MatrixResult]) -> None:
    project, result = done
    for c in result.facts["cells"]:
        run = project.ledger.run(c["answer_run"])
        assert (run.stage, run.spec["arm"], run.spec["split"]) == ("answer", "tuned", "validation")
    assert result.facts["n"] == project.ledger.run(run.id).metrics["rows"]


def test_the_chosen_one_is_the_cheapest_of_those_within_noise(done: tuple[Project, MatrixResult]) -> None:
    _, result = done
    level = [c for c in result.facts["cells"] if c["on"] == "all" and c["is_noise"]]
    chosen = min(level, key=lambda c: c["trained_weights"])
    assert result.facts["chosen"]["name"] == chosen["name"]
    assert "fewest trained weights" in result.facts["chosen"]["rule"] or len(level) == 1


def test_one_look_is_recorded_and_a_second_one_is_counted_and_said(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make(tmp_path / "news", tiny_llama, MATRIX.replace("[lora, tokens]", "[lora, again]")))
    first = matrix(project.context, choose="lora", measure=here)
    assert first.facts["look"]["looks"] == 1 and first.facts["look"]["is_new"]
    assert "first and only look" in str(first)

    runs = len(project.runs(limit=None))
    again = matrix(project.context, choose="lora", measure=here)
    assert len(project.runs(limit=None)) == runs, "nothing is done twice"
    assert all(c["reused"] for c in again.facts["cells"])
    assert again.facts["look"]["looks"] == 1 and not again.facts["look"]["is_new"]

    compared = matrix(project.context, choose="again", look=False, measure=here)
    assert compared.facts["look"] is None and compared.exit_code == 0
    other = matrix(project.context, choose="again", measure=here)
    assert other.facts["look"]["looks"] == 2 and "2 times" in str(other)

    # the chosen words are the project's `train`: what they ask for is there already
    assert other.facts["chosen"]["set"] == ["train.epochs=1.0"]
    asked = Project.open(project.root, other.facts["chosen"]["set"])
    chosen = next(c for c in other.facts["cells"] if (c["name"], c["on"]) == ("again", "all"))
    trained = asked.train()
    assert trained.reused and trained.id == chosen["train_run"]


def test_the_command_that_goes_on_names_the_file_and_every_override(tmp_path: Path, tiny_llama: Path) -> None:
    folder = make(tmp_path / "news", tiny_llama, MATRIX.replace("[lora, tokens]", "[lora, again]"))
    (folder / "tunesmith.yaml").rename(folder / "other.yaml")
    overrides = ["evaluate.max_new_tokens=9", "train.seed=3"]
    project = Project.open(folder / "other.yaml", overrides)
    result = matrix(project.context, choose="again", measure=here, file=project_file.load(folder / "other.yaml"))
    command = shlex.split(result.facts["chosen"]["go_on"])
    assert command[:4] == ["tunesmith", "run", "--project", "other.yaml"]
    words = command[5::2]
    assert {*overrides, "train.epochs=1.0"} == set(words)
    assert Project.open(folder / "other.yaml", words).evaluate().reused


def test_a_cell_that_fails_is_recorded_and_the_others_go_on(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make(tmp_path / "news", tiny_llama))
    result = matrix(project.context, measure=failing("prompt"))
    cells = by_cell(result)
    assert cells["tokens", "subset"]["failure"] == cells["tokens", "all"]["failure"] == "it did not fit the memory"
    assert cells["lora", "all"]["score"] and cells["again", "subset"]["score"]
    assert result.exit_code == FAILED and result.facts["chosen"]["name"] == "lora"
    assert "it did not fit the memory" in str(result)
    asked = matrix(project.context, choose="tokens", look=False, measure=failing("prompt"))
    assert asked.facts["chosen"] is None and "did not finish" in asked.facts["why_none"]

    mended = matrix(project.context, look=False, measure=here)
    assert mended.exit_code == 0 and not any(c["failure"] for c in mended.facts["cells"])
    assert by_cell(mended)["lora", "all"]["reused"], "what was done stays done"


def test_the_plan_says_what_is_done(done: tuple[Project, MatrixResult], tmp_path: Path, tiny_llama: Path) -> None:
    project, _ = done
    plan = plan_matrix(project.context)
    assert all(c["cached"] for c in plan.cells) and plan.seconds == 0
    wider = Project.open(project.root, ["matrix.full=[lora, tokens, again]", "train.precision=fp32"])
    plan = plan_matrix(wider.context)
    todo = [c for c in plan.cells if not c["cached"]]
    assert [c["name"] for c in todo] == ["again, all rows"] and todo[0]["seconds"] > 0
    assert "6 cells, 1 of them to do" in str(plan)


def test_without_cells_every_method_is_one(tmp_path: Path, tiny_llama: Path) -> None:
    from tunesmith.model.methods.spec import METHODS

    project = Project.open(make(tmp_path / "news", tiny_llama, "matrix: {subset: 40}\n"))
    cells, notes = cells_with(project.context)
    left_out = {n.split()[0] for n in notes}
    assert {c.name for c in cells if c.on == "subset"} == set(METHODS) - left_out
    assert {c.name for c in cells if c.on == "all"} == {"lora", "full", "qlora", "bottleneck", "prefix"} - left_out
    for c in cells:
        assert c.spec.lr == METHODS[c.name].default_lr


def test_a_subset_larger_than_the_data_is_the_data_and_said(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make(tmp_path / "news", tiny_llama, MATRIX.replace("40", "4000")))
    cells, notes = cells_with(project.context)
    assert len({c.rows for c in cells}) == 1 and "training rows" in notes[0]


@pytest.mark.parametrize(
    ("setting", "spec"),
    [("matrix.subset=41", "subset"), ("matrix.seed=7", "subset"), ("matrix.metric=accuracy", "compare_cells"),
     ("matrix.confidence=0.9", "compare_cells")],
)  # fmt: skip
def test_settings_reach_their_spec(done: tuple[Project, MatrixResult], setting: str, spec: str) -> None:
    project, _ = done
    changed = Project.open(project.root, [setting])
    if spec == "subset":
        cells, _ = cells_with(changed.context)
        assert plain(cells[0].subset) != {"rows": 40, "seed": 0}
        return
    matrix(Project.open(project.root, [setting]).context, look=False, measure=here)
    latest = next(r for r in project.ledger.runs(stage="compare_cells"))
    assert str(latest.spec[setting.split(".")[1].split("=")[0]]) == setting.partition("=")[2]


def test_what_is_cheapest_can_be_said(done: tuple[Project, MatrixResult]) -> None:
    project, result = done
    level = [c for c in result.facts["cells"] if c["on"] == "all" and c["is_noise"]]
    for by in ("bytes", "peak_mib", "seconds"):
        other = matrix(Project.open(project.root, [f"matrix.cheapest={by}"]).context, look=False, measure=here)
        assert other.facts["chosen"]["name"] == min(level, key=lambda c: (c[by], not c["is_best"]))["name"]
    named = matrix(Project.open(project.root, ["matrix.choose=again"]).context, look=False, measure=here)
    assert named.facts["chosen"]["name"] == "again"


def refused(folder: Path, model: Path, text: str) -> str:
    with pytest.raises(ProjectFileError) as e:
        Project.open(make(folder / "news", model, text))
    return str(e.value)


def test_mistakes_are_refused_with_their_line_before_anything_runs(tmp_path: Path, tiny_llama: Path) -> None:
    text = """\
matrix:
  subset: 40
  cells:
    lora: {method: {kind: lora, rank: 4}}
    twin: {method: {kind: lora, rank: 4}}
  full: [lorra, lora, lora]
  metric: macro_f2
  choose: nobody
"""
    said = refused(tmp_path, tiny_llama, text)
    for line in (
        "matrix.cells.twin is the same training as lora",
        "matrix.full names lorra, which is not a cell",
        "Did you mean lora?",
        "matrix.full names lora twice",
        "macro_f2 is not a metric",
        "matrix.choose names nobody, which is not a cell",
    ):
        assert line in said, said
    assert "tunesmith.yaml:13:" in said and "tunesmith.yaml:14:" in said


def test_a_cell_s_unknown_key_or_method_has_the_nearest_name(tmp_path: Path, tiny_llama: Path) -> None:
    text = "matrix: {cells: {a: {method: {kind: lora, rnk: 4}, epohcs: 2}, b: {method: {kind: prefx}}}}\n"
    said = refused(tmp_path, tiny_llama, text)
    assert "matrix.cells.a.method.rnk is not a setting. Did you mean matrix.cells.a.method.rank?" in said
    assert "matrix.cells.a.epohcs is not a setting. Did you mean matrix.cells.a.epochs?" in said
    assert "prefx" in said and "did you mean prefix?" in said


def test_what_no_method_can_do_is_refused_before_any_time_is_spent(tmp_path: Path, tiny_llama: Path) -> None:
    text = "matrix: {cells: {a: {method: {kind: prefix, dora: true}}, b: {method: {kind: full}, optimizer: muon, schedule: wsd}, c: {optimizer: muon}}}\n"
    project = Project.open(make(tmp_path / "news", tiny_llama, text))
    with pytest.raises(InputError, match=r"matrix\.cells\.a: train\.method\.dora"):
        matrix(project.context, measure=here)
    assert project.runs() == []
    text = "matrix: {cells: {a: {epochs: 2}, b: {warmup: 0.05}}}\n"  # differently said, the same with this `train`
    same = Project.open(make(tmp_path / "same", tiny_llama, text))
    with pytest.raises(InputError, match=r"matrix\.cells\.b: is the same training as a"):
        matrix(same.context, measure=here)
    with pytest.raises(InputError, match="is not a cell"):
        matrix(project.context, choose="d", measure=here)


def test_a_domain_task_is_refused(tmp_path: Path, tiny_llama: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.jsonl").write_text('{"text": "x"}\n' * 30, encoding="utf-8")
    (tmp_path / "t" / "tunesmith.yaml").write_text(
        f"task: {{kind: domain, text: text}}\ndata: {{files: [a.jsonl]}}\nmodel: {tiny_llama}\n", encoding="utf-8"
    )
    with pytest.raises(InputError, match="domain task"):
        matrix(Project.open(tmp_path / "t").context, measure=here)


def test_the_facts_say_what_the_comparison_says(done: tuple[Project, MatrixResult]) -> None:
    project, result = done
    run = next(r for r in reversed(project.ledger.runs(stage="compare_cells")) if len(r.inputs["answers"]) == 3)
    facts = read_json(project.ledger.path(run.outputs["comparison"]) / "comparison.json")
    cells = by_cell(result)
    for name, cell in facts["cells"].items():
        assert cells[name, "subset"]["score"] == cell["score"] and cells[name, "subset"]["p_holm"] == cell["p_holm"]
    words = matrix_words(result.facts)
    assert "on a subset of 40 training rows" in words and "on all training rows" in words


def test_so_far_compares_what_is_done_and_chooses_nothing(tmp_path: Path, tiny_llama: Path) -> None:
    project = Project.open(make(tmp_path / "news", tiny_llama))
    with pytest.raises(InputError, match="no cell is done yet"):
        project.matrix(so_far=True)
    with pytest.raises(InputError, match="nothing is chosen while cells are missing"):
        project.matrix(so_far=True, choose="lora")

    def cut_off(context: Context, subset: SubsetSpec | None, say: Callable[..., None]) -> CellRuns:
        if subset is None:
            raise KeyboardInterrupt
        return here(context, subset, say)

    with pytest.raises(KeyboardInterrupt):
        matrix(project.context, measure=cut_off)
    runs = len(project.ledger.runs(stage="sft"))
    found = project.matrix(so_far=True)
    assert set(by_cell(found)) == {("lora", "subset"), ("again", "subset"), ("tokens", "subset")}
    assert found.facts["chosen"] is None and found.facts["look"] is None and found.exit_code == 0
    assert "2 of 5 cells are not done: lora, all rows, tokens, all rows" in str(found)
    assert "2 of 5 cells are not done" in Path(found.page).read_text(encoding="utf-8")
    assert len(project.ledger.runs(stage="sft")) == runs


@pytest.mark.parametrize("other", [["--so-far"], ["--no-look"], ["--choose", "lora"]])
def test_a_plan_takes_no_option_that_would_change_nothing(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["matrix", "--plan", *other]) == 2
    assert "give it alone" in capsys.readouterr().err
