"""A bundle loads with plain transformers and peft, says what it is, and lists the hash of every file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.core.nouns import Message


@pytest.fixture(scope="module", params=["lora", "full"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path
) -> tuple[Project, Path]:
    replace = {} if request.param == "lora" else {"{kind: lora, rank: 4}": "{kind: full}", "lr: 1e-2": "lr: 1e-3"}
    folder = make_project(tmp_path_factory.mktemp(request.param) / "news", tiny_llama, n=90, **replace)
    text = (folder / "tunesmith.yaml").read_text().replace("rows: 8}}", "rows: 8}, arms: [majority]}")
    (folder / "tunesmith.yaml").write_text(text)
    project = Project.open(folder)
    return project, project.ledger.path(project.run().bundle)


def test_it_loads_with_plain_transformers_and_peft(made: tuple[Project, Path], tiny_llama: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    project, folder = made
    if (folder / "adapter_config.json").exists():
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), folder)
    else:
        model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    manifest = json.loads((folder / "tunesmith.json").read_text())
    chat = [{"role": "system", "content": manifest["system"]}, {"role": "user", "content": "ball goal team"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)

    loaded = project.model(next(r for r in project.runs(stage="bundle")).outputs["bundle"])
    ours = loaded.renderer.prompt([Message(role="user", content="ball goal team")])
    assert ids["input_ids"][0].tolist() == ours
    with torch.inference_mode():
        theirs = model.eval()(**ids).logits[0, -1]
        own = loaded.model(input_ids=torch.tensor([ours])).logits[0, -1]
    assert torch.allclose(theirs, own, atol=1e-4)


def test_the_manifest_holds_the_hash_of_every_file(made: tuple[Project, Path]) -> None:
    folder = made[1]
    manifest = json.loads((folder / "tunesmith.json").read_text())
    present = {p.name for p in folder.iterdir()} - {"tunesmith.json"}
    assert present == set(manifest["files"])
    for name, entry in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == entry["sha256"]


def test_the_card_is_in_the_hugging_face_format(made: tuple[Project, Path]) -> None:
    from huggingface_hub import ModelCard

    card = ModelCard((made[1] / "README.md").read_text(encoding="utf-8"))
    assert card.data.library_name in ("peft", "transformers")
    assert (
        card.data.base_model_relation in ("adapter", "finetune") if hasattr(card.data, "base_model_relation") else True
    )
    assert card.data.eval_results
    assert "macro_f1 >= 0.1" in card.text.replace("\\", "")


def test_user_text_cannot_break_the_card() -> None:
    from tunesmith.export.card import cell

    assert cell("a|b\n# c <script> `x` [l](u)") == "a\\|b \\# c \\<script\\> \\`x\\` \\[l\\](u)"
