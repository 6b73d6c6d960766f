"""A model's chat template, run as the untrusted program it is.

A chat template is Jinja code that arrives with a model. It runs in Jinja's immutable sandbox, which keeps
it from Python's internals but not from looping or allocating for ever. So a template that this process has
not seen yet first renders probe dialogues in a child process with 2 s of CPU time, 512 MB of memory and 1 MB
of output; only then is it compiled here, and every later rendering stops at a bound on its output. What
remains: a template that behaves on the probes and turns on a particular text.

The globals and filters are those that transformers offers (utils/chat_template_utils.py), but for one:
`strftime_now` gives a fixed date. A model trained on one day must see the same tokens on the next.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tunesmith.core.errors import ModelError

CPU_SECONDS = 2
MEMORY_BYTES = 512 << 20
OUTPUT_CHARS = 1 << 20  # beyond twice the length of the messages themselves
WALL_SECONDS = 30  # for the child as a whole: a busy machine is slow to start it
TODAY = datetime.datetime(2024, 7, 26)  # what Llama 3's own template falls back to

# The layout of a base model that has no chat template: plain text that such a model has seen much of.
PLAIN = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ m.content | trim + '\n\n' }}"
    "{% elif m.role == 'assistant' %}{{ 'Assistant: ' + m.content | trim + eos_token + '\n' }}"
    "{% elif m.role == 'tool' %}{{ 'Tool: ' + m.content | trim + '\n' }}"
    "{% else %}{{ 'User: ' + m.content | trim + '\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


class TemplateRefusal(Exception):
    """The template raised an error for these messages, for instance "roles must alternate"."""


class TooMuch(Exception):
    """The template wrote more than it may."""


EXCESSES = (TooMuch, RecursionError, MemoryError, OverflowError)
BOUNDS = f"{CPU_SECONDS} s or {MEMORY_BYTES >> 20} MB for some short dialogues"


def _excess(e: BaseException) -> str:
    return str(e) if isinstance(e, TooMuch) else f"needs more than {BOUNDS}"


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's text for transformers; here it only lets its body through."""

    tags = {"generation"}  # noqa: RUF012  as Extension declares it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


@lru_cache(maxsize=32)
def _compile(source: str) -> jinja2.Template:
    # optimized=False: constant folding would run "x" * 10**9 while compiling
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        optimized=False,
        extensions=[_Generation, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = TODAY.strftime
    return environment.from_string(source)


def _run(template: jinja2.Template, messages: Messages, limit: int, variables: Mapping[str, Any]) -> str:
    written, parts = 0, []
    for part in template.generate(messages=messages, **variables):
        written += len(part)
        if written > limit:
            raise TooMuch(f"wrote more than {limit:,} characters")
        parts.append(part)
    return "".join(parts)


class ChatTemplate:
    """Messages to text. `variables` are what transformers passes too: bos_token, eos_token and the like."""

    def __init__(self, source: str, variables: Mapping[str, Any], *, where: str):
        """Raises ModelError when the template is not Jinja, or takes too long or too much on simple dialogues."""
        self.source = source
        self.sha256 = hashlib.sha256(source.encode()).hexdigest()
        self._variables = {"tools": None, "documents": None, "enable_thinking": False, **variables}
        self._where = where
        if trouble := _trouble(source, json.dumps(self._variables, sort_keys=True)):
            raise ModelError(
                f"the chat template {trouble}", where=where, fix="use a model folder whose template you trust"
            )
        self._template = _compile(source)

    def write(self, messages: Messages, *, add_generation_prompt: bool, tools: Tools = ()) -> str:
        """Raises TemplateRefusal with the template's own words when it does not take these messages."""
        limit = OUTPUT_CHARS + 2 * sum(len(m["content"]) for m in messages)
        variables = {**self._variables, "add_generation_prompt": add_generation_prompt}
        if tools or any("tool_calls" in m for m in messages):
            limit += 4 * len(json.dumps([list(messages), list(tools)]))
            variables["tools"] = list(tools) or None
        try:
            return _run(self._template, messages, limit, variables)
        except EXCESSES as e:
            raise ModelError(f"the chat template {_excess(e)}", where=self._where) from e
        except Exception as e:  # a foreign program can raise anything
            raise TemplateRefusal(str(e) or type(e).__name__) from e


def _dialogues() -> list[list[dict[str, Any]]]:
    """What an unknown template must get through: every role, one turn and many, short and long, a call of a tool."""
    system = {"role": "system", "content": "Be brief."}
    user = {"role": "user", "content": "Hello, world. " * 20}
    assistant = {"role": "assistant", "content": "Hi!"}
    function = {"name": "look_up", "arguments": {"word": "hello", "more": [1, {"a": None}]}}
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": "a1b2c3d4e", "function": function}],
    }
    result = {"role": "tool", "content": "a greeting", "name": "look_up", "tool_call_id": "a1b2c3d4e"}
    return [
        [user],
        [system, user],
        [user, assistant],
        [system, *[user, assistant] * 4, user],
        [system, user, call, result, assistant],
    ]


def _tools(messages: Messages) -> list[dict[str, Any]] | None:
    """For a dialogue that calls a tool: its declaration."""
    if not any("tool_calls" in m for m in messages):
        return None
    word = {"type": "object", "properties": {"word": {"type": "string", "description": "a word"}}, "required": ["word"]}
    return [{"type": "function", "function": {"name": "look_up", "description": "looks up", "parameters": word}}]


@lru_cache(maxsize=256)
def _trouble(source: str, variables: str) -> str:
    """Why a template cannot be used, found in a child process; empty when it can."""
    request = json.dumps({"source": source, "variables": json.loads(variables)}).encode()
    path = os.pathsep.join(p for p in sys.path if p and p != os.getcwd())  # noqa: PTH109
    try:
        child = subprocess.run(  # our own interpreter and code; the template is data on stdin
            [sys.executable, "-P", "-c", "from tunesmith.text.template import _child; _child()"],
            input=request,
            capture_output=True,
            timeout=WALL_SECONDS,
            env={**os.environ, "PYTHONPATH": path},
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"did not finish some short dialogues in {WALL_SECONDS} s"
    if child.returncode < 0 or not child.stdout:
        reason = f"needs more than {BOUNDS}"
        detail = child.stderr.decode(errors="replace").strip().splitlines()
        return reason if child.returncode < 0 or not detail else f"{reason} ({detail[-1]})"
    return str(json.loads(child.stdout)["trouble"])


def _child() -> None:
    """The child process: limits first, then the template."""
    request = json.loads(sys.stdin.buffer.read())
    try:
        import resource
    except ImportError:  # Windows has no such limits; the parent's timeout remains
        pass
    else:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    trouble = ""
    try:
        template = _compile(request["source"])
        for messages in _dialogues():
            for generate in (True, False):
                variables = {**request["variables"], "add_generation_prompt": generate, "tools": _tools(messages)}
                try:
                    _run(template, messages, OUTPUT_CHARS, variables)
                except EXCESSES:
                    raise
                except Exception:  # noqa: S112  refusing a dialogue is a template's right
                    continue
    except jinja2.TemplateSyntaxError as e:
        trouble = f"is not valid Jinja: line {e.lineno}: {e.message}"
    except EXCESSES as e:
        trouble = _excess(e)
    except Exception as e:
        trouble = f"is not valid Jinja: {e}"
    sys.stdout.write(json.dumps({"trouble": trouble}))
