"""Each family of personal data: what is found, and what looks like it and is not."""

from __future__ import annotations

import pytest

from tunesmith.data.audit.catalogue import DEFAULT_KINDS
from tunesmith.data.audit.pii.cards import luhn, luhn_digit
from tunesmith.data.audit.pii.digits import digit_runs
from tunesmith.data.audit.pii.ibans import LENGTHS, mod97
from tunesmith.data.audit.reading import read
from tunesmith.data.audit.scan import Scanner, surest
from tunesmith.data.audit.spans import resolve

SCANNER = Scanner(frozenset(DEFAULT_KINDS), ("US", "GB"))


def found(text: str) -> list[tuple[str, str]]:
    return [(s.kind, text[s.start : s.end]) for s in resolve(SCANNER.find(read(text)), surest)]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Card 4111 1111 1111 1111 was charged", "credit_card", "4111 1111 1111 1111"),
        ("it says 378282246310005 on it", "credit_card", "378282246310005"),
        ("5555-5555-5555-4444", "credit_card", "5555-5555-5555-4444"),
        ("to GB82 WEST 1234 5698 7654 32 please", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("iban de89370400440532013000.", "iban", "de89370400440532013000"),
        ("My SSN is 078-05-1121, thanks", "national_id", "078-05-1121"),
        ("his national insurance number QQ is no; AB 12 34 56 C is", "national_id", "AB 12 34 56 C"),
        ("Steuer-ID: 36574261809", "national_id", "36574261809"),
        ("DNI 54362315K", "national_id", "54362315K"),
        ("NIE X2482300W", "national_id", "X2482300W"),
        ("codice fiscale RCCMNL83S18D969H", "national_id", "RCCMNL83S18D969H"),
        ("BSN 111222333", "national_id", "111222333"),
        ("CPF 390.533.447-05", "national_id", "390.533.447-05"),
        ("AHV 756.9217.0769.85", "national_id", "756.9217.0769.85"),
        ("sécurité sociale 2 95 10 99 126 111 93", "national_id", "2 95 10 99 126 111 93"),
        ("call (212) 555-0187 now", "phone", "(212) 555-0187"),
        ("+44 20 7946 0958", "phone", "+44 20 7946 0958"),
        ("tel. +49 (0)30 901820", "phone", "+49 (0)30 901820"),
        ("please ring 321 7586", "phone", "321 7586"),
        ("212-555-0187x123 is my line", "phone", "212-555-0187x123"),
        ("07911 123456", "phone", "07911 123456"),
        ("write to jo.smith+list@mail.example.co.uk.", "email", "jo.smith+list@mail.example.co.uk"),
        ("<mailto:anna@müller.de>", "email", "anna@müller.de"),
        ("from 10.0.3.17 again", "ip", "10.0.3.17"),
        ("peer 2001:db8:85a3::8a2e:370:7334 left", "ip", "2001:db8:85a3::8a2e:370:7334"),
        ("eth0 00:1A:2b:3C:4d:5E up", "mac", "00:1A:2b:3C:4d:5E"),
        ("eth0 00-1a-2b-3c-4d-5e up", "mac", "00-1a-2b-3c-4d-5e"),
        ("born on 12 March 1984 in Leeds", "birth_date", "12 March 1984"),
        ("DOB: 1984-03-12", "birth_date", "1984-03-12"),
        ("geboren am 12.03.1984", "birth_date", "12.03.1984"),
        ("at 221B Baker Street, London NW1 6XE today", "address", "221B Baker Street, London NW1 6XE"),
        ("1600 Pennsylvania Ave, Washington, DC 20500", "address", "1600 Pennsylvania Ave, Washington, DC 20500"),
        ("Hauptstraße 12, 10115 Berlin", "address", "Hauptstraße 12, 10115 Berlin"),
        ("PO Box 1234", "address", "PO Box 1234"),
    ],
)
def test_found(text: str, kind: str, value: str) -> None:
    assert found(text) == [(kind, value)]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # wrong Luhn digit
        "GB82 WEST 1234 5698 7654 33",  # wrong check digits
        "987654321",
        "078051121",  # nine digits and no word that names them
        "order number 123456789, invoice 20240117",
        "released 2024-01-17 10:22:31, pages 2010-2015",
        "pi is 3.14159265358979 and the sum 1.234.567,89",
        "libfoo (>= 1.2.3.4), version 10.0.0.1, 2:1.7.6.1-1",
        "127.0.0.1 and 0.0.0.0 and 300.1.2.3",
        "sha256 3a2118df47bf3f04285649f0455c2fc6fe2dc7f0b237073038aa00af41f0d5f2",
        "at 12:30:45 std::vector::size",
        "follow @someone or a@b",
        "the meeting of 12 March 1984",
        "10 people in the park saw 3 items on the road",
        "libsignon-qt5-1 (>= 8.57~20140610) phone",
        "00:00:00:00:00:00",
    ],
)
def test_not_found(text: str) -> None:
    assert found(text) == []


def test_every_iban_country_has_its_length() -> None:
    assert mod97("DE89370400440532013000") == 1
    assert all(15 <= n <= 33 for n in LENGTHS.values())


def test_luhn() -> None:
    assert luhn("4111111111111111") and not luhn("4111111111111112")
    assert luhn_digit("7992739871") == "3"  # Luhn's own example, US patent 2,950,048 as often quoted


def test_a_run_of_digits_is_no_part_of_a_word() -> None:
    assert [r.text for r in digit_runs("a1234567; 49301 901820b; (212) 555-0187, +1 (212) 555-0187x9")] == [
        "(212) 555-0187",
        "+1 (212) 555-0187",
    ]
    assert [r.text for r in digit_runs("x12 345 678 and 123 456 789y")] == ["345 678", "123 456"]


def test_overlaps_do_not_depend_on_order_and_hide_everything() -> None:
    text = "reach me: https://jo:hunter2@host.example.org or jo@host.example.org"
    spans = SCANNER.find(read(text))
    assert resolve(spans, surest) == resolve(reversed(spans), surest)
    covered = {i for s in resolve(spans, surest) for i in range(s.start, s.end)}
    assert covered == {i for s in spans for i in range(s.start, s.end)}
