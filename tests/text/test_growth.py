"""New tokens in a tokenizer: one id for what was several, and everything else as before."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.text.families import make_family
from tunesmith.core.errors import InputError, ReceiptError
from tunesmith.core.nouns import Message
from tunesmith.text.growth import grown, refuse_tokens
from tunesmith.text.render import Renderer
from tunesmith.text.tokenizer import Tokenizer

TOKENS = ("<ICD>", "<OPS 301>")


@pytest.fixture(scope="module", params=["chatml", "llama3", "mistral_tekken", "gemma"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("family") / request.param, request.param)


def test_a_new_token_is_one_id_and_reads_back(folder: Path) -> None:
    before, after = Tokenizer.load(folder), Tokenizer.load(folder, TOKENS)
    refuse_tokens(before, TOKENS)
    assert after.vocab_size == before.vocab_size + 2
    assert after.sha256 != before.sha256
    for i, token in enumerate(TOKENS):
        id = before.vocab_size + i
        assert after.encode(token) == [id] and after.id_of(token) == id
        assert after.decode([id]) == token and id not in after.special_ids
    text = f"Fracture {TOKENS[0]} of {TOKENS[1]}, left."
    ids = after.encode(text)
    assert before.vocab_size in ids and before.vocab_size + 1 in ids
    assert after.encode_many([text]) == [ids]
    assert after.specials == before.specials and after.encode("Fracture of") == before.encode("Fracture of")


def test_the_grown_file_is_the_grown_tokenizer(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    source = grown((folder / "tokenizer.json").read_text(encoding="utf-8"), TOKENS)
    (tmp_path / "tokenizer.json").write_text(source, encoding="utf-8")
    written, added = Tokenizer.load(tmp_path), Tokenizer.load(folder, TOKENS)
    assert written.encode("a <ICD> b") == added.encode("a <ICD> b")
    assert written.sha256 == added.sha256 == Tokenizer.load(tmp_path, TOKENS).sha256
    assert grown(source, TOKENS) == source
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path).convert_tokens_to_ids("<ICD>") == added.id_of("<ICD>")


def test_the_receipt_covers_them(folder: Path) -> None:
    plain, after = Renderer.load(folder), Renderer.load(folder, new_tokens=TOKENS)
    assert "new_tokens" not in plain.describe()
    assert after.describe()["new_tokens"] == list(TOKENS)
    after.check(after.describe(), where="x")
    for other in (plain, Renderer.load(folder, new_tokens=TOKENS[::-1])):
        with pytest.raises(ReceiptError, match="was made with the new tokens"):
            other.check(after.describe(), where="x")
    with pytest.raises(ReceiptError, match="new tokens"):
        after.check(plain.describe(), where="x")


def test_prompt_and_answer_hold_them(folder: Path) -> None:
    renderer = Renderer.load(folder, new_tokens=TOKENS)
    id = renderer.tokenizer.id_of("<ICD>")
    assert id in renderer.prompt([Message(role="user", content="What is <ICD>?")])
    answer = renderer.answer("It is <ICD> S82")
    assert id in answer and renderer.decode(answer) == "It is <ICD> S82"


@pytest.mark.parametrize(
    ("tokens", "match"),
    [
        (("fox",), "'fox' is one token already"),
        (("<|im_end|>",), "is one token already"),
        (("a<|im_end|>b",), "holds the special token '<|im_end|>'"),
        (("Überfüllung",), "would be read back as"),
        (("<ICD>", "<ICD>"), "is there 2 times"),
    ],
)
def test_what_cannot_be_a_new_token_is_refused(tiny_llama: Path, tokens: tuple[str, ...], match: str) -> None:
    with pytest.raises(InputError, match=re.escape(match)):
        refuse_tokens(Tokenizer.load(tiny_llama), tokens)


def test_a_tokenizer_that_adds_a_space_after_each_is_refused(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(make_family(tmp_path / "llama2", "llama2"))
    with pytest.raises(InputError, match="would change the text round it"):
        refuse_tokens(tokenizer, TOKENS)
