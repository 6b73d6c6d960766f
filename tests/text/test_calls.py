"""Tool calls, tools and weights become the tokens that the model's own template writes, or are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.text.families import make_family
from tunesmith.core.errors import DataError
from tunesmith.core.nouns import Message, Row, ToolCall
from tunesmith.text.render import Rendered, Renderer

# As Qwen2.5's: tools in the system turn, calls and answers between marks
TOOLS_TEMPLATE = """\
{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content }}{%- endif %}
{{- '\\n\\n<tools>' }}{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}{{- '\\n</tools><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) or (m.role == 'assistant' and not m.tool_calls) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{{- '<|im_start|>assistant' }}{%- if m.content %}{{- '\\n' + m.content }}{%- endif %}
{%- for call in m.tool_calls %}{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}{{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

ASK = Message(role="user", content="Weather in Kraków?")
CALL = Message(
    role="assistant", content="", tool_calls=(ToolCall(name="weather", arguments='{"city": "Kraków"}', id="c1"),)
)
RESULT = Message(role="tool", content='{"sky": "clear"}', tool_call_id="c1")
TOOLS = (
    {
        "type": "function",
        "function": {"name": "weather", "description": "Now.", "parameters": {"type": "object", "properties": {}}},
    },
)
CALL_TEXT = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kraków"}}\n</tool_call><|im_end|>'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("tools") / "m", "chatml", template=TOOLS_TEMPLATE)


@pytest.fixture(scope="module")
def renderer(folder: Path) -> Renderer:
    return Renderer.load(folder)


def trained(renderer: Renderer, rendered: Rendered) -> list[str]:
    """The runs of trained tokens, as text."""
    runs: list[str] = []
    before = False
    for id, is_trained in zip(rendered.ids, rendered.trained, strict=True):
        if is_trained:
            if not before:
                runs.append("")
            runs[-1] += renderer.tokenizer.piece(id)
        before = is_trained
    return runs


def text(renderer: Renderer, ids: tuple[int, ...] | list[int]) -> str:
    return "".join(renderer.tokenizer.piece(id) for id in ids)


def test_a_conversation_with_tools_reads_as_transformers_writes_it(folder: Path, renderer: Renderer) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    messages = [
        {"role": "user", "content": ASK.content},
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Kraków"}}}],
        },
        {"role": "tool", "content": RESULT.content, "name": "weather"},
    ]
    want = theirs.apply_chat_template(messages, tools=list(TOOLS), add_generation_prompt=True, tokenize=False)
    got = renderer.prompt((ASK, CALL, RESULT), TOOLS)
    assert got == theirs(want, add_special_tokens=False)["input_ids"]


def test_earlier_calls_and_the_answer_are_trained_and_what_tools_say_is_not(renderer: Renderer) -> None:
    rendered = renderer.render((ASK, CALL, RESULT), "Clear.", TOOLS)
    runs = trained(renderer, rendered)
    assert len(runs) == 2 and runs[1] == "Clear.<|im_end|>"
    assert runs[0].startswith('<tool_call>\n{"name": "weather"')
    assert runs[0].endswith("</tool_call><|im_end|>")
    assert rendered.ids[: len(renderer.prompt((ASK, CALL, RESULT), TOOLS))] == tuple(
        renderer.prompt((ASK, CALL, RESULT), TOOLS)
    )


def test_a_row_whose_answer_is_a_call_trains_the_turn_that_the_template_writes(renderer: Renderer) -> None:
    rendered = renderer.render((ASK, CALL), "for people", TOOLS)
    prompt = renderer.prompt((ASK, CALL), TOOLS)  # what a served model is asked: the call is not in it
    assert "tool_call" not in text(renderer, prompt) and text(renderer, prompt).endswith("<|im_start|>assistant\n")
    assert list(rendered.ids[: len(prompt)]) == prompt and not any(rendered.trained[: len(prompt)])
    assert all(rendered.trained[len(prompt) :])
    said = renderer.tokenizer.decode(rendered.ids[len(prompt) :])
    assert said.strip() == CALL_TEXT.removesuffix("<|im_end|>") and rendered.ids[-1] == renderer.stop_id


def test_many_at_once_are_the_same_as_one_by_one(renderer: Renderer) -> None:
    plain = ((ASK,), "Clear.")
    examples = [plain, ((ASK, CALL, RESULT), "Clear.", TOOLS), ((ASK, CALL), "x", TOOLS), ((), "text")]
    many = renderer.render_many(examples)  # type: ignore[arg-type]
    assert many == [renderer.render(*e) for e in examples]  # type: ignore[misc]


def test_rows_are_rendered_with_their_tools(renderer: Renderer) -> None:
    row = Row(id="i", messages=(ASK,), target="Clear.", file="f", line=1, group="g", tools=TOOLS)
    assert renderer.render_rows([row]) == [renderer.render((ASK,), "Clear.", TOOLS)]
    assert renderer.render_rows([row]) != [renderer.render((ASK,), "Clear.")]


def test_a_special_token_spelt_in_arguments_is_text(renderer: Renderer) -> None:
    spelt = Message(
        role="assistant", content="", tool_calls=(ToolCall(name="f", arguments='{"a<|im_end|>": ["<|im_start|>"]}'),)
    )
    ids = renderer.render((ASK, spelt), "x").ids
    stops = [i for i in ids if i == renderer.stop_id]
    assert len(stops) == 2 and text(renderer, ids).count("<|im_end|>") == 3  # the user's turn, the answer's, and a text


@pytest.mark.parametrize("family", ["chatml", "llama2", "gemma", "plain"])
def test_a_template_that_knows_no_tools_is_refused_for_rows_with_tools(tmp_path: Path, family: str) -> None:
    renderer = Renderer.load(make_family(tmp_path / family, family))
    with pytest.raises(DataError, match="the model's chat template leaves out") as caught:
        renderer.render((ASK, CALL, RESULT), "Clear.", TOOLS)
    assert "choose a model whose template knows tools" in str(caught.value)
    with pytest.raises(DataError, match="leaves out the declared tools"):
        renderer.prompt((ASK,), TOOLS)
    assert renderer.render((ASK,), "Clear.")


def test_text_beside_calls_that_the_template_drops_is_refused(tmp_path: Path) -> None:
    silent = TOOLS_TEMPLATE.replace("{%- if m.content %}{{- '\\n' + m.content }}{%- endif %}", "")
    renderer = Renderer.load(make_family(tmp_path / "m", "chatml", template=silent))
    speaking = Message(role="assistant", content="Let me look.", tool_calls=CALL.tool_calls)
    assert renderer.render((ASK, CALL, RESULT), "Clear.")
    for messages in ((ASK, speaking), (ASK, speaking, RESULT)):
        with pytest.raises(DataError, match="leaves out what the assistant says beside its tool calls: 'Let me look"):
            renderer.render(messages, "Clear.")


def test_a_turn_of_weight_0_is_in_the_prompt_and_not_trained(renderer: Renderer) -> None:
    bad = Message(role="assistant", content="Wrong.", weight=0.0)
    good = Message(role="assistant", content="Right.")
    rendered = renderer.render((ASK, bad, ASK, good, ASK), "Last.")
    assert trained(renderer, rendered) == ["Right.<|im_end|>", "Last.<|im_end|>"]
    assert "Wrong.<|im_end|>" in text(renderer, rendered.ids)
    every = renderer.render((ASK, Message(role="assistant", content="Wrong."), ASK, good, ASK), "Last.")
    assert rendered.ids == every.ids  # a weight changes what is trained, never what is read
    alone = renderer.render((ASK, bad, ASK), "Last.")
    assert trained(renderer, alone) == ["Last.<|im_end|>"]


def test_a_call_of_weight_0_is_not_trained(renderer: Renderer) -> None:
    skipped = Message(role="assistant", content="", tool_calls=CALL.tool_calls, weight=0.0)
    assert trained(renderer, renderer.render((ASK, skipped, RESULT), "Clear.", TOOLS)) == ["Clear.<|im_end|>"]


def test_arguments_keep_their_json_values(renderer: Renderer) -> None:
    arguments = {"n": 1, "x": 2.5, "on": True, "none": None, "list": ["a", {"b": "ć"}]}
    call = Message(role="assistant", content="", tool_calls=(ToolCall(name="f", arguments=json.dumps(arguments)),))
    rendered = renderer.render((ASK, call), "x")
    said = renderer.tokenizer.decode(rendered.ids[len(renderer.prompt((ASK, call))) :])
    assert json.loads(said.split("<tool_call>")[1].split("</tool_call>")[0])["arguments"] == arguments
