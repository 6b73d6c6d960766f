"""What cannot be merged or combined is refused from the checkpoints' few facts, all at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tunesmith.core.canonical import canonical_json
from tunesmith.core.errors import InputError
from tunesmith.export.merge import recipe, refuse
from tunesmith.export.stages import MergeSpec
from tunesmith.model.methods.spec import MethodSpec, method_json

LORA = MethodSpec(kind="lora", rank=4, alpha=8.0, dropout=0.0, targets="all-linear")
FULL = replace(LORA, kind="full")
SPEC = MergeSpec(
    how="average", weights=(0.5, 0.5), density=1.0, rank=0, seed=0, prompts_of=None, precision="fp32", base="tiny"
)


@pytest.fixture
def made(tmp_path: Path):
    def make(name: str, method: MethodSpec, renderer: str = "{}") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "checkpoint.json").write_bytes(canonical_json({"method": method_json(method), "base": "tiny"}))
        (folder / "renderer.json").write_text(renderer)
        return folder

    return make


BOTTLENECK = replace(LORA, kind="bottleneck", placement="pfeiffer", activation="relu")
PREFIX = replace(LORA, kind="prefix", virtual_tokens=4)


@pytest.mark.parametrize(
    ("change", "methods", "why"),
    [
        ({"how": "whole", "weights": ()}, [BOTTLENECK], "cannot be merged, nor written as GGUF or GPTQ"),
        ({"how": "whole", "weights": ()}, [PREFIX], "cannot be merged, nor written as GGUF or GPTQ"),
        ({"how": "whole", "weights": ()}, [FULL], "is whole already"),
        ({"how": "whole", "weights": ()}, [LORA, LORA], "are 2: one is merged into its base"),
        ({}, [LORA, BOTTLENECK], "cannot be merged"),
        ({}, [LORA], "there is nothing to combine it with"),
        ({"weights": (1.0,)}, [LORA, LORA], "are 1 for 2 checkpoints"),
        ({}, [LORA, FULL], "full and lora: only one kind goes together"),
        ({}, [replace(LORA, kind="ia3")] * 2, "only LoRA adapters are updates that add up"),
        ({"how": "slerp"}, [LORA, LORA], "slerp joins whole models"),
        ({"how": "svd"}, [LORA, LORA], "is what svd cuts to"),
        ({"how": "svd", "rank": 4}, [FULL, FULL], "svd cuts adapters to a rank"),
        ({"prompts_of": 2}, [LORA, LORA], "there is no checkpoint 3"),
    ],
)
def test_refused_beforehand(made, change: dict[str, object], methods: list[MethodSpec], why: str) -> None:
    folders = [made(f"c{i}", m) for i, m in enumerate(methods)]
    with pytest.raises(InputError, match=why):
        refuse(replace(SPEC, **change), folders)  # type: ignore[arg-type]


def test_whole_models_with_different_prompts_need_a_choice(made) -> None:
    folders = [made("a", FULL), made("b", FULL, '{"system": "x"}')]
    with pytest.raises(InputError, match="trained with different prompts"):
        refuse(SPEC, folders)
    refuse(replace(SPEC, prompts_of=1), folders)


def test_everything_is_said_at_once(made) -> None:
    with pytest.raises(InputError) as error:
        refuse(replace(SPEC, weights=(1.0,), prompts_of=7), [made("a", LORA), made("b", FULL)])
    assert len(error.value.problems) == 3


def test_the_words_mean_the_papers_methods() -> None:
    assert recipe(SPEC).method == "linear"
    assert recipe(replace(SPEC, how="ties", density=0.2)).keep == 0.2
    dare = recipe(replace(SPEC, how="dare", density=0.25, seed=3))
    assert (dare.method, dare.drop, dare.seed) == ("dare", 0.75, 3)
    assert recipe(replace(SPEC, how="slerp")).method == "slerp"
