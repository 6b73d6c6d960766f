"""A small project's ledger in which one person and one row are everywhere, and a search for what is left of them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import canonical_json, file_id
from tunesmith.core.nouns import Change, LeftOut, Message, Row, Run
from tunesmith.data.stages import CHECK, CheckSpec
from tunesmith.ledger.execute import execute
from tunesmith.ledger.judgments import Judgments
from tunesmith.ledger.ledger import Ledger
from tunesmith.ledger.records import now, run_fact, run_id
from tunesmith.ledger.traces import Traces

NAME = "Zoë Quickly-Canary"
ROW = "My cockatoo plays the bassoon every single night so what can I do?"  # the row that is asked for by its id
CANARIES = ("quickly-canary", "cockatoo", "canary@birds")
SPEC = CheckSpec(
    kind="classify", text="text", label="label", group=None, weight=None, shape=None, query=None, sheet=None, keep=(),
    labels=(), variants={}, unlabelled="refuse", forgotten=(), bad_rows="leave_out", duplicates="leave_out", contradictions="leave_out", min_class_rows=1, restored=(),
)  # fmt: skip


def tickets(own: str = "", extra: str = "") -> str:
    lines = ["text,label,who"]
    lines += [f"The {thing} of number {n} does not work at all,{label},user{n}" for n, (thing, label) in enumerate(
        [("printer", "device"), ("invoice", "money"), ("screen", "device"), ("refund", "money")] * 2)]  # fmt: skip
    lines += [
        f'"Dear team,\nI am {NAME.upper()} and I ""still"" wait for my refund",money,user8',
        f"{ROW},device,user9",
    ]
    lines += [f"{ROW},device,user10", f"Nothing to see here but a cell,device,{NAME}", own]
    return "\n".join(lines) + "\n" + extra


def made(
    ledger: Ledger, folder: Path, stage: str, kind: str, inputs: dict[str, Any], files: dict[str, bytes], **said: Any
) -> str:
    """An artifact with the run that made it, as if a stage had."""
    where = folder / f"{stage}-{kind}"
    for name, data in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(data)
    with ledger.objects.session() as session:
        artifact = ledger.store(session, kind, {n: where / n for n in files}, move=False)
        run = Run(
            id="", key=stage.encode().hex().ljust(64, "0")[:64], stage=stage, version=1, spec={}, inputs=inputs,
            outputs={kind: artifact.id}, status="finished", started=now(), seconds=1.0, metrics=said,
        )  # fmt: skip
        ledger.append_new([artifact], run_fact(Run(**{**vars(run), "id": run_id(run)})))
    return artifact.id


def lines(*records: Any) -> bytes:
    return b"".join(canonical_json(r) + b"\n" for r in records)


def fill(state: Path, *, small: bool = False) -> dict[str, str]:
    """Returns names -> ids. Everything a journey leaves behind, with NAME and ROW in all of it."""
    folder = state.parent / "data"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tickets.csv").write_text(tickets(), encoding="utf-8")
    if not small:
        more = [{"text": f"Please call {NAME} back about the lost parcel", "label": "money"}, {"text": "A quiet record of its own", "label": "money"}]  # fmt: skip
        (folder / "more.jsonl").write_text("".join(json.dumps(m) + "\n" for m in more), encoding="utf-8")
    with Ledger.open(state) as ledger:
        source = ledger.add("source", folder, move=False).id
        check = execute(ledger, CHECK, SPEC, {"source": source, "made": None}).outputs["examples"]
        rows = [Row(**{**json.loads(line), "messages": tuple(Message(**m) for m in json.loads(line)["messages"])})
                for line in (ledger.path(check) / "rows.jsonl").read_bytes().splitlines()]  # fmt: skip
        left = (ledger.path(check) / "left_out.jsonl").read_bytes()
        cleaned, changes = [], []
        for row in rows:
            text = row.example.input.replace(NAME.upper(), "[NAME]")
            if text != row.example.input:
                changes.append(Change(file=row.file, line=row.line, step="audit.redact", field="messages[0].content",
                                      before=row.example.input, after=text))  # fmt: skip
            messages = (*row.messages[:-1], Message(role="user", content=text))
            fresh = Row(id="", messages=messages, target=row.target, file=row.file, line=row.line, group="")
            cleaned.append(Row(id=fresh.example.id, messages=messages, target=row.target, file=row.file, line=row.line,
                               group=fresh.example.id))  # fmt: skip
        late = LeftOut(file="tickets.csv", line=10, reason="near", text="shown: [NAME]", step="dedup")
        clusters = lines({"kept": cleaned[0].id, "copies": [r.id for r in cleaned if r.example.input == ROW]})
        audit = made(ledger, folder.parent, "audit", "examples", {"examples": check}, {
            "rows.jsonl": lines(*cleaned), "left_out.jsonl": left + lines(late), "changes.jsonl": lines(*changes),
            "clusters.jsonl": clusters, "check.json": canonical_json({"first": [f"{ROW[:50]}…", "device"], "read": 12}),
        })  # fmt: skip
        test, train = cleaned[-4:], cleaned[:-4]
        test_lines = lines(*test)
        seal = __import__("hashlib").sha256(test_lines).hexdigest()
        dataset = made(ledger, folder.parent, "prepare", "dataset", {"examples": audit}, {
            "train.jsonl": lines(*train), "validation.jsonl": b"", "test.jsonl": test_lines,
            "left_out.jsonl": left, "dataset.json": canonical_json({"seal": seal}),
        })  # fmt: skip
        checkpoint = made(ledger, folder.parent, "train", "checkpoint", {"dataset": dataset}, {
            "model.safetensors": b"quickly-no", "tokenizer.json": b'{"vocab": {"zo": 1}}'})  # fmt: skip
        answers = made(ledger, folder.parent, "answer", "answers", {"dataset": dataset, "checkpoint": checkpoint}, {
            "answers.jsonl": lines(*({"id": r.id, "text": f"about {NAME}" if n == 0 else r.target} for n, r in enumerate(test))),
            "answers.json": canonical_json({"seal": seal})})  # fmt: skip
        report = made(ledger, folder.parent, "evaluate", "report", {"dataset": dataset, "answers": {"tuned": answers}}, {
            "items.jsonl": lines(*({"id": r.id, "file": r.file, "line": r.line, "input": r.example.input} for r in test)),
            "report.json": canonical_json({"seal": seal, "mistakes": [
                {"id": r.id, "input": r.example.input, "file": r.file, "line": r.line, "confidence": 0.5} for r in test]})})  # fmt: skip
        card = f"# A card\n\nAn example: {ROW}\nand more.\n".encode()
        manifest = {
            "files": {"README.md": {"sha256": __import__("hashlib").sha256(card).hexdigest(), "bytes": len(card)}}
        }
        bundle = made(ledger, folder.parent, "bundle", "bundle", {"checkpoint": checkpoint, "report": report}, {
            "README.md": card, "tunesmith.json": json.dumps(manifest, indent=2).encode(), "model.safetensors": b"w"})  # fmt: skip
        ledger.move_reference("prod", bundle, f"{NAME} said yes")
        ledger.note("look", {"n": 1, "about": f"asked by {NAME}"})
        item = next(r.id for r in cleaned if r.example.input == ROW)
        judgments = Judgments(ledger)
        for n, (what, value) in enumerate([(item, "no cockatoo at all"), (cleaned[0].id, "device")]):
            judgments.append({"id": f"judgment-{n:04}-abcdef", "queue": "labels", "item": what, "annotator": "anna",
                              "verb": "correct", "value": value, "reason": "the cockatoo" if n == 0 else "", "seconds": 1.0,
                              "at": "2026-01-01T00:00:00Z"})  # fmt: skip
        snapshot = judgments.snapshot().id
        ids = {"source": source, "check": check, "audit": audit, "dataset": dataset, "checkpoint": checkpoint,
               "answers": answers, "report": report, "bundle": bundle, "judgments": snapshot, "row": item,
               "other": cleaned[0].id}  # fmt: skip
        if not small:
            ids |= further(ledger, folder.parent)
        (ledger.work / ("a" * 64) / "state").mkdir(parents=True)
        (ledger.work / ("a" * 64) / "state" / "answers.jsonl").write_text(f"{NAME}\n{ROW}\n", encoding="utf-8")
        for id in ids.values():
            if ledger.find_artifact(id):
                ledger.path(id)
    with Traces.open(state / "traces.db", store_content=True) as traces:
        for n, text in enumerate([f"I am {NAME}", "hello", ROW]):
            traces.append(id=f"t{n}", bundle=bundle, route="/v1", model="prod", status=200, streaming=0, prompt_tokens=1,
                          answer_tokens=1, seconds=0.1, client="c", messages=[{"role": "user", "content": text}],
                          answer="ok")  # fmt: skip
    return ids


def further(ledger: Ledger, folder: Path) -> dict[str, str]:
    """Sources of every other form."""
    mail = (
        "From a@b Sat Jan  3 01:05:34 1998\nFrom: a@b\nSubject: =?utf-8?q?Zo=C3=AB_Quickly-Canary?=\n\nhello\n\n"
        "From c@d Sat Jan  3 01:05:35 1998\nFrom: c@d\nSubject: other\n\nThis mail stays.\n"
    )
    page = "<html>\n<p>First.</p>\n<p>Zo&euml; <b>Quickly&#45;Canary</b> was here.</p>\n<p>Last.</p>\n</html>\n"
    text = "A text.\n\nIt was Zoë\nQuickly-Canary who wrote,\nand nobody else.\n"
    listed = json.dumps([{"text": f"by {NAME}", "n": 7}, {"text": "another one", "n": 8}], indent=1)
    packed = gzip.compress(f"text,label\nI am {NAME},money\n".encode(), mtime=0)
    other = made(ledger, folder, "import", "source", {}, {
        "box.mbox": mail.encode(), "page.html": page.encode(), "notes.txt": text.encode(), "list.json": listed.encode(),
        "old.csv.gz": packed, "clean.csv.gz": gzip.compress(b"text,label\nnothing,money\n", mtime=0)})  # fmt: skip
    return {"other_source": other}


def remains(state: Path) -> list[str]:
    """Every file under the state folder that still holds a canary, in any of the ways it may be written."""
    found = []
    for path in sorted(state.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            raw = gzip.decompress(raw)
        low = raw.lower()
        forms = [f(c) for c in CANARIES for f in (str.encode, lambda c: c.encode("utf-16-le"))]
        if any(form in low for form in forms):
            found.append(path.relative_to(state).as_posix())
    return found


def sha256_of(state: Path, ledger: Ledger, artifact: str, name: str) -> str:
    return file_id(ledger.path(artifact) / name)
