"""Keys, tokens and passwords: by the formats their issuers document, and by assignments of random-looking values.

Free-standing random strings are not reported: hashes, ids and encoded data look the same.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from collections.abc import Iterator

from tunesmith.data.audit.reading import Reading
from tunesmith.data.audit.spans import Span

# what, substrings one of which must be there (none: the pattern starts with letters that are rare enough), pattern
FORMATS: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("aws_access_key", (), re.compile(r"A(?<![A-Za-z0-9]A)(?:KIA|SIA|GPA|IDA|ROA|NPA)[A-Z0-9]{16}(?![A-Za-z0-9])")),
    ("twilio_key", ("SK", "AC"), re.compile(r"(?:SK|AC)(?<!\w\w\w)[0-9a-f]{32}(?!\w)")),
    ("google_api_key", ("AIza",), re.compile(r"AIza(?<!\wAIza)[\w-]{35}(?![\w-])")),
    ("sendgrid_key", ("SG.",), re.compile(r"SG\.(?<!\wSG\.)[\w-]{22}\.[\w-]{43}(?![\w-])")),
    ("google_oauth_token", ("ya29.",), re.compile(r"(?<!\w)ya29\.[\w-]{20,255}")),
    ("telegram_token", (":AA",), re.compile(r"(?<!\w)\d{8,10}:AA[\w-]{33}(?![\w-])")),
    ("slack_webhook", ("hooks.slack.com",), re.compile(r"https://hooks\.slack\.com/services/[A-Za-z0-9/_]{20,80}")),
    ("azure_storage_key", ("AccountKey=",), re.compile(r"(?<=AccountKey=)[A-Za-z0-9+/]{80,90}={0,2}")),
    ("url_password", ("://",), re.compile(r"(?<=://)[^\s:/@\[\]]{1,64}:(?!\[)[^\s:/@]{3,128}(?=@[\w.-])")),
    ("bearer_token", ("earer ",), re.compile(r"(?<=[Bb]earer )[A-Za-z0-9._~+/-]{20,2048}=*")),
)  # fmt: skip
WITH_UNDERSCORE: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("github_token", (), re.compile(r"gh[pousr]_(?<!\wgh\w_)[A-Za-z0-9]{36,255}(?!\w)")),
    ("github_token", ("github_pat_",), re.compile(r"(?<!\w)github_pat_[A-Za-z0-9_]{22,255}(?!\w)")),
    ("stripe_key", ("k_live_", "k_test_"), re.compile(r"(?<!\w)[srp]k_(?:live|test)_[A-Za-z0-9]{16,255}(?!\w)")),
    ("npm_token", ("npm_",), re.compile(r"(?<!\w)npm_[A-Za-z0-9]{36}(?!\w)")),
    ("hugging_face_token", ("hf_",), re.compile(r"(?<!\w)hf_[A-Za-z0-9]{30,64}(?!\w)")),
    ("digitalocean_token", ("_v1_",), re.compile(r"(?<!\w)do[opr]_v1_[0-9a-f]{64}(?!\w)")),
)  # fmt: skip
WITH_HYPHEN: tuple[tuple[str, tuple[str, ...], re.Pattern[str]], ...] = (
    ("gitlab_token", ("glpat-", "gldt-", "glrt-"), re.compile(r"(?<!\w)gl(?:pat|dt|rt)-[\w-]{20,64}")),
    ("slack_token", ("xox",), re.compile(r"(?<!\w)xox[abeoprs]-[A-Za-z0-9-]{10,255}")),
    ("anthropic_key", ("sk-ant-",), re.compile(r"(?<![\w-])sk-ant-[\w-]{20,255}")),
    ("openai_key", ("sk-",),
     re.compile(r"(?<![\w-])sk-(?!ant-)(?:(?:proj|svcacct|admin)-)?(?=[\w-]{0,200}\d)[A-Za-z0-9_-]{20,255}")),
    ("google_oauth_secret", ("GOCSPX-",), re.compile(r"(?<!\w)GOCSPX-[\w-]{20,64}")),
    ("pypi_token", ("pypi-AgE",), re.compile(r"(?<!\w)pypi-AgE[\w-]{50,255}")),
    ("private_key", ("PRIVATE KEY",),
     re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----[\sA-Za-z0-9+/=:,.\\-]*?"
                r"(?:-----END (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----|\Z|(?=[^\sA-Za-z0-9+/=:,.\\-]))")),
)  # fmt: skip
_JWT = re.compile(r"(?<![\w.-])eyJ[\w-]{8,2048}\.eyJ[\w-]{4,8192}\.[\w-]{8,2048}")
_NAMES = ("passw", "pwd", "secret", "token", "key", "passphrase", "credential")
_ASSIGNED = re.compile(
    r"(?:passwor[dt]|passwd|passphrase|pwd|secret|token|key|credentials?)[\w.\-]{0,24}[\"']?\s{0,3}(?:=|:|is\b)"
)
_ASSIGNMENT = re.compile(
    r"(?P<name>[\w.\-]{0,40}(?:passwor[dt]|passwd|passphrase|pwd|secret|token|api[_\- ]?key|access[_\-]?key|"
    r"private[_\-]?key|auth[_\-]?key|credentials?)[\w.\-]{0,24})[\"']?(?:\s{0,3}(?:=>|:=|==?|:)\s{0,3}|\s+is:?\s+)"
    r"(?P<value>\"[^\"\n]{6,256}\"|'[^'\n]{6,256}'|[^\s\"',;<>()\[\]{}]{6,256})",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"[*x.•_-]+|your.*|my.*|<.*|\$.*|%.*|\{.*|\[.*|(?:example|changeme|change_me|placeholder|redacted|none|null|true|"
    r"false|undefined|required|optional|string|password|passwd|secret|token).*|.*(?:\(|\)|::|\bself\b|getenv|environ).*",
    re.IGNORECASE,
)
MIN_TOKEN_ENTROPY = 3.0  # bits a character; English words of 16 letters have about 3, random hexadecimal 3.4
MIN_PASSWORD_ENTROPY = 2.25


def find(reading: Reading) -> Iterator[Span]:
    text, lower = reading.text, reading.lower
    formats = FORMATS + (WITH_UNDERSCORE if "_" in text else ()) + (WITH_HYPHEN if "-" in text else ())
    for what, needed, pattern in formats:
        if needed and needed[0] not in text and not (len(needed) > 1 and any(part in text for part in needed[1:])):
            continue
        for m in pattern.finditer(text):
            yield Span(m.start(), m.end(), "secret", what, 0.99)
    if "eyJ" in text:
        for m in _JWT.finditer(text):
            if _has_json_header(m.group()):
                yield Span(m.start(), m.end(), "secret", "jwt", 0.99)
    if any(name in lower for name in _NAMES) and _ASSIGNED.search(lower) is not None:
        for m in _ASSIGNMENT.finditer(text):
            start, end = _value_of(m)
            score = _assignment_score(m["name"].lower(), text[start:end])
            if score:
                yield Span(start, end, "secret", "assignment", score)


def entropy(value: str) -> float:
    """Shannon entropy of the characters, bits a character."""
    n = len(value)
    return -sum(c / n * math.log2(c / n) for c in Counter(value).values()) if n else 0.0


def _value_of(m: re.Match[str]) -> tuple[int, int]:
    start, end = m.span("value")
    if m["value"][0] in "\"'":
        return start + 1, end - 1
    return start, start + len(m["value"].rstrip(".!?:"))


def _assignment_score(name: str, value: str) -> float:
    if len(value) < 6 or _PLACEHOLDER.fullmatch(value) or "://" in value:
        return 0.0
    classes = sum(any(test(c) for c in value) for test in (str.islower, str.isupper, str.isdigit)) + any(
        not c.isalnum() for c in value
    )
    bits = entropy(value)
    if any(word in name for word in ("pass", "pwd")):
        spoken = value.isalpha() or " " in value  # "password: forgotten" says something about it
        return 0.7 if classes >= 2 and bits >= MIN_PASSWORD_ENTROPY and not spoken else 0.0
    if len(value) < 12 or " " in value:
        return 0.0
    mixed = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    return min(0.95, 0.5 + 0.1 * bits) if mixed and bits >= MIN_TOKEN_ENTROPY else 0.0


def _has_json_header(token: str) -> bool:
    head = token.split(".")[0]
    try:
        found = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError):
        return False
    return isinstance(found, dict) and "alg" in found
