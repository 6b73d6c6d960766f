"""Mutated files: every record is accepted or refused, nothing else is raised, nothing hangs. Reliability figure 8."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.data.making import read_all, run_check
from tunesmith.core.canonical import canonical_json, content_id
from tunesmith.core.errors import DataError

CSV = [
    b'"Cholera, unspecified",Infectious,A00\n',
    b'"He said ""no""\nand left",Other,"B 1"\n',
    "Überfunktion der Schilddrüse,Endocrine,E05\r\n".encode(),
    b"plain text,Other,C42\n",
]
JSONL = [
    b'{"messages":[{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello","weight":1}]}\n',
    b'{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a\\n\\u00e9"},{"role":"assistant","content":"b"}]}\n',
    '{"instruction":"Füge \\"a\\": hinzu","input":"1, 2","output":"3"}\n'.encode(),
    b'{"prompt":"P","completion":" C"}\r\n',
    b'{"text":"t","label":"x","group":3,"score":1.5e3,"tags":[null,true,{"a":{}}]}\n',
    b'{"conversations":[{"from":"human","value":"Hi"},{"from":"gpt","value":"Hello"}]}\n',
]
SPLICES = [
    b'"', b'""', b"\\", b"\\u0000", b"\\ud800", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\n", b"\r\n", b",",
    b";", b"\t", b"{", b"}", b"[" * 50, b"]", b":", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"null", b"true", b"-", b"0.",
    b'"text":"x",', b'"messages":[],', b'"role":"bot"', b'"weight":0,', "\u2028".encode(), "\U0001f600".encode(), b" ", b"", b"\x1a",
]  # fmt: skip


def mutate(line: bytes, rng: random.Random) -> bytes:
    body = bytearray(line)
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        i = rng.randrange(len(body) + 1)
        j = min(len(body), i + rng.choice((0, 0, 1, 1, 2, 8)))
        match rng.randrange(5):
            case 0:
                body[i:j] = rng.choice(SPLICES)
            case 1:
                del body[i:j]
            case 2:
                body[i:i] = body[i:j] * 2
            case 3 if i < len(body):
                body[i] ^= 1 << rng.randrange(8)
            case _:
                body[i:i] = rng.choice(SPLICES)
    return bytes(body)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for part in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from texts(part)


def fuzz_jsonl(folder: Path, n: int, rng: random.Random) -> None:
    """Of a file of lines, those with anything on them are the accepted and the refused ones."""
    body = b"".join(mutate(rng.choice(JSONL), rng) for _ in range(n))
    path = folder / "fuzz.jsonl"
    path.write_bytes(body)
    good, bad, facts = read_all(path)
    lines = body.split(b"\n")
    assert len(good) + len(bad) + facts.blank_lines == len(lines) - (lines[-1] == b"")
    assert sorted([r.line for r in good] + [b.line for b in bad]) == sorted(
        {r.line for r in good} | {b.line for b in bad}
    )
    for record in good:  # what is accepted can be written and has one meaning
        canonical_json(record.fields)
        assert not any("\0" in text for text in texts(record.fields))
    assert all(b.fault.reason and b.fault.what for b in bad)


def fuzz_csv(folder: Path, n: int, rng: random.Random) -> None:
    """Records, refusals and blank lines follow each other through the file: none overlaps, no line is lost."""
    body = b"text,label,group\n" + b"".join(mutate(rng.choice(CSV), rng) for _ in range(n))
    path = folder / rng.choice(("fuzz.csv", "fuzz.tsv"))
    path.write_bytes(body)
    try:
        good, bad, facts = read_all(path)
    except DataError as e:
        assert str(e)
        return
    spans = sorted((r.line, r.lines) for r in [*good, *bad])
    assert all(line + n <= following for (line, n), (following, _) in pairwise(spans))
    assert 1 + facts.blank_lines + sum(n for _, n in spans) == facts.lines
    for record in good:
        content_id(record.fields)
        assert len(record.fields) == len(facts.columns)


def fuzz_check(folder: Path, n: int, rng: random.Random) -> None:
    """The whole stage: rows read = rows kept + rows left out, or one DataError."""
    bodies = {
        "fuzz.jsonl": JSONL[rng.randrange(len(JSONL))] + b"".join(mutate(rng.choice(JSONL), rng) for _ in range(n)),
        "fuzz.csv": b"text,label,group\n" + CSV[0] + b"".join(mutate(rng.choice(CSV), rng) for _ in range(n)),
    }
    name = rng.choice(sorted(bodies))
    kind = rng.choice(("classify", "chat", "instruct", "domain", "summarize"))
    named = {"text": "text", "label": "label"} if rng.random() < 0.3 else {}
    root = folder / str(rng.random())
    try:
        got = run_check(
            root, {name: bodies[name]}, kind=kind, bad_rows="leave_out", contradictions="leave_out", **named
        )  # fmt: skip
    except DataError as e:
        assert str(e) and all(p.where or p.what for p in e.problems)
        return
    assert (
        got.facts["read"]
        == len(got.rows) + len(got.left_out)
        == got.facts["kept"] + sum(got.facts["left_out"].values())
    )
    assert all(row.id == row.example.id and row.target.strip() for row in got.rows)


FUZZERS: list[tuple[Callable[[Path, int, random.Random], None], int]] = [
    (fuzz_jsonl, 50),
    (fuzz_csv, 8),
    (fuzz_check, 12),
]


def run(fuzzer: Callable[[Path, int, random.Random], None], folder: Path, files: int, n: int, seed: int) -> None:
    rng = random.Random(seed)
    for i in range(files):
        started = time.monotonic()
        try:
            fuzzer(folder, n, rng)
        except Exception as e:
            raise AssertionError(f"{fuzzer.__name__}, file {i} of seed {seed}: {type(e).__name__}: {e}") from e
        assert time.monotonic() - started < 5, f"{fuzzer.__name__}, file {i} of seed {seed} hung"


@pytest.mark.parametrize("fuzzer, n", FUZZERS)
def test_mutated_lines_are_accepted_or_refused(
    fuzzer: Callable[[Path, int, random.Random], None], n: int, tmp_path: Path
) -> None:
    run(fuzzer, tmp_path, files=5_000 // n // (5 if fuzzer is fuzz_check else 1), n=n, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "fuzzer, n, lines", [(fuzz_jsonl, 500, 700_000), (fuzz_csv, 50, 250_000), (fuzz_check, 25, 50_000)]
)
def test_a_million_mutated_lines_are_accepted_or_refused(
    fuzzer: Callable[[Path, int, random.Random], None], n: int, lines: int, tmp_path: Path
) -> None:
    run(fuzzer, tmp_path, files=lines // n, n=n, seed=1)
