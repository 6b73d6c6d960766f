"""Secrets by format and by assignment, and what is none. All values are made up."""

from __future__ import annotations

import random
import string

import pytest

from tunesmith.data.audit.reading import read
from tunesmith.data.audit.secrets import entropy, find

ALNUM = string.ascii_letters + string.digits
RANDOM = random.Random(7)


def made(n: int, letters: str = ALNUM) -> str:
    return "a1" + "".join(RANDOM.choices(letters, k=n - 2))


JWT = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEA1\nabc/def+ghi=\n-----END RSA PRIVATE KEY-----"
SECRETS = {
    "aws_access_key": "AKIA" + made(16, string.ascii_uppercase + string.digits).upper(),
    "github_token": "ghp_" + made(36),
    "gitlab_token": "glpat-" + made(20),
    "slack_token": "xoxb-" + made(24),
    "stripe_key": "sk_live_" + made(24),
    "anthropic_key": "sk-ant-api03-" + made(40),
    "openai_key": "sk-proj-" + made(40),
    "google_api_key": "AIza" + made(35),
    "google_oauth_token": "ya29." + made(40),
    "npm_token": "npm_" + made(36),
    "pypi_token": "pypi-AgE" + made(60),
    "sendgrid_key": f"SG.{made(22)}.{made(43)}",
    "twilio_key": "SK" + made(32, "0123456789abcdef"),
    "hugging_face_token": "hf_" + made(34),
    "telegram_token": "123456789:AA" + made(33),
    "jwt": JWT,
    "private_key": KEY,
}


@pytest.mark.parametrize("what", SECRETS)
@pytest.mark.parametrize("around", ["{}", "use {} please", 'key = "{}"', "({})", "x\n{}\ny"])
def test_formats(what: str, around: str) -> None:
    text = around.format(SECRETS[what])
    assert (what, SECRETS[what]) in [(s.what, text[s.start : s.end]) for s in find(read(text))]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("password = hunter2-Xyz9", "hunter2-Xyz9"),
        ("DB_PASSWORD: 'tr0ub4dor&3'", "tr0ub4dor&3"),
        ("my password is Blue-42-Horse.", "Blue-42-Horse"),
        ('"api_key": "9f8e7d6c5b4a39281706"', "9f8e7d6c5b4a39281706"),
        ("client_secret=Zx81kLm2Qp07Vt", "Zx81kLm2Qp07Vt"),
        ("postgres://app:s3cr3t-pw@db.internal/x", "app:s3cr3t-pw"),
        ("Authorization: Bearer abcdef0123456789ABCDEF", "abcdef0123456789ABCDEF"),
    ],
)
def test_assignments(text: str, value: str) -> None:
    assert value in [text[s.start : s.end] for s in find(read(text))]


@pytest.mark.parametrize(
    "text",
    [
        "password = ********",
        "password: <your password>",
        "set PASSWORD=$PASSWORD",
        "password=[SECRET] and token=[SECRET]",
        "the password is required",
        "token = get_token(user)",
        "my key is under the mat: look there",
        "commit 3a2118df47bf3f04285649f0455c2fc6fe2dc7f0",
        "sk-learn is not a key, sk-something-with-many-words-in-it neither",
        "task-force-one and risk-assessment-for-everybody",
        "eyJub3QiOiJhIGp3dCJ9.eyJhIjoxfQ.signature_here",  # a header without an algorithm
        "https://example.org:8080/path?key=value",
        "-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----",
    ],
)
def test_no_secret(text: str) -> None:
    assert list(find(read(text))) == []


def test_a_private_key_without_its_end_is_hidden_to_the_end() -> None:
    text = "see -----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEA1\nabc/def"
    (span,) = find(read(text))
    assert text[span.end :] == ""


def test_entropy_is_bits_a_character() -> None:
    assert entropy("aaaa") == 0
    assert entropy("abcd") == 2
    assert entropy("") == 0
