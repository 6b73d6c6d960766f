"""Does a passage support an answer? Words, numbers, names and negation, compared without a model.

score     share of the answer's content words that the passage has, after folding case and endings
missing   numbers and names of the answer that the passage lacks: one is enough to call it unsupported
copied    the longest run of words that answer and passage share

This finds what was added. It can't find a true sentence turned round with the passage's own words ("A depends on B"
for "B depends on A"): that is what approval is for.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher

TOKEN = re.compile(r"\d+(?:[.,:]\d+)*%?|[^\W\d_]+(?:['’][^\W\d_]+)?|\w+")
FUNCTION_WORDS = frozenset(
    re.findall(
        r"\S+",
        "a an the and or but if then than that this these those it its it's they them their there here he she his her we "
        "you your i my our us is are was were be been being am do does did done has have had having can could will would "
        "shall should may might must to of in on at by for from with without into onto over under about as so such also "
        "which who whom whose what when where why how all any some each both other another more most much many one "
        "only just very own same too up out off again further once while during before after above below between "
        "through because until against e.g i.e etc not no nor never yes used use using",
    )
)
NEGATIONS = frozenset({"not", "no", "never", "none", "cannot", "without", "nor", "neither"})
NUMERALS = {
    w: str(i)
    for i, w in enumerate(
        ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    )
}
ENDINGS = ("ations", "ation", "ings", "ing", "edly", "ed", "ies", "es", "ly", "s")
COMPARED = 400  # words of each side that the longest run is looked for in
SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    score: float  # 0 to 1, rounded to 3 places
    copied: int  # words
    missing: tuple[str, ...]  # numbers and names
    reason: str  # "" if supported, else one plain sentence


def support(answer: str, passage: str, *, at_least: float) -> Support:
    """`passage` with its headings: a name that only the heading has is supported."""
    said, source = _tokens(answer), _tokens(passage)
    have = {_stem(t) for t in source}
    content = [t for t in said if t.casefold() not in FUNCTION_WORDS]
    found = sum(_stem(t) in have for t in content)
    score = round(found / len(content), 3) if content else 0.0
    missing = (*_missing_numbers(said, source), *_missing_names(answer, source))
    reason = ""
    if not content:
        reason = "the answer has no content words"
    elif missing:
        reason = f"the passage lacks {', '.join(missing[:SHOWN])}"
    elif score < at_least:
        gone = list(dict.fromkeys(t.casefold() for t in content if _stem(t) not in have))
        reason = f"{score:.0%} of the content words are in the passage; not there: {', '.join(gone[:SHOWN])}"
    elif _negates(said) and not _negates(source):
        reason = "the answer says no or not, the passage does not"
    return Support(score=score, copied=_longest_run(said, source), missing=missing, reason=reason)


def _tokens(text: str) -> list[str]:
    return TOKEN.findall(unicodedata.normalize("NFKC", text).replace("’", "'"))


def _stem(token: str) -> str:
    """Case and common English endings folded: enough to match `uploads` with `uploading`, and too little to match
    other words."""
    if token[0].isdigit():
        return token.rstrip("%").replace(",", "")
    word = token.casefold().removesuffix("'s")
    word = NUMERALS.get(word, word)
    for ending in ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + ("y" if ending == "ies" else "")
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lse":
        word = word[:-1]  # running, runn, run
    return word.removesuffix("e") if len(word) > 3 else word


def _numbers(tokens: list[str]) -> list[str]:
    found = []
    for token in tokens:
        if token[0].isdigit():
            found.append(token.rstrip("%").replace(",", ""))
        elif token.casefold() in NUMERALS and token.casefold() not in ("zero", "one"):
            found.append(NUMERALS[token.casefold()])
    return found


def _missing_numbers(said: list[str], source: list[str]) -> list[str]:
    have = set(_numbers(source)) | {n for token in source for n in re.findall(r"\d+", token)}
    return [n for n in dict.fromkeys(_numbers(said)) if n not in have]


def _missing_names(answer: str, source: list[str]) -> list[str]:
    """Words with a capital letter inside a sentence, or with several, that the passage has in no spelling of case."""
    have = {t.casefold() for t in source} | {t.casefold().removesuffix("'s") for t in source}
    have |= {_stem(t) for t in source}
    missing = []
    for found in TOKEN.finditer(unicodedata.normalize("NFKC", answer).replace("’", "'")):
        token = found.group().removesuffix("'s")
        if token[0].isdigit() or token.casefold() in FUNCTION_WORDS:
            continue
        before = answer[: found.start()].rstrip(" \t\"'“‘(*-•")
        opens = not before or before[-1] in ".!?:\n"
        capitals = sum(c.isupper() for c in token)
        if (capitals >= 2 or (capitals and not opens)) and token.casefold() not in have and _stem(token) not in have:
            missing.append(token)
    return list(dict.fromkeys(missing))


def _negates(tokens: list[str]) -> bool:
    return any(t.casefold() in NEGATIONS or t.casefold().endswith("n't") for t in tokens)


def _longest_run(said: list[str], source: list[str]) -> int:
    a = [t.casefold() for t in said[:COMPARED]]
    b = [t.casefold() for t in source[:COMPARED]]
    return SequenceMatcher(None, a, b, autojunk=False).find_longest_match().size
