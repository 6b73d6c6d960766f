"""No setting is an ornament: each one changes a spec, an Exec, or the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.small import make_project
from tunesmith.api import Project
from tunesmith.core.canonical import plain
from tunesmith.flows.run import walk
from tunesmith.flows.steps import Journey, exec_for, steps

CHANGES = {
    "task.label": "source", "task.group": "null", "task.audience": "children", "task.tone": "warm",
    "task.system": "Say it.", "task.labels": "[sports, business, weather, other]",
    "data.bad_rows": "leave_out", "data.over_long": "leave_out", "data.duplicates": "keep",
    "data.contradictions": "leave_out", "data.small_classes": "keep", "data.min_class_rows": "5",
    "data.split.by": "stratified", "data.split.field": "source", "data.split.test_values": "[x]",
    "data.split.folds": "4", "data.split.fold": "1", "data.split.near": "0.5", "data.split.salt": "x", "data.split.max_deviation": "0.3", "data.limit": "60",
    "train.method.rank": "8", "train.method.alpha": "3", "train.method.dropout": "0.1", "train.method.targets": "[q_proj]",
    "train.method.init": "pissa", "train.method.rslora": "true", "train.method.dora": "true",
    "train.method.b_lr_ratio": "4", "train.method.ranks": "{q_proj: 8}", "train.method.bits": "8",
    "train.method.double_quant": "false", "train.method.virtual_tokens": "5", "train.method.projection": "64",
    "train.method.placement": "houlsby", "train.method.reduction": "8", "train.method.activation": "gelu",
    "train.method.scaling": "2", "train.method.train_layers": "last:1", "train.optimizer": "lion",
    "train.decay": "0.5", "train.lr_ratios": "{lora_B: 2}", "train.label_smoothing": "0.1",
    "train.neftune_alpha": "5", "train.on_spike": "skip", "train.spike_z": "4", "train.averaging": "ema",
    "train.ema_decay": "0.9", "train.average_last": "2", "train.validate_every_steps": "3",
    "train.validate_every_epochs": "0.5",
    "train.keep": "3", "train.keep_last": "1",
    "train.turns": "last", "train.new_tokens": "[<ICD>]", "task.template": "'Say: {text}'", "train.templates": "{a: '{text}?'}", "train.systems": "{a: Go}", "train.mixture": "{rows.csv: 0.1}", "train.past_budget": "replay", "train.replay_share": "0.3",
    "train.method.kind": "full", "train.lr": "0.5", "train.epochs": "3", "train.global_batch": "8",
    "train.max_tokens": "512", "train.schedule": "linear", "train.warmup": "0.2", "train.weight_decay": "0.1",
    "train.max_grad_norm": "2", "train.precision": "bf16", "train.validate_times": "3", "train.validation_rows": "9",
    "train.patience": "1", "train.seed": "3", "evaluate.arms": "[majority]", "evaluate.metrics": "[accuracy]",
    "evaluate.few_shot.counts": "[1]", "evaluate.few_shot.draws": "3", "evaluate.few_shot.rows": "5",
    "evaluate.precision": "bf16", "evaluate.max_new_tokens": "7", "evaluate.resamples": "300", "evaluate.seed": "5",
    "data.unlabelled": "keep", "data.shape": "text_label", "data.query": "SELECT 1", "data.sheet": "A", "data.weight": "w", "data.keep": "[source]",
    "data.clean.steps": "[html]", "data.clean.fields": "[input, target]", "data.clean.boilerplate_rows": "7",
    "data.clean.boilerplate_share": "0.3", "data.clean.boilerplate_unit": "paragraph",
    "data.dedup.enabled": "true", "data.dedup.near": "0.5", "data.dedup.across": "false",
    "data.dedup.keep": "longest", "data.dedup.newest_by": "source", "data.dedup.templates": "false",
    "data.dedup.candidates": "minhash", "data.dedup.contradictions": "leave_out", "data.dedup.against": "[rows.csv]",
    "data.dedup.against_share": "0.5", "data.dedup.semantic": "0.9",
    "data.audit.enabled": "true", "data.audit.pii": "{all: redact}", "data.audit.salt": "x",
    "data.audit.regions": "[FR]", "data.audit.min_score": "0.9", "data.audit.toxicity": "drop",
    "data.audit.max_toxicity": "0.3", "data.audit.languages": "drop", "data.audit.expected_languages": "[fr]",
    "data.audit.min_language_share": "0.2", "data.audit.injection": "drop", "data.audit.leakage": "drop",
    "data.audit.damage": "drop", "data.audit.triggers": "drop", "data.audit.outliers": "off",
    "data.audit.outlier_z": "9", "data.audit.balance": "off", "data.audit.max_imbalance": "3",
    "data.audit.bias": "off", "data.audit.max_counterfactuals": "3", "data.audit.alpha": "0.2",
    "data.labels.variants": "{x: sports}", "data.labels.judgments": "true", "data.labels.queues": "[mine]",
    "data.labels.method": "majority", "data.labels.threshold": "0.9", "data.labels.disputed": "keep",
    "data.labels.errors": "9", "data.labels.errors_rows": "99", "data.labels.folds": "7", "data.labels.seed": "4",
    "data.augment.balance": "weights", "data.augment.balance_most": "2", "data.augment.noise": "[typos]",
    "data.augment.noise_share": "0.5", "data.augment.noise_rate": "0.5", "data.augment.near": "0.9",
    "data.augment.ablation": "0", "data.augment.seed": "3", "data.augment.paraphrase": "back_translation",
    "data.augment.paraphrase_share": "0.4", "data.augment.language": "French",
    "goals": "[accuracy >= 0.3]", "exec.micro_batch_tokens": "512", "exec.threads": "1", "exec.packing": "true",
    "exec.gradient_checkpointing": "true", "exec.save_every_s": "7", "exec.processes": "2",
    "exec.engine": "fsdp2", "exec.nodes": "2", "exec.node_rank": "1", "exec.rendezvous": "127.0.0.1:29500",
    "exec.isolate": "true",
    "exec.device": "cpu", "exec.attention": "sdpa", "exec.compile": "true",
    "exec.kernels": "none", "exec.activation_offload": "true", "exec.offload_optimizer": "true",
    "train.weights": "bf16", "train.master": "stochastic",
}  # fmt: skip

# a setting of a step that is off by default changes something where the step is on
TEACHER = ("documents.teacher.url=https://teacher.example/v1", "documents.teacher.model=t")
GIVEN: dict[str, tuple[str, ...]] = {
    "train.method.bits": ("train.method.kind=qlora", "train.method.double_quant=false"),
    "train.method.double_quant": ("train.method.kind=qlora",),
    "train.method.virtual_tokens": ("train.method.kind=prompt",),
    "train.method.projection": ("train.method.kind=p_tuning",),
    "train.method.placement": ("train.method.kind=bottleneck",),
    "train.method.reduction": ("train.method.kind=bottleneck",),
    "train.method.activation": ("train.method.kind=bottleneck",),
    "train.method.scaling": ("train.method.kind=bottleneck",),
    "train.weights": ("train.method.kind=full", "train.precision=bf16"),
    "train.master": ("train.method.kind=full", "train.precision=bf16", "train.weights=bf16"),
    "train.method.train_layers": ("train.method.kind=full",),
    "data.dedup.": ("data.dedup.enabled=true",),
    "data.audit.": ("data.audit.enabled=true",),
    "data.labels.": ("data.labels.errors=3",),
    "data.augment.": ("data.augment.noise=[case]", "data.augment.paraphrase=paraphrase", *TEACHER),
}


def given(key: str) -> tuple[str, ...]:
    return next((said for prefix, said in GIVEN.items() if key.startswith(prefix) and f"{key}=" not in said[0]), ())


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Project:
    project = Project.open(make_project(tmp_path_factory.mktemp("reach") / "news", tiny_llama))
    walk(project.context, "prepare")
    return project


def everything(project: Project, *overrides: str) -> list[Any]:
    """Every step's spec and Exec under these settings, with data made once."""
    changed = Project.open(project.root, overrides)
    base = walk(project.context, "prepare")
    journey = Journey(context=changed.context, source=base.source, runs=dict(base.runs))
    found = []
    for step in steps(changed.context):
        journey.runs.setdefault(step.name, base.runs["prepare"])
    for run in journey.runs.values():
        for output in ("examples", "answers", "checkpoint", "report", "verdict", "bundle"):
            run.outputs.setdefault(output, base.runs["prepare"].outputs["dataset"])
    for step in steps(changed.context):
        spec, inputs = step.build(journey)
        given = sorted(name for name, value in inputs.items() if value is not None)
        found.append(plain([step.name, spec, given, exec_for(journey, step)]))
    return found


@pytest.mark.parametrize("key", CHANGES)
def test_the_setting_changes_something(project: Project, key: str) -> None:
    before = tuple(said for said in given(key) if not said.startswith(f"{key}="))
    assert everything(project, *given(key), f"{key}={CHANGES[key]}") != everything(project, *before)


def test_every_setting_is_looked_at_here(project: Project) -> None:
    elsewhere = {
        "task.kind", "task.text", "data.files", "model", "extends", "train.recipe",  # the fixture rests on them
        "train.general", "train.start", "train.max_loss_rise", "train.refusals",  # tests/flows/test_domain.py, test_general.py
        "data.dedup.encoder",  # tests/data/near
        "plan.gpus", "plan.prices", "plan.watts", "plan.energy_price",  # of no spec: tests/flows/cost/test_forecast.py
        "label.host", "label.port", "label.me", "label.order", "label.double", "label.annotators", "label.suggest",
        "label.seed",  # of the labelling page: tests/flows/test_label.py
        "data.split.train", "data.split.validation", "data.split.test", "data.seed",  # tests/data
        "serve.host", "serve.port", "serve.max_queue", "serve.max_batch", "serve.max_tokens", "serve.store_content", "serve.adapters",  # tests/flows/test_serve.py
        "matrix.cells", "matrix.subset", "matrix.full", "matrix.metric", "matrix.confidence", "matrix.cheapest",
        "matrix.choose", "matrix.seed",  # tests/flows/matrix/test_matrix.py
    }  # fmt: skip
    documents = {key for key, _, _ in project.config() if key.startswith("documents.")}  # tests/flows/test_documents.py
    assert {key for key, _, _ in project.config()} - set(CHANGES) - documents == elsewhere
