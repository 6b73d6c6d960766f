"""Whole files, without a server: what is asked is answered once, in order, whatever interrupts."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import random
import signal
import threading
from pathlib import Path

import pytest

from tunesmith.core.errors import DataError, InputError, Stopped
from tunesmith.core.nouns import Message
from tunesmith.model.answer import LanguageModel
from tunesmith.serve.ask import ask
from tunesmith.serve.bundle import LoadedBundle
from tunesmith.serve.predict import predict, predict_file, side_file
from tunesmith.serve.table import csv_line, whole_records

ROWS = [
    ("1", "Fracture of shaft of left tibia", "=HYPERLINK(1)"),
    ("2", "Der Ball ist rund, sagt man", "-5"),
    ("3", 'He said "no"\nand left', "+1"),
    ("4", "the quick brown fox", "@SUM"),
    ("5", "Die Aktie fiel", "plain"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "new.csv"
    with open(path, "w", newline="", encoding="utf-8") as f:
        csv.writer(f).writerows([("id", "text", "label"), *ROWS])
    return path


def read(path: Path, delimiter: str = ",") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), delimiter=delimiter))


def test_ask_answers_as_the_model_was_evaluated(classify_bundle: LoadedBundle, chat_bundle: LoadedBundle) -> None:
    prompt = [Message(role="user", content="Die Aktie fiel")]
    model = LanguageModel(classify_bundle.model, classify_bundle.renderer)
    want = model.choose([prompt], classify_bundle.labels, batch_tokens=4096)[0]
    got = ask(classify_bundle, "Die Aktie fiel")
    assert dataclasses.replace(got, seconds=0) == dataclasses.replace(want, seconds=0)
    free = ask(chat_bundle, prompt)
    assert free.finish in ("stop", "length") and free.probabilities is None


@pytest.mark.parametrize("text, message", [("  ", "the question is empty"), ("fox " * 600, "the model holds 512")])
def test_ask_refuses_what_it_cannot_answer(chat_bundle: LoadedBundle, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ask(chat_bundle, text)


def test_every_row_gets_its_answer_beside_its_own_columns(classify_bundle: LoadedBundle, source: Path) -> None:
    out = source.with_name("answers.csv")
    seen: list[float] = []
    done = predict_file(classify_bundle, source, out, text="text", batch_rows=2, progress=lambda d, *_: seen.append(d))
    assert (done.rows, done.reused) == (5, 0) and seen == [2, 4, 5]
    rows = read(out)
    assert list(rows[0]) == ["label", "confidence", "id", "text", "input_label"]
    for row, (name, text, _) in zip(rows, ROWS, strict=True):
        want = ask(classify_bundle, text)
        assert (row["id"], row["text"], row["label"]) == (name, text, want.text)
        assert float(row["confidence"]) == pytest.approx(want.confidence, abs=1e-4)


def test_no_cell_is_a_formula(classify_bundle: LoadedBundle, source: Path) -> None:
    out = source.with_name("answers.csv")
    predict_file(classify_bundle, source, out, text="text")
    assert [r["input_label"] for r in read(out)] == ["'=HYPERLINK(1)", "'-5", "'+1", "'@SUM", "plain"]


def test_a_second_run_answers_nothing_again(classify_bundle: LoadedBundle, source: Path) -> None:
    out = source.with_name("answers.csv")
    predict_file(classify_bundle, source, out, text="text")
    before = out.read_bytes()
    assert predict_file(classify_bundle, source, out, text="text").reused == 5
    assert out.read_bytes() == before


@pytest.mark.parametrize("cut", range(1, 400, 7))
def test_a_torn_output_is_finished_to_the_same_bytes(
    classify_bundle: LoadedBundle, source: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut at many bytes, some inside quotes: rows that were whole are kept, the torn one is done again."""
    out = source.with_name("answers.csv")
    predict_file(classify_bundle, source, out, text="text")
    whole = out.read_bytes()
    out.write_bytes(whole[: max(0, len(whole) - cut)])
    kept = max(0, whole_records(out)[0] - 1)
    again = predict_file(classify_bundle, source, out, text="text")
    assert out.read_bytes() == whole and again.reused == kept


def test_a_changed_input_bundle_or_column_is_refused(
    classify_bundle: LoadedBundle, chat_bundle: LoadedBundle, source: Path
) -> None:
    out = source.with_name("answers.csv")
    predict_file(classify_bundle, source, out, text="text")
    before = out.read_bytes()
    with pytest.raises(InputError, match="the answers in it are of another bundle and columns"):
        predict_file(chat_bundle, source, out, text="text")
    with pytest.raises(InputError, match="of another text column"):
        predict_file(classify_bundle, source, out, text="label")
    source.write_text(source.read_text() + "6,more,x\n")
    with pytest.raises(InputError, match=r"of another input file\n  fix: .*remove answers.csv"):
        predict_file(classify_bundle, source, out, text="text")
    assert out.read_bytes() == before


def test_a_file_of_somebody_else_is_never_touched(classify_bundle: LoadedBundle, source: Path) -> None:
    out = source.with_name("mine.csv")
    out.write_text("precious\n")
    with pytest.raises(InputError, match="was not written by predict"):
        predict_file(classify_bundle, source, out, text="text")
    with pytest.raises(InputError, match="input and output are the same file"):
        predict_file(classify_bundle, source, source, text="text")
    assert out.read_text() == "precious\n" and not side_file(out).exists()


@pytest.mark.parametrize(
    "name, content, text, message",
    [
        ("a.csv", "id,text\n1\n2,b,c\n", "text", r"a\.csv:2: the row has 1 cells, the header 2\n.*\n.*a\.csv:3: the row has 3"),
        ("a.csv", "id,text\n1,ok\n2,\n", "text", r"a\.csv:3: text: the text is empty"),
        ("a.csv", "id,text\n1,ok\n", "txt", r"there is no column 'txt'; the file has: id, text"),
        ("a.csv", "id,id\n1,ok\n", "id", "two columns have the same name"),
        ("a.csv", "text\n" + "fox " * 600 + "\n", "text", r"a\.csv:2: text: the prompt has \d+ tokens"),
        ("a.csv", "text\n", "text", "the file has no rows"),
        ("a.csv", "", "text", "there is no column 'text'"),
        ("a.csv", 'text\n"open\n', "text", "not readable as CSV"),
        ("a.csv", b"text\ncaf\xe9\n", "text", r"a\.csv:2: byte 3 of the line is not UTF-8\n  fix: .*iconv"),
        ("a.csv", "text\na\0b\n", "text", "NUL"),
        ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n[1]\n{"text": 5}\n{"text": "a", "text": "b"}\n', "text",
         r"a\.jsonl:2: 'text' is missing(.|\n)*a\.jsonl:3: not a JSON object(.|\n)*:4: 'text' is not a text(.|\n)*:5: a key is there twice"),
        ("a.jsonl", '{"text": "a", "x": NaN}\n', "text", "NaN is not JSON"),
        ("a.jsonl", '{"text": "\\ud800"}\n', "text", "a.jsonl:1: "),
        ("a.xlsx", "x", "text", ".xlsx extension is not known"),
    ],
)  # fmt: skip
def test_bad_rows_are_named_before_any_is_answered(
    classify_bundle: LoadedBundle, tmp_path: Path, name: str, content: str | bytes, text: str, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((DataError, InputError), match=message):
        predict_file(classify_bundle, path, tmp_path / "out.csv", text=text)
    assert not (tmp_path / "out.csv").exists()


def test_json_lines_and_tabs_and_conversations_are_read(classify_bundle: LoadedBundle, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    turns = [{"role": "user", "content": "Die Aktie fiel"}, {"role": "assistant", "content": "the truth"}]
    lines = [{"text": "Der Ball", "n": 3}, {"messages": turns, "n": None}]
    path.write_text("\ufeff" + "\n\n".join(map(json.dumps, lines)) + "\n")
    out = tmp_path / "out.tsv"
    predict_file(classify_bundle, path, out, text=None)
    rows = read(out, "\t")
    assert list(rows[0]) == ["label", "confidence", "text", "n", "messages"]
    assert [r["label"] for r in rows] == [ask(classify_bundle, t).text for t in ("Der Ball", "Die Aktie fiel")]
    assert rows[0]["n"] == "3" and rows[0]["messages"] == "" and json.loads(rows[1]["messages"]) == turns
    untold = tmp_path / "untold.jsonl"
    untold.write_text('{"instruction": "Der", "input": "Ball"}\n{"prompt": "Der Ball"}\n')
    predict_file(classify_bundle, untold, tmp_path / "u.csv", text=None)
    assert [r["label"] for r in read(tmp_path / "u.csv")] == [
        ask(classify_bundle, t).text for t in ("Der\n\nBall", "Der Ball")
    ]
    untold.write_text('{"text": "a", "prompt": "b"}\n')
    with pytest.raises(DataError, match=r"untold.jsonl:1: which column is the prompt is unknown: .* text, prompt"):
        predict_file(classify_bundle, untold, tmp_path / "v.csv", text=None)
    semicolons = tmp_path / "german.csv"
    semicolons.write_text("id;text\n1;Der Ball\n")
    assert predict_file(classify_bundle, semicolons, tmp_path / "g.csv", text="text").rows == 1


def test_memory_stays_bounded_by_the_batch(classify_bundle: LoadedBundle) -> None:
    ahead = 0

    def prompts() -> object:
        nonlocal ahead
        for i in range(12):
            ahead = i
            yield [Message(role="user", content=f"fox {i}")]

    answers = predict(classify_bundle, prompts(), batch_rows=3)  # type: ignore[arg-type]
    next(answers)
    assert ahead == 2
    assert len(list(answers)) == 11


def test_stopping_keeps_what_is_written_and_resumes(classify_bundle: LoadedBundle, source: Path) -> None:
    out, stop = source.with_name("answers.csv"), threading.Event()
    with pytest.raises(Stopped, match="2 of 5 rows are written"):
        predict_file(classify_bundle, source, out, text="text", batch_rows=2, stop=stop, progress=lambda *_: stop.set())
    assert predict_file(classify_bundle, source, out, text="text").reused == 2


def test_a_table_of_any_text_is_read_back_record_by_record(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [["".join(rng.choices('a,"\n\r\t;é', k=rng.randint(0, 12))) for _ in range(3)] for _ in range(300)]
    path = tmp_path / "t.csv"
    path.write_bytes(b"".join(csv_line(["x", *r]) for r in rows))
    assert whole_records(path) == (300, path.stat().st_size)
    back = list(csv.reader(io.StringIO(path.read_bytes().decode(), newline="")))
    assert [[c.removeprefix("'") for c in r[1:]] for r in back] == [[c.removeprefix("'") for c in r] for r in rows]


def test_a_kill_loses_no_finished_row(classify_bundle: LoadedBundle, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("text\n" + "".join(f"row {i} of the lazy dog\n" for i in range(400)))
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        predict_file(
            classify_bundle,
            source,
            out,
            text="text",
            batch_rows=1,
            progress=lambda done, *_: os.write(tell, b"%d\n" % done),
        )
        os._exit(0)
    os.close(tell)
    with open(told) as progress:
        for line in progress:
            if int(line) >= 60:
                break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        acknowledged = max([int(line), *map(int, progress.read().split())])
    assert acknowledged < 400
    done = predict_file(classify_bundle, source, out, text="text")
    assert done.rows == 400 and 60 <= acknowledged <= done.reused < 400
    assert [r["text"] for r in read(out)] == [f"row {i} of the lazy dog" for i in range(400)]
