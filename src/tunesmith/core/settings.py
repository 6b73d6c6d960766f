"""What `tunesmith.yaml` may say, with every default in one place.

Strict: unknown keys and wrong types are refused (core/project_file.py adds line, column and the
nearest key). Stages never see these classes: flows/ turns them into each stage's own Spec.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tunesmith.core.nouns import Kind

Fraction = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TaskSettings(Section):
    """What the model is for."""

    kind: Kind
    text: str | None = Field(default=None, description="column with the input text")
    label: str | None = Field(default=None, description="column with the class, summary or answer")
    group: str | None = Field(default=None, description="column whose values must not straddle a split")
    audience: str = Field(
        default="", description="for whom the answers are; feeds the default system prompt and the card"
    )
    tone: str = Field(default="", description="how the answers sound; feeds the default system prompt and the card")
    system: str | None = Field(default=None, description="a system prompt of your own in place of the default")
    labels: list[str] = Field(default=[], description="the classes; empty: those seen in the data")


class SplitSettings(Section):
    """How rows are divided. Placement is by salted hash, so adding rows moves no old row."""

    train: Fraction = 0.8
    validation: Fraction = 0.1
    test: Fraction = 0.1
    salt: str = ""
    max_deviation: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="largest allowed difference between a split's share and the one asked for"
    )


class DataSettings(Section):
    """Where the rows come from and what happens to those that cannot be used."""

    files: Annotated[list[str], Field(min_length=1)]
    bad_rows: Literal["refuse", "leave_out"] = "refuse"
    over_long: Literal["refuse", "leave_out"] = "refuse"
    duplicates: Literal["leave_out", "keep"] = "leave_out"
    contradictions: Literal["refuse", "leave_out"] = "refuse"
    small_classes: Literal["refuse", "keep"] = "refuse"
    min_class_rows: Annotated[int, Field(ge=1)] = Field(
        default=10, description="fewer rows than this make a class small"
    )
    split: SplitSettings = SplitSettings()
    limit: Annotated[int, Field(ge=20)] | None = Field(default=None, description="a seeded subset of this many rows")
    seed: int = 0


class MethodSettings(Section):
    """Which weights are trained."""

    kind: Literal["lora", "full"] = "lora"
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    alpha: Annotated[float, Field(gt=0)] | None = Field(default=None, description="default: twice the rank")
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: str | list[str] = Field(default="all-linear", description="module names, or all-linear")


class TrainSettings(Section):
    """How the model learns."""

    recipe: Literal["sft"] = "sft"
    method: MethodSettings = MethodSettings()
    lr: Annotated[float, Field(gt=0)] | None = Field(default=None, description="default: 1e-3 for lora, 2e-5 for full")
    epochs: Annotated[float, Field(gt=0)] = 1.0
    global_batch: Annotated[int, Field(ge=1)] = Field(default=16, description="examples per optimizer step")
    max_tokens: Annotated[int, Field(ge=16)] = Field(default=1024, description="longest example, prompt and answer")
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: Fraction = Field(default=0.05, description="share of the steps in which the rate rises")
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validate_times: Annotated[int, Field(ge=1)] = Field(default=4, description="validations, evenly over the run")
    validation_rows: Annotated[int, Field(ge=1)] = Field(
        default=256, description="at most so many rows each time, seeded"
    )
    patience: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="validations without gain before stopping"
    )
    seed: int = 0


class FewShotSettings(Section):
    """The few-shot arm: how many examples, and which, is chosen on validation."""

    counts: list[Annotated[int, Field(ge=1)]] = [4, 8]
    draws: Annotated[int, Field(ge=1)] = Field(default=2, description="seeded draws tried for each count")
    rows: Annotated[int, Field(ge=1)] = Field(default=64, description="validation rows used for the choice")


class EvaluateSettings(Section):
    """How arms are measured on the sealed test set."""

    arms: list[Literal["majority", "tfidf", "lead", "zero_shot", "few_shot"]] | None = Field(
        default=None, description="default: those usual for the kind of task"
    )
    metrics: list[str] = Field(default=[], description="default: those usual for the kind of task")
    few_shot: FewShotSettings = FewShotSettings()
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    max_new_tokens: Annotated[int, Field(ge=1)] = 128
    resamples: Annotated[int, Field(ge=100)] = 2000
    seed: int = 0


class GoalSettings(Section):
    """A goal in long form; `macro_f1 >= 0.70` and `beats: [tfidf]` are the short ones."""

    metric: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    beats: list[str] = []
    slice: str = "all"
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


class ServeSettings(Section):
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8471
    max_queue: Annotated[int, Field(ge=1)] = 64
    max_batch: Annotated[int, Field(ge=1)] = 8
    max_tokens: Annotated[int, Field(ge=1)] = Field(default=1024, description="most tokens one request may ask for")
    store_content: bool = Field(default=False, description="keep prompts and answers in the traces")


class ExecSettings(Section):
    """What must not change a result."""

    micro_batch_tokens: Annotated[int, Field(ge=64)] | Literal["auto"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    save_every_s: Annotated[float, Field(ge=0)] = 60.0


class Settings(Section):
    """The whole project file."""

    task: TaskSettings
    data: DataSettings
    model: str = Field(default="smollm2-135m-instruct", description="a catalogue name, a local folder, or a hub name")
    train: TrainSettings = TrainSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    goals: list[str | GoalSettings] = []
    serve: ServeSettings = ServeSettings()
    exec: ExecSettings = ExecSettings()
    extends: str | None = Field(default=None, description="another project file whose values these override")


def json_schema() -> dict[str, Any]:
    """JSON Schema of the project file, for editors."""
    return Settings.model_json_schema()
