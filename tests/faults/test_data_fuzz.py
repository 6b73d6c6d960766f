"""Mutated files: every record is accepted or refused, nothing else is raised, nothing hangs. Reliability figure 8."""

from __future__ import annotations

import gzip
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
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
    b'{"messages":[{"role":"user","content":"W?"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function",'
    b'"function":{"name":"f","arguments":"{\\"a\\": [1, null]}"}}]},{"role":"tool","tool_call_id":"c","content":"s"},'
    b'{"role":"assistant","content":"S"}],"tools":[{"type":"function","function":{"name":"f","parameters":{}}}]}\n',
    b'{"input":{"messages":[{"role":"user","content":"a"}]},"preferred_output":[{"role":"assistant","content":"b"}],'
    b'"non_preferred_output":[{"role":"assistant","content":"c"}]}\n',
    b'{"prompt":"P","chosen":"good","rejected":"bad"}\n',
    b'{"chosen":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}],"rejected":[{"role":"user","content":"a"},'
    b'{"role":"assistant","content":"c"}]}\n',
    b'{"conversations":[{"from":"human","value":"W"},{"from":"function_call","value":"{\\"name\\":\\"f\\",\\"arguments\\":{}}"},'
    b'{"from":"observation","value":"o"},{"from":"gpt","value":"x"}],"system":"s","tools":"[]"}\n',
    b'{"inputs":"i","targets":"t","task":"x"}\n',
    b'{"bundle":"b","messages":"[{\\"role\\":\\"user\\",\\"content\\":\\"a\\"}]","answer":"x","status":200}\n',
]
MAIL = [
    b"From ann Thu Aug 22 12:36:23 2002\n",
    b"From: =?iso-8859-1?Q?J=F6rg?= <j@x.y>\nTo: b\nSubject: =?utf-8?B?xbw=?=\n x\nDate: Thu, 22 Aug 2002 12:36:23 +0100\n\n",
    b'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="B"\n\n--B\nContent-Type: text/plain; charset=koi8-r\n'
    b"Content-Transfer-Encoding: base64\n\nzcnS\n--B\nContent-Type: text/html\n\n<p>x</p>\n--B--\n\n",
    b"plain line\n>From here\n\n",
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


def fuzz_json(folder: Path, n: int, rng: random.Random) -> None:
    """A list of mutated elements: each is yielded or refused until the place is lost, and then nothing follows."""
    elements = [
        mutate(rng.choice(JSONL).strip(), rng) if rng.random() < 0.3 else rng.choice(JSONL).strip() for _ in range(n)
    ]
    body = b"[" + b",\n".join(elements) + b"]"
    path = folder / "fuzz.json"
    path.write_bytes(body)
    try:
        good, bad, facts = read_all(path)
    except DataError as e:
        assert str(e)
        return
    lost = [b for b in bad if b.loses_place]
    assert len(lost) <= 1 and all(r.line <= lost[0].line for r in good if lost)
    if not lost:
        assert sum(r.lines for r in [*good, *bad]) >= 1 and facts.lines == body.count(b"\n") + 1
    for record in good:
        canonical_json(record.fields)


def fuzz_mail(folder: Path, n: int, rng: random.Random) -> None:
    """Messages with decoded texts, whatever they are made of."""
    body = MAIL[0] + MAIL[1] + b"".join(mutate(rng.choice(MAIL), rng) for _ in range(n))
    path = folder / rng.choice(("fuzz.mbox", "fuzz.eml", "fuzz.txt"))
    path.write_bytes(body)
    good, bad, _ = read_all(path)
    assert good or bad
    for record in good:
        canonical_json(record.fields)


def fuzz_binary(folder: Path, n: int, rng: random.Random) -> None:
    """Packed files, tables and databases with flipped and missing bytes: records, or one DataError."""
    for name, whole in BINARY:
        body = bytearray(whole)
        for _ in range(rng.choice((0, 1, 2, 8))):
            body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
        path = folder / name
        path.write_bytes(body[: rng.choice((len(body), len(body), rng.randrange(len(body))))])
        try:
            good, bad, _ = read_all(path)
        except DataError as e:
            assert str(e) and e.problems[0].where.startswith(name)
            continue
        assert len(good) + len(bad) <= 10 * n


def _binary() -> list[tuple[str, bytes]]:
    rows = [{"text": f"text {i}", "label": "x", "turns": [{"role": "user", "content": "a"}]} for i in range(40)]
    lines = b"".join(canonical_json(r) + b"\n" for r in rows)
    made = [("fuzz.jsonl.gz", gzip.compress(lines))]
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "x.db"
        with closing(sqlite3.connect(database)) as db, db:
            db.execute("CREATE TABLE t (text TEXT, label TEXT)")
            db.executemany("INSERT INTO t VALUES (:text, :label)", rows)
        made.append(("fuzz.sqlite", database.read_bytes()))
    with suppress(ImportError):
        import pyarrow as pa
        import pyarrow.feather
        import pyarrow.parquet
        import zstandard

        made.append(("fuzz.jsonl.zst", zstandard.compress(lines)))
        for name, write in (
            ("fuzz.parquet", pyarrow.parquet.write_table),
            ("fuzz.arrow", pyarrow.feather.write_feather),
        ):
            sink = pa.BufferOutputStream()
            write(pa.Table.from_pylist(rows), sink)
            made.append((name, sink.getvalue().to_pybytes()))
    return made


BINARY = _binary()


def fuzz_check(folder: Path, n: int, rng: random.Random) -> None:
    """The whole stage: rows read = rows kept + rows left out, or one DataError."""
    bodies = {
        "fuzz.jsonl": JSONL[rng.randrange(len(JSONL))] + b"".join(mutate(rng.choice(JSONL), rng) for _ in range(n)),
        "fuzz.csv": b"text,label,group\n" + CSV[0] + b"".join(mutate(rng.choice(CSV), rng) for _ in range(n)),
        "fuzz.json": b"["
        + b",".join([JSONL[rng.randrange(len(JSONL))], *(mutate(rng.choice(JSONL), rng) for _ in range(n // 4))])
        + b"]",
        "box/fuzz": MAIL[0] + MAIL[1] + b"".join(mutate(rng.choice(MAIL), rng) for _ in range(n)),
    }
    name = rng.choice(sorted(bodies))
    kind = rng.choice(("classify", "chat", "instruct", "domain", "summarize"))
    named = {"text": "text", "label": "label"} if rng.random() < 0.3 else {}
    if name == "box/fuzz":
        named = {"text": "body", "label": "folder"}
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
    (fuzz_json, 20),
    (fuzz_mail, 12),
    (fuzz_binary, 40),
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
    run(
        fuzzer,
        tmp_path,
        files=5_000 // n // (5 if fuzzer in (fuzz_check, fuzz_mail) else 2 if fuzzer is fuzz_binary else 1),
        n=n,
        seed=0,
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "fuzzer, n, lines",
    [
        (fuzz_jsonl, 500, 600_000),
        (fuzz_csv, 50, 250_000),
        (fuzz_json, 50, 60_000),
        (fuzz_mail, 20, 20_000),
        (fuzz_binary, 40, 20_000),
        (fuzz_check, 25, 50_000),
    ],
)
def test_a_million_mutated_lines_are_accepted_or_refused(
    fuzzer: Callable[[Path, int, random.Random], None], n: int, lines: int, tmp_path: Path
) -> None:
    run(fuzzer, tmp_path, files=lines // n, n=n, seed=1)
