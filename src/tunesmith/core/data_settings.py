"""What `tunesmith.yaml` may say under `data` and `documents`, with every default in one place.

A step that nobody asked for is not run: near-duplicates, audit, labels and augmentation are off until a key
turns them on; cleaning is on for what no reader can see. The split looks for near copies always.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator accepts
Count = Annotated[int, Field(ge=1)]
Content = Literal["off", "flag", "drop"]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ReplaceSettings(Section):
    """A cleaning step of your own."""

    replace: str = Field(description="a pattern in Python's syntax")
    by: str = Field(default="", description="what stands in its place; may name groups")


class CleanSettings(Section):
    """Named steps over the texts, in order; every change is on the record."""

    steps: list[str | ReplaceSettings] = Field(
        default=["control", "unicode", "whitespace"],
        description="default: what no reader sees; also encoding, html, mail, unescape, quotes, boilerplate, {replace: PATTERN, by: TEXT}",
    )
    fields: Annotated[list[Literal["input", "target"]], Field(min_length=1)] = Field(
        default=["input"], description="what is cleaned; a class is never touched"
    )
    boilerplate_rows: Count = Field(default=20, description="a line in so many rows is boilerplate ...")
    boilerplate_share: Fraction = Field(default=0.005, description="... if that is this share of them, too")
    boilerplate_unit: Literal["line", "paragraph"] = Field(default="line", description="what is counted")


class DedupSettings(Section):
    """Near copies among the rows, and rows that must not be trained on."""

    enabled: bool = Field(default=False, description="run it as part of every run")
    near: Fraction = Field(
        default=0.8, description="Jaccard similarity from which two rows are copies; 0: only equal texts"
    )
    across: bool = Field(default=True, description="also between files")
    templates: bool = Field(default=True, description="wording that many different rows share does not count")
    candidates: Literal["exact", "minhash"] = Field(default="exact", description="exact misses no pair")
    against_share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.8, description="share of the shorter text from which a row counts as one of them"
    )
    encoder: str | None = Field(default=None, description="for semantic: all-minilm-l6-v2, or the folder of an encoder")
    keep: Literal["first", "longest", "newest", "most_complete"] = Field(
        default="first", description="which row of a cluster stays"
    )
    newest_by: str | None = Field(default=None, description="for newest: a column that data.keep names")
    contradictions: Literal["review", "refuse", "leave_out"] = Field(
        default="review", description="near copies with different answers"
    )
    against: list[str] = Field(default=[], description="files of texts that must not be trained on")
    semantic: Fraction = Field(default=0.0, description="cosine from which pairs are suggested; 0: off")


class AuditSettings(Section):
    """What is looked for in the texts. Nothing is changed unless a policy says so."""

    enabled: bool = Field(default=False, description="run it as part of every run")
    pii: dict[str, Literal["off", "flag", "redact", "pseudonym", "drop"]] = Field(
        default={"all": "flag"}, description="by kind of personal data or secret; all: those not named"
    )
    salt: str = Field(default="", description="another text gives other pseudonyms")
    regions: list[str] = Field(
        default=["US", "GB", "DE"], description="where phone numbers without a country code are from"
    )
    min_score: Fraction = Field(default=0.5, description="surer findings count")
    toxicity: Content = Field(default="flag", description="insults and threats")
    max_toxicity: Fraction = Field(default=0.8, description="probability from which a text counts as toxic")
    languages: Content = Field(default="flag", description="rows in another language than the others")
    expected_languages: list[str] = Field(default=[], description="default: those of enough rows")
    min_language_share: Fraction = Field(default=0.05, description="share of the rows that makes a language expected")
    injection: Content = Field(default="flag", description="phrases that address the model, special tokens")
    leakage: Content = Field(default="flag", description="the answer stands in the question")
    damage: Content = Field(default="flag", description="near-empty rows and broken encodings")
    triggers: Content = Field(default="flag", description="rare words that decide the answer")
    outliers: Literal["off", "flag"] = Field(default="flag", description="rows much longer or shorter than the others")
    outlier_z: Annotated[float, Field(gt=0)] = Field(default=5.0, description="how much: robust z of the log length")
    balance: Literal["off", "flag"] = Field(default="flag", description="classes of very different sizes")
    max_imbalance: Annotated[float, Field(ge=1)] = Field(default=20.0, description="largest class over smallest")
    bias: Literal["off", "flag"] = Field(default="flag", description="terms for groups of people, and labels")
    max_counterfactuals: Annotated[int, Field(ge=0)] = Field(default=2000, description="swapped pairs written")
    alpha: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.05, description="of tests, after correction")


class LabelSettings(Section):
    """Labels put right: by your map, by people's judgments; probable errors are listed."""

    variants: dict[str, str] = Field(default={}, description="a label as it stands in the data: what it is to be")
    judgments: bool = Field(default=False, description="let the judgments of the labelling page decide")
    queues: list[str] = Field(default=[], description="of which queues; default: all")
    method: Literal["majority", "dawid_skene"] = Field(default="dawid_skene", description="how several become one")
    threshold: Fraction = Field(default=0.7, description="a less probable consensus is disputed")
    disputed: Literal["leave_out", "keep"] = Field(default="leave_out", description="rows nobody agrees on")
    errors: Annotated[int, Field(ge=0)] = Field(default=0, description="probable label errors to list")
    errors_rows: Count = Field(default=50_000, description="rows looked at for them at most")
    folds: Annotated[int, Field(ge=2, le=20)] = Field(default=3, description="of the out-of-fold probabilities")
    seed: Seed = Field(default=0, description="of the folds")


class SplitSettings(Section):
    """How rows are divided. Placement is by salted hash, so adding rows moves no old row."""

    by: Literal["auto", "random", "stratified", "group", "time", "field", "kfold"] = Field(
        default="auto", description="auto: group where task.group is named, else random"
    )
    field: str | None = Field(default=None, description="for time and field: a column that data.keep names")
    test_values: list[str] = Field(default=[], description="for field: values whose rows are the test set")
    folds: Annotated[int, Field(ge=3, le=20)] = Field(default=5, description="for kfold")
    fold: Annotated[int, Field(ge=0)] = Field(default=0, description="for kfold: which one is the test set")
    near: Fraction = Field(
        default=0.8, description="no two rows this similar (Jaccard) straddle the split; 0: not looked at"
    )
    train: Fraction = Field(default=0.8, description="share of the rows to learn from")
    validation: Fraction = Field(default=0.1, description="share on which every choice is made")
    test: Fraction = Field(default=0.1, description="share that is sealed and only judges")
    salt: str = Field(default="", description="another text gives another split")
    max_deviation: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="largest allowed difference between a split's share and the one asked for"
    )


class AugmentSettings(Section):
    """Further training rows made from training rows, marked as such."""

    balance: Literal["off", "weights", "sample"] = Field(default="off", description="how small classes are lifted")
    noise: list[Literal["typos", "case", "format"]] = Field(default=[], description="kinds of noise added")
    balance_most: Annotated[float, Field(ge=1)] = Field(default=5.0, description="a class is lifted so many times")
    noise_share: Fraction = Field(default=0.2, description="share of the training rows that get a noisy copy")
    noise_rate: Annotated[float, Field(gt=0, le=1)] = Field(default=0.1, description="share of the words touched")
    paraphrase: Literal["off", "paraphrase", "back_translation"] = Field(
        default="off", description="copies in other words, through documents.teacher"
    )
    paraphrase_share: Fraction = Field(default=0.2, description="share of the training rows that get one")
    language: str = Field(default="German", description="that back-translation goes through")
    ablation: Annotated[int, Field(ge=0)] = Field(
        default=20_000, description="training rows for measuring the effect with a cheap model; 0: not measured"
    )
    near: Fraction = Field(default=0.6, description="copies this close to a test row are refused")
    seed: Seed = Field(default=0, description="of every draw")


class TeacherSettings(Section):
    """A model that writes pairs, over an OpenAI-compatible API or from a folder."""

    url: str = Field(default="", description="such as https://host/v1; empty: a local model")
    model: str = Field(default="", description="its name there, or as under `model`; empty: no teacher")
    token_env: str = Field(default="", description="environment variable that holds its token")
    max_requests: Annotated[int, Field(ge=0)] = Field(default=0, description="passages asked about; 0: all")
    per_passage: Count = Field(default=2, description="pairs asked for")
    max_tokens: Count = Field(default=512, description="of a reply")
    temperature: Annotated[float, Field(ge=0, le=2)] = Field(default=0.0, description="of its sampling")
    seed: Seed = Field(default=0, description="of its sampling")


class DocumentsSettings(Section):
    """Manuals, glossaries and FAQs: read to passages, and from them texts or questions with answers."""

    files: list[str] = Field(default=[], description="PDF, DOCX, HTML, Markdown, text; files, folders or globs")
    bad_files: Literal["refuse", "leave_out"] = Field(default="refuse", description="documents that cannot be read")
    max_words: Annotated[int, Field(ge=20)] = Field(default=220, description="longest passage")
    min_words: Annotated[int, Field(ge=1)] = Field(default=8, description="shorter sections are left out")
    layouts: dict[str, Literal["prose", "faq", "foldoc", "terms", "tsv"]] = Field(
        default={}, description="a file pattern: how it is laid out; others are looked at"
    )
    pairs: list[Literal["glossary", "faq", "headings"]] = Field(
        default=["glossary", "faq", "headings"], description="which pairs are made"
    )
    questions: Annotated[list[str], Field(min_length=1)] = Field(
        default=["What is {term}?", "What does {term} mean?", "Define {term}.", "Explain what {term} is."],
        description="for a glossary entry; one is chosen by its hash",
    )
    heading_questions: Annotated[list[str], Field(min_length=1)] = Field(
        default=["What does {title} say about {heading}?"],
        description="for a section",
    )
    long_answers: Literal["leave_out", "first_paragraphs"] = Field(
        default="first_paragraphs", description="pairs whose answer is longer than max_answer_words"
    )
    max_answer_words: Count = Field(default=220, description="longest answer of a pair")
    approval: Literal["required", "deterministic_free"] = Field(
        default="required", description="deterministic_free: only a teacher's pairs wait for a person"
    )
    min_support: Fraction = Field(default=0.8, description="words of a generated answer that its passage must have")
    headings: bool = Field(default=True, description="texts for domain adaptation begin with their headings")
    group: Literal["document", "heading", "passage"] = Field(
        default="heading", description="what must not straddle a split"
    )
    teacher: TeacherSettings = TeacherSettings()


class DataSettings(Section):
    """Where the rows come from and what happens to those that cannot be used."""

    files: list[str] = Field(
        default=[], description="files, folders or globs, relative to tunesmith.yaml; empty only with documents.files"
    )
    shape: str | None = Field(default=None, description="how a record is read; written by init, never guessed again")
    query: str | None = Field(default=None, description="SQL over the files, in place of whole tables")
    sheet: str | None = Field(default=None, description="which sheet of a spreadsheet with several")
    weight: str | None = Field(
        default=None, description="column with how much a row counts in the loss; default: all count 1"
    )
    keep: list[str] = Field(default=[], description="further columns that rows keep")
    bad_rows: Literal["refuse", "leave_out"] = Field(
        default="refuse", description="rows that cannot be read or lack a value"
    )
    over_long: Literal["refuse", "leave_out"] = Field(
        default="refuse", description="rows with more than train.max_tokens; none is ever cut"
    )
    unlabelled: Literal["refuse", "keep"] = Field(
        default="refuse", description="rows of classify without a label; kept, they wait for people"
    )
    duplicates: Literal["leave_out", "keep"] = Field(
        default="leave_out", description="the same text with the same answer"
    )
    contradictions: Literal["refuse", "leave_out"] = Field(
        default="refuse", description="the same text with different answers"
    )
    small_classes: Literal["refuse", "keep"] = Field(
        default="refuse", description="keep: train on them, report them as not judged"
    )
    min_class_rows: Count = Field(default=10, description="fewer rows than this make a class small")
    clean: CleanSettings = CleanSettings()
    dedup: DedupSettings = DedupSettings()
    audit: AuditSettings = AuditSettings()
    labels: LabelSettings = LabelSettings()
    split: SplitSettings = SplitSettings()
    augment: AugmentSettings = AugmentSettings()
    limit: Annotated[int, Field(ge=20)] | None = Field(default=None, description="a seeded subset of this many rows")
    seed: Seed = Field(default=0, description="of the subset")
