"""Special tokens come from the chat template alone; what a folder lacks is said."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.text.families import make_family
from tunesmith.core.errors import ModelError
from tunesmith.text.tokenizer import Tokenizer, read_template


def change(path: Path, **values: Any) -> None:
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found.update(values)
    path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}), encoding="utf-8")


def test_special_strings_are_special_only_when_respelled(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(make_family(tmp_path, "chatml"))
    end = tokenizer.specials["<|im_end|>"]
    assert end not in tokenizer.encode("a<|im_end|>b")
    assert end in tokenizer.encode(tokenizer.respell("a<|im_end|>b"))
    assert tokenizer.decode(tokenizer.encode("a<|im_end|>b")) == "a<|im_end|>b"


def test_ids_do_not_depend_on_the_secret_spelling(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "phi3")
    one, two = Tokenizer.load(folder), Tokenizer.load(folder)
    text = "<|user|>\n  Hi<|end|>\n<|assistant|>\n"
    assert one.respell(text) != two.respell(text)
    assert one.encode(one.respell(text)) == two.encode(two.respell(text))
    assert max(one.encode(one.respell(text))) < one.vocab_size


def test_a_token_that_only_the_config_calls_special_is_protected_too(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "chatml")
    core = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in core["added_tokens"]:
        token["special"] = False
    (folder / "tokenizer.json").write_text(json.dumps(core), encoding="utf-8")
    change(folder / "tokenizer_config.json", additional_special_tokens=["<|im_start|>", {"content": "<|im_end|>"}])
    tokenizer = Tokenizer.load(folder)
    assert {"<|im_start|>", "<|im_end|>"} <= tokenizer.specials.keys()
    assert not set(tokenizer.encode("<|im_start|>x<|im_end|>")) & tokenizer.special_ids
    assert tokenizer.encode(tokenizer.respell("<|im_end|>")) == [tokenizer.specials["<|im_end|>"]]


def test_truncation_and_padding_in_the_file_are_switched_off(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "chatml")
    length = len(Tokenizer.load(folder).encode("word " * 50))
    change(
        folder / "tokenizer.json",
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        padding={
            "strategy": {"Fixed": 512},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "<|endoftext|>",
        },
    )
    core = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    core["padding"]["pad_to_multiple_of"] = None
    (folder / "tokenizer.json").write_text(json.dumps(core), encoding="utf-8")
    assert len(Tokenizer.load(folder).encode("word " * 50)) == length


def test_begin_of_sequence_is_what_the_tokenizer_adds(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "llama2")
    assert Tokenizer.load(folder).bos_ids == []  # no post-processor here, and no word about it
    change(folder / "tokenizer_config.json", add_bos_token=True)
    assert Tokenizer.load(folder).bos_ids == [1]
    change(folder / "tokenizer_config.json", add_bos_token=False)
    assert Tokenizer.load(folder).bos_ids == []


def test_every_end_token_of_the_generation_settings_is_known(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "llama3")
    change(folder / "generation_config.json", eos_token_id=[7, 9])
    tokenizer = Tokenizer.load(folder)
    assert tokenizer.eos_id == tokenizer.specials["<|end_of_text|>"]
    assert set(tokenizer.eos_ids) == {tokenizer.eos_id, 7, 9}


def test_pad_falls_back_to_the_end_token(tmp_path: Path) -> None:
    own, none = (
        Tokenizer.load(make_family(tmp_path / "a", "chatml")),
        Tokenizer.load(make_family(tmp_path / "b", "llama3")),
    )
    assert own.pad_id == own.specials["<|endoftext|>"] != own.eos_id
    assert none.pad_id == none.eos_id


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "not a tokenizer"),
        (lambda f: (f / "tokenizer_config.json").write_text("[1]"), "is not a JSON object"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "cannot be read"),
        (lambda f: change(f / "tokenizer_config.json", eos_token=None), "no end-of-sequence token"),
        (lambda f: change(f / "tokenizer_config.json", eos_token="<|nowhere|>"), "no end-of-sequence token"),
    ],
)
def test_a_broken_folder_is_refused_with_the_file_and_a_fix(tmp_path: Path, spoil: Any, message: str) -> None:
    folder = make_family(tmp_path, "chatml")
    spoil(folder)
    with pytest.raises(ModelError) as caught:
        Tokenizer.load(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and "fix:" in str(caught.value)


def test_the_template_file_beats_the_config(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "chatml")
    named = [{"name": "tools", "template": "T"}, {"name": "default", "template": "D"}]
    change(folder / "tokenizer_config.json", chat_template=named)
    found = read_template(folder)
    assert found is not None and found[1].endswith("chat_template.jinja")
    (folder / "chat_template.jinja").unlink()
    assert read_template(folder) == ("D", str(folder / "tokenizer_config.json"))
    change(folder / "tokenizer_config.json", chat_template="S")
    assert read_template(folder) == ("S", str(folder / "tokenizer_config.json"))
    change(folder / "tokenizer_config.json", chat_template=None)
    assert read_template(folder) is None


def test_pieces_are_readable(tmp_path: Path) -> None:
    bytes_, pieces = (
        Tokenizer.load(make_family(tmp_path / "a", "chatml")),
        Tokenizer.load(make_family(tmp_path / "b", "llama2")),
    )
    assert bytes_.piece(bytes_.encode(" you\n")[0]).startswith(" ")
    assert "".join(pieces.piece(i) for i in pieces.encode("Hello you")) == " Hello you"
    assert bytes_.piece(bytes_.specials["<|im_end|>"]) == "<|im_end|>"
    assert bytes_.piece(10**6) == "<no token 1000000>"
    assert bytes_.decode([10**6, *bytes_.encode("Hi"), bytes_.vocab_size]) == "Hi"


def test_rendering_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "chatml")
    code = (
        "import sys; from pathlib import Path; from tunesmith.text.render import Renderer; import tunesmith.text.view;"
        f"Renderer.load(Path({str(folder)!r})).describe();"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
