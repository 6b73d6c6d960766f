"""The copies of one training row: noisy ones and paraphrases, each judged before it may join.

Everything random about a row comes from its id and the seed, so neither the order of rows nor their number
changes a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from random import Random

import msgspec

from tunesmith.core.nouns import Example, Message, Row
from tunesmith.data.augment.nearness import WORDS, Forbidden
from tunesmith.data.augment.noise import NOISES
from tunesmith.data.augment.paraphrase import Asked, reworded, unusable
from tunesmith.data.augment.stages import AugmentSpec
from tunesmith.data.proxy import rank_of, row_text
from tunesmith.data.validate import normalised


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A copy that does not join the training rows, and why."""

    origin: str
    reason: str  # "near_test", "near_validation", "unchanged", "duplicate", "over_long", ...
    detail: str


def copies_of(row: Row, spec: AugmentSpec, forbidden: Forbidden, ask: Asked | None) -> Iterator[Row | Refused]:
    """Copies in the order of the spec. A row without a question (domain) has none: noise would be its answer."""
    if not row.messages:
        return
    answer = "" if spec.kind == "classify" else row.target
    kept = set(WORDS.findall(normalised(answer)))
    for n, noise in enumerate(spec.noise):
        if _chosen(row, noise.share, f"{spec.seed} noise {n}"):
            random = Random(rank_of(row.id, f"{spec.seed} {noise.kind} {n}"))
            change = partial(NOISES[noise.kind], rate=noise.rate, random=random, kept=kept)
            yield _judged(row, _with_turns(row, change, last_only=False), f"augment.{noise.kind}", spec, forbidden)
    how = spec.paraphrase
    if how is None or ask is None or not _chosen(row, how.share, f"{spec.seed} {how.how}"):
        return
    for n in range(how.copies):
        original = row.example.input
        new = reworded(original, n, how, ask)
        origin = f"augment.{how.how}"
        fault = unusable(original, new, answer=answer)
        if fault is not None:
            yield Refused(origin=origin, reason=fault[0], detail=fault[1])
        else:
            yield _judged(row, _with_turns(row, partial(_instead, new), last_only=True), origin, spec, forbidden)


def _instead(new: str, old: str) -> str:
    return new


def _chosen(row: Row, share: float, salt: str) -> bool:
    return rank_of(row.id, f"share {salt}") < share * 2**64


def _with_turns(row: Row, change: Callable[[str], str], *, last_only: bool) -> tuple[Message, ...]:
    """The messages with the user's turns changed; tool answers and earlier assistant turns stay."""
    places = [i for i, m in enumerate(row.messages) if m.role == "user"]
    taken = set(places[-1:] if last_only else places)
    return tuple(
        msgspec.structs.replace(m, content=change(m.content)) if i in taken else m for i, m in enumerate(row.messages)
    )


def _judged(
    row: Row, messages: tuple[Message, ...], origin: str, spec: AugmentSpec, forbidden: Forbidden
) -> Row | Refused:
    """The copy, unless it says nothing new or is too near a row of another split."""
    if messages == row.messages:
        return Refused(origin=origin, reason="unchanged", detail="there was nothing in it to change")
    copy = msgspec.structs.replace(
        row,
        id=Example(messages=messages, target=row.target).id,
        messages=messages,
        origin=origin,
    )
    # the original counts too: a typo hides that a row is a twin of a test row, it does not make it another
    for text in (row_text(copy), row_text(row)):
        similarity, name = forbidden.nearest(text)
        if similarity >= spec.near:
            split = name.partition(":")[0]
            return Refused(
                origin=origin,
                reason=f"near_{split}",
                detail=f"similarity {similarity:.2f} with {name.partition(':')[2]}",
            )
    return copy
