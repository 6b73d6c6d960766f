"""A model folder as the teacher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.documents.making import Paired, pairs_spec, run_documents, teacher_spec
from tunesmith.core.errors import InputError
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.local import LocalTeacher
from tunesmith.data.documents.pairs import pairs
from tunesmith.data.documents.stages import PairsInputs
from tunesmith.data.documents.teacher import request_body


def test_a_local_model_answers_like_an_endpoint(tmp_path: Path, tiny_llama: Path) -> None:
    read = run_documents(tmp_path / "d", {"m.md": "# M\n\nSome prose.\n\n## Is it?\n\nYes.\n"}, min_words=1)
    asks = LocalTeacher(tiny_llama)
    body = request_body(teacher_spec(max_tokens=4), read.passages[0], "M")
    reply = asks(body)
    assert isinstance(reply["choices"][0]["message"]["content"], str)
    assert reply["usage"]["completion_tokens"] <= 4
    assert asks(body) == reply


def test_what_a_tiny_model_says_is_counted_as_malformed(tmp_path: Path, tiny_llama: Path) -> None:
    read = run_documents(tmp_path / "d", {"m.md": "# M\n\nSome prose.\n\n## Is it?\n\nYes.\n"}, min_words=1)
    spec = pairs_spec(kinds=("faq",), teacher=teacher_spec(max_tokens=4))
    work = Workspace(root=tmp_path / "p" / "k")
    made = Paired(pairs(spec, PairsInputs(passages=read.folder, teacher=tiny_llama), work).pairs)
    assert [p.how for p in made.pairs] == ["faq"]
    assert [g.reason for g in made.left_out] in (["malformed_reply"], ["refused_by_teacher"])


def test_neither_url_nor_model(tmp_path: Path) -> None:
    read = run_documents(tmp_path / "d", {"m.md": "# M\n\nSome prose.\n"}, min_words=1)
    spec = pairs_spec(teacher=teacher_spec())
    with pytest.raises(InputError, match="neither a URL nor a model"):
        pairs(spec, PairsInputs(passages=read.folder), Workspace(root=tmp_path / "p"))


def test_stages_and_pairs_load_no_torch() -> None:
    code = (
        "import sys, tunesmith.data.documents.stages, tunesmith.data.documents.pairs, tunesmith.data.documents.approve\n"
        "heavy = {'torch', 'pyarrow', 'sklearn', 'docx', 'pypdfium2', 'trafilatura', 'lxml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
