"""The audit's checks as plain functions over a stream of texts or rows, for a first look at data: what is there, how
often, and where first. Nothing is changed, and no finding repeats a value it hides.

    facts = audit_texts(((f"{file}:{line}", text) for ...), checks=LookChecks(...))
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tunesmith.core.nouns import Row
from tunesmith.data.audit.catalogue import DEFAULT_KINDS
from tunesmith.data.audit.content import TextChecks
from tunesmith.data.audit.language import UNDETERMINED, identifier
from tunesmith.data.audit.reading import read
from tunesmith.data.audit.scan import Scanner, surest
from tunesmith.data.audit.spans import Span, masked_excerpt, resolve
from tunesmith.data.audit.texts import input_field, texts_of

FIRST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LookChecks:
    """What a look looks for. The extra `audit` is needed for `phone` and `national_id`, toxicity and languages."""

    kinds: tuple[str, ...] = DEFAULT_KINDS
    regions: tuple[str, ...] = ("US", "GB")
    min_score: float = 0.5
    toxicity: bool = True
    max_toxicity: float = 0.8
    languages: bool = True
    injection: bool = True
    damage: bool = True


@dataclass(slots=True)
class Look:
    """`take` every text, then `facts`. Holds counts and the first few places of each kind, never texts."""

    checks: LookChecks = field(default_factory=LookChecks)
    texts: int = 0
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    holding: Counter[str] = field(default_factory=Counter)  # texts, by kind
    first: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    languages: Counter[str] = field(default_factory=Counter)
    first_language: dict[str, str] = field(default_factory=dict)

    def take(self, where: str, text: str, *, is_input: bool = True, is_system: bool = False) -> None:
        """`where`: what a person finds the text by ("tickets.csv:214")."""
        self.texts += 1
        hidden, spans = find_risks(text, self.checks, is_input=is_input, is_system=is_system)
        seen = set()
        for span in spans:
            self.found[span.kind, span.what] += 1
            if span.kind not in seen:
                seen.add(span.kind)
                self.holding[span.kind] += 1
                places = self.first.setdefault(span.kind, [])
                if len(places) < FIRST:
                    end = min(span.end, span.start + 100)
                    places.append({"where": where, "excerpt": masked_excerpt(text, span.start, end, hidden)})
        if self.checks.languages and is_input:
            code = identifier()(text)[0]
            self.languages[code] += 1
            self.first_language.setdefault(code, where)

    def facts(self) -> dict[str, Any]:
        """{texts, findings: {kind: {findings, texts, what, first}}, languages: {code: {texts, first}}}."""
        kinds = sorted(self.holding)
        return {
            "texts": self.texts,
            "findings": {
                kind: {
                    "findings": sum(n for (k, _), n in self.found.items() if k == kind),
                    "texts": self.holding[kind],
                    "what": {what: n for (k, what), n in sorted(self.found.items()) if k == kind},
                    "first": self.first[kind],
                }
                for kind in kinds
            },
            "languages": {
                code: {"texts": n, "first": self.first_language[code]}
                for code, n in sorted(self.languages.items(), key=lambda kv: (kv[0] == UNDETERMINED, -kv[1], kv[0]))
            },
        }


def find_risks(
    text: str, checks: LookChecks, *, is_input: bool = True, is_system: bool = False
) -> tuple[list[Span], list[Span]]:
    """Of one text: personal data and secrets, apart from each other; and every finding, those included."""
    reading = read(text)
    scanner = Scanner(frozenset(checks.kinds), checks.regions, None, checks.min_score)
    hidden = resolve(scanner.find(reading), surest)
    each = TextChecks(
        toxicity=checks.toxicity, max_toxicity=checks.max_toxicity, injection=checks.injection, damage=checks.damage
    )
    return hidden, [*hidden, *each.find(reading, is_input=is_input, is_system=is_system)]


def audit_texts(texts: Iterable[tuple[str, str]], checks: LookChecks | None = None) -> dict[str, Any]:
    """Facts about (where, text) pairs. `Look` is the same, fed by hand."""
    look = Look(checks or LookChecks())
    for where, text in texts:
        look.take(where, text)
    return look.facts()


def audit_rows(rows: Iterable[Row], *, labels: bool, checks: LookChecks | None = None) -> dict[str, Any]:
    """The same of rows, every text of them; `labels`: targets are labels, not texts."""
    look = Look(checks or LookChecks())
    for where, text, is_input, is_system in _texts(rows, labels):
        look.take(where, text, is_input=is_input, is_system=is_system)
    return look.facts()


def _texts(rows: Iterable[Row], labels: bool) -> Iterator[tuple[str, str, bool, bool]]:
    for row in rows:
        asked = input_field(row) or "target"
        systems = {f"messages[{i}].content" for i, m in enumerate(row.messages) if m.role == "system"}
        for name, text in texts_of(row):
            if not (labels and name == "target"):
                yield f"{row.file}:{row.line} {name}", text, name == asked, name in systems
