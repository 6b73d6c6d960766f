"""The values that travel round the loop. All frozen; verbs are functions elsewhere.

Read top to bottom: what the user wants (Task, Goal), what the data is (Message, Example, Row), what
a model says (Answer), what it is worth (Interval, Verdict), what the ledger keeps (Artifact, Run).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import msgspec

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import require

Kind = Literal["classify", "extract", "summarize", "instruct", "chat", "domain"]
Role = Literal["system", "user", "assistant", "tool"]
SplitName = Literal["train", "validation", "test"]
Status = Literal["pass", "fail", "unproven"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What the model is for. `text`, `label` and `group` name columns of the user's file."""

    kind: Kind
    text: str | None = None
    label: str | None = None
    group: str | None = None
    audience: str = ""
    tone: str = ""
    system: str | None = None  # replaces the default system prompt
    labels: tuple[str, ...] = ()  # declared classes; empty: those seen in the data


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One bar a model must clear before it ships: a threshold, or arms to beat."""

    metric: str  # a name in metrics/, e.g. "macro_f1"
    op: Literal[">=", "<=", "beats"] = ">="
    threshold: float | None = None  # in the metric's own unit; None for "beats"
    beats: tuple[str, ...] = ()  # names of arms
    slice: str = "all"  # "all" or "column=value" ("label=Neoplasms", "group=C50")
    confidence: float = 0.95  # one-sided, of the bound that must clear the threshold

    def __post_init__(self) -> None:
        require(0.5 <= self.confidence < 1, "confidence", self.confidence, "in [0.5, 1)")
        require(bool(self.beats) == (self.op == "beats"), "beats", self.beats, "named exactly when op is beats")
        require((self.threshold is None) == (self.op == "beats"), "threshold", self.threshold, "a number")

    def __str__(self) -> str:
        what = f"beats {', '.join(self.beats)}" if self.op == "beats" else f"{self.metric} {self.op} {self.threshold:g}"
        return what if self.slice == "all" else f"{what} on {self.slice}"


# Message, Row, LeftOut and Change are Structs, not dataclasses: they are written by the million, and a value
# that is its default is not written, so that a field added later changes no id of what was kept before.


class ToolCall(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One call of a function that an assistant turn makes."""

    name: str
    arguments: str  # JSON text, as the data had it
    id: str = ""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant turn
    tool_call_id: str = ""  # of a tool turn: which call it answers
    weight: float = 1.0  # of an assistant turn in the loss: 0 is context that is not trained


@dataclass(frozen=True, kw_only=True)
class Example:
    """One canonical record: the messages before the answer, and the answer. Its id is its content.

    `messages` may hold earlier assistant turns (chat); the system prompt is not part of an example
    unless the user's own row carried one. `domain` rows have no messages and their text as target.
    """

    messages: tuple[Message, ...]
    target: str

    @cached_property
    def id(self) -> str:
        return content_id({"messages": self.messages, "target": self.target})

    @property
    def input(self) -> str:
        """The last user turn: what a person would call the text of this example."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), self.target)


class Row(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An example in a data set, with where it came from. One line of rows.jsonl and of train/validation/test.jsonl."""

    id: str  # the example's id
    messages: tuple[Message, ...]
    target: str
    file: str
    line: int  # 1-based physical line where the record starts, or its number in a file without lines
    group: str  # equals id where the task has no group column
    weight: float = 1.0
    rejected: str = ""  # of a preference: the answer that was not preferred
    tools: tuple[dict[str, Any], ...] = ()  # declared to the model, in OpenAI's form
    fields: dict[str, Any] = {}  # further columns that data.keep names
    origin: str = ""  # how the row was made, if not read as it is: "augment.typos", "pairs.glossary"

    @property
    def example(self) -> Example:
        return Example(messages=self.messages, target=self.target)


class LeftOut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that is not in any split, and why. One line of left_out.jsonl."""

    file: str
    line: int
    reason: str  # short and countable: "duplicate", "over_long", "no_label", ...
    detail: str = ""  # "same as rows.csv:12"
    text: str = ""  # the start of the row, for people
    step: str = "check"  # who left it out
    known_as: str = ""  # its key before a later step masked the text

    @property
    def key(self) -> str:
        """What `tunesmith data restore` takes. It covers the text, so that it can never mean another row."""
        return (
            self.known_as
            or content_id({"file": self.file, "line": self.line, "reason": self.reason, "text": self.text})[:12]
        )


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row that was altered, before and after. One line of changes.jsonl."""

    file: str
    line: int
    step: str  # "clean.whitespace", "audit.redact", "labels.consensus"
    field: str  # "messages[0].content", "target"
    before: str
    after: str
    why: str = ""
    known_as: str = ""  # its key before a later step masked the texts

    @property
    def key(self) -> str:
        """What `tunesmith data restore` takes."""
        if self.known_as:
            return self.known_as
        said = {"file": self.file, "line": self.line, "step": self.step, "field": self.field, "before": self.before}
        return content_id(said)[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one Answerer said to one prompt."""

    text: str
    probabilities: tuple[float, ...] | None = None  # over the task's labels, in their order; sums to 1
    confidence: float | None = None  # max of probabilities, or exp(mean log-probability) when generated
    logprob: float | None = None  # summed over the answer's tokens, stop included, nats
    prompt_tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0  # this item's share of the batch
    finish: Literal["label", "stop", "length"] = "label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GoalResult:
    goal: str  # as a sentence: "macro_f1 >= 0.70"
    metric: str
    status: Status
    measured: Interval | None  # None when nothing could be measured
    because: str  # one plain sentence
    next: str = ""  # what would help: "label about 45 more of ..."


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Reports against goals. Any failed goal fails the whole; any unproven one leaves it unproven."""

    status: Status
    goals: tuple[GoalResult, ...]
    advice: tuple[str, ...] = ()  # "tfidf already meets every goal: do not fine-tune"

    @property
    def exit_code(self) -> int:
        return {"pass": 0, "fail": 1, "unproven": 3}[self.status]


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A frozen folder of files. Its id covers kind and content, not when or where it was made."""

    kind: str  # "source", "examples", "dataset", "model", "checkpoint", "answers", "report", "verdict", "bundle", "metrics"
    files: dict[str, FileEntry]  # by relative POSIX path

    @cached_property
    def id(self) -> str:
        return content_id({"kind": self.kind, "files": self.files})

    @property
    def bytes(self) -> int:
        return sum(f.bytes for f in self.files.values())


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished or failed execution of a stage."""

    id: str
    key: str  # of stage, version, spec and input ids: what makes two runs the same work
    stage: str
    version: int
    spec: dict[str, Any]
    inputs: dict[str, Any]  # name -> artifact id, or name -> {name: artifact id}
    outputs: dict[str, str]  # name -> artifact id
    status: Literal["finished", "failed", "stopped"]
    started: str  # ISO 8601, UTC
    seconds: float
    metrics: dict[str, Any] = field(default_factory=dict)  # what the stage logged as its summary
    environment: dict[str, Any] = field(default_factory=dict)  # code and library versions, hardware, seed
    error: str = ""
    reused: bool = False  # answered from the ledger; not stored
