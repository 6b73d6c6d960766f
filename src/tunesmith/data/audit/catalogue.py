"""Everything the audit looks for: kind of finding, what it is, and the function that finds it."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    kind: str
    what: str  # for people
    function: str  # module:function
    setting: str  # of AuditSpec: who decides what happens with it
    reason: str  # of a row that is left out for it


_HERE = "tunesmith.data.audit"
PII = (
    Check("secret", "API keys, tokens, passwords, private keys", f"{_HERE}.secrets:find", "policies", "secret"),
    Check("iban", "bank account numbers", f"{_HERE}.pii.ibans:find", "policies", "personal_data"),
    Check("credit_card", "payment cards", f"{_HERE}.pii.cards:find", "policies", "personal_data"),
    Check("email", "e-mail addresses", f"{_HERE}.pii.emails:find", "policies", "personal_data"),
    Check("national_id", "national identity numbers", f"{_HERE}.pii.national_ids:find", "policies", "personal_data"),
    Check("mac", "hardware addresses", f"{_HERE}.pii.network:find_mac", "policies", "personal_data"),
    Check("ip", "IP addresses", f"{_HERE}.pii.network:find_ip", "policies", "personal_data"),
    Check("birth_date", "dates of birth", f"{_HERE}.pii.births:find", "policies", "personal_data"),
    Check("phone", "phone numbers", f"{_HERE}.pii.phones:find", "policies", "personal_data"),
    Check("address", "postal addresses", f"{_HERE}.pii.addresses:find", "policies", "personal_data"),
    Check("name", "names of people (extra pii)", f"{_HERE}.presidio:finder", "policies", "personal_data"),
)
CONTENT = (
    Check("toxicity", "insults, threats, obscenity", f"{_HERE}.toxicity:load", "toxicity", "toxic"),
    Check("language", "a language that is not expected", f"{_HERE}.language:identifier", "languages", "language"),
    Check("injection", "phrases that address the model", f"{_HERE}.injection:find_phrases", "injection", "injection"),
    Check("special_token", "tokens of chat templates", f"{_HERE}.injection:find_special_tokens", "injection",
          "special_token"),
    Check("leakage", "the answer in the question", f"{_HERE}.leakage:label_span", "leakage", "leakage"),
    Check("near_empty", "next to no text", f"{_HERE}.damage:find", "damage", "near_empty"),
    Check("encoding_damage", "broken encodings", f"{_HERE}.damage:find", "damage", "encoding_damage"),
    Check("repetition", "one thing over and over", f"{_HERE}.damage:find", "damage", "repetition"),
    Check("trigger", "rare words that decide the answer", f"{_HERE}.triggers:Triggers", "triggers", "trigger"),
    Check("length_outlier", "much longer or shorter than the others", f"{_HERE}.balance:lengths_of", "outliers", ""),
    Check("small_class", "a class far smaller than the largest", f"{_HERE}.balance:small_classes", "balance", ""),
    Check("bias", "a group of people that goes with a label", f"{_HERE}.bias:Mentions", "bias", ""),
)  # fmt: skip
PII_KINDS = tuple(c.kind for c in PII)
DEFAULT_KINDS = tuple(k for k in PII_KINDS if k != "name")  # names need an extra and cost 100 times the rest
REASONS = {c.kind: c.reason for c in (*PII, *CONTENT)}
SETTINGS = {c.kind: c.setting for c in (*PII, *CONTENT)}
