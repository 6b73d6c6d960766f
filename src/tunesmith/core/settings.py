"""What `tunesmith.yaml` may say, with every default in one place.

Strict: unknown keys and wrong types are refused (core/project_file.py adds line, column and the
nearest key). Stages never see these classes: flows/ turns them into each stage's own Spec.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tunesmith.core.data_settings import DataSettings, DocumentsSettings, Fraction, Section, Seed
from tunesmith.core.nouns import Kind


class TaskSettings(Section):
    """What the model is for."""

    kind: Kind = Field(description="what the model does")
    text: str | None = Field(default=None, description="column with the input text")
    label: str | None = Field(default=None, description="column with the class, summary or answer")
    group: str | None = Field(default=None, description="column whose values must not straddle a split")
    audience: str = Field(
        default="", description="for whom the answers are; feeds the default system prompt and the card"
    )
    tone: str = Field(default="", description="how the answers sound; feeds the default system prompt and the card")
    system: str | None = Field(default=None, description="a system prompt of your own in place of the default")
    template: str = Field(
        default="{text}", description="how a user's turn is worded for the tuned model, in training and when it serves"
    )
    labels: list[str] = Field(default=[], description="the classes; empty: those seen in the data")


class MethodSettings(Section):
    """Which weights are trained. `tunesmith methods` says when to use which."""

    kind: Literal["lora", "qlora", "full", "bottleneck", "ia3", "prompt", "p_tuning", "prefix"] = Field(
        default="lora", description="which weights are trained"
    )
    rank: Annotated[int, Field(ge=1, le=1024)] = Field(default=16, description="of the adapters")
    alpha: Annotated[float, Field(gt=0)] | None = Field(default=None, description="default: twice the rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.0, description="in the adapters")
    targets: str | list[str] = Field(
        default="all-linear", description="names of the modules that get adapters, or all-linear"
    )
    init: Literal["uniform", "pissa", "olora", "eva"] = Field(default="uniform", description="how lora starts")
    rslora: bool = Field(default=False, description="scale by alpha / sqrt(rank): large ranks keep learning")
    dora: bool = Field(default=False, description="direction and length of the update apart")
    b_lr_ratio: Annotated[float, Field(gt=0)] = Field(default=1.0, description="LoRA+: B learns so many times faster")
    ranks: dict[str, Annotated[int, Field(ge=1, le=1024)]] = Field(
        default={}, description="a pattern of module names: their rank"
    )
    bits: Literal[4, 8] | None = Field(default=None, description="of qlora's base; default: 4")
    double_quant: bool | None = Field(default=None, description="of qlora with 4 bits; default: true")
    virtual_tokens: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="of prompt, p_tuning and prefix; default: 20"
    )
    projection: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="inner width that makes virtual tokens; default: 128 for p_tuning, else none"
    )
    placement: Literal["houlsby", "pfeiffer", "parallel"] | None = Field(
        default=None, description="of bottleneck; default: pfeiffer"
    )
    reduction: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="of bottleneck: the model's width over the adapter's; default: 16; 0: rank is the width",
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] | None = Field(
        default=None, description="of bottleneck; default: relu"
    )
    scaling: float | None = Field(default=None, description="of bottleneck; default: 1, for parallel 4")
    train_layers: str | list[str] = Field(
        default="all", description='of full: all, "last:4", or patterns of parameter names'
    )


class TrainSettings(Section):
    """How the model learns."""

    recipe: Literal["auto", "sft", "domain"] = Field(
        default="auto", description="auto: domain adaptation for a domain task, else supervised fine-tuning"
    )
    start: str | None = Field(
        default=None, description="a checkpoint or bundle (its id, or a project's folder) to train on top of"
    )
    method: MethodSettings = MethodSettings()
    lr: Annotated[float, Field(gt=0)] | None = Field(default=None, description="default: the method's own")
    epochs: Annotated[float, Field(gt=0)] = Field(default=1.0, description="passes over the training rows")
    global_batch: Annotated[int, Field(ge=1)] = Field(default=16, description="examples per optimizer step")
    max_tokens: Annotated[int, Field(ge=16)] = Field(default=1024, description="longest example, prompt and answer")
    optimizer: Literal["adamw", "adafactor", "lion", "schedule_free", "muon", "adamw_8bit"] = Field(
        default="adamw", description="muon is for full; adamw_8bit needs the extra quant"
    )
    schedule: Literal["cosine", "linear", "constant", "wsd"] = Field(
        default="cosine", description="how the rate falls after the warm-up"
    )
    warmup: Fraction = Field(default=0.05, description="share of the steps in which the rate rises")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(default=0.2, description="share of the steps in which wsd falls")
    lr_ratios: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="a pattern of weight names: a multiple of the rate"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0, description="decoupled, as in AdamW")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(default=1.0, description="longer gradients are clipped")
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="share of each target spread over the vocabulary"
    )
    neftune_alpha: Annotated[float, Field(ge=0)] = Field(default=0.0, description="noise on the embeddings; 0: none")
    on_spike: Literal["ignore", "stop", "skip"] = Field(
        default="ignore", description="what a batch does whose loss is far above the recent ones"
    )
    spike_z: Annotated[float, Field(gt=0)] = Field(default=8.0, description="how many robust deviations are far")
    averaging: Literal["none", "ema", "last"] = Field(
        default="none", description="which weights are kept: the trained ones, or a mean of them"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.99, description="of the exponential mean")
    average_last: Annotated[int, Field(ge=1)] = Field(default=4, description="validations in the mean of the last")
    precision: Literal["auto", "fp32", "bf16"] = Field(default="auto", description="auto: the faster one here")
    weights: Literal["fp32", "bf16"] = Field(default="fp32", description="full: what the trained weights are kept in")
    master: Literal["fp32", "stochastic"] = Field(
        default="fp32", description="of bf16 weights: fp32 copies of them, or steps that are rounded by chance"
    )
    validate_times: Annotated[int, Field(ge=1)] = Field(default=4, description="validations, evenly over the run")
    validate_every_steps: Annotated[int, Field(ge=1)] | None = Field(default=None, description="in place of that")
    validate_every_epochs: Annotated[float, Field(gt=0)] | None = Field(default=None, description="in place of that")
    validation_rows: Annotated[int, Field(ge=1)] = Field(
        default=256, description="at most so many rows each time, seeded"
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="validations without gain before stopping; default: never"
    )
    keep: Annotated[int, Field(ge=1)] = Field(
        default=1, description="validated checkpoints that stay, the best so many; worse ones are deleted on the way"
    )
    keep_last: Annotated[int, Field(ge=0)] = Field(default=0, description="and so many of the newest, however good")
    templates: dict[str, str] = Field(
        default={},
        description="further wordings by name, drawn beside task.template; {text} and columns of data.keep stand in them",
    )
    systems: dict[str, str] = Field(
        default={}, description="further system prompts by name, drawn beside the one that serves"
    )
    turns: Literal["all", "last"] = Field(
        default="all", description="of the assistant in a conversation: those that are trained"
    )
    new_tokens: list[str] = Field(
        default=[], description="texts that become one token each, beside the base's own, with rows that are trained"
    )
    general: list[str] = Field(
        default=[],
        description="files of what must not be forgotten, to score and to replay: texts (a column `text`), or questions with answers",
    )
    mixture: dict[str, Fraction] = Field(
        default={},
        description="a file, a pattern of files or `general`: its share of the examples (domain: of the tokens)",
    )
    max_loss_rise: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="the forgetting budget: how much the loss on train.general may rise, relative"
    )
    past_budget: Literal["stop", "replay"] = Field(default="stop", description="what happens past it")
    replay_share: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.2, description="share of general rows in a step, once the budget was exceeded"
    )
    refusals: str = Field(
        default="", description="a pattern: general questions whose answer matches it are asked, and refusals counted"
    )
    seed: Seed = Field(default=0, description="of the adapters and the order of rows")


class FewShotSettings(Section):
    """The few-shot arm: how many examples, and which, is chosen on validation."""

    counts: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = Field(
        default=[4, 8], description="numbers of examples tried"
    )
    draws: Annotated[int, Field(ge=1)] = Field(default=2, description="seeded draws tried for each count")
    rows: Annotated[int, Field(ge=1)] = Field(default=64, description="validation rows used for the choice")


class EvaluateSettings(Section):
    """How arms are measured on the sealed test set."""

    arms: list[Literal["majority", "tfidf", "lead", "zero_shot", "few_shot"]] | None = Field(
        default=None, description="default: those usual for the kind of task"
    )
    metrics: list[str] = Field(default=[], description="default: those usual for the kind of task")
    few_shot: FewShotSettings = FewShotSettings()
    precision: Literal["auto", "fp32", "bf16"] = Field(default="auto", description="auto: as in training")
    max_new_tokens: Annotated[int, Field(ge=1)] = Field(default=128, description="longest answer that is written")
    resamples: Annotated[int, Field(ge=100)] = Field(
        default=2000, description="bootstrap resamples behind each interval"
    )
    seed: Seed = Field(default=0, description="of draws and resamples")


class MatrixSettings(Section):
    """Ways to train, compared by measurement: `tunesmith matrix`."""

    cells: dict[str, TrainSettings] = Field(
        default={}, description="a name: what differs from `train`; default: every method at its own rate"
    )
    subset: Annotated[int, Field(ge=16)] = Field(
        default=256, description="training rows, a seeded choice, on which every cell is tried"
    )
    full: list[str] | None = Field(
        default=None,
        description="cells that are tried on all rows too; default: lora, full, qlora, bottleneck and prefix, as far as"
        " they are cells; the choice is made among these",
    )
    metric: str | None = Field(default=None, description="which is best by; default: the first of the goals")
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Field(
        default=0.95, description="of the intervals, and of calling a difference more than noise"
    )
    cheapest: Literal["trained_weights", "bytes", "peak_mib", "seconds"] = Field(
        default="trained_weights", description="what decides among cells that do not differ beyond noise"
    )
    choose: str | None = Field(default=None, description="a cell of your own choice, in place of the rule")
    seed: Seed = Field(default=0, description="of the subset")


class GoalSettings(Section):
    """A goal in long form; `macro_f1 >= 0.70` and `beats: [tfidf]` are the short ones."""

    metric: str | None = Field(default=None, description="its name; for beats, default: that of the first bar")
    at_least: float | None = Field(default=None, description="the bar, in the metric's own unit")
    at_most: float | None = Field(default=None, description="the bar, for a metric that should be low")
    beats: list[str] = Field(default=[], description="arms to beat, in a paired comparison")
    slice: str = Field(default="all", description="all, label=NAME or group=NAME")
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = Field(default=0.95, description="one-sided, of the bound")


class LabelPageSettings(Section):
    """The page on which people label, correct and approve."""

    host: str = Field(default="127.0.0.1", description="where to listen; beyond this machine everybody needs a link")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8473, description="0: any free one")
    me: str = Field(default="me", description="your name in the judgments")
    order: Literal["random", "uncertain"] = Field(default="uncertain", description="which item comes next")
    double: Fraction = Field(default=0.1, description="share of the items that several people get, blind")
    annotators: Annotated[int, Field(ge=1, le=9)] = Field(default=2, description="how many get such an item")
    suggest: bool = Field(default=False, description="show a cheap model's guess before the verdict")
    seed: Seed = Field(default=0, description="of the order")


class ServeSettings(Section):
    """How the model is served."""

    host: str = Field(default="127.0.0.1", description="where to listen; beyond this machine a token is needed")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8471, description="0: any free one")
    max_queue: Annotated[int, Field(ge=1)] = Field(default=64, description="more waiting requests are turned away")
    max_batch: Annotated[int, Field(ge=1)] = Field(default=8, description="requests answered together")
    max_tokens: Annotated[int, Field(ge=1)] = Field(default=1024, description="most tokens one request may ask for")
    store_content: bool = Field(default=False, description="keep prompts and answers in the traces")
    adapters: dict[str, str] = Field(
        default={},
        description="name: a project's folder, FOLDER@BUNDLE or a bundle; served on one base with this model",
    )


class ExecSettings(Section):
    """What must not change a result."""

    micro_batch_tokens: Annotated[int, Field(ge=64)] | Literal["auto"] = Field(
        default="auto", description="padded tokens in one forward pass; auto: by the memory here"
    )
    packing: bool = Field(default=False, description="documents in one row, where a probe proves it equal")
    gradient_checkpointing: bool | Literal["selective"] = Field(
        default=False, description="layers computed twice, for less memory; selective: all but products and attention"
    )
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = Field(
        default="auto", description="auto, cpu, cuda or cuda:N; auto: a GPU where there is one"
    )
    attention: Literal["auto", "eager", "sdpa", "flash", "flex"] = Field(
        default="auto", description="how attention is computed; auto: the fastest that is proven here"
    )
    compile: bool = Field(default=False, description="decoder layers through torch.compile, where a probe proves it")
    kernels: Literal["auto", "liger", "none"] = Field(
        default="auto", description="fused kernels on a GPU; auto: Liger's where it is installed and proven"
    )
    activation_offload: bool = Field(default=False, description="a GPU's activations wait in the CPU's memory")
    offload_optimizer: bool = Field(default=False, description="a GPU's optimizer remembers in the CPU's memory")
    threads: Annotated[int, Field(ge=0)] = Field(default=0, description="0: what torch chooses")
    save_every_s: Annotated[float, Field(ge=0)] = Field(default=60.0, description="seconds between resumable states")
    processes: Annotated[int, Field(ge=1)] = Field(default=1, description="ranks of a training on this machine")
    engine: Literal["auto", "single", "ddp", "fsdp2", "zero2", "zero3"] = Field(
        default="auto", description="how ranks share a training; auto: single, or ddp for several"
    )
    nodes: Annotated[int, Field(ge=1)] = Field(default=1, description="machines that train together")
    node_rank: Annotated[int, Field(ge=0)] = Field(default=0, description="which of them this one is, from 0")
    rendezvous: str | None = Field(default=None, description="host:port of machine 0, where there are several")
    isolate: bool | Literal["auto"] = Field(
        default="auto", description="train in a process of its own; auto: with several ranks, or when memory is short"
    )


class PlanSettings(Section):
    """What a plan reckons with. Nothing here changes a result."""

    gpus: list[str] = Field(
        default=["L4", "A100-80GB", "H100"], description="GPUs that are named beside this machine; --gpu says others"
    )
    prices: str | None = Field(
        default=None, description="a file of GPUs and prices of your own, on top of the package's dated one"
    )
    watts: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="that this machine draws while training; default: as its counters say, where it has any",
    )
    energy_price: Annotated[float, Field(ge=0)] = Field(
        default=0.30, description="of a kWh here, in the prices' currency"
    )


class Settings(Section):
    """The whole project file."""

    task: TaskSettings
    data: DataSettings = DataSettings()
    documents: DocumentsSettings = DocumentsSettings()
    model: str = Field(default="smollm2-135m-instruct", description="a catalogue name, a local folder, or a hub name")
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    goals: list[str | GoalSettings] = Field(default=[], description="what the model must reach before it ships")
    matrix: MatrixSettings = MatrixSettings()
    serve: ServeSettings = ServeSettings()
    label: LabelPageSettings = LabelPageSettings()
    exec: ExecSettings = ExecSettings()
    plan: PlanSettings = PlanSettings()
    extends: str | None = Field(default=None, description="another file in the project whose values these override")


def json_schema() -> dict[str, Any]:
    """JSON Schema of the project file, for editors."""
    found = Settings.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "tunesmith.yaml"}
