"""The values that travel round the loop. All frozen; verbs are functions elsewhere.

Read top to bottom: what the user wants (Task, Goal), what the data is (Message, Example, Row), what
a model says (Answer), what it is worth (Interval, Verdict), what the ledger keeps (Artifact, Run).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    role: Role
    content: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An example in a data set, with where it came from. One line of train/validation/test.jsonl."""

    id: str  # the example's id
    messages: tuple[Message, ...]
    target: str
    file: str
    line: int  # 1-based physical line where the record starts
    group: str  # equals id where the task has no group column
    weight: float = 1.0

    @property
    def example(self) -> Example:
        return Example(messages=self.messages, target=self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row that is not in any split, and why. One line of left_out.jsonl."""

    file: str
    line: int
    reason: str  # short and countable: "duplicate", "over_long", "no_label", ...
    detail: str = ""  # "same as rows.csv:12"
    text: str = ""  # the start of the row, for people


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
