"""Whatever bytes a project file holds, it loads or is refused with places: no traceback, no hang."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tunesmith.core.errors import ProjectFileError
from tunesmith.core.project_file import load

SEEDS = [
    b"task: {kind: classify, text: t, label: l}\ndata: {files: [d.csv]}\ntrain: {lr: 1e-3, method: {rank: 8}}\n",
    b"task:\n  kind: summarize\n  text: t\n  label: l\n  audience: |\n    two\n    lines\ndata:\n  files:\n    - d.csv\n"
    b"goals:\n  - rougeL >= 0.2 @ group=x\n  - {beats: [lead], confidence: 0.9}\n",
    b'extends: "base.yaml"\nmodel: \'x\'\nserve: {port: 1}\nexec: {micro_batch_tokens: auto}\ngoals: ["accuracy >= 1"]\n',
]
PIECES = [
    b": ", b"- ", b"[", b"]", b"{", b"}", b"'", b'"', b"&a ", b"*a", b"!!str ", b"! ", b"|\n", b">-\n", b"? ", b"#", b"%YAML 1.1\n",
    b"---\n", b"...\n", b"\n", b"\t", b"  ", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\\", b'"\\ud800"', b'"\\Uffffffff"',
    b'"\\x"', b"<<: ", b"null", b"~", b".nan", b"1e999", b"9" * 5000, b"2024-01-01", b"1_0", b"0x1", b"=", b"@", b"`", b",", b"\xe2\x80\xa8", b"\xc2\x85",
    b"goals: [{}]\n", b"train: 3\n", b"data: {files: {a: 1}}\n", b"task: []\n", b"goals: {a: b}\n", b"data: [1]\n", b"[[[[[[[[[[[[[[", b"{a: " * 20,
]  # fmt: skip


def mutated(random: random.Random) -> bytes:
    data = bytearray(random.choice(SEEDS))
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(5):
            case 0:
                data[at:at] = random.choice(PIECES)
            case 1:
                del data[at : at + random.randint(1, 12)]
            case 2 if at < len(data):
                data[at] = random.randrange(256)
            case 3:
                data[at:at] = data[random.randrange(len(data) + 1) :][:40]
            case _:
                lines = bytes(data).split(b"\n")
                random.shuffle(lines)
                data = bytearray(b"\n".join(lines))
    return bytes(data)


def survive(folder: Path, cases: int, seed: int) -> tuple[int, int]:
    """(loaded, refused); raises at the first file that does neither, or takes a second."""
    draw = random.Random(seed)
    path = folder / "tunesmith.yaml"
    (folder / "d.csv").write_text("t,l\n")
    (folder / "base.yaml").write_text("task: {kind: classify, text: t, label: l}\ndata: {files: [d.csv]}\n")
    took = [0, 0]
    for _ in range(cases):
        data = mutated(draw)
        path.write_bytes(data)
        start = time.perf_counter()
        try:
            piece = draw.choice(PIECES).decode("utf-8", "surrogateescape")
            project = load(path, [f"task.audience={piece}"] if draw.random() < 0.3 else [])
            project.resolved(), project.goals(), project.warnings()
            took[0] += 1
        except ProjectFileError as e:
            took[1] += 1
            assert e.problems, data
            for problem in e.problems:
                assert problem.where.split(":")[0] in ("tunesmith.yaml", "base.yaml") or problem.where.startswith(
                    "--set"
                ), data
                assert problem.what, data
        assert time.perf_counter() - start < 1, data
    return took[0], took[1]


def test_two_thousand_mutated_files_load_or_are_refused(tmp_path: Path) -> None:
    loaded, refused = survive(tmp_path, 2_000, seed=0)
    assert loaded > 40
    assert refused > 1_000


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_hundred_thousand_mutated_files_load_or_are_refused(tmp_path: Path, seed: int) -> None:
    loaded, refused = survive(tmp_path, 25_000, seed=seed)
    assert loaded + refused == 25_000
