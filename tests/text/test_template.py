"""A chat template is a program from elsewhere: it can refuse, but not hang, eat memory or reach Python."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.text.families import TEMPLATES, make_family
from tunesmith.core.errors import ModelError
from tunesmith.text import template as module
from tunesmith.text.render import Renderer
from tunesmith.text.template import ChatTemplate, TemplateRefusal

USER = [{"role": "user", "content": "Hello"}]


def load(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"}, where="model/chat_template.jinja")


def write(source: str) -> str:
    return load(source).write(USER, add_generation_prompt=True)


HOSTILE = {
    "a loop of nine million steps": "{% for a in range(3000) %}{% for b in range(3000) %}{% for c in range(9) %}{% endfor %}{% endfor %}{% endfor %}",
    "a gigabyte by format": "{{ '%1000000000d' | format(1) }}",
    "a gigabyte by str.format": "{{ '{:>1000000000}'.format(1) }}",
    "a gigabyte by multiplication": "{{ 'x' * 1000000000 }}",
    "a gigabyte while compiling": "{% if 'x' * 1000000000 == 'y' %}{% endif %}",
    "a million lines": "{% for a in range(2000) %}{% for b in range(2000) %}line\n{% endfor %}{% endfor %}",
    "a list that doubles": "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
}


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE)
def test_a_template_that_takes_too_much_is_refused_in_seconds(source: str) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        load(source)
    message = str(caught.value)
    assert message.startswith("model/chat_template.jinja: the chat template ")
    assert "needs more than 2 s or 512 MB" in message or "wrote more than 1,048,576 characters" in message
    assert "fix:" in message
    assert time.monotonic() - start < module.WALL_SECONDS


def test_a_long_text_may_be_written_but_a_template_may_not_inflate_it() -> None:
    long = [{"role": "user", "content": "x" * 3_000_000}]
    assert len(load("{{ messages[0].content }}").write(long, add_generation_prompt=True)) == 3_000_000
    with pytest.raises(ModelError, match="wrote more than"):
        load("{% for i in range(5) %}{{ messages[0].content }}{% endfor %}").write(long, add_generation_prompt=True)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ strftime_now.__self__.__reduce__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append(1) }}",
        "{{ lipsum.__globals__['os'] }}",
        "{{ 'x'.__format__.__self__ }}",
        "{{ '{0.__class__.__base__}'.format('') }}",
    ],
)
def test_a_template_cannot_reach_python(source: str) -> None:
    with pytest.raises(TemplateRefusal):
        write(source)


def test_a_template_that_is_not_jinja_is_refused_with_its_line() -> None:
    with pytest.raises(ModelError, match=r"is not valid Jinja: line 2: .*endif"):
        load("{% if messages %}\n{% endfor %}")


def test_what_a_template_raises_is_told() -> None:
    with pytest.raises(TemplateRefusal, match="roles must alternate"):
        write("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(TemplateRefusal, match="division"):
        write("{{ 1 // 0 }}")


def test_the_tools_of_transformers_are_there() -> None:
    assert write("{{ {'a': 'é<', 'b': none} | tojson }}") == '{"a": "é<", "b": null}'
    assert write("{% for m in messages %}{% break %}{% endfor %}{{ bos_token }}") == "<s>"
    assert write("{% if true %}\n  {% set x = 1 %}\n{{ x }}{% endif %}") == "1"
    assert write("{% generation %}Hi{% endgeneration %}") == "Hi"
    assert write("{{ namespace(a=1).a }}{{ add_generation_prompt }}{{ tools }}") == "1TrueNone"


def test_the_date_never_changes() -> None:
    """Else a model trained today would see other tokens tomorrow."""
    assert write("{{ strftime_now('%d %b %Y') }}") == "26 Jul 2024"


def test_a_known_template_starts_no_second_child(monkeypatch: pytest.MonkeyPatch) -> None:
    load("{{ messages[0].content }} once")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr(module.subprocess, "run", refuse)
    load("{{ messages[0].content }} once")
    with pytest.raises(AssertionError):
        load("{{ messages[0].content }} twice")


@pytest.mark.slow
def test_mutated_templates_load_or_are_refused(tmp_path: Path) -> None:
    """300 seeded mutations of real layouts: no traceback of ours, no hang."""
    generator = random.Random(0)
    sources = [p.read_text(encoding="utf-8") for p in sorted(TEMPLATES.glob("*.jinja"))]
    outcomes = {"loaded": 0, "refused": 0}
    for i in range(300):
        source = generator.choice(sources)
        for _ in range(generator.randint(1, 4)):
            place, other = generator.randrange(len(source)), generator.choice(sources)
            cut = generator.randrange(len(other))
            change = generator.choice(["", "{%", "}}", "{{", "'", other[cut : cut + 30], "|", " * 99999999", "\x00"])
            source = source[:place] + change + source[place + generator.randint(0, 5) :]
        start = time.monotonic()
        try:
            Renderer.load(make_family(tmp_path / str(i), "chatml", template=source)).describe()
            outcomes["loaded"] += 1
        except ModelError:
            outcomes["refused"] += 1
        assert time.monotonic() - start < module.WALL_SECONDS
    assert min(outcomes.values()) > 10
