"""One judgment: what a person said about one item, and when."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import plain
from tunesmith.core.errors import InputError

Verb = Literal["label", "approve", "reject", "correct", "skip", "undo", "adjudicate"]
Kind = Literal["label", "pair"]
VERBS: dict[Kind, tuple[Verb, ...]] = {
    "label": ("label", "correct", "skip", "undo", "adjudicate"),
    "pair": ("approve", "reject", "correct", "skip", "undo", "adjudicate"),
}
MAX_REASON = 2_000  # characters
MAX_TEXT = 100_000  # characters of a corrected prompt or answer
MAX_SECONDS = 86_400.0


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A judgment as its author sends it. `id` is the author's own, so that it can be sent again."""

    id: str
    queue: str
    item: str
    verb: Verb
    # a label; {"prompt", "completion"} of a corrected pair; the id that an undo takes back; a ruling on a pair is
    # {"verb": "approve" | "reject"} or {"verb": "correct", "prompt", "completion"}
    value: Any = None
    reason: str = ""
    seconds: float = 0.0  # from the item's being shown to the verdict


class Judgment(Draft, frozen=True, kw_only=True):
    """A judgment as it is kept. The order in which judgments are kept decides, not `at`."""

    annotator: str
    at: str  # ISO 8601, UTC: when it was kept

    def says(self, draft: Draft) -> bool:
        """The same judgment sent again: only how long it took may differ."""
        mine = (self.id, self.queue, self.item, self.verb, self.value, self.reason)
        return mine == (draft.id, draft.queue, draft.item, draft.verb, plain(draft.value), draft.reason)


def check_draft(draft: Draft, kind: Kind, labels: tuple[str, ...]) -> None:
    """Raises InputError for a judgment that has no meaning, whatever the state of the queue."""

    def refuse(what: str, fix: str = "") -> None:
        raise InputError(what, where=f"judgment {draft.id[:40]}", fix=fix)

    if not (8 <= len(draft.id) <= 64 and draft.id.isascii() and draft.id.replace("-", "").isalnum()):
        refuse("its id is not 8 to 64 letters, digits and hyphens")
    if draft.verb not in VERBS[kind]:
        refuse(f"{draft.verb} has no meaning in a queue of {kind}s", f"verbs: {', '.join(VERBS[kind])}")
    if len(draft.reason) > MAX_REASON:
        refuse(f"its reason is longer than {MAX_REASON} characters")
    if not 0 <= draft.seconds <= MAX_SECONDS:
        refuse(f"{draft.seconds} seconds is not between 0 and {MAX_SECONDS:.0f}")
    if draft.verb == "skip" and not draft.reason.strip():
        refuse("a skip needs a reason", "say why: the next person will see the item too")
    if draft.verb == "undo":
        if not isinstance(draft.value, str):
            refuse("an undo names the judgment that it takes back")
    elif draft.verb in ("skip", "approve", "reject"):
        if draft.value is not None:
            refuse(f"{draft.verb} takes no value")
    elif kind == "label":
        if draft.value not in labels:
            refuse("its label is not one of the queue's", f"labels: {', '.join(labels[:20])}")
    elif draft.verb == "correct":
        _check_pair(draft.value, refuse)
    else:
        ruling = draft.value if isinstance(draft.value, dict) else {}
        if ruling.get("verb") == "correct":
            _check_pair({k: v for k, v in ruling.items() if k != "verb"}, refuse)
        elif set(ruling) != {"verb"} or ruling["verb"] not in ("approve", "reject"):
            refuse('a ruling on a pair is {"verb": "approve" | "reject"}, or "correct" with prompt and completion')


def _check_pair(value: Any, refuse: Any) -> None:
    if not isinstance(value, dict) or set(value) != {"prompt", "completion"}:
        refuse("a corrected pair has a prompt and a completion")
    for name, text in value.items():
        if not isinstance(text, str) or not text.strip():
            refuse(f"the corrected {name} is empty", "reject the pair if there is nothing to keep")
        if len(text) > MAX_TEXT:
            refuse(f"the corrected {name} is longer than {MAX_TEXT} characters")
