"""Turns and rows may count differently in the loss, from the user's file to the sum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tiny import CHATML
from tunesmith.api import Project
from tunesmith.cli.app import run
from tunesmith.core.canonical import read_lines
from tunesmith.core.nouns import Message, Row, ToolCall
from tunesmith.flows.run import walk
from tunesmith.model.load import load_base
from tunesmith.text.render import Renderer
from tunesmith.train.batches import last_turn_only, render_rows
from tunesmith.train.forward import FlatForward, PlainForward

PROJECT = """\
task: {{kind: chat}}
data: {{files: [chats.jsonl], weight: {weight}, split: {{max_deviation: 0.9, near: 0}}}}
model: {model}
train: {{method: {{kind: lora, rank: 4}}, lr: 1e-2, epochs: 1, precision: fp32, validate_times: 1}}
evaluate: {{resamples: 200, arms: [zero_shot], max_new_tokens: 8}}
goals: [beats: [zero_shot]]
"""
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\n' + tools|tojson + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + (m['content'] or '') }}"
    "{% if m['tool_calls'] %}{% for c in m['tool_calls'] %}{{ '<tool_call>' + c['function']['name'] + ' ' }}"
    "{{ c['function']['arguments'] if c['function']['arguments'] is string else c['function']['arguments']|tojson }}"
    "{{ '</tool_call>' }}{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def turn(role: str, content: str, **more: object) -> Message:
    return Message(role=role, content=content, **more)  # type: ignore[arg-type]


def row(*messages: Message, target: str, weight: float = 1.0) -> Row:
    return Row(id="a", messages=messages, target=target, file="f", line=1, group="a", weight=weight)


def conversation(first: float) -> tuple[Message, ...]:
    return (turn("user", "ball"), turn("assistant", "sports", weight=first), turn("user", "aktie"))


def test_a_turn_of_half_weight_counts_half_on_every_path(tiny_llama: Path) -> None:
    renderer, model = Renderer.load(tiny_llama), load_base(tiny_llama, dtype="fp32")
    forwards = [PlainForward(model, precision="fp32", autocast=False, seed=0), FlatForward(model, "fp32")]
    for forward in forwards:
        sums, counts = {}, {}
        for first in (0.0, 0.5, 1.0, 3.0):
            document = render_rows([row(*conversation(first), target="business", weight=2.0)], renderer, 128)[0]
            sums[first] = float(forward.nll_sum([document], step=None).detach())
            counts[first] = document.supervised
        assert sums[0.5] == pytest.approx((sums[0.0] + sums[1.0]) / 2, rel=1e-5)
        assert sums[3.0] == pytest.approx(sums[0.0] + 3 * (sums[1.0] - sums[0.0]), rel=1e-5)
        assert counts[0.5] == pytest.approx((counts[0.0] + counts[1.0]) / 2)
    assert torch.isfinite(torch.tensor(list(sums.values()))).all()


def test_only_the_last_turn_is_trained_where_that_is_asked(tiny_llama: Path) -> None:
    renderer = Renderer.load(tiny_llama)
    every = row(*conversation(1.0), target="business")
    both, last = (renderer.render_rows([r])[0] for r in (every, last_turn_only(every)))
    assert both.ids == last.ids and sum(both.trained) > sum(last.trained)
    answer = renderer.answer("business")
    assert sum(last.trained) == len(answer) and last.ids[-len(answer) :] == tuple(answer)
    call = turn("assistant", "", tool_calls=(ToolCall(name="f", arguments="{}"),))
    asked = row(turn("user", "a"), turn("assistant", "b"), turn("user", "c"), call, target="f")
    assert [m.weight for m in last_turn_only(asked).messages] == [1, 0, 1, 1]  # the last turn is the answer


def make(folder: Path, model: Path, weight: str = "null") -> Path:
    folder.mkdir()
    lines = []
    for i in range(40):
        first = {"role": "assistant", "content": f"Number {i}, and what else?", "weight": (0, 0.25, 1)[i % 3]}
        last = {"role": "assistant", "content": f"The ball is round, {i}.", "weight": 0.5 if i % 2 else 1}
        turns = [{"role": "user", "content": f"Tell me {i}."}, first, {"role": "user", "content": "More."}, last]
        lines.append({"messages": turns, "counts": 1 + i % 2})
    for i in range(10):
        call = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": json.dumps({"n": i})}}
        turns = [
            {"role": "user", "content": f"Look up {i}."},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": f"found {i}", "tool_call_id": "c"},
            {"role": "assistant", "content": f"It is {i}."},
        ]
        tools = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
        lines.append({"messages": turns, "tools": tools, "counts": 1})
    (folder / "chats.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines), encoding="utf-8")
    (folder / "tunesmith.yaml").write_text(PROJECT.format(model=model, weight=weight), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose template writes calls."""
    from tests.tiny import make_tiny

    model = make_tiny(tmp_path_factory.mktemp("models") / "calling")
    for file in model.iterdir():
        if file.suffix in (".json", ".jinja") and CHATML in (text := file.read_text(encoding="utf-8")):
            file.write_text(text.replace(CHATML, TOOLS), encoding="utf-8")
        elif file.name == "tokenizer_config.json":
            facts = json.loads(file.read_text(encoding="utf-8"))
            if "chat_template" in facts:
                file.write_text(json.dumps(facts | {"chat_template": TOOLS}), encoding="utf-8")
    return model


def test_a_chat_of_weighted_turns_and_calls_runs_to_a_verdict(tmp_path: Path, calling: Path) -> None:
    project = Project.open(make(tmp_path / "chats", calling, weight="counts"))
    result = project.run()
    dataset = project.ledger.path(walk(project.context, "prepare").dataset_id)
    rows = [r for split in ("train", "validation", "test") for r in read_lines(dataset / f"{split}.jsonl", Row)]
    by_line = {r.line: r for r in rows}
    second = by_line[2]  # line 2: counts 2, last turn 0.5, first turn 0.25
    assert second.weight == 1.0 and [m.weight for m in second.messages if m.role == "assistant"] == [0.5]
    assert by_line[1].weight == 1.0 and [m.weight for m in by_line[1].messages if m.role == "assistant"] == [0]
    assert any(r.tools for r in rows) and result.bundle
    renderer = Renderer.load(calling)
    called = next(r for r in rows if r.tools)
    rendered = renderer.render_rows([called])[0]
    said = renderer.tokenizer.decode([i for i, t in zip(rendered.ids, rendered.trained, strict=True) if t])
    assert "look_up" in said and "It is" in said and "found" not in said and "Look up" not in said


@pytest.mark.parametrize("value", ["-1", "0", "none", "true", "NaN"])
def test_a_row_that_says_no_weight_is_refused_with_its_line(
    tmp_path: Path, tiny_llama: Path, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "chats", tiny_llama, weight="counts")
    lines = (folder / "chats.jsonl").read_text(encoding="utf-8").splitlines()
    lines[6] = lines[6].replace('"counts": 1', f'"counts": {json.dumps(value) if value == "none" else value}')
    (folder / "chats.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert run(["train", "--project", str(folder)]) == 2
    said = capsys.readouterr().err
    assert "chats.jsonl:7" in said and ("counts" in said or "NaN" in said)


def test_a_column_that_is_not_there_is_named(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make(tmp_path / "chats", tiny_llama, weight="count")
    assert run(["check", "--project", str(folder)]) == 2
    assert "did you mean 'counts'" in capsys.readouterr().err
