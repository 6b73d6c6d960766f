"""The `tunesmith` command: its verbs by name, and the one place where errors become exit codes.

0 done or passed · 1 the verdict is fail · 2 the user can mend it · 3 not enough evidence ·
4 a cell of a matrix failed · 70 a bug in Tunesmith · 130 stopped, state saved · 141 whoever read our output went away.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from tunesmith import __version__
from tunesmith.cli.lazy import LazyGroup

# in the order of the journey; the words are here so that `--help` imports no verb
VERBS: dict[str, dict[str, str]] = {
    "The journey": {
        "init": "Make a project from data files and a goal.",
        "check": "Show what is in the data and what is wrong with it.",
        "plan": "Forecast steps, memory by part, time, energy, money and disk.",
        "run": "Take every stage from the raw file to a gated bundle.",
        "report": "Write the page of the latest run and print where it is.",
    },
    "The data": {
        "data": "Look, read, clean, dedup, audit, label, split; what left and why; export.",
        "forget": "Erase a row's or a person's content everywhere.",
    },
    "Its stages, one by one": {
        "prepare": "Split the examples and count their tokens.",
        "baselines": "Answer the test set with every arm but the tuned one.",
        "train": "Train the model.",
        "lr": "Find a learning rate by a short sweep over rising ones.",
        "matrix": "Try every method on a subset, some on all rows, choose one.",
        "evaluate": "Compare the tuned model with the baselines.",
        "gate": "Judge the tuned model against the goals.",
        "bundle": "Pack what ships: weights, renderer, card, verdict.",
        "merge": "Merge an adapter into whole weights, or several into one.",
        "tasks": "Train several projects' models, one after another, to be served on one base.",
    },
    "The model": {
        "serve": "Serve it over an OpenAI-compatible API.",
        "adapters": "List, add or remove adapters of the running server.",
        "ask": "Ask it one question.",
        "predict": "Answer every row of a file.",
    },
    "Looking things up": {
        "tokens": "Show one example's tokens and which are trained.",
        "runs": "List what was executed, newest first.",
        "show": "Show one run, artifact or alias.",
        "diff": "Show what differs between two runs or artifacts.",
        "lineage": "Show what a thing was made from.",
        "config": "Show every setting and where it was said.",
        "methods": "Show every training method: what it trains, what it reads, when to use it.",
        "schema": "Print the JSON Schema of tunesmith.yaml.",
        "doctor": "Re-hash everything stored and explain what is wrong.",
        "backup": "Write a consistent copy of what the project has learnt.",
    },
}
COMPLETION = "_TUNESMITH_COMPLETE"
NAMES = tuple(name for section in VERBS.values() for name in section)


def _verb(name: str) -> click.Command:
    command: click.Command = getattr(importlib.import_module(f"tunesmith.cli.verbs.{name}"), name)
    return command


@click.group(
    cls=LazyGroup,
    sections=VERBS,
    load=_verb,
    parent_name="tunesmith",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Every verb takes --project DIR, --set KEY=VALUE and --json. `tunesmith VERB --help` says more.",
)
@click.version_option(__version__, prog_name="tunesmith", message="%(prog)s %(version)s")
def tunesmith() -> None:
    """From a raw file and a goal to a gated, served model.

    \b
      tunesmith init coding --kind classify --data diagnoses.csv --text description --label chapter
      cd coding
      tunesmith run
      tunesmith ask "Fracture of shaft of left tibia"
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no reason to fail
    try:
        code = _invoke(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    return code


def _invoke(arguments: list[str]) -> int:
    as_json = "--json" in arguments
    if COMPLETION in os.environ:  # the shell asks for names
        tunesmith.main(args=arguments, prog_name="tunesmith")
    try:
        # not tunesmith.main(): it ends a closed pipe with exit code 1, which here says that a goal was not met
        with tunesmith.make_context("tunesmith", list(arguments)) as context:
            tunesmith.invoke(context)
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else int(e.code is not None)
    except click.exceptions.Exit as e:
        return e.exit_code
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.ctx.get_help() if e.ctx else e.format_message())
        return 2
    except BrokenPipeError:
        raise
    except (Exception, KeyboardInterrupt) as e:
        from tunesmith.cli import endings  # late: most commands end well

        return endings.ended(e, arguments[0] if arguments else "", as_json)
    return 0


def _reader_left() -> int:
    """`tunesmith runs | head -1`: quiet, with the code that shells give for a closed pipe."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # or the interpreter complains when it flushes at exit
    return 141
