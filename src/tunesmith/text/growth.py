"""New tokens: texts that a tokenizer writes in several pieces, and from now on in one.

    core = grown(tokenizer.json as text, ("<ICD>", "<OPS>"))    the file with both in it

The ids follow the last one. They are ordinary tokens: they are found in ordinary text, longest first, and decoded to
their text. What their embeddings start as and how they are trained is model/new_tokens.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import InputError, Problem

if TYPE_CHECKING:
    from tunesmith.text.tokenizer import Tokenizer

MOST = 1000  # a vocabulary of a language of its own is another task, and the tokenizer's own training
WHERE = "train.new_tokens"


def grown(source: str, tokens: Sequence[str]) -> str:
    """tokenizer.json with `tokens` that it lacks behind its last id; the same text for the same two, whatever version
    of the library reads it."""
    file: dict[str, Any] = json.loads(source)
    added: list[dict[str, Any]] = file.setdefault("added_tokens", [])
    vocabulary = file["model"].get("vocab") or {}
    ids = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))  # a list: Unigram
    last = max([*ids, *(t["id"] for t in added)])
    known = {t["content"] for t in added}
    missing = [t for t in tokens if t not in known]
    if not missing:
        return source
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added += [{"id": last + i, "content": t, **usual} for i, t in enumerate(missing, 1)]
    return json.dumps(file, ensure_ascii=False)


def listed_problems(tokens: Sequence[str]) -> list[Problem]:
    """What is wrong with the list, whatever the tokenizer."""
    found = []
    if len(tokens) > MOST:
        what = f"are {len(tokens)}, more than {MOST}: rows would see each too seldom to learn it"
        found.append(Problem(where=WHERE, what=what, fix="keep the most frequent ones"))
    for token in sorted({t for t in tokens if tokens.count(t) > 1}):
        found.append(Problem(where=WHERE, what=f"{token!r} is there {tokens.count(token)} times", fix="give it once"))
    for token in tokens:
        if not token.strip():
            found.append(Problem(where=WHERE, what=f"{token!r} has nothing but white space", fix="leave it out"))
    return found


def tokenizer_problems(tokenizer: Tokenizer, tokens: Sequence[str]) -> list[Problem]:
    """Why this tokenizer, which has none of them yet, cannot take them."""
    found = []

    def problem(token: str, what: str, fix: str) -> None:
        found.append(Problem(where=WHERE, what=f"{token!r} {what}", fix=fix))

    for token in (t for t in dict.fromkeys(tokens) if t.strip()):
        known = next((i for i in (tokenizer.encode(token), tokenizer.encode(" " + token)) if len(i) == 1), None)
        if (id := tokenizer.id_of(token)) is not None or known is not None:
            number = id if id is not None or known is None else known[0]
            problem(token, f"is one token already, by itself or after a space (id {number})", "leave it out")
        elif special := tokenizer.find_special(token):
            problem(
                token, f"holds the special token {special[0]!r}, which ordinary text never is", "spell it otherwise"
            )
    if found:
        return found
    after = tokenizer.with_tokens(tokens)
    for i, token in enumerate(dict.fromkeys(tokens)):
        id = tokenizer.vocab_size + i
        if after.id_of(token) != id or after.encode(token) != [id]:
            problem(token, "does not become one token of this tokenizer", "spell it without the other new tokens in it")
        elif (read := after.decode([id])).strip() != token.strip():
            problem(token, f"would be read back as {read!r} by this tokenizer's decoder", "spell it in ASCII")
        elif (read := after.decode(after.encode(f"a {token}b"))) != f"a {token}b":
            what = f"would change the text round it: 'a {token}b' would be read back as {read!r}"
            problem(token, what, "use a base whose tokenizer puts no space of its own after an added token")
    return found


def refuse_tokens(tokenizer: Tokenizer, tokens: Sequence[str]) -> None:
    """Raises InputError with everything that keeps `tokens` from being new tokens of this tokenizer."""
    if not tokens:
        return
    if found := [*listed_problems(tokens), *tokenizer_problems(tokenizer, tokens)]:
        raise InputError(found)
