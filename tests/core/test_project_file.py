"""A project file that holds loads with an origin for every value; any other says everything wrong with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunesmith.core.errors import ProjectFileError, StorageError
from tunesmith.core.nouns import Goal, Task
from tunesmith.core.project_file import ProjectFile, find_project, load
from tunesmith.core.setting_errors import OTHER_NAMES, nearest_key, setting_keys
from tunesmith.core.settings import Settings

DEMO = """\
task: {kind: classify, text: description, label: chapter, group: category, audience: clinical coders, tone: terse}
data: {files: [diagnoses.csv], small_classes: keep}
model: smollm2-135m-instruct
train: {recipe: sft, method: {kind: lora, rank: 16}, lr: 1e-3, epochs: 1}
goals:
  - macro_f1 >= 0.70
  - beats: [majority, tfidf, zero_shot, few_shot]
"""
TASK = "task: {kind: classify, text: t, label: l}\n"
DATA = "data: {files: [diagnoses.csv]}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "diagnoses.csv").write_text("description,chapter,category\n")
    (tmp_path / "empty").mkdir()
    return tmp_path


def loaded(folder: Path, text: str | bytes, *overrides: str) -> ProjectFile:
    data = text.encode() if isinstance(text, str) else text
    (folder / "tunesmith.yaml").write_bytes(data)
    return load(folder / "tunesmith.yaml", overrides)


def complaint(folder: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(ProjectFileError) as e:
        loaded(folder, text, *overrides)
    assert e.value.exit_code == 2
    return str(e.value)


def test_the_ten_lines_of_the_demo_load(folder: Path) -> None:
    project = loaded(folder, DEMO)
    assert project.settings.train.lr == 1e-3
    assert project.settings.train.epochs == 1.0
    assert project.settings.serve == Settings.model_fields["serve"].default
    assert project.task() == Task(
        kind="classify", text="description", label="chapter", group="category", audience="clinical coders", tone="terse"
    )
    assert project.goals() == (
        Goal(metric="macro_f1", threshold=0.7),
        Goal(metric="macro_f1", op="beats", beats=("majority", "tfidf", "zero_shot", "few_shot")),
    )
    assert project.data_files() == {"diagnoses.csv": folder / "diagnoses.csv"}
    assert project.warnings() == ()


def test_every_value_has_an_origin(folder: Path) -> None:
    (folder / "base.yaml").write_text("model: other\ntrain:\n  lr: 2e-4\n  epochs: 3\n")
    project = loaded(folder, f"extends: base.yaml\n{TASK}{DATA}train:\n  epochs: 2\n", "train.lr=5e-4", "data.seed=1")
    origins = {key: origin for key, _, origin in project.resolved()}
    assert origins["model"] == "base.yaml:1"
    assert origins["train.epochs"] == "tunesmith.yaml:5"
    assert origins["train.lr"] == "--set"
    assert origins["data.seed"] == "--set"
    assert origins["train.seed"] == "default"
    assert origins["task.kind"] == "tunesmith.yaml:2"
    values = {key: value for key, value, _ in project.resolved()}
    assert values["train.lr"] == 5e-4
    assert values["train.epochs"] == 2.0
    assert values["data.files"] == ["diagnoses.csv"]
    leaves = [k for k in setting_keys() if not any(other.startswith(f"{k}.") for other in setting_keys())]
    assert list(origins) == leaves


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (TASK + DATA + "train:\n  learning_rte: 1e-3", "tunesmith.yaml:4:3: train.learning_rte is not a setting. Did you mean train.lr?"),
        (TASK + DATA + "lr: 1", "tunesmith.yaml:3:1: lr is not a setting. Did you mean train.lr?"),
        (TASK + DATA + "trian: {}", "tunesmith.yaml:3:1: trian is not a setting. Did you mean train?"),
        (TASK + DATA + "xyzzy: {}", "xyzzy is not a setting.\n  fix:   `tunesmith config` lists every setting"),
        (TASK + DATA + "train: {method: {lora_alpha: 1}}", "Did you mean train.method.alpha?"),
        (TASK + DATA + "goals: [{metrik: x, beats: [tfidf]}]", "tunesmith.yaml:3:10: goals[0].metrik is not a setting. Did you mean goals[0].metric?"),
        (TASK + DATA + "<<: {a: 1}", "<< is not a setting.\n  fix:   use extends: BASE.yaml"),
        (TASK + DATA + "train: {epochs: '1'}", 'tunesmith.yaml:3:17: train.epochs is "1"; it must be a number\n  fix:   write the number without quotes'),
        (TASK + DATA + "train: {method: {rank: 1.5}}", "train.method.rank is 1.5; it must be a whole number"),
        (TASK + DATA + "train: {method: {rank: true}}", "train.method.rank is true; it must be a whole number"),
        (TASK + DATA + "train: {lr: 0}", "tunesmith.yaml:3:13: train.lr is 0; it must be greater than 0"),
        (TASK + DATA + "train: {method: {dropout: 1}}", "train.method.dropout is 1; it must be less than 1"),
        (TASK + DATA + "train: {schedule: cosin}", 'train.schedule is "cosin"; it must be one of cosine, linear, constant or wsd\n  fix:   did you mean cosine?'),
        (TASK + DATA + "train: {method: {targets: 3}}", "train.method.targets is 3; it must be text or a list"),
        (TASK + DATA + "exec: {micro_batch_tokens: lots}", 'exec.micro_batch_tokens is "lots"; it must be a whole number or auto'),
        (TASK + DATA + "serve: {store_content: no}", 'serve.store_content is "no"; it must be true or false\n  fix:   write false'),
        (TASK + DATA + "serve:\nmodel: 1", "tunesmith.yaml:3:1: serve is empty; it must be a section"),
        (TASK + DATA + "train: [1]", "train is a list; it must be a section of `key: value` lines"),
        (TASK + DATA + "model: 3", 'tunesmith.yaml:3:8: model is 3; it must be text\n  fix:   quote it: "3"'),
        (TASK + DATA + "goals: macro_f1 >= 0.7", 'goals is "macro_f1 >= 0.7"; it must be a list\n  fix:   write [macro_f1 >= 0.7]'),
        (TASK + DATA + "goals: [3]", "goals[0] is 3; a goal is text or a mapping"),
        (TASK + DATA + "goals: [macro_f1 >= 7]", "tunesmith.yaml:3:9: goals[0]: macro_f1 lies between 0 and 1"),
        (TASK + DATA + "goals:\n  - accuracy >= 0.1\n  - macrof1 >= 0.7", "tunesmith.yaml:5:5: goals[1]: macrof1 is not a metric"),
        (TASK + DATA + "goals: [{beats: [lead]}]", "goals[0]: beats names lead: it cannot do a classify task"),
        (TASK + DATA + "evaluate: {arms: [tfidf, tfidf]}", "tunesmith.yaml:3:26: evaluate.arms names tfidf twice"),
        (TASK + DATA + "evaluate: {arms: [lead]}", "evaluate.arms names lead: it cannot do a classify task"),
        (TASK + DATA + "evaluate: {metrics: [accuracy, rougeL]}", "tunesmith.yaml:3:32: rougeL is not for classify tasks"),
        (TASK + DATA + "evaluate: {metrics: [f1]}", "f1 is of one class"),
        (TASK + DATA + "evaluate: {arms: [majority]}\ngoals: [{beats: [tfidf]}]", "tunesmith.yaml:4:9: goals[0]: beats names tfidf, which evaluate.arms leaves out"),
        (TASK + "data: {files: [diagnoses.csv], split: {train: 0.9}}", "tunesmith.yaml:2:39: the shares of data.split are 0.9 + 0.1 + 0.1 = 1.1; they must sum to 1"),
        (TASK + "data: {files: [diagnoses.csv], split: {train: 0.9, validation: 0.1, test: 0}}", "data.split.test is 0; every split needs rows"),
        (TASK + "data: {files: [diagnose.csv]}", "tunesmith.yaml:2:16: data file diagnose.csv does not exist\n  fix:   did you mean diagnoses.csv?"),
        (TASK + "data: {files: [nowhere/x.csv]}", "data file nowhere/x.csv does not exist\n  fix:   looked for"),
        (TASK + "data: {files: [empty]}", "the folder empty has no files"),
        (TASK + "data: {files: ['']}", "a data file's name is empty"),
        (TASK + "data: {files: []}", "data.files is missing: it names the files with the rows"),
        (TASK + "data: {files: diagnoses.csv}", 'data.files is "diagnoses.csv"; it must be a list\n  fix:   write [diagnoses.csv]'),
        (TASK + "data: {files: [diagnoses.csv, diagnoses.csv]}", "tunesmith.yaml:2:31: diagnoses.csv is named twice"),
        (TASK + "data: {files: [diagnoses.csv, ./diagnoses.csv]}", "diagnoses.csv and ./diagnoses.csv have the same file name"),
        (TASK + "data: {files: [" + "x" * 300 + "]}", "cannot be opened"),
        (TASK, "tunesmith.yaml:1:1: data.files is missing: it names the files with the rows\n  fix:   files: [FILE]"),
        (DATA, "tunesmith.yaml:1:1: task is missing\n  fix:   add task: {kind: classify"),
        ("task: {text: t}\n" + DATA, "tunesmith.yaml:1:1: task.kind is missing\n  fix:   kind: classify, extract"),
        ("task: {kind: clasify}\n" + DATA, 'tunesmith.yaml:1:14: task.kind is "clasify"; it must be one of classify'),
        ("task: {kind: classify}\n" + DATA, "tunesmith.yaml:1:7: task.text is missing: diagnoses.csv has columns, and a classify task"),
        ("task: {kind: summarize, text: t}\n" + DATA, "task.label is missing: diagnoses.csv has columns"),
        ("task: {kind: domain}\n" + DATA, "task.text is missing"),
        ("task: {kind: classify, text: t, label: t}\n" + DATA, "task.label and task.text name the same column, t"),
        ("task: {kind: classify, text: t, label: l, labels: [a, a]}\n" + DATA, 'tunesmith.yaml:1:55: task.labels names "a" twice'),
        ("task: {kind: classify, text: t, label: l, labels: [a]}\n" + DATA, "task.labels names one class"),
        ("task: {kind: classify, text: t, label: l, labels: [a, ' ']}\n" + DATA, "task.labels[1] is empty"),
        ("task: {kind: classify, text: t, label: l, labels: [1, 2]}\n" + DATA, 'task.labels[0] is 1; it must be text\n  fix:   quote it: "1"'),
        ("task: {kind: summarize, text: t, label: l, labels: [a, b]}\n" + DATA, "task.labels means nothing for a summarize task"),
        (TASK + DATA + TASK, "tunesmith.yaml:3:1: task is set twice; first on line 1"),
        ("", "tunesmith.yaml: is empty"),
        ("# nothing\n", "tunesmith.yaml: is empty"),
        ("- a\n- b\n", "tunesmith.yaml:1:1: the file must be `key: value` lines"),
        ("just text", "the file must be `key: value` lines"),
        (b"\xff\xfe", "tunesmith.yaml:1:1: byte 0xff is not UTF-8"),
        (b"task: \x00", "control character U+0000"),
    ],
)  # fmt: skip
def test_each_mistake_has_its_place_and_its_mend(folder: Path, text: str | bytes, says: str) -> None:
    assert says in complaint(folder, text)


def test_every_problem_is_said_at_once_in_the_order_of_the_file(folder: Path) -> None:
    said = complaint(
        folder,
        """\
task: {kind: classify, text: 3, lable: chapter}
data:
  files: [diagnose.csv, 2]
  split: {train: 0.8, validation: 0.2, test: 0.1}
model: !!str x
train: {learning_rte: 1e-3, epochs: "1", max_tokens: 1_000, lr: .nan}
goals: [macro_f >= 0.70, 3, {beats: [majorty], confidence: 2}]
""",
        "train.sed=1",
    )
    places = [line.split(": ")[0] for line in said.splitlines() if not line.startswith("  fix")]
    assert places == [
        "tunesmith.yaml:1:7", "tunesmith.yaml:1:30", "tunesmith.yaml:1:33", "tunesmith.yaml:3:11", "tunesmith.yaml:3:25",
        "tunesmith.yaml:4:10", "tunesmith.yaml:5:8", "tunesmith.yaml:6:9", "tunesmith.yaml:6:37", "tunesmith.yaml:6:54",
        "tunesmith.yaml:6:65", "tunesmith.yaml:7:9", "tunesmith.yaml:7:26", "tunesmith.yaml:7:29", "tunesmith.yaml:7:60",
        "--set train.sed=1",
    ]  # fmt: skip


def test_one_mistake_gives_one_message(folder: Path) -> None:
    assert complaint(folder, "task: {kind: clasify}\ndata: {files: [diagnoses.csv]}\n").count("tunesmith.yaml:") == 1
    assert complaint(folder, TASK + "data: {files: x}\n").count("tunesmith.yaml:") == 1
    assert (
        complaint(folder, TASK + DATA + "evaluate: {arms: [x]}\ngoals: [{beats: [tfidf]}]").count("tunesmith.yaml:")
        == 1
    )


def test_json_lines_need_no_columns(folder: Path) -> None:
    (folder / "rows.jsonl").write_text("")
    assert loaded(folder, "task: {kind: classify}\ndata: {files: [rows.jsonl]}\n").task().text is None


def test_data_may_lie_anywhere(folder: Path) -> None:
    inner = folder / "project"
    inner.mkdir()
    text = TASK + f"data: {{files: [../diagnoses.csv, {folder / 'other.csv'}]}}\n"
    (folder / "other.csv").write_text("")
    files = loaded(inner, text).data_files()
    assert [f.resolve() for f in files.values()] == [folder / "diagnoses.csv", folder / "other.csv"]


def test_a_byte_order_mark_and_crlf_change_nothing(folder: Path) -> None:
    plain = loaded(folder, DEMO)
    marked = loaded(folder, b"\xef\xbb\xbf" + DEMO.replace("\n", "\r\n").encode())
    assert marked == plain


# --set


@pytest.mark.parametrize(
    ("argument", "key", "want"),
    [
        ("train.lr=1e-4", "train.lr", 1e-4),
        ("train.epochs=3", "train.epochs", 3.0),
        ("data.split={train: 0.6, validation: 0.2, test: 0.2}", "data.split.train", 0.6),
        ("goals=[accuracy >= 0.5, {beats: [tfidf]}]", "goals", ["accuracy >= 0.5", {"beats": ["tfidf"]}]),
        ("task.audience=", None, None),
        ('task.audience=""', "task.audience", ""),
        ("task.tone=no", "task.tone", "no"),
        ("train.patience=null", "train.patience", None),
        ("model=a=b", "model", "a=b"),
    ],
)
def test_overrides_are_yaml_values(folder: Path, argument: str, key: str | None, want: object) -> None:
    if key is None:
        assert "has no value\n  fix:   write --set task.audience=null" in complaint(folder, DEMO, argument)
        return
    project = loaded(folder, DEMO, argument)
    assert {k: (v, o) for k, v, o in project.resolved()}[key] == (want, "--set")


def test_an_overridden_section_keeps_its_other_values_and_the_last_override_wins(folder: Path) -> None:
    project = loaded(folder, DEMO, "train={lr: 2e-4}", "train.lr=3e-4")
    assert project.settings.train.lr == 3e-4
    assert project.settings.train.method.rank == 16


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("train.learning_rte=1", "--set train.learning_rte=1: train.learning_rte is not a setting. Did you mean train.lr?"),
        ("lr=1", "--set lr=1: lr is not a setting. Did you mean train.lr?"),
        ("xyzzy=1", "--set xyzzy=1: xyzzy is not a setting.\n  fix:   `tunesmith config` lists every setting"),
        ("train.lr", "--set train.lr: has no value\n  fix:   write --set train.lr=VALUE"),
        ("=3", "an empty name is not a setting"),
        ("goals.0=x", "lists are set whole"),
        ("goals[0]=x", "lists are set whole"),
        ("model.rank=3", "model.rank is not a setting. Did you mean train.method.rank?"),
        ("extends=x.yaml", "extends belongs in the project file"),
        ("train.lr=fast", '--set train.lr=fast: train.lr is "fast"; it must be a number'),
        ("train.lr=1: 2", "--set train.lr=1: 2: train.lr is a section; it must be a number"),
        ("train.lr=[", "--set train.lr=[: not valid YAML"),
        ("train.max_tokens=1_000", "--set train.max_tokens=1_000: 1_000 looks like a number"),
        ("data.files=x.csv", "--set data.files=x.csv: data.files is \"x.csv\"; it must be a list"),
        ("data.files=[x.csv]", "--set data.files=[x.csv]: data file x.csv does not exist"),
        ("task.tone=\udcff", "U+DCFF is not allowed"),
        ("task.tone=a\x00", "U+0000 is not allowed"),
        ("goals=[macrof1 >= 1]", "--set goals=[macrof1 >= 1]: goals[0]: macrof1 is not a metric"),
    ],
)  # fmt: skip
def test_a_wrong_override_says_so(folder: Path, argument: str, says: str) -> None:
    assert says in complaint(folder, DEMO, argument)


# extends


def test_a_parent_gives_what_the_child_does_not_say(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "base.yaml").write_text("extends: ../root.yaml\ntrain: {lr: 2e-4, method: {rank: 4}}\n")
    (folder / "root.yaml").write_text(DEMO)
    project = loaded(folder, "extends: sub/base.yaml\ntrain: {method: {alpha: 8}}\ngoals: [accuracy >= 0.5]\n")
    method = project.settings.train.method
    assert (method.rank, method.alpha, project.settings.train.lr) == (4, 8.0, 2e-4)
    assert project.settings.goals == ["accuracy >= 0.5"]  # a list is replaced, not continued
    assert project.origins["train.method.rank"] == "sub/base.yaml:2"
    assert project.origins["task.kind"] == "root.yaml:1"


def test_a_mistake_in_a_parent_points_into_the_parent(folder: Path) -> None:
    (folder / "base.yaml").write_text("train:\n  lr: fast\n  epoch: 1\n")
    said = complaint(folder, "extends: base.yaml\n" + TASK + DATA)
    assert 'base.yaml:2:7: train.lr is "fast"; it must be a number' in said
    assert "base.yaml:3:3: train.epoch is not a setting. Did you mean train.epochs?" in said
    (folder / "base.yaml").write_text("train: [\n")
    assert "base.yaml:2:1: not valid YAML" in complaint(folder, "extends: base.yaml\n" + TASK + DATA)


def test_extends_stays_in_the_project_and_goes_round_nothing(folder: Path) -> None:
    outside = folder.parent / f"{folder.name}-outside.yaml"
    outside.write_text("model: x\n")
    (folder / "link.yaml").symlink_to(outside)
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "a.yaml").write_text("extends: b.yaml\n")
    (folder / "b.yaml").write_text("extends: a.yaml\n")
    for name, says in {
        f"../{outside.name}": "leads out of the project folder",
        "link.yaml": "leads out of the project folder",
        str(outside): "is an absolute path",
        "nope.yaml": "extends: nope.yaml does not exist",
        ".": "is not a file",
        "tunesmith.yaml": "extends goes round in a circle: tunesmith.yaml → tunesmith.yaml",
        "loop.yaml": "loop.yaml",
        "x" * 300: "cannot be followed",
    }.items():
        said = complaint(folder, f"extends: {name}\n{TASK}{DATA}")
        assert says in said, name
        assert said.startswith("tunesmith.yaml:1:10: "), name
    assert "b.yaml:1:10: extends goes round in a circle: a.yaml → b.yaml → a.yaml" in complaint(
        folder, f"extends: a.yaml\n{TASK}{DATA}"
    )
    assert "extends is a list; it must be text" in complaint(folder, f"extends: [a.yaml]\n{TASK}{DATA}")


# finding it


def test_the_project_is_found_upwards(folder: Path) -> None:
    loaded(folder, DEMO)
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    assert find_project(deep) == folder / "tunesmith.yaml"
    assert find_project(folder) == folder / "tunesmith.yaml"
    assert find_project(folder / "tunesmith.yaml") == folder / "tunesmith.yaml"
    assert load(folder).path == folder / "tunesmith.yaml"


def test_no_project_names_init(tmp_path: Path) -> None:
    with pytest.raises(ProjectFileError, match=r"no tunesmith\.yaml here or in any folder above") as e:
        find_project(tmp_path)
    assert "tunesmith init NAME" in str(e.value)
    with pytest.raises(ProjectFileError, match="there is no such folder"):
        find_project(tmp_path / "nope")
    with pytest.raises(ProjectFileError, match="does not exist"):
        load(tmp_path / "nope" / "tunesmith.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_says_so(folder: Path) -> None:
    loaded(folder, DEMO)
    (folder / "tunesmith.yaml").chmod(0)
    with pytest.raises(StorageError, match=r"tunesmith.yaml cannot be read: Permission denied"):
        load(folder)


# names


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("learning_rate", "train.lr"), ("train.learning_rate", "train.lr"), ("training.lr", "train.lr"),
        ("train.batch_size", "train.global_batch"), ("train.num_train_epochs", "train.epochs"),
        ("lora_r", "train.method.rank"), ("train.rank", "train.method.rank"), ("task.input", "task.text"),
        ("task.target", "task.label"), ("base_model", "model"), ("data.path", "data.files"), ("eval", "evaluate"),
        ("goal", "goals"), ("serve.prot", "serve.port"), ("data.split.val", "data.split.validation"),
        ("qqq", ""), ("train.zzzzzz", ""),
    ],
)  # fmt: skip
def test_habits_from_other_tools_find_their_key(said: str, meant: str) -> None:
    assert nearest_key(said) == meant


def test_other_tools_names_lead_to_real_settings() -> None:
    assert set(OTHER_NAMES) <= set(setting_keys())
