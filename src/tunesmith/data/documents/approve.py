"""Stage approve: which pairs may be trained on, by what people said of them.

    pairs, judgments -> made/pairs.jsonl {"prompt", "completion", "group", "source", ...}, made/left_out.jsonl
                        (rejected and waiting ones), made/approve.json

Of one person the last verdict on a pair counts; `undo` takes back the judgment that it names (or the last one), `skip`
is no verdict. Where people disagree the pair waits, until somebody adjudicates: that ruling stands until it is undone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tunesmith.core.canonical import canonical_json, content_id, read_lines, write_atomic
from tunesmith.core.errors import DataError, Problem
from tunesmith.core.stage import Workspace
from tunesmith.data.documents.corpus import group_of
from tunesmith.data.documents.pairs import GonePair
from tunesmith.data.documents.records import Pair
from tunesmith.data.documents.stages import ApproveInputs, ApproveOutputs, ApproveSpec
from tunesmith.data.lines import excerpt
from tunesmith.data.write import LinesWriter

STEP = "approve"
VERDICTS = ("approve", "reject", "correct", "skip")


def queue_items(pairs_folder: Path) -> Iterator[dict[str, Any]]:
    """What the labelling page shows: one item a pair, in the order of pairs.jsonl. `source.passage` is the id of the
    passage, whose text passages.jsonl has."""
    for pair in read_lines(pairs_folder / "pairs.jsonl", Pair):
        yield {
            "id": pair.id,
            "kind": "pair",
            "prompt": pair.prompt,
            "completion": pair.completion,
            "how": pair.how,
            "source": {
                "passage": pair.source.passage,
                "file": pair.source.file,
                "page": pair.source.page,
                "heading": list(pair.source.heading),
            },
            "support": pair.support,
        }


class Said(NamedTuple):
    verb: str  # approve, reject, correct, skip, adjudicate
    value: Any = None  # {"prompt", "completion"} of a correction; of a ruling {"verb": ..., ...}
    reason: str = ""
    id: str = ""  # of the judgment


@dataclass(slots=True)
class Opinion:
    """What one person said of one pair and did not take back, oldest first."""

    said: list[Said] = field(default_factory=list)

    def undo(self, id: Any) -> None:
        """Takes back the judgment with this id, or the last one if none is named."""
        if not isinstance(id, str):
            del self.said[-1:]
        self.said[:] = [said for said in self.said if said.id != id]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`verdict` is approve, reject, correct, or wait with the reason for it."""

    verdict: str
    value: Any = None
    reason: str = ""
    detail: str = ""


def approve(spec: ApproveSpec, inputs: ApproveInputs, work: Workspace) -> ApproveOutputs:
    """Raises one DataError with every judgment that can't be read, and where no pair is approved."""
    folder = work.scratch / "made"
    folder.mkdir(parents=True, exist_ok=True)
    known = {name: pair.id for pair in read_lines(inputs.pairs / "pairs.jsonl", Pair) for name in _names(pair)}
    opinions, others = _opinions(inputs.judgments, known)
    kept: Counter[str] = Counter()
    left_out: Counter[str] = Counter()
    with LinesWriter(folder / "pairs.jsonl") as out, LinesWriter(folder / "left_out.jsonl") as gone:
        for number, pair in enumerate(read_lines(inputs.pairs / "pairs.jsonl", Pair), 1):
            if number % 1_000 == 0:
                work.stop_if_asked()
            outcome = decide(opinions.get(pair.id, {}), free=_is_free(spec, pair))
            if outcome.verdict in ("approve", "correct", "free"):
                kept[outcome.verdict] += 1
                out.write(_row(pair, outcome, spec.group))
            else:
                left_out[outcome.reason] += 1
                gone.write(_gone(pair, outcome, number))
    facts = {
        "pairs": kept.total() + left_out.total(),
        "kept": dict(sorted(kept.items())),
        "left_out": dict(sorted(left_out.items())),
        "judgments_of_other_items": others,
    }
    if not kept:
        waiting = left_out["waiting"] + left_out["disagreement"]
        raise DataError(
            f"no pair is approved yet: {waiting:,} wait, {left_out['rejected']:,} are rejected",
            where="documents.pairs",
            fix="approve them in the labelling page: tunesmith data label",
        )
    write_atomic(folder / "approve.json", canonical_json(facts) + b"\n")
    work.summarize(**facts)
    return ApproveOutputs(made=folder)


def _names(pair: Pair) -> tuple[str, str]:
    """What a judgment may call the pair: its id, or the id of the item that a queue made of it, which covers its text."""
    return pair.id, content_id({"id": pair.id, "prompt": pair.prompt, "completion": pair.completion})


def _is_free(spec: ApproveSpec, pair: Pair) -> bool:
    return spec.approval == "deterministic_free" and pair.how != "teacher"


def _opinions(folder: Path | None, known: Mapping[str, str]) -> tuple[dict[str, dict[str, Opinion]], int]:
    """pair -> annotator -> what that person said; and how many judgments are of other items."""
    opinions: dict[str, dict[str, Opinion]] = {}
    problems: list[Problem] = []
    others = 0
    judgments = read_lines(folder / "judgments.jsonl", dict[str, Any]) if folder is not None else iter(())
    for number, judgment in enumerate(judgments, 1):
        item, verb = judgment.get("item"), judgment.get("verb")
        pair = known.get(str(item))
        if pair is None:
            others += 1
            continue
        where = f"judgments.jsonl:{number}"
        if verb not in (*VERDICTS, "undo", "adjudicate"):
            problems.append(Problem(where=where, what=f"{verb!r} is no verdict on a pair", fix=", ".join(VERDICTS)))
            continue
        if (fault := _fault(verb, judgment.get("value"))) is not None:
            problems.append(Problem(where=where, what=fault, fix='a correction is {"prompt": ..., "completion": ...}'))
            continue
        who = str(judgment.get("annotator"))
        opinion = opinions.setdefault(pair, {}).setdefault(who, Opinion())
        if verb == "undo":
            opinion.undo(judgment.get("value"))
        else:
            said = (judgment.get("value"), str(judgment.get("reason") or ""), str(judgment.get("id") or ""))
            opinion.said.append(Said(str(verb), *said))
    if problems:
        raise DataError(problems)
    return opinions, others


def _fault(verb: str, value: Any) -> str | None:
    ruled = value.get("verb") if verb == "adjudicate" and isinstance(value, dict) else None
    if ruled in ("approve", "reject"):
        return None
    if verb == "adjudicate" and ruled != "correct":
        return "adjudicate says neither approve, reject nor correct"
    if verb not in ("correct", "adjudicate"):
        return None
    texts = [value.get(k) for k in ("prompt", "completion")] if isinstance(value, dict) else []
    if not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        return f"{verb}: prompt or completion is missing or empty"
    return None


def decide(opinions: dict[str, Opinion], *, free: bool) -> Outcome:
    """What people's verdicts on one pair add up to."""
    rulings = [said for _, o in sorted(opinions.items()) for said in o.said if said.verb == "adjudicate"]
    if rulings:
        return _ruled(rulings)
    last = [o.said[-1] for _, o in sorted(opinions.items()) if o.said]
    verdicts = [said for said in last if said.verb != "skip"]
    if not verdicts:
        if free:
            return Outcome(verdict="free")
        detail = f"skipped by {len(last)}" if last else "nobody has judged it"
        return Outcome(verdict="wait", reason="waiting", detail=detail)
    if len({canonical_json([said.verb, said.value if said.verb == "correct" else None]) for said in verdicts}) > 1:
        counts = Counter(said.verb for said in verdicts)
        detail = ", ".join(f"{n} {verb}" for verb, n in sorted(counts.items()))
        return Outcome(verdict="wait", reason="disagreement", detail=detail)
    return _outcome(verdicts[0].verb, verdicts[0].value, verdicts[0].reason)


def _ruled(rulings: list[Said]) -> Outcome:
    if len({canonical_json(said.value) for said in rulings}) > 1:
        return Outcome(verdict="wait", reason="disagreement", detail=f"{len(rulings)} adjudications differ")
    return _outcome(rulings[0].value["verb"], rulings[0].value, rulings[0].reason)


def _outcome(verb: str, value: Any, why: str) -> Outcome:
    if verb == "reject":
        return Outcome(verdict="reject", reason="rejected", detail=why)
    return Outcome(verdict=verb, value=value)


def _row(pair: Pair, outcome: Outcome, group: str) -> dict[str, Any]:
    corrected = outcome.value if outcome.verdict == "correct" else {}
    in_group = pair.source.passage if group == "passage" else group_of(pair.source.file, pair.source.heading, group)
    return {
        "prompt": corrected.get("prompt", pair.prompt),
        "completion": corrected.get("completion", pair.completion),
        "group": in_group,
        "source": pair.source,
        "how": pair.how,
        "pair": pair.id,
        "approval": {"approve": "approved", "correct": "corrected", "free": "not required"}[outcome.verdict],
    }


def _gone(pair: Pair, outcome: Outcome, number: int) -> GonePair:
    return GonePair(
        file=pair.source.file,
        line=number,
        reason=outcome.reason,
        detail=outcome.detail,
        text=excerpt(pair.prompt),
        step=STEP,
        prompt=pair.prompt,
        completion=pair.completion,
        source=pair.source,
        how=pair.how,
        support=pair.support,
    )
