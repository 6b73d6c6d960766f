"""A training that cannot be is refused through the command line, with where, what and what to do, before a baseline
is answered or a step is taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.small import make_project
from tests.tiny import make_tiny
from tests.train import data
from tunesmith.cli.app import run
from tunesmith.core.stage import Exec
from tunesmith.ledger.ledger import Ledger
from tunesmith.text.render import Renderer

Refused = Callable[..., str]
TIME = ("answer", "sft", "domain")  # stages that take it


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Path:
    """One project for all: what is refused leaves nothing behind."""
    return make_project(tmp_path_factory.mktemp("bad") / "news", tiny_llama, n=90)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    shapes = {
        "opt-350m": ("opt", {"do_layer_norm_before": False, "ffn_dim": 96, "word_embed_proj_dim": 48}),
        "gpt2": ("gpt2", {}),
        "cohere": ("cohere", {}),
    }
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            family, shape = shapes[name]
            made[name] = make_tiny(tmp_path_factory.mktemp("bases") / name, family, **shape)
        return made[name]

    return get


@pytest.fixture
def refused(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    monkeypatch.setenv("TUNESMITH_CACHE", str(cache))

    def refuse(*settings: str, verb: str = "run") -> str:
        words = [word for s in settings for word in ("--set", s)]
        code = run([verb, "--project", str(folder), *words])
        said = capsys.readouterr().err
        assert code == 2, said
        assert "Traceback" not in said and "bug in Tunesmith" not in said
        with Ledger.open(folder / ".tunesmith") as ledger:
            assert not [r for r in ledger.runs() if r.stage in TIME]
        return said

    return refuse


VALUES = {
    "rank 0": (["train.method.rank=0"], ["train.method.rank", "1"]),
    "a negative rank": (["train.method.rank=-4"], ["train.method.rank"]),
    "a negative rate": (["train.lr=-1e-4"], ["train.lr", "0"]),
    "a rate of 0": (["train.lr=0"], ["train.lr"]),
    "a rate that is no number": (["train.lr=nan"], ["train.lr"]),
    "an endless rate": (["train.lr=.inf"], ["train.lr"]),
    "a negative dropout": (["train.method.dropout=-0.1"], ["train.method.dropout"]),
    "dropout of everything": (["train.method.dropout=1.0"], ["train.method.dropout"]),
    "a negative decay": (["train.weight_decay=-0.1"], ["train.weight_decay"]),
    "a negative ratio": (["train.lr_ratios={lora_B: -2}"], ["train.lr_ratios"]),
    "a negative LoRA+": (["train.method.b_lr_ratio=-16"], ["train.method.b_lr_ratio"]),
    "a negative warm-up": (["train.warmup=-0.1"], ["train.warmup"]),
    "negative epochs": (["train.epochs=-1"], ["train.epochs"]),
    "a batch of nothing": (["train.global_batch=0"], ["train.global_batch"]),
    "a negative clip": (["train.max_grad_norm=-1"], ["train.max_grad_norm"]),
    "a precision that is none": (["train.precision=fp8"], ["train.precision", "bf16"]),
    "a method that is none": (["train.method.kind=lorra"], ["train.method.kind", "lora"]),
    "an optimizer that is none": (["train.optimizer=adam"], ["train.optimizer", "adamw"]),
    "5 bits": (["train.method.kind=qlora", "train.method.bits=5"], ["train.method.bits"]),
    "a value nobody reads": (["train.method.virtual_tokens=7"], ["train.method.virtual_tokens", "does not read it"]),
    "dora with pissa": (["train.method.dora=true", "train.method.init=pissa"], ["train.method.dora", "uniform"]),
    "muon on LoRA": (["train.optimizer=muon"], ["train.optimizer", "adamw"]),
    "schedule-free with a schedule": (["train.optimizer=schedule_free"], ["train.schedule", "constant"]),
    "a rank below 1 by pattern": (["train.method.ranks={q_proj: 0}"], ["train.method.ranks"]),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_that_cannot_be(name: str, refused: Refused) -> None:
    settings, words = VALUES[name]
    said = refused(*settings)
    assert "fix:" in said or "must" in said or "one of" in said or "accepted" in said, said
    for word in words:
        assert word in said, said


ON_THE_BASE = {
    "a target that is not there": (["train.method.targets=[q_prj, v_proj]"], ["q_prj", "did you mean q_proj?"]),
    "a target that is not linear": (["train.method.targets=[norm]"], ["norm: is not a linear layer", "q_proj"]),
    "a tied target": (["train.method.targets=[lm_head]"], ["tied", "all-linear"]),
    "ranks of nothing": (["train.method.ranks={dwn_proj: 8}"], ["dwn_proj", "did you mean down_proj?"]),
    "a rank too wide": (
        ["train.method.init=pissa", "train.method.rank=400"],
        ["pissa has only 48 directions", "init: uniform"],
    ),
    "more layers than there are": (
        ["train.method={kind: full, train_layers: 'last:9'}"],
        ["the model has 3", "last:1 to last:3"],
    ),
    "layers of no name": (
        ["train.method={kind: full, train_layers: ['mlpp.*']}"],
        ["train.method.train_layers: mlpp.*"],
    ),
    "virtual tokens without room": (
        ["train.method={kind: prompt, virtual_tokens: 600}"],
        ["600 leave no room: the base reads 512"],
    ),
    "a prefix computed twice": (
        ["train.method={kind: prefix}", "exec.gradient_checkpointing=true"],
        ["would read the prefix twice", "exec.gradient_checkpointing=false"],
    ),
    "a rate for no weight": (["train.lr_ratios={lora_C: 2.0}"], ["lora_C", "lora_B"]),
}


@pytest.mark.parametrize("name", ON_THE_BASE)
def test_what_the_base_does_not_have(name: str, refused: Refused) -> None:
    settings, words = ON_THE_BASE[name]
    said = refused(*settings)
    assert "fix:" in said
    for word in words:
        assert word in said, said


@pytest.mark.parametrize(
    ("base", "method", "words"),
    [
        ("gpt2", "{kind: qlora}", ["gpt2 has layers of type Conv1D", "use kind: lora"]),
        ("opt-350m", "{kind: bottleneck, placement: parallel}", ["normalise after they compute", "placement: houlsby"]),
        ("cohere", "{kind: ia3}", ["cohere are not known", "use lora"]),
    ],
)
def test_a_method_that_the_architecture_cannot_take(
    base: str, method: str, words: list[str], bases: Callable[[str], Path], refused: Refused
) -> None:
    if "qlora" in method:
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    said = refused(f"model={bases(base)}", f"train.method={method}")
    for word in words:
        assert word in said, said


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, folder: Path, tiny_llama: Path) -> dict[str, str]:
    """Starts in the project's ledger that nothing can be trained on, by what is wrong with them."""
    root = tmp_path_factory.mktemp("starts")
    dataset = data.make_dataset(root / "dataset")
    houlsby = data.MethodSpec(
        kind="bottleneck", rank=4, alpha=1.0, dropout=0.0, targets="all-linear", placement="houlsby", activation="relu"
    )
    other = make_tiny(root / "other", seed=7)
    few = {"epochs": 0.4, "validate_times": 1, "metric": ""}
    made = {
        "bottleneck": data.train(root / "a", dataset, tiny_llama, method=houlsby, **few),
        "other base": data.train(root / "b", dataset, other, **few),
        "other tokenizer": data.train(root / "c", dataset, tiny_llama, exec=Exec(threads=1), **few),
    }
    receipt = made["other tokenizer"].scratch / "checkpoint" / "renderer.json"
    receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"tokenizer_sha256": "0" * 64}))
    found = {}
    with Ledger.open(folder / ".tunesmith") as ledger:
        for name, work in made.items():
            checkpoint = work.scratch / "checkpoint"
            files = {p.name: p for p in checkpoint.iterdir()}
            found[name] = ledger.add_files("checkpoint", files, move=False).id
    return found


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bottleneck", ["train.start", "bottleneck is no change of the base's weights", "tunesmith methods"]),
        ("other base", ["was trained on other weights", "means nothing on another"]),
        ("other tokenizer", ["another tokenizer", "train it on this base"]),
    ],
)
def test_a_start_that_cannot_be_built_on(
    name: str, words: list[str], checkpoints: dict[str, str], refused: Refused
) -> None:
    """Merging what cannot be merged, an adapter of other weights, a renderer that is not the base's."""
    said = refused(f"train.start={checkpoints[name]}")
    assert "fix:" in said
    for word in words:
        assert word in said, said


def test_a_start_that_is_none(refused: Refused) -> None:
    said = refused("train.start=0123456789abcdef")
    assert "train.start" in said and "tunesmith runs" in said


ROWS = {
    "not a number": ('{"text": "ball goal", "label": NaN}', ["rows.jsonl:2", "NaN", "null"]),
    "endless": ('{"text": Infinity, "label": "sports"}', ["rows.jsonl:2", "Infinity"]),
    "nothing to learn": ('{"text": "ball goal", "label": ""}', ["rows.jsonl:2", "label"]),
    "nothing but space": ('{"text": "ball goal", "label": "  "}', ["rows.jsonl:2", "label"]),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_cannot_be_trained_on(name: str, folder: Path, refused: Refused) -> None:
    line, words = ROWS[name]
    good = [json.dumps({"text": f"ball goal team {i}", "label": ["sports", "news"][i % 2]}) for i in range(40)]
    (folder / "rows.jsonl").write_text("\n".join([good[0], line, *good[1:]]) + "\n", encoding="utf-8")
    said = refused("data.files=[rows.jsonl]", "task.group=null")
    assert "fix:" in said
    for word in words:
        assert word in said, said


def test_no_row_is_cut_to_fit(refused: Refused) -> None:
    said = refused("train.max_tokens=16")
    assert "tokens" in said and "train.max_tokens" in said and "leave_out" in said


def test_the_renderer_loads(tiny_llama: Path) -> None:
    """What the start's receipt is compared with."""
    assert len(Renderer.load(tiny_llama, system="").describe()["tokenizer_sha256"]) == 64


def test_what_was_refused_is_well_once_it_is_mended(
    folder: Path, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    refused("train.method.rank=0")
    assert run(["train", "--project", str(folder), "--set", "train.epochs=0.2"]) == 0, capsys.readouterr().err
