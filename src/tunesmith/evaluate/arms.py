"""One arm answers one split: the stage `answer`.

classify: the language-model arms choose among the data set's labels; domain: they say how likely each text is
(texts.py); other kinds: they generate greedily.
Rows are answered in fixed chunks and each chunk is on disk before the next begins, so a killed run goes on
where it was, with the answers an uninterrupted one gives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.core.canonical import canonical_json, plain, read_json, read_lines, write_atomic, write_lines
from tunesmith.core.errors import DataError, InputError, Problem
from tunesmith.core.nouns import Answer, Message, Row
from tunesmith.core.stage import Workspace
from tunesmith.evaluate import few_shot, texts
from tunesmith.evaluate.stages import AnswerInputs, AnswerOutputs, ArmSpec
from tunesmith.metrics.sentences import split_sentences

CHUNK = 64  # rows answered between two writes: part of what makes a resumed run equal, so not a setting
LEAD_SENTENCES = 2
MODEL_ARMS = ("zero_shot", "few_shot", "tuned")

Prompt = tuple[Message, ...]
Tools = Sequence[dict[str, Any]]
Reply = Callable[[Sequence[Prompt], Sequence[Tools]], list[Answer]]  # prompts, and the tools of each


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """Something ready to answer rows."""

    reply: Reply
    examples: Prompt = ()  # earlier turns put before every row's own
    choice: dict[str, Any]  # what validation chose
    renderer: dict[str, Any] | None = None


def answer(spec: ArmSpec, inputs: AnswerInputs, work: Workspace) -> AnswerOutputs:
    """Raises InputError for an arm that does not fit the task or lacks its model, DataError for unusable rows."""
    dataset = read_json(inputs.dataset / "dataset.json", dict[str, Any])
    rows = read_split(inputs.dataset, spec.split)
    refuse_misfit(spec, inputs, dataset, rows)
    arm = build(spec, inputs, dataset, rows, work)
    if spec.kind == "domain":
        prompts = [texts.as_prompt(row.target) for row in rows]
    else:
        prompts = [few_shot.with_examples(arm.examples, row.messages) for row in rows]
    answers = reply_in_chunks(rows, prompts, arm.reply, work.state / "answers.jsonl", work, spec.arm)
    out = work.scratch / "answers"
    out.mkdir(exist_ok=True)
    write_lines(out / "answers.jsonl", ({"id": r.id, **plain(a)} for r, a in zip(rows, answers, strict=True)))
    facts = {
        "arm": spec.arm,
        "split": spec.split,
        "labels": dataset["labels"],
        "seal": dataset["seal"],
        "seconds": sum(a.seconds for a in answers),
        "prompt_tokens": sum(a.prompt_tokens for a in answers),
        "answer_tokens": sum(a.answer_tokens for a in answers),
        "choice": arm.choice,
        "renderer": arm.renderer,
    }
    write_atomic(out / "answers.json", canonical_json(facts))
    work.summarize(arm=spec.arm, rows=len(rows), **{k: facts[k] for k in ("seconds", "prompt_tokens", "answer_tokens")})
    return AnswerOutputs(answers=out)


def read_split(dataset: Path, split: str) -> list[Row]:
    return list(read_lines(dataset / f"{split}.jsonl", Row))


def refuse_misfit(spec: ArmSpec, inputs: AnswerInputs, dataset: dict[str, Any], rows: Sequence[Row]) -> None:
    """Everything that would make the answers meaningless, at once."""
    problems = []

    def refuse(what: str, fix: str = "") -> None:
        problems.append(Problem(where=f"arm {spec.arm}", what=what, fix=fix))

    if dataset["kind"] != spec.kind:
        refuse(f"the data set was prepared for a {dataset['kind']} task, not {spec.kind}", "tunesmith prepare")
    if spec.kind == "domain" and spec.arm not in ("zero_shot", "tuned"):
        refuse("a domain task has texts to predict, and only a language model can", "take it out of evaluate.arms")
    if not rows:
        refuse(f"the {spec.split} split has no rows", f"raise data.split.{spec.split}, or add rows")
    if spec.arm in ("majority", "tfidf") and spec.kind != "classify":
        refuse(f"it chooses among labels, and a {spec.kind} task has none", "take it out of evaluate.arms")
    if spec.arm == "lead" and spec.kind == "classify":
        refuse("it quotes the first sentences of a text, which is no label", "take it out of evaluate.arms")
    if spec.arm in MODEL_ARMS and inputs.base is None:
        refuse("it needs a base model", "name one as `model:`")
    if spec.arm == "tuned" and inputs.checkpoint is None:
        refuse("it needs a checkpoint", "tunesmith train")
    if problems:
        raise InputError(problems)


def build(spec: ArmSpec, inputs: AnswerInputs, dataset: dict[str, Any], rows: Sequence[Row], work: Workspace) -> Arm:
    if spec.arm == "lead":
        return Arm(reply=lambda prompts, tools: [lead(p) for p in prompts], choice={"sentences": LEAD_SENTENCES})
    if spec.arm in ("majority", "tfidf"):
        return classical(spec, inputs.dataset, dataset["labels"], work)
    return language_model(spec, inputs, dataset, rows, work)


def lead(prompt: Prompt) -> Answer:
    """The first two sentences of the last user turn: the baseline a summary must beat."""
    text = next((m.content for m in reversed(prompt) if m.role == "user"), "")
    return Answer(text=" ".join(split_sentences(text)[:LEAD_SENTENCES]), finish="stop")


def classical(spec: ArmSpec, dataset: Path, labels: Sequence[str], work: Workspace) -> Arm:
    """Majority class, or TF-IDF with logistic regression: learnt from train, chosen on validation, in seconds."""
    from tunesmith.model.classical import Majority, TfidfLogistic

    train = read_split(dataset, "train")
    if not train:
        raise DataError(
            "the train split has no rows", where=f"arm {spec.arm}", fix="raise data.split.train, or add rows"
        )
    work.progress(0, 1, "fitting", arm=spec.arm)
    if spec.arm == "majority":
        commonest = Majority.fit(train, labels)
        return Arm(reply=lambda prompts, tools: commonest.choose(prompts, labels), choice={})
    regression = TfidfLogistic.fit(train, read_split(dataset, "validation"), labels, spec.seed)
    return Arm(reply=lambda prompts, tools: regression.choose(prompts, labels), choice={"C": regression.strength})


def language_model(
    spec: ArmSpec, inputs: AnswerInputs, dataset: dict[str, Any], rows: Sequence[Row], work: Workspace
) -> Arm:
    """The base model, bare or with examples, or the tuned one: the same calls, so that arms differ in nothing else."""
    import torch

    from tunesmith.core.wording import PLAIN
    from tunesmith.model.answer import LanguageModel
    from tunesmith.model.device import device_of, refuse_precision
    from tunesmith.model.load import load_base, load_tuned
    from tunesmith.text.render import Renderer

    if work.exec.threads:
        torch.set_num_threads(work.exec.threads)
    base, checkpoint = inputs.base, inputs.checkpoint if spec.arm == "tuned" else None
    assert base is not None  # refuse_misfit
    receipt = {} if checkpoint is None else read_json(checkpoint / "renderer.json", dict[str, Any])
    user, new_tokens = receipt.get("user", PLAIN), receipt.get("new_tokens", ())
    renderer = Renderer.load(base, system=spec.system, user=user, new_tokens=new_tokens)
    if checkpoint is not None:
        renderer.check(receipt, where=str(checkpoint / "renderer.json"))
    labels, batch_tokens = dataset["labels"], work.exec.micro_batch_tokens
    if spec.kind == "domain":
        return predictor(spec, base, checkpoint, renderer, work)
    room = few_shot.Room(
        context=room_of(base, checkpoint),
        answer=max(len(renderer.answer(label)) for label in labels) if labels else spec.max_new_tokens,
        length=lambda prompt: len(renderer.prompt(prompt)),
    )
    budget = answer_budget(spec, rows, room)
    device = device_of(work.exec.device)
    refuse_precision(device, spec.precision, where="evaluate.precision")
    work.progress(0, 1, "loading the model", arm=spec.arm)
    if checkpoint is not None:
        model = load_tuned(base, checkpoint, dtype=spec.precision, merge=True, device=device)
    else:
        model = load_base(base, dtype=spec.precision, device=device)
    speaker = LanguageModel(model, renderer)

    def reply(prompts: Sequence[Prompt], tools: Sequence[Tools]) -> list[Answer]:
        if spec.kind == "classify":
            return speaker.choose(
                prompts, labels, tools=tools, batch_tokens=batch_tokens, probabilities=spec.probabilities
            )
        return speaker.generate(
            prompts, tools=tools, max_new_tokens=budget, temperature=0.0, seed=spec.seed, batch_tokens=batch_tokens
        )

    if spec.arm != "few_shot":
        return Arm(reply=reply, choice={}, renderer=renderer.describe())
    validation = read_split(inputs.dataset, "validation")
    train = read_split(inputs.dataset, "train")

    def try_out(tried: Sequence[Row], examples: Prompt, name: str) -> list[Answer]:
        prompts = [few_shot.with_examples(examples, row.messages) for row in tried]
        return reply_in_chunks(tried, prompts, reply, work.state / f"{name}.jsonl", work, f"{spec.arm}, {name}")

    chosen = few_shot.choose(spec, train, validation, rows, labels, room, try_out)
    return Arm(reply=reply, examples=chosen.examples, choice=chosen.choice, renderer=renderer.describe())


def room_of(base: Path, checkpoint: Path | None) -> int | None:
    """Tokens that a prompt and its answer may have: the base's context, less the virtual tokens before every text."""
    from tunesmith.model.methods.spec import read_method

    limit = few_shot.context_length(base)
    return limit if limit is None or checkpoint is None else limit - read_method(checkpoint).virtual_tokens


def predictor(spec: ArmSpec, base: Path, checkpoint: Path | None, renderer: Any, work: Workspace) -> Arm:
    """The model that says how likely it finds each text. Raises InputError for windows longer than it can read."""
    from tunesmith.model.device import device_of, refuse_precision
    from tunesmith.model.load import load_base, load_tuned
    from tunesmith.model.windows import refuse_beyond_context

    refuse_beyond_context(read_json(base / "config.json", dict[str, Any]), spec.max_tokens)
    device = device_of(work.exec.device)
    refuse_precision(device, spec.precision, where="evaluate.precision")
    work.progress(0, 1, "loading the model", arm=spec.arm)
    if checkpoint is None:
        model = load_base(base, dtype=spec.precision, device=device)
    else:
        model = load_tuned(base, checkpoint, dtype=spec.precision, merge=True, device=device)

    def reply(prompts: Sequence[Prompt], tools: Sequence[Tools]) -> list[Answer]:
        return texts.predict(
            model,
            renderer.tokenizer,
            prompts,
            max_tokens=spec.max_tokens,
            batch_tokens=work.exec.micro_batch_tokens,
        )

    return Arm(reply=reply, choice={"max_tokens": spec.max_tokens}, renderer=renderer.describe())


def answer_budget(spec: ArmSpec, rows: Sequence[Row], room: few_shot.Room) -> int:
    """Tokens an answer may take: what was asked for, less where the longest prompt leaves less room.

    Raises DataError naming the rows whose prompts, with this arm's system prompt, leave none.
    """
    if room.context is None:
        return spec.max_new_tokens
    context, least = room.context, room.answer if spec.kind == "classify" else 1
    lengths = [room.length(row.messages) for row in rows]
    full = [
        Problem(
            where=f"{row.file}:{row.line}",
            what=f"the prompt has {n} tokens with the system prompt of {spec.arm} and leaves no room for an answer: "
            f"the model reads {context}",
            fix=f"shorten the row or the system prompt, or take {spec.arm} out of evaluate.arms",
        )
        for row, n in zip(rows, lengths, strict=True)
        if n + least > context
    ]
    if full:
        raise DataError(full)
    return min(spec.max_new_tokens, context - max(lengths))


def reply_in_chunks(
    rows: Sequence[Row], prompts: Sequence[Prompt], reply: Reply, state: Path, work: Workspace, label: str
) -> list[Answer]:
    """Answers in row order. What `state` already holds is kept; a torn or foreign rest is answered again.

    Chunk borders depend on the rows alone, so a chunk is answered with the same neighbours, and the same
    rounding, however often the run was interrupted.
    """
    answers = _kept(state, rows)
    for first in range(len(answers), len(rows), CHUNK):
        work.progress(first, len(rows), "answering", arm=label)
        work.stop_if_asked()
        chunk = rows[first : first + CHUNK]
        said = reply(prompts[first : first + CHUNK], [row.tools for row in chunk])
        if len(said) != len(chunk):
            raise RuntimeError(f"{label} gave {len(said)} answers to {len(chunk)} prompts")
        lines = [canonical_json({"id": r.id, "answer": a}) for r, a in zip(chunk, said, strict=True)]
        with open(state, "ab") as f:
            f.write(b"".join(line + b"\n" for line in lines))
            f.flush()
            os.fsync(f.fileno())
        answers += said
    work.progress(len(rows), len(rows), "answering", arm=label)
    return answers


class _Kept(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    answer: Answer


def _kept(state: Path, rows: Sequence[Row]) -> list[Answer]:
    """Whole chunks at the start of the state file that answer these rows; the file is cut back to them."""
    if not state.exists():
        return []
    decoder = msgspec.json.Decoder(_Kept)
    answers: list[Answer] = []
    lines = state.read_bytes().splitlines(keepends=True)
    for line, row in zip(lines, rows, strict=False):
        try:
            record = decoder.decode(line)
        except msgspec.DecodeError:
            break  # torn by a kill
        if record.id != row.id or not line.endswith(b"\n"):
            break
        answers.append(record.answer)
    whole = len(answers) if len(answers) == len(rows) else len(answers) // CHUNK * CHUNK
    write_atomic(state, b"".join(lines[:whole]))
    return answers[:whole]
