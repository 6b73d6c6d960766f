"""What is found out about a template at loading, and what is refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.text.families import make_family
from tunesmith.core.errors import DataError, ModelError
from tunesmith.core.nouns import Message
from tunesmith.text.layout import fold_system
from tunesmith.text.render import Renderer

USER = (Message(role="user", content="Hi"),)
BODY = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + CONTENT + '<|im_end|>\n' }}{% endfor %}"
GENERATE = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"


def load(folder: Path, template: str) -> Renderer:
    return Renderer.load(make_family(folder, "chatml", template=template))


def test_a_template_without_generation_prompt_still_ends_prompts_where_answers_begin(tmp_path: Path) -> None:
    without = load(tmp_path / "a", BODY.replace("CONTENT", "m.content"))
    with_it = load(tmp_path / "b", BODY.replace("CONTENT", "m.content") + GENERATE)
    assert without.layout.ends == "assistant turn"
    assert without.render(USER, "Hello") == with_it.render(USER, "Hello")


def test_a_thought_in_the_generation_prompt_is_left_out_of_the_prompt(tmp_path: Path) -> None:
    renderer = Renderer.load(make_family(tmp_path, "opens_with_thought"))
    assert renderer.layout.ends == "assistant turn"
    assert renderer.tokenizer.piece(renderer.prompt(USER)[-1]) == "<|Assistant|>"
    assert renderer.describe()["prompt_ends"] == "assistant turn"


def test_a_thinking_models_empty_thought_belongs_to_the_prompt(tmp_path: Path) -> None:
    renderer = Renderer.load(make_family(tmp_path, "thinking"))
    assert renderer.layout.ends == "generation prompt" and renderer.layout.lead == ""
    assert renderer.tokenizer._core.decode(renderer.prompt(USER)).endswith("<think>\n\n</think>\n\n")
    assert renderer.layout.history == (False, False)  # earlier turns lose their thoughts
    assert renderer.describe()["trains"] == "the last answer, where earlier turns change"


def test_the_templates_own_system_prompt_is_named(tmp_path: Path) -> None:
    own = Renderer.load(make_family(tmp_path / "a", "chatml_own_system"))
    assert own.describe()["own_system"] == "You are the maker's own assistant"
    assert Renderer.load(make_family(tmp_path / "b", "chatml")).describe()["own_system"] == ""
    given = Renderer.load(tmp_path / "a", system="Mine.")
    assert "maker" not in given.tokenizer._core.decode(given.prompt(USER), skip_special_tokens=False)


@pytest.mark.parametrize("family", ["gemma", "mistral_v1"])
def test_where_no_system_role_exists_it_opens_the_first_user_turn(tmp_path: Path, family: str) -> None:
    renderer = Renderer.load(make_family(tmp_path, family), system="Be brief.")
    folded = (Message(role="user", content="Be brief.\n\nHi"),)
    assert renderer.layout.folds_system
    assert renderer.prompt(USER) == Renderer.load(tmp_path).prompt(folded)


def test_folding_touches_only_the_first_user_turn() -> None:
    talk = [Message(role=r, content=c) for r, c in (("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V"))]
    assert [m.content for m in fold_system(talk)] == ["S\n\nU", "A", "V"]
    assert fold_system(talk[1:]) == talk[1:]
    assert fold_system(talk[:1]) == [Message(role="user", content="S")]


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("m.content", "as is"),
        ("m.content | trim", "stripped"),
        ("m.content.lstrip()", "stripped at the start"),
        ("m.content.rstrip()", "stripped at the end"),
        ("m.content.strip('\n')", "newlines stripped"),
        ("m.content.lstrip('\n')", "newlines stripped at the start"),
    ],
)
def test_what_a_template_strips_is_found_and_done_to_answers(tmp_path: Path, content: str, kept: str) -> None:
    renderer = load(tmp_path, BODY.replace("CONTENT", f"({content})") + GENERATE)
    assert renderer.layout.kept == kept
    long = renderer.render((*USER, Message(role="assistant", content=" \n a \n "), *USER), "x")
    assert long.trained.count(True) == len(renderer.answer(" \n a \n ")) + len(renderer.answer("x"))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("(m.content | upper)", "does not write the user's and the assistant's text exactly once"),
        ("m.content + m.content", "does not write the user's and the assistant's text exactly once"),
        ("('' if m.role == 'assistant' else m.content)", "does not write the user's and the assistant's text"),
        ("m.content.replace('\n', ' ')", "changes the assistant's text beyond stripping white space"),
        ("raise_exception('no')", "refuses the turns user: no"),
    ],
)
def test_a_template_that_answers_cannot_be_learned_from_is_refused(tmp_path: Path, content: str, why: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path, BODY.replace("CONTENT", content) + GENERATE)
    assert why in str(caught.value) and "chat_template.jinja" in str(caught.value) and "fix:" in str(caught.value)


def test_without_a_special_token_after_the_answer_the_end_of_sequence_stops(tmp_path: Path) -> None:
    renderer = load(tmp_path, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
    assert renderer.stop_id == renderer.tokenizer.eos_id
    assert renderer.layout.history == (False, False)  # earlier turns have no stop token to learn


def test_the_stop_token_is_what_the_template_writes_not_the_end_of_sequence(tmp_path: Path) -> None:
    renderer = Renderer.load(make_family(tmp_path, "llama3"))
    assert renderer.tokenizer.piece(renderer.stop_id) == "<|eot_id|>"
    assert renderer.stop_ids == {renderer.stop_id, renderer.tokenizer.eos_id}


def test_turns_that_a_template_refuses_are_an_error_of_the_row(tmp_path: Path) -> None:
    renderer = Renderer.load(make_family(tmp_path, "gemma"))
    with pytest.raises(DataError) as caught:
        renderer.prompt((*USER, *USER))
    assert "refuses the turns user, user: Conversation roles must alternate" in str(caught.value)
    assert "fix:" in str(caught.value)


def test_a_turn_that_a_template_leaves_out_is_an_error_of_the_row(tmp_path: Path) -> None:
    silent = (
        "{% for m in messages %}{% if m.role != 'tool' %}"
        + BODY.replace("CONTENT", "m.content")[23:-12]
        + "{% endif %}{% endfor %}"
    )
    renderer = load(tmp_path, silent + GENERATE)
    with pytest.raises(DataError, match="leaves out what tools answer"):
        renderer.prompt((*USER, Message(role="assistant", content="?"), Message(role="tool", content="42")))


def test_an_earlier_turn_that_a_template_rewrites_is_an_error_of_the_row(tmp_path: Path) -> None:
    cuts = BODY.replace("CONTENT", "m.content.split('SECRET')[-1]")
    renderer = load(tmp_path, cuts + GENERATE)
    talk = (*USER, Message(role="assistant", content="a SECRET b"), *USER)
    with pytest.raises(DataError, match="changes an earlier assistant turn"):
        renderer.render(talk, "x")
    assert renderer.prompt(talk)  # served, it is only context


def test_text_of_noncharacters_is_refused_only_when_none_is_left(tmp_path: Path) -> None:
    renderer = Renderer.load(make_family(tmp_path, "chatml"))
    some = "".join(map(chr, range(0xFDD0, 0xFDE0)))
    assert renderer.tokenizer._core.decode(renderer.prompt((Message(role="user", content=some),))).count(some) == 1
    with pytest.raises(DataError, match="noncharacters"):
        renderer.prompt((Message(role="user", content="".join(map(chr, range(0xFDD0, 0xFDF0)))),))
