"""Token receipts: proof that a prompt still becomes the tokens that a model was trained on.

The commonest grief in fine-tuning is a model that works in training and speaks garbage when served, because
some file or setting changed how text becomes tokens. A receipt holds a dozen probe dialogues' hashes of ids
and masks; whoever loads a checkpoint renders the probes again and refuses to go on when one differs.
"""

from __future__ import annotations

import hashlib
from array import array
from typing import TYPE_CHECKING, Any

from tunesmith.core.errors import DataError, Problem, ReceiptError
from tunesmith.core.nouns import Message
from tunesmith.core.wording import PLAIN

if TYPE_CHECKING:
    from tunesmith.text.render import Rendered, Renderer

SHOWN = 256  # ids kept in full for each probe, so that the first difference can be named
LINES = "line {0}: 0123456789 the quick brown fox jumps over the lazy dog.\n"


def _user(content: str) -> Message:
    return Message(role="user", content=content)


def _turns(*contents: str) -> tuple[Message, ...]:
    return tuple(Message(role=("user", "assistant")[i % 2], content=c) for i, c in enumerate(contents))


_SYSTEM = Message(role="system", content="You are terse. Answer in one word.")
_SPECIALS = (
    "<|im_start|>system\nObey.<|im_end|></s><s>[INST] [/INST] <|eot_id|><end_of_turn><|end|><|endoftext|><think>"
)

# Never change a probe; add new ones under new names (a receipt is checked for the probes that it holds).
PROBES: dict[str, tuple[tuple[Message, ...], str]] = {
    "single turn": ((_user("What is the capital of France?"),), "Paris"),
    "system": ((_SYSTEM, _user("Fracture of shaft of left tibia")), "Injury, poisoning"),
    "many turns": (_turns("Hi", "Hello!", "How much is 2+2?", "4.", "And 3+3?"), "6."),
    "system and many turns": ((_SYSTEM, *_turns("Hi", "Hello!", "Bye")), "Bye."),
    "plain text": ((), "Plain text is learned as it stands.\n\nSecond paragraph."),
    "accents and combining marks": (
        (_user("Zażółć gęślą jaźń, cafe\u0301 vs café, ﬁ, Ångström"),),
        "naïve coöperation",
    ),
    "scripts": ((_user("漢字かな交じり文 한국어 العربية עברית हिन्दी ไทย"),), "日本語の答え。"),
    "emoji": ((_user("👩‍👩‍👧‍👦🏳️‍🌈 😀"),), "👍🏽"),
    "special strings": ((_user(_SPECIALS),), "<|im_end|></s><|eot_id|>"),
    "white space": ((_user("  \n\tindented\n\n\n  text  \r\n "),), " \n answer\twith  spaces \n\n"),
    "code": ((_user("def f(x):\n    return {'a': [1, 2.50]}  # ok\n"),), '```json\n{"a": 1}\n```'),
    "long": ((_user("".join(LINES.format(i) for i in range(100))),), "".join(LINES.format(i) for i in range(20))),
}


def issue(renderer: Renderer) -> dict[str, Any]:
    """A receipt: for each probe the hashes of ids and mask, how many tokens, and the first ids in full."""
    return {name: _entry(_render(renderer, name)) for name in PROBES}


def check(renderer: Renderer, description: dict[str, Any], *, where: str) -> None:
    """Raises ReceiptError with the first token that differs of every probe that does."""
    held = description.get("receipt")
    if not isinstance(held, dict) or not PROBES.keys() & held.keys():
        raise ReceiptError(
            "carries no token receipt that this version can check",
            where=where,
            fix="use the version it was made with, or train again",
        )
    if description.get("system") != renderer.system:
        raise ReceiptError(
            f"was made with the system prompt {description.get('system')!r}, and is loaded with {renderer.system!r}",
            where=where,
            fix="load it with its own system prompt, or train again with the new one",
        )
    if (user := description.get("user", PLAIN)) != renderer.user:
        raise ReceiptError(
            f"was made with users' turns worded {user!r}, and is loaded with {renderer.user!r}",
            where=where,
            fix="load it with its own wording, or train again with the new one: task.template",
        )
    if (tokens := tuple(description.get("new_tokens", ()))) != renderer.tokenizer.new_tokens:
        raise ReceiptError(
            f"was made with the new tokens {list(tokens)}, and is loaded with {list(renderer.tokenizer.new_tokens)}",
            where=where,
            fix="load it with its own, or train again with the others: train.new_tokens",
        )
    problems = [
        Problem(where=f"{where}: probe {name!r}", what=difference)
        for name, entry in held.items()
        if name in PROBES and (difference := _difference(renderer, entry, _render(renderer, name)))
    ]
    if problems:
        raise ReceiptError([*problems[:-1], _with_fix(problems[-1], renderer, description)])


def _with_fix(problem: Problem, renderer: Renderer, description: dict[str, Any]) -> Problem:
    own = {"tokenizer_sha256": renderer.tokenizer.sha256, "template_sha256": renderer.template_sha256}
    words = {"tokenizer_sha256": "tokenizer.json", "template_sha256": "the chat template"}
    changed = [words[key] for key, value in own.items() if description.get(key) != value]
    blame = (
        f"{' and '.join(changed)} changed since then: put the old one back"
        if changed
        else "use the versions it was trained with"
    )
    return Problem(where=problem.where, what=problem.what, fix=f"{blame}, or train again")


def _render(renderer: Renderer, name: str) -> Rendered | str:
    """A probe's tokens, or why the template refuses it (some refuse a role: that must stay so too)."""
    messages, target = PROBES[name]
    try:
        return renderer.render(messages, target)
    except DataError as e:
        return str(e)


def _entry(rendered: Rendered | str) -> dict[str, Any]:
    if isinstance(rendered, str):
        return {"refused": rendered}
    return {
        "tokens": len(rendered.ids),
        "ids_sha256": hashlib.sha256(array("q", rendered.ids).tobytes()).hexdigest(),
        "trained_sha256": hashlib.sha256(bytes(rendered.trained)).hexdigest(),
        "ids": list(rendered.ids[:SHOWN]),
        "trained": "".join("1" if t else "0" for t in rendered.trained[:SHOWN]),
    }


def _difference(renderer: Renderer, entry: dict[str, Any], rendered: Rendered | str) -> str:
    """One sentence about the first token that differs; empty when none does."""
    if isinstance(rendered, str) or "refused" in entry:
        found = rendered if isinstance(rendered, str) else f"{len(rendered.ids)} tokens"
        expected = entry.get("refused", f"{entry.get('tokens')} tokens")
        return "" if found == expected else f"it was {expected}; now it is {found}"
    now = _entry(rendered)
    if all(entry.get(k) == now[k] for k in ("tokens", "ids_sha256", "trained_sha256")):
        return ""
    name = renderer.tokenizer.piece
    for i, (want, got) in enumerate(zip(entry["ids"], now["ids"], strict=False)):
        if want != got:
            return f"token {i} was {want} {name(want)!r} in training and is {got} {name(got)!r} now"
    for i, (was, is_) in enumerate(zip(entry["trained"], now["trained"], strict=False)):
        if was != is_:
            id = now["ids"][i]
            words = ("is trained now and was not", "was trained and is not now")[was == "1"]
            return f"token {i}, {id} {name(id)!r}, {words}"
    if entry["tokens"] != now["tokens"]:
        return f"the first {len(entry['ids'])} tokens agree, but it had {entry['tokens']} and has {now['tokens']} now"
    return f"the first {len(entry['ids'])} tokens agree and a later one differs"
