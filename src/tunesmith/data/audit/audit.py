"""Stage audit: every risk in the examples, next to its row; and what the policies say is done about it.

    examples -> the same examples, findings.jsonl (one finding a line), audit.json (counts, and the first rows of each),
                counterfactuals.jsonl (rows with a group of people exchanged, for evaluation)

Two passes learn what rows are judged by (languages, lengths, label words, rare phrases, associations), the third
judges and changes. findings.jsonl, changes.jsonl and left_out.jsonl never show a value that a policy hides.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tunesmith.core.errors import InputError, Problem
from tunesmith.core.nouns import Row
from tunesmith.core.stage import Workspace
from tunesmith.data.audit.balance import class_facts
from tunesmith.data.audit.bias import counterfactuals
from tunesmith.data.audit.catalogue import PII_KINDS, REASONS, SETTINGS
from tunesmith.data.audit.content import RowChecks
from tunesmith.data.audit.language import UNDETERMINED
from tunesmith.data.audit.personal import STRENGTH, Personal
from tunesmith.data.audit.pseudonyms import Pseudonyms, pseudonyms_of
from tunesmith.data.audit.reading import read
from tunesmith.data.audit.scan import Scanner
from tunesmith.data.audit.spans import Span, masked, masked_excerpt
from tunesmith.data.audit.stages import AuditInputs, AuditOutputs, AuditSpec
from tunesmith.data.audit.survey import Survey, survey_rows
from tunesmith.data.audit.texts import is_json, texts_of, with_texts
from tunesmith.data.step import RowStep
from tunesmith.data.write import LinesWriter

COUNTER = "counterfactuals.jsonl"
FIRST = 5  # rows that audit.json names for each kind of finding


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of findings.jsonl. Positions count characters of the field as the audit read it."""

    kind: str
    what: str
    file: str
    line: int
    row: str  # id of the row as it was kept; "" if it was not: the hash of a text with a secret can be guessed
    field: str
    start: int
    end: int
    excerpt: str  # personal data and secrets in it as tags
    score: float
    done: str  # "flag", "redact", "pseudonym", "drop"


def mask_of(spec: AuditSpec, personal: Personal) -> Callable[[str], str] | None:
    """What this step hides in the rows, it hides in what earlier steps wrote down of them, too."""
    if all(policy in ("off", "flag") for policy in spec.policies.values()):
        return None
    return lambda text: masked(text, personal.find(read(text)))


def audit(spec: AuditSpec, inputs: AuditInputs, work: Workspace) -> AuditOutputs:
    """Raises InputError for a setting that says nothing (an unknown kind, pseudonyms without a salt)."""
    refuse(spec)
    personal = personal_of(spec)
    survey = survey_rows(spec, inputs.examples / "rows.jsonl", work)
    checks = RowChecks(spec, survey)
    tally = Tally()
    label = "target" if spec.kind == "classify" else ""  # the name of a class is nobody's
    with RowStep(inputs.examples, work, step="audit", restored=spec.restored, mask=mask_of(spec, personal)) as out:
        with LinesWriter(out.folder / "findings.jsonl") as findings, LinesWriter(out.folder / COUNTER) as pairs:
            for i, row in enumerate(out.rows()):
                texts = texts_of(row)
                readings = [(name, read(text)) for name, text in texts]
                hidden = {name: personal.find(reading) for name, reading in readings if name != label}
                found = [(name, span) for name, spans in hidden.items() for span in spans]
                found += checks.find(row, readings, i)
                kept = _treat(spec, personal, out, row, dict(texts), hidden, found)
                for finding in _findings(spec, row, kept, dict(texts), hidden, found):
                    findings.write(finding)
                    tally.add(finding)
                if kept is not None:
                    out.keep(kept)
                    if spec.bias != "off":
                        tally.add_pairs(pairs, kept, spec.max_counterfactuals)
        out.facts = facts(spec, survey, tally)
    return AuditOutputs(examples=out.folder)


def refuse(spec: AuditSpec) -> None:
    problems = [
        Problem(where=f"data.audit.policies.{kind}", what=f"{kind!r} is not looked for", fix=", ".join(PII_KINDS))
        for kind in sorted(set(spec.policies) - set(PII_KINDS))
    ]
    if "pseudonym" in spec.policies.values() and not spec.salt:
        what = "pseudonyms need a salt: without one, anybody can try values until the pseudonym fits"
        problems.append(Problem(where="data.audit.salt", what=what, fix="set any text that only you know"))
    if problems:
        raise InputError(problems)


def personal_of(spec: AuditSpec) -> Personal:
    policies = {kind: policy for kind, policy in spec.policies.items() if policy != "off"}
    names = None
    if "name" in policies:
        from tunesmith.data.audit import presidio

        names = presidio.finder()
    scanner = Scanner(frozenset(policies), spec.regions, names, spec.min_score)
    ours = pseudonyms_of(kind for kind, policy in policies.items() if policy == "pseudonym")
    return Personal(scanner, policies, Pseudonyms(spec.salt), ours)


def policy_of(spec: AuditSpec, kind: str) -> str:
    setting = SETTINGS[kind]
    return spec.policies[kind] if setting == "policies" else str(getattr(spec, setting))


def _findings(
    spec: AuditSpec,
    row: Row,
    kept: Row | None,
    texts: dict[str, str],
    hidden: dict[str, list[Span]],
    found: Iterable[tuple[str, Span]],
) -> Iterable[Finding]:
    for name, span in found:
        yield Finding(
            kind=span.kind,
            what=span.what,
            file=row.file,
            line=row.line,
            row="" if kept is None else kept.id,
            field=name,
            start=span.start,
            end=span.end,
            excerpt=_shown(texts[name], span, hidden.get(name, [])),
            score=round(span.score, 6),
            done=policy_of(spec, span.kind),
        )


def _shown(text: str, span: Span, hidden: list[Span]) -> str:
    whole = span.end - span.start > 160  # of a text that counts as a whole, its start
    return masked_excerpt(text, span.start, span.start + 100 if whole else span.end, hidden)


def _treat(
    spec: AuditSpec,
    personal: Personal,
    out: RowStep,
    row: Row,
    texts: dict[str, str],
    hidden: dict[str, list[Span]],
    found: list[tuple[str, Span]],
) -> Row | None:
    """The row as it is kept, changes recorded; None if it is left out."""
    dropping = [(name, span) for name, span in found if policy_of(spec, span.kind) == "drop"]
    if dropping:
        name, span = dropping[0]
        shown = Row(id="", messages=row.messages, target=row.target, file="", line=0, group="")
        shown = with_texts(shown, {name: masked(texts[name], spans) for name, spans in hidden.items() if spans})
        detail = f"{span.kind} at {name}" + (f" and {len(dropping) - 1} more" if len(dropping) > 1 else "")
        if out.leave_out(row, REASONS[span.kind], detail, shown=shown.example.input, keep_restored=False):
            return None
    changing = any(personal.policies[s.kind] in ("redact", "pseudonym") for spans in hidden.values() for s in spans)
    changed = {name: _changed(personal, out, row, name, texts[name]) for name in hidden} if changing else {}
    group = _group(personal, out, row)
    if group != row.group:
        changed["group"] = group
    return with_texts(row, changed) if any(changed[n] != texts.get(n, row.group) for n in changed) else row


def _changed(personal: Personal, out: RowStep, row: Row, name: str, text: str) -> str:
    """Both policies in turn until neither changes anything: a replacement can bring a word nearer to a number."""
    json = is_json(text)
    left = ["redact", "pseudonym"]
    while True:
        start = text
        for policy in tuple(left):
            after = personal.without(text, policy, json=json)
            if after == text:
                continue
            shown = masked(text, personal.find(read(text)))
            text = out.change(row, name, text, after, step=f"audit.{policy}", shown=shown)
            if text != after:
                left.remove(policy)  # a person restored it
        if text == start:
            return text


def _group(personal: Personal, out: RowStep, row: Row) -> str:
    """A group that is itself somebody's address or number gets a name without meaning, the same in every row."""
    if row.group == row.id:
        return row.group
    spans = [s for s in personal.find(read(row.group)) if personal.policies[s.kind] in ("redact", "pseudonym")]
    if not spans:
        return row.group
    new = f"group-{personal.pseudonyms.opaque(row.group)}"
    step = f"audit.{min((personal.policies[s.kind] for s in spans), key=STRENGTH.__getitem__)}"
    return out.change(row, "group", row.group, new, step=step, shown=masked(row.group, spans))


@dataclass(slots=True)
class Tally:
    """Counts of findings, with the first rows of each kind."""

    kinds: Counter[str] = field(default_factory=Counter)
    whats: Counter[tuple[str, str]] = field(default_factory=Counter)
    done: Counter[tuple[str, str]] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    first: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    last: dict[str, tuple[str, int]] = field(default_factory=dict)
    pairs: int = 0
    more_pairs: bool = False  # than could be written

    def add(self, finding: Finding) -> None:
        kind, place = finding.kind, (finding.file, finding.line)
        self.kinds[kind] += 1
        self.whats[kind, finding.what] += 1
        self.done[kind, finding.done] += 1
        if self.last.get(kind) != place:
            self.last[kind] = place
            self.rows[kind] += 1
            first = self.first.setdefault(kind, [])
            if len(first) < FIRST:
                first.append({"file": finding.file, "line": finding.line, "field": finding.field,
                              "excerpt": finding.excerpt})  # fmt: skip

    def add_pairs(self, pairs: LinesWriter, row: Row, most: int) -> None:
        if self.pairs >= most:
            self.more_pairs = self.more_pairs or next(counterfactuals([row]), None) is not None
            return
        for pair in counterfactuals([row]):
            self.pairs += 1
            pairs.write(pair)

    def facts(self) -> dict[str, Any]:
        return {
            kind: {
                "findings": self.kinds[kind],
                "rows": self.rows[kind],
                "what": {what: n for (k, what), n in sorted(self.whats.items()) if k == kind},
                "done": {done: n for (k, done), n in sorted(self.done.items()) if k == kind},
                "first": self.first[kind],
            }
            for kind in sorted(self.kinds)
        }


def facts(spec: AuditSpec, survey: Survey, tally: Tally) -> dict[str, Any]:
    """What audit.json says beside the counts of the step."""
    found: dict[str, Any] = {"findings": tally.facts(), "policies": dict(sorted(spec.policies.items()))}
    if survey.lengths is not None:
        median = round(math.expm1(survey.lengths.median), 1)
        found["lengths"] = {"median_characters": median, "mad_log": round(survey.lengths.mad, 6)}
    if spec.languages != "off":
        counts = survey.languages()
        found["languages"] = {
            "rows": dict(sorted(counts.items(), key=lambda kv: (-kv[1], kv[0]))),
            "undetermined": counts[UNDETERMINED],
            "expected": sorted(survey.expected),
        }
    if spec.kind == "classify":
        found["classes"] = class_facts(survey.labels)
        if survey.label_words is not None and spec.leakage != "off":
            found["label_words"] = {"leaky": sorted(survey.leaky_labels), "labels": survey.label_words.facts()}
    elif spec.leakage != "off":
        found["answers_in_questions"] = {"rows": survey.copied, "is_the_task": survey.is_extractive}
    if survey.triggers is not None:
        found["triggers"] = survey.triggers.facts()
    if spec.bias != "off":
        found["bias"] = {
            "representation": survey.mentions.representation(),
            "tested": survey.associations_tested,
            "associations": [_plain(a) for a in survey.associations],
            "counterfactuals": {"pairs": tally.pairs, "more": tally.more_pairs},
        }
    return found


def _plain(association: Any) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(association)
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in values.items()}
