"""tunesmith ask: one question."""

from __future__ import annotations

import sys

import click

from tunesmith.cli.common import common, opened
from tunesmith.cli.show import show


@click.command()
@click.argument("text")
@click.option("--model", "name", default="prod", metavar="NAME", help="An alias, or a bundle's id. Default: prod.")
@common
def ask(text: str, name: str, project: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Ask it one question.

    TEXT may be - to read it from standard input.
    """
    if text == "-":
        text = sys.stdin.read()
    with opened(project, overrides) as p:
        answer = p.ask(text, model=name)
    show(answer, as_json)
