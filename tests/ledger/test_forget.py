"""What is forgotten is nowhere in the project's folder, everything else is whole, and what was built from it is said."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger import remembering
from tests.ledger.remembering import NAME, ROW, SPEC, lines, made, remains, tickets
from tests.ledger.stages import add_source, run_repeat
from tests.ledger.test_doctor import forge
from tunesmith.core.canonical import file_id, read_json, read_lines
from tunesmith.core.errors import Busy, InputError, StorageError
from tunesmith.core.nouns import LeftOut, Row
from tunesmith.core.tombstones import forgotten_in, is_forgotten
from tunesmith.data.stages import CHECK
from tunesmith.ledger.backup import backup
from tunesmith.ledger.doctor import doctor
from tunesmith.ledger.execute import execute
from tunesmith.ledger.forget import Forget, Forgotten, forget, tombstones
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.locks import FileLock
from tunesmith.ledger.traces import Traces

PERSON = Forget(texts=(NAME,), why="asked for on 1 January")
Fill = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, tuple[Path, dict[str, str]]]:
    """Both ledgers, made once; each test works on a copy."""
    made_once = {}
    for small in (False, True):
        folder = tmp_path_factory.mktemp("filled")
        made_once[small] = (folder, remembering.fill(folder / ".tunesmith", small=small))
    return made_once


@pytest.fixture
def fill(filled: dict[bool, tuple[Path, dict[str, str]]]) -> Callable[..., dict[str, str]]:
    def copy(state: Path, *, small: bool = False) -> dict[str, str]:
        folder, ids = filled[small]
        shutil.copytree(folder, state.parent, symlinks=True, dirs_exist_ok=True)
        return ids

    return copy


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / ".tunesmith"


def own(state: Path) -> dict[str, Path]:
    return {p.name: p for p in (state.parent / "data").iterdir()}


def erase(state: Path, ids: dict[str, str], *, dry_run: bool = False) -> Forgotten:
    with Ledger.open(state) as ledger:
        request = Forget(rows=(ids["row"],), texts=(NAME,), why="asked")
        return forget(ledger, request, outside=own(state), dry_run=dry_run)


# What is gone


def test_no_byte_of_it_stays_under_the_state_folder(fill: Fill, state: Path) -> None:
    ids = fill(state)
    assert len(remains(state)) > 20
    done = erase(state, ids)
    assert remains(state) == []
    assert (done.rows, done.facts, done.traces, done.work) == (5, 4, 2, 1)
    assert not list((state / "work").iterdir())
    assert not (state / "forget.pending").exists()


def test_everything_else_is_whole_and_doctor_finds_nothing(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()
        for name in ids.keys() - {"row", "other", "other_source"}:
            assert ledger.is_whole(ids[name])
            ledger.path(ids[name])
        rows = list(read_lines(ledger.path(ids["audit"]) / "rows.jsonl", Row))
        assert [(r.file, r.line) for r in rows] == [("more.jsonl", 2), *(("tickets.csv", n) for n in range(2, 10))]
        gone = list(read_lines(ledger.path(ids["audit"]) / "left_out.jsonl", LeftOut))
        assert gone == []


def test_lines_keep_their_numbers_in_the_users_files(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        now = (ledger.path(ids["source"]) / "tickets.csv").read_text(encoding="utf-8").split("\n")
        before = tickets().split("\n")
        assert len(now) == len(before)
        assert [n for n, (a, b) in enumerate(zip(now, before, strict=True), 1) if a != b] == [10, 11, 12, 13, 14]
        assert all(now[n - 1] == "" for n in (10, 11, 12, 13, 14))
        more = (ledger.path(ids["source"]) / "more.jsonl").read_text(encoding="utf-8").split("\n")
        assert more[0] == "" and json.loads(more[1])["text"] == "A quiet record of its own"


def test_each_form_of_file_loses_the_record_and_no_more(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        artifact = ledger.artifact(ids["other_source"])
        read = {n: f.path.read_bytes() for n, f in ledger.files(artifact).items() if not f.erased}
        assert set(artifact.files) - set(read) == {"old.csv.gz"}
        assert read["box.mbox"].startswith(b"\n\n\n\n\n\nFrom c@d") and b"This mail stays." in read["box.mbox"]
        assert read["page.html"] == b"<html>\n<p>First.</p>\n\n<p>Last.</p>\n</html>\n"
        assert read["notes.txt"] == b"A text.\n\n\n\nand nobody else.\n"
        assert json.loads(read["list.json"]) == [{"text": "[forgotten]", "n": None}, {"text": "another one", "n": 8}]
        assert read["list.json"].count(b"\n") == 9
        with pytest.raises(StorageError, match=r"old\.csv\.gz: was erased on 20.*\n  fix: .*your own copy"):
            ledger.path(ids["other_source"])
        assert not ledger.is_whole(ids["other_source"])
        assert doctor(ledger).is_clean


def test_answers_stay_beside_their_rows(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        test = [json.loads(x)["id"] for x in (ledger.path(ids["dataset"]) / "test.jsonl").read_text().splitlines()]
        answers = [json.loads(x) for x in (ledger.path(ids["answers"]) / "answers.jsonl").read_text().splitlines()]
        items = [json.loads(x)["id"] for x in (ledger.path(ids["report"]) / "items.jsonl").read_text().splitlines()]
        assert [a["id"] for a in answers] == test == items and len(test) == 1
        assert answers[0]["text"] == "[forgotten]"  # the model said the name of a row that is not that person's


def test_seals_and_manifests_name_the_files_as_they_are_now(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        seal = file_id(ledger.path(ids["dataset"]) / "test.jsonl")
        for name, file in (("dataset", "dataset.json"), ("answers", "answers.json"), ("report", "report.json")):
            assert read_json(ledger.path(ids[name]) / file)["seal"] == seal
        card = ledger.path(ids["bundle"]) / "README.md"
        said = read_json(ledger.path(ids["bundle"]) / "tunesmith.json")["files"]["README.md"]
        assert said == {"sha256": file_id(card), "bytes": card.stat().st_size}


def test_a_judgment_keeps_who_and_when_and_loses_what(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        first = next(iter(Judgments(ledger).list("labels")))
        assert first["annotator"] == "anna" and first["at"] == "2026-01-01T00:00:00Z"
        assert first["value"] == first["reason"] == "[forgotten]" and first["item"].startswith("forgotten-")
        assert ledger.history("prod")[0].why == "[forgotten]"
        assert ledger.reference("prod") == ids["bundle"]


def test_a_row_by_its_place_by_its_id_and_by_its_key(fill: Fill, state: Path, tmp_path: Path) -> None:
    """Three ways to mean the same row."""
    after = []
    for n, way in enumerate(("id", "place", "key")):
        at = tmp_path / str(n) / ".tunesmith"
        ids = fill(at)
        with Ledger.open(at) as ledger:
            left = next(read_lines(ledger.path(ids["check"]) / "left_out.jsonl", LeftOut))
            assert left.text.startswith(ROW[:20])
            request = {"id": Forget(rows=(ids["row"][:12],)), "place": Forget(places=("tickets.csv:13",)),
                       "key": Forget(rows=(left.key,))}[way]  # fmt: skip
            done = forget(ledger, request)
            assert done.rows == 1 and done.places == ("tickets.csv:12",)
            after.append((ledger.path(ids["source"]) / "tickets.csv").read_text(encoding="utf-8"))
            assert doctor(ledger).is_clean
        held = [p for p in remains(at) if b"cockatoo" in (at / p).read_bytes().lower()]
        assert held == []
    assert after[0] == after[1] == after[2]
    assert NAME in after[0] and ROW not in after[0]


def test_a_place_inside_a_record_means_the_record(fill: Fill, state: Path) -> None:
    ids = fill(state, small=True)
    with Ledger.open(state) as ledger:
        done = forget(ledger, Forget(places=("./data/tickets.csv:11",)))
        assert done.places == ("tickets.csv:10",)
        assert NAME.upper() not in (ledger.path(ids["source"]) / "tickets.csv").read_text(encoding="utf-8")
        lines_left = (ledger.path(ids["audit"]) / "rows.jsonl").read_text(encoding="utf-8")
        assert '"line":10,' not in lines_left and "[NAME]" not in lines_left  # the redacted version of it, too


def test_a_label_and_a_shared_answer_are_no_ones_own(fill: Fill, state: Path) -> None:
    ids = fill(state, small=True)
    with Ledger.open(state) as ledger:
        before = len((ledger.path(ids["check"]) / "rows.jsonl").read_bytes().splitlines())
        forget(ledger, Forget(rows=(ids["row"],)))
        assert len((ledger.path(ids["check"]) / "rows.jsonl").read_bytes().splitlines()) == before - 1


# What is listed


def test_what_was_built_from_it_is_listed_with_its_aliases(fill: Fill, state: Path) -> None:
    ids = fill(state)
    done = erase(state, ids)
    assert [(r.id, r.kind, r.how, r.aliases) for r in done.reached] == [
        (ids["dataset"], "dataset", "held it in train, test", ()),
        (ids["checkpoint"], "checkpoint", "trained on it", ()),
        (ids["bundle"], "bundle", "trained on it", ("prod",)),
    ]
    with Ledger.open(state) as ledger:
        assert (ledger.path(ids["checkpoint"]) / "model.safetensors").read_bytes() == b"quickly-no"


def test_what_only_tested_a_model_did_not_train_it(fill: Fill, state: Path) -> None:
    ids = fill(state, small=True)
    with Ledger.open(state) as ledger:
        dry = forget(ledger, Forget(rows=(ids["row"],)), dry_run=True)
    assert [r.how for r in dry.reached] == ["held it in test", "tested on it", "tested on it"]


def test_the_users_own_files_are_named_by_line_and_not_touched(fill: Fill, state: Path) -> None:
    ids = fill(state)
    before = {name: path.read_bytes() for name, path in own(state).items()}
    done = erase(state, ids)
    assert [(o.file, o.lines) for o in done.outside] == [("more.jsonl", (1,)), ("tickets.csv", (10, 12, 13, 14))]
    assert {name: path.read_bytes() for name, path in own(state).items()} == before


def test_the_words_say_what_went_what_was_built_and_what_is_left_to_do(fill: Fill, state: Path) -> None:
    ids = fill(state)
    dry = str(erase(state, ids, dry_run=True))
    assert dry.startswith("would erase 5 rows, parts of") and dry.endswith("next:  the same command without --dry-run")
    said = str(erase(state, ids))
    assert said.startswith("erased 5 rows, parts of") and "1 file as a whole" in said
    assert f"bundle     {ids['bundle'][:12]}  trained on it  prod → it" in said
    assert "  tickets.csv:10, 12, 13, 14\n" in said and "not reached: backups" in said
    assert not any(canary in said.lower() for canary in ("quickly", "cockatoo"))


# What does not happen


def test_a_dry_run_changes_nothing(fill: Fill, state: Path) -> None:
    ids = fill(state)
    before = {p: p.read_bytes() for p in (state / "objects").rglob("*") if p.is_file()}
    dry = erase(state, ids, dry_run=True)
    assert {p: p.read_bytes() for p in (state / "objects").rglob("*") if p.is_file()} == before
    wet = erase(state, ids)
    assert (dry.rows, dry.files, dry.facts, dry.traces, dry.work, dry.reached) == (
        wet.rows, wet.files, wet.facts, wet.traces, wet.work, wet.reached,
    )  # fmt: skip
    assert dry.dry_run and not wet.dry_run


def test_again_finds_nothing_and_says_what_was_done_before(fill: Fill, state: Path) -> None:
    ids = fill(state)
    first = erase(state, ids)
    facts = Ledger.open(state).records.database.read("SELECT count(*) FROM facts")
    again = erase(state, ids)
    assert again.nothing and again.reached == first.reached and again.outside == first.outside
    assert [(e.rows, e.why) for e in again.earlier] == [(5, "asked")]
    assert "forgotten before:" in str(again)
    assert Ledger.open(state).records.database.read("SELECT count(*) FROM facts") == facts


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (Forget(rows=("0" * 64,)), "no row has this id"),
        (Forget(places=("nowhere.csv:3",)), "knows no file of this name"),
        (Forget(places=("tickets.csv",)), "is not a place"),
        (Forget(places=("tickets.csv:999",)), "no such line"),
        (Forget(texts=("a",)), "at least 3 characters"),
        (Forget(), "nothing was named"),
        (Forget(texts=(NAME,), why=f"{NAME} asked"), "the reason holds what is to be forgotten"),
    ],
)
def test_a_request_that_means_nothing_is_refused(fill: Fill, state: Path, request_: Forget, said: str) -> None:
    fill(state, small=True)
    with Ledger.open(state) as ledger, pytest.raises(InputError, match=said):
        forget(ledger, request_)


def test_a_word_is_not_found_inside_another(fill: Fill, state: Path) -> None:
    fill(state, small=True)
    with Ledger.open(state) as ledger:
        assert forget(ledger, Forget(texts=("print",)), dry_run=True).nothing
        assert forget(ledger, Forget(texts=("PRINT*",)), dry_run=True).rows == 2


def test_it_waits_for_writers_and_refuses_while_a_stage_runs(fill: Fill, state: Path) -> None:
    ids = fill(state, small=True)
    with Ledger.open(state) as ledger:
        with FileLock(state / "locks" / ("b" * 64)) as lock:
            lock.sign()
            with pytest.raises(Busy, match=rf"a stage is at work.*process {os.getpid()}"):
                forget(ledger, PERSON)
        done: list[Forgotten] = []
        with ledger.objects.session():
            waiting = threading.Thread(target=lambda: done.append(erase(state, ids)))
            waiting.start()
            waiting.join(0.3)
            assert not done
        waiting.join(30)
        assert done and not done[0].nothing


def test_unfinished_work_from_other_data_goes_on(fill: Fill, state: Path, tmp_path: Path) -> None:
    fill(state, small=True)
    with Ledger.open(state) as ledger:
        other = ledger.add_files("source", {"x.csv": _file(tmp_path / "x.csv", "text,label\na,b\n")}, move=False).id
        with pytest.raises(KeyboardInterrupt):
            _interrupted(ledger, other)
        (key,) = [p.name for p in ledger.work.iterdir() if p.name != "a" * 64]
        assert forget(ledger, PERSON).work == 1
        assert [p.name for p in ledger.work.iterdir()] == [key]


def _interrupted(ledger: Ledger, source: str) -> None:
    from tests.ledger import stages

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before, stages.hook = stages.hook, stop
    try:
        run_repeat(ledger, source)
    finally:
        stages.hook = before


def _file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# What comes back


def test_the_same_file_is_not_taken_in_again(fill: Fill, state: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    refused = pytest.raises(InputError, match=r"tickets\.csv:10, 12, 13, 14: still holds what was forgotten on 20")
    with Ledger.open(state) as ledger, refused:
        ledger.add("source", state.parent / "data", move=False)
    assert remains(state) == []
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()


def test_a_row_in_new_data_is_known_by_its_tombstone(fill: Fill, state: Path, tmp_path: Path) -> None:
    ids = fill(state, small=True)
    with Ledger.open(state) as ledger:
        assert tombstones(ledger) == ()
        done = forget(ledger, Forget(rows=(ids["row"],)))
        stones = tombstones(ledger)
        assert len(stones) == done.rows == 1 and ids["row"] not in str(stones)
        assert is_forgotten(ids["row"], stones) and not is_forgotten(ids["other"], stones)
        forget(ledger, PERSON)
        assert len({s.partition(":")[0] for s in tombstones(ledger)}) == 1
        fresh = ledger.add_files("source", {"new.csv": _file(tmp_path / "n.csv", f"text,label\n{ROW},device\nfree,money\n")}, move=False)  # fmt: skip
        check = execute(ledger, CHECK, SPEC, {"source": fresh.id, "made": None}).outputs["examples"]
        known = forgotten_in(tombstones(ledger))
        assert [known(r.id) for r in read_lines(ledger.path(check) / "rows.jsonl", Row)] == [True, False]


def test_a_second_person_in_the_same_files(fill: Fill, state: Path) -> None:
    """The lines still mean what they meant."""
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        done = forget(ledger, Forget(places=("tickets.csv:9",)))
        assert done.rows == 1 and done.places == ("tickets.csv:9",)
        assert doctor(ledger).findings == ()
        rows = list(read_lines(ledger.path(ids["audit"]) / "rows.jsonl", Row))
        assert [(r.file, r.line) for r in rows] == [("more.jsonl", 2), *(("tickets.csv", n) for n in range(2, 9))]
        assert len(ledger.notes("forgotten")) == 2


def test_redacted_artifacts_are_used_and_backed_up_as_they_are(fill: Fill, state: Path, tmp_path: Path) -> None:
    ids = fill(state)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        again = execute(ledger, CHECK, SPEC, {"source": ids["source"], "made": None})
        assert again.reused and again.outputs["examples"] == ids["check"]
        copy = backup(ledger, tmp_path / "copy").folder
    assert remains(copy) == []
    with Ledger.open(copy) as restored:
        assert doctor(restored).findings == ()
        assert (restored.path(ids["audit"]) / "rows.jsonl").read_bytes()


# What is still proven


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE facts SET body = replace(body, '[forgotten]', 'forged') WHERE kind = 'reference'", "was changed after"),
        ("UPDATE facts SET body = replace(body, '\"why\":\"asked\"', '\"why\":\"x\"') WHERE kind = 'forget'", "was changed after"),
        ("DELETE FROM redactions", "redactions: lacks the row"),
        ("UPDATE redactions SET new = old WHERE new NOTNULL", "redactions: has a row"),
    ],
)  # fmt: skip
def test_a_forged_redaction_is_found(fill: Fill, state: Path, statement: str, said: str) -> None:
    erase(state, fill(state, small=True))
    with Ledger.open(state) as ledger:
        assert doctor(ledger).findings == ()
        forge(ledger, statement)
        assert any(said in f.what or said in f"{f.where}: {f.what}" for f in doctor(ledger).findings)


def test_a_damaged_redacted_object_is_found(fill: Fill, state: Path) -> None:
    ids = fill(state, small=True)
    erase(state, ids)
    with Ledger.open(state) as ledger:
        file = ledger.files(ledger.artifact(ids["source"]))["tickets.csv"].path
        file.chmod(0o644)
        file.write_bytes(b"rot")
        assert [f.where for f in doctor(ledger).findings] == [str(file)]
        with pytest.raises(StorageError, match="the content has changed"):
            ledger.path(ids["source"])


def test_facts_stay_append_only_for_everybody_else(fill: Fill, state: Path) -> None:
    erase(state, fill(state, small=True))
    db = sqlite3.connect(state / "ledger.db")
    with pytest.raises(sqlite3.Error, match="append-only"):
        db.execute("UPDATE facts SET body = '{}' WHERE seq = 1")
    db.close()


def test_names_of_stored_files_are_listed_not_changed(fill: Fill, state: Path, tmp_path: Path) -> None:
    with Ledger.open(state) as ledger:
        made(ledger, tmp_path, "import", "source", {}, {"mail/zoë_quickly-canary.txt": b"nothing\n"})
        done = forget(ledger, PERSON)
        assert done.names == ("mail/zoë_quickly-canary.txt",) and "names are kept" in str(done)


def test_an_artifact_of_another_project_kind_is_searched_too(ledger: Ledger, tmp_path: Path) -> None:
    source = add_source(ledger, f"a,b\n{NAME},2\nx,y\n")
    run = run_repeat(ledger, source)
    made(ledger, tmp_path, "other", "surprise", {"x": source}, {"deep/a.jsonl": lines({"said": f"<{NAME}>", "n": 1})})
    assert not forget(ledger, PERSON).nothing
    assert remains(ledger.state) == []
    assert doctor(ledger).findings == ()
    assert ledger.finished(run.key) is not None


def test_nothing_stays_in_the_logs_of_databases_that_others_have_open(state: Path) -> None:
    """A log is folded into its database only when the last connection closes; a server closes none for weeks."""
    with Ledger.open(state) as ledger, Traces.open(state / "traces.db", store_content=True) as traces:
        for n in range(20):
            ledger.note("look", {"n": n, "about": f"{NAME} {n} " * 300})
            traces.append(
                id=f"t{n}", bundle="b", route="/v1", model="m", status=200, streaming=0, prompt_tokens=1,
                answer_tokens=1, seconds=0.1, client="c", messages=[{"role": "user", "content": NAME}], answer=NAME * 300,
            )  # fmt: skip
        traces.flush()
        assert {"ledger.db-wal", "traces.db-wal"} <= set(remains(state))
        done = forget(ledger, PERSON)
        assert (done.facts, done.traces) == (20, 20)
        assert remains(state) == []
        assert len(traces.rows()) == 20 and doctor(ledger).findings == ()
