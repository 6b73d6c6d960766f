"""The page of `data look`: what is in a folder, what is wrong with it, and the one key that decides each thing.

`look_page(facts)` and `look_words(facts)` are pure functions; flows says what the facts are. A section that the
facts do not have is not shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from markupsafe import Markup

from tunesmith.core.words import duration
from tunesmith.web.report import HERE, PAGES, clip

Severity = Literal["high", "medium", "low"]
RANK: dict[str, int] = {"high": 0, "medium": 1, "low": 2}
SEVERITIES: dict[str, Severity] = {
    "high": "high", "critical": "high", "error": "high", "medium": "medium", "warning": "medium", "warn": "medium",
}  # fmt: skip
TONES = {"high": "fail", "medium": "wait", "low": "note"}
SEVERITY_WORDS = {"high": "decide", "medium": "look", "low": "know"}
MOST = 40  # entries of a list on the page; the others are counted
SHOWN = 220  # characters of a text
SECTIONS = (
    "folder", "files", "unread", "rows", "kept", "left_out", "left_out_samples", "columns", "languages", "lengths",
    "classes", "duplicates", "leaks", "risks", "next", "settings", "seconds",
)  # fmt: skip
LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "it": "Italian", "nl": "Dutch", "pt": "Portuguese",
    "pl": "Polish", "sv": "Swedish", "da": "Danish", "no": "Norwegian", "nb": "Norwegian", "fi": "Finnish", "cs": "Czech",
    "ru": "Russian", "uk": "Ukrainian", "tr": "Turkish", "ar": "Arabic", "he": "Hebrew", "fa": "Persian", "hi": "Hindi",
    "zh": "Chinese", "ja": "Japanese", "ko": "Korean", "el": "Greek", "hu": "Hungarian", "ro": "Romanian", "la": "Latin",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """One thing to decide or to know, with the key that decides it."""

    severity: Severity
    what: str
    fix: str  # a setting or a command; "" if there is nothing to do
    anchor: str  # the section with its evidence


def look_page(facts: dict[str, Any]) -> str:
    """One self-contained HTML document; nothing in it is fetched or executed."""
    css = (HERE / "report.css").read_text(encoding="utf-8") + (HERE / "look.css").read_text(encoding="utf-8")
    found = concerns(facts)
    lengths = facts.get("lengths") or {}
    return PAGES.get_template("look.html.jinja").render(
        f=(f := whole(facts)),
        risks=[risk for risk in f["risks"] if risk["count"]],
        css=Markup(css),  # noqa: S704 (our own files)
        headline=headline(facts, found),
        lead=lead(facts),
        concerns=found,
        tones=TONES,
        severity_words=SEVERITY_WORDS,
        severity=severity,
        most=MOST,
        shown=SHOWN,
        size=size,
        duration=duration,
        plural=plural,
        words=in_words,
        place=place,
        share=share,
        language=lambda code: LANGUAGES.get(code, code),
        bars=bars,
        histogram=histogram(lengths.get("histogram") or []),
        examples=examples,
    )


def whole(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with None or nothing for what they do not have, so that the template asks for no key in vain."""
    f = dict.fromkeys(SECTIONS) | dict(facts)
    if f["lengths"]:
        f["lengths"] = {"characters": None, "words": None, "histogram": []} | f["lengths"]
    if f["duplicates"]:
        f["duplicates"] = {"exact": 0, "near": None} | f["duplicates"]
        if f["duplicates"]["near"]:
            f["duplicates"]["near"] = {"largest": [], "templates": []} | f["duplicates"]["near"]
    if f["leaks"]:
        f["leaks"] = {"naive": None, "proven": None, "contamination": []} | f["leaks"]
        if f["leaks"]["naive"]:
            f["leaks"]["naive"] = {"pairs": []} | f["leaks"]["naive"]
    f["risks"] = [{"rows": [], "fix": "", "severity": ""} | dict(risk) for risk in f["risks"] or []]
    return f


def headline(facts: Mapping[str, Any], found: Sequence[Concern]) -> str:
    rows = facts.get("rows", 0)
    decide = sum(c.severity == "high" for c in found)
    if not rows:
        return "No row can be read here."
    if decide:
        return f"{rows:,} rows, {plural(decide, 'thing')} to decide."
    look = sum(c.severity == "medium" for c in found)
    return f"{rows:,} rows, nothing to decide" + (f", {plural(look, 'thing')} to look at." if look else ".")


def lead(facts: Mapping[str, Any]) -> str:
    """One sentence: how much was read, how much of it can be used."""
    files, rows = facts.get("files") or [], facts.get("rows", 0)
    said = f"{plural(len(files), 'file')}"
    if formats := sorted({str(f["format"]) for f in files if f.get("format")}):
        said += f" ({', '.join(formats[:6])})"
    if "kept" in facts and rows:
        kept = facts["kept"]
        said += f": {kept:,} of {rows:,} rows can be used, {rows - kept:,} cannot, each with its reason"
    if unread := facts.get("unread"):
        said += f"; {plural(len(unread), 'file')} could not be read"
    return said + "."


def concerns(facts: Mapping[str, Any]) -> list[Concern]:
    """Everything a person should decide, the gravest first."""
    found = [
        *_reading(facts),
        *_doubles(facts.get("duplicates") or {}),
        *_leaks(facts.get("leaks") or {}, facts.get("duplicates") or {}),
        *(
            Concern(
                severity=severity(risk),
                what=f"{plural(risk['count'], 'row')}: {in_words(risk['kind'])}",
                fix=risk.get("fix") or "",
                anchor="risks",
            )
            for risk in facts.get("risks") or []
            if risk["count"]
        ),
    ]
    return sorted(found, key=lambda c: RANK[c.severity])  # stable: within a rank, in the order of the page


def severity(risk: Mapping[str, Any]) -> Severity:
    return SEVERITIES.get(str(risk.get("severity", "")).lower(), "low")


def _reading(facts: Mapping[str, Any]) -> list[Concern]:
    found = []
    if unread := facts.get("unread"):
        what = f"{plural(len(unread), 'file')} could not be read"
        found.append(Concern(severity="high", what=what, fix=unread[0].get("fix") or "", anchor="unread"))
    left_out = {reason: n for reason, n in (facts.get("left_out") or {}).items() if reason != "duplicate"}
    if left_out:
        most = sorted(left_out.items(), key=lambda r: (-r[1], r[0]))
        named = ", ".join(f"{n:,} {in_words(reason)}" for reason, n in most[:4]) + (", …" if len(most) > 4 else "")
        what = f"{plural(sum(left_out.values()), 'row')} cannot be used: {named}"
        fix = f"tunesmith data removed --reason {most[0][0]}"
        found.append(Concern(severity="medium", what=what, fix=fix, anchor="left-out"))
    return found


def _doubles(duplicates: Mapping[str, Any]) -> list[Concern]:
    found = []
    if exact := duplicates.get("exact"):
        what = f"{plural(exact, 'row')} {'repeats' if exact == 1 else 'repeat'} another word for word"
        found.append(Concern(severity="medium", what=what, fix="data: {duplicates: leave_out}", anchor="duplicates"))
    near = duplicates.get("near") or {}
    if near.get("clusters"):
        what = f"{near['rows']:,} rows are near-copies in {plural(near['clusters'], 'cluster')}"
        fix = f"data: {{dedup: {{near: {near['threshold']:g}}}}}"
        found.append(Concern(severity="medium", what=what, fix=fix, anchor="duplicates"))
    return found


def _leaks(leaks: Mapping[str, Any], duplicates: Mapping[str, Any]) -> list[Concern]:
    found = []
    naive = leaks.get("naive") or {}
    if naive.get("with_twin"):
        what = f"a random split would leak: {share(naive['share'])} of its test rows have a twin in train"
        near = (duplicates.get("near") or {}).get("threshold", 0.8)
        found.append(Concern(severity="high", what=what, fix=f"data: {{split: {{near: {near:g}}}}}", anchor="leaks"))
    for hit in leaks.get("contamination") or []:
        if hit["rows"]:
            what = f"{plural(hit['rows'], 'row')} also in {hit['against']}"
            fix = f"data: {{dedup: {{against: [{hit['against']}]}}}}"
            found.append(Concern(severity="high", what=what, fix=fix, anchor="leaks"))
    return found


# How things are said


def plural(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def in_words(name: str) -> str:
    """ "no_label" as people say it."""
    return str(name).replace("_", " ")


def share(value: float) -> str:
    """No part of something is said to be nothing or all of it."""
    if 0 < value < 0.0005:
        return "< 0.1%"
    if 0.9995 <= value < 1:
        return "> 99.9%"
    return f"{value:.1%}" if 0 < value < 0.0995 or 0.995 <= value < 1 else f"{value:.0%}"


def size(n: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if n < 1024:
            return f"{n:,.0f} {unit}" if unit == "bytes" or n >= 10 else f"{n:.1f} {unit}"
        n /= 1024  # type: ignore[assignment]
    return f"{n:,.1f} GiB"


def place(row: Mapping[str, Any]) -> str:
    return f"{row['file']}:{row['line']}" if row.get("line") else str(row.get("file", ""))


def examples(values: Sequence[Any]) -> str:
    return " · ".join(clip(" ".join(str(v).split()), 60) for v in values[:3])


def bars(counts: Mapping[str, int]) -> list[tuple[str, int, float, float]]:
    """(name, n, share of all, length of the bar from 0 to 1), the largest first."""
    total, top = sum(counts.values()) or 1, max(counts.values(), default=1) or 1
    ordered = sorted(counts.items(), key=lambda c: (-c[1], c[0]))
    return [(name, n, n / total, n / top) for name, n in ordered]


def histogram(bins: Sequence[Sequence[float]]) -> Markup:
    """Rows by length. `bins`: [lower edge in characters, rows]; bars of equal width, whatever the edges."""
    if not bins:
        return Markup("")
    left, right, top, bottom = 4, 436, 22, 130
    wide = (right - left) / len(bins)
    highest = max(n for _, n in bins) or 1
    out = [
        '<svg viewBox="0 0 440 168" role="img" aria-label="How many rows have which length; the table has the numbers">'
    ]
    every = max(1, round(len(bins) / 6))
    peak = max(range(len(bins)), key=lambda i: bins[i][1])
    for i, (edge, n) in enumerate(bins):
        x, tall = left + i * wide, (bottom - top) * n / highest
        if n:
            tall = max(tall, 1.0)
        out.append(
            f'<rect class="column" x="{x + 1:.1f}" y="{bottom - tall:.1f}" width="{max(wide - 2, 1):.1f}" height="{tall:.1f}"/>'
        )
        if i % every == 0:
            out.append(f'<text x="{x + 1:.1f}" y="{bottom + 16}">{escape(short(edge))}</text>')
        if i == peak:
            side = "end" if x > 360 else "start"
            out.append(
                f'<text class="val" x="{x:.1f}" y="{top - 7}" text-anchor="{side}">{plural(int(n), "row")}</text>'
            )
    out.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    out.append('<text x="220" y="164" text-anchor="middle">characters a row, from</text></svg>')
    return Markup("".join(out))  # noqa: S704 (every string above is a number or our own)


def short(n: float) -> str:
    return f"{n:,.0f}" if n < 10_000 else f"{n / 1000:,.0f}k"


def look_words(facts: dict[str, Any]) -> str:
    """The same for the terminal: what is there, what is wrong, what to do, in some forty lines."""
    found = concerns(facts)
    out = [headline(facts, found), lead(facts), ""]
    for file in (facts.get("files") or [])[:8]:
        shape = f", {file['shape']}" if file.get("shape") else ""
        out.append(f"  {file['file']}: {plural(file.get('rows', 0), 'row')}, {file.get('format', '?')}{shape}")
    if (more := len(facts.get("files") or []) - 8) > 0:
        out.append(f"  and {plural(more, 'more file')}")
    out += [f"  {u['file']}: not read: {u['reason']}" for u in (facts.get("unread") or [])[:5]]
    out += _what_it_is(facts)
    if found:
        out += ["", "What is wrong, and what decides it"]
        for c in found:
            out.append(f"  {SEVERITY_WORDS[c.severity]:<7} {c.what}")
            if c.fix:
                out.append(f"          {c.fix}")
    if commands := facts.get("next"):
        out += ["", "Next", *(f"  {command}" for command in commands)]
    if "seconds" in facts:
        out += ["", f"Looked at in {duration(facts['seconds'])}."]
    return "\n".join(map(printable, out)) + "\n"


def printable(line: str) -> str:
    """Names and labels are the user's: none of them may speak to the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)


def _what_it_is(facts: Mapping[str, Any]) -> list[str]:
    """Languages, classes and lengths, a line each."""
    out = []
    if languages := facts.get("languages"):
        named = [f"{LANGUAGES.get(code, code)} {share(part)}" for code, _, part, _ in bars(languages)[:5]]
        out.append(f"  languages: {', '.join(named)}")
    if classes := facts.get("classes"):
        most = bars(classes)
        named = [f"{label} {n:,}" for label, n, _, _ in most[:4]]
        rarest = f", the rarest {most[-1][0]} {most[-1][1]:,}" if len(most) > 4 else ""
        out.append(f"  {plural(len(most), 'class').replace('classs', 'classes')}: {', '.join(named)}{rarest}")
    characters = (facts.get("lengths") or {}).get("characters")
    if characters:
        out.append(
            f"  length: {characters['p50']:,} characters in the middle, {characters['p95']:,} at the 95th percentile, "
            f"{characters['max']:,} at most"
        )
    return out
