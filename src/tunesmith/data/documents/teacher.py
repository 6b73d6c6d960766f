"""Pairs that a model writes: what it is asked, and what is made of its reply.

Each passage is one request, which holds everything that the reply depends on; its content id is what the reply is
kept under. Requests run a few at a time; replies come back in the order of the passages.
"""

from __future__ import annotations

import heapq
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import InputError, Stopped
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.blocks import CONTROLS, tidy
from tunesmith.data.documents.endpoint import Refused
from tunesmith.data.documents.records import Passage
from tunesmith.data.documents.replies import Replies, Reply, text_of
from tunesmith.data.documents.stages import TeacherSpec

WORKERS = 4  # requests at a time to an endpoint; a local model gets one
LONGEST = 1 << 17  # characters of a reply that is looked into
REFUSED = "refuses"
HOPELESS = 5  # requests refused in a row, none answered: nothing of this will work
SYSTEM = (
    "You write training data from a passage of a document. Each question or instruction must make sense to somebody "
    'who does not see the passage: name what it is about, and never say "the passage", "the text" or "this '
    'section". Each answer must be complete, correct, and say only what the passage says, with its own names and '
    "numbers. Reply with JSON only."
)
ASKED = (
    "Document: {title}\nSection: {heading}\n\nPassage:\n{text}\n\n"
    'Write {n} different pairs as JSON: {{"pairs": [{{"question": "...", "answer": "..."}}]}}'
)
FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.S)
MARKED = re.compile(r"^\s*(?:\d+[.)]\s*)?\**(?:Q|Question)\s*\d*\**\s*[:.]\**\s*(.+?)\s*\n+\s*\**(?:A|Answer)\s*\d*\**\s*[:.]\**\s*(.+?)"
                    r"(?=\n\s*(?:\d+[.)]\s*)?\**(?:Q|Question)\s*\d*\**\s*[:.]|\Z)", re.S | re.M | re.I)  # fmt: skip
QUESTION_KEYS = ("question", "instruction", "prompt", "q")
ANSWER_KEYS = ("answer", "response", "completion", "output", "a")
POINTS_AT_PASSAGE = re.compile(
    r"\b(?:the|this)\s+(?:above\s+|given\s+|provided\s+|following\s+)?(?:(?:passage|excerpt)\b"
    r"|(?:text|section|paragraph|context|document|author)(?:\s+above)?(?=\s*[?.,;:]|$|\s+(?:is|are|was|were|does|do|did|"
    r"what|who|how|which|why|when|where|says?|mentions?|describes?|states?|explains?|discuss|suggests?|lists?|gives?|"
    r"provides?|defines?)\b))|\bmentioned above\b",
    re.I,
)

Ask = Callable[[Mapping[str, Any]], Any]  # a request's body -> a chat completion's body; may raise Refused


@dataclass(frozen=True, slots=True)
class Asked:
    """One passage and the request about it."""

    number: int  # the passage's line in passages.jsonl
    passage: Passage
    request: str
    body: Mapping[str, Any]


def request_body(spec: TeacherSpec, passage: Passage, title: str) -> dict[str, Any]:
    heading = " > ".join(passage.heading) or "(none)"
    said = ASKED.format(title=title or passage.file, heading=heading, text=passage.text, n=spec.per_passage)
    return {
        "model": spec.model,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": said}],
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
        "seed": spec.seed,
    }


def chosen(passages: Iterable[str], limit: int, seed: int) -> set[str] | None:
    """`limit` of the passages' ids by hash, so that they are from all over the documents; None for all of them."""
    if limit == 0:
        return None
    return {p for _, p in heapq.nsmallest(limit, ((content_id([seed, p]), p) for p in passages))}


def ask_all(
    asked: Iterable[Asked], ask: Ask, replies: Replies, work: Workspace, *, workers: int
) -> Iterator[tuple[Asked, Reply]]:
    """Every request with its reply, in order. A reply is kept as it arrives; one that is kept is not asked for again.

    Raises what `ask` raises, after those under way have arrived and are kept; InputError if the first HOPELESS
    requests are all refused; Stopped.
    """
    waiting: deque[tuple[Asked, Future[Reply]]] = deque()
    hope = _Hope()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="teacher")
    try:
        for one in asked:
            work.stop_if_asked()
            waiting.append((one, pool.submit(_reply, one, ask, replies, work)))
            if len(waiting) > 2 * workers:
                yield hope.next(waiting)
        while waiting:
            yield hope.next(waiting)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Hope:
    """Gives up when the first requests are all refused: then it is not one passage that the teacher dislikes."""

    def __init__(self) -> None:
        self._refused = 0
        self._answered = False

    def next(self, waiting: deque[tuple[Asked, Future[Reply]]]) -> tuple[Asked, Reply]:
        one, future = waiting.popleft()
        reply = future.result()
        if reply.problem.startswith(REFUSED):
            self._refused += 1
        else:
            self._answered = True
        if self._refused >= HOPELESS and not self._answered:
            raise InputError(
                f"the teacher {reply.problem}, each of the first {self._refused} requests",
                where="documents.teacher",
                fix="check the model's name, max_tokens, and that the endpoint takes temperature and seed",
            )
        return one, reply


def _reply(one: Asked, ask: Ask, replies: Replies, work: Workspace) -> Reply:
    kept = replies.find(one.request)
    if kept is not None:
        return kept
    if work.stop.is_set():
        raise Stopped("stopped; replies so far are kept", fix="run the same command again to go on")
    try:
        body = ask(one.body)
    except Refused as e:
        return Reply(request=one.request, text=None, problem=f"{REFUSED} the request: {e}")
    text, problem, finish, prompt_tokens, answer_tokens = text_of(body)
    reply = Reply(
        request=one.request,
        text=text,
        problem=problem,
        finish=finish,
        prompt_tokens=prompt_tokens,
        answer_tokens=answer_tokens,
    )
    replies.add(reply)
    return reply


def parse(text: str) -> list[tuple[str, str]] | str:
    """The pairs of a reply, or what is wrong with it. JSON, also fenced or with words round it; or "Q:" and "A:"."""
    if len(text) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    body = _json_in(text)
    if body is not None:
        items = body
        if isinstance(body, dict):
            lists = [v for v in body.values() if isinstance(v, list)]
            items = lists[0] if len(lists) == 1 else [body]
        pairs = [pair for item in items if (pair := _pair(item)) is not None]
        return pairs or "the JSON has no question with an answer"
    marked = [(tidy(q), CONTROLS.sub("", a).strip()) for q, a in MARKED.findall(text)]
    return marked or "neither JSON nor questions marked Q and A"


def _json_in(text: str) -> Any:
    fenced = FENCE.search(text)
    tries = [fenced.group(1)] if fenced else []
    tries.append(text)
    for opens, closes in (("{", "}"), ("[", "]")):
        a, b = text.find(opens), text.rfind(closes)
        if 0 <= a < b:
            tries.append(text[a : b + 1])
    for candidate in tries:
        try:
            found = json.loads(candidate)
        except (ValueError, RecursionError):
            continue
        if isinstance(found, (dict, list)):
            return found
    return None


def _pair(item: Any) -> tuple[str, str] | None:
    if not isinstance(item, dict):
        return None
    folded = {str(k).casefold(): v for k, v in item.items()}
    question = next((folded[k] for k in QUESTION_KEYS if k in folded), None)
    answer = next((folded[k] for k in ANSWER_KEYS if k in folded), None)
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    question, answer = tidy(question), CONTROLS.sub("", answer).strip()
    return (question, answer) if question and answer else None


def points_at_passage(question: str) -> bool:
    """`What does the passage say?` makes no sense to somebody who does not see it."""
    return POINTS_AT_PASSAGE.search(question) is not None
