"""Messages to token ids and loss mask: the one renderer of training, evaluation and serving.

    renderer = Renderer.load(folder, system="You are ...")
    renderer.prompt(messages)            ids up to where the answer begins
    renderer.answer(target)              ids of the answer, stop token last
    renderer.render(messages, target)    both, and which tokens are trained

A prompt's ids are those of transformers' apply_chat_template, as long as no message holds the string of a
special token; such strings are text here, never tokens. An answer is encoded apart from its prompt, because
that is how a served model meets it: so what was trained is what is served, also where a tokenizer would
have merged across the border.

Peculiar templates (see layout.py for how they are recognised):
- no system role (Gemma, early Mistral): the system prompt opens the first user turn;
- a system prompt of the template's own when none is given (SmolLM2, Qwen2.5): it stays, as in transformers,
  and `own_system` in describe() shows it, so give one;
- earlier turns that change when later ones follow (Qwen3 drops its thoughts, early Mistral moves the system
  prompt): earlier assistant turns are context, only the last answer is trained ("trains" in describe());
- a generation prompt that no assistant turn begins with (models that open with a thought): the prompt ends
  where the answer begins in an assistant's turn ("prompt_ends"), and so differs from transformers';
- thinking models get enable_thinking=False: targets are final answers;
- no chat template at all (base models): the plain layout in template.py.

Tools: calls, what tools answer and the declared tools go through the template as transformers passes them; a
template that leaves any of it out is refused (calls.py). A row whose answer is itself a call carries that turn as its
last message: it is then the turn, as the template writes it, that is trained, and `target` is for people.
A turn of weight 0 is context: it is in the prompt and not trained; one of weight 0.5 counts half.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import structs

from tunesmith.core import wording
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message, Row
from tunesmith.text import calls, receipt
from tunesmith.text.layout import KEPT, Layout, find_layout, fold_system
from tunesmith.text.template import PLAIN, ChatTemplate, TemplateRefusal, Tools
from tunesmith.text.tokenizer import Tokenizer, read_template

MARKS = "".join(map(chr, range(0xFDD0, 0xFDEF)))  # noncharacters: Unicode keeps them for a program's own use
_MARKS = re.compile(f"[{MARKS}]")
Span = tuple[int, int, float]  # of a text: start, end, and the weight of the turn that is there
NEUTRAL = ("\n", ":", ".", "]", ">", "a")  # contexts for an answer that would merge with the prompt's end


@dataclass(frozen=True, slots=True)
class Rendered:
    """ids[i] is trained where trained[i]; the answer, stop token last, is at the end and always trained."""

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    shares: tuple[float, ...] = ()  # of the example's weight, for each token; empty: trained ones have all of it


class Renderer:
    """Made with `Renderer.load`. Immutable; safe to use from several threads."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        *,
        system: str,
        has_template: bool,
        where: str,
        user: str = wording.PLAIN,
    ):
        self.tokenizer = tokenizer
        self.system = system
        self.user = user  # how each user's turn is worded: see core/wording.py
        self.layout: Layout = find_layout(template, tokenizer, where=where)
        self.stop_id: int = tokenizer.specials.get(self.layout.stop, tokenizer.eos_id)
        self.stop_ids: frozenset[int] = frozenset({self.stop_id, *tokenizer.eos_ids})
        self.pad_id: int = tokenizer.pad_id
        self.vocab_size: int = tokenizer.vocab_size
        self.template_sha256: str = template.sha256
        self._template = template
        self._has_template = has_template
        self._kept = KEPT[self.layout.kept]
        self._context = tokenizer.respell(self.layout.context)
        self._contexts = [(c, tokenizer.encode(c)) for c in (self._context, *NEUTRAL)]
        context_ids = [i for i in self._contexts[0][1] if i not in tokenizer.special_ids]
        self._context_text = tokenizer.decode(context_ids)
        self._context_ids = context_ids if self._context_text else []
        self._writes: calls.Writes | None = None  # what the template writes of tools, once that is asked
        self._answer = lru_cache(maxsize=4096)(self._encode_answer)  # a classifier has few answers, and many rows

    @classmethod
    def load(
        cls, folder: Path, *, system: str = "", user: str = wording.PLAIN, new_tokens: Sequence[str] = ()
    ) -> Renderer:
        """`system` is the system prompt of conversations that carry none, `user` how users' turns are worded,
        `new_tokens` what is one token beside the folder's own (text/growth.py). Raises ModelError."""
        tokenizer = Tokenizer.load(folder, new_tokens)
        found = read_template(folder)
        source, where = found or (PLAIN, str(folder))
        template = ChatTemplate(source, {"bos_token": "", "eos_token": "", **tokenizer.names}, where=where)
        return cls(tokenizer, template, system=system, has_template=found is not None, where=where, user=user)

    # -- one example ------------------------------------------------------------------------------------

    def prompt(self, messages: Sequence[Message], tools: Tools = ()) -> list[int]:
        """Ids up to where the assistant's answer begins. No messages: what plain text begins with.

        A last turn of tool calls is the answer itself, and is left out. Raises DataError when the template refuses
        the conversation or would leave some of it out.
        """
        if not messages:
            return list(self.tokenizer.bos_ids)
        return self.tokenizer.encode(self._spell(_before(messages), tools))

    def answer(self, target: str) -> list[int]:
        """Ids of the answer as a served model should write it, stop token last."""
        return list(self._answer(target))

    def render(self, messages: Sequence[Message], target: str, tools: Tools = ()) -> Rendered:
        """prompt + answer. Trained: the answer and every earlier assistant turn whose weight is not 0, each with its
        stop token.

        Without messages: plain text and the end of sequence, all trained (a begin-of-sequence token has nothing
        before it to be predicted from).
        """
        if not messages:
            return self._plain(self.tokenizer.encode(target))
        if calls.uses_tools(messages, tools):
            return self._with_tools(messages, target, tools)
        if self._trains_earlier(messages):
            ids, trained = self._masked(messages)
        else:
            ids = self.prompt(messages)
            trained = [0.0] * len(ids)
        return _join(ids, trained, self._answer(target))

    def render_many(
        self, examples: Iterable[tuple[Sequence[Message], str] | tuple[Sequence[Message], str, Tools]]
    ) -> list[Rendered]:
        """`render` of each (messages, target) or (messages, target, tools), several times faster: prompts are
        encoded as one batch."""
        complete = [(e[0], e[1], e[2] if len(e) == 3 else ()) for e in examples]
        apart = [bool(m) and (calls.uses_tools(m, tools) or self._trains_earlier(m)) for m, _, tools in complete]
        texts = [
            self._spell(messages) if messages else target
            for (messages, target, _), alone in zip(complete, apart, strict=True)
            if not alone
        ]
        encoded = iter(self.tokenizer.encode_many(texts))
        rendered = []
        for (messages, target, tools), alone in zip(complete, apart, strict=True):
            if alone:
                rendered.append(self.render(messages, target, tools))
            elif not messages:
                rendered.append(self._plain(next(encoded)))
            else:
                ids = next(encoded)
                rendered.append(_join(ids, [0.0] * len(ids), self._answer(target)))
        return rendered

    def render_rows(self, rows: Iterable[Row]) -> list[Rendered]:
        """`render_many` of rows with all that they hold, so that no caller forgets their tools."""
        return self.render_many((row.messages, row.target, row.tools) for row in rows)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of answer ids, up to the first stop token; special tokens and the template's own white space
        round an answer left out. `decode(answer(text)) == text` but for white space that the template strips and a
        leading space that some tokenizers swallow (Phi-3)."""
        end = next((i for i, id in enumerate(ids) if id in self.stop_ids), len(ids))
        text = self.tokenizer.decode([*self._context_ids, *ids[:end]])  # a decoder may treat a text's start apart
        text = text[len(self._context_text) :].removeprefix(self.layout.lead)
        return text.removesuffix(self.layout.tail) if end < len(ids) else text

    # -- the receipt ------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """What travels with a checkpoint: enough to see later that prompts still become the same tokens."""
        layout = self.layout
        return {
            "system": self.system,
            **({"user": self.user} if self.user != wording.PLAIN else {}),
            "template_sha256": self.template_sha256,
            "tokenizer_sha256": self.tokenizer.sha256,
            **({"new_tokens": list(self.tokenizer.new_tokens)} if self.tokenizer.new_tokens else {}),
            "stop_id": self.stop_id,
            "stop": layout.stop,
            "layout": "the model's chat template" if self._has_template else "plain: the model has no chat template",
            "prompt_ends": layout.ends,
            "answer_kept": layout.kept,
            "system_role": "opens the first user turn" if layout.folds_system else "the template's own",
            "own_system": layout.own_system,
            "trains": "every assistant turn" if all(layout.history) else "the last answer, where earlier turns change",
            "receipt": receipt.issue(self),
        }

    def check(self, description: dict[str, Any], *, where: str) -> None:
        """Raises ReceiptError, naming the first token that differs, when the probes no longer become the tokens of
        `description` (another renderer's describe()). `where` is what carries the description, for the message."""
        receipt.check(self, description, where=where)

    # -- inside -----------------------------------------------------------------------------------------

    def _plain(self, text_ids: list[int]) -> Rendered:
        before = self.tokenizer.bos_ids
        ids = (*before, *text_ids, self.tokenizer.eos_id)
        return Rendered(ids, (False,) * len(before) + (True,) * (len(ids) - len(before)))

    def _encode_answer(self, target: str) -> tuple[int, ...]:
        kept = self._kept(target)
        return (*self._encode_after_prompt(self.layout.lead + kept + self.layout.tail, kept), self.stop_id)

    def _encode_after_prompt(self, text: str, kept: str | None) -> list[int]:
        """Ids of what follows a prompt, which no token crosses into; `kept` is what they should decode to again."""
        chosen: list[int] | None = None
        for context, context_ids in self._contexts:
            ids = self.tokenizer.encode(context + text)
            if ids[: len(context_ids)] != context_ids:
                continue  # the tokenizer merged across the border
            ids = ids[len(context_ids) :]
            chosen = chosen or ids
            if kept is None or not text[:1].isspace() or self.decode([*ids, self.stop_id]) == kept:
                chosen = ids
                break
        return self.tokenizer.encode(text) if chosen is None else chosen

    def _trains_earlier(self, messages: Sequence[Message]) -> bool:
        with_system = bool(self.system) or messages[0].role == "system"
        return self.layout.history[with_system] and any(m.role == "assistant" and m.weight for m in messages)

    def _complete(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with its system prompt and its users' turns as they are worded, in the roles that the
        template takes."""
        complete = list(messages)
        if self.user != wording.PLAIN:
            complete = [worded(m, self.user, {}) for m in messages]
        if self.system and messages[0].role != "system":
            complete.insert(0, Message(role="system", content=self.system))
        return fold_system(complete) if self.layout.folds_system else complete

    def _spell(self, messages: Sequence[Message], tools: Tools = ()) -> str:
        """The prompt's text, ready for Tokenizer.encode."""
        complete = self._complete(messages)
        mark = _unused(calls.texts_of(complete, tools))[0]
        return self._finish(self._prompt_text(complete, tools, mark), mark)

    def _finish(self, text: str, mark: str) -> str:
        return self.tokenizer.respell(text).replace(mark, "")

    def _prompt_text(self, complete: Sequence[Message], tools: Tools, mark: str) -> str:
        """What the template writes, strings of special tokens in people's text broken by `mark`."""
        if calls.uses_tools(complete, tools):
            self._writes = self._writes or calls.try_out(self._template)
            calls.refuse_left_out(self._writes, complete, tools)
        broken = [self._break(m.content, mark) for m in complete]
        text = self._write(complete, broken, tools, mark)
        for m, content in zip(complete, broken, strict=True):
            if m.role in ("system", "user") and content.strip() not in text:
                raise DataError(
                    f"the chat template leaves out what the {m.role} says: {m.content[:60]!r}",
                    where="messages",
                    fix=f"leave the {m.role} turn out, or put a chat template that writes it into the model folder",
                )
        calls.refuse_lost(complete, broken, text)
        return text

    def _with_tools(self, messages: Sequence[Message], target: str, tools: Tools) -> Rendered:
        """`render` of a conversation with tools: what an assistant's turn adds is found by writing the conversation
        up to it and with it."""
        before = self._complete(_before(messages))
        mark = _unused(calls.texts_of(self._complete(messages), tools))[0]
        prompt = self._prompt_text(before, tools, mark)
        spans: list[Span] = []
        if self._trains_earlier(before):
            for i, m in enumerate(before):
                if m.role == "assistant" and m.weight:
                    start, end = self._turn(before[:i], m, tools, mark)
                    if not prompt.startswith(end):
                        raise _moved()
                    spans.append((len(self._finish(start, mark)), len(self._finish(end, mark)), m.weight))
        ids, places = self.tokenizer.encode_placed(self._finish(prompt, mark))
        trained = _inside(places, spans)
        if len(messages) == 0 or not messages[-1].tool_calls:
            return _join(ids, trained, self._answer(target))
        start, end = self._turn(before, messages[-1], tools, mark)
        said = end[len(start) :]
        stop = next((s for s in sorted(self.tokenizer.specials, key=len, reverse=True) if said.endswith(s)), "")
        stop_id = self.tokenizer.specials[stop] if stop else self.stop_id
        if stop_id not in self.stop_ids:
            raise DataError(
                f"the chat template ends a turn of tool calls with {stop!r}, after which this model goes on writing",
                where="messages",
                fix='add its id to "eos_token_id" in generation_config.json',
            )
        text = self._finish(said.removesuffix(stop), mark)
        return _join(ids, trained, (*self._encode_after_prompt(text, None), stop_id), messages[-1].weight)

    def _turn(self, before: Sequence[Message], turn: Message, tools: Tools, mark: str) -> tuple[str, str]:
        """The text before an assistant's turn, and with it up to its stop token."""
        start = self._prompt_text(before, tools, mark)
        complete = [*before, turn]
        broken = [self._break(m.content, mark) for m in complete]
        text = self._template_text(complete, broken, tools, mark, generate=False)
        if not text.startswith(start) or not text[len(start) :].strip():
            raise _moved()
        calls.refuse_lost(complete[-1:], broken[-1:], text[len(start) :])
        return start, text.rstrip()

    def _masked(self, messages: Sequence[Message]) -> tuple[list[int], list[float]]:
        """Prompt ids, and the weights of those that belong to earlier assistant turns, else 0. The turns are found by marks round their text."""
        complete = self._complete(messages)
        mark, opening, closing = _unused(m.content for m in complete)
        marked: list[str] = []
        spans: list[Span] = []
        for m in complete:
            content = self._break(m.content, mark)
            if m.role == "assistant":
                core = content.strip()
                before = content[: len(content) - len(content.lstrip())]
                content = f"{before}{opening}{core}{closing}{content[len(before) + len(core) :]}"
            marked.append(content)
        text = self._finish(self._write(complete, marked), mark)
        turns = [m for m in complete if m.role == "assistant"]
        pieces = re.split(f"[{opening}{closing}]", text)
        plain = "".join(pieces)
        if plain != self._spell(messages) or len(pieces) != 2 * len(turns) + 1:
            raise _moved()
        place = 0
        stop = self.layout.tail + self.tokenizer.respell(self.layout.stop)
        for i, turn in enumerate(turns):
            kept = self._kept(turn.content)
            start = place + len(pieces[2 * i])
            place = start + len(pieces[2 * i + 1])
            start -= len(self.layout.lead) + len(kept) - len(kept.lstrip())
            end = place + (len(kept) - len(kept.rstrip()) if kept.strip() else 0) + len(stop)
            if not plain.startswith(self.layout.lead, start) or plain[end - len(stop) : end] != stop:
                raise _moved()
            if turn.weight:
                spans.append((start, end, turn.weight))
        ids, places = self.tokenizer.encode_placed(plain)
        return ids, _inside(places, spans)

    def _break(self, content: str, mark: str) -> str:
        return self.tokenizer.break_specials(content, mark)

    def _write(self, complete: Sequence[Message], contents: Sequence[str], tools: Tools = (), mark: str = "") -> str:
        """The text up to where the answer begins."""
        if self.layout.ends == "generation prompt":
            return self._template_text(complete, contents, tools, mark, generate=True)
        end = MARKS[-1]
        asked = [*complete, Message(role="assistant", content=end)]
        text = self._template_text(asked, [*contents, end], tools, mark, generate=False)
        return text[: text.rindex(end)]

    def _template_text(
        self, complete: Sequence[Message], contents: Sequence[str], tools: Tools, mark: str, *, generate: bool
    ) -> str:
        turns = calls.turns_of(complete, contents, lambda text: self._break(text, mark))
        declared = [calls.changed(tool, lambda text: self._break(text, mark)) for tool in tools]
        try:
            return self._template.write(turns, add_generation_prompt=generate, tools=declared)
        except TemplateRefusal as e:
            # the answer's own mark is no turn of the user's
            roles = ", ".join(m.role for m in complete if m.content != MARKS[-1])
            raise DataError(
                f"the model's chat template refuses the turns {roles}: {e}",
                where="messages",
                fix="let user and assistant take turns, beginning with the user",
            ) from e


def worded(message: Message, template: str, fields: Mapping[str, Any]) -> Message:
    """A user's turn in the words of `template`; other turns as they are."""
    if message.role != "user" or template == wording.PLAIN:
        return message
    return structs.replace(message, content=wording.filled(template, {**fields, "text": message.content}))


def _before(messages: Sequence[Message]) -> Sequence[Message]:
    """The conversation without a last turn of tool calls, which is the answer itself."""
    return messages[:-1] if messages and messages[-1].tool_calls else messages


def _join(ids: list[int], weights: list[float], answer: tuple[int, ...], weight: float = 1.0) -> Rendered:
    """`weights` are the prompt's, 0 where nothing is trained; `weight` is the answer's."""
    every = (*weights, *(weight,) * len(answer))
    return Rendered((*ids, *answer), tuple(w > 0 for w in every), every if set(every) - {0.0, 1.0} else ())


def _unused(texts: Iterable[str]) -> tuple[str, str, str]:
    """Three marks that occur in no text."""
    found = {c for text in texts if not text.isascii() for c in _MARKS.findall(text)}
    free = [c for c in MARKS[:-1] if c not in found]
    if len(free) < 3 or MARKS[-1] in found:
        raise DataError(
            "the text holds the Unicode noncharacters U+FDD0 to U+FDEE, which have no meaning in text",
            where="messages",
            fix="remove them",
        )
    return free[0], free[1], free[2]


def _moved() -> DataError:
    return DataError(
        "the chat template changes an earlier assistant turn, so its tokens cannot be told from the prompt's",
        where="messages",
        fix="leave text such as <think>...</think> out of earlier assistant turns",
    )


def _inside(places: list[tuple[int, int]], spans: list[Span]) -> list[float]:
    """The weight of the span that a token begins in, else 0; both lists are in order. A token that begins in the
    prompt's text and ends in the answer's is not trained: a served model never gets to choose it."""
    inside, i = [], 0
    for start, _ in places:
        while i < len(spans) and start >= spans[i][1]:
            i += 1
        inside.append(spans[i][2] if i < len(spans) and start >= spans[i][0] else 0.0)
    return inside
