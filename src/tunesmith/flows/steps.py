"""The journey as a list: each step says which stage it runs, with which spec, on what.

A step's spec may need what earlier steps made (the labels, say), so it is built when its turn comes.
Only the values a stage needs reach its spec: moving a goal's threshold never retrains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tunesmith.core.canonical import read_json
from tunesmith.core.errors import InputError
from tunesmith.core.goals import usual_arms
from tunesmith.core.nouns import SplitName
from tunesmith.core.settings import MethodSettings, TrainSettings
from tunesmith.core.stage import Exec
from tunesmith.evaluate.stages import ANSWER, EVALUATE, GATE, ArmSpec, EvaluateSpec, GateSpec
from tunesmith.export.stages import BUNDLE, BundleSpec
from tunesmith.flows import auto
from tunesmith.flows.context import Context
from tunesmith.flows.data_steps import DATA_VERBS, add_source, data_steps, general_steps, is_domain
from tunesmith.flows.journey import Journey, Step
from tunesmith.launch.check import exec_values, isolated
from tunesmith.ledger.ledger import Ledger
from tunesmith.metrics.catalog import USUAL
from tunesmith.model.methods.spec import METHODS, MethodSpec
from tunesmith.text.prompt import system_prompt
from tunesmith.train.domain_stages import DOMAIN, DomainSpec
from tunesmith.train.optimizers.names import OPTIMIZERS
from tunesmith.train.precision import estimate, free_bytes
from tunesmith.train.stages import SFT, SftSpec

WITHOUT_MODEL = ("majority", "tfidf", "lead")
METHOD_VALUES: dict[str, dict[str, Any]] = {  # of the kinds that read them
    "qlora": {"bits": 4, "double_quant": True},
    "prompt": {"virtual_tokens": 20},
    "p_tuning": {"virtual_tokens": 20, "projection": 128},
    "prefix": {"virtual_tokens": 20},
    "bottleneck": {"placement": "pfeiffer", "reduction": 16.0, "activation": "relu"},
}
DOMAIN_METRICS = ("bits_per_byte", "perplexity")
OPTIONAL = ("bits", "double_quant", "virtual_tokens", "projection", "placement", "reduction", "activation", "scaling")
MISTAKES_SHOWN = 20


def begin(context: Context) -> Journey:
    """Copy the user's files into the store, by hash."""
    return Journey(context=context, source=add_source(context))


def arms(context: Context) -> tuple[str, ...]:
    """The arms the tuned model is compared with: those asked for, and those a goal names."""
    wanted = context.settings.evaluate.arms
    usual = usual_arms(context.task.kind) if wanted is None else tuple(wanted)
    named = tuple(a for g in context.goals for a in g.beats)
    return tuple(dict.fromkeys((*usual, *named)))


def metrics(context: Context) -> tuple[str, ...]:
    """Goals' metrics first, then those asked for or else the kind's usual ones; the first one leads the report."""
    named = tuple(g.metric for g in context.goals if g.threshold is not None) + tuple(g.metric for g in context.goals)
    return tuple(dict.fromkeys((*named, *(context.settings.evaluate.metrics or USUAL[context.task.kind]))))


def answer_step(arm: str, *, after: str, split: SplitName = "test") -> Step:
    def build(j: Journey) -> tuple[ArmSpec, dict[str, Any]]:
        c, evaluate = j.context, j.context.settings.evaluate
        uses_model = arm not in WITHOUT_MODEL
        if arm == "tuned":
            system = c.system
        else:
            system = system_prompt(c.task, j.dataset["labels"], list_labels=True) if uses_model else ""
        few = evaluate.few_shot if arm == "few_shot" else None
        spec = ArmSpec(
            arm=arm,  # type: ignore[arg-type]
            kind=c.task.kind,
            split=split,
            system=system,
            few_shot_counts=tuple(few.counts) if few else (),
            few_shot_draws=few.draws if few else 0,
            few_shot_rows=few.rows if few else 0,
            precision=auto.answer_precision(c, j.base, j.dataset) if uses_model else "fp32",
            max_new_tokens=evaluate.max_new_tokens,
            max_tokens=c.settings.train.max_tokens if c.task.kind == "domain" else 0,
            probabilities=split == "test",  # elsewhere answers are only scored
            metric=metrics(c)[0],
            seed=evaluate.seed,
        )
        inputs = {
            "dataset": j.dataset_id,
            "base": j.base.artifact.id if uses_model else None,
            "checkpoint": j.made("train", "checkpoint") if arm == "tuned" else None,
        }
        return spec, inputs

    needs = (after, "train") if arm == "tuned" else (after,)
    name = f"answer {arm}" if split == "test" else f"answer {arm} on {split}"
    return Step(name=name, stage=ANSWER, needs=needs, build=build)


def method_spec(said: MethodSettings) -> MethodSpec:
    """The values that were given, and for the kind's own ones its usual values."""
    usual = METHOD_VALUES.get(said.kind, {})
    if said.kind == "bottleneck" and said.placement == "parallel":
        usual = {**usual, "scaling": 4.0}
    given = {name: getattr(said, name) for name in OPTIONAL if getattr(said, name) is not None}
    return MethodSpec(
        kind=said.kind,
        rank=said.rank,
        alpha=said.alpha if said.alpha is not None else 2.0 * said.rank,
        dropout=said.dropout,
        targets=said.targets if isinstance(said.targets, str) else tuple(said.targets),
        init=said.init,
        rslora=said.rslora,
        dora=said.dora,
        b_lr_ratio=float(said.b_lr_ratio),
        ranks=tuple(said.ranks.items()),
        train_layers=said.train_layers if isinstance(said.train_layers, str) else tuple(said.train_layers),
        **(usual | given),
    )


def learning_rate(said: TrainSettings) -> float:
    usual = METHODS[said.method.kind].default_lr * OPTIMIZERS[said.optimizer].lr_factor
    return float(said.lr if said.lr is not None else usual)


def train_step(j: Journey) -> tuple[SftSpec, dict[str, Any]]:
    c, train = j.context, j.context.settings.train
    spec = SftSpec(
        kind=c.task.kind,
        method=method_spec(train.method),
        lr=learning_rate(train),
        epochs=float(train.epochs),
        global_batch=train.global_batch,
        max_tokens=train.max_tokens,
        schedule=train.schedule,
        warmup=float(train.warmup),
        decay=float(train.decay),
        optimizer=train.optimizer,
        lr_ratios=tuple(train.lr_ratios.items()),
        weight_decay=float(train.weight_decay),
        max_grad_norm=float(train.max_grad_norm),
        label_smoothing=float(train.label_smoothing),
        neftune_alpha=float(train.neftune_alpha),
        on_spike=train.on_spike,
        spike_z=float(train.spike_z),
        averaging=train.averaging,
        ema_decay=train.ema_decay,
        average_last=train.average_last,
        precision=auto.precision(c, j.base, j.dataset),
        weights=train.weights,
        master=train.master,
        validate_times=train.validate_times,
        validate_every_steps=train.validate_every_steps,
        validate_every_epochs=train.validate_every_epochs,
        validation_rows=train.validation_rows,
        patience=train.patience,
        metric=metrics(c)[0],
        template=c.settings.task.template,
        templates=tuple(train.templates.items()),
        systems=tuple(train.systems.items()),
        turns=train.turns,
        mixture=tuple(train.mixture.items()),
        max_loss_rise=train.max_loss_rise,
        past_budget=train.past_budget,
        replay_share=train.replay_share,
        refusals=train.refusals,
        new_tokens=tuple(train.new_tokens),
        keep=train.keep,
        keep_last=train.keep_last,
        seed=train.seed,
        system=c.system,
        max_new_tokens=c.settings.evaluate.max_new_tokens,
        base=j.base.name,
    )
    return spec, {"dataset": j.dataset_id, "base": j.base.artifact.id, "general": general_of(j), "start": start_of(c)}


def general_of(j: Journey) -> str | None:
    """The data set of what must not be forgotten."""
    return j.made("general", "dataset") if "general" in j.runs else None


def start_of(c: Context) -> str | None:
    """The checkpoint that training begins on top of: one of this project, or the newest of another one."""
    said = c.settings.train.start
    return None if said is None else checkpoint_of(c, said, where="train.start")


def checkpoint_of(c: Context, said: str, *, where: str) -> str:
    """The artifact id of a checkpoint: by its id, an alias, or another project's folder, whose newest it is. For a bundle
    that was made here, the checkpoint in it, so that what rests on it leads back to its training."""
    folder = c.root / said
    if (folder / "tunesmith.yaml").is_file():
        other = Ledger.open(folder / ".tunesmith")
        made = next((r for stage in ("domain", "sft") for r in other.runs(stage=stage) if r.status == "finished"), None)
        if made is None:
            raise InputError("has trained nothing yet", where=where, fix=f"cd {said} && tunesmith train")
        found = other.path(made.outputs["checkpoint"])
        files = {p.relative_to(found).as_posix(): p for p in found.rglob("*") if p.is_file()}
        return c.ledger.add_files("checkpoint", files, move=False).id
    artifact = c.ledger.find_artifact(c.ledger.reference(said) or said)
    if artifact is None or artifact.kind not in ("checkpoint", "bundle"):
        what = f"{said!r} is no checkpoint, no bundle and no project's folder"
        raise InputError(what, where=where, fix="tunesmith runs lists what was made")
    made = c.ledger.made_by(artifact.id) if artifact.kind == "bundle" else None
    return artifact.id if made is None else made.inputs["checkpoint"]


def domain_step(j: Journey) -> tuple[DomainSpec, dict[str, Any]]:
    c, train = j.context, j.context.settings.train
    metric: Any = metrics(c)[0] if metrics(c)[0] in DOMAIN_METRICS else DOMAIN_METRICS[0]
    spec = DomainSpec(
        method=method_spec(train.method),
        base=j.base.name,
        lr=learning_rate(train),
        epochs=float(train.epochs),
        global_batch=train.global_batch,
        max_tokens=train.max_tokens,
        schedule=train.schedule,
        warmup=float(train.warmup),
        decay=float(train.decay),
        optimizer=train.optimizer,
        lr_ratios=tuple(train.lr_ratios.items()),
        weight_decay=float(train.weight_decay),
        max_grad_norm=float(train.max_grad_norm),
        precision=auto.precision(c, j.base, j.dataset),
        weights=train.weights,
        master=train.master,
        metric=metric,
        validate_times=train.validate_times,
        validation_rows=train.validation_rows,
        patience=train.patience,
        mixture=tuple(train.mixture.items()),
        max_loss_rise=train.max_loss_rise,
        past_budget=train.past_budget,
        replay_share=train.replay_share,
        refusals=train.refusals,
        new_tokens=tuple(train.new_tokens),
        keep=train.keep,
        keep_last=train.keep_last,
        seed=train.seed,
    )
    return spec, {"dataset": j.dataset_id, "base": j.base.artifact.id, "general": general_of(j)}


def evaluate_step(j: Journey) -> tuple[EvaluateSpec, dict[str, Any]]:
    c = j.context
    spec = EvaluateSpec(
        metrics=metrics(c),
        confidence=0.95,
        resamples=c.settings.evaluate.resamples,
        mistakes=MISTAKES_SHOWN,
        seed=c.settings.evaluate.seed,
    )
    answers = {arm: j.made(f"answer {arm}", "answers") for arm in (*arms(c), "tuned")}
    return spec, {"dataset": j.dataset_id, "answers": answers}


def gate_step(j: Journey) -> tuple[GateSpec, dict[str, Any]]:
    evaluate = j.context.settings.evaluate
    spec = GateSpec(goals=j.context.goals, resamples=evaluate.resamples, seed=evaluate.seed)
    return spec, {"report": j.made("evaluate", "report")}


def bundle_step(j: Journey) -> tuple[BundleSpec, dict[str, Any]]:
    c = j.context
    spec = BundleSpec(
        name=c.name,
        kind=c.task.kind,
        audience=c.task.audience,
        tone=c.task.tone,
        system=c.system,
        base_name=j.base.name,
        base_artifact=j.base.artifact.id,
        base_files={p: {"sha256": f.sha256, "bytes": f.bytes} for p, f in sorted(j.base.artifact.files.items())},
        base_license=j.base.license,
        precision=auto.answer_precision(c, j.base, j.dataset),
        max_new_tokens=c.settings.evaluate.max_new_tokens,
    )
    inputs = {
        "checkpoint": j.made("train", "checkpoint"),
        "base": j.base.artifact.id,
        "dataset": j.dataset_id,
        "report": j.made("evaluate", "report"),
        "verdict": j.made("gate", "verdict"),
    }
    return spec, inputs


def steps(context: Context) -> tuple[Step, ...]:
    """Everything `run` does, in order."""
    data = data_steps(context)
    general = general_steps(context)
    after = (data[-1].name, *(s.name for s in general[-1:]))
    stage, build = (DOMAIN, domain_step) if is_domain(context) else (SFT, train_step)
    trained = Step(name="train", stage=stage, needs=after, build=build)
    cheap = tuple(answer_step(a, after=data[-1].name) for a in arms(context))
    return (
        *data,
        *general,
        *cheap,
        trained,
        answer_step("tuned", after=data[-1].name),
        Step(name="evaluate", stage=EVALUATE, needs=(*(s.name for s in cheap), "answer tuned"), build=evaluate_step),
        Step(name="gate", stage=GATE, needs=("evaluate",), build=gate_step),
        Step(name="bundle", stage=BUNDLE, needs=("gate",), build=bundle_step),
    )


VERBS: dict[str, Callable[[Step], bool]] = {
    **{name: (lambda s, name=name: s.name == name) for name in DATA_VERBS},  # type: ignore[misc]
    "check": lambda s: s.name == "check",
    "prepare": lambda s: s.name in ("prepare", "general"),
    "baselines": lambda s: s.stage is ANSWER and s.name != "answer tuned",
    "train": lambda s: s.name == "train",
    "evaluate": lambda s: s.name == "evaluate",
    "gate": lambda s: s.name == "gate",
    "bundle": lambda s: s.name == "bundle",
    "run": lambda s: True,
}


def steps_for(context: Context, verb: str) -> tuple[Step, ...]:
    """The steps a verb stands for and everything they need, in the journey's order."""
    every = steps(context)
    by_name = {s.name: s for s in every}
    wanted: set[str] = set()

    def add(step: Step) -> None:
        if step.name not in wanted:
            wanted.add(step.name)
            for need in step.needs:
                add(by_name[need])

    for step in every:
        if VERBS[verb](step):
            add(step)
    return tuple(s for s in every if s.name in wanted)


def exec_for(journey: Journey, step: Step) -> Exec:
    """What must not change a result; `auto` is resolved by measuring where it pays."""
    settings = journey.context.settings.exec
    tokens = settings.micro_batch_tokens
    if tokens == "auto":
        tokens = (
            auto.micro_batch_tokens(journey.context, journey.base, journey.dataset)
            if step.stage in (SFT, DOMAIN)
            else 4096
        )
    return Exec(
        micro_batch_tokens=tokens,
        threads=settings.threads,
        save_every_s=float(settings.save_every_s),
        packing=settings.packing,
        gradient_checkpointing=settings.gradient_checkpointing,
        device=settings.device,
        attention=settings.attention,
        compile=settings.compile,
        kernels=settings.kernels,
        activation_offload=settings.activation_offload,
        offload_optimizer=settings.offload_optimizer,
        **(exec_values(settings) if step.stage in (SFT, DOMAIN) else {}),
        isolate=step.stage in (SFT, DOMAIN) and isolated(settings, partial(_needed_mib, journey, step), free_bytes()),
    )


def _needed_mib(journey: Journey, step: Step) -> float:
    """Estimated memory of a training."""
    spec: Any = step.build(journey)[0]
    config = read_json(journey.base.folder / "config.json", dict[str, Any])
    return float(estimate(config, journey.dataset, spec, 1.0)["memory_mib"])
