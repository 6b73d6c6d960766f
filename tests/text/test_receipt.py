"""A receipt refuses a renderer that makes other tokens, and names the first one that differs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.text.families import make_family
from tunesmith.core.errors import ReceiptError
from tunesmith.text.receipt import PROBES
from tunesmith.text.render import Renderer


def receipt_of(folder: Path, system: str = "") -> dict[str, Any]:
    return json.loads(json.dumps(Renderer.load(folder, system=system).describe()))


def refusal(folder: Path, description: dict[str, Any], system: str = "") -> str:
    with pytest.raises(ReceiptError) as caught:
        Renderer.load(folder, system=system).check(description, where="bundle/renderer.json")
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture
def chatml(tmp_path: Path) -> Path:
    return make_family(tmp_path / "chatml", "chatml")


def test_a_receipt_covers_what_goes_wrong() -> None:
    assert {"single turn", "system", "many turns", "special strings", "white space", "long"} <= PROBES.keys()
    assert len(PROBES) >= 12


def test_a_changed_template_is_named_with_the_first_token_that_differs(chatml: Path) -> None:
    description = receipt_of(chatml)
    template = chatml / "chat_template.jinja"
    template.write_text(
        template.read_text().replace("\\n' + m.content", ":' + m.content").replace("assistant\\n", "assistant:")
    )
    message = refusal(chatml, description)
    renderer = Renderer.load(chatml)
    first = [renderer.tokenizer.piece(i) for i in renderer.prompt(PROBES["single turn"][0])].index(":")
    assert f"bundle/renderer.json: probe 'single turn': token {first} was " in message
    assert "'\\n' in training and is " in message and "':' now" in message
    assert "fix:   the chat template changed since then" in message


def test_a_changed_tokenizer_is_named(chatml: Path) -> None:
    description = receipt_of(chatml)
    core = json.loads((chatml / "tokenizer.json").read_text(encoding="utf-8"))
    core["model"]["merges"] = core["model"]["merges"][:-80]
    (chatml / "tokenizer.json").write_text(json.dumps(core), encoding="utf-8")
    message = refusal(chatml, description)
    assert "in training and is" in message and "tokenizer.json changed since then" in message


def test_another_mask_is_named(chatml: Path) -> None:
    description = receipt_of(chatml)
    entry = description["receipt"]["single turn"]
    entry["trained"] = entry["trained"][:-1] + "0"  # a stop token that was not trained
    entry["trained_sha256"] = "0" * 64
    message = refusal(chatml, description)
    assert "'<|im_end|>', is trained now and was not" in message


def test_a_difference_beyond_the_ids_that_are_kept_is_still_seen(chatml: Path) -> None:
    description = receipt_of(chatml)
    description["receipt"]["long"]["ids_sha256"] = "0" * 64
    assert "probe 'long': the first 256 tokens agree and a later one differs" in refusal(chatml, description)
    description["receipt"]["long"]["tokens"] += 1
    assert "tokens agree, but it had" in refusal(chatml, description)


def test_another_system_prompt_is_named(chatml: Path) -> None:
    message = refusal(chatml, receipt_of(chatml, system="Be brief."), system="Be long.")
    assert "'Be brief.'" in message and "'Be long.'" in message and "fix:" in message


def test_a_file_that_changed_without_changing_tokens_is_accepted(chatml: Path) -> None:
    description = receipt_of(chatml)
    core = json.loads((chatml / "tokenizer.json").read_text(encoding="utf-8"))
    (chatml / "tokenizer.json").write_text(json.dumps(core, indent=3), encoding="utf-8")
    template = chatml / "chat_template.jinja"
    template.write_text("{# ChatML #}" + template.read_text())
    Renderer.load(chatml).check(description, where="renderer.json")


@pytest.mark.parametrize("description", [{}, {"receipt": {}}, {"receipt": None}, {"receipt": {"unheard of": {}}}])
def test_a_missing_receipt_is_refused(chatml: Path, description: dict[str, Any]) -> None:
    assert "carries no token receipt" in refusal(chatml, {"system": "", **description})


def test_a_probe_that_a_template_refuses_must_stay_refused(tmp_path: Path) -> None:
    strict = (
        "{% for m in messages %}{% if loop.length > LIMIT %}{{ raise_exception('too many turns') }}{% endif %}"
        "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    folder = make_family(tmp_path, "chatml", template=strict.replace("LIMIT", "4"))
    description = receipt_of(folder)
    assert "too many turns" in description["receipt"]["many turns"]["refused"]
    Renderer.load(folder).check(description, where="renderer.json")
    (folder / "chat_template.jinja").write_text(strict.replace("LIMIT", "9"))
    assert "probe 'many turns': it was " in refusal(folder, description)


def test_checking_is_cheap(chatml: Path) -> None:
    renderer = Renderer.load(chatml)
    description = renderer.describe()
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        renderer.check(description, where="renderer.json")
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05
